//! Free space of a volume: asked before the first step, and for the message of a full disk.

use std::io;
use std::path::Path;

use anyhow::{Context, Result};

use crate::error::{Failure, Kind};

/// Bytes this process may still write on the volume of `folder`.
pub fn available(folder: &Path) -> io::Result<u64> {
    let volume = rustix::fs::statvfs(folder)?;
    Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
}

/// Refuses a run whose volume cannot take one checkpoint of `bytes_needed`.
pub fn preflight(output_dir: &Path, bytes_needed: u64) -> Result<()> {
    let free = available(output_dir)
        .with_context(|| format!("cannot ask for the free space of {}", output_dir.display()))?;
    if free >= bytes_needed {
        return Ok(());
    }
    let message = format!(
        "the volume of {} has {} free, but one checkpoint needs {}",
        output_dir.display(),
        human(free),
        human(bytes_needed)
    );
    Err(Failure::new(Kind::Io, message)
        .hint("free space, choose another --output_dir, or set --save_strategy no")
        .into())
}

/// `1.5 GB`, decimal as disks are sold.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64;
    let mut unit = "";
    for larger in UNITS {
        if value < 999.95 {
            break;
        }
        (value, unit) = (value / 1000.0, larger);
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        let cases = [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1000, "1.0 kB"),
            (999_960, "1.0 MB"),
            (1_500_000, "1.5 MB"),
            (10_000_000_000, "10.0 GB"),
            (u64::MAX, "18.4 EB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn a_volume_without_room_is_refused_with_sizes() {
        let folder = tempfile::tempdir().expect("a folder");
        preflight(folder.path(), 1).expect("one byte fits");
        let error = preflight(folder.path(), u64::MAX).expect_err("too much");
        assert_eq!(crate::error::kind_of(&error), Kind::Io);
        assert!(error.to_string().contains("needs 18.4 EB"), "{error}");
    }
}
