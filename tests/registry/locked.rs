//! Runs that take plugins from the lock file: what is pinned is what runs, with what was granted, and nothing is
//! downloaded.

use std::fs;

use serde_json::json;

use super::server::Registry;
use super::{DATA, POLICY, USAGE, User};
use crate::support::{Host, copy, fixture};

const TRAIN: &str = "train run.toml --model model --train_file train.jsonl --output_dir out --max_steps 1 \
                     --per_device_train_batch_size 2 --report_to none --use_cpu --save_strategy no --overwrite_output_dir";

/// The toy model and its data, and acme/stop 1.2.0 in the file stop.wasm.
fn project() -> User {
    let host = Host::new();
    copy(&fixture("golden/init_toy"), &host.path("model"));
    let rows = [
        json!({"text": "the soup was cold", "label": 0}),
        json!({"text": "our guide remained calm", "label": 1}),
    ];
    host.write("train.jsonl", &rows.map(|row| format!("{row}\n")).concat());
    host.write("run.toml", "");
    let user = User::of(host);
    user.plugin("1.2.0", json!({"clock": "measures"}));
    user
}

#[test]
fn a_run_takes_file_and_grants_from_the_lock() {
    let user = project();
    user.succeeds("plugin add stop.wasm --grant none");
    fs::remove_file(user.host.path("stop.wasm")).expect("removed");
    let line = format!("{TRAIN} --plugin acme/stop");
    user.refused(
        &line,
        POLICY,
        &[
            "plugin `stop` asks for a capability that is not granted: `clock` (measures)",
            "--plugin_grant 'stop.clock'",
        ],
    );
    // The run's own grants are added to those of the lock.
    let shown = user.succeeds(&format!("{line} --plugin_grant stop.clock"));
    assert!(shown.contains("plugin stop: "), "{shown}");
    user.succeeds("plugin grant acme/stop clock");
    user.succeeds(&line);
    // The run file beside the lock, from another folder, with a requirement on the version.
    user.host
        .write("run.toml", "[[plugins]]\nuse = \"acme/stop@^1.1\"\n");
    fs::create_dir(user.host.path("elsewhere")).expect("a folder");
    let mut command = user.command(
        &TRAIN
            .replace("run.toml", "../run.toml")
            .replace(" model ", " ../model ")
            .replace(" train.jsonl", " ../train.jsonl"),
    );
    command.current_dir(user.host.path("elsewhere"));
    let shown = user.host.succeeds(command);
    assert!(shown.contains("plugin stop: "), "{shown}");
    user.host
        .write("run.toml", "[[plugins]]\nuse = \"acme/stop@2\"\n");
    user.refused(
        TRAIN,
        USAGE,
        &["run.toml:1: plugins.use: `acme/stop` is locked at version 1.2.0, which is not 2"],
    );
}

/// Every command of the README's block for registries, in order, with this registry in place of the example's.
#[test]
fn the_commands_of_the_readme_lead_from_nothing_to_a_run() {
    let user = project();
    user.plugin("1.0.0", json!({"clock": "measures"}));
    let (command, settings) = TRAIN.split_once(" run.toml ").expect("a run file");
    assert_eq!(command, "train");
    let mut text = String::new();
    for setting in settings.split("--").skip(1) {
        let value = match setting.trim().split_once(' ') {
            Some((name, value)) => format!(
                "{name} = {}\n",
                value
                    .parse::<u32>()
                    .map_or_else(|_| format!("{value:?}"), |n| n.to_string())
            ),
            None => format!("{} = true\n", setting.trim()),
        };
        text.push_str(&value);
    }
    user.host.write("run.toml", &text);
    let readme =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("README.md");
    let (_, block) = readme.split_once("```sh registry\n").expect("the block");
    let (block, _) = block.split_once("```").expect("its end");
    let registry = Registry::start();
    let commands: Vec<&str> = block.lines().collect();
    assert_eq!(commands.len(), 10);
    for line in commands {
        let line = line.replace("registry.example.org", &registry.address);
        let words = line
            .strip_prefix("host ")
            .expect("a command of the program");
        let shown = user.succeeds(words);
        assert!(!shown.is_empty(), "{line}");
    }
}

#[test]
fn a_run_downloads_nothing_and_says_what_would() {
    let user = project();
    let registry = Registry::start();
    let place = registry.place("acme/stop");
    user.refused(
        &format!("{TRAIN} --plugin {place}:1.2.0"),
        USAGE,
        &[
            "a run downloads nothing",
            &format!("host plugin add {place}:1.2.0"),
        ],
    );
    user.refused(
        &format!("{TRAIN} --plugin acme/stop"),
        USAGE,
        &["`acme/stop` is in no plugins.lock of"],
    );
    user.publish(&registry, "1.2.0", json!({}));
    user.succeeds(&format!("plugin add {place}:1.2.0 --global"));
    user.empty_store();
    registry.seen();
    user.refused(
        &format!("{TRAIN} --plugin acme/stop"),
        USAGE,
        &["is not in the store of this machine; fetch it with `host plugin lock`"],
    );
    assert!(registry.seen().is_empty());
    user.succeeds("plugin lock --global");
    let shown = user.succeeds(&format!("{TRAIN} --plugin acme/stop"));
    assert!(shown.contains("plugin stop: "), "{shown}");
}

#[test]
fn a_component_that_was_changed_after_it_was_added_does_not_run() {
    let user = project();
    user.succeeds("plugin add stop.wasm --grant clock");
    let stored = user.stored(&user.locked()["wasm"]);
    let mut bytes = fs::read(&stored).expect("the component");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&stored, bytes).expect("changed");
    let line = format!("{TRAIN} --plugin acme/stop");
    user.refused(
        &line,
        DATA,
        &[
            "plugin `stop`: its component has the digest",
            "plugins.lock says sha256:",
        ],
    );
    user.refused(
        "plugin lock --check",
        DATA,
        &["was changed after it was added"],
    );
    // Adding it again heals the store.
    user.succeeds("plugin add stop.wasm --grant clock");
    user.succeeds("plugin lock --check");
}

#[test]
fn a_lock_edited_by_hand_does_not_widen_or_exchange_anything() {
    let user = project();
    user.succeeds("plugin add stop.wasm --grant clock");
    let lock = user.lock_text();
    let line = format!("{TRAIN} --plugin acme/stop");
    let edit = |text: String| {
        user.host.write("plugins.lock", &text);
    };
    // A component that calls itself something else.
    edit(lock.replace("acme/stop", "acme/other"));
    user.refused(
        &line.replace("acme/stop", "acme/other"),
        DATA,
        &["it calls itself acme/stop", "says acme/other"],
    );
    user.refused(
        "plugin lock --check",
        DATA,
        &["acme/other: its component calls itself acme/stop"],
    );
    // Requests that were never shown.
    let requests = user.json("plugin list");
    assert_eq!(requests.as_array().map(Vec::len), Some(1));
    let start = lock.find("requests = ").expect("requests");
    let end = start + lock[start..].find('\n').expect("a line");
    edit(format!(
        "{}requests = \"sha256:{}\"{}",
        &lock[..start],
        "0".repeat(64),
        &lock[end..]
    ));
    user.refused(&line, DATA, &["what it asks for has the digest"]);
    user.refused(
        "plugin lock --check",
        DATA,
        &["asks for what has the digest"],
    );
    // Grants beyond the requests give nothing, and are told.
    edit(lock.replace("\"clock\"", "\"clock\", \"net:https://a.example.org\""));
    user.refused(
        "plugin lock --check",
        DATA,
        &["is granted `net:https://a.example.org`, which it does not ask for"],
    );
    let shown = user.succeeds(&line);
    assert!(
        shown.contains("does not ask for `net:https://a.example.org`: the grant has no effect"),
        "{shown}"
    );
    edit(lock.replace("\"clock\"", "\"everything\""));
    user.refused(&line, USAGE, &["`everything` is not a capability"]);
    edit(lock.replace("version = 1\n", "version = 7\n"));
    user.refused(
        &line,
        USAGE,
        &["it has version 7; this program knows version 1"],
    );
    user.refused(
        "plugin list",
        DATA,
        &["it has version 7", "plugins.lock cannot be used"],
    );
    edit(lock.replace("acme/stop", "../../etc/passwd"));
    user.refused("plugin list", DATA, &["is not the name of a plugin"]);
    user.refused(
        "plugin add stop.wasm --grant clock",
        DATA,
        &["is not the name of a plugin"],
    );
}

#[test]
fn what_was_revoked_does_not_run_any_more() {
    let user = project();
    user.succeeds("plugin add stop.wasm --grant clock");
    let wasm = user.locked()["wasm"].clone();
    user.trust(&format!(
        "[[revoke]]\nwasm = {wasm}\nreason = \"leaks what it sees\"\n"
    ));
    let told = "was revoked: leaks what it sees";
    user.refused(&format!("{TRAIN} --plugin acme/stop"), USAGE, &[told]);
    user.refused("plugin lock --check", DATA, &[told]);
    user.refused("plugin add stop.wasm --grant clock", POLICY, &[told]);
}

#[test]
fn a_grant_wider_than_the_request_is_refused() {
    let user = project();
    let net = json!({
        "net": [{"origin": "https://a.example.org", "methods": ["POST"], "why": "sends"},
                {"origin": "{server}", "methods": ["GET"], "why": "asks the user's server"}],
    });
    user.plugin("1.2.0", net);
    for wider in [
        "net:https://a.example.org",
        "net:https://b.example.org POST",
        "clock",
        "net:https://c.example.org POST",
    ] {
        user.refused(
            &format!("plugin add stop.wasm --grant '{wider}'"),
            USAGE,
            &[
                "acme/stop does not ask for",
                "it asks for `net:https://a.example.org POST`, `net:{server} GET`",
            ],
        );
    }
    user.refused(
        "plugin add stop.wasm --grant everything",
        USAGE,
        &["`everything` is not a capability"],
    );
    user.refused(
        "plugin add stop.wasm --grant none,net",
        USAGE,
        &["`none` stands alone"],
    );
    assert_eq!(user.lock_text(), "");
    // A value in place of a setting is narrower.
    let added = user.json("plugin add stop.wasm --grant 'net:https://c.example.org GET'");
    assert_eq!(added["grants"], json!(["net:https://c.example.org GET"]));
    user.refused(
        "plugin grant acme/stop clock",
        USAGE,
        &["does not ask for `clock`"],
    );
    user.refused(
        "plugin revoke acme/stop clock",
        USAGE,
        &["has no grant `clock`"],
    );
    user.succeeds("plugin revoke acme/stop all");
    assert_eq!(user.locked()["grants"], json!([]));
}
