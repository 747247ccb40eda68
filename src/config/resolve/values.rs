//! Values that make no sense by themselves, whatever the others are. 4.34 checks few of them and fails later.

use super::super::setting::quoted;
use super::Draft;

/// Larger seeds are refused by the reference's NumPy.
const LARGEST_SEED: i64 = u32::MAX as i64;
/// Beyond this OpenMP fails to start its threads.
const LARGEST_THREADS: i64 = 1024;

/// More threads than rows of any batch only cost memory.
const LARGEST_WORKERS: i64 = 256;

/// Where the value of a rate may lie.
#[derive(Clone, Copy)]
enum Range {
    AtLeastZero,
    BelowOne,
    Share,
    AboveZero,
}

impl Range {
    fn contains(self, value: f64) -> bool {
        match self {
            Self::AtLeastZero => value.is_finite() && value >= 0.0,
            Self::BelowOne => (0.0..1.0).contains(&value),
            Self::Share => (0.0..=1.0).contains(&value),
            Self::AboveZero => value > 0.0 && value <= 1.0,
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::AtLeastZero => "a finite number of at least 0",
            Self::BelowOne => "a number of at least 0 and below 1",
            Self::Share => "a number from 0 to 1",
            Self::AboveZero => "a number above 0 and at most 1",
        }
    }
}

impl Draft<'_> {
    pub(super) fn check_values(&mut self) {
        self.check_counts();
        self.check_rates();
        self.check_intervals();
        self.check_set_names();
        if self.arguments.seed < 0 || self.arguments.seed > LARGEST_SEED {
            self.wrong(
                "seed",
                format!(
                    "{} is out of range; give a number from 0 to {LARGEST_SEED}",
                    self.arguments.seed
                ),
            );
        }
        if let Some(seed) = self.arguments.data_seed.filter(|seed| *seed < 0) {
            self.wrong(
                "data_seed",
                format!("{seed} is negative; give a number of at least 0"),
            );
        }
        if let Some(threads) = self
            .arguments
            .num_threads
            .filter(|threads| !(1..=LARGEST_THREADS).contains(threads))
        {
            self.wrong(
                "num_threads",
                format!("{threads} is out of range; give a number from 1 to {LARGEST_THREADS}"),
            );
        }
        if self.arguments.past_index == 0 {
            self.wrong(
                "past_index",
                "0 is the loss; give the number of a later output, or -1",
            );
        }
        let workers = self.arguments.dataloader_num_workers;
        if !(0..=LARGEST_WORKERS).contains(&workers) {
            self.wrong(
                "dataloader_num_workers",
                format!("{workers} is out of range; give a number from 0 to {LARGEST_WORKERS}"),
            );
        }
        if self.arguments.warmup_steps < 0 {
            self.wrong(
                "warmup_steps",
                format!(
                    "{} is negative; give a number of at least 0",
                    self.arguments.warmup_steps
                ),
            );
        }
        if self.arguments.metric_for_best_model.as_deref() == Some("") {
            self.wrong(
                "metric_for_best_model",
                "is empty; give the name of a metric, or leave it out",
            );
        }
    }

    /// Names of evaluation sets become parts of metrics' names.
    fn check_set_names(&mut self) {
        let files = &self.arguments.validation_file;
        let is_plain = |letter: char| letter.is_alphanumeric() || "_-.".contains(letter);
        let names = files.iter().filter_map(|file| file.name.as_deref());
        let wrong: Vec<String> = names
            .clone()
            .filter(|name| name.is_empty() || !name.chars().all(is_plain))
            .map(quoted)
            .collect();
        let is_mixed = names.count() > 0 && files.iter().any(|file| file.name.is_none());
        for name in wrong {
            self.wrong("validation_file", format!("{name} is not a name for a set; use letters, digits, _, - and . before the =, or write ./ before a path that holds one"));
        }
        if is_mixed {
            self.contradict(
                &["validation_file"],
                "some files have a name and others do not; give all of them a name (NAME=FILE), or none",
            );
        }
    }

    fn check_counts(&mut self) {
        let arguments = &self.arguments;
        let counts = [
            (
                "per_device_train_batch_size",
                Some(arguments.per_device_train_batch_size),
            ),
            (
                "per_device_eval_batch_size",
                Some(arguments.per_device_eval_batch_size),
            ),
            (
                "per_gpu_train_batch_size",
                arguments.per_gpu_train_batch_size,
            ),
            ("per_gpu_eval_batch_size", arguments.per_gpu_eval_batch_size),
            (
                "gradient_accumulation_steps",
                Some(arguments.gradient_accumulation_steps),
            ),
            ("eval_accumulation_steps", arguments.eval_accumulation_steps),
            ("max_length", arguments.max_length),
            ("pad_to_multiple_of", arguments.pad_to_multiple_of),
            ("max_train_samples", arguments.max_train_samples),
            ("max_eval_samples", arguments.max_eval_samples),
            ("max_predict_samples", arguments.max_predict_samples),
            ("early_stopping_patience", arguments.early_stopping_patience),
            ("max_span_length", Some(arguments.max_span_length)),
        ];
        for (field, count) in counts {
            if let Some(count) = count.filter(|count| *count < 1) {
                self.wrong(
                    field,
                    format!("{count} is too small; give a number of at least 1"),
                );
            }
        }
    }

    fn check_rates(&mut self) {
        let arguments = &self.arguments;
        let checks = [
            ("learning_rate", arguments.learning_rate, Range::AtLeastZero),
            ("weight_decay", arguments.weight_decay, Range::AtLeastZero),
            ("adam_beta1", arguments.adam_beta1, Range::BelowOne),
            ("adam_beta2", arguments.adam_beta2, Range::BelowOne),
            ("adam_epsilon", arguments.adam_epsilon, Range::AtLeastZero),
            (
                "label_smoothing_factor",
                arguments.label_smoothing_factor,
                Range::BelowOne,
            ),
            ("warmup_ratio", arguments.warmup_ratio, Range::Share),
            ("mlm_probability", arguments.mlm_probability, Range::Share),
            (
                "plm_probability",
                arguments.plm_probability,
                Range::AboveZero,
            ),
            (
                "early_stopping_threshold",
                arguments.early_stopping_threshold,
                Range::AtLeastZero,
            ),
        ];
        for (field, value, range) in checks {
            if !range.contains(value) {
                let expected = range.expected();
                self.wrong(field, format!("{value} is out of range; give {expected}"));
            }
        }
        self.check_epochs();
        if self.arguments.max_grad_norm.is_some_and(f64::is_nan) {
            self.wrong(
                "max_grad_norm",
                "is not a number; give a number, or none to leave gradients as they are",
            );
        }
        if let Some(delay) = self
            .arguments
            .eval_delay
            .filter(|delay| !Range::AtLeastZero.contains(delay.0))
        {
            self.wrong(
                "eval_delay",
                format!(
                    "{} is out of range; give a finite number of at least 0",
                    delay.0
                ),
            );
        }
    }

    fn check_epochs(&mut self) {
        let epochs = self.arguments.num_train_epochs;
        if !epochs.is_finite() || (epochs <= 0.0 && self.arguments.max_steps <= 0) {
            self.wrong(
                "num_train_epochs",
                format!(
                    "{epochs} epochs train nothing; give a finite number above 0, or max_steps"
                ),
            );
        }
    }

    /// Intervals are steps or, below 1, a share of all steps.
    fn check_intervals(&mut self) {
        let arguments = &self.arguments;
        let intervals = [
            (
                "logging_steps",
                Some(arguments.logging_steps),
                arguments.logging_strategy == "steps",
            ),
            (
                "eval_steps",
                arguments.eval_steps,
                arguments.evaluation_strategy == "steps",
            ),
            (
                "save_steps",
                Some(arguments.save_steps),
                arguments.save_strategy == "steps",
            ),
        ];
        for (field, steps, is_used) in intervals {
            let Some(steps) = steps.map(|steps| steps.0) else {
                continue;
            };
            if !steps.is_finite() || steps < 0.0 {
                self.wrong(
                    field,
                    format!(
                        "{steps} is out of range; give whole steps, or a share of all steps below 1"
                    ),
                );
            } else if is_used && steps > 1.0 && steps.fract() != 0.0 {
                self.wrong(field, format!("{steps} is above 1 and not whole; give whole steps, or a share of all steps below 1"));
            }
        }
        if self.arguments.logging_strategy == "steps" && self.arguments.logging_steps.0 == 0.0 {
            self.wrong(
                "logging_steps",
                "0 with logging_strategy steps; give at least 1, or set logging_strategy to no",
            );
        }
    }
}
