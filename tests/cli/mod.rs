//! The program `host` as a user meets it: help, listings, errors and exit codes.

mod arguments;
mod errors;
mod exit_codes;
mod help;
mod linking;
mod start;
