//! The run as a plugin sees it, and what a callback may ask of it.

use crate::error::Result;
use crate::hooks::host::rng::Rng as HostRng;
use crate::hooks::host::{artifact, log as host_log, run};
use crate::tensor::Tensor;

pub use crate::hooks::host::types::{Better, Level};
pub use run::Progress;

/// Writes a line to the run's log.
pub fn log(level: Level, message: &str) {
    host_log::log(level, message, &[]);
}

/// The run as a whole.
#[derive(Debug)]
pub struct Run<'a>(&'a run::Run);

impl<'a> Run<'a> {
    /// For the exporting macros.
    #[doc(hidden)]
    pub fn new(run: &'a run::Run) -> Self {
        Self(run)
    }

    /// The plugin's id.
    pub fn id(&self) -> String {
        self.0.id()
    }

    /// The plugin's name in this run.
    pub fn name(&self) -> String {
        self.0.name()
    }

    /// The number of this process.
    pub fn rank(&self) -> u32 {
        self.0.rank()
    }

    /// How many processes there are.
    pub fn world_size(&self) -> u32 {
        self.0.world_size()
    }

    /// Whether this is the first process.
    pub fn is_main(&self) -> bool {
        self.0.is_main()
    }

    /// A training argument as JSON, by its Hugging Face name.
    pub fn argument(&self, name: &str) -> Option<String> {
        self.0.arg(name)
    }

    /// The host's version.
    pub fn host_version(&self) -> String {
        self.0.host_version()
    }

    /// Whether the host has a feature.
    pub fn has(&self, feature: &str) -> bool {
        self.0.has(feature)
    }
}

/// Says in `init` which calls a plugin wants.
#[derive(Debug)]
pub struct Setup<'a>(&'a run::Setup);

impl<'a> Setup<'a> {
    /// For the exporting macros.
    #[doc(hidden)]
    pub fn new(setup: &'a run::Setup) -> Self {
        Self(setup)
    }

    /// Step hooks only at every n-th step.
    pub fn every_steps(&self, n: u32) {
        self.0.every_steps(n);
    }

    /// Callbacks on the first process only.
    pub fn main_rank_only(&self) {
        self.0.main_rank_only();
    }

    /// Announces a metric: its name, its unit (may be empty), and which values are better.
    pub fn declare_metric(&self, name: &str, unit: &str, better: Better) {
        self.0.declare_metric(name, unit, better);
    }
}

/// One hook call.
#[derive(Debug)]
pub struct Ctx<'a>(&'a run::Ctx);

impl<'a> Ctx<'a> {
    /// For the exporting macros.
    #[doc(hidden)]
    pub fn new(ctx: &'a run::Ctx) -> Self {
        Self(ctx)
    }

    /// Steps, epochs and time.
    pub fn progress(&self) -> Progress {
        self.0.progress()
    }

    /// The newest logged value.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.0.metric(name)
    }

    /// The best value of the metric that chooses the best model.
    pub fn best_metric(&self) -> Option<f64> {
        self.0.best_metric()
    }

    /// One per parameter group.
    pub fn learning_rates(&self) -> Vec<f64> {
        self.0.learning_rates()
    }

    /// Of the last step before clipping.
    pub fn gradient_norm(&self) -> Option<f64> {
        self.0.gradient_norm()
    }

    /// Whether training will stop after this step.
    pub fn is_stopping(&self) -> bool {
        self.0.is_stopping()
    }

    /// Stops training after this step.
    pub fn stop_training(&self, reason: &str) -> Result<()> {
        Ok(self.0.stop_training(reason)?)
    }

    /// Stops the epoch after this step.
    pub fn stop_epoch(&self, reason: &str) -> Result<()> {
        Ok(self.0.stop_epoch(reason)?)
    }

    /// Whether a checkpoint is due.
    pub fn saves(&self) -> bool {
        self.0.saves()
    }

    /// Asks for a checkpoint, or takes the wish back.
    pub fn set_save(&self, on: bool) -> Result<()> {
        Ok(self.0.set_save(on)?)
    }

    /// Whether an evaluation is due.
    pub fn evaluates(&self) -> bool {
        self.0.evaluates()
    }

    /// Asks for an evaluation, or takes the wish back.
    pub fn set_evaluate(&self, on: bool) -> Result<()> {
        Ok(self.0.set_evaluate(on)?)
    }

    /// Whether a log entry is due.
    pub fn logs(&self) -> bool {
        self.0.logs()
    }

    /// Asks for a log entry, or takes the wish back.
    pub fn set_log(&self, on: bool) -> Result<()> {
        Ok(self.0.set_log(on)?)
    }

    /// A value for the next log entry.
    pub fn emit(&self, name: &str, value: f64) -> Result<()> {
        Ok(self.0.emit(name, value)?)
    }

    /// The same for a tensor with one element, without waiting for the device.
    pub fn emit_tensor(&self, name: &str, value: &Tensor) -> Result<()> {
        Ok(self.0.emit_tensor(name, value.handle())?)
    }

    /// Random numbers that follow from the run's seed, the step and a purpose.
    pub fn rng(&self, purpose: &str) -> Rng<'static> {
        Rng(Stream::Own(self.0.rng(purpose)))
    }

    /// Parameters whose names match a pattern such as `*.bias`, as they are. Needs the capability `parameters`.
    pub fn parameters(&self, pattern: &str) -> Result<Vec<(String, Tensor)>> {
        Ok(named(self.0.parameters(pattern)?))
    }

    /// The same for the gradients that there are now. Needs the capability `gradients`.
    pub fn gradients(&self, pattern: &str) -> Result<Vec<(String, Tensor)>> {
        Ok(named(self.0.gradients(pattern)?))
    }
}

fn named(handles: Vec<(String, crate::hooks::host::tensor::Tensor)>) -> Vec<(String, Tensor)> {
    let handles = handles.into_iter();
    handles
        .map(|(name, tensor)| (name, tensor.into()))
        .collect()
}

/// A stream of random numbers.
#[derive(Debug)]
pub struct Rng<'a>(Stream<'a>);

#[derive(Debug)]
enum Stream<'a> {
    Own(HostRng),
    Lent(&'a HostRng),
}

impl<'a> Rng<'a> {
    /// For the exporting macros.
    #[doc(hidden)]
    pub fn new(stream: &'a HostRng) -> Self {
        Self(Stream::Lent(stream))
    }

    fn stream(&self) -> &HostRng {
        match &self.0 {
            Stream::Own(stream) => stream,
            Stream::Lent(stream) => stream,
        }
    }

    /// The next 64 bits.
    pub fn next_u64(&self) -> u64 {
        self.stream().next_u64()
    }

    /// float32 in [0, 1).
    pub fn uniform(&self, shape: &[u64]) -> Result<Tensor> {
        Ok(self.stream().uniform(shape)?.into())
    }

    /// boolean, true with probability `p`.
    pub fn bernoulli(&self, shape: &[u64], p: f64) -> Result<Tensor> {
        Ok(self.stream().bernoulli(shape, p)?.into())
    }

    /// signed64 in [low, high).
    pub fn integers(&self, shape: &[u64], low: i64, high: i64) -> Result<Tensor> {
        Ok(self.stream().integers(shape, low, high)?.into())
    }

    /// `0 .. n` in random order.
    pub fn permutation(&self, n: u64) -> Result<Tensor> {
        Ok(self.stream().permutation(n)?.into())
    }
}

/// A checkpoint of the run.
#[derive(Debug)]
pub struct Checkpoint<'a>(&'a artifact::Artifact);

impl<'a> Checkpoint<'a> {
    /// For the exporting macros.
    #[doc(hidden)]
    pub fn new(checkpoint: &'a artifact::Artifact) -> Self {
        Self(checkpoint)
    }

    /// The folder's name, such as `checkpoint-500`.
    pub fn name(&self) -> String {
        self.0.name()
    }

    /// Bytes of its files.
    pub fn size(&self) -> u64 {
        self.0.size()
    }

    /// Names and bytes of its files. Needs the capability `artifact:read`, as what follows.
    pub fn files(&self) -> Result<Vec<(String, u64)>> {
        Ok(self.0.files()?)
    }

    /// SHA-256 of a file in hexadecimal.
    pub fn sha256(&self, file: &str) -> Result<String> {
        Ok(self.0.sha256(file)?)
    }

    /// Bytes `offset .. offset + len` of a file; fewer where it ends.
    pub fn read(&self, file: &str, offset: u64, len: u32) -> Result<Vec<u8>> {
        Ok(self.0.read(file, offset, len)?)
    }
}
