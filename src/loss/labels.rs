//! Finds logits and labels for a loss and says in plain words what does not fit, before libtorch faults.

use anyhow::Result;
use tch::{Kind, Tensor};

use crate::data::Batch;
use crate::error::Failure;
use crate::model::Outputs;

/// Labels that take no part in a loss.
pub const IGNORED: i64 = -100;
/// The column with labels.
pub const COLUMN: &str = "labels";

/// `logits` and `labels`, or what there is instead.
pub fn logits_and_labels<'a>(
    outputs: &'a Outputs,
    batch: &'a Batch,
) -> Result<(&'a Tensor, &'a Tensor)> {
    let Some(logits) = outputs.logits() else {
        return Err(Failure::data("the model returned no output to compute a loss from").into());
    };
    let Some(labels) = batch.get(COLUMN) else {
        let columns: Vec<_> = batch.columns.iter().map(|(name, _)| &**name).collect();
        return Err(Failure::data(format!(
            "the batch has no labels; its columns are {}",
            columns.join(", ")
        ))
        .hint("name the column with --label_column")
        .into());
    };
    Ok((logits, labels))
}

/// An error unless every label is a class or [`IGNORED`].
pub fn check_classes(labels: &Tensor, num_classes: i64) -> Result<()> {
    if labels.is_floating_point() {
        let message = "the labels are real numbers; a classification needs integers";
        return Err(Failure::data(message)
            .hint("for a regression the model needs one output")
            .into());
    }
    if labels.numel() == 0 {
        return Ok(());
    }
    let (smallest, largest) = labels.f_aminmax(None, false)?;
    let (smallest, largest) = (smallest.f_int64_value(&[])?, largest.f_int64_value(&[])?);
    if largest >= num_classes {
        return Err(out_of_range(largest, num_classes));
    }
    if smallest >= 0 {
        return Ok(());
    }
    let wrong = labels.f_lt(0)?.f_logical_and(&labels.f_ne(IGNORED)?)?;
    if wrong.f_any()?.f_int64_value(&[])? == 0 {
        return Ok(());
    }
    Err(out_of_range(
        labels.f_masked_select(&wrong)?.f_int64_value(&[0])?,
        num_classes,
    ))
}

fn out_of_range(label: i64, num_classes: i64) -> anyhow::Error {
    let message = format!(
        "label {label} is out of range: the model has {num_classes} classes, 0 to {}",
        num_classes - 1
    );
    Failure::data(message)
        .hint("labels count from 0; -100 marks positions that take no part")
        .into()
}

/// Labels in the type of `logits`, if they are not.
pub fn in_kind(labels: &Tensor, kind: Kind) -> Result<Tensor> {
    Ok(labels.f_to_kind(kind)?)
}

/// An error unless both have the same shape.
pub fn check_shapes(logits: &Tensor, labels: &Tensor) -> Result<()> {
    if logits.size() == labels.size() {
        return Ok(());
    }
    let message = format!(
        "the labels have shape {:?}, but the model's outputs {:?}",
        labels.size(),
        logits.size()
    );
    Err(Failure::data(message)
        .hint("every example needs one number for each output")
        .into())
}
