//! Signatures: ed25519 in the form of minisign, so that `minisign -V` checks them too and nothing needs a network.
//!
//! Of an artifact in a registry the text of its manifest's digest (`sha256:...`, no line end) is signed; of a file its
//! bytes. The manifest names component and configuration by digest, and the component holds its own name and version.

use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result, bail};
use minisign::{KeyPair, PublicKey, PublicKeyBox, SecretKey, SecretKeyBox, SignatureBox};

use super::file;
use super::name::shown;
use crate::error::{Failure, Kind};

/// Longer key and signature files are refused.
pub const MAX_LENGTH: u64 = 4096;

/// A public key.
#[derive(Clone, Debug)]
pub struct Key {
    key: PublicKey,
    text: String,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl From<PublicKey> for Key {
    fn from(key: PublicKey) -> Self {
        Self {
            text: key.to_base64(),
            key,
        }
    }
}

impl Key {
    /// From its text in base64, as it stands in the second line of a `.pub` file.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Failure::usage(format!("`{}` is not a public key", shown(text)))
                .hint("give the second line of the .pub file, which begins with RW, or the file")
        };
        // 42 bytes in base64 that begin with `Ed`; the decoder is not trusted with anything else.
        if text.len() != 56 || !text.is_ascii() || !text.starts_with("RW") {
            bail!(wrong());
        }
        Ok(PublicKey::from_base64(text).map_err(|_| wrong())?.into())
    }

    /// From a text or the file that it names.
    pub fn named(text: &str) -> Result<Self> {
        let path = Path::new(text);
        if !path.is_file() {
            return Self::parse(text);
        }
        let read = || -> Result<Self> {
            let bytes = file::read(path, MAX_LENGTH)?;
            let text = String::from_utf8_lossy(&bytes);
            let line = text.lines().nth(1).unwrap_or_default();
            Self::parse(line.trim())
        };
        read().with_context(|| format!("the public key in {}", path.display()))
    }

    /// Its text in base64.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A secret key.
pub struct Signer(SecretKey);

impl Signer {
    /// From a file of [`generate`] or of minisign. `password` opens an encrypted one.
    pub fn read(path: &Path, password: Option<&str>) -> Result<Self> {
        let subject = || Failure::data(format!("the secret key {} cannot be used", path.display()));
        let bytes = file::read(path, MAX_LENGTH).with_context(subject)?;
        let text = String::from_utf8(bytes).with_context(subject)?;
        let boxed = || SecretKeyBox::from_string(&text);
        if let Ok(key) = boxed().and_then(SecretKeyBox::into_unencrypted_secret_key) {
            return Ok(Self(key));
        }
        let Some(password) = password else {
            let text = format!("the secret key {} is encrypted, or is none", path.display());
            return Err(Failure::new(Kind::Policy, text)
                .hint("give its password in the environment variable HOST_KEY_PASSWORD")
                .into());
        };
        let key = boxed().and_then(|key| key.into_secret_key(Some(password.to_owned())));
        Ok(Self(key.with_context(subject)?))
    }

    /// The public key that belongs to it.
    pub fn key(&self) -> Result<Key> {
        let key = PublicKey::from_secret_key(&self.0);
        Ok(key.context("the secret key has no public key")?.into())
    }

    /// Signs `message`; `comment` is signed with it and says what was signed.
    pub fn sign(&self, message: &[u8], comment: &str) -> Result<String> {
        let signature = minisign::sign(
            Some(&self.key()?.key),
            &self.0,
            Cursor::new(message),
            Some(comment),
            Some("signature of host plugin"),
        );
        Ok(signature.context("signing failed")?.to_string())
    }
}

/// Makes a key pair: the texts of the secret and the public file.
pub fn generate(password: Option<&str>) -> Result<(String, String, Key)> {
    let pair = match password {
        Some(password) => KeyPair::generate_encrypted_keypair(Some(password.to_owned())),
        None => KeyPair::generate_unencrypted_keypair(),
    };
    let pair = pair.context("no key could be made")?;
    let secret = pair.sk.to_box(Some("secret key of host plugin"));
    let secret = secret.context("the key cannot be written")?.into_string();
    let public: PublicKeyBox = pair.pk.to_box().context("the key cannot be written")?;
    Ok((secret, public.into_string(), pair.pk.into()))
}

/// The signed comment if `text` is a signature of `message` by `key`.
pub fn check(text: &str, message: &[u8], key: &Key) -> Result<String> {
    let invalid = |reason: &str| Failure::data(format!("the signature is not valid: {reason}"));
    if text.len() as u64 > MAX_LENGTH || !has_form(text) {
        bail!(invalid("it has not the form of minisign"));
    }
    let signature =
        SignatureBox::from_string(text).map_err(|error| invalid(&shown(&error.to_string())))?;
    minisign::verify(
        &key.key,
        &signature,
        Cursor::new(message),
        true,
        false,
        false,
    )
    .map_err(|error| invalid(&shown(&error.to_string())))?;
    let comment = signature.trusted_comment();
    Ok(shown(
        &comment.map_err(|error| invalid(&shown(&error.to_string())))?,
    ))
}

/// Four lines whose second and fourth are base64 of 74 and 64 bytes: the decoder is not trusted with anything else.
fn has_form(text: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    text.is_ascii() && lines.len() == 4 && lines[1].len() == 100 && lines[3].len() == 88
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_signed_message_and_the_right_key_pass() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let (secret, public, key) = generate(None).expect("a key");
        std::fs::write(&path, secret).expect("written");
        let signer = Signer::read(&path, None).expect("a key");
        assert_eq!(signer.key().expect("public"), key);
        assert_eq!(
            Key::parse(public.lines().nth(1).expect("a line")).expect("a key"),
            key
        );

        let text = signer
            .sign(b"sha256:00", "acme/stop 1.0.0")
            .expect("signed");
        assert_eq!(
            check(&text, b"sha256:00", &key).expect("valid"),
            "acme/stop 1.0.0"
        );
        let (_, _, other) = generate(None).expect("a key");
        for (text, message, key) in [
            (text.clone(), &b"sha256:01"[..], &key),
            (text.clone(), b"sha256:00", &other),
            (text.replace("1.0.0", "2.0.0"), b"sha256:00", &key),
            (
                text.replace("trusted comment: ", "trusted: "),
                b"sha256:00",
                &key,
            ),
            (text.lines().take(2).collect(), b"sha256:00", &key),
            (String::new(), b"sha256:00", &key),
            ("a\n".repeat(4), b"sha256:00", &key),
            (
                format!("a\n{}\nb\n{}", "A".repeat(100), "A".repeat(88)),
                b"sha256:00",
                &key,
            ),
        ] {
            assert!(check(&text, message, key).is_err(), "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_keys_are_refused() {
        for text in [
            "",
            "RWQ",
            &"A".repeat(56),
            &"\u{e9}".repeat(28),
            &"=".repeat(56),
        ] {
            assert!(Key::parse(text).is_err(), "{text}");
        }
    }
}
