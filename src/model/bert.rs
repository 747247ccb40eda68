//! BERT with heads for sequence and token classification and for hidden tokens, operation for operation as `modeling_bert` of transformers
//! 4.34 computes it with eager attention: the order fixes rounding, the order of gradients, and the random draws.
//!
//! Shapes: B batch, T tokens, D hidden size, H heads, K size of a head, I intermediate size, C classes, P positions.

use std::sync::Arc;

use anyhow::{Context, Result};
use tch::{Device, Kind, Tensor};

use super::architecture::Blueprint;
use super::config::{ModelConfig, ProblemType, Task};
use super::layers::{Activation, Dropout, Embedding, LayerNorm, Linear};
use super::parameters::{Made, Naming, ParameterSource};
use super::watch::{Pass, Seen, Watch};
use super::weights::LoadReport;
use super::{Model, Outputs, Parameter};
use crate::data::Batch;
use crate::error::Failure;
use crate::torch;

mod head;
mod shape;

use head::{Head, TIED};
use shape::Shape;

/// Base-model prefix of the tensor names.
pub const PREFIX: &str = "bert";
const EMBEDDINGS: &str = "bert.embeddings";
/// Buffers that releases before 4.31 saved.
pub const BUFFERS: &[&str] = &[
    "bert.embeddings.position_ids",
    "bert.embeddings.token_type_ids",
];
/// Arguments of `forward` that may be columns of a data set.
pub(super) const ARGUMENTS: &[&str] = &[
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "position_ids",
    "labels",
];

/// The class whose output weights are those of its word embeddings.
pub(super) const MASKED_LM: &str = "BertForMaskedLM";
#[derive(Debug)]
struct Embeddings {
    words: Embedding,
    positions: Embedding,
    token_types: Embedding,
    norm: LayerNorm,
    dropout: Dropout,
    position_ids_1p: Tensor,
}

impl Embeddings {
    fn make(source: &mut ParameterSource, shape: &Shape) -> Result<Self> {
        let name = |part: &str| format!("{EMBEDDINGS}.{part}");
        let width = shape.hidden_size;
        let words = [shape.vocab_size, width];
        let positions = [shape.max_position_embeddings, width];
        let words = source.embedding(
            (&name("word_embeddings"), "token id"),
            words,
            shape.pad_token_id,
        )?;
        let positions =
            source.embedding((&name("position_embeddings"), "position"), positions, None)?;
        // As many as there are rows: a shape that the weights do not have is refused later and takes no memory.
        let num_positions = positions.weight.size()[0];
        Ok(Self {
            words,
            positions,
            token_types: source.embedding(
                (&name("token_type_embeddings"), "token type id"),
                [shape.type_vocab_size, width],
                None,
            )?,
            norm: source.layer_norm(&name("LayerNorm"), width, shape.layer_norm_eps)?,
            dropout: dropout(&name("dropout"), shape.hidden_dropout_prob),
            position_ids_1p: Tensor::f_arange(num_positions, (Kind::Int64, Device::Cpu))?
                .f_unsqueeze(0)?,
        })
    }

    fn forward(&self, inputs: &Inputs<'_>, pass: &Pass) -> Result<Tensor> {
        let words_btd = self.words.forward(inputs.ids_bt, pass)?;
        let types_btd = match inputs.token_types_bt {
            Some(types_bt) => self.token_types.forward(types_bt, pass)?,
            None => self
                .token_types
                .forward(&inputs.ids_bt.f_zeros_like()?.f_to_kind(Kind::Int64)?, pass)?,
        };
        let mut sum_btd = words_btd.f_add(&types_btd)?;
        let positions_btd = match inputs.positions_bt {
            Some(positions_bt) => self.positions.forward(positions_bt, pass)?,
            None => {
                let ids_1t = self.position_ids_1p.f_narrow(1, 0, inputs.tokens)?;
                self.positions
                    .forward(&ids_1t.f_to(inputs.ids_bt.device())?, pass)?
            }
        };
        let sum_btd = sum_btd.f_add_(&positions_btd)?;
        let output_btd = self
            .dropout
            .forward(&self.norm.forward(&sum_btd, pass)?, pass)?;
        pass.saw(&Seen {
            name: EMBEDDINGS,
            class: "BertEmbeddings",
            parameters: &[],
            inputs: &[],
            output: &output_btd,
        })?;
        Ok(output_btd)
    }
}

fn dropout(name: &str, probability: f64) -> Dropout {
    Dropout {
        name: name.to_owned(),
        probability,
    }
}

#[derive(Debug)]
struct SelfAttention {
    name: String,
    query: Linear,
    key: Linear,
    value: Linear,
    dropout: Dropout,
    heads: i64,
    head_size: i64,
}

impl SelfAttention {
    fn make(source: &mut ParameterSource, name: &str, shape: &Shape) -> Result<Self> {
        let width = shape.hidden_size;
        let mut linear = |part: &str| source.linear(&format!("{name}.{part}"), width, width);
        Ok(Self {
            query: linear("query")?,
            key: linear("key")?,
            value: linear("value")?,
            dropout: dropout(
                &format!("{name}.dropout"),
                shape.attention_probs_dropout_prob,
            ),
            name: name.to_owned(),
            heads: shape.num_attention_heads,
            head_size: width / shape.num_attention_heads,
        })
    }

    fn split_heads(&self, tensor_btd: &Tensor) -> Result<Tensor> {
        let size = tensor_btd.size();
        Ok(tensor_btd
            .f_view([size[0], size[1], self.heads, self.head_size])?
            .f_permute([0, 2, 1, 3])?)
    }

    /// The order of the projections is that of the reference: gradients of `hidden_btd` are summed in its reverse.
    fn forward(&self, hidden_btd: &Tensor, mask_b11t: &Tensor, pass: &Pass) -> Result<Tensor> {
        let mixed_query_btd = self.query.forward(hidden_btd, pass)?;
        let key_bhtk = self.split_heads(&self.key.forward(hidden_btd, pass)?)?;
        let value_bhtk = self.split_heads(&self.value.forward(hidden_btd, pass)?)?;
        let query_bhtk = self.split_heads(&mixed_query_btd)?;

        let scores_bhtt = query_bhtk.f_matmul(&key_bhtk.f_transpose(-1, -2)?)?;
        let scores_bhtt = scores_bhtt.f_div_scalar((self.head_size as f64).sqrt())?;
        let scores_bhtt = scores_bhtt.f_add(mask_b11t)?;
        let probabilities_bhtt = scores_bhtt.f_softmax(-1, None)?;
        let probabilities_bhtt = self.dropout.forward(&probabilities_bhtt, pass)?;

        let context_bthk = probabilities_bhtt
            .f_matmul(&value_bhtk)?
            .f_permute([0, 2, 1, 3])?
            .f_contiguous()?;
        let size = context_bthk.size();
        let context_btd = context_bthk.f_view([size[0], size[1], self.heads * self.head_size])?;
        pass.saw(&Seen {
            name: &self.name,
            class: "BertSelfAttention",
            parameters: &[],
            inputs: &[hidden_btd, mask_b11t],
            output: &context_btd,
        })?;
        Ok(context_btd)
    }
}

/// Dense layer, dropout, and LayerNorm of the sum with what came in before; ends both halves of a layer.
#[derive(Debug)]
struct Residual {
    name: String,
    class: &'static str,
    dense: Linear,
    norm: LayerNorm,
    dropout: Dropout,
}

impl Residual {
    fn make(
        source: &mut ParameterSource,
        (name, class): (&str, &'static str),
        (inputs, shape): (i64, &Shape),
    ) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            class,
            dense: source.linear(&format!("{name}.dense"), shape.hidden_size, inputs)?,
            norm: source.layer_norm(
                &format!("{name}.LayerNorm"),
                shape.hidden_size,
                shape.layer_norm_eps,
            )?,
            dropout: dropout(&format!("{name}.dropout"), shape.hidden_dropout_prob),
        })
    }

    fn forward(&self, hidden: &Tensor, input_btd: &Tensor, pass: &Pass) -> Result<Tensor> {
        let hidden_btd = self
            .dropout
            .forward(&self.dense.forward(hidden, pass)?, pass)?;
        let output_btd = self.norm.forward(&hidden_btd.f_add(input_btd)?, pass)?;
        pass.saw(&Seen {
            name: &self.name,
            class: self.class,
            parameters: &[],
            inputs: &[hidden, input_btd],
            output: &output_btd,
        })?;
        Ok(output_btd)
    }
}

#[derive(Debug)]
struct Layer {
    name: String,
    attention: SelfAttention,
    attention_output: Residual,
    intermediate: Linear,
    activation: Activation,
    output: Residual,
}

impl Layer {
    fn make(source: &mut ParameterSource, name: &str, shape: &Shape) -> Result<Self> {
        let (width, inner) = (shape.hidden_size, shape.intermediate_size);
        Ok(Self {
            attention: SelfAttention::make(source, &format!("{name}.attention.self"), shape)?,
            attention_output: Residual::make(
                source,
                (&format!("{name}.attention.output"), "BertSelfOutput"),
                (width, shape),
            )?,
            intermediate: source.linear(&format!("{name}.intermediate.dense"), inner, width)?,
            activation: Activation::parse(&shape.hidden_act)?,
            output: Residual::make(
                source,
                (&format!("{name}.output"), "BertOutput"),
                (inner, shape),
            )?,
            name: name.to_owned(),
        })
    }

    fn forward(&self, hidden_btd: &Tensor, mask_b11t: &Tensor, pass: &Pass) -> Result<Tensor> {
        let context_btd = self.attention.forward(hidden_btd, mask_b11t, pass)?;
        let attended_btd = self
            .attention_output
            .forward(&context_btd, hidden_btd, pass)?;
        self.saw(
            pass,
            ".attention BertAttention",
            (&[hidden_btd, mask_b11t], &attended_btd),
        )?;
        let dense_bti = self.intermediate.forward(&attended_btd, pass)?;
        let inner_bti = self.activation.forward(&dense_bti)?;
        let activation = ".intermediate.intermediate_act_fn Activation";
        self.saw(pass, activation, (&[&dense_bti], &inner_bti))?;
        self.saw(
            pass,
            ".intermediate BertIntermediate",
            (&[&attended_btd], &inner_bti),
        )?;
        let output_btd = self.output.forward(&inner_bti, &attended_btd, pass)?;
        self.saw(pass, " BertLayer", (&[hidden_btd, mask_b11t], &output_btd))?;
        Ok(output_btd)
    }

    /// Tells the watch of a part of this layer: `part` is the rest of its name, and its class.
    fn saw(&self, pass: &Pass, part: &str, (inputs, output): (&[&Tensor], &Tensor)) -> Result<()> {
        if pass.watch.is_none() {
            return Ok(());
        }
        let (name, class) = part.split_once(' ').unwrap_or((part, ""));
        pass.saw(&Seen {
            name: &format!("{}{name}", self.name),
            class,
            parameters: &[],
            inputs,
            output,
        })
    }
}

/// The columns of a batch, checked.
#[derive(Debug)]
struct Inputs<'a> {
    ids_bt: &'a Tensor,
    mask: Option<&'a Tensor>,
    token_types_bt: Option<&'a Tensor>,
    positions_bt: Option<&'a Tensor>,
    tokens: i64,
}

impl<'a> Inputs<'a> {
    fn of(batch: &'a Batch, max_positions: i64) -> Result<Self> {
        let Some(ids_bt) = batch.get("input_ids") else {
            let names: Vec<_> = batch.columns.iter().map(|(name, _)| &**name).collect();
            return Err(Failure::data(format!(
                "the batch has no column input_ids; it has {}",
                names.join(", ")
            ))
            .into());
        };
        let size = ids_bt.size();
        let &[_, tokens] = size.as_slice() else {
            return Err(Failure::data(format!(
                "input_ids has shape {size:?}; expected examples x tokens"
            ))
            .into());
        };
        if tokens > max_positions {
            return Err(Failure::data(format!(
                "a sequence has {tokens} tokens, but the model has {max_positions} positions"
            ))
            .hint(format!("set --max_length {max_positions} or less"))
            .into());
        }
        for name in ["attention_mask", "token_type_ids", "position_ids"] {
            let other = batch
                .get(name)
                .map(Tensor::size)
                .filter(|other| *other != size);
            if let Some(other) =
                other.filter(|other| !(name == "attention_mask" && other.len() == 3))
            {
                return Err(Failure::data(format!(
                    "{name} has shape {other:?}, but input_ids has {size:?}"
                ))
                .into());
            }
        }
        Ok(Self {
            ids_bt,
            mask: batch.get("attention_mask"),
            token_types_bt: batch.get("token_type_ids"),
            positions_bt: batch.get("position_ids"),
            tokens,
        })
    }

    /// 0 where a token may be attended to, the smallest number of `kind` where not.
    fn extended_mask(&self, kind: Kind) -> Result<Tensor> {
        let mask = match self.mask {
            Some(mask) if mask.dim() == 3 => mask.f_unsqueeze(1)?,
            Some(mask_bt) => mask_bt.f_unsqueeze(1)?.f_unsqueeze(2)?,
            None => self.ids_bt.f_ones_like()?.f_unsqueeze(1)?.f_unsqueeze(2)?,
        };
        Ok(mask
            .f_to_kind(kind)?
            .f_rsub_scalar(1.0)?
            .f_mul_scalar(smallest(kind))?)
    }
}

/// `torch.finfo(dtype).min`.
fn smallest(kind: Kind) -> f64 {
    match kind {
        Kind::Double => f64::MIN,
        Kind::BFloat16 => -3.389_531_389_251_535_5e38,
        Kind::Half => -65504.0,
        _ => f64::from(f32::MIN),
    }
}

/// The encoder with one of the heads.
#[derive(Debug)]
pub struct Bert {
    config: ModelConfig,
    class: &'static str,
    kind: Kind,
    embeddings: Embeddings,
    layers: Vec<Arc<Layer>>,
    head: Head,
    parameters: Vec<Parameter>,
    non_embedding_elements: usize,
    max_positions: i64,
    arguments: Vec<String>,
    ignored_outputs: Vec<String>,
    pass: Pass,
    recomputes: bool,
}

/// Makes the network for a task; wrong shapes are an error.
pub fn build(
    blueprint: Blueprint<'_>,
    mut source: ParameterSource,
) -> Result<(Box<dyn Model>, LoadReport)> {
    let config = blueprint.config;
    let shape = Shape::read(config)?;
    let embeddings = Embeddings::make(&mut source, &shape)?;
    let layer = |index: usize| format!("{PREFIX}.encoder.layer.{index}");
    let layers = (0..shape.num_hidden_layers)
        .map(|index| Layer::make(&mut source, &layer(index), &shape).map(Arc::new))
        .collect::<Result<_>>()?;
    if blueprint.task == Task::MaskedLm && !shape.tie_word_embeddings {
        let source = config.source.display();
        let message = format!("{source}: tie_word_embeddings false is not supported");
        return Err(Failure::data(message).into());
    }
    let head = Head::make(&mut source, blueprint, &shape)?;
    let Made {
        parameters,
        non_embedding_elements,
        report,
    } = source.finish()?;
    let model = Bert {
        config: config.clone(),
        class: blueprint.class,
        kind: blueprint.kind,
        embeddings,
        layers,
        head,
        parameters,
        non_embedding_elements,
        max_positions: shape.max_position_embeddings,
        arguments: ARGUMENTS.iter().map(|name| (*name).to_owned()).collect(),
        ignored_outputs: config.keys_to_ignore_at_inference(),
        pass: Pass::default(),
        recomputes: false,
    };
    Ok((Box::new(model), report))
}

/// What [`Naming`] needs to know of BERT.
pub fn naming(class: &'static str) -> Naming {
    Naming {
        class,
        prefix: PREFIX,
        buffers: BUFFERS,
        tied: if class == MASKED_LM { TIED } else { &[] },
    }
}

impl Bert {
    fn encode(&self, inputs: &Inputs<'_>, mask_b11t: &Tensor) -> Result<Tensor> {
        let mut hidden_btd = self.embeddings.forward(inputs, &self.pass)?;
        for (index, layer) in self.layers.iter().enumerate() {
            hidden_btd = self
                .run_layer(layer, &hidden_btd, mask_b11t)
                .with_context(|| format!("layer {index}"))?;
        }
        self.saw(&format!("{PREFIX}.encoder"), "BertEncoder", &hidden_btd)?;
        Ok(hidden_btd)
    }

    fn run_layer(
        &self,
        layer: &Arc<Layer>,
        hidden_btd: &Tensor,
        mask_b11t: &Tensor,
    ) -> Result<Tensor> {
        if !(self.recomputes && self.pass.training) {
            return layer.forward(hidden_btd, mask_b11t, &self.pass);
        }
        let (layer, mask_b11t) = (Arc::clone(layer), mask_b11t.shallow_clone());
        let pass = self.pass.clone();
        torch::recomputed(hidden_btd, move |hidden_btd| {
            layer.forward(hidden_btd, &mask_b11t, &pass)
        })
    }

    /// The first token's state through a dense layer.
    fn pool(&self, pooler: &Linear, hidden_btd: &Tensor) -> Result<Tensor> {
        let first_bd = pooler.forward(&hidden_btd.f_select(1, 0)?, &self.pass)?;
        let pooled_bd = first_bd.f_tanh()?;
        self.saw(&format!("{PREFIX}.pooler"), "BertPooler", &pooled_bd)?;
        Ok(pooled_bd)
    }

    /// Tells the watch what a part of the network gave.
    fn saw(&self, name: &str, class: &str, output: &Tensor) -> Result<()> {
        self.pass.saw(&Seen {
            name,
            class,
            parameters: &[],
            inputs: &[],
            output,
        })
    }

    /// As the reference: the first labels decide what the problem is, and the configuration remembers it.
    fn remember_problem_type(&mut self, batch: &Batch) {
        if self.config.problem_type.is_some() || !self.head.is_pooled() {
            return;
        }
        if let Some(labels) = batch.get("labels") {
            let integers = matches!(labels.kind(), Kind::Int64 | Kind::Int);
            self.config.problem_type = Some(ProblemType::infer(self.config.num_labels(), integers));
        }
    }
}

impl Model for Bert {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn state_dict(&self) -> Vec<(String, Tensor)> {
        self.parameters
            .iter()
            .map(|parameter| (parameter.name.clone(), parameter.tensor.shallow_clone()))
            .collect()
    }

    fn forward_arguments(&self) -> &[String] {
        &self.arguments
    }

    fn label_names(&self) -> Vec<String> {
        vec!["labels".to_owned()]
    }

    fn keys_to_ignore_at_inference(&self) -> &[String] {
        &self.ignored_outputs
    }

    fn is_library_model(&self) -> bool {
        true
    }

    fn config(&self) -> Option<serde_json::Value> {
        Some(self.config.to_json(self.class, self.kind))
    }

    fn set_training(&mut self, training: bool) -> Result<()> {
        self.pass.training = training;
        Ok(())
    }

    fn recompute_activations(&mut self) -> Result<()> {
        self.recomputes = true;
        Ok(())
    }

    fn watch_numbers(&mut self) -> Result<()> {
        self.pass.watch = Some(Watch::default());
        Ok(())
    }

    fn set_kind(&mut self, kind: Kind) -> Result<()> {
        self.kind = kind;
        let parameters = self.parameters.iter();
        let tensors: Vec<_> = parameters.map(|p| p.tensor.shallow_clone()).collect();
        torch::set_kind(&tensors, kind)
    }

    fn forward(&mut self, batch: &Batch) -> Result<Outputs> {
        self.remember_problem_type(batch);
        let inputs = Inputs::of(batch, self.max_positions)?;
        let mask_b11t = inputs.extended_mask(self.kind)?;
        let hidden_btd = self.encode(&inputs, &mask_b11t)?;
        let state = match self.head.pooler() {
            Some(pooler) => self.pool(pooler, &hidden_btd)?,
            None => hidden_btd,
        };
        self.saw(PREFIX, "BertModel", &state)?;
        let words_vd = &self.embeddings.words.weight;
        let logits = self.head.forward(&state, words_vd, &self.pass)?;
        self.pass.saw_all(&Seen {
            name: "",
            class: self.class,
            parameters: &[],
            inputs: &[],
            output: &logits,
        })?;
        Ok(Outputs {
            loss: None,
            fields: vec![("logits".to_owned(), logits)],
        })
    }

    fn floating_point_operations(&self, batch: &Batch) -> f64 {
        let elements = batch.get(self.main_input()).map_or(0, Tensor::numel);
        6.0 * elements as f64 * self.non_embedding_elements as f64
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};
    use tch::{Device, Kind, Tensor};

    use super::super::architecture::{LoadOptions, Loaded, load};
    use super::super::{Model, Task};
    use crate::data::Batch;
    use crate::loss::{ByProblem, Loss};
    use crate::torch;

    fn fixture(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(name)
    }

    /// The recorded model with other dropout probabilities, in another type.
    fn model(dropout: f64, kind: Kind) -> Box<dyn Model> {
        let folder = tempfile::tempdir().expect("a folder");
        let text = std::fs::read_to_string(fixture("golden/init_toy/config.json")).expect("a file");
        let mut config: Value = serde_json::from_str(&text).expect("JSON");
        config["hidden_dropout_prob"] = json!(dropout);
        config["attention_probs_dropout_prob"] = json!(dropout);
        std::fs::write(folder.path().join("config.json"), config.to_string()).expect("written");
        std::fs::copy(
            fixture("golden/init_toy/model.safetensors"),
            folder.path().join("model.safetensors"),
        )
        .expect("copied");
        let options = LoadOptions {
            path: folder.path().to_owned(),
            is_new: false,
            task: None,
            kind,
            num_labels: None,
            labels: None,
            problem_type: None,
        };
        let Loaded {
            model,
            report,
            task,
            ..
        } = load(&options).expect("a model");
        assert_eq!(report.messages(), Vec::<String>::new());
        assert_eq!(task, Task::SequenceClassification);
        model
    }

    fn recorded(section: &str) -> Value {
        let text = std::fs::read_to_string(fixture("bert_forward.json")).expect("a file");
        serde_json::from_str::<Value>(&text).expect("JSON")[section].take()
    }

    fn number(value: &Value) -> f64 {
        value.as_f64().expect("a number")
    }

    /// Rows padded to the longest.
    fn batch(section: &Value) -> Batch {
        let rows = section["input_ids"].as_array().expect("rows");
        let width = rows
            .iter()
            .map(|row| row.as_array().expect("ids").len())
            .max()
            .expect("a row");
        let at = |row: &Value, column: usize| row.get(column).and_then(Value::as_i64);
        let grid = |value: &dyn Fn(Option<i64>) -> i64| {
            let flat: Vec<i64> = rows
                .iter()
                .flat_map(|row| (0..width).map(|column| value(at(row, column))))
                .collect();
            Tensor::from_slice(&flat).view([rows.len() as i64, width as i64])
        };
        let labels: Vec<i64> = section["labels"]
            .as_array()
            .expect("labels")
            .iter()
            .filter_map(Value::as_i64)
            .collect();
        Batch {
            columns: vec![
                ("input_ids".into(), grid(&|id| id.unwrap_or(0))),
                ("token_type_ids".into(), grid(&|_| 0)),
                ("attention_mask".into(), grid(&|id| i64::from(id.is_some()))),
                ("labels".into(), Tensor::from_slice(&labels)),
            ],
        }
    }

    #[test]
    fn the_recorded_forward_pass_comes_out() {
        let probe = recorded("probe");
        let batch = batch(&probe);
        for (kind, tolerance) in [
            (Kind::Float, 1e-7),
            (Kind::Double, 1e-6),
            (Kind::BFloat16, 2e-3),
        ] {
            let mut model = model(0.1, kind);
            let outputs = tch::no_grad(|| model.forward(&batch)).expect("a pass");
            let loss = ByProblem::new(None)
                .loss(&outputs, &batch)
                .expect("a loss")
                .double_value(&[]);
            assert!(
                (loss - number(&probe["loss"])).abs() <= tolerance,
                "{kind:?}: {loss}"
            );
            let logits = outputs.logits().expect("logits");
            assert_eq!(logits.kind(), kind);
            for (row, expected) in probe["logits"].as_array().expect("rows").iter().enumerate() {
                for (column, expected) in expected.as_array().expect("a row").iter().enumerate() {
                    let value = logits.double_value(&[row as i64, column as i64]);
                    assert!(
                        (value - number(expected)).abs() <= tolerance,
                        "{kind:?} {row} {column}: {value}"
                    );
                }
            }
        }
    }

    #[test]
    fn dropout_draws_what_the_reference_drew() {
        let _turn = torch::testing::exclusive();
        let first = recorded("first_batch");
        let batch = batch(&first);
        for (dropout, which) in [(0.0, "without"), (0.1, "with")] {
            let mut model = model(dropout, Kind::Float);
            model.set_training(true).expect("a mode");
            // What the run had drawn before the first batch: the loader's base seed and the sampler's seed.
            torch::manual_seed(42).expect("a seed");
            for _ in 0..2 {
                torch::default_random_int64().expect("a draw");
            }
            let outputs = model.forward(&batch).expect("a pass");
            let loss = ByProblem::new(None).loss(&outputs, &batch).expect("a loss");
            let value = loss.double_value(&[]);
            assert!(
                (value - number(&first[format!("loss_{which}_dropout")])).abs() <= 1e-7,
                "{dropout}: {value}"
            );
            loss.backward();
            let tensors: Vec<_> = model
                .parameters()
                .iter()
                .map(|parameter| parameter.tensor.shallow_clone())
                .collect();
            let norm = torch::clip_gradients(&tensors, f64::INFINITY).expect("gradients");
            assert!(
                (norm - number(&first[format!("gradient_norm_{which}_dropout")])).abs() <= 1e-6,
                "{dropout}: {norm}"
            );
            let words = &model.parameters()[0];
            assert_eq!(
                words.tensor.grad().get(0).abs().sum(None).double_value(&[]),
                0.0,
                "the padding row gets no gradient"
            );
        }
    }

    #[test]
    fn names_decay_and_work_are_the_references() {
        let model = model(0.1, Kind::Float);
        let names: Vec<_> = model
            .parameters()
            .iter()
            .map(|parameter| parameter.name.as_str())
            .collect();
        assert_eq!(names.len(), 41);
        assert_eq!(names[0], "bert.embeddings.word_embeddings.weight");
        assert_eq!(names[4], "bert.embeddings.LayerNorm.bias");
        assert_eq!(names[5], "bert.encoder.layer.0.attention.self.query.weight");
        assert_eq!(
            names[37..],
            [
                "bert.pooler.dense.weight",
                "bert.pooler.dense.bias",
                "classifier.weight",
                "classifier.bias"
            ]
        );
        let decaying = model
            .parameters()
            .iter()
            .filter(|parameter| parameter.decay)
            .count();
        assert_eq!(decaying, 17, "group 0 of the recorded optimizer");
        for parameter in model.parameters() {
            let expected =
                !parameter.name.contains("bias") && !parameter.name.contains("LayerNorm");
            assert_eq!(parameter.decay, expected, "{}", parameter.name);
        }
        // total_flos of the recorded run: 23,184 tokens with padding.
        let tokens = Batch {
            columns: vec![(
                "input_ids".into(),
                Tensor::zeros([16, 1449], (Kind::Int64, Device::Cpu)),
            )],
        };
        assert_eq!(model.floating_point_operations(&tokens), 2_541_986_496.0);
    }

    #[test]
    fn the_first_labels_are_remembered_in_the_configuration() {
        let mut model = model(0.0, Kind::Float);
        let mut batch = batch(&recorded("probe"));
        let labels = batch.take("labels").expect("labels");
        let problem =
            |model: &dyn Model| model.config().expect("a configuration")["problem_type"].clone();
        model.forward(&batch).expect("a pass");
        assert_eq!(problem(&*model), Value::Null);
        batch.columns.push(("labels".into(), labels));
        model.forward(&batch).expect("a pass");
        assert_eq!(problem(&*model), "single_label_classification");
    }

    #[test]
    fn inputs_that_do_not_fit_are_errors() {
        let ids = |values: &[i64]| Tensor::from_slice(values).view([1, values.len() as i64]);
        let cases: [(&str, Vec<(&str, Tensor)>); 6] = [
            (
                "token id 180 is out of range: the model has 180",
                vec![("input_ids", ids(&[2, 180]))],
            ),
            (
                "token type id 2 is out of range: the model has 2",
                vec![
                    ("input_ids", ids(&[2, 3])),
                    ("token_type_ids", ids(&[0, 2])),
                ],
            ),
            (
                "a sequence has 129 tokens, but the model has 128 positions",
                vec![("input_ids", ids(&[5; 129]))],
            ),
            (
                "the batch has no column input_ids; it has text_ids",
                vec![("text_ids", ids(&[5]))],
            ),
            (
                "input_ids has shape [2]; expected examples x tokens",
                vec![("input_ids", Tensor::from_slice(&[1_i64, 2]))],
            ),
            (
                "attention_mask has shape [1, 3], but input_ids has [1, 2]",
                vec![
                    ("input_ids", ids(&[1, 2])),
                    ("attention_mask", ids(&[1, 1, 1])),
                ],
            ),
        ];
        let mut model = model(0.0, Kind::Float);
        for (expected, columns) in cases {
            let batch = Batch {
                columns: columns
                    .into_iter()
                    .map(|(name, tensor)| (name.into(), tensor))
                    .collect(),
            };
            assert_eq!(
                model.forward(&batch).expect_err(expected).to_string(),
                expected
            );
        }
        let bare = Batch {
            columns: vec![("input_ids".into(), ids(&[2, 5, 3]))],
        };
        let full = Batch {
            columns: vec![
                ("input_ids".into(), ids(&[2, 5, 3])),
                ("attention_mask".into(), ids(&[1, 1, 1])),
                ("token_type_ids".into(), ids(&[0, 0, 0])),
                ("position_ids".into(), ids(&[0, 1, 2])),
            ],
        };
        let mut logits = |batch: &Batch| {
            model
                .forward(batch)
                .expect("a pass")
                .logits()
                .expect("logits")
                .shallow_clone()
        };
        assert!(
            logits(&bare).equal(&logits(&full)),
            "what is left out has its default"
        );
    }
}
