//! Uploads: a thread of their own with a queue, so that training goes on, and an account of what became of them. A failed
//! upload ends nothing: it is warned of once and counted.
//!
//! Large files go to the store that the Hub names (Xet); to a Hub without one the client sends them inside the commit.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hf_hub::progress::{ProgressEvent, ProgressHandler, UploadEvent};
use hf_hub::repository::CommitOperation;
use hf_hub::{HFError, RepoTypeModel};

use super::Client;
use super::fault::is_passing;
use super::view::View;
use crate::error::told;

/// Attempts at an upload that the Hub or the network refuses for the moment.
const ATTEMPTS: u32 = 3;
/// Before the second attempt, if the Hub does not say how long to wait; twice as long before the third.
const PAUSE: Duration = Duration::from_secs(2);
/// The longest that the Hub can ask to wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// How far uploads step back behind training, of 19.
const NICENESS: i32 = 10;

/// Files that become one commit.
#[derive(Debug)]
pub struct Upload {
    /// The files.
    pub files: View,
    /// Folder of the repository that they go to; `None`: its top.
    pub folder: Option<String>,
    /// Message of the commit.
    pub message: String,
}

/// What became of the uploads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Commits.
    pub done: u64,
    /// Given up.
    pub failed: u64,
    /// Left out because another one was running.
    pub skipped: u64,
    /// Why the last one that was tried failed; `None`: it did not.
    pub failure: Option<String>,
}

/// How [`Uploader::wait`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Nothing is left to upload.
    Done,
    /// Nothing moved for too long.
    Stalled,
    /// Whoever waited was told to stop.
    Interrupted,
}

#[derive(Debug)]
struct State {
    account: Account,
    /// Uploads in the queue and the one that is running.
    pending: usize,
    /// Bytes that went out, as far as it is known, and when that last changed.
    moved: (u64, Instant),
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves counts that are as good as any.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_life(&self) {
        self.lock().moved.1 = Instant::now();
    }
}

/// Uploads to one repository, in order.
#[derive(Debug)]
pub struct Uploader {
    repository: String,
    page: String,
    shared: Arc<Shared>,
    queue: Sender<Upload>,
}

impl Uploader {
    /// Makes the repository, unless it is there, and begins the thread. A name without owner is one of whom the token
    /// belongs to.
    pub fn begin(client: &Client, name: &str, private: bool) -> Result<Self> {
        let repository = match name.contains('/') {
            true => name.to_owned(),
            false => {
                let what = format!("asking whose repository {name} is");
                let user = client.inner.whoami().send();
                let user = user.map_err(|error| client.doing(&what, name).failed(&error))?;
                format!("{}/{name}", user.username)
            }
        };
        create(client, &repository, private)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                account: Account::default(),
                pending: 0,
                moved: (0, Instant::now()),
            }),
            changed: Condvar::new(),
        });
        let (queue, uploads) = mpsc::channel();
        let worker = Worker {
            client: client.clone(),
            repository: repository.clone(),
            shared: shared.clone(),
        };
        thread::Builder::new()
            .name("upload".to_owned())
            .spawn(move || worker.run(&uploads))
            .context("the thread for uploads cannot be started")?;
        Ok(Self {
            page: client.page(&repository),
            repository,
            shared,
            queue,
        })
    }

    /// `owner/name`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The address of its page.
    pub fn page(&self) -> &str {
        &self.page
    }

    /// Whether an upload is running or waits.
    pub fn is_busy(&self) -> bool {
        self.shared.lock().pending > 0
    }

    /// Puts an upload at the end of the queue.
    pub fn push(&self, upload: Upload) {
        let mut state = self.shared.lock();
        if state.pending == 0 {
            state.moved.1 = Instant::now();
        }
        state.pending += 1;
        drop(state);
        if self.queue.send(upload).is_err() {
            self.shared.lock().pending -= 1;
            self.fail("the thread for uploads has ended");
        }
    }

    /// Counts an upload that is left out.
    pub fn skip(&self) {
        self.shared.lock().account.skipped += 1;
    }

    /// Counts an upload that could not even be begun.
    pub fn fail(&self, why: &str) {
        fail(&self.shared, &self.repository, why);
    }

    /// What became of the uploads so far.
    pub fn account(&self) -> Account {
        self.shared.lock().account.clone()
    }

    /// Waits until all is uploaded, `is_interrupted`, or nothing has moved for `patience`.
    pub fn wait(&self, patience: Duration, is_interrupted: &dyn Fn() -> bool) -> Waited {
        let mut state = self.shared.lock();
        while state.pending > 0 {
            if is_interrupted() {
                return Waited::Interrupted;
            }
            if state.moved.1.elapsed() >= patience {
                return Waited::Stalled;
            }
            let waited = self
                .shared
                .changed
                .wait_timeout(state, Duration::from_millis(100));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Waited::Done
    }
}

/// Makes a repository that does not exist. One that does, of somebody who lets the token write, is as good.
fn create(client: &Client, repository: &str, private: bool) -> Result<()> {
    let what = format!("making the repository {repository}");
    let created = client
        .inner
        .create_repository()
        .repo_id(repository)
        .repo_type(RepoTypeModel)
        .private(private)
        .exist_ok(true)
        .send();
    match created {
        Ok(_) => Ok(()),
        Err(error @ HFError::Forbidden { .. }) => {
            let (owner, name) = hf_hub::split_id(repository);
            match client.inner.model(owner, name).exists().send() {
                Ok(true) => Ok(()),
                _ => Err(client.doing(&what, repository).failed(&error)),
            }
        }
        Err(error) => Err(client.doing(&what, repository).failed(&error)),
    }
}

fn fail(shared: &Shared, repository: &str, why: &str) {
    let mut state = shared.lock();
    let is_first = state.account.failed == 0;
    state.account.failed += 1;
    state.account.failure = Some(why.to_owned());
    drop(state);
    if is_first {
        tracing::warn!("an upload to {repository} failed, training goes on: {why}");
    } else {
        tracing::debug!("an upload to {repository} failed: {why}");
    }
}

/// The thread.
struct Worker {
    client: Client,
    repository: String,
    shared: Arc<Shared>,
}

impl Worker {
    fn run(&self, uploads: &Receiver<Upload>) {
        // On Linux this is about the calling thread and those that it starts: digests and compression of an upload take only
        // what training leaves. Without it they still get done.
        let _ = rustix::process::nice(NICENESS);
        for upload in uploads {
            match self.upload(&upload) {
                Ok(()) => {
                    let account = &mut self.shared.lock().account;
                    account.done += 1;
                    account.failure = None;
                }
                Err(error) => fail(&self.shared, &self.repository, &told(&error)),
            }
            drop(upload);
            let mut state = self.shared.lock();
            state.pending -= 1;
            state.moved.1 = Instant::now();
            drop(state);
            self.shared.changed.notify_all();
        }
    }

    fn upload(&self, upload: &Upload) -> Result<()> {
        let what = format!("uploading {:?}", upload.message);
        let doing = self.client.doing(&what, &self.repository);
        let files = upload
            .files
            .files()
            .context("listing the files of an upload")?;
        let operation = |(name, path)| {
            let name = match &upload.folder {
                Some(folder) => format!("{folder}/{name}"),
                None => name,
            };
            CommitOperation::add_file(name, path)
        };
        let operations: Vec<CommitOperation> = files.into_iter().map(operation).collect();
        let (owner, name) = hf_hub::split_id(&self.repository);
        let repository = self.client.inner.model(owner, name);
        let mut attempt = 1;
        loop {
            let commit = repository
                .create_commit()
                .operations(operations.clone())
                .commit_message(&upload.message)
                .progress(Life(self.shared.clone()))
                .send();
            let error = match commit {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let pause = pause(&error, attempt);
            match pause.filter(|_| attempt < ATTEMPTS) {
                Some(pause) => self.rest(pause),
                None => return Err(doing.failed(&error)),
            }
            attempt += 1;
        }
    }

    /// Waiting because the Hub asked for it is not standing still.
    fn rest(&self, pause: Duration) {
        let end = Instant::now() + pause;
        while let Some(left) = end
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
        {
            self.shared.note_life();
            thread::sleep(left.min(Duration::from_millis(500)));
        }
    }
}

/// How long to wait before the next attempt; `None`: there is no use in one.
fn pause(error: &HFError, attempt: u32) -> Option<Duration> {
    let own = PAUSE * 2_u32.pow(attempt - 1);
    let asked = match error {
        HFError::RateLimited { retry_after, .. } => *retry_after,
        error if is_passing(error) => None,
        _ => return None,
    };
    Some(asked.unwrap_or(own)).filter(|pause| *pause <= LONGEST_PAUSE)
}

/// Notes that bytes went out.
struct Life(Arc<Shared>);

impl ProgressHandler for Life {
    fn on_progress(&self, event: &ProgressEvent) {
        let moved = match event {
            ProgressEvent::Upload(UploadEvent::Progress {
                bytes_completed,
                transfer_bytes_completed,
                ..
            }) => bytes_completed + transfer_bytes_completed,
            // A part of the work begins or ends.
            _ => return self.0.note_life(),
        };
        let mut state = self.0.lock();
        if state.moved.0 != moved {
            state.moved = (moved, Instant::now());
        }
    }
}
