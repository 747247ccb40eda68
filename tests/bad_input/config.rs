//! `config.json`: absent, no JSON, of another architecture, with sizes that cannot be.

use std::fs;

use serde_json::{Value, json};

use super::{DATA, Refusal, TRAIN, USAGE, configure, project, refused};

#[test]
fn a_configuration_must_be_there_and_be_json() {
    for (content, error) in [
        (
            &b""[..],
            "model/config.json: not a JSON object: EOF while parsing a value at line 1",
        ),
        (
            b"{\"a\": 1,\n \"b\" 2}",
            "model/config.json: not a JSON object: expected `:` at line 2 column 6",
        ),
        (
            b"[]",
            "model/config.json: not a JSON object: invalid type: sequence",
        ),
        (
            b"{\"a\":\"\xff\"}",
            "model/config.json: not a JSON object: invalid unicode code point",
        ),
    ] {
        let host = project();
        fs::write(host.path("model/config.json"), content).expect("written");
        refused(&host, TRAIN, Refusal::new(DATA, error));
    }
    let host = project();
    fs::remove_file(host.path("model/config.json")).expect("removed");
    refused(
        &host,
        TRAIN,
        Refusal::new(USAGE, "model: `model` is a folder without config.json"),
    );
}

#[test]
fn another_architecture_is_refused_with_what_there_is() {
    let native = "native architectures are BertForSequenceClassification, ";
    let cases: [(Value, &str, &str); 4] = [
        (
            json!({"model_type": "llama"}),
            "model_type \"llama\" is not supported",
            native,
        ),
        (json!({"model_type": null}), "no model_type", native),
        (
            json!({"is_decoder": true}),
            "BERT as a decoder is not supported",
            "",
        ),
        (
            json!({"position_embedding_type": "relative_key"}),
            "position_embedding_type \"relative_key\" is not supported",
            "",
        ),
    ];
    for (changes, error, hint) in cases {
        let host = project();
        configure(&host, &changes);
        refused(
            &host,
            TRAIN,
            Refusal::new(DATA, &format!("model/config.json: {error}")).hint(hint),
        );
    }
}

#[test]
fn values_that_cannot_be_are_refused_by_name() {
    let cases: [(Value, &str); 20] = [
        (
            json!({"hidden_size": -32}),
            "hidden_size -32 is not positive",
        ),
        (
            json!({"hidden_size": 33}),
            "hidden_size 33 is not a multiple of num_attention_heads 2",
        ),
        (
            json!({"hidden_size": "32"}),
            "hidden_size: invalid type: string \"32\"",
        ),
        (
            json!({"hidden_size": 32.5}),
            "hidden_size: invalid type: floating point `32.5`",
        ),
        (
            json!({"num_attention_heads": 0}),
            "num_attention_heads 0 is not positive",
        ),
        (
            json!({"num_hidden_layers": -1}),
            "num_hidden_layers: invalid value: integer `-1`",
        ),
        (
            json!({"num_hidden_layers": 1_000_000_000}),
            "num_hidden_layers 1000000000 is more than the 4096 supported",
        ),
        (
            json!({"hidden_dropout_prob": 2}),
            "dropout probability 2 is not between 0 and 1",
        ),
        (
            json!({"hidden_act": "magic"}),
            "hidden_act: activation function \"magic\" is not supported; known are gelu, ",
        ),
        (
            json!({"layer_norm_eps": -1}),
            "layer_norm_eps -1 is negative",
        ),
        (
            json!({"initializer_range": -1}),
            "initializer_range -1 is not a standard deviation",
        ),
        (
            json!({"pad_token_id": 500}),
            "pad_token_id 500 is not in the vocabulary of 180",
        ),
        (
            json!({"num_labels": 0}),
            "num_labels 0 is not a number from 1 to 1000000",
        ),
        (
            json!({"num_labels": 1_000_000_000_000_u64}),
            "num_labels 1000000000000 is not a number from 1 to 1000000",
        ),
        (
            json!({"id2label": {"0": "a", "5": "b"}}),
            "id2label: the ids are not 0 to 1: look at \"b\"",
        ),
        (
            json!({"id2label": {"x": "a"}}),
            "id2label: the ids are not 0 to 0: look at \"a\"",
        ),
        (json!({"id2label": [1]}), "id2label is not an object"),
        (
            json!({"problem_type": "magic"}),
            "problem_type \"magic\" is not one of regression, ",
        ),
        (
            json!({"type_vocab_size": 0}),
            "type_vocab_size 0 is not positive",
        ),
        (
            json!({"pruned_heads": {"1": [0]}}),
            "pruned_heads are not supported",
        ),
    ];
    for (changes, error) in cases {
        let host = project();
        configure(&host, &changes);
        refused(
            &host,
            TRAIN,
            Refusal::new(DATA, &format!("model/config.json: {error}")),
        );
    }
}

/// No memory holds these; they are compared with the weights before anything is made of them.
#[test]
fn sizes_beyond_all_memory_are_refused_by_the_weights() {
    for (key, tensor) in [
        (
            "vocab_size",
            "bert.embeddings.word_embeddings.weight has shape [180, 32] in the file and",
        ),
        (
            "max_position_embeddings",
            "bert.embeddings.position_embeddings.weight has shape [128, 32] in the file and",
        ),
        (
            "intermediate_size",
            "bert.encoder.layer.0.intermediate.dense.weight has shape [64, 32] in the file and",
        ),
        (
            "hidden_size",
            "bert.embeddings.word_embeddings.weight has shape [180, 32] in the file and",
        ),
    ] {
        for size in [1_u64 << 40, 1 << 62] {
            let host = project();
            configure(&host, &json!({key: size}));
            let hint = "config.json and the weights must belong to the same model";
            refused(&host, TRAIN, Refusal::new(DATA, tensor).hint(hint));
        }
    }
}
