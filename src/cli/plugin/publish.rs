//! `host plugin push` and `pull`: components to and from registries, in the layout that other tools read.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgMatches, Command, value_parser};
use semver::Version;
use serde_json::json;

use super::difference::Difference;
use super::fetch::{Demand, fetch_reference, signer_text};
use super::place::{Place, reference};
use super::sign::secret_key;
use super::{Report, flag, key_option, positional, unsigned_option, update, word};
use crate::error::{Failure, Kind};
use crate::plugin::outline::Outline;
use crate::registry::artifact::{self, Artifact, Published};
use crate::registry::distribution::Repository;
use crate::registry::file;
use crate::registry::index::{self, Index};
use crate::registry::name::{Digest, Reference, version_tag};
use crate::registry::signature::Signer;

pub(super) fn push_command() -> Command {
    let path = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help(help)
    };
    Command::new("push")
        .about("Publish a component: its version becomes the tag, which never moves")
        .arg(positional("file", "The component file"))
        .arg(positional("to", "oci://REGISTRY/.../NAMESPACE/NAME"))
        .arg(path("sign", "Sign it with this secret key"))
        .arg(path("index", "Add it to this index and sign that; needs --sign"))
        .arg(flag("check", "Only do the checks"))
        .arg(flag("new-requests", "It asks for more than the last version, within one major version"))
        .after_help("Example: host plugin push stop.wasm oci://registry.example.org/acme/early-stop --sign acme.key")
}

pub(super) fn push(matches: &ArgMatches, place: &Place) -> Result<Report> {
    let path = Path::new(word(matches, "file")?);
    let to = reference(word(matches, "to")?)?;
    let (outline, bytes) = Outline::of_file(path)?;
    let sign = matches.get_one::<PathBuf>("sign");
    let signer = sign.map(|key| secret_key(key)).transpose()?;
    let index = matches.get_one::<PathBuf>("index");
    if index.is_some() && signer.is_none() {
        bail!(
            Failure::usage("--index needs --sign")
                .hint("an index is signed, and so is what stands in it")
        );
    }
    let tag = tag_of(&outline, &to)?;
    let artifact = artifact_of(&outline, &bytes)?;
    let digest = Digest::of(&artifact.manifest);
    let repository = place.repository(&to)?;
    check_history(matches, place, &repository, &to, (&outline, &digest))?;
    let mut text = announcement(&outline, &digest);
    let mut key = None;
    if matches.get_flag("check") {
        text.push_str("nothing against publishing it; not done: --check\n");
    } else {
        // The signature first: nobody who looks at the tag finds the component without it.
        repository.upload(&artifact.config)?;
        repository.upload(&bytes)?;
        if let Some(signer) = &signer {
            let signature = signature(signer, &outline, &digest)?;
            repository.sign(&digest, artifact.manifest.len() as u64, &signature)?;
            key = Some(signer.key()?.text().to_owned());
        }
        repository.put_manifest(&artifact.manifest, &tag)?;
        let _ = writeln!(text, "published as {}:{tag}@{digest}", to.source());
        let _ = match &key {
            Some(key) => writeln!(text, "signed with {key}"),
            None => writeln!(
                text,
                "not signed: others take it only with --allow-unsigned"
            ),
        };
        if let (Some(path), Some(signer)) = (index, &signer) {
            let serial = list(path, signer, (&outline, &to, &digest), place)?;
            let _ = writeln!(text, "{} is number {serial} now", path.display());
        }
    }
    let value = json!({
        "id": outline.id,
        "version": outline.manifest.version,
        "source": to.source(),
        "tag": tag,
        "manifest": digest,
        "wasm": outline.digest,
        "key": key,
        "done": !matches.get_flag("check"),
    });
    Ok(Report { text, value })
}

fn signature(signer: &Signer, outline: &Outline, digest: &Digest) -> Result<String> {
    let comment = format!("{} {}", outline.id, outline.manifest.version);
    signer.sign(digest.as_str().as_bytes(), &comment)
}

/// What will be published, and what others will be asked.
fn announcement(outline: &Outline, digest: &Digest) -> String {
    let mut text = format!("{} {} ({digest})\n", outline.id, outline.manifest.version);
    if outline.manifest.license.is_empty() {
        text.push_str(
            "  its manifest names no license: others cannot know whether they may use it\n",
        );
    }
    for request in &outline.requests {
        let _ = writeln!(text, "  asks for {} ({})", request.capability, request.why);
    }
    text
}

/// The version as a tag of this place.
fn tag_of(outline: &Outline, to: &Reference) -> Result<String> {
    let tag = version_tag(&outline.manifest.version);
    if !to.may_hold(&outline.id) {
        let text = format!("{} is not a place for {}", to.source(), outline.id);
        bail!(Failure::usage(text).hint(format!(
            "let it end with the name and name the namespace before: oci://{}/{}",
            to.registry, outline.id
        )));
    }
    match (&to.tag, &to.digest) {
        (None, None) => Ok(tag),
        (Some(given), None) if *given == tag => Ok(tag),
        _ => bail!(
            Failure::usage(format!(
                "{to} names another version than {}",
                outline.manifest.version
            ))
            .hint("leave the tag out: the version in the component becomes the tag")
        ),
    }
}

fn artifact_of(outline: &Outline, bytes: &[u8]) -> Result<Artifact> {
    let manifest = &outline.manifest;
    let annotations = [
        ("title", outline.id.to_string()),
        ("version", manifest.version.clone()),
        ("description", manifest.summary.clone()),
        ("licenses", manifest.license.clone()),
        ("source", manifest.source.clone()),
    ];
    let known = annotations
        .into_iter()
        .filter(|(_, value)| !value.is_empty());
    Artifact::new(&Published {
        wasm: bytes,
        imports: &outline.imports,
        exports: &outline.exports,
        annotations: known.collect::<BTreeMap<_, _>>(),
    })
}

/// A published version never changes, and one that asks for more is a new major version or said to be meant.
fn check_history(
    matches: &ArgMatches,
    place: &Place,
    repository: &Repository<'_>,
    to: &Reference,
    (outline, digest): (&Outline, &Digest),
) -> Result<()> {
    // A repository that does not exist yet has no tags.
    let tags = match repository.tags() {
        Ok(tags) => tags,
        Err(error) if crate::error::kind_of(&error) == Kind::Data => Vec::new(),
        Err(error) => return Err(error),
    };
    let own = Version::parse(&outline.manifest.version)?;
    let tag = version_tag(&outline.manifest.version);
    if tags.contains(&tag) {
        let (_, present) = repository.manifest(&tag)?;
        if present == *digest {
            return Ok(());
        }
        let text = format!(
            "{}:{tag} is published already, with other content ({present})",
            to.source()
        );
        return Err(Failure::new(Kind::Policy, text)
            .hint("a version does not change once others can have it: raise the version in the manifest")
            .into());
    }
    let Some(last) = update::newest(&tags).filter(|last| last.major == own.major && *last < own)
    else {
        return Ok(());
    };
    let (manifest, _) = repository.manifest(&version_tag(&last.to_string()))?;
    let component = artifact::component(&manifest)?;
    let bytes = repository.download(&component, &place.store)?;
    let before = Outline::of(&to.source(), &bytes)?.request_texts()?;
    let added = Difference::between(&before, &outline.request_texts()?).added;
    if added.is_empty() || matches.get_flag("new-requests") {
        return Ok(());
    }
    let text = format!("{own} asks for more than {last}: {}", added.join(", "));
    Err(Failure::new(Kind::Policy, text)
        .hint("raise the major version, or say with --new-requests that it is meant; users are asked anyway")
        .into())
}

/// Adds the version to an index; its new number.
fn list(
    path: &Path,
    signer: &Signer,
    (outline, to, digest): (&Outline, &Reference, &Digest),
    place: &Place,
) -> Result<u64> {
    let _held = file::exclusive(path)?;
    let mut index =
        Index::read_own(path).with_context(|| format!("the index {}", path.display()))?;
    let version = index::Version {
        version: outline.manifest.version.clone(),
        source: to.source(),
        manifest: digest.clone(),
        wasm: outline.digest.clone(),
        api: outline.manifest.api.clone(),
        size: outline.size,
        hooks: outline.hooks.clone(),
        requests: outline.request_texts()?,
        signer: Some(signer.key()?.text().to_owned()),
        yanked: false,
        revoked: None,
    };
    let manifest = &outline.manifest;
    index.publish(
        &outline.id,
        &manifest.summary,
        &manifest.license,
        version,
        place.now,
    );
    index.write(path, signer)?;
    Ok(index.serial)
}

pub(super) fn pull_command() -> Command {
    Command::new("pull")
        .about("Download a component, with the same checks as add")
        .arg(positional(
            "from",
            "oci://REGISTRY/REPOSITORY[:TAG][@DIGEST]",
        ))
        .arg(
            Arg::new("output")
                .short('o')
                .long("output")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Where to; absent: NAME.wasm in the current folder"),
        )
        .arg(key_option("The public key that must have signed it"))
        .arg(unsigned_option())
}

pub(super) fn pull(matches: &ArgMatches, place: &Place) -> Result<Report> {
    let from = reference(word(matches, "from")?)?;
    let fetched = fetch_reference(place, &from, &Demand::of(matches)?)?;
    let named = PathBuf::from(format!("{}.wasm", fetched.outline.id.name()));
    let path = matches
        .get_one::<PathBuf>("output")
        .cloned()
        .unwrap_or(named);
    file::write(&path, &fetched.bytes, false)?;
    Ok(Report {
        text: format!(
            "{} {}, {}: {} ({})\n",
            fetched.outline.id,
            fetched.outline.manifest.version,
            signer_text(&fetched.signer),
            path.display(),
            fetched.outline.digest
        ),
        value: json!({
            "id": fetched.outline.id,
            "version": fetched.outline.manifest.version,
            "file": path,
            "wasm": fetched.outline.digest,
            "manifest": fetched.manifest,
            "signer": fetched.signer,
        }),
    })
}
