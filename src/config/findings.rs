//! What is wrong with the arguments: collected one by one, reported in one message.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use crate::error::{Failure, Kind};

/// Where an argument was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In argv.
    CommandLine,
    /// In a program that embeds the library.
    Program,
    /// In a configuration file.
    File {
        /// As the user named it.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
}

/// `file:line: ` in front of a message, or nothing where there is only one place.
impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::CommandLine | Place::Program => Ok(()),
            Place::File { path, line } => write!(formatter, "{}:{line}: ", path.display()),
        }
    }
}

/// Everything found so far.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    lines: Vec<String>,
    fields: BTreeSet<&'static str>,
    powers: usize,
    has_unknown_names: bool,
}

impl Findings {
    /// Something about `field`; what follows from a wrong field need not be reported again.
    pub fn about(&mut self, field: &'static str, place: Option<&Place>, text: &str) {
        let place = place.map(Place::to_string).unwrap_or_default();
        self.lines.push(format!("{place}{field}: {text}"));
        self.fields.insert(field);
    }

    /// A power that the user has to grant first.
    pub fn power(&mut self, field: &'static str, place: Option<&Place>, text: &str) {
        self.about(field, place, text);
        self.powers += 1;
    }

    /// Something that belongs to no known field.
    pub fn elsewhere(&mut self, place: &Place, text: &str) {
        self.lines.push(format!("{place}{text}"));
    }

    /// A name that no argument has.
    pub fn unknown_name(&mut self, place: &Place, text: &str) {
        self.elsewhere(place, text);
        self.has_unknown_names = true;
    }

    /// Whether a required argument may be absent only because its name was misspelt.
    pub fn has_unknown_names(&self) -> bool {
        self.has_unknown_names
    }

    /// Whether something was already found about one of these.
    pub fn concern(&self, fields: &[&str]) -> bool {
        fields.iter().any(|field| self.fields.contains(field))
    }

    /// All findings as one failure. It is a policy failure only if nothing but a missing power stands in the way.
    pub fn into_result(self) -> Result<(), Failure> {
        let kind = if self.powers == self.lines.len() {
            Kind::Policy
        } else {
            Kind::Usage
        };
        match self.lines.as_slice() {
            [] => Ok(()),
            [line] => Err(Failure::new(kind, line.clone())),
            lines => Err(Failure::new(
                kind,
                format!("{} problems:\n  {}", lines.len(), lines.join("\n  ")),
            )),
        }
    }
}

/// ` (did you mean ...?)` for a word that is none of `names`, or nothing.
pub fn did_you_mean<'a>(word: &str, names: impl IntoIterator<Item = &'a str> + Clone) -> String {
    nearest(word, names)
        .map(|nearest| format!(" (did you mean `{nearest}`?)"))
        .unwrap_or_default()
}

/// The name the user may have meant: a small slip away, else the first that contains the word.
pub fn nearest<'a>(
    word: &str,
    names: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let limit = (word.len() / 3).max(1);
    let close = names
        .clone()
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name);
    close.or_else(|| {
        names
            .into_iter()
            .find(|name| word.len() >= 4 && name.contains(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_a_slip_away_or_contains_the_word() {
        let names = ["learning_rate", "num_train_epochs", "seed"];
        let cases = [
            ("lerning_rate", Some("learning_rate")),
            ("learnign_rate", Some("learning_rate")),
            ("epochs", Some("num_train_epochs")),
            ("sed", Some("seed")),
            ("colour", None),
            ("s", None),
        ];
        for (word, expected) in cases {
            assert_eq!(nearest(word, names), expected, "{word}");
        }
    }

    #[test]
    fn only_a_missing_power_is_a_policy_failure() {
        let mut findings = Findings::default();
        assert!(findings.clone().into_result().is_ok());
        findings.power("model", None, "is code");
        assert_eq!(
            findings.clone().into_result().expect_err("a finding").kind,
            Kind::Policy
        );
        findings.about(
            "seed",
            Some(&Place::File {
                path: "a.toml".into(),
                line: 3,
            }),
            "is wrong",
        );
        let failure = findings.into_result().expect_err("a finding");
        assert_eq!(failure.kind, Kind::Usage);
        assert_eq!(
            failure.message,
            "2 problems:\n  model: is code\n  a.toml:3: seed: is wrong"
        );
    }
}
