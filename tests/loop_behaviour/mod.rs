//! The behaviour of the loop, row by row of the specification's table: events, flags, logs, stopping, the best model,
//! rotation, resumption, evaluation, and the files that a run leaves.

mod arithmetic;
mod best;
mod evaluation;
mod events;
mod files;
mod flags;
mod logs;
mod nonfinite;
mod precision;
mod resume;
pub mod stage;
