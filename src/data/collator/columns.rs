//! Single columns of a batch, for collators that put a batch together piece by piece: what they will be, and they.

use anyhow::Result;
use tch::Tensor;

use super::{Numbers, Side, bad, is_numeric, stack, values};
use crate::data::table::value_length;
use crate::data::{Example, Value};

/// What a column becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Extents, the rows first.
    pub shape: Vec<i64>,
    /// Elements are int64, else float32.
    pub is_whole: bool,
}

/// How rows of a column get one length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fill {
    /// What is filled in.
    pub value: f64,
    /// The length is a multiple of this; 0 and 1: it is that of the longest row.
    pub to_multiple_of: usize,
    /// Where.
    pub side: Side,
}

fn column<'a>(examples: &'a [Example], name: &'a str) -> impl Iterator<Item = &'a Value> {
    let position = |example: &Example| {
        let names = example.columns.iter();
        names.into_iter().position(|(known, _)| **known == *name)
    };
    values(
        examples,
        examples.first().and_then(position).unwrap_or(0),
        name,
    )
}

/// Elements of the list in each row; a row that has none is an error.
pub fn lengths(examples: &[Example], name: &str) -> Result<Vec<usize>> {
    let length = |(position, value)| match value_length(value) {
        Some(length) => Ok(length),
        None => bad(position, format!("field {name:?} is no list")),
    };
    column(examples, name).enumerate().map(length).collect()
}

/// What [`stacked`] will give.
pub fn stacked_outline(examples: &[Example], name: &str) -> Outline {
    let is_whole = column(examples, name).all(is_whole);
    let mut shape = vec![examples.len() as i64];
    match column(examples, name).next() {
        Some(Value::Ints(row)) => shape.push(row.len() as i64),
        Some(Value::Floats(row)) => shape.push(row.len() as i64),
        _ => {}
    }
    Outline { shape, is_whole }
}

/// Numbers as one dimension, lists of equal length as two; int64 if all are whole, else float32.
pub fn stacked(examples: &[Example], name: &str) -> Result<Tensor> {
    stack(name, examples.len(), column(examples, name))
}

/// What [`padded`] will give.
pub fn padded_outline(examples: &[Example], name: &str, fill: Fill) -> Result<Outline> {
    let longest = lengths(examples, name)?.into_iter().max().unwrap_or(0);
    let length = longest.next_multiple_of(fill.to_multiple_of.max(1));
    Ok(Outline {
        shape: vec![examples.len() as i64, i64::try_from(length)?],
        is_whole: column(examples, name).all(is_whole) && fill.value.fract() == 0.0,
    })
}

/// Lists filled up to one length, two dimensions; int64 if all numbers and the filler are whole, else float32.
pub fn padded(examples: &[Example], name: &str, fill: Fill) -> Result<Tensor> {
    let outline = padded_outline(examples, name, fill)?;
    let length = outline.shape[1] as usize;
    let mut numbers = Numbers::with_capacity(examples.len() * length);
    for (position, value) in column(examples, name).enumerate() {
        if !is_numeric(value) {
            return bad(
                position,
                format!("field {name:?} holds strings, not numbers"),
            );
        }
        let missing = length - value_length(value).unwrap_or(0);
        let (before, after) = match fill.side {
            Side::Left => (missing, 0),
            Side::Right => (0, missing),
        };
        numbers.fill(before, fill.value);
        match value {
            Value::Ints(row) => numbers.extend_ints(row),
            Value::Floats(row) => numbers.extend_floats(row),
            _ => {}
        }
        numbers.fill(after, fill.value);
    }
    numbers.into_tensor(&outline.shape)
}

fn is_whole(value: &Value) -> bool {
    matches!(value, Value::Int(_) | Value::Ints(_))
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::super::tests::example;
    use super::*;

    fn rows() -> Vec<Example> {
        let row = |ids: Vec<i64>, scores: Vec<f64>, label| {
            example(vec![
                ("ids", Value::Ints(ids)),
                ("scores", Value::Floats(scores)),
                ("label", Value::Int(label)),
                ("text", Value::Text("a".into())),
            ])
        };
        vec![row(vec![1, 2, 3], vec![0.5], 4), row(vec![5], vec![1.5], 6)]
    }

    fn check(outline: &Outline, tensor: &Tensor, expected: &[f64]) {
        let kind = if outline.is_whole {
            Kind::Int64
        } else {
            Kind::Float
        };
        assert_eq!(
            (tensor.size(), tensor.kind()),
            (outline.shape.clone(), kind)
        );
        let flat = tensor.reshape([-1]).to_kind(Kind::Double);
        assert_eq!(Vec::<f64>::try_from(flat).expect("numbers"), expected);
    }

    #[test]
    fn columns_are_what_their_outlines_say() {
        let rows = rows();
        for (name, expected) in [("label", vec![4., 6.]), ("scores", vec![0.5, 1.5])] {
            let tensor = stacked(&rows, name).expect("a column");
            check(&stacked_outline(&rows, name), &tensor, &expected);
        }
        let filled = |value, to_multiple_of, side, expected: &[f64]| {
            let fill = Fill {
                value,
                to_multiple_of,
                side,
            };
            let outline = padded_outline(&rows, "ids", fill).expect("an outline");
            check(
                &outline,
                &padded(&rows, "ids", fill).expect("a column"),
                expected,
            );
        };
        filled(9., 0, Side::Right, &[1., 2., 3., 5., 9., 9.]);
        filled(9., 4, Side::Left, &[9., 1., 2., 3., 9., 9., 9., 5.]);
        filled(0.5, 1, Side::Right, &[1., 2., 3., 5., 0.5, 0.5]);
    }

    #[test]
    fn what_is_no_list_or_has_no_equal_length_is_named() {
        let rows = rows();
        let fill = Fill {
            value: 0.,
            to_multiple_of: 0,
            side: Side::Right,
        };
        for (error, text) in [
            (
                stacked(&rows, "ids").expect_err("unequal"),
                "a list of 1; expected a list of 3",
            ),
            (
                stacked(&rows, "text").expect_err("strings"),
                "holds strings",
            ),
            (
                padded(&rows, "label", fill).expect_err("numbers"),
                "\"label\" is no list",
            ),
            (
                padded(&rows, "none", fill).expect_err("no column"),
                "\"none\" is no list",
            ),
        ] {
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
