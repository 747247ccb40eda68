//! WASI as a plugin sees it: present, because every language's runtime imports it, and empty but for what was granted. No
//! arguments, sockets or standard input; no environment, no folders, a clock that only moves when it is asked, random bytes
//! that follow from the seed, unless the user granted `env`, `read`, `write`, `clock` or `random`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::cli::{stderr, stdout};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::p2::{
    DynOutputStream, DynPollable, OutputStream, Pollable, StreamResult, subscribe,
};
use wasmtime_wasi::{
    Deterministic, FsPerms, HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder,
};

use super::allowed::{Allowed, Folder};
use super::state::State;

/// Bytes of standard output and error that are kept, the newest of each.
const KEPT_OUTPUT: usize = 4 << 10;
/// What one reading of the clock takes, so that a guest that waits for time to pass does not wait for ever.
const TICK_NANOS: u64 = 1_000;
/// Random bytes repeat after so many; they seed hash tables, nothing more.
const RANDOM_CYCLE: usize = 4 << 10;
/// Random bytes in one request.
const MAX_RANDOM: u64 = 64 << 10;

/// The state of WASI in one store.
pub(super) struct Wasi {
    pub(super) context: WasiCtx,
    pub(super) table: ResourceTable,
    clock: Clock,
    pub(super) output: Output,
    deadline: Instant,
}

impl Wasi {
    /// A world with what is allowed in it, whose random bytes follow from `seed`. An error: a folder is gone.
    pub(super) fn new(seed: &[u8; 32], allowed: &Allowed) -> wasmtime::Result<Self> {
        let clock = if allowed.clock {
            Clock::real()
        } else {
            Clock::default()
        };
        let output = Output::default();
        let mut builder = WasiCtx::builder();
        if !allowed.random {
            seed_random(&mut builder, seed);
        }
        if !allowed.clock {
            builder.wall_clock(clock.clone());
        }
        for (name, value) in &allowed.variables {
            builder.env(name, value);
        }
        for Folder { host, guest, write } in &allowed.folders {
            let permissions = if *write {
                FsPerms::ReadWrite
            } else {
                FsPerms::ReadOnly
            };
            builder.preopened_dir(host, guest, permissions)?;
        }
        builder.max_random_size(MAX_RANDOM);
        builder
            .monotonic_clock(clock.clone())
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        let mut table = ResourceTable::new();
        table.set_max_capacity(4096);
        Ok(Self {
            context: builder.build(),
            table,
            clock,
            output,
            deadline: Instant::now(),
        })
    }

    fn virtual_view(&mut self) -> View<'_> {
        View {
            clock: &self.clock,
            output: &self.output,
            deadline: self.deadline,
            table: &mut self.table,
        }
    }

    /// A call begins that ends then.
    pub(super) fn begin_call(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }
}

/// Links all of WASI 0.2 and then replaces two things: the clock, which could wait in real time (an epoch stops a guest,
/// but not a host call), and the output streams, which are captured.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_sync(linker)?;
    linker.allow_shadowing(true);
    monotonic_clock::add_to_linker::<State, Virtual>(linker, |state| state.wasi.virtual_view())?;
    stdout::add_to_linker::<State, Virtual>(linker, |state| state.wasi.virtual_view())?;
    stderr::add_to_linker::<State, Virtual>(linker, |state| state.wasi.virtual_view())?;
    linker.allow_shadowing(false);
    Ok(())
}

fn seed_random(builder: &mut WasiCtxBuilder, seed: &[u8; 32]) {
    let mut random = vec![0; RANDOM_CYCLE];
    blake3::Hasher::new_keyed(seed)
        .update(b"wasi")
        .finalize_xof()
        .fill(&mut random);
    builder.insecure_random_seed(insecure_seed(&random));
    builder
        .secure_random(Deterministic::new(random.clone()))
        .insecure_random(Deterministic::new(random));
}

/// Nanoseconds that have passed for the guest.
#[derive(Clone, Debug, Default)]
struct Clock {
    virtual_nanos: Arc<AtomicU64>,
    /// The real clock's zero, if the guest may see the real time.
    begin: Option<Instant>,
}

impl Clock {
    fn real() -> Self {
        Self {
            begin: Some(Instant::now()),
            ..Self::default()
        }
    }

    fn advance(&self, nanos: u64) -> u64 {
        let before = self.virtual_nanos.load(Ordering::Relaxed);
        let now = before.saturating_add(nanos);
        self.virtual_nanos.store(now, Ordering::Relaxed);
        now
    }
}

impl HostWallClock for Clock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(TICK_NANOS)
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.advance(TICK_NANOS))
    }
}

impl HostMonotonicClock for Clock {
    fn resolution(&self) -> u64 {
        TICK_NANOS
    }

    fn now(&self) -> u64 {
        match self.begin {
            Some(begin) => u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX),
            None => self.advance(TICK_NANOS),
        }
    }
}

struct Virtual;

impl HasData for Virtual {
    type Data<'a> = View<'a>;
}

struct View<'a> {
    clock: &'a Clock,
    output: &'a Output,
    deadline: Instant,
    table: &'a mut ResourceTable,
}

impl View<'_> {
    /// Sleeping moves the virtual clock and is over at once; with the real clock it waits, for so long as a call may take.
    fn sleep(&mut self, nanos: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let until = match self.clock.begin {
            Some(_) => {
                let end = Instant::now().checked_add(Duration::from_nanos(nanos));
                end.map_or(self.deadline, |end| end.min(self.deadline))
            }
            None => {
                self.clock.advance(nanos);
                Instant::now()
            }
        };
        let over = self.table.push(Over(until))?;
        subscribe(self.table, over)
    }
}

impl monotonic_clock::Host for View<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(HostMonotonicClock::now(self.clock))
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(TICK_NANOS)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let now = HostMonotonicClock::now(self.clock);
        self.sleep(when.saturating_sub(now))
    }

    fn subscribe_duration(&mut self, duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.sleep(duration)
    }
}

impl stdout::Host for View<'_> {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        let stream: DynOutputStream = Box::new(self.output.clone());
        Ok(self.table.push(stream)?)
    }
}

impl stderr::Host for View<'_> {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        let stream: DynOutputStream = Box::new(self.output.clone());
        Ok(self.table.push(stream)?)
    }
}

/// The end of a sleep.
struct Over(Instant);

#[wasmtime_wasi::async_trait]
impl Pollable for Over {
    async fn ready(&mut self) {
        if self.0 > Instant::now() {
            tokio::time::sleep_until(self.0.into()).await;
        }
    }
}

/// The newest bytes that the guest wrote to its standard output and error.
#[derive(Clone, Debug, Default)]
pub(super) struct Output {
    written: Arc<AtomicBool>,
    tail: Arc<Mutex<Tail>>,
}

#[derive(Debug, Default)]
struct Tail {
    bytes: VecDeque<u8>,
    dropped: u64,
}

impl Output {
    /// Takes what was written since the last time; cheap if there is nothing.
    pub(super) fn take(&self) -> Option<String> {
        if !self.written.swap(false, Ordering::Relaxed) {
            return None;
        }
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(tail.bytes.make_contiguous()).into_owned();
        let dropped = std::mem::take(&mut tail.dropped);
        tail.bytes.clear();
        Some(if dropped == 0 {
            text
        } else {
            format!("({dropped} bytes left out) ...{text}")
        })
    }

    fn append(&self, bytes: &[u8]) {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = &bytes[bytes.len().saturating_sub(KEPT_OUTPUT)..];
        let excess = (tail.bytes.len() + newest.len()).saturating_sub(KEPT_OUTPUT);
        tail.bytes.drain(..excess);
        tail.dropped += (excess + bytes.len() - newest.len()) as u64;
        tail.bytes.extend(newest);
        self.written.store(true, Ordering::Relaxed);
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.append(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(KEPT_OUTPUT)
    }
}

/// The first 16 bytes.
fn insecure_seed(random: &[u8]) -> u128 {
    let bytes = random.iter().take(16).enumerate();
    bytes.fold(0, |seed, (place, byte)| {
        seed | u128::from(*byte) << (8 * place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_is_made_of_sixteen_bytes() {
        let bytes: Vec<u8> = (1..=20).collect();
        let expected: [u8; 16] = bytes[..16].try_into().expect("16 bytes");
        assert_eq!(insecure_seed(&bytes), u128::from_le_bytes(expected));
    }

    #[test]
    fn the_end_of_a_flood_is_kept_and_the_rest_counted() {
        let output = Output::default();
        assert_eq!(output.take(), None);
        for _ in 0..1000 {
            output.append(&[b'x'; 100]);
        }
        output.append(b"the end");
        let text = output.take().expect("something was written");
        let dropped = 100_000 + 7 - KEPT_OUTPUT;
        assert!(
            text.starts_with(&format!("({dropped} bytes left out) ...xx")),
            "{}",
            &text[..60]
        );
        assert!(text.ends_with("xxthe end"));
        assert_eq!(output.take(), None);
    }

    #[test]
    fn the_clock_moves_only_when_asked_and_by_sleeping() {
        let mut wasi = Wasi::new(&[7; 32], &Allowed::default()).expect("nothing to open");
        let mut view = wasi.virtual_view();
        let before = monotonic_clock::Host::now(&mut view).expect("a time");
        view.sleep(3_600_000_000_000).expect("a pollable");
        let after = monotonic_clock::Host::now(&mut view).expect("a time");
        assert_eq!(after - before, 3_600_000_000_000 + TICK_NANOS);
    }
}
