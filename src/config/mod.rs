//! Settings in two stages: as written (`arguments`, filled from the command line and a file), as it will run (`run`).
//!
//! [`arguments`] is the table: one row per argument. [`input`] reads rows from argv and a TOML file, [`resolve`] checks
//! them against each other and the machine and makes the [`run::Run`]; [`mod@reference`] prints the table. Nothing here
//! touches libtorch.

pub mod arguments;
pub mod field;
pub mod findings;
pub mod hub;
pub mod input;
pub mod parameters;
pub mod proof;
pub mod reference;
pub mod resolve;
pub mod run;
pub mod setting;
pub mod surroundings;

mod command_line;
mod file;
