//! What a plugin asks for, what a user grants, and what happens when the two differ.

use std::fs;

use serde_json::json;

use super::{EVALUATE, POLICY, Refusal, TRAIN, USAGE, project, refused, succeeds};
use crate::plugin::{guest, with_manifest};

#[test]
fn a_missing_grant_stops_the_run_before_it_starts() {
    let host = project();
    with_manifest(&guest("idle"), &host.path(""), |manifest| {
        manifest["requests"] = json!({
            "gradients": "watches their size",
            "net": [{"origin": "https://API.example.org:443", "methods": ["post"], "why": "sends points"}],
        });
    });
    let line = format!("{TRAIN} {EVALUATE} --plugin idle.wasm");
    let asked = "plugin `idle` asks for 2 capabilities that are not granted: `gradients` (watches their size), \
                 `net:https://api.example.org POST` (sends points)";
    let grant = "to grant: --plugin_grant 'idle.gradients' --plugin_grant 'idle.net:https://api.example.org POST'";
    refused(&host, &line, Refusal::new(POLICY, asked).hint(grant));
    assert!(!host.path("out/checkpoint-1").exists());

    let one = format!("{line} --plugin_grant idle.gradients");
    let left = "plugin `idle` asks for a capability that is not granted: `net:https://api.example.org POST`";
    refused(&host, &one, Refusal::new(POLICY, left));

    // As the run file grants it; the origin is given with all methods.
    host.write(
        "run.toml",
        "[[plugins]]\npath = \"idle.wasm\"\ngrant = [\"gradients\", \"net:https://api.example.org\"]\n",
    );
    succeeds(
        &host,
        &format!("{TRAIN} {EVALUATE}").replace("train ", "train run.toml "),
    );
}

#[test]
fn a_grant_that_cannot_be_is_refused() {
    let host = project();
    fs::copy(guest("idle"), host.path("idle.wasm")).expect("copied");
    for (grant, error) in [
        ("idle.everything", "`everything` is not a capability"),
        ("idle.net:*", "`*` is not an origin"),
        (
            "other.clock",
            "plugin_grant: no plugin is named `other`; plugins of this run: idle",
        ),
        (
            "clock",
            "plugin_grant: `clock` has not the form NAME.CAPABILITY",
        ),
    ] {
        let line = format!("{TRAIN} {EVALUATE} --plugin idle.wasm --plugin_grant {grant}");
        refused(&host, &line, Refusal::new(USAGE, error));
    }
}
