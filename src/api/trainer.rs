//! The constructor's parameters, and the trainer that is made from them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};

use super::prediction::PredictionOutput;
use super::selected::Selected;
use super::{Resume, TrainingArguments};
use crate::callback::{Callback, TrainerState};
use crate::checkpoint::find;
use crate::checkpoint::lock::OutputLock;
use crate::config::input::{Input, Supplied};
use crate::config::resolve::resolve;
use crate::config::run::{Command, Run};
use crate::config::surroundings::Surroundings;
use crate::data::collator::{DefaultCollator, PaddingCollator};
use crate::data::sampler::Sequential;
use crate::data::{Collator, Dataset, Loader, Sampler, Tokenizer, Value};
use crate::error::Failure;
use crate::loss::{self, Loss, LossSettings};
use crate::metric::{Gathered, LogitsProcessor, Metric};
use crate::model::Model;
use crate::optim::{LrScheduler, Optimizer, ParameterGroup, groups};
use crate::report::{Curves, StepRecord};
use crate::torch;
use crate::trainer::{self, End, EvaluationSet, Metrics, Outcome, Parts, Plan, Training};
use crate::wire::card::Origin;
use crate::wire::hub::Pushing;
use crate::wire::plugins::{self, Plugins};
use crate::wire::{self, card, device, inputs, parts, train};

/// Makes a model; called with the generators seeded.
pub type MakeModel = Box<dyn FnMut() -> Result<Box<dyn Model>>>;
/// Makes a collator; each loader gets one of its own.
pub type MakeCollator = Box<dyn Fn() -> Box<dyn Collator>>;
/// Makes optimizer and schedule for a model and the steps to come; called once, and again after `model_init`.
pub type MakeOptimizers = Box<dyn FnMut(&dyn Model, &Plan) -> Result<Optimizers>>;

/// What is trained.
pub enum ModelSource {
    /// This model; a second `train` goes on with its weights.
    Model(Box<dyn Model>),
    /// `model_init`: a new model at construction and at each `train`, with the generators seeded before.
    Init(MakeModel),
}

/// Own optimizer and schedule.
pub struct Optimizers {
    /// The optimizer.
    pub optimizer: Box<dyn Optimizer>,
    /// The schedule; `None`: the one of the arguments.
    pub lr_scheduler: Option<Box<dyn LrScheduler>>,
}

/// The parameters of the reference's constructor, and the loss, which its users override a method for.
pub struct TrainerParts {
    /// `model` or `model_init`.
    pub model: ModelSource,
    /// `args`. `model` and the data files in it must be left out: they are handed over here.
    pub args: TrainingArguments,
    /// `data_collator`; `None`: padding if there is a tokenizer, else the default one.
    pub data_collator: Option<MakeCollator>,
    /// `train_dataset`; needed by `train` only.
    pub train_dataset: Option<Arc<dyn Dataset>>,
    /// `eval_dataset`: one with an empty name, or several with names.
    pub eval_dataset: Vec<(String, Arc<dyn Dataset>)>,
    /// `tokenizer`: pads, and is saved with the model.
    pub tokenizer: Option<Tokenizer>,
    /// `compute_metrics`, in call order.
    pub compute_metrics: Vec<Box<dyn Metric>>,
    /// `callbacks`, after the default flow and before progress.
    pub callbacks: Vec<Box<dyn Callback>>,
    /// `optimizers`; `None`: those of the arguments.
    pub optimizers: Option<MakeOptimizers>,
    /// `preprocess_logits_for_metrics`, in call order.
    pub preprocess_logits_for_metrics: Vec<Box<dyn LogitsProcessor>>,
    /// `compute_loss`; `None`: the model's own, or label smoothing if the arguments ask for it.
    pub compute_loss: Option<Box<dyn Loss>>,
    /// Folders, the Hub and its token, the time; `None`: those of this process.
    pub surroundings: Option<Surroundings>,
}

impl TrainerParts {
    /// Only what is always needed.
    pub fn new(model: ModelSource, args: TrainingArguments) -> Self {
        Self {
            model,
            args,
            data_collator: None,
            train_dataset: None,
            eval_dataset: Vec::new(),
            tokenizer: None,
            compute_metrics: Vec::new(),
            callbacks: Vec::new(),
            optimizers: None,
            preprocess_logits_for_metrics: Vec::new(),
            compute_loss: None,
            surroundings: None,
        }
    }
}

/// A model with everything around it. Generators belong to the process: two trainers in one share them.
pub struct Trainer {
    run: Run,
    supplied: Supplied,
    trainer: trainer::Trainer,
    /// Kept from one `train` to the next, so that the optimizer goes on.
    training: Option<Training>,
    model_init: Option<MakeModel>,
    optimizers: Option<MakeOptimizers>,
    /// Whether the schedule of `training` came with the optimizer: then it goes on, else it is made anew.
    has_own_schedule: bool,
    loaders: Loaders,
    train_dataset: Option<Arc<dyn Dataset>>,
    eval_dataset: Vec<(String, Arc<dyn Dataset>)>,
    interrupted: Arc<AtomicBool>,
    plugins: Plugins,
    surroundings: Surroundings,
    pushing: Pushing,
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Trainer")
            .field("trainer", &self.trainer)
            .finish_non_exhaustive()
    }
}

impl Trainer {
    /// Checks the arguments, seeds the generators, makes the model if it is to be made, fires `on_init_end`. All findings
    /// about the arguments come in one error.
    pub fn new(parts: TrainerParts) -> Result<Self> {
        let supplied = Supplied {
            evaluation_data: !parts.eval_dataset.is_empty(),
        };
        let surroundings = parts.surroundings.map_or_else(Surroundings::read, Ok)?;
        let run = resolved(parts.args, supplied, &surroundings)?;
        let plugins = Plugins::load(&run, None)?;
        wire::set_modes(&run)?;
        torch::manual_seed(run.train.seed)?;
        let (mut model, model_init) = match parts.model {
            ModelSource::Model(model) => (model, None),
            ModelSource::Init(mut make) => (make()?, Some(make)),
        };
        parts::prepare_model(&run, &mut *model)?;
        let tokenizer = parts.tokenizer.map(Arc::new);
        if let Some(tokenizer) = &tokenizer {
            plugins.set_tokenizer(tokenizer);
        }
        let collators = collators(parts.data_collator, &plugins)?;
        let loaders = Loaders::new(&run, &*model, (collators, tokenizer));
        let evaluation = loaders.evaluation(&run, parts.eval_dataset.clone())?;
        let interrupted = Arc::new(AtomicBool::new(false));
        let callbacks = joined(plugins.callbacks(), parts.callbacks);
        let trainer_parts = Parts {
            loss: loss(parts.compute_loss, &plugins, (&run, &*model))?,
            metrics: joined(plugins.metrics(), parts.compute_metrics),
            logits: joined(plugins.logits(), parts.preprocess_logits_for_metrics),
            callbacks: parts::callbacks(&run, callbacks),
            reporters: vec![Box::new(Curves::default())],
            evaluation,
            step_record: run
                .logging
                .record_steps
                .as_deref()
                .map(StepRecord::create)
                .transpose()?,
            interrupted: interrupted.clone(),
            scaler: parts::scaler(&run),
            model,
        };
        let config = parts::config(&run, loaders.companions());
        let mut trainer = trainer::Trainer::new(config, trainer_parts)?;
        let pushing = Pushing::begin(&run, trainer.callbacks_mut())?;
        Ok(Self {
            trainer,
            supplied,
            training: None,
            model_init,
            optimizers: parts.optimizers,
            has_own_schedule: false,
            loaders,
            train_dataset: parts.train_dataset,
            eval_dataset: parts.eval_dataset,
            interrupted,
            plugins,
            surroundings,
            pushing,
            run,
        })
    }

    /// Other arguments for what comes, all of them; the optimizer goes on with its rates until `model_init` makes another
    /// model. Refused for what was made at construction with the old ones: device, precision, the form of the model, the
    /// loss, plugins, the record of steps, and where the Hub is. Callbacks that were added or taken out stay so; `progress`
    /// and early stopping are as they were.
    pub fn set_args(&mut self, args: TrainingArguments) -> Result<()> {
        let run = resolved(args, self.supplied, &self.surroundings)?;
        check_same(&self.run, &run)?;
        wire::set_modes(&run)?;
        let evaluation = self.loaders.evaluation(&run, self.eval_dataset.clone())?;
        self.trainer.set_evaluation(evaluation);
        let flow = Box::new(parts::default_flow(&run));
        self.trainer.callbacks_mut().replace(flow);
        self.trainer
            .set_config(parts::config(&run, self.loaders.companions()));
        self.run = run;
        Ok(())
    }

    /// Trains from the beginning or from a checkpoint. A second call goes on with the weights, the optimizer and the
    /// generators as they are; with `model_init` it begins anew from the seed.
    pub fn train(&mut self, resume: Resume) -> Result<Outcome> {
        let _lock = OutputLock::acquire(&self.run.output_dir)?;
        find::clean_staging(&self.run.output_dir)?;
        let folder = train::resume_folder(&self.run.output_dir, &resume)?;
        if let Some(make) = &mut self.model_init {
            torch::manual_seed(self.run.train.seed)?;
            let mut model = make()?;
            parts::prepare_model(&self.run, &mut *model)?;
            self.trainer.set_model(model);
            self.training = None;
        }
        train::check_space(&self.run, self.trainer.model())?;
        let mut training = self.training()?;
        let outcome = self.trainer.train(&mut training, folder.as_deref());
        let outcome = outcome.inspect_err(|error| self.trainer.fault(error));
        self.training = Some(training);
        let status = match &outcome {
            Ok(Outcome {
                end: End::Completed,
                ..
            }) => "completed",
            Ok(_) => "stopped",
            Err(_) => "failed",
        };
        if status == "stopped" {
            self.forget_interruption();
        }
        self.trainer.finish_reports(status);
        self.pushing.wait(&self.interrupted);
        outcome
    }

    /// An interruption ends one call; the next one is not asked to end.
    fn forget_interruption(&self) {
        self.interrupted.store(false, Ordering::Relaxed);
    }

    /// Loader, plan and schedule anew; the optimizer only if there is none yet.
    fn training(&mut self) -> Result<Training> {
        let run = &self.run;
        let rows = self.train_dataset.clone().ok_or_else(|| {
            Failure::usage("training requires a train_dataset").hint("set it in TrainerParts")
        })?;
        let loader = self.loaders.training(run, rows)?;
        let plan = train::plan(run, &loader)?;
        let own = match (&mut self.optimizers, self.training.take()) {
            (Some(_), Some(before)) => {
                let own = self.has_own_schedule.then_some(before.scheduler);
                Some((before.optimizer, own))
            }
            (Some(make), None) => {
                let made = make(self.trainer.model(), &plan)?;
                self.has_own_schedule = made.lr_scheduler.is_some();
                Some((made.optimizer, made.lr_scheduler))
            }
            (None, Some(before)) => Some((before.optimizer, None)),
            (None, None) => None,
        };
        let (mut optimizer, scheduler) = match own {
            Some(own) => own,
            None => (train::optimizer(run, self.trainer.model())?, None),
        };
        let scheduler = match scheduler {
            Some(scheduler) => scheduler,
            None => train::scheduler(run, &plan, optimizer.groups_mut())?,
        };
        Ok(Training {
            loader,
            optimizer,
            scheduler,
            plan,
        })
    }

    /// Evaluates `eval_dataset`; names begin with `eval_`. `None`: it was interrupted.
    pub fn evaluate(&mut self) -> Result<Option<Metrics>> {
        if !self.supplied.evaluation_data {
            return Err(Failure::usage("evaluation requires an eval_dataset").into());
        }
        let metrics = self.trainer.evaluate("eval")?;
        Ok(self.unless_interrupted(metrics))
    }

    /// What a pass returned; if an interruption ended it, that is over.
    fn unless_interrupted<T>(&self, result: Option<T>) -> Option<T> {
        if result.is_none() {
            self.forget_interruption();
        }
        result
    }

    /// Evaluates other rows; names begin with `prefix` and the set's name, if it has one.
    pub fn evaluate_on(
        &mut self,
        sets: Vec<(String, Arc<dyn Dataset>)>,
        prefix: &str,
    ) -> Result<Option<Metrics>> {
        let mut sets = self.loaders.evaluation(&self.run, sets)?;
        let metrics = self.trainer.evaluate_on(&mut sets, prefix)?;
        Ok(self.unless_interrupted(metrics))
    }

    /// All outputs for some rows; metrics begin with `prefix`, the reference's default is `test`. `None`: it was
    /// interrupted.
    pub fn predict(
        &mut self,
        rows: Arc<dyn Dataset>,
        prefix: &str,
    ) -> Result<Option<PredictionOutput>> {
        let mut sets = self
            .loaders
            .evaluation(&self.run, vec![(String::new(), rows)])?;
        let set = sets.first_mut().context("one set was made")?;
        let mut gathered = Gathered::default();
        let predictions = self.trainer.predict(set, prefix, &mut gathered)?;
        match self.unless_interrupted(predictions) {
            Some(predictions) => PredictionOutput::of(gathered, predictions.metrics.0).map(Some),
            None => Ok(None),
        }
    }

    /// Weights, configuration, tokenizer and arguments into the output folder; with `push_to_hub` also the model card, and all
    /// of it to the Hub, as "Model save".
    pub fn save_model(&self) -> Result<()> {
        self.trainer.save_model()?;
        if self.run.pushes() {
            self.create_model_card()?;
            self.pushing.model_saved();
        }
        Ok(())
    }

    /// The model card into the output folder, unless people have made the one that is there theirs.
    pub fn create_model_card(&self) -> Result<()> {
        let facts = card::facts(&self.run, &Origin::default(), None);
        card::write(&facts, (&self.run, &self.trainer))
    }

    /// Saves the model with its card, uploads it as "End of training", and waits for all uploads. The argument `push_to_hub`
    /// must be set, because the repository is made at construction.
    pub fn push_to_hub(&self) -> Result<()> {
        if !self.run.pushes() {
            return Err(
                Failure::usage("push_to_hub requires the argument push_to_hub")
                    .hint("set it in TrainingArguments")
                    .into(),
            );
        }
        self.trainer.save_model()?;
        self.create_model_card()?;
        self.pushing.finish(&self.interrupted)
    }

    /// The same files into another folder, which is made if it does not exist.
    pub fn save_model_to(&self, folder: &Path) -> Result<()> {
        self.trainer.save_model_to(folder)
    }

    /// `trainer_state.json` into the output folder.
    pub fn save_state(&self) -> Result<()> {
        self.trainer.save_state()
    }

    /// Appends a callback; a second one of a name is warned of, and both are called.
    pub fn add_callback(&mut self, callback: Box<dyn Callback>) {
        self.trainer.callbacks_mut().push(callback);
    }

    /// Takes the first callback of that name out, also a built-in one (`default_flow`, `progress`).
    pub fn pop_callback(&mut self, name: &str) -> Option<Box<dyn Callback>> {
        self.trainer.callbacks_mut().pop(name)
    }

    /// Names of the callbacks, in call order.
    pub fn callbacks(&self) -> Vec<String> {
        self.trainer.callbacks().names()
    }

    /// Where the run stands.
    pub fn state(&self) -> &TrainerState {
        self.trainer.state()
    }

    /// The model.
    pub fn model(&self) -> &dyn Model {
        self.trainer.model()
    }

    /// Current learning rate of each parameter group; empty before the first `train`.
    pub fn learning_rates(&self) -> Vec<f64> {
        let groups = self
            .training
            .iter()
            .flat_map(|training| training.optimizer.groups());
        groups.map(|group| group.learning_rate).collect()
    }

    /// Set it, from any thread or a signal handler, to stop after the step in progress with a checkpoint. The call that it
    /// ends clears it.
    pub fn interruption(&self) -> Arc<AtomicBool> {
        self.interrupted.clone()
    }

    /// Ends the plugins of the run, which may report what they still hold.
    pub fn close(self) -> Result<()> {
        self.plugins.close()
    }
}

/// The model's parameters in the two groups of the reference (spec 4.2), for an own optimizer: the first decays by
/// `weight_decay`, the second not.
pub fn parameter_groups(
    model: &dyn Model,
    learning_rate: f64,
    weight_decay: f64,
) -> Vec<ParameterGroup> {
    groups::build(&train::members(model), learning_rate, weight_decay)
}

/// Those of plugins, then the program's.
fn joined<T>(mut first: Vec<T>, then: Vec<T>) -> Vec<T> {
    first.extend(then);
    first
}

fn both(hook: &str, parameter: &str) -> anyhow::Error {
    let message = format!("a plugin provides the hook `{hook}`, and {parameter} is set as well");
    Failure::usage(message)
        .hint(format!("a run has one {hook}: leave one of them out"))
        .into()
}

/// The program's collator or that of a plugin; told whether rows are trained with.
fn collators(
    own: Option<MakeCollator>,
    plugins: &Plugins,
) -> Result<Option<plugins::MakeCollator>> {
    match (own, plugins.collators()) {
        (Some(_), Some(_)) => Err(both("collator", "data_collator")),
        (Some(make), None) => Ok(Some(Box::new(move |_| make()))),
        (None, make) => Ok(make),
    }
}

/// The program's loss or that of a plugin, else the default one.
fn loss(
    own: Option<Box<dyn Loss>>,
    plugins: &Plugins,
    (run, model): (&Run, &dyn Model),
) -> Result<Box<dyn Loss>> {
    match (own, plugins.loss(parts::label_names(run, model))) {
        (Some(_), Some(_)) => Err(both("loss", "compute_loss")),
        (Some(loss), None) | (None, Some(loss)) => Ok(loss),
        (None, None) => Ok(default_loss(run, model)),
    }
}

/// The model's own loss, or label smoothing.
fn default_loss(run: &Run, model: &dyn Model) -> Box<dyn Loss> {
    let settings = LossSettings {
        task: None,
        problem_type: None,
        label_smoothing_factor: run.train.label_smoothing_factor,
        shift_labels: false,
    };
    loss::for_model(model, &settings)
}

fn resolved(
    args: TrainingArguments,
    supplied: Supplied,
    surroundings: &Surroundings,
) -> Result<Run> {
    let input = Input::of_program(args, supplied);
    let resolved = resolve(Command::Train, &input, surroundings)?;
    for note in resolved.notes {
        tracing::info!("{note}");
    }
    device::settled(&resolved.run)
}

/// Refuses new arguments for what cannot be made again.
fn check_same(old: &Run, new: &Run) -> Result<()> {
    let fixed = [
        ("use_cpu", old.device == new.device),
        ("precision", old.precision == new.precision),
        ("model arguments", old.model == new.model),
        (
            "gradient_checkpointing and debug",
            old.train.gradient_checkpointing == new.train.gradient_checkpointing
                && old.train.watch_numbers == new.train.watch_numbers,
        ),
        (
            "label_smoothing_factor",
            old.train.label_smoothing_factor == new.train.label_smoothing_factor,
        ),
        ("plugin arguments", old.plugins == new.plugins),
        ("hub arguments", old.hub == new.hub),
        (
            "record_steps",
            old.logging.record_steps == new.logging.record_steps,
        ),
        (
            "remove_unused_columns",
            old.data.remove_unused_columns == new.data.remove_unused_columns,
        ),
    ];
    let changed: Vec<&str> = fixed
        .iter()
        .filter(|(_, same)| !same)
        .map(|(name, _)| *name)
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    let message = format!(
        "a trainer cannot change these after it was made: {}",
        changed.join(", ")
    );
    Err(Failure::usage(message).hint("make another trainer").into())
}

/// How rows become batches.
struct Loaders {
    /// Told whether the rows are trained with.
    collators: Option<plugins::MakeCollator>,
    tokenizer: Option<Arc<Tokenizer>>,
    main_input: String,
    /// Columns that are kept; `None`: all.
    columns: Option<Vec<String>>,
}

impl Loaders {
    fn new(
        run: &Run,
        model: &dyn Model,
        (collators, tokenizer): (Option<plugins::MakeCollator>, Option<Arc<Tokenizer>>),
    ) -> Self {
        let names = || {
            let arguments = model.forward_arguments().iter().cloned();
            arguments.chain(parts::label_names(run, model)).collect()
        };
        Self {
            collators,
            tokenizer,
            main_input: model.main_input().to_owned(),
            columns: run.data.remove_unused_columns.then(names),
        }
    }

    /// Files that are saved with the model.
    fn companions(&self) -> Vec<std::path::PathBuf> {
        let files = self
            .tokenizer
            .as_ref()
            .map(|tokenizer| tokenizer.files().to_vec());
        files.unwrap_or_default()
    }

    fn selected(&self, rows: Arc<dyn Dataset>) -> Arc<dyn Dataset> {
        match &self.columns {
            Some(names) => Arc::new(Selected::new(rows, names.clone())),
            None => rows,
        }
    }

    fn loader(
        &self,
        run: &Run,
        rows: Arc<dyn Dataset>,
        (sampler, batch_size): (Box<dyn Sampler>, usize),
        is_training: bool,
    ) -> Result<Loader> {
        let collator: Box<dyn Collator> = match (&self.collators, &self.tokenizer) {
            (Some(make), _) => make(is_training),
            (None, Some(tokenizer)) => Box::new(PaddingCollator::new(tokenizer.padding())),
            (None, None) => Box::new(DefaultCollator),
        };
        Loader::new(
            (self.selected(rows), sampler),
            inputs::batching(run, (collator, batch_size)),
        )
    }

    fn training(&self, run: &Run, rows: Arc<dyn Dataset>) -> Result<Loader> {
        let lengths = if run.data.group_by_length {
            let given = &run.data.length_column_name;
            let has_given = rows.columns().iter().any(|name| **name == **given);
            let column = if has_given { given } else { &self.main_input };
            Some(lengths(&*rows, column)?)
        } else {
            None
        };
        let sampler = inputs::train_sampler(run, lengths)?;
        self.loader(run, rows, (sampler, run.train.batch_size), true)
    }

    fn evaluation(
        &self,
        run: &Run,
        sets: Vec<(String, Arc<dyn Dataset>)>,
    ) -> Result<Vec<EvaluationSet>> {
        let batch_size = run.evaluation.batch_size;
        let set = |(name, rows)| {
            let order: Box<dyn Sampler> = Box::new(Sequential);
            let loader = self.loader(run, rows, (order, batch_size), false)?;
            Ok(EvaluationSet {
                name,
                loader,
                batch_size,
            })
        };
        sets.into_iter().map(set).collect()
    }
}

/// A column of lengths, or the lengths of a column's lists.
fn lengths(rows: &dyn Dataset, column: &str) -> Result<Vec<usize>> {
    let is_given = !rows.is_empty() && matches!(rows.get(0)?.get(column), Some(Value::Int(_)));
    if !is_given {
        return rows.row_lengths(column);
    }
    let length = |index| match rows.get(index)?.get(column) {
        Some(Value::Int(length)) => Ok(usize::try_from(*length)?),
        other => bail!(
            "{}: field {column:?} is {other:?}; expected a length",
            rows.locate(index)
        ),
    };
    (0..rows.len()).map(length).collect()
}
