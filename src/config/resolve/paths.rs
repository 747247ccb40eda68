//! Files and folders: those that must exist, and the output folder, which must be usable and not hold another run.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::super::hub::DatasetFile;
use super::super::input::Supplied;
use super::super::run::Command;
use super::super::setting::{Location, ResumeFrom, quoted};
use super::Draft;
use crate::checkpoint::layout;

/// What only the commands do: a program hands over rows, collators and batches that fit.
const FOR_THE_COMMAND: &[&str] = &[
    "auto_find_batch_size",
    "streaming",
    "data_collator",
    "mlm",
    "mlm_probability",
    "plm_probability",
    "max_span_length",
    "max_length",
    "pad_to_max_length",
    "pad_to_multiple_of",
    "max_train_samples",
    "max_eval_samples",
    "max_predict_samples",
    "text_column",
    "text_pair_column",
    "label_column",
    "resume_from_checkpoint",
    "model_revision",
];

/// Endings of TorchScript files.
const TORCHSCRIPT: &[&str] = &["pt", "pth", "ts"];

impl Draft<'_> {
    pub(super) fn check_paths(&mut self) {
        self.check_model();
        self.check_tokenizer();
        self.check_data();
        self.check_output_dir();
        self.check_resume();
    }

    pub(super) fn absolute(&self, path: &Path) -> PathBuf {
        self.surroundings.absolute(path)
    }

    fn check_model(&mut self) {
        self.check_revision();
        if self.input.supplied.is_some() {
            if self.arguments.model.is_some() {
                self.wrong(
                    "model",
                    "has no effect: the program hands the model over; leave it out",
                );
            }
            return;
        }
        let Some(written) = self.arguments.model.clone() else {
            self.missing(
                "model",
                "give a model folder, OWNER/NAME on the Hub, or a TorchScript file",
            );
            return;
        };
        if let Some(name) = self.on_hub(&written) {
            // What is published names the repository, not the folder that it is not.
            self.arguments.model = Some(Location::on_hub(name));
            return;
        }
        let written = written.path;
        let path = self.absolute(&written);
        let shown = shown(&written);
        match fs::metadata(&path) {
            Err(error) => self.wrong(
                "model",
                unreadable(
                    &shown,
                    &error,
                    "give a model folder, or OWNER/NAME for one on the Hub",
                ),
            ),
            Ok(metadata) if metadata.is_dir() => {
                if !path.join(layout::CONFIG).is_file() {
                    self.wrong(
                        "model",
                        format!(
                            "{shown} is a folder without {}; give a folder that holds a model",
                            layout::CONFIG
                        ),
                    );
                }
            }
            Ok(_) if !is_torchscript(&path) => {
                self.wrong("model", format!("{shown} is neither a model folder nor a TorchScript file (.pt); give the folder it lies in"));
            }
            Ok(_) if !self.arguments.trust_model_code => {
                let text = format!(
                    "{shown} is a TorchScript file, which is code and can do whatever you can do; add --trust_model_code if you trust it"
                );
                self.findings
                    .power("model", self.input.places.get("model"), &text);
            }
            Ok(_) => self.check_readable("model", &written),
        }
    }

    fn check_tokenizer(&mut self) {
        let Some(written) = self.arguments.tokenizer_name.clone() else {
            return;
        };
        if let Some(name) = self.on_hub(&written) {
            self.arguments.tokenizer_name = Some(Location::on_hub(name));
            return;
        }
        let written = written.path;
        match fs::metadata(self.absolute(&written)) {
            Err(error) => self.wrong(
                "tokenizer_name",
                unreadable(&shown(&written), &error, "give a folder with a tokenizer"),
            ),
            Ok(metadata) if !metadata.is_dir() => self.wrong(
                "tokenizer_name",
                format!("{} is a file; give the folder it lies in", shown(&written)),
            ),
            Ok(_) => {}
        }
    }

    fn check_data(&mut self) {
        let arguments = &self.arguments;
        let files = [
            ("train_file", arguments.train_file.clone()),
            (
                "validation_file",
                arguments
                    .validation_file
                    .iter()
                    .map(|file| file.path.clone())
                    .collect(),
            ),
            ("test_file", arguments.test_file.clone()),
        ];
        if let Some(supplied) = self.input.supplied {
            self.check_supplied(supplied, &files);
            return;
        }
        for (field, files) in &files {
            // A file shared by several commands may name data that only the others need.
            let is_used = match self.command {
                Command::Train => true,
                Command::Evaluate => *field == "validation_file",
                Command::Predict => *field == "test_file",
            };
            for file in files.iter().filter(|_| is_used) {
                self.check_readable(field, file);
            }
        }
        let [(_, train), (_, validation), (_, test)] = files;
        match self.command {
            Command::Train => self.check_training_data(&[train, validation, test]),
            Command::Evaluate if validation.is_empty() => {
                self.missing("validation_file", "give the file to evaluate on")
            }
            Command::Predict if test.is_empty() => {
                self.missing("test_file", "give the file to predict")
            }
            Command::Evaluate | Command::Predict => {}
        }
    }

    /// A program hands rows over itself.
    fn check_supplied(&mut self, supplied: Supplied, files: &[(&'static str, Vec<PathBuf>)]) {
        for (field, _) in files.iter().filter(|(_, files)| !files.is_empty()) {
            self.wrong(
                field,
                "has no effect: the program hands the rows over; leave it out",
            );
        }
        for field in FOR_THE_COMMAND
            .iter()
            .filter(|field| self.input.is_given(field))
        {
            self.wrong(
                field,
                "is for the command line; a program does this itself, so leave it out",
            );
        }
        let strategy = &self.arguments.evaluation_strategy;
        if strategy != "no" && !supplied.evaluation_data {
            let text = format!(
                "is {strategy}, but there is no eval_dataset; give it, or set evaluation_strategy to no"
            );
            self.contradict(&["evaluation_strategy"], text);
        }
    }

    fn check_training_data(&mut self, [train, validation, test]: &[Vec<PathBuf>; 3]) {
        if self.is_given("do_train") && !self.input.arguments.do_train {
            self.wrong(
                "do_train",
                "is false, but the command is train; use `host evaluate` or `host predict`",
            );
        }
        if train.is_empty() {
            self.missing("train_file", "give the file to train on");
        }
        let strategy = self.arguments.evaluation_strategy.clone();
        if validation.is_empty() && strategy != "no" {
            self.contradict(
                &["validation_file", "evaluation_strategy"],
                format!("is missing, but evaluation_strategy is {strategy}; give the file to evaluate on, or set evaluation_strategy to no"),
            );
        } else if validation.is_empty() && self.arguments.do_eval {
            self.contradict(
                &["validation_file", "do_eval"],
                "is missing, but do_eval is set; give the file to evaluate on",
            );
        }
        if test.is_empty() && self.arguments.do_predict {
            self.contradict(
                &["test_file", "do_predict"],
                "is missing, but do_predict is set; give the file to predict",
            );
        }
    }

    fn check_readable(&mut self, field: &'static str, written: &Path) {
        if DatasetFile::is_meant(written) {
            if DatasetFile::parse(written).is_none() {
                let text = format!(
                    "{} is no file of a data set; write hf://datasets/OWNER/NAME[@REVISION]/PATH",
                    shown(written)
                );
                self.wrong(field, text);
            }
            return;
        }
        let path = self.absolute(written);
        match fs::metadata(&path) {
            Err(error) => self.wrong(field, unreadable(&shown(written), &error, "check the path")),
            Ok(metadata) if metadata.is_dir() => self.wrong(
                field,
                format!("{} is a folder; give a file", shown(written)),
            ),
            Ok(_) => {
                if let Err(error) = access(&path, Access::READ_OK) {
                    self.wrong(
                        field,
                        unreadable(&shown(written), &error.into(), "check its permissions"),
                    );
                }
            }
        }
    }

    fn check_output_dir(&mut self) {
        let Some(written) = self.arguments.output_dir.clone() else {
            self.missing("output_dir", "give a folder for checkpoints and results");
            return;
        };
        let path = self.absolute(&written);
        match existing_ancestor(&path) {
            Err(error) => self.wrong(
                "output_dir",
                unreadable(&shown(&written), &error, "choose another folder"),
            ),
            Ok((ancestor, metadata)) => {
                if !metadata.is_dir() {
                    let text = if ancestor == path {
                        format!("{} is a file; choose another folder", shown(&written))
                    } else {
                        format!(
                            "{} cannot be made, because {} is a file; choose another folder",
                            shown(&written),
                            shown(ancestor)
                        )
                    };
                    self.wrong("output_dir", text);
                } else if let Err(error) = access(ancestor, Access::WRITE_OK | Access::EXEC_OK) {
                    let text = unreadable(
                        &shown(ancestor),
                        &error.into(),
                        "choose a folder you may write to",
                    );
                    self.wrong("output_dir", text);
                } else if ancestor == path && self.is_training() && self.input.supplied.is_none() {
                    self.check_occupied(&written, &path);
                }
            }
        }
    }

    /// As the reference's example scripts: results of an earlier run are overwritten only on request.
    fn check_occupied(&mut self, written: &Path, path: &Path) {
        let shown = shown(written);
        let contents = match Contents::read(path) {
            Ok(contents) => contents,
            Err(error) => {
                self.wrong(
                    "output_dir",
                    unreadable(&shown, &error, "choose another folder"),
                );
                return;
            }
        };
        let is_resumed = self.arguments.resume_from_checkpoint != ResumeFrom::Nothing;
        let Some(newest) = contents.newest_checkpoint else {
            if contents.has_others && !self.arguments.overwrite_output_dir && !is_resumed {
                self.wrong("output_dir", format!("{shown} is not empty; add --overwrite_output_dir to write into it, or choose another folder"));
            }
            return;
        };
        if is_resumed {
            return;
        }
        if self.arguments.overwrite_output_dir {
            self.notes.push(format!("{shown} holds checkpoints of an earlier run up to checkpoint-{newest}; they stay until rotation removes them"));
        } else {
            self.wrong(
                "output_dir",
                format!(
                    "{shown} holds checkpoints of an earlier run up to checkpoint-{newest}; add --resume_from_checkpoint true to go on \
                     from it, add --overwrite_output_dir to train anew, or choose another folder"
                ),
            );
        }
    }

    fn check_resume(&mut self) {
        if !self.is_training() {
            return;
        }
        match self.arguments.resume_from_checkpoint.clone() {
            ResumeFrom::Nothing => {}
            ResumeFrom::Newest => {
                let folder = self
                    .arguments
                    .output_dir
                    .as_ref()
                    .map(|folder| self.absolute(folder));
                let newest =
                    folder.and_then(|folder| Contents::read(&folder).ok()?.newest_checkpoint);
                if newest.is_none() {
                    self.contradict(
                        &["resume_from_checkpoint", "output_dir"],
                        "is true, but output_dir holds no checkpoint; leave it out to begin anew",
                    );
                }
            }
            ResumeFrom::Folder(written) => self.check_checkpoint(&written),
        }
    }

    fn check_checkpoint(&mut self, written: &Path) {
        let path = self.absolute(written);
        let weights = [
            layout::WEIGHTS,
            layout::WEIGHTS_INDEX,
            layout::PICKLED_WEIGHTS,
            layout::PICKLED_WEIGHTS_INDEX,
        ];
        match fs::metadata(&path) {
            Err(error) => self.wrong(
                "resume_from_checkpoint",
                unreadable(
                    &shown(written),
                    &error,
                    "give a checkpoint folder, or true for the newest",
                ),
            ),
            Ok(metadata) if !metadata.is_dir() => self.wrong(
                "resume_from_checkpoint",
                format!("{} is a file; give the checkpoint's folder", shown(written)),
            ),
            Ok(_) if !weights.iter().any(|file| path.join(file).is_file()) => {
                self.wrong(
                    "resume_from_checkpoint",
                    format!(
                        "{} holds no weights; give a folder named checkpoint-<step>",
                        shown(written)
                    ),
                );
            }
            Ok(_) => {}
        }
    }
}

/// Whether a file's name says that it is a TorchScript module.
pub(super) fn is_torchscript(path: &Path) -> bool {
    path.extension()
        .and_then(|ending| ending.to_str())
        .is_some_and(|ending| TORCHSCRIPT.contains(&ending))
}

/// What an output folder holds.
struct Contents {
    newest_checkpoint: Option<u64>,
    /// Anything else that training could overwrite.
    has_others: bool,
}

impl Contents {
    fn read(folder: &Path) -> io::Result<Self> {
        let mut contents = Self {
            newest_checkpoint: None,
            has_others: false,
        };
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            if let Some(step) = layout::checkpoint_step(&name) {
                contents.newest_checkpoint = contents.newest_checkpoint.max(Some(step));
            } else {
                // What a run writes before its first checkpoint is not worth keeping: a run that failed early can be
                // started again.
                contents.has_others |= !name.starts_with('.')
                    && ![layout::RUN, layout::TRAINING_ARGS, layout::CURVES]
                        .contains(&name.as_ref());
            }
        }
        Ok(contents)
    }
}

/// The longest existing beginning of an absolute path.
fn existing_ancestor(path: &Path) -> io::Result<(&Path, Metadata)> {
    for ancestor in path.ancestors() {
        match fs::metadata(ancestor) {
            Ok(metadata) => return Ok((ancestor, metadata)),
            Err(error)
                if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory]
                    .contains(&error.kind()) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from(io::ErrorKind::NotFound))
}

fn shown(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

fn unreadable(shown: &str, error: &io::Error, remedy: &str) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("{shown} does not exist; {remedy}"),
        io::ErrorKind::PermissionDenied => {
            format!("{shown} is not accessible: permission denied; {remedy}")
        }
        _ => format!("{shown} is not accessible: {error}; {remedy}"),
    }
}
