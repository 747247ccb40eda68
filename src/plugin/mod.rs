//! WebAssembly plugins: components that provide metrics, logits processors and callbacks and can do nothing but
//! compute.
//!
//! ```text
//! file -> inspect (is it a plugin, what does it ask for) -> config (values against its schema)
//!      -> compile (in a child, cached under a seal) -> instance (a store, limits, `init`)
//!      -> metric, logits, callback: the traits of those folders, so that the loop cannot tell them from built-ins
//! ```
//! `plugin` implements traits of `metric` and `callback` and is named by nothing but the command line.

mod allowed;
mod artifact;
mod batch;
mod bindings;
mod cache;
mod callback;
pub mod capability;
mod compile;
mod config;
mod context;
mod engine;
mod fault;
mod hook;
pub mod inspect;
mod instance;
mod limits;
mod log;
mod logits;
pub mod manifest;
mod meter;
mod metric;
mod origin;
pub mod outline;
pub mod requests;
mod rng;
mod state;
mod tensor;
mod text;
mod ungranted;
mod usage;
mod wasi;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Result, bail};
use serde_json::{Map, Value};

pub use capability::Grants;
pub use compile::{COMPILE_ARGUMENT, compile_child};
pub use context::Declared;
pub use limits::{Bytes, Limit, Limits};
pub use usage::Usage;

use crate::callback::Callback;
use crate::error::Failure;
use crate::metric::{LogitsProcessor, Metric};
use crate::registry::name::{Digest, PluginId};
use allowed::Allowed;
use instance::{Instance, Linked};
use manifest::Manifest;
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
    fn check_bytes(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let found = Digest::of(bytes);
        if found != self.wasm {
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

/// A plugin that has been loaded. Its hooks share one guest, and with it its state.
pub struct Plugin {
    instance: Rc<RefCell<Instance>>,
    manifest: Option<Manifest>,
    digest: String,
    config: Value,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.instance.borrow().name().to_owned();
        formatter
            .debug_struct("Plugin")
            .field("name", &name)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

/// Loads a plugin: everything that can be refused is refused here, before the first batch.
pub fn load(spec: &Spec, environment: &Environment) -> Result<Plugin> {
    let name = spec.name.as_str();
    let bytes = inspect::read(&spec.path)?;
    if let Some(pinned) = &spec.pinned {
        pinned.check_bytes(name, &bytes)?;
    }
    let anatomy = inspect::examine(name, &bytes)?;
    anatomy.admit(name)?;
    let manifest = anatomy
        .manifest
        .as_deref()
        .map(|section| Manifest::parse(name, section))
        .transpose()?;
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
    config::from_variables(
        manifest.as_ref(),
        &requests,
        environment.variable,
        &mut given,
    );
    let capabilities = capability::admit(name, &requests, &spec.grants, &given)?;
    let config = config::resolve(name, manifest.as_ref(), &given)?;
    let allowed = Allowed::new(name, manifest.as_ref(), &capabilities, &given, environment)?;
    let engine = engine::engine()?;
    let code = compile::compiled(&compile::Job {
        name,
        digest: &anatomy.digest,
        bytes: &bytes,
        limits: &spec.limits,
        compiler: environment.compiler.as_deref(),
        cache: environment.cache_dir.as_deref(),
    })?;
    let component = engine::load(engine, &code)?;
    let facts = facts(spec, environment, manifest.as_ref(), allowed);
    let instance = Instance::start(Linked::new(engine, &component, facts, config.to_string())?)?;
    Ok(Plugin {
        instance: Rc::new(RefCell::new(instance)),
        manifest,
        digest: anatomy.digest,
        config,
    })
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
    }
}

impl Plugin {
    /// The metrics it provides.
    pub fn metrics(&self) -> Vec<Box<dyn Metric>> {
        let instance = self.instance.borrow();
        let mut metrics: Vec<Box<dyn Metric>> = Vec::new();
        if let Some(hooks) = instance.hooks() {
            if hooks.metrics.is_some() {
                metrics.push(Box::new(metric::Streaming::new(self.instance.clone())));
            }
            if hooks.whole_metrics.is_some() {
                metrics.push(Box::new(metric::Whole::new(self.instance.clone())));
            }
        }
        metrics
    }

    /// The logits processor it provides, if any.
    pub fn logits(&self) -> Vec<Box<dyn LogitsProcessor>> {
        let exported = self
            .instance
            .borrow()
            .hooks()
            .is_some_and(|hooks| hooks.logits.is_some());
        if exported {
            vec![Box::new(logits::Processor::new(self.instance.clone()))]
        } else {
            Vec::new()
        }
    }

    /// The callback it provides, if any.
    pub fn callbacks(&self) -> Vec<Box<dyn Callback>> {
        let exported = self
            .instance
            .borrow()
            .hooks()
            .is_some_and(callback::Hooked::exported);
        if exported {
            vec![Box::new(callback::Hooked::new(self.instance.clone()))]
        } else {
            Vec::new()
        }
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
        self.instance.borrow().usage()
    }

    /// The end of a run that ended well.
    pub fn close(&self) -> Result<()> {
        self.instance.borrow_mut().close()
    }

    /// Its manifest, if it has one.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// SHA-256 of the component in hexadecimal: the identity of everything that it did.
    pub fn digest(&self) -> &str {
        &self.digest
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
