//! Records that wait for their destination, in memory and in a file.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkpoint::json::named_numbers;
use crate::checkpoint::save::atomic_write;
use crate::error::{Failure, Kind};

/// A spool that holds more takes nothing more in.
const MAX_SPOOL: u64 = 64 << 20;

/// One entry of the log history, with the time at which it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Optimizer steps done.
    pub step: u64,
    /// Milliseconds since 1970, UTC.
    pub time_ms: u64,
    /// Names as in the log history.
    #[serde(with = "named_numbers")]
    pub values: Vec<(String, f64)>,
}

/// What a destination is told, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// The run begins, or begins again after it was stopped.
    Start {
        /// Milliseconds since 1970, UTC.
        time_ms: u64,
        /// `args` and `model_config`.
        params: Value,
    },
    /// One entry of the log history.
    Entry(Entry),
    /// The run ends.
    Finish {
        /// `completed`, `stopped` or `failed`.
        status: String,
        /// Milliseconds since 1970, UTC.
        time_ms: u64,
    },
}

/// A file of records, one JSON object a line, read from the front and written at the end.
#[derive(Debug)]
pub(super) struct Spool {
    path: PathBuf,
    /// Where the first record begins that was not delivered.
    offset: u64,
    length: u64,
    /// The last line was not written to its end.
    is_torn: bool,
}

impl Spool {
    /// The spool of a destination; takes up what an earlier run left.
    pub(super) fn open(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            offset: 0,
            length: fs::metadata(path).map_or(0, |metadata| metadata.len()),
            is_torn: last_byte(path).is_some_and(|byte| byte != b'\n'),
        }
    }

    /// The file, to be read from the first record that was not delivered.
    fn rest(&self) -> Result<File> {
        let mut file = File::open(&self.path).with_context(|| self.unreadable())?;
        file.seek(SeekFrom::Start(self.offset))
            .with_context(|| self.unreadable())?;
        Ok(file)
    }

    fn unreadable(&self) -> Failure {
        Failure::new(Kind::Io, format!("{} cannot be read", self.path.display()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.offset >= self.length
    }

    /// Adds records at the end; how many of them found no room.
    pub(super) fn append(&mut self, records: &[Record]) -> Result<usize> {
        let subject = || {
            Failure::new(
                Kind::Io,
                format!("{} cannot be written", self.path.display()),
            )
        };
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder).with_context(subject)?;
        }
        let mut text = Vec::new();
        if self.is_torn {
            text.push(b'\n');
        }
        let mut kept = 0;
        for record in records {
            let mut line =
                serde_json::to_vec(record).context("a record cannot be written as JSON")?;
            line.push(b'\n');
            if self.length + (text.len() + line.len()) as u64 > MAX_SPOOL {
                break;
            }
            text.extend(line);
            kept += 1;
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.path);
        let mut file = file.with_context(subject)?;
        if let Err(error) = file.write_all(&text).and_then(|()| file.sync_data()) {
            // Half a record must not swallow those that follow.
            self.is_torn = file.set_len(self.length).is_err();
            return Err(error).with_context(subject);
        }
        self.is_torn = false;
        self.length += text.len() as u64;
        Ok(records.len() - kept)
    }

    /// The first records, at most so many, and where the next one begins. A line that cannot be read, as a crash may leave
    /// it, is left out.
    pub(super) fn front(&self, max: usize) -> Result<(Vec<Record>, u64)> {
        let mut reader = BufReader::new(self.rest()?.take(self.length - self.offset));
        let (mut records, mut next) = (Vec::new(), self.offset);
        while records.len() < max {
            let mut line = Vec::new();
            let read = reader
                .read_until(b'\n', &mut line)
                .with_context(|| self.unreadable())?;
            if read == 0 {
                break;
            }
            next += read as u64;
            match serde_json::from_slice(&line) {
                Ok(record) => records.push(record),
                Err(error) => {
                    tracing::warn!("{}: a record was left out: {error}", self.path.display())
                }
            }
        }
        Ok((records, next))
    }

    /// The records before `next` were delivered; an empty spool leaves no file.
    pub(super) fn advance(&mut self, next: u64) -> Result<()> {
        self.offset = next;
        if self.is_empty() {
            (self.offset, self.length) = (0, 0);
            match fs::remove_file(&self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error)
                        .with_context(|| format!("{} cannot be removed", self.path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Keeps only what was not delivered, so that a later run does not deliver the rest again.
    pub(super) fn close(&mut self) -> Result<()> {
        if self.offset == 0 {
            return Ok(());
        }
        let mut rest = Vec::new();
        self.rest()?
            .read_to_end(&mut rest)
            .with_context(|| self.unreadable())?;
        atomic_write(&self.path, &rest)?;
        (self.offset, self.length) = (0, rest.len() as u64);
        Ok(())
    }
}

fn last_byte(path: &Path) -> Option<u8> {
    let mut file = File::open(path).ok()?;
    file.seek(SeekFrom::End(-1)).ok()?;
    let mut byte = [0];
    file.read_exact(&mut byte).ok()?;
    Some(byte[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(step: u64) -> Record {
        Record::Entry(Entry {
            step,
            time_ms: 1,
            values: vec![("loss".to_owned(), f64::NAN), ("epoch".to_owned(), 0.5)],
        })
    }

    fn steps(records: &[Record]) -> Vec<u64> {
        let step = |record: &Record| match record {
            Record::Entry(entry) => Some(entry.step),
            _ => None,
        };
        records.iter().filter_map(step).collect()
    }

    #[test]
    fn records_come_back_in_order_and_only_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("spool/x.jsonl");
        let mut spool = Spool::open(&path);
        let records: Vec<Record> = (0..5).map(entry).collect();
        assert_eq!(spool.append(&records).expect("written"), 0);
        let (front, next) = spool.front(2).expect("read");
        assert_eq!(steps(&front), [0, 1]);
        let Record::Entry(first) = &front[0] else {
            panic!("an entry")
        };
        assert!(first.values[0].1.is_nan() && first.values[1].1 == 0.5);
        spool.advance(next).expect("advanced");
        spool.close().expect("kept");

        // A crash in the middle of a line.
        let mut file = OpenOptions::new().append(true).open(&path).expect("a file");
        file.write_all(b"{\"entry\": {\"st").expect("written");
        let mut spool = Spool::open(&path);
        spool.append(&[entry(9)]).expect("written");
        let (front, next) = spool.front(100).expect("read");
        assert_eq!(steps(&front), [2, 3, 4, 9]);
        spool.advance(next).expect("advanced");
        assert!(spool.is_empty() && !path.exists());
    }
}
