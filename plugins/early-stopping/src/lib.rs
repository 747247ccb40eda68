//! Stops training when a metric has not improved for `patience` evaluations in a row: what the built-in early stopping
//! does, event for event. It compares with the best value known before this step's save.

use serde::Deserialize;
use trainer_sdk::{
    Ctx, Error, EvalHooks, Level, Plugin, Result, Run, Setup, Stateful, TrainHooks, log,
};

#[derive(Debug, Deserialize)]
struct Config {
    patience: u64,
    threshold: f64,
    metric: Option<String>,
    greater_is_better: Option<bool>,
}

struct EarlyStopping {
    patience: u64,
    threshold: f64,
    /// With its prefix `eval_`.
    metric: String,
    greater_is_better: bool,
    /// Evaluations in a row without improvement.
    count: u64,
    /// Why training must not begin, as the reference asserts in `on_train_begin`.
    objection: Option<&'static str>,
}

impl Plugin for EarlyStopping {
    type Config = Config;

    fn init(config: Config, run: &Run<'_>, _: &Setup<'_>) -> Result<Self> {
        let argument = |name: &str| run.argument(name).filter(|json| json != "null");
        let of_run =
            argument("metric_for_best_model").map(|json| json.trim_matches('"').to_owned());
        let metric = config.metric.or(of_run);
        let objection = if argument("load_best_model_at_end").as_deref() == Some("false") {
            Some("early stopping needs load_best_model_at_end")
        } else if metric.is_none() {
            Some("early stopping needs metric_for_best_model, or its own `metric`")
        } else if argument("evaluation_strategy").as_deref() == Some("\"no\"") {
            Some("early stopping needs an evaluation_strategy of steps or epoch")
        } else {
            None
        };
        let metric = metric.unwrap_or_default();
        let direction = argument("greater_is_better").map(|json| json == "true");
        let greater_is_better = config
            .greater_is_better
            .or(direction)
            .unwrap_or(!metric.ends_with("loss"));
        let metric = if metric.starts_with("eval_") {
            metric
        } else {
            format!("eval_{metric}")
        };
        Ok(Self {
            patience: config.patience,
            threshold: config.threshold,
            metric,
            greater_is_better,
            count: 0,
            objection,
        })
    }
}

impl TrainHooks for EarlyStopping {
    fn on_train_begin(&mut self, _: &Ctx<'_>) -> Result<()> {
        self.objection
            .map_or(Ok(()), |objection| Err(Error::config(objection)))
    }
}

impl EvalHooks for EarlyStopping {
    fn on_evaluate(&mut self, ctx: &Ctx<'_>, metrics: &[(String, f64)]) -> Result<()> {
        let Some((_, value)) = metrics.iter().find(|(name, _)| *name == self.metric) else {
            log(
                Level::Warn,
                &format!(
                    "early stopping watches {}, which this evaluation does not have",
                    self.metric
                ),
            );
            return Ok(());
        };
        if self.improved(*value, ctx.best_metric()) {
            self.count = 0;
        } else {
            self.count += 1;
        }
        if self.count >= self.patience {
            ctx.stop_training(&format!(
                "{} did not improve for {} evaluations",
                self.metric, self.count
            ))?;
        }
        Ok(())
    }
}

impl Stateful for EarlyStopping {
    fn save_state(&mut self) -> Result<Vec<u8>> {
        Ok(self.count.to_le_bytes().to_vec())
    }

    fn restore_state(&mut self, _version: &str, state: &[u8]) -> Result<()> {
        let bytes = state
            .try_into()
            .map_err(|_| Error::data("the state is not a count"))?;
        self.count = u64::from_le_bytes(bytes);
        Ok(())
    }
}

impl EarlyStopping {
    fn improved(&self, value: f64, best: Option<f64>) -> bool {
        let Some(best) = best else {
            return value.is_finite();
        };
        let better = if self.greater_is_better {
            value > best
        } else {
            value < best
        };
        value.is_finite() && better && (value - best).abs() > self.threshold
    }
}

trainer_sdk::manifest!("../manifest.json");
trainer_sdk::export!(EarlyStopping: train, eval, stateful);
