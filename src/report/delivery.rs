//! Delivery to destinations that may be slow, down or gone, without training noticing: records go into a queue; a thread
//! hands them on in blocks, waits longer after each failure, and writes what cannot be delivered into a spool, from which
//! it is delivered later, by the same run, a resumed one, or `host report flush`.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::spool::{Entry, Record, Spool};
use super::{Reporter, Start};
use crate::checkpoint::{json as files, save::atomic_write};
use crate::error::told;

/// Records that wait in memory; more push out the oldest entries.
const MAX_QUEUE: usize = 10_000;
/// Log entries in one block.
const BLOCK: usize = 512;
/// Between two blocks of a run, so that a run that logs at each step does not ask at each step.
const PAUSE: Duration = Duration::from_secs(1);
/// The first wait after a failure; doubled with each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait.
const LAST_WAIT: Duration = Duration::from_secs(60);

/// Why a record was not delivered.
#[derive(Debug)]
pub enum Undelivered {
    /// It may work later.
    Later(anyhow::Error),
    /// These records will never be taken; others may.
    Refused(anyhow::Error),
    /// Nothing more is delivered in this run; what there is waits in the spool.
    Never(anyhow::Error),
}

/// Where records go. Lives on the delivery thread.
pub trait Destination: Send {
    /// Begins, before anything else is told; `token` is what this returned before, in this run or in one that it goes on
    /// with.
    fn open(&mut self, time_ms: u64, token: Option<&str>) -> Result<String, Undelivered>;
    /// `args` and `model_config` of the run.
    fn params(&mut self, params: &Value) -> Result<(), Undelivered>;
    /// Entries in order.
    fn entries(&mut self, entries: &[Entry]) -> Result<(), Undelivered>;
    /// The run ends with `completed`, `stopped` or `failed`.
    fn finish(&mut self, time_ms: u64, status: &str) -> Result<(), Undelivered>;
    /// One line about what it cost.
    fn usage(&self) -> Option<String> {
        None
    }
}

/// Where a delivery keeps its files, and how long it may hold up the end of a run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name for messages; also names the spool and the token.
    pub name: String,
    /// File of what waits.
    pub spool: PathBuf,
    /// JSON object of the tokens of all destinations.
    pub tokens: PathBuf,
    /// How long the end of a run waits for the delivery.
    pub finish_time: Duration,
    /// Whether the run goes on with one that was stopped, so that the destination gets its token back.
    pub resumes: bool,
}

/// A reporter whose destination lives on a thread of its own.
pub struct Delivery {
    settings: Settings,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Record>,
    /// Taken by the thread and not yet delivered or spooled.
    in_flight: Vec<Record>,
    closing: bool,
    /// The end of the run did not wait any longer: the thread touches nothing any more.
    abandoned: bool,
    done: bool,
    delivered: u64,
    spooled: u64,
    dropped: u64,
    /// Why nothing is delivered any more.
    given_up: Option<String>,
    usage: Option<String>,
}

impl State {
    fn push(&mut self, record: Record) {
        if self.queue.len() >= MAX_QUEUE {
            let is_entry = |record: &Record| matches!(record, Record::Entry(_));
            let oldest = self.queue.iter().position(is_entry);
            oldest.and_then(|place| self.queue.remove(place));
            self.dropped += 1;
        }
        self.queue.push_back(record);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change, at most so long.
    fn wait<'a>(&self, state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, most);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Delivery {
    /// Starts the thread; nothing is delivered before there is a record.
    pub fn begin(settings: Settings, destination: Box<dyn Destination>) -> Result<Self> {
        let shared = Arc::<Shared>::default();
        let courier = Courier::new(settings.clone(), destination, shared.clone());
        let thread = std::thread::Builder::new()
            .name(format!("report {}", settings.name))
            .spawn(move || courier.work())
            .context("the thread of a reporter cannot be started")?;
        Ok(Self {
            settings,
            shared,
            thread: Some(thread),
        })
    }

    fn push(&self, record: Record) {
        self.shared.lock().push(record);
        self.shared.changed.notify_all();
    }

    /// Waits for the thread, at most as long as the end of a run may take; then spools what is left.
    fn close(&mut self, last: Record) -> Result<()> {
        let end = Instant::now() + self.settings.finish_time;
        let mut state = self.shared.lock();
        state.push(last);
        state.closing = true;
        self.shared.changed.notify_all();
        while !state.done {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.shared.wait(state, left);
        }
        if state.done {
            drop(state);
            // It has nothing more to do but to return.
            if let Some(thread) = self.thread.take() {
                let _ = thread.join();
            }
            return Ok(());
        }
        state.abandoned = true;
        let mut left = std::mem::take(&mut state.in_flight);
        left.extend(state.queue.drain(..));
        let mut spool = Spool::open(&self.settings.spool);
        let dropped = spool.append(&left)?;
        state.dropped += dropped as u64;
        state.spooled += (left.len() - dropped) as u64;
        Ok(())
    }
}

impl Reporter for Delivery {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn start(&mut self, start: &Start<'_>) -> Result<()> {
        let params = json!({"args": start.arguments, "model_config": start.model_config});
        self.push(Record::Start {
            time_ms: now(),
            params,
        });
        Ok(())
    }

    fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> Result<()> {
        self.push(Record::Entry(Entry {
            step,
            time_ms: now(),
            values: values.to_vec(),
        }));
        Ok(())
    }

    fn finish(&mut self, status: &str, _output_dir: &Path) -> Result<()> {
        self.close(Record::Finish {
            status: status.to_owned(),
            time_ms: now(),
        })
    }

    fn summary(&self) -> Option<String> {
        let state = self.shared.lock();
        let mut text = format!(
            "report {}: {} records delivered",
            self.settings.name, state.delivered
        );
        if state.spooled > 0 {
            let spool = self.settings.spool.display();
            text += &format!(", {} wait in {spool} (host report flush)", state.spooled);
        }
        if state.dropped > 0 {
            text += &format!(", {} dropped", state.dropped);
        }
        if let Some(reason) = &state.given_up {
            text += &format!(", given up: {reason}");
        }
        if let Some(usage) = &state.usage {
            text += &format!("; {usage}");
        }
        Some(text)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        // A run that failed before its end: the thread must not wait for records for ever.
        let mut state = self.shared.lock();
        state.closing = true;
        drop(state);
        self.shared.changed.notify_all();
    }
}

/// Delivers what an earlier run left in its spool; how many records that were. An error says what is in the way.
pub fn flush(settings: &Settings, destination: Box<dyn Destination>) -> Result<u64> {
    let shared = Arc::<Shared>::default();
    let mut courier = Courier::new(settings.clone(), destination, shared.clone());
    while !courier.spool.is_empty() {
        if let Err(undelivered) = courier.deliver_spool() {
            courier.spool.close()?;
            let (Undelivered::Later(error)
            | Undelivered::Refused(error)
            | Undelivered::Never(error)) = undelivered;
            let name = &settings.name;
            return Err(error.context(format!("the spool of {name} was not delivered")));
        }
    }
    let delivered = shared.lock().delivered;
    Ok(delivered)
}

/// The thread's side.
struct Courier {
    settings: Settings,
    destination: Box<dyn Destination>,
    shared: Arc<Shared>,
    spool: Spool,
    token: Option<String>,
    /// The destination knows the run.
    is_open: bool,
    failures: u32,
    retry_at: Instant,
}

impl Courier {
    fn new(settings: Settings, destination: Box<dyn Destination>, shared: Arc<Shared>) -> Self {
        let spool = Spool::open(&settings.spool);
        let resumes = settings.resumes || !spool.is_empty();
        let token = resumes.then(|| read_token(&settings)).flatten();
        Self {
            settings,
            destination,
            shared,
            spool,
            token,
            is_open: false,
            failures: 0,
            retry_at: Instant::now(),
        }
    }

    fn work(mut self) {
        while self.wait() {
            if let Err(error) = self.round() {
                let name = &self.settings.name;
                tracing::warn!("the report {name}: {}", told(&error));
            }
        }
        let mut state = self.shared.lock();
        if state.abandoned {
            return;
        }
        if let Err(error) = self.spool.close() {
            tracing::warn!("the report {}: {}", self.settings.name, told(&error));
        }
        state.usage = self.destination.usage();
        state.done = true;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Waits until there is something to do; false: the run has ended and nothing is left.
    fn wait(&mut self) -> bool {
        let mut state = self.shared.lock();
        loop {
            if state.abandoned {
                return false;
            }
            if !state.queue.is_empty() {
                return true;
            }
            if state.closing {
                return false;
            }
            let waits = !self.spool.is_empty() && state.given_up.is_none();
            let until = self.retry_at.saturating_duration_since(Instant::now());
            if waits && until.is_zero() {
                return true;
            }
            let most = if waits {
                until
            } else {
                Duration::from_secs(3600)
            };
            state = self.shared.wait(state, most);
        }
    }

    /// Takes what is there, and delivers or spools it.
    fn round(&mut self) -> Result<()> {
        let closing = self.take();
        let has_given_up = self.shared.lock().given_up.is_some();
        let may_try = !has_given_up && (closing || Instant::now() >= self.retry_at);
        if may_try {
            match self.deliver() {
                Ok(()) => {
                    self.failures = 0;
                    self.retry_at = Instant::now();
                }
                Err(Undelivered::Later(error)) => self.back_off(&error),
                Err(Undelivered::Refused(error) | Undelivered::Never(error)) => {
                    self.give_up(&error);
                }
            }
        }
        self.put_aside()?;
        if !closing && self.failures == 0 {
            self.pause();
        }
        Ok(())
    }

    /// Moves the queue into flight; whether the run is ending.
    fn take(&self) -> bool {
        let mut state = self.shared.lock();
        let taken: Vec<Record> = state.queue.drain(..).collect();
        state.in_flight.extend(taken);
        state.closing
    }

    fn deliver(&mut self) -> Result<(), Undelivered> {
        while !self.spool.is_empty() && !self.shared.lock().abandoned {
            self.deliver_spool()?;
        }
        loop {
            let block = first_block(&self.shared.lock().in_flight).map(<[Record]>::to_vec);
            let Some(block) = block else {
                return Ok(());
            };
            self.pass_on(&block)?;
            let mut state = self.shared.lock();
            if state.abandoned {
                return Ok(());
            }
            state.in_flight.drain(..block.len());
        }
    }

    /// Delivers the first block of the spool.
    fn deliver_spool(&mut self) -> Result<(), Undelivered> {
        let (records, next) = self.spool.front(BLOCK).map_err(Undelivered::Later)?;
        let mut rest = &records[..];
        while let Some(block) = first_block(rest) {
            self.pass_on(block)?;
            let mut state = self.shared.lock();
            state.spooled = state.spooled.saturating_sub(block.len() as u64);
            rest = &rest[block.len()..];
        }
        // Whoever ends the run appends under the same lock.
        let state = self.shared.lock();
        if state.abandoned {
            return Ok(());
        }
        self.spool.advance(next).map_err(Undelivered::Later)
    }

    fn hand_over(&mut self, block: &[Record]) -> Result<(), Undelivered> {
        let time_ms = match block {
            [
                Record::Start { time_ms, .. } | Record::Finish { time_ms, .. },
                ..,
            ] => *time_ms,
            [Record::Entry(entry), ..] => entry.time_ms,
            [] => return Ok(()),
        };
        self.ensure_open(time_ms)?;
        match block {
            [Record::Start { params, .. }] => self.destination.params(params),
            [Record::Finish { status, time_ms }] => {
                self.destination.finish(*time_ms, status)?;
                self.is_open = false;
                Ok(())
            }
            entries => {
                let entries: Vec<Entry> = entries
                    .iter()
                    .filter_map(|record| match record {
                        Record::Entry(entry) => Some(entry.clone()),
                        _ => None,
                    })
                    .collect();
                self.destination.entries(&entries)
            }
        }
    }

    /// The token is kept as soon as there is one: what is tried again must not begin anew at the other side.
    fn ensure_open(&mut self, time_ms: u64) -> Result<(), Undelivered> {
        if self.is_open {
            return Ok(());
        }
        let token = self.destination.open(time_ms, self.token.as_deref())?;
        self.is_open = true;
        self.token = Some(token.clone());
        keep_token(&self.settings, &token).map_err(Undelivered::Later)
    }

    /// Hands a block over; one that is refused is counted and left out.
    fn pass_on(&mut self, block: &[Record]) -> Result<(), Undelivered> {
        let outcome = self.hand_over(block);
        let mut state = self.shared.lock();
        match outcome {
            Ok(()) => state.delivered += block.len() as u64,
            Err(Undelivered::Refused(error)) => {
                state.dropped += block.len() as u64;
                let (name, why) = (&self.settings.name, told(&error));
                tracing::warn!(
                    "the report {name} leaves {} records out: {why}",
                    block.len()
                );
            }
            Err(undelivered) => return Err(undelivered),
        }
        Ok(())
    }

    fn back_off(&mut self, error: &anyhow::Error) {
        self.failures += 1;
        let wait = FIRST_WAIT
            .saturating_mul(1 << (self.failures - 1).min(10))
            .min(LAST_WAIT);
        // Between half and all of it, so that many runs do not come back at the same instant.
        let share = RandomState::new().hash_one(self.failures) as f64 / u64::MAX as f64;
        self.retry_at = Instant::now() + wait.mul_f64(0.5 + 0.5 * share);
        if self.failures == 1 {
            let (name, why) = (&self.settings.name, told(error));
            tracing::warn!("the report {name} is not delivered for now, training goes on: {why}");
        }
    }

    /// What is still in flight goes to the disk.
    fn put_aside(&mut self) -> Result<()> {
        let mut state = self.shared.lock();
        if state.abandoned || state.in_flight.is_empty() {
            return Ok(());
        }
        let left = std::mem::take(&mut state.in_flight);
        let dropped = self.spool.append(&left);
        let lost = *dropped.as_ref().unwrap_or(&left.len());
        state.dropped += lost as u64;
        state.spooled += (left.len() - lost) as u64;
        dropped.map(drop)
    }

    fn give_up(&mut self, error: &anyhow::Error) {
        let why = told(error);
        let name = &self.settings.name;
        tracing::warn!("the report {name}: nothing more is delivered in this run: {why}");
        self.shared.lock().given_up = Some(why);
    }

    /// Lets records gather, unless the run ends.
    fn pause(&self) {
        let begin = Instant::now();
        let mut state = self.shared.lock();
        while !state.closing && begin.elapsed() < PAUSE {
            let left = PAUSE.saturating_sub(begin.elapsed());
            state = self.shared.wait(state, left);
        }
    }
}

/// The records that are told together: one start, one end, or entries up to the next of these.
fn first_block(records: &[Record]) -> Option<&[Record]> {
    let entries = records
        .iter()
        .take(BLOCK)
        .take_while(|record| matches!(record, Record::Entry(_)))
        .count();
    match (records.is_empty(), entries) {
        (true, _) => None,
        (false, 0) => Some(&records[..1]),
        (false, entries) => Some(&records[..entries]),
    }
}

fn tokens(settings: &Settings) -> Map<String, Value> {
    let bytes = std::fs::read(&settings.tokens).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn read_token(settings: &Settings) -> Option<String> {
    let token = tokens(settings).remove(&settings.name)?;
    token.as_str().map(str::to_owned)
}

fn keep_token(settings: &Settings, token: &str) -> Result<()> {
    /// One file for all destinations, each on a thread of its own.
    static WRITING: Mutex<()> = Mutex::new(());
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut tokens = tokens(settings);
    let token = Value::from(token);
    if tokens.get(&settings.name) == Some(&token) {
        return Ok(());
    }
    tokens.insert(settings.name.clone(), token);
    atomic_write(&settings.tokens, &files::to_bytes(&tokens)?)
}

fn now() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| {
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use anyhow::anyhow;

    use super::*;

    /// Fails as long as it is told to, and passes on what it got.
    struct Scripted {
        failing: Arc<Mutex<Option<bool>>>,
        /// So many calls are answered before all fail; `None`: all.
        good: Arc<Mutex<Option<u32>>>,
        delay: Duration,
        got: Sender<String>,
    }

    impl Scripted {
        fn answer(&self, text: String) -> Result<(), Undelivered> {
            std::thread::sleep(self.delay);
            match self.good.lock().expect("not poisoned").as_mut() {
                Some(0) => return Err(Undelivered::Later(anyhow!("not there"))),
                Some(good) => *good -= 1,
                None => {}
            }
            match *self.failing.lock().expect("not poisoned") {
                Some(true) => Err(Undelivered::Never(anyhow!("not allowed"))),
                Some(false) => Err(Undelivered::Later(anyhow!("not there"))),
                None => {
                    let _ = self.got.send(text);
                    Ok(())
                }
            }
        }
    }

    impl Destination for Scripted {
        fn open(&mut self, _: u64, token: Option<&str>) -> Result<String, Undelivered> {
            self.answer(format!("start {token:?}"))?;
            Ok("token-1".to_owned())
        }

        fn params(&mut self, params: &Value) -> Result<(), Undelivered> {
            self.answer(params["args"]["seed"].to_string())
        }

        fn entries(&mut self, entries: &[Entry]) -> Result<(), Undelivered> {
            let steps: Vec<u64> = entries.iter().map(|entry| entry.step).collect();
            self.answer(format!("{steps:?}"))
        }

        fn finish(&mut self, _: u64, status: &str) -> Result<(), Undelivered> {
            self.answer(status.to_owned())
        }
    }

    struct Stage {
        folder: tempfile::TempDir,
        failing: Arc<Mutex<Option<bool>>>,
        good: Arc<Mutex<Option<u32>>>,
        got: Receiver<String>,
        sender: Sender<String>,
    }

    impl Stage {
        fn new(failing: Option<bool>) -> Self {
            let (sender, got) = channel();
            Self {
                folder: tempfile::tempdir().expect("a folder"),
                failing: Arc::new(Mutex::new(failing)),
                good: Arc::default(),
                got,
                sender,
            }
        }

        fn settings(&self, finish_time: u64, resumes: bool) -> Settings {
            Settings {
                name: "x".to_owned(),
                spool: self.folder.path().join("spool/x.jsonl"),
                tokens: self.folder.path().join("reports.json"),
                finish_time: Duration::from_millis(finish_time),
                resumes,
            }
        }

        fn destination(&self, delay: u64) -> Box<dyn Destination> {
            Box::new(Scripted {
                failing: self.failing.clone(),
                good: self.good.clone(),
                delay: Duration::from_millis(delay),
                got: self.sender.clone(),
            })
        }

        fn run(&self, delay: u64, finish_time: u64, resumes: bool) -> Delivery {
            let settings = self.settings(finish_time, resumes);
            let mut delivery =
                Delivery::begin(settings, self.destination(delay)).expect("a thread");
            let start = Start {
                arguments: &json!({"seed": 42}),
                model_config: None,
                history: &[],
            };
            delivery.start(&start).expect("queued");
            for step in 1..=3 {
                delivery
                    .scalars(step, &[("loss".to_owned(), 0.5)])
                    .expect("queued");
            }
            delivery
                .finish("completed", self.folder.path())
                .expect("ended");
            delivery
        }

        fn got(&self) -> Vec<String> {
            self.got.try_iter().collect()
        }
    }

    /// The steps among the texts, whatever blocks they came in.
    fn flat(got: &[String]) -> String {
        got.join(" ").replace("] [", ", ")
    }

    #[test]
    fn records_arrive_in_order_and_the_token_comes_back_to_a_resumed_run() {
        let stage = Stage::new(None);
        let delivery = stage.run(0, 10_000, false);
        assert_eq!(flat(&stage.got()), "start None 42 [1, 2, 3] completed");
        assert_eq!(
            delivery.summary().as_deref(),
            Some("report x: 5 records delivered")
        );
        stage.run(0, 10_000, true);
        assert_eq!(
            flat(&stage.got()),
            "start Some(\"token-1\") 42 [1, 2, 3] completed"
        );
        stage.run(0, 10_000, false);
        assert_eq!(stage.got()[0], "start None");
    }

    #[test]
    fn what_cannot_be_delivered_waits_in_the_spool_until_it_is_flushed() {
        let stage = Stage::new(Some(false));
        let delivery = stage.run(0, 10_000, false);
        let summary = delivery.summary().expect("a line");
        assert!(
            summary.starts_with("report x: 0 records delivered, 5 wait in "),
            "{summary}"
        );
        assert!(stage.settings(0, false).spool.exists());
        let error = flush(&stage.settings(0, false), stage.destination(0)).expect_err("still down");
        assert_eq!(
            format!("{error:#}"),
            "the spool of x was not delivered: not there"
        );

        *stage.failing.lock().expect("not poisoned") = None;
        assert_eq!(
            flush(&stage.settings(0, false), stage.destination(0)).expect("delivered"),
            5
        );
        assert_eq!(flat(&stage.got()), "start None 42 [1, 2, 3] completed");
        assert!(!stage.settings(0, false).spool.exists());
        assert_eq!(
            flush(&stage.settings(0, false), stage.destination(0)).expect("nothing"),
            0
        );
    }

    /// Fails at one call after the other, as a server does that comes and goes.
    #[test]
    fn whatever_call_fails_first_everything_arrives_once_and_the_run_is_begun_once() {
        for good in 0..5 {
            let stage = Stage::new(None);
            *stage.good.lock().expect("not poisoned") = Some(good);
            stage.run(0, 10_000, false);
            *stage.good.lock().expect("not poisoned") = None;
            flush(&stage.settings(0, true), stage.destination(0)).expect("delivered");
            let got = flat(&stage.got());
            let told: Vec<&str> = got
                .split(' ')
                .filter(|word| !word.contains("tart") && !word.contains("oken") && *word != "None")
                .collect();
            assert_eq!(told.join(" "), "42 [1, 2, 3] completed", "{good}: {got}");
            assert_eq!(got.matches("start None").count(), 1, "{good}: {got}");
        }
    }

    #[test]
    fn a_later_run_delivers_what_an_earlier_one_left() {
        let stage = Stage::new(Some(false));
        stage.run(0, 10_000, false);
        *stage.failing.lock().expect("not poisoned") = None;
        stage.run(0, 10_000, true);
        let got = flat(&stage.got());
        assert_eq!(
            got,
            "start None 42 [1, 2, 3] completed start Some(\"token-1\") 42 [1, 2, 3] completed"
        );
    }

    #[test]
    fn the_end_of_a_run_waits_no_longer_than_it_may_and_loses_nothing() {
        let stage = Stage::new(None);
        let begin = Instant::now();
        let delivery = stage.run(60_000, 100, false);
        assert!(begin.elapsed() < Duration::from_secs(30));
        let summary = delivery.summary().expect("a line");
        assert!(
            summary.contains("0 records delivered, 5 wait in "),
            "{summary}"
        );
        let spool = Spool::open(&stage.settings(0, false).spool);
        assert_eq!(spool.front(100).expect("read").0.len(), 5);
    }

    #[test]
    fn a_destination_that_forbids_is_not_asked_again_and_nothing_is_lost() {
        let stage = Stage::new(Some(true));
        let delivery = stage.run(0, 10_000, false);
        let summary = delivery.summary().expect("a line");
        assert!(
            summary.contains("0 records delivered, 5 wait in "),
            "{summary}"
        );
        assert!(summary.ends_with("given up: not allowed"), "{summary}");
    }

    #[test]
    fn a_queue_that_is_full_drops_the_oldest_entries() {
        let stage = Stage::new(None);
        let settings = stage.settings(100, false);
        let mut delivery = Delivery::begin(settings, stage.destination(60_000)).expect("a thread");
        for step in 0..2 * MAX_QUEUE as u64 {
            delivery.scalars(step, &[]).expect("queued");
        }
        let state = delivery.shared.lock();
        assert!(state.queue.len() <= MAX_QUEUE);
        let kept = state.queue.len() + state.in_flight.len();
        assert_eq!(state.dropped as usize + kept, 2 * MAX_QUEUE);
    }
}
