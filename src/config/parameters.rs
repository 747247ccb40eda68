//! Settings that only some optimizers (`optim_args`) and schedules (`lr_scheduler_kwargs`) have: which one has which, their
//! form, and how they are written. Their defaults and meaning are told where they are read, in `optim`.

use serde_json::{Map, Number, Value};

use super::setting::{boolean, quoted};

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// `true` or `false`, or one of Python's words for them.
    Flag,
    /// A whole number of at least this.
    Count(u64),
    /// A number in a range.
    Number(Range),
    /// One of these words.
    Word(&'static [&'static str]),
    /// `factor:step,...,factor` with ascending steps.
    Rule,
}

/// Where a number may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// Any finite number.
    Finite,
    /// 0 or more.
    AtLeastZero,
    /// More than 0.
    AboveZero,
    /// From 0 to 1.
    Share,
    /// From 0 to 1 without 1.
    BelowOne,
}

impl Range {
    fn contains(self, value: f64) -> bool {
        match self {
            Self::Finite => value.is_finite(),
            Self::AtLeastZero => value.is_finite() && value >= 0.0,
            Self::AboveZero => value.is_finite() && value > 0.0,
            Self::Share => (0.0..=1.0).contains(&value),
            Self::BelowOne => (0.0..1.0).contains(&value),
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Finite => "a finite number",
            Self::AtLeastZero => "a finite number of at least 0",
            Self::AboveZero => "a finite number above 0",
            Self::Share => "a number from 0 to 1",
            Self::BelowOne => "a number of at least 0 and below 1",
        }
    }
}

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameter {
    /// Its name in Python.
    pub name: &'static str,
    /// What it may be.
    pub form: Form,
}

const fn parameter(name: &'static str, form: Form) -> Parameter {
    Parameter { name, form }
}

const DTYPES: Form = Form::Word(&[
    "float32", "float", "bfloat16", "float16", "half", "float64", "double",
]);
const CYCLES: Parameter = parameter("num_cycles", Form::Number(Range::AtLeastZero));
const SHAPES: Form = Form::Word(&["linear", "cosine", "1-sqrt"]);

/// Optimizers with settings of their own.
pub const OPTIMIZERS: &[(&str, &[Parameter])] = &[
    ("adamw_hf", &[parameter("correct_bias", Form::Flag)]),
    (
        "adamw_anyprecision",
        &[
            parameter("use_kahan_summation", Form::Flag),
            parameter("momentum_dtype", DTYPES),
            parameter("variance_dtype", DTYPES),
            parameter("compensation_buffer_dtype", DTYPES),
        ],
    ),
    (
        "muon",
        &[
            parameter("momentum", Form::Number(Range::BelowOne)),
            parameter("nesterov", Form::Flag),
            parameter("ns_steps", Form::Count(0)),
            parameter("adjust_lr_fn", Form::Word(&["original", "match_rms_adamw"])),
        ],
    ),
    (
        "schedule_free_adamw",
        &[
            parameter("weight_lr_power", Form::Number(Range::Finite)),
            parameter("r", Form::Number(Range::Finite)),
        ],
    ),
    (
        "stable_adamw",
        &[
            parameter("decouple_lr", Form::Flag),
            parameter("max_lr", Form::Number(Range::AboveZero)),
            parameter("kahan_sum", Form::Flag),
        ],
    ),
];

/// Schedules with settings of their own.
pub const SCHEDULES: &[(&str, &[Parameter])] = &[
    ("cosine", &[CYCLES]),
    ("cosine_with_restarts", &[CYCLES]),
    (
        "polynomial",
        &[
            parameter("lr_end", Form::Number(Range::AtLeastZero)),
            parameter("power", Form::Number(Range::AtLeastZero)),
        ],
    ),
    ("inverse_sqrt", &[parameter("timescale", Form::Count(1))]),
    (
        "reduce_lr_on_plateau",
        &[
            parameter("mode", Form::Word(&["min", "max"])),
            parameter("factor", Form::Number(Range::BelowOne)),
            parameter("patience", Form::Count(0)),
            parameter("threshold", Form::Number(Range::AtLeastZero)),
            parameter("threshold_mode", Form::Word(&["rel", "abs"])),
            parameter("cooldown", Form::Count(0)),
            parameter("min_lr", Form::Number(Range::AtLeastZero)),
            parameter("eps", Form::Number(Range::AtLeastZero)),
        ],
    ),
    ("piecewise", &[parameter("rule", Form::Rule)]),
    (
        "exponential",
        &[
            parameter("final_ratio", Form::Number(Range::AboveZero)),
            parameter("gamma", Form::Number(Range::AboveZero)),
        ],
    ),
    (
        "cosine_with_min_lr",
        &[
            CYCLES,
            parameter("min_lr", Form::Number(Range::AtLeastZero)),
            parameter("min_lr_rate", Form::Number(Range::Share)),
        ],
    ),
    (
        "warmup_stable_decay",
        &[
            parameter("num_decay_steps", Form::Count(0)),
            parameter("num_stable_steps", Form::Count(0)),
            parameter("warmup_type", SHAPES),
            parameter("decay_type", SHAPES),
            parameter("min_lr_ratio", Form::Number(Range::Share)),
            CYCLES,
        ],
    ),
];

/// One setting as it was written.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// A word of a list, which has no type yet.
    Word(String),
    /// A value of a JSON object.
    Json(Value),
}

/// Reads `k=v,k=v`; blanks do not count. The error says which item has another form.
pub fn read_list(text: &str) -> Result<Vec<(String, Raw)>, String> {
    let text = without_blanks(text);
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(',').map(read_item).collect()
}

fn without_blanks(text: &str) -> String {
    text.chars().filter(|letter| *letter != ' ').collect()
}

fn read_item(item: &str) -> Result<(String, Raw), String> {
    match item.split('=').collect::<Vec<_>>()[..] {
        [key, value] if !key.is_empty() => Ok((key.to_owned(), Raw::Word(value.to_owned()))),
        _ => Err(format!("{} is not key=value", quoted(item))),
    }
}

/// Reads a JSON object or `k=v,k=v`. In a list an item without `=` goes on with the value before it, which a rule needs.
pub fn read_object_or_list(text: &str) -> Result<Vec<(String, Raw)>, String> {
    if text.trim_start().starts_with('{') {
        let object: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
        let entries = object.into_iter();
        return Ok(entries
            .map(|(key, value)| (key, Raw::Json(value)))
            .collect());
    }
    let text = without_blanks(text);
    let mut settings: Vec<(String, Raw)> = Vec::new();
    for item in text.split(',').filter(|_| !text.is_empty()) {
        match settings.last_mut() {
            Some((_, Raw::Word(value))) if !item.contains('=') => {
                value.push(',');
                value.push_str(item);
            }
            _ => settings.push(read_item(item)?),
        }
    }
    Ok(settings)
}

/// The settings of `owner` among `table`, each as its form wants it; or everything that is wrong with them.
pub fn settle(
    (owner, table): (&str, &[(&str, &[Parameter])]),
    written: Vec<(String, Raw)>,
) -> Result<Map<String, Value>, Vec<String>> {
    let known = table.iter().find(|(name, _)| *name == owner);
    let known = known.map_or(&[][..], |(_, parameters)| parameters);
    let (mut settings, mut wrong) = (Map::new(), Vec::new());
    for (key, value) in written {
        let Some(parameter) = known.iter().find(|parameter| parameter.name == key) else {
            wrong.push(unknown(&key, (owner, table)));
            continue;
        };
        if settings.contains_key(&key) {
            wrong.push(format!("{key} is given twice"));
        }
        match read_value(parameter.form, &value) {
            Some(value) => drop(settings.insert(key, value)),
            None => wrong.push(format!(
                "{key} {} is not {}",
                shown(&value),
                expected(parameter.form)
            )),
        }
    }
    if wrong.is_empty() {
        Ok(settings)
    } else {
        Err(wrong)
    }
}

fn unknown(key: &str, (owner, table): (&str, &[(&str, &[Parameter])])) -> String {
    let list = |parameters: &[Parameter]| {
        let names: Vec<_> = parameters.iter().map(|parameter| parameter.name).collect();
        names.join(", ")
    };
    let known = match table.iter().find(|(name, _)| *name == owner) {
        Some((_, parameters)) => format!("it has {}", list(parameters)),
        None => "it has no settings; leave them out".to_owned(),
    };
    let others = table
        .iter()
        .filter(|(_, parameters)| parameters.iter().any(|parameter| parameter.name == key))
        .map(|(name, _)| *name);
    let others: Vec<_> = others.collect();
    let belongs = match others.len() {
        0 => String::new(),
        1 => format!(" ({} does)", others[0]),
        _ => format!(" ({} do)", others.join(", ")),
    };
    format!("{owner} has no {}{belongs}; {known}", quoted(key))
}

fn shown(value: &Raw) -> String {
    match value {
        Raw::Word(word) => quoted(word),
        Raw::Json(value) => quoted(&value.to_string()),
    }
}

fn expected(form: Form) -> String {
    match form {
        Form::Flag => "true or false".to_owned(),
        Form::Count(least) => format!("a whole number of at least {least}"),
        Form::Number(range) => range.expected().to_owned(),
        Form::Word(words) => format!("one of {}", words.join(", ")),
        Form::Rule => {
            "factor:step,...,factor with ascending steps, such as 1:10,0.1:20,0.01".to_owned()
        }
    }
}

fn read_value(form: Form, written: &Raw) -> Option<Value> {
    let word = match written {
        Raw::Word(word) => Some(word.as_str()),
        Raw::Json(value) => value.as_str(),
    };
    match (form, written) {
        (Form::Word(words), _) => word.filter(|word| words.contains(word)).map(Value::from),
        (Form::Rule, _) => word.filter(|word| is_rule(word)).map(Value::from),
        (Form::Flag, Raw::Word(word)) => flag(word).map(Value::from),
        (Form::Flag, Raw::Json(value)) => value.as_bool().map(Value::from),
        (Form::Count(least), _) => {
            let count = match written {
                Raw::Word(word) => word.parse().ok(),
                Raw::Json(value) => value.as_u64(),
            };
            count.filter(|count| *count >= least).map(Value::from)
        }
        (Form::Number(range), _) => {
            let number = match written {
                Raw::Word(word) => word.parse().ok(),
                Raw::Json(value) => value.as_f64(),
            };
            let number = number.filter(|number| range.contains(*number))?;
            Number::from_f64(number).map(Value::Number)
        }
    }
}

/// Python's `strtobool`.
fn flag(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "on" => Some(true),
        "off" => Some(false),
        other => boolean(other),
    }
}

fn is_rule(rule: &str) -> bool {
    let is_factor = |text: &str| {
        text.parse()
            .is_ok_and(|factor| Range::AtLeastZero.contains(factor))
    };
    let pieces: Vec<_> = rule.split(',').collect();
    let Some((last, pieces)) = pieces.split_last() else {
        return false;
    };
    let ends: Option<Vec<u64>> = pieces
        .iter()
        .map(|piece| {
            let (factor, end) = piece.split_once(':')?;
            end.parse().ok().filter(|_| is_factor(factor))
        })
        .collect();
    is_factor(last) && ends.is_some_and(|ends| ends.windows(2).all(|pair| pair[0] < pair[1]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schedule(owner: &str, text: &str) -> Result<Value, String> {
        let written = read_object_or_list(text)?;
        settle((owner, SCHEDULES), written)
            .map(Value::Object)
            .map_err(|wrong| wrong.join("; "))
    }

    #[test]
    fn lists_and_objects_say_the_same() {
        let cases = [
            (
                "polynomial",
                "power=2, lr_end=1e-6",
                json!({"power": 2.0, "lr_end": 1e-6}),
            ),
            (
                "polynomial",
                r#"{"power": 2, "lr_end": 1e-6}"#,
                json!({"power": 2.0, "lr_end": 1e-6}),
            ),
            (
                "piecewise",
                "rule=1:10,0.1:20,0.01",
                json!({"rule": "1:10,0.1:20,0.01"}),
            ),
            ("piecewise", r#"{"rule": "0.5"}"#, json!({"rule": "0.5"})),
            (
                "warmup_stable_decay",
                "num_decay_steps=4,decay_type=1-sqrt",
                json!({"num_decay_steps": 4, "decay_type": "1-sqrt"}),
            ),
            ("linear", "", json!({})),
            ("linear", "{}", json!({})),
        ];
        for (owner, text, expected) in cases {
            assert_eq!(schedule(owner, text), Ok(expected), "{owner} {text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_there_is() {
        let cases = [
            (
                "linear",
                "power=2",
                "linear has no `power` (polynomial does); it has no settings; leave them out",
            ),
            (
                "polynomial",
                "pwr=2",
                "polynomial has no `pwr`; it has lr_end, power",
            ),
            (
                "polynomial",
                "power=-1",
                "power `-1` is not a finite number of at least 0",
            ),
            (
                "polynomial",
                r#"{"power": "2"}"#,
                "power `\"2\"` is not a finite number of at least 0",
            ),
            ("polynomial", "power=1,power=2", "power is given twice"),
            ("polynomial", "power", "`power` is not key=value"),
            ("polynomial", "power=1=2", "`power=1=2` is not key=value"),
            (
                "reduce_lr_on_plateau",
                "factor=1",
                "factor `1` is not a number of at least 0 and below 1",
            ),
            (
                "reduce_lr_on_plateau",
                "patience=1.5",
                "patience `1.5` is not a whole number of at least 0",
            ),
            (
                "warmup_stable_decay",
                "decay_type=sqrt",
                "decay_type `sqrt` is not one of linear, cosine, 1-sqrt",
            ),
            (
                "piecewise",
                "rule=1:10,0.1:5,0",
                "rule `1:10,0.1:5,0` is not factor:step,...,factor with ascending steps, such as \
              1:10,0.1:20,0.01",
            ),
        ];
        for (owner, text, expected) in cases {
            assert_eq!(
                schedule(owner, text),
                Err(expected.to_owned()),
                "{owner} {text}"
            );
        }
        assert!(
            schedule("cosine", "{1}")
                .expect_err("no JSON")
                .starts_with("is not JSON: key must be a string")
        );
    }

    #[test]
    fn items_of_optim_args_have_exactly_one_sign() {
        assert!(read_list("a=1, b = x").is_ok_and(|items| items.len() == 2));
        for text in ["a", "a=1,b", "a=1=2", "=1", "a=1,"] {
            assert!(read_list(text).is_err(), "{text}");
        }
    }
}
