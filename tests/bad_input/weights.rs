//! Weights: truncated, corrupt, of the wrong shape, missing, poisoned.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{DATA, Refusal, TRAIN, project, refused, succeeds};
use crate::support::{Host, fixture};

const WEIGHTS: &str = "model/model.safetensors";
const WORDS: &str = "bert.embeddings.word_embeddings.weight";

/// A safetensors file in parts.
struct Parts {
    header: Map<String, Value>,
    data: Vec<u8>,
}

fn bytes() -> Vec<u8> {
    fs::read(fixture("golden/init_toy/model.safetensors")).expect("the fixture")
}

impl Parts {
    fn read() -> Self {
        let bytes = bytes();
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        Self {
            header: serde_json::from_slice(&bytes[8..8 + length]).expect("a header"),
            data: bytes[8 + length..].to_vec(),
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        with_header(&serde_json::to_vec(&self.header).expect("JSON"), &self.data)
    }

    /// The same without some tensors, and one of zeros in another shape.
    fn rebuilt(&self, keep: impl Fn(&str) -> bool, other: Option<(&str, &[usize])>) -> Vec<u8> {
        let (mut header, mut data) = (Map::new(), Vec::new());
        for (name, entry) in self
            .header
            .iter()
            .filter(|(name, _)| *name != "__metadata__" && keep(name))
        {
            let offset =
                |index: usize| entry["data_offsets"][index].as_u64().expect("an offset") as usize;
            let (mut entry, begin) = (entry.clone(), data.len());
            match other {
                Some((changed, shape)) if changed == name => {
                    entry["shape"] = json!(shape);
                    data.resize(begin + 4 * shape.iter().product::<usize>(), 0);
                }
                _ => data.extend_from_slice(&self.data[offset(0)..offset(1)]),
            }
            entry["data_offsets"] = json!([begin, data.len()]);
            header.insert(name.clone(), entry);
        }
        Self { header, data }.to_bytes()
    }
}

fn with_header(header: &[u8], data: &[u8]) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header, data].concat()
}

fn with_weights(content: &[u8]) -> Host {
    let host = project();
    fs::write(host.path(WEIGHTS), content).expect("written");
    host
}

#[test]
fn a_truncated_file_says_where_it_ends() {
    let whole = bytes();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().expect("8 bytes")) as usize;
    for (length, error) in [
        (
            0,
            "it is 0 bytes long, shorter than the 8 bytes at offset 0".to_owned(),
        ),
        (
            4,
            "it is 4 bytes long, shorter than the 8 bytes at offset 0".to_owned(),
        ),
        (
            100,
            format!("it ends at offset 100, inside the header that reaches to offset {header}"),
        ),
        (header, format!("but the file ends at offset {header}")),
        (
            whole.len() - 1,
            format!(
                "tensor \"classifier.weight\" reaches to offset {}, but the file ends at offset {}",
                whole.len(),
                whole.len() - 1
            ),
        ),
    ] {
        let error = format!("model.safetensors cannot be used: {error}");
        let error = if length == header {
            "but the file ends at offset"
        } else {
            &error
        };
        refused(
            &with_weights(&whole[..length]),
            TRAIN,
            Refusal::new(DATA, error),
        );
    }
    let longer = [&whole[..], b"x"].concat();
    refused(
        &with_weights(&longer),
        TRAIN,
        Refusal::new(DATA, "1 bytes after the last tensor"),
    );
}

#[test]
fn a_corrupt_header_is_explained() {
    let changed = |change: &dyn Fn(&mut Map<String, Value>)| {
        let mut parts = Parts::read();
        change(&mut parts.header);
        parts.to_bytes()
    };
    let mut not_text = bytes();
    not_text[9] = 0xff;
    let cases: [(Vec<u8>, &str); 8] = [
        (
            b"this is no file of weights".to_vec(),
            "more than the 100000000 allowed",
        ),
        (
            [&(1_u64 << 63).to_le_bytes()[..], b"{}"].concat(),
            "the header's length at offset 0 is 9223372036854775808",
        ),
        (
            with_header(b"{\"a\": [1", b""),
            "the header at offset 8 is not what the format prescribes",
        ),
        (not_text, "the header is not UTF-8 at offset 9"),
        (
            changed(&|header| header[WORDS]["dtype"] = json!("F17")),
            "has the element type \"F17\"; known are BOOL, ",
        ),
        (
            changed(&|header| header[WORDS]["shape"] = json!([1_u64 << 62, 1_u64 << 62])),
            "overflows",
        ),
        (
            changed(&|header| header[WORDS]["data_offsets"] = json!([0, 180 * 32 * 4])),
            "inside the tensor before it",
        ),
        (
            changed(&|header| drop(header.remove(WORDS))),
            "a hole of 23040 bytes lies before tensor",
        ),
    ];
    for (content, error) in cases {
        refused(&with_weights(&content), TRAIN, Refusal::new(DATA, error));
    }
    let integers = changed(&|header| header[WORDS]["dtype"] = json!("I32"));
    refused(
        &with_weights(&integers),
        TRAIN,
        Refusal::new(
            DATA,
            "bert.embeddings.word_embeddings.weight holds Int; expected floating point",
        )
        .hint("quantized weights cannot be trained"),
    );
}

#[test]
fn a_tensor_of_another_shape_is_named_with_both_shapes() {
    let parts = Parts::read();
    let head = parts.rebuilt(|_| true, Some(("classifier.weight", &[3, 32])));
    refused(
        &with_weights(&head),
        TRAIN,
        Refusal::new(
            DATA,
            "classifier.weight has shape [3, 32] in the file and [2, 32] in the model",
        )
        .hint("the head was trained for another number of labels"),
    );
    let norm = parts.rebuilt(|_| true, Some(("bert.embeddings.LayerNorm.bias", &[31])));
    refused(
        &with_weights(&norm),
        TRAIN,
        Refusal::new(
            DATA,
            "bert.embeddings.LayerNorm.bias has shape [31] in the file and [32] in the model",
        )
        .hint("config.json and the weights must belong to the same model"),
    );
}

#[test]
fn tensors_that_are_missing_are_listed() {
    let parts = Parts::read();
    let without_layer = parts.rebuilt(|name| !name.contains("layer.1.output"), None);
    let shown = succeeds(&with_weights(&without_layer), TRAIN);
    assert!(
        shown.contains("newly initialized: ['bert.encoder.layer.1.output.dense.weight', 'bert.encoder.layer.1.output.dense.bias', "),
        "{shown}"
    );
    // Weights of nothing that the model has are weights of something else.
    let nothing = with_header(
        b"{\"other\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
        &[0; 4],
    );
    refused(
        &with_weights(&nothing),
        TRAIN,
        Refusal::new(DATA, "model.safetensors: none of the 41 tensors of BertForSequenceClassification is there; the file has 1 others")
            .hint("config.json and the weights must belong to the same model"),
    );
    let host = project();
    fs::remove_file(host.path(WEIGHTS)).expect("removed");
    refused(
        &host,
        TRAIN,
        Refusal::new(DATA, "no weights in").hint("is this the folder of a model"),
    );
}

#[test]
fn an_index_names_plain_files_that_are_there() {
    for (index, error) in [
        (
            r#"{"weight_map": {"a": "../../etc/passwd"}}"#,
            "model.safetensors.index.json: \"../../etc/passwd\" is not a plain file name",
        ),
        (
            r#"{"weight_map": {"a": "model-00001.safetensors"}}"#,
            "names model-00001.safetensors, which is missing",
        ),
        ("{", "model.safetensors.index.json:1:1: EOF while parsing"),
    ] {
        let host = project();
        fs::remove_file(host.path(WEIGHTS)).expect("removed");
        host.write(&format!("{WEIGHTS}.index.json"), index);
        refused(&host, TRAIN, Refusal::new(DATA, error));
    }
}

/// A file of `torch.save` around a pickle.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in [("archive/data.pkl", pickle), ("archive/version", b"3")] {
        archive.start_file(name, options).expect("a member");
        archive.write_all(content).expect("written");
    }
    archive.finish().expect("an archive").into_inner()
}

/// `{'a': os.system('touch FILE')}` in protocol 2.
fn poison(file: &Path) -> Vec<u8> {
    let order = format!("touch {}", file.display());
    let length = (order.len() as u32).to_le_bytes();
    [
        b"\x80\x02}X\x01\0\0\0acposix\nsystem\nX",
        &length[..],
        order.as_bytes(),
        b"\x85Rs.",
    ]
    .concat()
}

#[test]
fn no_code_of_a_pickle_runs() {
    let host = project();
    let canary = host.path("canary");
    let poison = poison(&canary);
    fs::remove_file(host.path(WEIGHTS)).expect("removed");
    for (content, error) in [
        (
            archive(&poison),
            "refused: it names posix.system, which is no part of a tensor and would run code",
        ),
        (poison.clone(), "it is not a file of torch.save"),
        (
            archive(b"\x80\x02]."),
            "does not hold weights: expected a dictionary, found a list",
        ),
        (
            archive(b"\x80\x02}."),
            "none of the 41 tensors of BertForSequenceClassification is there; the file has 0 others",
        ),
        (archive(&poison)[..60].to_vec(), "its archive is damaged"),
        (
            b"hello".to_vec(),
            "it is not a file of torch.save: it begins with \"hell\"",
        ),
        (Vec::new(), "it is not a file of torch.save"),
    ] {
        fs::write(host.path("model/pytorch_model.bin"), content).expect("written");
        refused(&host, TRAIN, Refusal::new(DATA, error));
        assert!(!canary.exists(), "code of a pickle ran");
    }
}
