//! What an MLflow server is asked. That the real one understands it is shown in CI, where it is installed.

use std::sync::Mutex;

use serde_json::{Value, json};

use super::{exists, logged, reporting, sorted, train};
use crate::http::Request;
use crate::plugin::server::{Server, answer};

pub const GRANTS: &[&str] = &[
    "net:{tracking_uri} GET POST",
    "secret:MLFLOW_TRACKING_TOKEN -> {tracking_uri}",
    "env:MLFLOW_TRACKING_URI",
    "env:MLFLOW_EXPERIMENT_NAME",
    "env:MLFLOW_TAGS",
    "env:MLFLOW_RUN_ID",
    "env:MLFLOW_FLATTEN_PARAMS",
    "env:DISABLE_MLFLOW_INTEGRATION",
];

/// Enough of the server to make runs.
pub fn tracking() -> Server {
    let runs = Mutex::new(0);
    Server::start(move |asked| {
        let path = asked.path.split('?').next().unwrap_or_default();
        let said = match path.trim_start_matches("/api/2.0/mlflow/") {
            "experiments/get-by-name" => {
                return answer(
                    "404 Not Found",
                    "",
                    b"{\"error_code\": \"RESOURCE_DOES_NOT_EXIST\"}",
                );
            }
            "experiments/create" => json!({"experiment_id": "7"}),
            "runs/create" => {
                let mut runs = runs.lock().expect("not poisoned");
                *runs += 1;
                json!({"run": {"info": {"run_id": format!("run-{runs}")}}})
            }
            "runs/update" | "runs/log-batch" => json!({}),
            _ => return answer("404 Not Found", "", b"no such path"),
        };
        answer(
            "200 OK",
            "content-type: application/json\r\n",
            said.to_string().as_bytes(),
        )
    })
}

fn bodies(asked: &[Request], path: &str) -> Vec<Value> {
    let wanted = asked.iter().filter(|asked| asked.path.ends_with(path));
    wanted
        .map(|asked| serde_json::from_str(&asked.text()).expect("JSON"))
        .collect()
}

/// Step, name and value of all metrics.
pub fn metrics(asked: &[Request]) -> Vec<(u64, String, f64)> {
    let mut metrics = Vec::new();
    for body in bodies(asked, "runs/log-batch") {
        for metric in body["metrics"].as_array().into_iter().flatten() {
            let step = metric["step"].as_u64().expect("a step");
            let value = metric["value"].as_f64().expect("a number");
            metrics.push((
                step,
                metric["key"].as_str().expect("a key").to_owned(),
                value,
            ));
        }
    }
    sorted(metrics)
}

#[test]
fn a_run_arrives_with_its_parameters_metrics_and_end() {
    let server = tracking();
    let config =
        json!({"tracking_uri": server.url, "experiment": "intents & more", "tags": {"team": "a"}});
    let host = reporting("mlflow", &config, GRANTS);
    let ended = train(&host, &[]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("report mlflow: "), "{}", ended.stderr);
    let asked = server.asked();
    assert_eq!(
        asked[0].path,
        "/api/2.0/mlflow/experiments/get-by-name?experiment_name=intents%20%26%20more"
    );
    assert_eq!(
        bodies(&asked, "experiments/create"),
        [json!({"name": "intents & more"})]
    );
    let made = &bodies(&asked, "runs/create")[0];
    assert_eq!(
        (&made["experiment_id"], &made["run_name"]),
        (&json!("7"), &json!("a run"))
    );
    assert!(made["start_time"].as_u64() > Some(1_700_000_000_000));
    assert!(
        made["tags"]
            .as_array()
            .expect("tags")
            .contains(&json!({"key": "team", "value": "a"}))
    );

    let mut params = Vec::new();
    for body in bodies(&asked, "runs/log-batch") {
        let batch = body["params"].as_array().cloned().unwrap_or_default();
        assert!(batch.len() <= 100);
        params.extend(batch);
    }
    for (key, value) in [
        ("learning_rate", "5e-05"),
        ("max_steps", "3"),
        ("model_type", "bert"),
        ("fp16", "False"),
    ] {
        assert!(
            params.contains(&json!({"key": key, "value": value})),
            "{key}"
        );
    }
    assert_eq!(metrics(&asked), logged(&host));
    let ends = bodies(&asked, "runs/update");
    assert_eq!(ends.len(), 1);
    assert_eq!(
        (&ends[0]["run_id"], &ends[0]["status"]),
        (&json!("run-1"), &json!("FINISHED"))
    );
    assert!(!exists(&host, "out/spool/mlflow.jsonl"));
}

#[test]
fn a_resumed_run_goes_on_with_its_run_on_the_server() {
    let server = tracking();
    let host = reporting("mlflow", &json!({"tracking_uri": server.url}), GRANTS);
    assert_eq!(train(&host, &["--save_steps", "2"]).code, Some(0));
    assert_eq!(
        train(&host, &["--resume_from_checkpoint", "out/checkpoint-2"]).code,
        Some(0)
    );
    let asked = server.asked();
    assert_eq!(bodies(&asked, "runs/create").len(), 1);
    let updates = bodies(&asked, "runs/update");
    let statuses: Vec<&str> = updates
        .iter()
        .filter_map(|update| update["status"].as_str())
        .collect();
    assert_eq!(statuses, ["FINISHED", "RUNNING", "FINISHED"]);
    assert!(updates.iter().all(|update| update["run_id"] == "run-1"));
}

#[test]
fn only_those_that_are_named_are_told() {
    let server = tracking();
    let host = reporting("mlflow", &json!({"tracking_uri": server.url}), GRANTS);
    assert_eq!(train(&host, &["--report_to", "none"]).code, Some(0));
    assert!(server.asked().is_empty());
    assert_eq!(
        train(&host, &["--report_to", "mlflow", "--overwrite_output_dir"]).code,
        Some(0)
    );
    assert!(!server.asked().is_empty());
    let refused = train(&host, &["--report_to", "wandb", "--overwrite_output_dir"]);
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.stderr.contains("`wandb` is not installed"),
        "{}",
        refused.stderr
    );
}
