//! Rows 8 to 12: how many steps a run has, and where in an epoch they end.

use host::callback::Event;

use super::stage::{Play, Played};

/// Steps and the epoch of the last one.
fn end(played: &Played) -> (u64, f64) {
    let epoch = played.state.epoch.expect("an epoch");
    (played.ok().global_step, (epoch * 1000.0).round() / 1000.0)
}

#[test]
fn epochs_and_steps() {
    // rows, batch, accumulation, epochs, max_steps -> steps, epoch
    let cases = [
        ((64, 8, 1, 3.0, None), (24, 3.0)),
        ((64, 8, 1, 1.5, None), (12, 1.5)),
        ((64, 8, 1, 3.0, Some(10)), (10, 1.25)),
        ((20, 4, 1, 1.5, None), (8, 1.6)),
        ((20, 4, 1, 0.3, None), (2, 0.4)),
        ((64, 16, 5, 3.0, Some(3)), (3, 2.0)),
        ((64, 16, 5, 3.0, None), (3, 2.0)),
        // The table of accumulation across the ends of epochs.
        ((20, 4, 2, 3.0, None), (6, 2.4)),
        ((20, 4, 2, 1.0, None), (2, 0.8)),
        ((20, 4, 3, 2.0, None), (2, 1.2)),
        ((20, 4, 2, 3.0, Some(7)), (7, 2.8)),
        ((8, 4, 4, 2.0, None), (2, 2.0)),
        ((12, 4, 4, 2.0, None), (2, 1.333)),
    ];
    for ((rows, batch_size, accumulation, epochs, max_steps), expected) in cases {
        let played = Play {
            rows,
            batch_size,
            accumulation,
            epochs,
            max_steps,
            ..Play::default()
        }
        .run();
        let what = format!("{rows} rows, batch {batch_size} x {accumulation}, {epochs} epochs");
        assert_eq!(end(&played), expected, "{what}, {max_steps:?} steps");
        assert_eq!(played.state.max_steps, expected.0, "{what}");
    }
}

#[test]
fn the_last_incomplete_batch() {
    for (drop_last, steps) in [(false, 5), (true, 4)] {
        let played = Play {
            rows: 18,
            batch_size: 4,
            epochs: 1.0,
            drop_last,
            ..Play::default()
        }
        .run();
        assert_eq!(end(&played), (steps, 1.0), "drop_last {drop_last}");
    }
}

thread_local! {
    static NORMS: std::cell::RefCell<Vec<f64>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// A second call goes on with the weights, but not with the gradients of a group that the first one left incomplete. With
/// a rate of 0 both calls see the same gradients.
#[test]
fn training_twice() {
    let played = Play {
        accumulation: 2,
        learning_rate: 0.0,
        times: 2,
        wish: Some(|event, context| match event {
            Event::StepEnd => {
                let norm = context.gradient_norm.expect("a norm");
                NORMS.with_borrow_mut(|norms| norms.push(norm));
            }
            Event::SubstepEnd if context.state.global_step == 1 => {
                context.control.stop_training("within a group");
            }
            _ => {}
        }),
        ..Play::default()
    }
    .run();
    assert_eq!(end(&played), (1, 0.25));
    let norms = NORMS.take();
    assert!(norms.len() == 2 && norms[0] == norms[1], "{norms:?}");
}
