//! Help texts.

use crate::support::Host;

#[test]
fn help_of_the_program_names_every_command() {
    let ended = Host::new().run("--help");
    assert_eq!(ended.code, Some(0));
    for command in ["train", "evaluate", "predict", "args"] {
        assert!(
            ended.stdout.contains(&format!("\n  {command} ")),
            "{command}: {}",
            ended.stdout
        );
    }
}

#[test]
fn help_of_a_command_shows_its_arguments_grouped_with_defaults() {
    for line in [
        "train --help",
        "train -h",
        "help train",
        "train run.toml --seed 1 --help",
        "eval --help",
        "predict --help",
    ] {
        let ended = Host::new().run(line);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{line}");
        for part in [
            "Usage: host ",
            "\nOptimizer and schedule:\n",
            "  --learning_rate <float>",
            "[default: 5e-5]",
            "[no, steps, epoch]",
        ] {
            assert!(
                ended.stdout.contains(part),
                "{line} without {part}: {}",
                ended.stdout
            );
        }
        assert!(
            !ended.stdout.contains("--ddp_timeout "),
            "a refused argument is offered: {line}"
        );
    }
}

#[test]
fn the_version_is_shown() {
    let ended = Host::new().run("--version");
    assert_eq!(
        (ended.code, ended.stdout.trim()),
        (Some(0), concat!("host ", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    use std::process::Stdio;
    let mut child = Host::new()
        .command("args")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("the program ends");
    assert_eq!(
        (ended.status.code(), ended.stderr.as_slice()),
        (Some(0), &b""[..])
    );
}
