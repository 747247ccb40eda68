//! What one store holds for its guest: the tensors it can reach, what the current call shows it, its log and its limits.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use wasmtime_wasi::{WasiCtxView, WasiView};

use super::allowed::Allowed;
use super::artifact::Artifact;
use super::batch::Batch;
use super::bindings::trainer::host::types;
use super::context::{Settings, View};
use super::fault::{HostError, Violation};
use super::features::Features;
use super::hook::Hook;
use super::http::Http;
use super::limits::Limits;
use super::log::Log;
use super::meter::Meter;
use super::tensor::Tensors;
use super::wasi::Wasi;
use crate::data::Tokenizer;

/// What does not change while a plugin lives, whatever store it runs in.
#[derive(Debug)]
pub(super) struct Facts {
    /// The name in the run.
    pub name: String,
    /// The manifest's id; the name if there is no manifest.
    pub id: String,
    /// The manifest's version; empty if there is no manifest.
    pub version: String,
    /// This process and how many there are.
    pub rank: u32,
    pub world_size: u32,
    /// Seeds every random number the guest can get.
    pub random_key: [u8; 32],
    /// The training arguments by their Hugging Face names, without secrets.
    pub arguments: Map<String, Value>,
    pub limits: Limits,
    pub allowed: Allowed,
    /// The run's tokenizer, once it has been read.
    pub tokenizer: OnceLock<Arc<Tokenizer>>,
}

/// The data of a store.
pub(super) struct State {
    pub(super) facts: Arc<Facts>,
    pub(super) wasi: Wasi,
    pub(super) http: Http,
    pub(super) meter: Meter,
    pub(super) tensors: Tensors,
    /// What `ctx` shows and what it was asked for.
    pub(super) view: View,
    pub(super) batch: Option<Batch>,
    pub(super) features: Option<Features>,
    pub(super) artifact: Option<Artifact>,
    pub(super) settings: Settings,
    pub(super) log: Log,
    /// The hook that is being called, and when it must be done.
    pub(super) hook: Option<Hook>,
    deadline: Option<Instant>,
}

impl State {
    pub(super) fn new(facts: Arc<Facts>) -> wasmtime::Result<Self> {
        Ok(Self {
            wasi: Wasi::new(&facts.random_key, &facts.allowed)?,
            http: Http::new(&facts),
            meter: Meter::new(&facts.limits),
            tensors: Tensors::new(&facts.limits),
            view: View::default(),
            batch: None,
            features: None,
            artifact: None,
            settings: Settings::default(),
            log: Log::new(&facts.name, &facts.limits),
            hook: None,
            deadline: None,
            facts,
        })
    }

    /// A call of a hook begins that may take so long.
    pub(super) fn begin_call(&mut self, hook: Hook, time: Duration) {
        let deadline = Instant::now() + time;
        (self.hook, self.deadline) = (Some(hook), Some(deadline));
        self.wasi.begin_call(deadline);
        // A guest that waits for an answer gets an error while it can still do something about it.
        self.http.begin_call(deadline - time.mul_f64(0.1));
    }

    /// An epoch stops a guest, but not the host: what may take long here asks for itself.
    pub(super) fn check_time(&mut self) -> Result<(), HostError> {
        let (Some(deadline), Some(hook)) = (self.deadline, self.hook) else {
            return Ok(());
        };
        if Instant::now() <= deadline {
            return Ok(());
        }
        self.tensors.note(Violation {
            limit: hook.time_limit(),
            wanted: "more time".to_owned(),
            at_least: None,
        });
        Err(HostError::limit("the time of the call is used up"))
    }

    /// Forgets what belonged to the call, and hands what the guest printed to the log.
    pub(super) fn end_call(&mut self) {
        self.tensors.end_call();
        self.batch = None;
        self.features = None;
        self.view.end();
        self.artifact = None;
        // A limit that the guest met and coped with is no longer of interest.
        let _ = self.take_violation();
        if let Some(output) = self.wasi.output.take() {
            for line in output.lines() {
                self.log.line(types::Level::Info, line);
            }
        }
    }

    /// The first limit that was reached in this call.
    pub(super) fn take_violation(&mut self) -> Option<Violation> {
        let of_tensors = self.tensors.take_violation();
        let of_network = self.http.take_violation();
        self.meter.take_violation().or(of_tensors).or(of_network)
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi.context,
            table: &mut self.wasi.table,
        }
    }
}

impl types::Host for State {
    fn convert_error(&mut self, error: HostError) -> wasmtime::Result<types::Error> {
        match error {
            HostError::Guest(error) => Ok(error),
            HostError::Trap(error) => Err(error),
        }
    }
}
