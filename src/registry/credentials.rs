//! Credentials for registries, from and for the file that container tools share (`config.json` of docker). Read with
//! the crate that knows helpers and stores; written only as that file keeps them itself.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use serde_json::{Map, Value, json};

use super::file;
use super::name::shown;
use crate::error::{Failure, Kind};

/// A longer file is refused.
const MAX_LENGTH: u64 = 1 << 20;

/// A secret that no message, log or file shows.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, where it is used.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret")
    }
}

/// What opens a registry.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// A user and a password or token.
    User {
        /// Its name.
        name: String,
        /// Password or token.
        password: Secret,
    },
    /// A token that is exchanged for others.
    Refresh(Secret),
}

impl Credentials {
    /// The value of the header `Authorization`; `None` for a token that has to be exchanged.
    pub fn basic(&self) -> Option<Secret> {
        match self {
            Self::User { name, password } => {
                let pair = format!("{name}:{}", password.reveal());
                Some(Secret::new(format!("Basic {}", STANDARD.encode(pair))))
            }
            Self::Refresh(_) => None,
        }
    }
}

/// The credentials for a registry; `None` if there are none.
pub fn find(folder: Option<&Path>, registry: &str) -> Result<Option<Credentials>> {
    let Some(path) = folder.map(file_in) else {
        return Ok(None);
    };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("{} cannot be read", path.display()));
        }
    };
    // A name without a registry means docker's own, which its tools keep under this address.
    let server = match registry {
        "docker.io" | "registry-1.docker.io" => "https://index.docker.io/v1/",
        other => other,
    };
    let reader = BufReader::new(io::Read::take(file, MAX_LENGTH));
    match get_credential_from_reader(reader, server) {
        Ok(DockerCredential::UsernamePassword(name, password)) => Ok(Some(Credentials::User {
            name,
            password: Secret::new(password),
        })),
        Ok(DockerCredential::IdentityToken(token)) => {
            Ok(Some(Credentials::Refresh(Secret::new(token))))
        }
        Err(
            CredentialRetrievalError::NoCredentialConfigured
            | CredentialRetrievalError::ConfigNotFound,
        ) => Ok(None),
        // A helper says with its exit code that it knows nothing of this registry.
        Err(CredentialRetrievalError::HelperFailure { stdout, .. })
            if stdout.contains("credentials not found") =>
        {
            Ok(None)
        }
        Err(error) => {
            // What a helper printed may hold secrets.
            let reason = match error {
                CredentialRetrievalError::HelperFailure { helper, .. } => {
                    format!("{} failed", shown(&helper))
                }
                other => other.to_string(),
            };
            let text = format!(
                "the credentials for {registry} in {} cannot be used: {reason}",
                path.display()
            );
            Err(Failure::new(Kind::Policy, text)
                .hint(format!("renew them with `host plugin login {registry}`"))
                .into())
        }
    }
}

/// Keeps a user's password: in the store that the file names, else in the file itself.
pub fn keep(folder: &Path, registry: &str, name: &str, password: &Secret) -> Result<String> {
    let path = file_in(folder);
    let _held = file::exclusive(&path)?;
    let mut config = read(&path)?;
    if let Some(store) = config.get("credsStore").and_then(Value::as_str) {
        let entry = json!({"ServerURL": registry, "Username": name, "Secret": password.reveal()});
        ask_helper(store, "store", &entry.to_string())?;
        return Ok(format!("docker-credential-{}", shown(store)));
    }
    let auth = STANDARD.encode(format!("{name}:{}", password.reveal()));
    auths(&mut config, &path)?.insert(registry.to_owned(), json!({"auth": auth}));
    write(&path, &config)?;
    Ok(path.display().to_string())
}

/// Forgets the credentials for a registry; whether there were any.
pub fn forget(folder: &Path, registry: &str) -> Result<bool> {
    let path = file_in(folder);
    let _held = file::exclusive(&path)?;
    let mut config = read(&path)?;
    if let Some(store) = config.get("credsStore").and_then(Value::as_str) {
        ask_helper(store, "erase", registry)?;
        return Ok(true);
    }
    let was_there = auths(&mut config, &path)?.shift_remove(registry).is_some();
    if was_there {
        write(&path, &config)?;
    }
    Ok(was_there)
}

/// The file in docker's folder.
fn file_in(folder: &Path) -> PathBuf {
    folder.join("config").with_extension("json")
}

fn read(path: &Path) -> Result<Map<String, Value>> {
    let Some(bytes) = file::read_if_present(path, MAX_LENGTH)? else {
        return Ok(Map::new());
    };
    serde_json::from_slice(&bytes).map_err(|_| {
        Failure::data(format!("{} is not a JSON object", path.display()))
            .hint("repair or remove it")
            .into()
    })
}

fn write(path: &Path, config: &Map<String, Value>) -> Result<()> {
    let text = serde_json::to_string_pretty(config).context("credentials as JSON")?;
    file::write(path, text.as_bytes(), true)
}

fn auths<'a>(
    config: &'a mut Map<String, Value>,
    path: &Path,
) -> Result<&'a mut Map<String, Value>> {
    let auths = config.entry("auths").or_insert_with(|| json!({}));
    match auths.as_object_mut() {
        Some(auths) => Ok(auths),
        None => bail!(Failure::data(format!(
            "`auths` in {} is not an object",
            path.display()
        ))),
    }
}

/// Asks the helper program that keeps docker's secrets; they go through a pipe, never through arguments.
fn ask_helper(store: &str, action: &str, input: &str) -> Result<()> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let program = format!("docker-credential-{store}");
    let failed = || Failure::new(Kind::Io, format!("{} failed", shown(&program)));
    if !store.chars().all(plain) {
        bail!(failed());
    }
    let run = || -> io::Result<bool> {
        let mut helper = Command::new(&program)
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        if let Some(mut stdin) = helper.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        Ok(helper.wait()?.success())
    };
    match run().with_context(failed)? {
        true => Ok(()),
        false => bail!(failed()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_kept_is_found_and_nothing_else_is_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config").with_extension("json");
        std::fs::write(
            &path,
            r#"{"proxies": {"x": 1}, "auths": {"other": {"auth": "YTpi"}}}"#,
        )
        .expect("written");
        keep(
            folder.path(),
            "localhost:5000",
            "ada",
            &Secret::new("pass:word"),
        )
        .expect("kept");
        let found = find(Some(folder.path()), "localhost:5000").expect("read");
        let Some(Credentials::User { name, password }) = found else {
            panic!("{found:?}");
        };
        assert_eq!((name.as_str(), password.reveal()), ("ada", "pass:word"));
        assert!(
            find(Some(folder.path()), "localhost:5001")
                .expect("read")
                .is_none()
        );
        let config: Value =
            serde_json::from_slice(&std::fs::read(&path).expect("read")).expect("JSON");
        assert_eq!(config["proxies"]["x"], 1);
        assert_eq!(
            std::fs::metadata(&path)
                .expect("there")
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        assert!(forget(folder.path(), "localhost:5000").expect("forgotten"));
        assert!(!forget(folder.path(), "localhost:5000").expect("forgotten"));
        assert!(find(Some(folder.path()), "other").expect("read").is_some());
    }

    #[test]
    fn secrets_are_not_shown() {
        let credentials = Credentials::User {
            name: "ada".to_owned(),
            password: Secret::new("hunter2"),
        };
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}
