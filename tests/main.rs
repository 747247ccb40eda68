//! The one integration binary: every further one would link libtorch again.

mod api;
mod arguments;
mod bad_input;
mod cli;
mod config;
mod examples;
mod fidelity;
mod hooks;
mod http;
#[cfg(feature = "hub")]
mod hub;
mod input;
mod loop_behaviour;
mod modes;
mod plugin;
mod readme;
mod registry;
mod report;
mod resume;
mod rows;
mod support;
mod tidy;
