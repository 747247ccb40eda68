//! Runs for an MLflow tracking server through its REST API 2.0, as the Trainer's `MLflowCallback` makes them: parameters
//! from the model's configuration and the arguments, values that are too long left out, metrics with the names of the log
//! history.

mod params;

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use trainer_sdk::http::{Request, Response};
use trainer_sdk::{Error, ErrorKind, Level, Plugin, Report, Result, Run, Scalar, Setup, log};

/// What one request may hold, by the server's rules.
const MAX_PARAMS: usize = 100;
const MAX_METRICS: usize = 1000;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The settings, as the manifest's schema describes them.
#[derive(Deserialize)]
struct Config {
    tracking_uri: String,
    experiment: Option<String>,
    tags: Option<Value>,
    run_id: Option<String>,
    #[serde(default)]
    flatten_params: Value,
    #[serde(default)]
    disable: Value,
}

/// One run on the server.
struct Mlflow {
    config: Config,
    run_name: Option<String>,
    run_id: String,
    /// The server knew the run before: it belongs to somebody else, who ends it.
    is_foreign: bool,
}

impl Plugin for Mlflow {
    type Config = Config;

    fn init(config: Config, run: &Run<'_>, _: &Setup<'_>) -> Result<Self> {
        let run_name = run.argument("run_name");
        let run_name = run_name.and_then(|name| serde_json::from_str::<Option<String>>(&name).ok());
        Ok(Self {
            config,
            run_name: run_name.flatten(),
            run_id: String::new(),
            is_foreign: false,
        })
    }
}

impl Mlflow {
    fn is_disabled(&self) -> bool {
        truthy(&self.config.disable)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Response> {
        let url = format!(
            "{}/api/2.0/mlflow/{path}",
            self.config.tracking_uri.trim_end_matches('/')
        );
        let body = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let request = Request {
            method,
            url: &url,
            headers: &[("content-type", "application/json")],
            body: &body,
            timeout: PATIENCE,
        };
        request.send()
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let response = self.ask("POST", path, body)?;
        read("POST", path, &response)
    }

    /// The experiment's id; without a name, that of the server's default experiment.
    fn experiment(&self) -> Result<String> {
        let Some(name) = &self.config.experiment else {
            return Ok("0".to_owned());
        };
        let path = format!("experiments/get-by-name?experiment_name={}", escaped(name));
        let response = self.ask("GET", &path, &Value::Null)?;
        let id = if response.status == 404 {
            self.post("experiments/create", &json!({"name": name}))?["experiment_id"].clone()
        } else {
            read("GET", &path, &response)?["experiment"]["experiment_id"].clone()
        };
        id.as_str()
            .map(str::to_owned)
            .ok_or_else(|| Error::data("the server named no experiment"))
    }

    fn create(&self, time_ms: u64) -> Result<String> {
        let mut tags = vec![json!({"key": "mlflow.source.name", "value": "host"})];
        if let Some(name) = &self.run_name {
            tags.push(json!({"key": "mlflow.runName", "value": name}));
        }
        for (key, value) in tags_of(self.config.tags.as_ref())? {
            tags.push(json!({"key": key, "value": value}));
        }
        let body = json!({
            "experiment_id": self.experiment()?,
            "run_name": self.run_name,
            "start_time": time_ms,
            "tags": tags,
        });
        let made = self.post("runs/create", &body)?;
        let id = made["run"]["info"]["run_id"].as_str();
        id.map(str::to_owned)
            .ok_or_else(|| Error::data("the server made no run"))
    }
}

impl Report for Mlflow {
    fn start(&mut self, _: &Run<'_>, time_ms: u64, resume_token: Option<&str>) -> Result<String> {
        if self.is_disabled() {
            return Ok(String::new());
        }
        let known = resume_token.filter(|token| !token.is_empty());
        self.run_id = match known
            .map(str::to_owned)
            .or_else(|| self.config.run_id.clone())
        {
            Some(id) => {
                self.post("runs/update", &json!({"run_id": id, "status": "RUNNING"}))?;
                id
            }
            None => self.create(time_ms)?,
        };
        self.is_foreign = self.config.run_id.as_ref() == Some(&self.run_id);
        Ok(self.run_id.clone())
    }

    fn params(&mut self, json: &str) -> Result<()> {
        if self.is_disabled() {
            return Ok(());
        }
        let given: Value =
            serde_json::from_str(json).map_err(|error| Error::data(error.to_string()))?;
        let flatten = truthy(&self.config.flatten_params);
        let (params, too_long) = params::of(&given, flatten);
        for name in too_long {
            log(
                Level::Warn,
                &format!("the parameter {name} is too long for MLflow and is left out"),
            );
        }
        for chunk in params.chunks(MAX_PARAMS) {
            let chunk: Vec<Value> = chunk
                .iter()
                .map(|(key, value)| json!({"key": key, "value": value}))
                .collect();
            let body = json!({"run_id": self.run_id, "params": chunk});
            match self.post("runs/log-batch", &body) {
                // A resumed run may have other arguments; the server keeps the first value of a parameter.
                Err(error) if error.kind == ErrorKind::Data => log(Level::Warn, &error.message),
                outcome => drop(outcome?),
            }
        }
        Ok(())
    }

    fn scalars(&mut self, scalars: &[Scalar]) -> Result<()> {
        if self.is_disabled() {
            return Ok(());
        }
        for chunk in scalars.chunks(MAX_METRICS) {
            let metric = |scalar: &Scalar| {
                json!({
                    "key": scalar.name,
                    "value": number(scalar.value),
                    "timestamp": scalar.time_ms,
                    "step": scalar.step,
                })
            };
            let metrics: Vec<Value> = chunk.iter().map(metric).collect();
            self.post(
                "runs/log-batch",
                &json!({"run_id": self.run_id, "metrics": metrics}),
            )?;
        }
        Ok(())
    }

    fn finish(&mut self, time_ms: u64, status: &str) -> Result<()> {
        if self.is_disabled() || self.is_foreign {
            return Ok(());
        }
        let status = match status {
            "completed" => "FINISHED",
            "stopped" => "KILLED",
            _ => "FAILED",
        };
        let body = json!({"run_id": self.run_id, "status": status, "end_time": time_ms});
        self.post("runs/update", &body).map(drop)
    }
}

/// The answer's JSON; an error of the server says whether it is worth to try again.
fn read(method: &str, path: &str, response: &Response) -> Result<Value> {
    if response.status == 200 {
        return serde_json::from_slice(&response.body).map_err(|error| {
            Error::transient(format!("{method} {path}: the answer is not JSON: {error}"))
        });
    }
    let said = String::from_utf8_lossy(&response.body);
    let said: String = said.chars().take(500).collect();
    let message = format!("{method} {path}: status {}: {said}", response.status);
    Err(match response.status {
        408 | 425 | 429 | 500..=599 => Error::transient(message),
        401 | 403 => Error {
            kind: ErrorKind::Denied,
            message,
        },
        _ => Error::data(message),
    })
}

/// What the JSON form of Protocol Buffers writes for a number.
fn number(value: f64) -> Value {
    if value.is_nan() {
        json!("NaN")
    } else if value.is_infinite() {
        json!(if value > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        json!(value)
    }
}

/// The environment's words for yes, or a boolean.
fn truthy(value: &Value) -> bool {
    match value {
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_i64() == Some(1),
        Value::String(text) => {
            ["1", "ON", "YES", "TRUE"].contains(&text.to_ascii_uppercase().as_str())
        }
        _ => false,
    }
}

fn tags_of(tags: Option<&Value>) -> Result<Vec<(String, String)>> {
    let tags = match tags {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => serde_json::from_str(text)
            .map_err(|error| Error::config(format!("the tags are not a JSON object: {error}")))?,
        Some(tags) => tags.clone(),
    };
    let tags = tags
        .as_object()
        .ok_or_else(|| Error::config("the tags are not a JSON object"))?;
    Ok(tags
        .iter()
        .map(|(key, value)| (key.clone(), params::shown(value)))
        .collect())
}

/// As the value of a query.
fn escaped(text: &str) -> String {
    let byte = |byte: &u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(*byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.as_bytes().iter().map(byte).collect()
}

trainer_sdk::manifest!("../manifest.json");
trainer_sdk::export!(Mlflow: report);
