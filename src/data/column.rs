//! Columns in memory: flat buffers with row ends, whole numbers as narrow as they fit.
//!
//! A column takes the type of its first value and widens it where nothing is lost (integer to number). A value that does
//! not fit makes the column unusable instead of failing at once: only a column that is used may stop a run.

use std::borrow::Cow;
use std::ops::Range;

use super::Value;

/// One value on its way from a file into a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell<'a> {
    /// Absent.
    Null,
    /// A whole number or a boolean.
    Int(i64),
    /// A real number.
    Float(f64),
    /// A string.
    Text(Cow<'a, str>),
    /// A row of whole numbers; an empty row fits every kind of row.
    Ints(Vec<i64>),
    /// A row of real numbers.
    Floats(Vec<f64>),
    /// A row of strings.
    Texts(Vec<Cow<'a, str>>),
    /// Text whose type is decided when the whole column is known (CSV).
    Untyped(Cow<'a, str>),
    /// Something no column can hold, in words: `an object`.
    Unusable(Cow<'static, str>),
}

impl Cell<'_> {
    fn describe(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Cell::Null => "null",
            Cell::Int(_) => "an integer",
            Cell::Float(_) => "a number",
            Cell::Text(_) | Cell::Untyped(_) => "a string",
            Cell::Ints(_) => "a list of integers",
            Cell::Floats(_) => "a list of numbers",
            Cell::Texts(_) => "a list of strings",
            Cell::Unusable(what) => return what.clone(),
        })
    }
}

impl<'a> From<&'a Value> for Cell<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Cell::Null,
            Value::Int(number) => Cell::Int(*number),
            Value::Float(number) => Cell::Float(*number),
            Value::Text(text) => Cell::Text(Cow::Borrowed(text)),
            Value::Ints(numbers) => Cell::Ints(numbers.clone()),
            Value::Floats(numbers) => Cell::Floats(numbers.clone()),
            Value::Texts(texts) => Cell::Texts(
                texts
                    .iter()
                    .map(|text| Cow::Borrowed(text.as_str()))
                    .collect(),
            ),
        }
    }
}

/// Whole numbers in the narrowest of three widths that holds them all: token types and masks take one byte each.
#[derive(Clone, Debug, PartialEq)]
pub enum Integers {
    /// One byte each.
    Narrow(Vec<i8>),
    /// Four bytes each.
    Middle(Vec<i32>),
    /// Eight bytes each.
    Wide(Vec<i64>),
}

impl Default for Integers {
    fn default() -> Self {
        Integers::Narrow(Vec::new())
    }
}

impl Integers {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Integers::Narrow(numbers) => numbers.len(),
            Integers::Middle(numbers) => numbers.len(),
            Integers::Wide(numbers) => numbers.len(),
        }
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a number, widening all of them if it needs more bytes.
    pub fn push(&mut self, number: i64) {
        self.make_room_for(number);
        match self {
            Integers::Narrow(numbers) => numbers.push(number as i8),
            Integers::Middle(numbers) => numbers.push(number as i32),
            Integers::Wide(numbers) => numbers.push(number),
        }
    }

    /// Appends all of `other`.
    pub fn append(&mut self, other: &Integers) {
        match (&mut *self, other) {
            (Integers::Narrow(numbers), Integers::Narrow(others)) => {
                numbers.extend_from_slice(others)
            }
            (Integers::Middle(numbers), Integers::Middle(others)) => {
                numbers.extend_from_slice(others)
            }
            _ => (0..other.len()).for_each(|index| self.push(other.get(index))),
        }
    }

    /// Number `index`.
    pub fn get(&self, index: usize) -> i64 {
        match self {
            Integers::Narrow(numbers) => numbers[index].into(),
            Integers::Middle(numbers) => numbers[index].into(),
            Integers::Wide(numbers) => numbers[index],
        }
    }

    /// A range of numbers.
    pub fn to_vec(&self, range: Range<usize>) -> Vec<i64> {
        match self {
            Integers::Narrow(numbers) => numbers[range]
                .iter()
                .map(|number| i64::from(*number))
                .collect(),
            Integers::Middle(numbers) => numbers[range]
                .iter()
                .map(|number| i64::from(*number))
                .collect(),
            Integers::Wide(numbers) => numbers[range].to_vec(),
        }
    }

    fn make_room_for(&mut self, number: i64) {
        let fits = match self {
            Integers::Narrow(_) => i8::try_from(number).is_ok(),
            Integers::Middle(_) => i32::try_from(number).is_ok(),
            Integers::Wide(_) => true,
        };
        if fits {
            return;
        }
        *self = match (&*self, i32::try_from(number)) {
            (Integers::Narrow(numbers), Ok(_)) => {
                Integers::Middle(numbers.iter().map(|number| (*number).into()).collect())
            }
            _ => Integers::Wide(self.to_vec(0..self.len())),
        };
    }
}

/// Rows of different length in one flat buffer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows<T> {
    values: T,
    ends: Vec<usize>,
}

/// Strings in one buffer.
pub type Strings = Rows<String>;

impl<T> Rows<T> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True if there is no row.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The values of all rows.
    pub fn values(&self) -> &T {
        &self.values
    }

    /// Where row `row` lies in the values.
    pub fn range(&self, row: usize) -> Range<usize> {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        start..self.ends[row]
    }
}

impl Strings {
    /// String `row`.
    pub fn get(&self, row: usize) -> &str {
        &self.values[self.range(row)]
    }

    /// Appends a string.
    pub fn push(&mut self, text: &str) {
        self.values.push_str(text);
        self.ends.push(self.values.len());
    }
}

impl Rows<Integers> {
    /// Row `row`.
    pub fn get(&self, row: usize) -> Vec<i64> {
        self.values.to_vec(self.range(row))
    }

    /// Appends a row.
    pub fn push(&mut self, numbers: impl IntoIterator<Item = i64>) {
        numbers
            .into_iter()
            .for_each(|number| self.values.push(number));
        self.ends.push(self.values.len());
    }

    /// Appends all rows of `other`.
    pub fn append(&mut self, other: &Rows<Integers>) {
        let offset = self.values.len();
        self.values.append(&other.values);
        self.ends.extend(other.ends.iter().map(|end| offset + end));
    }
}

impl Rows<Vec<f64>> {
    /// Row `row`.
    pub fn get(&self, row: usize) -> &[f64] {
        &self.values[self.range(row)]
    }

    /// Appends a row.
    pub fn push(&mut self, numbers: impl IntoIterator<Item = f64>) {
        self.values.extend(numbers);
        self.ends.push(self.values.len());
    }
}

impl Rows<Strings> {
    /// The strings of row `row`.
    pub fn get(&self, row: usize) -> impl ExactSizeIterator<Item = &str> {
        self.range(row).map(|index| self.values.get(index))
    }

    /// Appends a row.
    pub fn push<S: AsRef<str>>(&mut self, texts: impl IntoIterator<Item = S>) {
        texts
            .into_iter()
            .for_each(|text| self.values.push(text.as_ref()));
        self.ends.push(self.values.len());
    }
}

/// The values of a column by type; a null has an empty or zero placeholder.
#[derive(Clone, Debug, PartialEq)]
pub enum Cells {
    /// Only nulls so far.
    Nothing,
    /// Whole numbers.
    Ints(Integers),
    /// Real numbers.
    Floats(Vec<f64>),
    /// Strings.
    Texts(Strings),
    /// Rows of whole numbers.
    IntRows(Rows<Integers>),
    /// Rows of real numbers.
    FloatRows(Rows<Vec<f64>>),
    /// Rows of strings.
    TextRows(Rows<Strings>),
    /// Text whose type is not decided yet; no finished table holds it.
    Untyped(Strings),
    /// A value did not fit; nothing is kept but the first reason.
    Unusable {
        /// The row of that value.
        row: usize,
        /// Continues a sentence: `is an object`.
        reason: String,
    },
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    cells: Cells,
    /// Shorter than the column where the rest holds no null.
    nulls: Vec<bool>,
    len: usize,
    first_text: Option<usize>,
}

impl Default for Column {
    fn default() -> Self {
        Self {
            cells: Cells::Nothing,
            nulls: Vec::new(),
            len: 0,
            first_text: None,
        }
    }
}

impl Column {
    /// An empty column that takes what this one takes: whole numbers also here where this one has widened them. What is
    /// not decided here is open there.
    pub(super) fn like(&self) -> Self {
        let cells = match &self.cells {
            Cells::Floats(_) => Cells::Floats(Vec::new()),
            Cells::Texts(_) => Cells::Texts(Strings::default()),
            Cells::FloatRows(_) => Cells::FloatRows(Rows::default()),
            Cells::TextRows(_) => Cells::TextRows(Rows::default()),
            Cells::Nothing
            | Cells::Ints(_)
            | Cells::IntRows(_)
            | Cells::Untyped(_)
            | Cells::Unusable { .. } => Cells::Nothing,
        };
        Self {
            cells,
            ..Self::default()
        }
    }
}

impl From<Integers> for Column {
    fn from(numbers: Integers) -> Self {
        Self {
            len: numbers.len(),
            cells: Cells::Ints(numbers),
            ..Self::default()
        }
    }
}

impl From<Vec<f64>> for Column {
    fn from(numbers: Vec<f64>) -> Self {
        Self {
            len: numbers.len(),
            cells: Cells::Floats(numbers),
            ..Self::default()
        }
    }
}

impl From<Rows<Integers>> for Column {
    fn from(rows: Rows<Integers>) -> Self {
        Self {
            len: rows.len(),
            cells: Cells::IntRows(rows),
            ..Self::default()
        }
    }
}

impl From<Rows<Vec<f64>>> for Column {
    fn from(rows: Rows<Vec<f64>>) -> Self {
        Self {
            len: rows.len(),
            cells: Cells::FloatRows(rows),
            ..Self::default()
        }
    }
}

impl Column {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there is no row.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The values by type.
    pub fn cells(&self) -> &Cells {
        &self.cells
    }

    /// In a CSV column that began with numbers and turned out to hold strings: the first row with a string.
    pub fn first_text(&self) -> Option<usize> {
        self.first_text
    }

    /// Whether row `row` is null.
    pub fn is_null(&self, row: usize) -> bool {
        matches!(self.cells, Cells::Nothing | Cells::Unusable { .. })
            || self.nulls.get(row).copied().unwrap_or(false)
    }

    /// The first null.
    pub fn first_null(&self) -> Option<usize> {
        (0..self.len).find(|row| self.is_null(*row))
    }

    /// Row `row` as an example's value.
    pub fn get(&self, row: usize) -> Value {
        if self.is_null(row) {
            return Value::Null;
        }
        match &self.cells {
            Cells::Nothing | Cells::Unusable { .. } => Value::Null,
            Cells::Ints(numbers) => Value::Int(numbers.get(row)),
            Cells::Floats(numbers) => Value::Float(numbers[row]),
            Cells::Texts(texts) | Cells::Untyped(texts) => Value::Text(texts.get(row).to_owned()),
            Cells::IntRows(rows) => Value::Ints(rows.get(row)),
            Cells::FloatRows(rows) => Value::Floats(rows.get(row).to_vec()),
            Cells::TextRows(rows) => Value::Texts(rows.get(row).map(str::to_owned).collect()),
        }
    }

    /// Elements of row `row` if the column holds rows.
    pub fn row_len(&self, row: usize) -> Option<usize> {
        match &self.cells {
            Cells::IntRows(rows) => Some(rows.range(row).len()),
            Cells::FloatRows(rows) => Some(rows.range(row).len()),
            Cells::TextRows(rows) => Some(rows.range(row).len()),
            _ => None,
        }
    }

    /// What the column holds, in words: `an integer`.
    pub fn describe(&self) -> &'static str {
        match &self.cells {
            Cells::Nothing => "null",
            Cells::Ints(_) => "an integer",
            Cells::Floats(_) => "a number",
            Cells::Texts(_) | Cells::Untyped(_) => "a string",
            Cells::IntRows(rows) if rows.values().is_empty() => "an empty list",
            Cells::IntRows(_) => "a list of integers",
            Cells::FloatRows(_) => "a list of numbers",
            Cells::TextRows(_) => "a list of strings",
            Cells::Unusable { .. } => "unusable",
        }
    }

    /// Appends a value. One that does not fit makes the column unusable from then on.
    pub fn push(&mut self, cell: Cell<'_>) {
        let cell = self.decide_type_of(cell);
        if cell == Cell::Null {
            self.push_null();
            return;
        }
        self.prepare_for(&cell);
        match (&mut self.cells, cell) {
            (Cells::Ints(numbers), Cell::Int(number)) => numbers.push(number),
            (Cells::Floats(numbers), Cell::Int(number)) => numbers.push(number as f64),
            (Cells::Floats(numbers), Cell::Float(number)) => numbers.push(number),
            (Cells::Texts(texts), Cell::Text(text))
            | (Cells::Untyped(texts), Cell::Untyped(text)) => texts.push(&text),
            (Cells::IntRows(rows), Cell::Ints(numbers)) => rows.push(numbers),
            (Cells::FloatRows(rows), Cell::Floats(numbers)) => rows.push(numbers),
            (Cells::FloatRows(rows), Cell::Ints(numbers)) => {
                rows.push(numbers.iter().map(|number| *number as f64))
            }
            (Cells::TextRows(rows), Cell::Texts(texts)) => rows.push(texts),
            (Cells::TextRows(rows), Cell::Ints(numbers)) if numbers.is_empty() => {
                rows.push([""; 0])
            }
            (Cells::Unusable { .. }, _) => {}
            (_, cell) => self.give_up(&cell),
        }
        self.len += 1;
    }

    /// Decides the type of a column of untyped text: whole numbers, real numbers, booleans or strings, whichever fits
    /// every value that is not empty; empty values are null.
    pub(super) fn settle(&mut self) {
        if !matches!(self.cells, Cells::Untyped(_)) {
            return;
        }
        let Cells::Untyped(texts) = std::mem::replace(&mut self.cells, Cells::Nothing) else {
            return;
        };
        let present = || {
            (0..texts.len())
                .map(|row| texts.get(row).trim())
                .filter(|text| !text.is_empty())
        };
        let parse: fn(&str) -> Option<Cell<'static>> =
            if present().all(|text| parse_integer(text).is_some()) {
                parse_integer
            } else if present().all(|text| parse_number(text).is_some()) {
                parse_number
            } else if present().all(|text| parse_boolean(text).is_some()) {
                parse_boolean
            } else {
                |text| Some(Cell::Text(Cow::Owned(text.to_owned())))
            };
        let mut typed = Column::default();
        for row in 0..texts.len() {
            let text = texts.get(row);
            let cell = if text.trim().is_empty() {
                None
            } else {
                parse(text)
            };
            typed.push(cell.unwrap_or(Cell::Null));
        }
        if matches!(typed.cells, Cells::Texts(_))
            && present()
                .next()
                .is_some_and(|text| parse_number(text).is_some())
        {
            typed.first_text = (0..texts.len()).find(|row| {
                let text = texts.get(*row).trim();
                !text.is_empty() && parse_number(text).is_none()
            });
        }
        *self = typed;
    }

    /// Untyped text takes the type of a column that has one; a column of untyped text is settled by a typed value.
    fn decide_type_of<'a>(&mut self, cell: Cell<'a>) -> Cell<'a> {
        match (&self.cells, cell) {
            (Cells::Nothing | Cells::Untyped(_), cell @ (Cell::Untyped(_) | Cell::Null)) => cell,
            (Cells::Untyped(_), cell) => {
                self.settle();
                cell
            }
            (_, Cell::Untyped(text)) if text.trim().is_empty() => Cell::Null,
            (Cells::Texts(_), Cell::Untyped(text)) => Cell::Text(text),
            (_, Cell::Untyped(text)) => parse_integer(&text)
                .or_else(|| parse_number(&text))
                .unwrap_or(Cell::Text(text)),
            (_, cell) => cell,
        }
    }

    fn push_null(&mut self) {
        self.push_placeholder();
        self.nulls.resize(self.len, false);
        self.nulls.push(true);
        self.len += 1;
    }

    fn push_placeholder(&mut self) {
        match &mut self.cells {
            Cells::Nothing | Cells::Unusable { .. } => {}
            Cells::Ints(numbers) => numbers.push(0),
            Cells::Floats(numbers) => numbers.push(0.0),
            Cells::Texts(texts) | Cells::Untyped(texts) => texts.push(""),
            Cells::IntRows(rows) => rows.push([]),
            Cells::FloatRows(rows) => rows.push([]),
            Cells::TextRows(rows) => rows.push([""; 0]),
        }
    }

    /// Gives the column the type of its first value, or widens it.
    fn prepare_for(&mut self, cell: &Cell<'_>) {
        let widened = match (&self.cells, cell) {
            (Cells::Nothing, Cell::Int(_)) => Cells::Ints(Integers::default()),
            (Cells::Nothing, Cell::Float(_)) => Cells::Floats(Vec::new()),
            (Cells::Nothing, Cell::Text(_)) => Cells::Texts(Strings::default()),
            (Cells::Nothing, Cell::Ints(_)) => Cells::IntRows(Rows::default()),
            (Cells::Nothing, Cell::Floats(_)) => Cells::FloatRows(Rows::default()),
            (Cells::Nothing, Cell::Texts(_)) => Cells::TextRows(Rows::default()),
            (Cells::Nothing, Cell::Untyped(_)) => Cells::Untyped(Strings::default()),
            (Cells::Ints(numbers), Cell::Float(_)) => {
                self.cells =
                    Cells::Floats((0..self.len).map(|row| numbers.get(row) as f64).collect());
                return;
            }
            (Cells::IntRows(rows), Cell::Floats(_)) => {
                let values = (0..rows.values.len())
                    .map(|index| rows.values.get(index) as f64)
                    .collect();
                self.cells = Cells::FloatRows(Rows {
                    values,
                    ends: rows.ends.clone(),
                });
                return;
            }
            (Cells::IntRows(rows), Cell::Texts(_)) if rows.values.is_empty() => {
                self.cells = Cells::TextRows(Rows {
                    values: Strings::default(),
                    ends: rows.ends.clone(),
                });
                return;
            }
            _ => return,
        };
        self.cells = widened;
        (0..self.len).for_each(|_| self.push_placeholder());
    }

    fn give_up(&mut self, cell: &Cell<'_>) {
        let reason = match cell {
            Cell::Unusable(what) => format!("is {what}"),
            _ => format!(
                "is {}; expected {} (as in the rows before)",
                cell.describe(),
                self.describe()
            ),
        };
        self.cells = Cells::Unusable {
            row: self.len,
            reason,
        };
    }
}

fn parse_integer(text: &str) -> Option<Cell<'static>> {
    text.trim().parse().ok().map(Cell::Int)
}

fn parse_number(text: &str) -> Option<Cell<'static>> {
    text.trim().parse().ok().map(Cell::Float)
}

fn parse_boolean(text: &str) -> Option<Cell<'static>> {
    match text.trim() {
        "true" | "True" | "TRUE" => Some(Cell::Int(1)),
        "false" | "False" | "FALSE" => Some(Cell::Int(0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Cell, Cells, Column, Integers, Value};

    fn column(cells: Vec<Cell<'static>>) -> Column {
        let mut column = Column::default();
        cells.into_iter().for_each(|cell| column.push(cell));
        column.settle();
        column
    }

    fn values(column: &Column) -> Vec<Value> {
        (0..column.len()).map(|row| column.get(row)).collect()
    }

    fn untyped(texts: &[&'static str]) -> Column {
        column(
            texts
                .iter()
                .map(|text| Cell::Untyped((*text).into()))
                .collect(),
        )
    }

    #[test]
    fn integers_widen_without_losing_a_value() {
        let numbers = [
            0,
            -128,
            127,
            128,
            -2_147_483_648,
            2_147_483_648,
            i64::MIN,
            i64::MAX,
        ];
        for count in 1..=numbers.len() {
            let mut integers = Integers::default();
            numbers[..count]
                .iter()
                .for_each(|number| integers.push(*number));
            assert_eq!(integers.to_vec(0..count), numbers[..count]);
            let mut doubled = integers.clone();
            doubled.append(&integers);
            assert_eq!(doubled.to_vec(count..2 * count), numbers[..count]);
        }
    }

    #[test]
    fn values_of_one_column_are_brought_to_one_type() {
        use Value::{Float, Floats, Int, Ints, Null, Text, Texts};
        let cases: Vec<(Vec<Cell<'static>>, Vec<Value>)> = vec![
            (
                vec![Cell::Null, Cell::Int(1), Cell::Null, Cell::Int(3)],
                vec![Null, Int(1), Null, Int(3)],
            ),
            (
                vec![Cell::Int(1), Cell::Null, Cell::Float(0.5)],
                vec![Float(1.0), Null, Float(0.5)],
            ),
            (
                vec![Cell::Float(0.5), Cell::Int(2)],
                vec![Float(0.5), Float(2.0)],
            ),
            (
                vec![Cell::Null, Cell::Text("a".into())],
                vec![Null, Text("a".into())],
            ),
            (
                vec![
                    Cell::Ints(vec![]),
                    Cell::Ints(vec![300]),
                    Cell::Floats(vec![0.5]),
                ],
                vec![Floats(vec![]), Floats(vec![300.0]), Floats(vec![0.5])],
            ),
            (
                vec![
                    Cell::Ints(vec![]),
                    Cell::Texts(vec!["x".into()]),
                    Cell::Ints(vec![]),
                ],
                vec![Texts(vec![]), Texts(vec!["x".into()]), Texts(vec![])],
            ),
            (
                vec![Cell::Null, Cell::Ints(vec![1, 2])],
                vec![Null, Ints(vec![1, 2])],
            ),
            (vec![Cell::Null, Cell::Null], vec![Null, Null]),
        ];
        for (cells, expected) in cases {
            assert_eq!(values(&column(cells.clone())), expected, "{cells:?}");
        }
    }

    #[test]
    fn a_value_of_another_type_makes_the_column_unusable() {
        let cases = [
            (
                vec![Cell::Int(1), Cell::Text("a".into())],
                1,
                "is a string; expected an integer (as in the rows before)",
            ),
            (
                vec![Cell::Text("a".into()), Cell::Null, Cell::Int(1)],
                2,
                "is an integer; expected a string (as in the rows before)",
            ),
            (
                vec![Cell::Ints(vec![1]), Cell::Int(1)],
                1,
                "is an integer; expected a list of integers (as in the rows before)",
            ),
            (
                vec![Cell::Null, Cell::Unusable("an object".into()), Cell::Int(1)],
                1,
                "is an object",
            ),
        ];
        for (cells, row, reason) in cases {
            let expected = Cells::Unusable {
                row,
                reason: reason.to_owned(),
            };
            assert_eq!(column(cells).cells(), &expected);
        }
    }

    #[test]
    fn untyped_text_is_typed_by_the_whole_column() {
        use Value::{Float, Int, Null, Text};
        let cases: Vec<(&[&str], Vec<Value>)> = vec![
            (&["1", "", " 3"], vec![Int(1), Null, Int(3)]),
            (&["1", "2.5"], vec![Float(1.0), Float(2.5)]),
            (&["True", "false"], vec![Int(1), Int(0)]),
            (&["1", "one"], vec![Text("1".into()), Text("one".into())]),
            (&["", ""], vec![Null, Null]),
        ];
        for (texts, expected) in cases {
            assert_eq!(values(&untyped(texts)), expected, "{texts:?}");
        }
        assert_eq!(untyped(&["1", "", "one", "two"]).first_text(), Some(2));
        assert_eq!(untyped(&["one", "1"]).first_text(), None);
    }

    #[test]
    fn untyped_text_follows_a_typed_column() {
        assert_eq!(
            values(&column(vec![Cell::Int(1), Cell::Untyped("2".into())])),
            [Value::Int(1), Value::Int(2)]
        );
        let texts = vec![Cell::Untyped("7".into()), Cell::Int(8)];
        assert_eq!(values(&column(texts)), [Value::Int(7), Value::Int(8)]);
        let texts = vec![Cell::Text("a".into()), Cell::Untyped("2".into())];
        assert_eq!(
            values(&column(texts)),
            [Value::Text("a".into()), Value::Text("2".into())]
        );
    }
}
