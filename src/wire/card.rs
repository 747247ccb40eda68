//! What the model card of a run says (spec 5.5): facts from the run, results from its records.

use anyhow::Result;

use crate::cli::output;
use crate::config::run::Run;
use crate::model::Task;
use crate::report::model_card::{self, Base, Facts, python};
use crate::torch;
use crate::trainer::Trainer;

/// What the Hub says of where a model comes from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    /// Licence of the model.
    pub license: Option<String>,
    /// Names of the data sets.
    pub datasets: Vec<String>,
}

/// Writes the card, unless people have made the one that is there theirs.
pub(crate) fn write(facts: &Facts, (run, trainer): (&Run, &Trainer)) -> Result<()> {
    let history = &trainer.state().log_history;
    if !model_card::write(&run.output_dir, facts, history)? {
        output::note(
            "the model card is left as it is, because its comment is gone: people have made it theirs",
        );
    }
    Ok(())
}

/// What is known before training.
pub(crate) fn facts(run: &Run, origin: &Origin, task: Option<Task>) -> Facts {
    let pushed = run.hub.as_ref().and_then(|hub| hub.push.as_ref());
    let name = match pushed {
        Some(push) => push.repository.rsplit('/').next().map(str::to_owned),
        None => None,
    };
    let folder = run.output_dir.file_name();
    let folder = folder.map(|name| name.to_string_lossy().into_owned());
    Facts {
        name: name.or(folder).unwrap_or_default(),
        base: match &run.model.repository {
            Some(repository) => Base::Hub(repository.name.clone()),
            // A program hands its model over.
            None if run.model.path.as_os_str().is_empty() => Base::Scratch,
            None => Base::Local,
        },
        license: origin.license.clone(),
        task: task.map(|task| match task {
            Task::SequenceClassification => ("text-classification", "Text Classification"),
            Task::TokenClassification => ("token-classification", "Token Classification"),
            Task::MaskedLm => ("fill-mask", "Masked Language Modeling"),
        }),
        datasets: origin.datasets.clone(),
        hyperparameters: hyperparameters(run),
        versions: vec![
            ("host", env!("CARGO_PKG_VERSION").to_owned()),
            ("libtorch", torch::VERSION.to_owned()),
        ],
    }
}

fn hyperparameters(run: &Run) -> Vec<(&'static str, String)> {
    let (train, optimizer) = (&run.train, &run.optimizer);
    let mut values = vec![
        ("learning_rate", python(optimizer.learning_rate)),
        ("train_batch_size", train.batch_size.to_string()),
        ("eval_batch_size", run.evaluation.batch_size.to_string()),
        ("seed", train.seed.to_string()),
    ];
    let accumulated = train.gradient_accumulation_steps;
    if accumulated > 1 {
        values.push(("gradient_accumulation_steps", accumulated.to_string()));
        let total = train.batch_size * accumulated;
        values.push(("total_train_batch_size", total.to_string()));
    }
    values.push(("optimizer", optimizer_text(run)));
    values.push(("lr_scheduler_type", optimizer.lr_scheduler_type.clone()));
    if optimizer.warmup_ratio != 0.0 {
        values.push(("lr_scheduler_warmup_ratio", python(optimizer.warmup_ratio)));
    }
    if optimizer.warmup_steps != 0 {
        values.push((
            "lr_scheduler_warmup_steps",
            optimizer.warmup_steps.to_string(),
        ));
    }
    values.push(match train.max_steps {
        Some(steps) => ("training_steps", steps.to_string()),
        None => ("num_epochs", python(train.num_train_epochs)),
    });
    if run.precision.autocast.is_some() {
        values.push(("mixed_precision_training", "Native AMP".to_owned()));
    }
    if train.label_smoothing_factor != 0.0 {
        let factor = python(train.label_smoothing_factor);
        values.push(("label_smoothing_factor", factor));
    }
    values
}

/// The reference calls every optimizer but Adafactor Adam; here only those are that are.
fn optimizer_text(run: &Run) -> String {
    let optimizer = &run.optimizer;
    match optimizer.name.as_str() {
        "adafactor" => "Adafactor".to_owned(),
        name if name.contains("adamw") => format!(
            "Adam with betas=({},{}) and epsilon={}",
            python(optimizer.adam_beta1),
            python(optimizer.adam_beta2),
            python(optimizer.adam_epsilon)
        ),
        name => name.to_owned(),
    }
}
