//! What a guest sees and keeps: nothing of the machine, tensors for one call, wishes only when its call ends well.

use host::callback::{Change, Control, Event};
use host::plugin::{Environment, Plugin, load};
use serde_json::json;

use super::{environment, event, guest, hostile, metric, pass, spec, told, with_batch};

#[test]
fn wasi_gives_nothing_away() {
    let plugin = hostile("wasi", &[]).expect("loads");
    pass(&mut *metric(&plugin), 1).expect("nothing was found");
}

#[test]
fn a_tensor_ends_with_its_call_and_a_kept_one_does_not() {
    let plugin = hostile("use-held", &[]).expect("loads");
    let mut first = metric(&plugin);
    pass(&mut *first, 1).expect("held, not yet used");
    let error = pass(&mut *first, 1).expect_err("used after its call");
    let text = "metrics.update, call 2: the tensor belongs to an earlier call; `keep` makes one that outlives its call (stale)";
    assert!(told(&error).contains(text), "{}", told(&error));
    let plugin = hostile("use-kept", &[]).expect("loads");
    for _ in 0..3 {
        pass(&mut *metric(&plugin), 1).expect("kept");
    }
    assert!(plugin.usage().reads >= 2);
}

fn wishes(attack: &str) -> (Option<String>, bool, Vec<Change>) {
    let plugin = hostile(attack, &[]).expect("loads");
    let mut callback = plugin.callbacks().remove(0);
    let mut control = Control::default();
    let told = event(&mut *callback, Event::StepEnd, 7, &mut control)
        .err()
        .map(|error| told(&error));
    (told, control.should_training_stop(), control.take_changes())
}

#[test]
fn a_wish_is_recorded_with_who_made_it_when_and_why() {
    let (told, stops, changes) = wishes("stop");
    assert_eq!((told, stops), (None, true));
    let reason = "reached \\u{1b}[1mthe goal".to_owned();
    assert_eq!(
        changes,
        [Change {
            by: "hostile".to_owned(),
            wish: "stop_training",
            on: true,
            reason,
            step: 7
        }]
    );
    let (_, _, changes) = wishes("long-reason");
    assert!(
        changes[0].reason.len() < 1100 && changes[0].reason.ends_with("... (80000 bytes in all)"),
        "{}",
        changes[0].reason
    );
}

#[test]
fn a_call_that_fails_has_made_no_wish() {
    for attack in ["stop-then-trap", "stop-then-error"] {
        let (told, stops, changes) = wishes(attack);
        assert!(
            told.is_some_and(|text| text.contains("after asking to stop")),
            "{attack}"
        );
        assert!(!stops && changes.is_empty(), "{attack}");
    }
}

/// What the guest draws at a step.
fn draws(environment: &Environment, step: u64) -> Vec<(String, f64)> {
    let plugin = load(
        &spec(&guest("hostile"), &json!({"attack": "random"}), &[]),
        environment,
    )
    .expect("loads");
    let mut callback = plugin.callbacks().remove(0);
    event(
        &mut *callback,
        Event::StepEnd,
        step,
        &mut Control::default(),
    )
    .expect("draws");
    callback.take_emitted()
}

#[test]
fn random_numbers_follow_from_seed_rank_and_step() {
    let base = draws(&environment(), 3);
    assert_eq!(base.len(), 3);
    assert_eq!(base, draws(&environment(), 3));
    let seeded = Environment {
        seed: 43,
        ..environment()
    };
    let ranked = Environment {
        rank: 1,
        world_size: 2,
        ..environment()
    };
    for other in [
        draws(&environment(), 4),
        draws(&seeded, 3),
        draws(&ranked, 3),
    ] {
        assert_ne!(base[0], other[0]);
    }
}

#[test]
fn the_run_tells_what_it_is_and_no_more() {
    let environment = Environment {
        rank: 1,
        world_size: 2,
        ..environment()
    };
    let error = load(
        &spec(&guest("hostile"), &json!({"attack": "facts"}), &[]),
        &environment,
    )
    .expect_err("the facts");
    let text = "id test/hostile name hostile rank 1 of 2 main false seed Some(\"42\") none None has-metrics true has-magic false (config)";
    assert!(told(&error).ends_with(text), "{}", told(&error));
}

#[test]
fn a_plugin_is_called_only_at_the_steps_it_asked_for() {
    let plugin = load(
        &spec(
            &guest("hostile"),
            &json!({"attack": "stop", "every": 3}),
            &[],
        ),
        &environment(),
    )
    .expect("loads");
    let mut callback = plugin.callbacks().remove(0);
    for step in 1..=3 {
        let mut control = Control::default();
        event(&mut *callback, Event::StepEnd, step, &mut control).expect("fine");
        assert_eq!(control.should_training_stop(), step == 3, "{step}");
    }
}

#[test]
fn announced_metrics_and_usage_are_known() {
    let plugin: Plugin = hostile("none", &[]).expect("loads");
    let declared = plugin.declared_metrics();
    assert_eq!(
        (
            declared[0].name.as_str(),
            declared[0].unit.as_str(),
            declared[0].higher_is_better
        ),
        ("declared", "percent", Some(true))
    );
    pass(&mut *metric(&plugin), 5).expect("numbers");
    let usage = plugin.usage();
    assert_eq!(
        (
            usage.name.as_str(),
            usage.calls,
            usage.traps,
            usage.restarts
        ),
        ("hostile", 7, 0, 0)
    );
    assert!(
        usage.median <= usage.p99 && usage.p99 <= usage.total && usage.total.as_millis() < 1000,
        "{usage:?}"
    );
    assert!(
        (1 << 16..64 << 20).contains(&usage.peak_memory),
        "{usage:?}"
    );
}

#[test]
fn a_logits_processor_cannot_change_the_number_of_rows_or_hide_a_name() {
    for (attack, text) in [
        (
            "rows",
            "logits.preprocess, call 1: returned `logits` of shape [1, 2] for 4 examples",
        ),
        (
            "name",
            "logits.preprocess, call 1: the metric name `log\\u{7}its` has control characters",
        ),
        ("panic", "logits.preprocess, call 1: trap"),
    ] {
        let plugin = hostile(attack, &[]).expect("loads");
        let mut processor = plugin.logits().remove(0);
        let error = with_batch(|batch| processor.preprocess(batch)).expect_err(attack);
        assert!(told(&error).contains(text), "{}", told(&error));
    }
}

#[test]
fn a_whole_pass_is_gathered_and_padded() {
    use host::data::Batch;
    use host::metric::EvaluationBatch;
    use tch::{Kind, Tensor, kind::FLOAT_CPU};
    let plugin = hostile("none", &[]).expect("loads");
    let mut metric = plugin.metrics().remove(1);
    metric.reset("tokens").expect("a pass begins");
    for (rows, width) in [(2, 3), (1, 5)] {
        let outputs = [(
            "logits".to_owned(),
            Tensor::ones([rows, width, 2], FLOAT_CPU),
        )];
        let labels = [(
            "labels".to_owned(),
            Tensor::ones([rows, width], (Kind::Int64, tch::Device::Cpu)),
        )];
        let inputs = Batch::default();
        let batch = EvaluationBatch {
            outputs: &outputs,
            labels: &labels,
            inputs: &inputs,
            dataset: "tokens",
            size: rows as usize,
        };
        metric.update(&batch).expect("a batch");
    }
    let numbers = metric.compute().expect("numbers");
    let expected = [
        ("logits_shape", 30_502.0),
        ("labels_shape", 305.0),
        ("labels_sum", 11.0 - 400.0),
        ("size", 3.0),
    ];
    assert_eq!(
        numbers,
        expected.map(|(name, value)| (name.to_owned(), value))
    );
}
