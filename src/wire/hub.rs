//! What a run has of the Hub: its model and data before it begins, and its uploads while it trains and when it ends
//! (spec 1.1, fields 91 to 96, and section 5).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::card::Origin;
use crate::callback::{self, Callback, Callbacks, Event, EventKind, TrainerState};
use crate::checkpoint::layout;
use crate::cli::output;
use crate::config::hub::{DatasetFile, Repository};
use crate::config::run::{self, Command, HubStrategy, Push, Run, Strategy};
use crate::error::{Failure, Kind, told};
use crate::hub::download::{Snapshot, Source};
use crate::hub::upload::{Account, Upload, Uploader, Waited};
use crate::hub::view::View;
use crate::hub::{Access, Client};

/// How long the end of a run waits for an upload in which nothing moves.
const PATIENCE: Duration = Duration::from_secs(300);
/// Where the newest checkpoint goes with `hub_strategy checkpoint`.
const LAST_CHECKPOINT: &str = "last-checkpoint";

fn client(hub: &run::Hub) -> Result<Client> {
    Client::new(Access {
        endpoint: hub.endpoint.clone(),
        cache: hub.cache.clone(),
        token: hub.token.as_ref().map(|token| token.reveal().to_owned()),
        offline: hub.offline,
    })
}

fn source(repository: &Repository) -> Source<'_> {
    Source {
        name: &repository.name,
        revision: &repository.revision,
    }
}

/// Brings what lies on the Hub into its cache; the run then names files of this machine only.
pub(crate) fn fetch(run: &Run) -> Result<(Run, Origin)> {
    let (mut run, mut origin) = (run.clone(), Origin::default());
    let Some(hub) = &run.hub else {
        return Ok((run, origin));
    };
    let client = client(hub)?;
    let model = |repository: &Option<Repository>| -> Result<Option<Snapshot>> {
        let fetch = |repository| client.model(source(repository), output::status);
        repository.as_ref().map(fetch).transpose()
    };
    let fetched = model(&run.model.repository)?;
    let tokenizer = model(&run.model.tokenizer_repository)?;
    if let Some(snapshot) = fetched {
        check_model(&run, &snapshot.folder)?;
        origin.license = snapshot.license;
        run.model.path = snapshot.folder;
    }
    if let Some(snapshot) = tokenizer {
        run.model.tokenizer = Some(snapshot.folder);
    }
    origin.datasets = fetch_data(&mut run, &client)?;
    Ok((run, origin))
}

fn check_model(run: &Run, folder: &Path) -> Result<()> {
    if folder.join(layout::CONFIG).is_file() {
        return Ok(());
    }
    let model = run.model.repository.as_ref();
    let name = model.map_or("the repository", |repository| &repository.name);
    let message = format!("{name} holds no {}, so it is no model", layout::CONFIG);
    Err(Failure::data(message)
        .hint("give a model in the format of transformers")
        .into())
}

/// Fetches the data files that the command uses; gives the names of their data sets.
fn fetch_data(run: &mut Run, client: &Client) -> Result<Vec<String>> {
    let command = run.command;
    let data = &mut run.data;
    let validation = data.validation_sets.iter_mut().map(|set| &mut set.files);
    let mut lists: Vec<&mut Vec<PathBuf>> = match command {
        Command::Train => validation
            .chain([&mut data.train_files, &mut data.test_files])
            .collect(),
        Command::Evaluate => validation.collect(),
        Command::Predict => vec![&mut data.test_files],
    };
    let mut wanted: BTreeMap<Repository, BTreeSet<String>> = BTreeMap::new();
    for path in lists.iter().flat_map(|list| list.iter()) {
        if let Some(file) = DatasetFile::parse(path) {
            wanted.entry(file.dataset).or_default().insert(file.path);
        }
    }
    let mut found: BTreeMap<DatasetFile, PathBuf> = BTreeMap::new();
    for (dataset, paths) in &wanted {
        let paths: Vec<String> = paths.iter().cloned().collect();
        let files = client.dataset_files(source(dataset), &paths, output::status)?;
        for (path, file) in paths.into_iter().zip(files) {
            let dataset = dataset.clone();
            found.insert(DatasetFile { dataset, path }, file);
        }
    }
    for path in lists.iter_mut().flat_map(|list| list.iter_mut()) {
        if let Some(file) = DatasetFile::parse(path) {
            let fetched = found.get(&file);
            *path = fetched.context("a file was not fetched")?.clone();
        }
    }
    let mut names: Vec<String> = wanted.into_keys().map(|dataset| dataset.name).collect();
    names.dedup();
    Ok(names)
}

/// The uploads of a run; none if it asks for none.
#[derive(Debug)]
pub(crate) struct Pushing {
    inner: Option<Arc<Pusher>>,
}

#[derive(Debug)]
struct Pusher {
    uploader: Uploader,
    push: Push,
    output_dir: PathBuf,
    save_strategy: Strategy,
}

impl Pushing {
    /// Makes the repository, and a callback that uploads checkpoints. What stands in the way of uploads is known before the
    /// first step.
    pub(crate) fn begin(run: &Run, callbacks: &mut Callbacks) -> Result<Self> {
        let push = run
            .hub
            .as_ref()
            .and_then(|hub| Some((hub, hub.push.clone()?)));
        let Some((hub, push)) = push else {
            return Ok(Self { inner: None });
        };
        let uploader = Uploader::begin(&client(hub)?, &push.repository, push.private)?;
        output::status(&format!("uploading to {}", uploader.page()));
        let pusher = Arc::new(Pusher {
            uploader,
            push,
            output_dir: run.output_dir.clone(),
            save_strategy: run.saving.strategy,
        });
        callbacks.push(Box::new(PushOnSave(pusher.clone())));
        Ok(Self {
            inner: Some(pusher),
        })
    }

    /// `save_model` was called.
    pub(crate) fn model_saved(&self) {
        if let Some(pusher) = &self.inner {
            // Why it failed is counted; the last upload decides.
            let _ = pusher.push_model("Model save");
        }
    }

    /// Waits for what is being uploaded.
    pub(crate) fn wait(&self, interrupted: &AtomicBool) -> Waited {
        let Some(pusher) = &self.inner else {
            return Waited::Done;
        };
        if pusher.uploader.is_busy() {
            let repository = pusher.uploader.repository();
            output::status(&format!("waiting for the uploads to {repository}"));
        }
        let is_interrupted = || interrupted.load(Ordering::Relaxed);
        pusher.uploader.wait(PATIENCE, &is_interrupted)
    }

    /// The last upload, and the wait for all of them. That it failed is the failure of the command, because the upload is
    /// what it was asked for; all else is done then.
    pub(crate) fn finish(&self, interrupted: &AtomicBool) -> Result<()> {
        let Some(pusher) = &self.inner else {
            return Ok(());
        };
        let unmade = pusher.push_model("End of training").err();
        let (kind, why) = match self.wait(interrupted) {
            Waited::Done => match unmade.or_else(|| pusher.uploader.account().failure) {
                Some(why) => (Kind::Io, why),
                None => return Ok(()),
            },
            Waited::Interrupted => (Kind::Stopped, "stopped by a signal".to_owned()),
            Waited::Stalled => (
                Kind::Io,
                format!("nothing moved for {} seconds", PATIENCE.as_secs()),
            ),
        };
        let repository = pusher.uploader.repository();
        let folder = pusher.output_dir.display();
        let message = format!(
            "the model is trained and saved in {folder}, but its upload to {repository} failed: {why}"
        );
        let remedy = format!(
            "upload it later, for example with `hf upload {repository} {folder} --exclude \"*/*\"`"
        );
        Err(Failure::new(kind, message).hint(remedy).into())
    }

    /// What became of the uploads.
    pub(crate) fn summary(&self) {
        if let Some(pusher) = &self.inner {
            let account = pusher.uploader.account();
            output::status(&summary(pusher.uploader.repository(), &account));
        }
    }
}

fn summary(repository: &str, account: &Account) -> String {
    let mut text = format!("uploads to {repository}: {} done", account.done);
    if account.failed > 0 {
        text.push_str(&format!(", {} failed", account.failed));
    }
    if account.skipped > 0 {
        text.push_str(&format!(
            ", {} left out while another was running",
            account.skipped
        ));
    }
    text
}

impl Pusher {
    /// The top-level files of the output folder.
    fn push_model(&self, message: &str) -> Result<(), String> {
        let files = self.view(|view| view.add(&self.output_dir, is_uploaded));
        self.push(files, (None, message.to_owned()))
    }

    /// The files that `add` sets aside.
    fn view(&self, add: impl Fn(&View) -> Result<()>) -> Result<View> {
        let view = View::new(&self.output_dir)?;
        add(&view)?;
        Ok(view)
    }

    /// Puts an upload into the queue; why its files could not be set aside.
    fn push(
        &self,
        files: Result<View>,
        (folder, message): (Option<String>, String),
    ) -> Result<(), String> {
        match files {
            Ok(files) => {
                self.uploader.push(Upload {
                    files,
                    folder,
                    message,
                });
                Ok(())
            }
            Err(error) => {
                let why = told(&error);
                self.uploader.fail(&why);
                Err(why)
            }
        }
    }

    /// The model of a checkpoint beside the other files of the output folder, and the checkpoint if that is asked for.
    fn push_checkpoint(&self, checkpoint: &Path, state: &TrainerState) {
        let folder = match self.push.strategy {
            HubStrategy::End => return,
            HubStrategy::EverySave => None,
            HubStrategy::Checkpoint => Some(LAST_CHECKPOINT.to_owned()),
            HubStrategy::AllCheckpoints => checkpoint
                .file_name()
                .map(|name| name.to_string_lossy().into_owned()),
        };
        if self.uploader.is_busy() && !self.push.always {
            self.uploader.skip();
            return;
        }
        let place = match self.save_strategy {
            Strategy::Steps => format!("step {}", state.global_step),
            _ => format!("epoch {}", state.epoch.unwrap_or(0.0) as u64),
        };
        let message = format!("Training in progress, {place}");
        let model = self.view(|view| {
            view.add(checkpoint, is_of_model)?;
            view.add(&self.output_dir, |name| {
                is_uploaded(name) && !is_weights(name)
            })
        });
        // Failures are counted.
        let _ = self.push(model, (None, message.clone()));
        if folder.is_some() {
            let whole = self.view(|view| view.add(checkpoint, |_| true));
            let _ = self.push(whole, (folder, format!("{message}, checkpoint")));
        }
    }
}

/// As the reference, all but names that begin with `_`; hidden files, the record of the run, which is about this machine, and
/// what reporters keep stay here.
fn is_uploaded(name: &str) -> bool {
    !name.starts_with(['_', '.']) && ![layout::RUN, layout::REPORTS].contains(&name)
}

fn is_weights(name: &str) -> bool {
    let names = [layout::WEIGHTS, layout::WEIGHTS_INDEX];
    names.contains(&name) || layout::is_weights_shard(name)
}

/// What of a checkpoint makes a model: weights, configuration, tokenizer, arguments.
fn is_of_model(name: &str) -> bool {
    let others = [
        layout::CONFIG,
        layout::TOKENIZER,
        layout::TOKENIZER_CONFIG,
        layout::TRAINING_ARGS,
    ];
    is_weights(name) || others.contains(&name) || layout::TOKENIZER_EXTRAS.contains(&name)
}

/// Uploads checkpoints as they are saved.
struct PushOnSave(Arc<Pusher>);

impl Callback for PushOnSave {
    fn name(&self) -> &str {
        "push_to_hub"
    }

    fn wants(&self, kind: EventKind) -> bool {
        kind == EventKind::Save
    }

    fn on_event(&mut self, event: Event<'_>, context: &mut callback::Context<'_>) -> Result<()> {
        if let Event::Save(checkpoint) = event {
            self.0.push_checkpoint(checkpoint, context.state);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_uploaded_of_a_folder() {
        for (name, uploaded, of_model) in [
            ("model.safetensors", true, true),
            ("model-00001-of-00002.safetensors", true, true),
            ("config.json", true, true),
            ("vocab.txt", true, true),
            ("training_args.json", true, true),
            ("eval_results.json", true, false),
            ("optimizer.safetensors", true, false),
            ("README.md", true, false),
            ("_private", false, false),
            (".lock", false, false),
            ("run.json", false, false),
            ("reports.json", false, false),
        ] {
            assert_eq!(
                (is_uploaded(name), is_of_model(name)),
                (uploaded, of_model),
                "{name}"
            );
        }
    }

    #[test]
    fn the_summary_names_what_was_not_uploaded() {
        let mut account = Account {
            done: 3,
            ..Account::default()
        };
        assert_eq!(summary("o/n", &account), "uploads to o/n: 3 done");
        (account.failed, account.skipped) = (1, 2);
        assert_eq!(
            summary("o/n", &account),
            "uploads to o/n: 3 done, 1 failed, 2 left out while another was running"
        );
    }
}
