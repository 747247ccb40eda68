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
    /// Logits over classes for every token. With the positions of the words' first tokens in every row of the set, a label
    /// for each word (none for a word that was cut off); without, for each token that is labelled or not padding.
    TokenLabels(Option<Rows<Integers>>),
    /// Outputs as they are, by name.
    Raw,
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
        match &self.reading {
            Reading::SingleLabel if logits.dim() == 2 => self.single_label(logits),
            Reading::MultiLabel if logits.dim() == 2 => self.multi_label(logits),
            Reading::Regression => regression(logits, batch.size),
            Reading::TokenLabels(starts) if logits.dim() == 3 => match starts {
                Some(starts) => self.word_labels(logits, starts),
                None => self.token_labels(logits, batch),
            },
            _ => raw(batch),
        }
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

    /// One label for every word of the text.
    fn word_labels(
        &self,
        logits: &Tensor,
        starts: &Rows<Integers>,
    ) -> Result<Vec<Map<String, Value>>> {
        let best = rows_of(&logits.f_argmax(-1, false)?)?;
        let object = |(index, best): (usize, &Vec<f64>)| {
            let label = |start: i64| {
                let best = usize::try_from(start).ok().and_then(|at| best.get(at));
                best.map_or(Value::Null, |best| self.label(*best as usize))
            };
            let starts = starts.get(self.row + index).into_iter();
            fields([("labels", starts.map(label).collect())])
        };
        Ok(best.iter().enumerate().map(object).collect())
    }

    /// One label for every token: positions whose label is -100 or, without labels, padding, are left out.
    fn token_labels(
        &self,
        logits: &Tensor,
        batch: &EvaluationBatch<'_>,
    ) -> Result<Vec<Map<String, Value>>> {
        let best = rows_of(&logits.f_argmax(-1, false)?)?;
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
