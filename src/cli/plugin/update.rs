//! `host plugin update`: a newer component takes the place of a locked one. It stops where the plugin asks for more
//! than before, where somebody else signed it, and where a published version was changed.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use clap::{Arg, ArgMatches, Command};
use semver::Version;
use serde_json::{Value, json};

use super::add::{granted, kinds};
use super::difference::Difference;
use super::fetch::{self, Demand, Fetched, fetch_reference, signer_text};
use super::place::{Place, plugin_id, reference};
use super::{Report, flag, grant_option, key_option, unsigned_option, words};
use crate::error::{Failure, Kind};
use crate::plugin::capability::{Capability, Grants};
use crate::plugin::outline::Outline;
use crate::registry::lock::{Lock, Locked};
use crate::registry::name::{Reference, SCHEME, version_tag};

pub(super) fn command() -> Command {
    Command::new("update")
        .about("Take newer versions of locked plugins; stops where one asks for more or has another signer")
        .arg(Arg::new("id").value_name("NAMESPACE/NAME").help("The plugin; without it all that come from a registry"))
        .arg(Arg::new("from").value_name("FILE-OR-REFERENCE").help("This file, tag or digest, not the newest version"))
        .arg(grant_option("What it may do beyond what it may already"))
        .arg(key_option("The public key that must have signed the new version"))
        .arg(unsigned_option())
        .arg(flag("accept-signer", "Accept that somebody else signed it"))
        .arg(flag("dry-run", "Only show what would change"))
        .after_help("Example: host plugin update acme/early-stop --dry-run")
}

pub(super) fn run(matches: &ArgMatches, place: &Place) -> Result<Report> {
    let lock = Lock::read(&place.lock)?;
    let chosen = match matches.get_one::<String>("id") {
        Some(id) => vec![place.locked(&lock, &plugin_id(id)?)?],
        None => {
            let all = lock.plugins().iter();
            all.filter(|plugin| plugin.source.starts_with(SCHEME))
                .cloned()
                .collect()
        }
    };
    let mut text = String::new();
    let mut values = Vec::new();
    for before in &chosen {
        let change = update(matches, place, before)
            .with_context(|| format!("{} stays at version {}", before.id, before.version))?;
        text.push_str(&change.text);
        values.push(change.value);
    }
    if chosen.is_empty() {
        text.push_str("no plugin of the lock file comes from a registry\n");
    }
    Ok(Report {
        text,
        value: Value::from(values),
    })
}

fn update(matches: &ArgMatches, place: &Place, before: &Locked) -> Result<Report> {
    let demand = Demand::of(matches)?;
    let from = matches.get_one::<String>("from").map(String::as_str);
    let Some(fetched) = candidate(place, before, from, &demand)? else {
        return Ok(Report {
            text: format!("{} {} is the newest version\n", before.id, before.version),
            value: json!({"id": before.id, "from": before.version, "to": before.version}),
        });
    };
    check_signer(matches, before, &fetched)?;
    let difference = changed_requests(place, before, &fetched.outline)?;
    let given = words(matches, "grant");
    let extra = granted(&fetched.outline, &given)?;
    if !difference.added.is_empty() && given.is_empty() {
        return Err(more_wanted(before, &fetched.outline, &difference));
    }
    let grants = kept_grants(before, &fetched.outline, extra)?;
    let locked = fetched.locked(grants, place)?;
    let dry = matches.get_flag("dry-run");
    if !dry {
        Lock::change(&place.lock, |lock| {
            let now = place.locked(lock, &before.id)?;
            if now != *before {
                let text = format!("{} was changed by another process meanwhile", before.id);
                return Err(Failure::new(Kind::Io, text)
                    .hint("run the command again")
                    .into());
            }
            lock.put(locked.clone());
            Ok(())
        })?;
    }
    let mut text = format!(
        "{} {} -> {}{}, {}\n",
        before.id,
        before.version,
        locked.version,
        if dry { " (not done: --dry-run)" } else { "" },
        signer_text(&locked.signer)
    );
    for (sign, request) in difference.signed() {
        let _ = writeln!(text, "  {sign} {request}");
    }
    let value = json!({
        "id": before.id,
        "from": before.version,
        "to": locked.version,
        "wasm": locked.wasm,
        "added": difference.added,
        "removed": difference.removed,
        "grants": locked.grants,
        "done": !dry,
    });
    Ok(Report { text, value })
}

/// The component that may take the place of `before`; `None` if there is no newer one.
fn candidate(
    place: &Place,
    before: &Locked,
    from: Option<&str>,
    demand: &Demand,
) -> Result<Option<Fetched>> {
    let fetched = match from {
        Some(word) => {
            if word.starts_with(SCHEME) && reference(word)?.source() != before.source {
                return Err(other_source(before, word));
            }
            if !word.starts_with(SCHEME) && !before.source.starts_with("file:") {
                return Err(other_source(before, "a file"));
            }
            fetch::fetch(place, word, demand)?
        }
        None => match newer(place, before)? {
            Some(tagged) => fetch_reference(place, &tagged, demand)?,
            None => return Ok(None),
        },
    };
    if fetched.outline.id != before.id {
        let text = format!(
            "{} is {}, not {}",
            fetched.source, fetched.outline.id, before.id
        );
        return Err(Failure::usage(text).into());
    }
    // The same version with other content, from a registry where versions are not to move.
    if fetched.manifest.is_some()
        && fetched.outline.manifest.version == before.version
        && fetched.manifest != before.manifest
    {
        return Err(moved(before, fetched.outline.digest.as_str()));
    }
    Ok(Some(fetched))
}

/// The place of the newest version, if it is newer than the locked one.
fn newer(place: &Place, before: &Locked) -> Result<Option<Reference>> {
    if !before.source.starts_with(SCHEME) {
        let text = format!("{} was added from a file", before.id);
        let hint = format!("name the new file: host plugin update {} FILE", before.id);
        return Err(Failure::usage(text).hint(hint).into());
    }
    let source = reference(&before.source)?;
    let repository = place.repository(&source)?;
    let current = Version::parse(&before.version).ok();
    let newest = newest(&repository.tags()?).filter(|newest| Some(newest) >= current.as_ref());
    let Some(newest) = newest else {
        return Ok(None);
    };
    let tagged = source.with_tag(&version_tag(&newest.to_string()));
    if Some(newest) == current {
        let (_, digest) = repository.manifest(tagged.wanted())?;
        return match before.manifest.as_ref() == Some(&digest) {
            true => Ok(None),
            false => Err(moved(before, digest.as_str())),
        };
    }
    Ok(Some(tagged))
}

fn other_source(before: &Locked, source: &str) -> anyhow::Error {
    let text = format!(
        "{} comes from {}, not from {source}",
        before.id, before.source
    );
    let hint = format!(
        "a plugin has one source; `host plugin remove {}` first if you want the other",
        before.id
    );
    Failure::new(Kind::Policy, text).hint(hint).into()
}

fn moved(before: &Locked, found: &str) -> anyhow::Error {
    let text = format!(
        "version {} of {} was published again with other content: it is {found}, it was {}",
        before.version,
        before.id,
        before
            .manifest
            .as_ref()
            .map_or("", |digest| digest.as_str())
    );
    Failure::data(text)
        .hint(
            "a version must not change; ask its author. What is locked and in the store still runs",
        )
        .into()
}

/// The highest released version among tags.
pub(super) fn newest(tags: &[String]) -> Option<Version> {
    let versions = tags
        .iter()
        .filter_map(|tag| Version::parse(&tag.replace('_', "+")).ok());
    versions.filter(|version| version.pre.is_empty()).max()
}

fn check_signer(matches: &ArgMatches, before: &Locked, fetched: &Fetched) -> Result<()> {
    let same = before.signer.key() == fetched.signer.key();
    // A first signature is no change of hands.
    if same || before.signer.key().is_none() || matches.get_flag("accept-signer") {
        return Ok(());
    }
    let text = format!(
        "version {} is {}; version {} was {}",
        fetched.outline.manifest.version,
        signer_text(&fetched.signer),
        before.version,
        signer_text(&before.signer)
    );
    Err(Failure::new(Kind::Policy, text)
        .hint("ask its author whether the key was changed, then repeat it with --accept-signer")
        .into())
}

/// What a new version asks for more and less.
fn changed_requests(place: &Place, before: &Locked, after: &Outline) -> Result<Difference> {
    let new = after.request_texts()?;
    if before.requests == after.requests_digest()? {
        return Ok(Difference::between(&new, &new));
    }
    // Without the old component everything that is not granted counts as new.
    let old = match place.store.get(&before.wasm) {
        Ok(bytes) => Outline::of(&before.id.to_string(), &bytes)?.request_texts()?,
        Err(_) => before.grants.clone(),
    };
    Ok(Difference::between(&old, &new))
}

fn more_wanted(before: &Locked, after: &Outline, difference: &Difference) -> anyhow::Error {
    let why = |text: &String| {
        let mut requests = after.requests.iter();
        let request = requests.find(|request| request.capability.to_string() == *text);
        request.map_or_else(
            || format!("`{text}`"),
            |request| format!("`{text}` ({})", request.why),
        )
    };
    let added: Vec<String> = difference.added.iter().map(why).collect();
    let text = format!(
        "version {} of {} asks for more than version {}: {}",
        after.manifest.version,
        before.id,
        before.version,
        added.join(", ")
    );
    let hint = match kinds(after).join(",").as_str() {
        // Parts of the control flow, which callbacks that the user names have anyway.
        "" => "repeat it with --grant none if that is meant".to_owned(),
        kinds => format!(
            "repeat it with --grant and what you allow beyond what it may already: --grant {kinds} for all of a kind, \
             --grant none for nothing more"
        ),
    };
    Failure::new(Kind::Policy, text).hint(hint).into()
}

/// What was granted and is still asked for, and what is granted now.
fn kept_grants(before: &Locked, after: &Outline, extra: Vec<String>) -> Result<Vec<String>> {
    let is_asked = |grant: &Capability| {
        after
            .requests
            .iter()
            .any(|request| grant.is_within(&request.capability))
    };
    let mut grants = extra;
    for text in Grants::parse(&before.grants)?.texts() {
        if is_asked(&text.parse()?) {
            grants.push(text);
        }
    }
    Ok(Grants::parse(&grants)?.texts())
}
