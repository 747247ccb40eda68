//! What a file says about itself, without compiling or running it: is it a component, which hooks does it have, what does
//! it import, what is its manifest. `load` asks the same questions before anything is compiled.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use wasmparser::{Encoding, Parser, Payload};

use super::hook;
use super::limits::Bytes;
use super::manifest::{Manifest, SECTION};
use super::requests::Requests;
use super::text::printable;
use crate::error::Failure;
use crate::registry::name::Digest;

/// A larger file is not read.
const MAX_FILE: u64 = 512 << 20;
/// Names of imports and exports that are kept.
const MAX_NAMES: usize = 4096;

/// The outside of a component.
#[derive(Debug, Default)]
pub(super) struct Anatomy {
    pub size: u64,
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    pub manifest: Option<Vec<u8>>,
    /// Bytes of code, data and names in all core modules.
    code: u64,
    data: u64,
    names: u64,
    core_modules: usize,
    encoding: Option<Encoding>,
}

/// Reads a file whole. A plugin that does not exist is a failure of the data, like any other input file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let subject = || Failure::data(format!("plugin file {} cannot be read", path.display()));
    let metadata = std::fs::metadata(path).with_context(subject)?;
    if metadata.len() > MAX_FILE {
        let limit = Bytes(MAX_FILE);
        return Err(Failure::data(format!(
            "plugin file {} is larger than {limit}",
            path.display()
        ))
        .into());
    }
    std::fs::read(path).with_context(subject)
}

/// Takes a component apart. `name` is how messages call it.
pub(super) fn examine(name: &str, bytes: &[u8]) -> Result<Anatomy> {
    if bytes.get(..4) != Some(b"\0asm") {
        let text = format!("plugin `{name}`: the file is not WebAssembly");
        return Err(Failure::data(text)
            .hint("a plugin is a WebAssembly component, usually a file *.wasm")
            .into());
    }
    let broken = |error: &str| {
        let text = format!(
            "plugin `{name}`: the file is damaged or not complete: {}",
            printable(error, 256)
        );
        Failure::data(text).hint("build or download it again")
    };
    let mut anatomy = Anatomy {
        size: bytes.len() as u64,
        ..Anatomy::default()
    };
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(|error| broken(error.message()))?;
        anatomy
            .take(&payload, &mut depth)
            .map_err(|error| broken(error.message()))?;
    }
    if anatomy.encoding == Some(Encoding::Module) {
        let text =
            format!("plugin `{name}`: the file is a core WebAssembly module, not a component");
        return Err(Failure::data(text)
            .hint("build it for the target wasm32-wasip2, which makes components")
            .into());
    }
    Ok(anatomy)
}

impl Anatomy {
    fn take(&mut self, payload: &Payload<'_>, depth: &mut usize) -> wasmparser::Result<()> {
        match payload {
            Payload::Version { encoding, .. } => {
                *depth += 1;
                self.encoding.get_or_insert(*encoding);
                self.core_modules += usize::from(*encoding == Encoding::Module);
            }
            Payload::End(_) => *depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if *depth == 1 => {
                for import in section.clone() {
                    keep(&mut self.imports, import?.name.name);
                }
            }
            Payload::ComponentExportSection(section) if *depth == 1 => {
                for export in section.clone() {
                    keep(&mut self.exports, export?.name.name);
                }
            }
            Payload::CodeSectionStart { size, .. } => self.code += u64::from(*size),
            Payload::DataSection(section) => {
                self.data += section.range().end - section.range().start
            }
            // The outermost one counts: toolchains put it into the core module, later steps around the component.
            Payload::CustomSection(section)
                if section.name() == SECTION && (self.manifest.is_none() || *depth == 1) =>
            {
                self.manifest = Some(section.data().to_vec());
            }
            Payload::CustomSection(section) if section.name() == SECTION => {}
            Payload::CustomSection(section) => self.names += section.data().len() as u64,
            _ => {}
        }
        Ok(())
    }

    /// Interfaces of our package that the component exports, without package and version.
    pub(super) fn hooks(&self) -> Vec<&str> {
        let exports = self.exports.iter();
        let ours = exports.filter_map(|export| interface(export, "trainer:plugin/"));
        let mut hooks: Vec<&str> = ours.map(|(name, _)| name).collect();
        // Toolchains order them as they like.
        hooks.sort_unstable();
        hooks
    }

    /// Its manifest, if it has one.
    pub(super) fn read_manifest(&self, name: &str) -> Result<Option<Manifest>> {
        let section = self.manifest.as_deref();
        section
            .map(|section| Manifest::parse(name, section))
            .transpose()
    }

    /// Whether this program can call it at all.
    pub(super) fn admit(&self, name: &str) -> Result<()> {
        self.check_exports(name)?;
        self.check_imports(name)?;
        let hooks = self.hooks();
        let later: Vec<&str> = hooks
            .iter()
            .copied()
            .filter(|hook| hook::NOT_YET_CALLED.contains(hook))
            .collect();
        if hooks.iter().any(|hook| hook::CALLED.contains(hook)) {
            if !later.is_empty() {
                tracing::warn!(
                    "plugin `{name}` exports {}, which this version does not call",
                    later.join(", ")
                );
            }
            return Ok(());
        }
        let text = match later.is_empty() {
            true => format!("plugin `{name}`: exports no hook"),
            false => format!(
                "plugin `{name}`: not supported by this version: {}",
                later.join(", ")
            ),
        };
        Err(Failure::data(text)
            .hint(format!("this version calls {}", hook::CALLED.join(", ")))
            .into())
    }

    fn check_exports(&self, name: &str) -> Result<()> {
        let ours = self
            .exports
            .iter()
            .filter_map(|export| interface(export, "trainer:plugin/"));
        let mut has_lifecycle = false;
        let mut any = false;
        for (hook, version) in ours {
            any = true;
            has_lifecycle |= hook == "lifecycle";
            if !compatible(version) {
                return Err(wrong_version(
                    name,
                    &format!("trainer:plugin/{hook}"),
                    version,
                ));
            }
            let known = hook::SUPPORTING.contains(&hook)
                || hook::CALLED.contains(&hook)
                || hook::NOT_YET_CALLED.contains(&hook);
            if !known {
                let text = format!(
                    "plugin `{name}`: exports the hook `{}`, which this version does not know",
                    printable(hook, 64)
                );
                return Err(Failure::data(text)
                    .hint("use a newer version of this program")
                    .into());
            }
        }
        if !any {
            let exports = printable(&self.exports.join(", "), 256);
            let text = format!(
                "plugin `{name}`: a component of another world: it exports {}",
                if exports.is_empty() {
                    "nothing"
                } else {
                    &exports
                }
            );
            return Err(Failure::data(text)
                .hint("a plugin exports interfaces of the WIT package trainer:plugin")
                .into());
        }
        if !has_lifecycle {
            let text = format!(
                "plugin `{name}`: does not export trainer:plugin/lifecycle, which every plugin needs"
            );
            return Err(Failure::data(text)
                .hint("let its world `include trainer:plugin/base`")
                .into());
        }
        Ok(())
    }

    fn check_imports(&self, name: &str) -> Result<()> {
        for import in &self.imports {
            if let Some((host, version)) = interface(import, "trainer:host/") {
                if !compatible(version) {
                    return Err(wrong_version(
                        name,
                        &format!("trainer:host/{host}"),
                        version,
                    ));
                }
                if hook::PROVIDED.contains(&host) {
                    continue;
                }
            }
            // All of WASI 0.2 is linked, and empty but for what is granted.
            let empty = [
                "wasi:cli/",
                "wasi:clocks/",
                "wasi:filesystem/",
                "wasi:http/types@",
                "wasi:http/outgoing-handler@",
                "wasi:io/",
                "wasi:random/",
                "wasi:sockets/",
            ];
            if empty.iter().any(|package| import.starts_with(package)) {
                continue;
            }
            let text = format!(
                "plugin `{name}`: imports `{}`, which this program does not provide",
                printable(import, 128)
            );
            return Err(Failure::data(text)
                .hint("a plugin may import trainer:host and WASI 0.2")
                .into());
        }
        Ok(())
    }
}

fn keep(names: &mut Vec<String>, name: &str) {
    if names.len() < MAX_NAMES {
        names.push(name.to_owned());
    }
}

/// `trainer:plugin/metrics@0.1.0` to `metrics` and `0.1.0`.
fn interface<'a>(name: &'a str, package: &str) -> Option<(&'a str, &'a str)> {
    Some(
        name.strip_prefix(package)?
            .split_once('@')
            .unwrap_or((name.strip_prefix(package)?, "")),
    )
}

/// Versions 0.1.x match each other; the linker follows the same rule.
fn compatible(version: &str) -> bool {
    let minor = |version: &str| {
        version
            .splitn(3, '.')
            .take(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    minor(version) == minor(hook::API)
}

fn wrong_version(name: &str, interface: &str, version: &str) -> anyhow::Error {
    let (interface, version) = (printable(interface, 128), printable(version, 32));
    let text = format!(
        "plugin `{name}`: speaks version {version} of {interface}; this program speaks {}",
        hook::API
    );
    Failure::data(text)
        .hint("build the plugin with this program's WIT packages, or use another version of it")
        .into()
}

/// The description as JSON: for scripts.
pub fn describe_json(path: &Path) -> Result<Value> {
    let bytes = read(path)?;
    let name = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let anatomy = examine(&name, &bytes)?;
    let manifest = anatomy.read_manifest(&name)?;
    let refusal = anatomy.admit(&name).err().map(|error| error.to_string());
    Ok(json!({
        "file": path.display().to_string(),
        "kind": "component",
        "digest": Digest::of(&bytes),
        "size": anatomy.size,
        "sizes": {"code": anatomy.code, "data": anatomy.data, "custom": anatomy.names},
        "core_modules": anatomy.core_modules,
        "hooks": anatomy.hooks(),
        "exports": anatomy.exports,
        "imports": anatomy.imports,
        "manifest": manifest,
        "loads": refusal.is_none(),
        "refusal": refusal,
    }))
}

/// The description for a reader.
pub fn describe(path: &Path) -> Result<String> {
    let facts = describe_json(path)?;
    let mut text = String::new();
    let list = |value: &Value| {
        let names: Vec<&str> = value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            printable(&names.join(", "), 4096)
        }
    };
    let bytes = |value: &Value| Bytes(value.as_u64().unwrap_or(0)).to_string();
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "{label:<10} {value}");
    };
    line(
        "file",
        facts["file"].as_str().unwrap_or_default().to_owned(),
    );
    line(
        "digest",
        facts["digest"].as_str().unwrap_or_default().to_owned(),
    );
    let sizes = &facts["sizes"];
    line(
        "size",
        format!(
            "{} (code {}, data {}, names {})",
            bytes(&facts["size"]),
            bytes(&sizes["code"]),
            bytes(&sizes["data"]),
            bytes(&sizes["custom"])
        ),
    );
    line("hooks", list(&facts["hooks"]));
    line("imports", list(&facts["imports"]));
    match facts["manifest"].as_object() {
        None => line("manifest", "none".to_owned()),
        Some(manifest) => {
            for (key, value) in manifest_lines(manifest)? {
                line(&key, value);
            }
        }
    }
    line(
        "loads",
        facts["refusal"]
            .as_str()
            .map_or_else(|| "yes".to_owned(), |reason| format!("no: {reason}")),
    );
    Ok(text)
}

/// The manifest in lines, each request with its reason.
fn manifest_lines(manifest: &serde_json::Map<String, Value>) -> Result<Vec<(String, String)>> {
    let mut lines = Vec::new();
    for (key, value) in manifest {
        if key == "requests" {
            let requests: Requests =
                serde_json::from_value(value.clone()).context("requests that were read before")?;
            let asked = requests.list()?.into_iter().map(|request| {
                let text = format!("{} ({})", request.capability, request.why);
                ("asks for".to_owned(), text)
            });
            lines.extend(asked);
            continue;
        }
        let shown = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        lines.push((key.clone(), printable(&shown, 4096)));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::kind_of;

    fn component(exports: &[&str], imports: &[&str]) -> Anatomy {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Anatomy {
            exports: own(exports),
            imports: own(imports),
            ..Anatomy::default()
        }
    }

    #[test]
    fn what_is_not_a_component_is_told_apart() {
        let module = b"\0asm\x01\0\0\0";
        let component = b"\0asm\x0d\0\x01\0";
        for (bytes, text) in [
            (&b"text"[..], "is not WebAssembly"),
            (&b""[..], "is not WebAssembly"),
            (&module[..], "is a core WebAssembly module"),
            (&component[..7], "damaged or not complete"),
            (
                &[&component[..], &[1, 200]].concat(),
                "damaged or not complete",
            ),
        ] {
            let error = examine("x", bytes).expect_err(text);
            assert!(error.to_string().contains(text), "{error}");
            assert_eq!(kind_of(&error), crate::error::Kind::Data);
        }
        examine("x", component).expect("an empty component");
    }

    #[test]
    fn each_misfit_has_its_own_message() {
        let base = "trainer:plugin/lifecycle@0.1.0";
        for (exports, imports, text) in [
            (
                &["wasi:cli/run@0.2.0"][..],
                &[][..],
                "a component of another world: it exports wasi:cli/run@0.2.0",
            ),
            (&[][..], &[][..], "it exports nothing"),
            (
                &["trainer:plugin/metrics@0.1.0"],
                &[],
                "does not export trainer:plugin/lifecycle",
            ),
            (
                &["trainer:plugin/lifecycle@0.2.0"],
                &[],
                "speaks version 0.2.0 of trainer:plugin/lifecycle",
            ),
            (
                &[base, "trainer:plugin/report-text@0.1.0"],
                &[],
                "not supported by this version: report-text",
            ),
            (
                &[base, "trainer:plugin/dream@0.1.0"],
                &[],
                "exports the hook `dream`",
            ),
            (&[base], &[], "exports no hook"),
            (
                &[base, "trainer:plugin/metrics@0.1.0"],
                &["wasi:http/incoming-handler@0.2.0"],
                "imports `wasi:http/incoming-handler@0.2.0`",
            ),
            (
                &[base, "trainer:plugin/metrics@0.1.0"],
                &["trainer:host/gpu@0.1.0"],
                "imports `trainer:host/gpu@0.1.0`",
            ),
            (
                &[base, "trainer:plugin/metrics@0.1.0"],
                &["trainer:host/run@1.0.0"],
                "speaks version 1.0.0 of trainer:host/run",
            ),
        ] {
            let error = component(exports, imports)
                .admit("x")
                .expect_err(text)
                .to_string();
            assert!(error.contains(text), "{error}");
        }
        let good = component(
            &[base, "trainer:plugin/metrics@0.1.9"],
            &[
                "trainer:host/run@0.1.3",
                "wasi:io/poll@0.2.6",
                "wasi:http/outgoing-handler@0.2.0",
            ],
        );
        good.admit("x").expect("admitted");
        assert_eq!(good.hooks(), ["lifecycle", "metrics"]);
    }
}
