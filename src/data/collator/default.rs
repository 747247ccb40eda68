//! The default collator: columns are stacked, the label becomes `labels`, null and strings are left out.

use std::sync::Arc;

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::{LABEL_COLUMNS, LABELS, is_numeric, stack, values};
use crate::data::{Batch, Collator, Example, Value};
use crate::torch::Generator;

/// Stacks columns of equal shape. The first example decides which columns there are.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultCollator;

impl Collator for DefaultCollator {
    fn collate(&self, examples: &[Example], _draws: &mut Generator) -> Result<Batch> {
        ensure!(!examples.is_empty(), "a batch needs at least one example");
        let first = &examples[0].columns;
        let mut columns = Vec::with_capacity(first.len());
        if let Some(labels) = labels(examples)? {
            columns.push((LABELS.into(), labels));
        }
        for (index, (name, value)) in first.iter().enumerate() {
            if !LABEL_COLUMNS.contains(&&**name) && is_numeric(value) {
                columns.push((
                    name.clone(),
                    stack(name, examples.len(), values(examples, index, name))?,
                ));
            }
        }
        Ok(Batch { columns })
    }
}

/// `label` if the first example has one, else `label_ids`. A list under `label` is float32 even if it holds whole
/// numbers, as in the reference: there it is a multi-label target.
fn labels(examples: &[Example]) -> Result<Option<Tensor>> {
    let is_label = |wanted: &str| {
        let first = examples[0].columns.iter().enumerate();
        let found = |(_, (name, value)): &(usize, &(Arc<str>, Value))| {
            &**name == wanted && is_numeric(value)
        };
        first.filter(found).map(|(index, _)| index).next()
    };
    for name in LABEL_COLUMNS {
        let Some(index) = is_label(name) else {
            continue;
        };
        let labels = stack(name, examples.len(), values(examples, index, name))?;
        let is_list = matches!(examples[0].columns[index].1, Value::Ints(_));
        let as_float = *name == "label" && is_list;
        return Ok(Some(if as_float {
            labels.f_to_kind(Kind::Float)?
        } else {
            labels
        }));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::super::tests::{collate, contents, example, refusal};
    use super::DefaultCollator;
    use crate::data::Value;

    type Column = (&'static str, Kind, Vec<i64>, Vec<f64>);

    fn check(rows: Vec<Vec<(&str, Value)>>, expected: &[Column]) {
        let examples: Vec<_> = rows.into_iter().map(example).collect();
        let batch = collate(&DefaultCollator, &examples);
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, kind, shape, numbers)| {
                ((*name).to_owned(), *kind, shape.clone(), numbers.clone())
            })
            .collect();
        assert_eq!(contents(&batch), expected);
    }

    // Row 85 of the spec.
    #[test]
    fn labels_and_types_are_the_references() {
        use Value::{Float, Floats, Int, Ints, Null, Text};
        let row = |label| {
            vec![
                ("label", label),
                ("x", Ints(vec![0, 1, 2])),
                ("name", Text("a".into())),
            ]
        };
        let inputs = ("x", Kind::Int64, vec![2, 3], vec![0., 1., 2., 0., 1., 2.]);
        check(
            vec![row(Int(1)), row(Int(0))],
            &[
                ("labels", Kind::Int64, vec![2], vec![1., 0.]),
                inputs.clone(),
            ],
        );
        check(
            vec![row(Float(0.5)), row(Float(2.0))],
            &[
                ("labels", Kind::Float, vec![2], vec![0.5, 2.]),
                inputs.clone(),
            ],
        );
        check(
            vec![row(Ints(vec![1, 0])), row(Ints(vec![0, 1]))],
            &[
                ("labels", Kind::Float, vec![2, 2], vec![1., 0., 0., 1.]),
                inputs.clone(),
            ],
        );
        check(vec![row(Null), row(Null)], &[inputs]);
        let row = |labels| vec![("label_ids", labels), ("y", Floats(vec![0.5]))];
        let inputs = ("y", Kind::Float, vec![2, 1], vec![0.5, 0.5]);
        check(
            vec![row(Ints(vec![0, 1])), row(Ints(vec![2, 3]))],
            &[
                ("labels", Kind::Int64, vec![2, 2], vec![0., 1., 2., 3.]),
                inputs.clone(),
            ],
        );
        check(
            vec![row(Floats(vec![0.5])), row(Floats(vec![1.5]))],
            &[
                ("labels", Kind::Float, vec![2, 1], vec![0.5, 1.5]),
                inputs.clone(),
            ],
        );
        check(
            vec![row(Int(4)), row(Int(5))],
            &[("labels", Kind::Int64, vec![2], vec![4., 5.]), inputs],
        );
    }

    #[test]
    fn labels_already_named_so_are_stacked() {
        let rows = vec![
            vec![("labels", Value::Int(1)), ("x", Value::Float(0.25))],
            vec![("labels", Value::Int(2)), ("x", Value::Float(4.0))],
        ];
        check(
            rows,
            &[
                ("labels", Kind::Int64, vec![2], vec![1., 2.]),
                ("x", Kind::Float, vec![2], vec![0.25, 4.]),
            ],
        );
    }

    #[test]
    fn rows_that_do_not_fit_are_named() {
        let cases = [
            (
                Value::Ints(vec![1, 2]),
                "example 1 of the batch: field \"x\" is a list of 2; expected a list of 1 (as in the batch's first row)",
            ),
            (
                Value::Int(1),
                "example 1 of the batch: field \"x\" is a number; expected a list of 1 (as in the batch's first row)",
            ),
            (
                Value::Null,
                "example 1 of the batch: field \"x\" is null, but not in all rows of the batch",
            ),
            (
                Value::Text("a".into()),
                "example 1 of the batch: field \"x\" holds strings, not numbers",
            ),
        ];
        for (second, message) in cases {
            let examples = [
                example(vec![("x", Value::Ints(vec![1]))]),
                example(vec![("x", second)]),
            ];
            assert_eq!(refusal(&DefaultCollator, &examples), message);
        }
        assert!(refusal(&DefaultCollator, &[]).contains("at least one example"));
    }
}
