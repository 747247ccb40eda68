//! Uploads: what goes to the Hub when, and that a failed one stops nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use host::api::{ModelSource, Resume};
use host::config::hub::{HubSurroundings, Secret};
use host::config::surroundings::Surroundings;
use host::data::{Example, Table, Value};
use host::hub::upload::{Upload, Uploader, Waited};
use host::hub::view::View;
use host::hub::{Access, Client};
use host::{Trainer, TrainerParts, TrainingArguments};

use super::http::{Answer, Fault};
use super::server::{Hub, TOKEN};
use super::{LOCAL, Project, at_once};
use crate::loop_behaviour::stage::Line;
use crate::support::{Ended, ended, holder_of};

const PUSH: &str =
    "--push_to_hub --hub_model_id acme/out --output_dir out --save_steps 3 --hub_always_push";

fn files_in<'a>(names: &[&'a str], folder: &str) -> BTreeSet<&'a str> {
    let inside = names.iter().filter_map(|name| name.strip_prefix(folder));
    inside.filter(|name| !name.contains('/')).collect()
}

#[test]
fn each_strategy_uploads_what_it_says() {
    for (strategy, expected, folders) in [
        ("end", vec![], vec![]),
        ("every_save", vec!["step 3", "step 6"], vec![]),
        (
            "checkpoint",
            vec![
                "step 3",
                "step 3, checkpoint",
                "step 6",
                "step 6, checkpoint",
            ],
            vec!["last-checkpoint/"],
        ),
        (
            "all_checkpoints",
            vec![
                "step 3",
                "step 3, checkpoint",
                "step 6",
                "step 6, checkpoint",
            ],
            vec!["checkpoint-3/", "checkpoint-6/"],
        ),
    ] {
        let project = Project::new();
        let shown = project.succeeds(&format!("{LOCAL} {PUSH} --hub_strategy {strategy}"));
        let repository = project.hub.repository("models/acme/out");
        let mut messages: Vec<String> = expected
            .iter()
            .map(|place| format!("Training in progress, {place}"))
            .collect();
        messages.extend(["Model save".to_owned(), "End of training".to_owned()]);
        assert_eq!(repository.messages(), messages, "{strategy}\n{shown}");
        let names = repository.names();
        let top = files_in(&names, "");
        for name in [
            "config.json",
            "model.safetensors",
            "training_args.json",
            "README.md",
            "train_results.json",
            "trainer_state.json",
        ] {
            assert!(top.contains(name), "{strategy}: {names:?}");
        }
        for name in ["run.json", ".lock", "optimizer.safetensors"] {
            assert!(!top.contains(name), "{strategy}: {names:?}");
        }
        let found: BTreeSet<&str> = names
            .iter()
            .filter_map(|name| name.split_inclusive('/').next())
            .filter(|part| part.ends_with('/'))
            .collect();
        assert_eq!(found, folders.iter().copied().collect(), "{strategy}");
        for folder in folders {
            let local = match folder {
                "last-checkpoint/" => "checkpoint-6",
                folder => folder.trim_end_matches('/'),
            };
            let local = fs::read_dir(project.host.path("out").join(local)).expect("a checkpoint");
            let local: BTreeSet<String> = local
                .flatten()
                .map(|entry| entry.file_name().into_string().expect("a name"))
                .collect();
            let uploaded: BTreeSet<String> = files_in(&names, folder)
                .into_iter()
                .map(str::to_owned)
                .collect();
            assert_eq!(uploaded, local, "{strategy}");
        }
        let weights = fs::read(project.host.path("out/model.safetensors")).expect("weights");
        let last = repository.commits.last().expect("a commit");
        assert!(
            last.files["model.safetensors"] == weights,
            "{strategy}: other weights"
        );
        assert!(
            shown.contains(&format!("uploads to acme/out: {} done\n", messages.len())),
            "{shown}"
        );
        assert!(
            shown.contains(&format!("uploading to {}/acme/out\n", project.hub.url())),
            "{shown}"
        );
        assert!(!repository.private);
    }
}

#[test]
fn what_a_checkpoint_uploads_is_its_model() {
    let project = Project::new();
    project.succeeds(&format!("{LOCAL} {PUSH} --save_total_limit 1"));
    let repository = project.hub.repository("models/acme/out");
    let first = &repository.commits[0].files;
    assert!(first["model.safetensors"] != repository.commits[1].files["model.safetensors"]);
    // It was taken away while it was uploaded, or before.
    assert!(!project.host.path("out/checkpoint-3").exists());
    let left = fs::read_dir(project.host.path("out"))
        .expect("a folder")
        .flatten();
    let left = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(".upload"));
    assert_eq!(left.count(), 0);
}

#[test]
fn a_new_repository_is_private_if_asked_and_belongs_to_who_has_the_token() {
    let project = Project::new();
    let words = format!(
        "{LOCAL} --push_to_hub --hub_private_repo --output_dir my-model --save_strategy epoch --hub_always_push"
    );
    project.succeeds(&words);
    let repository = project.hub.repository("models/ada/my-model");
    assert!(repository.private);
    let messages = [
        "Training in progress, epoch 1",
        "Model save",
        "End of training",
    ];
    assert_eq!(repository.messages(), messages);
    // A second time the repository is there.
    project.succeeds(&format!("{words} --overwrite_output_dir"));
    assert_eq!(
        project.hub.repository("models/ada/my-model").commits.len(),
        6
    );
}

#[test]
fn deprecated_names_mean_the_same() {
    let project = Project::new();
    let words = format!(
        "{LOCAL} --push_to_hub --output_dir out --save_strategy no --push_to_hub_model_id named --push_to_hub_organization team \
         --push_to_hub_token {TOKEN}"
    );
    let mut command = project.command(&words);
    let shown = project.host.succeeds({
        command.env_remove("HF_TOKEN");
        command
    });
    assert_eq!(project.hub.repository("models/team/named").commits.len(), 2);
    for part in [
        "push_to_hub_token is deprecated; use hub_token",
        "push_to_hub_model_id and push_to_hub_organization are deprecated; use hub_model_id team/named",
        "a token on the command line can be seen by others",
    ] {
        assert!(shown.contains(part), "{shown}");
    }
    assert!(!shown.contains(TOKEN));
    assert_eq!(holder_of(TOKEN, &project.host.path("out")), None);
    assert_eq!(
        project.host.json("out/training_args.json")["hub_token"],
        "<HUB_TOKEN>"
    );
    assert_eq!(
        project.host.json("out/run.json")["hub"]["token"],
        "<HUB_TOKEN>"
    );
}

#[test]
fn training_goes_on_while_an_upload_runs_and_leaves_the_next_one_out() {
    let project = Project::new();
    let slow = Fault::Delay(Duration::from_secs(4));
    project.hub.plan(1, ("POST", "/preupload/"), slow);
    let words =
        format!("{LOCAL} --push_to_hub --hub_model_id acme/out --output_dir out --save_steps 3");
    let shown = project.succeeds(&words);
    assert_eq!(
        project.hub.repository("models/acme/out").messages(),
        [
            "Training in progress, step 3",
            "Model save",
            "End of training"
        ],
        "{shown}"
    );
    assert!(
        shown.contains("uploads to acme/out: 3 done, 1 left out while another was running"),
        "{shown}"
    );
    assert!(
        shown.contains("waiting for the uploads to acme/out"),
        "{shown}"
    );
    let seconds = project.host.json("out/train_results.json")["train_runtime"]
        .as_f64()
        .expect("seconds");
    assert!(seconds < 4.0, "training took {seconds} s");
}

/// The model is trained and saved whatever became of the uploads.
fn check_trained(project: &Project, ended: &Ended) {
    for name in [
        "model.safetensors",
        "train_results.json",
        "checkpoint-6/manifest.json",
    ] {
        assert!(
            project.host.path("out").join(name).exists(),
            "{name}: {}",
            ended.stderr
        );
    }
}

#[test]
fn a_failed_upload_is_warned_of_once_and_counted() {
    let project = Project::new();
    project.hub.plan(
        1,
        ("POST", "/commit/"),
        Fault::Answer(Answer::new(413, "{\"error\": \"too large\"}")),
    );
    project
        .hub
        .plan(1, ("POST", "/commit/"), Fault::Answer(Answer::new(400, "")));
    let ended = project.run(&format!("{LOCAL} {PUSH}"));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    check_trained(&project, &ended);
    let warning = "warning: an upload to acme/out failed, training goes on: uploading \"Training in progress, step 3\": ";
    assert!(ended.stderr.contains(warning), "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .contains("answered 413 Payload Too Large: too large"),
        "{}",
        ended.stderr
    );
    assert_eq!(
        ended.stderr.matches("warning").count(),
        1,
        "{}",
        ended.stderr
    );
    assert!(
        ended
            .stderr
            .contains("uploads to acme/out: 2 done, 2 failed"),
        "{}",
        ended.stderr
    );
    assert_eq!(
        project.hub.repository("models/acme/out").messages(),
        ["Model save", "End of training"]
    );
}

#[test]
fn when_nothing_could_be_uploaded_the_model_is_there_and_the_command_says_so() {
    let limit = Answer::new(429, "").with("retry-after", 4000);
    let cases: Vec<((&'static str, &str), Fault, &str)> = vec![
        (
            ("POST", "/commit/"),
            Fault::Answer(Answer::new(500, "")),
            "answered 500 Internal Server Error",
        ),
        (
            ("POST", "/commit/"),
            Fault::Answer(Answer::new(401, "")),
            "does not accept the token",
        ),
        (
            ("POST", "/commit/"),
            Fault::Answer(Answer::new(403, "")),
            "the token may not do this with acme/out",
        ),
        (
            ("POST", "/commit/"),
            Fault::Answer(Answer::new(404, "")),
            "acme/out does not exist on",
        ),
        (
            ("POST", "/preupload/"),
            Fault::Answer(limit),
            "asks to wait 4000 seconds",
        ),
        (("POST", "/commit/"), Fault::Reset, "broke off"),
        (
            ("POST", "/cas/v1/xorbs"),
            Fault::Answer(Answer::new(500, "")),
            "the store of large files",
        ),
        (
            ("POST", "/cas/v1/shards"),
            Fault::Reset,
            "the store of large files",
        ),
    ];
    at_once(cases, |(request, fault, message)| {
        let project = Project::new();
        project.hub.plan(99, request, fault.clone());
        let ended = project.run(&format!("{LOCAL} {PUSH} --hub_strategy end"));
        let case = format!("{request:?} {fault:?}\n{}", ended.stderr);
        assert_eq!(ended.code, Some(74), "{case}");
        check_trained(&project, &ended);
        assert!(ended.stderr.contains(message), "{message}: {case}");
        assert!(
            ended.stderr.contains("but its upload to acme/out failed: "),
            "{case}"
        );
        assert!(ended.stderr.contains("hint: upload it later"), "{case}");
        assert_eq!(ended.stderr.matches("warning").count(), 1, "{case}");
        assert!(
            ended
                .stderr
                .contains("uploads to acme/out: 0 done, 2 failed"),
            "{case}"
        );
        assert!(!ended.stderr.contains(TOKEN), "{case}");
    });
}

#[test]
fn trouble_that_passes_is_waited_for() {
    let asked = Answer::new(429, "").with("retry-after", 1);
    let project = Project::new();
    // As many as the client tries at once, and then once more after the wait.
    project
        .hub
        .plan(5, ("POST", "/commit/"), Fault::Answer(asked));
    let begin = Instant::now();
    let shown = project.succeeds(&format!("{LOCAL} {PUSH} --hub_strategy end"));
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert!(
        shown.contains("uploads to acme/out: 2 done\n") && !shown.contains("warning"),
        "{shown}"
    );
    let project = Project::new();
    project.hub.plan(1, ("POST", "/commit/"), Fault::Reset);
    project.hub.plan(
        1,
        ("POST", "/preupload/"),
        Fault::Answer(Answer::new(503, "")),
    );
    project.hub.plan(1, ("POST", "/cas/v1/xorbs"), Fault::Reset);
    let shown = project.succeeds(&format!("{LOCAL} {PUSH} --hub_strategy end"));
    assert!(
        shown.contains("uploads to acme/out: 2 done\n") && !shown.contains("warning"),
        "{shown}"
    );
}

#[test]
fn what_stands_in_the_way_of_uploads_is_known_before_the_first_step() {
    let cases: Vec<((&'static str, &str), Fault, &str, i32)> = vec![
        (
            ("POST", "/api/repos/create"),
            Fault::Answer(Answer::new(401, "")),
            "does not accept the token",
            64,
        ),
        (
            ("POST", "/api/repos/create"),
            Fault::Answer(Answer::new(403, "")),
            "the token may not do this with acme/out",
            64,
        ),
        (
            ("POST", "/api/repos/create"),
            Fault::Answer(Answer::new(500, "")),
            "answered 500",
            74,
        ),
        (("POST", "/api/repos/create"), Fault::Reset, "broke off", 74),
    ];
    at_once(cases, |(request, fault, message, code)| {
        let project = Project::new();
        project.hub.plan(99, request, fault.clone());
        let ended = project.run(&format!("{LOCAL} {PUSH}"));
        let case = format!("{fault:?}\n{}", ended.stderr);
        assert_eq!(ended.code, Some(code), "{case}");
        assert!(
            ended.stderr.contains("making the repository acme/out"),
            "{case}"
        );
        assert!(ended.stderr.contains(message), "{case}");
        assert!(!ended.stderr.contains("training: "), "{case}");
        assert!(!project.host.path("out/run.json").exists(), "{case}");
    });
}

#[test]
fn a_large_file_comes_back_from_the_store_it_went_to() {
    let project = Project::new();
    project.succeeds(&format!("{LOCAL} {PUSH} --hub_strategy end"));
    let before = project.hub.count("GET", "/cas/objects/");
    project.succeeds("--model acme/out --train_file rows.jsonl --output_dir again");
    assert!(project.hub.count("GET", "/cas/objects/") > before);
    let resolved = project.hub.seen();
    let is_direct =
        |path: &str| path.contains("/acme/out/resolve/") && path.ends_with("model.safetensors");
    assert!(
        !resolved
            .iter()
            .any(|request| request.method == "GET" && is_direct(&request.path))
    );
    // What the store gives wrong is not taken.
    let project = Project::new();
    project.succeeds(&format!("{LOCAL} {PUSH} --hub_strategy end"));
    project.hub.plan(99, ("GET", "/cas/objects/"), Fault::Reset);
    let ended = project.run("--model acme/out --train_file rows.jsonl --output_dir again");
    assert_eq!(ended.code, Some(74), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("the store of large files"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("X-Signature"), "{}", ended.stderr);
}

#[test]
fn the_wait_for_an_upload_ends() {
    let hub = Hub::start();
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.txt"), "a").expect("a file");
    let access = Access {
        endpoint: hub.url(),
        cache: folder.path().join("cache"),
        token: Some(TOKEN.to_owned()),
        offline: false,
    };
    assert!(!format!("{access:?}").contains(TOKEN));
    let client = Client::new(access).expect("a client");
    hub.plan(
        1,
        ("POST", "/preupload/"),
        Fault::Delay(Duration::from_secs(3)),
    );
    let uploader = Uploader::begin(&client, "ada/slow", false).expect("a repository");
    let files = View::new(folder.path()).expect("a view");
    files
        .add(folder.path(), |name| name == "a.txt")
        .expect("links");
    uploader.push(Upload {
        files,
        folder: None,
        message: "slow".to_owned(),
    });
    assert_eq!(
        uploader.wait(Duration::from_secs(9), &|| true),
        Waited::Interrupted
    );
    assert_eq!(
        uploader.wait(Duration::from_millis(300), &|| false),
        Waited::Stalled
    );
    assert_eq!(
        uploader.wait(Duration::from_secs(30), &|| false),
        Waited::Done
    );
    assert_eq!((uploader.account().done, uploader.is_busy()), (1, false));
    assert_eq!(hub.repository("models/ada/slow").names(), ["a.txt"]);
}

#[test]
fn a_signal_ends_the_wait_for_the_last_upload() {
    let project = Project::new();
    project.hub.plan(
        1,
        ("POST", "/preupload/"),
        Fault::Delay(Duration::from_secs(30)),
    );
    let mut command = project.command(&format!("{LOCAL} {PUSH} --hub_strategy end"));
    let mut child = command
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut text = String::new();
    let mut lines = BufReader::new(child.stderr.take().expect("its messages")).lines();
    for line in lines.by_ref().map_while(Result::ok) {
        text += &format!("{line}\n");
        if line.starts_with("waiting for the uploads") {
            let id = child.id().to_string();
            let killed = Command::new("kill").args(["-TERM", &id]).status();
            assert!(killed.expect("kill runs").success());
        }
    }
    assert_eq!(child.wait().expect("it ends").code(), Some(75), "{text}");
    assert!(
        text.contains("but its upload to acme/out failed: stopped by a signal"),
        "{text}"
    );
    assert!(project.host.path("out/model.safetensors").exists());
}

#[test]
fn uploads_need_a_network_and_an_address_without_secrets() {
    let project = Project::new();
    for (name, value, message) in [
        (
            "HF_HUB_OFFLINE",
            "1",
            "push_to_hub: nothing can be uploaded while HF_HUB_OFFLINE is set",
        ),
        (
            "HF_ENDPOINT",
            "http://ada:pw@127.0.0.1:1",
            "push_to_hub: HF_ENDPOINT holds a user name or password",
        ),
        (
            "HF_ENDPOINT",
            "127.0.0.1",
            "push_to_hub: HF_ENDPOINT is `127.0.0.1`; give an address that begins with https://",
        ),
    ] {
        let mut command = project.command(&format!("{LOCAL} {PUSH}"));
        let ended = ended(&command.env(name, value).output().expect("the program runs"));
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(message), "{}", ended.stderr);
        assert!(!ended.stderr.contains(":pw@"), "{}", ended.stderr);
    }
    assert!(project.hub.seen().is_empty());
}

#[test]
fn a_program_uploads_as_the_command_does() {
    let _alone = crate::loop_behaviour::stage::alone();
    let (hub, folder) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let surroundings = Surroundings {
        hub: HubSurroundings {
            endpoint: hub.url(),
            cache: Some(folder.path().join("cache")),
            token: Some(Secret::new(TOKEN)),
            offline: false,
        },
        ..Surroundings::read().expect("readable")
    };
    let row = |index: u8| Example {
        columns: vec![
            ("x".into(), Value::Float(index.into())),
            ("label".into(), Value::Float(1.0)),
        ],
    };
    let rows = Table::from_examples(&(0..8).map(row).collect::<Vec<_>>()).expect("rows");
    let args = TrainingArguments {
        output_dir: Some(folder.path().join("line")),
        num_train_epochs: 2.0,
        save_strategy: "epoch".into(),
        disable_tqdm: Some(true),
        push_to_hub: true,
        hub_always_push: true,
        ..TrainingArguments::default()
    };
    let model = ModelSource::Model(Box::new(Line::new("x")));
    let mut trainer = Trainer::new(TrainerParts {
        train_dataset: Some(Arc::new(rows)),
        surroundings: Some(surroundings),
        ..TrainerParts::new(model, args)
    })
    .expect("a trainer");
    trainer.train(Resume::No).expect("trained");
    let in_progress = [
        "Training in progress, epoch 1",
        "Training in progress, epoch 2",
    ];
    assert_eq!(hub.repository("models/ada/line").messages(), in_progress);
    trainer.save_model().expect("saved");
    trainer.push_to_hub().expect("uploaded");
    let repository = hub.repository("models/ada/line");
    assert_eq!(
        repository.messages()[2..],
        ["Model save", "End of training"]
    );
    let card = String::from_utf8(repository.commits[3].files["README.md"].clone()).expect("text");
    assert!(
        card.contains("\n# line\n\nThis model was trained from scratch on an unknown dataset.")
    );
    assert_eq!(holder_of(TOKEN, folder.path()), None);
}
