//! `host train` in the engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};

use super::evaluate::TestSet;
use super::inputs::{self, Inputs, Wanted};
use super::plugins::Plugins;
use super::{Ending, evaluate, parts, show, show_usage};
use crate::checkpoint::{find, json, layout, load, lock::OutputLock, save, space};
use crate::cli::output;
use crate::config::run::{Resume, Run, Strategy};
use crate::data::Loader;
use crate::model::{Model, Parameter};
use crate::optim::groups::{self, Member};
use crate::optim::lr_scheduler::ScheduleSettings;
use crate::optim::{self, OptimizerSettings, lr_scheduler};
use crate::torch;
use crate::trainer::plan::{Plan, PlanInput};
use crate::trainer::{End, Outcome, Trainer, Training, results};

/// Weights, their two moments, and the rest of a checkpoint.
const CHECKPOINT_FACTOR: u64 = 3;
const CHECKPOINT_EXTRA: u64 = 256 << 10;

/// A run before its first step.
struct Ready {
    trainer: Trainer,
    training: Training,
    test: Option<TestSet>,
    /// `None`: a stream.
    num_rows: Option<usize>,
}

/// Trains, saves, evaluates, predicts.
pub(super) fn run(run: &Run, interrupted: Arc<AtomicBool>) -> Result<Ending> {
    let _lock = OutputLock::acquire(&run.output_dir)?;
    find::clean_staging(&run.output_dir)?;
    let resume = resume_folder(run)?;
    let plugins = Plugins::load(run)?;
    let mut ready = prepare(run, (&plugins, interrupted))?;
    announce(run, &ready, resume.as_deref());
    let outcome = ready.trainer.train(&mut ready.training, resume.as_deref());
    let status = match &outcome {
        Ok(Outcome {
            end: End::Completed,
            ..
        }) => "completed",
        Ok(_) => "stopped",
        Err(_) => "failed",
    };
    ready.trainer.finish_reports(status);
    let Outcome { end, metrics, .. } = outcome?;
    if let End::Interrupted(checkpoint) = end {
        summary(&ready.trainer, &plugins);
        return Ok(Ending::Stopped(checkpoint));
    }
    let mut trainer = complete(run, ready, metrics)?;
    trainer.finish_reports(status);
    plugins.close()?;
    summary(&trainer, &plugins);
    Ok(Ending::Done)
}

/// Reads everything and builds the parts; what can be refused is refused here.
fn prepare(run: &Run, (plugins, interrupted): (&Plugins, Arc<AtomicBool>)) -> Result<Ready> {
    let wanted = Wanted {
        train: true,
        validation: run.evaluation.strategy != Strategy::No || run.do_eval,
        test: run.do_predict,
    };
    let mut inputs = inputs::read(run, wanted)?;
    check_space(run, &inputs)?;
    save::atomic_write(
        &run.output_dir.join(layout::RUN),
        &json::to_bytes(&run.published())?,
    )?;
    let rows = inputs.sets.train.take();
    let rows = rows.context("the training set was not read")?;
    let num_rows = rows.num_rows();
    let loader = inputs.train_loader(run, rows)?;
    let evaluation = evaluate::sets(run, &mut inputs)?;
    let test = TestSet::take(run, &mut inputs)?;
    let training = training(run, loader, &*inputs.model)?;
    let companions = inputs
        .tokenizer
        .as_ref()
        .map(|tokenizer| tokenizer.files().to_vec())
        .unwrap_or_default();
    let parts = parts::assemble(run, inputs, evaluation, (plugins, interrupted))?;
    torch::manual_seed(run.train.seed)?;
    Ok(Ready {
        trainer: Trainer::new(parts::config(run, companions), parts)?,
        training,
        test,
        num_rows,
    })
}

/// What follows training: the model, the results, a last evaluation, predictions.
fn complete(run: &Run, ready: Ready, mut metrics: Vec<(String, f64)>) -> Result<Trainer> {
    let Ready {
        mut trainer,
        training,
        test,
        num_rows,
    } = ready;
    // The optimizer's moments are not needed any more.
    drop(training);
    trainer.save_model()?;
    if let Some(num_rows) = num_rows {
        metrics.push(("train_samples".to_owned(), num_rows as f64));
    }
    results::save_metrics(&run.output_dir, "train", &metrics)?;
    show("train", &metrics)?;
    trainer.save_state()?;
    let is_saved = || {
        let folder = run.output_dir.display();
        format!("after training, with the model saved in {folder}")
    };
    if run.do_eval {
        evaluate::evaluate_and_show(&mut trainer, run).with_context(is_saved)?;
        // With the last evaluation in its log history.
        trainer.save_state()?;
    }
    if let Some(test) = test {
        evaluate::predict_and_show(&mut trainer, run, test).with_context(is_saved)?;
    }
    Ok(trainer)
}

fn resume_folder(run: &Run) -> Result<Option<PathBuf>> {
    match &run.train.resume {
        Resume::No => Ok(None),
        Resume::Latest => find::latest(&run.output_dir).map(Some),
        Resume::From(folder) => Ok(Some(folder.clone())),
    }
}

/// Refuses before the first step if the volume could not hold one checkpoint.
fn check_space(run: &Run, inputs: &Inputs) -> Result<()> {
    if run.saving.strategy == Strategy::No {
        return Ok(());
    }
    let state = inputs.model.state_dict();
    let weights = load::num_bytes(state.iter().map(|(_, tensor)| tensor))?;
    space::preflight(
        &run.output_dir,
        weights * CHECKPOINT_FACTOR + CHECKPOINT_EXTRA,
    )
}

fn training(run: &Run, loader: Loader, model: &dyn Model) -> Result<Training> {
    let train = &run.train;
    let plan = Plan::new(PlanInput {
        loader_len: loader.num_batches().map(|len| len as u64),
        num_rows: loader.num_rows().unwrap_or(0) as u64,
        batch_size: train.batch_size as u64,
        accumulation: train.gradient_accumulation_steps as u64,
        num_train_epochs: train.num_train_epochs,
        max_steps: train.max_steps,
        logging_steps: run.logging.steps,
        eval_steps: run.evaluation.steps,
        save_steps: run.saving.steps,
        warmup_steps: run.optimizer.warmup_steps,
        warmup_ratio: run.optimizer.warmup_ratio,
    })?;
    let settings = &run.optimizer;
    let parameters = model.parameters().iter();
    let members: Vec<_> = parameters
        .map(
            |Parameter {
                 name,
                 tensor,
                 decay,
             }| Member {
                name,
                tensor,
                decay: *decay,
            },
        )
        .collect();
    let groups = groups::build(&members, settings.learning_rate, settings.weight_decay);
    let adam = OptimizerSettings {
        beta1: settings.adam_beta1,
        beta2: settings.adam_beta2,
        epsilon: settings.adam_epsilon,
    };
    let mut optimizer = optim::create(&settings.name, groups, adam)?;
    let schedule = ScheduleSettings {
        warmup_steps: plan.warmup_steps,
        total_steps: plan.max_steps,
        learning_rate: settings.learning_rate,
    };
    let scheduler = lr_scheduler::create(
        &settings.lr_scheduler_type,
        schedule,
        optimizer.groups_mut(),
    )?;
    Ok(Training {
        loader,
        optimizer,
        scheduler,
        plan,
    })
}

fn announce(run: &Run, ready: &Ready, resume: Option<&Path>) {
    let (train, max_steps) = (&run.train, ready.training.plan.max_steps);
    let batches = format!(
        "batch {} x {} accumulated, {max_steps} steps",
        train.batch_size, train.gradient_accumulation_steps
    );
    output::status(&match ready.num_rows {
        Some(rows) => {
            let epochs = train.num_train_epochs;
            format!("training: {rows} rows, {epochs} epochs, {batches}")
        }
        None => format!("training: streamed rows, {batches}"),
    });
    if let Some(folder) = resume {
        output::status(&format!("resuming from {}", folder.display()));
    }
}

/// Non-finite steps, failed saves, who stopped the run, and one line for each plugin.
fn summary(trainer: &Trainer, plugins: &Plugins) {
    output::status(&format!(
        "steps with a loss or gradient that was not finite: {}",
        trainer.nonfinite_steps()
    ));
    if trainer.failed_saves() > 0 {
        output::status(&format!(
            "checkpoints that did not fit on the disk: {}",
            trainer.failed_saves()
        ));
    }
    for change in trainer
        .control_changes()
        .iter()
        .filter(|change| change.wish == "stop_training" && change.on)
    {
        output::status(&format!(
            "{} stopped training at step {}: {}",
            change.by, change.step, change.reason
        ));
    }
    show_usage(plugins, trainer.training_seconds());
}
