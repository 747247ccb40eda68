//! A TOML configuration file: the arguments flat at the top level, and `[[plugins]]` tables with `path` or `use`,
//! `config` and `grant`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::arguments::field;
use super::command_line::suggestion;
use super::findings::Place;
use super::input::{Entry, Input, PluginTable};
use super::setting::{Shape, Token, quoted};
use crate::error::Failure;

/// Adds the file's arguments to `input`. An error is a file that cannot be read or is not TOML.
pub(super) fn read(path: &Path, input: &mut Input) -> Result<()> {
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!(
            "the configuration file {} cannot be read: {error}",
            quoted(&path.to_string_lossy())
        ))
        .hint(
            "the first word after the command is a TOML file; all other arguments begin with `--`",
        )
    })?;
    let source = Source { path, text: &text };
    let table = DeTable::parse(&text).map_err(|error| {
        let place = source.place(error.span().map_or(0, |span| span.start));
        Failure::usage(format!(
            "{place}this is not TOML: {}",
            error.message().replace('\n', ", ")
        ))
    })?;
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        source.entry(key, value, input);
    }
    Ok(())
}

struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn place(&self, offset: usize) -> Place {
        let before = self.text.as_bytes().iter().take(offset);
        Place::File {
            path: self.path.to_path_buf(),
            line: 1 + before.filter(|byte| **byte == b'\n').count(),
        }
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    fn entry(&self, key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>, input: &mut Input) {
        let place = self.place(key.span().start);
        let name = key.get_ref();
        if name == "plugins" {
            self.plugins(value, input);
            return;
        }
        let Some(field) = field(name) else {
            let text = if value.get_ref().is_table() {
                format!(
                    "unknown table {}; arguments stand at the top level of the file, without tables",
                    quoted(name)
                )
            } else {
                format!("unknown argument {}{}", quoted(name), suggestion(name, ""))
            };
            input.findings.unknown_name(&place, &text);
            return;
        };
        match tokens(value.get_ref(), field.shape) {
            Some(tokens) => input.set(
                field,
                &Entry {
                    tokens,
                    place,
                    folder: Some(self.folder()),
                },
            ),
            None => {
                let text = format!(
                    "expected {}, found {}",
                    field.type_name,
                    value.get_ref().type_str()
                );
                input.findings.about(field.name, Some(&place), &text);
            }
        }
    }

    fn plugins(&self, value: &Spanned<DeValue<'_>>, input: &mut Input) {
        let tables = value.get_ref().as_array().map(|array| {
            array
                .iter()
                .map(|item| (item.span().start, item.get_ref().as_table()))
        });
        for (start, table) in tables.into_iter().flatten() {
            let place = self.place(start);
            match table {
                Some(table) => self.plugin(table, place, input),
                None => input
                    .findings
                    .elsewhere(&place, "plugins: expected tables with `path` and `config`"),
            }
        }
        if !value.get_ref().is_array() {
            input.findings.elsewhere(
                &self.place(value.span().start),
                "plugins: expected tables, written as [[plugins]]",
            );
        }
    }

    fn plugin(&self, table: &DeTable<'_>, place: Place, input: &mut Input) {
        let mut plugin = PluginTable {
            path: PathBuf::new(),
            is_locked: false,
            config: Map::new(),
            grants: Vec::new(),
            place,
        };
        for (key, value) in table {
            if let Err(text) = self.plugin_key(key.get_ref(), value.get_ref(), &mut plugin) {
                let place = self.place(key.span().start);
                input.findings.elsewhere(&place, &text);
            }
        }
        match (table.get("path"), table.get("use")) {
            (Some(named), None) | (None, Some(named)) if named.get_ref().is_str() => {
                input.plugins.push(plugin);
            }
            (Some(_), None) | (None, Some(_)) => {}
            (Some(_), Some(_)) => {
                let text = "plugins: `path` and `use` are both given; name the component file or a plugin of the lock file";
                input.findings.elsewhere(&plugin.place, text);
            }
            (None, None) => {
                let text = "plugins: `path` is missing; name the component file, or with `use` a plugin of the lock file";
                input.findings.elsewhere(&plugin.place, text);
            }
        }
    }

    fn plugin_key(
        &self,
        key: &str,
        value: &DeValue<'_>,
        plugin: &mut PluginTable,
    ) -> Result<(), String> {
        let expected =
            |what: &str| format!("plugins.{key}: expected {what}, found {}", value.type_str());
        match key {
            "path" => {
                let path = value.as_str().ok_or_else(|| expected("a string"))?;
                plugin.path = self.folder().join(path);
            }
            "use" => {
                let name = value.as_str().ok_or_else(|| expected("a string"))?;
                (plugin.path, plugin.is_locked) = (name.into(), true);
            }
            "config" if !value.is_table() => return Err(expected("a table")),
            "config" => match json(value) {
                Some(Value::Object(config)) => plugin.config = config,
                _ => {
                    let text = "plugins.config: has a number that is not finite or too large";
                    return Err(text.to_owned());
                }
            },
            "grant" => {
                plugin.grants = strings(value).ok_or_else(|| expected("an array of strings"))?;
            }
            name => {
                return Err(format!(
                    "plugins: unknown key {}; there are `path`, `use`, `config` and `grant`",
                    quoted(name)
                ));
            }
        }
        Ok(())
    }
}

/// The values of an argument; `None` if an argument cannot have such a value.
fn tokens(value: &DeValue<'_>, shape: Shape) -> Option<Vec<Token>> {
    match value {
        DeValue::Array(items) if shape == Shape::Many => {
            items.iter().map(|item| token(item.get_ref())).collect()
        }
        value => Some(vec![token(value)?]),
    }
}

fn token(value: &DeValue<'_>) -> Option<Token> {
    match value {
        DeValue::String(text) => Some(Token::Text(text.as_ref().to_owned())),
        DeValue::Boolean(value) => Some(Token::Boolean(*value)),
        DeValue::Integer(number) => Some(Token::Number(
            match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(value) => value.to_string(),
                Err(_) => number.as_str().to_owned(),
            },
        )),
        DeValue::Float(number) => Some(Token::Number(number.as_str().to_owned())),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// The strings of an array; `None` if it holds anything else.
fn strings(value: &DeValue<'_>) -> Option<Vec<String>> {
    let text = |item: &Spanned<DeValue<'_>>| item.get_ref().as_str().map(str::to_owned);
    value.as_array()?.iter().map(text).collect()
}

/// The value as a plugin sees it, dates as strings; `None` for a number that JSON cannot hold.
fn json(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Integer(number) => {
            Value::from(i64::from_str_radix(number.as_str(), number.radix()).ok()?)
        }
        DeValue::Float(number) => Value::Number(Number::from_f64(number.as_str().parse().ok()?)?),
        DeValue::Datetime(date) => Value::from(date.to_string()),
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| json(item.get_ref()))
                .collect::<Option<_>>()?,
        ),
        DeValue::Table(table) => {
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by_key(|(key, _)| key.span().start);
            let members = entries.into_iter().map(|(key, value)| {
                Some((key.get_ref().as_ref().to_owned(), json(value.get_ref())?))
            });
            Value::Object(members.collect::<Option<_>>()?)
        }
    })
}
