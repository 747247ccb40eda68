//! What an author, a registry or an index can write to lead a user astray.

use std::fs;

use serde_json::{Value, json};

use super::server::Registry;
use super::{DATA, POLICY, USAGE, User};

#[test]
fn names_that_could_be_paths_or_terminal_commands_go_nowhere() {
    let user = User::new();
    for id in [
        "../stop",
        "acme/../../etc/x",
        "acme/stop\u{1b}[2J",
        "ACME/stop",
        "acme",
        "acme/st\u{43e}p",
    ] {
        user.plugin_as(id, "1.0.0", json!({}));
        user.refused("plugin add stop.wasm", DATA, &["its manifest is not valid"]);
    }
    user.plugin("not-a-version", json!({}));
    user.refused("plugin add stop.wasm", DATA, &["is not a semantic version"]);
    for place in [
        "oci://localhost/../../x",
        "oci://localhost/a/b?x",
        "oci://a:b@localhost/a/b",
        "oci://localhost/a/b:..%2f",
        "oci://localhost/a/b@md5:00",
        "oci://localhost",
        "oci://local\u{1b}host/a/b",
    ] {
        user.refused(&format!("plugin add '{place}'"), USAGE, &["is not a"]);
    }
    for id in ["../x", "a/b/c", "a/\u{202e}b"] {
        user.refused(
            &format!("plugin remove '{id}'"),
            USAGE,
            &["is not the name of a plugin"],
        );
    }
    assert_eq!(user.lock_text(), "");
    assert!(!user.host.path("data").exists());
}

#[test]
fn manifests_that_are_not_one_component_are_refused() {
    let (user, registry) = (User::new(), Registry::start());
    user.publish(&registry, "1.0.0", json!({}));
    let whole = registry.manifest("acme/stop", "1.0.0");
    let layer = whole["layers"][0].clone();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut value = whole.clone();
        change(&mut value);
        value.to_string().into_bytes()
    };
    for (manifest, error) in [
        (
            changed(&|value| value["layers"] = json!([layer, layer])),
            "has 2 layers",
        ),
        (
            changed(&|value| value["layers"][0]["mediaType"] = json!("text/\u{1b}[2J")),
            "instead of one of type",
        ),
        (
            changed(&|value| value["layers"][0]["size"] = json!(1_u64 << 50)),
            "the limit is",
        ),
        (
            changed(&|value| value["layers"][0]["digest"] = json!("sha512:00")),
            "is not a SHA-256 digest",
        ),
        (
            changed(&|value| value["layers"][0]["digest"] = json!("sha256:../../../../etc/passwd")),
            "is not a SHA-256 digest",
        ),
        (
            changed(&|value| {
                value["config"]["mediaType"] = json!("application/vnd.oci.image.config.v1+json")
            }),
            "no WebAssembly",
        ),
        (
            changed(&|value| value["mediaType"] = json!("application/vnd.oci.image.index.v1+json")),
            "of another kind",
        ),
        (b"[]".to_vec(), "cannot be read"),
        (b"{".to_vec(), "cannot be read"),
        (b"<html>".to_vec(), "cannot be read"),
    ] {
        registry.put_manifest("acme/stop", "2.0.0", &manifest);
        let line = format!("plugin add {}:2.0.0", registry.place("acme/stop"));
        user.refused(&line, DATA, &["cannot be used", error]);
    }
    // A blob that is no component at all.
    let text = user.host.write("text.wasm", "no component");
    user.refused(
        &format!(
            "plugin push {} {}",
            text.display(),
            registry.place("acme/stop")
        ),
        DATA,
        &["is not WebAssembly"],
    );
}

/// An index with one plugin, signed; its file, and the public key.
fn indexed(user: &User) -> (Registry, String) {
    let registry = Registry::start();
    let key = user.key("key");
    user.trust_key_and_index(&key);
    user.plugin("1.0.0", json!({}));
    user.succeeds(&format!(
        "plugin push stop.wasm {} --sign key --index index.json",
        registry.place("acme/stop")
    ));
    (registry, key)
}

/// Changes the index and signs it again.
fn reissue(user: &User, change: impl FnOnce(&mut Value)) {
    let text = fs::read_to_string(user.host.path("index.json")).expect("the index");
    let mut index: Value = serde_json::from_str(&text).expect("JSON");
    change(&mut index);
    user.host.write("index.json", &index.to_string());
    user.succeeds("plugin sign index.json --key key");
}

#[test]
fn an_index_that_goes_back_or_expires_or_is_not_signed_is_refused() {
    let user = User::new();
    let (registry, key) = indexed(&user);
    user.succeeds("plugin search stop");
    let keep = |name: &str| fs::read(user.host.path(name)).expect("read");
    let (old, old_signature) = (keep("index.json"), keep("index.json.minisig"));
    user.plugin("1.1.0", json!({}));
    user.succeeds(&format!(
        "plugin push stop.wasm {} --sign key --index index.json",
        registry.place("acme/stop")
    ));
    assert!(
        user.succeeds("plugin search stop")
            .contains("acme/stop 1.1.0")
    );
    let (new, new_signature) = (keep("index.json"), keep("index.json.minisig"));
    let put = |index: &[u8], signature: &[u8]| {
        fs::write(user.host.path("index.json"), index).expect("written");
        fs::write(user.host.path("index.json.minisig"), signature).expect("written");
    };
    put(&old, &old_signature);
    user.refused(
        "plugin search stop",
        DATA,
        &["an older one was served: its number is 1, 2 was seen before"],
    );
    put(&new, &old_signature);
    user.refused(
        "plugin search stop",
        POLICY,
        &["no trusted key has signed it"],
    );
    put(&new, &new_signature);
    reissue(&user, |index| {
        index["plugins"][0]["summary"] = json!("another")
    });
    user.refused(
        "plugin search stop",
        DATA,
        &["there are two with the number 2"],
    );
    put(&new, &new_signature);
    reissue(&user, |index| {
        (index["serial"], index["expires"]) = (json!(3), json!(1))
    });
    user.refused(
        "plugin search stop",
        DATA,
        &["expired", "its author has to renew it"],
    );
    reissue(&user, |index| {
        index["format"] = json!("host-plugin-index/2")
    });
    user.refused(
        "plugin search stop",
        DATA,
        &["has the format `host-plugin-index/2`"],
    );
    user.refused(
        "plugin search stop --index index.json",
        USAGE,
        &["--index needs --key"],
    );
    let other = user.key("other");
    user.refused(
        &format!("plugin search stop --index index.json --key {other}"),
        POLICY,
        &["no trusted key has signed it"],
    );
    assert_ne!(key, other);
}

#[test]
fn an_audit_says_what_is_against_a_plugin() {
    let user = User::new();
    let (registry, _) = indexed(&user);
    user.succeeds(&format!("plugin add {}:1.0.0", registry.place("acme/stop")));
    assert!(
        user.succeeds("plugin audit")
            .contains("nothing against them")
    );
    reissue(&user, |index| {
        index["serial"] = json!(2);
        index["plugins"][0]["versions"][0]["yanked"] = json!(true);
    });
    assert!(
        user.succeeds("plugin audit")
            .contains("acme/stop: version 1.0.0 was yanked")
    );
    assert_eq!(user.json("plugin search stop"), json!([]));
    reissue(&user, |index| {
        index["serial"] = json!(3);
        index["plugins"][0]["versions"][0]["revoked"] = json!("leaks\u{1b}[2J");
    });
    user.refused(
        "plugin audit",
        POLICY,
        &[
            "acme/stop: version 1.0.0 was revoked: leaks",
            "update or remove it",
        ],
    );
    reissue(&user, |index| {
        index["serial"] = json!(4);
        index["plugins"][0]["versions"][0]["wasm"] = json!(super::server::digest(b"other"));
    });
    user.refused("plugin audit", POLICY, &["in the index and"]);
}

#[test]
fn a_project_cannot_bring_its_own_trust() {
    // A folder with a lock file and rules, as somebody else may publish one.
    let user = User::new();
    let registry = Registry::start();
    user.plugin("1.0.0", json!({}));
    let key = user.key("key");
    user.succeeds(&format!(
        "plugin push stop.wasm {} --sign key",
        registry.place("acme/stop")
    ));
    let rules =
        format!("[[allow]]\nids = \"*\"\nkeys = [\"{key}\"]\n[default]\nunsigned = \"allow\"\n");
    user.host.write("trust.toml", &rules);
    user.refused(
        &format!("plugin add {}:1.0.0", registry.place("acme/stop")),
        POLICY,
        &["no rule of"],
    );
}
