//! Collators and losses with bad habits: each is stopped or refused with what it did, and the next batch is made as if
//! nothing had been.

use std::time::{Duration, Instant};

use anyhow::Result;
use host::data::{Batch, Collator, Example, Place, Tokenizer, Value};
use host::loss::Loss;
use host::model::Outputs;
use host::plugin::{Grants, Plugin, load};
use host::torch::Generator;
use serde_json::json;
use tch::{Device, Kind, Tensor};

use super::{environment, guest, spec, told, with_manifest};
use crate::support::fixture;

fn hostile_at(attack: &str, call: u64, limits: &[(&str, &str)]) -> Plugin {
    let config = json!({"attack": attack, "call": call});
    let mut spec = spec(&guest("hostile_batches"), &config, limits);
    spec.name = "hostile".to_owned();
    spec.grants = Grants::parse(&["loss"]).expect("a capability");
    load(&spec, &environment()).expect("loads")
}

fn hostile(attack: &str, limits: &[(&str, &str)]) -> Plugin {
    hostile_at(attack, 1, limits)
}

fn collator(plugin: &Plugin) -> Box<dyn Collator> {
    plugin.collators().expect("a collator")(true)
}

fn rows() -> Vec<Example> {
    let row = |row: i64| Example {
        columns: vec![
            ("x".into(), Value::Int(row)),
            ("ids".into(), Value::Ints((1..row + 3).collect())),
            (
                "text".into(),
                Value::Text(["the soup was cold", "our guide remained calm"][row as usize].into()),
            ),
            ("scores".into(), Value::Floats(vec![0.5, row as f64])),
        ],
    };
    (0..2).map(row).collect()
}

fn collate_at(collator: &dyn Collator, place: Place) -> Result<Batch> {
    let mut draws = Generator::seeded(1).expect("a generator");
    collator.collate_at(place, &rows(), &mut draws)
}

fn collate(plugin: &Plugin) -> Result<Batch> {
    collate_at(&*collator(plugin), Place::default())
}

#[test]
fn batches_that_are_none_are_refused() {
    for (attack, text) in [
        ("no-columns", "returned no column"),
        (
            "scalar",
            "returned `x` of shape []: the first dimension is that of the examples",
        ),
        (
            "no-rows",
            "returned `x` of shape [0, 3]: the first dimension is that of the examples",
        ),
        (
            "unequal-rows",
            "returned `x` of shape [2] and `y` of shape [3]: they have different numbers of examples",
        ),
        ("same-name", "returned the column `x` twice"),
        (
            "bad-name",
            "the column name `x\\u{1b}[2J` has control characters",
        ),
        (
            "no-column",
            "there is no column `nothing`; the rows have x, ids, text, scores (data)",
        ),
        ("far-row", "row 1099511627776 of 2 (data)"),
    ] {
        let plugin = hostile(attack, &[]);
        let error = collate(&plugin).expect_err(attack);
        let expected = format!("plugin `hostile`: collator.collate, call 1: {text}");
        assert!(told(&error).contains(&expected), "{}", told(&error));
    }
    // Training may make fewer examples of its rows, as packing does; an evaluation may not.
    let plugin = hostile("fewer-rows", &[]);
    assert_eq!(collate(&plugin).expect("a batch").len(), 1);
    let evaluated = plugin.collators().expect("a collator")(false);
    let error = collate_at(&*evaluated, Place::default()).expect_err("fewer rows");
    let expected = "returned `x` of shape [1] for 2 rows that are evaluated";
    assert!(told(&error).contains(expected), "{}", told(&error));
}

#[test]
fn what_a_collator_holds_from_an_earlier_call_is_of_no_use() {
    let plugin = hostile("held", &[]);
    let collator = collator(&plugin);
    collate_at(&*collator, Place::default()).expect("nothing is held yet");
    let error = collate_at(&*collator, Place::default()).expect_err("held");
    let expected = "call 2: the tensor belongs to an earlier call";
    assert!(told(&error).contains(expected), "{}", told(&error));
}

#[test]
fn collators_and_losses_have_the_limits_of_every_hook() {
    for (attack, limits, text) in [
        (
            "loop",
            &[("step_time", "100ms")][..],
            "over the limit `step_time` of 100ms",
        ),
        ("memory", &[], "over the limit `memory` of 256 MiB"),
        ("panic", &[], "trap: the guest panicked or aborted"),
        ("recursion", &[], "the guest's stack is used up"),
        ("error", &[], "cannot \\u{7}read | this (data)"),
        ("handles", &[], "over the limit `handles` of 1024"),
        ("tensors", &[], "over the limit `tensors` of 256 MiB"),
        ("reads", &[], "over the limit `reads` of 16 MiB"),
        (
            "huge-send",
            &[("memory", "1GiB")],
            "over the limit `transfer` of 16 MiB",
        ),
    ] {
        let begin = Instant::now();
        let plugin = hostile(attack, limits);
        for (hook, error) in [
            ("collator.collate", collate(&plugin).expect_err(attack)),
            (
                "loss.compute-loss",
                loss_of(&hostile(attack, limits)).expect_err(attack),
            ),
        ] {
            let shown = told(&error);
            let subject = format!("plugin `hostile`: {hook}, call 1: ");
            assert!(shown.contains(&subject) && shown.contains(text), "{shown}");
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{attack}");
    }
    let plugin = hostile("huge-padding", &[]);
    let error = collate(&plugin).expect_err("too large");
    assert!(
        told(&error).contains("over the limit `tensors` of 256 MiB (needs "),
        "{}",
        told(&error)
    );
}

#[test]
fn a_batch_is_made_again_in_a_fresh_store_and_gives_what_it_would_have_given() {
    let place = Place {
        epoch: 5,
        batch: 3,
        worker: 1,
    };
    let drawn = |plugin: &Plugin| {
        let batch = collate_at(&*collator(plugin), place).expect("a batch");
        Vec::<f32>::try_from(batch.get("drawn").expect("a column")).expect("numbers")
    };
    assert_eq!(drawn(&hostile("draws", &[])), drawn(&hostile("draws", &[])));

    let plugin = hostile_at("panic", 2, &[("restarts", "2")]);
    let collator = collator(&plugin);
    let sizes: Vec<usize> = (0..3)
        .map(|batch| {
            let place = Place {
                batch,
                ..Place::default()
            };
            collate_at(&*collator, place).expect("a batch").len()
        })
        .collect();
    assert_eq!(sizes, [2, 2, 2]);
    assert_eq!((plugin.usage().traps, plugin.usage().restarts), (2, 2));
    let error = collate_at(&*collator, Place::default()).expect_err("the budget is used up");
    assert!(
        told(&error).contains("the guest panicked"),
        "{}",
        told(&error)
    );
}

#[test]
fn each_worker_has_an_instance_that_no_other_sees() {
    let plugin = hostile("counts", &[]);
    let (one, other) = (collator(&plugin), collator(&plugin));
    let count = |collator: &dyn Collator, worker: usize| {
        let place = Place {
            worker,
            ..Place::default()
        };
        let batch = collate_at(collator, place).expect("a batch");
        batch.get("x").expect("a column").int64_value(&[0])
    };
    let seen = [
        count(&*one, 0),
        count(&*one, 0),
        count(&*one, 1),
        count(&*other, 0),
        count(&*one, 0),
    ];
    assert_eq!(seen, [1, 2, 1, 1, 3]);
    let usage = plugin.usage();
    assert_eq!(usage.calls, 5);
    assert!(
        usage.peak_memory > 3 << 20,
        "four memories of more than a MiB: {usage:?}"
    );
}

#[test]
fn rows_are_seen_as_what_they_are() {
    let batch = collate(&hostile("columns", &[])).expect("a batch");
    let numbers = |name: &str| {
        let tensor = batch.get(name).expect("a column");
        let flat = tensor.reshape([-1]).to_kind(Kind::Double);
        (
            tensor.kind(),
            tensor.size(),
            Vec::<f64>::try_from(flat).expect("numbers"),
        )
    };
    let whole = |values: [f64; 2]| (Kind::Int64, vec![2], values.to_vec());
    assert_eq!(numbers("x"), whole([0.0, 1.0]));
    assert_eq!(
        numbers("scores"),
        (Kind::Float, vec![2, 2], vec![0.5, 0.0, 0.5, 1.0])
    );
    let ids = vec![9.0, 9.0, 1.0, 2.0, 9.0, 1.0, 2.0, 3.0];
    assert_eq!(numbers("ids"), (Kind::Int64, vec![2, 4], ids));
    assert_eq!(numbers("lengths"), whole([2.0, 3.0]));
    assert_eq!(numbers("texts"), whole([17.0, 23.0]));
    assert_eq!(numbers("numbers"), whole([1.0, 1.0]));
    assert_eq!(numbers("training"), (Kind::Bool, vec![2], vec![1.0, 1.0]));
}

#[test]
fn a_row_that_the_host_refuses_is_named_by_its_file() {
    use host::data::loader::Batching;
    use host::data::sampler::Sequential;
    use host::data::{Loader, Table};
    let row = |values: Value| Example {
        columns: vec![("x".into(), Value::Int(1)), ("ragged".into(), values)],
    };
    let rows: Vec<Example> = vec![
        row(Value::Ints(vec![1])),
        row(Value::Ints(vec![2])),
        row(Value::Null),
    ];
    let plugin = hostile("bad-row", &[]);
    let _alone = crate::loop_behaviour::stage::alone();
    let table = Table::from_examples(&rows).expect("a table");
    let batching = Batching {
        workers: 2,
        ..Batching::new(collator(&plugin), 3)
    };
    let order = (std::sync::Arc::new(table) as _, Box::new(Sequential) as _);
    let mut loader = Loader::new(order, batching).expect("a loader");
    let error = loader
        .epoch()
        .expect("an epoch")
        .next()
        .expect("a batch")
        .expect_err("a null");
    let expected = "row 2: plugin `hostile`: collator.collate, call 1: \
                    example 2 of the batch: field \"ragged\" is no list (data)";
    assert_eq!(told(&error), expected);
}

#[test]
fn the_tokenizer_is_there_once_it_has_been_read() {
    let plugin = hostile("tokens", &[]);
    let error = collate(&plugin).expect_err("none yet");
    let expected = "the run has no tokenizer, or has not read it yet (unsupported)";
    assert!(told(&error).contains(expected), "{}", told(&error));
    let tokenizer = Tokenizer::load(&fixture("golden/init_toy")).expect("a tokenizer");
    plugin.set_tokenizer(std::sync::Arc::new(tokenizer));
    let batch = collate(&plugin).expect("a batch");
    let numbers =
        |name: &str| Vec::<i64>::try_from(batch.get(name).expect("a column")).expect("numbers");
    assert_eq!(
        numbers("lengths"),
        [17, 23],
        "text comes back as it went in"
    );
    assert_eq!(numbers("pad"), [0, 0]);
}

fn outputs() -> Outputs {
    let logits = Tensor::ones([4, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    Outputs {
        loss: None,
        fields: vec![("logits".to_owned(), logits * 2.0)],
    }
}

fn batch() -> Batch {
    let column = |name: &str| (name.into(), Tensor::from_slice(&[0_i64, 1, 0, 1]));
    Batch {
        columns: vec![
            column("input_ids"),
            column("labels"),
            column("attention_mask"),
        ],
    }
}

fn loss(plugin: &Plugin) -> Box<dyn Loss> {
    plugin.loss(vec!["labels".to_owned()]).expect("a loss")
}

fn loss_of(plugin: &Plugin) -> Result<Tensor> {
    loss(plugin).loss(&outputs(), &batch())
}

#[test]
fn a_loss_that_is_none_is_refused() {
    let history = "returned a value that does not depend on the outputs";
    for (attack, text) in [
        (
            "vector",
            "returned Float of shape [4]; a loss is one floating point value",
        ),
        (
            "whole",
            "returned Int64 of shape []; a loss is one floating point value",
        ),
        ("constant", history),
        ("read", history),
        ("kept", history),
    ] {
        let error = loss_of(&hostile(attack, &[])).expect_err(attack);
        let expected = format!("plugin `hostile`: loss.compute-loss, call 1: {text}");
        assert!(told(&error).contains(&expected), "{}", told(&error));
    }
    for (attack, text) in [
        ("held", "call 2: the tensor belongs to an earlier call"),
        (
            "kept-held",
            "call 2: returned a value that does not depend on the outputs",
        ),
    ] {
        let plugin = hostile(attack, &[]);
        let mut loss = loss(&plugin);
        let _ = loss.loss(&outputs(), &batch()).expect("the first batch");
        let error = loss
            .loss(&outputs(), &batch())
            .expect_err("of another batch");
        assert!(told(&error).contains(text), "{}", told(&error));
    }
}

#[test]
fn a_loss_may_have_one_element_and_need_not_be_finite() {
    let value = loss_of(&hostile("one-element", &[])).expect("a loss");
    assert_eq!((value.size(), value.double_value(&[])), (vec![], 4.0));
    // That is the loop's to judge.
    assert!(
        loss_of(&hostile("nan", &[]))
            .expect("a loss")
            .double_value(&[])
            .is_nan()
    );
}

#[test]
fn a_loss_sees_outputs_labels_and_the_other_columns() {
    let value = loss_of(&hostile("count", &[])).expect("a loss");
    assert_eq!(value.double_value(&[]), 211.0);
}

#[test]
fn what_the_derivative_needs_counts_until_the_call_ends() {
    let error = loss_of(&hostile("graph", &[("step_time", "10s")])).expect_err("too large");
    let shown = told(&error);
    assert!(
        shown.contains("loss.compute-loss, call 1: ")
            && shown.contains("over the limit `tensors` of 256 MiB"),
        "{shown}"
    );
}

#[test]
fn a_loss_needs_its_capability() {
    let folder = tempfile::tempdir().expect("a folder");
    let silent = with_manifest(&guest("hostile_batches"), folder.path(), |_| {});
    let error = load(&spec(&silent, &json!({}), &[]), &environment()).expect_err("not requested");
    let expected = "plugin `hostile_batches`: exports the hook `loss`, but its manifest does not request the capability \
                    `loss` hint: its author adds \"loss\": \"the reason\" to `requests` in the manifest";
    assert_eq!(told(&error), expected);
    let error = load(
        &spec(&guest("hostile_batches"), &json!({}), &[]),
        &environment(),
    )
    .expect_err("not granted");
    assert!(
        told(&error).contains("is not granted: `loss` (has bad habits)"),
        "{}",
        told(&error)
    );
}

#[test]
fn state_is_saved_whatever_the_plugin_is() {
    let plugin = hostile("count", &[]);
    let mut loss = loss(&plugin);
    for _ in 0..3 {
        let _ = loss.loss(&outputs(), &batch()).expect("a loss");
    }
    let callbacks = plugin.callbacks();
    assert_eq!(callbacks.len(), 1, "checkpoints take state from callbacks");
    let state = callbacks[0].state().expect("a state");
    let other = hostile("count", &[]);
    let mut resumed = other.callbacks().remove(0);
    resumed.load_state(&state).expect("restored");
    assert_eq!(resumed.state(), Some(state));
}
