//! Parquet through arrow. Types are brought to those of a table by arrow's casts; a column of another type is kept by
//! name only.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::{Reader, open};
use crate::data::column::{Cell, Column};
use crate::data::table::{TableBuilder, Unit};
use crate::error::Failure;

const ROWS_AT_ONCE: usize = 4096;

/// A file of row groups.
struct Rows {
    path: PathBuf,
    batches: ParquetRecordBatchReader,
    /// What is left of a batch that was longer than the room for it.
    rest: Option<RecordBatch>,
    /// Rows that were handed over.
    done: u64,
}

/// Opens a file.
pub(super) fn open_rows(path: &Path) -> Result<Box<dyn Reader>> {
    let file = open(path)?;
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| corrupt(path, &error))?;
    let batches = reader.with_batch_size(ROWS_AT_ONCE).build();
    Ok(Box::new(Rows {
        path: path.to_owned(),
        batches: batches.map_err(|error| corrupt(path, &error))?,
        rest: None,
        done: 0,
    }))
}

fn corrupt(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::data(format!(
        "{}: not a readable Parquet file: {error}",
        path.display()
    ))
}

impl Reader for Rows {
    fn fill(&mut self, builder: &mut TableBuilder) -> Result<()> {
        builder.begin_file(&self.path, Unit::Row);
        while builder.room() > 0 {
            let next = self.rest.take().map(Ok).or_else(|| self.batches.next());
            let Some(batch) = next else { break };
            let batch = batch.map_err(|error| corrupt(&self.path, &error))?;
            let count = batch.num_rows().min(builder.room());
            if count < batch.num_rows() {
                self.rest = Some(batch.slice(count, batch.num_rows() - count));
            }
            builder.begin_row(self.done + 1);
            self.done += count as u64;
            append(&batch.slice(0, count), builder);
        }
        Ok(())
    }
}

fn append(batch: &RecordBatch, builder: &mut TableBuilder) {
    for (position, (field, array)) in batch
        .schema()
        .fields()
        .iter()
        .zip(batch.columns())
        .enumerate()
    {
        let column = builder.column(field.name(), position);
        match typed(array) {
            Ok(array) => push_all(&array, column),
            Err(what) => {
                (0..array.len()).for_each(|_| column.push(Cell::Unusable(Cow::Owned(what.clone()))))
            }
        }
    }
    builder.end_rows(batch.num_rows());
}

/// The array in a type of the table, or in words why there is none.
fn typed(array: &ArrayRef) -> Result<ArrayRef, String> {
    let stored = array.data_type();
    let wanted =
        table_type(stored).ok_or_else(|| format!("of type {stored}, which a table cannot hold"))?;
    // A cast that is not "safe" refuses instead of putting null for what does not fit.
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(array, &wanted, &options)
        .map_err(|error| format!("of type {stored}: {error}"))
}

/// The type among the table's that holds all values of an arrow type.
fn table_type(stored: &DataType) -> Option<DataType> {
    match stored {
        DataType::Null => Some(DataType::Null),
        DataType::Boolean => Some(DataType::Int64),
        integer if integer.is_integer() => Some(DataType::Int64),
        real if real.is_floating() => Some(DataType::Float64),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(DataType::LargeUtf8),
        DataType::Dictionary(_, value) => table_type(value),
        DataType::List(element)
        | DataType::LargeList(element)
        | DataType::FixedSizeList(element, _) => {
            let element = table_type(element.data_type())
                .filter(|element| !matches!(element, DataType::LargeList(_)))?;
            Some(DataType::LargeList(Arc::new(Field::new_list_field(
                element, true,
            ))))
        }
        _ => None,
    }
}

fn push_all(array: &ArrayRef, column: &mut Column) {
    for row in 0..array.len() {
        column.push(if array.is_null(row) {
            Cell::Null
        } else {
            cell(array, row)
        });
    }
}

fn cell(array: &ArrayRef, row: usize) -> Cell<'_> {
    match array.data_type() {
        DataType::Int64 => Cell::Int(array.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => Cell::Float(array.as_primitive::<Float64Type>().value(row)),
        DataType::LargeUtf8 => Cell::Text(Cow::Borrowed(array.as_string::<i64>().value(row))),
        DataType::LargeList(_) => list(&array.as_list::<i64>().value(row)),
        _ => Cell::Null,
    }
}

fn list(elements: &ArrayRef) -> Cell<'static> {
    if elements.null_count() > 0 {
        return Cell::Unusable("a list with null in it".into());
    }
    match elements.data_type() {
        DataType::Int64 => Cell::Ints(elements.as_primitive::<Int64Type>().values().to_vec()),
        DataType::Float64 => Cell::Floats(elements.as_primitive::<Float64Type>().values().to_vec()),
        DataType::LargeUtf8 => {
            let texts = elements.as_string::<i64>();
            Cell::Texts(
                (0..texts.len())
                    .map(|index| Cow::Owned(texts.value(index).to_owned()))
                    .collect(),
            )
        }
        _ => Cell::Ints(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BinaryArray, BooleanArray, DictionaryArray, FixedSizeListArray, Float32Array,
        Int32Array, ListArray, StringArray, UInt64Array,
    };
    use arrow::datatypes::{Int8Type, Int32Type};
    use arrow::record_batch::RecordBatch;
    use parquet::arrow::ArrowWriter;

    use super::super::tests::{column, error, table, write};
    use crate::data::{Dataset, Value, format};

    fn file(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
        let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("a writer");
        writer.write(&batch).expect("a batch is written");
        writer.close().expect("the file is closed");
        bytes
    }

    #[test]
    fn every_type_of_a_table_is_read() {
        let lists =
            ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(7), Some(8)]), None]);
        let pairs = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(
            [Some([Some(1), Some(2)]), Some([Some(3), Some(4)])],
            2,
        );
        let kinds: DictionaryArray<Int8Type> = ["cat", "dog"].into_iter().collect();
        let bytes = file(vec![
            ("b", Arc::new(BooleanArray::from(vec![true, false]))),
            ("i", Arc::new(Int32Array::from(vec![Some(1), None]))),
            ("f", Arc::new(Float32Array::from(vec![0.5, 2.0]))),
            ("t", Arc::new(StringArray::from(vec!["a", "\u{e9}"]))),
            ("k", Arc::new(kinds)),
            ("l", Arc::new(lists)),
            ("p", Arc::new(pairs)),
        ]);
        let table = table(&[("a.parquet", &bytes)]);
        assert_eq!(column(&table, "b"), [Value::Int(1), Value::Int(0)]);
        assert_eq!(column(&table, "i"), [Value::Int(1), Value::Null]);
        assert_eq!(column(&table, "f"), [Value::Float(0.5), Value::Float(2.0)]);
        assert_eq!(
            column(&table, "t"),
            [Value::Text("a".into()), Value::Text("\u{e9}".into())]
        );
        assert_eq!(
            column(&table, "k"),
            [Value::Text("cat".into()), Value::Text("dog".into())]
        );
        assert_eq!(column(&table, "l"), [Value::Ints(vec![7, 8]), Value::Null]);
        assert_eq!(
            column(&table, "p"),
            [Value::Ints(vec![1, 2]), Value::Ints(vec![3, 4])]
        );
        assert!(table.locate(1).ends_with("a.parquet row 2"));
    }

    #[test]
    fn many_rows_and_a_limit() {
        let bytes = file(vec![(
            "i",
            Arc::new(Int32Array::from_iter_values(0..10_000)),
        )]);
        let (_folder, paths) = write(&[("a.parquet", &bytes)]);
        let table = format::read(&paths, Some(5000)).expect("a good file");
        assert_eq!(
            column(&table, "i"),
            (0..5000).map(Value::Int).collect::<Vec<_>>()
        );
        assert!(table.locate(4999).ends_with("a.parquet row 5000"));
    }

    #[test]
    fn bad_files_are_named() {
        let garbage = error(&[("a.parquet", b"PAR1 this is not one")]);
        assert!(
            garbage.starts_with("a.parquet: not a readable Parquet file: "),
            "{garbage}"
        );
        let good = file(vec![("i", Arc::new(Int32Array::from(vec![1])))]);
        let truncated = error(&[("a.parquet", &good[..good.len() - 10])]);
        assert!(
            truncated.starts_with("a.parquet: not a readable Parquet file: "),
            "{truncated}"
        );
        let large = error(&[(
            "a.parquet",
            &file(vec![("i", Arc::new(UInt64Array::from(vec![u64::MAX])))]),
        )]);
        assert!(
            large.starts_with("a.parquet row 1: field \"i\" is of type UInt64: "),
            "{large}"
        );
        let binary = error(&[(
            "a.parquet",
            &file(vec![("i", Arc::new(BinaryArray::from_vec(vec![b"x"])))]),
        )]);
        assert_eq!(
            binary,
            "a.parquet row 1: field \"i\" is of type Binary, which a table cannot hold"
        );
    }
}
