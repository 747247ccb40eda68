//! Event files for TensorBoard, as the Trainer's `TensorBoardCallback` writes them: scalars under `train/`, `eval/` and
//! `test/`, the arguments and the model's configuration as texts.

mod event;

use std::fs::{File, OpenOptions};
use std::io::Write;

use serde_json::Value;
use trainer_sdk::{Error, NoConfig, Plugin, Report, Result, Run, Scalar, Setup};

/// `logging_dir` as the host shows it.
const FOLDER: &str = "/logging_dir";

/// One event file.
#[derive(Default)]
struct TensorBoard {
    file: Option<File>,
    time_ms: u64,
}

impl Plugin for TensorBoard {
    type Config = NoConfig;

    fn init(_: NoConfig, _: &Run<'_>, _: &Setup<'_>) -> Result<Self> {
        Ok(Self::default())
    }
}

impl TensorBoard {
    fn write(&mut self, events: &[Vec<u8>]) -> Result<()> {
        let file = self
            .file
            .as_mut()
            .ok_or_else(|| Error::fatal("the run was not started"))?;
        let mut bytes = Vec::new();
        for event in events {
            event::frame(event, &mut bytes);
        }
        let before = file.metadata().map(|metadata| metadata.len());
        file.write_all(&bytes).map_err(|error| {
            // A full disk may have room again later; readers stop at half a record.
            let _ = before.and_then(|length| file.set_len(length));
            Error::transient(format!("the event file cannot be written: {error}"))
        })
    }
}

impl Report for TensorBoard {
    fn start(&mut self, run: &Run<'_>, time_ms: u64, _: Option<&str>) -> Result<String> {
        let name = format!(
            "{FOLDER}/events.out.tfevents.{:010}.host.{}.0",
            time_ms / 1000,
            run.rank()
        );
        let file = OpenOptions::new().create(true).append(true).open(&name);
        let file =
            file.map_err(|error| Error::transient(format!("{name} cannot be written: {error}")))?;
        let is_new = file.metadata().map_or(true, |metadata| metadata.len() == 0);
        self.file = Some(file);
        self.time_ms = time_ms;
        if is_new {
            self.write(&[event::version(time_ms)])?;
        }
        Ok(String::new())
    }

    fn params(&mut self, json: &str) -> Result<()> {
        let params: Value =
            serde_json::from_str(json).map_err(|error| Error::data(error.to_string()))?;
        let mut events = Vec::new();
        for name in ["args", "model_config"] {
            if !params[name].is_null() {
                let text = serde_json::to_string_pretty(&params[name])
                    .map_err(|error| Error::data(error.to_string()))?;
                events.push(event::text(self.time_ms, name, &text));
            }
        }
        self.write(&events)
    }

    fn scalars(&mut self, scalars: &[Scalar]) -> Result<()> {
        let event = |scalar: &Scalar| {
            event::scalar(
                scalar.time_ms,
                scalar.step,
                &tag(&scalar.name),
                scalar.value,
            )
        };
        let events: Vec<Vec<u8>> = scalars.iter().map(event).collect();
        self.write(&events)
    }

    fn finish(&mut self, _: u64, _: &str) -> Result<()> {
        match self.file.take().map(|file| file.sync_all()) {
            Some(Err(error)) => Err(Error::transient(format!(
                "the event file cannot be written: {error}"
            ))),
            _ => Ok(()),
        }
    }
}

/// `rewrite_logs` of the reference.
fn tag(name: &str) -> String {
    match name.split_once('_') {
        Some(("eval", rest)) => format!("eval/{rest}"),
        Some(("test", rest)) => format!("test/{rest}"),
        _ => format!("train/{name}"),
    }
}

trainer_sdk::manifest!("../manifest.json");
trainer_sdk::export!(TensorBoard: report);
