//! A server that is down, slow, angry or gone half-way: training does not notice, and what was not delivered arrives later.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use super::mlflow::{GRANTS, metrics, tracking};
use super::{exists, logged, reporting, train};
use crate::http::unused_address;
use crate::plugin::server::{Server, answer};
use crate::support::{Ended, Host, ended, holder_of};

fn flush(host: &Host) -> Ended {
    host.run("report flush out")
}

fn weights(host: &Host) -> Vec<u8> {
    fs::read(host.path("out/model.safetensors")).expect("weights")
}

#[test]
fn what_a_dead_server_did_not_get_arrives_when_it_is_flushed() {
    let dead = format!("http://{}", unused_address());
    let host = reporting("mlflow", &json!({"tracking_uri": dead}), GRANTS);
    let ended = train(&host, &[]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .contains("the report mlflow is not delivered for now, training goes on: "),
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.contains("0 records delivered, "),
        "{}",
        ended.stderr
    );
    assert!(exists(&host, "out/spool/mlflow.jsonl"));
    let expected = logged(&host);
    let trained = weights(&host);

    let refused = flush(&host);
    assert_eq!(refused.code, Some(69), "{}", refused.stderr);
    assert!(
        refused
            .stderr
            .contains("error: the spool of mlflow was not delivered"),
        "{}",
        refused.stderr
    );
    assert!(exists(&host, "out/spool/mlflow.jsonl"));

    let server = tracking();
    let text = fs::read_to_string(host.path("out/run.json")).expect("a run");
    host.write("out/run.json", &text.replace(&dead, &server.url));
    let flushed = flush(&host);
    assert_eq!(flushed.code, Some(0), "{}", flushed.stderr);
    assert!(
        flushed.stderr.contains("report mlflow: "),
        "{}",
        flushed.stderr
    );
    assert_eq!(metrics(&server.asked()), expected);
    assert!(!exists(&host, "out/spool/mlflow.jsonl"));
    assert!(flush(&host).stderr.contains("no records wait in "));

    // The weights are those of a run without the reporter.
    assert_eq!(
        train(&host, &["--no_plugins", "--overwrite_output_dir"]).code,
        Some(0)
    );
    assert_eq!(weights(&host), trained);
}

#[test]
fn an_angry_server_is_asked_again_and_a_forbidding_one_is_not() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let angry = Server::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => answer("500 Internal Server Error", "", b"not now"),
        _ => answer("200 OK", "", b"{\"run\": {\"info\": {\"run_id\": \"r\"}}}"),
    });
    let host = reporting("mlflow", &json!({"tracking_uri": angry.url}), GRANTS);
    let ended = train(&host, &[]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("status 500: not now"),
        "{}",
        ended.stderr
    );
    assert_eq!(metrics(&angry.asked()), logged(&host));

    let forbidding = Server::start(|_| answer("401 Unauthorized", "", b"who are you"));
    let host = reporting("mlflow", &json!({"tracking_uri": forbidding.url}), GRANTS);
    let ended = train(&host, &[]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("given up: "), "{}", ended.stderr);
    assert_eq!(forbidding.asked().len(), 1);
    // With other credentials it can still be delivered.
    assert!(exists(&host, "out/spool/mlflow.jsonl"));
}

#[test]
fn a_secret_is_in_no_file_and_no_message() {
    let server = tracking();
    let host = reporting("mlflow", &json!({"tracking_uri": server.url}), GRANTS);
    let mut command = host.line("train run.toml");
    command.env("MLFLOW_TRACKING_TOKEN", "c4nary-value");
    let ended = ended(&command.output().expect("the program runs"));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let asked = server.asked();
    assert!(
        asked
            .iter()
            .all(|asked| asked.header("authorization") == Some("Bearer c4nary-value"))
    );
    assert!(!ended.stderr.contains("c4nary") && !ended.stdout.contains("c4nary"));
    assert_eq!(holder_of("c4nary", host.folder()), None);
}

#[test]
fn a_slow_server_does_not_slow_the_steps() {
    let slow = Server::start(|_| {
        std::thread::sleep(Duration::from_millis(400));
        answer("200 OK", "", b"{\"run\": {\"info\": {\"run_id\": \"r\"}}}")
    });
    let host = reporting("mlflow", &json!({"tracking_uri": slow.url}), GRANTS);
    let ended = train(&host, &["--max_steps", "20", "--eval_steps", "20"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(metrics(&slow.asked()), logged(&host));
    // Many entries in few requests.
    assert!(slow.asked().len() < 15, "{}", slow.asked().len());
}
