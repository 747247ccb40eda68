//! Compiling: in a child with limits, kept under a seal, compiled again when anything does not fit.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use host::error::{Kind, kind_of};
use host::plugin::{COMPILE_ARGUMENT, Environment, Spec, load};

use super::{environment, guest, official, told};

fn fresh(folder: &Path) -> Environment {
    Environment {
        cache_dir: Some(folder.join("cache")),
        ..environment()
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(folder.join("cache"))
        .expect("a cache")
        .map(|entry| entry.expect("an entry").path());
    all.filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "cwasm")
    })
    .collect()
}

#[test]
fn a_tampered_or_foreign_entry_is_compiled_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let environment = fresh(folder.path());
    let plugin = Spec::new(&official("argmax"));
    load(&plugin, &environment).expect("loads");
    let [entry] = &entries(folder.path())[..] else {
        panic!("one entry")
    };
    let good = fs::read(entry).expect("an entry");
    for damage in [
        &mut |bytes: &mut Vec<u8>| bytes[5000] ^= 1,
        &mut |bytes: &mut Vec<u8>| bytes.truncate(5000),
        &mut |bytes: &mut Vec<u8>| bytes.clear(),
    ] as [&mut dyn FnMut(&mut Vec<u8>); 3]
    {
        let mut bad = good.clone();
        damage(&mut bad);
        fs::write(entry, bad).expect("written");
        load(&plugin, &environment).expect("compiled again");
        assert!(
            fs::read(entry).expect("an entry") == good,
            "the entry is as it was"
        );
    }
}

#[test]
fn a_kept_component_is_not_compiled_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut environment = fresh(folder.path());
    let plugin = Spec::new(&official("argmax"));
    load(&plugin, &environment).expect("loads");
    environment.compiler = Some("/nowhere/compiler".into());
    load(&plugin, &environment).expect("from the cache");
    let error =
        load(&Spec::new(&official("early_stopping")), &environment).expect_err("must be compiled");
    assert!(
        told(&error).contains("starting /nowhere/compiler to compile plugin `early_stopping`"),
        "{}",
        told(&error)
    );
}

#[test]
fn a_compiler_out_of_memory_is_one_clear_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut spec = Spec::new(&guest("hostile"));
    spec.limits.set("compile_memory", "24MiB").expect("a limit");
    let error = load(&spec, &fresh(folder.path())).expect_err("refused");
    let text = "plugin `hostile`: compiling it went over the limit `compile_memory` of 24 MiB hint: raise it with \
                --plugin_limit hostile.compile_memory=48MiB";
    assert_eq!(told(&error), text);
    assert_eq!(kind_of(&error), Kind::Data);
}

/// A component whose core module has one function of so many nested blocks and additions.
fn bomb(functions: usize, instructions: usize) -> Vec<u8> {
    let leb = |mut number: usize| {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    };
    let section = |id: u8, content: Vec<u8>| [vec![id], leb(content.len()), content].concat();
    // local.get 0, i64.const 3, i64.mul, local.get 0, i64.xor, local.set 0
    let step = [0x20, 0, 0x42, 3, 0x7e, 0x20, 0, 0x85, 0x21, 0];
    let body = [vec![0], step.repeat(instructions), vec![0x0b]].concat();
    let code = [leb(body.len()), body].concat();
    let types = section(1, vec![1, 0x60, 1, 0x7e, 0]);
    let declared = section(3, [leb(functions), vec![0; functions]].concat());
    let codes = section(10, [leb(functions), code.repeat(functions)].concat());
    let module = [b"\0asm\x01\0\0\0".to_vec(), types, declared, codes].concat();
    [b"\0asm\x0d\0\x01\0".to_vec(), section(1, module)].concat()
}

#[test]
fn a_compile_bomb_is_ended_by_the_limit_of_its_process() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_host-engine"))
        .args([COMPILE_ARGUMENT, "4294967296", "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program runs");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(&bomb(400, 20_000)).expect("taken");
    drop(input);
    let status = child.wait().expect("an end");
    // SIGXCPU at the soft limit, SIGKILL at the hard one: both are the same second.
    assert!(matches!(status.signal(), Some(9 | 24)), "{status:?}");
}

#[test]
fn the_child_answers_only_its_own_call() {
    let output = Command::new(env!("CARGO_BIN_EXE_host-engine"))
        .args([COMPILE_ARGUMENT, "much"])
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("for internal use"),
        "{output:?}"
    );
}
