//! Files as a stream: opened one after the other when their turn comes, read a batch at a time.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::{Open, Reader, no_rows, reader_of};
use crate::data::Table;
use crate::data::stream::{Pass, Stream};
use crate::data::table::TableBuilder;
use crate::error::Failure;

/// Rows that decide the types of columns, where a batch alone could be taken for another type.
const SAMPLE: usize = 1024;

/// Files that are read row by row, in their order.
pub struct FileStream {
    files: Vec<(PathBuf, Open)>,
    max_rows: Option<usize>,
    /// The first rows; `None` for pipes, which can be read only once.
    sample: Option<Table>,
    is_spent: bool,
}

impl FileStream {
    /// The files, of which at most `max_rows` rows are passed over. The first rows are read now, so that what is wrong with
    /// them is known at once.
    pub fn new(files: &[PathBuf], max_rows: Option<usize>) -> Result<Self> {
        ensure!(!files.is_empty(), Failure::usage("no data file was given"));
        let files = files
            .iter()
            .map(|path| Ok((path.clone(), reader_of(path)?)))
            .collect::<Result<Vec<_>>>()?;
        let is_file =
            |(path, _): &(PathBuf, Open)| fs::metadata(path).is_ok_and(|file| !is_pipe(&file));
        let mut stream = Self {
            is_spent: false,
            sample: None,
            max_rows,
            files,
        };
        if stream.files.iter().all(is_file) {
            stream.sample = Some(stream.begin().read(SAMPLE)?);
        }
        Ok(stream)
    }

    /// The first rows, if looking at them does not use them up.
    pub fn sample(&self) -> Option<&Table> {
        self.sample.as_ref()
    }

    fn begin(&self) -> FilePass {
        FilePass {
            files: self.files.iter().cloned().collect(),
            current: None,
            left: self.max_rows.unwrap_or(usize::MAX),
            types: self.sample.clone(),
        }
    }
}

/// Neither a file nor a folder.
fn is_pipe(metadata: &fs::Metadata) -> bool {
    !metadata.is_file() && !metadata.is_dir()
}

impl Stream for FileStream {
    fn open(&mut self) -> Result<Box<dyn Pass>> {
        let mut pass = self.begin();
        if self.sample.is_none() && self.is_spent {
            pass.files.clear();
        }
        self.is_spent = true;
        Ok(Box::new(pass))
    }
}

/// A file being read, and whether it has given a row.
struct Current {
    path: PathBuf,
    reader: Box<dyn Reader>,
    has_rows: bool,
}

struct FilePass {
    files: VecDeque<(PathBuf, Open)>,
    current: Option<Current>,
    /// Rows that may still come.
    left: usize,
    /// Decides the types of columns.
    types: Option<Table>,
}

impl Pass for FilePass {
    fn read(&mut self, count: usize) -> Result<Table> {
        let mut builder = TableBuilder::new(Some(count.min(self.left)));
        if let Some(types) = &self.types {
            builder = builder.like(types);
        }
        while builder.room() > 0 {
            let mut current = match (self.current.take(), self.files.pop_front()) {
                (Some(current), next) => {
                    next.into_iter()
                        .for_each(|file| self.files.push_front(file));
                    current
                }
                (None, Some((path, open))) => Current {
                    reader: open(&path)?,
                    has_rows: false,
                    path,
                },
                (None, None) => break,
            };
            let before = builder.rows();
            current.reader.fill(&mut builder)?;
            current.has_rows |= builder.rows() > before;
            ensure!(current.has_rows, no_rows(&current.path));
            if builder.room() == 0 {
                self.current = Some(current);
            }
        }
        self.left -= builder.rows();
        let table = builder.finish();
        // A pipe's first batch is all there is to go by.
        if self.types.is_none() {
            self.types = Some(table.clone());
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::write;
    use super::FileStream;
    use crate::data::stream::Stream;
    use crate::data::{Dataset, Table, Value};

    fn values(table: &Table, name: &str) -> Vec<Value> {
        let column = table.usable(name).expect("a column");
        (0..column.len()).map(|row| column.get(row)).collect()
    }

    #[test]
    fn rows_come_in_file_order_with_their_places_as_often_as_asked() {
        let (_folder, paths) = write(&[
            ("a.jsonl", b"{\"x\": 1}\n\n{\"x\": 2}\n{\"x\": 3}\n"),
            ("b.csv", b"x\n4\n5\n"),
        ]);
        for limit in [None, Some(4)] {
            let mut stream = FileStream::new(&paths, limit).expect("files");
            for _ in 0..2 {
                let mut pass = stream.open().expect("a pass");
                let mut found = Vec::new();
                loop {
                    let table = pass.read(2).expect("rows");
                    if table.rows() == 0 {
                        break;
                    }
                    let places = (0..table.rows()).map(|row| table.locate(row));
                    let places = places.map(|place| place.rsplit('/').next().map(str::to_owned));
                    found.extend(places.flatten().zip(values(&table, "x")));
                }
                let expected = ["a.jsonl:1", "a.jsonl:3", "a.jsonl:4", "b.csv:2", "b.csv:3"];
                let expected = expected.iter().zip(1..);
                let expected = expected.map(|(place, x)| ((*place).to_owned(), Value::Int(x)));
                let count = limit.unwrap_or(5);
                assert_eq!(found, expected.take(count).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn skipping_leaves_out_exactly_so_many() {
        let rows: String = (0..3000).map(|x| format!("{{\"x\": {x}}}\n")).collect();
        let (_folder, paths) = write(&[("a.jsonl", rows.as_bytes())]);
        let mut stream = FileStream::new(&paths, None).expect("a file");
        for (count, skipped) in [(0, 0), (1, 1), (2500, 2500), (3000, 3000), (4000, 3000)] {
            let mut pass = stream.open().expect("a pass");
            assert_eq!(pass.skip(count).expect("rows"), skipped);
            let next = pass.read(1).expect("rows");
            let expected = (skipped < 3000).then_some(Value::Int(skipped as i64));
            let found = (next.rows() > 0).then(|| values(&next, "x")[0].clone());
            assert_eq!(found, expected);
        }
    }

    /// A batch alone could be taken for another type: texts that are numbers, whole real numbers.
    #[test]
    fn types_are_those_of_the_first_rows() {
        let (_folder, paths) = write(&[("a.csv", b"text,score\n1,2\n2,3\nx,0.5\n")]);
        let mut stream = FileStream::new(&paths, None).expect("a file");
        let mut pass = stream.open().expect("a pass");
        let first = pass.read(2).expect("rows");
        assert_eq!(
            values(&first, "text"),
            ["1", "2"].map(|text| Value::Text(text.into()))
        );
        assert_eq!(values(&first, "score"), [2.0, 3.0].map(Value::Float));
    }

    #[test]
    fn many_rows_of_parquet_come_in_pieces() {
        use arrow::array::Int32Array;
        use parquet::arrow::ArrowWriter;
        let numbers = std::sync::Arc::new(Int32Array::from_iter_values(0..10_000));
        let batch = arrow::record_batch::RecordBatch::try_from_iter([("x", numbers as _)]);
        let batch = batch.expect("a column");
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("a writer");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
        let (_folder, paths) = write(&[("a.parquet", &bytes)]);
        let mut stream = FileStream::new(&paths, None).expect("a file");
        let mut pass = stream.open().expect("a pass");
        assert_eq!(pass.skip(4000).expect("rows"), 4000);
        let table = pass.read(300).expect("rows");
        let expected: Vec<Value> = (4000..4300).map(Value::Int).collect();
        assert_eq!(values(&table, "x"), expected);
        assert!(table.locate(299).ends_with("a.parquet row 4300"));
    }

    #[test]
    fn a_bad_row_is_named_when_its_turn_comes_and_an_empty_file_at_once() {
        let rows: String = (0..2000).map(|x| format!("{{\"x\": {x}}}\n")).collect();
        let (_folder, paths) = write(&[("a.jsonl", (rows + "{\"x\": }\n").as_bytes())]);
        let mut stream = FileStream::new(&paths, None).expect("the first rows are good");
        let mut pass = stream.open().expect("a pass");
        let error = pass.read(3000).expect_err("a bad row").to_string();
        assert!(error.contains("a.jsonl:2001: malformed JSON"), "{error}");
        let (_folder, paths) = write(&[("a.jsonl", b"\n")]);
        let error = FileStream::new(&paths, None).err().expect("no rows");
        assert!(
            error
                .to_string()
                .ends_with("a.jsonl: the file holds no rows"),
            "{error}"
        );
    }
}
