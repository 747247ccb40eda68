//! Rows 30 to 32 and spec 3.1, 3.2: who sets a flag, who clears it, and what an event sees of it.

use host::callback::{Context, Event, Schedule};

use super::stage::{Play, Played, Wish};

const EVALUATION: &str = "eval_loss";

#[test]
fn evaluation_waits_for_its_delay() {
    let by_steps = Play {
        max_steps: Some(8),
        evaluation: (Schedule::Steps, 2.0),
        evaluation_delay: 3.0,
        ..Play::default()
    };
    assert_eq!(by_steps.run().steps_with(EVALUATION), [4, 6, 8]);
    let by_epochs = Play {
        epochs: 2.0,
        evaluation: (Schedule::Epoch, 500.0),
        evaluation_delay: 1.5,
        ..Play::default()
    };
    assert_eq!(by_epochs.run().steps_with(EVALUATION), [16]);
}

#[test]
fn a_callback_stops_saves_logs_and_evaluates() {
    let played = Play {
        wish: Some(|event, context| {
            if matches!(event, Event::StepEnd) && context.state.global_step == 5 {
                context.control.stop_training("enough");
                context.control.set_save(true);
                context.control.set_log(true);
                context.control.set_evaluate(true);
            }
        }),
        ..Play::default()
    }
    .run();
    assert_eq!(played.ok().global_step, 5);
    assert_eq!(played.steps_with("loss"), [5]);
    assert_eq!(played.steps_with(EVALUATION), [5]);
    assert_eq!(played.checkpoints(), [5]);
    // The end of the epoch has nothing left to do.
    assert_eq!(
        played.events[played.events.len() - 3..],
        ["epoch_end", "log", "train_end"]
    );
    let wishes: Vec<_> = played
        .changes
        .iter()
        .map(|change| (change.by.as_str(), change.wish, change.on, change.step))
        .collect();
    let expected = ["stop_training", "save", "log", "evaluate"];
    assert_eq!(wishes, expected.map(|wish| ("recorder", wish, true, 5)));
    assert_eq!(played.changes[0].reason, "enough");
}

#[test]
fn a_callback_ends_every_epoch_after_three_steps() {
    let played = Play {
        wish: Some(every_third_step_ends_the_epoch),
        ..Play::default()
    }
    .run();
    assert_eq!(played.ok().global_step, 9);
    assert_eq!(played.state.epoch, Some(2.375));
}

fn every_third_step_ends_the_epoch(event: Event<'_>, context: &mut Context<'_>) {
    if matches!(event, Event::StepEnd) && context.state.global_step.is_multiple_of(3) {
        context.control.stop_epoch("three are enough");
    }
}

/// Runs one epoch of four groups of two; `wish` sets flags.
fn groups_of_two(wish: Wish) -> Played {
    Play {
        accumulation: 2,
        epochs: 1.0,
        wish: Some(wish),
        ..Play::default()
    }
    .run()
}

#[test]
fn where_a_flag_is_set_decides_whether_it_is_honoured() {
    // A flag that is set, and the steps at which it has an effect.
    let cases: [(&str, Wish, &[u64]); 7] = [
        (
            "at the end of a step",
            |event, context| {
                context.control.set_log(matches!(event, Event::StepEnd));
            },
            &[1, 2, 3, 4],
        ),
        (
            "within a group",
            |event, context| {
                if matches!(event, Event::SubstepEnd) {
                    context.control.set_log(true);
                }
            },
            &[1, 2, 3, 4],
        ),
        (
            "and cleared by the next step's begin",
            |event, context| {
                if matches!(event, Event::EpochBegin) {
                    context.control.set_log(true);
                }
            },
            &[],
        ),
        (
            "at the begin of a step",
            |event, context| {
                if matches!(event, Event::StepBegin) && context.state.global_step == 2 {
                    context.control.set_log(true);
                }
            },
            &[3],
        ),
        (
            "taken back at the end of the step",
            |event, context| match event {
                Event::StepBegin => context.control.set_log(true),
                Event::StepEnd => context.control.set_log(context.state.global_step == 2),
                _ => {}
            },
            &[2],
        ),
        (
            "at the end of the epoch, where the step has logged",
            |event, context| {
                if matches!(event, Event::StepEnd | Event::EpochEnd) {
                    context.control.set_log(context.state.global_step == 4);
                }
            },
            &[4],
        ),
        (
            "in a log",
            |event, context| match event {
                Event::StepEnd => context.control.set_log(context.state.global_step == 1),
                Event::Log(_) => context.control.set_log(true),
                _ => {}
            },
            &[1],
        ),
    ];
    for (what, wish, expected) in cases {
        assert_eq!(groups_of_two(wish).steps_with("loss"), expected, "{what}");
    }
}

#[test]
fn an_event_clears_its_flag_before_its_callbacks_are_called() {
    // Each of these would end the run with a panic of the callback.
    groups_of_two(|event, context| {
        let control = &mut *context.control;
        match event {
            Event::StepEnd => {
                control.set_log(true);
                control.set_evaluate(true);
                control.set_save(true);
            }
            Event::Log(values) => {
                let is_last = values.iter().any(|(name, _)| name == "train_loss");
                assert!(!control.should_log());
                assert_eq!(control.should_evaluate() && control.should_save(), !is_last);
            }
            Event::Evaluate(_) => assert!(!control.should_evaluate() && control.should_save()),
            Event::Save(folder) => {
                assert!(!control.should_save() && folder.join("manifest.json").exists());
            }
            Event::StepBegin => {
                assert!(
                    !(control.should_log() || control.should_evaluate() || control.should_save())
                );
            }
            _ => {}
        }
    });
}

/// The reference clears the flag before training begins, so a wish at its begin holds after the first batch.
#[test]
fn stopping_at_the_begin_stops_after_one_batch() {
    let played = Play {
        wish: Some(|event, context| {
            if matches!(event, Event::InitEnd | Event::TrainBegin) {
                context.control.stop_training("at once");
            }
        }),
        ..Play::default()
    }
    .run();
    assert_eq!(played.ok().global_step, 1);
}

/// Only what callbacks did during training is told: not the loop's own stop, not wishes of the evaluation afterwards.
#[test]
fn the_audit_names_nobody_who_did_not_ask() {
    let played = Play {
        epochs: 1.0,
        metric: &[0.5],
        best: Some("acc"),
        patience: Some((1, 0.0)),
        evaluation: (Schedule::Steps, 8.0),
        saving: (Schedule::Steps, 8.0),
        evaluates_at_end: true,
        ..Play::default()
    }
    .run();
    assert_eq!(played.changes, []);
    let resumed = Play {
        epochs: 1.0,
        resume: Some(played.checkpoint(8)),
        ..Play::default()
    }
    .run();
    assert_eq!(resumed.ok().global_step, 8);
    assert_eq!(resumed.changes, []);
}
