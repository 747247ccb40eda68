//! Publishing, finding, adding, updating, and what stops each of them.

use std::fs;

use serde_json::json;

use super::server::Registry;
use super::{DATA, POLICY, USAGE, User};
use crate::support::ended;

#[test]
fn a_plugin_is_published_found_checked_added_and_taken_along() {
    let (user, registry) = (User::new(), Registry::start());
    let key = user.key("key");
    user.plugin("1.0.0", json!({"clock": "measures"}));
    let place = registry.place("acme/stop");
    let checked = user.succeeds(&format!("plugin push stop.wasm {place} --check"));
    assert!(checked.contains("not done: --check"), "{checked}");
    assert_eq!(registry.tags("acme/stop"), Vec::<String>::new());
    let pushed = user.json(&format!(
        "plugin push stop.wasm {place} --sign key --index index.json"
    ));
    assert_eq!(pushed["tag"], "1.0.0");
    // The layout that other tools read.
    let manifest = registry.manifest("acme/stop", "1.0.0");
    assert_eq!(
        manifest["config"]["mediaType"],
        "application/vnd.wasm.config.v0+json"
    );
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    assert_eq!(manifest["layers"][0]["digest"], pushed["wasm"]);

    user.trust_key_and_index(&key);
    let found = user.json("plugin search stop --hook step-hooks --no-net");
    assert_eq!(found[0]["version"]["manifest"], pushed["manifest"]);
    assert_eq!(user.json("plugin search nothing-like-it"), json!([]));
    assert!(user.succeeds("plugin show acme/stop").contains("clock"));

    // Without an answer to what it asks for nothing is written.
    let add = format!("plugin add {place}:1.0.0");
    user.refused(
        &add,
        POLICY,
        &[
            "clock  (measures): not granted",
            "--grant clock for all of it, --grant none",
        ],
    );
    assert_eq!(user.lock_text(), "");
    let added = user.json(&format!("{add} --grant clock"));
    assert_eq!(added["grants"], json!(["clock"]));
    assert_eq!(
        added["signer"],
        json!({"kind": "key", "id": key, "policy": "acme/*"})
    );
    assert_eq!(user.locked()["wasm"], pushed["wasm"]);
    user.succeeds(&format!("plugin verify {place}:1.0.0"));
    assert!(
        user.succeeds("plugin audit")
            .contains("nothing against them")
    );
    user.succeeds("plugin lock --check --offline");
    assert!(
        user.succeeds("plugin update")
            .contains("is the newest version")
    );

    user.succeeds(&format!("plugin pull {place}:1.0.0 -o pulled.wasm"));
    let read = |name: &str| fs::read(user.host.path(name)).expect("read");
    assert_eq!(read("pulled.wasm"), read("stop.wasm"));

    // A machine without a network, with what was vendored and nothing else.
    user.succeeds("plugin vendor");
    user.empty_store();
    user.succeeds("plugin lock --check --offline");
    user.succeeds("plugin remove acme/stop");
    assert_eq!(user.json("plugin list"), json!([]));
    user.refused(
        "plugin remove acme/stop",
        USAGE,
        &["acme/stop is not in", "it holds no plugin"],
    );
}

#[test]
fn a_store_is_filled_from_the_lock_as_it_is_pinned() {
    let (user, registry) = (User::new(), Registry::start());
    user.publish(&registry, "1.0.0", json!({}));
    user.succeeds(&format!("plugin add {}:1.0.0", registry.place("acme/stop")));
    user.empty_store();
    user.refused("plugin lock --check", DATA, &["is not in the store"]);
    user.refused(
        "plugin lock --offline",
        super::IO,
        &["--offline: no registry is asked"],
    );
    user.publish(&registry, "1.1.0", json!({}));
    user.empty_store();
    assert!(user.succeeds("plugin lock").contains("fetched acme/stop"));
    assert_eq!(user.locked()["version"], "1.0.0");
}

#[test]
fn an_update_stops_where_more_is_asked_for() {
    let (user, registry) = (User::new(), Registry::start());
    user.publish(
        &registry,
        "1.0.0",
        json!({"clock": "measures", "random": "draws"}),
    );
    user.succeeds(&format!(
        "plugin add {}:1.0.0 --grant clock,random",
        registry.place("acme/stop")
    ));
    let more = json!({"clock": "measures", "net": [{"origin": "https://a.example.org", "methods": ["POST"], "why": "sends"}]});
    user.publish(&registry, "1.1.0", more);
    let before = user.lock_text();
    user.refused(
        "plugin update acme/stop",
        POLICY,
        &[
            "acme/stop stays at version 1.0.0",
            "asks for more than version 1.0.0: `net:https://a.example.org POST` (sends)",
            "--grant none for nothing more",
        ],
    );
    assert_eq!(user.lock_text(), before);
    let dry = user.json("plugin update acme/stop --grant net --dry-run");
    assert_eq!(dry[0]["added"], json!(["net:https://a.example.org POST"]));
    assert_eq!(dry[0]["removed"], json!(["random"]));
    assert_eq!(user.lock_text(), before);
    // What it no longer asks for is no longer granted.
    user.succeeds("plugin update acme/stop --grant none");
    assert_eq!(user.locked()["grants"], json!(["clock"]));
    assert_eq!(user.locked()["version"], "1.1.0");
    user.succeeds("plugin grant acme/stop net");
    assert_eq!(
        user.locked()["grants"],
        json!(["clock", "net:https://a.example.org POST"])
    );
    user.succeeds("plugin revoke acme/stop 'net:https://a.example.org POST'");
    user.succeeds("plugin revoke acme/stop clock");
    assert_eq!(user.locked()["grants"], json!([]));
}

#[test]
fn an_update_stops_where_the_signer_changed() {
    let (user, registry) = (User::new(), Registry::start());
    user.publish(&registry, "1.0.0", json!({}));
    let place = registry.place("acme/stop");
    user.succeeds(&format!("plugin add {place}:1.0.0"));
    user.plugin("1.1.0", json!({}));
    let other = user.key("other");
    user.succeeds(&format!("plugin push stop.wasm {place} --sign other"));
    user.refused(
        "plugin update",
        POLICY,
        &["is signed with none of the keys", "it has one signature"],
    );
    let line = format!("plugin update acme/stop --key {other}");
    user.refused(
        &line,
        POLICY,
        &["version 1.0.0 was signed by", "--accept-signer"],
    );
    assert_eq!(user.locked()["version"], "1.0.0");
    user.succeeds(&format!("{line} --accept-signer"));
    assert_eq!(user.locked()["signer"]["id"], json!(other));
}

#[test]
fn only_a_signature_that_counts_is_enough() {
    let (user, registry) = (User::new(), Registry::start());
    user.plugin("1.0.0", json!({}));
    let place = registry.place("acme/stop");
    let (key, other) = (user.key("key"), user.key("other"));
    user.succeeds(&format!("plugin push stop.wasm {place}"));
    let add = format!("plugin add {place}:1.0.0");
    user.refused(
        &add,
        POLICY,
        &["no rule of", "it has no signature", "--allow-unsigned"],
    );
    user.refused(
        &format!("{add} --key {key}"),
        POLICY,
        &["is not signed with RW", "it has no signature"],
    );
    user.succeeds(&format!("plugin sign {place}:1.0.0 --key other"));
    user.refused(
        &format!("{add} --key {key}"),
        POLICY,
        &["it has one signature"],
    );
    // A second signature stands beside the first.
    user.succeeds(&format!("plugin sign {place}:1.0.0 --key key"));
    for key in [&key, &other] {
        user.succeeds(&format!("plugin verify {place}:1.0.0 --key {key}"));
    }
    // A rule that names other keys is stronger than --allow-unsigned; no rule is not.
    let third = user.key("third");
    user.trust_key(&third);
    user.refused(
        &format!("{add} --allow-unsigned"),
        POLICY,
        &["is signed with none of the keys", "it has 2 signatures"],
    );
    user.trust("[default]\nunsigned = \"deny\"\n");
    assert_eq!(user.lock_text(), "");
    user.succeeds(&format!("{add} --allow-unsigned"));
    assert_eq!(user.locked()["signer"], json!({"kind": "none"}));
    // A rule for others says nothing about this one.
    user.trust(&format!(
        "[[allow]]\nids = \"acme/other\"\nkeys = [\"{key}\"]\n"
    ));
    user.refused(
        &format!("plugin verify {place}:1.0.0"),
        POLICY,
        &["no rule of"],
    );
}

#[test]
fn signatures_are_found_in_the_list_of_referrers() {
    let (user, registry) = (User::new(), Registry::start());
    user.publish(&registry, "1.0.0", json!({}));
    let tags = registry.tags("acme/stop");
    let tag = tags
        .iter()
        .find(|tag| tag.ends_with(".sig"))
        .expect("a tag for signatures");
    registry.remove("acme/stop", tag);
    let add = format!("plugin add {}:1.0.0", registry.place("acme/stop"));
    user.refused(&add, POLICY, &["it has no signature"]);
    registry.list_referrers();
    user.succeeds(&add);
}

#[test]
fn a_version_that_was_published_does_not_change() {
    let (user, registry) = (User::new(), Registry::start());
    user.publish(&registry, "1.0.0", json!({}));
    let place = registry.place("acme/stop");
    user.succeeds(&format!("plugin add {place}:1.0.0"));
    // The same bytes again are nothing new; others are refused.
    user.succeeds(&format!("plugin push stop.wasm {place} --sign key"));
    user.plugin("1.0.0", json!({"clock": "measures"}));
    user.refused(
        &format!("plugin push stop.wasm {place} --sign key"),
        POLICY,
        &[
            "is published already, with other content",
            "raise the version",
        ],
    );
    // A registry that moves it nevertheless.
    let other = Registry::start();
    user.succeeds(&format!(
        "plugin push stop.wasm {} --sign key",
        other.place("acme/stop")
    ));
    let manifest = other.manifest("acme/stop", "1.0.0");
    registry.put_manifest("acme/stop", "1.0.0", manifest.to_string().as_bytes());
    user.refused(
        "plugin update",
        DATA,
        &["was published again with other content", "still runs"],
    );
    user.succeeds("plugin lock --check --offline");

    // More power within one major version has to be meant.
    let other = Registry::start();
    user.publish(&other, "1.0.0", json!({}));
    user.plugin("1.1.0", json!({"clock": "measures"}));
    let push = format!("plugin push stop.wasm {}", other.place("acme/stop"));
    user.refused(&push, POLICY, &["1.1.0 asks for more than 1.0.0: clock"]);
    user.succeeds(&format!("{push} --new-requests"));
}

#[test]
fn a_place_must_say_what_it_holds() {
    let (user, registry) = (User::new(), Registry::start());
    user.publish(&registry, "1.0.0", json!({}));
    let elsewhere = registry.place("evil/stop");
    user.refused(
        &format!("plugin push stop.wasm {elsewhere}"),
        USAGE,
        &["is not a place for acme/stop", "/acme/stop"],
    );
    user.refused(
        &format!(
            "plugin push stop.wasm {}:2.0.0",
            registry.place("acme/stop")
        ),
        USAGE,
        &["names another version than 1.0.0"],
    );
    // What a registry shows under another name or tag.
    let manifest = registry.manifest("acme/stop", "1.0.0").to_string();
    registry.put_manifest("evil/stop", "1.0.0", manifest.as_bytes());
    user.refused(
        &format!("plugin add {elsewhere}:1.0.0"),
        DATA,
        &["holds a plugin that calls itself acme/stop"],
    );
    registry.move_tag("acme/stop", "3.0.0", "1.0.0");
    user.refused(
        &format!("plugin add {}:3.0.0", registry.place("acme/stop")),
        DATA,
        &["the tag 3.0.0 of", "holds version 1.0.0"],
    );
    // A plugin has one source.
    user.succeeds(&format!("plugin add {}:1.0.0", registry.place("acme/stop")));
    let second = Registry::start();
    user.publish(&second, "1.0.0", json!({}));
    let from_second = format!("{}:1.0.0", second.place("acme/stop"));
    user.refused(
        &format!("plugin add {from_second}"),
        POLICY,
        &["is in the lock file already", "a plugin has one source"],
    );
    user.refused(
        &format!("plugin update acme/stop {from_second}"),
        POLICY,
        &["comes from", "a plugin has one source"],
    );
    user.refused(
        "plugin update acme/stop stop.wasm",
        POLICY,
        &["not from a file"],
    );
}

#[test]
fn a_name_one_letter_away_is_noticed() {
    let user = User::new();
    user.plugin("1.0.0", json!({}));
    user.succeeds("plugin add stop.wasm");
    user.plugin_as("acme/step", "1.0.0", json!({}));
    let shown = user.succeeds("plugin add stop.wasm");
    assert!(
        shown.contains("acme/step is one letter away from acme/stop"),
        "{shown}"
    );
}

#[test]
fn files_are_signed_for_other_tools_and_checked() {
    let user = User::new();
    user.plugin("1.0.0", json!({}));
    let key = user.key("key");
    user.refused(
        "plugin keygen key --no-password",
        USAGE,
        &["exists and is not written over"],
    );
    user.refused("plugin keygen second", USAGE, &["HOST_KEY_PASSWORD"]);
    user.succeeds("plugin sign stop.wasm --key key");
    user.succeeds(&format!("plugin verify stop.wasm --key {key}"));
    user.succeeds("plugin verify stop.wasm --key key.pub");
    let added = user.json("plugin add stop.wasm --key key.pub");
    assert_eq!(added["signer"]["id"], json!(key));
    user.plugin("1.0.1", json!({}));
    user.refused(
        "plugin verify stop.wasm --key key.pub",
        DATA,
        &["the signature is not valid"],
    );
    user.refused(
        "plugin update acme/stop stop.wasm --key key.pub",
        DATA,
        &["the signature is not valid"],
    );

    // An encrypted key needs its password.
    let mut keygen = user.command("plugin keygen secret");
    keygen.env("HOST_KEY_PASSWORD", "long enough");
    user.host.succeeds(keygen);
    user.refused(
        "plugin sign stop.wasm --key secret",
        POLICY,
        &["is encrypted", "HOST_KEY_PASSWORD"],
    );
    let mut sign = user.command("plugin sign stop.wasm --key secret");
    sign.env("HOST_KEY_PASSWORD", "long enough");
    user.host.succeeds(sign);
    user.succeeds("plugin verify stop.wasm --key secret.pub");
    let mut wrong = user.command("plugin sign stop.wasm --key secret");
    wrong.env("HOST_KEY_PASSWORD", "wrong");
    let ended = ended(&wrong.output().expect("the program runs"));
    assert_eq!(ended.code, Some(DATA), "{}", ended.stderr);
}
