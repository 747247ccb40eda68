//! All that the user wrote: arguments with the places they came from, plugin tables, and what could not be read.
//!
//! Precedence: defaults, then the file, then the command line. Plugins are the exception: those of the command line are
//! added to those of the file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Map, Value};

use super::arguments::{Arguments, FIELDS};
use super::command_line::CommandLine;
use super::field::Field;
use super::findings::{Findings, Place};
use super::setting::{Shape, Token, Written};
use super::{command_line, file};

/// What the user wrote.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// The values.
    pub arguments: Arguments,
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// `[[plugins]]` of the file.
    pub plugins: Vec<PluginTable>,
    /// Where each given argument was written.
    pub places: BTreeMap<&'static str, Place>,
    /// What could not be read.
    pub findings: Findings,
    /// Set by a program that embeds the library: it hands these over itself instead of naming files.
    pub supplied: Option<Supplied>,
}

/// What a program hands over besides the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Supplied {
    /// Rows to evaluate on.
    pub evaluation_data: bool,
}

/// One `[[plugins]]` table.
#[derive(Clone, Debug)]
pub struct PluginTable {
    /// The component file; for a plugin of the lock file its name, as written.
    pub path: PathBuf,
    /// Whether the lock file says which component it is.
    pub is_locked: bool,
    /// Its configuration.
    pub config: Map<String, Value>,
    /// Capabilities it is given.
    pub grants: Vec<String>,
    /// Where the table begins.
    pub place: Place,
}

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum Request {
    /// Explain the arguments.
    Help,
    /// Use them.
    Run(Box<Input>),
}

/// Reads the words after the subcommand and the file they name. An error is a file that cannot be read at all.
pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Request> {
    let CommandLine {
        config,
        entries,
        findings,
        help,
    } = command_line::parse(words);
    if help {
        return Ok(Request::Help);
    }
    let mut input = Input {
        findings,
        ..Input::default()
    };
    if let Some(path) = config {
        file::read(&path, &mut input)?;
        input.file = Some(path);
    }
    for (field, tokens) in entries {
        input.set(
            field,
            &Entry {
                tokens,
                place: Place::CommandLine,
                folder: None,
            },
        );
    }
    Ok(Request::Run(Box::new(input)))
}

/// The values of one argument at one place.
pub(super) struct Entry<'a> {
    pub tokens: Vec<Token>,
    pub place: Place,
    pub folder: Option<&'a Path>,
}

impl Input {
    /// What a program wrote; an argument that differs from its default counts as given.
    pub fn of_program(arguments: Arguments, supplied: Supplied) -> Self {
        let defaults = Arguments::default();
        let places = FIELDS
            .iter()
            .filter(|field| field.show(&arguments) != field.show(&defaults))
            .map(|field| (field.name, Place::Program))
            .collect();
        Self {
            arguments,
            places,
            supplied: Some(supplied),
            ..Self::default()
        }
    }

    /// Whether the user wrote this argument.
    pub fn is_given(&self, field: &str) -> bool {
        self.places.contains_key(field)
    }

    pub(super) fn set(&mut self, field: &'static Field, entry: &Entry<'_>) {
        let written = Written {
            tokens: &entry.tokens,
            folder: entry.folder,
        };
        // An empty list can be meant in a file; on the command line the values were forgotten.
        let is_forgotten = field.shape == Shape::Many
            && entry.tokens.is_empty()
            && entry.place == Place::CommandLine;
        if !is_forgotten && field.read(&mut self.arguments, written) {
            self.places.insert(field.name, entry.place.clone());
        } else {
            self.findings.about(
                field.name,
                Some(&entry.place),
                &mismatch(field, &entry.tokens),
            );
        }
    }
}

fn mismatch(field: &Field, tokens: &[Token]) -> String {
    let found = if field.is_secret() {
        "something else".to_owned()
    } else {
        tokens
            .iter()
            .map(Token::describe)
            .collect::<Vec<_>>()
            .join(", ")
    };
    match (field.shape, tokens) {
        (Shape::One, []) => format!("has no value; give it {}", with_article(field.type_name)),
        (_, []) => "has no value; give it one or more".to_owned(),
        _ => format!("expected {}, found {found}", with_article(field.type_name)),
    }
}

fn with_article(type_name: &str) -> String {
    let name = match type_name {
        "bool" => "boolean (true or false)",
        "int" => "integer",
        "int or float" | "float" => "number",
        "str" => "string",
        "path" => "path",
        other => other,
    };
    let article = if name.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {name}")
}
