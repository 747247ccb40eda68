//! Rows 25 to 29: every event of a run, in order.

use std::cell::RefCell;

use host::callback::{Context, Event, Schedule};
use host::trainer::OnNonfinite;

use super::stage::Play;

/// An independent account of the reference's loop over whole epochs, as the project's own tests of it have one.
struct Account {
    epochs: u64,
    batches: u64,
    accumulation: u64,
    /// 0: never.
    logging: u64,
    evaluation: u64,
    saving: u64,
    each_epoch: bool,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            epochs: 3,
            batches: 8,
            accumulation: 1,
            logging: 0,
            evaluation: 0,
            saving: 0,
            each_epoch: false,
        }
    }
}

impl Account {
    fn events(&self) -> Vec<String> {
        let due = |step: u64, every: u64| every > 0 && step.is_multiple_of(every);
        let mut events = vec!["init_end", "train_begin"];
        let evaluation = |events: &mut Vec<&str>| {
            events.extend(["prediction_step"; 8]);
            events.extend(["log", "evaluate"]);
        };
        let mut step = 0;
        for _ in 0..self.epochs {
            events.push("epoch_begin");
            for batch in 0..self.batches {
                if batch % self.accumulation == 0 {
                    events.push("step_begin");
                }
                if (batch + 1) % self.accumulation != 0 {
                    events.push("substep_end");
                    continue;
                }
                step += 1;
                events.push("step_end");
                if due(step, self.logging) {
                    events.push("log");
                }
                if due(step, self.evaluation) {
                    evaluation(&mut events);
                }
                if due(step, self.saving) {
                    events.push("save");
                }
            }
            events.push("epoch_end");
            if self.each_epoch {
                events.push("log");
                evaluation(&mut events);
                events.push("save");
            }
        }
        events.extend(["log", "train_end"]);
        events.into_iter().map(str::to_owned).collect()
    }
}

#[test]
fn rows_25_to_29() {
    let steps = |every| (Schedule::Steps, f64::from(every));
    let each_epoch = (Schedule::Epoch, 500.0);
    let cases = [
        ("plain", Play::default(), Account::default()),
        (
            "all by steps",
            Play {
                logging: steps(3),
                evaluation: steps(5),
                saving: steps(10),
                ..Play::default()
            },
            Account {
                logging: 3,
                evaluation: 5,
                saving: 10,
                ..Account::default()
            },
        ),
        (
            "all at the same step",
            Play {
                logging: steps(4),
                evaluation: steps(4),
                saving: steps(4),
                ..Play::default()
            },
            Account {
                logging: 4,
                evaluation: 4,
                saving: 4,
                ..Account::default()
            },
        ),
        (
            "all by epochs",
            Play {
                logging: each_epoch,
                evaluation: each_epoch,
                saving: each_epoch,
                ..Play::default()
            },
            Account {
                each_epoch: true,
                ..Account::default()
            },
        ),
        (
            "accumulation 2",
            Play {
                accumulation: 2,
                logging: steps(3),
                ..Play::default()
            },
            Account {
                accumulation: 2,
                logging: 3,
                ..Account::default()
            },
        ),
    ];
    for (what, play, account) in cases {
        assert_eq!(play.run().events, account.events(), "{what}");
    }
}

/// Begin and end of a step are unpaired where an epoch ends within a group.
#[test]
fn groups_across_the_end_of_an_epoch() {
    let played = Play {
        rows: 12,
        batch_size: 4,
        accumulation: 2,
        epochs: 2.0,
        ..Play::default()
    }
    .run();
    let expected = "init_end train_begin \
                    epoch_begin step_begin substep_end step_end step_begin substep_end epoch_end \
                    epoch_begin step_begin step_end epoch_end \
                    log train_end";
    assert_eq!(played.events.join(" "), expected);
}

#[test]
fn prediction_and_evaluation_outside_of_training() {
    let played = Play {
        max_steps: Some(1),
        evaluates_at_end: true,
        metric: &[0.25],
        ..Play::default()
    }
    .run();
    let tail = &played.events[played.events.len() - 11..];
    assert_eq!(tail[0], "train_end");
    assert_eq!(tail[9..], ["log", "evaluate"]);
    let names: Vec<&str> = played.evaluated.iter().map(|(name, _)| &**name).collect();
    let expected = [
        "eval_loss",
        "eval_acc",
        "eval_runtime",
        "eval_samples_per_second",
        "eval_steps_per_second",
        "epoch",
    ];
    assert_eq!(names, expected);
}

/// What the reference does not have stands where later versions of it have it: around the optimizer's step.
#[test]
fn the_optimizers_step_has_events_of_its_own() {
    let play = || Play {
        rows: 12,
        batch_size: 4,
        accumulation: 2,
        epochs: 1.0,
        own_events: true,
        ..Play::default()
    };
    let expected = "init_end train_begin epoch_begin step_begin substep_end \
                    pre_optimizer_step optimizer_step step_end epoch_end log train_end";
    assert_eq!(play().run().events.join(" "), expected);
    // An update that is left out has none of them.
    let left_out = Play {
        bad_rows: &[0],
        on_nonfinite: OnNonfinite::Skip,
        ..play()
    };
    let without = expected.replace("pre_optimizer_step optimizer_step ", "");
    assert_eq!(left_out.run().events.join(" "), without);
}

#[test]
fn a_run_that_goes_on_tells_so_before_it_begins() {
    let saved = Play {
        saving: (Schedule::Steps, 4.0),
        max_steps: Some(4),
        ..Play::default()
    }
    .run();
    let resumed = Play {
        resume: Some(saved.checkpoint(4)),
        max_steps: Some(5),
        own_events: true,
        wish: Some(|event, context| {
            if let Event::Resume(folder) = event {
                assert!(folder.ends_with("checkpoint-4"));
                assert_eq!(context.state.global_step, 4);
            }
        }),
        ..Play::default()
    }
    .run();
    assert_eq!(resumed.events[..3], ["init_end", "resume", "train_begin"]);
}

/// What an event shows of the model: number, sum of the values and of the gradients that there are.
type Shown = (&'static str, usize, f64, Vec<f64>);

thread_local! {
    static SHOWN: RefCell<Vec<Shown>> = const { RefCell::new(Vec::new()) };
}

fn note(event: Event<'_>, context: &mut Context<'_>) {
    let name = match event {
        Event::StepBegin => "begin",
        Event::SubstepEnd => "substep",
        Event::PreOptimizerStep => "before",
        Event::OptimizerStep => "after",
        Event::StepEnd => "end",
        _ => return,
    };
    let parameters: Vec<_> = context.parameters.iter().collect();
    let names: Vec<&str> = parameters.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["a", "b"]);
    let values = parameters
        .iter()
        .map(|(_, tensor)| tensor.double_value(&[]));
    let gradients = parameters.iter().map(|(_, tensor)| tensor.grad());
    let gradients = gradients.filter(tch::Tensor::defined);
    let gradients = gradients.map(|gradient| gradient.double_value(&[]));
    SHOWN.with_borrow_mut(|shown| {
        shown.push((name, parameters.len(), values.sum(), gradients.collect()));
    });
}

#[test]
fn parameters_and_their_gradients_are_seen_where_they_are() {
    SHOWN.take();
    Play {
        rows: 16,
        accumulation: 2,
        epochs: 1.0,
        max_grad_norm: Some(0.5),
        own_events: true,
        wish: Some(note),
        ..Play::default()
    }
    .run();
    let shown = SHOWN.take();
    let names: Vec<&str> = shown.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, ["begin", "substep", "before", "after", "end"]);
    let gradients: Vec<usize> = shown
        .iter()
        .map(|(.., gradients)| gradients.len())
        .collect();
    assert_eq!(gradients, [0, 2, 2, 2, 0]);
    // Clipped, and the same after the step, which changes the weights.
    let norm = shown[2]
        .3
        .iter()
        .map(|gradient| gradient.powi(2))
        .sum::<f64>()
        .sqrt();
    assert!((norm - 0.5).abs() < 1e-4, "{norm}");
    assert_eq!(shown[2].3, shown[3].3);
    assert_eq!((shown[0].2, shown[2].2), (0.0, 0.0));
    assert!(shown[3].2 != 0.0);
}
