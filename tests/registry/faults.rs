//! A registry that fails, lies, or leads elsewhere: one error that says what to do, nothing half-installed, and
//! credentials that stay where they belong.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;

use super::server::{Fault, Registry, base64};
use super::{DATA, IO, POLICY, USAGE, User};
use crate::http::unused_address;
use crate::support::{ended, wait_for};

/// A user and a registry that holds acme/stop 1.0.0.
fn published() -> (User, Registry) {
    let (user, registry) = (User::new(), Registry::start());
    user.publish(&registry, "1.0.0", json!({}));
    registry.seen();
    (user, registry)
}

fn add(registry: &Registry) -> String {
    format!("plugin add {}:1.0.0", registry.place("acme/stop"))
}

#[test]
fn what_is_not_right_is_refused_and_nothing_is_kept() {
    let (user, registry) = published();
    for (fault, code, error) in [
        (Fault::ChangedBlob, DATA, "what was received is not sha256:"),
        (Fault::ChangedManifest, DATA, "the manifest of oci://"),
        (Fault::Endless, DATA, "sends more than the"),
        (
            Fault::HugeManifest(5 << 20),
            DATA,
            "is longer than 1048576 bytes",
        ),
        (Fault::RedirectLoop, DATA, "redirects more than 5 times"),
        (
            Fault::RedirectBlobs("192.0.2.1:80".to_owned()),
            POLICY,
            "is not asked: it is not https",
        ),
        (Fault::Status(1, 403, None), POLICY, "does not allow this"),
        (Fault::Status(1, 404, None), DATA, "not found"),
        (
            Fault::Status(99, 429, Some(0)),
            IO,
            "takes no more requests for now",
        ),
        (
            Fault::Status(99, 429, Some(3600)),
            IO,
            "takes no more requests for now",
        ),
        (Fault::Status(99, 503, Some(0)), IO, "failed (503"),
        (
            Fault::Truncated(99),
            IO,
            "try again: it goes on where it ended",
        ),
    ] {
        registry.break_it(fault.clone());
        user.refused(&add(&registry), code, &[error]);
        assert_eq!(user.lock_text(), "", "{fault:?}");
        let blobs = fs::read_dir(user.host.path("data/host/plugins/blobs/sha256"));
        let kept: Vec<_> = blobs.into_iter().flatten().collect();
        assert!(kept.is_empty(), "{fault:?}: {kept:?}");
    }
    registry.repair();
    user.succeeds(&add(&registry));
}

#[test]
fn what_passes_is_tried_again() {
    for fault in [
        Fault::Status(2, 500, None),
        Fault::Status(2, 429, Some(0)),
        Fault::Truncated(2),
        Fault::IgnoresRanges(1),
    ] {
        let (user, registry) = published();
        registry.break_it(fault.clone());
        user.succeeds(&add(&registry));
        user.succeeds("plugin lock --check --offline");
        let resumed = registry
            .seen()
            .iter()
            .any(|seen| seen.header("range").is_some());
        assert_eq!(
            resumed,
            matches!(fault, Fault::Truncated(_) | Fault::IgnoresRanges(_)),
            "{fault:?}"
        );
    }
}

#[test]
fn a_download_goes_on_in_a_later_command() {
    let (user, registry) = published();
    // Five attempts in one command, each with half of what is left.
    registry.break_it(Fault::Truncated(5));
    user.refused(&add(&registry), IO, &["of", "bytes"]);
    registry.seen();
    user.succeeds(&add(&registry));
    let ranges: Vec<String> = registry
        .seen()
        .iter()
        .filter_map(|seen| seen.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges.len(), 1, "{ranges:?}");
    user.succeeds("plugin lock --check --offline");
}

#[test]
fn an_install_that_is_killed_leaves_nothing_half_done() {
    let (user, registry) = published();
    registry.break_it(Fault::Stalls);
    let mut child = user
        .command(&add(&registry))
        .spawn()
        .expect("the program runs");
    let partial = user.host.path("data/host/plugins/partial");
    let received = || {
        let files = fs::read_dir(&partial).into_iter().flatten().flatten();
        files
            .filter_map(|file| file.metadata().ok())
            .any(|file| file.len() > 0)
    };
    wait_for("the first bytes", Duration::from_secs(20), received);
    child.kill().expect("killed");
    child.wait().expect("it ended");
    assert_eq!(user.lock_text(), "");
    assert!(!user.host.path("data/host/plugins/blobs").exists());
    registry.repair();
    registry.seen();
    user.succeeds(&add(&registry));
    assert!(
        registry
            .seen()
            .iter()
            .any(|seen| seen.header("range").is_some())
    );
    user.succeeds("plugin lock --check --offline");
}

#[test]
fn a_registry_that_is_not_there_is_told() {
    let user = User::new();
    let gone = unused_address();
    user.refused(
        &format!("plugin add oci://{gone}/acme/stop"),
        IO,
        &["cannot be reached", "check address and network"],
    );
    user.refused(
        &format!("plugin add oci://{gone}/acme/stop --offline"),
        IO,
        &["--offline: no registry is asked"],
    );
}

#[test]
fn a_login_opens_a_registry_and_wrong_credentials_do_not() {
    let (user, registry) = published();
    registry.require_login("ada", "hunter2");
    let login = format!("plugin login {}", registry.address);
    user.refused(
        &add(&registry),
        POLICY,
        &["wants other credentials", &format!("host {login}")],
    );
    let log_in = |password: &str| {
        let mut command = user.command(&format!("{login} --username ada --password-stdin"));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        child
            .stdin
            .take()
            .expect("stdin")
            .write_all(format!("{password}\n").as_bytes())
            .expect("written");
        ended(&child.wait_with_output().expect("it ends"))
    };
    let wrong = log_in("wrong");
    assert_eq!(wrong.code, Some(POLICY), "{}", wrong.stderr);
    assert!(!user.host.path("docker/config.json").exists());
    let right = log_in("hunter2");
    assert_eq!(right.code, Some(0), "{}", right.stderr);
    assert!(!format!("{}{}", right.stdout, right.stderr).contains("hunter2"));
    let kept = fs::read_to_string(user.host.path("docker/config.json")).expect("the credentials");
    assert!(kept.contains(&base64("ada:hunter2")), "{kept}");
    user.succeeds(&add(&registry));
    user.succeeds(&format!("plugin logout {}", registry.address));
    user.empty_store();
    user.refused("plugin lock", POLICY, &["wants other credentials"]);
    user.refused(
        "plugin login 'a b' -u x --password-stdin",
        USAGE,
        &["is no registry"],
    );
}

#[test]
fn credentials_do_not_follow_to_another_host() {
    let (user, registry) = published();
    let other = Registry::start();
    other.copy_blobs(&registry);
    registry.require_login("ada", "hunter2");
    let auth = base64("ada:hunter2");
    user.host.write(
        "docker/config.json",
        &format!(
            r#"{{"auths": {{"{}": {{"auth": "{auth}"}}}}}}"#,
            registry.address
        ),
    );
    // Downloads that lie elsewhere are taken from there, without a token.
    registry.break_it(Fault::RedirectBlobs(other.address.clone()));
    user.empty_store();
    user.succeeds(&add(&registry));
    let seen = other.seen();
    assert!(!seen.is_empty());
    for request in &seen {
        assert_eq!(request.header("authorization"), None, "{request:?}");
    }
    // The other way round: the registry itself was shown its token.
    assert!(
        registry
            .seen()
            .iter()
            .any(|seen| seen.header("authorization").is_some())
    );
    // Uploads too.
    registry.break_it(Fault::UploadElsewhere(other.address.clone()));
    user.plugin("1.1.0", json!({}));
    user.run(&format!(
        "plugin push stop.wasm {}",
        registry.place("acme/stop")
    ));
    let seen = other.seen();
    assert!(
        seen.iter().any(|request| request.method == "PUT"),
        "{seen:?}"
    );
    for request in &seen {
        assert_eq!(request.header("authorization"), None, "{request:?}");
    }
}

#[test]
fn installs_at_the_same_time_do_not_disturb_each_other() {
    let (user, registry) = published();
    let line = add(&registry);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| user.succeeds(&line));
        }
    });
    user.succeeds("plugin lock --check --offline");
    assert_eq!(user.json("plugin list").as_array().map(Vec::len), Some(1));
}
