//! Rows 43 to 49: a run that goes on from a checkpoint ends as the run that was not stopped, whatever was going on.

use host::callback::{Event, Schedule};
use host::trainer::End;
use serde_json::{Map, Value};

use super::stage::{Mean, Play, Played};

/// The log history without times and without what is counted per call.
fn history(played: &Played) -> Vec<Map<String, Value>> {
    let is_kept = |name: &str| {
        !name.ends_with("_runtime") && !name.ends_with("_per_second") && name != "train_loss"
    };
    let entries = played.state.log_history.iter();
    entries
        .map(|entry| {
            entry
                .clone()
                .into_iter()
                .filter(|(name, _)| is_kept(name))
                .collect()
        })
        .collect()
}

/// What must be equal at the end; folders differ.
fn end(played: &Played) -> impl PartialEq + std::fmt::Debug {
    let best = played.state.best_model_checkpoint.as_ref();
    let best = best.and_then(|folder| folder.rsplit_once('/').map(|(_, name)| name.to_owned()));
    (
        played.parameters.map(f64::to_bits),
        (
            played.ok().global_step,
            played.state.epoch,
            played.nonfinite_steps,
        ),
        (played.state.best_metric, best),
        history(played),
    )
}

/// Runs as a whole, then from each of the steps with the values of the metric that are left then.
fn check(what: &str, play: &dyn Fn() -> Play, steps: &[(u64, &'static [f64])]) {
    let whole = play().run();
    for &(step, metric) in steps {
        let resumed = Play {
            metric: if metric.is_empty() {
                play().metric
            } else {
                metric
            },
            resume: Some(whole.checkpoint(step)),
            ..play()
        }
        .run();
        assert_eq!(end(&resumed), end(&whole), "{what}, from step {step}");
    }
}

/// A signal at every event of a run: whatever it was doing, the run that goes on ends as the one that was not stopped.
fn check_signals(what: &str, play: &dyn Fn() -> Play) {
    let whole = play().run();
    let mut stopped_inside_evaluations = 0;
    for at in 0..whole.events.len() {
        let stopped = Play {
            signal_at: Some(at),
            ..play()
        }
        .run();
        let End::Interrupted(folder) = &stopped.ok().end else {
            // All steps were done when the signal came.
            assert_eq!(end(&stopped), end(&whole), "{what}, event {at}");
            continue;
        };
        let progress = std::fs::read_to_string(folder.join("progress.json")).expect("a position");
        stopped_inside_evaluations += u32::from(progress.contains("\"evaluation_owed\": true"));
        let resumed = Play {
            resume: Some(folder.clone()),
            ..play()
        }
        .run();
        assert_eq!(end(&resumed), end(&whole), "{what}, event {at}");
        // Twice at the same place.
        let again = Play {
            resume: Some(folder.clone()),
            signal_at: Some(2),
            ..play()
        }
        .run();
        let End::Interrupted(folder) = &again.ok().end else {
            continue;
        };
        let resumed = Play {
            resume: Some(folder.clone()),
            ..play()
        }
        .run();
        assert_eq!(end(&resumed), end(&whole), "{what}, event {at}, twice");
    }
    assert!(
        stopped_inside_evaluations > 4,
        "{what}: too few of interest"
    );
}

#[test]
fn a_signal_at_any_event() {
    let play = || Play {
        rows: 44,
        accumulation: 2,
        shuffled: true,
        logging: (Schedule::Steps, 2.0),
        evaluation: (Schedule::Steps, 2.0),
        saving: (Schedule::Steps, 4.0),
        metrics: vec![Box::new(Mean(None))],
        best: Some("mean"),
        patience: Some((20, 0.0)),
        ..Play::default()
    };
    check_signals("by steps", &play);
    let play = || Play {
        evaluation: (Schedule::Epoch, 500.0),
        saving: (Schedule::Epoch, 500.0),
        ..play()
    };
    check_signals("by epochs", &play);
}

#[test]
fn plain_with_accumulation_and_logs_by_epoch() {
    let play = || Play {
        rows: 44,
        accumulation: 2,
        shuffled: true,
        logging: (Schedule::Epoch, 500.0),
        saving: (Schedule::Steps, 1.0),
        ..Play::default()
    };
    check(
        "accumulation 2",
        &play,
        &[(1, &[]), (3, &[]), (4, &[]), (6, &[]), (9, &[])],
    );
}

/// JSON has no numbers for what a diverged run sums up.
#[test]
fn a_run_that_has_diverged() {
    let play = || Play {
        bad_rows: &[19],
        nan_inf_filter: false,
        logging: (Schedule::Steps, 4.0),
        saving: (Schedule::Steps, 1.0),
        ..Play::default()
    };
    check("diverged", &play, &[(2, &[]), (3, &[]), (6, &[]), (8, &[])]);
    let infinite = || Play {
        bad_x: f64::INFINITY,
        ..play()
    };
    check("infinite", &infinite, &[(3, &[]), (6, &[])]);
}

#[test]
fn with_early_stopping_and_the_best_model() {
    const METRIC: &[f64] = &[0.5, 0.6, 0.55, 0.58, 0.7];
    let play = || Play {
        batch_size: 16,
        epochs: 10.0,
        shuffled: true,
        evaluation: (Schedule::Epoch, 500.0),
        saving: (Schedule::Epoch, 500.0),
        metric: METRIC,
        best: Some("acc"),
        load_best: true,
        patience: Some((2, 0.0)),
        ..Play::default()
    };
    // From 12 the counter stands at 1: one more evaluation stops. From 16 the run had come to its end.
    check(
        "patience 2",
        &play,
        &[
            (4, &METRIC[1..]),
            (8, &METRIC[2..]),
            (12, &METRIC[3..]),
            (16, &METRIC[4..]),
        ],
    );
}

#[test]
fn a_stop_inside_an_epoch_still_owes_the_end_of_the_epoch() {
    let play = || Play {
        shuffled: true,
        evaluation: (Schedule::Epoch, 500.0),
        logging: (Schedule::Steps, 2.0),
        saving: (Schedule::Steps, 1.0),
        wish: Some(|event, context| {
            if matches!(event, Event::StepEnd) && context.state.global_step == 11 {
                context.control.stop_training("enough");
            }
        }),
        ..Play::default()
    };
    assert_eq!(play().run().steps_with("eval_loss"), [8, 11]);
    // The evaluations at 8 and 11 are at the ends of epochs, after the checkpoints of these steps.
    check(
        "stopped at 11",
        &play,
        &[(4, &[]), (8, &[]), (10, &[]), (11, &[])],
    );
}

#[test]
fn epochs_that_a_callback_ends() {
    for saving in [
        (Schedule::Epoch, 500.0),
        (Schedule::Steps, 3.0),
        (Schedule::Steps, 2.0),
    ] {
        let play = || Play {
            shuffled: true,
            logging: (Schedule::Steps, 2.0),
            saving,
            wish: Some(|event, context| {
                if matches!(event, Event::StepEnd) && context.state.global_step % 3 == 0 {
                    context.control.stop_epoch("three are enough");
                }
            }),
            ..Play::default()
        };
        let steps: Vec<(u64, &'static [f64])> = play()
            .run()
            .checkpoints()
            .into_iter()
            .map(|step| (step, &[][..]))
            .collect();
        check(
            &format!("three steps an epoch, {saving:?}"),
            &play,
            &steps[..steps.len() - 1],
        );
    }
}

#[test]
fn with_a_limit_the_same_checkpoints_are_left() {
    let play = || Play {
        saving: (Schedule::Steps, 5.0),
        total_limit: Some(2),
        ..Play::default()
    };
    let whole = play().run();
    assert_eq!(whole.checkpoints(), [15, 20]);
    check("limit 2", &play, &[(15, &[])]);
}

#[test]
fn with_steps_that_are_not_finite() {
    let play = || Play {
        bad_rows: &[19],
        on_nonfinite: host::trainer::OnNonfinite::Skip,
        logging: (Schedule::Steps, 4.0),
        saving: (Schedule::Steps, 1.0),
        ..Play::default()
    };
    check("skip", &play, &[(2, &[]), (3, &[]), (12, &[])]);
}

/// The first interval is logged whole; `train_loss` is the mean over the steps of the call.
#[test]
fn the_train_loss_after_resuming_inside_a_logging_interval() {
    let play = |every: f64| Play {
        logging: (Schedule::Steps, every),
        saving: (Schedule::Steps, 6.0),
        epochs: 1.0,
        ..Play::default()
    };
    let losses = play(1.0).run().logged("loss");
    let whole = play(4.0).run();
    let resumed = Play {
        resume: Some(whole.checkpoint(6)),
        ..play(4.0)
    }
    .run();
    assert_eq!(resumed.logged("loss"), whole.logged("loss"));
    let expected = (losses[6].1 + losses[7].1) / 2.0;
    let found = resumed.logged("train_loss")[0].1;
    assert!((found - expected).abs() < 1e-3, "{found} {expected}");
}

#[test]
fn a_finished_run_gains_one_entry() {
    for saving in [(Schedule::Steps, 8.0), (Schedule::Epoch, 500.0)] {
        let play = || Play {
            logging: (Schedule::Steps, 8.0),
            saving,
            ..Play::default()
        };
        let whole = play().run();
        let resumed = Play {
            resume: Some(whole.checkpoint(24)),
            ..play()
        }
        .run();
        assert_eq!(resumed.logged("train_loss"), [(24, 0.0)]);
        assert_eq!(
            resumed.state.log_history.len(),
            whole.state.log_history.len()
        );
        assert_eq!(resumed.parameters, whole.parameters);
        assert!(!resumed.events.iter().any(|event| event == "step_begin"));
    }
}

#[test]
fn more_epochs_go_on_where_the_run_ended() {
    let play = |epochs: f64| Play {
        epochs,
        scheduler: "constant",
        shuffled: true,
        saving: (Schedule::Epoch, 500.0),
        ..Play::default()
    };
    let (short, long) = (play(2.0).run(), play(3.0).run());
    let resumed = Play {
        resume: Some(short.checkpoint(16)),
        ..play(3.0)
    }
    .run();
    assert_eq!(resumed.parameters, long.parameters);
    assert_eq!(resumed.state.max_steps, 24);
}

#[test]
fn new_intervals_and_a_new_rate_win() {
    for scheduler in ["linear", "reduce_lr_on_plateau"] {
        let first = Play {
            scheduler,
            logging: (Schedule::Steps, 4.0),
            saving: (Schedule::Steps, 4.0),
            ..Play::default()
        }
        .run();
        let resumed = Play {
            learning_rate: 0.2,
            scheduler,
            logging: (Schedule::Steps, 3.0),
            saving: (Schedule::Steps, 10.0),
            resume: Some(first.checkpoint(4)),
            ..Play::default()
        }
        .run();
        let logged = resumed.steps_with("loss");
        assert_eq!(logged, [4, 6, 9, 12, 15, 18, 21, 24], "{scheduler}");
        assert_eq!(resumed.checkpoints(), [10, 20], "{scheduler}");
        let (step, rate) = resumed.logged("learning_rate")[1];
        let expected = match scheduler {
            "linear" => 0.2 * (24 - step) as f64 / 24.0,
            _ => 0.2,
        };
        assert!((rate - expected).abs() < 1e-12, "{scheduler}: {rate}");
    }
}

#[test]
fn another_accumulation_begins_a_new_group() {
    let first = Play {
        accumulation: 2,
        saving: (Schedule::Epoch, 500.0),
        rows: 40,
        ..Play::default()
    }
    .run();
    // Five batches: two groups of two, and one batch whose gradients wait.
    let resumed = Play {
        accumulation: 3,
        rows: 40,
        max_steps: Some(3),
        resume: Some(first.checkpoint(2)),
        ..Play::default()
    }
    .run();
    let tail: Vec<&str> = resumed
        .events
        .iter()
        .skip(3)
        .take(4)
        .map(String::as_str)
        .collect();
    assert_eq!(
        tail,
        ["step_begin", "substep_end", "substep_end", "step_end"]
    );
}

/// As in the reference: a folder with nothing but weights is a start, not a resumption.
#[test]
fn weights_alone_begin_a_new_run() {
    let first = Play {
        saving: (Schedule::Steps, 8.0),
        ..Play::default()
    }
    .run();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy(
        first.checkpoint(8).join("model.safetensors"),
        folder.path().join("model.safetensors"),
    )
    .expect("weights");
    let resumed = Play {
        learning_rate: 0.0,
        resume: Some(folder.path().to_owned()),
        ..Play::default()
    }
    .run();
    assert_eq!(resumed.ok().global_step, 24);
    let (a, b) = crate::fidelity::parameters(&first.checkpoint(8));
    assert_eq!(resumed.parameters, [a, b]);
}

/// Callbacks have their state back before the first event, metrics their place in the log.
#[test]
fn the_state_of_callbacks_comes_back() {
    let play = || Play {
        logging: (Schedule::Steps, 3.0),
        saving: (Schedule::Steps, 4.0),
        metrics: vec![Box::new(Mean(None))],
        ..Play::default()
    };
    let whole = play().run();
    let calls: Vec<f64> = whole
        .logged("calls")
        .into_iter()
        .map(|(_, calls)| calls)
        .collect();
    assert_eq!(calls, [3.0, 6.0, 9.0, 12.0, 15.0, 18.0, 21.0, 24.0]);
    check(
        "a callback that counts",
        &play,
        &[(4, &[]), (12, &[]), (20, &[])],
    );
}
