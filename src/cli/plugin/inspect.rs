//! `host plugin inspect` and `diff`: what can be said about plugins without running them.

use std::fmt::Write as _;

use anyhow::Result;
use clap::{ArgMatches, Command};
use serde_json::{Value, json};

use super::difference::Difference;
use super::place::Place;
use super::{Report, file, path};
use crate::plugin::inspect as component;
use crate::plugin::outline::Outline;

pub(super) fn inspect_command() -> Command {
    Command::new("inspect")
        .about("Show what a plugin is and asks for; never runs it")
        .arg(file("file", "The component file"))
}

pub(super) fn inspect(matches: &ArgMatches, place: &Place) -> Result<Report> {
    let file = path(matches, "file")?;
    let (text, value) = match place.json {
        true => (String::new(), component::describe_json(file)?),
        false => (component::describe(file)?, Value::Null),
    };
    Ok(Report { text, value })
}

pub(super) fn diff_command() -> Command {
    Command::new("diff")
        .about("Show what two components differ in: version, hooks, requests, imports, size")
        .arg(file("old", "The older component file"))
        .arg(file("new", "The newer component file"))
}

pub(super) fn diff(matches: &ArgMatches, _: &Place) -> Result<Report> {
    let (old, _) = Outline::of_file(path(matches, "old")?)?;
    let (new, _) = Outline::of_file(path(matches, "new")?)?;
    let mut text = String::new();
    let mut value = json!({});
    let config = |outline: &Outline| {
        let schema = outline.manifest.config.as_ref();
        schema.map_or_else(|| "none".to_owned(), Value::to_string)
    };
    for (what, before, after) in [
        ("id", old.id.to_string(), new.id.to_string()),
        (
            "version",
            old.manifest.version.clone(),
            new.manifest.version.clone(),
        ),
        ("api", old.manifest.api.clone(), new.manifest.api.clone()),
        ("config", config(&old), config(&new)),
        ("size", old.size.to_string(), new.size.to_string()),
        ("digest", old.digest.to_string(), new.digest.to_string()),
    ] {
        if before != after {
            let _ = writeln!(text, "{what:<10} {before} -> {after}");
            value[what] = json!([before, after]);
        }
    }
    for (what, before, after) in [
        ("requests", old.request_texts()?, new.request_texts()?),
        ("hooks", old.hooks.clone(), new.hooks.clone()),
        ("imports", old.imports.clone(), new.imports.clone()),
        ("exports", old.exports.clone(), new.exports.clone()),
    ] {
        let difference = Difference::between(&before, &after);
        for (sign, name) in difference.signed() {
            let _ = writeln!(text, "{what:<10} {sign} {name}");
        }
        value[what] = json!({"added": difference.added, "removed": difference.removed});
    }
    if text.is_empty() {
        text.push_str("no difference\n");
    }
    Ok(Report { text, value })
}
