//! `TrainerState`: the 16 fields of the reference, which are also `trainer_state.json` (spec 3.1, 5.4).

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

/// Where a run stands. Field names and types are the reference's; an unknown field in a file is an error there too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainerState {
    /// Best value of the metric for the best model, once a save followed an evaluation.
    pub best_metric: Option<f64>,
    /// The checkpoint folder that holds it.
    pub best_model_checkpoint: Option<String>,
    /// Epochs done, as a fraction.
    pub epoch: Option<f64>,
    /// Evaluation interval in steps, resolved.
    #[serde(serialize_with = "whole_number")]
    pub eval_steps: f64,
    /// Optimizer steps done.
    pub global_step: u64,
    /// Always false here: hyperparameter search is not part of this program.
    pub is_hyper_param_search: bool,
    /// Whether this is the first process of its host.
    pub is_local_process_zero: bool,
    /// Whether this is the first process of all.
    pub is_world_process_zero: bool,
    /// Every log entry with its `step`, in order.
    pub log_history: Vec<Map<String, Value>>,
    /// Logging interval in steps, resolved.
    #[serde(serialize_with = "whole_number")]
    pub logging_steps: f64,
    /// Steps planned.
    pub max_steps: u64,
    /// Epochs planned, rounded up.
    pub num_train_epochs: u64,
    /// Saving interval in steps, resolved.
    #[serde(serialize_with = "whole_number")]
    pub save_steps: f64,
    /// Floating point operations so far.
    pub total_flos: f64,
    /// Hyperparameter search only.
    pub trial_name: Option<String>,
    /// Hyperparameter search only.
    pub trial_params: Option<Value>,
}

impl TrainerState {
    /// The state before training: the reference's defaults for a single process.
    pub fn new() -> Self {
        Self {
            logging_steps: 500.0,
            eval_steps: 500.0,
            save_steps: 500.0,
            is_local_process_zero: true,
            is_world_process_zero: true,
            ..Self::default()
        }
    }
}

/// The reference writes whole intervals as integers.
fn whole_number<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 && value.is_sign_positive() && *value < 9e15 {
        serializer.serialize_u64(*value as u64)
    } else {
        serializer.serialize_f64(*value)
    }
}

#[cfg(test)]
mod tests {
    use super::TrainerState;

    #[test]
    fn whole_intervals_are_integers_and_unknown_fields_errors() {
        let mut value = serde_json::to_value(TrainerState::new()).expect("JSON");
        assert_eq!(value["eval_steps"].to_string(), "500");
        assert_eq!(value.as_object().map(serde_json::Map::len), Some(16));
        assert_eq!(
            serde_json::from_value::<TrainerState>(value.clone()).expect("the same state"),
            TrainerState::new()
        );
        value["other"] = 1.into();
        assert!(serde_json::from_value::<TrainerState>(value).is_err());
    }
}
