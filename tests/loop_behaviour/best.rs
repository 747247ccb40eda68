//! Rows 33 to 42: early stopping, the best model, and which checkpoints are left.

use host::callback::Schedule;
use host::error::{Kind, kind_of};

use super::stage::{Mean, Play, Played};

const EACH_EPOCH: (Schedule, f64) = (Schedule::Epoch, 500.0);

/// Four steps an epoch, an evaluation and a save at its end, `acc` from a list.
fn played_back(metric: &'static [f64]) -> Play {
    Play {
        batch_size: 16,
        epochs: 10.0,
        evaluation: EACH_EPOCH,
        saving: EACH_EPOCH,
        metric,
        best: Some("acc"),
        load_best: true,
        ..Play::default()
    }
}

/// Steps done, best value, the step of its checkpoint.
fn best(played: &Played) -> (u64, Option<f64>, Option<u64>) {
    let folder = played.state.best_model_checkpoint.as_ref();
    let step = folder.and_then(|folder| folder.rsplit_once('-')?.1.parse().ok());
    (played.ok().global_step, played.state.best_metric, step)
}

#[test]
fn early_stopping() {
    /// Values; patience and threshold; steps, best value, step of the best.
    type Case = (&'static [f64], (u64, f64), (u64, f64, u64));
    let cases: [Case; 4] = [
        (&[0.5], (1, 0.0), (8, 0.5, 4)),
        (&[0.5, 0.6, 0.55, 0.58, 0.7], (2, 0.0), (16, 0.6, 8)),
        (&[0.5, 0.505], (1, 0.01), (8, 0.505, 8)),
        // A value that is not finite is no evaluation for it, and never the best.
        (
            &[f64::NAN, 0.5, f64::INFINITY, 0.5, 0.4],
            (2, 0.0),
            (16, 0.5, 8),
        ),
    ];
    for (metric, patience, (steps, value, step)) in cases {
        let played = Play {
            patience: Some(patience),
            ..played_back(metric)
        }
        .run();
        assert_eq!(
            best(&played),
            (steps, Some(value), Some(step)),
            "{metric:?}"
        );
        let [stop] = &played.changes[..] else {
            panic!("{:?}", played.changes)
        };
        assert_eq!(
            (&*stop.by, stop.wish, stop.step),
            ("early_stopping", "stop_training", steps)
        );
    }
}

#[test]
fn which_checkpoints_are_left() {
    const FLAT: &[f64] = &[0.5, 0.6, 0.55, 0.58, 0.7];
    const FALLING: &[f64] = &[0.5, 0.6, 0.55, 0.58, 0.55, 0.54, 0.53];
    /// Values, patience, limit, whether the best is loaded, steps of the checkpoints that stay.
    type Case = (&'static [f64], u64, usize, bool, &'static [u64]);
    let cases: [Case; 4] = [
        (FLAT, 3, 2, true, &[20, 32]),
        (FLAT, 3, 1, true, &[20]),
        // The best one is known without being loaded.
        (FLAT, 3, 1, false, &[20]),
        (FALLING, 5, 3, true, &[8, 24, 28]),
    ];
    for (metric, patience, limit, load_best, expected) in cases {
        let played = Play {
            patience: Some((patience, 0.0)),
            total_limit: Some(limit),
            load_best,
            ..played_back(metric)
        }
        .run();
        assert_eq!(played.checkpoints(), expected, "{metric:?}, limit {limit}");
    }
    let unlimited = Play {
        saving: (Schedule::Steps, 5.0),
        ..Play::default()
    };
    assert_eq!(unlimited.run().checkpoints(), [5, 10, 15, 20]);
}

/// Weights and evaluation at the end are those of the checkpoint with the lowest loss. With a constant rate of 3 that is
/// the first: what follows overshoots.
#[test]
fn the_best_by_loss_is_loaded() {
    let play = |load_best| Play {
        learning_rate: 3.0,
        scheduler: "constant",
        max_steps: Some(3),
        evaluation: (Schedule::Steps, 1.0),
        saving: (Schedule::Steps, 1.0),
        best: Some("loss"),
        load_best,
        evaluates_at_end: true,
        ..Play::default()
    };
    let played = play(true).run();
    let losses = played.logged("eval_loss");
    let (step, lowest) = losses[0];
    assert!(
        losses[1..3].iter().all(|(_, loss)| *loss > lowest),
        "{losses:?}"
    );
    assert_eq!(best(&played), (3, Some(lowest), Some(step)));
    assert_eq!(played.evaluated[0], ("eval_loss".to_owned(), lowest));
    assert_eq!(played.parameters, saved_parameters(&played, step));
    // It is tracked without being loaded.
    let last = play(false).run();
    assert_eq!(last.parameters, saved_parameters(&last, 3));
    assert_eq!(best(&last), best(&played));
}

fn saved_parameters(played: &Played, step: u64) -> [f64; 2] {
    let (a, b) = crate::fidelity::parameters(&played.checkpoint(step));
    [a, b]
}

#[test]
fn the_best_by_a_metric_is_loaded() {
    let played = Play {
        epochs: 4.0,
        ..played_back(&[0.5, 0.9, 0.7, 0.9])
    }
    .run();
    assert_eq!(best(&played), (16, Some(0.9), Some(8)));
    assert_eq!(played.parameters, saved_parameters(&played, 8));
    assert_eq!(played.logged("eval_acc").len(), 4);
}

/// An evaluation without a save is not compared.
#[test]
fn only_saves_count() {
    let played = Play {
        evaluation: (Schedule::Steps, 2.0),
        saving: (Schedule::Steps, 4.0),
        batch_size: 16,
        epochs: 2.0,
        metric: &[0.9, 0.1, 0.8, 0.2],
        best: Some("eval_acc"),
        ..Play::default()
    }
    .run();
    assert_eq!(best(&played), (8, Some(0.2), Some(8)));
}

#[test]
fn a_metric_that_nobody_reports_is_refused_as_early_as_it_can_be_known() {
    let play = |metrics: Vec<Box<dyn host::metric::Metric>>| Play {
        metrics,
        evaluation: (Schedule::Steps, 2.0),
        saving: (Schedule::Steps, 20.0),
        best: Some("f1"),
        ..Play::default()
    };
    let refused = |played: &Played, expected: &str| {
        let error = played.outcome.as_ref().expect_err("no such metric");
        assert_eq!(kind_of(error), Kind::Usage);
        assert!(format!("{error:#}").contains(expected), "{error:#}");
    };
    // All names are known: before the first step.
    for metrics in [
        vec![],
        vec![Box::new(Mean(Some("mean"))) as Box<dyn host::metric::Metric>],
    ] {
        let played = play(metrics).run();
        refused(&played, "no metric \"f1\", only eval_loss");
        assert_eq!(played.events, ["init_end"]);
    }
    // Else at the first evaluation, not at the first save.
    let played = play(vec![Box::new(Mean(None))]).run();
    refused(&played, "no metric \"f1\", only eval_loss, eval_mean");
    assert_eq!(played.state.global_step, 2);
}

#[test]
fn the_plateau_schedule_follows_the_metric() {
    let plateau = |metric, load_best| Play {
        scheduler: "reduce_lr_on_plateau",
        evaluation: (Schedule::Steps, 1.0),
        logging: (Schedule::Steps, 1.0),
        metric,
        best: Some("acc"),
        load_best,
        ..Play::default()
    };
    let rates = |played: &Played| -> Vec<f64> {
        played
            .logged("learning_rate")
            .into_iter()
            .map(|(_, rate)| rate)
            .collect()
    };
    let constant = rates(&plateau(&[0.5], false).run());
    // The twelfth evaluation divides the rate; the log of a step comes before its evaluation.
    let expected: Vec<f64> = (1..=24)
        .map(|step| if step <= 12 { 0.1 } else { 0.01 })
        .collect();
    let is_close = |found: &[f64]| {
        found
            .iter()
            .zip(&expected)
            .all(|(a, b)| (a - b).abs() < 1e-12)
    };
    assert!(
        constant.len() == 24 && is_close(&constant[..23]),
        "{constant:?}"
    );
    // It always minimises.
    const FALLING: &[f64] = &[
        24.0, 23.0, 22.0, 21.0, 20.0, 19.0, 18.0, 17.0, 16.0, 15.0, 14.0, 13.0, 12.0, 11.0, 10.0,
        9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0,
    ];
    assert_eq!(rates(&plateau(FALLING, false).run()), [0.1; 24]);
}
