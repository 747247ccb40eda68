//! The manifest that a component carries in its custom section `trainer:manifest`: who it is, what it asks for, what its
//! configuration looks like. It is read before anything is compiled.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hook;
use super::limits::{Bytes, Limit, Limits, nearest, parse_bytes};
use super::requests::Requests;
use super::text::printable;
use crate::error::{Failure, Kind};

/// Name of the custom section.
pub const SECTION: &str = "trainer:manifest";
/// A longer section is refused.
const MAX_LENGTH: usize = 1 << 20;

/// What a plugin says about itself. Everything here is a wish or a name, never a grant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Namespace and name.
    pub id: String,
    /// Semantic version.
    pub version: String,
    /// Minor version of the WIT packages it was built for.
    pub api: String,
    /// One sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// SPDX expression.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub license: String,
    /// Where it comes from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Capabilities it asks for.
    #[serde(default, skip_serializing_if = "asks_nothing")]
    pub requests: Requests,
    /// What it needs at least, by the names of the limits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, String>,
    /// JSON Schema of its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// Metrics it returns or emits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
}

fn asks_nothing(requests: &Requests) -> bool {
    *requests == Requests::default()
}

/// A metric as a dashboard needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Without the prefix `eval_`.
    pub name: String,
    /// May be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// `higher`, `lower` or `neither`.
    pub better: String,
}

impl Manifest {
    /// Reads the section's bytes. `name` is how messages call the plugin.
    pub(super) fn parse(name: &str, bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_LENGTH {
            bail!(Failure::data(format!(
                "plugin `{name}`: its manifest is longer than {}",
                Bytes(MAX_LENGTH as u64)
            )));
        }
        let parsed =
            serde_json::from_slice(bytes).map_err(|error| printable(&error.to_string(), 1024));
        let manifest: Manifest = parsed.map_err(|error| {
            Failure::data(format!(
                "plugin `{name}`: its manifest cannot be read: {error}"
            ))
        })?;
        manifest.check_words().with_context(|| {
            Failure::data(format!("plugin `{name}`: its manifest is not valid"))
        })?;
        Ok(manifest)
    }

    fn check_words(&self) -> Result<()> {
        for (field, text) in [
            ("id", &self.id),
            ("version", &self.version),
            ("api", &self.api),
        ] {
            let plain =
                !text.is_empty() && text.len() <= 128 && text.chars().all(|c| c.is_ascii_graphic());
            if !plain {
                bail!(
                    "`{field}` is `{}`; it needs 1 to 128 plain characters",
                    printable(text, 128)
                );
            }
        }
        self.requests.list()?;
        Ok(())
    }

    /// Whether this program speaks the plugin's version and the limits are enough for it.
    pub(super) fn admit(&self, name: &str, limits: &Limits) -> Result<()> {
        self.check_api(name)?;
        self.check_needs(name, limits)
    }

    /// Whether this program speaks the plugin's version.
    pub(super) fn check_api(&self, name: &str) -> Result<()> {
        let ours = hook::API
            .rsplit_once('.')
            .map_or(hook::API, |(minor, _)| minor);
        let fits = self.api == ours
            || self
                .api
                .strip_prefix(ours)
                .is_some_and(|rest| rest.starts_with('.'));
        if fits {
            return Ok(());
        }
        let text = format!(
            "plugin `{name}`: built for version {} of the plugin interface; this program speaks {ours}",
            self.api
        );
        Err(Failure::data(text)
            .hint(format!(
                "use a version of `{}` that was built for {ours}",
                self.id
            ))
            .into())
    }

    fn check_needs(&self, name: &str, limits: &Limits) -> Result<()> {
        for (key, need) in &self.limits {
            if key != Limit::Memory.key() {
                let known = nearest(key, [Limit::Memory.key()])
                    .map_or(String::new(), |known| format!(" (`{known}`?)"));
                bail!(Failure::data(format!(
                    "plugin `{name}`: its manifest states a need for `{}`{known}; only `memory` can be stated",
                    printable(key, 64)
                )));
            }
            if parse_bytes(need)? > limits.memory {
                let (need, limit) = (printable(need, 64), limits.show(Limit::Memory));
                let text = format!(
                    "plugin `{name}`: needs {need} of memory; the limit `memory` is {limit}"
                );
                let hint = format!(
                    "raise it with --plugin_limit {name}.memory={}",
                    need.replace(' ', "")
                );
                bail!(Failure::new(Kind::Policy, text).hint(hint));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest(change: impl FnOnce(&mut Value)) -> Result<Manifest> {
        let mut value = json!({"id": "host/acc", "version": "0.1.0", "api": "0.1"});
        change(&mut value);
        Manifest::parse("acc", value.to_string().as_bytes())
    }

    #[test]
    fn a_plain_manifest_is_admitted() {
        for (key, value) in [
            ("requests", json!({"net": [], "control": ["stop"]})),
            ("limits", json!({"memory": "64MiB"})),
            ("api", json!("0.1.7")),
        ] {
            let manifest = manifest(|whole| whole[key] = value.clone()).expect("valid");
            manifest.admit("acc", &Limits::default()).expect("admitted");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        for (key, value, text) in [
            ("id", json!("a\u{1b}b"), "`id` is `a\\u{1b}b`"),
            ("colour", json!("red"), "unknown field `colour`"),
            ("requests", json!({"nte": []}), "unknown field `nte`"),
            (
                "requests",
                json!({"clock": ""}),
                "`clock` is asked for without a reason",
            ),
            ("api", json!("0.2"), "this program speaks 0.1"),
            (
                "limits",
                json!({"memory": "1GiB"}),
                "the limit `memory` is 256 MiB",
            ),
            ("limits", json!({"memroy": "1GiB"}), "(`memory`?)"),
        ] {
            let result = manifest(|whole| whole[key] = value.clone())
                .and_then(|manifest| manifest.admit("acc", &Limits::default()));
            let error = format!("{:#}", result.expect_err(text));
            assert!(error.contains(text), "{error}");
        }
    }
}
