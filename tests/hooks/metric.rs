//! Metrics: the plugin `classification-metrics` beside plain Rust that follows scikit-learn's definitions, and beside the
//! built-in accuracy.

use host::data::Batch;
use host::metric::{Accuracy, EvaluationBatch, Metric};
use host::plugin::{Plugin, load};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::plugin::{environment, guest, official, spec};

fn plugin(config: &Value) -> Plugin {
    load(
        &spec(&official("classification_metrics"), config, &[]),
        &environment(),
    )
    .expect("loads")
}

/// A reproducible stream of numbers.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A batch: scores and labels.
type Pair = (Tensor, Tensor);

fn single(numbers: &mut Numbers, rows: usize, classes: usize, ignored: bool) -> Pair {
    let scores: Vec<f32> = (0..rows * classes)
        .map(|_| numbers.below(1000) as f32 / 100.0)
        .collect();
    let label = |numbers: &mut Numbers| {
        if ignored && numbers.below(4) == 0 {
            -100
        } else {
            numbers.below(classes as u64) as i64
        }
    };
    let labels: Vec<i64> = (0..rows).map(|_| label(numbers)).collect();
    (
        Tensor::from_slice(&scores).reshape([rows as i64, classes as i64]),
        Tensor::from_slice(&labels),
    )
}

fn multi(numbers: &mut Numbers, rows: usize, classes: usize) -> Pair {
    let shape = [rows as i64, classes as i64];
    let scores: Vec<f32> = (0..rows * classes)
        .map(|_| numbers.below(1000) as f32 / 100.0 - 5.0)
        .collect();
    let labels: Vec<f32> = (0..rows * classes)
        .map(|_| numbers.below(2) as f32)
        .collect();
    (
        Tensor::from_slice(&scores).reshape(shape),
        Tensor::from_slice(&labels).reshape(shape),
    )
}

fn measure(metric: &mut dyn Metric, batches: &[Pair]) -> Vec<(String, f64)> {
    metric.reset("").expect("a pass begins");
    for (scores, labels) in batches {
        let outputs = [("logits".to_owned(), scores.shallow_clone())];
        let labels = [("labels".to_owned(), labels.shallow_clone())];
        let inputs = Batch::default();
        let size = scores.size()[0] as usize;
        metric
            .update(&EvaluationBatch {
                outputs: &outputs,
                labels: &labels,
                inputs: &inputs,
                dataset: "",
                size,
            })
            .expect("a batch");
    }
    metric.compute().expect("numbers")
}

/// Predictions and truths per class, with what is not counted left out.
fn decided(batches: &[Pair], classes: usize) -> Vec<Vec<(bool, bool)>> {
    let mut table = vec![Vec::new(); classes];
    for (scores, labels) in batches {
        let scores =
            Vec::<Vec<f64>>::try_from(scores.to_kind(Kind::Double).reshape([-1, classes as i64]))
                .expect("scores");
        if labels.kind() == Kind::Float {
            let labels = Vec::<Vec<f64>>::try_from(labels.to_kind(Kind::Double)).expect("labels");
            for (scores, labels) in scores.iter().zip(&labels) {
                (0..classes).for_each(|class| {
                    table[class].push((scores[class] > 0.0, labels[class] > 0.5))
                });
            }
            continue;
        }
        let labels = Vec::<i64>::try_from(labels.reshape([-1])).expect("labels");
        for (scores, label) in scores
            .iter()
            .zip(labels)
            .filter(|(_, label)| *label != -100)
        {
            let best = (0..classes).fold(0, |best, class| {
                if scores[class] > scores[best] {
                    class
                } else {
                    best
                }
            });
            (0..classes)
                .for_each(|class| table[class].push((class == best, class as i64 == label)));
        }
    }
    table
}

/// scikit-learn's definitions, row by row.
fn reference(batches: &[Pair], classes: usize, average: &str) -> [f64; 4] {
    let table = decided(batches, classes);
    let multi_label = batches[0].1.kind() == Kind::Float;
    let rows = table[0].len();
    let right = (0..rows)
        .filter(|row| table.iter().all(|class| class[*row].0 == class[*row].1))
        .count();
    let ratio = |part: f64, whole: f64| if whole == 0.0 { 0.0 } else { part / whole };
    let count = |class: &[(bool, bool)], test: fn(&(bool, bool)) -> bool| {
        class.iter().filter(|pair| test(pair)).count() as f64
    };
    let counts: Vec<[f64; 3]> = table
        .iter()
        .map(|class| {
            [
                count(class, |pair| pair.0 && pair.1),
                count(class, |pair| pair.0),
                count(class, |pair| pair.1),
            ]
        })
        .filter(|[_, predicted, support]| multi_label || predicted + support > 0.0)
        .collect();
    let scores = |[correct, predicted, support]: [f64; 3]| {
        [
            ratio(correct, predicted),
            ratio(correct, support),
            ratio(2.0 * correct, predicted + support),
        ]
    };
    let weighted = |weight: &dyn Fn(&[f64; 3]) -> f64| {
        let total: f64 = counts.iter().map(weight).sum();
        [0, 1, 2].map(|index| {
            ratio(
                counts
                    .iter()
                    .map(|class| scores(*class)[index] * weight(class))
                    .sum(),
                total,
            )
        })
    };
    let [precision, recall, f1] = match average {
        "binary" => scores(counts[1]),
        "micro" => scores(counts.iter().fold([0.0; 3], |sum, class| {
            [0, 1, 2].map(|index| sum[index] + class[index])
        })),
        "macro" => weighted(&|_| 1.0),
        _ => weighted(&|class| class[2]),
    };
    [right as f64 / rows as f64, precision, recall, f1]
}

#[test]
fn every_average_is_that_of_scikit_learn() {
    let mut numbers = Numbers(7);
    for (classes, ignored) in [(2, false), (3, true), (7, true)] {
        let batches: Vec<Pair> = [16, 1, 5]
            .iter()
            .map(|rows| single(&mut numbers, *rows, classes, ignored))
            .collect();
        for average in ["binary", "macro", "micro", "weighted"] {
            if average == "binary" && classes > 2 {
                continue;
            }
            let plugin = plugin(&json!({"average": average}));
            let found = measure(&mut *plugin.metrics().remove(0), &batches);
            let expected = reference(&batches, classes, average);
            for ((name, value), (known, wanted)) in found.iter().zip(
                ["accuracy", "precision", "recall", "f1"]
                    .iter()
                    .zip(expected),
            ) {
                assert_eq!(name, known);
                assert!(
                    (value - wanted).abs() < 1e-12,
                    "{classes} classes, {average}, {name}: {value} {wanted}"
                );
            }
        }
    }
}

#[test]
fn several_labels_per_row_are_counted_label_by_label() {
    let mut numbers = Numbers(11);
    let batches: Vec<Pair> = [9, 4]
        .iter()
        .map(|rows| multi(&mut numbers, *rows, 5))
        .collect();
    for average in ["macro", "micro", "weighted"] {
        let plugin = plugin(&json!({"average": average}));
        let found = measure(&mut *plugin.metrics().remove(0), &batches);
        let expected = reference(&batches, 5, average);
        for ((name, value), wanted) in found.iter().zip(expected) {
            assert!(
                (value - wanted).abs() < 1e-12,
                "{average}, {name}: {value} {wanted}"
            );
        }
    }
}

/// The contract: what a metric of accuracy must do, whoever it is.
fn check_accuracy(make: &dyn Fn() -> Box<dyn Metric>) {
    let mut metric = make();
    let scores = Tensor::from_slice2(&[[2.0_f32, 1.0], [0.0, 1.0], [0.0, 3.0]]);
    let cases = [
        (
            scores.shallow_clone(),
            Tensor::from_slice(&[0_i64, 0, 1]),
            2.0 / 3.0,
        ),
        (
            scores.shallow_clone(),
            Tensor::from_slice(&[0_i64, -100, 1]),
            1.0,
        ),
        // Tokens, and predictions that a logits processor has already made.
        (
            scores.reshape([1, 3, 2]),
            Tensor::from_slice2(&[[1_i64, 1, -100]]),
            0.5,
        ),
        (
            Tensor::from_slice(&[1_i64, 0]),
            Tensor::from_slice(&[1_i64, 1]),
            0.5,
        ),
    ];
    for (scores, labels, wanted) in &cases {
        let found = measure(
            &mut *metric,
            &[(scores.shallow_clone(), labels.shallow_clone())],
        );
        assert_eq!(found[0], ("accuracy".to_owned(), *wanted));
    }
    // A pass is the sum of its batches, and the next one begins anew.
    let batches: Vec<Pair> = cases[..2]
        .iter()
        .map(|(scores, labels, _)| (scores.shallow_clone(), labels.shallow_clone()))
        .collect();
    assert_eq!(measure(&mut *metric, &batches)[0].1, 0.8);
    assert_eq!(measure(&mut *metric, &batches)[0].1, 0.8);
    assert!(measure(&mut *metric, &[])[0].1.is_nan());
}

#[test]
fn the_built_in_accuracy_and_the_plugin_are_one() {
    check_accuracy(&|| Box::new(Accuracy::new()));
    let plugin = plugin(&json!({"metrics": ["accuracy"]}));
    check_accuracy(&|| plugin.metrics().remove(0));
}

#[test]
fn what_is_no_classification_is_told() {
    let row = Tensor::from_slice2(&[[0.5_f32]]);
    for (scores, labels, text) in [
        (
            row.shallow_clone(),
            Tensor::from_slice(&[0.5_f32]),
            "are not those of a classifier",
        ),
        (
            Tensor::from_slice2(&[[0.1_f32, 0.9]]),
            Tensor::from_slice(&[2_i64]),
            "labels must be classes 0 to 1 or -100",
        ),
        (
            Tensor::from_slice2(&[[0.1_f32, 0.9]]),
            Tensor::from_slice(&[-1_i64]),
            "labels must be classes 0 to 1 or -100",
        ),
    ] {
        let plugin = plugin(&json!({}));
        let mut metric = plugin.metrics().remove(0);
        metric.reset("").expect("a pass begins");
        let outputs = [("logits".to_owned(), scores)];
        let labels = [("labels".to_owned(), labels)];
        let inputs = Batch::default();
        let batch = EvaluationBatch {
            outputs: &outputs,
            labels: &labels,
            inputs: &inputs,
            dataset: "",
            size: 1,
        };
        let error = metric.update(&batch).expect_err(text).to_string();
        assert!(error.contains(text), "{error}");
    }
}

/// What a metric that can be computed in parts must do: two that have seen half of the batches each, merged, are one that
/// has seen all of them.
fn check_parts(mut make: impl FnMut() -> Box<dyn Metric>, batches: &[Pair]) {
    let mut whole = make();
    let expected = measure(&mut *whole, batches);
    let parts: Vec<Vec<u8>> = batches
        .chunks(2)
        .map(|part| {
            let mut metric = make();
            measure(&mut *metric, part);
            metric.partial().expect("a partial result")
        })
        .collect();
    assert_eq!(parts.len(), 2);
    let mut merged = make();
    merged.reset("").expect("a pass begins");
    for part in &parts {
        merged.merge(part).expect("merged");
    }
    assert_eq!(merged.compute().expect("numbers"), expected);
    assert!(merged.merge(b"not what it was").is_err());
}

#[test]
fn passes_that_were_seen_in_parts_are_one() {
    let mut numbers = Numbers(23);
    let batches: Vec<Pair> = [7, 3, 5, 1]
        .iter()
        .map(|rows| single(&mut numbers, *rows, 4, true))
        .collect();
    check_parts(|| Box::new(Accuracy::new()), &batches);
    let plugins: Vec<Plugin> = (0..4)
        .map(|_| plugin(&json!({"average": "weighted"})))
        .collect();
    let mut plugins = plugins.iter();
    check_parts(
        || plugins.next().expect("a plugin").metrics().remove(0),
        &batches,
    );
}

#[test]
fn a_metric_without_parts_says_so() {
    let plugin = load(&spec(&guest("hostile"), &json!({}), &[]), &environment()).expect("loads");
    let mut metric = plugin.metrics().remove(0);
    metric.reset("").expect("a pass begins");
    let error = metric.partial().expect_err("no partial");
    let expected =
        "plugin `hostile`: metrics.partial, call 1: the metric has no `partial` (unsupported)";
    assert_eq!(error.to_string(), expected);
    let mut whole = plugin.metrics().remove(1);
    let error = whole.merge(&[]).expect_err("no merge");
    assert_eq!(error.to_string(), "the metric hostile cannot be merged");
}
