//! CSV and TSV with a header line. A column's type is decided by all its values; an empty value is null.

use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use csv::{ByteRecord, ErrorKind, ReaderBuilder};

use super::{Reader, open, utf8_column};
use crate::data::column::Cell;
use crate::data::table::{TableBuilder, Unit};
use crate::error::Failure;

const BUFFER: usize = 1 << 20;

/// A file with a header line.
struct Records {
    path: PathBuf,
    reader: csv::Reader<File>,
    names: Vec<String>,
    record: ByteRecord,
}

/// Opens a CSV file.
pub(super) fn open_commas(path: &Path) -> Result<Box<dyn Reader>> {
    open_records(path, b',')
}

/// Opens a TSV file.
pub(super) fn open_tabs(path: &Path) -> Result<Box<dyn Reader>> {
    open_records(path, b'\t')
}

fn open_records(path: &Path, delimiter: u8) -> Result<Box<dyn Reader>> {
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .buffer_capacity(BUFFER)
        .from_reader(open(path)?);
    let header = reader
        .byte_headers()
        .map_err(|error| explain(path, error))?;
    let names = header_names(header)
        .map_err(|message| Failure::data(format!("{}:1: {message}", path.display())))?;
    Ok(Box::new(Records {
        path: path.to_owned(),
        names: names.into_iter().map(str::to_owned).collect(),
        record: ByteRecord::new(),
        reader,
    }))
}

impl Reader for Records {
    fn fill(&mut self, builder: &mut TableBuilder) -> Result<()> {
        let path = &self.path;
        builder.begin_file(path, Unit::Line);
        while builder.room() > 0 {
            let read = self.reader.read_byte_record(&mut self.record);
            if !read.map_err(|error| explain(path, error))? {
                break;
            }
            let line = self.record.position().map_or(0, csv::Position::line);
            builder.begin_row(line);
            for (position, (name, field)) in self.names.iter().zip(&self.record).enumerate() {
                let text = std::str::from_utf8(field).map_err(|error| {
                    let at = utf8_column(error);
                    Failure::data(format!(
                        "{}:{line}: field {name:?} is not valid UTF-8 at its byte {at}",
                        path.display()
                    ))
                })?;
                builder
                    .column(name, position)
                    .push(Cell::Untyped(Cow::Borrowed(text)));
            }
            builder.end_rows(1);
        }
        Ok(())
    }
}

fn header_names(header: &ByteRecord) -> Result<Vec<&str>, String> {
    let mut names: Vec<&str> = Vec::with_capacity(header.len());
    for field in header {
        let name = std::str::from_utf8(field)
            .map_err(|error| format!("the header is not valid UTF-8: {error}"))?;
        if names.contains(&name) {
            return Err(format!("column {name:?} appears twice in the header"));
        }
        names.push(name);
    }
    // Unnamed columns of a data frame are written as 0, 1, 2, ...; other numbers are data.
    let is_counted = names
        .iter()
        .enumerate()
        .all(|(position, name)| *name == position.to_string());
    if !is_counted && names.iter().all(|name| name.trim().parse::<f64>().is_ok()) {
        return Err("the file has no header line with the names of the columns".to_owned());
    }
    Ok(names)
}

fn explain(path: &Path, error: csv::Error) -> anyhow::Error {
    match error.into_kind() {
        ErrorKind::UnequalLengths {
            pos,
            expected_len,
            len,
        } => {
            let line = pos.map_or(0, |position| position.line());
            let message = format!(
                "{}:{line}: {len} fields; expected {expected_len} (as in the header)",
                path.display()
            );
            Failure::data(message)
                .hint("a field that holds the separator or a line break must be in double quotes")
                .into()
        }
        ErrorKind::Io(error) => {
            anyhow::Error::new(error).context(format!("reading {}", path.display()))
        }
        other => anyhow!(Failure::data(format!("{}: {other:?}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{column, error, table};
    use crate::data::{Dataset, Value};

    #[test]
    fn quoted_fields_line_breaks_and_types() {
        let text = "\u{feff}text,label,score\n\"a, \"\"b\"\"\nc\",1,\nd,0,0.5\r\n";
        let table = table(&[("a.csv", text.as_bytes())]);
        assert_eq!(
            column(&table, "text"),
            [Value::Text("a, \"b\"\nc".into()), Value::Text("d".into())]
        );
        assert_eq!(column(&table, "label"), [Value::Int(1), Value::Int(0)]);
        assert_eq!(column(&table, "score"), [Value::Null, Value::Float(0.5)]);
        assert!(table.locate(0).ends_with("a.csv:2") && table.locate(1).ends_with("a.csv:4"));
    }

    #[test]
    fn bad_files_are_located() {
        let cases: [(&[u8], &str); 5] = [
            (
                b"a,b\n1,2\n1,2,3\n",
                "a.csv:3: 3 fields; expected 2 (as in the header)",
            ),
            (
                b"a,b\n1\n",
                "a.csv:2: 1 fields; expected 2 (as in the header)",
            ),
            (
                b"a,b\n1,\xff\n",
                "a.csv:2: field \"b\" is not valid UTF-8 at its byte 1",
            ),
            (
                b"5,0.5\n1,2\n",
                "a.csv:1: the file has no header line with the names of the columns",
            ),
            (
                b"a,a\n1,2\n",
                "a.csv:1: column \"a\" appears twice in the header",
            ),
        ];
        for (content, message) in cases {
            assert_eq!(error(&[("a.csv", content)]), message);
        }
    }

    #[test]
    fn a_counted_header_is_a_header() {
        let table = table(&[("a.tsv", b"0\t1\n5\t6\n")]);
        assert_eq!(
            (column(&table, "0"), column(&table, "1")),
            (vec![Value::Int(5)], vec![Value::Int(6)])
        );
    }
}
