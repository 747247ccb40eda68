//! Capabilities: what a plugin may do beyond computing. The manifest *requests* them, each with a reason; the user
//! *grants* them by their text; a request without a grant stops the run before any code of the plugin runs.
//!
//! | text | gives |
//! | --- | --- |
//! | `loss` | deciding the weights by a loss of its own |
//! | `parameters`, `gradients` | reading them in callbacks |
//! | `tokenizer` | the run's tokenizer (metrics and collators have it without a grant) |
//! | `artifact:read`, `artifact:upload` | bytes of checkpoints and files that a hook is told of |
//! | `clock`, `random` | the real time, real entropy |
//! | `env:NAME` | one environment variable |
//! | `read:FOLDER`, `write:FOLDER` | one folder: `output`, `logging_dir`, or what a setting names |
//! | `net:ORIGIN METHOD ...` | HTTP requests to one origin |
//! | `secret:NAME -> ORIGIN` | the variable NAME as a header that the host adds to requests to ORIGIN |
//!
//! `{setting}` in place of a folder or an origin stands for what the *user* gave that setting of the plugin; a default of
//! the manifest never counts, so that a plugin cannot choose for itself.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};
use serde_json::{Map, Value};

use super::origin::Origin;
use super::requests::Request;
use super::text::printable;
use crate::error::{Failure, Kind};

/// Methods of HTTP that can be asked for.
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
/// Folders of the run that can be asked for by name.
pub const FOLDERS: [&str; 2] = ["output", "logging_dir"];

/// One power. Its text ([`fmt::Display`]) is what users write and what lock files hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// Deciding the weights by a loss of its own.
    Loss,
    /// Reading parameters in callbacks.
    Parameters,
    /// Reading gradients in callbacks.
    Gradients,
    /// The run's tokenizer.
    Tokenizer,
    /// Bytes of checkpoints and files.
    ArtifactRead,
    /// Having the host send checkpoints and files to an origin that the plugin may reach.
    ArtifactUpload,
    /// The real time.
    Clock,
    /// Real entropy.
    Random,
    /// One environment variable.
    Variable(String),
    /// Reading one folder.
    Read(String),
    /// Reading and writing one folder.
    Write(String),
    /// Requests to one origin with these methods; without methods: with all.
    Net(String, Vec<String>),
    /// A secret that the host adds to requests to one origin.
    Secret(String, String),
}

impl fmt::Display for Capability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loss => formatter.write_str("loss"),
            Self::Parameters => formatter.write_str("parameters"),
            Self::Gradients => formatter.write_str("gradients"),
            Self::Tokenizer => formatter.write_str("tokenizer"),
            Self::ArtifactRead => formatter.write_str("artifact:read"),
            Self::ArtifactUpload => formatter.write_str("artifact:upload"),
            Self::Clock => formatter.write_str("clock"),
            Self::Random => formatter.write_str("random"),
            Self::Variable(name) => write!(formatter, "env:{name}"),
            Self::Read(folder) => write!(formatter, "read:{folder}"),
            Self::Write(folder) => write!(formatter, "write:{folder}"),
            Self::Net(origin, methods) => {
                write!(formatter, "net:{origin}")?;
                methods
                    .iter()
                    .try_for_each(|method| write!(formatter, " {method}"))
            }
            Self::Secret(name, origin) => write!(formatter, "secret:{name} -> {origin}"),
        }
    }
}

impl FromStr for Capability {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let capability = match text.split_once(':') {
            None => match text {
                "loss" => Self::Loss,
                "parameters" => Self::Parameters,
                "gradients" => Self::Gradients,
                "tokenizer" => Self::Tokenizer,
                "clock" => Self::Clock,
                "random" => Self::Random,
                _ => return Err(unknown(text)),
            },
            Some(("artifact", "read")) => Self::ArtifactRead,
            Some(("artifact", "upload")) => Self::ArtifactUpload,
            Some(("env", name)) => Self::Variable(name.trim().to_owned()),
            Some(("read", folder)) => Self::Read(folder.trim().to_owned()),
            Some(("write", folder)) => Self::Write(folder.trim().to_owned()),
            Some(("net", rest)) => {
                let mut words = rest.split_whitespace();
                let origin = words.next().unwrap_or_default().to_owned();
                Self::Net(origin, words.map(str::to_owned).collect())
            }
            Some(("secret", rest)) => match rest.split_once("->") {
                Some((name, origin)) => {
                    Self::Secret(name.trim().to_owned(), origin.trim().to_owned())
                }
                None => bail!(Failure::usage(format!(
                    "`{}` does not say where the secret may go",
                    printable(text, 128)
                ))
                .hint("write secret:NAME -> ORIGIN, such as secret:API_KEY -> https://api.example.org")),
            },
            Some(_) => return Err(unknown(text)),
        };
        capability.checked()
    }
}

fn unknown(text: &str) -> anyhow::Error {
    Failure::usage(format!("`{}` is not a capability", printable(text, 128)))
        .hint(
            "there are loss, parameters, gradients, tokenizer, artifact:read, artifact:upload, clock, random, env:NAME, \
             read:FOLDER, write:FOLDER, net:ORIGIN METHOD ..., secret:NAME -> ORIGIN",
        )
        .into()
}

impl Capability {
    /// Brings names into the one form that is compared, and refuses what can never be granted.
    pub(super) fn checked(self) -> Result<Self> {
        Ok(match self {
            Self::Variable(name) => Self::Variable(variable(name)?),
            Self::Read(folder) => Self::Read(folder_name(folder)?),
            Self::Write(folder) => Self::Write(folder_name(folder)?),
            Self::Net(origin, methods) => {
                Self::Net(origin_name(&origin)?, checked_methods(methods)?)
            }
            Self::Secret(name, origin) => Self::Secret(variable(name)?, origin_name(&origin)?),
            plain => plain,
        })
    }

    /// The first word: how capabilities are granted by kind, and grouped in lists.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Parameters => "parameters",
            Self::Gradients => "gradients",
            Self::Tokenizer => "tokenizer",
            Self::ArtifactRead | Self::ArtifactUpload => "artifact",
            Self::Clock => "clock",
            Self::Random => "random",
            Self::Variable(_) => "env",
            Self::Read(_) => "read",
            Self::Write(_) => "write",
            Self::Net(..) => "net",
            Self::Secret(..) => "secret",
        }
    }

    /// Whether granting this gives `asked` too.
    fn covers(&self, asked: &Self) -> bool {
        match (self, asked) {
            (Self::Net(granted, methods), Self::Net(origin, wanted)) => {
                granted == origin && allow(methods, wanted)
            }
            (Self::Write(granted), Self::Read(folder)) => granted == folder,
            _ => self == asked,
        }
    }

    /// Whether `request` asks for at least this: the same, or any value in place of its setting.
    pub fn is_within(&self, request: &Self) -> bool {
        if request.covers(self) {
            return true;
        }
        match (request, self) {
            (Self::Net(place, methods), Self::Net(_, wanted)) => {
                setting_of(place).is_some() && allow(methods, wanted)
            }
            (Self::Read(place), Self::Read(_))
            | (Self::Write(place), Self::Write(_) | Self::Read(_)) => setting_of(place).is_some(),
            (Self::Secret(name, place), Self::Secret(own, _)) => {
                setting_of(place).is_some() && name == own
            }
            _ => false,
        }
    }

    /// With what the user gave in place of `{setting}`; `None` if the user gave that setting no value, so that the
    /// capability stands for nothing.
    fn settled(&self, given: &Map<String, Value>) -> Result<Option<Self>> {
        let place = match self {
            Self::Read(place)
            | Self::Write(place)
            | Self::Net(place, _)
            | Self::Secret(_, place) => place,
            _ => return Ok(Some(self.clone())),
        };
        let Some(setting) = setting_of(place) else {
            return Ok(Some(self.clone()));
        };
        let Some(value) = given.get(setting).and_then(Value::as_str) else {
            return Ok(None);
        };
        let origin = || {
            Origin::of_url(value)
                .map(|origin| origin.to_string())
                .map_err(|reason| {
                    Failure::usage(format!(
                        "the setting `{setting}` is `{}`, which names no origin: {reason}",
                        printable(value, 128)
                    ))
                })
        };
        Ok(Some(match self {
            Self::Read(_) => Self::Read(value.to_owned()),
            Self::Write(_) => Self::Write(value.to_owned()),
            Self::Net(_, methods) => Self::Net(origin()?, methods.clone()),
            Self::Secret(name, _) => Self::Secret(name.clone(), origin()?),
            other => other.clone(),
        }))
    }
}

/// Whether these methods of requests, none standing for all, give all that are wanted.
fn allow(methods: &[String], wanted: &[String]) -> bool {
    methods.is_empty() || !wanted.is_empty() && wanted.iter().all(|method| methods.contains(method))
}

/// `setting` of `{setting}`.
pub(super) fn setting_of(text: &str) -> Option<&str> {
    text.strip_prefix('{')?.strip_suffix('}')
}

fn variable(name: String) -> Result<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.len() > 128 || !name.chars().all(plain) {
        bail!(Failure::usage(format!(
            "`{}` is not the name of an environment variable",
            printable(&name, 128)
        )));
    }
    Ok(name)
}

fn folder_name(folder: String) -> Result<String> {
    if folder.is_empty() || folder.contains('\0') {
        bail!(Failure::usage(format!(
            "no folder is named: write {} or a setting in braces",
            FOLDERS.join(", ")
        )));
    }
    Ok(folder)
}

fn origin_name(origin: &str) -> Result<String> {
    if setting_of(origin).is_some() {
        return Ok(origin.to_owned());
    }
    match Origin::from_str(origin) {
        Ok(origin) => Ok(origin.to_string()),
        Err(reason) => bail!(Failure::usage(format!(
            "`{}` is not an origin: {reason}",
            printable(origin, 128)
        ))
        .hint("write scheme, host and port, such as https://api.example.org or http://127.0.0.1:5000")),
    }
}

fn checked_methods(methods: Vec<String>) -> Result<Vec<String>> {
    let mut known: Vec<String> = methods
        .iter()
        .map(|method| method.to_ascii_uppercase())
        .collect();
    if let Some(other) = known
        .iter()
        .find(|method| !METHODS.contains(&method.as_str()))
    {
        bail!(Failure::usage(format!(
            "`{}` is not a method that can be granted; there are {}",
            printable(other, 32),
            METHODS.join(", ")
        )));
    }
    known.sort_unstable();
    known.dedup();
    Ok(known)
}

/// What the user allows one plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(Vec<Capability>);

impl Grants {
    /// From the texts that a user wrote or a lock file holds.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self> {
        let grants: Result<Vec<Capability>> =
            texts.iter().map(|text| text.as_ref().parse()).collect();
        Ok(Self(grants?))
    }

    /// The texts, sorted.
    pub fn texts(&self) -> Vec<String> {
        let mut texts: Vec<String> = self.0.iter().map(Capability::to_string).collect();
        texts.sort_unstable();
        texts.dedup();
        texts
    }

    /// Whether one of them gives this.
    pub fn covers(&self, asked: &Capability) -> bool {
        self.0.iter().any(|grant| grant.covers(asked))
    }

    /// The requests that no grant covers, as they are written in the manifest. `given` are the settings of the plugin that
    /// the user gave: a request is covered by its own text or by what it stands for with them.
    pub fn missing<'a>(
        &self,
        requests: &'a [Request],
        given: &Map<String, Value>,
    ) -> Result<Vec<&'a Request>> {
        let mut missing = Vec::new();
        for request in requests {
            let covered = match request.capability.settled(given)? {
                None => true,
                Some(settled) => self.covers(&request.capability) || self.covers(&settled),
            };
            if !covered {
                missing.push(request);
            }
        }
        Ok(missing)
    }
}

/// What a plugin may do in this run: every request, settled; an error that names each one that is not granted. `name` is
/// how messages call the plugin.
pub(super) fn admit(
    name: &str,
    requests: &[Request],
    grants: &Grants,
    given: &Map<String, Value>,
) -> Result<Vec<Capability>> {
    let missing = grants.missing(requests, given)?;
    if !missing.is_empty() {
        return Err(refusal(name, &missing).into());
    }
    let idle = grants.0.iter().filter(|grant| {
        let asked = |request: &Request| {
            let settled = request.capability.settled(given).ok().flatten();
            grant.covers(&request.capability)
                || settled.is_some_and(|settled| grant.covers(&settled))
        };
        !requests.iter().any(asked)
    });
    for grant in idle {
        tracing::warn!("plugin `{name}` does not ask for `{grant}`: the grant has no effect");
    }
    let mut allowed = Vec::new();
    for request in requests {
        allowed.extend(request.capability.settled(given)?);
    }
    Ok(allowed)
}

fn refusal(name: &str, missing: &[&Request]) -> Failure {
    let asked: Vec<String> = missing
        .iter()
        .map(|request| format!("`{}` ({})", request.capability, request.why))
        .collect();
    let lines: Vec<String> = missing
        .iter()
        .map(|request| format!("--plugin_grant '{name}.{}'", request.capability))
        .collect();
    let count = match missing.len() {
        1 => "a capability that is".to_owned(),
        many => format!("{many} capabilities that are"),
    };
    let text = format!(
        "plugin `{name}` asks for {count} not granted: {}",
        asked.join(", ")
    );
    Failure::new(Kind::Policy, text).hint(format!("to grant: {}", lines.join(" ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::requests::Requests;
    use super::*;
    use crate::error::{hints_of, kind_of};

    fn requests(value: Value) -> Result<Vec<Request>> {
        serde_json::from_value::<Requests>(value)?.list()
    }

    fn given(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn texts_are_read_and_written_in_one_form() {
        for (text, canonical) in [
            ("loss", "loss"),
            ("artifact:read", "artifact:read"),
            ("env: RUN_ID ", "env:RUN_ID"),
            ("write:logging_dir", "write:logging_dir"),
            (
                "net:HTTPS://API.Example.org:443/ post GET",
                "net:https://api.example.org GET POST",
            ),
            ("net:{server} GET", "net:{server} GET"),
            (
                "secret:KEY->http://127.0.0.1:80",
                "secret:KEY -> http://127.0.0.1",
            ),
        ] {
            let capability: Capability = text.parse().expect(text);
            assert_eq!(capability.to_string(), canonical);
            assert_eq!(
                canonical.parse::<Capability>().expect(canonical),
                capability
            );
        }
        for text in [
            "",
            "net",
            "everything",
            "net:*",
            "net:https://*.example.org",
            "net:ftp://example.org",
            "env:",
            "env:A=B",
            "net:https://example.org CONNECT",
            "secret:KEY",
            "secret:KEY -> *",
            "read:",
            "net:https://user@example.org",
        ] {
            let error = text.parse::<Capability>().expect_err(text);
            assert_eq!(kind_of(&error), Kind::Usage, "{text}");
        }
    }

    #[test]
    fn a_grant_covers_what_it_says_and_nothing_else() {
        for (grant, asked, covers) in [
            ("net:https://a.org", "net:https://a.org POST", true),
            ("net:https://a.org GET POST", "net:https://a.org POST", true),
            ("net:https://a.org GET", "net:https://a.org POST", false),
            ("net:https://a.org GET", "net:https://a.org", false),
            ("net:https://a.org", "net:https://a.org:8443", false),
            ("net:https://a.org", "net:http://a.org", false),
            ("net:https://a.org", "net:https://b.a.org", false),
            ("write:output", "read:output", true),
            ("read:output", "write:output", false),
            ("parameters", "gradients", false),
        ] {
            let grants = Grants::parse(&[grant]).expect(grant);
            assert_eq!(
                grants.covers(&asked.parse().expect(asked)),
                covers,
                "{grant} {asked}"
            );
        }
    }

    #[test]
    fn settings_stand_for_what_the_user_gave_and_for_nothing_else() {
        let requests = requests(json!({
            "net": [{"origin": "{server}", "methods": ["POST"], "why": "send"}],
            "read": [{"folder": "{corpus}", "why": "read"}],
        }))
        .expect("valid");
        let with = given(json!({"server": "http://127.0.0.1:5000/api", "corpus": "/data"}));
        for granted in [
            ["net:{server} POST", "read:{corpus}"],
            ["net:http://127.0.0.1:5000", "read:/data"],
        ] {
            let grants = Grants::parse(&granted).expect("valid");
            let allowed = admit("x", &requests, &grants, &with).expect("granted");
            assert_eq!(
                allowed
                    .iter()
                    .map(Capability::to_string)
                    .collect::<Vec<_>>(),
                ["read:/data", "net:http://127.0.0.1:5000 POST"]
            );
        }
        let other = Grants::parse(&["net:http://127.0.0.1:6000", "read:/data"]).expect("valid");
        assert!(admit("x", &requests, &other, &with).is_err());
        let nothing =
            admit("x", &requests, &Grants::default(), &Map::new()).expect("asks for nothing");
        assert_eq!(nothing, []);
        let wrong = given(json!({"server": "not a url"}));
        let error = admit("x", &requests, &Grants::default(), &wrong).expect_err("no origin");
        assert_eq!(kind_of(&error), Kind::Usage);
    }

    #[test]
    fn what_is_missing_is_told_with_its_reason_and_the_line_that_grants_it() {
        let requests = requests(json!({
            "parameters": "draws histograms",
            "env": [{"name": "RUN_ID", "why": "continues a run"}],
        }))
        .expect("valid");
        let grants = Grants::parse(&["env:RUN_ID"]).expect("valid");
        let error = admit("draw", &requests, &grants, &Map::new()).expect_err("missing");
        assert_eq!(
            error.to_string(),
            "plugin `draw` asks for a capability that is not granted: `parameters` (draws histograms)"
        );
        assert_eq!(
            hints_of(&error),
            ["to grant: --plugin_grant 'draw.parameters'"]
        );
        assert_eq!(kind_of(&error), Kind::Policy);
    }
}
