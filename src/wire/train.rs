//! `host train` in the engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};

use super::card::Origin;
use super::evaluate::TestSet;
use super::hub::Pushing;
use super::inputs::{self, Wanted};
use super::plugins::Plugins;
use super::{Ending, Screen, card, evaluate, parts, show_usage, signals, this_executable};
use crate::callback::{self, Callback, Event, EventKind};
use crate::checkpoint::{find, json, layout, load, lock::OutputLock, save, space};
use crate::cli::output;
use crate::config::run::{self, Resume, Run, Strategy};
use crate::data::Loader;
use crate::error::{Failure, Kind, kind_of};
use crate::model::{Model, Task};
use crate::optim::groups::{self, Member};
use crate::optim::lr_scheduler::ScheduleSettings;
use crate::optim::{
    self, LrScheduler, Masters, Optimizer, OptimizerChoice, OptimizerSettings, ParameterGroup,
    lr_scheduler,
};
use crate::report::model_card::Facts;
use crate::torch;
use crate::trainer::plan::{Plan, PlanInput};
use crate::trainer::{self, End, Outcome, Trainer, Training, results};

/// What a checkpoint holds besides weights and the optimizer's state.
const CHECKPOINT_EXTRA: u64 = 256 << 10;

/// A run before its first step.
struct Ready {
    trainer: Trainer,
    training: Training,
    test: Option<TestSet>,
    /// `None`: a stream.
    num_rows: Option<usize>,
    /// `None`: a TorchScript module.
    task: Option<Task>,
}

/// What is there to end a run with.
struct Finish<'a> {
    test: Option<TestSet>,
    num_rows: Option<usize>,
    card: Facts,
    pushing: &'a Pushing,
}

/// Writes `run.json` when training begins: a run that is refused before that leaves the record of the earlier one alone.
struct RunRecord {
    path: PathBuf,
    content: Vec<u8>,
}

impl Callback for RunRecord {
    fn name(&self) -> &str {
        "run_record"
    }

    fn wants(&self, kind: EventKind) -> bool {
        kind == EventKind::TrainBegin
    }

    fn on_event(&mut self, _event: Event<'_>, _context: &mut callback::Context<'_>) -> Result<()> {
        save::atomic_write(&self.path, &self.content)
    }
}

/// Trains, saves, evaluates, predicts.
pub(super) fn run((run, origin): (&Run, &Origin), interrupted: Arc<AtomicBool>) -> Result<Ending> {
    let _lock = OutputLock::acquire(&run.output_dir)?;
    find::clean_staging(&run.output_dir)?;
    let resume = resume_folder(&run.output_dir, &run.train.resume)?;
    let plugins = Plugins::load(run, Some(this_executable()?))?;
    let mut ready = prepare(run, (&plugins, interrupted.clone()))?;
    let record = RunRecord {
        path: run.output_dir.join(layout::RUN),
        content: json::to_bytes(&run.published())?,
    };
    ready.trainer.callbacks_mut().push(Box::new(record));
    // The last thing that can be refused, because it leaves something behind.
    let pushing = Pushing::begin(run, ready.trainer.callbacks_mut())?;
    signals::watch(&interrupted)?;
    announce(run, &ready, resume.as_deref());
    let Ready {
        mut trainer,
        training,
        test,
        num_rows,
        task,
    } = ready;
    // The optimizer's moments are not needed any more after it.
    let outcome = attempts(run, &mut trainer, training, resume.as_deref());
    let mut screen = Screen::default();
    let finish = Finish {
        test,
        num_rows,
        card: card::facts(run, origin, task),
        pushing: &pushing,
    };
    let ending = outcome.and_then(|Outcome { end, metrics, .. }| match end {
        End::Interrupted(checkpoint) => Ok(Ending::Stopped(checkpoint)),
        End::Completed => {
            complete((run, &mut screen), &mut trainer, finish, metrics)?;
            Ok(Ending::Done)
        }
    });
    let ending = ending.inspect_err(|error| trainer.fault(error));
    trainer.finish_reports(status_of(&ending));
    let ending = ending?;
    let mut pushed = Ok(());
    if matches!(ending, Ending::Done) {
        plugins.close()?;
        pushed = pushing.finish(&interrupted);
    }
    summary(&trainer, &plugins);
    pushing.summary();
    screen.finish()?;
    pushed.map(|()| ending)
}

/// What reports call the end of a run.
fn status_of(ending: &Result<Ending>) -> &'static str {
    match ending {
        Ok(Ending::Done) => "completed",
        Ok(Ending::Stopped(_)) => "stopped",
        Err(error) if kind_of(error) == Kind::Stopped => "stopped",
        Err(_) => "failed",
    }
}

/// Reads everything and builds the parts; what can be refused is refused here.
fn prepare(run: &Run, (plugins, interrupted): (&Plugins, Arc<AtomicBool>)) -> Result<Ready> {
    let wanted = Wanted {
        train: true,
        validation: run.evaluation.strategy != Strategy::No || run.do_eval,
        test: run.do_predict,
    };
    let mut inputs = inputs::read(run, wanted, plugins)?;
    check_space(run, &*inputs.model)?;
    let rows = inputs.sets.train.take();
    let rows = rows.context("the training set was not read")?;
    let num_rows = rows.num_rows();
    parts::prepare_model(run, &mut *inputs.model)?;
    let loader = inputs.train_loader(run, rows)?;
    let evaluation = evaluate::sets(run, &mut inputs)?;
    let test = TestSet::take(run, &mut inputs)?;
    let training = training(run, loader, &*inputs.model)?;
    let task = inputs.task;
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
        task,
    })
}

/// Trains; with `auto_find_batch_size` again with half the batch size whenever memory runs out.
fn attempts(
    run: &Run,
    trainer: &mut Trainer,
    mut training: Training,
    resume: Option<&Path>,
) -> Result<Outcome> {
    if !run.train.auto_find_batch_size {
        return trainer.train(&mut training, resume);
    }
    // What has been found to fit is not tried out again.
    if let Some(size) = resume.map(trainer::batch_size_of).transpose()?.flatten()
        && size < training.loader.batch_size()
    {
        let Training { mut loader, .. } = training;
        loader.set_batch_size(size)?;
        training = self::training(run, loader, trainer.model())?;
        output::status(&format!(
            "going on with batches of {size}, which fitted before"
        ));
    }
    let beginning = trainer.beginning(&training)?;
    loop {
        let error = match trainer.train(&mut training, resume) {
            Err(error) if trainer::is_out_of_memory(&error) => error,
            outcome => return outcome,
        };
        let Training { mut loader, .. } = training;
        let (tried, size) = (loader.batch_size(), loader.batch_size() / 2);
        if size == 0 {
            let message = "no executable batch size found, reached zero";
            return Err(error.context(Failure::new(Kind::Io, message).hint(
                "even one row needs more memory than there is: set --gradient_checkpointing or a smaller --max_length",
            )));
        }
        output::status(&format!(
            "memory ran out with batches of {tried}; beginning again with batches of {size}"
        ));
        trainer.begin_again(&beginning, (&mut loader, size))?;
        training = self::training(run, loader, trainer.model())?;
    }
}

/// What follows training: the model, the results, a last evaluation, predictions.
fn complete(
    (run, screen): (&Run, &mut Screen),
    trainer: &mut Trainer,
    finish: Finish<'_>,
    mut metrics: Vec<(String, f64)>,
) -> Result<()> {
    let Finish {
        test,
        num_rows,
        card,
        pushing,
    } = finish;
    trainer.save_model()?;
    card::write(&card, (run, trainer))?;
    pushing.model_saved();
    if let Some(num_rows) = num_rows {
        metrics.push(("train_samples".to_owned(), num_rows as f64));
    }
    results::save_metrics(&run.output_dir, "train", &metrics)?;
    screen.show("train", &metrics);
    trainer.save_state()?;
    let is_saved = || {
        let folder = run.output_dir.display();
        format!("after training, with the model saved in {folder}")
    };
    if run.do_eval {
        evaluate::evaluate_and_show(trainer, (run, screen)).with_context(is_saved)?;
        // With the last evaluation in its log history.
        trainer.save_state()?;
    }
    if let Some(test) = test {
        evaluate::predict_and_show(trainer, (run, screen), test).with_context(is_saved)?;
    }
    // With the last results.
    card::write(&card, (run, trainer))
}

/// The checkpoint to go on from. The caller holds the lock of the output folder.
pub(crate) fn resume_folder(output_dir: &Path, resume: &Resume) -> Result<Option<PathBuf>> {
    match resume {
        Resume::No => Ok(None),
        Resume::Latest => find::latest(output_dir).map(Some),
        Resume::From(folder) => Ok(Some(folder.clone())),
    }
}

/// Refuses before the first step if the volume could not hold one checkpoint.
pub(crate) fn check_space(run: &Run, model: &dyn Model) -> Result<()> {
    if run.saving.strategy == Strategy::No {
        return Ok(());
    }
    let state = model.state_dict();
    let weights = load::num_bytes(state.iter().map(|(_, tensor)| tensor))?;
    let copies = 1 + optim::state_copies(&run.optimizer.name);
    space::preflight(&run.output_dir, weights * copies + CHECKPOINT_EXTRA)
}

/// The model's parameters, as groups are built from them.
pub(crate) fn members(model: &dyn Model) -> Vec<Member<'_>> {
    let mut members = Vec::new();
    for parameter in model.parameters() {
        members.push(Member {
            name: &parameter.name,
            tensor: &parameter.tensor,
            decay: parameter.decay,
        });
    }
    members
}

fn training(run: &Run, loader: Loader, model: &dyn Model) -> Result<Training> {
    let plan = plan(run, &loader)?;
    let mut optimizer = optimizer(run, model)?;
    let scheduler = scheduler(run, &plan, optimizer.groups_mut())?;
    Ok(Training {
        loader,
        optimizer,
        scheduler,
        plan,
    })
}

/// Epochs, steps and intervals over the batches of a loader.
pub(crate) fn plan(run: &Run, loader: &Loader) -> Result<Plan> {
    let train = &run.train;
    Plan::new(PlanInput {
        loader_len: loader.num_batches().map(|len| len as u64),
        num_rows: loader.num_rows().unwrap_or(0) as u64,
        batch_size: loader.batch_size() as u64,
        accumulation: train.gradient_accumulation_steps as u64,
        num_train_epochs: train.num_train_epochs,
        max_steps: train.max_steps,
        logging_steps: run.logging.steps,
        eval_steps: run.evaluation.steps,
        save_steps: run.saving.steps,
        warmup_steps: run.optimizer.warmup_steps,
        warmup_ratio: run.optimizer.warmup_ratio,
    })
}

/// The run's optimizer over the parameters of a model.
pub(crate) fn optimizer(run: &Run, model: &dyn Model) -> Result<Box<dyn Optimizer>> {
    let settings = &run.optimizer;
    let members = members(model);
    let choice = optimizer_choice(settings);
    let create = |members: &[Member<'_>]| {
        let groups = groups::build(members, settings.learning_rate, settings.weight_decay);
        optim::create(&choice, groups)
    };
    if run.precision.master_weights {
        Ok(Box::new(Masters::new(&members, create)?))
    } else {
        create(&members)
    }
}

/// The run's schedule from its first step; sets the groups' rates.
pub(crate) fn scheduler(
    run: &Run,
    plan: &Plan,
    groups: &mut [ParameterGroup],
) -> Result<Box<dyn LrScheduler>> {
    let settings = &run.optimizer;
    let schedule = ScheduleSettings {
        warmup_steps: plan.warmup_steps,
        total_steps: plan.max_steps,
        learning_rate: settings.learning_rate,
    };
    lr_scheduler::create(
        (
            &settings.lr_scheduler_type,
            &settings.lr_scheduler_kwargs.clone().into(),
        ),
        schedule,
        groups,
    )
}

fn optimizer_choice(settings: &run::Optimizer) -> OptimizerChoice {
    OptimizerChoice {
        name: settings.name.clone(),
        adam: OptimizerSettings {
            beta1: settings.adam_beta1,
            beta2: settings.adam_beta2,
            epsilon: settings.adam_epsilon,
        },
        options: settings.args.clone().into(),
        warmup_steps: settings.warmup_steps,
    }
}

fn announce(run: &Run, ready: &Ready, resume: Option<&Path>) {
    if run.logging.is_quiet() {
        return;
    }
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
    for line in trainer.report_summaries() {
        output::status(&line);
    }
    show_usage(plugins, trainer.training_seconds());
}
