//! From rows as read to rows for the model: all of them at once, or batch by batch as a stream gives them.

use std::sync::Arc;

use anyhow::Result;

use crate::config::run;
use crate::data::format::FileStream;
use crate::data::labels::{LabelMap, LabelRules, LabelSummary};
use crate::data::stream::Convert;
use crate::data::{self, PrepareOptions, Prepared, Table, TokenLimits, Tokenizer, prepare};
use crate::error::Failure;
use crate::model::{ModelConfig, ProblemType};

/// What is known of the labels so far: from the configuration, then from the training set.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub label2id: Option<LabelMap>,
    pub num_labels: Option<usize>,
    pub problem_type: Option<ProblemType>,
}

impl Known {
    pub fn of_config(config: Option<&ModelConfig>) -> Self {
        let Some(config) = config else {
            return Self::default();
        };
        let own = config.has_own_labels();
        let ids = || {
            config
                .labels
                .iter()
                .enumerate()
                .map(|(id, name)| (name.clone(), id as i64))
                .collect()
        };
        Self {
            label2id: own.then(ids),
            num_labels: own.then(|| config.num_labels()),
            problem_type: config.problem_type,
        }
    }

    fn learn(&mut self, summary: &LabelSummary) {
        self.label2id = summary.label2id.clone().or(self.label2id.take());
        self.num_labels = summary.num_labels.or(self.num_labels);
        self.problem_type = summary.problem_type.or(self.problem_type);
    }

    fn rules(&self) -> LabelRules<'_> {
        LabelRules {
            label2id: self.label2id.as_ref(),
            num_labels: self.num_labels,
            problem_type: self.problem_type,
        }
    }
}

/// What preparing needs to know of the model before it is built.
#[derive(Clone)]
pub(super) struct Interface {
    pub task: data::Task,
    pub forward_arguments: Vec<String>,
    pub label_names: Vec<String>,
    pub tokens: TokenLimits,
}

/// What rows are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// With the length of each, if asked.
    Training {
        lengths: bool,
    },
    Evaluation,
    /// Labels may be absent.
    Prediction,
}

/// How rows are prepared; shared by the workers that do it.
#[derive(Clone)]
pub(super) struct Preparation {
    tokenizer: Option<Arc<Tokenizer>>,
    data: run::Data,
    interface: Interface,
    pub known: Known,
    pub purpose: Purpose,
}

impl Preparation {
    pub fn new(
        data: &run::Data,
        tokenizer: Option<Arc<Tokenizer>>,
        (interface, known): (Interface, Known),
    ) -> Self {
        Self {
            tokenizer,
            data: data.clone(),
            interface,
            known,
            purpose: Purpose::Evaluation,
        }
    }

    /// Labels that a native head learns.
    fn has_labels(&self) -> bool {
        ![data::Task::Other, data::Task::LanguageModel].contains(&self.interface.task)
    }

    pub fn prepare(&self, table: Table) -> Result<Prepared> {
        let (data, interface) = (&self.data, &self.interface);
        let has_lengths = self.purpose == (Purpose::Training { lengths: true });
        let options = PrepareOptions {
            task: interface.task,
            text_column: data.text_column.as_deref(),
            text_pair_column: data.text_pair_column.as_deref(),
            label_column: data.label_column.as_deref(),
            labels_required: self.purpose != Purpose::Prediction && self.has_labels(),
            labels: self.known.rules(),
            forward_arguments: &interface.forward_arguments,
            label_names: &interface.label_names,
            remove_unused_columns: data.remove_unused_columns,
            tokens: interface.tokens,
            length_column: Some(data.length_column_name.as_str()).filter(|_| has_lengths),
        };
        prepare(table, self.tokenizer.as_deref(), &options)
    }

    /// What the rows say of the labels holds for those that follow.
    pub fn learn(&mut self, prepared: &Prepared) {
        if let Some(summary) = &prepared.labels {
            self.known.learn(summary);
        }
    }

    /// What can be known to be wrong with streamed rows before the first batch.
    pub fn check_stream(&mut self, stream: &FileStream) -> Result<()> {
        let is_regression = self.known.problem_type == Some(ProblemType::Regression);
        if self.has_labels() && self.known.num_labels.is_none() && !is_regression {
            let message = "streamed rows cannot be searched for their labels beforehand, and the model's config.json names none";
            return Err(Failure::data(message)
                .hint("name them in config.json (id2label and label2id), or set its problem_type to regression")
                .into());
        }
        if is_regression {
            self.known.num_labels.get_or_insert(1);
        }
        match stream.sample() {
            Some(sample) => self.prepare(sample.clone()).map(|_| ()),
            None => Ok(()),
        }
    }
}

impl Convert for Preparation {
    fn convert(&self, raw: Table) -> Result<Table> {
        Ok(self.prepare(raw)?.dataset)
    }
}
