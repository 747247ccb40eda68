//! The attacks, by name. What is no attack of a place does nothing there.

use trainer_sdk::{Batch, Checkpoint, Ctx, Dtype, Error, Level, Result, Run, Tensor, log};

use crate::HELD;

/// Those that need nothing but a processor.
pub fn compute(attack: &str) -> Result<()> {
    match attack {
        "loop" => loop {
            core::hint::black_box(0);
        },
        "memory" => {
            let mut hoard: Vec<Vec<u8>> = Vec::new();
            loop {
                hoard.push(vec![1; 16 << 20]);
                core::hint::black_box(&hoard);
            }
        }
        "panic" => panic!("the sky is \u{1b}[31mfalling"),
        "recursion" => {
            core::hint::black_box(dig(1));
        }
        "error" => return Err(Error::data("cannot \u{7}read\nthis")),
        "exit" => std::process::exit(3),
        "sleep" => std::thread::sleep(std::time::Duration::from_secs(1 << 30)),
        "print-flood" => {
            for line in 0..100_000 {
                println!("line {line} of a flood that would fill a disk");
            }
            panic!("after the flood");
        }
        "log-flood" => {
            for line in 0..100_000 {
                log(Level::Info, &format!("line {line}"));
            }
        }
        "wasi" => probe_wasi()?,
        "handles" => {
            let mut hoard = Vec::new();
            for _ in 0..1_000_000 {
                hoard.push(Tensor::full(Dtype::Unsigned8, &[1], 0.0)?);
            }
        }
        "handle-churn" => {
            for _ in 0..20_000 {
                Tensor::full(Dtype::Unsigned8, &[1], 0.0)?;
            }
        }
        "handles-unwrap" => {
            let hoard: Vec<Tensor> = (0..1_000_000)
                .map(|_| Tensor::full(Dtype::Unsigned8, &[1], 0.0).unwrap())
                .collect();
            core::hint::black_box(hoard);
        }
        "tensors" => {
            Tensor::full(Dtype::Float32, &[1 << 20, 1 << 10], 0.0)?;
        }
        "broadcast" => {
            let (row, column) = (
                Tensor::full(Dtype::Float32, &[1, 100_000], 0.0)?,
                Tensor::full(Dtype::Float32, &[100_000, 1], 0.0)?,
            );
            (&row + &column)?;
        }
        "bincount" => {
            Tensor::from_signed64(&[1], &[1 << 40])?.bincount(10)?;
        }
        "reads" => {
            let tensor = Tensor::full(Dtype::Float32, &[1 << 20], 0.0)?;
            for _ in 0..100 {
                tensor.read_float32(0, 1 << 20)?;
            }
        }
        "huge-send" => {
            Tensor::from_bytes(Dtype::Unsigned8, &[64 << 20], &vec![0; 64 << 20])?;
        }
        _ => {}
    }
    Ok(())
}

/// Uses up the machine's stack before the one that the guest keeps in its own memory.
#[inline(never)]
fn dig(depth: u64) -> u64 {
    if depth == u64::MAX {
        return 0;
    }
    let deeper: fn(u64) -> u64 = core::hint::black_box(dig);
    deeper(depth + 1).rotate_left(5) ^ depth
}

/// What WASI must not give.
fn probe_wasi() -> Result<()> {
    let found = |what: &str| Err(Error::fatal(format!("WASI gave away {what}")));
    if std::env::vars().next().is_some() {
        return found("the environment");
    }
    if std::env::args().next().is_some() {
        return found("arguments");
    }
    for path in ["/etc/passwd", ".", "..", "/proc/self/mem"] {
        if std::fs::metadata(path).is_ok() || std::fs::File::open(path).is_ok() {
            return found(path);
        }
    }
    if std::net::TcpStream::connect("127.0.0.1:80")
        .err()
        .is_none_or(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    {
        return found("the network");
    }
    let since = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    if since.as_secs() > 1 << 31 || (since.as_secs() > 1_000_000 && since.as_secs() < 1 << 29) {
        return found("the time");
    }
    Ok(())
}

/// Those that use a batch.
pub fn batch(attack: &str, batch: &Batch<'_>) -> Result<()> {
    match attack {
        "hold" => HELD.set(Some(batch.logits()?.add_scalar(1.0)?)),
        "use-held" => {
            let before = HELD.take();
            HELD.set(Some(batch.logits()?.add_scalar(1.0)?));
            if let Some(tensor) = before {
                tensor.sum_all()?.item()?;
            }
        }
        "use-kept" => {
            let before = HELD.take();
            HELD.set(Some(batch.logits()?.add_scalar(1.0)?.keep()?));
            if let Some(tensor) = before {
                tensor.sum_all()?.item()?;
            }
        }
        _ => compute(attack)?,
    }
    Ok(())
}

/// Those that return numbers.
pub fn numbers(attack: &str, updates: u64) -> Result<Vec<(String, f64)>> {
    let one = |name: &str| Ok(vec![(name.to_owned(), 1.0)]);
    match attack {
        "million-names" => Ok((0..1_000_000)
            .map(|number| (format!("m{number}"), 0.0))
            .collect()),
        "too-many-names" => Ok((0..1_001)
            .map(|number| (format!("m{number}"), 0.0))
            .collect()),
        "huge-list" => Ok((0..300_000).map(|_| ("x".repeat(100), 0.0)).collect()),
        "newline-name" => one("loss\naccuracy 1.0"),
        "escape-name" => one("\u{1b}[2Jaccuracy"),
        "direction-name" => one("acc\u{202e}ycaru"),
        "nul-name" => one("acc\0uracy"),
        "long-name" => one(&"x".repeat(1 << 20)),
        "empty-name" => one(""),
        "same-name" => Ok(vec![("a".to_owned(), 1.0), ("a".to_owned(), 2.0)]),
        "path-name" => one("../../etc/passwd"),
        "nan" => Ok(vec![
            ("nan".to_owned(), f64::NAN),
            ("inf".to_owned(), f64::NEG_INFINITY),
            ("tiny".to_owned(), 5e-324),
        ]),
        attack => {
            if let Some(attack) = attack.strip_suffix("-compute") {
                compute(attack)?;
            }
            Ok(vec![("updates".to_owned(), updates as f64)])
        }
    }
}

/// Those that use the context of a callback.
pub fn context(attack: &str, ctx: &Ctx<'_>) -> Result<()> {
    match attack {
        "stop" => ctx.stop_training("reached \u{1b}[1mthe goal"),
        "stop-then-trap" => {
            ctx.stop_training("no")?;
            panic!("after asking to stop");
        }
        "stop-then-error" => {
            ctx.stop_training("no")?;
            Err(Error::fatal("after asking to stop"))
        }
        "long-reason" => ctx.stop_training(&"because ".repeat(10_000)),
        "emit-flood" => (0..10_000).try_for_each(|number| ctx.emit(&format!("e{number}"), 0.0)),
        "emit-bad" => ctx.emit("bad\nname", 0.0),
        "parameters" => read_model(ctx),
        "bad-pattern" => ctx.parameters("[").map(|_| ()),
        "kept-parameters" => {
            for (_, tensor) in ctx.parameters("*")? {
                HELD.set(Some(tensor.keep()?));
            }
            Ok(())
        }
        "random" => {
            let rng = ctx.rng("probe");
            ctx.emit("u", rng.uniform(&[4])?.sum_all()?.item()?)?;
            ctx.emit("p", rng.permutation(5)?.select(0, 0)?.item()?)?;
            ctx.emit_tensor("i", &rng.integers(&[1], -3, 3)?)
        }
        attack => compute(attack),
    }
}

/// Does to parameters and gradients all that a tensor lets be done, and tells their number and size.
fn read_model(ctx: &Ctx<'_>) -> Result<()> {
    for (word, tensors) in [
        ("parameters", ctx.parameters("*")?),
        ("gradients", ctx.gradients("*")?),
    ] {
        let mut size = 0.0;
        for (_, tensor) in &tensors {
            let _ = tensor.reshape(&[-1])?.exp()?.add_scalar(1e30)?.keep()?;
            let _ = (tensor * 0.0)?;
            size += tensor.abs()?.sum_all()?.item()?;
        }
        ctx.emit(&format!("{word}/count"), tensors.len() as f64)?;
        ctx.emit(&format!("{word}/size"), size)?;
    }
    ctx.emit("matching", ctx.parameters("?")?.len() as f64)?;
    ctx.emit("matching none", ctx.parameters("*.nothing")?.len() as f64)
}

/// Reads a checkpoint, and tries to read more than that.
pub fn artifact(ctx: &Ctx<'_>, checkpoint: &Checkpoint<'_>) -> Result<()> {
    let files = checkpoint.files()?;
    ctx.emit("files", files.len() as f64)?;
    ctx.emit("size", files.iter().map(|(_, size)| *size as f64).sum())?;
    for (name, size) in &files {
        let digest = checkpoint.sha256(name)?;
        ctx.emit(&format!("{name}/{digest}"), *size as f64)?;
        let end = checkpoint.read(name, size.saturating_sub(2), 100)?;
        ctx.emit(&format!("{name}/end"), end.len() as f64)?;
        if !checkpoint.read(name, u64::MAX, 1)?.is_empty() {
            return Err(Error::fatal("something after the end"));
        }
    }
    for name in [
        "../secret",
        "/etc/passwd",
        "link",
        "folder",
        ".",
        "",
        "folder/../../secret",
        "nul\0",
    ] {
        if checkpoint.read(name, 0, 10).is_ok() || checkpoint.sha256(name).is_ok() {
            return Err(Error::fatal(format!("the checkpoint gave away {name}")));
        }
    }
    Ok(())
}

/// Fails with what the run says of itself.
pub fn state_facts(run: &Run<'_>) -> Result<()> {
    Err(Error::config(format!(
        "id {} name {} rank {} of {} main {} seed {:?} none {:?} has-metrics {} has-magic {}",
        run.id(),
        run.name(),
        run.rank(),
        run.world_size(),
        run.is_main(),
        run.argument("seed"),
        run.argument("no_such_argument"),
        run.has("metrics"),
        run.has("magic"),
    )))
}
