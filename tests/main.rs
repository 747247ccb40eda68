//! The one integration binary: every further one would link libtorch again.

mod bad_input;
mod cli;
mod config;
mod examples;
mod fidelity;
mod hooks;
mod input;
mod loop_behaviour;
mod plugin;
mod readme;
mod resume;
mod support;
mod tidy;
