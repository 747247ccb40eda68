//! Predictions as JSON lines: one object a row, written beside the final name and renamed when the pass is done.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use tch::{Kind, Tensor};

use crate::data::column::{Integers, Rows};
use crate::metric::EvaluationBatch;
use crate::trainer::PredictionSink;

/// How the outputs of a model are read.
#[derive(Debug)]
pub enum Reading {
    /// Logits over classes, one label a row.
    SingleLabel,
    /// Independent logits, any number of labels a row.
    MultiLabel,
    /// Numbers.
    Regression,
    /// Logits over classes for every token: a label for each word of the text or, if the words are not known, for each
    /// token that is labelled or not padding.
    TokenLabels(Option<WordStarts>),
    /// Logits over the vocabulary for every token: a token for each that is hidden behind this one.
    HiddenTokens(i64),
    /// Outputs as they are, by name.
    Raw,
}

/// Where the words of a set begin in its batches.
#[derive(Debug)]
pub struct WordStarts {
    /// In each row the position of each word's first token among the row's tokens; negative for a word that was cut off.
    pub starts: Rows<Integers>,
    /// Tokens of each row.
    pub num_tokens: Vec<usize>,
    /// Padding stands before the tokens.
    pub pads_left: bool,
}

impl WordStarts {
    /// Positions in a batch of `width` columns, `None` for a word without one.
    fn positions(&self, row: usize, width: usize) -> impl Iterator<Item = Option<usize>> {
        let padding = if self.pads_left {
            width.saturating_sub(self.num_tokens.get(row).copied().unwrap_or(width))
        } else {
            0
        };
        let starts = self.starts.get(row).into_iter();
        starts.map(move |start| Some(usize::try_from(start).ok()? + padding))
    }
}

/// Writes one JSON object for each row.
#[derive(Debug)]
pub struct JsonLines {
    reading: Reading,
    labels: Vec<String>,
    path: PathBuf,
    part: PathBuf,
    writer: BufWriter<File>,
    row: usize,
}

impl JsonLines {
    /// Begins a file; `labels` are the class names by index.
    pub fn create(path: &Path, reading: Reading, labels: Vec<String>) -> Result<Self> {
        let part = path.with_extension("jsonl.part");
        let file =
            File::create(&part).with_context(|| format!("cannot write {}", part.display()))?;
        Ok(Self {
            reading,
            labels,
            path: path.to_owned(),
            part,
            writer: BufWriter::new(file),
            row: 0,
        })
    }

    /// Commits the file; returns its path and the number of rows.
    pub fn finish(mut self) -> Result<(PathBuf, usize)> {
        let context = || format!("cannot write {}", self.path.display());
        self.writer.flush().with_context(context)?;
        self.writer.get_ref().sync_all().with_context(context)?;
        std::fs::rename(&self.part, &self.path).with_context(context)?;
        Ok((self.path.clone(), self.row))
    }

    fn label(&self, index: usize) -> Value {
        self.labels
            .get(index)
            .map_or_else(|| json!(index), |name| json!(name))
    }

    fn rows(&self, batch: &EvaluationBatch<'_>) -> Result<Vec<Map<String, Value>>> {
        let Some(logits) = batch.logits() else {
            return Ok(vec![Map::new(); batch.size]);
        };
        // A logits processor may have chosen the classes already.
        let is_chosen = matches!(logits.f_kind()?, Kind::Int64 | Kind::Int);
        match (&self.reading, logits.dim()) {
            (Reading::SingleLabel, 1) if is_chosen => self.chosen_label(logits),
            (Reading::SingleLabel, 2) if !is_chosen => self.single_label(logits),
            (Reading::MultiLabel, 2) if !is_chosen => self.multi_label(logits),
            (Reading::Regression, _) => regression(logits, batch.size),
            (Reading::TokenLabels(starts), 2) if is_chosen => {
                self.token_labels(logits, (starts, batch))
            }
            (Reading::TokenLabels(starts), 3) if !is_chosen => {
                self.token_labels(&logits.f_argmax(-1, false)?, (starts, batch))
            }
            (Reading::HiddenTokens(mask), 3) if !is_chosen => {
                self.hidden_tokens(logits, (*mask, batch))
            }
            _ => raw(batch),
        }
    }

    /// The likeliest token at each hidden position of a row, and its probability.
    fn hidden_tokens(
        &self,
        logits: &Tensor,
        (mask, batch): (i64, &EvaluationBatch<'_>),
    ) -> Result<Vec<Map<String, Value>>> {
        let ids = batch.inputs.get("input_ids");
        let ids = ids.context("the batch has no input_ids")?;
        let mut rows = Vec::new();
        for row in 0..ids.size()[0] {
            let hidden = ids.f_get(row)?.f_eq(mask)?.f_nonzero()?.f_view([-1])?;
            let logits = logits.f_get(row)?.f_index_select(0, &hidden)?;
            let scores = logits.f_softmax(-1, Kind::Float)?;
            let (scores, best) = scores.f_max_dim(-1, false)?;
            let best = Vec::<i64>::try_from(best)?;
            let scores = Vec::<f64>::try_from(scores.f_to_kind(Kind::Double)?)?;
            let tokens = best.into_iter().map(|id| self.label(id as usize));
            rows.push(fields([
                ("tokens", tokens.collect()),
                ("scores", scores.into()),
            ]));
        }
        Ok(rows)
    }

    fn chosen_label(&self, classes: &Tensor) -> Result<Vec<Map<String, Value>>> {
        let classes = Vec::<i64>::try_from(classes.f_to_kind(Kind::Int64)?)?;
        let object = |class: i64| fields([("label", self.label(class as usize))]);
        Ok(classes.into_iter().map(object).collect())
    }

    fn single_label(&self, logits: &Tensor) -> Result<Vec<Map<String, Value>>> {
        let scores = rows_of(&logits.f_softmax(-1, Kind::Float)?)?;
        let object = |scores: &Vec<f64>| {
            let best = first_largest(scores);
            let by_label = scores.iter().enumerate();
            let by_label: Map<String, Value> = by_label
                .map(|(i, score)| (text(&self.label(i)), json!(score)))
                .collect();
            fields([
                ("label", self.label(best)),
                ("score", json!(scores[best])),
                ("scores", Value::Object(by_label)),
            ])
        };
        Ok(scores.iter().map(object).collect())
    }

    fn multi_label(&self, logits: &Tensor) -> Result<Vec<Map<String, Value>>> {
        let scores = rows_of(&logits.f_sigmoid()?)?;
        let object = |scores: &Vec<f64>| {
            let chosen: Vec<Value> = (0..scores.len())
                .filter(|index| scores[*index] > 0.5)
                .map(|i| self.label(i))
                .collect();
            let by_label = scores.iter().enumerate();
            let by_label: Map<String, Value> = by_label
                .map(|(i, score)| (text(&self.label(i)), json!(score)))
                .collect();
            fields([
                ("labels", Value::Array(chosen)),
                ("scores", Value::Object(by_label)),
            ])
        };
        Ok(scores.iter().map(object).collect())
    }

    fn token_labels(
        &self,
        classes: &Tensor,
        (starts, batch): (&Option<WordStarts>, &EvaluationBatch<'_>),
    ) -> Result<Vec<Map<String, Value>>> {
        let best = rows_of(classes)?;
        match starts {
            Some(starts) => Ok(self.labels_of_words(&best, starts)),
            None => self.labels_of_tokens(&best, batch),
        }
    }

    /// One label for every word of the text.
    fn labels_of_words(&self, best: &[Vec<f64>], starts: &WordStarts) -> Vec<Map<String, Value>> {
        let object = |(index, best): (usize, &Vec<f64>)| {
            let label = |position: Option<usize>| {
                let best = position.and_then(|position| best.get(position));
                best.map_or(Value::Null, |best| self.label(*best as usize))
            };
            let positions = starts.positions(self.row + index, best.len());
            fields([("labels", positions.map(label).collect())])
        };
        best.iter().enumerate().map(object).collect()
    }

    /// One label for every token: positions whose label is -100 or, without labels, padding, are left out.
    fn labels_of_tokens(
        &self,
        best: &[Vec<f64>],
        batch: &EvaluationBatch<'_>,
    ) -> Result<Vec<Map<String, Value>>> {
        let kept = match (batch.labels.first(), batch.inputs.get("attention_mask")) {
            (Some((_, labels)), _) => Some(rows_of(&labels.f_ne(-100)?)?),
            (None, Some(mask)) => Some(rows_of(mask)?),
            (None, None) => None,
        };
        let object = |(row, best): (usize, &Vec<f64>)| {
            let is_kept =
                |position: usize| kept.as_ref().is_none_or(|kept| kept[row][position] != 0.0);
            let labels = best
                .iter()
                .enumerate()
                .filter(|(position, _)| is_kept(*position));
            fields([(
                "labels",
                labels
                    .map(|(_, index)| self.label(*index as usize))
                    .collect(),
            )])
        };
        Ok(best.iter().enumerate().map(object).collect())
    }
}

impl PredictionSink for JsonLines {
    fn batch(&mut self, batch: &EvaluationBatch<'_>) -> Result<()> {
        for fields in self.rows(batch)? {
            let mut object = Map::new();
            object.insert("row".to_owned(), json!(self.row));
            object.extend(fields);
            serde_json::to_writer(&mut self.writer, &object)?;
            self.writer
                .write_all(b"\n")
                .with_context(|| format!("cannot write {}", self.part.display()))?;
            self.row += 1;
        }
        Ok(())
    }
}

impl Drop for JsonLines {
    fn drop(&mut self) {
        // Nothing half-written stays; after `finish` the name is gone and this does nothing.
        let _ = std::fs::remove_file(&self.part);
    }
}

fn fields<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    entries
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// As torch's argmax, which metrics use: among equals the first.
fn first_largest(scores: &[f64]) -> usize {
    let better = |best: usize, index: usize| match scores[index].total_cmp(&scores[best]) {
        Ordering::Greater => index,
        _ => best,
    };
    (0..scores.len()).fold(0, better)
}

fn text(label: &Value) -> String {
    label
        .as_str()
        .map_or_else(|| label.to_string(), str::to_owned)
}

fn regression(logits: &Tensor, rows: usize) -> Result<Vec<Map<String, Value>>> {
    let values = rows_of(&logits.f_reshape([rows as i64, -1])?)?;
    let object = |values: &Vec<f64>| {
        let value = if values.len() == 1 {
            json!(values[0])
        } else {
            json!(values)
        };
        fields([("prediction", value)])
    };
    Ok(values.iter().map(object).collect())
}

fn raw(batch: &EvaluationBatch<'_>) -> Result<Vec<Map<String, Value>>> {
    let mut rows = vec![Map::new(); batch.size];
    for (name, tensor) in batch.outputs {
        let per_row = tensor.size().first() == Some(&(batch.size as i64));
        for (index, row) in rows.iter_mut().enumerate() {
            let part = if per_row {
                tensor.f_get(index as i64)?
            } else {
                tensor.shallow_clone()
            };
            row.insert(name.clone(), nested(&part)?);
        }
    }
    Ok(rows)
}

/// A tensor as nested JSON lists.
fn nested(tensor: &Tensor) -> Result<Value> {
    if tensor.dim() == 0 {
        return Ok(json!(tensor.f_to_kind(Kind::Double)?.f_double_value(&[])?));
    }
    (0..tensor.size()[0])
        .map(|index| nested(&tensor.f_get(index)?))
        .collect()
}

/// A matrix as rows of numbers.
fn rows_of(matrix: &Tensor) -> Result<Vec<Vec<f64>>> {
    let columns = matrix.size().get(1).copied().unwrap_or(1).max(1) as usize;
    let flat: Vec<f64> = Vec::try_from(
        matrix
            .f_to_kind(Kind::Double)?
            .f_contiguous()?
            .f_view([-1])?,
    )?;
    Ok(flat.chunks(columns).map(<[f64]>::to_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::WordStarts;
    use crate::data::column::{Integers, Rows};

    #[test]
    fn words_are_found_behind_padding_on_the_left() {
        let mut starts = Rows::<Integers>::default();
        starts.push([1, 3, -1]);
        starts.push([1]);
        let mut words = WordStarts {
            starts,
            num_tokens: vec![5, 8],
            pads_left: true,
        };
        let at = |words: &WordStarts, row| words.positions(row, 8).collect::<Vec<_>>();
        assert_eq!(at(&words, 0), [Some(4), Some(6), None]);
        assert_eq!(at(&words, 1), [Some(1)]);
        words.pads_left = false;
        assert_eq!(at(&words, 0), [Some(1), Some(3), None]);
    }
}
