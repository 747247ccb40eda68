//! `host evaluate` and `host predict` in the engine, and the last evaluation and predictions of `host train`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};

use super::inputs::{self, Inputs, Wanted};
use super::plugins::Plugins;
use super::predictions::{self, JsonLines};
use super::{parts, show, show_usage};
use crate::checkpoint::{layout, lock::OutputLock};
use crate::cli::output;
use crate::config::run::Run;
use crate::model::{ProblemType, Task};
use crate::torch;
use crate::trainer::{EvaluationSet, Trainer, results};

/// The evaluation sets; takes them out of `inputs`.
pub(super) fn sets(run: &Run, inputs: &mut Inputs) -> Result<Vec<EvaluationSet>> {
    let Some(prepared) = inputs.sets.validation.take() else {
        return Ok(Vec::new());
    };
    let loader = inputs.evaluation_loader(run, prepared)?;
    Ok(vec![EvaluationSet {
        name: String::new(),
        loader,
        batch_size: run.evaluation.batch_size,
    }])
}

/// The test set; takes it out of `inputs`.
pub(super) fn test_set(run: &Run, inputs: &mut Inputs) -> Result<Option<EvaluationSet>> {
    let Some(prepared) = inputs.sets.test.take() else {
        return Ok(None);
    };
    let loader = inputs.evaluation_loader(run, prepared)?;
    Ok(Some(EvaluationSet {
        name: String::new(),
        loader,
        batch_size: run.evaluation.batch_size,
    }))
}

/// How predictions are written.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    kind: predictions::Reading,
    labels: Vec<String>,
}

impl Reading {
    pub(super) fn of(inputs: &Inputs) -> Self {
        let kind = match (inputs.task, inputs.problem_type) {
            (None, _) => predictions::Reading::Raw,
            (Some(Task::TokenClassification), _) => predictions::Reading::TokenLabels,
            (_, Some(ProblemType::Regression)) => predictions::Reading::Regression,
            (_, Some(ProblemType::MultiLabelClassification)) => predictions::Reading::MultiLabel,
            _ => predictions::Reading::SingleLabel,
        };
        Self {
            kind,
            labels: inputs.class_names(),
        }
    }
}

/// Evaluates once more, writes and shows `eval_results.json`.
pub(super) fn evaluate_and_show(trainer: &mut Trainer, run: &Run, num_rows: usize) -> Result<()> {
    let mut metrics = trainer.evaluate("eval")?.0;
    metrics.push(("eval_samples".to_owned(), num_rows as f64));
    results::save_metrics(&run.output_dir, "eval", &metrics)?;
    show("eval", &metrics)
}

/// Predicts, writes `predictions.jsonl` and `predict_results.json`.
pub(super) fn predict_and_show(
    trainer: &mut Trainer,
    run: &Run,
    test: &mut EvaluationSet,
    reading: Reading,
) -> Result<()> {
    let path = run.output_dir.join(layout::PREDICTIONS);
    let mut sink = JsonLines::create(&path, reading.kind, reading.labels)?;
    let mut metrics = trainer.predict(test, "predict", &mut sink)?.metrics.0;
    let note = if run.evaluation.prediction_loss_only {
        "no predictions were kept: prediction_loss_only is set".to_owned()
    } else {
        let (path, rows) = sink.finish()?;
        format!("{rows} predictions in {}", path.display())
    };
    let num_rows = test.loader.dataset().len();
    metrics.push(("predict_samples".to_owned(), num_rows as f64));
    results::save_metrics(&run.output_dir, "predict", &metrics)?;
    show("predict", &metrics)?;
    output::status(&note);
    Ok(())
}

/// A trainer that only evaluates or predicts.
fn build(
    run: &Run,
    wanted: Wanted,
    interrupted: Arc<AtomicBool>,
) -> Result<(Trainer, Option<EvaluationSet>, Reading, Plugins)> {
    let plugins = Plugins::load(run)?;
    let mut inputs = inputs::read(run, wanted)?;
    let evaluation = sets(run, &mut inputs)?;
    let test = test_set(run, &mut inputs)?;
    let reading = Reading::of(&inputs);
    let parts = parts::assemble(run, inputs, evaluation, (&plugins, interrupted))?;
    torch::manual_seed(run.train.seed)?;
    let trainer = Trainer::new(parts::config(run, Vec::new()), parts)?;
    Ok((trainer, test, reading, plugins))
}

/// `host evaluate`.
pub(super) fn evaluate(run: &Run, interrupted: Arc<AtomicBool>) -> Result<()> {
    let _lock = OutputLock::acquire(&run.output_dir)?;
    let wanted = Wanted {
        validation: true,
        ..Wanted::default()
    };
    let (mut trainer, _, _, plugins) = build(run, wanted, interrupted)?;
    let num_rows = trainer.evaluation_rows();
    evaluate_and_show(&mut trainer, run, num_rows)?;
    plugins.close()?;
    show_usage(&plugins, 0.0);
    Ok(())
}

/// `host predict`.
pub(super) fn predict(run: &Run, interrupted: Arc<AtomicBool>) -> Result<()> {
    let _lock = OutputLock::acquire(&run.output_dir)?;
    let wanted = Wanted {
        test: true,
        ..Wanted::default()
    };
    let (mut trainer, test, reading, plugins) = build(run, wanted, interrupted)?;
    let mut test = test.context("the test set was not read")?;
    predict_and_show(&mut trainer, run, &mut test, reading)?;
    plugins.close()?;
    show_usage(&plugins, 0.0);
    Ok(())
}
