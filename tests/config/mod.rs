//! From arguments to a resolved run, through the library.

mod parameters;
mod resolve;
mod table;
