//! From a file or a place in a registry to a component in the store that has been looked at and whose signature has
//! been judged. Nothing else brings components in.

use std::path::Path;

use anyhow::{Context, Result};
use clap::ArgMatches;
use serde_json::{Value, json};

use super::place::{Place, file_name, reference};
use crate::error::{Failure, Kind};
use crate::plugin::outline::Outline;
use crate::registry::artifact;
use crate::registry::lock::{Locked, Signer};
use crate::registry::name::{Digest, PluginId, Reference, SCHEME, shown};
use crate::registry::signature::{self, Key};
use crate::registry::trust::{Unsigned, allow_lines, shown_path};

/// In place of a rule of `trust.toml`: the option that named the key.
pub(super) const DEMANDED: &str = "--key";

/// A component that is in the store.
#[derive(Debug)]
pub(super) struct Fetched {
    pub outline: Outline,
    pub bytes: Vec<u8>,
    /// As lock files hold it.
    pub source: String,
    /// Digest of the OCI manifest.
    pub manifest: Option<Digest>,
    pub signer: Signer,
}

/// What the command line says about signatures.
#[derive(Debug, Default)]
pub(super) struct Demand {
    /// This key must have signed it, whatever the rules say.
    pub key: Option<Key>,
    /// Nobody need have signed it.
    pub allow_unsigned: bool,
}

impl Demand {
    pub(super) fn of(matches: &ArgMatches) -> Result<Self> {
        let key = matches
            .get_one::<String>("key")
            .map(|text| Key::named(text));
        Ok(Self {
            key: key.transpose()?,
            allow_unsigned: matches.get_flag("allow-unsigned"),
        })
    }
}

/// Brings what `word` names into the store: a file, or a place in a registry.
pub(super) fn fetch(place: &Place, word: &str, demand: &Demand) -> Result<Fetched> {
    if word.starts_with(SCHEME) {
        return fetch_reference(place, &reference(word)?, demand);
    }
    let path = Path::new(word);
    if !path.exists() && word.parse::<PluginId>().is_ok() {
        let text = format!("`{word}` is no file");
        return Err(Failure::usage(text)
            .hint(format!(
                "name a component file, or a place in a registry ({SCHEME}...), which `host plugin search {word}` finds"
            ))
            .into());
    }
    let (outline, bytes) = Outline::of_file(path)?;
    place
        .trust()?
        .refuse_revoked(&outline.id, &outline.digest)?;
    let signer = match &demand.key {
        None => Signer::None,
        Some(key) => {
            signature_of_file(path, &bytes, key)?;
            signed_by(key, DEMANDED)
        }
    };
    place.store.put(&bytes)?;
    Ok(Fetched {
        source: format!("file:{}", file_name(path)?),
        outline,
        bytes,
        manifest: None,
        signer,
    })
}

/// Checks the signature beside a file; what its author wrote into it.
pub(super) fn signature_of_file(path: &Path, bytes: &[u8], key: &Key) -> Result<String> {
    let beside = format!("{}.minisig", path.display());
    let text = std::fs::read_to_string(&beside).with_context(|| {
        Failure::data(format!("the signature {} cannot be read", shown(&beside)))
    })?;
    signature::check(&text, bytes, key)
}

/// From a registry.
pub(super) fn fetch_reference(place: &Place, from: &Reference, demand: &Demand) -> Result<Fetched> {
    let repository = place.repository(from)?;
    let (manifest, digest) = repository.manifest(from.wanted())?;
    let component = artifact::component(&manifest)
        .with_context(|| Failure::data(format!("{from} cannot be used")))?;
    let bytes = repository.download(&component, &place.store)?;
    let outline = Outline::of(&from.to_string(), &bytes)?;
    check_names(from, &outline)?;
    place
        .trust()?
        .refuse_revoked(&outline.id, &outline.digest)?;
    let signatures = repository.signatures(&digest)?;
    let signer = judge(place, &outline.id, &digest, &signatures, demand)?;
    place.store.put(&manifest)?;
    if !signatures.is_empty() {
        place.store.put_signatures(&digest, &signatures)?;
    }
    Ok(Fetched {
        outline,
        bytes,
        source: from.source(),
        manifest: Some(digest),
        signer,
    })
}

/// A component must be who its place says, and the version that its tag says.
fn check_names(from: &Reference, outline: &Outline) -> Result<()> {
    if !from.may_hold(&outline.id) {
        let text = format!(
            "{} holds a plugin that calls itself {}",
            from.source(),
            outline.id
        );
        return Err(Failure::data(text)
            .hint("the place must end with its name and name its namespace before: .../NAMESPACE/NAME")
            .into());
    }
    let version = outline.manifest.version.as_str();
    match from.tag.as_deref() {
        Some(tag) if semver::Version::parse(tag).is_ok() && tag != version => {
            let text = format!("the tag {tag} of {} holds version {version}", from.source());
            Err(Failure::data(text)
                .hint("tell its author; the version in the component counts")
                .into())
        }
        _ => Ok(()),
    }
}

/// Who signed a manifest, if that is enough.
pub(super) fn judge(
    place: &Place,
    id: &PluginId,
    manifest: &Digest,
    signatures: &[String],
    demand: &Demand,
) -> Result<Signer> {
    let signed = |key: &Key| {
        let mut texts = signatures.iter();
        texts.any(|text| signature::check(text, manifest.as_str().as_bytes(), key).is_ok())
    };
    if let Some(key) = &demand.key {
        if signed(key) {
            return Ok(signed_by(key, DEMANDED));
        }
        let text = format!("{id} ({manifest}) is not signed with {}", key.text());
        return Err(refused(
            text,
            signatures.len(),
            "ask its author which key is right".to_owned(),
        ));
    }
    let trust = place.trust()?;
    let rules = trust.rules(id);
    for rule in &rules {
        for text in &rule.keys {
            let key = Key::parse(text).with_context(|| {
                format!(
                    "rule `{}` of {}",
                    shown(&rule.ids),
                    shown_path(place.settings.as_deref())
                )
            })?;
            if signed(&key) {
                return Ok(signed_by(&key, &rule.ids));
            }
        }
    }
    let file = shown_path(place.settings.as_deref());
    if !rules.is_empty() {
        let text =
            format!("{id} ({manifest}) is signed with none of the keys that {file} names for it");
        let hint =
            "ask its author which key is right, then change that rule, or give it once with --key"
                .to_owned();
        return Err(refused(text, signatures.len(), hint));
    }
    if demand.allow_unsigned || trust.unsigned() == Unsigned::Allow {
        return Ok(Signer::None);
    }
    let text = format!("no rule of {file} says whose signature is enough for {id}");
    let hint = format!(
        "add a rule ({}), or give the key with --key, or take it unsigned with --allow-unsigned",
        allow_lines(id, "RW...")
    );
    Err(refused(text, signatures.len(), hint))
}

fn refused(text: String, signatures: usize, hint: String) -> anyhow::Error {
    let count = match signatures {
        0 => "it has no signature".to_owned(),
        1 => "it has one signature".to_owned(),
        many => format!("it has {many} signatures"),
    };
    Failure::new(Kind::Policy, format!("{text} ({count})"))
        .hint(hint)
        .into()
}

/// The signer of a lock file: this key, which was enough by this rule.
pub(super) fn signed_by(key: &Key, policy: &str) -> Signer {
    Signer::Key {
        id: key.text().to_owned(),
        policy: policy.to_owned(),
    }
}

impl Fetched {
    /// The entry of the lock file.
    pub(super) fn locked(&self, grants: Vec<String>, place: &Place) -> Result<Locked> {
        Ok(Locked {
            id: self.outline.id.clone(),
            version: self.outline.manifest.version.clone(),
            source: self.source.clone(),
            manifest: self.manifest.clone(),
            wasm: self.outline.digest.clone(),
            api: self.outline.manifest.api.clone(),
            requests: self.outline.requests_digest()?,
            grants,
            signer: self.signer.clone(),
            resolved: place.today(),
        })
    }

    /// Name, version, digest and signer in one line.
    pub(super) fn headline(&self) -> String {
        format!(
            "{} {} ({}) from {}, {}\n",
            self.outline.id,
            self.outline.manifest.version,
            self.outline.digest,
            self.source,
            signer_text(&self.signer)
        )
    }
}

/// `signed by ... (rule ...)`.
pub(super) fn signer_text(signer: &Signer) -> String {
    match signer {
        Signer::None => "unsigned".to_owned(),
        Signer::Key { id, policy } => format!("signed by {} ({})", shown(id), shown(policy)),
    }
}

/// An entry of the lock file for scripts.
pub(super) fn locked_value(locked: &Locked) -> Value {
    json!({
        "id": locked.id,
        "version": locked.version,
        "source": locked.source,
        "manifest": locked.manifest,
        "wasm": locked.wasm,
        "api": locked.api,
        "grants": locked.grants,
        "signer": locked.signer,
        "resolved": locked.resolved,
    })
}
