//! Autocast, evaluation in half precision, and losses that are scaled (spec 3.9; rows 65 and 66), on a forced scale.

use host::amp::{DynamicScaler, Precision};
use host::callback::Schedule;
use serde_json::Value;
use tch::Kind;

use super::stage::{Play, Played};

/// 2^127: the first losses overflow under it.
const TOO_LARGE: f32 = 1.701_411_834_604_692_3e38;

fn scaled(scale: f32, interval: u64) -> Play {
    Play {
        scaler: Some(Box::new(DynamicScaler::new(scale, interval))),
        logging: (Schedule::Steps, 1.0),
        saving: (Schedule::Steps, 8.0),
        ..Play::default()
    }
}

fn scale_at(played: &Played, step: u64) -> f64 {
    let path = played.checkpoint(step).join("scaler.json");
    let text = std::fs::read_to_string(path).expect("the scale is saved");
    let state: Value = serde_json::from_str(&text).expect("JSON");
    state["scale"].as_f64().expect("a scale")
}

/// Powers of two: scaling and unscaling change no bit.
#[test]
fn a_scale_that_fits_changes_nothing_and_grows() {
    let plain = Play {
        logging: (Schedule::Steps, 1.0),
        ..Play::default()
    }
    .run();
    let played = scaled(1024.0, 5).run();
    assert_eq!(played.parameters, plain.parameters);
    assert_eq!(played.logged("loss"), plain.logged("loss"));
    assert_eq!(scale_at(&played, 8), 2048.0);
    assert_eq!(scale_at(&played, 24), 1024.0 * 16.0);
}

#[test]
fn an_overflow_skips_optimizer_and_schedule_but_no_step() {
    let played = scaled(TOO_LARGE, 2000).run();
    let plain = Play::default().run();
    assert_eq!(played.ok().global_step, 24);
    assert_eq!(played.nonfinite_steps, 0, "the scale is to blame");
    let steps = |events: &[String]| {
        let is_step = |name: &&String| name.ends_with("step_begin") || name.ends_with("step_end");
        events.iter().filter(is_step).cloned().collect::<Vec<_>>()
    };
    assert_eq!(steps(&played.events), steps(&plain.events));
    let skipped = (f64::from(TOO_LARGE) / scale_at(&played, 24)).log2();
    assert!(
        (1.0..8.0).contains(&skipped) && skipped.fract() == 0.0,
        "{skipped}"
    );
    // The schedule waits: what is left of the rate is the steps that were skipped.
    let last = played.logged("learning_rate").last().expect("a rate").1;
    assert!((last - 0.1 * skipped / 24.0).abs() < 1e-9, "{last}");
    assert!(
        played
            .parameters
            .iter()
            .all(|value| value.is_finite() && *value > 0.1)
    );
    assert_ne!(played.parameters, plain.parameters);
}

#[test]
fn a_loss_that_is_not_finite_counts_under_a_scale_too() {
    let played = Play {
        bad_rows: &[19],
        ..scaled(1024.0, 2000)
    }
    .run();
    // In each of three epochs; the updates are left out, so nothing is lost.
    assert_eq!(played.nonfinite_steps, 3);
    assert_eq!(scale_at(&played, 24), 128.0);
    assert!(played.parameters.iter().all(|value| value.is_finite()));
}

#[test]
fn a_resumed_run_goes_on_with_its_scale() {
    let whole = scaled(TOO_LARGE, 3).run();
    let resumed = Play {
        resume: Some(whole.checkpoint(8)),
        // Another scale, which the checkpoint's replaces.
        ..scaled(2.0, 2000)
    }
    .run();
    assert_eq!(resumed.parameters, whole.parameters);
    assert_eq!(scale_at(&resumed, 24), scale_at(&whole, 24));
    assert_eq!(resumed.logged("loss"), whole.logged("loss"));
}

/// Row 65: half the memory, from the first evaluation outside training on; those in training leave the model alone.
#[test]
fn full_evaluation_casts_the_model_after_training() {
    let run = |precision| Play {
        evaluation: (Schedule::Steps, 4.0),
        evaluates_at_end: true,
        precision,
        ..Play::default()
    };
    let full = Precision {
        full_evaluation: Some(Kind::BFloat16),
        ..Precision::default()
    };
    let (plain, cast) = (run(Precision::default()).run(), run(full).run());
    assert_eq!((plain.kind, cast.kind), (Kind::Float, Kind::BFloat16));
    assert_eq!(
        cast.kind.elt_size_in_bytes() * 2,
        plain.kind.elt_size_in_bytes()
    );
    let rounded = |value: f64| {
        tch::Tensor::from(value)
            .to_kind(Kind::BFloat16)
            .double_value(&[])
    };
    assert_eq!(cast.parameters, plain.parameters.map(rounded));
    assert_eq!(
        cast.logged("eval_loss")[..6],
        plain.logged("eval_loss")[..6]
    );
    assert_ne!(cast.evaluated[0].1, plain.evaluated[0].1);
}
