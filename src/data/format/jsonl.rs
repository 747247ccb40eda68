//! JSON lines: one object a line, fields become columns. Lines are parsed straight into cells.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::error::Category;

use super::{Reader, open, utf8_column};
use crate::data::column::Cell;
use crate::data::table::{TableBuilder, Unit};
use crate::error::Failure;

const BUFFER: usize = 1 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A file of lines; blank ones are skipped.
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    /// Lines that were read.
    number: u64,
    line: Vec<u8>,
}

/// Opens a file.
pub(super) fn open_lines(path: &Path) -> Result<Box<dyn Reader>> {
    Ok(Box::new(Lines {
        path: path.to_owned(),
        reader: BufReader::with_capacity(BUFFER, open(path)?),
        number: 0,
        line: Vec::new(),
    }))
}

impl Reader for Lines {
    fn fill(&mut self, builder: &mut TableBuilder) -> Result<()> {
        builder.begin_file(&self.path, Unit::Line);
        while builder.room() > 0 {
            self.line.clear();
            let context = || format!("reading {}", self.path.display());
            let read = self.reader.read_until(b'\n', &mut self.line);
            if read.with_context(context)? == 0 {
                break;
            }
            self.number += 1;
            let number = self.number;
            let bytes = if number == 1 {
                self.line
                    .strip_prefix(BYTE_ORDER_MARK)
                    .unwrap_or(&self.line)
            } else {
                &self.line
            };
            read_line(bytes, number, builder).map_err(|failure| {
                let message = format!("{}:{number}: {}", self.path.display(), failure.message);
                Failure { message, ..failure }
            })?;
        }
        Ok(())
    }
}

fn read_line(bytes: &[u8], number: u64, builder: &mut TableBuilder) -> Result<(), Failure> {
    let not_utf8 = |error| Failure::data(format!("not valid UTF-8 at byte {}", utf8_column(error)));
    let text = std::str::from_utf8(bytes).map_err(not_utf8)?;
    let text = text.trim_end();
    if text.trim_start().is_empty() {
        return Ok(());
    }
    builder.begin_row(number);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Row { builder }
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end())
        .map_err(|error| explain(&error))?;
    builder.end_rows(1);
    Ok(())
}

fn explain(error: &serde_json::Error) -> Failure {
    let text = error.to_string();
    let message = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(message, _)| message);
    match error.classify() {
        Category::Data if message.starts_with("invalid type") => Failure::data(message).hint(
            "each line of the file must be one JSON object: {\"text\": \"...\", \"label\": 0}",
        ),
        Category::Data => Failure::data(message),
        _ => Failure::data(format!(
            "malformed JSON at column {}: {message}",
            error.column()
        )),
    }
}

/// One line.
struct Row<'b> {
    builder: &'b mut TableBuilder,
}

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with the fields of one row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let mut position = 0;
        while let Some(name) = fields.next_key_seed(AnyCell)? {
            let Cell::Text(name) = name else {
                return Err(A::Error::custom("a field without a name"));
            };
            let cell = fields.next_value_seed(AnyCell)?;
            let rows = self.builder.rows();
            let column = self.builder.column(&name, position);
            if column.len() > rows {
                return Err(A::Error::custom(format!("field {name:?} appears twice")));
            }
            column.push(cell);
            position += 1;
        }
        Ok(())
    }
}

/// Any JSON value as a cell.
struct AnyCell;

impl<'de> DeserializeSeed<'de> for AnyCell {
    type Value = Cell<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cell<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyCell {
    type Value = Cell<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Cell<'de>, E> {
        Ok(Cell::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Cell<'de>, E> {
        Ok(Cell::Int(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Cell<'de>, E> {
        Ok(Cell::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Cell<'de>, E> {
        Ok(i64::try_from(value).map_or(
            Cell::Unusable("an integer beyond 64 bits".into()),
            Cell::Int,
        ))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Cell<'de>, E> {
        Ok(Cell::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Cell<'de>, E> {
        Ok(Cell::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Cell<'de>, E> {
        Ok(Cell::Text(Cow::Borrowed(value)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Cell<'de>, A::Error> {
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Cell::Unusable("an object".into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Cell<'de>, A::Error> {
        let mut row = Cell::Ints(Vec::new());
        while let Some(element) = elements.next_element_seed(AnyCell)? {
            row = append(row, element);
        }
        Ok(row)
    }
}

/// Appends an element to a list that may have to widen.
fn append<'a>(row: Cell<'a>, element: Cell<'a>) -> Cell<'a> {
    match (row, element) {
        (Cell::Unusable(what), _) => Cell::Unusable(what),
        (_, Cell::Null) => Cell::Unusable("a list with null in it".into()),
        (Cell::Ints(mut numbers), Cell::Int(number)) => {
            numbers.push(number);
            Cell::Ints(numbers)
        }
        (Cell::Ints(numbers), Cell::Float(number)) => Cell::Floats(
            numbers
                .into_iter()
                .map(|number| number as f64)
                .chain([number])
                .collect(),
        ),
        (Cell::Ints(numbers), Cell::Text(text)) if numbers.is_empty() => Cell::Texts(vec![text]),
        (Cell::Floats(mut numbers), Cell::Float(number)) => {
            numbers.push(number);
            Cell::Floats(numbers)
        }
        (Cell::Floats(mut numbers), Cell::Int(number)) => {
            numbers.push(number as f64);
            Cell::Floats(numbers)
        }
        (Cell::Texts(mut texts), Cell::Text(text)) => {
            texts.push(text);
            Cell::Texts(texts)
        }
        (_, Cell::Int(_) | Cell::Float(_) | Cell::Text(_)) => {
            Cell::Unusable("a list of strings and numbers mixed".into())
        }
        _ => Cell::Unusable("a nested list".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{column, error, table};
    use crate::data::{Dataset, Value};

    fn rows(text: &str) -> crate::data::Table {
        table(&[("a.jsonl", text.as_bytes())])
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let table = rows(
            "\u{feff}{\"i\": 1, \"f\": 1e3, \"t\": \"a\\n\u{e9}\", \"b\": true, \"n\": null, \"is\": [1, 2], \"fs\": [1, 0.5], \"ts\": [\"x\"]}\n\
             \n\
             {\"i\": -2, \"f\": 2, \"t\": \"b\", \"b\": false, \"n\": null, \"is\": [], \"fs\": [], \"ts\": []}\r\n",
        );
        assert_eq!(column(&table, "i"), [Value::Int(1), Value::Int(-2)]);
        assert_eq!(
            column(&table, "f"),
            [Value::Float(1000.0), Value::Float(2.0)]
        );
        assert_eq!(
            column(&table, "t"),
            [Value::Text("a\n\u{e9}".into()), Value::Text("b".into())]
        );
        assert_eq!(column(&table, "b"), [Value::Int(1), Value::Int(0)]);
        assert_eq!(column(&table, "n"), [Value::Null, Value::Null]);
        assert_eq!(
            column(&table, "is"),
            [Value::Ints(vec![1, 2]), Value::Ints(vec![])]
        );
        assert_eq!(
            column(&table, "fs"),
            [Value::Floats(vec![1.0, 0.5]), Value::Floats(vec![])]
        );
        assert_eq!(
            column(&table, "ts"),
            [Value::Texts(vec!["x".into()]), Value::Texts(vec![])]
        );
        assert!(table.locate(1).ends_with("a.jsonl:3"));
    }

    #[test]
    fn malformed_lines_are_located() {
        let cases: [(&[u8], &str); 8] = [
            (
                b"{\"x\": 1}\n{\"x\": }\n",
                "a.jsonl:2: malformed JSON at column 7: expected value",
            ),
            (
                b"{\"x\": 1\n",
                "a.jsonl:1: malformed JSON at column 7: EOF while parsing an object",
            ),
            (
                b"{\"x\": NaN}\n",
                "a.jsonl:1: malformed JSON at column 7: expected value",
            ),
            (
                b"{\"x\": 1} 2\n",
                "a.jsonl:1: malformed JSON at column 10: trailing characters",
            ),
            (
                b"\n3\n",
                "a.jsonl:2: invalid type: integer `3`, expected an object with the fields of one row",
            ),
            (
                b"[1]\n",
                "a.jsonl:1: invalid type: sequence, expected an object with the fields of one row",
            ),
            (
                b"{\"x\": \"\xff\"}\n",
                "a.jsonl:1: not valid UTF-8 at byte 8",
            ),
            (
                b"{\"x\": 1, \"x\": 2}\n",
                "a.jsonl:1: field \"x\" appears twice",
            ),
        ];
        for (content, message) in cases {
            assert_eq!(error(&[("a.jsonl", content)]), message);
        }
    }

    #[test]
    fn values_that_no_column_holds_are_named_when_used() {
        let cases = [
            (
                "{\"x\": 1}\n{\"x\": {\"y\": 1}}\n",
                "a.jsonl:2: field \"x\" is an object",
            ),
            (
                "{\"x\": [1, null]}\n",
                "a.jsonl:1: field \"x\" is a list with null in it",
            ),
            (
                "{\"x\": [[1]]}\n",
                "a.jsonl:1: field \"x\" is a nested list",
            ),
            (
                "{\"x\": [1, \"a\"]}\n",
                "a.jsonl:1: field \"x\" is a list of strings and numbers mixed",
            ),
            (
                "{\"x\": 18446744073709551615}\n",
                "a.jsonl:1: field \"x\" is an integer beyond 64 bits",
            ),
            (
                "{\"x\": 1}\n{\"x\": \"1\"}\n",
                "a.jsonl:2: field \"x\" is a string; expected an integer (as in the rows before)",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(error(&[("a.jsonl", text.as_bytes())]), message);
        }
    }

    #[test]
    fn a_long_line_is_read() {
        let text = "x".repeat(10 << 20);
        let table = rows(&format!("{{\"text\": \"{text}\"}}\n"));
        assert_eq!(column(&table, "text"), [Value::Text(text)]);
    }
}
