//! What a manifest asks for. Everything here is a wish; each needs a reason that is shown to the user, who grants it or not
//! (see `capability`).

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::capability::{Capability, FOLDERS, setting_of};
use super::text::printable;

/// Headers that are not the plugin's to fill, by a secret or otherwise.
pub(super) const HOST_HEADERS: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// A longer reason is refused.
const MAX_REASON: usize = 256;

/// A capability a plugin asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it asks for.
    pub capability: Capability,
    /// Why, in the author's words; safe to show.
    pub why: String,
}

/// `requests` of a manifest. Everything here is a wish; each needs a reason that is shown to the user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Requests {
    /// Parts of the control flow that a callback sets; granted to callbacks that the user names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub control: Vec<Control>,
    /// Why it computes the loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<String>,
    /// Why it reads parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<String>,
    /// Why it reads gradients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradients: Option<String>,
    /// Why it uses the tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// Why it reads checkpoints and files.
    #[serde(rename = "artifact-read", skip_serializing_if = "Option::is_none")]
    pub artifact_read: Option<String>,
    /// Why it has checkpoints and files uploaded.
    #[serde(rename = "artifact-upload", skip_serializing_if = "Option::is_none")]
    pub artifact_upload: Option<String>,
    /// Why it needs the real time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<String>,
    /// Why it needs real entropy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random: Option<String>,
    /// Environment variables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<VariableRequest>,
    /// Folders to read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub read: Vec<FolderRequest>,
    /// Folders to read and write.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub write: Vec<FolderRequest>,
    /// Origins to reach.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub net: Vec<NetRequest>,
    /// Secrets that the host adds to requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretRequest>,
}

/// A part of the control flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the wishes of `ctx`")]
pub enum Control {
    Stop,
    Save,
    Evaluate,
    Log,
}

/// An environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariableRequest {
    /// Its name.
    pub name: String,
    /// The reason.
    pub why: String,
}

/// A folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderRequest {
    /// One of [`FOLDERS`], or `{setting}`.
    pub folder: String,
    /// The reason.
    pub why: String,
}

/// An origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetRequest {
    /// Scheme, host and port, or `{setting}`.
    pub origin: String,
    /// Methods of the requests.
    pub methods: Vec<String>,
    /// The reason.
    pub why: String,
}

/// A secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRequest {
    /// The environment variable that holds it.
    pub name: String,
    /// The only origin it is sent to, or `{setting}`.
    pub origin: String,
    /// The header that carries it.
    #[serde(default = "authorization")]
    pub header: String,
    /// What stands before it, such as `Bearer`; `Basic` encodes `user:password`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scheme: String,
    /// The reason.
    pub why: String,
}

fn authorization() -> String {
    "authorization".to_owned()
}

impl Requests {
    /// All that needs a grant, in the order of this type; an error for what can never be granted.
    pub fn list(&self) -> Result<Vec<Request>> {
        let words = self.words().into_iter();
        let words = words.filter_map(|(word, why)| Some((word, why.as_deref()?)));
        let variables = self.env.iter();
        let variables =
            variables.map(|asked| (Capability::Variable(asked.name.clone()), asked.why.as_str()));
        let mut asked: Vec<(Capability, &str)> = words.chain(variables).collect();
        for FolderRequest { folder, why } in &self.read {
            asked.push((Capability::Read(askable(folder)?), why));
        }
        for FolderRequest { folder, why } in &self.write {
            asked.push((Capability::Write(askable(folder)?), why));
        }
        for NetRequest {
            origin,
            methods,
            why,
        } in &self.net
        {
            if methods.is_empty() {
                bail!("`net:{}` names no methods", printable(origin, 128));
            }
            asked.push((Capability::Net(origin.clone(), methods.clone()), why));
        }
        for secret in &self.secrets {
            check_header(secret)?;
            let capability = Capability::Secret(secret.name.clone(), secret.origin.clone());
            asked.push((capability, &secret.why));
        }
        asked
            .into_iter()
            .map(|(capability, why)| request(capability, why))
            .collect()
    }

    /// All that it asks for, sorted, without the reasons.
    pub fn texts(&self) -> Result<Vec<String>> {
        let control = self
            .control
            .iter()
            .map(|part| format!("control:{part:?}").to_lowercase());
        let asked = self.list()?;
        let mut texts: Vec<String> = asked
            .iter()
            .map(|request| request.capability.to_string())
            .chain(control)
            .collect();
        texts.sort_unstable();
        texts.dedup();
        Ok(texts)
    }

    fn words(&self) -> [(Capability, &Option<String>); 8] {
        [
            (Capability::Loss, &self.loss),
            (Capability::Parameters, &self.parameters),
            (Capability::Gradients, &self.gradients),
            (Capability::Tokenizer, &self.tokenizer),
            (Capability::ArtifactRead, &self.artifact_read),
            (Capability::ArtifactUpload, &self.artifact_upload),
            (Capability::Clock, &self.clock),
            (Capability::Random, &self.random),
        ]
    }
}

fn request(capability: Capability, why: &str) -> Result<Request> {
    let capability = capability.checked()?;
    if why.trim().is_empty() || why.len() > MAX_REASON {
        bail!("`{capability}` is asked for without a reason of 1 to {MAX_REASON} bytes in `why`");
    }
    Ok(Request {
        capability,
        why: printable(why, MAX_REASON),
    })
}

/// Folders by name or by setting: an author cannot ask for a path.
fn askable(folder: &str) -> Result<String> {
    if !FOLDERS.contains(&folder) && setting_of(folder).is_none() {
        bail!(
            "the folder `{}` cannot be asked for: only {} and settings in braces",
            printable(folder, 128),
            FOLDERS.join(", ")
        );
    }
    Ok(folder.to_owned())
}

fn check_header(secret: &SecretRequest) -> Result<()> {
    let header = secret.header.to_ascii_lowercase();
    let token = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if header.is_empty() || !header.chars().all(token) || HOST_HEADERS.contains(&header.as_str()) {
        bail!(
            "the secret `{}` cannot go into the header `{}`",
            printable(&secret.name, 128),
            printable(&secret.header, 64)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn requests(value: Value) -> Result<Vec<Request>> {
        serde_json::from_value::<Requests>(value)?.list()
    }

    #[test]
    fn requests_that_can_never_be_granted_are_refused() {
        for (value, text) in [
            (json!({"loss": " "}), "without a reason"),
            (
                json!({"net": [{"origin": "https://*", "methods": ["GET"], "why": "x"}]}),
                "not an origin",
            ),
            (
                json!({"net": [{"origin": "https://a.org", "methods": [], "why": "x"}]}),
                "names no methods",
            ),
            (
                json!({"write": [{"folder": "/etc", "why": "x"}]}),
                "cannot be asked for",
            ),
            (
                json!({"secrets": [{"name": "K", "origin": "https://a.org", "header": "Host", "why": "x"}]}),
                "cannot go into the header",
            ),
            (json!({"everything": "x"}), "unknown field"),
        ] {
            let error = format!("{:#}", requests(value).expect_err(text));
            assert!(error.contains(text), "{error}");
        }
    }
}
