//! One guest with every hook and every bad habit; `attack` chooses which, `call` at the how-manyeth call it begins.

mod attacks;
mod recorder;

use std::cell::Cell;
use std::collections::HashMap;

use serde::Deserialize;
use trainer_sdk::{
    Accumulator, Batch, Better, Checkpoint, CheckpointHooks, Ctx, EpochHooks, Error, EvalHooks,
    FaultHooks, LogHooks, Logits, Metrics, OptimizerHooks, Plugin, PredictionStepHooks, Result,
    ResumeHooks, Run, Setup, Stateful, StepHooks, SubstepHooks, Tensor, TrainHooks, WholeMetrics,
};

#[derive(Clone, Debug, Deserialize)]
struct Config {
    attack: String,
    call: u64,
    every: u32,
}

struct Hostile {
    config: Config,
    calls: u64,
    counts: HashMap<&'static str, u64>,
}

thread_local! {
    /// A tensor that an earlier call has left here.
    static HELD: Cell<Option<Tensor>> = const { Cell::new(None) };
}

impl Plugin for Hostile {
    type Config = Config;

    fn init(config: Config, run: &Run<'_>, setup: &Setup<'_>) -> Result<Self> {
        setup.every_steps(config.every);
        setup.declare_metric("declared", "percent", Better::High);
        if let Some(attack) = config.attack.strip_suffix("-init") {
            attacks::compute(attack)?;
        }
        if config.attack == "facts" {
            attacks::state_facts(run)?;
        }
        Ok(Self {
            config,
            calls: 0,
            counts: HashMap::new(),
        })
    }
}

impl Hostile {
    /// The attack, when its call has come.
    fn attack(&mut self) -> Option<String> {
        self.calls += 1;
        (self.calls == self.config.call).then(|| self.config.attack.clone())
    }

    fn record(
        &mut self,
        ctx: &Ctx<'_>,
        event: &'static str,
        numbers: &[(String, f64)],
    ) -> Result<()> {
        if self.config.attack == "record" {
            let count = self.counts.entry(event).or_default();
            *count += 1;
            return recorder::record(ctx, event, *count, numbers);
        }
        if self.config.attack == "parameters" {
            return attacks::context("parameters", ctx);
        }
        match self.attack() {
            Some(attack) => attacks::context(&attack, ctx),
            None => Ok(()),
        }
    }

    fn record_checkpoint(
        &mut self,
        ctx: &Ctx<'_>,
        event: &'static str,
        checkpoint: &Checkpoint<'_>,
    ) -> Result<()> {
        if self.config.attack == "artifact" {
            return attacks::artifact(ctx, checkpoint);
        }
        let facts = [(checkpoint.name(), checkpoint.size() as f64)];
        self.record(ctx, event, &facts)
    }
}

impl TrainHooks for Hostile {
    fn on_init_end(&mut self, ctx: &Ctx<'_>) -> Result<()> {
        self.record(ctx, "init_end", &[])
    }
    fn on_train_begin(&mut self, ctx: &Ctx<'_>) -> Result<()> {
        self.record(ctx, "train_begin", &[])
    }
    fn on_train_end(&mut self, ctx: &Ctx<'_>) -> Result<()> {
        self.record(ctx, "train_end", &[])
    }
}

impl EpochHooks for Hostile {
    fn on_epoch_begin(&mut self, ctx: &Ctx<'_>) -> Result<()> {
        self.record(ctx, "epoch_begin", &[])
    }
    fn on_epoch_end(&mut self, ctx: &Ctx<'_>) -> Result<()> {
        self.record(ctx, "epoch_end", &[])
    }
}

impl StepHooks for Hostile {
    fn on_step_begin(&mut self, ctx: &Ctx<'_>) -> Result<()> {
        self.record(ctx, "step_begin", &[])
    }
    fn on_step_end(&mut self, ctx: &Ctx<'_>) -> Result<()> {
        self.record(ctx, "step_end", &[])
    }
}

impl SubstepHooks for Hostile {
    fn on_substep_end(&mut self, ctx: &Ctx<'_>) -> Result<()> {
        self.record(ctx, "substep_end", &[])
    }
}

impl EvalHooks for Hostile {
    fn on_evaluate(&mut self, ctx: &Ctx<'_>, metrics: &[(String, f64)]) -> Result<()> {
        self.record(ctx, "evaluate", metrics)
    }
    fn on_predict(&mut self, ctx: &Ctx<'_>, metrics: &[(String, f64)]) -> Result<()> {
        self.record(ctx, "predict", metrics)
    }
}

impl PredictionStepHooks for Hostile {
    fn on_prediction_step(&mut self, ctx: &Ctx<'_>) -> Result<()> {
        self.record(ctx, "prediction_step", &[])
    }
}

impl LogHooks for Hostile {
    fn on_log(&mut self, ctx: &Ctx<'_>, logs: &[(String, f64)]) -> Result<()> {
        self.record(ctx, "log", logs)
    }
}

impl OptimizerHooks for Hostile {
    fn on_pre_optimizer_step(&mut self, ctx: &Ctx<'_>) -> Result<()> {
        self.record(ctx, "pre_optimizer_step", &[])
    }
    fn on_optimizer_step(&mut self, ctx: &Ctx<'_>) -> Result<()> {
        self.record(ctx, "optimizer_step", &[])
    }
}

impl ResumeHooks for Hostile {
    fn on_resume(&mut self, ctx: &Ctx<'_>, checkpoint: &Checkpoint<'_>) -> Result<()> {
        self.record_checkpoint(ctx, "resume", checkpoint)
    }
}

impl FaultHooks for Hostile {
    fn on_fault(&mut self, ctx: &Ctx<'_>, kind: &str, message: &str) -> Result<()> {
        if self.config.attack == "tell" {
            println!("told of a fault: {kind}: {message}");
        }
        if self.config.attack == "worse-fault" {
            return Err(Error::fatal("a fault of its own"));
        }
        self.record(ctx, "fault", &[(kind.to_owned(), message.len() as f64)])
    }
}

impl CheckpointHooks for Hostile {
    fn on_save(&mut self, ctx: &Ctx<'_>, checkpoint: &Checkpoint<'_>) -> Result<()> {
        self.record_checkpoint(ctx, "save", checkpoint)
    }
}

impl Stateful for Hostile {
    fn save_state(&mut self) -> Result<Vec<u8>> {
        match self.config.attack.as_str() {
            "huge-state" => Ok(vec![0; 2 << 20]),
            "trap-state" => panic!("no state for you"),
            _ => Ok(self.calls.to_le_bytes().to_vec()),
        }
    }

    fn restore_state(&mut self, version: &str, state: &[u8]) -> Result<()> {
        let bytes = state.try_into().map_err(|_| {
            Error::data(format!(
                "a state of {} bytes from version {version}",
                state.len()
            ))
        })?;
        self.calls = u64::from_le_bytes(bytes);
        Ok(())
    }
}

impl Metrics for Hostile {
    type Accumulator = Pass;

    fn accumulator(&self, _dataset: &str) -> Pass {
        Pass {
            config: self.config.clone(),
            updates: 0,
        }
    }
}

struct Pass {
    config: Config,
    updates: u64,
}

impl Accumulator for Pass {
    fn update(&mut self, batch: &Batch<'_>) -> Result<()> {
        self.updates += 1;
        if self.updates == self.config.call {
            attacks::batch(&self.config.attack, batch)?;
        }
        Ok(())
    }

    fn compute(&self) -> Result<Vec<(String, f64)>> {
        attacks::numbers(&self.config.attack, self.updates)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.config.attack == "loop-drop" {
            let _ = attacks::compute("loop");
        }
    }
}

impl WholeMetrics for Hostile {
    fn compute_metrics(&mut self, all: &Batch<'_>) -> Result<Vec<(String, f64)>> {
        let (logits, labels) = (all.logits()?, all.target()?);
        let shape = |tensor: &Tensor| {
            Ok::<f64, Error>(
                tensor
                    .shape()?
                    .iter()
                    .fold(0.0, |all, extent| all * 100.0 + *extent as f64),
            )
        };
        Ok(vec![
            ("logits_shape".to_owned(), shape(&logits)?),
            ("labels_shape".to_owned(), shape(&labels)?),
            ("labels_sum".to_owned(), labels.sum_all()?.item()?),
            ("size".to_owned(), all.size() as f64),
        ])
    }
}

impl Logits for Hostile {
    fn preprocess(&mut self, batch: &Batch<'_>) -> Result<Vec<(String, Tensor)>> {
        let attack = self.attack();
        let logits = batch.logits()?;
        match attack.as_deref() {
            Some("rows") => Ok(vec![("logits".to_owned(), logits.narrow(0, 0, 1)?)]),
            Some("name") => Ok(vec![("log\u{7}its".to_owned(), logits)]),
            Some(attack) => {
                attacks::batch(attack, batch)?;
                Ok(vec![("logits".to_owned(), logits)])
            }
            None => Ok(vec![("logits".to_owned(), logits)]),
        }
    }
}

trainer_sdk::manifest!("../manifest.json");
trainer_sdk::export!(Hostile: train, epoch, step, substep, optimizer, eval, prediction_step, log, checkpoint, resume, fault, metrics, whole_metrics, logits, stateful);
