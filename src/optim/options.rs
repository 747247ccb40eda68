//! Settings by name that only some optimizers and schedules have (`optim_args`, `lr_scheduler_kwargs`), already checked
//! where the arguments were; here a setting that its reader does not know is an error, so that none is lost.

use serde_json::{Map, Value};

use crate::error::Failure;

/// Settings by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options(Map<String, Value>);

impl From<Map<String, Value>> for Options {
    fn from(map: Map<String, Value>) -> Self {
        Self(map)
    }
}

impl Options {
    /// An error if there are others than `known`.
    pub(super) fn only(&self, owner: &str, known: &[&str]) -> Result<(), Failure> {
        let Some(key) = self.0.keys().find(|key| !known.contains(&key.as_str())) else {
            return Ok(());
        };
        let known = if known.is_empty() {
            "it has none".to_owned()
        } else {
            format!("it has {}", known.join(", "))
        };
        Err(Failure::usage(format!(
            "{owner} has no setting {key}; {known}"
        )))
    }

    fn get<T>(
        &self,
        key: &str,
        (form, read): (&str, impl FnOnce(&Value) -> Option<T>),
    ) -> Result<Option<T>, Failure> {
        let wrong = |value: &Value| Failure::usage(format!("{key} {value} is not {form}"));
        self.0
            .get(key)
            .map(|value| read(value).ok_or_else(|| wrong(value)))
            .transpose()
    }

    /// A number.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, Failure> {
        self.get(key, ("a number", Value::as_f64))
    }

    /// A count.
    pub(super) fn count(&self, key: &str) -> Result<Option<u64>, Failure> {
        self.get(key, ("a whole number of at least 0", Value::as_u64))
    }

    /// Yes or no.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, Failure> {
        self.get(key, ("true or false", Value::as_bool))
    }

    /// A word.
    pub(super) fn word(&self, key: &str) -> Result<Option<String>, Failure> {
        let read = |value: &Value| value.as_str().map(str::to_owned);
        self.get(key, ("a word", read))
    }

    /// One of some words, as what they stand for.
    pub(super) fn one_of<T: Copy>(
        &self,
        key: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, Failure> {
        let Some(word) = self.word(key)? else {
            return Ok(None);
        };
        let found = words.iter().find(|(name, _)| *name == word);
        found.map(|(_, meaning)| Some(*meaning)).ok_or_else(|| {
            let names: Vec<_> = words.iter().map(|(name, _)| *name).collect();
            Failure::usage(format!("{key} {word} is not one of {}", names.join(", ")))
        })
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::Options;

    /// Options from JSON.
    pub fn options(json: serde_json::Value) -> Options {
        json.as_object().cloned().unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::options;
    use serde_json::json;

    #[test]
    fn what_is_unknown_or_of_another_form_is_refused() {
        let options = options(json!({"power": "much", "cycles": 1.5, "mode": "max"}));
        let messages = [
            options
                .only("cosine", &["power", "mode"])
                .expect_err("cycles"),
            options.number("power").expect_err("text"),
            options.count("cycles").expect_err("a fraction"),
            options.flag("mode").expect_err("a word"),
            options
                .one_of("mode", &[("min", 0)])
                .expect_err("another word"),
        ];
        assert_eq!(
            messages.map(|failure| failure.to_string()),
            [
                "cosine has no setting cycles; it has power, mode",
                "power \"much\" is not a number",
                "cycles 1.5 is not a whole number of at least 0",
                "mode \"max\" is not true or false",
                "mode max is not one of min",
            ]
        );
        assert_eq!(options.number("absent").expect("no error"), None);
    }
}
