//! Plugins of the run: those of the file, then those of the command line, each with a unique name and its settings.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::super::findings::nearest;
use super::super::input::PluginTable;
use super::super::run::Plugin;
use super::super::setting::quoted;
use super::{Draft, locked};

/// A plugin as it was written.
struct Given<'a> {
    written: &'a Path,
    is_locked: bool,
    config: Map<String, Value>,
    grants: Vec<String>,
    /// Where; `None`: on the command line.
    table: Option<&'a PluginTable>,
}

impl Draft<'_> {
    pub(super) fn plugins(&mut self) -> Vec<Plugin> {
        let input = self.input;
        let in_file = input.plugins.iter().map(|table| Given {
            written: &table.path,
            is_locked: table.is_locked,
            config: table.config.clone(),
            grants: table.grants.clone(),
            table: Some(table),
        });
        let on_line = input.arguments.plugin.iter().map(|path| Given {
            written: path,
            is_locked: locked::is_name(path, &self.absolute(path)),
            config: Default::default(),
            grants: Vec::new(),
            table: None,
        });
        let given: Vec<Given<'_>> = in_file.chain(on_line).collect();
        if self.arguments.no_plugins {
            let count = given.len();
            if count > 0 {
                self.notes
                    .push(format!("no_plugins: {count} plugins are left out"));
            }
            return Vec::new();
        }
        let mut plugins: Vec<Plugin> = Vec::new();
        self.arguments.plugin.clear();
        for given in given {
            self.arguments.plugin.push(given.written.to_path_buf());
            let plugin = match given.is_locked {
                true => self.locked_plugin(given, &plugins),
                false => Some(self.plugin_file(given, &plugins)),
            };
            plugins.extend(plugin);
        }
        self.plugin_settings(&mut plugins);
        plugins
    }

    fn plugin_file(&mut self, given: Given<'_>, others: &[Plugin]) -> Plugin {
        let path = self.absolute(given.written);
        if let Some(text) = missing(&path, given.written) {
            self.wrong_plugin(&given, "path", &text);
        }
        Plugin {
            name: unique_name(&stem(&path), others),
            path,
            config: given.config,
            limits: Default::default(),
            grants: given.grants,
            pinned: None,
        }
    }

    /// A plugin of the lock file; what the user grants here is added to what stands there.
    fn locked_plugin(&mut self, given: Given<'_>, others: &[Plugin]) -> Option<Plugin> {
        let file = self.input.file.as_deref().and_then(Path::parent);
        let folders: Vec<PathBuf> = [
            file.map(|folder| self.absolute(folder)),
            Some(self.surroundings.current_dir.clone()),
            self.surroundings.plugin_settings(),
        ]
        .into_iter()
        .flatten()
        .collect();
        let written = given.written.to_string_lossy();
        match locked::find(&written, &folders, self.surroundings) {
            Ok(found) => Some(Plugin {
                name: unique_name(&found.name, others),
                path: found.path,
                config: given.config,
                limits: Default::default(),
                grants: [found.grants, given.grants].concat(),
                pinned: Some(found.pinned),
            }),
            Err(text) => {
                self.wrong_plugin(&given, "use", &text);
                None
            }
        }
    }

    fn wrong_plugin(&mut self, given: &Given<'_>, key: &str, text: &str) {
        match given.table {
            Some(table) => self
                .findings
                .elsewhere(&table.place, &format!("plugins.{key}: {text}")),
            None => self.wrong("plugin", text),
        }
    }

    /// What the command line sets of one plugin or another.
    fn plugin_settings(&mut self, plugins: &mut [Plugin]) {
        let arguments = &self.input.arguments;
        for setting in &arguments.plugin_config {
            match assignment(setting, plugins) {
                Ok((index, key, value)) => {
                    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
                    plugins[index].config.insert(key.to_owned(), value);
                }
                Err(text) => self.wrong("plugin_config", text),
            }
        }
        for grant in &arguments.plugin_grant {
            match addressed(grant, grant, plugins, "NAME.CAPABILITY") {
                Ok((index, capability)) => plugins[index].grants.push(capability.to_owned()),
                Err(text) => self.wrong("plugin_grant", text),
            }
        }
        for setting in &arguments.plugin_limit {
            match assignment(setting, plugins) {
                Ok((index, key, value)) => {
                    plugins[index]
                        .limits
                        .insert(key.to_owned(), value.to_owned());
                }
                Err(text) => self.wrong("plugin_limit", text),
            }
        }
    }
}

fn missing(path: &Path, written: &Path) -> Option<String> {
    let shown = quoted(&written.to_string_lossy());
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Some(format!("{shown} does not exist; check the path"))
        }
        Err(error) => Some(format!(
            "{shown} is not accessible: {error}; check the path"
        )),
        Ok(metadata) if metadata.is_dir() => Some(format!(
            "{shown} is a folder; give the component file in it"
        )),
        Ok(_) => None,
    }
}

/// What a plugin file is called.
fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    // It becomes the name of a folder.
    let is_name = !stem.chars().all(|c| c == '.') && !stem.chars().any(char::is_control);
    if is_name {
        stem.into_owned()
    } else {
        "plugin".to_owned()
    }
}

/// `stem`; a number is added if another plugin has it already.
fn unique_name(stem: &str, others: &[Plugin]) -> String {
    let stem = stem.to_owned();
    let is_free = |name: &String| others.iter().all(|other| other.name != *name);
    let numbered = (2..).map(|number| format!("{stem}-{number}"));
    std::iter::once(stem.clone())
        .chain(numbered)
        .find(is_free)
        .unwrap_or(stem)
}

/// The plugin, key and value of `NAME.key=value`.
fn assignment<'a>(
    written: &'a str,
    plugins: &[Plugin],
) -> Result<(usize, &'a str, &'a str), String> {
    const FORM: &str = "NAME.key=value";
    let (target, value) = written
        .split_once('=')
        .ok_or_else(|| misshapen(written, FORM))?;
    let (index, key) = addressed(written, target, plugins, FORM)?;
    Ok((index, key, value))
}

fn misshapen(written: &str, form: &str) -> String {
    format!("{} has not the form {form}", quoted(written))
}

/// The plugin that `NAME.rest` names, and the rest. Dashes and underscores of the name are the same: cargo turns one into
/// the other.
fn addressed<'a>(
    written: &str,
    target: &'a str,
    plugins: &[Plugin],
    form: &str,
) -> Result<(usize, &'a str), String> {
    let plain = |name: &str| name.replace('-', "_");
    let is_meant = |name: &str| {
        let prefix = target.get(..name.len());
        prefix.is_some_and(|prefix| plain(prefix) == plain(name))
            && target[name.len()..].starts_with('.')
    };
    // The longest name, because names may contain dots.
    let meant = plugins
        .iter()
        .enumerate()
        .filter(|(_, plugin)| is_meant(&plugin.name));
    let Some((index, plugin)) = meant.max_by_key(|(_, plugin)| plugin.name.len()) else {
        let (name, _) = target
            .split_once('.')
            .ok_or_else(|| misshapen(written, form))?;
        let names: Vec<&str> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
        let remedy = match nearest(name, names.iter().copied()) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None if names.is_empty() => "give the plugin with --plugin".to_owned(),
            None => format!("plugins of this run: {}", names.join(", ")),
        };
        return Err(format!("no plugin is named {}; {remedy}", quoted(name)));
    };
    match &target[plugin.name.len() + 1..] {
        "" => Err(misshapen(written, form)),
        rest => Ok((index, rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugins(paths: &[&str]) -> Vec<Plugin> {
        let mut plugins = Vec::new();
        for path in paths {
            let name = unique_name(&stem(Path::new(path)), &plugins);
            plugins.push(Plugin {
                path: path.into(),
                name,
                config: Default::default(),
                limits: Default::default(),
                grants: Vec::new(),
                pinned: None,
            });
        }
        plugins
    }

    #[test]
    fn names_are_stems_and_unique() {
        let names: Vec<String> = plugins(&["/a/f1.wasm", "/b/f1.wasm", "/f1-2.wasm"])
            .into_iter()
            .map(|plugin| plugin.name)
            .collect();
        assert_eq!(names, ["f1", "f1-2", "f1-2-2"]);
        for odd in ["...wasm", "..wasm", "a\u{1b}.wasm"] {
            assert_eq!(stem(Path::new(odd)), "plugin", "{odd:?}");
        }
    }

    #[test]
    fn settings_go_to_the_plugin_they_name() {
        let cases = [
            ("early-stopping.patience=3", Ok((0, "patience", "3"))),
            ("early_stopping.patience=3", Ok((0, "patience", "3"))),
            ("early-stopping.metric=f1", Ok((0, "metric", "f1"))),
            ("early-stopping.range=[1,2]", Ok((0, "range", "[1,2]"))),
            ("early-stopping.a=b=c", Ok((0, "a", "b=c"))),
            (
                "early-stoping.patience=3",
                Err("no plugin is named `early-stoping`; did you mean `early-stopping`?"),
            ),
            (
                "zzz.patience=3",
                Err("no plugin is named `zzz`; plugins of this run: early-stopping"),
            ),
            (
                "early-stopping.=3",
                Err("`early-stopping.=3` has not the form NAME.key=value"),
            ),
            (
                "patience=3",
                Err("`patience=3` has not the form NAME.key=value"),
            ),
            (
                "early-stopping.patience",
                Err("`early-stopping.patience` has not the form NAME.key=value"),
            ),
        ];
        for (setting, expected) in cases {
            let result = assignment(setting, &plugins(&["early-stopping.wasm"]));
            assert_eq!(
                result.as_ref().map_err(String::as_str),
                expected.as_ref().map_err(|text| *text),
                "{setting}"
            );
        }
    }
}
