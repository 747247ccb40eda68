//! Runs of the real Trainer, recorded, and the same runs here: log, order, losses, weights.
//!
//! Tolerances: what is logged rounded must be equal; losses and weights differ only by the order of sums inside matrix
//! products (2e-6). Recorded with one thread.

mod golden;
mod optimizers;
mod regression;

pub use regression::{data, parameters, train};
