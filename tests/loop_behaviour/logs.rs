//! Rows 16 to 20 and spec 3.6, 3.7: what is logged, when, and what a run returns.

use host::callback::Schedule;
use serde_json::Value;

use super::stage::{Play, Played};

fn logging(every: f64) -> Play {
    Play {
        shuffled: true,
        logging: (Schedule::Steps, every),
        ..Play::default()
    }
}

fn train_loss(played: &Played) -> f64 {
    let metrics = &played.ok().metrics;
    let found = metrics.iter().find(|(name, _)| name == "train_loss");
    found.expect("a loss").1
}

#[test]
fn row_17_to_the_last_digit() {
    let played = logging(5.0).run();
    let expected = [
        (5, 13.5036, 0.079_166_7, 0.62),
        (10, 6.9695, 0.058_333_3, 1.25),
        (15, 5.4001, 0.0375, 1.88),
        (20, 4.7675, 0.016_666_7, 2.5),
    ];
    for (entry, (step, loss, rate, epoch)) in played.state.log_history.iter().zip(expected) {
        assert_eq!(entry["step"], step);
        assert_eq!(entry["loss"], loss, "step {step}");
        assert_eq!(entry["epoch"], epoch, "step {step}");
        let found = entry["learning_rate"].as_f64().expect("a rate");
        assert!((found - rate).abs() < 1e-6, "step {step}: {found}");
    }
    assert_eq!(played.state.log_history.len(), 5);
    assert_eq!(played.steps_with("train_loss"), [24]);
    assert!((train_loss(&played) - 7.087_268).abs() < 1e-5);
}

#[test]
fn the_mean_of_all_losses_is_the_train_loss_however_they_are_logged() {
    let eights = logging(8.0).run();
    let losses: Vec<f64> = eights
        .logged("loss")
        .into_iter()
        .map(|(_, loss)| loss)
        .collect();
    let mean = losses.iter().sum::<f64>() / losses.len() as f64;
    assert!((mean - train_loss(&eights)).abs() < 1e-4);
    assert!((train_loss(&logging(5.0).run()) - train_loss(&eights)).abs() < 1e-6);
}

#[test]
fn what_is_returned_and_what_is_logged_last() {
    let played = logging(8.0).run();
    let returned: Vec<&str> = played
        .ok()
        .metrics
        .iter()
        .map(|(name, _)| &**name)
        .collect();
    let speeds = [
        "train_runtime",
        "train_samples_per_second",
        "train_steps_per_second",
    ];
    assert_eq!(returned, [&speeds[..], &["train_loss", "epoch"]].concat());
    let last = played.state.log_history.last().expect("an entry");
    let logged: Vec<&str> = last.keys().map(String::as_str).collect();
    let rest = ["total_flos", "train_loss", "epoch", "step"];
    assert_eq!(logged, [&speeds[..], &rest].concat());
    assert_eq!(last["epoch"], 3.0);
    // The model counts a row as one operation.
    assert_eq!(last["total_flos"], 192.0);
}

#[test]
fn when_there_are_entries() {
    let first = Play {
        max_steps: Some(4),
        logging_first_step: true,
        ..logging(3.0)
    };
    assert_eq!(first.run().steps_with("loss"), [1, 3]);
    let only_first = Play {
        max_steps: Some(4),
        logging_first_step: true,
        ..Play::default()
    };
    assert_eq!(only_first.run().steps_with("loss"), [1]);
    let ratios = Play {
        epochs: 1.0,
        evaluation: (Schedule::Steps, 0.25),
        saving: (Schedule::Steps, 0.5),
        ..logging(0.3)
    }
    .run();
    assert_eq!(ratios.steps_with("loss"), [3, 6]);
    assert_eq!(ratios.steps_with("eval_loss"), [2, 4, 6, 8]);
    assert_eq!(ratios.checkpoints(), [4, 8]);
    let state = &ratios.state;
    assert_eq!(
        (state.logging_steps, state.eval_steps, state.save_steps),
        (3.0, 2.0, 4.0)
    );
}

#[test]
fn entries_of_both_kinds_have_their_fields_in_order() {
    let played = Play {
        epochs: 1.0,
        evaluation: (Schedule::Epoch, 500.0),
        metric: &[0.25],
        ..logging(8.0)
    }
    .run();
    let keys = |entry: &serde_json::Map<String, Value>| entry.keys().cloned().collect::<Vec<_>>();
    let history = &played.state.log_history;
    // The recorder adds what it has collected.
    assert_eq!(
        keys(&history[0]),
        ["loss", "learning_rate", "calls", "epoch", "step"]
    );
    assert_eq!(history[0]["calls"], 8.0);
    let expected = [
        "eval_loss",
        "eval_acc",
        "eval_runtime",
        "eval_samples_per_second",
        "eval_steps_per_second",
        "epoch",
        "step",
    ];
    assert_eq!(keys(&history[1]), expected);
}
