//! `host train` in the engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};

use super::inputs::{self, Inputs, Wanted};
use super::plugins::Plugins;
use super::{Ending, evaluate, parts, show};
use crate::checkpoint::{find, json, layout, load, lock::OutputLock, save, space};
use crate::cli::output;
use crate::config::run::{Resume, Run, Strategy};
use crate::data::{Dataset, Loader};
use crate::model::{Model, Parameter};
use crate::optim::groups::{self, Member};
use crate::optim::lr_scheduler::ScheduleSettings;
use crate::optim::{self, OptimizerSettings, lr_scheduler};
use crate::torch;
use crate::trainer::plan::{Plan, PlanInput};
use crate::trainer::{End, EvaluationSet, Trainer, Training, results};

/// Weights, their two moments, and the rest of a checkpoint.
const CHECKPOINT_FACTOR: u64 = 3;
const CHECKPOINT_EXTRA: u64 = 256 << 10;

/// What a training run works with.
struct Job {
    trainer: Trainer,
    training: Training,
    num_rows: usize,
    num_eval_rows: usize,
    test: Option<EvaluationSet>,
    reading: evaluate::Reading,
}

/// Trains, saves, evaluates, predicts.
pub(super) fn run(run: &Run, interrupted: Arc<AtomicBool>) -> Result<Ending> {
    let _lock = OutputLock::acquire(&run.output_dir)?;
    find::clean_staging(&run.output_dir)?;
    let resume = resume_folder(run)?;
    let plugins = Plugins::load(run)?;
    let mut job = prepare(run, &plugins, interrupted)?;
    announce(run, &job, resume.as_deref());
    let outcome = job.trainer.train(&mut job.training, resume.as_deref());
    let status = match &outcome {
        Ok(outcome) if outcome.end == End::Completed => "completed",
        Ok(_) => "stopped",
        Err(_) => "failed",
    };
    job.trainer.finish_reports(status);
    let outcome = outcome?;
    if let End::Interrupted(checkpoint) = outcome.end {
        return Ok(Ending::Stopped(checkpoint));
    }
    let trainer = deliver(run, job, outcome.metrics)?;
    plugins.close()?;
    summary(&trainer, &plugins);
    Ok(Ending::Done)
}

/// Reads the inputs and builds the trainer.
fn prepare(run: &Run, plugins: &Plugins, interrupted: Arc<AtomicBool>) -> Result<Job> {
    let wanted = Wanted {
        train: true,
        validation: run.evaluation.strategy != Strategy::No || run.do_eval,
        test: run.do_predict,
    };
    let mut inputs = inputs::read(run, wanted)?;
    check_space(run, &inputs)?;
    save::atomic_write(&run.output_dir.join(layout::RUN), &json::to_bytes(run)?)?;
    let prepared = inputs.sets.train.take();
    let prepared = prepared.context("the training set was not read")?;
    let num_rows = prepared.dataset.len();
    let loader = inputs.train_loader(run, prepared)?;
    let evaluation = evaluate::sets(run, &mut inputs)?;
    let rows = |set: &EvaluationSet| set.loader.dataset().len();
    let num_eval_rows = evaluation.iter().map(rows).sum();
    let test = evaluate::test_set(run, &mut inputs)?;
    let reading = evaluate::Reading::of(&inputs);
    let training = training(run, loader, &*inputs.model)?;
    let tokenizer = inputs.tokenizer.as_ref();
    let companions = tokenizer.map(|tokenizer| tokenizer.files().to_vec());
    let parts = parts::assemble(run, inputs, evaluation, (plugins, interrupted))?;
    torch::manual_seed(run.train.seed)?;
    let trainer = Trainer::new(parts::config(run, companions.unwrap_or_default()), parts)?;
    Ok(Job {
        trainer,
        training,
        num_rows,
        num_eval_rows,
        test,
        reading,
    })
}

/// The model, the results and the predictions of a run that has come to its end.
fn deliver(run: &Run, job: Job, mut metrics: Vec<(String, f64)>) -> Result<Trainer> {
    let mut trainer = job.trainer;
    // The moments of the optimizer are not needed any more.
    drop(job.training);
    trainer.save_model()?;
    metrics.push(("train_samples".to_owned(), job.num_rows as f64));
    results::save_metrics(&run.output_dir, "train", &metrics)?;
    show("train", &metrics)?;
    if run.do_eval {
        evaluate::evaluate_and_show(&mut trainer, run, job.num_eval_rows)?;
    }
    trainer.save_state()?;
    if let Some(mut test) = job.test {
        evaluate::predict_and_show(&mut trainer, run, &mut test, job.reading)?;
    }
    trainer.finish_reports("completed");
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
        loader_len: loader.len() as u64,
        num_rows: loader.dataset().len() as u64,
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

fn announce(run: &Run, job: &Job, resume: Option<&Path>) {
    let (train, plan) = (&run.train, &job.training.plan);
    output::status(&format!(
        "training: {} rows, {} epochs, batch {} x {} accumulated, {} steps",
        job.num_rows,
        plan.num_train_epochs,
        train.batch_size,
        train.gradient_accumulation_steps,
        plan.max_steps
    ));
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
    for line in plugins.usage_lines(trainer.training_seconds()) {
        output::status(&line);
    }
}
