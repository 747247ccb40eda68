//! Counts the memory of one store: all linear memories and tables together, against the plugin's limits.

use wasmtime::ResourceLimiter;

use super::fault::Violation;
use super::limits::{Limit, Limits};

/// The limiter of one store.
#[derive(Debug)]
pub(super) struct Meter {
    memory: u64,
    tables: u64,
    peak: u64,
    max_memory: u64,
    max_tables: u64,
    max_instances: usize,
    violation: Option<Violation>,
}

impl Meter {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            memory: 0,
            tables: 0,
            peak: 0,
            max_memory: limits.memory,
            max_tables: limits.tables,
            max_instances: usize::try_from(limits.instances).unwrap_or(usize::MAX),
            violation: None,
        }
    }

    /// Most bytes of linear memory at one time.
    pub(super) fn peak(&self) -> u64 {
        self.peak
    }

    /// The first limit that was reached since the last time this was asked.
    pub(super) fn take_violation(&mut self) -> Option<Violation> {
        self.violation.take()
    }

    /// Stops the guest: a failed growth would only show as a panic about memory that names no limit.
    fn refuse(&mut self, violation: Violation) -> wasmtime::Result<bool> {
        let message = format!(
            "over the limit `{}` (needs {})",
            violation.limit.key(),
            violation.wanted
        );
        self.violation.get_or_insert(violation);
        Err(wasmtime::Error::msg(message))
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let wanted = self
            .memory
            .saturating_add(desired.saturating_sub(current) as u64);
        if wanted > self.max_memory {
            return self.refuse(Violation::bytes(Limit::Memory, wanted));
        }
        self.memory = wanted;
        self.peak = self.peak.max(wanted);
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let wanted = self
            .tables
            .saturating_add(desired.saturating_sub(current) as u64);
        if wanted > self.max_tables {
            return self.refuse(Violation::count(Limit::Tables, wanted));
        }
        self.tables = wanted;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.max_instances
    }

    fn tables(&self) -> usize {
        self.max_instances
    }

    fn memories(&self) -> usize {
        self.max_instances
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_count_together() {
        let mut meter = Meter::new(&Limits {
            memory: 300,
            ..Limits::default()
        });
        assert!(meter.memory_growing(0, 200, None).expect("fits"));
        assert!(meter.memory_growing(0, 100, None).expect("fits"));
        assert!(meter.memory_growing(100, 101, None).is_err());
        assert_eq!(
            meter.take_violation(),
            Some(Violation::bytes(Limit::Memory, 301))
        );
        assert_eq!((meter.take_violation(), meter.peak()), (None, 300));
    }
}
