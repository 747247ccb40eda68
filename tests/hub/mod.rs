//! The Hub: what is fetched from there, what is uploaded, and what becomes of a run when the Hub or the network fail. All of
//! it with the real program against a server on loopback.

mod download;
mod http;
mod server;
mod upload;

use std::fs;
use std::process::Command;
use std::thread;

use crate::support::{Ended, Host, ended, fixture};
use server::{Hub, TOKEN};

/// A folder for runs, and a Hub with a model and a data set.
pub struct Project {
    host: Host,
    hub: Hub,
}

impl Project {
    pub fn new() -> Self {
        let hub = Hub::start();
        let source = fixture("golden/init_toy");
        let mut files = Vec::new();
        for entry in fs::read_dir(&source).expect("the model").flatten() {
            let name = entry.file_name().into_string().expect("a name");
            files.push((name, fs::read(entry.path()).expect("a file")));
        }
        let files: Vec<(&str, Vec<u8>)> = files
            .iter()
            .map(|(name, content)| (name.as_str(), content.clone()))
            .chain([
                ("README.md", b"# Tiny\n".to_vec()),
                ("onnx/model.onnx", vec![0; 9]),
            ])
            .collect();
        hub.add("models/acme/tiny", &files);
        hub.state()
            .repositories
            .get_mut("models/acme/tiny")
            .expect("made")
            .tags = vec!["pytorch".to_owned(), "license:apache-2.0".to_owned()];
        let rows = fs::read_to_string(fixture("golden/toy/train.jsonl")).expect("rows");
        let rows: Vec<&str> = rows.lines().take(12).collect();
        let rows = rows.join("\n") + "\n";
        hub.add(
            "datasets/acme/toy",
            &[("data/train.jsonl", rows.clone().into_bytes())],
        );
        let host = Host::new();
        host.write("rows.jsonl", &rows);
        for (name, content) in &files {
            let path = host.write(&format!("model/{name}"), "");
            fs::write(path, content).expect("a copy");
        }
        Self { host, hub }
    }

    /// `host train` with a token; six steps of two rows unless `words` say otherwise.
    pub fn command(&self, words: &str) -> Command {
        let mut command = self.host.command("train");
        command
            .env("HF_ENDPOINT", self.hub.url())
            .env("HF_HOME", self.host.path("hf"))
            .env("HF_TOKEN", TOKEN)
            .env("HF_XET_CLIENT_RETRY_BASE_DELAY", "20ms")
            .env("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "2")
            .args([
                "--num_train_epochs",
                "1",
                "--per_device_train_batch_size",
                "2",
                "--logging_steps",
                "2",
            ])
            .args(words.split_whitespace());
        command
    }

    pub fn run(&self, words: &str) -> Ended {
        ended(&self.command(words).output().expect("the program runs"))
    }

    pub fn succeeds(&self, words: &str) -> String {
        self.host.succeeds(self.command(words))
    }
}

/// Runs the cases beside each other, because most of their time is waiting.
pub fn at_once<C: Send>(cases: Vec<C>, check: impl Fn(C) + Sync) {
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| check(case));
        }
    });
}

/// The local files, where they are not what a test is about.
pub const LOCAL: &str = "--model model --train_file rows.jsonl";
