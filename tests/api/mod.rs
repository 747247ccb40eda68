//! The trainer for Rust programs: what the reference's constructor and its methods promise (rows 1 to 7, 22 to 24, 53).

use std::sync::Arc;

use anyhow::Result;
use host::api::{ModelSource, Optimizers, Resume, parameter_groups};
use host::callback::{Callback, Context, Event, EventKind};
use host::config::setting::Number;
use host::data::{Dataset, Example, Table, Value};
use host::error::{hints_of, told};
use host::metric::{EvalPrediction, Whole};
use host::model::Model;
use host::optim::lr_scheduler::{AdafactorScheduler, LambdaScheduler, Schedule};
use host::optim::{Adafactor, AdafactorSettings, Sgd};
use host::{Trainer, TrainerParts, TrainingArguments};
use tempfile::TempDir;

use crate::loop_behaviour::stage::{Line, alone};
use crate::support::fixture;

/// Data R of the specification, under the names of `forward`.
fn data_r() -> Arc<dyn Dataset> {
    let text = std::fs::read_to_string(fixture("torchscript/r.jsonl")).expect("data R");
    let row = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let number = |name: &str| Value::Float(row[name].as_f64().expect("a number"));
        Example {
            columns: vec![
                ("x".into(), number("input_x")),
                ("label".into(), number("label")),
                ("extra".into(), Value::Int(1)),
            ],
        }
    };
    let rows: Vec<Example> = text.lines().map(row).collect();
    Arc::new(Table::from_examples(&rows).expect("a table"))
}

fn arguments(folder: &TempDir) -> TrainingArguments {
    TrainingArguments {
        output_dir: Some(folder.path().into()),
        learning_rate: 0.1,
        save_strategy: "no".into(),
        use_cpu: true,
        disable_tqdm: Some(true),
        ..TrainingArguments::default()
    }
}

fn new_line() -> Result<Box<dyn Model>> {
    Ok(Box::new(Line::new("x")))
}

fn parts(folder: &TempDir) -> TrainerParts {
    TrainerParts {
        train_dataset: Some(data_r()),
        ..TrainerParts::new(
            ModelSource::Model(Box::new(Line::new("x"))),
            arguments(folder),
        )
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn trained(trainer: &mut Trainer) -> [f64; 2] {
    trainer.train(Resume::No).expect("trained");
    weights(trainer)
}

fn weights(trainer: &Trainer) -> [f64; 2] {
    let parameters = trainer.model().parameters();
    [0, 1].map(|index| parameters[index].tensor.double_value(&[]))
}

fn close(found: [f64; 2], expected: [f64; 2]) -> bool {
    found
        .iter()
        .zip(expected)
        .all(|(found, expected)| (found - expected).abs() < 1e-5)
}

const SEED_42: [f64; 2] = [1.036_389_2, 1.247_077_6];
const SEED_314: [f64; 2] = [1.051_440_6, 1.243_293_8];

/// Rows 1, 2, 4: the same seed gives the same weights, `model_init` begins anew, arguments can change in between.
#[test]
fn model_init_begins_anew() {
    let _alone = alone();
    let folder = folder();
    let parts = TrainerParts {
        model: ModelSource::Init(Box::new(new_line)),
        ..parts(&folder)
    };
    let mut trainer = Trainer::new(parts).expect("a trainer");
    for _ in 0..2 {
        let found = trained(&mut trainer);
        assert!(close(found, SEED_42), "{found:?}");
    }
    let other = TrainingArguments {
        seed: 314,
        ..arguments(&folder)
    };
    trainer.set_args(other).expect("arguments");
    let found = trained(&mut trainer);
    assert!(close(found, SEED_314), "{found:?}");
}

/// Row 3: accumulation over two batches of half the size.
#[test]
fn accumulation_is_the_same_as_a_larger_batch() {
    let _alone = alone();
    let folder = folder();
    let args = TrainingArguments {
        per_device_train_batch_size: 4,
        gradient_accumulation_steps: 2,
        ..arguments(&folder)
    };
    let mut trainer = Trainer::new(TrainerParts {
        args,
        ..parts(&folder)
    })
    .expect("a trainer");
    let found = trained(&mut trainer);
    assert!(close(found, SEED_42), "{found:?}");
}

/// Row 7: an Adafactor that sets its own rates, and the proxy that reports them.
#[test]
fn an_optimizer_that_schedules_itself() {
    let _alone = alone();
    let folder = folder();
    let args = TrainingArguments {
        logging_steps: Number(1.0),
        ..arguments(&folder)
    };
    let parts = TrainerParts {
        args,
        optimizers: Some(Box::new(|model: &dyn Model, _| {
            let groups = parameter_groups(model, 0.0, 0.0);
            let lr_scheduler = AdafactorScheduler::new(0.0, &groups);
            let settings = AdafactorSettings {
                scale_parameter: true,
                relative_step: true,
                ..AdafactorSettings::as_trainer()
            };
            Ok(Optimizers {
                optimizer: Box::new(Adafactor::new(groups, settings)?),
                lr_scheduler: Some(Box::new(lr_scheduler)),
            })
        })),
        ..parts(&folder)
    };
    let mut trainer = Trainer::new(parts).expect("a trainer");
    let found = trained(&mut trainer);
    assert!(found.iter().all(|value| *value > 0.0), "{found:?}");
    let history = &trainer.state().log_history;
    let rates: Vec<f64> = history
        .iter()
        .filter_map(|entry| entry.get("learning_rate")?.as_f64())
        .collect();
    assert_eq!(rates.len(), 24);
    assert!(rates.iter().all(|rate| *rate > 0.0), "{rates:?}");
}

/// Row 5: without it, weights, optimizer and generators go on.
#[test]
fn a_second_train_goes_on() {
    let _alone = alone();
    let folder = folder();
    let mut trainer = Trainer::new(parts(&folder)).expect("a trainer");
    let first = trained(&mut trainer);
    assert!(close(first, SEED_42), "{first:?}");
    let second = trained(&mut trainer);
    assert!(second[0] > first[0] + 0.1 && second[1] > first[1] + 0.1);
    assert_eq!(trainer.state().global_step, 24);
}

/// The rate stays.
#[derive(Debug)]
struct Constant;

impl Schedule for Constant {
    fn factor(&self, _step: u64) -> f64 {
        1.0
    }
}

/// Row 6.
#[test]
fn an_own_optimizer_and_schedule() {
    let _alone = alone();
    let folder = folder();
    let parts = TrainerParts {
        optimizers: Some(Box::new(|model: &dyn Model, plan| {
            assert_eq!(plan.max_steps, 24);
            let mut groups = parameter_groups(model, 1.0, 0.0);
            let lr_scheduler = LambdaScheduler::new(Box::new(Constant), &mut groups);
            Ok(Optimizers {
                optimizer: Box::new(Sgd::new(groups)?),
                lr_scheduler: Some(Box::new(lr_scheduler)),
            })
        })),
        ..parts(&folder)
    };
    let mut trainer = Trainer::new(parts).expect("a trainer");
    let found = trained(&mut trainer);
    assert!(!close(found, SEED_42), "{found:?}");
    assert_eq!(trainer.learning_rates(), [1.0, 1.0]);
}

/// Counts its calls.
struct Counting(&'static str, Arc<std::sync::atomic::AtomicUsize>);

impl Callback for Counting {
    fn name(&self) -> &str {
        self.0
    }

    fn wants(&self, kind: EventKind) -> bool {
        kind == EventKind::StepEnd
    }

    fn on_event(&mut self, _event: Event<'_>, _context: &mut Context<'_>) -> Result<()> {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }
}

/// Rows 22 to 24: the built-in ones and the user's, adding, taking out by name, the same one twice.
#[test]
fn callbacks_come_and_go() {
    let _alone = alone();
    let folder = folder();
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counting = |name| Box::new(Counting(name, count.clone()));
    let parts = TrainerParts {
        callbacks: vec![counting("mine")],
        ..parts(&folder)
    };
    let mut trainer = Trainer::new(parts).expect("a trainer");
    assert_eq!(trainer.callbacks(), ["default_flow", "mine", "progress"]);
    trainer.add_callback(counting("mine"));
    trainer.add_callback(counting("other"));
    assert_eq!(
        trainer.callbacks(),
        ["default_flow", "mine", "progress", "mine", "other"]
    );
    trained(&mut trainer);
    assert_eq!(count.swap(0, std::sync::atomic::Ordering::Relaxed), 3 * 24);
    assert!(trainer.pop_callback("progress").is_some());
    assert!(trainer.pop_callback("mine").is_some());
    assert!(trainer.pop_callback("nobody").is_none());
    let flow = trainer.pop_callback("default_flow").expect("the flow");
    assert_eq!(trainer.callbacks(), ["mine", "other"]);
    trained(&mut trainer);
    assert_eq!(count.swap(0, std::sync::atomic::Ordering::Relaxed), 2 * 24);
    trainer.add_callback(flow);
    trained(&mut trainer);
    assert_eq!(trainer.callbacks(), ["mine", "other", "default_flow"]);
}

/// Accuracy of row 51: a guess that is at most 0.25 off.
fn accuracy(prediction: &EvalPrediction) -> Result<Vec<(String, f64)>> {
    let (guess, truth) = (&prediction.predictions[0].1, &prediction.label_ids[0].1);
    let hits = (guess - truth).abs().le(0.25).to_kind(tch::Kind::Double);
    Ok(vec![(
        "accuracy".to_owned(),
        hits.mean(tch::Kind::Double).double_value(&[]),
    )])
}

/// Rows 51 and 53: evaluation with a function over all rows, prediction of all of them.
#[test]
fn evaluation_and_prediction_over_whole_sets() {
    let _alone = alone();
    let folder = folder();
    let line = Line::new("x");
    for (parameter, value) in line.parameters().iter().zip([1.5, 2.5]) {
        let _ = tch::no_grad(|| parameter.tensor.shallow_clone().fill_(value));
    }
    let parts = TrainerParts {
        eval_dataset: vec![(String::new(), data_r())],
        compute_metrics: vec![Box::new(Whole::new("accuracy", accuracy))],
        ..TrainerParts::new(ModelSource::Model(Box::new(line)), arguments(&folder))
    };
    let mut trainer = Trainer::new(parts).expect("a trainer");
    let metrics = trainer.evaluate().expect("evaluated").expect("no signal");
    let (loss, accuracy) = (metrics.get("loss"), metrics.get("accuracy"));
    assert!((loss.expect("a loss") - 0.379_020_5).abs() < 1e-6);
    assert_eq!(accuracy, Some(0.3125));
    let named = vec![("r".to_owned(), data_r())];
    let other = trainer.evaluate_on(named, "test").expect("evaluated");
    let names = other.expect("no signal").0;
    assert!(
        names
            .iter()
            .any(|(name, value)| name == "test_r_loss" && Some(*value) == loss)
    );
    let predicted = trainer.predict(data_r(), "test").expect("predicted");
    let predicted = predicted.expect("no signal");
    let (name, guess) = &predicted.predictions[0];
    assert_eq!((name.as_str(), guess.size()), ("logits", vec![64]));
    let x = Vec::<f64>::try_from((guess.to_kind(tch::Kind::Double) - 2.5) / 1.5).expect("numbers");
    assert!((x[0] - 0.496_714_15).abs() < 1e-6);
    assert_eq!(predicted.label_ids[0].1.size(), [64]);
    assert!(
        predicted
            .metrics
            .iter()
            .any(|(name, _)| name == "test_accuracy")
    );
}

fn refused(parts: TrainerParts) -> String {
    let error = Trainer::new(parts).expect_err("refused");
    format!("{} {:?}", told(&error), hints_of(&error))
}

/// Everything that can be known is said before anything is written.
#[test]
fn what_is_missing_or_too_much_is_named() {
    let _alone = alone();
    let folder = folder();
    let with = |change: &dyn Fn(&mut TrainingArguments)| {
        let mut args = arguments(&folder);
        change(&mut args);
        refused(TrainerParts {
            args,
            ..parts(&folder)
        })
    };
    let told = with(&|args| {
        args.evaluation_strategy = "steps".into();
        args.logging_steps = Number(0.0);
        args.model = Some("model".into());
        args.train_file = vec!["train.jsonl".into()];
        args.model_revision = "v1".into();
    });
    for part in [
        "evaluation_strategy: is steps, but there is no eval_dataset",
        "logging_steps",
        "model: has no effect",
        "train_file: has no effect",
        "model_revision: is for the command line",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let mut trainer = Trainer::new(TrainerParts {
        train_dataset: None,
        ..parts(&folder)
    })
    .expect("a trainer");
    for (found, expected) in [
        (
            trainer.train(Resume::No).map(|_| ()),
            "requires a train_dataset",
        ),
        (trainer.evaluate().map(|_| ()), "requires an eval_dataset"),
        (
            trainer.train(Resume::Latest).map(|_| ()),
            "No valid checkpoint found in output directory",
        ),
        (
            trainer
                .train(Resume::From(folder.path().join("bogus")))
                .map(|_| ()),
            "requires a train_dataset",
        ),
    ] {
        let error = found.expect_err("refused");
        assert!(told_of(&error).contains(expected), "{expected}: {error:#}");
    }
    let left = std::fs::read_dir(folder.path())
        .expect("the folder")
        .count();
    assert_eq!(left, 0, "something was written");
}

fn told_of(error: &anyhow::Error) -> String {
    told(error)
}

/// A run of a program is resumed exactly, as one of the command is. Row 15: its arguments stay as they were given.
#[test]
fn resumption_is_exact() {
    let _alone = alone();
    let (whole, output) = (folder(), folder());
    let with = |folder: &TempDir, max_steps| {
        let args = TrainingArguments {
            save_strategy: "steps".into(),
            save_steps: Number(5.0),
            max_steps,
            lr_scheduler_type: "constant".into(),
            ..arguments(folder)
        };
        Trainer::new(TrainerParts {
            args,
            ..parts(folder)
        })
        .expect("a trainer")
    };
    let expected = trained(&mut with(&whole, 20));
    trained(&mut with(&output, 10));
    let mut resumed = with(&output, 20);
    resumed.train(Resume::Latest).expect("trained");
    let written = |step: u64| {
        let folder = whole.path().join(format!("checkpoint-{step}"));
        std::fs::read(folder.join("training_args.json")).expect("arguments")
    };
    assert_eq!(written(5), written(20));
    assert_eq!(
        weights(&resumed).map(f64::to_bits),
        expected.map(f64::to_bits)
    );
}

/// An optimizer of one's own goes on in a second `train`, under a schedule that begins anew.
#[test]
fn the_schedule_of_the_arguments_begins_anew() {
    let _alone = alone();
    let folder = folder();
    let args = TrainingArguments {
        logging_steps: Number(1.0),
        ..arguments(&folder)
    };
    let parts = TrainerParts {
        args,
        optimizers: Some(Box::new(|model: &dyn Model, _| {
            Ok(Optimizers {
                optimizer: Box::new(Sgd::new(parameter_groups(model, 0.01, 0.0))?),
                lr_scheduler: None,
            })
        })),
        ..parts(&folder)
    };
    let mut trainer = Trainer::new(parts).expect("a trainer");
    let first = trained(&mut trainer);
    let second = trained(&mut trainer);
    assert!(second[0] > first[0] + 0.02, "{first:?} {second:?}");
    let history = &trainer.state().log_history;
    let rates: Vec<f64> = history
        .iter()
        .filter_map(|entry| entry.get("learning_rate")?.as_f64())
        .collect();
    assert!(rates[0] > 0.009 && rates[23] == 0.0, "{rates:?}");
}
