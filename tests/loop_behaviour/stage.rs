//! What the tests of the loop play on: a line y = ax + b as a native model, metrics from a list, a callback that records,
//! and runs that are described by a few fields.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use host::amp::{Precision, Scaler};
use host::callback::{
    Callback, Callbacks, Change, Context, DefaultFlow, EVENT_KINDS, EarlyStopping, Event,
    EventKind, Schedule, TrainerState,
};
use host::data::collator::DefaultCollator;
use host::data::loader::Batching;
use host::data::sampler::{Random, Sequential};
use host::data::{Batch, Example, Loader, Sampler, Table, Value};
use host::loss::ModelLoss;
use host::metric::{EvaluationBatch, LogitsProcessor, Metric};
use host::model::{Model, Outputs, Parameter};
use host::optim::groups::{self, Member};
use host::optim::lr_scheduler::{self, ScheduleSettings};
use host::optim::{self, OptimizerChoice, OptimizerSettings, Options};
use host::trainer::plan::PlanInput;
use host::trainer::{
    BestModel, Config, EvaluationSet, OnNonfinite, Outcome, Parts, Plan, Trainer, Training,
};
use tch::{Device, Kind, Reduction, Tensor};
use tempfile::TempDir;

/// y = ax + b with the mean squared error as its own loss.
pub struct Line {
    main_input: &'static str,
    parameters: Vec<Parameter>,
    arguments: Vec<String>,
}

impl Line {
    pub fn new(main_input: &'static str) -> Self {
        let parameter = |name: &str| Parameter {
            name: name.to_owned(),
            tensor: Tensor::from(0.0_f32).set_requires_grad(true),
            decay: true,
        };
        Self {
            main_input,
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

    fn main_input(&self) -> &str {
        self.main_input
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
        let x = batch.get("x").expect("the column x");
        let y = &self.parameters[0].tensor * x + &self.parameters[1].tensor;
        let loss = batch
            .get("labels")
            .map(|labels| y.mse_loss(labels, Reduction::Mean));
        Ok(Outputs {
            loss,
            fields: vec![("logits".to_owned(), y)],
        })
    }

    fn floating_point_operations(&self, batch: &Batch) -> f64 {
        batch.len() as f64
    }
}

/// A metric that gives the values of a list, one a pass; the last one again and again.
struct Playback(VecDeque<f64>);

impl Metric for Playback {
    fn name(&self) -> &str {
        "playback"
    }

    fn reset(&mut self, _dataset: &str) -> Result<()> {
        Ok(())
    }

    fn update(&mut self, _batch: &EvaluationBatch<'_>) -> Result<()> {
        Ok(())
    }

    fn compute(&mut self) -> Result<Vec<(String, f64)>> {
        let value = if self.0.len() > 1 {
            self.0.pop_front()
        } else {
            self.0.front().copied()
        };
        Ok(vec![("acc".to_owned(), value.expect("a value"))])
    }
}

/// The mean of the first output, as the metrics see it.
pub struct Mean(pub Option<&'static str>);

impl Metric for Mean {
    fn name(&self) -> &str {
        "mean"
    }

    fn reset(&mut self, _dataset: &str) -> Result<()> {
        MEANS.take();
        Ok(())
    }

    fn update(&mut self, batch: &EvaluationBatch<'_>) -> Result<()> {
        assert_eq!(batch.outputs[0].1.size()[0], batch.size as i64);
        MEANS.with_borrow_mut(|means| means.push(mean(&batch.outputs[0].1)));
        Ok(())
    }

    fn compute(&mut self) -> Result<Vec<(String, f64)>> {
        let means = MEANS.take();
        let value = means.iter().sum::<f64>() / means.len() as f64;
        Ok(vec![("mean".to_owned(), value)])
    }

    fn names(&self) -> Option<Vec<String>> {
        self.0.map(|name| vec![name.to_owned()])
    }
}

thread_local! {
    static MEANS: std::cell::RefCell<Vec<f64>> = const { std::cell::RefCell::new(Vec::new()) };
}

fn mean(tensor: &Tensor) -> f64 {
    tensor.mean(tch::Kind::Double).double_value(&[])
}

/// Adds one to the first output.
pub struct PlusOne;

impl LogitsProcessor for PlusOne {
    fn name(&self) -> &str {
        "plus one"
    }

    fn preprocess(&mut self, batch: &EvaluationBatch<'_>) -> Result<Vec<(String, Tensor)>> {
        let (name, logits) = &batch.outputs[0];
        Ok(vec![(name.clone(), logits + 1.0)])
    }
}

/// As the reference calls an event, without `on_`.
pub fn name_of(kind: EventKind) -> &'static str {
    match kind {
        EventKind::InitEnd => "init_end",
        EventKind::TrainBegin => "train_begin",
        EventKind::TrainEnd => "train_end",
        EventKind::EpochBegin => "epoch_begin",
        EventKind::EpochEnd => "epoch_end",
        EventKind::StepBegin => "step_begin",
        EventKind::SubstepEnd => "substep_end",
        EventKind::StepEnd => "step_end",
        EventKind::Evaluate => "evaluate",
        EventKind::Predict => "predict",
        EventKind::Save => "save",
        EventKind::Log => "log",
        EventKind::PredictionStep => "prediction_step",
        EventKind::PreOptimizerStep => "pre_optimizer_step",
        EventKind::OptimizerStep => "optimizer_step",
        EventKind::Resume => "resume",
        EventKind::Fault => "fault",
    }
}

/// What a test wants to do at events.
pub type Wish = fn(Event<'_>, &mut Context<'_>);

/// Records events by the reference's names, then does what the test wants.
struct Recorder {
    events: Arc<Mutex<Vec<String>>>,
    wish: Option<Wish>,
    own_events: bool,
    calls: u64,
    signal_at: Option<usize>,
    interrupted: Arc<AtomicBool>,
}

impl Callback for Recorder {
    fn name(&self) -> &str {
        "recorder"
    }

    fn wants(&self, kind: EventKind) -> bool {
        self.own_events || EVENT_KINDS.contains(&kind)
    }

    fn on_event(&mut self, event: Event<'_>, context: &mut Context<'_>) -> Result<()> {
        let mut events = self.events.lock().expect("the events");
        if self.signal_at == Some(events.len()) {
            self.interrupted.store(true, Ordering::Relaxed);
        }
        events.push(name_of(event.kind()).to_owned());
        drop(events);
        self.calls += u64::from(event.kind() == EventKind::StepEnd);
        if let Some(wish) = self.wish {
            wish(event, context);
        }
        Ok(())
    }

    fn state(&self) -> Option<serde_json::Value> {
        Some(self.calls.into())
    }

    fn load_state(&mut self, state: &serde_json::Value) -> Result<()> {
        self.calls = state.as_u64().expect("a count");
        Ok(())
    }

    fn take_emitted(&mut self) -> Vec<(String, f64)> {
        vec![("calls".to_owned(), self.calls as f64)]
    }
}

/// A run of the line. Defaults: data D, 64 rows in batches of 8, 3 epochs, AdamW at .1, nothing logged, evaluated, saved.
pub struct Play {
    pub rows: usize,
    pub batch_size: usize,
    pub accumulation: u64,
    pub epochs: f64,
    pub max_steps: Option<u64>,
    pub drop_last: bool,
    pub workers: usize,
    /// The reference's random order; else rows come in file order.
    pub shuffled: bool,
    /// Rows of the training set whose x is `bad_x`.
    pub bad_rows: &'static [usize],
    pub bad_x: f64,
    pub learning_rate: f64,
    pub scheduler: &'static str,
    pub max_grad_norm: Option<f64>,
    pub precision: Precision,
    pub scaler: Option<Box<dyn Scaler>>,
    pub logging: (Schedule, f64),
    pub logging_first_step: bool,
    pub nan_inf_filter: bool,
    pub on_nonfinite: OnNonfinite,
    pub evaluation: (Schedule, f64),
    pub evaluation_delay: f64,
    pub has_labels: bool,
    pub memory_metrics: bool,
    pub loss_only: bool,
    pub include_inputs: bool,
    pub eval_accumulation_steps: Option<usize>,
    pub main_input: &'static str,
    pub metric: &'static [f64],
    pub metrics: Vec<Box<dyn Metric>>,
    pub logits: Vec<Box<dyn LogitsProcessor>>,
    pub saving: (Schedule, f64),
    pub total_limit: Option<usize>,
    pub best: Option<&'static str>,
    pub load_best: bool,
    pub patience: Option<(u64, f64)>,
    pub wish: Option<Wish>,
    /// Records the events that the reference does not have, too.
    pub own_events: bool,
    pub resume: Option<PathBuf>,
    /// Trains again with the same trainer.
    pub times: usize,
    /// Evaluates after training, as `host train` does.
    pub evaluates_at_end: bool,
    /// A signal comes at this event of the run, by its number.
    pub signal_at: Option<usize>,
}

impl Default for Play {
    fn default() -> Self {
        Self {
            rows: 64,
            batch_size: 8,
            accumulation: 1,
            epochs: 3.0,
            max_steps: None,
            drop_last: false,
            workers: 0,
            shuffled: false,
            bad_rows: &[],
            bad_x: f64::NAN,
            learning_rate: 0.1,
            scheduler: "linear",
            max_grad_norm: Some(1.0),
            precision: Precision::default(),
            scaler: None,
            logging: (Schedule::Never, 500.0),
            logging_first_step: false,
            nan_inf_filter: true,
            on_nonfinite: OnNonfinite::Warn,
            evaluation: (Schedule::Never, 500.0),
            evaluation_delay: 0.0,
            has_labels: true,
            memory_metrics: false,
            loss_only: false,
            include_inputs: false,
            eval_accumulation_steps: None,
            main_input: "x",
            metric: &[],
            metrics: Vec::new(),
            logits: Vec::new(),
            saving: (Schedule::Never, 500.0),
            total_limit: None,
            best: None,
            load_best: false,
            patience: None,
            wish: None,
            own_events: false,
            resume: None,
            times: 1,
            evaluates_at_end: false,
            signal_at: None,
        }
    }
}

/// A run that has ended, and its folder.
pub struct Played {
    pub folder: TempDir,
    pub outcome: Result<Outcome>,
    pub state: TrainerState,
    pub events: Vec<String>,
    pub changes: Vec<Change>,
    pub nonfinite_steps: u64,
    pub parameters: [f64; 2],
    pub kind: Kind,
    /// Metrics of the evaluation after training.
    pub evaluated: Vec<(String, f64)>,
}

impl Played {
    /// What the run returned.
    pub fn ok(&self) -> &Outcome {
        self.outcome.as_ref().expect("the run succeeds")
    }

    /// Steps of the checkpoints that are left.
    pub fn checkpoints(&self) -> Vec<u64> {
        crate::resume::checkpoints(self.folder.path())
    }

    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.folder.path().join(format!("checkpoint-{step}"))
    }

    /// (step, value) of the log entries that have it.
    pub fn logged(&self, name: &str) -> Vec<(u64, f64)> {
        let entries = self.state.log_history.iter();
        let value = |entry: &serde_json::Map<String, serde_json::Value>| {
            let value = entry.get(name)?;
            // What JSON has no number for is written as text.
            let value = value
                .as_f64()
                .or_else(|| value.as_str().and_then(|text| text.parse().ok()))?;
            Some((entry["step"].as_u64()?, value))
        };
        entries.filter_map(value).collect()
    }

    /// Steps of the log entries that have a value.
    pub fn steps_with(&self, name: &str) -> Vec<u64> {
        self.logged(name)
            .into_iter()
            .map(|(step, _)| step)
            .collect()
    }
}

/// libtorch's generator belongs to the process.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Play {
    pub fn run(mut self) -> Played {
        let _alone = alone();
        let folder = tempfile::tempdir().expect("a folder");
        tch::manual_seed(42);
        let events = Arc::new(Mutex::new(Vec::new()));
        let model = Line::new(self.main_input);
        let handles: Vec<Tensor> = model.state_dict().into_iter().map(|(_, t)| t).collect();
        let mut training = self.training(&model).expect("the parts of training");
        let parts = self.parts(model, events.clone());
        let config = self.config(folder.path());
        let mut trainer = Trainer::new(config, parts).expect("a trainer");
        let mut outcome = trainer.train(&mut training, self.resume.as_deref());
        for _ in 1..self.times {
            outcome = trainer.train(&mut training, None);
        }
        let evaluated = if self.evaluates_at_end {
            let metrics = trainer.evaluate("eval").expect("an evaluation");
            metrics.expect("no signal").0
        } else {
            Vec::new()
        };
        let value = |index: usize| handles[index].double_value(&[]);
        Played {
            outcome,
            state: trainer.state().clone(),
            events: std::mem::take(&mut *events.lock().expect("the events")),
            changes: trainer.control_changes().to_vec(),
            nonfinite_steps: trainer.nonfinite_steps(),
            parameters: [value(0), value(1)],
            kind: handles[0].kind(),
            evaluated,
            folder,
        }
    }

    fn data(&self, has_labels: bool, bad_rows: &[usize]) -> Arc<Table> {
        let row = |index: usize| {
            let x = ((37 * index) % 64) as f64 / 16.0 - 2.0;
            let noise = if index.is_multiple_of(2) { 0.1 } else { -0.1 };
            let shown = if bad_rows.contains(&index) {
                self.bad_x
            } else {
                x
            };
            let mut columns = vec![("x".into(), Value::Float(shown))];
            if has_labels {
                columns.push(("labels".into(), Value::Float(2.0 * x + 3.0 + noise)));
            }
            Example { columns }
        };
        let rows: Vec<Example> = (0..self.rows).map(row).collect();
        Arc::new(Table::from_examples(&rows).expect("a table"))
    }

    fn loader(&self, dataset: Arc<Table>, sampler: Box<dyn Sampler>) -> Loader {
        Loader::new(
            (dataset, sampler),
            Batching {
                drop_last: self.drop_last,
                workers: self.workers,
                ..Batching::new(Box::new(DefaultCollator), self.batch_size)
            },
        )
        .expect("a loader")
    }

    fn training(&self, model: &Line) -> Result<Training> {
        let sampler: Box<dyn Sampler> = if self.shuffled {
            Box::new(Random::new())
        } else {
            Box::new(Sequential)
        };
        let loader = self.loader(self.data(true, self.bad_rows), sampler);
        let plan = Plan::new(PlanInput {
            loader_len: loader.num_batches().map(|len| len as u64),
            num_rows: self.rows as u64,
            batch_size: self.batch_size as u64,
            accumulation: self.accumulation,
            num_train_epochs: self.epochs,
            max_steps: self.max_steps,
            logging_steps: self.logging.1,
            eval_steps: self.evaluation.1,
            save_steps: self.saving.1,
            warmup_steps: 0,
            warmup_ratio: 0.0,
        })?;
        let member = |parameter: &'_ Parameter| -> (String, Tensor) {
            (parameter.name.clone(), parameter.tensor.shallow_clone())
        };
        let named: Vec<_> = model.parameters().iter().map(member).collect();
        let members: Vec<Member<'_>> = named
            .iter()
            .map(|(name, tensor)| Member {
                name,
                tensor,
                decay: true,
            })
            .collect();
        let settings = OptimizerSettings {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
        };
        let groups = groups::build(&members, self.learning_rate, 0.0);
        let choice = OptimizerChoice {
            name: "adamw_torch".to_owned(),
            adam: settings,
            options: Options::default(),
            warmup_steps: 0,
        };
        let mut optimizer = optim::create(&choice, groups)?;
        let schedule = ScheduleSettings {
            warmup_steps: 0,
            total_steps: plan.max_steps,
            learning_rate: self.learning_rate,
        };
        let scheduler = lr_scheduler::create(
            (self.scheduler, &Options::default()),
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

    fn parts(&mut self, model: Line, events: Arc<Mutex<Vec<String>>>) -> Parts {
        let mut callbacks = Callbacks::default();
        callbacks.push(Box::new(DefaultFlow {
            logging: self.logging.0,
            logging_first_step: self.logging_first_step,
            evaluation: self.evaluation.0,
            evaluation_delay: self.evaluation_delay,
            saving: self.saving.0,
        }));
        if let Some((patience, threshold)) = self.patience {
            let metric = self.best.expect("a metric to stop by");
            let stopping = EarlyStopping::new(patience, threshold, metric, metric != "loss");
            callbacks.push(Box::new(stopping));
        }
        let interrupted = Arc::new(AtomicBool::new(false));
        callbacks.push(Box::new(Recorder {
            events,
            wish: self.wish,
            own_events: self.own_events,
            calls: 0,
            signal_at: self.signal_at,
            interrupted: interrupted.clone(),
        }));
        let mut metrics = std::mem::take(&mut self.metrics);
        if !self.metric.is_empty() {
            metrics.push(Box::new(Playback(self.metric.iter().copied().collect())));
        }
        let loader = self.loader(self.data(self.has_labels, &[]), Box::new(Sequential));
        Parts {
            model: Box::new(model),
            loss: Box::new(ModelLoss),
            metrics,
            logits: std::mem::take(&mut self.logits),
            callbacks,
            reporters: Vec::new(),
            evaluation: vec![EvaluationSet {
                name: String::new(),
                loader,
                batch_size: self.batch_size,
            }],
            step_record: None,
            scaler: self.scaler.take(),
            interrupted,
        }
    }

    fn config(&self, output_dir: &Path) -> Config {
        Config {
            output_dir: output_dir.to_owned(),
            device: Device::Cpu,
            precision: self.precision,
            max_grad_norm: self.max_grad_norm,
            nan_inf_filter: self.nan_inf_filter,
            on_nonfinite: self.on_nonfinite,
            best: self.best.map(|metric| BestModel {
                metric: metric.to_owned(),
                greater_is_better: metric != "loss",
                load_at_end: self.load_best,
            }),
            save_total_limit: self.total_limit,
            stop_on_disk_full: true,
            ignore_keys: None,
            eval_accumulation_steps: self.eval_accumulation_steps,
            prediction_loss_only: self.loss_only,
            include_inputs: self.include_inputs,
            jit_mode_eval: false,
            past_index: None,
            label_names: None,
            ignore_data_skip: false,
            memory_metrics: self.memory_metrics,
            tokens_per_second: false,
            arguments: serde_json::json!({}),
            companions: Vec::new(),
        }
    }
}
