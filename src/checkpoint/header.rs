//! The header of a safetensors file: read without trust, and written.
//!
//! Every rule of the format is checked before a tensor is allocated: length, UTF-8, a first byte `{`, known element types,
//! sizes without overflow, offsets that cover the data with no hole and no overlap, no name twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use safetensors::tensor::{Dtype, TensorInfo};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tch::Kind;

use super::bytes::num_elements;

/// Longest header, as in the reference implementation.
const MAX_HEADER: u64 = 100_000_000;
/// libtorch's own limit of dimensions.
const MAX_DIMENSIONS: usize = 64;
/// Key of the free strings.
const METADATA: &str = "__metadata__";
/// Bytes of the length before the header.
const LENGTH: u64 = 8;

/// Element types that exist on both sides.
const KINDS: &[(Dtype, &str, Kind)] = &[
    (Dtype::BOOL, "BOOL", Kind::Bool),
    (Dtype::U8, "U8", Kind::Uint8),
    (Dtype::I8, "I8", Kind::Int8),
    (Dtype::I16, "I16", Kind::Int16),
    (Dtype::I32, "I32", Kind::Int),
    (Dtype::I64, "I64", Kind::Int64),
    (Dtype::F16, "F16", Kind::Half),
    (Dtype::BF16, "BF16", Kind::BFloat16),
    (Dtype::F32, "F32", Kind::Float),
    (Dtype::F64, "F64", Kind::Double),
];

/// The format's name of libtorch's element type.
pub(super) fn dtype_of(kind: Kind) -> Result<Dtype> {
    let row = KINDS.iter().find(|row| row.2 == kind);
    row.map(|row| row.0)
        .with_context(|| format!("tensors of {kind:?} cannot be saved"))
}

/// One tensor of a file; offsets count from the end of the header.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) shape: Vec<i64>,
    pub(super) start: u64,
    pub(super) end: u64,
}

/// A valid header.
#[derive(Debug)]
pub(super) struct Header {
    /// In the order of their bytes.
    pub(super) entries: Vec<Entry>,
    pub(super) metadata: BTreeMap<String, String>,
    /// Where the data begin in the file.
    pub(super) data_start: u64,
}

/// Reads and checks the header of a file that is `length` bytes long. Errors do not name the file: the caller does.
pub(super) fn read(file: &File, length: u64) -> Result<Header> {
    ensure!(
        length >= LENGTH,
        "it is {length} bytes long, shorter than the 8 bytes at offset 0 that hold the header's length"
    );
    let mut prefix = [0; LENGTH as usize];
    file.read_exact_at(&mut prefix, 0)
        .context("reading the header's length at offset 0")?;
    let size = u64::from_le_bytes(prefix);
    ensure!(
        size <= MAX_HEADER,
        "the header's length at offset 0 is {size}, more than the {MAX_HEADER} allowed"
    );
    let data_start = LENGTH + size;
    ensure!(
        data_start <= length,
        "it ends at offset {length}, inside the header that reaches to offset {data_start}"
    );
    let mut text = vec![0; size as usize];
    file.read_exact_at(&mut text, LENGTH)
        .context("reading the header at offset 8")?;
    ensure!(
        text.first() == Some(&b'{'),
        "the header at offset 8 does not begin with {{"
    );
    let text = std::str::from_utf8(&text).map_err(|error| {
        anyhow!(
            "the header is not UTF-8 at offset {}",
            LENGTH + error.valid_up_to() as u64
        )
    })?;
    let raw: RawHeader = serde_json::from_str(text)
        .context("the header at offset 8 is not what the format prescribes")?;
    let entries = check(raw.tensors, length - data_start, data_start)?;
    Ok(Header {
        entries,
        metadata: raw.metadata,
        data_start,
    })
}

fn check(tensors: Vec<(String, RawTensor)>, available: u64, data_start: u64) -> Result<Vec<Entry>> {
    let mut names = BTreeSet::new();
    if let Some((name, _)) = tensors
        .iter()
        .find(|(name, _)| !names.insert(name.as_str()))
    {
        bail!("tensor {name:?} is in the header twice");
    }
    let mut entries = tensors
        .into_iter()
        .map(|(name, raw)| entry(name, raw))
        .collect::<Result<Vec<_>>>()?;
    entries.sort_by_key(|entry| (entry.start, entry.end));
    let mut position = 0;
    for entry in &entries {
        let (name, start) = (&entry.name, entry.start);
        ensure!(
            start >= position,
            "tensor {name:?} begins at offset {}, inside the tensor before it",
            start + data_start
        );
        ensure!(
            start == position,
            "a hole of {} bytes lies before tensor {name:?} at offset {}",
            start - position,
            position + data_start
        );
        position = entry.end;
        ensure!(
            position <= available,
            "tensor {name:?} reaches to offset {}, but the file ends at offset {}",
            u128::from(position) + u128::from(data_start),
            available + data_start
        );
    }
    ensure!(
        position == available,
        "{} bytes after the last tensor at offset {}",
        available - position,
        position + data_start
    );
    Ok(entries)
}

fn entry(name: String, raw: RawTensor) -> Result<Entry> {
    let kind = KINDS
        .iter()
        .find(|row| row.1 == raw.dtype)
        .map(|row| row.2)
        .with_context(|| {
            let known: Vec<_> = KINDS.iter().map(|row| row.1).collect();
            format!(
                "tensor {name:?} has the element type {:?}; known are {}",
                raw.dtype,
                known.join(", ")
            )
        })?;
    let (start, end) = raw.data_offsets;
    ensure!(
        start <= end,
        "tensor {name:?} ends at data offset {end}, before its beginning at {start}"
    );
    let RawTensor { dtype, shape, .. } = &raw;
    ensure!(
        shape.len() <= MAX_DIMENSIONS,
        "tensor {name:?} has {} dimensions; at most {MAX_DIMENSIONS} are possible",
        shape.len()
    );
    let shape: Option<Vec<i64>> = shape.iter().map(|&size| i64::try_from(size).ok()).collect();
    let size = shape
        .as_deref()
        .and_then(num_elements)
        .and_then(|count| count.checked_mul(kind.elt_size_in_bytes() as u64));
    let (Some(shape), Some(size)) = (shape, size) else {
        bail!(
            "the size of tensor {name:?}, {dtype} {:?}, overflows",
            raw.shape
        )
    };
    ensure!(
        size == end - start,
        "tensor {name:?}, {dtype} {shape:?}, needs {size} bytes, but data offsets {start} to {end} hold {}",
        end - start
    );
    Ok(Entry {
        name,
        kind,
        shape,
        start,
        end,
    })
}

struct RawHeader {
    tensors: Vec<(String, RawTensor)>,
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let (mut tensors, mut metadata) = (Vec::new(), None);
                while let Some(name) = map.next_key::<String>()? {
                    if name != METADATA {
                        let tensor = map.next_value().map_err(|error| {
                            A::Error::custom(format!("tensor {name:?}: {error}"))
                        })?;
                        tensors.push((name, tensor));
                    } else if metadata
                        .replace(map.next_value::<UniqueStrings>()?.0)
                        .is_some()
                    {
                        return Err(A::Error::custom("__metadata__ is there twice"));
                    }
                }
                Ok(RawHeader {
                    tensors,
                    metadata: metadata.unwrap_or_default(),
                })
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// An object of strings without duplicate keys; serde would keep the last one.
struct UniqueStrings(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for UniqueStrings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Strings;
        impl<'de> Visitor<'de> for Strings {
            type Value = UniqueStrings;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueStrings, A::Error> {
                let mut strings = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if let Some(twice) = strings.insert(key.clone(), value) {
                        return Err(A::Error::custom(format!(
                            "metadata {key:?} is there twice, first as {twice:?}"
                        )));
                    }
                }
                Ok(UniqueStrings(strings))
            }
        }
        deserializer.deserialize_map(Strings)
    }
}

/// The length and the header of a file that holds `tensors`, already in the order of their bytes.
pub(super) fn encode(
    tensors: &[(&str, TensorInfo)],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec(&Encoded { tensors, metadata })?;
    text.resize(text.len().next_multiple_of(LENGTH as usize), b' ');
    ensure!(
        text.len() as u64 <= MAX_HEADER,
        "the header of {} bytes exceeds the {MAX_HEADER} allowed",
        text.len()
    );
    Ok([&(text.len() as u64).to_le_bytes()[..], &text].concat())
}

struct Encoded<'a> {
    tensors: &'a [(&'a str, TensorInfo)],
    metadata: &'a BTreeMap<String, String>,
}

impl Serialize for Encoded<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.metadata.is_empty() {
            map.serialize_entry(METADATA, self.metadata)?;
        }
        for (name, info) in self.tensors {
            map.serialize_entry(name, info)?;
        }
        map.end()
    }
}

/// The header of the file at `path`, for checks that need no tensors.
pub(super) fn of(path: &Path) -> Result<Header> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    read(&file, length)
}
