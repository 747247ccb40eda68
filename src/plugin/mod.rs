//! WebAssembly plugins: components that provide metrics, logits processors, callbacks, collators and losses, and can do
//! nothing but compute.
//!
//! ```text
//! file -> inspect (is it a plugin, what does it ask for) -> config (values against its schema)
//!      -> compile (in a child, cached under a seal) -> instance (a store, limits, `init`)
//!      -> metric, logits, callback, loss: the traits of those folders, so that the loop cannot tell them from built-ins
//!      -> pool -> collator: the same on the loader's threads, with an instance for each worker
//! ```
//! `plugin` implements traits of `metric`, `callback`, `data` and `loss` and is named by nothing but the command line.

mod allowed;
mod artifact;
mod batch;
mod bindings;
mod cache;
mod callback;
pub mod capability;
mod collator;
mod compile;
mod config;
mod context;
mod egress;
mod engine;
mod fault;
mod features;
mod hook;
mod http;
pub mod inspect;
mod instance;
mod limits;
mod log;
mod logits;
mod loss;
pub mod manifest;
mod meter;
mod metric;
mod origin;
pub mod outline;
mod pool;
mod reports;
pub mod requests;
mod rng;
mod state;
mod tensor;
mod text;
mod tokenizer;
mod usage;
mod wasi;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use anyhow::{Result, bail};
use serde_json::{Map, Value};

pub use capability::Grants;
pub use compile::{COMPILE_ARGUMENT, compile_child};
pub use context::Declared;
pub use limits::{Bytes, Limit, Limits};
pub use usage::Usage;

use crate::callback::Callback;
use crate::data::{Collator, Tokenizer};
use crate::error::Failure;
use crate::loss::Loss;
use crate::metric::{LogitsProcessor, Metric};
use crate::registry::name::{Digest, PluginId};
use crate::report::{self, Delivery, Destination, Reporter};
use allowed::Allowed;
use instance::{Hooks, Instance, Linked};
use manifest::Manifest;
use pool::Pool;
use state::Facts;

/// One plugin as the user named it.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The component file.
    pub path: PathBuf,
    /// Name in messages, unique in the run.
    pub name: String,
    /// Configuration values the user gave.
    pub config: Map<String, Value>,
    /// What it may use.
    pub limits: Limits,
    /// What it may do beyond computing.
    pub grants: Grants,
    /// What the lock file says of it, for a plugin that comes from there.
    pub pinned: Option<Pinned>,
}

/// What a lock file says of a plugin. Another component, or one that asks for something else, is not run.
#[derive(Clone, Debug, PartialEq)]
pub struct Pinned {
    /// Namespace and name.
    pub id: PluginId,
    /// Digest of the component.
    pub wasm: Digest,
    /// Digest of what it asks for.
    pub requests: Digest,
    /// The lock file, for messages.
    pub lock: PathBuf,
}

impl Pinned {
    /// Looks at nothing but the digest: what was changed may be anything.
    fn check_digest(&self, name: &str, found: &Digest) -> Result<()> {
        if *found != self.wasm {
            let what = "its component has the digest";
            bail!(self.differs(name, what, found.as_str(), self.wasm.as_str()));
        }
        Ok(())
    }

    fn check_manifest(&self, name: &str, manifest: Option<&Manifest>) -> Result<()> {
        let id = manifest.map_or("", |manifest| manifest.id.as_str());
        if id != self.id.to_string() {
            let id = text::printable(id, 128);
            bail!(self.differs(name, "it calls itself", &id, &self.id.to_string()));
        }
        let requests = manifest
            .map(|manifest| outline::requests_digest(&manifest.requests))
            .transpose()?;
        if let Some(found) = requests.filter(|found| *found != self.requests) {
            let what = "what it asks for has the digest";
            bail!(self.differs(name, what, found.as_str(), self.requests.as_str()));
        }
        Ok(())
    }

    fn differs(&self, name: &str, what: &str, found: &str, expected: &str) -> Failure {
        let text = format!(
            "plugin `{name}`: {what} {found}; {} says {expected}",
            self.lock.display()
        );
        let hint = format!(
            "look at both with `host plugin lock --check`, then `host plugin update {}`, or remove it and add it again",
            self.id
        );
        Failure::data(text).hint(hint)
    }
}

/// What all plugins of a run have in common.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// The run's seed.
    pub seed: u64,
    /// The number of this process.
    pub rank: u32,
    /// How many processes there are; 0 counts as 1.
    pub world_size: u32,
    /// The training arguments by their Hugging Face names, secrets left out.
    pub arguments: Map<String, Value>,
    /// Folder of compiled components; `None`: each run compiles anew.
    pub cache_dir: Option<PathBuf>,
    /// A program that answers [`COMPILE_ARGUMENT`] with [`compile_child`]; `None`: compile in this process, without
    /// limits on its time and memory.
    pub compiler: Option<PathBuf>,
    /// Where the run writes: `output` in capabilities is a folder of the plugin's own in it.
    pub output_dir: PathBuf,
    /// Where records for dashboards belong.
    pub logging_dir: PathBuf,
    /// Environment variables and secrets are looked up here; `None`: there are none.
    pub variable: Option<fn(&str) -> Option<String>>,
}

impl Environment {
    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Option<String> {
        self.variable.and_then(|variable| variable(name))
    }
}

/// A plugin that has been loaded. Its hooks share one guest, and with it its state.
pub struct Plugin {
    instance: Rc<RefCell<Instance>>,
    linked: Arc<Linked>,
    pool: Arc<Pool>,
    manifest: Option<Manifest>,
    digest: Digest,
    config: Value,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Plugin")
            .field("name", &self.name())
            .field("digest", &self.digest())
            .finish_non_exhaustive()
    }
}

/// Loads a plugin: everything that can be refused is refused here, before the first batch.
pub fn load(spec: &Spec, environment: &Environment) -> Result<Plugin> {
    let name = spec.name.as_str();
    let bytes = inspect::read(&spec.path)?;
    let digest = Digest::of(&bytes);
    if let Some(pinned) = &spec.pinned {
        pinned.check_digest(name, &digest)?;
    }
    let anatomy = inspect::examine(name, &bytes)?;
    anatomy.admit(name)?;
    let manifest = anatomy.read_manifest(name)?;
    if let Some(pinned) = &spec.pinned {
        pinned.check_manifest(name, manifest.as_ref())?;
    }
    if let Some(manifest) = &manifest {
        manifest.admit(name, &spec.limits)?;
    }
    let requests = match &manifest {
        Some(manifest) => manifest.requests.list()?,
        None => Vec::new(),
    };
    let mut given = spec.config.clone();
    config::from_variables(manifest.as_ref(), &requests, environment, &mut given);
    let capabilities = capability::admit(name, &requests, &spec.grants, &given)?;
    let config = config::resolve(name, manifest.as_ref(), &given)?;
    let allowed = Allowed::new(name, manifest.as_ref(), &capabilities, &given, environment)?;
    check_loss(name, &anatomy, &allowed)?;
    let engine = engine::engine()?;
    let code = compile::compiled(&compile::Job {
        name,
        digest: digest.hex(),
        bytes: &bytes,
        limits: &spec.limits,
        compiler: environment.compiler.as_deref(),
        cache: environment.cache_dir.as_deref(),
    })?;
    let component = engine::load(engine, &code)?;
    let facts = facts(spec, environment, manifest.as_ref(), allowed);
    let linked = Arc::new(Linked::new(engine, &component, facts, config.to_string())?);
    Ok(Plugin {
        instance: Rc::new(RefCell::new(Instance::start(linked.clone())?)),
        pool: Arc::new(Pool::new(linked.clone())),
        linked,
        manifest,
        digest,
        config,
    })
}

/// A loss decides the weights: who exports it must ask for that, so that the user is told.
fn check_loss(name: &str, anatomy: &inspect::Anatomy, allowed: &Allowed) -> Result<()> {
    if allowed.loss || !anatomy.hooks().contains(&"loss") {
        return Ok(());
    }
    let text = format!(
        "plugin `{name}`: exports the hook `loss`, but its manifest does not request the capability `loss`"
    );
    Err(Failure::data(text)
        .hint("its author adds \"loss\": \"the reason\" to `requests` in the manifest")
        .into())
}

fn facts(
    spec: &Spec,
    environment: &Environment,
    manifest: Option<&Manifest>,
    allowed: Allowed,
) -> Facts {
    let id = manifest.map_or_else(|| spec.name.clone(), |manifest| manifest.id.clone());
    Facts {
        random_key: rng::key(environment.seed, &id, environment.rank),
        name: spec.name.clone(),
        id,
        version: manifest
            .map(|manifest| manifest.version.clone())
            .unwrap_or_default(),
        rank: environment.rank,
        world_size: environment.world_size.max(1),
        arguments: environment.arguments.clone(),
        limits: spec.limits.clone(),
        allowed,
        tokenizer: OnceLock::new(),
    }
}

impl Plugin {
    /// The metrics it provides.
    pub fn metrics(&self) -> Vec<Box<dyn Metric>> {
        let mut metrics: Vec<Box<dyn Metric>> = Vec::new();
        if self.exports(|hooks| hooks.metrics.is_some()) {
            metrics.push(Box::new(metric::Streaming::new(self.instance.clone())));
        }
        if self.exports(|hooks| hooks.whole_metrics.is_some()) {
            metrics.push(Box::new(metric::Whole::new(self.instance.clone())));
        }
        metrics
    }

    /// Whether its component has a hook.
    fn exports(&self, has: impl FnOnce(&Hooks) -> bool) -> bool {
        self.instance.borrow().hooks().is_some_and(has)
    }

    /// The logits processor it provides, if any.
    pub fn logits(&self) -> Vec<Box<dyn LogitsProcessor>> {
        if self.exports(|hooks| hooks.logits.is_some()) {
            vec![Box::new(logits::Processor::new(self.instance.clone()))]
        } else {
            Vec::new()
        }
    }

    /// Makes collators, if it provides one: one for each loader, and told whether what it loads is trained with.
    pub fn collators(&self) -> Option<impl Fn(bool) -> Box<dyn Collator> + use<>> {
        let exported = self.exports(|hooks| hooks.collator.is_some());
        let pool = self.pool.clone();
        let make = move |is_training| -> Box<dyn Collator> {
            Box::new(collator::Collating::new(pool.clone(), is_training))
        };
        exported.then_some(make)
    }

    /// The loss it provides, if any, of batches whose labels are the columns of these names.
    pub fn loss(&self, label_names: Vec<String>) -> Option<Box<dyn Loss>> {
        let exported = self.provides_loss();
        let make = || -> Box<dyn Loss> {
            Box::new(loss::Objective::new(self.instance.clone(), label_names))
        };
        exported.then(make)
    }

    /// Whether it provides a loss.
    pub fn provides_loss(&self) -> bool {
        self.exports(|hooks| hooks.loss.is_some())
    }

    /// Hands it the run's tokenizer; before, its hooks have none.
    pub fn set_tokenizer(&self, tokenizer: Arc<Tokenizer>) {
        // A second one would be the same.
        let _ = self.linked.facts().tokenizer.set(tokenizer);
    }

    /// Its name in the run.
    pub fn name(&self) -> &str {
        &self.linked.facts().name
    }

    /// The callback it provides, if any: also where it only has state, which checkpoints take from callbacks.
    pub fn callbacks(&self) -> Vec<Box<dyn Callback>> {
        if self.exports(callback::Hooked::exported) {
            vec![Box::new(callback::Hooked::new(self.instance.clone()))]
        } else {
            Vec::new()
        }
    }

    /// The reporter it provides, if any: on a thread of its own, with an instance of its own.
    pub fn reporters(&self, settings: &report::Settings) -> Result<Vec<Box<dyn Reporter>>> {
        let Some(destination) = self.destination()? else {
            return Ok(Vec::new());
        };
        Ok(vec![Box::new(Delivery::begin(
            settings.clone(),
            destination,
        )?)])
    }

    /// Whether it provides a reporter.
    pub fn is_reporter(&self) -> bool {
        self.exports(reports::Reports::exported)
    }

    /// Where its reports go, if it has a reporter.
    pub fn destination(&self) -> Result<Option<Box<dyn Destination>>> {
        if !self.is_reporter() {
            return Ok(None);
        }
        let own = Instance::start(self.linked.clone())?;
        Ok(Some(Box::new(reports::Reports::new(own))))
    }

    /// Metrics it announced in `init`.
    pub fn declared_metrics(&self) -> Vec<Declared> {
        self.instance
            .borrow()
            .settings()
            .map(|settings| settings.declared.clone())
            .unwrap_or_default()
    }

    /// What it cost so far.
    pub fn usage(&self) -> Usage {
        let mut tally = self.pool.tally();
        tally.add(&self.instance.borrow().tally());
        tally.usage(self.name())
    }

    /// The end of a run that ended well.
    pub fn close(&self) -> Result<()> {
        self.pool.close()?;
        self.instance.borrow_mut().close()
    }

    /// Its manifest, if it has one.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// SHA-256 of the component in hexadecimal: the identity of everything that it did.
    pub fn digest(&self) -> &str {
        self.digest.hex()
    }

    /// The configuration it was given, with defaults.
    pub fn config(&self) -> &Value {
        &self.config
    }
}

impl Spec {
    /// A plugin file with the default limits, named after the file.
    pub fn new(path: &Path) -> Self {
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Self {
            path: path.to_owned(),
            name,
            config: Map::new(),
            limits: Limits::default(),
            grants: Grants::default(),
            pinned: None,
        }
    }
}
