//! Files that are no plugins, and plugins that this program must not load: one clear message each, before the first batch.

use std::fs;

use host::error::{Kind, kind_of};
use host::plugin::{Environment, Grants, Spec, inspect, load};
use serde_json::json;

use super::{custom_section, environment, guest, official, spec, told};

/// Loads bytes as a file `x.wasm` and gives the message and kind of the refusal.
fn refused(bytes: &[u8]) -> (String, Kind) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.wasm");
    fs::write(&path, bytes).expect("a file");
    let error = load(&Spec::new(&path), &environment()).expect_err("refused");
    (told(&error), kind_of(&error))
}

#[test]
fn a_file_that_is_no_component_says_what_it_is() {
    let good = fs::read(official("argmax")).expect("a plugin");
    let middle = good.len() / 2;
    for (bytes, part) in [
        (
            &b"\0asm\x01\0\0\0"[..],
            "plugin `x`: the file is a core WebAssembly module, not a component hint: build it for the target wasm32-wasip2",
        ),
        (b"#!/bin/sh\n", "plugin `x`: the file is not WebAssembly"),
        (b"", "plugin `x`: the file is not WebAssembly"),
        (
            &good[..middle],
            "plugin `x`: the file is damaged or not complete",
        ),
    ] {
        let (text, kind) = refused(bytes);
        assert!(text.contains(part), "{text}");
        assert_eq!(kind, Kind::Data);
    }
}

#[test]
fn every_truncation_and_many_changed_bytes_are_refused_or_load() {
    let good = fs::read(official("argmax")).expect("a plugin");
    for length in (0..good.len()).step_by(4_999) {
        assert_eq!(refused(&good[..length]).1, Kind::Data, "length {length}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.wasm");
    for position in (8..good.len()).step_by(9_973) {
        let mut bad = good.clone();
        bad[position] ^= 0x55;
        fs::write(&path, &bad).expect("a file");
        // Whatever it is now, it is told and never a crash.
        if let Err(error) = load(&Spec::new(&path), &environment()) {
            assert!(
                matches!(
                    kind_of(&error),
                    Kind::Data | Kind::Plugin | Kind::Policy | Kind::Usage
                ),
                "{position}: {}",
                told(&error)
            );
        }
    }
}

#[test]
fn a_missing_file_is_named() {
    let error =
        load(&Spec::new("no/such/plugin.wasm".as_ref()), &environment()).expect_err("refused");
    assert!(
        told(&error).starts_with("plugin file no/such/plugin.wasm cannot be read: No such file"),
        "{}",
        told(&error)
    );
    assert_eq!(kind_of(&error), Kind::Data);
}

#[test]
fn components_that_do_not_fit_are_refused_by_name() {
    for (name, part) in [
        (
            "foreign-world",
            "plugin `foreign-world`: a component of another world: it exports wasi:cli/run@",
        ),
        (
            "unknown_import",
            "plugin `unknown_import`: imports `test:accelerator/raw`, which this program does not provide",
        ),
    ] {
        let error = load(&Spec::new(&guest(name)), &environment()).expect_err(name);
        assert!(told(&error).contains(part), "{}", told(&error));
        assert_eq!(kind_of(&error), Kind::Data);
    }
}

#[test]
fn a_configuration_is_checked_before_anything_runs() {
    for (config, part) in [
        (
            json!({"attac": "none"}),
            "configuration of plugin `hostile`: unknown key `attac` (did you mean `attack`?)",
        ),
        (
            json!({"call": 0}),
            "`call`: 0 is less than the minimum of 1",
        ),
        (
            json!({"call": "many", "every": -1}),
            "`call`: \"many\" is not of type \"integer\"; `every`: -1 is less than the minimum of 1",
        ),
    ] {
        let error = load(&spec(&guest("hostile"), &config, &[]), &environment()).expect_err(part);
        assert!(told(&error).contains(part), "{}", told(&error));
        assert_eq!(kind_of(&error), Kind::Usage);
    }
}

#[test]
fn a_request_without_a_grant_stops_before_the_start() {
    let mut bytes = fs::read(official("argmax")).expect("a plugin");
    // A custom section around the component outweighs the one inside.
    let manifest = json!({"id": "x/y", "version": "1.0.0", "api": "0.1", "requests": {"clock": "tells the time"}});
    bytes.extend(custom_section(
        "trainer:manifest",
        manifest.to_string().as_bytes(),
    ));
    let (text, kind) = refused(&bytes);
    assert!(
        text.contains(
            "plugin `x` asks for a capability that is not granted: `clock` (tells the time)"
        ),
        "{text}"
    );
    assert_eq!(kind, Kind::Policy);
}

#[test]
fn inspection_tells_without_running() {
    let text = inspect::describe(&official("classification_metrics")).expect("described");
    for part in [
        "hooks      lifecycle, metrics\n",
        "id         host/classification-metrics\n",
        "digest     sha256:",
        "loads      yes\n",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    // A guest that would never come back is described at once.
    let facts = inspect::describe_json(&guest("start_loop")).expect("described");
    assert_eq!(
        (facts["loads"].as_bool(), facts["manifest"].is_null()),
        (Some(true), true)
    );
    let refusal = inspect::describe_json(&guest("unknown_import")).expect("described");
    assert!(
        refusal["refusal"]
            .as_str()
            .is_some_and(|text| text.contains("test:accelerator/raw")),
        "{refusal}"
    );
}

#[test]
fn every_plugin_of_this_project_loads_with_its_defaults_and_states_its_version() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins");
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("the plugins")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.join("manifest.json").exists())
        .map(|path| {
            path.file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "argmax",
            "classification-metrics",
            "early-stopping",
            "focal-loss",
            "mlflow",
            "tensorboard",
            "token-masking"
        ],
        "a new plugin needs a test in tests/hooks or tests/report"
    );
    let logging_dir = tempfile::tempdir().expect("a folder");
    let environment = Environment {
        logging_dir: logging_dir.path().to_owned(),
        ..environment()
    };
    for name in names {
        let (config, grants) = match name.as_str() {
            "mlflow" => (
                json!({"tracking_uri": "http://127.0.0.1:9"}),
                crate::report::mlflow::GRANTS,
            ),
            "tensorboard" => (json!({}), &["write:logging_dir"][..]),
            "focal-loss" => (json!({}), &["loss"][..]),
            _ => (json!({}), &[][..]),
        };
        let mut spec = spec(&official(&name.replace('-', "_")), &config, &[]);
        spec.grants = Grants::parse(grants).expect("valid");
        let plugin = load(&spec, &environment).expect("loads");
        let manifest = plugin.manifest().expect("a manifest");
        assert_eq!(
            (manifest.id.as_str(), manifest.version.as_str()),
            (format!("host/{name}").as_str(), "0.1.0")
        );
        plugin.close().expect("closes");
    }
}
