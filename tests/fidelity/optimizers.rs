//! Every optimizer through the whole program: y = ax + b on the data of appendix A, against what its reference makes of the
//! same batches (`tests/fixtures/optimizers/make.py`); and what the averaged weights of schedule_free_adamw are used for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use host::optim::BUILTIN;
use serde_json::Value;

use super::{parameters, train};
use crate::support::{Host, fixture};

const TOLERANCE: f64 = 1e-5;
const SCHEDULE_FREE: &str = "--optim schedule_free_adamw --lr_scheduler_type constant";

fn recorded() -> BTreeMap<String, [f64; 2]> {
    let text = fs::read_to_string(fixture("optimizers").join("line.json")).expect("the fixture");
    serde_json::from_str(&text).expect("JSON")
}

/// Row 71: each name makes its optimizer.
#[test]
fn every_optimizer_ends_where_its_reference_does() {
    let mut names = BTreeSet::new();
    for (arguments, expected) in recorded() {
        let host = Host::new();
        train(&host, 64, &format!("--optim {arguments}"));
        let (a, b) = parameters(&host.path("out"));
        for (found, expected) in [a, b].into_iter().zip(expected) {
            assert!(
                (found - expected).abs() <= TOLERANCE,
                "{arguments}: {found} instead of {expected}"
            );
        }
        names.extend(arguments.split(' ').next().map(str::to_owned));
    }
    // These three are rows of the appendix itself, or differ from adamw_torch in the kernel only.
    names.extend(["sgd", "adafactor", "adamw_torch_fused"].map(str::to_owned));
    let missing: Vec<_> = BUILTIN
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !names.contains(*name))
        .collect();
    assert!(missing.is_empty(), "not recorded: {missing:?}");
}

fn history(output: &Path) -> Vec<Value> {
    let text = fs::read_to_string(output.join("trainer_state.json")).expect("the state");
    let state: Value = serde_json::from_str(&text).expect("JSON");
    state["log_history"].as_array().expect("a list").clone()
}

/// Mean squared error of y = ax + b on data D.
fn loss((a, b): (f64, f64)) -> f64 {
    let square = |index: usize| {
        let x = ((37 * index) % 64) as f64 / 16.0 - 2.0;
        let noise = if index.is_multiple_of(2) { 0.1 } else { -0.1 };
        (a * x + b - (2.0 * x + 3.0 + noise)).powi(2)
    };
    (0..64).map(square).sum::<f64>() / 64.0
}

#[test]
fn averaged_weights_are_evaluated_and_saved_and_the_run_does_not_notice() {
    let (quiet, watched) = (Host::new(), Host::new());
    train(&quiet, 64, &format!("{SCHEDULE_FREE} --save_strategy no"));
    train(
        &watched,
        64,
        &format!(
            "{SCHEDULE_FREE} --evaluation_strategy steps --eval_steps 8 --save_steps 8 --load_best_model_at_end"
        ),
    );
    // The evaluations draw from the generators, so the second epoch has another order: compare with a run that also does.
    let evaluated = Host::new();
    train(
        &evaluated,
        64,
        &format!("{SCHEDULE_FREE} --evaluation_strategy steps --eval_steps 8 --save_strategy no"),
    );
    let losses: Vec<f64> = history(&watched.path("out"))
        .iter()
        .filter_map(|entry| entry["eval_loss"].as_f64())
        .collect();
    for (step, loss_logged) in [8, 16, 24].into_iter().zip(&losses) {
        let saved = parameters(&watched.path(&format!("out/checkpoint-{step}")));
        assert!(
            (loss(saved) - loss_logged).abs() < 1e-5,
            "step {step}: the saved weights have loss {}, the evaluation {loss_logged}",
            loss(saved)
        );
    }
    let last = parameters(&watched.path("out/checkpoint-24"));
    assert_eq!(
        parameters(&evaluated.path("out")),
        last,
        "saving changed the run"
    );
    // One epoch without and with an evaluation and a save in its middle: the same to the last bit.
    let runs = ["", "--save_steps 3", "--save_steps 1"].map(|more| {
        let host = Host::new();
        let save = if more.is_empty() {
            "--save_strategy no"
        } else {
            more
        };
        train(&host, 64, &format!("{SCHEDULE_FREE} {save}"));
        parameters(&host.path("out"))
    });
    assert_eq!(runs[0], parameters(&quiet.path("out")));
    assert_eq!(runs, [runs[0]; 3]);
}

#[test]
fn schedules_take_their_settings_from_the_arguments() {
    let recorded = fs::read_to_string(fixture("schedules").join("rates.json")).expect("rates");
    let recorded: Vec<Value> = serde_json::from_str(&recorded).expect("JSON");
    let of_steps = recorded
        .iter()
        .filter(|entry| entry["name"] != "reduce_lr_on_plateau");
    for entry in of_steps {
        let (name, settings) = (entry["name"].as_str().expect("a name"), &entry["settings"]);
        let host = Host::new();
        let settings = settings.to_string();
        assert!(!settings.contains(' '), "{settings}");
        train(
            &host,
            64,
            &format!(
                "--learning_rate 0.3 --max_steps 20 --warmup_steps 3 --logging_steps 1 --save_strategy no \
                 --lr_scheduler_type {name} --lr_scheduler_kwargs {settings}"
            ),
        );
        let rates: Vec<f64> = history(&host.path("out"))
            .iter()
            .filter_map(|entry| entry["learning_rate"].as_f64())
            .collect();
        // Logged after the schedule's step.
        let expected = entry["rates"].as_array().expect("a list");
        let expected: Vec<f64> = expected[1..=20]
            .iter()
            .map(|rate| rate.as_f64().expect("a number"))
            .collect();
        assert_eq!(rates, expected, "{name} {settings}");
    }
}

#[test]
fn a_plateau_takes_its_settings_from_the_arguments() {
    let host = Host::new();
    train(
        &host,
        64,
        "--max_steps 6 --logging_steps 1 --save_strategy no --evaluation_strategy steps --eval_steps 1 \
         --lr_scheduler_type reduce_lr_on_plateau --lr_scheduler_kwargs mode=max,patience=0,factor=0.5",
    );
    let rates: Vec<f64> = history(&host.path("out"))
        .iter()
        .filter_map(|entry| entry["learning_rate"].as_f64())
        .collect();
    // The loss falls, so with mode max every evaluation after the first is one too many. The rate of a step is logged
    // before its evaluation.
    assert_eq!(rates, [0.1, 0.1, 0.05, 0.025, 0.0125, 0.00625]);
}
