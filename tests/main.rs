//! The one integration binary: every further one would link libtorch again.

mod cli;
mod config;
mod support;
