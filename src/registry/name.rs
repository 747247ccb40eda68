//! Names: of plugins, of digests, of places in a registry. Whatever comes from a file or the network is one of these
//! types before anything else looks at it, so that no path, URL or terminal ever sees an unchecked name.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A part of an identifier may be so long.
const MAX_PART: usize = 64;
/// The scheme of places in a registry.
pub const SCHEME: &str = "oci://";

/// `namespace/name`: lower-case letters, digits, and `-`, `_`, `.` between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PluginId {
    namespace: String,
    name: String,
}

impl PluginId {
    /// Who answers for it.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// What it is called in a run.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether `pattern` (an identifier, `namespace/*` or `*`) means it.
    pub fn matches(&self, pattern: &str) -> bool {
        match pattern.strip_suffix("/*") {
            Some(namespace) => self.namespace == namespace,
            None => pattern == "*" || pattern == self.to_string(),
        }
    }
}

impl FromStr for PluginId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            [namespace, name] if is_part(namespace) && is_part(name) => Ok(Self {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }),
            _ => Err(format!(
                "`{}` is not the name of a plugin: namespace/name, each of up to {MAX_PART} lower-case letters and \
                 digits with single `-`, `_` or `.` between them",
                shown(text)
            )),
        }
    }
}

impl TryFrom<String> for PluginId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<PluginId> for String {
    fn from(id: PluginId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for PluginId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// Letters and digits with single separators between them: never `..`, never hidden, never empty.
fn is_part(text: &str) -> bool {
    let plain = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let bytes = text.as_bytes();
    let separated = bytes
        .windows(2)
        .all(|pair| plain(pair[0]) || plain(pair[1]));
    (1..=MAX_PART).contains(&bytes.len())
        && bytes
            .iter()
            .all(|letter| plain(*letter) || b"-_.".contains(letter))
        && bytes.first().is_some_and(|letter| plain(*letter))
        && bytes.last().is_some_and(|letter| plain(*letter))
        && separated
}

/// A foreign text in a message: short, and without characters that steer a terminal.
pub fn shown(text: &str) -> String {
    let mut safe: String = text
        .chars()
        .take(128)
        .flat_map(|letter| {
            let escape = letter.is_control() || is_invisible(letter);
            let escaped = escape.then(|| letter.escape_unicode().collect::<Vec<char>>());
            escaped.unwrap_or_else(|| vec![letter])
        })
        .collect();
    if text.chars().nth(128).is_some() {
        safe.push_str("...");
    }
    safe
}

fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// SHA-256 as registries write it, `sha256:` and 64 hexadecimal digits in lower case. No other algorithm is taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(&Sha256::digest(bytes))
    }

    /// Of what a hasher was given.
    pub fn from_hash(hash: &[u8]) -> Self {
        let mut text = "sha256:".to_owned();
        for byte in hash {
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// The hexadecimal digits.
    pub fn hex(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or(&self.0)
    }

    /// With the algorithm.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digit = |letter: u8| matches!(letter, b'0'..=b'9' | b'a'..=b'f');
        match text.strip_prefix("sha256:") {
            Some(hex) if hex.len() == 64 && hex.bytes().all(digit) => Ok(Self(text.to_owned())),
            _ => Err(format!(
                "`{}` is not a SHA-256 digest (sha256: and 64 hexadecimal digits)",
                shown(text)
            )),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// `oci://REGISTRY/REPOSITORY[:TAG][@DIGEST]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Host and port.
    pub registry: String,
    /// The path in the registry.
    pub repository: String,
    /// A name that can move.
    pub tag: Option<String>,
    /// The content itself.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Registry and repository, without tag and digest: where all versions of a plugin lie.
    pub fn source(&self) -> String {
        format!("{SCHEME}{}/{}", self.registry, self.repository)
    }

    /// What is asked for in the registry: the digest, else the tag, else `latest`.
    pub fn wanted(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }

    /// The same place with another tag.
    pub fn with_tag(&self, tag: &str) -> Self {
        Self {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        }
    }

    /// The same place with a digest.
    pub fn with_digest(&self, digest: &Digest) -> Self {
        Self {
            digest: Some(digest.clone()),
            ..self.clone()
        }
    }

    /// Whether a plugin of this name may lie here: the repository ends with its name and names its namespace before, so
    /// that nobody publishes under a name that the place does not show.
    pub fn may_hold(&self, id: &PluginId) -> bool {
        let mut parts = self.repository.rsplit('/');
        parts.next() == Some(id.name()) && parts.any(|part| part == id.namespace())
    }
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{}` is not a place in a registry: {SCHEME}REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST], in lower case",
                shown(text)
            )
        };
        let rest = text.strip_prefix(SCHEME).ok_or_else(wrong)?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (rest, None),
        };
        let (registry, path) = rest.split_once('/').ok_or_else(wrong)?;
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (path, None),
        };
        let fits = is_registry(registry)
            && repository.len() <= 255
            && repository.split('/').all(is_part)
            && tag.as_deref().is_none_or(is_tag);
        if !fits {
            return Err(wrong());
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag,
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.source())?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(formatter, "@{digest}")?;
        }
        Ok(())
    }
}

/// Host and port, an IPv6 address in brackets.
pub fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) if address.parse::<std::net::Ipv6Addr>().is_ok() => (
            "ipv6",
            rest.strip_prefix(':').or(rest.is_empty().then_some("80")),
        ),
        Some(_) => return false,
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, Some("443")),
        },
    };
    let plain = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let labels = host.split('.').all(|label| {
        !label.is_empty()
            && label.bytes().all(|letter| plain(letter) || letter == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    });
    labels && host.len() <= 253 && port.is_some_and(|port| port.parse::<u16>().is_ok())
}

/// A version as a tag. Tags have no `+`; other tools write `_` for it.
pub fn version_tag(version: &str) -> String {
    version.replace('+', "_")
}

/// Tags of the distribution specification.
pub fn is_tag(text: &str) -> bool {
    let word = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text
            .bytes()
            .all(|letter| word(letter) || b".-".contains(&letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_paths_or_tricks_are_refused() {
        for text in [
            "acme/early-stop",
            "a/b",
            "host/classification-metrics",
            "a1/b.2",
        ] {
            assert_eq!(text.parse::<PluginId>().expect(text).to_string(), text);
        }
        let long = format!("a/{}", "b".repeat(65));
        for text in [
            "",
            "a",
            "a/",
            "/a",
            "a/b/c",
            "../x",
            "a/..",
            "a/.b",
            "a/b.",
            "a/b..c",
            "A/b",
            "a/b c",
            "a/b\u{1b}",
            "a/\u{0430}bc",
            "a//b",
            "a/b--c",
            "a\\b/c",
            &long,
        ] {
            let error = text.parse::<PluginId>().expect_err(text);
            assert!(!error.contains('\u{1b}'), "{error}");
        }
    }

    #[test]
    fn references_are_taken_apart() {
        let whole = format!(
            "oci://example.org:5000/acme/plugins/stop:1.2.3@sha256:{}",
            "0".repeat(64)
        );
        let reference: Reference = whole.parse().expect("a reference");
        assert_eq!(reference.to_string(), whole);
        assert_eq!(
            reference.source(),
            "oci://example.org:5000/acme/plugins/stop"
        );
        assert!(reference.may_hold(&"acme/stop".parse().expect("a name")));
        assert!(!reference.may_hold(&"acme/plugins".parse().expect("a name")));
        assert!(!reference.may_hold(&"other/stop".parse().expect("a name")));
        assert_eq!(
            "oci://[::1]:5000/a/b"
                .parse::<Reference>()
                .expect("ok")
                .registry,
            "[::1]:5000"
        );
        for text in [
            "example.org/a/b",
            "oci://",
            "oci://a",
            "oci://a/",
            "oci://a/../b",
            "oci://a/B",
            "oci://user@a/b",
            "oci://a:x/b",
            "oci://a/b:",
            "oci://a/b:-x",
            "oci://a/b@md5:00",
            "oci://a/b?x=y",
            "oci://a/b#c",
            "oci://-a/b",
            "oci://a..b/c",
            "oci://a/b@sha256:00",
            "oci://[x]/a",
            "oci://a/b:t/../../x",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }

    #[test]
    fn patterns_of_names_mean_what_they_say() {
        let id: PluginId = "acme/stop".parse().expect("a name");
        for (pattern, matches) in [
            ("acme/stop", true),
            ("acme/*", true),
            ("*", true),
            ("acme/st*", false),
            ("acm/*", false),
            ("*/stop", false),
        ] {
            assert_eq!(id.matches(pattern), matches, "{pattern}");
        }
    }
}
