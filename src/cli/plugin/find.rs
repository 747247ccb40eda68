//! `host plugin search`, `show` and `audit`: what the signed indexes of `trust.toml` know.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use clap::{Arg, ArgMatches, Command};
use serde_json::{Value, json};

use super::add::{requests_text, requests_value};
use super::fetch::{Demand, fetch_reference, signer_text};
use super::place::{Place, plugin_id, reference};
use super::{Report, flag, key_option, positional, unsigned_option, word};
use crate::error::{Failure, Kind, told};
use crate::registry::index::{Entry, Index, Reader, Version};
use crate::registry::lock::{Lock, Locked};
use crate::registry::name::{SCHEME, shown};
use crate::registry::signature::Key;

fn index_option() -> Arg {
    Arg::new("index")
        .long("index")
        .value_name("URL-OR-FILE")
        .help("This index instead of those of trust.toml; needs --key")
}

/// The indexes of `--index`, else of `trust.toml`.
fn indexes(matches: &ArgMatches, place: &Place) -> Result<Vec<Index>> {
    let reader = Reader {
        client: place.client_if_online(),
        kept: &place.indexes,
        now: place.now,
    };
    if let Some(url) = matches.get_one::<String>("index") {
        let Some(key) = matches.get_one::<String>("key") else {
            bail!(
                Failure::usage("--index needs --key")
                    .hint("name the public key that must have signed the index")
            );
        };
        return Ok(vec![reader.read(url, &[Key::named(key)?])?]);
    }
    let trust = place.trust()?;
    let read = |place: &crate::registry::trust::IndexPlace| {
        let keys: Result<Vec<Key>> = place.keys.iter().map(|key| Key::parse(key)).collect();
        reader.read(&place.url, &keys?)
    };
    trust.index_places()?.iter().map(read).collect()
}

pub(super) fn search_command() -> Command {
    Command::new("search")
        .about("Look for plugins in the signed indexes of trust.toml")
        .arg(
            Arg::new("text")
                .value_name("TEXT")
                .default_value("")
                .help("Part of a name or summary; absent: all"),
        )
        .arg(
            Arg::new("hook")
                .long("hook")
                .value_name("HOOK")
                .help("Only plugins with this hook, such as metrics"),
        )
        .arg(flag("no-net", "Only plugins that ask for no network"))
        .arg(index_option())
        .arg(key_option("The public key that must have signed --index"))
}

pub(super) fn search(matches: &ArgMatches, place: &Place) -> Result<Report> {
    let wanted = word(matches, "text")?.to_lowercase();
    let hook = matches.get_one::<String>("hook");
    let mut text = String::new();
    let mut values = Vec::new();
    for index in indexes(matches, place)? {
        for entry in &index.plugins {
            let Some(version) = current(entry) else {
                continue;
            };
            let named = format!("{} {}", entry.id, entry.summary).to_lowercase();
            let quiet = !version
                .requests
                .iter()
                .any(|request| request.starts_with("net:"));
            let fits = named.contains(&wanted)
                && hook.is_none_or(|hook| version.hooks.contains(hook))
                && (quiet || !matches.get_flag("no-net"));
            if !fits {
                continue;
            }
            let _ = writeln!(
                text,
                "{} {}  {}\n  {}, {} bytes, asks for {}\n  {}:{}@{}",
                entry.id,
                shown(&version.version),
                shown(&entry.summary),
                shown(&version.hooks.join(", ")),
                version.size,
                match version.requests.is_empty() {
                    true => "nothing".to_owned(),
                    false => shown(&version.requests.join(", ")),
                },
                shown(&version.source),
                shown(&version.version),
                version.manifest
            );
            values.push(json!({"id": entry.id, "summary": entry.summary, "license": entry.license, "version": version}));
        }
    }
    if values.is_empty() {
        text.push_str("nothing found\n");
    }
    Ok(Report {
        text,
        value: Value::from(values),
    })
}

/// The newest version that may be chosen.
fn current(entry: &Entry) -> Option<&Version> {
    let mut versions = entry.versions.iter().rev();
    versions.find(|version| !version.yanked && version.revoked.is_none())
}

pub(super) fn show_command() -> Command {
    Command::new("show")
        .about("Show the versions of a plugin as the indexes know them, or what a registry holds")
        .arg(positional(
            "plugin",
            "namespace/name, or oci://REGISTRY/REPOSITORY[:TAG][@DIGEST]",
        ))
        .arg(index_option())
        .arg(key_option(
            "The public key that must have signed it, or --index",
        ))
        .arg(unsigned_option())
}

pub(super) fn show(matches: &ArgMatches, place: &Place) -> Result<Report> {
    let named = word(matches, "plugin")?;
    if named.starts_with(SCHEME) {
        return show_reference(matches, place, named);
    }
    let id = plugin_id(named)?;
    let indexes = indexes(matches, place)?;
    let Some(entry) = indexes.iter().find_map(|index| index.get(&id)) else {
        let text = format!("no index knows {id}");
        return Err(Failure::usage(text)
            .hint("look for it with `host plugin search`")
            .into());
    };
    let mut text = format!(
        "{id}  {}\nlicense {}\n",
        shown(&entry.summary),
        shown(&entry.license)
    );
    for version in entry.versions.iter().rev() {
        let state = match (&version.revoked, version.yanked) {
            (Some(reason), _) => format!("  revoked: {}", shown(reason)),
            (None, true) => "  yanked".to_owned(),
            (None, false) => String::new(),
        };
        let _ = writeln!(
            text,
            "{}  {}@{}{state}",
            shown(&version.version),
            shown(&version.source),
            version.manifest
        );
        for request in &version.requests {
            let _ = writeln!(text, "  {}", shown(request));
        }
    }
    Ok(Report {
        text,
        value: json!(entry),
    })
}

fn show_reference(matches: &ArgMatches, place: &Place, named: &str) -> Result<Report> {
    let from = reference(named)?;
    let fetched = fetch_reference(place, &from, &Demand::of(matches)?)?;
    let tags = place.repository(&from)?.tags()?;
    let versions: Vec<&String> = tags
        .iter()
        .filter(|tag| semver::Version::parse(tag).is_ok())
        .collect();
    let outline = &fetched.outline;
    let mut text = fetched.headline();
    let _ = writeln!(text, "{}", shown(&outline.manifest.summary));
    let _ = writeln!(
        text,
        "hooks {}, {} bytes",
        outline.hooks.join(", "),
        outline.size
    );
    text.push_str(&requests_text(outline, &[])?);
    let list: Vec<&str> = versions.iter().map(|tag| tag.as_str()).collect();
    let _ = writeln!(text, "versions {}", list.join(", "));
    Ok(Report {
        text,
        value: json!({
            "id": outline.id,
            "version": outline.manifest.version,
            "wasm": outline.digest,
            "manifest": fetched.manifest,
            "signer": fetched.signer,
            "requests": requests_value(outline, &[])?,
            "versions": versions,
        }),
    })
}

pub(super) fn audit_command() -> Command {
    Command::new("audit")
        .about("Compare the lock file with the indexes: what was revoked, yanked, signed by somebody else, or is old")
        .arg(index_option())
        .arg(key_option("The public key that must have signed --index"))
}

pub(super) fn audit(matches: &ArgMatches, place: &Place) -> Result<Report> {
    let lock = Lock::read(&place.lock)?;
    let indexes = indexes(matches, place)?;
    let trust = place.trust()?;
    let mut faults = Vec::new();
    let mut remarks = Vec::new();
    for locked in lock.plugins() {
        if let Err(error) = trust.refuse_revoked(&locked.id, &locked.wasm) {
            faults.push(told(&error));
        }
        match indexes.iter().find_map(|index| index.get(&locked.id)) {
            Some(entry) => judge(locked, entry, &mut faults, &mut remarks),
            None => remarks.push(format!("{}: no index knows it", locked.id)),
        }
    }
    if !faults.is_empty() {
        let all = [faults, remarks].concat();
        let text = format!(
            "{} holds what should not run:\n  {}",
            place.lock.display(),
            all.join("\n  ")
        );
        return Err(Failure::new(Kind::Policy, text)
            .hint("update or remove it; [[revoke]] in trust.toml keeps a component from running everywhere")
            .into());
    }
    let count = lock.plugins().len();
    let mut text = String::new();
    for remark in &remarks {
        let _ = writeln!(text, "{remark}");
    }
    let _ = writeln!(text, "{count} plugins, nothing against them");
    Ok(Report {
        text,
        value: json!({"plugins": count, "remarks": remarks}),
    })
}

fn judge(locked: &Locked, entry: &Entry, faults: &mut Vec<String>, remarks: &mut Vec<String>) {
    let id = &locked.id;
    let known = entry
        .versions
        .iter()
        .find(|version| version.version == locked.version);
    match known {
        None => remarks.push(format!("{id}: version {} is in no index", locked.version)),
        Some(version) if version.wasm != locked.wasm => faults.push(format!(
            "{id}: version {} is {} in the index and {} in the lock file",
            locked.version, version.wasm, locked.wasm
        )),
        Some(version) => {
            if let Some(reason) = &version.revoked {
                faults.push(format!(
                    "{id}: version {} was revoked: {}",
                    locked.version,
                    shown(reason)
                ));
            }
            if version.yanked {
                remarks.push(format!("{id}: version {} was yanked", locked.version));
            }
            if version.signer.as_deref() != locked.signer.key() {
                remarks.push(format!(
                    "{id}: the index says it is signed by {}, the lock file {}",
                    version
                        .signer
                        .as_deref()
                        .map_or_else(|| "nobody".to_owned(), shown),
                    signer_text(&locked.signer)
                ));
            }
        }
    }
    let newest = current(entry).and_then(|version| semver::Version::parse(&version.version).ok());
    let own = semver::Version::parse(&locked.version).ok();
    if let (Some(newest), Some(own)) = (newest, own)
        && newest > own
    {
        remarks.push(format!("{id}: version {newest} is there; {own} is locked"));
    }
}
