//! Foreign torch files as values, through a reader that can run nothing (B4).
//!
//! `machine` has the rules; `archive` the containers. Here the arena becomes a tree of bounded depth and size.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use tch::Tensor;

use super::archive::{self, Loaded};
use super::machine::{Array, Id, Node};
use crate::error::{Failure, Kind};

/// Nesting of the result; torch's own files need 6.
const MAX_DEPTH: usize = 64;
/// Values of the result: sharing in the pickle is undone, which a few bytes can make exponential.
const MAX_VALUES: usize = 4_000_000;
/// Bytes of text and arrays of the result.
const MAX_BYTES: usize = 256 << 20;

/// What a pickle may hold.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names of the types")]
pub enum PickleValue {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Bytes(Vec<u8>),
    List(Vec<PickleValue>),
    Tuple(Vec<PickleValue>),
    /// In order; a key that was set twice is there twice, the later one counts.
    Dict(Vec<(PickleValue, PickleValue)>),
    /// On the CPU; tensors of one storage share it.
    Tensor(Tensor),
    Array(Array),
}

impl PickleValue {
    /// What it is, for messages.
    pub fn what(&self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Str(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "a list",
            Self::Tuple(_) => "a tuple",
            Self::Dict(_) => "a dictionary",
            Self::Tensor(_) => "a tensor",
            Self::Array(_) => "a numpy array",
        }
    }

    /// The value of a text key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Dict(entries) = self else { return None };
        entries.iter().rev().find(|(name, _)| matches!(name, Self::Str(name) if name == key)).map(|(_, value)| value)
    }

    /// Entries of a dictionary.
    pub fn entries(&self) -> Result<&[(Self, Self)]> {
        match self {
            Self::Dict(entries) => Ok(entries),
            other => bail!("expected a dictionary, found {}", other.what()),
        }
    }

    /// Items of a list or tuple.
    pub fn items(&self) -> Result<&[Self]> {
        match self {
            Self::List(items) | Self::Tuple(items) => Ok(items),
            other => bail!("expected a list, found {}", other.what()),
        }
    }
}

/// Reads a file of `torch.save`, current or older format. What is not plain data is refused by name and never run.
pub fn read_archive(path: &Path) -> Result<PickleValue> {
    let value = archive::load(path).and_then(|loaded| {
        let mut tree = Tree { loaded: &loaded, values: 0, bytes: 0 };
        tree.value(loaded.graph.root, 0)
    });
    value.map_err(|error| {
        let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
        let is_device = io.is_some_and(|io| io.raw_os_error().is_some());
        let kind = if is_device { Kind::Io } else { Kind::Data };
        Failure::new(kind, format!("{} cannot be used: {error:#}", path.display())).into()
    })
}

struct Tree<'a> {
    loaded: &'a Loaded,
    values: usize,
    bytes: usize,
}

impl Tree<'_> {
    fn value(&mut self, id: Id, depth: usize) -> Result<PickleValue> {
        ensure!(depth < MAX_DEPTH, "values are nested more than {MAX_DEPTH} deep");
        self.values += 1;
        ensure!(self.values <= MAX_VALUES, "more than {MAX_VALUES} values");
        let loaded = self.loaded;
        Ok(match &loaded.graph.nodes[id as usize] {
            Node::None => PickleValue::None,
            &Node::Bool(value) => PickleValue::Bool(value),
            &Node::Int(value) => PickleValue::Int(value),
            &Node::Float(value) => PickleValue::Float(value),
            Node::Str(text) => PickleValue::Str(self.count(text.len()).map(|()| text.to_string())?),
            Node::Bytes(bytes) => PickleValue::Bytes(self.count(bytes.len()).map(|()| bytes.to_vec())?),
            Node::Array(Some(array)) => PickleValue::Array(self.count(array.data.len()).map(|()| Array::clone(array))?),
            Node::List(ids) => PickleValue::List(self.all(ids, depth)?),
            Node::Tuple(ids) => PickleValue::Tuple(self.all(ids, depth)?),
            Node::Dict(pairs) => {
                let pair = |&(key, value): &(Id, Id)| Ok((self.value(key, depth + 1)?, self.value(value, depth + 1)?));
                PickleValue::Dict(pairs.iter().map(pair).collect::<Result<_>>()?)
            }
            Node::Tensor(spec) => {
                let storage = &loaded.storages[spec.storage];
                let tensor = storage.f_as_strided(&spec.size, &spec.stride, spec.offset);
                PickleValue::Tensor(tensor.context("a tensor does not fit its storage")?)
            }
            other => bail!("{} stands where a value should be", other.what()),
        })
    }

    fn all(&mut self, ids: &[Id], depth: usize) -> Result<Vec<PickleValue>> {
        ids.iter().map(|&id| self.value(id, depth + 1)).collect()
    }

    fn count(&mut self, bytes: usize) -> Result<()> {
        self.bytes += bytes;
        ensure!(self.bytes <= MAX_BYTES, "more than {MAX_BYTES} bytes of text");
        Ok(())
    }
}
