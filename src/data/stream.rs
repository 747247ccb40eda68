//! Rows that are read one after the other and never held together: files larger than memory (spec 2, item 4).

use anyhow::Result;

use super::Table;

/// Rows that can be passed over from the beginning.
pub trait Stream: Send {
    /// Begins a pass. What can be read only once (a pipe) yields no row the second time.
    fn open(&mut self) -> Result<Box<dyn Pass>>;
}

/// One pass over a stream.
pub trait Pass: Send {
    /// The next rows as they are in the files, at most `count`; fewer only at the end, none after it.
    fn read(&mut self, count: usize) -> Result<Table>;

    /// Leaves out the next `count` rows; returns how many there were.
    fn skip(&mut self, count: usize) -> Result<usize> {
        const AT_ONCE: usize = 1024;
        let mut skipped = 0;
        while skipped < count {
            let rows = self.read((count - skipped).min(AT_ONCE))?.rows();
            if rows == 0 {
                break;
            }
            skipped += rows;
        }
        Ok(skipped)
    }
}

/// Rows as read into rows for the model: tokenizing and labels, done by whoever makes the batch.
pub trait Convert: Send + Sync {
    /// As many rows, in the same order.
    fn convert(&self, raw: Table) -> Result<Table>;
}
