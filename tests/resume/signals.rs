//! SIGTERM, SIGINT, SIGHUP and SIGUSR1: a checkpoint is committed and the run ends as resumable; a second signal ends it
//! at once.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{checkpoints, remains, small_run};
use crate::support::Host;

const EXIT_STOPPED: i32 = 75;

fn start(mut command: Command) -> Child {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(child.id().to_string())
        .status();
    assert!(status.expect("kill").success());
}

/// A run that takes its time: the small run over many epochs.
fn long_run(host: &Host, output: &Path) -> Command {
    small_run(
        host,
        output,
        "--num_train_epochs 2000 --save_steps 2 --save_total_limit 2",
    )
}

#[test]
fn the_first_signal_commits_a_checkpoint() {
    for name in ["TERM", "INT", "HUP", "USR1"] {
        let host = Host::new();
        let output = host.path("out");
        let child = start(long_run(&host, &output));
        wait_for("a checkpoint", || !checkpoints(&output).is_empty());
        signal(&child, name);
        let ended = child.wait_with_output().expect("an end");
        let text = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(EXIT_STOPPED), "SIG{name}: {text}");
        let newest = *checkpoints(&output).last().expect("a checkpoint");
        assert!(
            text.contains(&format!("checkpoint-{newest}")),
            "SIG{name}: {text}"
        );
        let state =
            fs::read_to_string(output.join(format!("checkpoint-{newest}/trainer_state.json")))
                .expect("the state");
        assert!(
            state.contains(&format!("\"global_step\": {newest}")),
            "SIG{name}: {state}"
        );
    }
}

#[test]
fn a_stopped_run_goes_on_as_if_it_had_not_been() {
    let host = Host::new();
    let (whole, output) = (host.path("whole"), host.path("out"));
    let arguments = "--num_train_epochs 12 --save_steps 60";
    host.succeeds(small_run(&host, &whole, arguments));
    let child = start(small_run(&host, &output, arguments));
    wait_for("the output folder", || output.join(".lock").exists());
    std::thread::sleep(Duration::from_millis(700));
    signal(&child, "TERM");
    let ended = child.wait_with_output().expect("an end");
    // Fast machines may have finished; then there is nothing to resume and nothing to compare but the result.
    if ended.status.code() == Some(EXIT_STOPPED) {
        let mut command = small_run(&host, &output, arguments);
        command.args(["--resume_from_checkpoint", "true"]);
        host.succeeds(command);
    } else {
        assert!(
            ended.status.success(),
            "{}",
            String::from_utf8_lossy(&ended.stderr)
        );
    }
    assert_eq!(remains(&output, 60), remains(&whole, 60));
}

#[test]
fn a_second_signal_ends_the_run_at_once() {
    let host = Host::new();
    let output = host.path("out");
    let child = start(long_run(&host, &output));
    wait_for("a checkpoint", || !checkpoints(&output).is_empty());
    signal(&child, "STOP");
    // Both are pending when the process continues; the second finds the first.
    signal(&child, "TERM");
    signal(&child, "INT");
    signal(&child, "CONT");
    let ended = child.wait_with_output().expect("an end");
    assert!(!ended.status.success());
    let mut command = long_run(&host, &output);
    command.args(["--resume_from_checkpoint", "true", "--max_steps", "4"]);
    host.succeeds(command);
}
