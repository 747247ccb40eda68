//! `host plugin keygen`, `sign` and `verify`: keys and signatures, offline where a file is meant. Files are those of
//! minisign, which reads and checks them too.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgMatches, Command, value_parser};
use serde_json::json;

use super::fetch::{DEMANDED, Demand, fetch_reference, signature_of_file, signed_by, signer_text};
use super::place::{Place, key_password, reference};
use super::{Report, flag, key_option, path, positional, unsigned_option, word};
use crate::error::{Failure, Kind};
use crate::registry::artifact;
use crate::registry::credentials::Secret;
use crate::registry::file;
use crate::registry::name::{Digest, SCHEME};
use crate::registry::signature::{self, Key, Signer};
use crate::registry::store::MAX_BLOB;

pub(super) fn keygen_command() -> Command {
    Command::new("keygen")
        .about("Make a key pair: FILE with the secret, FILE.pub with the public key")
        .arg(super::file(
            "file",
            "Where the secret key goes; it must not exist",
        ))
        .arg(flag(
            "no-password",
            "Do not encrypt the secret key; without it HOST_KEY_PASSWORD must hold its password",
        ))
}

pub(super) fn keygen(matches: &ArgMatches, _: &Place) -> Result<Report> {
    let path = path(matches, "file")?;
    let public = PathBuf::from(format!("{}.pub", path.display()));
    for present in [path, &public] {
        if present.exists() {
            let text = format!("{} exists and is not written over", present.display());
            bail!(Failure::usage(text).hint("name another file"));
        }
    }
    let password = match (matches.get_flag("no-password"), key_password()) {
        (true, _) => None,
        (false, Some(password)) => Some(password),
        (false, None) => bail!(
            Failure::usage("no password for the secret key")
                .hint("give it in the environment variable HOST_KEY_PASSWORD, or --no-password to encrypt nothing")
        ),
    };
    let (secret, public_text, key) = signature::generate(password.as_ref().map(Secret::reveal))?;
    file::write(path, secret.as_bytes(), true)?;
    file::write(&public, public_text.as_bytes(), false)?;
    Ok(Report {
        text: format!(
            "secret key {}\npublic key {}\n{}\n",
            path.display(),
            public.display(),
            key.text()
        ),
        value: json!({"secret": path, "public": public, "key": key.text()}),
    })
}

/// The secret key of `--key`.
pub(super) fn secret_key(path: &Path) -> Result<Signer> {
    Signer::read(path, key_password().as_ref().map(Secret::reveal))
}

pub(super) fn sign_command() -> Command {
    Command::new("sign")
        .about("Sign a file (FILE.minisig appears beside it) or what a registry holds (the signature goes there)")
        .arg(positional("what", "A file, or oci://REGISTRY/REPOSITORY:TAG"))
        .arg(
            Arg::new("key")
                .long("key")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The secret key"),
        )
}

pub(super) fn sign(matches: &ArgMatches, place: &Place) -> Result<Report> {
    let what = word(matches, "what")?;
    let signer = secret_key(path(matches, "key")?)?;
    let key = signer.key()?.text().to_owned();
    if what.starts_with(SCHEME) {
        let from = reference(what)?;
        let repository = place.repository(&from)?;
        let (manifest, digest) = repository.manifest(from.wanted())?;
        artifact::component(&manifest)
            .with_context(|| Failure::data(format!("{from} is not signed")))?;
        let text = signer.sign(digest.as_str().as_bytes(), &from.source())?;
        repository.sign(&digest, manifest.len() as u64, &text)?;
        return Ok(Report {
            text: format!("signed {} ({digest}) with {key}\n", from.source()),
            value: json!({"source": from.source(), "manifest": digest, "key": key}),
        });
    }
    let path = Path::new(what);
    let bytes = file::read(path, MAX_BLOB)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let text = signer.sign(&bytes, &format!("{name} {}", Digest::of(&bytes)))?;
    let beside = PathBuf::from(format!("{what}.minisig"));
    file::write(&beside, text.as_bytes(), false)?;
    Ok(Report {
        text: format!("signed {what} with {key}: {}\n", beside.display()),
        value: json!({"file": what, "signature": beside, "key": key}),
    })
}

pub(super) fn verify_command() -> Command {
    Command::new("verify")
        .about("Check a signature, and say which key or which rule of trust.toml was enough")
        .arg(positional(
            "what",
            "A file with FILE.minisig beside it, or oci://REGISTRY/REPOSITORY[:TAG][@DIGEST]",
        ))
        .arg(key_option("The public key; needed for a file"))
        .arg(unsigned_option().hide(true))
}

pub(super) fn verify(matches: &ArgMatches, place: &Place) -> Result<Report> {
    let what = word(matches, "what")?;
    let demand = Demand {
        allow_unsigned: false,
        ..Demand::of(matches)?
    };
    if what.starts_with(SCHEME) {
        let from = reference(what)?;
        let fetched = fetch_reference(place, &from, &demand)?;
        if fetched.signer.key().is_none() {
            let text = format!("{from} is unsigned; trust.toml takes unsigned plugins");
            return Err(Failure::new(Kind::Policy, text)
                .hint("name the key that must have signed it with --key")
                .into());
        }
        return Ok(Report {
            text: fetched.headline(),
            value: json!({"id": fetched.outline.id, "wasm": fetched.outline.digest, "signer": fetched.signer}),
        });
    }
    let Some(key): Option<&Key> = demand.key.as_ref() else {
        bail!(
            Failure::usage("whose signature is it to be?").hint("give the public key with --key")
        );
    };
    let path = Path::new(what);
    let bytes = file::read(path, MAX_BLOB)?;
    let comment = signature_of_file(path, &bytes, key)?;
    let signer = signed_by(key, DEMANDED);
    Ok(Report {
        text: format!("{what}: {}, who wrote: {comment}\n", signer_text(&signer)),
        value: json!({"file": what, "digest": Digest::of(&bytes), "key": key.text(), "comment": comment}),
    })
}
