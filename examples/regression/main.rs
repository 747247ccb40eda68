//! The trainer in a Rust program: own model, rows, optimizer and schedule, a metric as one function, a callback.
//!
//!     regression OUTPUT_FOLDER
#![expect(clippy::print_stdout, reason = "this program shows what it found")]

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use host::api::{ModelSource, Optimizers, Resume, parameter_groups};
use host::callback::{Callback, Context, Event, EventKind};
use host::config::setting::Number;
use host::data::{Batch, Example, Table, Value};
use host::metric::{EvalPrediction, Whole};
use host::model::{Model, Outputs, Parameter};
use host::optim::Sgd;
use host::optim::lr_scheduler::{LambdaScheduler, Schedule};
use host::{Trainer, TrainerParts, TrainingArguments};
use tch::{Kind, Reduction, Tensor};

/// y = ax + b; any network of `tch` layers looks the same from outside.
struct Line {
    parameters: Vec<Parameter>,
    arguments: Vec<String>,
}

impl Line {
    fn new() -> Self {
        let parameter = |name: &str| Parameter {
            name: name.to_owned(),
            tensor: Tensor::from(0.0_f32).set_requires_grad(true),
            decay: true,
        };
        Self {
            parameters: vec![parameter("a"), parameter("b")],
            arguments: vec!["x".to_owned(), "labels".to_owned()],
        }
    }
}

impl Model for Line {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn state_dict(&self) -> Vec<(String, Tensor)> {
        let named = self.parameters.iter();
        named
            .map(|parameter| (parameter.name.clone(), parameter.tensor.shallow_clone()))
            .collect()
    }

    fn forward_arguments(&self) -> &[String] {
        &self.arguments
    }

    fn label_names(&self) -> Vec<String> {
        vec!["labels".to_owned()]
    }

    fn is_library_model(&self) -> bool {
        false
    }

    fn config(&self) -> Option<serde_json::Value> {
        None
    }

    fn set_training(&mut self, _training: bool) -> Result<()> {
        Ok(())
    }

    fn forward(&mut self, batch: &Batch) -> Result<Outputs> {
        let x = batch.get("x").context("the column x")?;
        let logits = &self.parameters[0].tensor * x + &self.parameters[1].tensor;
        let loss = match batch.get("labels") {
            Some(labels) => Some(logits.f_mse_loss(labels, Reduction::Mean)?),
            None => None,
        };
        Ok(Outputs {
            loss,
            fields: vec![("logits".to_owned(), logits)],
        })
    }

    fn floating_point_operations(&self, _batch: &Batch) -> f64 {
        0.0
    }
}

/// y = 2x + 3.
fn rows(count: usize) -> Result<Arc<Table>> {
    let row = |index: usize| {
        let x = index as f64 / count as f64 * 4.0 - 2.0;
        Example {
            columns: vec![
                ("x".into(), Value::Float(x)),
                ("label".into(), Value::Float(2.0 * x + 3.0)),
            ],
        }
    };
    Ok(Arc::new(Table::from_examples(
        &(0..count).map(row).collect::<Vec<_>>(),
    )?))
}

/// The rate falls to a tenth after 60 steps.
#[derive(Debug)]
struct TwoStages;

impl Schedule for TwoStages {
    fn factor(&self, step: u64) -> f64 {
        if step < 60 { 1.0 } else { 0.1 }
    }
}

/// Ends the run when the loss is small.
struct GoodEnough;

impl Callback for GoodEnough {
    fn name(&self) -> &str {
        "good_enough"
    }

    fn wants(&self, kind: EventKind) -> bool {
        kind == EventKind::Log
    }

    fn on_event(&mut self, event: Event<'_>, context: &mut Context<'_>) -> Result<()> {
        if let Event::Log(values) = event
            && values
                .iter()
                .any(|(name, value)| name == "loss" && *value < 1e-4)
        {
            context.control.stop_training("the loss is below 1e-4");
        }
        Ok(())
    }
}

/// Share of the rows that are less than 0.01 off.
fn hits(prediction: &EvalPrediction) -> Result<Vec<(String, f64)>> {
    let (guess, truth) = (&prediction.predictions[0].1, &prediction.label_ids[0].1);
    let hits = (guess - truth)
        .abs()
        .le(0.01)
        .f_to_kind(Kind::Double)?
        .f_mean(Kind::Double)?;
    Ok(vec![("hits".to_owned(), hits.f_double_value(&[])?)])
}

fn trainer(output_dir: &Path) -> Result<Trainer> {
    let arguments = TrainingArguments {
        output_dir: Some(output_dir.into()),
        num_train_epochs: 20.0,
        logging_steps: Number(10.0),
        evaluation_strategy: "epoch".into(),
        save_strategy: "epoch".into(),
        save_total_limit: Some(2),
        use_cpu: true,
        ..TrainingArguments::default()
    };
    Trainer::new(TrainerParts {
        train_dataset: Some(rows(64)?),
        eval_dataset: vec![(String::new(), rows(16)?)],
        compute_metrics: vec![Box::new(Whole::new("hits", hits))],
        callbacks: vec![Box::new(GoodEnough)],
        optimizers: Some(Box::new(|model: &dyn Model, _| {
            let mut groups = parameter_groups(model, 0.2, 0.0);
            let lr_scheduler = LambdaScheduler::new(Box::new(TwoStages), &mut groups);
            Ok(Optimizers {
                optimizer: Box::new(Sgd::new(groups)?),
                lr_scheduler: Some(Box::new(lr_scheduler)),
            })
        })),
        ..TrainerParts::new(ModelSource::Model(Box::new(Line::new())), arguments)
    })
}

/// Trains; a, b, and the share of the hits.
pub fn run(output_dir: &Path) -> Result<[f64; 3]> {
    let mut trainer = trainer(output_dir)?;
    trainer.train(Resume::No)?;
    trainer.save_model()?;
    trainer.save_state()?;
    let metrics = trainer.evaluate()?.context("it was interrupted")?;
    let parameters = trainer.model().parameters();
    let value = |index: usize| parameters[index].tensor.f_double_value(&[]);
    let found = [value(0)?, value(1)?, metrics.required("hits")?];
    trainer.close()?;
    Ok(found)
}

#[allow(dead_code, reason = "the tests call `run`")]
fn main() -> Result<()> {
    let output_dir = std::env::args()
        .nth(1)
        .context("usage: regression OUTPUT_FOLDER")?;
    let [a, b, hits] = run(Path::new(&output_dir))?;
    println!(
        "a = {a:.3}, b = {b:.3}, {:.0} % of the guesses hit",
        100.0 * hits
    );
    Ok(())
}
