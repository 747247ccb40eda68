//! A table in memory: named columns of equal length and where each row came from.
//!
//! It is what the formats read, what preparation turns into model inputs, and the map-style data set of a run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, anyhow, ensure};

use super::column::{Cell, Cells, Column};
use super::{Dataset, Example, Value};
use crate::error::Failure;

/// How a file counts its rows in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// `train.jsonl:17`
    Line,
    /// `train.parquet row 17`
    Row,
}

/// Rows that follow each other on consecutive lines of one file.
#[derive(Clone, Copy, Debug)]
struct Run {
    row: usize,
    line: u64,
    file: usize,
}

/// Where the rows of a table came from.
#[derive(Debug, Default)]
pub struct Sources {
    files: Vec<(PathBuf, Unit)>,
    runs: Vec<Run>,
}

impl Sources {
    /// The place of a row, as a message names it.
    pub fn locate(&self, row: usize) -> String {
        let after = self.runs.partition_point(|run| run.row <= row);
        let Some(run) = after.checked_sub(1).and_then(|index| self.runs.get(index)) else {
            return format!("row {row}");
        };
        let line = run.line + (row - run.row) as u64;
        let (path, unit) = &self.files[run.file];
        locate(path, *unit, line)
    }

    /// The files, as a message names them.
    pub fn describe(&self) -> String {
        match self.files.as_slice() {
            [] => "the data".to_owned(),
            [(path, _)] => path.display().to_string(),
            [(path, _), others @ ..] => format!("{} and {} more", path.display(), others.len()),
        }
    }

    fn add(&mut self, row: usize, line: u64) {
        let file = self.files.len().saturating_sub(1);
        let follows = |run: &Run| run.file == file && run.line + (row - run.row) as u64 == line;
        if !self.runs.last().is_some_and(follows) {
            self.runs.push(Run { row, line, file });
        }
    }
}

fn locate(path: &Path, unit: Unit, line: u64) -> String {
    match unit {
        Unit::Line => format!("{}:{line}", path.display()),
        Unit::Row => format!("{} row {line}", path.display()),
    }
}

/// Named columns of equal length. Cloning copies the columns, not the record of their sources.
#[derive(Clone, Debug, Default)]
pub struct Table {
    columns: Vec<(Arc<str>, Column)>,
    rows: usize,
    sources: Arc<Sources>,
}

impl Table {
    /// A table of columns that are all `rows` long; errors name the rows as `sources` does.
    pub fn new(
        columns: Vec<(Arc<str>, Column)>,
        rows: usize,
        sources: Arc<Sources>,
    ) -> Result<Self> {
        for (name, column) in &columns {
            ensure!(
                column.len() == rows,
                "column {name:?} has {} rows; expected {rows}",
                column.len()
            );
        }
        Ok(Self {
            columns,
            rows,
            sources,
        })
    }

    /// A table of examples that did not come from a file.
    pub fn from_examples(examples: &[Example]) -> Result<Self> {
        let mut builder = TableBuilder::new(None);
        for example in examples {
            for (position, (name, value)) in example.columns.iter().enumerate() {
                builder.column(name, position).push(Cell::from(value));
            }
            builder.end_rows(1);
        }
        let table = builder.finish();
        table
            .columns
            .iter()
            .try_for_each(|(name, _)| table.usable(name).map(|_| ()))?;
        Ok(table)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Where the rows came from.
    pub fn sources(&self) -> &Arc<Sources> {
        &self.sources
    }

    /// Columns in file order.
    pub fn columns(&self) -> &[(Arc<str>, Column)] {
        &self.columns
    }

    /// A column, whatever it holds.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns
            .iter()
            .find(|(column, _)| &**column == name)
            .map(|(_, column)| column)
    }

    /// A column that is going to be used: an error if it is absent or a value did not fit.
    pub fn usable(&self, name: &str) -> Result<&Column> {
        let column = self
            .column(name)
            .ok_or_else(|| anyhow!("no column {name:?}"))?;
        match column.cells() {
            Cells::Unusable { row, reason } => Err(Failure::data(format!(
                "{}: field {name:?} {reason}",
                self.sources.locate(*row)
            ))
            .into()),
            _ => Ok(column),
        }
    }

    /// Names for a message: `text, label`.
    pub fn column_names(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| &**name).collect();
        names.join(", ")
    }

    /// Takes the table apart.
    pub fn into_columns(self) -> Vec<(Arc<str>, Column)> {
        self.columns
    }
}

impl Dataset for Table {
    fn len(&self) -> usize {
        self.rows
    }

    fn get(&self, index: usize) -> Result<Example> {
        ensure!(
            index < self.rows,
            "row {index} of a data set with {} rows",
            self.rows
        );
        let columns = self
            .columns
            .iter()
            .map(|(name, column)| (name.clone(), column.get(index)))
            .collect();
        Ok(Example { columns })
    }

    fn columns(&self) -> Vec<Arc<str>> {
        self.columns.iter().map(|(name, _)| name.clone()).collect()
    }

    fn locate(&self, index: usize) -> String {
        self.sources.locate(index)
    }

    fn row_lengths(&self, column: &str) -> Result<Vec<usize>> {
        let held = self.usable(column)?;
        let length = |row| {
            held.row_len(row)
                .filter(|_| !held.is_null(row))
                .ok_or_else(|| {
                    Failure::data(format!(
                        "{}: field {column:?} is no list, so it has no length",
                        self.locate(row)
                    ))
                    .into()
                })
        };
        (0..self.rows).map(length).collect()
    }
}

/// Collects rows into a table.
#[derive(Debug, Default)]
pub struct TableBuilder {
    columns: Vec<(Arc<str>, Column)>,
    rows: usize,
    max_rows: Option<usize>,
    sources: Sources,
}

impl TableBuilder {
    /// A builder that is full after `max_rows` rows.
    pub fn new(max_rows: Option<usize>) -> Self {
        Self {
            max_rows,
            ..Self::default()
        }
    }

    /// Begins with the columns of `table`, as far as their types are decided, and none of its rows.
    pub(super) fn like(mut self, table: &Table) -> Self {
        let columns = table.columns.iter();
        self.columns = columns
            .map(|(name, column)| (name.clone(), column.like()))
            .collect();
        self
    }

    /// The rows that follow come from this file.
    pub fn begin_file(&mut self, path: &Path, unit: Unit) {
        self.sources.files.push((path.to_owned(), unit));
    }

    /// The next row comes from this line of the file.
    pub fn begin_row(&mut self, line: u64) {
        self.sources.add(self.rows, line);
    }

    /// Ends `count` rows: columns without a value get null.
    pub fn end_rows(&mut self, count: usize) {
        self.rows += count;
        for (_, column) in &mut self.columns {
            while column.len() < self.rows {
                column.push(Cell::Null);
            }
        }
    }

    /// Rows that ended.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many rows may still come.
    pub fn room(&self) -> usize {
        self.max_rows
            .map_or(usize::MAX, |max| max.saturating_sub(self.rows))
    }

    /// The column `name`, made now if it is new, ready for the next row. `position` is where it most likely is.
    pub fn column(&mut self, name: &str, position: usize) -> &mut Column {
        let is_there = |index: &usize| {
            self.columns
                .get(*index)
                .is_some_and(|(column, _)| &**column == name)
        };
        let index = Some(position).filter(is_there).or_else(|| {
            self.columns
                .iter()
                .position(|(column, _)| &**column == name)
        });
        let index = index.unwrap_or_else(|| {
            let mut column = Column::default();
            (0..self.rows).for_each(|_| column.push(Cell::Null));
            self.columns.push((name.into(), column));
            self.columns.len() - 1
        });
        &mut self.columns[index].1
    }

    /// The table.
    pub fn finish(mut self) -> Table {
        self.columns
            .iter_mut()
            .for_each(|(_, column)| column.settle());
        Table {
            columns: self.columns,
            rows: self.rows,
            sources: Arc::new(self.sources),
        }
    }
}

/// Lengths that the table holds as a column of integers; `None` if there is no such column.
pub fn given_lengths(table: &Table, column: &str) -> Result<Option<Vec<usize>>> {
    let Some(Cells::Ints(numbers)) = table.column(column).map(Column::cells) else {
        return Ok(None);
    };
    let length = |row| {
        usize::try_from(numbers.get(row)).map_err(|_| {
            Failure::data(format!(
                "{}: field {column:?} is negative; expected a length",
                table.locate(row)
            ))
            .into()
        })
    };
    (0..table.rows())
        .map(length)
        .collect::<Result<_>>()
        .map(Some)
}

/// An example's value as a length, for data sets that are not tables.
pub(super) fn value_length(value: &Value) -> Option<usize> {
    match value {
        Value::Ints(numbers) => Some(numbers.len()),
        Value::Floats(numbers) => Some(numbers.len()),
        Value::Texts(texts) => Some(texts.len()),
        Value::Null | Value::Int(_) | Value::Float(_) | Value::Text(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Cell, Dataset, Example, Table, TableBuilder, Unit, Value, given_lengths};

    fn example(columns: &[(&str, Value)]) -> Example {
        Example {
            columns: columns
                .iter()
                .map(|(name, value)| ((*name).into(), value.clone()))
                .collect(),
        }
    }

    #[test]
    fn rows_are_located_by_file_and_line() {
        let mut builder = TableBuilder::new(None);
        builder.begin_file(Path::new("a.jsonl"), Unit::Line);
        for line in [1, 2, 5] {
            builder.begin_row(line);
            builder.end_rows(1);
        }
        builder.begin_file(Path::new("b.parquet"), Unit::Row);
        builder.begin_row(1);
        builder.end_rows(2);
        let table = builder.finish();
        let places: Vec<String> = (0..5).map(|row| table.locate(row)).collect();
        assert_eq!(
            places,
            [
                "a.jsonl:1",
                "a.jsonl:2",
                "a.jsonl:5",
                "b.parquet row 1",
                "b.parquet row 2"
            ]
        );
    }

    #[test]
    fn examples_come_back_as_they_went_in() {
        let rows = [
            example(&[
                ("x", Value::Float(0.5)),
                ("words", Value::Texts(vec!["a".into(), "b".into()])),
            ]),
            example(&[("x", Value::Null), ("words", Value::Texts(vec![]))]),
        ];
        let table = Table::from_examples(&rows).expect("rows of one type");
        assert_eq!(table.get(0).expect("a row"), rows[0]);
        assert_eq!(table.get(1).expect("a row"), rows[1]);
        assert!(table.get(2).is_err());
    }

    #[test]
    fn a_column_that_comes_late_or_stops_holds_nulls() {
        let rows = [
            example(&[("a", Value::Int(1))]),
            example(&[("b", Value::Int(2))]),
        ];
        let table = Table::from_examples(&rows).expect("rows");
        assert_eq!(
            table.get(0).expect("a row"),
            example(&[("a", Value::Int(1)), ("b", Value::Null)])
        );
        assert_eq!(
            table.get(1).expect("a row"),
            example(&[("a", Value::Null), ("b", Value::Int(2))])
        );
    }

    #[test]
    fn only_a_used_column_complains() {
        let mut builder = TableBuilder::new(None);
        builder.begin_file(Path::new("train.jsonl"), Unit::Line);
        for (line, cell) in [(16, Cell::Int(1)), (17, Cell::Text("one".into()))] {
            builder.begin_row(line);
            builder.column("label", 0).push(cell);
            builder.end_rows(1);
        }
        let table = builder.finish();
        let error = table.usable("label").expect_err("mixed types").to_string();
        assert_eq!(
            error,
            "train.jsonl:17: field \"label\" is a string; expected an integer (as in the rows before)"
        );
    }

    #[test]
    fn lengths_come_from_the_length_column_or_the_rows() {
        let rows = [
            example(&[
                ("input_ids", Value::Ints(vec![1, 2])),
                ("length", Value::Int(7)),
            ]),
            example(&[
                ("input_ids", Value::Ints(vec![1])),
                ("length", Value::Int(9)),
            ]),
        ];
        let table = Table::from_examples(&rows).expect("rows");
        assert_eq!(
            given_lengths(&table, "length").expect("lengths"),
            Some(vec![7, 9])
        );
        assert_eq!(
            given_lengths(&table, "input_ids").expect("no lengths"),
            None
        );
        assert_eq!(table.row_lengths("input_ids").expect("lengths"), [2, 1]);
        let error = table
            .row_lengths("length")
            .expect_err("no rows")
            .to_string();
        assert_eq!(
            error,
            "row 0: field \"length\" is no list, so it has no length"
        );
    }
}
