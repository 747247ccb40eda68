//! Constant: the initial rate; warm-up is ignored.

use anyhow::Result;

use super::{Schedule, ScheduleSettings};
use crate::optim::Options;

#[derive(Debug)]
struct Constant;

/// `1`
pub fn schedule(_settings: ScheduleSettings, options: &Options) -> Result<Box<dyn Schedule>> {
    options.only("constant", &[])?;
    Ok(Box::new(Constant))
}

impl Schedule for Constant {
    fn factor(&self, _step: u64) -> f64 {
        1.0
    }
}
