//! Labels of any kind into the numbers that a loss needs, with what the model's configuration must know of them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use super::collator::IGNORED_LABEL;
use super::column::{Cells, Column, Integers, Rows};
use super::table::Table;
use crate::data::Dataset;
use crate::error::Failure;

/// Class numbers from here on are mistakes, not classes: a head of that width would not fit into memory.
pub const MAX_CLASSES: usize = 1_000_000;

/// Class numbers by name.
pub type LabelMap = BTreeMap<String, i64>;

/// What kind of labels a sequence classifier learns; decides its loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemType {
    /// Real numbers; mean squared error.
    Regression,
    /// One class of several; cross entropy.
    SingleLabelClassification,
    /// Any number of classes; binary cross entropy.
    MultiLabelClassification,
}

impl ProblemType {
    /// All of them.
    pub const ALL: [Self; 3] = [
        Self::Regression,
        Self::SingleLabelClassification,
        Self::MultiLabelClassification,
    ];

    /// The name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Regression => "regression",
            Self::SingleLabelClassification => "single_label_classification",
            Self::MultiLabelClassification => "multi_label_classification",
        }
    }

    /// What Hugging Face concludes from the first labels when `problem_type` is not set.
    pub fn infer(num_labels: usize, integer_labels: bool) -> Self {
        match (num_labels, integer_labels) {
            (1, _) => Self::Regression,
            (_, true) => Self::SingleLabelClassification,
            (_, false) => Self::MultiLabelClassification,
        }
    }

    /// The type with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|problem| problem.name() == name)
    }
}

/// What is known of the labels before the data are seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct LabelRules<'a> {
    /// Class numbers of string labels; names like `LABEL_0` only count and do not count as given.
    pub label2id: Option<&'a LabelMap>,
    /// Outputs of the model; labels outside are an error.
    pub num_labels: Option<usize>,
    /// What the model learns.
    pub problem_type: Option<ProblemType>,
}

/// What the data say of the labels.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelSummary {
    /// The column they were read from.
    pub column: String,
    /// What a sequence classifier learns from them; `None` for labels of tokens and for those left as they are.
    pub problem_type: Option<ProblemType>,
    /// Outputs that the labels need; `None` for labels that are left as they are.
    pub num_labels: Option<usize>,
    /// Class numbers of string labels: the given ones, or all strings in order of their bytes.
    pub label2id: Option<LabelMap>,
}

/// Labels of a table, being converted.
pub(super) struct Labels<'a> {
    table: &'a Table,
    name: &'a str,
    column: &'a Column,
    rules: LabelRules<'a>,
}

impl<'a> Labels<'a> {
    /// The label column of a table: usable, and without nulls.
    pub(super) fn new(table: &'a Table, name: &'a str, rules: LabelRules<'a>) -> Result<Self> {
        let column = table.usable(name)?;
        if let Some(row) = column.first_null() {
            bail!(Failure::data(format!(
                "{}: field {name:?} is null or missing; every row needs a label",
                table.locate(row)
            )));
        }
        if let Some(row) = column.first_text() {
            let place = table.locate(row);
            bail!(Failure::data(format!(
                "{place}: field {name:?} is a string; expected a number (as in the rows before)"
            )));
        }
        let is_counting = |map: &LabelMap| {
            map.keys().all(|name| {
                name.strip_prefix("LABEL_")
                    .is_some_and(|end| end.parse::<u64>().is_ok())
            })
        };
        let label2id = rules.label2id.filter(|map| !is_counting(map));
        Ok(Self {
            table,
            name,
            column,
            rules: LabelRules { label2id, ..rules },
        })
    }

    /// Labels of whole rows, for a classifier or a regression.
    pub(super) fn of_rows(&self) -> Result<(Column, LabelSummary)> {
        let problem_type = self.problem_type()?;
        let labels = match (problem_type, self.column.cells()) {
            (ProblemType::Regression, Cells::Ints(numbers)) => {
                self.summarised(Column::from(floats(numbers)), Some(problem_type), 1)
            }
            (ProblemType::Regression, Cells::Floats(_)) => {
                self.summarised(self.column.clone(), Some(problem_type), 1)
            }
            (ProblemType::SingleLabelClassification, Cells::Ints(numbers)) => {
                let num_labels =
                    self.check_range((0..numbers.len()).map(|row| (row, numbers.get(row))))?;
                self.summarised(self.column.clone(), Some(problem_type), num_labels)
            }
            (ProblemType::SingleLabelClassification, Cells::Texts(_)) => self.classes()?,
            (ProblemType::MultiLabelClassification, Cells::TextRows(rows)) => {
                self.indicators(rows)?
            }
            (
                ProblemType::MultiLabelClassification | ProblemType::Regression,
                Cells::IntRows(rows),
            ) => {
                let width = self.width()?;
                let mut converted = Rows::<Vec<f64>>::default();
                (0..rows.len()).for_each(|row| {
                    converted.push(rows.get(row).into_iter().map(|number| number as f64))
                });
                self.summarised(converted.into(), Some(problem_type), width)
            }
            (
                ProblemType::MultiLabelClassification | ProblemType::Regression,
                Cells::FloatRows(_),
            ) => self.summarised(self.column.clone(), Some(problem_type), self.width()?),
            _ => return self.unexpected(problem_type),
        };
        Ok(labels)
    }

    /// Labels that are kept as they are, but for strings, which become class numbers.
    pub(super) fn as_they_are(&self) -> Result<(Column, LabelSummary)> {
        if let Cells::Texts(_) = self.column.cells() {
            return self.classes();
        }
        let summary = LabelSummary {
            column: self.name.to_owned(),
            problem_type: None,
            num_labels: None,
            label2id: None,
        };
        Ok((self.column.clone(), summary))
    }

    /// A class number for each word of each row, or for each token of rows that are tokenized already.
    pub(super) fn of_words(&self) -> Result<(Rows<Integers>, LabelSummary)> {
        let (tags, label2id) = match self.column.cells() {
            Cells::IntRows(rows) => (rows.clone(), None),
            Cells::TextRows(rows) => {
                let map = self.map(|| (0..rows.len()).flat_map(|row| rows.get(row)).collect())?;
                let mut tags = Rows::<Integers>::default();
                for row in 0..rows.len() {
                    tags.push(
                        rows.get(row)
                            .map(|tag| self.number(&map, row, tag))
                            .collect::<Result<Vec<_>>>()?,
                    );
                }
                (tags, Some(map))
            }
            _ => {
                let (place, found) = (self.table.locate(0), self.column.describe());
                bail!(Failure::data(format!(
                    "{place}: field {:?} is {found}; expected a list with a label for each word",
                    self.name
                )));
            }
        };
        let numbers =
            (0..tags.len()).flat_map(|row| tags.range(row).map(move |index| (row, index)));
        let num_labels =
            self.check_range(numbers.map(|(row, index)| (row, tags.values().get(index))))?;
        let num_labels = label2id
            .as_ref()
            .map_or(num_labels, |map| num_labels.max(map.len()));
        let (_, mut summary) = self.summarised(Column::default(), None, num_labels);
        summary.label2id = label2id;
        Ok((tags, summary))
    }

    /// As given, or as the reference infers it: one output is a regression, whole numbers are classes.
    fn problem_type(&self) -> Result<ProblemType> {
        let inferred = match (self.column.cells(), self.rules.num_labels) {
            (Cells::Ints(_) | Cells::Floats(_), Some(1)) | (Cells::Floats(_), None) => {
                ProblemType::Regression
            }
            (Cells::Ints(_) | Cells::Texts(_), _) => ProblemType::SingleLabelClassification,
            (Cells::IntRows(_) | Cells::FloatRows(_) | Cells::TextRows(_), _) => {
                ProblemType::MultiLabelClassification
            }
            _ => {
                return self.rules.problem_type.map_or_else(
                    || self.unexpected(ProblemType::SingleLabelClassification),
                    Ok,
                );
            }
        };
        Ok(self.rules.problem_type.unwrap_or(inferred))
    }

    fn unexpected<T>(&self, problem_type: ProblemType) -> Result<T> {
        let expected = match problem_type {
            ProblemType::Regression => "a number",
            ProblemType::SingleLabelClassification => "an integer or a string, the class",
            ProblemType::MultiLabelClassification => {
                "a list with a number or a string for each class"
            }
        };
        let (place, found) = (self.table.locate(0), self.column.describe());
        let message = format!(
            "{place}: field {:?} is {found}; expected {expected} for {}",
            self.name,
            problem_type.name()
        );
        Err(Failure::data(message).into())
    }

    fn summarised(
        &self,
        column: Column,
        problem_type: Option<ProblemType>,
        num_labels: usize,
    ) -> (Column, LabelSummary) {
        let num_labels = Some(self.rules.num_labels.unwrap_or(num_labels));
        (
            column,
            LabelSummary {
                column: self.name.to_owned(),
                problem_type,
                num_labels,
                label2id: None,
            },
        )
    }

    /// The number of classes that these need; one that the model does not have is an error. The ignored label is none.
    fn check_range(&self, numbers: impl Iterator<Item = (usize, i64)>) -> Result<usize> {
        let mut needed = 0;
        let count = self.rules.num_labels.unwrap_or(MAX_CLASSES);
        for (row, number) in numbers.filter(|(_, number)| *number != IGNORED_LABEL) {
            let class = usize::try_from(number).ok();
            let Some(class) = class.filter(|class| *class < count) else {
                let (place, name) = (self.table.locate(row), self.name);
                let range = match self.rules.num_labels {
                    None if number < 0 => "0 or more".to_owned(),
                    _ => format!("0 to {}", count.saturating_sub(1)),
                };
                bail!(Failure::data(format!(
                    "{place}: field {name:?} is {number}, which is no class of the model; expected {range}"
                )));
            };
            needed = needed.max(class + 1);
        }
        Ok(needed)
    }

    /// The common number of values of all rows.
    fn width(&self) -> Result<usize> {
        let first = self.column.row_len(0).unwrap_or(0);
        let (width, why) = self
            .rules
            .num_labels
            .map_or((first, "as in the first row"), |count| {
                (count, "one for each class of the model")
            });
        for row in 0..self.column.len() {
            let found = self.column.row_len(row).unwrap_or(0);
            if found != width {
                let message = format!(
                    "{}: field {:?} has {found} values; expected {width} ({why})",
                    self.table.locate(row),
                    self.name
                );
                bail!(
                    Failure::data(message)
                        .hint("labels of words need the task token-classification")
                );
            }
        }
        Ok(width)
    }

    /// String labels as class numbers.
    fn classes(&self) -> Result<(Column, LabelSummary)> {
        let Cells::Texts(texts) = self.column.cells() else {
            return self.unexpected(ProblemType::SingleLabelClassification);
        };
        let map = self.map(|| (0..texts.len()).map(|row| texts.get(row)).collect())?;
        let mut numbers = Integers::default();
        for row in 0..texts.len() {
            numbers.push(self.number(&map, row, texts.get(row))?);
        }
        self.check_range((0..numbers.len()).map(|row| (row, numbers.get(row))))?;
        let (column, mut summary) = self.summarised(
            numbers.into(),
            Some(ProblemType::SingleLabelClassification),
            map.len(),
        );
        summary.label2id = Some(map);
        Ok((column, summary))
    }

    /// Lists of class names as one 0 or 1 for each class.
    fn indicators(&self, rows: &Rows<super::column::Strings>) -> Result<(Column, LabelSummary)> {
        let map = self.map(|| (0..rows.len()).flat_map(|row| rows.get(row)).collect())?;
        let width = self.rules.num_labels.unwrap_or(map.len());
        let mut converted = Rows::<Vec<f64>>::default();
        for row in 0..rows.len() {
            let mut indicators = vec![0.0; width];
            for name in rows.get(row) {
                let class = self.number(&map, row, name)?;
                self.check_range([(row, class)].into_iter())?;
                indicators[class as usize] = 1.0;
            }
            converted.push(indicators);
        }
        let (column, mut summary) = self.summarised(
            converted.into(),
            Some(ProblemType::MultiLabelClassification),
            width,
        );
        summary.label2id = Some(map);
        Ok((column, summary))
    }

    /// The given class numbers, or else all names in order.
    fn map<'t>(&self, names: impl FnOnce() -> BTreeSet<&'t str>) -> Result<LabelMap> {
        let built = || {
            names()
                .into_iter()
                .zip(0..)
                .map(|(name, number)| (name.to_owned(), number))
                .collect()
        };
        let map: LabelMap = self.rules.label2id.cloned().unwrap_or_else(built);
        if let Some(count) = self.rules.num_labels.filter(|count| map.len() > *count) {
            let (place, found) = (self.table.sources().describe(), map.len());
            let message = format!(
                "{place}: field {:?} has {found} different classes; the model has {count}",
                self.name
            );
            bail!(Failure::data(message).hint(format!("the classes are {}", listed(&map))));
        }
        Ok(map)
    }

    fn number(&self, map: &LabelMap, row: usize, name: &str) -> Result<i64> {
        if let Some(number) = map.get(name) {
            return Ok(*number);
        }
        let place = self.table.locate(row);
        let message = format!(
            "{place}: field {:?} is {name:?}, which is no class of the model",
            self.name
        );
        Err(Failure::data(message)
            .hint(format!("the classes are {}", listed(map)))
            .into())
    }
}

/// The first names for a message.
fn listed(map: &LabelMap) -> String {
    let names: Vec<&str> = map.keys().take(10).map(String::as_str).collect();
    let more = if map.len() > names.len() { ", ..." } else { "" };
    format!("{}{more}", names.join(", "))
}

fn floats(numbers: &Integers) -> Vec<f64> {
    (0..numbers.len())
        .map(|row| numbers.get(row) as f64)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{LabelMap, LabelRules, Labels, ProblemType};
    use crate::data::{Example, Table, Value};

    fn table(labels: &[Value]) -> Table {
        let rows: Vec<Example> = labels
            .iter()
            .map(|label| Example {
                columns: vec![("label".into(), label.clone())],
            })
            .collect();
        Table::from_examples(&rows).expect("labels of one type")
    }

    fn texts(texts: &[&str]) -> Value {
        Value::Texts(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    fn map(names: &[&str]) -> LabelMap {
        names
            .iter()
            .zip(0..)
            .map(|(name, number)| ((*name).to_owned(), number))
            .collect()
    }

    #[test]
    fn labels_of_rows_become_what_the_loss_needs() {
        use ProblemType::{
            MultiLabelClassification as MultiLabel, Regression,
            SingleLabelClassification as SingleLabel,
        };
        use Value::{Float, Floats, Int, Ints, Text};
        let rules = LabelRules::default();
        let regression = LabelRules {
            problem_type: Some(Regression),
            ..rules
        };
        let one = LabelRules {
            num_labels: Some(1),
            ..rules
        };
        let five = LabelRules {
            num_labels: Some(5),
            ..rules
        };
        let cases = [
            (
                vec![Int(0), Int(2)],
                rules,
                vec![Int(0), Int(2)],
                SingleLabel,
                3,
            ),
            (
                vec![Int(0), Int(-100)],
                five,
                vec![Int(0), Int(-100)],
                SingleLabel,
                5,
            ),
            (
                vec![Int(0), Int(2)],
                one,
                vec![Float(0.0), Float(2.0)],
                Regression,
                1,
            ),
            (vec![Int(-7)], regression, vec![Float(-7.0)], Regression, 1),
            (vec![Float(0.5)], rules, vec![Float(0.5)], Regression, 1),
            (
                vec![Floats(vec![0.5, 2.0])],
                regression,
                vec![Floats(vec![0.5, 2.0])],
                Regression,
                2,
            ),
            (
                vec![Text("b".into()), Text("a".into())],
                rules,
                vec![Int(1), Int(0)],
                SingleLabel,
                2,
            ),
            (
                vec![Ints(vec![0, 1, 1])],
                rules,
                vec![Floats(vec![0.0, 1.0, 1.0])],
                MultiLabel,
                3,
            ),
            (
                vec![texts(&["c", "a"]), texts(&["b"]), texts(&[])],
                rules,
                vec![
                    Floats(vec![1.0, 0.0, 1.0]),
                    Floats(vec![0.0, 1.0, 0.0]),
                    Floats(vec![0.0; 3]),
                ],
                MultiLabel,
                3,
            ),
        ];
        for (labels, rules, expected, problem_type, num_labels) in cases {
            let table = table(&labels);
            let (column, summary) = Labels::new(&table, "label", rules)
                .and_then(|labels| labels.of_rows())
                .expect("good labels");
            let values: Vec<Value> = (0..column.len()).map(|row| column.get(row)).collect();
            assert_eq!(values, expected, "{labels:?}");
            assert_eq!(
                (summary.problem_type, summary.num_labels),
                (Some(problem_type), Some(num_labels)),
                "{labels:?}"
            );
        }
    }

    #[test]
    fn names_follow_the_given_numbers_unless_those_only_count() {
        let labels = table(&[Value::Text("no".into()), Value::Text("yes".into())]);
        let given: LabelMap = [("yes".to_owned(), 0), ("no".to_owned(), 1)].into();
        let counting: LabelMap = [("LABEL_0".to_owned(), 0), ("LABEL_1".to_owned(), 1)].into();
        for (label2id, first, expected) in [
            (&given, 1, given.clone()),
            (&counting, 0, map(&["no", "yes"])),
        ] {
            let rules = LabelRules {
                label2id: Some(label2id),
                num_labels: Some(2),
                ..LabelRules::default()
            };
            let (column, summary) = Labels::new(&labels, "label", rules)
                .and_then(|labels| labels.of_rows())
                .expect("good labels");
            assert_eq!(
                (column.get(0), summary.label2id),
                (Value::Int(first), Some(expected))
            );
        }
    }

    #[test]
    fn labels_of_words_are_numbered() {
        let numbers = table(&[Value::Ints(vec![0, 4, -100]), Value::Ints(vec![])]);
        let (tags, summary) = Labels::new(&numbers, "label", LabelRules::default())
            .and_then(|labels| labels.of_words())
            .expect("good labels");
        assert_eq!(
            (tags.get(0), summary.num_labels, summary.label2id),
            (vec![0, 4, -100], Some(5), None)
        );
        let names = table(&[texts(&["O", "B-x"]), texts(&["O"])]);
        let (tags, summary) = Labels::new(&names, "label", LabelRules::default())
            .and_then(|labels| labels.of_words())
            .expect("good labels");
        assert_eq!((tags.get(0), tags.get(1)), (vec![1, 0], vec![1]));
        assert_eq!(
            (summary.num_labels, summary.label2id),
            (Some(2), Some(map(&["B-x", "O"])))
        );
    }

    #[test]
    fn bad_labels_are_located() {
        use Value::{Float, Int, Ints, Null, Text};
        let two = LabelRules {
            num_labels: Some(2),
            ..LabelRules::default()
        };
        let classes = map(&["no", "yes"]);
        let named = LabelRules {
            label2id: Some(&classes),
            ..two
        };
        let cases = [
            (
                vec![Int(0), Int(2)],
                two,
                "row 1: field \"label\" is 2, which is no class of the model; expected 0 to 1",
            ),
            (
                vec![Int(-1)],
                LabelRules::default(),
                "row 0: field \"label\" is -1, which is no class of the model; expected 0 or more",
            ),
            (
                vec![Int(0), Null],
                two,
                "row 1: field \"label\" is null or missing; every row needs a label",
            ),
            (
                vec![Float(0.5)],
                two,
                "row 0: field \"label\" is a number; expected an integer or a string, the class for single_label_classification",
            ),
            (
                vec![Text("maybe".into())],
                named,
                "row 0: field \"label\" is \"maybe\", which is no class of the model",
            ),
            (
                vec![Text("a".into()), Text("b".into()), Text("c".into())],
                two,
                "the data: field \"label\" has 3 different classes; the model has 2",
            ),
            (
                vec![Ints(vec![0, 1]), Ints(vec![1])],
                two,
                "row 1: field \"label\" has 1 values; expected 2 (one for each class of the model)",
            ),
        ];
        for (labels, rules, message) in cases {
            let table = table(&labels);
            let error = Labels::new(&table, "label", rules)
                .and_then(|labels| labels.of_rows())
                .expect_err("bad labels");
            assert_eq!(error.to_string(), message);
        }
        let table = table(&[Int(1)]);
        let error = Labels::new(&table, "label", two)
            .and_then(|labels| labels.of_words())
            .expect_err("bad labels");
        assert_eq!(
            error.to_string(),
            "row 0: field \"label\" is an integer; expected a list with a label for each word"
        );
    }
}
