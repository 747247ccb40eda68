//! What tests share: the program in a temporary folder, fixtures, and requirements on the machine.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

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

    /// `host <subcommand>`, one thread.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
        command
            .arg(subcommand)
            .current_dir(self.folder())
            .env("OMP_NUM_THREADS", "1")
            .env("HF_HOME", self.path(".hf"))
            .stdin(Stdio::null());
        // Who runs the tests may be logged in.
        for name in [
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

    /// Runs `host` with the words of a line.
    pub fn run(&self, line: &str) -> Ended {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().expect("a subcommand"));
        command.args(words);
        ended(&command.output().expect("the program runs"))
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
}

/// Whether the machine has it. If not, the test says that it is skipped; it fails where `HOST_TEST_REQUIRE` names the
/// requirement (or `all`), so that a machine that must have everything cannot skip silently.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
pub fn requires(requirement: Requirement) -> bool {
    let (name, probe) = match requirement {
        Requirement::Namespaces => (
            "namespaces",
            &["unshare", "--map-root-user", "--mount", "true"],
        ),
    };
    let [program, arguments @ ..] = probe;
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

/// A shell script in namespaces of its own, where it may mount; what is added to the command are the script's arguments.
pub fn in_namespaces(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command
}

/// A file or folder of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}
