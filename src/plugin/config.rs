//! A plugin's configuration: the user's values checked against the manifest's JSON Schema, with the defaults filled in.

use anyhow::Result;
use jsonschema::error::ValidationErrorKind;
use serde_json::{Map, Value};

use super::Environment;
use super::capability::Capability;
use super::limits::nearest;
use super::manifest::Manifest;
use super::requests::Request;
use super::text::printable;
use crate::error::Failure;

/// Depth to which defaults are filled in; a schema may refer to nothing but itself.
const MAX_DEPTH: usize = 16;

/// Fills settings that the user did not give from environment variables: those that the schema names with the annotation
/// `environment` and that the plugin asks for, so that the user sees and grants them.
pub(super) fn from_variables(
    manifest: Option<&Manifest>,
    requests: &[Request],
    environment: &Environment,
    given: &mut Map<String, Value>,
) {
    let schema = manifest.and_then(|manifest| manifest.config.as_ref());
    let properties = schema.and_then(|schema| schema["properties"].as_object());
    for (key, property) in properties.into_iter().flatten() {
        let Some(name) = property["environment"].as_str() else {
            continue;
        };
        let asked = requests
            .iter()
            .any(|request| request.capability == Capability::Variable(name.to_owned()));
        if asked
            && !given.contains_key(key)
            && let Some(text) = environment.variable(name)
        {
            let is_text = property["type"] == "string";
            let read = (!is_text)
                .then(|| serde_json::from_str(&text).ok())
                .flatten();
            given.insert(key.clone(), read.unwrap_or_else(|| Value::from(text)));
        }
    }
}

/// The configuration as the plugin gets it.
pub(super) fn resolve(
    name: &str,
    manifest: Option<&Manifest>,
    given: &Map<String, Value>,
) -> Result<Value> {
    let mut config = Value::Object(given.clone());
    let Some(schema) = manifest.and_then(|manifest| manifest.config.as_ref()) else {
        if !given.is_empty() {
            tracing::warn!(
                "plugin `{name}` has no schema for its configuration: the values are passed on unchecked"
            );
        }
        return Ok(config);
    };
    fill_defaults(schema, &mut config, MAX_DEPTH);
    let validator = jsonschema::options()
        .offline()
        .build(schema)
        .map_err(|error| {
            let reason = printable(&error.to_string(), 512);
            Failure::data(format!(
                "plugin `{name}`: the schema in its manifest cannot be used: {reason}"
            ))
        })?;
    let problems: Vec<String> = validator
        .iter_errors(&config)
        .map(|error| describe(name, schema, &error))
        .collect();
    if problems.is_empty() {
        return Ok(config);
    }
    Err(Failure::usage(format!(
        "configuration of plugin `{name}`: {}",
        problems.join("; ")
    ))
    .into())
}

fn describe(name: &str, schema: &Value, error: &jsonschema::ValidationError<'_>) -> String {
    let path = error.instance_path().to_string();
    let at = path.trim_start_matches('/').replace('/', ".");
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let known = properties_at(schema, &path);
            let tell = |key: &String| match nearest(key, known.iter().map(String::as_str)) {
                Some(close) => format!(
                    "unknown key `{}` (did you mean `{close}`?)",
                    printable(key, 64)
                ),
                None => format!(
                    "unknown key `{}` (known: {})",
                    printable(key, 64),
                    known.join(", ")
                ),
            };
            unexpected.iter().map(tell).collect::<Vec<_>>().join("; ")
        }
        ValidationErrorKind::Enum { options } => {
            let value = printable(&error.instance().to_string(), 64);
            let known = match options.as_array() {
                Some(options) => options.iter().map(Value::to_string).collect::<Vec<_>>(),
                None => vec![options.to_string()],
            };
            let known = printable(&known.join(", "), 512);
            format!("`{at}`: {value} is not one of {known}")
        }
        ValidationErrorKind::Required { property } => {
            let key = property.as_str().unwrap_or_default();
            format!("`{key}` is required: set it with --plugin_config {name}.{key}=VALUE")
        }
        _ if at.is_empty() => printable(&error.to_string(), 512),
        _ => format!("`{at}`: {}", printable(&error.to_string(), 512)),
    }
}

/// The keys that a schema knows at a place of the configuration.
fn properties_at(schema: &Value, path: &str) -> Vec<String> {
    let descend = |place: &Value, key: &str| place.get("properties")?.get(key).cloned();
    let mut steps = path.split('/').filter(|step| !step.is_empty());
    let place = steps.try_fold(schema.clone(), |place, key| descend(&place, key));
    let properties = place
        .as_ref()
        .and_then(|place| place.get("properties"))
        .and_then(Value::as_object);
    properties
        .map(|properties| properties.keys().cloned().collect())
        .unwrap_or_default()
}

/// JSON Schema states defaults but fills none in.
fn fill_defaults(schema: &Value, value: &mut Value, depth: usize) {
    let (Some(properties), Some(object)) = (
        schema.get("properties").and_then(Value::as_object),
        value.as_object_mut(),
    ) else {
        return;
    };
    for (key, part) in properties {
        if let Some(default) = part.get("default")
            && !object.contains_key(key)
        {
            object.insert(key.clone(), default.clone());
        }
        if let Some(inner) = object.get_mut(key)
            && depth > 0
        {
            fill_defaults(part, inner, depth - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with_schema(given: &Value) -> Result<Value> {
        let manifest = json!({"id": "a", "version": "1", "api": "0.1", "config": {
            "type": "object",
            "additionalProperties": false,
            "required": ["metric"],
            "properties": {
                "metric": {"type": "string"},
                "patience": {"type": "integer", "minimum": 1, "default": 1},
                "mode": {"enum": ["min", "max", "mean", "median"]},
                "nested": {"type": "object", "default": {}, "properties": {"deep": {"type": "boolean", "default": true}}},
            },
        }});
        let manifest: Manifest = serde_json::from_value(manifest).expect("a manifest");
        resolve(
            "stop",
            Some(&manifest),
            given.as_object().expect("an object"),
        )
    }

    #[test]
    fn defaults_are_filled_in_at_every_depth() {
        let config = with_schema(&json!({"metric": "loss"})).expect("valid");
        assert_eq!(
            config,
            json!({"metric": "loss", "patience": 1, "nested": {"deep": true}})
        );
        let config =
            with_schema(&json!({"metric": "loss", "patience": 3, "nested": {"deep": false}}))
                .expect("valid");
        assert_eq!(
            config,
            json!({"metric": "loss", "patience": 3, "nested": {"deep": false}})
        );
    }

    #[test]
    fn all_findings_come_in_one_message() {
        let error =
            with_schema(&json!({"patiense": 2, "patience": 0, "colour": "red", "mode": "mx"}))
                .expect_err("not valid")
                .to_string();
        for part in [
            "configuration of plugin `stop`: ",
            "unknown key `patiense` (did you mean `patience`?)",
            "unknown key `colour` (known: metric, patience, mode, nested)",
            "`mode`: \"mx\" is not one of \"min\", \"max\", \"mean\", \"median\"",
            "`metric` is required: set it with --plugin_config stop.metric=VALUE",
            "`patience`: 0 is less than the minimum of 1",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }

    #[test]
    fn without_a_schema_values_pass_unchecked() {
        let given = json!({"anything": [1, 2]});
        let config =
            resolve("free", None, given.as_object().expect("an object")).expect("passed on");
        assert_eq!(config, given);
    }
}
