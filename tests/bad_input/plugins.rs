//! Plugins that are none, that fail, that hang, that want too much, that return nonsense: the run says which and how.

use std::fs;

use serde_json::Value;

use super::{DATA, EVALUATE, PLUGIN, Refusal, TRAIN, USAGE, json, project, refused, succeeds};
use crate::plugin::{guest, official};

fn line(plugin: &str, more: &str) -> String {
    format!("{TRAIN} {EVALUATE} --plugin {plugin} {more}")
}

/// The hostile guest with one of its habits.
fn hostile(attack: &str) -> String {
    let path = guest("hostile");
    line(
        &path.to_string_lossy(),
        &format!("--plugin_config hostile.attack={attack}"),
    )
}

#[test]
fn a_file_that_is_no_plugin_says_what_it_is() {
    let whole = fs::read(official("argmax")).expect("a plugin");
    for (content, error, hint) in [
        (
            &b"\0asm\x01\0\0\0"[..],
            "plugin `p`: the file is a core WebAssembly module, not a component",
            "build it for the target wasm32-wasip2",
        ),
        (
            b"",
            "plugin `p`: the file is not WebAssembly",
            "a plugin is a WebAssembly component",
        ),
        (b"hello", "plugin `p`: the file is not WebAssembly", ""),
        (
            &whole[..20_000],
            "plugin `p`: the file is damaged or not complete",
            "build or download it again",
        ),
    ] {
        let host = project();
        fs::write(host.path("p.wasm"), content).expect("written");
        refused(
            &host,
            &line("p.wasm", ""),
            Refusal::new(DATA, error).hint(hint),
        );
    }
    let host = project();
    refused(
        &host,
        &line("p.wasm", ""),
        Refusal::new(USAGE, "plugin: `p.wasm` does not exist; check the path"),
    );
    for (name, error) in [
        (
            "foreign-world",
            "plugin `foreign-world`: a component of another world: it exports wasi:cli/run@",
        ),
        (
            "unknown_import",
            "plugin `unknown_import`: imports `test:accelerator/raw`, which this program does not provide",
        ),
    ] {
        let path = guest(name);
        refused(
            &host,
            &line(&path.to_string_lossy(), ""),
            Refusal::new(DATA, error),
        );
    }
}

#[test]
fn a_configuration_that_does_not_fit_is_refused() {
    let path = guest("hostile");
    for (more, error) in [
        (
            "--plugin_config hostile.attac=nan",
            "configuration of plugin `hostile`: unknown key `attac` (did you mean `attack`?)",
        ),
        (
            "--plugin_config hostile.call=many",
            "configuration of plugin `hostile`: `call`: \"many\" is not of type \"integer\"",
        ),
        (
            "--plugin_limit hostile.tiem=1s",
            "plugin_limit hostile.tiem: unknown plugin limit `tiem`",
        ),
        (
            "--plugin_limit hostile.time=soon",
            "plugin_limit hostile.time: ",
        ),
        (
            "--plugin_limit other.time=1s",
            "plugin_limit: no plugin is named `other`; plugins of this run: hostile",
        ),
    ] {
        refused(
            &project(),
            &line(&path.to_string_lossy(), more),
            Refusal::new(USAGE, error),
        );
    }
}

#[test]
fn a_plugin_that_fails_as_it_starts_leaves_nothing() {
    for (attack, error) in [
        (
            "panic-init",
            "plugin `hostile`: lifecycle.init, call 1: trap: the guest panicked or aborted; it wrote: ",
        ),
        (
            "error-init",
            "plugin `hostile`: lifecycle.init, call 1: cannot \\u{7}read | this (data)",
        ),
        (
            "memory-init",
            "plugin `hostile`: lifecycle.init, call 1: over the limit `memory` of 256 MiB",
        ),
        (
            "loop-init --plugin_limit hostile.init_time=300ms",
            "plugin `hostile`: lifecycle.init, call 1: over the limit `init_time` of 300ms",
        ),
    ] {
        refused(&project(), &hostile(attack), Refusal::new(PLUGIN, error));
    }
    for (name, more, error) in [
        // All that 32 bits can address; twice as much cannot even be asked for.
        (
            "big_memory",
            "",
            "plugin `big_memory`: instantiation, call 1: over the limit `memory` of 256 MiB (needs 4.0 GiB)",
        ),
        (
            "start_loop",
            "--plugin_limit start_loop.init_time=300ms",
            "plugin `start_loop`: lifecycle.init, call 1: over the limit `init_time` of 300ms",
        ),
    ] {
        let path = guest(name);
        let hint = "raise it with --plugin_limit";
        refused(
            &project(),
            &line(&path.to_string_lossy(), more),
            Refusal::new(PLUGIN, error).hint(hint),
        );
    }
}

#[test]
fn a_plugin_that_fails_in_a_call_is_named_with_the_call() {
    for (attack, error) in [
        (
            "panic",
            "train-hooks.on-init-end, call 1: trap: the guest panicked or aborted",
        ),
        ("recursion", "train-hooks.on-init-end, call 1: "),
        (
            "exit",
            "train-hooks.on-init-end, call 1: the plugin ended itself",
        ),
        (
            "loop --plugin_limit hostile.time=300ms",
            "train-hooks.on-init-end, call 1: over the limit `time` of 300ms",
        ),
        (
            "memory",
            "train-hooks.on-init-end, call 1: over the limit `memory` of 256 MiB",
        ),
        (
            "tensors",
            "over the limit `tensors` of 256 MiB (needs 4 GiB)",
        ),
        ("broadcast", "over the limit `tensors` of 256 MiB"),
        ("huge-send", "over the limit `transfer` of 16 MiB"),
        (
            "bincount",
            "bincount of elements from 1099511627776 to 1099511627776 with 10 classes",
        ),
        (
            "panic-compute",
            "metric hostile failed: plugin `hostile`: metrics.compute, call 1: trap",
        ),
    ] {
        let refusal = Refusal::new(PLUGIN, error);
        let is_early = !error.starts_with("metric hostile failed");
        let refusal = if is_early { refusal } else { refusal.begun() };
        refused(&project(), &hostile(attack), refusal);
    }
}

#[test]
fn names_of_metrics_must_be_few_and_printable() {
    for (attack, error) in [
        (
            "million-names",
            "metrics.compute, call 1: over the limit `transfer` of 16 MiB",
        ),
        (
            "too-many-names",
            "over the limit `metrics` of 1000 (needs 1001)",
        ),
        (
            "huge-list",
            "metrics.compute, call 1: over the limit `transfer` of 16 MiB",
        ),
        (
            "newline-name",
            "the metric name `loss | accuracy 1.0` has control characters",
        ),
        (
            "escape-name",
            "the metric name `\\u{1b}[2Jaccuracy` has control characters",
        ),
        (
            "nul-name",
            "the metric name `acc\\u{0}uracy` has control characters",
        ),
        ("long-name", "is longer than 128 bytes"),
        ("empty-name", "a metric has an empty name"),
        ("same-name", "returned the metric `a` twice"),
    ] {
        refused(
            &project(),
            &hostile(attack),
            Refusal::new(PLUGIN, error).begun(),
        );
    }
}

#[test]
fn a_metric_that_is_no_number_is_shown_and_never_best() {
    for (metric, shown) in [("nan", "eval_nan NaN"), ("inf", "eval_inf -inf")] {
        let host = project();
        let more = format!(
            "nan --save_steps 1 --load_best_model_at_end --early_stopping_patience 1 --greater_is_better no --metric_for_best_model {metric}"
        );
        let text = succeeds(&host, &hostile(&more));
        assert!(text.contains(shown), "{text}");
        assert!(
            text.contains("did not improve for 1 evaluations"),
            "it counted as an improvement: {text}"
        );
        let state = json(&host, "out/trainer_state.json");
        assert_eq!(
            (&state["best_metric"], &state["best_model_checkpoint"]),
            (&Value::Null, &Value::Null),
            "{metric}"
        );
    }
}
