//! `manifest.json`: what a complete checkpoint holds. It is written last and carries its own digest.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::file::{FileRecord, check_name};
use super::{json, layout};

/// Version of the folder's format.
pub const FORMAT_VERSION: u32 = 1;

/// Sizes and digests of all other files of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the program that wrote it.
    pub format_version: u32,
    /// Optimizer steps done.
    pub step: u64,
    /// Every file but this one, by name.
    pub files: Vec<FileRecord>,
    /// BLAKE3 of this manifest in compact JSON with an empty digest.
    digest: String,
}

impl Manifest {
    pub(super) fn new(step: u64, mut files: Vec<FileRecord>) -> Result<Self> {
        files.sort_by(|one, other| one.name.cmp(&other.name));
        let mut manifest = Self {
            format_version: FORMAT_VERSION,
            step,
            files,
            digest: String::new(),
        };
        manifest.digest = manifest.own_digest()?;
        Ok(manifest)
    }

    fn own_digest(&self) -> Result<String> {
        let bare = Self {
            digest: String::new(),
            ..self.clone()
        };
        Ok(blake3::hash(&serde_json::to_vec(&bare)?)
            .to_hex()
            .to_string())
    }

    /// Reads the manifest of `dir` and compares every file with it. `Ok(Err(reason))`: the folder is damaged. `Err`: it
    /// could not be read at all (permissions, a failing device), which proves nothing about its content.
    pub(super) fn verify(dir: &Path) -> Result<Result<Self, String>> {
        let manifest: Self = match json::read(&dir.join(layout::MANIFEST)) {
            Ok(manifest) => manifest,
            Err(error) if is_unreadable(&error) => return Err(error),
            Err(error) => return Ok(Err(format!("{error:#}"))),
        };
        if manifest.own_digest()? != manifest.digest {
            return Ok(Err(format!(
                "{} does not match its own digest",
                layout::MANIFEST
            )));
        }
        let theirs = manifest.format_version;
        ensure!(
            theirs == FORMAT_VERSION,
            "{} has format version {theirs}; this program reads {FORMAT_VERSION}",
            dir.display()
        );
        for record in &manifest.files {
            match check_file(dir, record) {
                Ok(()) => {}
                Err(error) if is_unreadable(&error) => return Err(error),
                Err(error) => return Ok(Err(format!("{error:#}"))),
            }
        }
        Ok(Ok(manifest))
    }
}

/// An I/O error other than an absent file.
pub(super) fn is_unreadable(error: &anyhow::Error) -> bool {
    let io = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|io| {
        !matches!(
            io.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::IsADirectory
        )
    })
}

fn check_file(dir: &Path, record: &FileRecord) -> Result<()> {
    let name = check_name(&record.name)?;
    let path = dir.join(name);
    let metadata = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!("{name} is missing"),
        metadata => metadata.with_context(|| format!("cannot read {}", path.display()))?,
    };
    ensure!(metadata.is_file(), "{name} is not a regular file");
    let size = metadata.len();
    ensure!(
        size == record.size,
        "{name} is {size} bytes long; the manifest says {}",
        record.size
    );
    let mut file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file
            .read(&mut buffer)
            .with_context(|| format!("cannot read {}", path.display()))?
        {
            0 => break,
            length => hasher.update(&buffer[..length]),
        };
    }
    let matches = hasher.finalize().to_hex().as_str() == record.blake3;
    ensure!(matches, "{name} does not match its digest");
    Ok(())
}
