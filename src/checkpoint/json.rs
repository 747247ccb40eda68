//! JSON files as the reference writes and reads them.
//!
//! Written: two spaces, a final newline, keys sorted where the reference sorts them. Read: also Python's `NaN` and
//! `Infinity`, which are not JSON; they become `null`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Failure;

/// What the reference's json module writes for numbers that JSON lacks.
const NON_FINITE: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];

/// Keys in the order of `value`.
pub fn to_bytes(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Keys sorted on every level.
pub fn to_sorted_bytes(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut value = serde_json::to_value(value)?;
    value.sort_all_objects();
    to_bytes(&value)
}

/// Reads a whole file. An error says file, line and column.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&bytes).map_err(|error| {
        let place = if error.line() == 0 {
            String::new()
        } else {
            format!(":{}:{}", error.line(), error.column())
        };
        Failure::data(format!("{}{place}: {error}", path.display())).into()
    })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    match serde_json::from_slice(bytes) {
        // A second look only at files that are wrong or Python's: the common case pays nothing.
        Err(error) if error.is_syntax() => {
            serde_json::from_slice(&without_non_finite(bytes)).map_err(|_| error)
        }
        result => result,
    }
}

/// Puts `null` in the place of non-finite numbers outside of strings.
fn without_non_finite(bytes: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(bytes.len());
    let (mut rest, mut in_string) = (bytes, false);
    while let [first, ..] = rest {
        let number = NON_FINITE
            .iter()
            .find(|word| !in_string && rest.starts_with(word));
        let length = match first {
            _ if number.is_some() => {
                result.extend_from_slice(b"null");
                number.map_or(1, |word| word.len())
            }
            b'\\' if in_string => {
                let pair = &rest[..rest.len().min(2)];
                result.extend_from_slice(pair);
                pair.len()
            }
            &byte => {
                in_string ^= byte == b'"';
                result.push(byte);
                1
            }
        };
        rest = &rest[length..];
    }
    result
}

/// For fields of numbers that need not be finite, which JSON has no numbers for: they are written as text.
/// `#[serde(with = "any_number")]`
pub mod any_number {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// A number, or its name.
    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(f64),
        Text(String),
    }

    /// As a number if it is finite.
    pub fn serialize<S: Serializer>(
        number: &(impl Copy + Into<f64>),
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let number: f64 = (*number).into();
        let written = match number.is_finite() {
            true => Written::Number(number),
            false => Written::Text(number.to_string()),
        };
        written.serialize(serializer)
    }

    /// A field that was written so.
    pub trait Float: Sized {
        /// The nearest value.
        fn of(number: f64) -> Self;
    }

    impl Float for f64 {
        fn of(number: f64) -> Self {
            number
        }
    }

    impl Float for f32 {
        fn of(number: f64) -> Self {
            number as f32
        }
    }

    /// Either form.
    pub fn deserialize<'de, F: Float, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<F, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(F::of(number)),
            Written::Text(text) => text.parse().map(F::of).map_err(D::Error::custom),
        }
    }
}

/// [`any_number`] for lists of names with numbers.
pub mod named_numbers {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::any_number;

    #[derive(Serialize, Deserialize)]
    struct Named(String, #[serde(with = "any_number")] f64);

    /// A list of pairs.
    pub fn serialize<S: Serializer>(
        list: &[(String, f64)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let named = list.iter();
        serializer.collect_seq(named.map(|(name, number)| Named(name.clone(), *number)))
    }

    /// A list of pairs.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(String, f64)>, D::Error> {
        let list = Vec::<Named>::deserialize(deserializer)?;
        Ok(list
            .into_iter()
            .map(|Named(name, number)| (name, number))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn pythons_numbers_become_null() {
        let cases = [
            (
                r#"{"loss": NaN, "x": [Infinity, -Infinity, 1.5]}"#,
                Some(json!({"loss": null, "x": [null, null, 1.5]})),
            ),
            (
                r#"{"a": "NaN \" Infinity", "b": NaN}"#,
                Some(json!({"a": "NaN \" Infinity", "b": null})),
            ),
            (
                r#"{"a": "\\", "b": NaN}"#,
                Some(json!({"a": "\\", "b": null})),
            ),
            (r#"{"a": nan}"#, None),
            (r#"{"a": "x"#, None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse::<Value>(text.as_bytes()).ok(), expected, "{text}");
        }
    }

    #[test]
    fn errors_say_where() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("trainer_state.json");
        fs::write(&path, "{\n  \"epoch\": ,\n}").expect("written");
        let error = read::<Value>(&path).expect_err("not JSON");
        assert!(
            error.to_string().contains("trainer_state.json:2:12: "),
            "{error}"
        );
        assert_eq!(crate::error::kind_of(&error), crate::error::Kind::Data);
    }

    #[test]
    fn keys_are_sorted_on_request() {
        let value = json!({"b": {"d": 1, "c": 2.5}, "a": []});
        assert_eq!(
            to_sorted_bytes(&value).expect("bytes"),
            b"{\n  \"a\": [],\n  \"b\": {\n    \"c\": 2.5,\n    \"d\": 1\n  }\n}\n"
        );
        assert!(to_bytes(&value).expect("bytes").starts_with(b"{\n  \"b\""));
    }
}
