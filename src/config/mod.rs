//! Settings in two stages: as written, as it will run.
pub mod run;
