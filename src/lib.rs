//! `host`: the Hugging Face `Trainer` loop (semantics of 4.34.0) on libtorch, with user code as sandboxed WebAssembly
//! components. This page is the architecture; it is kept true.
//!
//! # Two executables of one package
//!
//! `host` (`src/main.rs`) is small and links no libtorch: help, argument errors, `host args`, `host plugin inspect`. It
//! resolves the run, chooses the environment that libtorch reads before `main`, and becomes `host-engine`
//! (`src/engine.rs`), the only executable that loads libtorch. The run travels as JSON in an inherited file. `host` compiles
//! [`cli`], [`config`] and what they need into itself instead of linking this library: a library that mentions libtorch
//! anywhere pulls it into every executable, because its C++ initialisers are kept.
//!
//! # Data flow
//!
//! ```text
//! argv, file -> config::arguments (flat, as written) -> config::resolve -> config::run::Run (nested, complete, immutable)
//!                                                                               |  host becomes host-engine
//!                                                                          wire -> boxes
//! files -> data::Table -> tokenize -> Dataset -> Sampler -> Collator -> Batch -> Loader
//!   micro-batch:  Model::forward -> Outputs -> Loss -> divide once -> backward
//!   boundary:     clip -> Optimizer::step -> LrScheduler::step -> gradients to none -> global_step += 1
//!   Event + state -> callbacks set wishes -> Control -> log? evaluate? save? stop?
//!     log -> Reporters      evaluate -> LogitsProcessor -> Metric      save -> Stateful of every part -> checkpoint
//! ```
//!
//! # Code map, from the top
//!
//! | level | module | owns |
//! | --- | --- | --- |
//! | 7 | [`api`] | [`Trainer`] for Rust programs: own model, rows, optimizer |
//! | 6 | [`wire`] | from a resolved run to boxes, and what a command does with them; engine only |
//! | 5 | [`cli`] | subcommands; `output.rs` alone prints |
//! | 4 | [`config`] | `arguments.rs` as written, `resolve` as it will run, `reference.rs` help and tables |
//! | 4 | [`trainer`] | the only loop |
//! | 4 | `plugin` | WebAssembly: engine, instances, limits, tensors, one adapter for each hook |
//! | 2 | [`data`] [`model`] [`loss`] [`optim`] [`metric`] [`callback`] [`report`] | a trait and its built-ins each |
//! | 2 | [`amp`] | mixed precision: autocast, the scale of losses |
//! | 2 | `hub` | models and data sets from the Hugging Face Hub, uploads to it on their own thread |
//! | 1 | [`checkpoint`] | tensors and JSON into folders that are complete or absent; no models |
//! | 0 | [`torch`] [`error`] | the C++ bridge; failures and exit codes |
//!
//! Arrows point down only; sideways only model -> data, loss -> {data, model}, metric -> {data, model}.
//!
//! # Invariants
//!
//! Checked by `tests/tidy.rs` as far as a text can show them.
//!
//! - I1 `trainer` names no concrete loss, optimizer, reporter, model. It receives boxes.
//! - I2 Nothing but `cli` and `wire` names `plugin`; `--no-default-features` builds without wasmtime.
//! - I3 `unsafe` and C++ only in `torch`, but for loading a precompiled component (`plugin/engine.rs`). `bindgen!` only in
//!   `plugin/bindings.rs`.
//! - I4 Environment, argv and configuration files are read only in `cli` and `config`.
//! - I5 One loop, one `forward_backward`, one `update`.
//! - I6 The loss is divided in one function, the accumulation boundary is decided in one function (`trainer/accumulation.rs`).
//! - I7 Whether a collective is entered never depends on something only one rank knows.
//! - I8 What can be known to be wrong before the first batch is refused before the first batch, all findings in one message.
//! - I9 File names of a run exist once, in `checkpoint/layout.rs`; each save is written aside and renamed.
//! - I10 Only `cli/output.rs` prints.
//!
//! # A hook: one word, five places
//!
//! A hook (callback, metric, logits, collator, loss, report) is one word used unchanged as trait (`src/<owner>/`),
//! built-ins beside it, WIT file (`wit/`), adapter (`src/plugin/<hook>.rs`) and conformance test (`tests/hooks/<hook>.rs`).
//! The loop cannot tell a built-in from a component. A collator works on the loader's threads, where a component has an
//! instance for each worker (`plugin/pool.rs`), a reporter on its own; all other hooks share one on the training thread.
//!
//! # Where to add what
//!
//! A loss, metric, schedule, optimizer, callback, collator: its file and one line in the table of its `mod.rs`. An
//! architecture: its file, its line in `model/architecture.rs`, recorded numbers. An option: its row in
//! `config/arguments.rs`, its field in `config/run.rs`, its test. A subcommand: its file and its line in `cli/mod.rs`. A libtorch
//! function: header, source, bridge and safe function, all in `torch/`. A plugin for an existing hook: no file in `src`.

pub mod amp;
pub mod api;
pub mod callback;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod data;
pub mod error;
#[cfg(feature = "hub")]
pub mod hub;
pub mod loss;
pub mod metric;
pub mod model;
pub mod optim;
#[cfg(feature = "plugin")]
pub mod plugin;
pub mod report;
pub mod torch;
pub mod trainer;
pub mod wire;

pub use api::{Trainer, TrainerParts, TrainingArguments};
