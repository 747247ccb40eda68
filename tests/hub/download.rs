//! Models and data sets from the Hub.

use std::fs;
use std::time::Duration;

use super::http::{Answer, Fault};
use super::server::commit_name;
use super::{LOCAL, Project, at_once};
use crate::http::Request;
use crate::support::{Requirement, ended, holder_of, in_namespaces, requires};

const REMOTE: &str = "--model acme/tiny --train_file hf://datasets/acme/toy/data/train.jsonl";

#[test]
fn a_model_and_rows_of_the_hub_train_as_local_ones() {
    let project = Project::new();
    let shown = project.succeeds(&format!("{REMOTE} --output_dir remote"));
    assert!(shown.contains("fetching acme/tiny (main): "), "{shown}");
    project.succeeds(&format!("{LOCAL} --output_dir local"));
    let weights =
        |run: &str| fs::read(project.host.path(run).join("model.safetensors")).expect("weights");
    assert_eq!(weights("remote"), weights("local"));
    // The layout of the Python client; what no run needs is not there.
    let cache = project.host.path("hf/hub/models--acme--tiny");
    let commit = fs::read_to_string(cache.join("refs/main")).expect("a reference");
    assert_eq!(commit, commit_name(1));
    let snapshot = cache.join("snapshots").join(commit);
    let target = fs::read_link(snapshot.join("model.safetensors")).expect("a link");
    assert!(target.starts_with("../../blobs"), "{}", target.display());
    assert!(!snapshot.join("onnx").exists() && !snapshot.join("README.md").exists());
    let card = fs::read_to_string(project.host.path("remote/README.md")).expect("a card");
    for part in [
        "license: apache-2.0\nbase_model: acme/tiny\n",
        "datasets:\n- acme/toy\n",
        "[acme/tiny](https://huggingface.co/acme/tiny) on the acme/toy dataset.",
    ] {
        assert!(card.contains(part), "{card}");
    }
    let mut evaluate = project.host.command("evaluate");
    evaluate
        .env("HF_ENDPOINT", project.hub.url())
        .env("HF_HOME", project.host.path("hf"))
        .args([
            "--model",
            "acme/tiny",
            "--validation_file",
            "toy=hf://datasets/acme/toy/data/train.jsonl",
            "--output_dir",
            "evaluated",
        ]);
    let shown = project.host.succeeds(evaluate);
    assert!(shown.contains("eval_toy_loss"), "{shown}");
    let published = project.host.json("remote/training_args.json");
    assert_eq!(published["model"], "acme/tiny");
    assert_eq!(
        published["train_file"][0],
        "hf://datasets/acme/toy/data/train.jsonl"
    );
}

#[test]
fn what_was_fetched_is_not_fetched_again_and_serves_without_a_network() {
    let project = Project::new();
    project.succeeds(&format!("{REMOTE} --output_dir one"));
    let before = project.hub.count("GET", "/resolve/");
    project.succeeds(&format!("{REMOTE} --output_dir two"));
    assert_eq!(project.hub.count("GET", "/resolve/"), before);
    let asked = project.hub.seen().len();
    let mut offline = project.command(&format!("{REMOTE} --output_dir three"));
    offline.env("HF_HUB_OFFLINE", "1");
    project.host.succeeds(offline);
    assert_eq!(project.hub.seen().len(), asked, "the Hub was asked");
    let mut unreachable = project.command(&format!("{REMOTE} --output_dir four"));
    unreachable.env("HF_ENDPOINT", "http://127.0.0.1:9");
    let shown = project.host.succeeds(unreachable);
    assert!(
        shown.contains("http://127.0.0.1:9 cannot be reached"),
        "{shown}"
    );
    assert!(shown.contains("the copy in the cache is used"), "{shown}");
}

#[test]
fn a_revision_is_the_one_that_was_asked_for() {
    let project = Project::new();
    let other = fs::read_to_string(project.host.path("rows.jsonl")).expect("rows");
    let other: Vec<&str> = other.lines().take(4).collect();
    let other = other.join("\n").into_bytes();
    project
        .hub
        .add("datasets/acme/toy", &[("data/train.jsonl", other)]);
    project
        .hub
        .add("models/acme/tiny", &[("vocab.txt", b"[PAD]\n".to_vec())]);
    let first = commit_name(1);
    let words = format!(
        "--model acme/tiny --model_revision {first} --train_file hf://datasets/acme/toy@{first}/data/train.jsonl --output_dir out"
    );
    let shown = project.succeeds(&words);
    assert!(shown.contains("training: 12 rows"), "{shown}");
    let run = project.host.json("out/run.json");
    let path = run["model"]["path"].as_str().expect("a path");
    assert!(path.ends_with(&first), "{path}");
    let newest =
        "--model acme/tiny --train_file hf://datasets/acme/toy/data/train.jsonl --output_dir new";
    let shown = project.run(newest).stderr;
    assert!(!shown.contains("training: 12 rows"), "{shown}");
}

#[test]
fn a_tokenizer_may_come_from_the_hub() {
    let project = Project::new();
    let vocabulary = project.host.path("model/vocab.txt");
    let tokenizer = project.host.path("model/tokenizer.json");
    for file in [vocabulary, tokenizer] {
        let _ = fs::remove_file(file);
    }
    assert_ne!(
        project.run(&format!("{LOCAL} --output_dir none")).code,
        Some(0)
    );
    project.succeeds(&format!(
        "{LOCAL} --tokenizer_name acme/tiny --output_dir out"
    ));
}

/// Which requests fail, how often, how; what is shown; the exit code.
type Case = (
    usize,
    (&'static str, &'static str),
    Fault,
    &'static [&'static str],
    i32,
);

#[test]
fn each_failure_of_a_download_has_its_message() {
    let busy = Answer::new(429, "").with("retry-after", 7);
    let cases: Vec<Case> = vec![
        (
            9,
            ("GET", "/api/models"),
            Fault::Answer(busy),
            &["limits how often it may be asked and asks to wait 7 seconds"],
            74,
        ),
        (
            9,
            ("GET", "/api/models"),
            Fault::Answer(Answer::new(503, "")),
            &["answered 503 Service Unavailable"],
            74,
        ),
        (
            9,
            ("GET", "/api/models"),
            Fault::Answer(Answer::new(200, "<html>")),
            &["is not one of a Hub", "check HF_ENDPOINT"],
            74,
        ),
        (
            9,
            ("GET", "/api/models"),
            Fault::Answer(Answer::new(403, "{\"error\": \"not on the list\"}")),
            &["the token may not do this with acme/tiny: not on the list"],
            64,
        ),
        (
            9,
            ("GET", "/api/models"),
            Fault::Answer(Answer::new(401, "")),
            &["does not accept the token", "make a new one"],
            64,
        ),
        (9, ("GET", "/api/models"), Fault::Reset, &["broke off"], 74),
        (9, ("HEAD", "/resolve/"), Fault::Reset, &["broke off"], 74),
        (
            9,
            ("GET", "/model.safetensors"),
            Fault::Cut(1000),
            &["broke off"],
            74,
        ),
        (
            9,
            ("GET", "/model.safetensors"),
            Fault::Damage,
            &["fetching acme/tiny (main): model.safetensors came damaged twice: its digest is "],
            65,
        ),
        (
            9,
            ("GET", "/config.json"),
            Fault::Answer(Answer::new(200, "{}")),
            &["config.json came damaged twice: it has 2 bytes instead of "],
            65,
        ),
    ];
    at_once(cases, |(times, request, fault, messages, code)| {
        let project = Project::new();
        project.hub.plan(times, request, fault.clone());
        let ended = project.run(&format!("{REMOTE} --output_dir out"));
        let case = format!("{request:?} {fault:?}\n{}", ended.stderr);
        assert_eq!(ended.code, Some(code), "{case}");
        for message in messages {
            assert!(ended.stderr.contains(message), "{message}: {case}");
        }
        assert!(ended.stderr.contains("fetching acme/tiny (main)"), "{case}");
        assert!(!project.host.path("out").exists(), "{case}");
        // Nothing says that the revision is there.
        let reference = project.host.path("hf/hub/models--acme--tiny/refs/main");
        assert!(!reference.exists(), "{case}");
    });
}

#[test]
fn what_a_failed_download_left_serves_the_next_one() {
    let project = Project::new();
    project
        .hub
        .plan(1, ("GET", "/model.safetensors"), Fault::Cut(1000));
    let ended = project.run(&format!("{REMOTE} --output_dir out"));
    assert_eq!(ended.code, Some(74), "{}", ended.stderr);
    let configurations = project.hub.count("GET", "/config.json");
    project.succeeds(&format!("{REMOTE} --output_dir out"));
    assert_eq!(project.hub.count("GET", "/config.json"), configurations);
    // One that comes damaged once is fetched again.
    let project = Project::new();
    project
        .hub
        .plan(1, ("GET", "/model.safetensors"), Fault::Damage);
    project.succeeds(&format!("{REMOTE} --output_dir out"));
    // Trouble that passes is not even seen.
    let project = Project::new();
    project
        .hub
        .plan(2, ("GET", "/api/"), Fault::Answer(Answer::new(502, "")));
    project.hub.plan(1, ("HEAD", "/resolve/"), Fault::Reset);
    project.hub.plan(
        1,
        ("GET", "/resolve/"),
        Fault::Delay(Duration::from_millis(50)),
    );
    let shown = project.succeeds(&format!("{REMOTE} --output_dir out"));
    assert!(!shown.contains("warning"), "{shown}");
}

#[test]
fn what_does_not_exist_is_said_so() {
    let project = Project::new();
    project
        .hub
        .add("datasets/acme/more", &[("a.csv", b"x\n".to_vec())]);
    project
        .hub
        .add("models/acme/empty", &[("README.md", b"# x\n".to_vec())]);
    let data = "--train_file rows.jsonl";
    for (words, message, code) in [
        (
            format!("--model acme/none {data}"),
            "fetching acme/none (main): acme/none does not exist on ",
            2,
        ),
        (
            format!("--model acme/tiny --model_revision v9 {data}"),
            "acme/tiny has no branch, tag or commit v9",
            2,
        ),
        (
            "--model model --train_file hf://datasets/acme/more/b.csv".to_owned(),
            "fetching files of the data set acme/more (main): acme/more has no file b.csv",
            2,
        ),
        (
            format!("--model acme/empty {data}"),
            "acme/empty holds no config.json, so it is no model",
            65,
        ),
    ] {
        let ended = project.run(&format!("{words} --output_dir out"));
        assert_eq!(ended.code, Some(code), "{words}\n{}", ended.stderr);
        assert!(ended.stderr.contains(message), "{words}\n{}", ended.stderr);
        assert!(ended.stderr.contains("\nhint: "), "{}", ended.stderr);
    }
    let mut stranger = project.command(&format!("--model acme/none {data} --output_dir out"));
    let stranger = ended(
        &stranger
            .env_remove("HF_TOKEN")
            .output()
            .expect("the program runs"),
    );
    let message = "acme/none does not exist, or is private or gated and needs a token";
    assert!(stranger.stderr.contains(message), "{}", stranger.stderr);
    assert_eq!(stranger.code, Some(64));
    let mut offline = project.command(&format!("--model acme/tiny {data} --output_dir out"));
    let offline = ended(
        &offline
            .env("HF_HUB_OFFLINE", "1")
            .output()
            .expect("the program runs"),
    );
    assert!(
        offline.stderr.contains("acme/tiny (main) is not in "),
        "{}",
        offline.stderr
    );
    assert!(
        offline.stderr.contains("unset HF_HUB_OFFLINE"),
        "{}",
        offline.stderr
    );
}

#[test]
fn the_token_goes_to_the_hub_only() {
    let project = Project::new();
    project.hub.state().is_gated = true;
    let shown = project.succeeds(&format!("{REMOTE} --output_dir out"));
    let is_known = |request: &Request| request.header("authorization").is_some();
    assert!(project.hub.seen().iter().all(is_known));
    assert!(!shown.contains(super::TOKEN));
    assert_eq!(holder_of(super::TOKEN, project.host.folder()), None);
}

#[test]
fn a_full_disk_is_said_before_and_while_it_fills() {
    if !requires(Requirement::Namespaces) {
        return;
    }
    for (options, message) in [
        ("size=64k", "acme/tiny (main) needs "),
        // Room for bytes, but not for files.
        ("nr_inodes=9", "is full"),
    ] {
        let project = Project::new();
        let mut train = project.command(&format!("{REMOTE} --output_dir out"));
        train.env("HF_HUB_CACHE", project.host.path("full"));
        let script = format!("mkdir full && mount -t tmpfs -o {options} none full && exec \"$@\"");
        let mut command = in_namespaces(&script, &[], &train);
        let ended = ended(&command.output().expect("runs"));
        assert_eq!(ended.code, Some(74), "{}", ended.stderr);
        assert!(ended.stderr.contains(message), "{}", ended.stderr);
        assert!(ended.stderr.contains("HF_HUB_CACHE"), "{}", ended.stderr);
    }
}
