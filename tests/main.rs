//! The one integration binary: every further one would link libtorch again.

mod cli;
mod config;
mod examples;
mod readme;
mod support;
mod tidy;
