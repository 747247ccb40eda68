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

const TEXT_COLUMNS: &[&str] = &[
    "text",
    "sentence",
    "sentence1",
    "premise",
    "tokens",
    "words",
];
const WORD_COLUMNS: &[&str] = &["tokens", "words", "text", "sentence"];
const PAIR_COLUMNS: &[&str] = &["text_pair", "sentence2", "hypothesis"];
const LABEL_COLUMNS: &[&str] = &["label", "labels", "label_ids", "ner_tags", "tags"];
/// Names under which collators find labels; with a label column of another name they are not labels.
const COLLATED_LABELS: &[&str] = &["label", "labels", "label_ids"];
/// Kept besides the model's arguments and label names (spec 2, item 4).
const KEPT_LABELS: &[&str] = &["label", "label_ids"];
const INPUT_IDS: &str = "input_ids";
/// In [`Prepared::word_starts`].
const NO_TOKEN: i64 = -1;

/// What the model does with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// One label for each row.
    SequenceClassification,
    /// One label for each word.
    TokenClassification,
    /// The tokens are the labels; others are left out.
    LanguageModel,
    /// Whatever it does, its labels are left as they are.
    Other,
}

/// What the model has embeddings for; `None`: not known.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenLimits {
    /// Token ids are below this.
    pub vocabulary: Option<usize>,
    /// Rows have at most so many tokens.
    pub positions: Option<usize>,
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
    /// What tokens the model takes.
    pub tokens: TokenLimits,
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
    /// For token classification of words: in each row the position of each word's first token among the row's tokens, -1
    /// for a word that was cut off or has no token.
    pub word_starts: Option<Rows<Integers>>,
}

/// Prepares a table. Texts are tokenized where the table has a text column, the tokenizer is there and the model takes
/// tokens; else the columns that the model takes are passed on as they are.
pub fn prepare(
    table: Table,
    tokenizer: Option<&Tokenizer>,
    options: &PrepareOptions<'_>,
) -> Result<Prepared> {
    let preparation = Preparation {
        table: &table,
        options,
    };
    let label = preparation.label_column()?;
    let text = preparation.text_column(tokenizer.is_some())?;
    let encodings = text
        .map(|text| preparation.encode(tokenizer, text))
        .transpose()?;
    let texts = text.zip(encodings.as_ref());
    let word_starts = match (options.task, texts) {
        (Task::TokenClassification, Some((text, encodings))) => {
            Some(preparation.word_starts(text, encodings)?)
        }
        _ => None,
    };
    let (labels, summary) = label
        .map(|label| preparation.labels(label, texts.zip(word_starts.as_ref())))
        .transpose()?
        .unzip();
    let given_lengths = options
        .length_column
        .map(|column| table::given_lengths(&table, column))
        .transpose()?
        .flatten();

    let mut columns = preparation.token_columns(encodings, tokenizer);
    let kept = preparation.other_columns(&columns, label)?;
    preparation.check_inputs(columns.iter().map(|(name, _)| name).chain(&kept))?;
    let text_column = text.map(str::to_owned);
    let (rows, sources) = (table.rows(), table.sources().clone());
    columns.extend(
        table
            .into_columns()
            .into_iter()
            .filter(|(name, _)| kept.contains(name)),
    );
    columns.extend(labels);

    let dataset = Table::new(columns, rows, sources)?;
    check_tokens(&dataset, options)?;
    let lengths = match (options.length_column, given_lengths) {
        (Some(column), None) => Some(row_lengths(&dataset, tokenizer, column)?),
        (_, given) => given,
    };
    Ok(Prepared {
        dataset,
        labels: summary,
        lengths,
        text_column,
        word_starts,
    })
}

/// Lengths of the rows of the model's first input, where `column` has none.
fn row_lengths(dataset: &Table, tokenizer: Option<&Tokenizer>, column: &str) -> Result<Vec<usize>> {
    let main_input = tokenizer
        .and_then(|tokenizer| tokenizer.model_input_names().first())
        .map_or(INPUT_IDS, String::as_str);
    dataset.row_lengths(main_input).with_context(|| {
        format!("grouping by length needs a column {column:?} of integers or rows {main_input:?}")
    })
}

/// Every row must be one that the model can take: known before the first step, not when the row's turn comes.
fn check_tokens(dataset: &Table, options: &PrepareOptions<'_>) -> Result<()> {
    let Some(Cells::IntRows(rows)) = dataset.column(INPUT_IDS).map(Column::cells) else {
        return Ok(());
    };
    let TokenLimits {
        vocabulary,
        positions,
    } = options.tokens;
    let fail = |row, message: String| {
        let place = dataset.locate(row);
        Failure::data(format!("{place}: field {INPUT_IDS:?} {message}"))
    };
    for row in 0..rows.len() {
        let range = rows.range(row);
        if range.is_empty() && options.task != Task::Other {
            bail!(fail(row, "has no tokens".to_owned()));
        }
        if let Some(most) = positions.filter(|most| range.len() > *most) {
            let message = format!("has {} tokens; the model has {most} positions", range.len());
            bail!(fail(row, message).hint(format!("set --max_length {most}, or cut the rows")));
        }
        let is_known = |id: &i64| {
            vocabulary.is_none_or(|count| usize::try_from(*id).is_ok_and(|id| id < count))
        };
        if let Some(id) = range
            .map(|index| rows.values().get(index))
            .find(|id| !is_known(id))
        {
            let message = format!(
                "has the token id {id}; the model has {}",
                vocabulary.unwrap_or(0)
            );
            bail!(
                fail(row, message)
                    .hint("the tokenizer and the weights must belong to the same model")
            );
        }
    }
    Ok(())
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
    fn choose(
        &self,
        argument: &str,
        named: Option<&'a str>,
        usual: &[&'a str],
    ) -> Result<Option<&'a str>> {
        let Some(name) = named else {
            return Ok(usual
                .iter()
                .copied()
                .find(|name| self.table.column(name).is_some()));
        };
        if self.table.column(name).is_some() {
            return Ok(Some(name));
        }
        let names = self.table.columns().iter().map(|(column, _)| &**column);
        let nearest = names
            .map(|column| (strsim::jaro_winkler(column, name), column))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let mut failure = Failure::data(format!(
            "{}: no column {name:?} ({argument}); its columns are {}",
            self.files(),
            self.table.column_names()
        ));
        if let Some((_, column)) = nearest.filter(|(likeness, _)| *likeness > 0.8) {
            failure = failure.hint(format!("did you mean {column:?}?"));
        }
        Err(failure.into())
    }

    fn label_column(&self) -> Result<Option<&'a str>> {
        let options = self.options;
        if options.task == Task::LanguageModel {
            return Ok(None);
        }
        let named = options
            .label_column
            .filter(|name| options.labels_required || self.table.column(name).is_some());
        let label_names = options.label_names.iter().map(String::as_str);
        let usual: Vec<&str> = LABEL_COLUMNS.iter().copied().chain(label_names).collect();
        let usual = if options.label_column.is_some() {
            &[][..]
        } else {
            &usual
        };
        let label = self.choose("label_column", named, usual)?;
        let all_null = |name: &&str| {
            self.table
                .column(name)
                .is_some_and(|column| matches!(column.cells(), Cells::Nothing))
        };
        let label = if options.labels_required {
            label
        } else {
            label.filter(|name| !all_null(name))
        };
        if label.is_none() && options.labels_required {
            let (files, columns) = (self.files(), self.table.column_names());
            let message = format!(
                "{files}: no label column (looked for {}); its columns are {columns}",
                LABEL_COLUMNS.join(", ")
            );
            bail!(Failure::data(message).hint("name it with --label_column"));
        }
        Ok(label)
    }

    fn is_argument(&self, name: &str) -> bool {
        self.options
            .forward_arguments
            .iter()
            .any(|argument| argument == name)
    }

    /// The column to tokenize; `None` if the model's inputs are there already.
    fn text_column(&self, has_tokenizer: bool) -> Result<Option<&'a str>> {
        let options = self.options;
        let is_ready = |argument: &String| {
            self.table.column(argument).is_some() && !options.label_names.contains(argument)
        };
        let ready = options.forward_arguments.iter().any(is_ready);
        let takes_tokens = self.is_argument(INPUT_IDS);
        let wants_text = takes_tokens && has_tokenizer && self.table.column(INPUT_IDS).is_none();
        if options.text_column.is_none() && ready && !wants_text {
            return Ok(None);
        }
        let usual = match options.task {
            _ if !takes_tokens => &[],
            Task::TokenClassification => WORD_COLUMNS,
            Task::SequenceClassification | Task::LanguageModel | Task::Other => TEXT_COLUMNS,
        };
        let text = self.choose("text_column", options.text_column, usual)?;
        if text.is_none() && !ready {
            let wanted = if takes_tokens {
                format!("no text column (looked for {})", usual.join(", "))
            } else {
                format!(
                    "no column is an argument of the model ({})",
                    options.forward_arguments.join(", ")
                )
            };
            let message = format!(
                "{}: {wanted}; its columns are {}",
                self.files(),
                self.table.column_names()
            );
            bail!(Failure::data(message).hint(if takes_tokens {
                "name the column with --text_column; a CSV file needs a header line with names"
            } else {
                "columns are passed by name: rename the column or the argument"
            }));
        }
        Ok(text)
    }

    fn encode(&self, tokenizer: Option<&Tokenizer>, text: &'a str) -> Result<Encodings> {
        let no_tokenizer = || {
            Failure::data(format!(
                "{}: column {text:?} is text, and there is no tokenizer",
                self.files()
            ))
        };
        let tokenizer = tokenizer.ok_or_else(no_tokenizer)?;
        let first = Texts::new(self.table, text)?;
        let one = |row| Input::One(first.piece(row));
        if self.options.task == Task::TokenClassification {
            let (place, found) = (self.table.locate(0), first.column.describe());
            let is_words = matches!(first.column.cells(), Cells::TextRows(_));
            let message = format!(
                "{place}: field {text:?} is {found}; expected a list of words for token classification"
            );
            ensure!(is_words, Failure::data(message));
            return tokenizer.encode(self.table.rows(), one);
        }
        let pair = self.choose(
            "text_pair_column",
            self.options.text_pair_column,
            PAIR_COLUMNS,
        )?;
        let Some(pair) = pair.filter(|pair| *pair != text) else {
            return tokenizer.encode(self.table.rows(), one);
        };
        let second = Texts::new(self.table, pair)?;
        tokenizer.encode(self.table.rows(), |row| {
            Input::Pair(first.piece(row), second.piece(row))
        })
    }

    /// The label column of the data set under the name that collators look for.
    fn labels(
        &self,
        label: &'a str,
        words: Option<((&str, &Encodings), &Rows<Integers>)>,
    ) -> Result<((Arc<str>, Column), LabelSummary)> {
        let labels = Labels::new(self.table, label, self.options.labels)?;
        let (column, summary) = match (self.options.task, words) {
            (Task::SequenceClassification, _) => labels.of_rows()?,
            (Task::LanguageModel | Task::Other, _) => labels.as_they_are()?,
            (Task::TokenClassification, Some(((text, encodings), starts))) => {
                let (tags, summary) = labels.of_words()?;
                let aligned = self.align((label, &tags), (text, encodings, starts))?;
                (aligned, summary)
            }
            (Task::TokenClassification, None) => {
                let (tags, summary) = labels.of_words()?;
                (tags.into(), summary)
            }
        };
        let options = self.options;
        let is_the_models =
            self.is_argument(label) || options.label_names.iter().any(|name| name == label);
        let name = match column.cells() {
            _ if is_the_models => label,
            Cells::IntRows(_) | Cells::FloatRows(_) => "labels",
            _ => "label",
        };
        Ok(((name.into(), column), summary))
    }

    /// Where the words of a column begin in its tokens.
    fn word_starts(&self, text: &str, encodings: &Encodings) -> Result<Rows<Integers>> {
        let words = Texts::new(self.table, text)?;
        let mut all = Rows::<Integers>::default();
        for row in 0..self.table.rows() {
            let mut starts = vec![NO_TOKEN; words.column.row_len(row).unwrap_or(0)];
            let tokens = encodings.word_ids.get(row).into_iter().enumerate();
            for (position, word) in tokens.rev() {
                let word = usize::try_from(word).ok();
                if let Some(start) = word.and_then(|word| starts.get_mut(word)) {
                    *start = position as i64;
                }
            }
            all.push(starts);
        }
        Ok(all)
    }

    /// The label of a word goes to its first token; no other token has one.
    fn align(
        &self,
        (label, tags): (&str, &Rows<Integers>),
        (text, encodings, starts): (&str, &Encodings, &Rows<Integers>),
    ) -> Result<Column> {
        let mut aligned = Rows::<Integers>::default();
        for row in 0..self.table.rows() {
            let (tags, starts) = (tags.get(row), starts.get(row));
            let expected = starts.len();
            if tags.len() != expected {
                let (place, found) = (self.table.locate(row), tags.len());
                bail!(Failure::data(format!(
                    "{place}: field {label:?} has {found} labels for the {expected} words of {text:?}"
                )));
            }
            let mut labels = vec![IGNORED_LABEL; encodings.word_ids.range(row).len()];
            for (start, tag) in starts.into_iter().zip(tags) {
                if let Some(label) = usize::try_from(start)
                    .ok()
                    .and_then(|start| labels.get_mut(start))
                {
                    *label = tag;
                }
            }
            aligned.push(labels);
        }
        Ok(aligned.into())
    }

    fn is_kept(&self, name: &str) -> bool {
        let options = self.options;
        self.is_argument(name)
            || options.label_names.iter().any(|known| known == name)
            || KEPT_LABELS.contains(&name)
            || !options.remove_unused_columns
    }

    fn token_columns(
        &self,
        encodings: Option<Encodings>,
        tokenizer: Option<&Tokenizer>,
    ) -> Vec<(Arc<str>, Column)> {
        let (Some(mut encodings), Some(tokenizer)) = (encodings, tokenizer) else {
            return Vec::new();
        };
        let names = tokenizer
            .model_input_names()
            .iter()
            .filter(|name| self.is_kept(name));
        names
            .filter_map(|name| Some((name.as_str().into(), encodings.take(name)?.into())))
            .collect()
    }

    /// What is left of the table: not the labels, under any of their names, and not what was made from the text.
    fn other_columns(
        &self,
        made: &[(Arc<str>, Column)],
        label: Option<&str>,
    ) -> Result<Vec<Arc<str>>> {
        let is_label = |name: &str| {
            let is_collated = COLLATED_LABELS.contains(&name);
            label.is_some_and(|label| label == name || is_collated)
                || (self.options.task == Task::LanguageModel && is_collated)
        };
        let is_made = |name: &str| made.iter().any(|(column, _)| &**column == name);
        let mut kept = Vec::new();
        for (name, column) in self.table.columns() {
            if is_label(name) || is_made(name) || !self.is_kept(name) {
                continue;
            }
            if self.is_argument(name) {
                self.check_numbers(name)?;
            } else {
                self.check_wanted(name, column)?;
            }
            if !matches!(column.cells(), Cells::Unusable { .. }) {
                kept.push(name.clone());
            }
        }
        Ok(kept)
    }

    /// A column of numbers that is kept reaches the model, which must take it; texts never do.
    fn check_wanted(&self, name: &str, column: &Column) -> Result<()> {
        let is_label = self.options.label_names.iter().any(|label| label == name);
        let is_number = matches!(
            column.cells(),
            Cells::Ints(_) | Cells::Floats(_) | Cells::IntRows(_) | Cells::FloatRows(_)
        );
        if is_label || KEPT_LABELS.contains(&name) || !is_number {
            return Ok(());
        }
        let (files, arguments) = (self.files(), self.options.forward_arguments.join(", "));
        bail!(
            Failure::data(format!(
                "{files}: column {name:?} is no argument of the model ({arguments})"
            ))
            .hint("drop such columns: leave remove_unused_columns on")
        );
    }

    fn check_numbers(&self, name: &str) -> Result<()> {
        let column = self.table.usable(name)?;
        let row = column.first_text().unwrap_or(0);
        let (place, found) = (self.table.locate(row), column.describe());
        let is_text = matches!(column.cells(), Cells::Texts(_) | Cells::TextRows(_));
        ensure!(
            !is_text,
            Failure::data(format!(
                "{place}: field {name:?} is {found}; the model takes numbers"
            ))
        );
        Ok(())
    }

    /// At least one column must be an input of the model.
    fn check_inputs<'n>(&self, mut names: impl Iterator<Item = &'n Arc<str>>) -> Result<()> {
        if !self.options.remove_unused_columns || names.any(|name| self.is_argument(name)) {
            return Ok(());
        }
        let (files, arguments, columns) = (
            self.files(),
            self.options.forward_arguments.join(", "),
            self.table.column_names(),
        );
        bail!(Failure::data(format!(
            "{files}: no column is an argument of the model ({arguments}); its columns are {columns}"
        )));
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
            bail!(Failure::data(format!(
                "{}: field {name:?} is null or missing; every row needs a text",
                table.locate(row)
            )));
        }
        let (place, found) = (table.locate(0), column.describe());
        let is_text = matches!(column.cells(), Cells::Texts(_) | Cells::TextRows(_));
        ensure!(
            is_text,
            Failure::data(format!(
                "{place}: field {name:?} is {found}; expected a string"
            ))
        );
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use anyhow::Result;
    use tch::Tensor;

    use super::{PrepareOptions, Prepared, Task, TokenLimits, prepare};
    use crate::data::collator::PaddingCollator;
    use crate::data::labels::{LabelRules, ProblemType};
    use crate::data::loader::{Batching, Loader};
    use crate::data::sampler::{LengthGrouped, Random};
    use crate::data::testing::fixture;
    use crate::data::{Dataset, Example, Sampler, Table, Tokenizer, Value, format};
    use crate::torch::testing::seeded;

    const OPTIONS: PrepareOptions<'static> = PrepareOptions {
        task: Task::SequenceClassification,
        text_column: None,
        text_pair_column: None,
        label_column: None,
        labels_required: true,
        labels: LabelRules {
            label2id: None,
            num_labels: None,
            problem_type: None,
        },
        forward_arguments: &[],
        label_names: &[],
        remove_unused_columns: true,
        tokens: TokenLimits {
            vocabulary: None,
            positions: None,
        },
        length_column: None,
    };

    /// Prepares for BERT.
    fn for_bert(table: Table, options: &PrepareOptions<'_>) -> Result<Prepared> {
        let arguments = [
            "input_ids",
            "attention_mask",
            "token_type_ids",
            "position_ids",
            "labels",
        ]
        .map(str::to_owned);
        let label_names = ["labels".to_owned()];
        let mut tokenizer = Tokenizer::load(&fixture("tokenizer"))?;
        tokenizer.limit(Some(64), Some(128))?;
        prepare(
            table,
            Some(&tokenizer),
            &PrepareOptions {
                forward_arguments: &arguments,
                label_names: &label_names,
                ..*options
            },
        )
    }

    /// Prepares for a module that takes `x` and `labels`.
    fn for_module(table: Table, options: &PrepareOptions<'_>) -> Result<Prepared> {
        let arguments = ["x", "labels"].map(str::to_owned);
        let label_names = ["labels".to_owned()];
        prepare(
            table,
            None,
            &PrepareOptions {
                task: Task::Other,
                forward_arguments: &arguments,
                label_names: &label_names,
                ..*options
            },
        )
    }

    fn row(columns: &[(&str, Value)]) -> Example {
        Example {
            columns: columns
                .iter()
                .map(|(name, value)| ((*name).into(), value.clone()))
                .collect(),
        }
    }

    fn table(rows: &[&[(&str, Value)]]) -> Table {
        Table::from_examples(&rows.iter().map(|columns| row(columns)).collect::<Vec<_>>())
            .expect("rows of one type")
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    fn words(words: &[&str]) -> Value {
        Value::Texts(words.iter().map(|word| (*word).to_owned()).collect())
    }

    fn columns(prepared: &Prepared) -> String {
        prepared.dataset.column_names()
    }

    fn toy() -> Prepared {
        let table = format::read(&[fixture("toy.jsonl")], None).expect("the data");
        for_bert(
            table,
            &PrepareOptions {
                length_column: Some("length"),
                ..OPTIONS
            },
        )
        .expect("rows")
    }

    fn recorded(name: &str) -> serde_json::Value {
        let text = std::fs::read(fixture("orders.json")).expect("the recorded orders");
        let mut all: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        all[name].take()
    }

    fn check_order(name: &str, prepared: Prepared, sampler: Box<dyn Sampler>) {
        let tokenizer = Tokenizer::load(&fixture("tokenizer")).expect("the tokenizer");
        let collator = Box::new(PaddingCollator::new(tokenizer.padding()));
        let batching = Batching::new(collator, 16);
        let mut loader =
            Loader::new((Arc::new(prepared.dataset), sampler), batching).expect("a loader");
        let batches: Vec<_> = seeded(42, || {
            loader
                .epoch()
                .expect("an epoch")
                .collect::<Result<_>>()
                .expect("batches")
        });
        let recorded = recorded(name);
        let rows: Vec<_> = batches.iter().map(|batch| batch.rows.clone()).collect();
        assert_eq!(serde_json::json!(rows), recorded["order"]);
        for (column, expected) in recorded["first_batch"]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(column, _)| *column != "idx")
        {
            let tensor = batches[0].batch.get(column).expect("a recorded column");
            let expected: Vec<i64> = match expected.as_array().expect("a list") {
                rows if rows[0].is_array() => rows
                    .iter()
                    .flat_map(|row| {
                        serde_json::from_value::<Vec<i64>>(row.clone()).expect("numbers")
                    })
                    .collect(),
                numbers => numbers
                    .iter()
                    .filter_map(serde_json::Value::as_i64)
                    .collect(),
            };
            assert!(
                tensor.reshape(-1) == Tensor::from_slice(&expected),
                "{column}"
            );
        }
    }

    #[test]
    fn order_and_tensors_are_the_references() {
        check_order("base", toy(), Box::new(Random::new()));
        let prepared = toy();
        let lengths = prepared.lengths.clone().expect("lengths were asked for");
        check_order(
            "gbl",
            prepared,
            Box::new(LengthGrouped::new(lengths, 16).expect("a sampler")),
        );
    }

    #[test]
    fn columns_are_found_and_unused_ones_dropped() {
        let label = ("label", Value::Int(1));
        type Case<'a> = (&'a [(&'a str, Value)], bool, &'a str);
        let cases: [Case<'_>; 6] = [
            (
                &[
                    ("id", Value::Int(7)),
                    ("text", text("the soup")),
                    label.clone(),
                ],
                true,
                "input_ids, token_type_ids, attention_mask, label",
            ),
            (
                &[
                    ("id", text("x7")),
                    ("text", text("the soup")),
                    label.clone(),
                ],
                false,
                "input_ids, token_type_ids, attention_mask, id, text, label",
            ),
            (
                &[
                    ("sentence1", text("the")),
                    ("sentence2", text("soup")),
                    ("labels", Value::Int(1)),
                ],
                true,
                "input_ids, token_type_ids, attention_mask, labels",
            ),
            (
                &[("sentence", text("the")), ("label_ids", Value::Int(1))],
                true,
                "input_ids, token_type_ids, attention_mask, label",
            ),
            (
                &[("text", text("the")), ("label", Value::Ints(vec![0, 1]))],
                true,
                "input_ids, token_type_ids, attention_mask, labels",
            ),
            (
                &[
                    ("input_ids", Value::Ints(vec![2, 3])),
                    ("text", text("the")),
                    label,
                ],
                true,
                "input_ids, label",
            ),
        ];
        for (columns_in, remove_unused_columns, expected) in cases {
            let prepared = for_bert(
                table(&[columns_in]),
                &PrepareOptions {
                    remove_unused_columns,
                    ..OPTIONS
                },
            )
            .expect("rows");
            assert_eq!(columns(&prepared), expected);
        }
    }

    #[test]
    fn named_columns_win() {
        let rows = table(&[&[
            ("text", text("a")),
            ("question", text("the soup")),
            ("answer", text("calm")),
            ("label", Value::Int(9)),
            ("class", text("x")),
        ]]);
        let options = PrepareOptions {
            text_column: Some("question"),
            text_pair_column: Some("answer"),
            label_column: Some("class"),
            ..OPTIONS
        };
        let prepared = for_bert(rows, &options).expect("rows");
        let Some(Value::Ints(types)) = prepared
            .dataset
            .get(0)
            .expect("a row")
            .get("token_type_ids")
            .cloned()
        else {
            panic!("no types")
        };
        assert!(types.contains(&1));
        let summary = prepared.labels.expect("labels");
        assert_eq!(
            (
                summary.column.as_str(),
                summary.problem_type,
                summary.num_labels
            ),
            (
                "class",
                Some(ProblemType::SingleLabelClassification),
                Some(1)
            )
        );
        assert_eq!(
            prepared.dataset.get(0).expect("a row").get("label"),
            Some(&Value::Int(0))
        );
    }

    #[test]
    fn labels_go_to_the_first_piece_of_their_word() {
        let rows = table(&[&[
            ("tokens", words(&["the", "xy", "soup"])),
            ("ner_tags", Value::Ints(vec![3, 4, 5])),
        ]]);
        let options = PrepareOptions {
            task: Task::TokenClassification,
            ..OPTIONS
        };
        let prepared = for_bert(rows, &options).expect("rows");
        let example = prepared.dataset.get(0).expect("a row");
        let Some(Value::Ints(ids)) = example.get("input_ids").cloned() else {
            panic!("no tokens")
        };
        let Some(Value::Ints(labels)) = example.get("labels").cloned() else {
            panic!("no labels")
        };
        let mut expected = vec![-100; ids.len()];
        (expected[1], expected[2], expected[ids.len() - 2]) = (3, 4, 5);
        assert_eq!(labels, expected);
        assert_eq!(prepared.labels.expect("labels").num_labels, Some(6));
    }

    #[test]
    fn ready_columns_pass_as_they_are() {
        let ready: &[(&str, Value)] = &[
            ("x", Value::Floats(vec![0.5, 1.0])),
            ("label", Value::Ints(vec![7, -3])),
            ("note", text("a")),
        ];
        let prepared = for_module(table(&[ready]), &OPTIONS).expect("rows");
        assert_eq!(columns(&prepared), "x, labels");
        assert_eq!(
            prepared.dataset.get(0).expect("a row").get("labels"),
            Some(&Value::Ints(vec![7, -3]))
        );
        assert_eq!(prepared.labels.expect("labels").num_labels, None);
        let scalar = for_module(
            table(&[&[("x", Value::Int(1)), ("label", Value::Float(0.5))]]),
            &OPTIONS,
        )
        .expect("rows");
        assert_eq!(columns(&scalar), "x, label");
    }

    #[test]
    fn rows_without_labels_are_fine_if_nobody_needs_them() {
        let options = PrepareOptions {
            labels_required: false,
            label_column: Some("class"),
            ..OPTIONS
        };
        for rows in [
            table(&[&[("text", text("the"))]]),
            table(&[&[("text", text("the")), ("class", Value::Null)]]),
        ] {
            let prepared = for_bert(rows, &options).expect("rows");
            assert_eq!(
                (columns(&prepared).as_str(), prepared.labels),
                ("input_ids, token_type_ids, attention_mask", None)
            );
        }
    }

    #[test]
    fn lengths_are_tokens_or_given() {
        let rows = || {
            table(&[&[
                ("text", text("the")),
                ("label", Value::Int(0)),
                ("size", Value::Int(42)),
            ]])
        };
        for (column, expected) in [("length", 3), ("size", 42)] {
            let prepared = for_bert(
                rows(),
                &PrepareOptions {
                    length_column: Some(column),
                    ..OPTIONS
                },
            )
            .expect("rows");
            assert_eq!(prepared.lengths, Some(vec![expected]));
        }
    }

    #[test]
    fn bad_tables_are_explained() {
        let label = ("label", Value::Int(1));
        let good = || table(&[&[("text", text("the")), label.clone()]]);
        let refuse = |table, options: &PrepareOptions<'_>| {
            for_bert(table, options)
                .expect_err("a bad table")
                .to_string()
        };
        let tokens = PrepareOptions {
            task: Task::TokenClassification,
            ..OPTIONS
        };
        let cases = [
            (
                refuse(
                    good(),
                    &PrepareOptions {
                        text_column: Some("txt"),
                        ..OPTIONS
                    },
                ),
                "the data: no column \"txt\" (text_column); its columns are text, label",
            ),
            (
                refuse(
                    good(),
                    &PrepareOptions {
                        label_column: Some("class"),
                        ..OPTIONS
                    },
                ),
                "the data: no column \"class\" (label_column); its columns are text, label",
            ),
            (
                refuse(table(&[&[("body", text("the")), label.clone()]]), &OPTIONS),
                "the data: no text column (looked for text, sentence, sentence1, premise, tokens, words); its columns are body, label",
            ),
            (
                refuse(table(&[&[("text", text("the"))]]), &OPTIONS),
                "the data: no label column (looked for label, labels, label_ids, ner_tags, tags); its columns are text",
            ),
            (
                refuse(
                    table(&[
                        &[("text", text("a")), label.clone()],
                        &[("text", Value::Null), label.clone()],
                    ]),
                    &OPTIONS,
                ),
                "row 1: field \"text\" is null or missing; every row needs a text",
            ),
            (
                refuse(
                    table(&[&[("text", Value::Int(3)), label.clone()]]),
                    &OPTIONS,
                ),
                "row 0: field \"text\" is an integer; expected a string",
            ),
            (
                refuse(
                    table(&[&[("text", text("a")), ("tags", Value::Ints(vec![1]))]]),
                    &tokens,
                ),
                "row 0: field \"text\" is a string; expected a list of words for token classification",
            ),
            (
                refuse(
                    table(&[&[
                        ("tokens", words(&["a", "b"])),
                        ("tags", Value::Ints(vec![1])),
                    ]]),
                    &tokens,
                ),
                "row 0: field \"tags\" has 1 labels for the 2 words of \"tokens\"",
            ),
        ];
        for (message, expected) in cases {
            assert_eq!(message, expected);
        }
        let module = |table| {
            for_module(table, &OPTIONS)
                .expect_err("a bad table")
                .to_string()
        };
        assert_eq!(
            module(good()),
            "the data: no column is an argument of the model (x, labels); its columns are text, label"
        );
        assert_eq!(
            module(table(&[&[("x", text("a")), label.clone()]])),
            "row 0: field \"x\" is a string; the model takes numbers"
        );
    }

    #[test]
    fn a_file_of_another_type_is_located() {
        let folder = tempfile::tempdir().expect("a folder");
        let path: PathBuf = folder.path().join("train.csv");
        std::fs::write(&path, "text,label\nthe,0\nsoup,one\n").expect("a file");
        let error = format::read(&[path], None)
            .and_then(|table| for_bert(table, &OPTIONS))
            .expect_err("mixed labels")
            .to_string();
        assert!(
            error.ends_with("train.csv:3: field \"label\" is a string; expected a number (as in the rows before)"),
            "{error}"
        );
    }
}
