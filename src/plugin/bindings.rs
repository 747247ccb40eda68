//! The Rust side of the WIT packages in `wit/`, generated here and nowhere else.
//!
//! One private world has every hook. It is never instantiated as such, because no component exports all of it: each
//! hook's `GuestIndices` finds out whether a component has that one (see `instance.rs`).

#![allow(
    missing_docs,
    clippy::all,
    clippy::too_many_lines,
    clippy::too_many_arguments
)]

wasmtime::component::bindgen!({
    path: "wit",
    inline: "
        package trainer:host-side;

        world every-hook {
            include trainer:plugin/base@0.1.0;
            import trainer:host/data@0.1.0;
            import trainer:host/artifact@0.1.0;
            import trainer:host/tokenizer@0.1.0;
            import trainer:host/secrets@0.1.0;
            export trainer:plugin/stateful@0.1.0;
            export trainer:plugin/train-hooks@0.1.0;
            export trainer:plugin/epoch-hooks@0.1.0;
            export trainer:plugin/step-hooks@0.1.0;
            export trainer:plugin/substep-hooks@0.1.0;
            export trainer:plugin/eval-hooks@0.1.0;
            export trainer:plugin/prediction-step-hooks@0.1.0;
            export trainer:plugin/log-hooks@0.1.0;
            export trainer:plugin/optimizer-hooks@0.1.0;
            export trainer:plugin/checkpoint-hooks@0.1.0;
            export trainer:plugin/resume-hooks@0.1.0;
            export trainer:plugin/fault-hooks@0.1.0;
            export trainer:plugin/metrics@0.1.0;
            export trainer:plugin/whole-metrics@0.1.0;
            export trainer:plugin/logits@0.1.0;
            export trainer:plugin/collator@0.1.0;
            export trainer:plugin/loss@0.1.0;
            export trainer:plugin/report-run@0.1.0;
            export trainer:plugin/report-scalars@0.1.0;
        }
    ",
    imports: { default: trappable },
    with: {
        "trainer:host/tensor.tensor": crate::plugin::tensor::Handle,
        "trainer:host/rng.rng": crate::plugin::rng::Handle,
        "trainer:host/run.run": crate::plugin::context::Run,
        "trainer:host/run.ctx": crate::plugin::context::Ctx,
        "trainer:host/run.setup": crate::plugin::context::Setup,
        "trainer:host/data.batch": crate::plugin::batch::Handle,
        "trainer:host/data.features": crate::plugin::features::Handle,
        "trainer:host/artifact.artifact": crate::plugin::artifact::Handle,
    },
    trappable_error_type: { "trainer:host/types.error" => crate::plugin::fault::HostError },
});
