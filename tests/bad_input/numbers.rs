//! Numbers that are none: losses, gradients, metrics, and a metric that nobody reports.

use serde_json::Value;

use super::{EVALUATE, NUMERIC, Refusal, TRAIN, USAGE, left, project, refused, succeeds};

/// The first update makes every weight too large.
const DIVERGING: &str =
    "--learning_rate 1e38 --optim sgd --max_grad_norm 0 --max_steps 5 --logging_steps 1";

#[test]
fn a_loss_that_is_not_finite_stops_the_run_if_asked_to() {
    let host = project();
    let line = format!("{TRAIN} {DIVERGING} --on_nonfinite stop");
    let refusal = Refusal {
        left: &["curves.svg", "run.json"],
        ..Refusal::new(NUMERIC, "the loss or a gradient is not finite at step 2")
            .hint("lower --learning_rate")
    };
    refused(&host, &line, refusal);
    // What it left is in nobody's way.
    refused(&host, &line, refusal);
}

#[test]
fn a_loss_that_is_not_finite_is_counted_otherwise() {
    for policy in ["skip", "warn"] {
        let host = project();
        let shown = succeeds(
            &host,
            &format!(
                "{TRAIN} {EVALUATE} {DIVERGING} --on_nonfinite {policy} --save_steps 1 --load_best_model_at_end"
            ),
        );
        assert!(
            shown.contains("steps with a loss or gradient that was not finite: 4"),
            "{shown}"
        );
        assert!(shown.contains("eval_loss NaN"), "{shown}");
        let state = host.json("out/trainer_state.json");
        assert_eq!(
            (&state["best_metric"], &state["best_model_checkpoint"]),
            (&Value::Null, &Value::Null),
            "{policy}"
        );
    }
}

#[test]
fn a_metric_that_no_evaluation_reports_is_named() {
    for more in [
        "--save_steps 1",
        "--save_steps 1 --load_best_model_at_end",
        "--save_strategy no --lr_scheduler_type reduce_lr_on_plateau",
    ] {
        let host = project();
        let refusal = Refusal::new(
            USAGE,
            "the evaluation reports no metric \"f1\", only eval_loss, ",
        )
        .hint("set --metric_for_best_model to one of them");
        refused(
            &host,
            &format!("{TRAIN} {EVALUATE} --metric_for_best_model f1 {more}"),
            refusal,
        );
    }
    assert!(left(&project()).is_empty());
}
