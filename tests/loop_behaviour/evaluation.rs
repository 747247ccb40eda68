//! Rows 52 and 56 and spec 3.8: what an evaluation reports.

use anyhow::Result;
use host::callback::Schedule;
use host::error::{Kind, kind_of};
use host::metric::{EvaluationBatch, Metric};

use super::stage::{Mean, Play, PlusOne};

fn evaluated(play: Play) -> Vec<(String, f64)> {
    Play {
        max_steps: Some(2),
        evaluates_at_end: true,
        ..play
    }
    .run()
    .evaluated
}

fn value(metrics: &[(String, f64)], name: &str) -> Option<f64> {
    metrics
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| *value)
}

fn means() -> Vec<Box<dyn Metric>> {
    vec![Box::new(Mean(None))]
}

#[test]
fn a_logits_processor_changes_the_metrics_and_not_the_loss() {
    let plain = evaluated(Play {
        metrics: means(),
        ..Play::default()
    });
    let changed = evaluated(Play {
        metrics: means(),
        logits: vec![Box::new(PlusOne)],
        ..Play::default()
    });
    assert_eq!(value(&plain, "eval_loss"), value(&changed, "eval_loss"));
    let [plain, changed] =
        [plain, changed].map(|metrics| value(&metrics, "eval_mean").expect("a mean"));
    assert!((changed - plain - 1.0).abs() < 1e-6, "{plain} {changed}");
}

#[test]
fn without_labels_there_is_neither_loss_nor_metric() {
    let metrics = evaluated(Play {
        has_labels: false,
        metrics: means(),
        ..Play::default()
    });
    let names: Vec<&str> = metrics.iter().map(|(name, _)| &**name).collect();
    let expected = [
        "eval_runtime",
        "eval_samples_per_second",
        "eval_steps_per_second",
        "epoch",
    ];
    assert_eq!(names, expected);
}

#[test]
fn only_the_loss_if_asked() {
    let metrics = evaluated(Play {
        loss_only: true,
        metrics: means(),
        ..Play::default()
    });
    assert!(value(&metrics, "eval_loss").is_some());
    assert_eq!(value(&metrics, "eval_mean"), None);
}

/// The mean over rows, not over batches: 9 rows in batches of 8 are 8 + 1. At a = b = 0 it is the mean of the squared labels.
#[test]
fn the_loss_is_the_mean_over_rows() {
    let metrics = evaluated(Play {
        rows: 9,
        learning_rate: 0.0,
        ..Play::default()
    });
    let label = |index: i32| {
        let x = f64::from((37 * index) % 64) / 16.0 - 2.0;
        2.0 * x + 3.0 + if index % 2 == 0 { 0.1 } else { -0.1 }
    };
    let expected = (0..9).map(|index| label(index).powi(2)).sum::<f64>() / 9.0;
    let found = value(&metrics, "eval_loss").expect("a loss");
    assert!((found - expected).abs() < 1e-5, "{found} {expected}");
}

#[test]
fn two_metrics_of_one_name_are_refused() {
    let played = Play {
        evaluation: (Schedule::Steps, 1.0),
        metrics: vec![Box::new(Mean(None)), Box::new(Mean(None))],
        ..Play::default()
    }
    .run();
    let error = played.outcome.expect_err("both report mean");
    assert_eq!(kind_of(&error), Kind::Usage);
    assert!(error.to_string().contains("\"mean\""), "{error:#}");
}

/// The names of the inputs it is shown, as numbers of a metric.
struct Inputs;

impl Metric for Inputs {
    fn name(&self) -> &str {
        "inputs"
    }

    fn reset(&mut self, _dataset: &str) -> Result<()> {
        SHOWN.take();
        Ok(())
    }

    fn update(&mut self, batch: &EvaluationBatch<'_>) -> Result<()> {
        let inputs = batch.inputs.columns.iter();
        SHOWN.with_borrow_mut(|shown| {
            shown.extend(inputs.map(|(name, tensor)| (name.to_string(), tensor.size()[0] as f64)));
        });
        Ok(())
    }

    fn compute(&mut self) -> Result<Vec<(String, f64)>> {
        let shown = SHOWN.take();
        let names: std::collections::BTreeSet<_> = shown.iter().map(|(name, _)| name).collect();
        let rows = |wanted: &str| {
            let rows = shown.iter().filter(|(name, _)| name == wanted);
            rows.map(|(_, rows)| rows).sum()
        };
        let values = names.iter().map(|name| ((*name).clone(), rows(name)));
        Ok(values.collect())
    }
}

thread_local! {
    static SHOWN: std::cell::RefCell<Vec<(String, f64)>> = const { std::cell::RefCell::new(Vec::new()) };
}

#[test]
fn row_57_metrics_see_the_main_input_only_if_asked() {
    let play = |include_inputs| Play {
        include_inputs,
        metrics: vec![Box::new(Inputs)],
        ..Play::default()
    };
    let without = evaluated(play(false));
    assert_eq!(value(&without, "eval_x"), None);
    let with = evaluated(play(true));
    assert_eq!(value(&with, "eval_x"), Some(64.0));
    assert_eq!(value(&with, "eval_labels"), None);
    let failed = Play {
        evaluation: (Schedule::Steps, 1.0),
        main_input: "pixels",
        ..play(true)
    }
    .run();
    let error = failed.outcome.expect_err("no such input");
    assert_eq!(kind_of(&error), Kind::Data);
    assert_eq!(
        error.to_string(),
        "metrics are to see the input \"pixels\", but the batch has only x, labels"
    );
}

/// Counts the batches it holds on the device.
struct Holding(f64, f64);

impl Metric for Holding {
    fn name(&self) -> &str {
        "holding"
    }

    fn reset(&mut self, _dataset: &str) -> Result<()> {
        *self = Self(0.0, 0.0);
        Ok(())
    }

    fn update(&mut self, _batch: &EvaluationBatch<'_>) -> Result<()> {
        self.0 += 1.0;
        self.1 = self.1.max(self.0);
        Ok(())
    }

    fn to_host(&mut self) -> Result<()> {
        self.0 = 0.0;
        Ok(())
    }

    fn compute(&mut self) -> Result<Vec<(String, f64)>> {
        Ok(vec![
            ("most".to_owned(), self.1),
            ("left".to_owned(), self.0),
        ])
    }
}

/// Field 11: what a metric keeps moves to main memory every so many batches.
#[test]
fn outputs_are_brought_to_the_host_in_time() {
    for (steps, most, left) in [(None, 8.0, 8.0), (Some(3), 3.0, 2.0), (Some(1), 1.0, 0.0)] {
        let metrics = evaluated(Play {
            eval_accumulation_steps: steps,
            metrics: vec![Box::new(Holding(0.0, 0.0))],
            ..Play::default()
        });
        let found = ["eval_most", "eval_left"].map(|name| value(&metrics, name));
        assert_eq!(found, [Some(most), Some(left)], "{steps:?}");
    }
}
