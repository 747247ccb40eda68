//! What must not change a number, what must, and what ends a run.

use super::{results, run, steps, train, train_script, weights};
use crate::support::Host;

/// Fields 46 and 65: the last evaluation computes in bfloat16; training and its evaluations do not.
#[test]
fn full_evaluation_in_half_precision_is_outside_training() {
    let host = Host::new();
    let line = "--evaluation_strategy steps --eval_steps 2";
    host.succeeds(train(&host, "plain", line));
    host.succeeds(train(&host, "full", &format!("{line} --bf16_full_eval")));
    assert_eq!(steps(&host, "plain"), steps(&host, "full"));
    assert_eq!(weights(&host, "plain"), weights(&host, "full"));
    let loss = |output: &str| {
        results(&host, output)["eval_loss"]
            .as_f64()
            .expect("a loss")
    };
    let (plain, full) = (loss("plain"), loss("full"));
    assert!(
        plain != full && (plain - full).abs() < 1e-2,
        "{plain} {full}"
    );

    // What the run has saved evaluates to the same number.
    let mut command = host.command("evaluate");
    command.args([
        "--model",
        "full",
        "--output_dir",
        "again",
        "--bf16_full_eval",
    ]);
    command.args(["--max_eval_samples", "64", "--validation_file"]);
    command.arg(crate::support::fixture("golden/toy/validation.jsonl"));
    host.succeeds(command);
    assert_eq!(loss("again"), full);
}

/// Field 78: recomputation draws the same dropout and changes no bit, over groups of batches, with and without autocast.
#[test]
fn recomputed_activations_change_no_bit() {
    for precision in ["", "--bf16"] {
        let host = Host::new();
        let line = format!("--gradient_accumulation_steps 2 {precision}");
        host.succeeds(train(&host, "kept", &line));
        host.succeeds(train(
            &host,
            "again",
            &format!("{line} --gradient_checkpointing"),
        ));
        assert_eq!(steps(&host, "kept"), steps(&host, "again"), "{precision}");
        assert_eq!(
            weights(&host, "kept"),
            weights(&host, "again"),
            "{precision}"
        );
    }
    // The comparison can fail: another seed draws other zeros.
    let host = Host::new();
    host.succeeds(train(&host, "one", "--seed 1"));
    host.succeeds(train(&host, "two", "--seed 2"));
    assert_ne!(weights(&host, "one"), weights(&host, "two"));
}

/// Field 83: an operation without a deterministic kernel fails, and only if the run asked for determinism.
#[test]
fn full_determinism_refuses_operations_that_have_none() {
    let host = Host::new();
    let module = |line| ("unordered.pt", line);
    host.succeeds(train_script(&host, "plain", module("--max_steps 2")));
    let ended = run(train_script(
        &host,
        "strict",
        module("--max_steps 2 --full_determinism"),
    ));
    assert_eq!(ended.code, Some(65), "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .contains("put_ does not have a deterministic implementation"),
        "{}",
        ended.stderr
    );
    host.succeeds(train(&host, "default", ""));
    host.succeeds(train(
        &host,
        "strict",
        "--full_determinism --overwrite_output_dir",
    ));
    assert_eq!(weights(&host, "default"), weights(&host, "strict"));
}

/// Field 69: the watch changes nothing until a number is not finite; then it shows the frames that led there.
#[test]
fn the_watch_ends_the_run_at_the_first_number_that_is_not_finite() {
    let host = Host::new();
    host.succeeds(train(&host, "plain", ""));
    host.succeeds(train(&host, "watched", "--debug underflow_overflow"));
    assert_eq!(weights(&host, "plain"), weights(&host, "watched"));
    for more in ["", "--gradient_checkpointing", "--bf16"] {
        let diverging = format!(
            "--learning_rate 1e38 --optim sgd --max_grad_norm 0 --debug underflow_overflow {more}"
        );
        let ended = run(train(
            &host,
            "diverging",
            &format!("{diverging} --overwrite_output_dir"),
        ));
        let shown = &ended.stderr;
        assert_eq!(ended.code, Some(77), "{shown}");
        // The first batch is fine, the first update is not.
        assert!(
            shown.contains("detected inf/nan during batch_number=1 in bert."),
            "{shown}"
        );
        assert!(
            shown.contains("forward frames:\nabs min  abs max  metadata\n"),
            "{shown}"
        );
        for module in ["Embedding\n", "input[0]\n", "weight\n", "output\n"] {
            assert!(shown.contains(module), "{module} in {shown}");
        }
    }
}
