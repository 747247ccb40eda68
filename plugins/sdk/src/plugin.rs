//! A trait for each hook, and [`export!`](crate::export), which makes a component of a type that implements some of them.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::batch::Batch;
use crate::context::{Checkpoint, Ctx, Rng, Run, Setup};
use crate::error::{Error, ErrorKind, Result};
use crate::features::Features;
use crate::hooks::host::tensor::NamedTensor;
use crate::tensor::Tensor;

/// What every plugin is: made once from its configuration.
pub trait Plugin: Sized + 'static {
    /// The configuration, as the manifest's schema describes it.
    type Config: DeserializeOwned;
    /// Makes the plugin, and says in `setup` what it wants.
    fn init(config: Self::Config, run: &Run<'_>, setup: &Setup<'_>) -> Result<Self>;
    /// The end of a run that ended well.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// For plugins without configuration.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// Numbers from an evaluation pass, batch by batch.
pub trait Metrics: Plugin {
    /// What one pass accumulates.
    type Accumulator: Accumulator;
    /// Begins a pass.
    fn accumulator(&self, dataset: &str) -> Self::Accumulator;
}

/// What a metric keeps of a pass.
pub trait Accumulator: 'static {
    /// One batch.
    fn update(&mut self, batch: &Batch<'_>) -> Result<()>;
    /// The numbers, in the order they are to be shown.
    fn compute(&self) -> Result<Vec<(String, f64)>>;
    /// What `merge` of another process needs.
    fn partial(&self) -> Result<Vec<u8>> {
        Err(unsupported("partial"))
    }
    /// Adds what another process has accumulated.
    fn merge(&mut self, partial: &[u8]) -> Result<()> {
        let _ = partial;
        Err(unsupported("merge"))
    }
}

fn unsupported(method: &str) -> Error {
    Error::of(
        ErrorKind::Unsupported,
        format!("the metric has no `{method}`"),
    )
}

/// Numbers from a whole evaluation pass at once.
pub trait WholeMetrics: Plugin {
    /// `all` holds the outputs and labels of the pass.
    fn compute_metrics(&mut self, all: &Batch<'_>) -> Result<Vec<(String, f64)>>;
}

/// Changes outputs before metrics and predictions see them.
pub trait Logits: Plugin {
    /// The outputs that replace the batch's.
    fn preprocess(&mut self, batch: &Batch<'_>) -> Result<Vec<(String, Tensor)>>;
}

/// Turns rows into a batch, on the loader's workers: an instance of the plugin for each of them.
pub trait Collator: Plugin {
    /// The columns of the batch, each with the examples as first dimension. They must follow from the rows, the
    /// configuration and `rng` alone.
    fn collate(&mut self, features: &Features<'_>, rng: &Rng<'_>) -> Result<Vec<(String, Tensor)>>;
}

/// A training objective. Needs the capability `loss`.
pub trait Loss: Plugin {
    /// The mean over the batch: one value made from the outputs by operations that have a derivative.
    fn compute_loss(&mut self, batch: &Batch<'_>) -> Result<Tensor>;
}

/// State that belongs into checkpoints.
pub trait Stateful: Plugin {
    /// Everything that a resumed run must find again.
    fn save_state(&mut self) -> Result<Vec<u8>>;
    /// Takes it up; `version` is that of the plugin that saved it.
    fn restore_state(&mut self, version: &str, state: &[u8]) -> Result<()>;
}

/// Where the records of a run go. The host calls it on a thread of its own, with an instance of its own: what it waits for
/// does not hold up training. An error of kind `Transient` is tried again later.
pub trait Report: Plugin {
    /// Before the first record. `time_ms` is in milliseconds since 1970, UTC. Returns a token that a resumed run hands back.
    fn start(&mut self, run: &Run<'_>, time_ms: u64, resume_token: Option<&str>) -> Result<String>;
    /// A JSON object with the training arguments, `args`, and the model's configuration, `model_config`.
    fn params(&mut self, json: &str) -> Result<()>;
    /// Values of the log history, in order.
    fn scalars(&mut self, scalars: &[Scalar]) -> Result<()>;
    /// The run ended with `completed`, `stopped` or `failed`.
    fn finish(&mut self, time_ms: u64, status: &str) -> Result<()>;
}

/// One value of the log history.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// Optimizer steps done.
    pub step: u64,
    /// Milliseconds since 1970, UTC.
    pub time_ms: u64,
    /// As in the log history, such as `eval_loss`.
    pub name: String,
    /// May be infinite or no number.
    pub value: f64,
}

macro_rules! callback_traits {
    ($($(#[$doc:meta])* $trait:ident { $($(#[$method_doc:meta])* $method:ident($($argument:ident: $kind:ty),*);)+ })+) => {
        $($(#[$doc])* pub trait $trait: Plugin {
            $($(#[$method_doc])* fn $method(&mut self, ctx: &Ctx<'_>, $($argument: $kind),*) -> Result<()> {
                let _ = (ctx, $($argument),*);
                Ok(())
            })+
        })+
    };
}

callback_traits! {
    /// The begin and the end of training.
    TrainHooks {
        /// The trainer has been built.
        on_init_end();
        /// Before the first step.
        on_train_begin();
        /// After the last step.
        on_train_end();
    }
    /// The begin and the end of each epoch.
    EpochHooks {
        /// Before the first batch.
        on_epoch_begin();
        /// After the last batch.
        on_epoch_end();
    }
    /// Each optimizer step.
    StepHooks {
        /// Before the first batch of a step.
        on_step_begin();
        /// After the optimizer step.
        on_step_end();
    }
    /// Batches that do not end a step.
    SubstepHooks {
        /// After such a batch.
        on_substep_end();
    }
    /// Evaluations and predictions.
    EvalHooks {
        /// After an evaluation; metrics with their prefix.
        on_evaluate(metrics: &[(String, f64)]);
        /// After a prediction pass.
        on_predict(metrics: &[(String, f64)]);
    }
    /// Batches of evaluations and predictions.
    PredictionStepHooks {
        /// After such a batch.
        on_prediction_step();
    }
    /// Log entries.
    LogHooks {
        /// After an entry was added.
        on_log(logs: &[(String, f64)]);
    }
    /// The optimizer's step, while there are gradients.
    OptimizerHooks {
        /// Gradients are averaged, unscaled and clipped.
        on_pre_optimizer_step();
        /// The weights are new.
        on_optimizer_step();
    }
    /// Runs that go on from a checkpoint.
    ResumeHooks {
        /// Before `on_train_begin`; the plugin's own state is back.
        on_resume(checkpoint: &Checkpoint<'_>);
    }
    /// Runs that end with an error.
    FaultHooks {
        /// `kind` is a word such as `data`, `plugin`, `io`, `numeric`.
        on_fault(kind: &str, message: &str);
    }
    /// Checkpoints.
    CheckpointHooks {
        /// After a checkpoint was completed.
        on_save(checkpoint: &Checkpoint<'_>);
    }
}

/// Reads the configuration; for the exporting macro.
#[doc(hidden)]
pub fn config<C: DeserializeOwned>(json: &str) -> Result<C> {
    serde_json::from_str(json)
        .map_err(|error| Error::config(format!("the configuration cannot be read: {error}")))
}

/// Tensors by name, as the bindings have them; for the exporting macro.
#[doc(hidden)]
pub fn named(tensors: Vec<(String, Tensor)>) -> Vec<NamedTensor> {
    let named = |(name, value): (String, Tensor)| NamedTensor {
        name,
        value: value.into(),
    };
    tensors.into_iter().map(named).collect()
}

/// Embeds the manifest, a JSON file beside the source, as the custom section `trainer:manifest`.
#[macro_export]
macro_rules! manifest {
    ($path:literal) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            const BYTES: &[u8] = include_bytes!($path);
            #[used]
            #[unsafe(link_section = "trainer:manifest")]
            static MANIFEST: [u8; BYTES.len()] = *include_bytes!($path);
        };
    };
}

/// Makes a component of a type: `export!(EarlyStopping: train, eval);`. The hooks are `train`, `epoch`, `step`, `substep`,
/// `optimizer`, `eval`, `prediction_step`, `log`, `checkpoint`, `resume`, `fault`, `metrics`, `whole_metrics`, `logits`,
/// `collator`, `loss` and `report`, each with its trait, and `stateful` for a plugin whose state belongs into checkpoints.
#[macro_export]
macro_rules! export {
    ($plugin:ty: $($hook:ident),+ $(,)?) => {
        // Elsewhere it is made by tests.
        #[cfg(not(target_family = "wasm"))]
        const _: fn(&str) -> $crate::Result<$plugin> = $crate::testing::init::<$plugin>;

        #[cfg(target_family = "wasm")]
        const _: () = {
            ::std::thread_local! {
                static PLUGIN: ::std::cell::RefCell<::std::option::Option<$plugin>> = const { ::std::cell::RefCell::new(None) };
            }

            fn with<T>(body: impl FnOnce(&mut $plugin) -> $crate::Result<T>) -> ::std::result::Result<T, $crate::hooks::host::types::Error> {
                PLUGIN.with_borrow_mut(|plugin| match plugin {
                    Some(plugin) => body(plugin),
                    None => Err($crate::Error::fatal("called before `init`")),
                }).map_err(::std::convert::Into::into)
            }

            struct Exported;

            impl $crate::hooks::lifecycle::lifecycle::Guest for Exported {
                fn init(
                    run: &$crate::hooks::host::run::Run,
                    setup: &$crate::hooks::host::run::Setup,
                    config: ::std::string::String,
                ) -> ::std::result::Result<(), $crate::hooks::host::types::Error> {
                    let made = $crate::private::config(&config).and_then(|config| {
                        let (run, setup) = ($crate::private::Run::new(run), $crate::private::Setup::new(setup));
                        <$plugin as $crate::Plugin>::init(config, &run, &setup)
                    })?;
                    PLUGIN.with_borrow_mut(|plugin| *plugin = Some(made));
                    Ok(())
                }

                fn close() -> ::std::result::Result<(), $crate::hooks::host::types::Error> {
                    with(<$plugin as $crate::Plugin>::close)
                }
            }
            $crate::hooks::lifecycle::export!(Exported with_types_in $crate::hooks::lifecycle);
            $($crate::export_hook!($hook, $plugin, with, Exported);)+
        };
    };
}

/// One hook of [`export!`].
#[doc(hidden)]
#[macro_export]
macro_rules! export_hook {
    (stateful, $plugin:ty, $with:ident, $exported:ident) => {
        impl $crate::hooks::stateful::stateful::Guest for $exported {
            fn save_state() -> ::std::result::Result<::std::vec::Vec<u8>, $crate::hooks::host::types::Error> {
                $with(<$plugin as $crate::Stateful>::save_state)
            }

            fn restore_state(
                version: ::std::string::String,
                state: ::std::vec::Vec<u8>,
            ) -> ::std::result::Result<(), $crate::hooks::host::types::Error> {
                $with(|plugin| <$plugin as $crate::Stateful>::restore_state(plugin, &version, &state))
            }
        }
        $crate::hooks::stateful::export!($exported with_types_in $crate::hooks::stateful);
    };
    (train, $plugin:ty, $with:ident, $exported:ident) => {
        $crate::export_callback!(train, train_hooks, TrainHooks, $plugin, $with, $exported, on_init_end, on_train_begin, on_train_end);
    };
    (epoch, $plugin:ty, $with:ident, $exported:ident) => {
        $crate::export_callback!(epoch, epoch_hooks, EpochHooks, $plugin, $with, $exported, on_epoch_begin, on_epoch_end);
    };
    (step, $plugin:ty, $with:ident, $exported:ident) => {
        $crate::export_callback!(step, step_hooks, StepHooks, $plugin, $with, $exported, on_step_begin, on_step_end);
    };
    (substep, $plugin:ty, $with:ident, $exported:ident) => {
        $crate::export_callback!(substep, substep_hooks, SubstepHooks, $plugin, $with, $exported, on_substep_end);
    };
    (prediction_step, $plugin:ty, $with:ident, $exported:ident) => {
        $crate::export_callback!(prediction_step, prediction_step_hooks, PredictionStepHooks, $plugin, $with, $exported, on_prediction_step);
    };
    (eval, $plugin:ty, $with:ident, $exported:ident) => {
        $crate::export_numbers!(eval, eval_hooks, EvalHooks, $plugin, $with, $exported, on_evaluate, on_predict);
    };
    (log, $plugin:ty, $with:ident, $exported:ident) => {
        $crate::export_numbers!(log, log_hooks, LogHooks, $plugin, $with, $exported, on_log);
    };
    (checkpoint, $plugin:ty, $with:ident, $exported:ident) => {
        $crate::export_checkpoint!(checkpoint, checkpoint_hooks, CheckpointHooks, $plugin, $with, $exported, on_save);
    };
    (resume, $plugin:ty, $with:ident, $exported:ident) => {
        $crate::export_checkpoint!(resume, resume_hooks, ResumeHooks, $plugin, $with, $exported, on_resume);
    };
    (optimizer, $plugin:ty, $with:ident, $exported:ident) => {
        $crate::export_callback!(optimizer, optimizer_hooks, OptimizerHooks, $plugin, $with, $exported, on_pre_optimizer_step, on_optimizer_step);
    };
    (fault, $plugin:ty, $with:ident, $exported:ident) => {
        impl $crate::hooks::fault::fault_hooks::Guest for $exported {
            fn on_fault(
                ctx: &$crate::hooks::host::run::Ctx,
                kind: ::std::string::String,
                message: ::std::string::String,
            ) -> ::std::result::Result<(), $crate::hooks::host::types::Error> {
                let ctx = $crate::private::Ctx::new(ctx);
                $with(|plugin| <$plugin as $crate::FaultHooks>::on_fault(plugin, &ctx, &kind, &message))
            }
        }
        $crate::hooks::fault::export!($exported with_types_in $crate::hooks::fault);
    };
    (collator, $plugin:ty, $with:ident, $exported:ident) => {
        impl $crate::hooks::collator::collator::Guest for $exported {
            fn collate(
                features: &$crate::hooks::host::data::Features,
                rng: &$crate::hooks::host::rng::Rng,
            ) -> ::std::result::Result<::std::vec::Vec<$crate::hooks::host::tensor::NamedTensor>, $crate::hooks::host::types::Error> {
                let (features, rng) = ($crate::private::Features::new(features), $crate::private::Rng::new(rng));
                let columns = $with(|plugin| <$plugin as $crate::Collator>::collate(plugin, &features, &rng))?;
                Ok($crate::private::named(columns))
            }
        }
        $crate::hooks::collator::export!($exported with_types_in $crate::hooks::collator);
    };
    (loss, $plugin:ty, $with:ident, $exported:ident) => {
        impl $crate::hooks::loss::loss::Guest for $exported {
            fn compute_loss(
                batch: &$crate::hooks::host::data::Batch,
            ) -> ::std::result::Result<$crate::hooks::host::tensor::Tensor, $crate::hooks::host::types::Error> {
                let batch = $crate::private::Batch::new(batch);
                $with(|plugin| <$plugin as $crate::Loss>::compute_loss(plugin, &batch)).map(::std::convert::Into::into)
            }
        }
        $crate::hooks::loss::export!($exported with_types_in $crate::hooks::loss);
    };
    (metrics, $plugin:ty, $with:ident, $exported:ident) => {
        struct Pass(::std::cell::RefCell<<$plugin as $crate::Metrics>::Accumulator>);

        impl $crate::hooks::metrics::metrics::Guest for $exported {
            type Accumulator = Pass;
        }

        impl $crate::hooks::metrics::metrics::GuestAccumulator for Pass {
            fn new(dataset: ::std::string::String) -> Self {
                let made = $with(|plugin| Ok(<$plugin as $crate::Metrics>::accumulator(plugin, &dataset)));
                Pass(::std::cell::RefCell::new(made.expect("the accumulator is made after `init`")))
            }

            fn update(
                &self,
                batch: &$crate::hooks::host::data::Batch,
            ) -> ::std::result::Result<(), $crate::hooks::host::types::Error> {
                let batch = $crate::private::Batch::new(batch);
                Ok($crate::Accumulator::update(&mut *self.0.borrow_mut(), &batch)?)
            }

            fn partial(&self) -> ::std::result::Result<::std::vec::Vec<u8>, $crate::hooks::host::types::Error> {
                Ok($crate::Accumulator::partial(&*self.0.borrow())?)
            }

            fn merge(&self, partial: ::std::vec::Vec<u8>) -> ::std::result::Result<(), $crate::hooks::host::types::Error> {
                Ok($crate::Accumulator::merge(&mut *self.0.borrow_mut(), &partial)?)
            }

            fn compute(
                &self,
            ) -> ::std::result::Result<::std::vec::Vec<(::std::string::String, f64)>, $crate::hooks::host::types::Error> {
                Ok($crate::Accumulator::compute(&*self.0.borrow())?)
            }
        }
        $crate::hooks::metrics::export!($exported with_types_in $crate::hooks::metrics);
    };
    (whole_metrics, $plugin:ty, $with:ident, $exported:ident) => {
        impl $crate::hooks::whole_metrics::whole_metrics::Guest for $exported {
            fn compute_metrics(
                all: &$crate::hooks::host::data::Batch,
            ) -> ::std::result::Result<::std::vec::Vec<(::std::string::String, f64)>, $crate::hooks::host::types::Error> {
                let all = $crate::private::Batch::new(all);
                $with(|plugin| <$plugin as $crate::WholeMetrics>::compute_metrics(plugin, &all))
            }
        }
        $crate::hooks::whole_metrics::export!($exported with_types_in $crate::hooks::whole_metrics);
    };
    (report, $plugin:ty, $with:ident, $exported:ident) => {
        impl $crate::hooks::report_run::report_run::Guest for $exported {
            fn start(
                run: &$crate::hooks::host::run::Run,
                time_ms: u64,
                resume_token: ::std::option::Option<::std::string::String>,
            ) -> ::std::result::Result<::std::string::String, $crate::hooks::host::types::Error> {
                let run = $crate::private::Run::new(run);
                $with(|plugin| <$plugin as $crate::Report>::start(plugin, &run, time_ms, resume_token.as_deref()))
            }

            fn params(json: ::std::string::String) -> ::std::result::Result<(), $crate::hooks::host::types::Error> {
                $with(|plugin| <$plugin as $crate::Report>::params(plugin, &json))
            }

            fn finish(
                time_ms: u64,
                status: ::std::string::String,
            ) -> ::std::result::Result<(), $crate::hooks::host::types::Error> {
                $with(|plugin| <$plugin as $crate::Report>::finish(plugin, time_ms, &status))
            }
        }

        impl $crate::hooks::report_scalars::report_scalars::Guest for $exported {
            fn scalars(
                block: $crate::hooks::report_scalars::report_scalars::Block,
            ) -> ::std::result::Result<(), $crate::hooks::host::types::Error> {
                let rows = block.steps.into_iter().zip(block.times_ms).zip(block.names).zip(block.values);
                let scalars: ::std::vec::Vec<$crate::Scalar> = rows
                    .map(|(((step, time_ms), name), value)| $crate::Scalar { step, time_ms, name, value })
                    .collect();
                $with(|plugin| <$plugin as $crate::Report>::scalars(plugin, &scalars))
            }
        }
        $crate::hooks::report_run::export!($exported with_types_in $crate::hooks::report_run);
        $crate::hooks::report_scalars::export!($exported with_types_in $crate::hooks::report_scalars);
    };
    (logits, $plugin:ty, $with:ident, $exported:ident) => {
        impl $crate::hooks::logits::logits::Guest for $exported {
            fn preprocess(
                batch: &$crate::hooks::host::data::Batch,
            ) -> ::std::result::Result<::std::vec::Vec<$crate::hooks::host::tensor::NamedTensor>, $crate::hooks::host::types::Error> {
                let batch = $crate::private::Batch::new(batch);
                let outputs = $with(|plugin| <$plugin as $crate::Logits>::preprocess(plugin, &batch))?;
                Ok($crate::private::named(outputs))
            }
        }
        $crate::hooks::logits::export!($exported with_types_in $crate::hooks::logits);
    };
}

/// A callback family whose function takes a checkpoint.
#[doc(hidden)]
#[macro_export]
macro_rules! export_checkpoint {
    ($module:ident, $interface:ident, $trait:ident, $plugin:ty, $with:ident, $exported:ident, $method:ident) => {
        impl $crate::hooks::$module::$interface::Guest for $exported {
            fn $method(
                ctx: &$crate::hooks::host::run::Ctx,
                checkpoint: &$crate::hooks::host::artifact::Artifact,
            ) -> ::std::result::Result<(), $crate::hooks::host::types::Error> {
                let (ctx, checkpoint) = ($crate::private::Ctx::new(ctx), $crate::private::Checkpoint::new(checkpoint));
                $with(|plugin| <$plugin as $crate::$trait>::$method(plugin, &ctx, &checkpoint))
            }
        }
        $crate::hooks::$module::export!($exported with_types_in $crate::hooks::$module);
    };
}

/// A callback family whose functions take the context alone.
#[doc(hidden)]
#[macro_export]
macro_rules! export_callback {
    ($module:ident, $interface:ident, $trait:ident, $plugin:ty, $with:ident, $exported:ident, $($method:ident),+) => {
        impl $crate::hooks::$module::$interface::Guest for $exported {
            $(fn $method(ctx: &$crate::hooks::host::run::Ctx) -> ::std::result::Result<(), $crate::hooks::host::types::Error> {
                let ctx = $crate::private::Ctx::new(ctx);
                $with(|plugin| <$plugin as $crate::$trait>::$method(plugin, &ctx))
            })+
        }
        $crate::hooks::$module::export!($exported with_types_in $crate::hooks::$module);
    };
}

/// A callback family whose functions take numbers besides.
#[doc(hidden)]
#[macro_export]
macro_rules! export_numbers {
    ($module:ident, $interface:ident, $trait:ident, $plugin:ty, $with:ident, $exported:ident, $($method:ident),+) => {
        impl $crate::hooks::$module::$interface::Guest for $exported {
            $(fn $method(
                ctx: &$crate::hooks::host::run::Ctx,
                numbers: ::std::vec::Vec<(::std::string::String, f64)>,
            ) -> ::std::result::Result<(), $crate::hooks::host::types::Error> {
                let ctx = $crate::private::Ctx::new(ctx);
                $with(|plugin| <$plugin as $crate::$trait>::$method(plugin, &ctx, &numbers))
            })+
        }
        $crate::hooks::$module::export!($exported with_types_in $crate::hooks::$module);
    };
}
