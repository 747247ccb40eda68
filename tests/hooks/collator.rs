//! Collators: the plugin `token-masking` beside the built-in padding, in batches of a loader and in runs of the program;
//! and what it draws, which follows from the place of a batch and not from who makes it.

use std::fs;
use std::sync::Arc;

use host::data::collator::PaddingCollator;
use host::data::loader::Batching;
use host::data::sampler::{Random, Sequential};
use host::data::{Batch, Collator, Example, Loader, Sampler, Table, Tokenizer, Value};
use host::plugin::{Plugin, load};
use host::torch::Generator;
use serde_json::{Value as Json, json};
use tch::{Kind, Tensor};

use crate::loop_behaviour::stage::alone;
use crate::plugin::{environment, official, spec};
use crate::resume::{remains, small_run};
use crate::support::{Host, fixture};

const PAD: i64 = 0;
const MASK: i64 = 4;

fn tokenizer() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::load(&fixture("golden/init_toy")).expect("a tokenizer"))
}

fn plugin(config: &Json) -> Plugin {
    let plugin = load(
        &spec(&official("token_masking"), config, &[]),
        &environment(),
    )
    .expect("loads");
    plugin.set_tokenizer(tokenizer());
    plugin
}

/// A collator of the plugin for batches that are trained with.
fn collator(plugin: &Plugin) -> Box<dyn Collator> {
    plugin.collators().expect("a collator")(true)
}

/// Rows of 3, 4, 5, 3, 4, ... tokens between special ones.
fn rows(count: i64) -> Vec<Example> {
    let row = |row: i64| {
        let words = (0..3 + row % 3).map(|word| 10 + 7 * row + word);
        let ids: Vec<i64> = [2].into_iter().chain(words).chain([3]).collect();
        let ones = vec![1; ids.len()];
        Example {
            columns: vec![
                ("text".into(), Value::Text("words".into())),
                ("token_type_ids".into(), Value::Ints(vec![0; ids.len()])),
                ("input_ids".into(), Value::Ints(ids)),
                ("attention_mask".into(), Value::Ints(ones)),
                ("score".into(), Value::Float(0.5 * row as f64)),
                ("label".into(), Value::Int(row % 2)),
            ],
        }
    };
    (0..count).map(row).collect()
}

/// Name, type, extents and values of each column.
type Contents = Vec<(String, Kind, Vec<i64>, Vec<f64>)>;

fn contents(batch: &Batch) -> Contents {
    let columns = batch.columns.iter();
    let content = |(name, tensor): &(Arc<str>, Tensor)| {
        let flat = tensor.reshape([-1]).to_kind(Kind::Double);
        let values = Vec::try_from(flat).expect("numbers");
        (name.to_string(), tensor.kind(), tensor.size(), values)
    };
    columns.map(content).collect()
}

/// What a collator that pads must do, whoever it is.
fn check_padding(make: &dyn Fn() -> Box<dyn Collator>) -> Vec<Contents> {
    let collator = make();
    let mut draws = Generator::seeded(1).expect("a generator");
    let mut batch = |rows: &[Example]| collator.collate(rows, &mut draws).expect("a batch");
    let first = batch(&rows(3));
    assert_eq!(first.get("input_ids").expect("ids").size(), [3, 7]);
    let labels = first.get("labels").expect("labels");
    assert_eq!(Vec::<i64>::try_from(labels).expect("numbers"), [0, 1, 0]);
    assert!(first.get("text").is_none());
    vec![
        contents(&first),
        contents(&batch(&rows(1))),
        contents(&batch(&rows(64))),
    ]
}

#[test]
fn built_in_and_plugin_pad_alike() {
    let settings = tokenizer().padding();
    let native = check_padding(&|| Box::new(PaddingCollator::new(settings)));
    let plugin = plugin(&json!({"probability": 0}));
    assert_eq!(check_padding(&|| collator(&plugin)), native);
}

#[test]
fn a_share_of_the_ordinary_tokens_is_hidden_where_rows_are_trained_with() {
    let plugin = plugin(&json!({"probability": 0.25, "pad_to_multiple_of": 8}));
    let rows = rows(512);
    let ids = |is_training: bool| {
        let collator = plugin.collators().expect("a collator")(is_training);
        let mut draws = Generator::seeded(1).expect("a generator");
        let batch = collator.collate(&rows, &mut draws).expect("a batch");
        batch.get("input_ids").expect("ids").shallow_clone()
    };
    let (trained, evaluated) = (ids(true), ids(false));
    assert_eq!(trained.size(), [512, 8]);
    assert_eq!(evaluated.eq(MASK).sum(Kind::Int64).int64_value(&[]), 0);
    let changed = trained.ne_tensor(&evaluated);
    assert!(changed.equal(&trained.eq(MASK)), "only masks are put in");
    let special = evaluated
        .eq(PAD)
        .logical_or(&evaluated.eq(2))
        .logical_or(&evaluated.eq(3));
    assert_eq!(
        changed
            .logical_and(&special)
            .sum(Kind::Int64)
            .int64_value(&[]),
        0
    );
    let count = |mask: &Tensor| mask.sum(Kind::Double).double_value(&[]);
    let share = count(&changed) / count(&special.logical_not());
    assert!((share - 0.25).abs() < 0.03, "{share}");
}

fn loader(plugin: &Plugin, workers: usize) -> Loader {
    let sampler: Box<dyn Sampler> = Box::new(Random::new());
    let table = Table::from_examples(&rows(40)).expect("a table");
    let batching = Batching {
        workers,
        ..Batching::new(collator(plugin), 4)
    };
    Loader::new((Arc::new(table), sampler), batching).expect("a loader")
}

/// Two epochs from a seed.
fn epochs(loader: &mut Loader) -> Vec<Contents> {
    tch::manual_seed(7);
    let mut batches = Vec::new();
    for _ in 0..2 {
        for loaded in loader.epoch().expect("an epoch") {
            batches.push(contents(&loaded.expect("a batch").batch));
        }
    }
    batches
}

#[test]
fn what_is_drawn_follows_from_the_batch_whoever_makes_it() {
    let _alone = alone();
    let plugin = plugin(&json!({"probability": 0.5}));
    let expected = epochs(&mut loader(&plugin, 0));
    assert_ne!(expected[..10], expected[10..], "each epoch draws anew");
    for workers in [1, 3, 4] {
        assert_eq!(
            epochs(&mut loader(&plugin, workers)),
            expected,
            "{workers} workers"
        );
    }
    // One instance for each worker, and the one that loading has made; all count.
    let usage = plugin.usage();
    assert_eq!((usage.calls, usage.traps), (4 * 20, 0));

    // In the middle of the second epoch.
    tch::manual_seed(7);
    let mut whole = loader(&plugin, 2);
    for loaded in whole.epoch().expect("an epoch") {
        loaded.expect("a batch");
    }
    let start = whole.epoch().expect("an epoch").start().clone();
    let mut resumed = loader(&plugin, 3);
    let epoch = resumed.resume_epoch(&start, 6, None).expect("an epoch");
    let batches = epoch.map(|loaded| contents(&loaded.expect("a batch").batch));
    assert_eq!(batches.collect::<Vec<_>>(), expected[16..]);
}

#[test]
fn evaluation_sets_are_made_by_the_plugin_too() {
    let _alone = alone();
    let plugin = plugin(&json!({"probability": 0.5}));
    let table = Table::from_examples(&rows(6)).expect("a table");
    let batching = Batching {
        workers: 2,
        ..Batching::new(plugin.collators().expect("a collator")(false), 4)
    };
    let order = (Arc::new(table) as _, Box::new(Sequential) as _);
    let mut loader = Loader::new(order, batching).expect("a loader");
    let sizes = loader.epoch().expect("an epoch").map(|loaded| {
        let batch = loaded.expect("a batch").batch;
        batch.get("input_ids").expect("ids").size()
    });
    assert_eq!(sizes.collect::<Vec<_>>(), [[4, 7], [2, 7]]);
}

fn masking(host: &Host, output: &str, arguments: &str) -> String {
    let mut command = small_run(host, &host.path(output), arguments);
    command.arg("--plugin").arg(official("token_masking"));
    host.succeeds(command)
}

#[test]
fn a_run_is_the_same_with_any_number_of_workers_and_goes_on_where_it_stood() {
    let host = Host::new();
    let save = "--save_strategy steps --save_steps 5";
    let shown = masking(&host, "whole", save);
    // 30 batches that are trained with, one that was made ahead, and 6 evaluations of 2.
    assert!(shown.contains("plugin token_masking: 43 calls"), "{shown}");
    masking(
        &host,
        "helped",
        &format!("{save} --dataloader_num_workers 3"),
    );
    let whole = remains(&host.path("whole"), 15);
    let helped = remains(&host.path("helped"), 15);
    assert_eq!(whole, helped);
    for checkpoint in ["checkpoint-10", "checkpoint-15"] {
        fs::remove_dir_all(host.path("helped").join(checkpoint)).expect("a checkpoint");
    }
    let resume = "--dataloader_num_workers 2 --resume_from_checkpoint helped/checkpoint-5";
    masking(&host, "helped", &format!("{save} {resume}"));
    assert_eq!(remains(&host.path("helped"), 15), whole);
    masking(
        &host,
        "none",
        &format!("{save} --plugin_config token_masking.probability=0"),
    );
    assert_ne!(remains(&host.path("none"), 15), whole, "masks matter");
    // Without masks it is the run of the built-in collator.
    host.succeeds(small_run(&host, &host.path("plain"), save));
    assert_eq!(
        remains(&host.path("none"), 15),
        remains(&host.path("plain"), 15)
    );
}
