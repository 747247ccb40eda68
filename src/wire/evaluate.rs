//! `host evaluate` and `host predict` in the engine, and the last evaluation and predictions of `host train`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};

use super::inputs::{self, Inputs, Set, Wanted};
use super::plugins::Plugins;
use super::predictions::{JsonLines, Reading, WordStarts};
use super::{Screen, parts, show_usage, signals, this_executable};
use crate::checkpoint::{layout, lock::OutputLock};
use crate::cli::output;
use crate::config::run::{Command, Run};
use crate::data::Dataset;
use crate::data::collator::Side;
use crate::error::{Failure, Kind};
use crate::model::{ProblemType, Task};
use crate::torch;
use crate::trainer::{EvaluationSet, Trainer, results};

/// The evaluation sets; takes them out of `inputs`.
pub(super) fn sets(run: &Run, inputs: &mut Inputs) -> Result<Vec<EvaluationSet>> {
    let named = std::mem::take(&mut inputs.sets.validation);
    let set = |(name, set)| {
        Ok(EvaluationSet {
            name,
            loader: inputs.evaluation_loader(run, set)?,
            batch_size: run.evaluation.batch_size,
        })
    };
    named.into_iter().map(set).collect()
}

/// What is predicted, and how that is written.
pub(super) struct TestSet {
    set: EvaluationSet,
    reading: Reading,
    labels: Vec<String>,
}

impl TestSet {
    /// Takes the rows out of `inputs`, if there are any.
    pub(super) fn take(run: &Run, inputs: &mut Inputs) -> Result<Option<Self>> {
        let Some(mut rows) = inputs.sets.test.take() else {
            return Ok(None);
        };
        let reading = match (inputs.task, inputs.problem_type) {
            (None, _) => Reading::Raw,
            (Some(Task::TokenClassification), _) => {
                Reading::TokenLabels(word_starts(inputs, &mut rows)?)
            }
            (Some(Task::MaskedLm), _) => Reading::HiddenTokens(mask_token(inputs)?),
            (_, Some(ProblemType::Regression)) => Reading::Regression,
            (_, Some(ProblemType::MultiLabelClassification)) => Reading::MultiLabel,
            _ => Reading::SingleLabel,
        };
        let set = EvaluationSet {
            name: String::new(),
            loader: inputs.test_loader(run, rows)?,
            batch_size: run.evaluation.batch_size,
        };
        let labels = match (&reading, &inputs.tokenizer) {
            (Reading::HiddenTokens(_), Some(tokenizer)) => tokenizer.vocabulary(),
            _ => inputs.class_names(),
        };
        Ok(Some(Self {
            set,
            reading,
            labels,
        }))
    }
}

fn mask_token(inputs: &Inputs) -> Result<i64> {
    let tokenizer = inputs.tokenizer.as_ref();
    let mask = tokenizer.and_then(|tokenizer| tokenizer.mask_token_id());
    mask.ok_or_else(|| {
        let message = "the tokenizer has no mask token, so no row hides one to be guessed";
        Failure::usage(message)
            .hint("give a tokenizer with one")
            .into()
    })
}

fn word_starts(inputs: &Inputs, rows: &mut Set) -> Result<Option<WordStarts>> {
    let Set::Read(prepared) = rows else {
        let message = "streamed rows are not kept, and the labels of words need to know where each word began";
        return Err(Failure::usage(message).hint("leave --streaming out").into());
    };
    let (Some(starts), Some(tokenizer)) = (prepared.word_starts.take(), &inputs.tokenizer) else {
        return Ok(None);
    };
    Ok(Some(WordStarts {
        starts,
        num_tokens: prepared.dataset.row_lengths(inputs.model.main_input())?,
        pads_left: tokenizer.padding().side == Side::Left,
    }))
}

/// Nothing of the pass is left.
fn stopped(run: &Run, pass: &str) -> Failure {
    let failure = Failure::new(
        Kind::Stopped,
        format!("stopped by a signal during the {pass}"),
    );
    match run.command {
        Command::Train => failure.hint(format!(
            "the model is trained and saved; go on with host evaluate or host predict --model {}",
            run.output_dir.display()
        )),
        Command::Evaluate | Command::Predict => failure.hint("run the command again"),
    }
}

/// Evaluates once more, writes and shows `eval_results.json`.
pub(super) fn evaluate_and_show(
    trainer: &mut Trainer,
    (run, screen): (&Run, &mut Screen),
) -> Result<()> {
    let stopped = || stopped(run, "evaluation");
    let mut metrics = trainer.evaluate("eval")?.ok_or_else(stopped)?.0;
    for (prefix, num_rows) in trainer.evaluation_rows("eval") {
        metrics.push((format!("{prefix}_samples"), num_rows as f64));
    }
    results::save_metrics(&run.output_dir, "eval", &metrics)?;
    screen.show("eval", &metrics);
    Ok(())
}

/// Predicts, writes `predictions.jsonl` and `predict_results.json`.
pub(super) fn predict_and_show(
    trainer: &mut Trainer,
    (run, screen): (&Run, &mut Screen),
    test: TestSet,
) -> Result<()> {
    let TestSet {
        mut set,
        reading,
        labels,
    } = test;
    let path = run.output_dir.join(layout::PREDICTIONS);
    let mut sink = JsonLines::create(&path, reading, labels)?;
    let stopped = || stopped(run, "prediction");
    let predictions = trainer.predict(&mut set, "predict", &mut sink)?;
    let mut metrics = predictions.ok_or_else(stopped)?.metrics.0;
    let note = if run.evaluation.prediction_loss_only {
        "no predictions were kept: prediction_loss_only is set".to_owned()
    } else {
        let (path, rows) = sink.finish()?;
        format!("{rows} predictions in {}", path.display())
    };
    let num_rows = set.loader.rows_passed();
    metrics.push(("predict_samples".to_owned(), num_rows as f64));
    results::save_metrics(&run.output_dir, "predict", &metrics)?;
    screen.show("predict", &metrics);
    output::status(&note);
    Ok(())
}

/// A trainer that only evaluates or predicts.
fn build(
    run: &Run,
    wanted: Wanted,
    interrupted: Arc<AtomicBool>,
) -> Result<(Trainer, Option<TestSet>, Plugins)> {
    let plugins = Plugins::load(run, Some(this_executable()?))?;
    let mut inputs = inputs::read(run, wanted, &plugins)?;
    parts::place(run, &mut *inputs.model)?;
    let evaluation = sets(run, &mut inputs)?;
    let test = TestSet::take(run, &mut inputs)?;
    let parts = parts::assemble(run, inputs, evaluation, (&plugins, interrupted.clone()))?;
    signals::watch(&interrupted)?;
    torch::manual_seed(run.train.seed)?;
    let trainer = Trainer::new(parts::config(run, Vec::new()), parts)?;
    Ok((trainer, test, plugins))
}

/// `host evaluate`.
pub(super) fn evaluate(run: &Run, interrupted: Arc<AtomicBool>) -> Result<()> {
    let _lock = OutputLock::acquire(&run.output_dir)?;
    let wanted = Wanted {
        validation: true,
        ..Wanted::default()
    };
    let (mut trainer, _, plugins) = build(run, wanted, interrupted)?;
    let mut screen = Screen::default();
    evaluate_and_show(&mut trainer, (run, &mut screen))
        .inspect_err(|error| trainer.fault(error))?;
    plugins.close()?;
    show_usage(&plugins, 0.0);
    screen.finish()
}

/// `host predict`.
pub(super) fn predict(run: &Run, interrupted: Arc<AtomicBool>) -> Result<()> {
    let _lock = OutputLock::acquire(&run.output_dir)?;
    let wanted = Wanted {
        test: true,
        ..Wanted::default()
    };
    let (mut trainer, test, plugins) = build(run, wanted, interrupted)?;
    let test = test.context("the test set was not read")?;
    let mut screen = Screen::default();
    predict_and_show(&mut trainer, (run, &mut screen), test)
        .inspect_err(|error| trainer.fault(error))?;
    plugins.close()?;
    show_usage(&plugins, 0.0);
    screen.finish()
}
