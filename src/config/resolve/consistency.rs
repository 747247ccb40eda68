//! Arguments that contradict each other.

use super::Draft;

/// Shares of all steps are compared in millionths: binary fractions have no exact remainders.
const MILLION: f64 = 1e6;

impl Draft<'_> {
    pub(super) fn check_consistency(&mut self) {
        self.check_evaluation();
        self.check_streaming();
        if self.is_training() {
            self.check_best_metric();
            self.check_best_model();
            self.check_early_stopping();
            self.check_schedule();
        }
        self.check_parameters();
    }

    fn check_evaluation(&mut self) {
        let arguments = &self.arguments;
        let (strategy, logging_steps) = (
            arguments.evaluation_strategy.clone(),
            arguments.logging_steps.0,
        );
        if strategy == "steps" && arguments.eval_steps.is_some_and(|steps| steps.0 == 0.0) {
            self.contradict(
                &["eval_steps", "logging_steps", "evaluation_strategy"],
                format!("evaluation_strategy steps needs eval_steps, and logging_steps is {logging_steps} too; give at least 1"),
            );
        }
        let steps = self.arguments.eval_steps.map_or(0.0, |steps| steps.0);
        if strategy == "steps" && steps > 1.0 && steps.fract() != 0.0 {
            self.contradict(
                &["eval_steps", "logging_steps"],
                format!("is absent, and logging_steps {steps} is not whole; give eval_steps"),
            );
        }
    }

    /// A stream has no length and no order but its own (row 63).
    fn check_streaming(&mut self) {
        if !self.arguments.streaming || !self.is_training() {
            return;
        }
        if self.arguments.max_steps <= 0 {
            self.contradict(
                &["streaming", "max_steps"],
                "needs max_steps, because the number of rows is not known; set it",
            );
        }
        if self.arguments.group_by_length {
            self.contradict(
                &["group_by_length", "streaming"],
                "does not go with streaming, which reads rows in file order; leave one of them out",
            );
        }
        if self.arguments.data_seed.is_some() {
            self.notes
                .push("data_seed has no effect: streamed rows come in file order".to_owned());
        }
    }

    /// Sets with names report no `eval_loss`, only `eval_<name>_loss`.
    fn check_best_metric(&mut self) {
        let arguments = &self.arguments;
        let names = arguments.validation_file.iter();
        let Some(name) = names.filter_map(|file| file.name.clone()).next() else {
            return;
        };
        if matches!(
            arguments.metric_for_best_model.as_deref(),
            Some("loss" | "eval_loss")
        ) {
            self.contradict(
                &["metric_for_best_model", "validation_file"],
                format!("loss is reported by no set that has a name; set metric_for_best_model to the metric of one of them, as {name}_loss"),
            );
        }
    }

    fn check_best_model(&mut self) {
        let arguments = &self.arguments;
        if !arguments.load_best_model_at_end {
            return;
        }
        let (save, evaluation) = (
            arguments.save_strategy.clone(),
            arguments.evaluation_strategy.clone(),
        );
        let fields = [
            "load_best_model_at_end",
            "save_strategy",
            "evaluation_strategy",
        ];
        if save != evaluation {
            self.contradict(
                &fields,
                format!("needs the same save_strategy and evaluation_strategy, which are {save} and {evaluation}; set both alike"),
            );
        } else if save == "no" {
            self.notes.push("load_best_model_at_end has no effect: nothing is evaluated or saved during training".to_owned());
        } else if save == "steps" {
            self.check_best_model_steps();
        }
    }

    fn check_best_model_steps(&mut self) {
        let fields = [
            "load_best_model_at_end",
            "save_steps",
            "eval_steps",
            "logging_steps",
            "save_strategy",
            "evaluation_strategy",
        ];
        let save = self.arguments.save_steps.0;
        let Some(evaluation) = self
            .arguments
            .eval_steps
            .map(|steps| steps.0)
            .filter(|steps| *steps > 0.0)
        else {
            return;
        };
        if save == 0.0 {
            self.notes.push(
                "load_best_model_at_end has no effect: save_steps 0 saves nothing".to_owned(),
            );
        } else if (save < 1.0) != (evaluation < 1.0) {
            self.contradict(
                &fields,
                format!("save_steps {save} and eval_steps {evaluation} mix a share of all steps with steps; give both as the same"),
            );
        } else if !is_multiple(save, evaluation) {
            self.contradict(&fields, format!("needs save_steps that are a multiple of eval_steps; they are {save} and {evaluation}"));
        }
    }

    fn check_early_stopping(&mut self) {
        let arguments = &self.arguments;
        if arguments.early_stopping_patience.is_none() {
            if self.is_given("early_stopping_threshold") {
                self.contradict(
                    &["early_stopping_threshold", "early_stopping_patience"],
                    "has no effect without early_stopping_patience; give it too",
                );
            }
            return;
        }
        let (has_evaluation, loads_best) = (
            arguments.evaluation_strategy != "no",
            arguments.load_best_model_at_end,
        );
        if !has_evaluation {
            self.contradict(
                &["early_stopping_patience", "evaluation_strategy"],
                "needs evaluations during training; set evaluation_strategy to steps or epoch",
            );
        }
        if !loads_best {
            self.contradict(
                &["early_stopping_patience", "load_best_model_at_end"],
                "needs load_best_model_at_end; set it too",
            );
        }
    }

    fn check_schedule(&mut self) {
        let arguments = &self.arguments;
        let (ratio, steps) = (arguments.warmup_ratio, arguments.warmup_steps);
        if ratio > 0.0 && steps > 0 {
            self.notes.push(format!(
                "warmup_steps {steps} overrides warmup_ratio {ratio}"
            ));
        }
        if self.arguments.lr_scheduler_type == "reduce_lr_on_plateau"
            && self.arguments.evaluation_strategy == "no"
        {
            self.contradict(
                &["lr_scheduler_type", "evaluation_strategy"],
                "reduce_lr_on_plateau needs evaluations during training; set evaluation_strategy to steps or epoch",
            );
        }
    }
}

/// Both are shares, or both are whole.
fn is_multiple(save: f64, evaluation: f64) -> bool {
    if save < 1.0 {
        let (save, evaluation) = ((save * MILLION).round(), (evaluation * MILLION).round());
        return evaluation > 0.0 && save % evaluation == 0.0;
    }
    save % evaluation == 0.0
}

#[cfg(test)]
mod tests {
    use super::is_multiple;

    #[test]
    fn shares_are_compared_in_millionths() {
        let cases = [
            (200.0, 100.0, true),
            (250.0, 100.0, false),
            (0.5, 0.25, true),
            (0.3, 0.1, true),
            (0.06, 0.02, true),
            (0.3, 0.2, false),
            (0.5, 1e-9, false),
        ];
        for (save, evaluation, expected) in cases {
            assert_eq!(
                is_multiple(save, evaluation),
                expected,
                "{save} {evaluation}"
            );
        }
    }
}
