//! The wasmtime engine of the process: its settings, its ticker, and the only place where compiled code is taken from
//! bytes.

use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use wasmtime::component::Component;
use wasmtime::{Config, Engine, OptLevel, Strategy};

use super::cache::Sealed;

/// How often deadlines are looked at.
pub(super) const TICK: Duration = Duration::from_millis(10);
/// Stack of a guest. Part of the compiled code's key; not a setting.
const MAX_STACK: usize = 512 << 10;

/// The engine; made at the first use, with a thread that moves its epoch.
pub(super) fn engine() -> Result<&'static Engine> {
    static ENGINE: OnceLock<std::result::Result<Engine, String>> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| start().map_err(|error| format!("{error:#}")));
    engine
        .as_ref()
        .map_err(|error| anyhow!("starting the WebAssembly engine: {error}"))
}

fn start() -> Result<Engine> {
    let engine = Engine::new(&config())?;
    let weak = engine.weak();
    let tick = move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    };
    thread::Builder::new()
        .name("plugin-ticker".to_owned())
        .spawn(tick)
        .context("starting the ticker thread")?;
    Ok(engine)
}

/// Same numbers on every machine: NaNs are canonical, relaxed SIMD is strict, and there are no threads.
fn config() -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_nan_canonicalization(true);
    config.epoch_interruption(true).max_wasm_stack(MAX_STACK);
    // A call costs three times as much with it, and no hook is asynchronous.
    config.concurrency_support(false);
    config.wasm_memory64(false).relaxed_simd_deterministic(true);
    config.wasm_backtrace_max_frames(NonZeroUsize::new(32));
    config.memory_init_cow(true).parallel_compilation(true);
    config
}

/// Compiles a component to the form that [`load`] takes. Needs neither a ticker nor a store: the compile child calls it.
pub(super) fn compile(component: &[u8]) -> Result<Vec<u8>> {
    Ok(Engine::new(&config())?.precompile_component(component)?)
}

/// What compiled code depends on besides the component: the version of wasmtime, its settings, the processor.
pub(super) fn compatibility(engine: &Engine) -> String {
    let mut hasher = Blake3(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.0.finalize().to_hex()[..16].to_owned()
}

struct Blake3(blake3::Hasher);

impl Hasher for Blake3 {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash = self.0.finalize();
        hash.as_bytes()
            .iter()
            .take(8)
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

/// Makes a component of compiled code. Compiled code is native code, so it is taken only under the seal of this machine.
#[expect(
    unsafe_code,
    reason = "the one place where precompiled code is loaded (I3)"
)]
pub(super) fn load(engine: &Engine, code: &Sealed) -> Result<Component> {
    let bytes = code.verified_bytes()?;
    // SAFETY: `deserialize` needs bytes that `precompile_component` made. `verified_bytes` has just checked, on exactly
    // these bytes in memory, the keyed hash that only this program writes, with a key that only this user can read, over
    // the output of `compile`. wasmtime itself refuses another version or other settings.
    let component = unsafe { Component::deserialize(engine, bytes) };
    Ok(component?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_compiled_code_is_stable_within_an_engine_version() {
        let engine = engine().expect("an engine");
        let other = Engine::new(&config()).expect("an engine");
        assert_eq!(compatibility(engine), compatibility(&other));
        let mut changed = config();
        changed.cranelift_opt_level(OptLevel::None);
        assert_ne!(
            compatibility(engine),
            compatibility(&Engine::new(&changed).expect("an engine"))
        );
    }
}
