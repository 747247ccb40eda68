//! Plugins from a registry to a run, through the real program: against a registry on loopback with every fault, and
//! against a real one where the machine has it.

mod exchange;
mod faults;
mod hostile;
mod locked;
mod real;
mod server;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::plugin::{guest, with_manifest};
use crate::support::{Ended, Host, ended};
use server::Registry;

const USAGE: i32 = 2;
const POLICY: i32 = 64;
const DATA: i32 = 65;
const IO: i32 = 74;

/// A user with a home of their own, whose current folder holds the lock file.
struct User {
    host: Host,
}

impl User {
    fn new() -> Self {
        Self::of(Host::new())
    }

    fn of(host: Host) -> Self {
        Self { host }
    }

    /// The program with the words of `line`; quotes keep spaces.
    fn command(&self, line: &str) -> Command {
        let mut words = words(line).into_iter();
        let mut command = self.host.command(&words.next().expect("a subcommand"));
        command
            .args(words)
            .env("XDG_CONFIG_HOME", self.host.path("settings"))
            .env("XDG_DATA_HOME", self.host.path("data"))
            .env("DOCKER_CONFIG", self.host.path("docker"));
        command
    }

    fn run(&self, line: &str) -> Ended {
        ended(&self.command(line).output().expect("the program runs"))
    }

    fn succeeds(&self, line: &str) -> String {
        self.host.succeeds(self.command(line))
    }

    /// The result of a command as JSON.
    fn json(&self, line: &str) -> Value {
        let ended = self.run(&format!("{line} --json"));
        assert_eq!(ended.code, Some(0), "{line}\n{}", ended.stderr);
        serde_json::from_str(&ended.stdout)
            .unwrap_or_else(|error| panic!("{line}: {error}\n{}", ended.stdout))
    }

    /// The command ends with `code` and one error that has these parts.
    fn refused(&self, line: &str, code: i32, parts: &[&str]) {
        let ended = self.run(line);
        let shown = format!("{line}\n{}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.code, Some(code), "{shown}");
        for part in parts {
            assert!(ended.stderr.contains(part), "no `{part}` in\n{shown}");
        }
        assert!(!ended.stderr.contains("defect of the program"), "{shown}");
        assert!(!ended.stderr.contains('\u{1b}'), "{shown}");
        assert_eq!(ended.stdout, "", "{shown}");
    }

    /// A component `stop.wasm` that calls itself acme/stop.
    fn plugin(&self, version: &str, requests: Value) -> PathBuf {
        self.plugin_as("acme/stop", version, requests)
    }

    fn plugin_as(&self, id: &str, version: &str, requests: Value) -> PathBuf {
        let made = with_manifest(&guest("idle"), self.host.folder(), |manifest| {
            manifest["id"] = json!(id);
            manifest["version"] = json!(version);
            manifest["license"] = json!("Apache-2.0");
            manifest["summary"] = json!("Stops when it should.");
            manifest["requests"] = requests;
        });
        let path = self.host.path("stop.wasm");
        fs::rename(made, &path).expect("renamed");
        path
    }

    /// Makes the key pair `name`; its public key.
    fn key(&self, name: &str) -> String {
        let made = self.json(&format!("plugin keygen {name} --no-password"));
        made["key"].as_str().expect("a key").to_owned()
    }

    fn trust(&self, rules: &str) {
        self.host.write("settings/host/trust.toml", rules);
    }

    /// Trusts a key for what acme publishes.
    fn trust_key(&self, key: &str) {
        self.trust(&format!(
            "[[allow]]\nids = \"acme/*\"\nkeys = [\"{key}\"]\n"
        ));
    }

    /// The same, and for the index in the file index.json.
    fn trust_key_and_index(&self, key: &str) {
        self.trust(&format!(
            "[[allow]]\nids = \"acme/*\"\nkeys = [\"{key}\"]\n[[index]]\nurl = \"{}\"\nkeys = [\"{key}\"]\n",
            self.host.path("index.json").display()
        ));
    }

    /// Publishes acme/stop in this version, signed with `key`, whose public part is trusted for it.
    fn publish(&self, registry: &Registry, version: &str, requests: Value) {
        if !self.host.path("key").exists() {
            self.trust_key(&self.key("key"));
        }
        self.plugin(version, requests);
        let place = registry.place("acme/stop");
        self.succeeds(&format!(
            "plugin push stop.wasm {place} --sign key --new-requests"
        ));
    }

    /// The entry of acme/stop in the lock file.
    fn locked(&self) -> Value {
        let list = self.json("plugin list");
        let mut entries = list.as_array().expect("a list").iter();
        entries
            .find(|entry| entry["id"] == "acme/stop")
            .cloned()
            .unwrap_or_default()
    }

    /// The text of the lock file.
    fn lock_text(&self) -> String {
        fs::read_to_string(self.host.path("plugins.lock")).unwrap_or_default()
    }

    /// Where the store keeps a digest.
    fn stored(&self, digest: &Value) -> PathBuf {
        let hex = digest
            .as_str()
            .and_then(|text| text.strip_prefix("sha256:"))
            .expect("a digest");
        self.host.path("data/host/plugins/blobs/sha256").join(hex)
    }

    /// Forgets everything that was downloaded.
    fn empty_store(&self) {
        let store = self.host.path("data/host/plugins");
        if store.exists() {
            fs::remove_dir_all(store).expect("removed");
        }
    }
}

fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (position, part) in line.split('\'').enumerate() {
        match position % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}
