//! Row 21 and `--on_nonfinite`: losses and gradients that are not finite.

use host::callback::Schedule;
use host::error::{Kind, kind_of};
use host::trainer::OnNonfinite;

use super::stage::{Play, Played};

/// One batch of each epoch has a row that breaks it.
fn broken(on_nonfinite: OnNonfinite, filter: bool) -> Play {
    Play {
        bad_rows: &[19],
        logging: (Schedule::Steps, 1.0),
        nan_inf_filter: filter,
        on_nonfinite,
        ..Play::default()
    }
}

fn num_not_finite(played: &Played) -> usize {
    let losses = played.logged("loss");
    losses.iter().filter(|(_, loss)| !loss.is_finite()).count()
}

#[test]
fn the_filter_is_about_the_log_only() {
    let filtered = broken(OnNonfinite::Warn, true).run();
    assert_eq!(num_not_finite(&filtered), 0);
    assert_eq!(filtered.logged("loss").len(), 24);
    let unfiltered = broken(OnNonfinite::Warn, false).run();
    // From the third step on everything is lost.
    assert_eq!(num_not_finite(&unfiltered), 22);
    for played in [&filtered, &unfiltered] {
        assert_eq!(played.nonfinite_steps, 22);
        assert!(played.parameters.iter().all(|value| value.is_nan()));
        assert_eq!(played.ok().global_step, 24);
    }
}

#[test]
fn a_step_can_be_left_out() {
    for (accumulation, steps) in [(1, 24), (2, 12)] {
        let played = Play {
            accumulation,
            ..broken(OnNonfinite::Skip, true)
        }
        .run();
        assert_eq!(
            (played.ok().global_step, played.nonfinite_steps),
            (steps, 3)
        );
        assert!(
            played
                .parameters
                .iter()
                .all(|value| value.is_finite() && *value > 0.1)
        );
        // The schedule waits too: three steps are not taken back.
        let rates = played.logged("learning_rate");
        let last = rates.last().expect("a rate").1;
        assert!((last - 0.1 * 3.0 / steps as f64).abs() < 1e-9, "{last}");
    }
}

#[test]
fn a_run_can_be_stopped() {
    let played = broken(OnNonfinite::Stop, true).run();
    let error = played.outcome.as_ref().expect_err("it stops");
    assert_eq!(kind_of(error), Kind::Numeric);
    assert!(format!("{error:#}").contains("step 3"), "{error:#}");
    assert_eq!((played.state.global_step, played.nonfinite_steps), (2, 1));
    assert!(played.parameters.iter().all(|value| value.is_finite()));
}

/// The loss of the first step is finite, its gradient is not: counted at the step where it happens, clipped or not.
#[test]
fn gradients_count_without_clipping_too() {
    for max_grad_norm in [Some(1.0), None] {
        let overflow = |on_nonfinite| Play {
            bad_rows: &[0, 1, 2, 3, 4, 5, 6, 7],
            bad_x: 3.4e38,
            max_grad_norm,
            max_steps: Some(1),
            ..broken(on_nonfinite, false)
        };
        let warned = overflow(OnNonfinite::Warn).run();
        assert_eq!(num_not_finite(&warned), 0);
        assert_eq!(warned.nonfinite_steps, 1, "clipping {max_grad_norm:?}");
        let skipped = overflow(OnNonfinite::Skip).run();
        assert_eq!(skipped.parameters, [0.0, 0.0]);
    }
}
