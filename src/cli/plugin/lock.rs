//! `host plugin list`, `remove`, `grant`, `revoke`, `lock` and `vendor`: what stands in the lock file, what it may do,
//! and whether the store agrees.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgMatches, Command, value_parser};
use serde_json::{Value, json};

use super::add::granted;
use super::difference::Difference;
use super::fetch::{DEMANDED, Demand, fetch_reference, judge, locked_value, signer_text};
use super::place::{Place, plugin_id, reference};
use super::{Report, flag, positional, word, words};
use crate::error::{Failure, told};
use crate::plugin::capability::{Capability, Grants};
use crate::plugin::outline::Outline;
use crate::registry::lock::{Lock, Locked, Signer};
use crate::registry::name::SCHEME;
use crate::registry::signature::Key;
use crate::registry::store::{Store, VENDOR};

pub(super) fn list_command() -> Command {
    Command::new("list").about("Show the plugins of the lock file, with what each may do")
}

pub(super) fn list(_: &ArgMatches, place: &Place) -> Result<Report> {
    let lock = Lock::read(&place.lock)?;
    let mut text = String::new();
    let mut values = Vec::new();
    for locked in lock.plugins() {
        let is_here = holder(place, locked).is_some();
        let _ = writeln!(
            text,
            "{} {}  {}  {}{}",
            locked.id,
            locked.version,
            locked.source,
            signer_text(&locked.signer),
            if is_here { "" } else { "  (not in the store)" }
        );
        for grant in &locked.grants {
            let _ = writeln!(text, "  {grant}");
        }
        let mut value = locked_value(locked);
        value["stored"] = is_here.into();
        values.push(value);
    }
    if values.is_empty() {
        let _ = writeln!(text, "{} holds no plugin", place.lock.display());
    }
    Ok(Report {
        text,
        value: Value::from(values),
    })
}

pub(super) fn remove_command() -> Command {
    Command::new("remove")
        .about("Take a plugin out of the lock file; its component stays in the store")
        .arg(positional("id", "The plugin, namespace/name"))
}

pub(super) fn remove(matches: &ArgMatches, place: &Place) -> Result<Report> {
    let id = plugin_id(word(matches, "id")?)?;
    let removed = Lock::change(&place.lock, |lock| match lock.remove(&id) {
        Some(removed) => Ok(removed),
        None => Err(place.unknown(lock, &id)),
    })?;
    Ok(Report {
        text: format!(
            "removed {} {} from {}\n",
            removed.id,
            removed.version,
            place.lock.display()
        ),
        value: locked_value(&removed),
    })
}

fn capabilities(help: &'static str) -> Arg {
    Arg::new("capabilities")
        .value_name("KIND-OR-TEXT")
        .num_args(1..)
        .value_delimiter(',')
        .required(true)
        .help(help)
}

pub(super) fn grant_command() -> Command {
    Command::new("grant")
        .about("Allow a plugin more of what it asks for")
        .arg(positional("id", "The plugin, namespace/name"))
        .arg(capabilities(
            "Kinds (net, secret, ...) or texts, as `host plugin inspect` shows them",
        ))
        .after_help("Example: host plugin grant acme/board 'net:https://api.example.org POST'")
}

pub(super) fn grant(matches: &ArgMatches, place: &Place) -> Result<Report> {
    let id = plugin_id(word(matches, "id")?)?;
    let locked = place.locked(&Lock::read(&place.lock)?, &id)?;
    let outline = outline(place, &locked)?;
    let added = granted(&outline, &words(matches, "capabilities"))?;
    change_grants(place, &locked, |grants| {
        grants.extend(added);
        Ok(())
    })
}

pub(super) fn revoke_command() -> Command {
    Command::new("revoke")
        .about("Take back what a plugin was allowed")
        .arg(positional("id", "The plugin, namespace/name"))
        .arg(capabilities(
            "Kinds or texts, as `host plugin list` shows them; all: everything",
        ))
}

pub(super) fn revoke(matches: &ArgMatches, place: &Place) -> Result<Report> {
    let id = plugin_id(word(matches, "id")?)?;
    let locked = place.locked(&Lock::read(&place.lock)?, &id)?;
    change_grants(place, &locked, |grants| {
        for word in words(matches, "capabilities") {
            let is_meant = |text: &String| {
                let capability: Capability = text.parse()?;
                let same = word
                    .parse::<Capability>()
                    .is_ok_and(|other| other == capability);
                anyhow::Ok(word == "all" || same || capability.kind() == word)
            };
            let meant: Vec<bool> = grants.iter().map(is_meant).collect::<Result<_>>()?;
            if !meant.contains(&true) && word != "all" {
                let text = format!("{id} has no grant `{word}`");
                bail!(Failure::usage(text).hint(match grants.is_empty() {
                    true => "it has none at all".to_owned(),
                    false => format!("it has {}", grants.join(", ")),
                }));
            }
            let mut meant = meant.into_iter();
            grants.retain(|_| meant.next() != Some(true));
        }
        Ok(())
    })
}

/// Changes the grants of a plugin and shows the difference.
fn change_grants(
    place: &Place,
    before: &Locked,
    change: impl FnOnce(&mut Vec<String>) -> Result<()>,
) -> Result<Report> {
    let after = Lock::change(&place.lock, |lock| {
        let entry = match lock.get_mut(&before.id) {
            Some(entry) => entry,
            None => bail!(Failure::usage(format!(
                "{} was removed meanwhile",
                before.id
            ))),
        };
        let mut grants = Grants::parse(&entry.grants)?.texts();
        change(&mut grants)?;
        entry.grants = Grants::parse(&grants)?.texts();
        Ok(entry.clone())
    })?;
    let mut text = format!("{} in {}\n", after.id, place.lock.display());
    for (sign, grant) in Difference::between(&before.grants, &after.grants).signed() {
        let _ = writeln!(text, "  {sign} {grant}");
    }
    Ok(Report {
        text,
        value: locked_value(&after),
    })
}

/// Where a plugin's component may be: vendored beside the lock, or in the user's store.
fn stores(place: &Place) -> [Store; 2] {
    [
        Store::new(place.lock.with_file_name(VENDOR)),
        place.store.clone(),
    ]
}

/// The one of them that has it.
fn holder(place: &Place, locked: &Locked) -> Option<Store> {
    let mut stores = stores(place).into_iter();
    stores.find(|store| store.has(&locked.wasm))
}

fn component(place: &Place, locked: &Locked) -> Result<Vec<u8>> {
    holder(place, locked)
        .unwrap_or_else(|| place.store.clone())
        .get(&locked.wasm)
        .with_context(|| {
            Failure::data(format!(
                "the component of {} {} cannot be used",
                locked.id, locked.version
            ))
            .hint("fetch it with `host plugin lock`, or add its file again")
        })
}

fn outline(place: &Place, locked: &Locked) -> Result<Outline> {
    Outline::of(&locked.id.to_string(), &component(place, locked)?)
}

pub(super) fn lock_command() -> Command {
    Command::new("lock")
        .about("Fetch what the lock file names and the store lacks, exactly as it is pinned")
        .arg(flag("check", "Fetch and change nothing: compare the lock file with the store; for continuous integration"))
}

pub(super) fn lock(matches: &ArgMatches, place: &Place) -> Result<Report> {
    let lock = Lock::read(&place.lock)?;
    let mut fetched = Vec::new();
    if !matches.get_flag("check") {
        for locked in lock.plugins() {
            if holder(place, locked).is_none() {
                restore(place, locked)?;
                fetched.push(locked.id.to_string());
            }
        }
    }
    let mut findings = Vec::new();
    for locked in lock.plugins() {
        let mut found = check(place, locked).unwrap_or_else(|error| vec![told(&error)]);
        found
            .iter_mut()
            .for_each(|text| *text = format!("{}: {text}", locked.id));
        findings.append(&mut found);
    }
    if !findings.is_empty() {
        let text = format!(
            "{} does not hold:\n  {}",
            place.lock.display(),
            findings.join("\n  ")
        );
        return Err(Failure::data(text)
            .hint("update or remove the plugin, or take an earlier version of the file")
            .into());
    }
    let count = lock.plugins().len();
    let mut text = String::new();
    for id in &fetched {
        let _ = writeln!(text, "fetched {id}");
    }
    let _ = writeln!(
        text,
        "{} holds: {count} plugins, each as it was added",
        place.lock.display()
    );
    Ok(Report {
        text,
        value: json!({"lock": place.lock, "plugins": count, "fetched": fetched}),
    })
}

/// Fetches a component by the digests of the lock.
fn restore(place: &Place, locked: &Locked) -> Result<()> {
    let subject = || format!("{} {} cannot be fetched", locked.id, locked.version);
    let Some(manifest) = locked
        .manifest
        .as_ref()
        .filter(|_| locked.source.starts_with(SCHEME))
    else {
        let text = format!("it was added from a file ({})", locked.source);
        let failure = Failure::data(text)
            .hint("add that file again, or take the folder that `host plugin vendor` wrote");
        return Err(failure).with_context(subject);
    };
    let demand = Demand {
        key: locked.signer.key().map(Key::parse).transpose()?,
        allow_unsigned: true,
    };
    let from = reference(&locked.source)?.with_digest(manifest);
    let fetched = fetch_reference(place, &from, &demand).with_context(subject)?;
    if fetched.outline.digest != locked.wasm {
        let text = format!(
            "its manifest names the component {}, the lock file {}",
            fetched.outline.digest, locked.wasm
        );
        return Err(Failure::data(text)).with_context(subject);
    }
    Ok(())
}

/// What is wrong with an entry.
fn check(place: &Place, locked: &Locked) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let outline = outline(place, locked)?;
    let manifest = &outline.manifest;
    for (what, found, written) in [
        (
            "calls itself",
            outline.id.to_string(),
            locked.id.to_string(),
        ),
        (
            "has the version",
            manifest.version.clone(),
            locked.version.clone(),
        ),
        ("has the api", manifest.api.clone(), locked.api.clone()),
        (
            "asks for what has the digest",
            outline.requests_digest()?.to_string(),
            locked.requests.to_string(),
        ),
    ] {
        if found != written {
            findings.push(format!(
                "its component {what} {found}, the lock file says {written}"
            ));
        }
    }
    for text in &locked.grants {
        let grant: Capability = text.parse()?;
        if !outline
            .requests
            .iter()
            .any(|request| grant.is_within(&request.capability))
        {
            findings.push(format!("is granted `{text}`, which it does not ask for"));
        }
    }
    if let Err(error) = place.trust()?.refuse_revoked(&locked.id, &locked.wasm) {
        findings.push(told(&error));
    }
    findings.extend(check_signature(place, locked)?);
    Ok(findings)
}

/// Whether the signature that was good enough when it was added still is.
fn check_signature(place: &Place, locked: &Locked) -> Result<Option<String>> {
    let (Signer::Key { policy, .. }, Some(digest)) = (&locked.signer, &locked.manifest) else {
        return Ok(None);
    };
    let mut signatures = Vec::new();
    for store in stores(place) {
        signatures.extend(store.signatures(digest)?);
    }
    let demand = Demand {
        key: match policy == DEMANDED {
            true => locked.signer.key().map(Key::parse).transpose()?,
            false => None,
        },
        allow_unsigned: false,
    };
    Ok(
        match judge(place, &locked.id, digest, &signatures, &demand) {
            Ok(signer) if signer.key() == locked.signer.key() => None,
            Ok(signer) => Some(format!(
                "is {}, the lock file says {}",
                signer_text(&signer),
                signer_text(&locked.signer)
            )),
            Err(error) => Some(told(&error)),
        },
    )
}

pub(super) fn vendor_command() -> Command {
    Command::new("vendor")
        .about("Copy the components of the lock file beside it, for machines without a network")
        .arg(
            Arg::new("folder")
                .value_name("FOLDER")
                .value_parser(value_parser!(PathBuf))
                .help(
                    "Where to; absent: plugins.vendor beside the lock file, where runs look first",
                ),
        )
}

pub(super) fn vendor(matches: &ArgMatches, place: &Place) -> Result<Report> {
    let beside = place.lock.with_file_name(VENDOR);
    let folder = matches
        .get_one::<PathBuf>("folder")
        .cloned()
        .unwrap_or(beside);
    let target = Store::new(folder.clone());
    let lock = Lock::read(&place.lock)?;
    for locked in lock.plugins() {
        target.put(&component(place, locked)?)?;
        let Some(digest) = &locked.manifest else {
            continue;
        };
        for store in stores(place) {
            if let Ok(manifest) = store.get(digest) {
                target.put(&manifest)?;
            }
            let signatures = store.signatures(digest)?;
            if !signatures.is_empty() {
                target.put_signatures(digest, &signatures)?;
            }
        }
    }
    let count = lock.plugins().len();
    Ok(Report {
        text: format!("{count} plugins in {}\n", folder.display()),
        value: json!({"folder": folder, "plugins": count}),
    })
}
