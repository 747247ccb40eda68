//! What a granted capability gives, to the letter, and what it does not give.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use host::plugin::{Environment, Grants, load};
use serde_json::json;

use super::server::{Server, answer};
use super::{environment, guest, pass, spec, told};

const GRANTS: &[&str] = &[
    "clock",
    "env:CAPABLE_WORD",
    "read:{corpus}",
    "write:output",
    "net:{server} GET POST",
    "net:https://api.example.org POST",
    "secret:CAPABLE_TOKEN -> {server}",
];

fn variable(name: &str) -> Option<String> {
    let value = match name {
        "CAPABLE_WORD" => "blue",
        "CAPABLE_TOKEN" => "s3cret",
        "HOME" => "/root",
        _ => return None,
    };
    Some(value.to_owned())
}

/// A run in a folder whose plugin finds two files in `corpus`.
struct Run {
    folder: tempfile::TempDir,
}

impl Run {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("corpus")).expect("made");
        fs::write(folder.path().join("corpus/a.txt"), "words").expect("written");
        fs::write(folder.path().join("outside.txt"), "outside").expect("written");
        Self { folder }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// What the guest says about its attempts, one text each.
    fn attempts(&self, server: &str, attempts: &[&str], limits: &[(&str, &str)]) -> Vec<String> {
        let told = self.tell(server, attempts, limits);
        let told = told
            .trim_start_matches("plugin `capable`: whole-metrics.compute-metrics, call 1: ")
            .trim_end_matches(" (data)");
        told.split("; ").map(str::to_owned).collect()
    }

    fn tell(&self, server: &str, attempts: &[&str], limits: &[(&str, &str)]) -> String {
        let corpus = self.path("corpus");
        let config = json!({"attempts": attempts, "corpus": corpus, "server": server});
        let mut spec = spec(&guest("capable"), &config, limits);
        spec.grants = Grants::parse(GRANTS).expect("valid");
        let environment = Environment {
            output_dir: self.path("out"),
            logging_dir: self.path("out/runs"),
            variable: Some(variable),
            ..environment()
        };
        let plugin = load(&spec, &environment).expect("granted");
        let mut metric = plugin.metrics().remove(0);
        told(&pass(&mut *metric, 1).expect_err("it tells by an error"))
    }
}

const NOWHERE: &str = "http://127.0.0.1:9";

fn assert_each(told: &[String], expected: &[&str]) {
    for (told, expected) in told.iter().zip(expected) {
        assert!(
            told.starts_with(expected),
            "{told:?} does not begin with {expected:?}"
        );
    }
    assert_eq!(told.len(), expected.len() + 1, "{told:?}");
    assert_eq!(told.last().map(String::as_str), Some("word: blue"));
}

#[test]
fn folders_are_open_as_far_as_they_were_granted_and_no_further() {
    let run = Run::new();
    symlink(run.path("outside.txt"), run.path("corpus/link.txt")).expect("planted");
    symlink("/etc", run.path("corpus/etc")).expect("planted");
    let told = run.attempts(
        NOWHERE,
        &[
            "read /corpus/a.txt",
            "list /corpus",
            "write /output/note.txt hello",
            "append /output/note.txt again",
            "read /output/note.txt",
            "write /corpus/a.txt changed",
            "truncate /corpus/a.txt",
            "read /corpus/../outside.txt",
            "read /corpus/link.txt",
            "read /corpus/etc/hostname",
            "read /etc/hostname",
            "read /proc/self/environ",
            "write /output/../../outside.txt changed",
            "link /corpus/a.txt /output/a.txt",
            "rename /corpus/a.txt /output/a.txt",
            "rename /output/note.txt /corpus/note.txt",
            "list /",
        ],
        &[],
    );
    assert_each(
        &told,
        &[
            "read: ok words",
            "list: ok a.txt,etc,link.txt",
            "write: ok",
            "append: ok",
            "read: ok helloagain",
            "write: failed",
            "truncate: failed",
            "read: failed",
            "read: failed",
            "read: failed",
            "read: failed",
            "read: failed",
            "write: failed",
            "link: failed",
            "rename: failed",
            "rename: failed",
            "list: failed",
        ],
    );
    let unchanged =
        |name: &str, text: &str| assert_eq!(fs::read_to_string(run.path(name)).expect(name), text);
    unchanged("corpus/a.txt", "words");
    unchanged("outside.txt", "outside");
    unchanged("out/plugins/capable/note.txt", "helloagain");
    assert!(!run.path("out/plugins/capable/a.txt").exists());
}

#[test]
fn variables_clock_and_secrets_are_there_by_name() {
    let run = Run::new();
    let told = run.attempts(
        NOWHERE,
        &[
            "env",
            "year",
            "sleep 30",
            "secret CAPABLE_TOKEN",
            "secret HOME",
        ],
        &[],
    );
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a time");
    let year = format!("year: ok {}", 1970 + now.as_secs() / 31_556_952);
    assert_each(
        &told,
        &[
            "env: ok CAPABLE_WORD=blue",
            &year,
            "sleep: ok true",
            "secret: ok true",
            "secret: ok false",
        ],
    );
    assert_eq!(told[0], "env: ok CAPABLE_WORD=blue");
    // A sleep cannot outlast the call.
    let begin = Instant::now();
    let told = run.tell(NOWHERE, &["sleep 60000"], &[("time", "300ms")]);
    assert!(begin.elapsed() < Duration::from_secs(20), "{told}");
    assert!(
        told.contains("sleep: ok false") || told.contains("over the limit `time`"),
        "{told}"
    );
}

#[test]
fn requests_go_where_they_were_granted_with_the_secret_of_the_place() {
    let run = Run::new();
    let other = Server::start(|_| answer("200 OK", "", b"other"));
    let target = other.url.clone();
    let server = Server::start(move |asked| match asked.path.as_str() {
        "/moved" => answer("302 Found", &format!("location: {target}/\r\n"), b""),
        "/echo" => answer("200 OK", "", &asked.body),
        path => answer("404 Not Found", "", path.as_bytes()),
    });
    let port = server.url.rsplit_once(':').expect("a port").1.to_owned();
    let url = &server.url;
    let lines = [
        format!("POST {url}/echo hello"),
        format!("GET {url}/none?x=1"),
        format!("follow {url}/moved"),
        format!("GET {}/", other.url),
        format!("GET http://localhost:{port}/"),
        format!("GET http://[::ffff:127.0.0.1]:{port}/"),
        format!("GET https://127.0.0.1:{port}/"),
        format!("header {url}/echo authorization Bearer-mine"),
        format!("header {url}/echo x-own fineCRLFx-evil:yes"),
        format!("header {url}/echo host evil.example"),
        "GET http://169.254.169.254/latest".to_owned(),
        "GET https://api.example.org/".to_owned(),
        format!("GET http://user@127.0.0.1:{port}/"),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let told = run.attempts(url, &lines, &[]);
    assert_each(
        &told,
        &[
            "POST: ok 200 hello",
            "GET: ok 404 /none?x=1",
            "follow: failed ErrorKind::Denied",
            "GET: failed ErrorKind::Denied",
            "GET: failed ErrorKind::Denied",
            "GET: failed ErrorKind::Denied",
            "GET: failed ErrorKind::Denied",
            "header: ok 200",
            "header: failed",
            "header: failed",
            "GET: failed ErrorKind::Denied",
            "GET: failed ErrorKind::Denied",
            "GET: failed",
        ],
    );
    assert!(other.asked().is_empty());
    let asked = server.asked();
    assert_eq!(asked.len(), 4, "{asked:?}");
    assert_eq!(asked[0].method, "POST");
    for asked in &asked {
        // Also where the guest wrote something else.
        assert_eq!(asked.header("authorization"), Some("Bearer s3cret"));
        assert_eq!(
            asked.header("host"),
            Some(server.url.trim_start_matches("http://"))
        );
    }
}

#[test]
fn a_server_cannot_hold_a_call_up_or_fill_its_memory() {
    let run = Run::new();
    let silent = Server::start(|_| {
        std::thread::sleep(Duration::from_secs(20));
        Vec::new()
    });
    let begin = Instant::now();
    let url = &silent.url;
    let told = run.attempts(url, &[&format!("GET {url}/")], &[("time", "1s")]);
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert!(told[0].contains("Transient"), "{told:?}");

    let endless = Server::start(|_| {
        let mut bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n".to_vec();
        bytes.resize(3 << 20, b'x');
        bytes
    });
    let url = &endless.url;
    let told = run.tell(url, &[&format!("GET {url}/")], &[("network", "1MiB")]);
    assert!(told.contains("over the limit `network` of 1 MiB"), "{told}");
    assert!(
        told.contains("--plugin_limit capable.network=2MiB"),
        "{told}"
    );
    let told = run.tell(url, &[&format!("flood {url}/ 4")], &[("network", "1MiB")]);
    assert!(told.contains("over the limit `network` of 1 MiB"), "{told}");

    let headers = Server::start(|_| {
        let many: String = (0..40_000)
            .map(|number| format!("x-{number}: y\r\n"))
            .collect();
        answer("200 OK", &many, b"")
    });
    let broken = Server::start(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".to_vec());
    for server in [&headers, &broken] {
        let url = &server.url;
        let told = run.attempts(url, &[&format!("GET {url}/")], &[("time", "2s")]);
        assert!(told[0].starts_with("GET: failed"), "{told:?}");
    }
}

#[test]
fn a_folder_that_cannot_be_opened_is_refused_before_the_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut spec = spec(
        &guest("capable"),
        &json!({"corpus": folder.path().join("none")}),
        &[],
    );
    spec.grants = Grants::parse(GRANTS).expect("valid");
    let environment = Environment {
        output_dir: folder.path().to_owned(),
        ..environment()
    };
    let error = load(&spec, &environment).expect_err("no such folder");
    assert!(
        told(&error).contains("plugin `capable`: the folder "),
        "{}",
        told(&error)
    );
}
