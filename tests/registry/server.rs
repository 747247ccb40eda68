//! A registry on loopback that speaks the distribution API and has faults on demand. Written by hand, because no server
//! that behaves can show what the program does with one that does not.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::{Request, listen};
use crate::support::sha256;

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// One byte of each blob is another.
    ChangedBlob,
    /// One byte of each manifest is another.
    ChangedManifest,
    /// Blobs end early, this often.
    Truncated(usize),
    /// As `Truncated`, and parts are sent from the beginning although only the rest was asked for.
    IgnoresRanges(usize),
    /// Half of each blob is sent, then nothing for longer than a test waits.
    Stalls,
    /// Blobs are longer than the manifest says.
    Endless,
    /// Manifests are as long as this.
    HugeManifest(usize),
    /// The next so many requests get this status and, if there is one, `Retry-After`.
    Status(usize, u16, Option<u64>),
    /// Blobs lie at another server.
    RedirectBlobs(String),
    /// Uploads go to another server.
    UploadElsewhere(String),
    /// Blobs lead back to themselves.
    RedirectLoop,
}

#[derive(Default)]
struct State {
    blobs: BTreeMap<String, Vec<u8>>,
    /// By repository and tag or digest.
    manifests: BTreeMap<(String, String), Vec<u8>>,
    uploads: usize,
    fault: Option<Fault>,
    /// User and password that the token service wants.
    login: Option<(String, String)>,
    /// Whether referrers are listed.
    referrers: bool,
    /// Without their bodies.
    seen: Vec<Request>,
}

impl State {
    fn tags(&self, repository: &str) -> Vec<String> {
        let names = self.manifests.keys();
        let names = names.filter(|(held, _)| held == repository);
        names
            .map(|(_, name)| name.clone())
            .filter(|name| !name.starts_with("sha256:"))
            .collect()
    }
}

/// The server; it goes away with the process.
#[derive(Clone)]
pub struct Registry {
    pub address: String,
    state: Arc<Mutex<State>>,
}

/// An answer.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Bytes of the body that are sent before the connection ends.
    sent: usize,
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self {
            status,
            headers: Vec::new(),
            sent: body.len(),
            body,
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn error(status: u16, code: &str) -> Self {
        let body = json!({"errors": [{"code": code, "message": "as the test asks for"}]});
        Self::new(status, body.to_string())
    }
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", sha256(bytes))
}

impl Registry {
    pub fn start() -> Self {
        let state = Arc::<Mutex<State>>::default();
        let own = state.clone();
        let address = listen(move |stream, address| {
            let registry = Self {
                address: address.to_string(),
                state: own.clone(),
            };
            registry.serve(stream);
        });
        Self {
            address: address.to_string(),
            state,
        }
    }

    /// `oci://` and a repository here.
    pub fn place(&self, repository: &str) -> String {
        format!("oci://{}/{repository}", self.address)
    }

    pub fn break_it(&self, fault: Fault) {
        self.lock().fault = Some(fault);
    }

    pub fn repair(&self) {
        self.lock().fault = None;
    }

    pub fn require_login(&self, user: &str, password: &str) {
        self.lock().login = Some((user.to_owned(), password.to_owned()));
    }

    pub fn list_referrers(&self) {
        self.lock().referrers = true;
    }

    /// What was asked since the last call.
    pub fn seen(&self) -> Vec<Request> {
        std::mem::take(&mut self.lock().seen)
    }

    /// Lets a tag name what another names.
    pub fn move_tag(&self, repository: &str, tag: &str, to: &str) {
        let mut state = self.lock();
        let manifest = state.manifests[&(repository.to_owned(), to.to_owned())].clone();
        state
            .manifests
            .insert((repository.to_owned(), tag.to_owned()), manifest);
    }

    /// Gives this one all blobs of another.
    pub fn copy_blobs(&self, other: &Self) {
        let blobs = other.lock().blobs.clone();
        self.lock().blobs.extend(blobs);
    }

    /// Takes a manifest away.
    pub fn remove(&self, repository: &str, tag: &str) {
        self.lock()
            .manifests
            .remove(&(repository.to_owned(), tag.to_owned()));
    }

    pub fn manifest(&self, repository: &str, tag: &str) -> Value {
        let state = self.lock();
        let manifest = &state.manifests[&(repository.to_owned(), tag.to_owned())];
        serde_json::from_slice(manifest).expect("JSON")
    }

    /// Puts a manifest here as it is.
    pub fn put_manifest(&self, repository: &str, tag: &str, manifest: &[u8]) {
        let mut state = self.lock();
        for name in [tag.to_owned(), digest(manifest)] {
            state
                .manifests
                .insert((repository.to_owned(), name), manifest.to_vec());
        }
    }

    pub fn tags(&self, repository: &str) -> Vec<String> {
        self.lock().tags(repository)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no test thread panicked here")
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
        let mut stream = stream;
        loop {
            let Some(mut seen) = Request::read(&mut reader) else {
                return;
            };
            let body = std::mem::take(&mut seen.body);
            let head = seen.method == "HEAD";
            let answer = self.answer(&seen, body);
            self.lock().seen.push(seen);
            let mut text = format!(
                "HTTP/1.1 {} x\r\ncontent-length: {}\r\n",
                answer.status,
                answer.body.len()
            );
            for (name, value) in &answer.headers {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
            text.push_str("\r\n");
            let body = if head {
                &[][..]
            } else {
                &answer.body[..answer.sent]
            };
            let written = stream
                .write_all(text.as_bytes())
                .and_then(|()| stream.write_all(body));
            if self.lock().fault == Some(Fault::Stalls) && answer.sent < answer.body.len() {
                thread::sleep(Duration::from_secs(60));
            }
            if written.is_err() || answer.sent < answer.body.len() {
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
        }
    }

    fn answer(&self, seen: &Request, body: Vec<u8>) -> Answer {
        let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
        let mut state = self.lock();
        if let Some(Fault::Status(left, status, after)) = state.fault.clone()
            && left > 0
        {
            state.fault = Some(Fault::Status(left - 1, status, after));
            let answer = Answer::error(status, "TOOMANYREQUESTS");
            return match after {
                Some(seconds) => answer.with("retry-after", seconds.to_string()),
                None => answer,
            };
        }
        if path == "/token" {
            return token(&state, seen);
        }
        if state.login.is_some() && seen.header("authorization") != Some("Bearer good") {
            let challenge = format!(
                "Bearer realm=\"http://{}/token\",service=\"test\"",
                self.address
            );
            return Answer::error(401, "UNAUTHORIZED").with("www-authenticate", challenge);
        }
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let at = |word: &str| parts.iter().rposition(|part| *part == word);
        if let Some(position) = at("uploads") {
            return self.upload(
                &mut state,
                &seen.method,
                (query, &parts[1..position - 1].join("/")),
                body,
            );
        }
        if let Some(position) = at("blobs") {
            return blob(&mut state, seen, parts[position + 1]);
        }
        if let Some(position) = at("manifests") {
            let key = (parts[1..position].join("/"), parts[position + 1].to_owned());
            return manifest(&mut state, &seen.method, key, body);
        }
        if let Some(position) = at("tags") {
            let repository = parts[1..position].join("/");
            let tags = state.tags(&repository);
            return match tags.is_empty() {
                true => Answer::error(404, "NAME_UNKNOWN"),
                false => Answer::new(200, json!({"name": repository, "tags": tags}).to_string()),
            };
        }
        if let Some(position) = at("referrers")
            && state.referrers
        {
            return referrers(&state, &parts[1..position].join("/"), parts[position + 1]);
        }
        match path {
            "/v2/" => Answer::new(200, "{}"),
            _ => Answer::error(404, "NOT_FOUND"),
        }
    }

    fn upload(
        &self,
        state: &mut State,
        method: &str,
        (query, repository): (&str, &str),
        body: Vec<u8>,
    ) -> Answer {
        if method == "POST" {
            state.uploads += 1;
            let path = format!("/v2/{repository}/blobs/uploads/{}?state=1", state.uploads);
            let location = match &state.fault {
                Some(Fault::UploadElsewhere(address)) => format!("http://{address}{path}"),
                _ => path,
            };
            return Answer::new(202, "").with("location", location);
        }
        let wanted = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("digest="));
        let wanted = wanted.unwrap_or_default().replace("%3A", ":");
        if wanted != digest(&body) {
            return Answer::error(400, "DIGEST_INVALID");
        }
        state.blobs.insert(wanted, body);
        Answer::new(201, "")
    }
}

fn token(state: &State, seen: &Request) -> Answer {
    let Some((user, password)) = &state.login else {
        return Answer::error(404, "NOT_FOUND");
    };
    let expected = format!("Basic {}", base64(&format!("{user}:{password}")));
    match seen.header("authorization") == Some(&expected) {
        true => Answer::new(200, json!({"token": "good"}).to_string()),
        false => Answer::error(401, "UNAUTHORIZED"),
    }
}

pub fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

fn blob(state: &mut State, seen: &Request, wanted: &str) -> Answer {
    let Some(mut bytes) = state.blobs.get(wanted).cloned() else {
        return Answer::error(404, "BLOB_UNKNOWN");
    };
    match state.fault.clone() {
        Some(Fault::RedirectBlobs(address)) => {
            return Answer::new(307, "").with("location", format!("http://{address}{}", seen.path));
        }
        Some(Fault::RedirectLoop) => {
            return Answer::new(302, "").with("location", seen.path.clone());
        }
        Some(Fault::ChangedBlob) => bytes[0] ^= 1,
        Some(Fault::Endless) => bytes.extend([0; 100_000]),
        _ => {}
    }
    let range = seen
        .header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
    let from: usize = range.map_or(0, |from| from.parse().expect("a number"));
    let whole = bytes.len();
    let (mut answer, ignored) = match (from, &state.fault) {
        (0, _) => (Answer::new(200, bytes), false),
        (_, Some(Fault::IgnoresRanges(_))) => (Answer::new(200, bytes), true),
        _ => {
            let range = format!("bytes {from}-{}/{whole}", whole - 1);
            (
                Answer::new(206, &bytes[from..]).with("content-range", range),
                false,
            )
        }
    };
    match state.fault.clone() {
        Some(Fault::Stalls) => answer.sent = answer.body.len() / 2,
        Some(Fault::Truncated(left)) if left > 0 => {
            answer.sent = answer.body.len() / 2;
            state.fault = Some(Fault::Truncated(left - 1));
        }
        Some(Fault::IgnoresRanges(left)) if left > 0 && !ignored => {
            answer.sent = answer.body.len() / 2;
            state.fault = Some(Fault::IgnoresRanges(left - 1));
        }
        _ => {}
    }
    answer
}

fn manifest(state: &mut State, method: &str, key: (String, String), body: Vec<u8>) -> Answer {
    if method == "PUT" {
        let name = digest(&body);
        state
            .manifests
            .insert((key.0.clone(), name.clone()), body.clone());
        state.manifests.insert(key, body);
        return Answer::new(201, "").with("docker-content-digest", name);
    }
    let Some(mut bytes) = state.manifests.get(&key).cloned() else {
        return Answer::error(404, "MANIFEST_UNKNOWN");
    };
    let name = digest(&bytes);
    match &state.fault {
        Some(Fault::ChangedManifest) => {
            let position = bytes.len() - 2;
            bytes[position] ^= 1;
        }
        Some(Fault::HugeManifest(length)) => bytes.resize(*length, b' '),
        _ => {}
    }
    Answer::new(200, bytes)
        .with("content-type", "application/vnd.oci.image.manifest.v1+json")
        .with("docker-content-digest", name)
}

fn referrers(state: &State, repository: &str, subject: &str) -> Answer {
    let mut found = Vec::new();
    for ((held, name), bytes) in &state.manifests {
        let manifest: Value = serde_json::from_slice(bytes).unwrap_or_default();
        if held == repository
            && name.starts_with("sha256:")
            && manifest["subject"]["digest"] == subject
        {
            found.push(json!({
                "mediaType": manifest["mediaType"],
                "digest": name,
                "size": bytes.len(),
                "artifactType": manifest["artifactType"],
            }));
        }
    }
    Answer::new(
        200,
        json!({"schemaVersion": 2, "manifests": found}).to_string(),
    )
}
