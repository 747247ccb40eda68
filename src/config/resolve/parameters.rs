//! `optim_args` and `lr_scheduler_kwargs`: read, checked against the optimizer and the schedule, and against the other
//! arguments.

use serde_json::{Map, Value};

use super::super::parameters::{OPTIMIZERS, SCHEDULES, read_list, read_object_or_list, settle};
use super::Draft;

/// `polynomial` ends at this rate.
const POLYNOMIAL_END: f64 = 1e-7;

impl Draft<'_> {
    /// Settings of the optimizer; empty where something is wrong with them.
    pub(super) fn optimizer_args(&self) -> Result<Map<String, Value>, Vec<String>> {
        let text = self.arguments.optim_args.as_deref().unwrap_or_default();
        let written = read_list(text).map_err(|wrong| vec![wrong])?;
        settle((&self.arguments.optim, OPTIMIZERS), written)
    }

    /// Settings of the schedule; empty where something is wrong with them.
    pub(super) fn schedule_args(&self) -> Result<Map<String, Value>, Vec<String>> {
        let text = &self.arguments.lr_scheduler_kwargs;
        let written = read_object_or_list(text.as_deref().unwrap_or_default())
            .map_err(|wrong| vec![wrong])?;
        settle((&self.arguments.lr_scheduler_type, SCHEDULES), written)
    }

    pub(super) fn check_parameters(&mut self) {
        for wrong in self.optimizer_args().err().into_iter().flatten() {
            self.contradict_each(&["optim_args", "optim"], wrong);
        }
        match self.schedule_args() {
            Ok(settings) if self.is_training() => {
                self.check_schedule_settings(&settings);
                self.check_schedule_free();
            }
            Ok(_) => {}
            Err(all) => all.into_iter().for_each(|wrong| {
                self.contradict_each(&["lr_scheduler_kwargs", "lr_scheduler_type"], wrong)
            }),
        }
    }

    /// Like `contradict`, but several findings about the first field stand side by side.
    fn contradict_each(&mut self, [field, owner]: &[&'static str; 2], text: String) {
        if !self.findings.concern(&[owner]) {
            self.wrong(field, text);
        }
    }

    /// What a schedule needs besides its form.
    fn check_schedule_settings(&mut self, settings: &Map<String, Value>) {
        let has = |key: &str| settings.contains_key(key);
        let schedule = self.arguments.lr_scheduler_type.clone();
        let fields = ["lr_scheduler_kwargs", "lr_scheduler_type"];
        match schedule.as_str() {
            "piecewise" if !has("rule") => self.contradict(
                &fields,
                "piecewise needs a rule; give one, such as rule=1:10,0.1:20,0.01",
            ),
            "exponential" if has("final_ratio") && has("gamma") => {
                self.contradict(&fields, "exponential takes final_ratio or gamma; give one of them")
            }
            "cosine_with_min_lr" if has("min_lr") == has("min_lr_rate") => self.contradict(
                &fields,
                "cosine_with_min_lr needs either min_lr or min_lr_rate; give one of them",
            ),
            "cosine_with_min_lr" if has("min_lr") && self.arguments.learning_rate == 0.0 => self.contradict(
                &["lr_scheduler_kwargs", "learning_rate"],
                "min_lr is a share of learning_rate, which is 0; give min_lr_rate, or a learning_rate above 0",
            ),
            "warmup_stable_decay" if !has("num_decay_steps") => self.contradict(
                &fields,
                "warmup_stable_decay needs num_decay_steps; give it, such as num_decay_steps=100",
            ),
            "polynomial" => self.check_polynomial(settings),
            "inverse_sqrt" if !has("timescale") => self.check_inverse_sqrt(),
            _ => {}
        }
    }

    fn check_polynomial(&mut self, settings: &Map<String, Value>) {
        let arguments = &self.arguments;
        let (rate, steps, max_steps) = (
            arguments.learning_rate,
            arguments.warmup_steps,
            arguments.max_steps,
        );
        let end = settings.get("lr_end").and_then(Value::as_f64);
        let end = end.unwrap_or(POLYNOMIAL_END);
        if rate <= end {
            self.contradict(
                &["lr_scheduler_type", "lr_scheduler_kwargs", "learning_rate"],
                format!("polynomial ends at a rate of {end:e}, so learning_rate {rate:e} is too small; give a larger one"),
            );
        } else if max_steps > 0 && steps == max_steps {
            self.contradict(
                &["lr_scheduler_type", "warmup_steps", "max_steps"],
                "polynomial needs steps after warming up; give fewer warmup_steps or more max_steps",
            );
        }
    }

    fn check_inverse_sqrt(&mut self) {
        if self.arguments.warmup_ratio == 0.0 && self.arguments.warmup_steps == 0 {
            self.contradict(
                &["lr_scheduler_type", "warmup_ratio", "warmup_steps"],
                "inverse_sqrt needs warming up, which sets its scale; give warmup_steps or warmup_ratio",
            );
        }
    }

    fn check_schedule_free(&mut self) {
        let arguments = &self.arguments;
        if arguments.optim != "schedule_free_adamw" {
            return;
        }
        if arguments.lr_scheduler_type != "constant" {
            let schedule = &arguments.lr_scheduler_type;
            self.notes.push(format!(
                "schedule_free_adamw needs no schedule, and lr_scheduler_type {schedule} acts on top of it; constant is usual"
            ));
        }
        if self.arguments.adam_beta1 == 0.0 {
            self.contradict(
                &["adam_beta1", "optim"],
                "schedule_free_adamw needs an adam_beta1 above 0; give one, such as 0.9",
            );
        }
    }
}
