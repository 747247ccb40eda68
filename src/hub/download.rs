//! What a run needs of the Hub, in the cache that all its clients share (`models--OWNER--NAME/{blobs,refs,snapshots}`).
//!
//! The crate downloads each file aside and renames it, and takes up again what was not downloaded yet. Added here: that a
//! file is what the Hub has (the cache names contents by their digest, which is compared once, after the download), that
//! there is room for it, waiting for another process, and that `refs` names a commit only when its files are there.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use hf_hub::progress::{DownloadEvent, FileStatus, ProgressEvent, ProgressHandler};
use hf_hub::repository::RepoTreeEntry;
use hf_hub::{HFError, HFRepositorySync, RepoType};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::Client;
use super::fault::is_passing;
use crate::checkpoint::{layout, save, space};
use crate::error::{Failure, Kind, told};

/// The crate gives up waiting for another process after 10 seconds; a large file takes longer.
const MAX_WAITS: usize = 180;
/// How often a long download says how far it is.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Says one line to the user.
pub type Say = fn(&str);

/// A model or data set as of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source<'a> {
    /// `owner/name`.
    pub name: &'a str,
    /// Branch, tag or commit.
    pub revision: &'a str,
}

impl Source<'_> {
    fn shown(&self) -> String {
        format!("{} ({})", self.name, self.revision)
    }
}

/// A revision in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder its files are in.
    pub folder: PathBuf,
    /// The licence the model has on the Hub, if that is known.
    pub license: Option<String>,
}

/// A file as the Hub lists it.
#[derive(Clone, Debug)]
struct Listed {
    path: String,
    size: u64,
}

impl Client {
    /// Configuration, tokenizer and weights of a model.
    pub fn model(&self, source: Source<'_>, say: Say) -> Result<Snapshot> {
        let (owner, name) = hf_hub::split_id(source.name);
        let repository = self.inner.model(owner, name);
        let fetch = Fetch {
            client: self,
            repository: &repository,
            source,
            what: format!("fetching {}", source.shown()),
            say,
        };
        fetch.in_cache_if_unreachable(
            || {
                let info = repository.info().revision(source.revision).send()?;
                let tags = info.tags.unwrap_or_default();
                let license = tags.iter().find_map(|tag| tag.strip_prefix("license:"));
                Ok((info.sha, license.map(str::to_owned)))
            },
            |commit| {
                let listed = fetch.listed(repository.list_tree().revision(commit).send())?;
                Ok(model_files(&listed))
            },
        )
    }

    /// Files of a data set, in the order of `paths`.
    pub fn dataset_files(
        &self,
        source: Source<'_>,
        paths: &[String],
        say: Say,
    ) -> Result<Vec<PathBuf>> {
        let (owner, name) = hf_hub::split_id(source.name);
        let repository = self.inner.dataset(owner, name);
        let fetch = Fetch {
            client: self,
            repository: &repository,
            source,
            what: format!("fetching files of the data set {}", source.shown()),
            say,
        };
        let snapshot = fetch.in_cache_if_unreachable(
            || {
                let info = repository.info().revision(source.revision).send()?;
                Ok((info.sha, None))
            },
            |commit| {
                let infos = repository
                    .get_paths_info()
                    .paths(paths.to_vec())
                    .revision(commit)
                    .send();
                let listed = fetch.listed(infos)?;
                let is_absent = |path: &&String| !listed.iter().any(|file| file.path == **path);
                match paths.iter().find(is_absent) {
                    Some(path) => Err(fetch.failed(&HFError::EntryNotFound {
                        path: path.clone(),
                        repo_id: source.name.to_owned(),
                        context: None,
                    })),
                    None => Ok(listed),
                }
            },
        )?;
        let files = paths.iter().map(|path| snapshot.folder.join(path));
        let files: Vec<PathBuf> = files.collect();
        match files.iter().zip(paths).find(|(file, _)| !file.exists()) {
            Some((_, path)) => Err(fetch.not_cached(path)),
            None => Ok(files),
        }
    }
}

/// What of a model's files is needed: pickles only where there are no safetensors, and nothing in folders.
fn model_files(listed: &[Listed]) -> Vec<Listed> {
    let has = |name: &str| listed.iter().any(|file| file.path == name);
    let is_pickled = !has(layout::WEIGHTS) && !has(layout::WEIGHTS_INDEX);
    let is_pickled_shard =
        |name: &str| name.starts_with("pytorch_model-") && name.ends_with(".bin");
    let is_wanted = |name: &str| match name {
        layout::CONFIG | layout::TOKENIZER | layout::TOKENIZER_CONFIG => true,
        layout::WEIGHTS => true,
        layout::WEIGHTS_INDEX => !has(layout::WEIGHTS),
        layout::PICKLED_WEIGHTS => is_pickled,
        layout::PICKLED_WEIGHTS_INDEX => is_pickled && !has(layout::PICKLED_WEIGHTS),
        _ if layout::TOKENIZER_EXTRAS.contains(&name) => true,
        _ if layout::is_weights_shard(name) => !is_pickled && !has(layout::WEIGHTS),
        _ => is_pickled && !has(layout::PICKLED_WEIGHTS) && is_pickled_shard(name),
    };
    let wanted = listed.iter().filter(|file| is_wanted(&file.path));
    wanted.cloned().collect()
}

/// One fetch of files of a repository.
struct Fetch<'a, T: RepoType> {
    client: &'a Client,
    repository: &'a HFRepositorySync<T>,
    source: Source<'a>,
    what: String,
    say: Say,
}

impl<T: RepoType> Fetch<'_, T> {
    fn failed(&self, error: &HFError) -> anyhow::Error {
        let doing = self.client.doing(&self.what, self.source.name);
        doing.failed(error)
    }

    /// Asks for the commit and its files and downloads what is missing. A Hub that cannot be reached is no failure if the
    /// cache has the revision.
    fn in_cache_if_unreachable(
        &self,
        ask: impl Fn() -> Result<(Option<String>, Option<String>), HFError>,
        list: impl Fn(&str) -> Result<Vec<Listed>>,
    ) -> Result<Snapshot> {
        let cached = self.cached();
        if self.client.access.offline {
            return cached.ok_or_else(|| self.not_cached(self.source.name));
        }
        let (commit, license) = match (ask(), cached) {
            (Ok(answer), _) => answer,
            (Err(error), Some(cached)) if is_passing(&error) => {
                let why = told(&self.failed(&error));
                tracing::warn!("{why}; the copy in the cache is used");
                return Ok(cached);
            }
            (Err(error), _) => return Err(self.failed(&error)),
        };
        let commit = commit.with_context(|| format!("{}: the Hub names no commit", self.what))?;
        let files = list(&commit)?;
        let folder = self.folder().join("snapshots").join(&commit);
        self.download(&folder, &commit, &files)?;
        if commit != self.source.revision {
            self.write_reference(&commit)?;
        }
        Ok(Snapshot { folder, license })
    }

    /// The repository's folder in the cache.
    fn folder(&self) -> PathBuf {
        let kind = T::default().plural();
        let name = self.source.name.replace('/', "--");
        self.client.access.cache.join(format!("{kind}--{name}"))
    }

    /// The revision as it was when it was fetched last.
    fn cached(&self) -> Option<Snapshot> {
        let folder = self.folder();
        let named = fs::read_to_string(folder.join("refs").join(self.source.revision));
        let commit = named.unwrap_or_else(|_| self.source.revision.to_owned());
        let folder = folder.join("snapshots").join(commit.trim());
        folder.is_dir().then_some(Snapshot {
            folder,
            license: None,
        })
    }

    fn not_cached(&self, what: &str) -> anyhow::Error {
        let cache = self.client.access.cache.display();
        let shown = self.source.shown();
        let what = match what == self.source.name {
            true => shown,
            false => format!("{what} of {shown}"),
        };
        Failure::new(
            Kind::Io,
            format!("{what} is not in {cache}, and the Hub is not asked"),
        )
        .hint("unset HF_HUB_OFFLINE, or fetch it once while there is a network")
        .into()
    }

    fn listed(&self, entries: Result<Vec<RepoTreeEntry>, HFError>) -> Result<Vec<Listed>> {
        let entries = entries.map_err(|error| self.failed(&error))?;
        let files = entries.into_iter().filter_map(|entry| match entry {
            RepoTreeEntry::File { path, size, .. } => Some(Listed { path, size }),
            RepoTreeEntry::Directory { .. } => None,
        });
        Ok(files.collect())
    }

    fn download(&self, folder: &Path, commit: &str, files: &[Listed]) -> Result<()> {
        let is_missing = |file: &&Listed| {
            let present = fs::metadata(folder.join(&file.path));
            present.map_or(true, |present| present.len() != file.size)
        };
        let missing: Vec<&Listed> = files.iter().filter(is_missing).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let bytes = missing.iter().map(|file| file.size).sum();
        self.check_space(bytes)?;
        (self.say)(&format!(
            "{}: {} files, {}",
            self.what,
            missing.len(),
            space::human(bytes)
        ));
        for file in missing {
            self.download_file(&folder.join(&file.path), commit, file)?;
        }
        Ok(())
    }

    fn check_space(&self, needed: u64) -> Result<()> {
        let cache = &self.client.access.cache;
        let made = fs::create_dir_all(cache);
        made.with_context(|| format!("the cache {} cannot be made", cache.display()))?;
        let free = space::available(cache).unwrap_or(u64::MAX);
        if free >= needed {
            return Ok(());
        }
        let message = format!(
            "{} needs {}, but the volume of {} has {} free",
            self.source.shown(),
            space::human(needed),
            cache.display(),
            space::human(free)
        );
        Err(Failure::new(Kind::Io, message)
            .hint("free space, or set HF_HUB_CACHE to a folder on another volume")
            .into())
    }

    /// Downloads until the file is what the Hub has; a damaged one is fetched once more.
    fn download_file(&self, target: &Path, commit: &str, file: &Listed) -> Result<()> {
        let mut damage = String::new();
        for attempt in 0..2 {
            // One of another size is in the way: the crate takes whatever has the right name.
            let is_forced = attempt > 0 || target.exists();
            self.request(commit, file, is_forced)?;
            let checked = check(target, file.size);
            match checked.with_context(|| format!("cannot read {}", target.display()))? {
                Ok(()) => return Ok(()),
                Err(why) => damage = why,
            }
            discard(target);
        }
        let message = format!("{}: {} came damaged twice: {damage}", self.what, file.path);
        Err(Failure::data(message)
            .hint("check HF_ENDPOINT and proxies in between, and try again")
            .into())
    }

    fn request(&self, commit: &str, file: &Listed, is_forced: bool) -> Result<()> {
        for _ in 0..MAX_WAITS {
            let request = self.repository.download_file().filename(&file.path);
            let request = request.revision(commit).force_download(is_forced);
            match request.progress(Said::new(self.say)).send() {
                Ok(_) => return Ok(()),
                Err(HFError::CacheLockTimeout { .. }) => {
                    (self.say)(&format!(
                        "waiting for another process that fetches {}",
                        file.path
                    ));
                }
                Err(error) => return Err(self.failed(&error)),
            }
        }
        Err(anyhow!(
            "another process has been fetching {} for too long",
            file.path
        ))
    }

    /// What the revision means from now on, also offline.
    fn write_reference(&self, commit: &str) -> Result<()> {
        let path = self.folder().join("refs").join(self.source.revision);
        let parent = path.parent().context("a reference lies in a folder")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        save::atomic_write(&path, commit.as_bytes())
    }
}

/// Whether a file has the size and the content that it is named for; what is wrong with it.
fn check(pointer: &Path, size: u64) -> io::Result<Result<(), String>> {
    let blob = fs::canonicalize(pointer)?;
    let found = fs::metadata(&blob)?.len();
    if found != size {
        return Ok(Err(format!("it has {found} bytes instead of {size}")));
    }
    let name = blob
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let is_digest = name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digest = match name.len() {
        // Of a large file, and of a file that git keeps.
        64 if is_digest => hex(&digest_of::<Sha256>(&blob, b"")?),
        40 if is_digest => hex(&digest_of::<Sha1>(
            &blob,
            format!("blob {size}\0").as_bytes(),
        )?),
        _ => return Ok(Ok(())),
    };
    Ok(match digest == name.to_ascii_lowercase() {
        true => Ok(()),
        false => Err(format!("its digest is {digest} instead of {name}")),
    })
}

fn digest_of<D: Digest>(path: &Path, header: &[u8]) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut digest = D::new();
    digest.update(header);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digest.finalize().to_vec()),
            length => digest.update(&buffer[..length]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Nobody must find a damaged file. One that cannot be removed is replaced by the next download.
fn discard(pointer: &Path) {
    if let Ok(blob) = fs::canonicalize(pointer) {
        let _ = fs::remove_file(blob);
    }
    let _ = fs::remove_file(pointer);
}

/// Says now and then how far a download is.
struct Said {
    say: Say,
    last: Mutex<Instant>,
}

impl Said {
    fn new(say: Say) -> Self {
        Self {
            say,
            last: Mutex::new(Instant::now()),
        }
    }
}

impl ProgressHandler for Said {
    fn on_progress(&self, event: &ProgressEvent) {
        let ProgressEvent::Download(DownloadEvent::Progress { files }) = event else {
            return;
        };
        let Some(file) = files
            .iter()
            .find(|file| file.status == FileStatus::InProgress)
        else {
            return;
        };
        let Ok(mut last) = self.last.lock() else {
            return;
        };
        if last.elapsed() >= REPORT_EVERY {
            *last = Instant::now();
            let (done, total) = (
                space::human(file.bytes_completed),
                space::human(file.total_bytes),
            );
            (self.say)(&format!("{}: {done} of {total}", file.filename));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[&str]) -> Vec<String> {
        let listed = |path: &&str| Listed {
            path: (*path).to_owned(),
            size: 1,
        };
        let listed: Vec<Listed> = files.iter().map(listed).collect();
        model_files(&listed)
            .into_iter()
            .map(|file| file.path)
            .collect()
    }

    #[test]
    fn of_a_model_only_what_is_loaded_is_fetched() {
        let others = [
            "README.md",
            "tf_model.h5",
            "onnx/model.onnx",
            "optimizer.pt",
        ];
        let all = |files: &[&'static str]| names(&[files, &others[..]].concat());
        for (files, expected) in [
            (
                vec![
                    "config.json",
                    "vocab.txt",
                    "model.safetensors",
                    "pytorch_model.bin",
                ],
                vec!["config.json", "vocab.txt", "model.safetensors"],
            ),
            (
                vec![
                    "model.safetensors.index.json",
                    "model-00001-of-00002.safetensors",
                    "pytorch_model-00001-of-00002.bin",
                ],
                vec![
                    "model.safetensors.index.json",
                    "model-00001-of-00002.safetensors",
                ],
            ),
            (
                vec![
                    "pytorch_model.bin.index.json",
                    "pytorch_model-00001-of-00002.bin",
                ],
                vec![
                    "pytorch_model.bin.index.json",
                    "pytorch_model-00001-of-00002.bin",
                ],
            ),
            (
                vec!["pytorch_model.bin", "tokenizer.json"],
                vec!["pytorch_model.bin", "tokenizer.json"],
            ),
        ] {
            assert_eq!(all(&files), expected);
        }
    }

    #[test]
    fn contents_are_what_they_are_named_for() {
        let folder = tempfile::tempdir().expect("a folder");
        // `git hash-object` and `sha256sum` of "hello\n".
        for (name, expected) in [
            ("ce013625030ba8dba906f756967f9e9ca394464a", true),
            (
                "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
                true,
            ),
            ("ce013625030ba8dba906f756967f9e9ca394464b", false),
            ("an-etag-of-another-kind", true),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, "hello\n").expect("a file");
            assert_eq!(
                check(&path, 6).expect("readable").is_ok(),
                expected,
                "{name}"
            );
            assert!(check(&path, 7).expect("readable").is_err());
        }
    }
}
