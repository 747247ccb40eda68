//! The form of a plugin in a registry: the layout of WebAssembly artifacts that other tools write and read too. One
//! manifest, one configuration that repeats imports and exports, one layer with the component; signatures as manifests
//! that name what they sign as their subject.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::name::{Digest, shown};
use super::store::{MAX_BLOB, MAX_SIGNATURES};
use crate::error::Failure;

/// An image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// A list of manifests.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The configuration of a WebAssembly artifact.
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// A component.
const WASM: &str = "application/wasm";
/// The configuration of an artifact that has none, and its content.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The content of a configuration that says nothing.
pub const EMPTY_CONFIG: &[u8] = b"{}";
/// Signatures in minisign's form, as an artifact and as its layers.
const SIGNATURE: &str = "application/vnd.host.plugin.signature.v1+minisign";
/// A longer manifest is refused.
pub const MAX_MANIFEST: u64 = 1 << 20;
/// Signatures of one manifest.
const MAX_SIGNERS: usize = 16;

/// What a manifest says of a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// What kind of artifact a manifest in a list is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            artifact_type: None,
        }
    }
}

/// An image manifest. Fields that this program does not need are let pass: others write manifests too.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// What is known of a component that is published.
#[derive(Debug)]
pub struct Published<'a> {
    /// The component.
    pub wasm: &'a [u8],
    /// Names of its imports.
    pub imports: &'a [String],
    /// Names of its exports.
    pub exports: &'a [String],
    /// Title, version, description, licence and source, as far as they are known.
    pub annotations: BTreeMap<&'static str, String>,
}

/// The two texts beside the component.
#[derive(Debug)]
pub struct Artifact {
    /// The manifest.
    pub manifest: Vec<u8>,
    /// The configuration.
    pub config: Vec<u8>,
}

impl Artifact {
    /// The same component always gives the same bytes, so that publishing it again moves nothing: the time of creation
    /// that the layout wants is the beginning of time.
    pub fn new(published: &Published<'_>) -> Result<Self> {
        let layer = Descriptor::of(WASM, published.wasm);
        let config = json!({
            "created": "1970-01-01T00:00:00Z",
            "author": null,
            "architecture": "wasm",
            "os": "wasip2",
            "layerDigests": [layer.digest],
            "component": {"exports": published.exports, "imports": published.imports, "target": null},
        });
        let config = config.to_string().into_bytes();
        let prefixed = |(key, value): (&&str, &String)| {
            (format!("org.opencontainers.image.{key}"), value.clone())
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(MANIFEST.to_owned()),
            artifact_type: None,
            config: Descriptor::of(CONFIG, &config),
            layers: vec![layer],
            subject: None,
            annotations: published.annotations.iter().map(prefixed).collect(),
        };
        Ok(Self {
            manifest: serde_json::to_vec(&manifest).context("a manifest as JSON")?,
            config,
        })
    }
}

/// The component that a manifest names; an error for whatever is not one WebAssembly component.
pub fn component(manifest: &[u8]) -> Result<Descriptor> {
    let manifest = parse(manifest)?;
    let kind = manifest.config.media_type.as_str();
    if kind != CONFIG {
        bail!(Failure::data(format!(
            "it is no WebAssembly component: its configuration is `{}` instead of `{CONFIG}`",
            shown(kind)
        )));
    }
    match &manifest.layers[..] {
        [layer] if layer.media_type == WASM && (1..=MAX_BLOB).contains(&layer.size) => {
            Ok(layer.clone())
        }
        [layer] if layer.media_type == WASM => bail!(Failure::data(format!(
            "its component has {} bytes; the limit is {MAX_BLOB}",
            layer.size
        ))),
        layers => bail!(Failure::data(format!(
            "it has {} layers ({}) instead of one of type `{WASM}`",
            layers.len(),
            shown(layers.first().map_or("", |layer| &layer.media_type))
        ))),
    }
}

fn parse(manifest: &[u8]) -> Result<Manifest> {
    let parsed: Manifest = serde_json::from_slice(manifest).map_err(|error| {
        Failure::data(format!(
            "its manifest cannot be read: {}",
            shown(&error.to_string())
        ))
    })?;
    let media_type = parsed.media_type.as_deref().unwrap_or(MANIFEST);
    if parsed.schema_version != 2 || media_type != MANIFEST {
        bail!(Failure::data(format!(
            "its manifest is of another kind: `{}`, version {}",
            shown(media_type),
            parsed.schema_version
        )));
    }
    Ok(parsed)
}

/// The manifest of signatures of another manifest, which has `size` bytes.
pub fn signatures(subject: &Digest, size: u64, signatures: &[String]) -> Result<Vec<u8>> {
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MANIFEST.to_owned()),
        artifact_type: Some(SIGNATURE.to_owned()),
        config: Descriptor::of(EMPTY, EMPTY_CONFIG),
        layers: signatures
            .iter()
            .map(|text| Descriptor::of(SIGNATURE, text.as_bytes()))
            .collect(),
        subject: Some(Descriptor {
            media_type: MANIFEST.to_owned(),
            digest: subject.clone(),
            size,
            artifact_type: None,
        }),
        annotations: BTreeMap::new(),
    };
    serde_json::to_vec(&manifest).context("a manifest as JSON")
}

/// The signatures that a manifest holds; none if it is something else, which a tag may be.
pub fn signature_layers(manifest: &[u8]) -> Vec<Descriptor> {
    let Ok(manifest) = parse(manifest) else {
        return Vec::new();
    };
    let fits = |layer: &Descriptor| layer.media_type == SIGNATURE && layer.size <= MAX_SIGNATURES;
    manifest
        .layers
        .into_iter()
        .filter(fits)
        .take(MAX_SIGNERS)
        .collect()
}

/// The manifests of signatures in a list of referrers.
pub fn signature_manifests(list: &[u8]) -> Vec<Digest> {
    #[derive(Deserialize)]
    struct List {
        manifests: Vec<Descriptor>,
    }
    let Ok(list) = serde_json::from_slice::<List>(list) else {
        return Vec::new();
    };
    let ours = |descriptor: &Descriptor| descriptor.artifact_type.as_deref() == Some(SIGNATURE);
    let digests = list
        .manifests
        .into_iter()
        .filter(ours)
        .map(|descriptor| descriptor.digest);
    digests.take(MAX_SIGNERS).collect()
}

/// The tag under which signatures lie where a registry cannot list referrers.
pub fn signature_tag(manifest: &Digest) -> String {
    format!("sha256-{}.sig", manifest.hex())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn artifact() -> Artifact {
        Artifact::new(&Published {
            wasm: b"\0asm",
            imports: &["trainer:host/run@0.1.0".to_owned()],
            exports: &["trainer:plugin/lifecycle@0.1.0".to_owned()],
            annotations: BTreeMap::from([("version", "1.0.0".to_owned())]),
        })
        .expect("an artifact")
    }

    #[test]
    fn an_artifact_has_the_layout_that_other_tools_read() {
        let Artifact { manifest, config } = artifact();
        assert_eq!(
            component(&manifest).expect("a component").digest,
            Digest::of(b"\0asm")
        );
        let config: Value = serde_json::from_slice(&config).expect("JSON");
        assert_eq!(config["layerDigests"][0], Digest::of(b"\0asm").as_str());
        assert_eq!(config["os"], "wasip2");
        assert_eq!(
            config["component"]["exports"][0],
            "trainer:plugin/lifecycle@0.1.0"
        );
        assert_eq!(artifact().manifest, manifest);
    }

    #[test]
    fn whatever_is_not_one_component_is_refused() {
        let whole: Value = serde_json::from_slice(&artifact().manifest).expect("JSON");
        let changed = |change: &dyn Fn(&mut Value)| {
            let mut value = whole.clone();
            change(&mut value);
            component(value.to_string().as_bytes())
                .expect_err("refused")
                .to_string()
        };
        for (error, found) in [
            (
                "has 2 layers",
                changed(&|value| {
                    let layer = value["layers"][0].clone();
                    value["layers"].as_array_mut().expect("a list").push(layer);
                }),
            ),
            (
                "has 0 layers",
                changed(&|value| value["layers"] = json!([])),
            ),
            (
                "instead of one of type",
                changed(&|value| value["layers"][0]["mediaType"] = json!("text/html")),
            ),
            (
                "no WebAssembly component",
                changed(&|value| value["config"]["mediaType"] = json!("x\u{1b}")),
            ),
            (
                "the limit is",
                changed(&|value| value["layers"][0]["size"] = json!(1_u64 << 40)),
            ),
            (
                "not a SHA-256 digest",
                changed(&|value| value["layers"][0]["digest"] = json!("md5:00")),
            ),
            (
                "of another kind",
                changed(&|value| value["mediaType"] = json!(INDEX)),
            ),
        ] {
            assert!(found.contains(error), "{found}");
            assert!(!found.contains('\u{1b}'), "{found}");
        }
    }
}
