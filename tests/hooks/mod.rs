//! Native and plugin are the same: one check for each hook, run for what is built in and for the guest that does the same.

mod callback;
mod collator;
mod logits;
mod loss;
mod metric;
