//! Reading tensors: a safetensors file, the weights of a model folder, the parts of a checkpoint.
//!
//! Data are read at their position, one tensor after the other, after the header was checked: a file that changes or ends
//! early is an error, never a fault of the process, and the peak is one file's tensors, not two.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tch::Tensor;

use super::bytes::Mover;
use super::save::PART_JSON;
use super::{PartState, file, foreign, header, json, layout};
use crate::error::{Failure, Kind};

/// The content of a safetensors file.
#[derive(Debug)]
pub struct TensorFile {
    /// In the order of the file; CPU tensors that own their memory.
    pub tensors: Vec<(String, Tensor)>,
    /// Free strings of the header.
    pub metadata: BTreeMap<String, String>,
}

/// Weights of a model folder.
#[derive(Debug)]
pub struct Weights {
    /// In the order of the files.
    pub tensors: Vec<(String, Tensor)>,
    /// The file they came from; the index, if they are sharded.
    pub source: PathBuf,
}

/// Reads a whole safetensors file. An error names file, tensor and offset.
pub fn read_tensors(path: &Path) -> Result<TensorFile> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let metadata = file.metadata().with_context(|| format!("cannot read {}", path.display()))?;
    if !metadata.is_file() {
        return Err(damaged(path, &anyhow::anyhow!("it is not a regular file")));
    }
    let header = header::read(&file, metadata.len()).map_err(|error| damaged(path, &error))?;
    let mut tensors = Vec::with_capacity(header.entries.len());
    let mut mover = Mover::default();
    for entry in header.entries {
        let mut position = header.data_start + entry.start;
        let tensor = mover.read(entry.kind, &entry.shape, |bytes| {
            file.read_exact_at(bytes, position)?;
            position += bytes.len() as u64;
            Ok(())
        });
        let tensor = tensor.with_context(|| format!("tensor {:?} at offset {position}", entry.name));
        tensors.push((entry.name, tensor.map_err(|error| damaged(path, &error))?));
    }
    Ok(TensorFile { tensors, metadata: header.metadata })
}

/// One message with everything, because the file is what the user can act on. A failing device stays an I/O error.
fn damaged(path: &Path, error: &anyhow::Error) -> anyhow::Error {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    let kind = match io {
        Some(io) if io.kind() != std::io::ErrorKind::UnexpectedEof => Kind::Io,
        _ => Kind::Data,
    };
    Failure::new(kind, format!("{} cannot be used: {error:#}", path.display())).into()
}

/// Which files hold the weights of a folder.
pub(super) struct WeightFiles {
    /// The single file or the index.
    pub(super) source: PathBuf,
    /// All files with tensors, existing.
    pub(super) files: Vec<PathBuf>,
    /// Tensor name to file name, if there is an index.
    map: Option<HashMap<String, String>>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

/// Looks for weights in the reference's order of preference, safetensors first.
pub(super) fn weight_files(dir: &Path) -> Result<WeightFiles> {
    let names = [layout::WEIGHTS, layout::WEIGHTS_INDEX, layout::PICKLED_WEIGHTS, layout::PICKLED_WEIGHTS_INDEX];
    let Some(name) = names.into_iter().find(|name| dir.join(name).exists()) else {
        let message = format!("no weights in {}: looked for {}", dir.display(), names.join(", "));
        return Err(Failure::data(message).hint("is this the folder of a model or a checkpoint?").into());
    };
    let source = dir.join(name);
    if [layout::WEIGHTS, layout::PICKLED_WEIGHTS].contains(&name) {
        return Ok(WeightFiles { files: vec![source.clone()], source, map: None });
    }
    let map = json::read::<Index>(&source)?.weight_map;
    let shards: BTreeSet<&String> = map.values().collect();
    let mut files = Vec::with_capacity(shards.len());
    for shard in shards {
        let path = file::check_name(shard).map(|shard| dir.join(shard));
        let path = path.map_err(|error| Failure::data(format!("{}: {error:#}", source.display())))?;
        if !path.exists() {
            return Err(Failure::data(format!("{} names {shard}, which is missing", source.display())).into());
        }
        files.push(path);
    }
    Ok(WeightFiles { source, files, map: Some(map) })
}

/// Reads the weights of a model folder: safetensors, or the reference's pickled files through the restricted reader.
pub fn read_weights(dir: &Path) -> Result<Weights> {
    let WeightFiles { source, files, map } = weight_files(dir)?;
    let (mut tensors, mut found) = (Vec::new(), HashMap::new());
    for path in files {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let is_native = name.ends_with(".safetensors");
        let shard = if is_native { read_tensors(&path)?.tensors } else { foreign::read_state_dict(&path)? };
        for (tensor, _) in &shard {
            if let Some(other) = found.insert(tensor.clone(), name.clone()) {
                return Err(Failure::data(format!("tensor {tensor:?} is in {other} and in {name} of {}", dir.display())).into());
            }
        }
        tensors.extend(shard);
    }
    for (tensor, shard) in map.iter().flatten() {
        if found.get(tensor) != Some(shard) {
            return Err(Failure::data(format!("{}: tensor {tensor:?} is not in {shard}", source.display())).into());
        }
    }
    Ok(Weights { tensors, source })
}

/// Reads what `Staging::write_part` wrote.
pub fn read_part(path: &Path) -> Result<PartState> {
    let TensorFile { tensors, metadata } = read_tensors(path)?;
    let not_a_part = |reason: String| Failure::data(format!("{} is not the state of a part: {reason}", path.display()));
    let text = metadata.get(PART_JSON).ok_or_else(|| not_a_part(format!("its header has no {PART_JSON:?}")))?;
    let json = serde_json::from_str(text).map_err(|error| not_a_part(error.to_string()))?;
    Ok(PartState { tensors, json })
}

/// Optimizer state of a checkpoint, ours or the reference's. `None`: the checkpoint has none.
pub fn read_optimizer(dir: &Path) -> Result<Option<PartState>> {
    either(dir, (layout::OPTIMIZER, read_part), (layout::PICKLED_OPTIMIZER, foreign::read_optimizer))
}

/// Schedule state of a checkpoint, ours or the reference's. `None`: the checkpoint has none.
pub fn read_scheduler(dir: &Path) -> Result<Option<PartState>> {
    let ours = |path: &Path| Ok(PartState { tensors: Vec::new(), json: json::read(path)? });
    either(dir, (layout::SCHEDULER, ours), (layout::PICKLED_SCHEDULER, foreign::read_scheduler))
}

/// Reads the first of two files that exists.
pub(super) fn either<T>(
    dir: &Path,
    ours: (&str, impl FnOnce(&Path) -> Result<T>),
    theirs: (&str, impl FnOnce(&Path) -> Result<T>),
) -> Result<Option<T>> {
    let (our_path, their_path) = (dir.join(ours.0), dir.join(theirs.0));
    if our_path.exists() {
        ours.1(&our_path).map(Some)
    } else if their_path.exists() {
        theirs.1(&their_path).map(Some)
    } else {
        Ok(None)
    }
}

/// Bytes that tensors take in a file, for `space::preflight`.
pub fn num_bytes<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<u64> {
    tensors.into_iter().map(super::bytes::num_bytes).sum()
}
