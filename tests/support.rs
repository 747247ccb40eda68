//! What tests share: the program in a temporary folder, fixtures, and requirements on the machine.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// The program and a folder of its own, which is its current folder and goes away with it.
pub struct Host {
    folder: TempDir,
}

/// How a command ended.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Host {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, and the folders above it.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder above")).expect("a folder");
        fs::write(&path, content).expect("a file");
        path
    }

    /// A file as JSON.
    pub fn json(&self, name: &str) -> Value {
        let text =
            fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// `host <subcommand>`, one thread; compiled plugins are shared by the tests.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
        command
            .arg(subcommand)
            .current_dir(self.folder())
            .env("OMP_NUM_THREADS", "1")
            .env("HF_HOME", self.path(".hf"))
            .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
            .stdin(Stdio::null());
        // Who runs the tests may be logged in, and a proxy of the machine knows no loopback.
        for name in [
            "http_proxy",
            "HTTP_PROXY",
            "all_proxy",
            "ALL_PROXY",
            "HF_TOKEN",
            "HUGGING_FACE_HUB_TOKEN",
            "HF_TOKEN_PATH",
            "HF_ENDPOINT",
            "HF_HUB_CACHE",
            "HUGGINGFACE_HUB_CACHE",
            "HF_HUB_OFFLINE",
            "TRANSFORMERS_OFFLINE",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// `host` with the words of a line.
    pub fn line(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().expect("a subcommand"));
        command.args(words);
        command
    }

    /// Runs `host` with the words of a line.
    pub fn run(&self, line: &str) -> Ended {
        ended(&self.line(line).output().expect("the program runs"))
    }

    /// Runs a command that must succeed, and gives what it printed.
    pub fn succeeds(&self, mut command: Command) -> String {
        let ended = ended(&command.output().expect("the program runs"));
        let shown = format!("{}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.code, Some(0), "{command:?}\n{shown}");
        shown
    }
}

/// What a command printed, as text.
pub fn ended(output: &Output) -> Ended {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended {
        code: output.status.code(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

/// What a test needs from the machine.
#[derive(Clone, Copy, Debug)]
pub enum Requirement {
    /// User and mount namespaces, to mount file systems of a test's own.
    Namespaces,
    /// Debian's server for container registries.
    DockerRegistry,
}

/// Whether the machine has it. If not, the test says that it is skipped; it fails where `HOST_TEST_REQUIRE` names the
/// requirement (or `all`), so that a machine that must have everything cannot skip silently.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
pub fn requires(requirement: Requirement) -> bool {
    let (name, probe) = match requirement {
        Requirement::Namespaces => (
            "namespaces",
            &["unshare", "--map-root-user", "--mount", "true"][..],
        ),
        Requirement::DockerRegistry => ("docker-registry", &["docker-registry", "--version"][..]),
    };
    let (program, arguments) = probe.split_first().expect("a program");
    let has_it = Command::new(program)
        .args(arguments)
        .output()
        .is_ok_and(|output| output.status.success());
    let required = env::var("HOST_TEST_REQUIRE").unwrap_or_default();
    if !has_it {
        assert!(
            !required
                .split(',')
                .any(|word| word == name || word == "all"),
            "this machine must have {name}"
        );
        eprintln!("skipped: this machine has no {name}");
    }
    has_it
}

/// A shell script in namespaces of its own, where it may mount; its arguments are these and then a command, whose folder and
/// environment it has.
pub fn in_namespaces(script: &str, arguments: &[&OsStr], command: &Command) -> Command {
    let mut shell = Command::new("unshare");
    shell
        .args(["--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .args(arguments)
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    shell
}

/// Waits until something is so, at most as long as said.
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Copies the files of a folder, which holds no other folders.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("a copy");
    }
}

/// A file below a folder that holds a text, if there is one.
pub fn holder_of(text: &str, folder: &Path) -> Option<PathBuf> {
    let holds = |path: &Path| {
        let content = match fs::read(path) {
            // A link that leads nowhere.
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            content => content.expect("a file"),
        };
        content
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    entries.map(|entry| entry.path()).find_map(|path| {
        if path.is_dir() {
            holder_of(text, &path)
        } else {
            holds(&path).then_some(path)
        }
    })
}

/// The SHA-256 of bytes in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file or folder of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}
