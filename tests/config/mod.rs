//! From arguments to a resolved run, through the library.

mod resolve;
mod table;
