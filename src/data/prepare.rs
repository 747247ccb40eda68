//! A table as read into the rows a model takes: which columns, tokens, labels, and nothing the model does not know.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};

use super::collator::IGNORED_LABEL;
use super::column::{Cells, Column, Integers, Rows};
use super::labels::{LabelRules, LabelSummary, Labels};
use super::table::{self, Table};
use super::tokenizer::{Encodings, Input, Piece, Tokenizer};
use crate::data::Dataset;
use crate::error::Failure;

const TEXT_COLUMNS: &[&str] = &["text", "sentence", "sentence1", "premise", "tokens", "words"];
const WORD_COLUMNS: &[&str] = &["tokens", "words", "text", "sentence"];
const PAIR_COLUMNS: &[&str] = &["text_pair", "sentence2", "hypothesis"];
const LABEL_COLUMNS: &[&str] = &["label", "labels", "label_ids", "ner_tags", "tags"];
/// Kept besides the model's arguments and label names (spec 2, item 4).
const KEPT_LABELS: &[&str] = &["label", "label_ids"];
const INPUT_IDS: &str = "input_ids";

/// What the model does with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// One label for each row.
    SequenceClassification,
    /// One label for each word.
    TokenClassification,
    /// Whatever it does, its labels are left as they are.
    Other,
}

/// How to prepare a table.
#[derive(Clone, Copy, Debug)]
pub struct PrepareOptions<'a> {
    /// What the model does with a row.
    pub task: Task,
    /// Column of texts; `None`: the first usual name that exists.
    pub text_column: Option<&'a str>,
    /// Column of second texts; `None`: the first usual name that exists.
    pub text_pair_column: Option<&'a str>,
    /// Column of labels; `None`: the first usual name that exists.
    pub label_column: Option<&'a str>,
    /// Without a label column: an error, or rows without labels.
    pub labels_required: bool,
    /// What is known of the labels.
    pub labels: LabelRules<'a>,
    /// Arguments of the model's `forward`.
    pub forward_arguments: &'a [String],
    /// Columns that hold labels for the model.
    pub label_names: &'a [String],
    /// Drop columns that are neither.
    pub remove_unused_columns: bool,
    /// For grouping by length: the column of lengths, used if it exists.
    pub length_column: Option<&'a str>,
}

/// Rows for a model.
#[derive(Debug)]
pub struct Prepared {
    /// The rows.
    pub dataset: Table,
    /// What the labels are; `None` without labels.
    pub labels: Option<LabelSummary>,
    /// Length of each row, if asked for.
    pub lengths: Option<Vec<usize>>,
    /// The column that was tokenized; `None`: the columns are as they were in the files.
    pub text_column: Option<String>,
}

/// Prepares a table. Texts are tokenized where the table has a text column, the tokenizer is there and the model takes
/// tokens; else the columns that the model takes are passed on as they are.
pub fn prepare(table: &Table, tokenizer: Option<&Tokenizer>, options: &PrepareOptions<'_>) -> Result<Prepared> {
    let preparation = Preparation { table, options };
    let label = preparation.label_column()?;
    let text = preparation.text_column(tokenizer.is_some())?;
    let encodings = match (text, tokenizer) {
        (Some(text), Some(tokenizer)) => Some(preparation.encode(tokenizer, text)?),
        (Some(text), None) => bail!(Failure::data(format!("{}: column {text:?} is text, and there is no tokenizer", preparation.files()))),
        (None, _) => None,
    };
    let labels = label.map(|label| preparation.labels(label, text, encodings.as_ref())).transpose()?;
    let (labels, summary) = labels.map_or((None, None), |(labels, summary)| (Some(labels), Some(summary)));

    let mut columns = preparation.token_columns(encodings, tokenizer);
    columns.extend(preparation.other_columns(&columns, label)?);
    preparation.check_inputs(&columns)?;
    columns.extend(labels);

    let dataset = Table::new(columns, table.rows(), table.sources().clone())?;
    let main_input = tokenizer.and_then(|tokenizer| tokenizer.model_input_names().first()).map_or(INPUT_IDS, String::as_str);
    let lengths = options.length_column.map(|column| preparation.lengths(&dataset, column, main_input)).transpose()?;
    Ok(Prepared { dataset, labels: summary, lengths, text_column: text.map(str::to_owned) })
}

struct Preparation<'a> {
    table: &'a Table,
    options: &'a PrepareOptions<'a>,
}

impl<'a> Preparation<'a> {
    fn files(&self) -> String {
        self.table.sources().describe()
    }

    /// The column the user named, which must exist, or else the first of the usual ones that does.
    fn choose(&self, argument: &str, named: Option<&'a str>, usual: &[&'a str]) -> Result<Option<&'a str>> {
        let Some(name) = named else {
            return Ok(usual.iter().copied().find(|name| self.table.column(name).is_some()));
        };
        if self.table.column(name).is_some() {
            return Ok(Some(name));
        }
        let names = self.table.columns().iter().map(|(column, _)| &**column);
        let nearest = names.map(|column| (strsim::jaro_winkler(column, name), column)).max_by(|a, b| a.0.total_cmp(&b.0));
        let mut failure = Failure::data(format!("{}: no column {name:?} ({argument}); its columns are {}", self.files(), self.table.column_names()));
        if let Some((_, column)) = nearest.filter(|(likeness, _)| *likeness > 0.8) {
            failure = failure.hint(format!("did you mean {column:?}?"));
        }
        Err(failure.into())
    }

    fn label_column(&self) -> Result<Option<&'a str>> {
        let options = self.options;
        let named = options.label_column.filter(|name| options.labels_required || self.table.column(name).is_some());
        let label_names = options.label_names.iter().map(String::as_str);
        let usual: Vec<&str> = LABEL_COLUMNS.iter().copied().chain(label_names).collect();
        let usual = if options.label_column.is_some() { &[][..] } else { &usual };
        let label = self.choose("label_column", named, usual)?;
        let all_null = |name: &&str| self.table.column(name).is_some_and(|column| matches!(column.cells(), Cells::Nothing));
        let label = if options.labels_required { label } else { label.filter(|name| !all_null(name)) };
        if label.is_none() && options.labels_required {
            let (files, columns) = (self.files(), self.table.column_names());
            let message = format!("{files}: no label column (looked for {}); its columns are {columns}", LABEL_COLUMNS.join(", "));
            bail!(Failure::data(message).hint("name it with --label_column"));
        }
        Ok(label)
    }

    /// The column to tokenize; `None` if the model's inputs are there already.
    fn text_column(&self, has_tokenizer: bool) -> Result<Option<&'a str>> {
        let options = self.options;
        let takes = |name: &str| options.forward_arguments.iter().any(|argument| argument == name);
        let is_ready = |argument: &&String| self.table.column(argument).is_some() && !options.label_names.contains(argument);
        let ready = options.forward_arguments.iter().any(|argument| is_ready(&argument));
        let tokenizes = has_tokenizer && takes(INPUT_IDS) && self.table.column(INPUT_IDS).is_none();
        if options.text_column.is_none() && ready && !tokenizes {
            return Ok(None);
        }
        let usual = if options.task == Task::TokenClassification { WORD_COLUMNS } else { TEXT_COLUMNS };
        let text = self.choose("text_column", options.text_column, usual)?;
        if text.is_none() && !ready {
            let (files, columns) = (self.files(), self.table.column_names());
            let message = if takes(INPUT_IDS) {
                format!("{files}: no text column (looked for {}); its columns are {columns}", usual.join(", "))
            } else {
                format!("{files}: no column is an argument of the model ({}); its columns are {columns}", options.forward_arguments.join(", "))
            };
            bail!(Failure::data(message).hint("name the column with --text_column; a CSV file needs a header line with names"));
        }
        Ok(text)
    }

    fn encode(&self, tokenizer: &Tokenizer, text: &'a str) -> Result<Encodings> {
        let pair = self.choose("text_pair_column", self.options.text_pair_column, PAIR_COLUMNS)?;
        let first = Texts::new(self.table, text)?;
        if self.options.task == Task::TokenClassification {
            let (place, found) = (self.table.locate(0), first.column.describe());
            ensure!(
                matches!(first.column.cells(), Cells::TextRows(_)),
                Failure::data(format!("{place}: field {text:?} is {found}; expected a list of words for token classification"))
            );
            return tokenizer.encode(self.table.rows(), |row| Input::One(first.piece(row)));
        }
        let Some(pair) = pair.filter(|pair| *pair != text) else {
            return tokenizer.encode(self.table.rows(), |row| Input::One(first.piece(row)));
        };
        let second = Texts::new(self.table, pair)?;
        tokenizer.encode(self.table.rows(), |row| Input::Pair(first.piece(row), second.piece(row)))
    }

    /// The label column of the data set under the name that collators look for.
    fn labels(&self, label: &'a str, text: Option<&str>, encodings: Option<&Encodings>) -> Result<((Arc<str>, Column), LabelSummary)> {
        let labels = Labels::new(self.table, label, self.options.labels)?;
        let (column, summary) = match (self.options.task, encodings, text) {
            (Task::SequenceClassification, ..) => labels.of_rows()?,
            (Task::Other, ..) => labels.as_they_are()?,
            (Task::TokenClassification, Some(encodings), Some(text)) => {
                let (tags, summary) = labels.of_words()?;
                (self.align(&tags, label, text, encodings)?, summary)
            }
            (Task::TokenClassification, ..) => {
                let (tags, summary) = labels.of_words()?;
                (tags.into(), summary)
            }
        };
        let options = self.options;
        let is_the_models = options.forward_arguments.iter().chain(options.label_names).any(|name| name == label);
        let name = match column.cells() {
            _ if is_the_models => label,
            Cells::IntRows(_) | Cells::FloatRows(_) => "labels",
            _ => "label",
        };
        Ok(((name.into(), column), summary))
    }

    /// The label of a word goes to its first token; no other token has one.
    fn align(&self, tags: &Rows<Integers>, label: &str, text: &str, encodings: &Encodings) -> Result<Column> {
        let words = Texts::new(self.table, text)?;
        let mut aligned = Rows::<Integers>::default();
        for row in 0..self.table.rows() {
            let (tags, expected) = (tags.get(row), words.column.row_len(row).unwrap_or(0));
            if tags.len() != expected {
                let (place, found) = (self.table.locate(row), tags.len());
                bail!(Failure::data(format!("{place}: field {label:?} has {found} labels for the {expected} words of {text:?}")));
            }
            let mut before = -1;
            aligned.push(encodings.word_ids.get(row).into_iter().map(|word| {
                let is_first = word != before;
                before = word;
                let tag = usize::try_from(word).ok().filter(|_| is_first).and_then(|word| tags.get(word));
                tag.copied().unwrap_or(IGNORED_LABEL)
            }));
        }
        Ok(aligned.into())
    }

    fn is_kept(&self, name: &str) -> bool {
        let options = self.options;
        let known = options.forward_arguments.iter().chain(options.label_names).any(|known| known == name);
        known || KEPT_LABELS.contains(&name) || !options.remove_unused_columns
    }

    fn token_columns(&self, encodings: Option<Encodings>, tokenizer: Option<&Tokenizer>) -> Vec<(Arc<str>, Column)> {
        let (Some(mut encodings), Some(tokenizer)) = (encodings, tokenizer) else { return Vec::new() };
        let names = tokenizer.model_input_names().iter().filter(|name| self.is_kept(name));
        names.filter_map(|name| Some((name.as_str().into(), encodings.take(name)?.into()))).collect()
    }

    /// What is left of the table: not the labels, under any of their names, and not what was made from the text.
    fn other_columns(&self, made: &[(Arc<str>, Column)], label: Option<&str>) -> Result<Vec<(Arc<str>, Column)>> {
        let is_label = |name: &str| label == Some(name) || (label.is_some() && LABEL_COLUMNS[..3].contains(&name));
        let is_made = |name: &str| made.iter().any(|(column, _)| &**column == name);
        let mut columns = Vec::new();
        for (name, column) in self.table.columns() {
            if is_label(name) || is_made(name) || !self.is_kept(name) {
                continue;
            }
            if self.options.forward_arguments.iter().any(|argument| argument == &**name) {
                self.check_numbers(name)?;
            }
            if !matches!(column.cells(), Cells::Unusable { .. }) {
                columns.push((name.clone(), column.clone()));
            }
        }
        Ok(columns)
    }

    fn check_numbers(&self, name: &str) -> Result<()> {
        let column = self.table.usable(name)?;
        let row = column.first_text().unwrap_or(0);
        let (place, found) = (self.table.locate(row), column.describe());
        let is_text = matches!(column.cells(), Cells::Texts(_) | Cells::TextRows(_));
        ensure!(!is_text, Failure::data(format!("{place}: field {name:?} is {found}; the model takes numbers")));
        Ok(())
    }

    /// At least one column must be an input of the model.
    fn check_inputs(&self, columns: &[(Arc<str>, Column)]) -> Result<()> {
        let options = self.options;
        let is_input = |name: &str| options.forward_arguments.iter().any(|argument| argument == name);
        if options.remove_unused_columns && !columns.iter().any(|(name, _)| is_input(name)) {
            let (files, arguments) = (self.files(), options.forward_arguments.join(", "));
            let message = format!("{files}: no column is an argument of the model ({arguments}); its columns are {}", self.table.column_names());
            bail!(Failure::data(message));
        }
        Ok(())
    }

    fn lengths(&self, dataset: &Table, column: &str, main_input: &str) -> Result<Vec<usize>> {
        let given = matches!(self.table.column(column).map(Column::cells), Some(Cells::Ints(_)));
        let lengths = if given { table::lengths(self.table, column, main_input) } else { dataset.row_lengths(main_input) };
        lengths.with_context(|| format!("grouping by length needs a column {column:?} of integers or rows {main_input:?}"))
    }
}

/// A column of texts or of words without nulls.
struct Texts<'a> {
    column: &'a Column,
}

impl<'a> Texts<'a> {
    fn new(table: &'a Table, name: &str) -> Result<Self> {
        let column = table.usable(name)?;
        if let Some(row) = column.first_null() {
            bail!(Failure::data(format!("{}: field {name:?} is null or missing; every row needs a text", table.locate(row))));
        }
        let (place, found) = (table.locate(0), column.describe());
        let is_text = matches!(column.cells(), Cells::Texts(_) | Cells::TextRows(_));
        ensure!(is_text, Failure::data(format!("{place}: field {name:?} is {found}; expected a string")));
        Ok(Self { column })
    }

    fn piece(&self, row: usize) -> Piece<'a> {
        match self.column.cells() {
            Cells::Texts(texts) => Piece::Text(texts.get(row)),
            Cells::TextRows(rows) => Piece::Words(rows.get(row).collect()),
            // `new` lets no other column in.
            _ => Piece::Text(""),
        }
    }
}
