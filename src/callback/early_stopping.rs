//! `EarlyStoppingCallback` (spec 3.1): stops when the metric has not improved for some evaluations.

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{Callback, Context, Event, EventKind};
use crate::error::Failure;

/// Compares with the best value known **before** this step's save, as the reference does.
#[derive(Clone, Debug)]
pub struct EarlyStopping {
    /// Evaluations without improvement that end training.
    pub patience: u64,
    /// Smallest difference that counts as improvement.
    pub threshold: f64,
    /// Name of the metric with its `eval_` prefix.
    pub metric: String,
    /// Direction.
    pub greater_is_better: bool,
    counter: u64,
    /// Whether any evaluation has reported the metric; `None`: there was none yet.
    found: Option<bool>,
}

impl EarlyStopping {
    fn tell_absence(&self) {
        if self.found == Some(false) {
            tracing::warn!(
                "early stopping had no effect: no evaluation reported the metric {}",
                self.metric
            );
        }
    }

    /// `metric` with or without the `eval_` prefix.
    pub fn new(patience: u64, threshold: f64, metric: &str, greater_is_better: bool) -> Self {
        let metric = if metric.starts_with("eval_") {
            metric.to_owned()
        } else {
            format!("eval_{metric}")
        };
        Self {
            patience,
            threshold,
            metric,
            greater_is_better,
            counter: 0,
            found: None,
        }
    }

    /// What is not finite is never an improvement, as it is never the best (deliberate difference: in the reference it is,
    /// at the first evaluation).
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

impl Callback for EarlyStopping {
    fn name(&self) -> &str {
        "early_stopping"
    }

    fn wants(&self, kind: EventKind) -> bool {
        matches!(kind, EventKind::Evaluate | EventKind::TrainEnd)
    }

    fn on_event(&mut self, event: Event<'_>, context: &mut Context<'_>) -> Result<()> {
        let Event::Evaluate(metrics) = event else {
            self.tell_absence();
            return Ok(());
        };
        // Of several evaluation sets only one reports it.
        let Some((_, value)) = metrics.iter().find(|(name, _)| *name == self.metric) else {
            self.found.get_or_insert(false);
            return Ok(());
        };
        self.found = Some(true);
        if self.improved(*value, context.state.best_metric) {
            self.counter = 0;
        } else {
            self.counter += 1;
        }
        if self.counter >= self.patience {
            context.control.stop_training(&format!(
                "{} did not improve for {} evaluations",
                self.metric, self.counter
            ));
        }
        Ok(())
    }

    fn state(&self) -> Option<serde_json::Value> {
        Some(json!({ "counter": self.counter }))
    }

    fn load_state(&mut self, state: &serde_json::Value) -> Result<()> {
        self.counter = state["counter"]
            .as_u64()
            .ok_or_else(|| Failure::data("the counter is not a whole number"))
            .context("restoring early stopping")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callback::{Control, Parameters, TrainerState};

    fn evaluated(
        callback: &mut EarlyStopping,
        metrics: &[(String, f64)],
        (state, control): (&TrainerState, &mut Control),
    ) {
        let mut context = Context {
            state,
            control,
            learning_rates: &[],
            gradient_norm: None,
            elapsed_seconds: 0.0,
            micro_step: 0,
            parameters: Parameters::default(),
        };
        callback
            .on_event(Event::Evaluate(metrics), &mut context)
            .expect("no error");
    }

    /// Feeds one value per evaluation and a save after each; returns after how many evaluations it stopped.
    fn stops_after(patience: u64, threshold: f64, values: &[f64]) -> Option<usize> {
        let mut callback = EarlyStopping::new(patience, threshold, "acc", true);
        let mut state = TrainerState::new();
        let mut control = Control::default();
        for (index, value) in values.iter().enumerate() {
            let metrics = [("eval_acc".to_owned(), *value)];
            evaluated(&mut callback, &metrics, (&state, &mut control));
            if control.should_training_stop() {
                return Some(index + 1);
            }
            if value.is_finite() && state.best_metric.is_none_or(|best| *value > best) {
                state.best_metric = Some(*value);
            }
        }
        None
    }

    #[test]
    fn rows_33_to_35_of_the_specification() {
        assert_eq!(stops_after(1, 0.0, &[0.5, 0.5, 0.5]), Some(2));
        assert_eq!(stops_after(2, 0.0, &[0.5, 0.6, 0.55, 0.58, 0.7]), Some(4));
        assert_eq!(stops_after(1, 0.01, &[0.5, 0.505, 0.6]), Some(2));
        assert_eq!(stops_after(3, 0.0, &[0.5, 0.6, 0.55, 0.58, 0.7]), None);
    }

    #[test]
    fn what_is_not_finite_is_no_improvement() {
        assert_eq!(stops_after(2, 0.0, &[f64::NAN, f64::NAN, 0.5]), Some(2));
        assert_eq!(
            stops_after(2, 0.0, &[f64::NAN, 0.5, f64::INFINITY, f64::NAN]),
            Some(4)
        );
    }

    #[test]
    fn a_missing_metric_is_ignored() {
        let mut callback = EarlyStopping::new(1, 0.0, "acc", true);
        let state = TrainerState::new();
        let mut control = Control::default();
        evaluated(&mut callback, &[], (&state, &mut control));
        assert!(!control.should_training_stop());
        assert_eq!(callback.found, Some(false), "told of at the end");
        // Of several sets one reports it.
        let metrics = [("eval_acc".to_owned(), 0.5)];
        evaluated(&mut callback, &metrics, (&state, &mut control));
        evaluated(&mut callback, &[], (&state, &mut control));
        assert_eq!(callback.found, Some(true));
    }
}
