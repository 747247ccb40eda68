//! Batches and rows that a test gives.

use super::tensor::Tensor;
use super::types::{Dtype, Error, data};

/// One batch after the forward pass.
#[derive(Debug, Default)]
pub struct Batch {
    pub outputs: Vec<(String, Tensor)>,
    pub labels: Vec<(String, Tensor)>,
    pub inputs: Vec<(String, Tensor)>,
    pub dataset: String,
    pub size: u64,
}

fn names(tensors: &[(String, Tensor)]) -> Vec<String> {
    tensors.iter().map(|(name, _)| name.clone()).collect()
}

fn find(tensors: &[(String, Tensor)], name: &str) -> Result<Option<Tensor>, Error> {
    let found = tensors.iter().find(|(known, _)| known == name);
    Ok(found.map(|(_, tensor)| tensor.clone()))
}

impl Batch {
    pub fn outputs(&self) -> Vec<String> {
        names(&self.outputs)
    }

    pub fn output(&self, name: &str) -> Result<Option<Tensor>, Error> {
        find(&self.outputs, name)
    }

    pub fn labels(&self) -> Vec<String> {
        names(&self.labels)
    }

    pub fn label(&self, name: &str) -> Result<Option<Tensor>, Error> {
        find(&self.labels, name)
    }

    pub fn inputs(&self) -> Vec<String> {
        names(&self.inputs)
    }

    pub fn input(&self, name: &str) -> Result<Option<Tensor>, Error> {
        find(&self.inputs, name)
    }

    pub fn dataset(&self) -> String {
        self.dataset.clone()
    }

    pub fn size(&self) -> u64 {
        self.size
    }
}

/// One cell of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Null,
    Int(i64),
    Float(f64),
    Text(String),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
}

impl Cell {
    /// The numbers of a list.
    fn list(&self) -> Option<Vec<f64>> {
        match self {
            Cell::Ints(row) => Some(row.iter().map(|number| *number as f64).collect()),
            Cell::Floats(row) => Some(row.clone()),
            _ => None,
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Cell::Int(number) => Some(*number as f64),
            Cell::Float(number) => Some(*number),
            _ => None,
        }
    }

    fn is_whole(&self) -> bool {
        matches!(self, Cell::Int(_) | Cell::Ints(_))
    }
}

/// The rows that a collator makes a batch of, column by column.
#[derive(Debug, Default)]
pub struct Features {
    pub columns: Vec<(String, Vec<Cell>)>,
    pub is_training: bool,
}

impl Features {
    pub fn len(&self) -> u64 {
        self.columns
            .first()
            .map_or(0, |(_, cells)| cells.len() as u64)
    }

    pub fn columns(&self) -> Vec<String> {
        self.columns.iter().map(|(name, _)| name.clone()).collect()
    }

    pub fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|(name, _)| name == column)
    }

    pub fn is_training(&self) -> bool {
        self.is_training
    }

    fn column(&self, column: &str) -> Result<&[Cell], Error> {
        match self.columns.iter().find(|(name, _)| name == column) {
            Some((_, cells)) => Ok(cells),
            None => data(format!("there is no column `{column}`")),
        }
    }

    fn cell(&self, column: &str, row: u64) -> Result<&Cell, Error> {
        match self.column(column)?.get(row as usize) {
            Some(cell) => Ok(cell),
            None => data(format!("row {row} of {}", self.len())),
        }
    }

    fn lists(&self, column: &str) -> Result<Vec<Vec<f64>>, Error> {
        let lists = self.column(column)?.iter().map(Cell::list);
        match lists.collect::<Option<Vec<_>>>() {
            Some(lists) => Ok(lists),
            None => data(format!("field {column:?} is no list")),
        }
    }

    fn dtype(&self, column: &str, is_whole: bool) -> Result<Dtype, Error> {
        let is_whole = is_whole && self.column(column)?.iter().all(Cell::is_whole);
        Ok(if is_whole {
            Dtype::Signed64
        } else {
            Dtype::Float32
        })
    }

    pub fn stacked(&self, column: &str) -> Result<Tensor, Error> {
        let (cells, dtype) = (self.column(column)?, self.dtype(column, true)?);
        let numbers = cells.iter().map(Cell::number).collect::<Option<Vec<f64>>>();
        if let Some(numbers) = numbers {
            return Tensor::of(dtype, &[self.len()], numbers);
        }
        let lists = self.lists(column)?;
        let width = lists.first().map_or(0, Vec::len);
        if lists.iter().any(|list| list.len() != width) {
            return data(format!("field {column:?} has lists of different lengths"));
        }
        Tensor::of(dtype, &[self.len(), width as u64], lists.concat())
    }

    pub fn lengths(&self, column: &str) -> Result<Vec<u64>, Error> {
        let lists = self.lists(column)?;
        Ok(lists.iter().map(|list| list.len() as u64).collect())
    }

    pub fn padded(
        &self,
        column: &str,
        value: f64,
        to_multiple_of: u32,
        left: bool,
    ) -> Result<Tensor, Error> {
        let lists = self.lists(column)?;
        let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
        let width = longest.next_multiple_of(to_multiple_of.max(1) as usize);
        let mut numbers = Vec::with_capacity(lists.len() * width);
        for list in lists {
            let filler = vec![value; width - list.len()];
            let parts = if left { [filler, list] } else { [list, filler] };
            numbers.extend(parts.concat());
        }
        let dtype = self.dtype(column, value.fract() == 0.0)?;
        Tensor::of(dtype, &[self.len(), width as u64], numbers)
    }

    pub fn text(&self, column: &str, row: u64) -> Result<String, Error> {
        match self.cell(column, row)? {
            Cell::Text(text) => Ok(text.clone()),
            _ => data(format!("column `{column}` holds no string there")),
        }
    }

    pub fn bytes(&self, column: &str, row: u64) -> Result<Vec<u8>, Error> {
        Ok(match self.cell(column, row)? {
            Cell::Text(text) => text.clone().into_bytes(),
            Cell::Int(number) => number.to_le_bytes().to_vec(),
            Cell::Float(number) => number.to_le_bytes().to_vec(),
            Cell::Ints(row) => row.iter().flat_map(|number| number.to_le_bytes()).collect(),
            Cell::Floats(row) => row.iter().flat_map(|number| number.to_le_bytes()).collect(),
            Cell::Null => return data(format!("column `{column}` holds nothing there")),
        })
    }

    pub fn json(&self, column: &str, row: u64) -> Result<String, Error> {
        let json = match self.cell(column, row)? {
            Cell::Null => serde_json::Value::Null,
            Cell::Int(number) => (*number).into(),
            Cell::Float(number) => (*number).into(),
            Cell::Text(text) => text.as_str().into(),
            Cell::Ints(row) => row.clone().into(),
            Cell::Floats(row) => row.clone().into(),
        };
        Ok(json.to_string())
    }
}
