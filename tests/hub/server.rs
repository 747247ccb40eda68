//! A Hub on loopback: repositories with commits, as far as the client of `src/hub` asks for them, and the store of large
//! files (Xet), whose shards and chunks it reads with the client's own format crate.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use xet_core_structures::metadata_shard::streaming_shard::MDBMinimalShard;

use super::http::{Answer, Server};
use crate::http::Request;
use crate::support::{hex, sha256};

/// Who the token of the tests belongs to.
pub const USER: &str = "ada";
pub const TOKEN: &str = "hf_canary";

/// A commit: its message and all files after it.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    pub message: String,
    pub files: BTreeMap<String, Vec<u8>>,
}

/// A repository of either kind.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    pub private: bool,
    pub tags: Vec<String>,
    pub commits: Vec<Commit>,
}

impl Repository {
    pub fn messages(&self) -> Vec<&str> {
        self.commits
            .iter()
            .map(|commit| commit.message.as_str())
            .collect()
    }

    pub fn names(&self) -> Vec<&str> {
        let last = self.commits.last();
        last.into_iter()
            .flat_map(|commit| commit.files.keys())
            .map(String::as_str)
            .collect()
    }
}

/// A part of a large file: chunks of a stored object.
#[derive(Clone, Debug)]
struct Segment {
    object: String,
    bytes: u32,
    chunks: (u32, u32),
}

#[derive(Default)]
pub struct State {
    /// By `models/owner/name` and `datasets/owner/name`.
    pub repositories: BTreeMap<String, Repository>,
    /// Files that only the owner of the token may see.
    pub is_gated: bool,
    objects: BTreeMap<String, Vec<u8>>,
    segments: BTreeMap<String, Vec<Segment>>,
    /// Of large files: by the digest of their content, their name in the store.
    stored: BTreeMap<String, String>,
}

/// The server and what it holds.
pub struct Hub {
    server: Server,
    state: Arc<Mutex<State>>,
}

impl Deref for Hub {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Hub {
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let own = state.clone();
        let server = Server::start(move |request, address| {
            own.lock().expect("unpoisoned").answer(request, address)
        });
        Self { server, state }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("unpoisoned")
    }

    /// Adds a commit to a repository, which is made if it does not exist.
    pub fn add(&self, name: &str, files: &[(&str, Vec<u8>)]) {
        let mut state = self.state();
        let repository = state.repositories.entry(name.to_owned()).or_default();
        let mut all = repository
            .commits
            .last()
            .map(|last| last.files.clone())
            .unwrap_or_default();
        all.extend(
            files
                .iter()
                .map(|(path, content)| ((*path).to_owned(), content.clone())),
        );
        repository.commits.push(Commit {
            message: "initial".to_owned(),
            files: all,
        });
    }

    pub fn repository(&self, name: &str) -> Repository {
        let state = self.state();
        state
            .repositories
            .get(name)
            .unwrap_or_else(|| panic!("no {name}"))
            .clone()
    }
}

pub fn git_digest(content: &[u8]) -> String {
    let mut digest = Sha1::new();
    digest.update(format!("blob {}\0", content.len()));
    digest.update(content);
    hex(&digest.finalize())
}

/// Names of commits are as long as git's.
pub fn commit_name(number: usize) -> String {
    format!("{number:040x}")
}

fn is_large(path: &str) -> bool {
    path.ends_with(".safetensors")
}

fn refused(status: u16, code: &str, message: &str) -> Answer {
    let body = json!({ "error": message }).to_string();
    Answer::new(status, body)
        .with("x-error-code", code)
        .with("x-error-message", message)
}

impl State {
    fn answer(&mut self, request: &Request, address: SocketAddr) -> Answer {
        let path = request.path.split('?').next().unwrap_or_default();
        let parts: Vec<String> = path.trim_matches('/').split('/').map(decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let is_known = request.header("authorization") == Some(&format!("Bearer {TOKEN}"));
        match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["api", "whoami-v2"]) if is_known => {
                Answer::json(&json!({ "type": "user", "name": USER }))
            }
            ("POST", ["api", "repos", "create"]) if is_known => self.create(request, address),
            ("GET", ["api", kind, owner, name]) => {
                self.info(&format!("{kind}/{owner}/{name}"), "main", is_known)
            }
            ("GET", ["api", kind, owner, name, "revision", revision]) => {
                self.info(&format!("{kind}/{owner}/{name}"), revision, is_known)
            }
            ("GET", ["api", kind, owner, name, "tree", revision]) => {
                self.tree(&format!("{kind}/{owner}/{name}"), revision, &|_| true)
            }
            ("POST", ["api", kind, owner, name, "paths-info", revision]) => {
                let wanted: Value = serde_json::from_slice(&request.body).expect("JSON");
                let wanted = wanted["paths"].as_array().expect("paths").clone();
                let is_wanted = |path: &str| wanted.iter().any(|wanted| wanted == path);
                self.tree(&format!("{kind}/{owner}/{name}"), revision, &is_wanted)
            }
            ("POST", ["api", "models", _, _, "preupload", "main"]) if is_known => {
                preupload(request)
            }
            ("POST", [_, name, "info", "lfs", "objects", "batch"])
                if is_known && name.ends_with(".git") =>
            {
                Answer::json(&json!({ "transfer": "xet", "objects": [] }))
            }
            ("GET", ["api", _, _, _, "xet-write-token" | "xet-read-token", _]) => {
                Answer::json(&json!({
                    "accessToken": "store", "exp": 4_000_000_000_u64, "casUrl": format!("http://{address}/cas"),
                }))
            }
            ("POST", ["api", "models", owner, name, "commit", "main"]) if is_known => {
                self.commit(&format!("models/{owner}/{name}"), &request.body)
            }
            ("HEAD" | "GET", ["datasets", owner, name, "resolve", revision, path @ ..]) => self
                .resolve(
                    (&format!("datasets/{owner}/{name}"), revision),
                    &path.join("/"),
                    is_known,
                ),
            ("HEAD" | "GET", [owner, name, "resolve", revision, path @ ..]) => self.resolve(
                (&format!("models/{owner}/{name}"), revision),
                &path.join("/"),
                is_known,
            ),
            (_, ["cas", rest @ ..]) => self.store(request, rest, address),
            _ if !is_known => refused(401, "", "Invalid username or password."),
            _ => refused(404, "", "no such endpoint"),
        }
    }

    fn create(&mut self, request: &Request, address: SocketAddr) -> Answer {
        let body: Value = serde_json::from_slice(&request.body).expect("JSON");
        let owner = body["organization"].as_str().unwrap_or(USER);
        let name = format!("{owner}/{}", body["name"].as_str().expect("a name"));
        let key = format!("models/{name}");
        if self.repositories.contains_key(&key) {
            return refused(409, "", "You already created this model repo");
        }
        let private = body["private"].as_bool().expect("a boolean");
        self.repositories.insert(
            key,
            Repository {
                private,
                ..Repository::default()
            },
        );
        Answer::json(&json!({ "url": format!("http://{address}/{name}") }))
    }

    /// The files of a revision and the name of its commit.
    fn files(
        &self,
        name: &str,
        revision: &str,
    ) -> Result<(String, BTreeMap<String, Vec<u8>>), Answer> {
        let Some(repository) = self.repositories.get(name) else {
            return Err(refused(404, "RepoNotFound", "Repository not found"));
        };
        let numbered =
            (1..=repository.commits.len()).find(|number| commit_name(*number) == revision);
        let number = match revision {
            "main" => repository.commits.len(),
            _ => numbered.ok_or_else(|| refused(404, "RevisionNotFound", "Invalid rev id"))?,
        };
        let files = repository
            .commits
            .get(number.wrapping_sub(1))
            .map(|commit| commit.files.clone());
        Ok((commit_name(number), files.unwrap_or_default()))
    }

    fn info(&self, name: &str, revision: &str, is_known: bool) -> Answer {
        // The Hub does not tell strangers whether something exists.
        if !is_known && (!self.repositories.contains_key(name) || self.is_gated) {
            return refused(401, "RepoNotFound", "Invalid username or password.");
        }
        match self.files(name, revision) {
            Ok((commit, _)) => {
                let tags = &self.repositories[name].tags;
                let id = name.split_once('/').map(|(_, id)| id);
                Answer::json(&json!({ "id": id, "sha": commit, "tags": tags }))
            }
            Err(answer) => answer,
        }
    }

    fn tree(&self, name: &str, revision: &str, is_wanted: &dyn Fn(&str) -> bool) -> Answer {
        let (_, files) = match self.files(name, revision) {
            Ok(files) => files,
            Err(answer) => return answer,
        };
        let entries = files.iter().filter(|(path, _)| is_wanted(path)).map(|(path, content)| {
            let mut entry = json!({ "type": "file", "oid": git_digest(content), "size": content.len(), "path": path });
            if is_large(path) {
                entry["lfs"] = json!({ "oid": sha256(content), "size": content.len(), "pointerSize": 134 });
            }
            entry
        });
        Answer::json(&entries.collect())
    }

    fn resolve(&self, (name, revision): (&str, &str), path: &str, is_known: bool) -> Answer {
        if self.is_gated && !is_known {
            return refused(401, "GatedRepo", "Access to this repository is restricted.");
        }
        let (commit, files) = match self.files(name, revision) {
            Ok(files) => files,
            Err(answer) => return answer,
        };
        let Some(content) = files.get(path) else {
            return refused(404, "EntryNotFound", "Entry not found").with("x-repo-commit", commit);
        };
        let answer = Answer::new(200, content.clone()).with("x-repo-commit", commit);
        let answer = answer.with("content-length", content.len());
        if !is_large(path) {
            return answer.with("etag", format!("\"{}\"", git_digest(content)));
        }
        let digest = sha256(content);
        let answer = answer
            .with("x-linked-etag", format!("\"{digest}\""))
            .with("x-linked-size", content.len());
        match self.stored.get(&digest) {
            Some(stored) => answer.with("x-xet-hash", stored),
            None => answer,
        }
    }

    fn commit(&mut self, name: &str, body: &[u8]) -> Answer {
        let lines = body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        let lines: Vec<Value> = lines
            .map(|line| serde_json::from_slice(line).expect("JSON"))
            .collect();
        let Some(repository) = self.repositories.get(name) else {
            return refused(404, "RepoNotFound", "Repository not found");
        };
        let mut commit = repository.commits.last().cloned().unwrap_or_default();
        for line in &lines {
            let value = &line["value"];
            let text = |key: &str| value[key].as_str().expect("a text").to_owned();
            match line["key"].as_str() {
                Some("header") => commit.message = text("summary"),
                Some("file") => {
                    let content = STANDARD.decode(text("content")).expect("base64");
                    commit.files.insert(text("path"), content);
                }
                Some("lfsFile") => {
                    let Some(content) = self.content(&text("oid")) else {
                        return refused(400, "", "a file of the commit was not uploaded");
                    };
                    commit.files.insert(text("path"), content);
                }
                other => panic!("an operation {other:?}"),
            }
        }
        let repository = self.repositories.get_mut(name).expect("the same");
        repository.commits.push(commit);
        let number = repository.commits.len();
        Answer::json(&json!({ "commitOid": commit_name(number), "commitUrl": "" }))
    }

    /// A large file put together from its chunks, by its digest.
    fn content(&self, digest: &str) -> Option<Vec<u8>> {
        let segments = self.segments.get(self.stored.get(digest)?)?;
        let mut content = Vec::new();
        for segment in segments {
            let object = &self.objects[&segment.object];
            let bounds = chunk_bounds(object);
            let (start, end) = (
                bounds[segment.chunks.0 as usize],
                bounds[segment.chunks.1 as usize],
            );
            let mut part = Cursor::new(&object[start..end]);
            let (bytes, _) =
                xet_core_structures::xorb_object::deserialize_chunks(&mut part).expect("chunks");
            content.extend(bytes);
        }
        Some(content)
    }

    fn store(&mut self, request: &Request, parts: &[&str], address: SocketAddr) -> Answer {
        match (request.method.as_str(), parts) {
            ("POST", ["v1", "xorbs", _, name]) => {
                self.objects
                    .insert((*name).to_owned(), request.body.clone());
                Answer::json(&json!({ "was_inserted": true }))
            }
            ("POST", ["v1", "shards"]) => {
                self.register(&request.body);
                Answer::json(&json!({ "result": 1 }))
            }
            ("GET", ["v1", "reconstructions", name]) => self.reconstruction(name, address),
            ("GET", ["objects", name]) => {
                self.part_of_object(name, request.header("range").expect("a range"))
            }
            _ => Answer::new(404, ""),
        }
    }

    /// A shard says of which chunks files are made.
    fn register(&mut self, shard: &[u8]) {
        let shard =
            MDBMinimalShard::from_reader(&mut Cursor::new(shard), true, true).expect("a shard");
        for file in (0..shard.num_files()).filter_map(|index| shard.file(index)) {
            let segment = |index| {
                let entry = file.entry(index);
                Segment {
                    object: entry.xorb_hash.hex(),
                    bytes: entry.unpacked_segment_bytes,
                    chunks: (entry.chunk_index_start, entry.chunk_index_end),
                }
            };
            let name = file.file_hash().hex();
            self.segments
                .insert(name.clone(), (0..file.num_entries()).map(segment).collect());
            let metadata = file.metadata_ext().expect("the digest of the content");
            self.stored.insert(metadata.sha256.hex(), name);
        }
    }

    fn reconstruction(&self, name: &str, address: SocketAddr) -> Answer {
        let Some(segments) = self.segments.get(name) else {
            return Answer::new(404, "");
        };
        let range =
            |segment: &Segment| json!({ "start": segment.chunks.0, "end": segment.chunks.1 });
        let terms = segments.iter().map(|segment| {
            json!({ "hash": segment.object, "unpacked_length": segment.bytes, "range": range(segment) })
        });
        let mut fetch: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for segment in segments {
            let bounds = chunk_bounds(&self.objects[&segment.object]);
            let (start, end) = (
                bounds[segment.chunks.0 as usize],
                bounds[segment.chunks.1 as usize],
            );
            fetch.entry(&segment.object).or_default().push(json!({
                "range": range(segment),
                "url": format!("http://{address}/cas/objects/{}?X-Signature=secret", segment.object),
                "url_range": { "start": start, "end": end - 1 },
            }));
        }
        Answer::json(&json!({
            "offset_into_first_range": 0, "terms": terms.collect::<Vec<_>>(), "fetch_info": fetch,
        }))
    }

    fn part_of_object(&self, name: &str, range: &str) -> Answer {
        let (start, end) = range
            .trim_start_matches("bytes=")
            .split_once('-')
            .expect("a range");
        let (start, end): (usize, usize) = (
            start.parse().expect("a number"),
            end.parse().expect("a number"),
        );
        Answer::new(206, &self.objects[name][start..=end])
    }
}

/// Where the chunks of an object begin, and where the last one ends.
fn chunk_bounds(object: &[u8]) -> Vec<usize> {
    let mut bounds = vec![0];
    let mut position = 0;
    // Version, three bytes of length as stored, scheme, three bytes of length. After the chunks comes the footer.
    while let Some([0, a, b, c, ..]) = object.get(position..position + 8) {
        position += 8 + u32::from_le_bytes([*a, *b, *c, 0]) as usize;
        bounds.push(position);
    }
    bounds
}

fn preupload(request: &Request) -> Answer {
    let body: Value = serde_json::from_slice(&request.body).expect("JSON");
    let mode = |file: &Value| {
        let path = file["path"].as_str().expect("a path");
        let mode = if is_large(path) { "lfs" } else { "regular" };
        json!({ "path": path, "uploadMode": mode })
    };
    let files: Vec<Value> = body["files"]
        .as_array()
        .expect("files")
        .iter()
        .map(mode)
        .collect();
    Answer::json(&json!({ "files": files }))
}

fn decoded(part: &str) -> String {
    part.replace("%2F", "/").replace("%20", " ")
}
