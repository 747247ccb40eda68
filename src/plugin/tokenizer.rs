//! The run's tokenizer, for hooks that may use it.

use std::sync::Arc;

use tch::{Kind, Tensor};
use wasmtime::component::Resource;

use super::bindings::trainer::host::tokenizer;
use super::fault::HostError;
use super::hook::Hook;
use super::state::State;
use super::tensor;
use super::tensor::rules::Form;
use super::text::printable;
use crate::data::Tokenizer;
use crate::data::tokenizer::{Input, Piece};

impl State {
    fn tokenizer(&self) -> Result<Arc<Tokenizer>, HostError> {
        let is_free = matches!(
            self.hook,
            Some(
                Hook::Collate
                    | Hook::MetricsNew
                    | Hook::MetricsUpdate
                    | Hook::MetricsPartial
                    | Hook::MetricsMerge
                    | Hook::MetricsCompute
                    | Hook::WholeMetrics
            )
        );
        if !is_free && !self.facts.allowed.tokenizer {
            return Err(HostError::denied(
                "this hook needs the capability `tokenizer`, which the plugin's manifest does not request",
            ));
        }
        let known = self.facts.tokenizer.get();
        known.cloned().ok_or_else(|| {
            HostError::unsupported("the run has no tokenizer, or has not read it yet")
        })
    }

    /// Token numbers by row.
    fn token_rows(&mut self, ids: &Resource<tensor::Handle>) -> Result<Vec<Vec<i64>>, HostError> {
        let form = self.tensors.form(ids)?;
        let is_whole = matches!(
            form.kind,
            Kind::Uint8 | Kind::Int8 | Kind::Int16 | Kind::Int | Kind::Int64
        );
        let width = match form.dims[..] {
            [width] | [_, width] if is_whole => width as usize,
            _ => {
                return Err(HostError::data(format!(
                    "token numbers are whole numbers of shape [tokens] or [rows, tokens], not {:?} of shape {:?}",
                    form.kind, form.dims
                )));
            }
        };
        let count = form.elements()?;
        self.tensors.hand_over(count.saturating_mul(8))?;
        let flat = self.tensors.share(ids)?.f_to_kind(Kind::Int64)?;
        let flat = flat.f_to_device(tch::Device::Cpu)?.f_reshape([-1])?;
        let mut numbers = vec![0_i64; count as usize];
        flat.f_contiguous()?
            .f_copy_data(&mut numbers, count as usize)?;
        if width == 0 {
            let rows = if form.dims.len() == 1 {
                1
            } else {
                form.dims[0]
            };
            return Ok(vec![Vec::new(); rows as usize]);
        }
        Ok(numbers.chunks(width).map(<[i64]>::to_vec).collect())
    }
}

impl tokenizer::Host for State {
    fn decode(
        &mut self,
        ids: Resource<tensor::Handle>,
        skip_special: bool,
    ) -> Result<Vec<String>, HostError> {
        let tokenizer = self.tokenizer()?;
        let rows = self.token_rows(&ids)?;
        let mut texts = Vec::with_capacity(rows.len());
        for row in rows {
            let text = tokenizer.decode(&row, skip_special);
            let text = text.map_err(|error| HostError::data(format!("{error:#}")))?;
            self.tensors.hand_over(text.len() as u64)?;
            texts.push(text);
        }
        Ok(texts)
    }

    fn encode(&mut self, texts: Vec<String>) -> Result<Vec<Vec<i64>>, HostError> {
        let tokenizer = self.tokenizer()?;
        let mut rows = Vec::with_capacity(texts.len());
        // One after the other: workers run beside each other as it is.
        for text in &texts {
            self.check_time()?;
            let encoded = tokenizer.encode(1, |_| Input::One(Piece::Text(text)));
            let encoded = encoded.map_err(|error| HostError::data(format!("{error:#}")))?;
            let row = encoded.input_ids.get(0);
            self.tensors.hand_over(8 * row.len() as u64)?;
            rows.push(row);
        }
        Ok(rows)
    }

    fn special_id(&mut self, name: String) -> Result<Option<i64>, HostError> {
        let tokenizer = self.tokenizer()?;
        tokenizer.special_id(&name).ok_or_else(|| {
            HostError::data(format!(
                "`{}` is no special token; there are bos, eos, unk, sep, pad, cls and mask",
                printable(&name, 64)
            ))
        })
    }

    fn special_mask(
        &mut self,
        ids: Resource<tensor::Handle>,
    ) -> Result<Resource<tensor::Handle>, HostError> {
        let tokenizer = self.tokenizer()?;
        let form = self.tensors.form(&ids)?;
        let shared = self.tensors.share(&ids)?;
        let mask = Form {
            dims: form.dims.clone(),
            kind: Kind::Bool,
        };
        // Sorting the numbers beside the special ones is the most that libtorch does.
        let scratch = form.elements()?.saturating_mul(32);
        self.tensors.create(mask, scratch, || {
            let special = Tensor::f_from_slice(tokenizer.special_ids())?;
            let special = special.f_to_device(shared.device())?;
            Ok(Tensor::f_isin(
                &shared.f_to_kind(Kind::Int64)?,
                &special,
                false,
                false,
            )?)
        })
    }
}
