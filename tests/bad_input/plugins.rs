//! Plugins that are none, that fail, that hang, that want too much, that return nonsense: the run says which and how.

use std::fs;

use serde_json::Value;

use super::{DATA, EVALUATE, PLUGIN, Refusal, TRAIN, USAGE, project, refused, succeeds};
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
        let state = host.json("out/trainer_state.json");
        assert_eq!(
            (&state["best_metric"], &state["best_model_checkpoint"]),
            (&Value::Null, &Value::Null),
            "{metric}"
        );
    }
}

#[test]
fn a_run_has_one_collator_and_one_loss() {
    let host = project();
    let copied = |plugin: &str, name: &str| {
        fs::copy(official(plugin), host.path(name)).expect("copied");
        format!("--plugin {name}")
    };
    let masking = copied("token_masking", "one.wasm");
    let other_masking = copied("token_masking", "two.wasm");
    let focal = copied("focal_loss", "three.wasm") + " --plugin_grant three.loss";
    let other_focal = copied("focal_loss", "four.wasm") + " --plugin_grant four.loss";
    for (more, error, hint) in [
        (
            format!("{masking} {other_masking}"),
            "plugins `one` and `two` both provide the hook `collator`",
            "a run has one collator: leave one of them out",
        ),
        (
            format!("{masking} --data_collator padding"),
            "plugin `one` provides the hook `collator`, and --data_collator is set as well",
            "a run has one collator: leave one of them out",
        ),
        (
            format!("{focal} {other_focal}"),
            "plugins `three` and `four` both provide the hook `loss`",
            "a run has one loss: leave one of them out",
        ),
        (
            format!("{focal} --label_smoothing_factor 0.1"),
            "plugin `three` provides the hook `loss`, and --label_smoothing_factor is set as well",
            "a run has one loss: leave one of them out",
        ),
    ] {
        let line = format!("{TRAIN} {EVALUATE} {more}");
        refused(&host, &line, Refusal::new(USAGE, error).hint(hint));
    }
    // Together they train.
    let line = format!("{TRAIN} {EVALUATE} {focal} {masking} --dataloader_num_workers 2");
    let shown = succeeds(&host, &line);
    for line in ["plugin three: ", "plugin one: "] {
        assert!(shown.contains(line), "{shown}");
    }
}

/// The hostile guest under a name of its own, that stops the run at the begin of its first step.
fn stopper(host: &crate::support::Host, name: &str) {
    fs::copy(guest("hostile"), host.path(&format!("{name}.wasm"))).expect("copied");
}

#[test]
fn plugins_are_called_in_the_order_of_the_run_file_and_then_of_the_command_line() {
    let host = project();
    for name in ["first", "second", "third"] {
        stopper(&host, name);
    }
    for (file, line) in [
        (["first", "second"], "third"),
        (["third", "first"], "second"),
    ] {
        let tables = file.map(|name| format!("[[plugins]]\npath = \"{name}.wasm\"\n"));
        host.write("run.toml", &tables.concat());
        let configured = ["first", "second", "third"].map(|name| {
            format!("--plugin_config {name}.attack=stop --plugin_config {name}.call=4")
        });
        let words = format!("{TRAIN} {} --plugin {line}.wasm", configured.join(" "));
        let shown = succeeds(&host, &words.replace("train ", "train run.toml "));
        // Who asks later finds that it was asked for.
        fs::remove_dir_all(host.path("out")).expect("the output");
        let stopped = format!("{} stopped training at step 0: reached", file[0]);
        assert!(shown.contains(&stopped), "{shown}");
        let places = [file[0], file[1], line].map(|name| shown.find(&format!("plugin {name}: ")));
        assert!(places.is_sorted() && places[0].is_some(), "{shown}");
    }
}

#[test]
fn a_fault_is_told_to_plugins_and_hidden_by_none() {
    for (attack, told) in [
        ("tell", "plugin `hostile`: told of a fault: data: "),
        (
            "worse-fault",
            "callback hostile failed at the end of a run that failed: \
             plugin `hostile`: fault-hooks.on-fault, call 1: a fault of its own (fatal)",
        ),
    ] {
        let host = project();
        host.write(
            "train.jsonl",
            "{\"input_x\": [1.0], \"label\": 1.0}\n{\"input_x\": [1.0, 2.0], \"label\": 1.0}\n",
        );
        let model = crate::support::fixture("torchscript/regression.pt");
        let path = guest("hostile");
        let line = format!(
            "train --model {} --trust_model_code --train_file train.jsonl --output_dir out --max_steps 2 --report_to none \
             --use_cpu --log_level info --plugin {} --plugin_config hostile.attack={attack}",
            model.display(),
            path.display()
        );
        let ended = host.run(&line);
        assert_eq!(ended.code, Some(DATA), "{}", ended.stderr);
        let lines: Vec<&str> = ended
            .stderr
            .lines()
            .filter(|line| line.contains(told))
            .collect();
        assert_eq!(lines.len(), 1, "{}", ended.stderr);
        let cause = if attack == "tell" {
            "train.jsonl:2: field"
        } else {
            told
        };
        assert!(lines[0].contains(cause), "{lines:?}");
        let errors = super::lines(&ended, "error: ");
        assert!(
            errors.len() == 1 && errors[0].contains("train.jsonl:2"),
            "{errors:?}"
        );
    }
}

#[test]
fn a_plugin_that_reads_the_model_leaves_its_weights_alone() {
    let host = project();
    crate::plugin::with_manifest(&guest("hostile"), &host.path(""), |manifest| {
        manifest["requests"] = serde_json::json!({"parameters": "reads", "gradients": "reads"});
    });
    let grants = "--plugin_grant hostile.parameters --plugin_grant hostile.gradients";
    let weights = |more: &str| {
        succeeds(&host, &format!("{TRAIN} {more}"));
        let weights = fs::read(host.path("out/model.safetensors")).expect("weights");
        fs::remove_dir_all(host.path("out")).expect("the output");
        weights
    };
    // A manifest of another's making has no defaults.
    let config = "--plugin_config hostile.attack=parameters --plugin_config hostile.call=1 --plugin_config hostile.every=1";
    let read = weights(&format!("--plugin hostile.wasm {grants} {config}"));
    assert!(read == weights(""), "the same to the last bit");
}
