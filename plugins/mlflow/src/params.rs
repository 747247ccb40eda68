//! Parameters of a run as MLflow keeps them: text, as Python's `str` writes each value.

use serde_json::{Map, Value};

/// Longer values are left out, as the reference does (`mlflow.utils.validation.MAX_PARAM_VAL_LENGTH`).
const MAX_LENGTH: usize = 500;

/// The model's configuration and the arguments, the latter winning; and the names of those that are too long.
pub fn of(given: &Value, flatten: bool) -> (Vec<(String, String)>, Vec<String>) {
    let mut all = Map::new();
    for part in ["model_config", "args"] {
        if let Some(values) = given[part].as_object() {
            all.extend(values.clone());
        }
    }
    let mut params = Vec::new();
    add(&mut params, "", &all, flatten);
    let (params, too_long): (Vec<_>, Vec<_>) = params
        .into_iter()
        .partition(|(_, value)| value.chars().count() <= MAX_LENGTH);
    (params, too_long.into_iter().map(|(name, _)| name).collect())
}

fn add(
    params: &mut Vec<(String, String)>,
    parent: &str,
    values: &Map<String, Value>,
    flatten: bool,
) {
    for (key, value) in values {
        let name = match parent {
            "" => key.clone(),
            parent => format!("{parent}.{key}"),
        };
        match value.as_object() {
            Some(children) if flatten && !children.is_empty() => {
                add(params, &name, children, flatten)
            }
            _ => params.push((name, shown(value))),
        }
    }
}

/// As Python's `str`.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => represented(value),
    }
}

/// As Python's `repr`.
fn represented(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number_text(number),
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(represented).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(items) => {
            let pair = |(key, value): (&String, &Value)| {
                format!("{}: {}", quoted(key), represented(value))
            };
            let items: Vec<String> = items.iter().map(pair).collect();
            format!("{{{}}}", items.join(", "))
        }
    }
}

/// Python writes an exponent with a sign and two digits, and uses one below 1e-4 and from 1e16 on.
fn number_text(number: &serde_json::Number) -> String {
    let Some(value) = number.as_f64().filter(|_| number.is_f64()) else {
        return number.to_string();
    };
    if value != 0.0 && !(1e-4..1e16).contains(&value.abs()) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{value:?}")
}

fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut shown = String::from(quote);
    for character in text.chars() {
        match character {
            '\\' => shown.push_str("\\\\"),
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            character if character == quote => shown.extend(['\\', character]),
            character => shown.push(character),
        }
    }
    shown.push(quote);
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_written_as_python_writes_them() {
        for (value, text) in [
            (json!(null), "None"),
            (json!(true), "True"),
            (json!(3), "3"),
            (json!(0.5), "0.5"),
            (json!(3e-5), "3e-05"),
            (json!(1e-8), "1e-08"),
            (json!(0.0001), "0.0001"),
            (json!(1e16), "1e+16"),
            (json!(1.0), "1.0"),
            (json!("it's"), "it's"),
            (json!(["it's", "a", 1]), "[\"it's\", 'a', 1]"),
            (json!({"0": "a", "b": [false]}), "{'0': 'a', 'b': [False]}"),
        ] {
            assert_eq!(shown(&value), text);
        }
    }

    #[test]
    fn arguments_win_and_what_is_too_long_is_named() {
        let given = json!({
            "args": {"seed": 42, "long": "x".repeat(501)},
            "model_config": {"seed": 1, "id2label": {"0": "a"}},
        });
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let (params, too_long) = of(&given, false);
        assert_eq!(params, [pair("seed", "42"), pair("id2label", "{'0': 'a'}")]);
        assert_eq!(too_long, ["long"]);
        let (params, _) = of(&given, true);
        assert_eq!(params, [pair("seed", "42"), pair("id2label.0", "a")]);
    }
}
