//! Bindings of the WIT packages: one module for what a plugin may call, one for each interface that it may provide. Each
//! of the latter exports only what `export!` names, so that a component has the hooks of its author and no more. Where a
//! plugin is built for something else than WebAssembly, to be tested, there is a host in memory instead.

#![allow(missing_docs, clippy::all)]

/// What every plugin may call.
#[cfg(not(target_family = "wasm"))]
pub use crate::mock as host;

/// What every plugin may call.
#[cfg(target_family = "wasm")]
pub mod host {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package trainer:sdk;
            world host {
                include trainer:host/imports@0.1.0;
                import trainer:host/data@0.1.0;
                import trainer:host/artifact@0.1.0;
                import trainer:host/tokenizer@0.1.0;
                import trainer:host/secrets@0.1.0;
            }
        ",
        generate_all,
    });
    pub use trainer::host::*;
}

/// One interface: the module, its world, the module's path, and the interfaces whose types it uses.
macro_rules! hook {
    ($module:ident, $world:literal, $bindings:literal, { $($wit:literal: $host:ident),+ $(,)? }) => {
        #[cfg(target_family = "wasm")]
        pub mod $module {
            wit_bindgen::generate!({
                path: "../../wit",
                inline: $world,
                with: { $($wit: crate::hooks::host::$host),+ },
                generate_all,
                pub_export_macro: true,
                default_bindings_module: $bindings,
            });
            pub use exports::trainer::plugin::*;
        }
    };
}

hook!(
    lifecycle,
    "package trainer:sdk; world lifecycle-hook { export trainer:plugin/lifecycle@0.1.0; }",
    "trainer_sdk::hooks::lifecycle",
    { "trainer:host/types@0.1.0": types, "trainer:host/run@0.1.0": run }
);
hook!(
    stateful,
    "package trainer:sdk; world stateful-hook { export trainer:plugin/stateful@0.1.0; }",
    "trainer_sdk::hooks::stateful",
    { "trainer:host/types@0.1.0": types }
);
hook!(
    train,
    "package trainer:sdk; world train-only { export trainer:plugin/train-hooks@0.1.0; }",
    "trainer_sdk::hooks::train",
    { "trainer:host/types@0.1.0": types, "trainer:host/run@0.1.0": run }
);
hook!(
    epoch,
    "package trainer:sdk; world epoch-only { export trainer:plugin/epoch-hooks@0.1.0; }",
    "trainer_sdk::hooks::epoch",
    { "trainer:host/types@0.1.0": types, "trainer:host/run@0.1.0": run }
);
hook!(
    step,
    "package trainer:sdk; world step-only { export trainer:plugin/step-hooks@0.1.0; }",
    "trainer_sdk::hooks::step",
    { "trainer:host/types@0.1.0": types, "trainer:host/run@0.1.0": run }
);
hook!(
    substep,
    "package trainer:sdk; world substep-only { export trainer:plugin/substep-hooks@0.1.0; }",
    "trainer_sdk::hooks::substep",
    { "trainer:host/types@0.1.0": types, "trainer:host/run@0.1.0": run }
);
hook!(
    eval,
    "package trainer:sdk; world eval-only { export trainer:plugin/eval-hooks@0.1.0; }",
    "trainer_sdk::hooks::eval",
    { "trainer:host/types@0.1.0": types, "trainer:host/run@0.1.0": run }
);
hook!(
    prediction_step,
    "package trainer:sdk; world prediction-step-only { export trainer:plugin/prediction-step-hooks@0.1.0; }",
    "trainer_sdk::hooks::prediction_step",
    { "trainer:host/types@0.1.0": types, "trainer:host/run@0.1.0": run }
);
hook!(
    log,
    "package trainer:sdk; world log-only { export trainer:plugin/log-hooks@0.1.0; }",
    "trainer_sdk::hooks::log",
    { "trainer:host/types@0.1.0": types, "trainer:host/run@0.1.0": run }
);
hook!(
    checkpoint,
    "package trainer:sdk; world checkpoint-only { export trainer:plugin/checkpoint-hooks@0.1.0; }",
    "trainer_sdk::hooks::checkpoint",
    { "trainer:host/types@0.1.0": types, "trainer:host/run@0.1.0": run, "trainer:host/artifact@0.1.0": artifact }
);
hook!(
    metrics,
    "package trainer:sdk; world metrics-hook { export trainer:plugin/metrics@0.1.0; }",
    "trainer_sdk::hooks::metrics",
    { "trainer:host/types@0.1.0": types, "trainer:host/data@0.1.0": data }
);
hook!(
    whole_metrics,
    "package trainer:sdk; world whole-metrics-hook { export trainer:plugin/whole-metrics@0.1.0; }",
    "trainer_sdk::hooks::whole_metrics",
    { "trainer:host/types@0.1.0": types, "trainer:host/data@0.1.0": data }
);
hook!(
    logits,
    "package trainer:sdk; world logits-hook { export trainer:plugin/logits@0.1.0; }",
    "trainer_sdk::hooks::logits",
    { "trainer:host/types@0.1.0": types, "trainer:host/tensor@0.1.0": tensor, "trainer:host/data@0.1.0": data }
);
hook!(
    optimizer,
    "package trainer:sdk; world optimizer-only { export trainer:plugin/optimizer-hooks@0.1.0; }",
    "trainer_sdk::hooks::optimizer",
    { "trainer:host/types@0.1.0": types, "trainer:host/run@0.1.0": run }
);
hook!(
    resume,
    "package trainer:sdk; world resume-only { export trainer:plugin/resume-hooks@0.1.0; }",
    "trainer_sdk::hooks::resume",
    { "trainer:host/types@0.1.0": types, "trainer:host/run@0.1.0": run, "trainer:host/artifact@0.1.0": artifact }
);
hook!(
    fault,
    "package trainer:sdk; world fault-only { export trainer:plugin/fault-hooks@0.1.0; }",
    "trainer_sdk::hooks::fault",
    { "trainer:host/types@0.1.0": types, "trainer:host/run@0.1.0": run }
);
hook!(
    collator,
    "package trainer:sdk; world collator-hook { export trainer:plugin/collator@0.1.0; }",
    "trainer_sdk::hooks::collator",
    { "trainer:host/types@0.1.0": types, "trainer:host/tensor@0.1.0": tensor, "trainer:host/rng@0.1.0": rng, "trainer:host/data@0.1.0": data }
);
hook!(
    loss,
    "package trainer:sdk; world loss-hook { export trainer:plugin/loss@0.1.0; }",
    "trainer_sdk::hooks::loss",
    { "trainer:host/types@0.1.0": types, "trainer:host/tensor@0.1.0": tensor, "trainer:host/data@0.1.0": data }
);
hook!(
    report_run,
    "package trainer:sdk; world report-run-hook { export trainer:plugin/report-run@0.1.0; }",
    "trainer_sdk::hooks::report_run",
    { "trainer:host/types@0.1.0": types, "trainer:host/run@0.1.0": run }
);
hook!(
    report_scalars,
    "package trainer:sdk; world report-scalars-hook { export trainer:plugin/report-scalars@0.1.0; }",
    "trainer_sdk::hooks::report_scalars",
    { "trainer:host/types@0.1.0": types }
);
