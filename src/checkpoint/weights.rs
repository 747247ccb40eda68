//! Tensors into safetensors files: one file, or shards with an index as the reference cuts them (spec 5.2).
//!
//! Which bytes go where is decided first, from shapes alone; then each tensor is copied to the file piece by piece.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::TensorInfo;
use serde_json::json;
use tch::Tensor;

use super::bytes::{Mover, num_bytes};
use super::file::SyncedFile;
use super::{header, layout};

/// How weights are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightsOptions {
    /// Mark the files with `format: pt`: library models do, foreign modules do not.
    pub format_pt: bool,
    /// Begin a new shard before this many bytes are exceeded; foreign modules are never sharded (`u64::MAX`).
    pub max_shard_bytes: u64,
}

impl Default for WeightsOptions {
    fn default() -> Self {
        Self {
            format_pt: true,
            max_shard_bytes: 10_000_000_000,
        }
    }
}

/// A file of safetensors whose layout is known and whose data are not yet written.
pub(super) struct Plan<'a> {
    header: Vec<u8>,
    tensors: Vec<(&'a str, &'a Tensor)>,
    /// Bytes of the whole file.
    pub(super) size: u64,
}

impl<'a> Plan<'a> {
    /// Orders tensors as the reference implementation does: widest element first, then by name.
    pub(super) fn new(
        tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let mut sorted = Vec::new();
        for (name, tensor) in tensors {
            ensure!(
                name != "__metadata__",
                "a tensor cannot have the name {name}"
            );
            let dtype = tensor
                .f_kind()
                .map_err(Into::into)
                .and_then(header::dtype_of);
            sorted.push((
                dtype.with_context(|| format!("tensor {name:?}"))?,
                name,
                tensor,
            ));
        }
        sorted.sort_by(|one, other| other.0.cmp(&one.0).then(one.1.cmp(other.1)));
        let (mut infos, mut position) = (Vec::new(), 0);
        for (dtype, name, tensor) in &sorted {
            let end = position + usize::try_from(num_bytes(tensor)?)?;
            let shape = tensor
                .size()
                .into_iter()
                .map(usize::try_from)
                .collect::<Result<_, _>>()?;
            infos.push((
                *name,
                TensorInfo {
                    dtype: *dtype,
                    shape,
                    data_offsets: (position, end),
                },
            ));
            position = end;
        }
        let mut names = HashSet::new();
        if let Some((name, _)) = infos.iter().find(|(name, _)| !names.insert(*name)) {
            bail!("tensor {name:?} was given twice");
        }
        let header = header::encode(&infos, metadata)?;
        let size = (header.len() + position) as u64;
        Ok(Self {
            header,
            tensors: sorted
                .into_iter()
                .map(|(_, name, tensor)| (name, tensor))
                .collect(),
            size,
        })
    }

    /// Writes header and data.
    pub(super) fn write(&self, file: &mut SyncedFile) -> Result<()> {
        file.write(&self.header)?;
        let mut mover = Mover::default();
        for (name, tensor) in &self.tensors {
            mover
                .write(tensor, |bytes| file.write(bytes))
                .with_context(|| format!("writing tensor {name:?}"))?;
        }
        Ok(())
    }
}

/// Weights cut into files.
pub(super) struct Shards<'a> {
    /// File names and their tensors.
    pub(super) files: Vec<(String, Vec<(&'a str, &'a Tensor)>)>,
    /// Content of the index, if there is more than one file.
    pub(super) index: Option<serde_json::Value>,
}

/// Cuts weights greedily in their order; a tensor larger than the limit stands alone. Of names that are the same tensor,
/// only the first is kept, as the reference does.
pub(super) fn cut(weights: &[(String, Tensor)], max_shard_bytes: u64) -> Result<Shards<'_>> {
    let mut groups: Vec<Vec<(&str, &Tensor)>> = vec![Vec::new()];
    let (mut seen, mut filled, mut total) = (HashSet::new(), 0_u64, 0_u64);
    for (name, tensor) in weights {
        if identity(tensor)?.is_some_and(|identity| !seen.insert(identity)) {
            continue;
        }
        let size = num_bytes(tensor)?;
        if filled + size > max_shard_bytes && groups.last().is_some_and(|group| !group.is_empty()) {
            groups.push(Vec::new());
            filled = 0;
        }
        if let Some(group) = groups.last_mut() {
            group.push((name.as_str(), tensor));
        }
        filled += size;
        total += size;
    }
    if groups.len() == 1 {
        let files = groups
            .into_iter()
            .map(|group| (layout::WEIGHTS.to_owned(), group))
            .collect();
        return Ok(Shards { files, index: None });
    }
    let count = groups.len();
    let named = groups
        .into_iter()
        .enumerate()
        .map(|(index, group)| (layout::weights_shard(index + 1, count), group));
    let files: Vec<_> = named.collect();
    let map: BTreeMap<&str, &str> = files
        .iter()
        .flat_map(|(file, group)| group.iter().map(|(name, _)| (*name, file.as_str())))
        .collect();
    let index = Some(json!({"metadata": {"total_size": total}, "weight_map": map}));
    Ok(Shards { files, index })
}

/// Two tensors are the same one if they look at the same memory in the same way; empty tensors have no memory to share.
fn identity(tensor: &Tensor) -> Result<Option<impl Eq + std::hash::Hash + use<>>> {
    if tensor.numel() == 0 {
        return Ok(None);
    }
    Ok(Some((
        tensor.data_ptr() as usize,
        tensor.f_kind()?,
        tensor.size(),
        tensor.stride(),
        format!("{:?}", tensor.device()),
    )))
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn zeros(name: &str, elements: i64) -> (String, Tensor) {
        (
            name.to_owned(),
            Tensor::f_zeros([elements], (Kind::Float, Device::Cpu)).expect("a tensor"),
        )
    }

    #[test]
    fn shards_are_cut_greedily() {
        // Elements of 4 bytes, limit 40 bytes.
        let cases: &[(&[i64], &[usize])] = &[
            (&[5, 5], &[2]),
            (&[5, 6], &[1, 1]),
            (&[100, 1, 1], &[1, 2]),
            (&[1, 100, 1], &[1, 1, 1]),
            (&[], &[0]),
        ];
        for (sizes, expected) in cases {
            let weights: Vec<_> = sizes
                .iter()
                .enumerate()
                .map(|(index, &size)| zeros(&format!("w{index}"), size))
                .collect();
            let shards = cut(&weights, 40).expect("cut");
            let counts: Vec<_> = shards.files.iter().map(|(_, group)| group.len()).collect();
            assert_eq!(&counts, expected, "{sizes:?}");
            assert_eq!(shards.index.is_some(), expected.len() > 1);
        }
    }

    #[test]
    fn the_index_is_the_references() {
        let weights = [zeros("b", 6), zeros("a", 6)];
        let index = cut(&weights, 40).expect("cut").index.expect("two shards");
        let expected = json!({
            "metadata": {"total_size": 48},
            "weight_map": {"a": "model-00002-of-00002.safetensors", "b": "model-00001-of-00002.safetensors"},
        });
        assert_eq!(index, expected);
    }

    #[test]
    fn a_tensor_with_two_names_is_kept_once_and_counted_once() {
        let (_, tensor) = zeros("x", 8);
        let half = tensor.f_narrow(0, 0, 4).expect("a view");
        let weights = [
            ("embeddings".to_owned(), tensor.shallow_clone()),
            ("decoder".to_owned(), tensor.shallow_clone()),
            ("half".to_owned(), half),
        ];
        let shards = cut(&weights, u64::MAX).expect("cut");
        let names: Vec<_> = shards.files[0].1.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            ["embeddings", "half"],
            "a part of a tensor is another tensor"
        );
    }

    #[test]
    fn duplicates_and_unknown_types_are_refused_by_name() {
        let (_, tensor) = zeros("x", 1);
        let error = Plan::new([("x", &tensor), ("x", &tensor)], &BTreeMap::new())
            .err()
            .expect("a duplicate");
        assert!(
            error.to_string().contains("\"x\" was given twice"),
            "{error}"
        );
        let complex = tensor
            .f_to_kind(Kind::ComplexFloat)
            .expect("a complex tensor");
        let error = Plan::new([("c", &complex)], &BTreeMap::new())
            .err()
            .expect("a complex tensor");
        assert!(format!("{error:#}").contains("\"c\""), "{error:#}");
    }
}
