//! `host plugin add`: a component comes into the store and the lock file, with what it may do.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use clap::{ArgMatches, Command};
use serde_json::{Value, json};

use super::fetch::{self, Demand, Fetched, locked_value};
use super::place::Place;
use super::{Report, grant_option, key_option, positional, unsigned_option, word, words};
use crate::cli::output;
use crate::error::{Failure, Kind};
use crate::plugin::capability::Grants;
use crate::plugin::outline::Outline;
use crate::registry::lock::Lock;
use crate::registry::name::PluginId;

pub(super) fn command() -> Command {
    Command::new("add")
        .about("Add a plugin to the lock file, from a file or a registry, and say what it may do")
        .arg(positional(
            "plugin",
            "A component file, or oci://REGISTRY/REPOSITORY[:TAG][@DIGEST]",
        ))
        .arg(grant_option(
            "What it may do: kinds (net, secret, ...) or texts as they are shown; none: nothing",
        ))
        .arg(key_option("The public key that must have signed it"))
        .arg(unsigned_option())
        .after_help(
            "Example: host plugin add oci://registry.example.org/acme/early-stop:1.3.0 --grant net",
        )
}

pub(super) fn run(matches: &ArgMatches, place: &Place) -> Result<Report> {
    let named = word(matches, "plugin")?;
    let fetched = fetch::fetch(place, named, &Demand::of(matches)?)?;
    let outline = &fetched.outline;
    let given = words(matches, "grant");
    if given.is_empty() && !outline.requests.is_empty() {
        let text = format!(
            "{} asks for {} and was not added without an answer:\n{}",
            outline.id,
            match outline.requests.len() {
                1 => "a capability".to_owned(),
                many => format!("{many} capabilities"),
            },
            requests_text(outline, &[])?.trim_end()
        );
        let hint = format!(
            "repeat it with --grant and what you allow: --grant {} for all of it, --grant none for nothing",
            kinds(outline).join(",")
        );
        return Err(Failure::new(Kind::Policy, text).hint(hint).into());
    }
    let grants = granted(outline, &given)?;
    let locked = fetched.locked(grants.clone(), place)?;
    Lock::change(&place.lock, |lock| {
        refuse_second(lock, &fetched)?;
        warn_of_look_alikes(lock, &outline.id);
        lock.put(locked.clone());
        Ok(())
    })?;
    let mut text = fetched.headline();
    text.push_str(&requests_text(outline, &grants)?);
    let _ = writeln!(
        text,
        "added to {}; use it with --plugin {}",
        place.lock.display(),
        outline.id
    );
    let mut value = locked_value(&locked);
    value["requests"] = requests_value(outline, &grants)?;
    Ok(Report { text, value })
}

/// A plugin that is there already is updated, with the checks of an update.
fn refuse_second(lock: &Lock, fetched: &Fetched) -> Result<()> {
    let id = &fetched.outline.id;
    match lock.get(id) {
        Some(present)
            if present.wasm != fetched.outline.digest || present.source != fetched.source =>
        {
            let text = format!(
                "{id} is in the lock file already, version {} from {}",
                present.version, present.source
            );
            let hint = match present.source == fetched.source || present.source.starts_with("file:")
            {
                true => {
                    format!("update it with `host plugin update {id}`, which shows what changes")
                }
                false => format!(
                    "a plugin has one source; `host plugin remove {id}` first if you want the other"
                ),
            };
            Err(Failure::new(Kind::Policy, text).hint(hint).into())
        }
        _ => Ok(()),
    }
}

/// A name one letter away from another may be a trap.
fn warn_of_look_alikes(lock: &Lock, id: &PluginId) {
    let near = |other: &PluginId| strsim::levenshtein(&other.to_string(), &id.to_string()) == 1;
    let mut others = lock.plugins().iter();
    if let Some(other) = others.find(|other| near(&other.id)) {
        output::note(&format!(
            "{id} is one letter away from {}, which you use: is it meant?",
            other.id
        ));
    }
}

/// The texts of what `words` grant: kinds, texts, or `none`.
pub(super) fn granted(outline: &Outline, words: &[&str]) -> Result<Vec<String>> {
    if words.contains(&"none") {
        if words.len() > 1 {
            bail!(Failure::usage("`none` stands alone in --grant"));
        }
        return Ok(Vec::new());
    }
    let mut texts = Vec::new();
    for word in words {
        let capabilities = outline.grantable(word)?;
        texts.extend(capabilities.iter().map(ToString::to_string));
    }
    texts.sort_unstable();
    texts.dedup();
    Ok(texts)
}

/// The kinds of what it asks for.
pub(super) fn kinds(outline: &Outline) -> Vec<&'static str> {
    let mut kinds: Vec<&str> = outline
        .requests
        .iter()
        .map(|request| request.capability.kind())
        .collect();
    kinds.dedup();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// A line for each request, with its reason and whether it is granted.
pub(super) fn requests_text(outline: &Outline, texts: &[String]) -> Result<String> {
    let grants = Grants::parse(texts)?;
    let mut text = String::new();
    for request in &outline.requests {
        let state = match grants.covers(&request.capability) {
            true => "granted",
            false => "not granted",
        };
        let _ = writeln!(text, "  {}  ({}): {state}", request.capability, request.why);
    }
    // A value in place of a setting.
    let is_request = |grant: &&String| {
        let mut requests = outline.requests.iter();
        requests.any(|request| request.capability.to_string() == **grant)
    };
    for grant in texts.iter().filter(|grant| !is_request(grant)) {
        let _ = writeln!(text, "  {grant}: granted");
    }
    Ok(text)
}

/// The same for scripts.
pub(super) fn requests_value(outline: &Outline, grants: &[String]) -> Result<Value> {
    let grants = Grants::parse(grants)?;
    let values = outline.requests.iter().map(|request| {
        json!({
            "capability": request.capability.to_string(),
            "why": request.why,
            "granted": grants.covers(&request.capability),
        })
    });
    Ok(values.collect())
}
