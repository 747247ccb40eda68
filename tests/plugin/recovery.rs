//! After a trap: a fresh store within the budget of restarts, else the run ends; and state that survives.

use host::callback::{Control, Event};
use host::plugin::load;
use serde_json::json;

use super::{environment, event, guest, hostile, hostile_at, metric, pass, spec, told, with_batch};

#[test]
fn without_a_budget_the_first_trap_is_the_last_call() {
    let plugin = hostile("panic", &[]).expect("loads");
    let mut metric = metric(&plugin);
    pass(&mut *metric, 1).expect_err("stopped");
    let error = pass(&mut *metric, 1).expect_err("not started again");
    let text = "plugin `hostile`: was stopped 1 times; the limit `restarts` is 0 hint: raise it with --plugin_limit hostile.restarts=1";
    assert_eq!(told(&error), text);
}

#[test]
fn a_fresh_store_serves_the_next_pass_but_not_the_one_that_was_lost() {
    let plugin = hostile_at("panic", 2, &[("restarts", "1")]).expect("loads");
    let mut metric = metric(&plugin);
    metric.reset("").expect("a pass begins");
    with_batch(|batch| metric.update(batch)).expect("the first batch");
    with_batch(|batch| metric.update(batch)).expect_err("the second traps");
    let error = metric.compute().expect_err("half of a pass is no result");
    assert!(
        told(&error).contains("what it had seen of this pass was lost"),
        "{}",
        told(&error)
    );
    assert_eq!(
        pass(&mut *metric, 1).expect("the next pass")[0],
        ("updates".to_owned(), 1.0)
    );
    let usage = plugin.usage();
    assert_eq!((usage.traps, usage.restarts), (1, 1));
    pass(&mut *metric, 2).expect_err("traps again");
    let error = pass(&mut *metric, 1).expect_err("the budget is used up");
    assert!(
        told(&error).contains("the limit `restarts` is 1"),
        "{}",
        told(&error)
    );
}

#[test]
fn a_callback_goes_on_while_the_budget_lasts() {
    let plugin = hostile_at("panic", 2, &[("restarts", "2")]).expect("loads");
    let mut callback = plugin.callbacks().remove(0);
    let mut control = Control::default();
    let outcomes: Vec<bool> = (1..=6)
        .map(|step| event(&mut *callback, Event::StepEnd, step, &mut control).is_ok())
        .collect();
    // Calls 2, 4 and 6 trap; the third trap is beyond the budget.
    assert_eq!(outcomes, [true, true, true, true, true, false]);
    assert_eq!((plugin.usage().traps, plugin.usage().restarts), (3, 2));
}

#[test]
fn a_logits_processor_tries_a_batch_again_in_a_fresh_store() {
    let plugin = hostile_at("panic", 2, &[("restarts", "1")]).expect("loads");
    let mut processor = plugin.logits().remove(0);
    for _ in 0..2 {
        let outputs = with_batch(|batch| processor.preprocess(batch)).expect("outputs");
        assert_eq!(outputs[0].1.size(), [4, 2]);
    }
    assert_eq!((plugin.usage().traps, plugin.usage().restarts), (1, 1));
}

#[test]
fn state_goes_from_one_run_to_the_next() {
    let new = || {
        load(
            &spec(
                &guest("hostile"),
                &json!({"attack": "stop", "call": 3}),
                &[],
            ),
            &environment(),
        )
        .expect("loads")
    };
    let stops = |callback: &mut dyn host::callback::Callback| {
        let mut control = Control::default();
        event(callback, Event::StepEnd, 1, &mut control).expect("fine");
        control.should_training_stop()
    };
    let (first, second) = (new(), new());
    let mut callback = first.callbacks().remove(0);
    assert!(!stops(&mut *callback) && !stops(&mut *callback));
    let state = callback.state().expect("a state");
    assert_eq!(state["version"], "0.1.0");
    let mut resumed = second.callbacks().remove(0);
    resumed.load_state(&state).expect("restored");
    assert!(stops(&mut *resumed), "the third call, counted across runs");
    let error = resumed
        .load_state(&json!({"version": "0.0.1", "bytes": [1, 2]}))
        .expect_err("too short");
    assert!(
        told(&error).contains(
            "stateful.restore-state, call 2: a state of 2 bytes from version 0.0.1 (data)"
        ),
        "{}",
        told(&error)
    );
    let error = resumed
        .load_state(&json!("nonsense"))
        .expect_err("not a state");
    assert!(
        told(&error).contains("the state of plugin `hostile` in the checkpoint cannot be read"),
        "{}",
        told(&error)
    );
}
