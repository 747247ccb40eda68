//! Reading tensors: a safetensors file, the weights of a model folder, the parts of a checkpoint.
//!
//! Data are read at their position, one tensor after the other, after the header was checked: a file that changes or ends
//! early is an error, never a fault of the process, and the peak is one file's tensors, not two.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
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
    let metadata = file
        .metadata()
        .with_context(|| format!("cannot read {}", path.display()))?;
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
        let tensor =
            tensor.with_context(|| format!("tensor {:?} at offset {position}", entry.name));
        tensors.push((entry.name, tensor.map_err(|error| damaged(path, &error))?));
    }
    Ok(TensorFile {
        tensors,
        metadata: header.metadata,
    })
}

/// One message with everything, because the file is what the user can act on. A failing device stays an I/O error.
fn damaged(path: &Path, error: &anyhow::Error) -> anyhow::Error {
    let io = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>());
    let kind = match io {
        Some(io) if io.kind() != std::io::ErrorKind::UnexpectedEof => Kind::Io,
        _ => Kind::Data,
    };
    Failure::new(
        kind,
        format!("{} cannot be used: {error:#}", path.display()),
    )
    .into()
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
    let names = [
        layout::WEIGHTS,
        layout::WEIGHTS_INDEX,
        layout::PICKLED_WEIGHTS,
        layout::PICKLED_WEIGHTS_INDEX,
    ];
    let Some(name) = names.into_iter().find(|name| dir.join(name).exists()) else {
        let message = format!(
            "no weights in {}: looked for {}",
            dir.display(),
            names.join(", ")
        );
        return Err(Failure::data(message)
            .hint("is this the folder of a model or a checkpoint?")
            .into());
    };
    let source = dir.join(name);
    if [layout::WEIGHTS, layout::PICKLED_WEIGHTS].contains(&name) {
        return Ok(WeightFiles {
            files: vec![source.clone()],
            source,
            map: None,
        });
    }
    let map = json::read::<Index>(&source)?.weight_map;
    let shards: BTreeSet<&String> = map.values().collect();
    let mut files = Vec::with_capacity(shards.len());
    for shard in shards {
        let path = file::check_name(shard).map(|shard| dir.join(shard));
        let path =
            path.map_err(|error| Failure::data(format!("{}: {error:#}", source.display())))?;
        if !path.exists() {
            return Err(Failure::data(format!(
                "{} names {shard}, which is missing",
                source.display()
            ))
            .into());
        }
        files.push(path);
    }
    Ok(WeightFiles {
        source,
        files,
        map: Some(map),
    })
}

/// Reads the weights of a model folder: safetensors, or the reference's pickled files through the restricted reader.
pub fn read_weights(dir: &Path) -> Result<Weights> {
    let WeightFiles { source, files, map } = weight_files(dir)?;
    let (mut tensors, mut found) = (Vec::new(), HashMap::new());
    for path in files {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned();
        let is_native = name.ends_with(".safetensors");
        let shard = if is_native {
            read_tensors(&path)?.tensors
        } else {
            foreign::read_state_dict(&path)?
        };
        for (tensor, _) in &shard {
            if let Some(other) = found.insert(tensor.clone(), name.clone()) {
                return Err(Failure::data(format!(
                    "tensor {tensor:?} is in {other} and in {name} of {}",
                    dir.display()
                ))
                .into());
            }
        }
        tensors.extend(shard);
    }
    for (tensor, shard) in map.iter().flatten() {
        if found.get(tensor) != Some(shard) {
            return Err(Failure::data(format!(
                "{}: tensor {tensor:?} is not in {shard}",
                source.display()
            ))
            .into());
        }
    }
    Ok(Weights { tensors, source })
}

/// Reads what `Staging::write_part` wrote.
pub fn read_part(path: &Path) -> Result<PartState> {
    let TensorFile { tensors, metadata } = read_tensors(path)?;
    let not_a_part = |reason: String| {
        Failure::data(format!(
            "{} is not the state of a part: {reason}",
            path.display()
        ))
    };
    let text = metadata
        .get(PART_JSON)
        .ok_or_else(|| not_a_part(format!("its header has no {PART_JSON:?}")))?;
    let json = serde_json::from_str(text).map_err(|error| not_a_part(error.to_string()))?;
    Ok(PartState { tensors, json })
}

/// Optimizer state of a checkpoint, ours or the reference's. `None`: the checkpoint has none.
pub fn read_optimizer(dir: &Path) -> Result<Option<PartState>> {
    either(
        dir,
        (layout::OPTIMIZER, read_part),
        (layout::PICKLED_OPTIMIZER, foreign::read_optimizer),
    )
}

/// Schedule state of a checkpoint, ours or the reference's. `None`: the checkpoint has none.
pub fn read_scheduler(dir: &Path) -> Result<Option<PartState>> {
    let ours = |path: &Path| {
        Ok(PartState {
            tensors: Vec::new(),
            json: json::read(path)?,
        })
    };
    either(
        dir,
        (layout::SCHEDULER, ours),
        (layout::PICKLED_SCHEDULER, foreign::read_scheduler),
    )
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::panic::catch_unwind;

    use safetensors::tensor::{Dtype, TensorView};

    use super::*;
    use crate::error::kind_of;

    /// A header as given, then `data` zeros.
    fn file(header: &[u8], data: usize) -> Vec<u8> {
        [
            &(header.len() as u64).to_le_bytes()[..],
            header,
            &vec![0; data],
        ]
        .concat()
    }

    fn read(bytes: &[u8]) -> Result<TensorFile> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("model.safetensors");
        fs::write(&path, bytes)?;
        read_tensors(&path)
    }

    fn valid() -> Vec<u8> {
        let (floats, integers) = ([0, 0, 128, 63, 0, 0, 0, 64], 5_i64.to_le_bytes());
        let views = [
            (
                "w",
                TensorView::new(Dtype::F32, vec![2, 1], &floats).expect("a view"),
            ),
            (
                "n",
                TensorView::new(Dtype::I64, vec![], &integers).expect("a view"),
            ),
            (
                "empty",
                TensorView::new(Dtype::F16, vec![0, 3], &[]).expect("a view"),
            ),
        ];
        safetensors::serialize(views, None).expect("serialized")
    }

    #[test]
    fn files_of_the_crate_are_read() {
        let TensorFile { tensors, metadata } = read(&valid()).expect("readable");
        let by_name: BTreeMap<_, _> = tensors.into_iter().collect();
        assert!(metadata.is_empty());
        assert_eq!(by_name["w"].size(), [2, 1]);
        assert_eq!(by_name["w"].f_double_value(&[1, 0]).expect("a number"), 2.0);
        assert_eq!(by_name["n"].f_int64_value(&[]).expect("a number"), 5);
        assert_eq!(by_name["empty"].size(), [0, 3]);
    }

    #[test]
    fn every_cut_is_an_error_that_names_the_file_and_an_offset() {
        let whole = valid();
        for length in 0..whole.len() {
            let error = read(&whole[..length]).map(|_| ()).expect_err("too short");
            let text = error.to_string();
            assert!(
                text.contains("model.safetensors") && text.contains("offset"),
                "{length} bytes: {text}"
            );
            assert_eq!(kind_of(&error), Kind::Data);
        }
        let longer = [&whole[..], b"x"].concat();
        assert!(
            read(&longer)
                .expect_err("too long")
                .to_string()
                .contains("1 bytes after the last tensor")
        );
    }

    #[test]
    fn flipped_bits_never_panic() {
        let whole = valid();
        let header = 8 + u64::from_le_bytes(whole[..8].try_into().expect("8 bytes")) as usize;
        for bit in 0..header * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // A flip may make another valid header (a name, a type of the same size); it may not do harm.
            catch_unwind(|| read(&flipped).map(|_| ()))
                .expect("no panic")
                .ok();
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn headers_that_lie_are_refused_with_the_reason() {
        let tensor = |text: &str| format!("{{\"x\":{text}}}");
        let f32 = |shape: &str, offsets: &str| {
            tensor(&format!(
                r#"{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}"#
            ))
        };
        let twice = r#"{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"x":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
        let overlap = r#"{"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"y":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#;
        let hole = r#"{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"y":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}"#;
        let cases: &[(String, usize, &str)] = &[
            (
                f32("[1]", "[0,4]").replace('{', " {"),
                4,
                "does not begin with {",
            ),
            (format!("[{}]", 1), 0, "does not begin with {"),
            (twice.into(), 2, "\"x\" is in the header twice"),
            (overlap.into(), 3, "\"y\" begins at offset"),
            (hole.into(), 3, "a hole of 1 bytes lies before tensor \"y\""),
            (
                f32("[2]", "[0,4]"),
                4,
                "needs 8 bytes, but data offsets 0 to 4 hold 4",
            ),
            (
                f32("[1]", "[4,0]"),
                4,
                "ends at data offset 0, before its beginning at 4",
            ),
            (f32("[1]", "[0,4]"), 2, "\"x\" reaches to offset"),
            (f32("[4611686018427387904,4]", "[0,4]"), 4, "overflows"),
            (f32("[18446744073709551615]", "[0,4]"), 4, "overflows"),
            (f32("[-1]", "[0,4]"), 4, "tensor \"x\": invalid value"),
            (f32("[1.5]", "[0,4]"), 4, "tensor \"x\": invalid type"),
            (
                f32("[4]", "[18446744073709551600,18446744073709551615]"),
                4,
                "hold 15",
            ),
            (
                f32(&format!("[{}1]", "1,".repeat(64)), "[0,4]"),
                4,
                "65 dimensions",
            ),
            (
                tensor(r#"{"dtype":"F33","shape":[1],"data_offsets":[0,4]}"#),
                4,
                "\"F33\"; known are BOOL",
            ),
            (
                tensor(r#"{"dtype":"C64","shape":[1],"data_offsets":[0,8]}"#),
                8,
                "\"C64\"; known are BOOL",
            ),
            (
                tensor(r#"{"dtype":"F32","shape":[1]}"#),
                4,
                "missing field `data_offsets`",
            ),
            (
                tensor(r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4],"code":1}"#),
                4,
                "unknown field `code`",
            ),
            (tensor(&"[".repeat(100_000)), 0, "tensor \"x\""),
            (
                r#"{"__metadata__":{"a":"1","a":"2"}}"#.into(),
                0,
                "metadata \"a\" is there twice",
            ),
            (r#"{"__metadata__":{"a":1}}"#.into(), 0, "expected a string"),
            (
                r#"{"__metadata__":{},"__metadata__":{}}"#.into(),
                0,
                "__metadata__ is there twice",
            ),
            (r"{} x".into(), 0, "trailing characters"),
        ];
        for (header, data, expected) in cases {
            let error = read(&file(header.as_bytes(), *data))
                .map(|_| ())
                .expect_err(header);
            assert!(
                error.to_string().contains(expected),
                "{header:.200}: {error}"
            );
        }
        let lengths: [(u64, &str); 3] = [
            (u64::MAX, "more than"),
            (1 << 63, "more than"),
            (100_000_001, "more than"),
        ];
        for (length, expected) in lengths {
            let error = read(&[&length.to_le_bytes()[..], b"{}"].concat())
                .map(|_| ())
                .expect_err("too long");
            assert!(error.to_string().contains(expected), "{error}");
        }
        let error = read(&file(b"{\"\xff\"", 0))
            .map(|_| ())
            .expect_err("not UTF-8");
        assert!(
            error.to_string().contains("not UTF-8 at offset 10"),
            "{error}"
        );
    }

    #[test]
    fn padding_and_an_empty_file_of_tensors_are_fine() {
        assert!(
            read(&file(b"{}      ", 0))
                .expect("readable")
                .tensors
                .is_empty()
        );
    }

    #[test]
    fn a_boolean_that_is_none_names_its_tensor() {
        let mut bytes = file(
            br#"{"flag":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}}"#,
            2,
        );
        *bytes.last_mut().expect("not empty") = 2;
        let error = read(&bytes).map(|_| ()).expect_err("no boolean");
        assert!(error.to_string().contains("tensor \"flag\""), "{error}");
    }

    fn write(dir: &Path, name: &str, tensors: &[&str]) {
        let data = [0, 0, 128, 63];
        let views = tensors.iter().map(|name| {
            (
                *name,
                TensorView::new(Dtype::F32, vec![1], &data).expect("a view"),
            )
        });
        fs::write(
            dir.join(name),
            safetensors::serialize(views, None).expect("serialized"),
        )
        .expect("written");
    }

    #[test]
    fn sharded_weights_must_be_what_their_index_says() {
        let cases: &[(&str, &str)] = &[
            (
                r#"{"weight_map":{"a":"s1.safetensors","b":"s2.safetensors"}}"#,
                "",
            ),
            (
                r#"{"weight_map":{"a":"s1.safetensors","b":"s3.safetensors"}}"#,
                "names s3.safetensors, which is missing",
            ),
            (
                r#"{"weight_map":{"a":"s1.safetensors","c":"s2.safetensors"}}"#,
                "tensor \"c\" is not in s2.safetensors",
            ),
            (
                r#"{"weight_map":{"a":"s2.safetensors","b":"s2.safetensors"}}"#,
                "tensor \"a\" is not in s2.safetensors",
            ),
            (
                r#"{"weight_map":{"a":"s1.safetensors","b":"twin.safetensors"}}"#,
                "\"a\" is in s1.safetensors and in twin",
            ),
            (
                r#"{"weight_map":{"a":"../s1.safetensors"}}"#,
                "not a plain file name",
            ),
            (
                r#"{"weight_map":{"a":"/etc/passwd"}}"#,
                "not a plain file name",
            ),
            (r#"{"weight_map":[]}"#, "index.json:1:"),
            (r#"{}"#, "missing field `weight_map`"),
        ];
        for (index, expected) in cases {
            let folder = tempfile::tempdir().expect("a folder");
            write(folder.path(), "s1.safetensors", &["a"]);
            write(folder.path(), "s2.safetensors", &["b"]);
            write(folder.path(), "twin.safetensors", &["a", "b"]);
            fs::write(folder.path().join(layout::WEIGHTS_INDEX), index).expect("written");
            match read_weights(folder.path()) {
                Ok(weights) => {
                    assert!(expected.is_empty() && weights.tensors.len() == 2, "{index}")
                }
                Err(error) => {
                    assert!(
                        !expected.is_empty() && error.to_string().contains(expected),
                        "{index}: {error:#}"
                    )
                }
            }
        }
    }

    #[test]
    fn a_single_file_wins_and_nothing_is_said_to_be_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = read_weights(folder.path())
            .map(|_| ())
            .expect_err("nothing there");
        for name in [
            layout::WEIGHTS,
            layout::WEIGHTS_INDEX,
            layout::PICKLED_WEIGHTS,
            layout::PICKLED_WEIGHTS_INDEX,
        ] {
            assert!(error.to_string().contains(name), "{error}");
        }
        fs::write(folder.path().join(layout::WEIGHTS_INDEX), "no JSON").expect("written");
        write(folder.path(), layout::WEIGHTS, &["a"]);
        let weights = read_weights(folder.path()).expect("readable");
        assert_eq!(weights.source, folder.path().join(layout::WEIGHTS));
    }
}
