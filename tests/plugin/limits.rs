//! Hostile guests: each is stopped by its limit, the error names plugin, hook, call, limit, value and remedy, and the
//! program lives on.

use std::time::{Duration, Instant};

use host::callback::{Control, Event};
use host::error::{Kind, kind_of};
use host::plugin::{Spec, load};

use super::{environment, event, guest, hostile, hostile_at, metric, pass, told, with_batch};

/// An attack while a batch is measured, and what is told.
fn in_update(attack: &str, limits: &[(&str, &str)]) -> String {
    let plugin = hostile(attack, limits).expect("loads");
    let mut metric = metric(&plugin);
    metric.reset("").expect("a pass begins");
    let error = with_batch(|batch| metric.update(batch)).expect_err(attack);
    assert_eq!(kind_of(&error), Kind::Plugin, "{attack}");
    told(&error)
}

#[test]
fn attacks_on_time_memory_and_stack_are_stopped_by_their_limit() {
    for (attack, limits, text) in [
        (
            "loop",
            &[("time", "200ms")][..],
            "plugin `hostile`: metrics.update, call 1: over the limit `time` of 200ms (needs more time)",
        ),
        (
            "memory",
            &[("memory", "64MiB")],
            "plugin `hostile`: metrics.update, call 1: over the limit `memory` of 64 MiB (needs ",
        ),
        (
            "recursion",
            &[],
            "plugin `hostile`: metrics.update, call 1: the guest's stack is used up",
        ),
        (
            "panic",
            &[],
            "plugin `hostile`: metrics.update, call 1: trap: the guest panicked or aborted; it wrote: ",
        ),
        (
            "exit",
            &[],
            "plugin `hostile`: metrics.update, call 1: the plugin ended itself with exit status ",
        ),
    ] {
        let told = in_update(attack, limits);
        assert!(told.contains(text), "{told}");
    }
}

#[test]
fn a_limit_is_told_with_the_setting_that_raises_it() {
    for (attack, limits, hint) in [
        (
            "loop",
            &[("time", "100ms")][..],
            "hint: raise it with --plugin_limit hostile.time=200ms",
        ),
        (
            "memory",
            &[("memory", "32MiB")],
            "hint: raise it with --plugin_limit hostile.memory=64MiB",
        ),
        (
            "tensors",
            &[],
            "hint: raise it with --plugin_limit hostile.tensors=4GiB",
        ),
        (
            "broadcast",
            &[],
            "hint: raise it with --plugin_limit hostile.tensors=64GiB",
        ),
        (
            "reads",
            &[],
            "hint: raise it with --plugin_limit hostile.reads=32MiB",
        ),
        (
            "handles",
            &[],
            "hint: raise it with --plugin_limit hostile.handles=2048",
        ),
        (
            "handles-unwrap",
            &[],
            "hint: raise it with --plugin_limit hostile.handles=2048",
        ),
        (
            "huge-send",
            &[],
            "hint: raise it with --plugin_limit hostile.transfer=32MiB",
        ),
    ] {
        let told = in_update(attack, limits);
        assert!(told.ends_with(hint), "{told}");
    }
}

#[test]
fn a_panic_is_told_with_its_words_and_its_place() {
    let told = in_update("panic", &[]);
    assert!(told.contains("the sky is \\u{1b}[31mfalling"), "{told}");
    assert!(
        told.contains("; in ") && told.contains("hostile::attacks::compute"),
        "{told}"
    );
    assert!(!told.contains('\u{1b}'), "{told}");
}

#[test]
fn an_error_of_the_guest_is_told_as_it_is() {
    let told = in_update("error", &[]);
    assert_eq!(
        told,
        "plugin `hostile`: metrics.update, call 1: cannot \\u{7}read | this (data)"
    );
}

#[test]
fn a_flood_on_standard_output_is_cut_and_counted() {
    let told = in_update("print-flood", &[]);
    assert!(
        told.contains("bytes left out) ...") && told.contains("after the flood"),
        "{told}"
    );
    assert!(told.len() < 8_000, "{}", told.len());
}

#[test]
fn a_log_flood_is_cut_and_counted() {
    let plugin = hostile("log-flood", &[("log_lines", "10")]).expect("loads");
    pass(&mut *metric(&plugin), 1).expect("goes on");
    assert_eq!(plugin.usage().dropped_lines, 100_000 - 10);
}

#[test]
fn the_call_at_which_it_happened_is_told() {
    for call in [1, 2, 7] {
        let plugin = hostile_at("panic", call, &[]).expect("loads");
        let error = pass(&mut *metric(&plugin), 10).expect_err("stopped");
        assert!(
            told(&error).contains(&format!("metrics.update, call {call}: trap")),
            "{}",
            told(&error)
        );
    }
}

#[test]
fn a_result_that_is_too_large_or_cannot_be_shown_is_refused() {
    for (attack, text) in [
        ("million-names", "metrics.compute, call 1: over the limit `"),
        (
            "too-many-names",
            "metrics.compute, call 1: over the limit `metrics` of 1000 (needs 1001) hint: raise it with --plugin_limit hostile.metrics=2000",
        ),
        (
            "huge-list",
            "metrics.compute, call 1: over the limit `transfer` of 16 MiB",
        ),
        (
            "newline-name",
            "metrics.compute, call 1: the metric name `loss | accuracy 1.0` has control characters",
        ),
        (
            "escape-name",
            "the metric name `\\u{1b}[2Jaccuracy` has control characters",
        ),
        (
            "direction-name",
            "the metric name `acc\\u{202e}ycaru` has control characters",
        ),
        (
            "nul-name",
            "the metric name `acc\\u{0}uracy` has control characters",
        ),
        ("long-name", "is longer than 128 bytes"),
        ("empty-name", "a metric has an empty name"),
        ("same-name", "returned the metric `a` twice"),
        (
            "panic-compute",
            "metrics.compute, call 1: trap: the guest panicked",
        ),
    ] {
        let plugin = hostile(attack, &[]).expect("loads");
        let error = pass(&mut *metric(&plugin), 1).expect_err(attack);
        assert!(told(&error).contains(text), "{attack}: {}", told(&error));
        assert_eq!(kind_of(&error), Kind::Plugin);
    }
}

#[test]
fn numbers_that_are_not_finite_are_handed_on_as_they_are() {
    let plugin = hostile("nan", &[]).expect("loads");
    let numbers = pass(&mut *metric(&plugin), 1).expect("numbers");
    assert!(numbers[0].1.is_nan());
    assert_eq!((numbers[1].1, numbers[2].1), (f64::NEG_INFINITY, 5e-324));
    let plugin = hostile("path-name", &[]).expect("loads");
    assert_eq!(
        pass(&mut *metric(&plugin), 1).expect("a name is no path")[0].0,
        "../../etc/passwd"
    );
}

#[test]
fn attacks_before_the_first_hook_are_stopped_too() {
    for (attack, limits, text) in [
        (
            "loop-init",
            &[("init_time", "200ms")][..],
            "lifecycle.init, call 1: over the limit `init_time` of 200ms",
        ),
        (
            "memory-init",
            &[("memory", "64MiB")],
            "lifecycle.init, call 1: over the limit `memory` of 64 MiB",
        ),
        ("panic-init", &[], "lifecycle.init, call 1: trap"),
        ("error-init", &[], "lifecycle.init, call 1: cannot"),
    ] {
        let error = hostile(attack, limits).expect_err(attack);
        assert!(told(&error).contains(text), "{}", told(&error));
    }
}

#[test]
fn a_constructor_that_never_ends_and_a_memory_that_is_too_large_at_the_start() {
    let mut spec = Spec::new(&guest("start_loop"));
    spec.limits.set("init_time", "200ms").expect("a limit");
    let error = load(&spec, &environment()).expect_err("stopped");
    assert!(
        told(&error).contains("over the limit `init_time` of 200ms"),
        "{}",
        told(&error)
    );
    let error = load(&Spec::new(&guest("big_memory")), &environment()).expect_err("stopped");
    let text = "plugin `big_memory`: instantiation, call 1: over the limit `memory` of 256 MiB (needs 4.0 GiB)";
    assert!(told(&error).contains(text), "{}", told(&error));
}

#[test]
fn a_destructor_that_never_ends_is_stopped() {
    let plugin = hostile("loop-drop", &[("time", "200ms")]).expect("loads");
    let mut metric = metric(&plugin);
    metric.reset("first").expect("a pass begins");
    let error = metric.reset("second").expect_err("stopped");
    assert!(
        told(&error).contains("metrics.drop, call 1: over the limit `time` of 200ms"),
        "{}",
        told(&error)
    );
}

#[test]
fn a_loop_in_a_callback_is_stopped_in_time() {
    let plugin = hostile("loop", &[("step_time", "100ms")]).expect("loads");
    let mut callback = plugin.callbacks().remove(0);
    let begin = Instant::now();
    let error =
        event(&mut *callback, Event::StepEnd, 5, &mut Control::default()).expect_err("stopped");
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "{:?}",
        begin.elapsed()
    );
    assert!(
        told(&error)
            .contains("step-hooks.on-step-end, call 1: over the limit `step_time` of 100ms"),
        "{}",
        told(&error)
    );
}

#[test]
fn sleeping_takes_no_time_and_handles_that_are_dropped_are_free_again() {
    for attack in ["sleep", "handle-churn"] {
        let plugin = hostile(attack, &[]).expect("loads");
        pass(&mut *metric(&plugin), 1).expect(attack);
    }
}

#[test]
fn bincount_does_not_make_room_for_what_it_is_not_asked_for() {
    let told = in_update("bincount", &[]);
    assert!(
        told.contains(
            "bincount of elements from 1099511627776 to 1099511627776 with 10 classes (data)"
        ),
        "{told}"
    );
}

#[test]
fn emitted_values_and_states_have_limits() {
    let plugin = hostile("emit-flood", &[]).expect("loads");
    let mut callback = plugin.callbacks().remove(0);
    let error =
        event(&mut *callback, Event::StepEnd, 1, &mut Control::default()).expect_err("refused");
    assert!(
        told(&error).contains("more than 1000 names emitted between two log entries"),
        "{}",
        told(&error)
    );
    let plugin = hostile("emit-bad", &[]).expect("loads");
    let mut callback = plugin.callbacks().remove(0);
    let error =
        event(&mut *callback, Event::StepEnd, 1, &mut Control::default()).expect_err("refused");
    assert!(
        told(&error).contains("the metric name `bad | name` has control characters"),
        "{}",
        told(&error)
    );
    for (attack, text) in [
        (
            "huge-state",
            "stateful.save-state, call 1: over the limit `state` of 1 MiB (needs 2 MiB)",
        ),
        ("trap-state", "stateful.save-state, call 1: trap"),
    ] {
        let plugin = hostile(attack, &[]).expect("loads");
        let mut callback = plugin.callbacks().remove(0);
        assert!(callback.state().is_none());
        let error = event(&mut *callback, Event::StepEnd, 1, &mut Control::default())
            .expect_err("told at the next event");
        assert!(told(&error).contains(text), "{}", told(&error));
    }
}
