//! The two containers in which torch keeps a pickle and its storages: a zip archive, and the older single stream.
//!
//! Only stored (not compressed) members are read, so nothing can grow beyond the size of the file; names are compared, never
//! used as paths; members that overlap, leave their folder or promise other sizes than the pickle are refused.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use tch::Tensor;
use zip::{CompressionMethod, ZipArchive};

use super::bytes::Mover;
use super::graph::{Graph, Id, Node, StorageSpec};
use super::machine;

/// Longest pickle; one for ten thousand parameters has two million bytes.
const MAX_PICKLE: u64 = 32 << 20;
/// Members of an archive: one a storage.
const MAX_MEMBERS: usize = 1_000_000;
/// How the older format begins: a pickle of its magic number.
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// A pickle's values and the storages its tensors lie in, in the order of [`Graph::storages`].
pub(super) struct Loaded {
    pub(super) graph: Graph,
    pub(super) storages: Vec<Tensor>,
}

/// Reads either container.
pub(super) fn load(path: &Path) -> Result<Loaded> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut start = [0; LEGACY_MAGIC.len()];
    let known = usize::try_from(length)?.min(start.len());
    file.read_exact_at(&mut start[..known], 0)?;
    if start.starts_with(b"PK") {
        Zip::open(file, length)?.load()
    } else if start == LEGACY_MAGIC {
        legacy(&file, length)
    } else {
        bail!(
            "it is not a file of torch.save: it begins with {:?}",
            start[..known.min(4)].escape_ascii().to_string()
        )
    }
}

struct Zip {
    archive: ZipArchive<BufReader<File>>,
    /// The one folder that all members are in, with its slash.
    folder: String,
}

impl Zip {
    fn open(file: File, length: u64) -> Result<Self> {
        let mut archive =
            ZipArchive::new(BufReader::new(file)).context("its archive is damaged")?;
        ensure!(
            archive.len() <= MAX_MEMBERS,
            "its archive has {} members",
            archive.len()
        );
        let folder = check_members(&mut archive, length)?;
        Ok(Self { archive, folder })
    }

    fn load(mut self) -> Result<Loaded> {
        if let Some(order) = self.bytes("byteorder", 16)? {
            ensure!(
                order == b"little",
                "its numbers are {}-endian",
                order.escape_ascii()
            );
        }
        let pickle = self
            .bytes("data.pkl", MAX_PICKLE)?
            .context("it has no data.pkl")?;
        let graph = machine::run(&pickle)?;
        let mut mover = Mover::default();
        let mut storages = Vec::with_capacity(graph.storages.len());
        for spec in &graph.storages {
            storages.push(
                self.storage(spec, &mut mover)
                    .with_context(|| format!("storage {}", spec.key))?,
            );
        }
        Ok(Loaded { graph, storages })
    }

    /// The content of a small member; `None` if there is none.
    fn bytes(&mut self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(index) = self
            .archive
            .index_for_name(&format!("{}{name}", self.folder))
        else {
            return Ok(None);
        };
        let mut member = self.archive.by_index(index)?;
        ensure!(
            member.size() <= limit,
            "its {name} has {} bytes; at most {limit} are read",
            member.size()
        );
        let mut bytes = Vec::new();
        member
            .read_to_end(&mut bytes)
            .with_context(|| format!("reading {name}"))?;
        Ok(Some(bytes))
    }

    fn storage(&mut self, spec: &StorageSpec, mover: &mut Mover) -> Result<Tensor> {
        let name = format!("{}data/{}", self.folder, spec.key);
        let mut member = self
            .archive
            .by_name(&name)
            .with_context(|| format!("no member {name}"))?;
        let needed = spec
            .elements
            .checked_mul(spec.kind.elt_size_in_bytes() as u64);
        ensure!(
            needed == Some(member.size()),
            "the pickle says {} elements of {:?}, the archive {} bytes",
            spec.elements,
            spec.kind,
            member.size()
        );
        let tensor = mover.read(spec.kind, &[i64::try_from(spec.elements)?], |bytes| {
            member.read_exact(bytes)
        })?;
        // The checksum is compared at the end of the member, which the tensor alone does not reach.
        ensure!(
            member.read(&mut [0])? == 0,
            "the member is longer than its header says"
        );
        Ok(tensor)
    }
}

/// Refuses archives that are more than what torch writes; returns the folder of the pickle.
fn check_members(archive: &mut ZipArchive<BufReader<File>>, length: u64) -> Result<String> {
    let mut ranges = Vec::with_capacity(archive.len());
    let (mut folder, mut is_code) = (None, false);
    for index in 0..archive.len() {
        let member = archive
            .by_index_raw(index)
            .context("its archive is damaged")?;
        let name = member.name();
        let leaves = name.starts_with('/')
            || name.contains('\\')
            || name.split('/').any(|part| part == "..");
        ensure!(!leaves, "refused: its member {name:?} leaves the archive");
        ensure!(!member.encrypted(), "its member {name:?} is encrypted");
        let stored = member.compression() == CompressionMethod::Stored
            && member.size() == member.compressed_size();
        ensure!(
            stored,
            "refused: its member {name:?} is compressed, which torch never does"
        );
        let start = member.data_start().context("its archive is damaged")?;
        let end = start
            .checked_add(member.size())
            .filter(|&end| end <= length);
        ranges.push((
            start,
            end.with_context(|| format!("its member {name:?} reaches beyond the end of the file"))?,
        ));
        let (top, rest) = name.split_once('/').unwrap_or(("", name));
        is_code |= rest == "constants.pkl" || rest.starts_with("code/");
        if rest == "data.pkl" {
            ensure!(folder.is_none(), "it has two pickles");
            folder = Some(if top.is_empty() {
                String::new()
            } else {
                format!("{top}/")
            });
        }
    }
    ensure!(
        !is_code,
        "refused: it is a TorchScript module, which is code; weights are data"
    );
    ranges.sort_unstable();
    let overlap = ranges.windows(2).any(|pair| pair[1].0 < pair[0].1);
    ensure!(!overlap, "refused: its members overlap");
    folder.context("it is an archive, but not one of torch.save: it has no data.pkl")
}

/// The format before torch 1.6: magic number, version, system, object, storage keys, then each storage with its length.
fn legacy(file: &File, length: u64) -> Result<Loaded> {
    let mut text = vec![0; usize::try_from(length.min(MAX_PICKLE))?];
    file.read_exact_at(&mut text, 0)?;
    let mut position = 0;
    let mut next = || -> Result<Graph> {
        let graph = machine::run(&text[position..])?;
        position += graph.length;
        Ok(graph)
    };
    next().context("the magic number")?;
    let version = next().context("the version")?;
    ensure!(
        matches!(version.nodes[version.root as usize], Node::Int(1001)),
        "its format version is not 1001"
    );
    check_little_endian(&next().context("the description of the system")?)?;
    let graph = next()?;
    let keys = next().context("the list of storages")?;
    let mut tensors = HashMap::new();
    let mut position = position as u64;
    let mut mover = Mover::default();
    for key in keys_of(&keys)? {
        let spec = graph.storages.iter().find(|spec| spec.key == key);
        let spec = spec.with_context(|| format!("storage {key} belongs to no tensor"))?;
        let tensor = legacy_storage(file, length, &mut position, spec, &mut mover);
        tensors.insert(
            key,
            tensor.with_context(|| format!("storage {} at offset {position}", spec.key))?,
        );
    }
    let mut storages = Vec::with_capacity(graph.storages.len());
    for spec in &graph.storages {
        storages.push(
            tensors
                .remove(&spec.key)
                .with_context(|| format!("storage {} is missing", spec.key))?,
        );
    }
    Ok(Loaded { graph, storages })
}

fn legacy_storage(
    file: &File,
    length: u64,
    position: &mut u64,
    spec: &StorageSpec,
    mover: &mut Mover,
) -> Result<Tensor> {
    let mut elements = [0; 8];
    file.read_exact_at(&mut elements, *position)?;
    *position += 8;
    let elements = u64::from_le_bytes(elements);
    ensure!(
        elements == spec.elements,
        "the pickle says {} elements, the storage {elements}",
        spec.elements
    );
    let end = elements
        .checked_mul(spec.kind.elt_size_in_bytes() as u64)
        .and_then(|size| size.checked_add(*position));
    ensure!(
        end.is_some_and(|end| end <= length),
        "it reaches beyond the end of the file at offset {length}"
    );
    mover.read(spec.kind, &[i64::try_from(elements)?], |bytes| {
        file.read_exact_at(bytes, *position)?;
        *position += bytes.len() as u64;
        Ok(())
    })
}

fn check_little_endian(system: &Graph) -> Result<()> {
    let Node::Dict(entries) = &system.nodes[system.root as usize] else {
        bail!("the system is not described")
    };
    let value = entries
        .iter()
        .find_map(|&(key, value)| match &system.nodes[key as usize] {
            Node::Str(key) if &**key == "little_endian" => Some(&system.nodes[value as usize]),
            _ => None,
        });
    ensure!(
        matches!(value, Some(Node::Bool(true))),
        "its numbers are not little-endian"
    );
    Ok(())
}

fn keys_of(graph: &Graph) -> Result<Vec<String>> {
    let Node::List(ids) = &graph.nodes[graph.root as usize] else {
        bail!("the list of storages is none")
    };
    let key = |&id: &Id| match &graph.nodes[id as usize] {
        Node::Str(key) => Ok(key.to_string()),
        other => bail!("a storage key is {}", other.what()),
    };
    ids.iter().map(key).collect()
}
