//! From the arguments as written to the run as it will happen.
//!
//! Everything that can be known to be wrong before a tensor exists is found here, and all of it is reported at once
//! (I8). Nothing is created or written. The stages share a `Draft`: its arguments start as written and end as they
//! take effect, so what goes to `training_args.json` is what the run did.

mod build;
mod consistency;
mod hub;
mod native;
mod parameters;
mod paths;
mod plugins;
mod precision;
mod states;
mod values;

use anyhow::Result;

use super::arguments::Arguments;
use super::findings::Findings;
use super::input::Input;
use super::run::{Command, Run, is_quiet};
use super::setting::Number;
use super::surroundings::Surroundings;

/// A run, and what the user should know before it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The run.
    pub run: Run,
    /// Arguments that override others or are deprecated; one line each.
    pub notes: Vec<String>,
}

/// Checks `input` and completes it to a run.
pub fn resolve(command: Command, input: &Input, surroundings: &Surroundings) -> Result<Resolved> {
    let mut draft = Draft::new(command, input, surroundings);
    draft.check_states();
    draft.check_values();
    draft.replace_deprecated();
    draft.complete();
    draft.check_consistency();
    draft.check_precision();
    draft.check_debug();
    draft.check_native();
    draft.check_paths();
    draft.check_hub();
    let plugins = draft.plugins();
    draft.finish(plugins)
}

/// Arguments on their way to a run.
struct Draft<'a> {
    command: Command,
    input: &'a Input,
    surroundings: &'a Surroundings,
    /// As written at first, as they take effect at the end.
    arguments: Arguments,
    findings: Findings,
    notes: Vec<String>,
}

impl<'a> Draft<'a> {
    fn new(command: Command, input: &'a Input, surroundings: &'a Surroundings) -> Self {
        Self {
            command,
            input,
            surroundings,
            arguments: input.arguments.clone(),
            findings: input.findings.clone(),
            notes: Vec::new(),
        }
    }
}

impl Draft<'_> {
    /// Reports that `field` is wrong in itself.
    fn wrong(&mut self, field: &'static str, text: impl AsRef<str>) {
        self.findings
            .about(field, self.input.places.get(field), text.as_ref());
    }

    /// Reports that several arguments do not fit together, under the name of the first; silent if one of them is already
    /// known to be wrong, because this would only follow from it.
    fn contradict(&mut self, fields: &[&'static str], text: impl AsRef<str>) {
        if let [first, ..] = fields
            && !self.findings.concern(fields)
        {
            self.wrong(first, text);
        }
    }

    /// Reports that a required argument is absent, unless a misspelt name may be the reason.
    fn missing(&mut self, field: &'static str, remedy: &str) {
        if !self.findings.has_unknown_names() {
            self.contradict(&[field], format!("is missing; {remedy}"));
        }
    }

    fn is_given(&self, field: &str) -> bool {
        self.input.is_given(field)
    }

    fn is_training(&self) -> bool {
        self.command == Command::Train
    }

    /// Deprecated arguments take effect through those that replaced them.
    fn replace_deprecated(&mut self) {
        self.replace_backend();
        self.replace_hub_names();
        if self.arguments.no_cuda {
            self.arguments.use_cpu = true;
            self.notes
                .push("no_cuda is deprecated; use use_cpu".to_owned());
        }
        if self.arguments.adafactor {
            self.arguments.optim = "adafactor".to_owned();
            self.notes.push(
                "adafactor is deprecated and overrides optim; use optim adafactor".to_owned(),
            );
        }
        for (name, old, new) in [
            (
                "train",
                self.arguments.per_gpu_train_batch_size,
                &mut self.arguments.per_device_train_batch_size,
            ),
            (
                "eval",
                self.arguments.per_gpu_eval_batch_size,
                &mut self.arguments.per_device_eval_batch_size,
            ),
        ] {
            if let Some(size) = old {
                *new = size;
                self.notes.push(format!(
                    "per_gpu_{name}_batch_size is deprecated; use per_device_{name}_batch_size"
                ));
            }
        }
    }

    /// Absent values that follow from others, in the reference's order.
    fn complete(&mut self) {
        let command = self.command;
        let has_validation = !self.arguments.validation_file.is_empty();
        let wants_evaluation =
            self.arguments.do_eval || (has_validation && !self.is_given("do_eval"));
        let log_level_hides_progress = is_quiet(&self.arguments.log_level);
        let arguments = &mut self.arguments;
        arguments.do_train = command == Command::Train || arguments.do_train;
        arguments.do_eval = match command {
            Command::Train => wants_evaluation || arguments.evaluation_strategy != "no",
            Command::Evaluate => true,
            Command::Predict => false,
        };
        arguments.do_predict =
            command == Command::Predict || (command == Command::Train && arguments.do_predict);
        arguments
            .disable_tqdm
            .get_or_insert(log_level_hides_progress);
        arguments.eval_delay.get_or_insert(Number(0.0));
        // Weights are always safetensors; an explicit false was refused.
        arguments.save_safetensors = true;
        if arguments.evaluation_strategy == "steps"
            && arguments.eval_steps.is_none_or(|steps| steps.0 == 0.0)
        {
            arguments.eval_steps = Some(arguments.logging_steps);
        }
        let needs_metric = arguments.load_best_model_at_end
            || arguments.lr_scheduler_type == "reduce_lr_on_plateau";
        if needs_metric && arguments.metric_for_best_model.is_none() {
            arguments.metric_for_best_model = Some("loss".to_owned());
        }
        if let Some(metric) = &arguments.metric_for_best_model {
            // Differs from 4.34, where only `loss` and `eval_loss` are minimised: no loss is better when it is larger.
            arguments
                .greater_is_better
                .get_or_insert(!metric.ends_with("loss"));
        }
        if let Some(folder) = &arguments.output_dir {
            arguments
                .run_name
                .get_or_insert_with(|| folder.to_string_lossy().into_owned());
            let name = format!(
                "{}_{}",
                self.surroundings.time_stamp(),
                self.surroundings.host_name
            );
            arguments
                .logging_dir
                .get_or_insert_with(|| folder.join("runs").join(name));
        }
    }
}
