//! The words after `host train`, `evaluate` or `predict`, by the reference's rules: `--field value`, `--field=value`, a
//! bare flag is true, `--no_field` for flags that are true by default, lists separated by spaces.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::iter::Peekable;
use std::path::PathBuf;

use super::arguments::{Arguments, FIELDS, field};
use super::field::Field;
use super::findings::{Findings, Place, nearest};
use super::setting::{Shape, Token, boolean, quoted};

/// Words sorted by argument, not yet read by their types.
#[derive(Debug, Default)]
pub(super) struct CommandLine {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// Arguments in the order of their first mention.
    pub entries: Vec<(&'static Field, Vec<Token>)>,
    /// Words that fit nowhere.
    pub findings: Findings,
    /// `--help` was among the words.
    pub help: bool,
}

/// Sorts the words.
pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> CommandLine {
    let mut parser = Parser {
        result: CommandLine::default(),
        positions: BTreeMap::new(),
        defaults: Arguments::default(),
    };
    let words: Vec<String> = words.into_iter().map(|word| parser.text(word)).collect();
    let mut words = words.into_iter().peekable();
    let mut is_first = true;
    while let Some(word) = words.next() {
        let may_be_config = is_first || word.ends_with(".toml");
        is_first = false;
        match word.strip_prefix("--") {
            _ if word == "--help" || word == "-h" => parser.result.help = true,
            Some(name) => parser.argument(name, &mut words),
            None if may_be_config && parser.result.config.is_none() && !word.starts_with('-') => {
                parser.result.config = Some(word.into())
            }
            None => parser.stray(&word),
        }
    }
    parser.result
}

struct Parser {
    result: CommandLine,
    positions: BTreeMap<&'static str, usize>,
    defaults: Arguments,
}

type Words = Peekable<std::vec::IntoIter<String>>;

impl Parser {
    fn text(&mut self, word: OsString) -> String {
        word.into_string().unwrap_or_else(|word| {
            let text = word.to_string_lossy().into_owned();
            self.result.findings.elsewhere(
                &Place::CommandLine,
                &format!("{} is not valid UTF-8", quoted(&text)),
            );
            text
        })
    }

    fn argument(&mut self, word: &str, words: &mut Words) {
        let (name, value) = word
            .split_once('=')
            .map_or((word, None), |(name, value)| (name, Some(value)));
        if let Some(field) = field(name) {
            let values = match value {
                Some(value) => vec![value.to_owned()],
                None => values_of(field, words),
            };
            self.add(field, values);
        } else if let Some(field) = self.negated(name) {
            if value.is_some() {
                self.result
                    .findings
                    .about(field.name, None, &format!("--{name} takes no value"));
            }
            self.add(field, vec!["false".to_owned()]);
        } else {
            self.unknown(name);
            // The values of a misspelt name would only be reported as stray words.
            while words.next_if(|word| !word.starts_with("--")).is_some() {}
        }
    }

    fn negated(&self, name: &str) -> Option<&'static Field> {
        let name = name
            .strip_prefix("no_")
            .or_else(|| name.strip_prefix("no-"))?;
        field(name).filter(|field| field.has_negation(&self.defaults))
    }

    /// Lists grow, everything else is replaced.
    fn add(&mut self, field: &'static Field, values: Vec<String>) {
        let tokens = values.into_iter().map(Token::Word);
        match self.positions.get(field.name) {
            Some(position) => {
                let known = &mut self.result.entries[*position].1;
                if field.shape != Shape::Many {
                    known.clear();
                }
                known.extend(tokens);
            }
            None => {
                self.positions.insert(field.name, self.result.entries.len());
                self.result.entries.push((field, tokens.collect()));
            }
        }
    }

    fn unknown(&mut self, name: &str) {
        let text = format!(
            "unknown argument {}{}",
            quoted(&format!("--{name}")),
            suggestion(name, "--")
        );
        self.result
            .findings
            .unknown_name(&Place::CommandLine, &text);
    }

    fn stray(&mut self, word: &str) {
        let text = if word.starts_with('-') {
            format!(
                "unknown argument {}; arguments begin with two dashes",
                quoted(word)
            )
        } else {
            format!(
                "unexpected word {}; it belongs to no argument",
                quoted(word)
            )
        };
        self.result
            .findings
            .unknown_name(&Place::CommandLine, &text);
    }
}

fn values_of(field: &Field, words: &mut Words) -> Vec<String> {
    let is_value = |word: &String| !word.starts_with("--");
    match field.shape {
        Shape::Flag => words
            .next_if(|word| boolean(word).is_some() || word.eq_ignore_ascii_case("none"))
            .into_iter()
            .collect(),
        Shape::One => words.next_if(is_value).into_iter().collect(),
        Shape::Many => std::iter::from_fn(|| words.next_if(is_value)).collect(),
    }
}

/// `; did you mean ...` or where to look, for a name that no argument has.
pub(super) fn suggestion(name: &str, prefix: &str) -> String {
    let name = name.replace('-', "_");
    let names = FIELDS
        .iter()
        .flat_map(|field| std::iter::once(field.name).chain(field.facts.aliases.iter().copied()));
    match nearest(&name, names) {
        Some(nearest) => format!("; did you mean `{prefix}{nearest}`?"),
        None => "; `host args` lists all".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `field=value,value` for every argument, then the findings.
    fn parsed(line: &str) -> String {
        let result = parse(line.split_whitespace().map(OsString::from));
        let mut parts: Vec<String> = result
            .config
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        for (field, tokens) in &result.entries {
            let values: Vec<&str> = tokens
                .iter()
                .map(|token| {
                    if let Token::Word(word) = token {
                        word.as_str()
                    } else {
                        "?"
                    }
                })
                .collect();
            parts.push(format!("{}={}", field.name, values.join(",")));
        }
        if let Err(failure) = result.findings.into_result() {
            parts.push(failure.message);
        }
        parts.join(" ")
    }

    #[test]
    fn words_are_sorted_by_argument() {
        let cases = [
            ("run.toml --seed 1 --seed 2", "run.toml seed=2"),
            ("--learning-rate=1e-3", "learning_rate=1e-3"),
            ("--max_steps -1 --do_train", "max_steps=-1 do_train="),
            ("--do_train run.toml", "run.toml do_train="),
            (
                "--do_train no --no-dataloader-pin-memory",
                "do_train=no dataloader_pin_memory=false",
            ),
            ("--no_cuda --no_plugins", "no_cuda= no_plugins="),
            (
                "--train_file a b --train-file c --seed 3",
                "train_file=a,b,c seed=3",
            ),
            ("--eval_strategy steps", "evaluation_strategy=steps"),
            (
                "--lerning_rate 5 6 --seed 1",
                "seed=1 unknown argument `--lerning_rate`; did you mean `--learning_rate`?",
            ),
            (
                "--no_do_train",
                "unknown argument `--no_do_train`; did you mean `--do_train`?",
            ),
            (
                "--qqqqqqqq",
                "unknown argument `--qqqqqqqq`; `host args` lists all",
            ),
            (
                "--seed 1 stray",
                "seed=1 unexpected word `stray`; it belongs to no argument",
            ),
            ("run", "run"),
            (
                "a.toml b.toml",
                "a.toml unexpected word `b.toml`; it belongs to no argument",
            ),
            (
                "-x",
                "unknown argument `-x`; arguments begin with two dashes",
            ),
            (
                "--no_save_safetensors",
                "unknown argument `--no_save_safetensors`; did you mean `--save_safetensors`?",
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(parsed(line), expected, "{line}");
        }
    }
}
