//! Metrics from plugins: `metrics`, which sees the pass batch by batch, and `whole-metrics`, for which the host gathers
//! the pass and which is called once.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::Result;
use tch::Tensor;
use wasmtime::component::{Resource, ResourceAny};

use super::batch::{Batch, share};
use super::context::check_name;
use super::fault::Violation;
use super::hook::Hook;
use super::instance::Instance;
use super::limits::Limit;
use crate::metric::{EvaluationBatch, Metric};

/// What pads rows of different length, as in the reference.
const PADDING: f64 = -100.0;

/// The `metrics` interface.
pub(super) struct Streaming {
    name: String,
    instance: Rc<RefCell<Instance>>,
    /// The guest's accumulator and the store that it belongs to.
    accumulator: Option<(ResourceAny, u64)>,
}

impl Streaming {
    pub(super) fn new(instance: Rc<RefCell<Instance>>) -> Self {
        let name = instance.borrow().name().to_owned();
        Self {
            name,
            instance,
            accumulator: None,
        }
    }

    /// The accumulator of this pass, if its store is still alive.
    fn current(&self) -> Result<ResourceAny> {
        let instance = self.instance.borrow();
        match self.accumulator {
            Some((accumulator, generation)) if instance.is_running(generation) => Ok(accumulator),
            Some(_) => Err(instance
                .refuse(
                    Hook::MetricsUpdate,
                    "what it had seen of this pass was lost when it was stopped".to_owned(),
                )
                .into()),
            None => Err(instance
                .refuse(
                    Hook::MetricsUpdate,
                    "no evaluation pass was begun".to_owned(),
                )
                .into()),
        }
    }
}

impl Metric for Streaming {
    fn name(&self) -> &str {
        &self.name
    }

    fn reset(&mut self, dataset: &str) -> Result<()> {
        let mut instance = self.instance.borrow_mut();
        instance.ready()?;
        if let Some((old, generation)) = self.accumulator.take()
            && instance.is_running(generation)
        {
            instance.call(Hook::MetricsDrop, |store, _| {
                Ok(Ok(old.resource_drop(store)?))
            })?;
        }
        let made = instance.call(Hook::MetricsNew, |store, hooks| match &hooks.metrics {
            Some(metrics) => metrics
                .accumulator()
                .call_constructor(store, dataset)
                .map(Ok),
            None => Err(absent()),
        })?;
        self.accumulator = Some((made, instance.generation()));
        Ok(())
    }

    fn update(&mut self, batch: &EvaluationBatch<'_>) -> Result<()> {
        let accumulator = self.current()?;
        self.instance
            .borrow_mut()
            .call(Hook::MetricsUpdate, |store, hooks| {
                let metrics = hooks.metrics.as_ref().ok_or_else(absent)?;
                store.data_mut().batch = Some(Batch::of(batch));
                metrics
                    .accumulator()
                    .call_update(store, accumulator, Resource::new_borrow(0))
            })
    }

    fn compute(&mut self) -> Result<Vec<(String, f64)>> {
        let accumulator = self.current()?;
        let mut instance = self.instance.borrow_mut();
        let numbers = instance.call(Hook::MetricsCompute, |store, hooks| {
            let metrics = hooks.metrics.as_ref().ok_or_else(absent)?;
            metrics.accumulator().call_compute(store, accumulator)
        })?;
        checked(&instance, Hook::MetricsCompute, numbers)
    }

    fn partial(&mut self) -> Result<Vec<u8>> {
        let accumulator = self.current()?;
        let mut instance = self.instance.borrow_mut();
        instance.call(Hook::MetricsPartial, |store, hooks| {
            let metrics = hooks.metrics.as_ref().ok_or_else(absent)?;
            metrics.accumulator().call_partial(store, accumulator)
        })
    }

    fn merge(&mut self, partial: &[u8]) -> Result<()> {
        let accumulator = self.current()?;
        let mut instance = self.instance.borrow_mut();
        instance.call(Hook::MetricsMerge, |store, hooks| {
            let metrics = hooks.metrics.as_ref().ok_or_else(absent)?;
            metrics
                .accumulator()
                .call_merge(store, accumulator, partial)
        })
    }
}

/// The `whole-metrics` interface.
pub(super) struct Whole {
    name: String,
    instance: Rc<RefCell<Instance>>,
    dataset: String,
    size: u64,
    outputs: Gathered,
    labels: Gathered,
    inputs: Gathered,
}

impl Whole {
    pub(super) fn new(instance: Rc<RefCell<Instance>>) -> Self {
        let name = instance.borrow().name().to_owned();
        Self {
            name,
            instance,
            dataset: String::new(),
            size: 0,
            outputs: Gathered::default(),
            labels: Gathered::default(),
            inputs: Gathered::default(),
        }
    }
}

impl Metric for Whole {
    fn name(&self) -> &str {
        &self.name
    }

    fn reset(&mut self, dataset: &str) -> Result<()> {
        dataset.clone_into(&mut self.dataset);
        self.size = 0;
        for gathered in [&mut self.outputs, &mut self.labels, &mut self.inputs] {
            *gathered = Gathered::default();
        }
        Ok(())
    }

    fn update(&mut self, batch: &EvaluationBatch<'_>) -> Result<()> {
        self.size += batch.size as u64;
        self.outputs.add(batch.outputs)?;
        self.labels.add(batch.labels)?;
        let inputs = batch.inputs.columns.iter();
        let named = inputs.map(|(name, tensor)| (name.to_string(), tensor.shallow_clone()));
        self.inputs.add(&named.collect::<Vec<_>>())
    }

    fn held_bytes(&self) -> u64 {
        let gathered = [&self.outputs, &self.labels, &self.inputs];
        gathered.into_iter().map(Gathered::bytes).sum()
    }

    fn compute(&mut self) -> Result<Vec<(String, f64)>> {
        let batch = Batch {
            outputs: self.outputs.joined()?,
            labels: self.labels.joined()?,
            inputs: self.inputs.joined()?,
            dataset: self.dataset.clone(),
            size: self.size,
        };
        let mut instance = self.instance.borrow_mut();
        let numbers = instance.call(Hook::WholeMetrics, |store, hooks| {
            let metrics = hooks.whole_metrics.as_ref().ok_or_else(absent)?;
            store.data_mut().batch = Some(batch);
            metrics.call_compute_metrics(store, Resource::new_borrow(0))
        })?;
        checked(&instance, Hook::WholeMetrics, numbers)
    }
}

/// The batches of a pass, column by column.
#[derive(Debug, Default)]
struct Gathered(Vec<(String, Vec<Tensor>)>);

impl Gathered {
    fn add(&mut self, tensors: &[(String, Tensor)]) -> Result<()> {
        for (name, tensor) in share(tensors) {
            // A value per batch becomes a row, as in the reference.
            let tensor = if tensor.dim() == 0 {
                tensor.f_reshape([1])?
            } else {
                tensor
            };
            match self.0.iter_mut().find(|(known, _)| *known == name) {
                Some((_, parts)) => parts.push(tensor),
                None => self.0.push((name, vec![tensor])),
            }
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        let parts = self.0.iter().flat_map(|(_, parts)| parts);
        let bytes = |part: &Tensor| part.numel() as u64 * part.kind().elt_size_in_bytes() as u64;
        parts.map(bytes).sum()
    }

    fn joined(&self) -> Result<Vec<(String, Tensor)>> {
        self.0
            .iter()
            .map(|(name, parts)| Ok((name.clone(), join(parts)?)))
            .collect()
    }
}

/// One tensor of all batches; where dimension 1 differs, shorter batches are padded on its right.
fn join(parts: &[Tensor]) -> Result<Tensor> {
    let width = |tensor: &Tensor| tensor.size().get(1).copied().unwrap_or(0);
    let widest = parts.iter().map(width).max().unwrap_or(0);
    let pad = |part: &Tensor| {
        if part.dim() < 2 || width(part) == widest {
            Ok(part.shallow_clone())
        } else {
            padded(part, widest)
        }
    };
    let padded = parts.iter().map(pad).collect::<Result<Vec<Tensor>>>()?;
    Ok(Tensor::f_cat(&padded, 0)?)
}

/// The part in a larger tensor, and the padding right of it.
fn padded(part: &Tensor, widest: i64) -> Result<Tensor> {
    let mut size = part.size();
    let own = std::mem::replace(&mut size[1], widest);
    let result = Tensor::f_empty(size, (part.f_kind()?, part.device()))?;
    result.f_narrow(1, 0, own)?.f_copy_(part)?;
    // A tensor instead of tch's `Scalar`, which panics where libtorch reports an error.
    result
        .f_narrow(1, own, widest - own)?
        .f_copy_(&Tensor::f_from_slice(&[PADDING])?)?;
    Ok(result)
}

fn absent() -> wasmtime::Error {
    wasmtime::Error::msg("the hook is not exported")
}

/// Numbers that can be shown and stored. What is not finite passes; whoever chooses a best model leaves it out.
fn checked(
    instance: &Instance,
    hook: Hook,
    numbers: Vec<(String, f64)>,
) -> Result<Vec<(String, f64)>> {
    let limit = instance.facts().limits.metrics;
    if numbers.len() as u64 > limit {
        return Err(instance
            .over(hook, Violation::count(Limit::Metrics, numbers.len() as u64))
            .into());
    }
    for (index, (name, _)) in numbers.iter().enumerate() {
        check_name(name).map_err(|reason| instance.refuse(hook, reason))?;
        if numbers[..index].iter().any(|(other, _)| other == name) {
            return Err(instance
                .refuse(hook, format!("returned the metric `{name}` twice"))
                .into());
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(
            &tensor
                .f_reshape([-1])
                .and_then(|flat| flat.f_to_kind(tch::Kind::Double))
                .expect("flat"),
        )
        .expect("values")
    }

    #[test]
    fn batches_of_different_width_are_padded_on_the_right_of_dimension_one() {
        let mut gathered = Gathered::default();
        let wide = Tensor::from_slice2(&[[1_i64, 2, 3]]);
        let narrow = Tensor::from_slice2(&[[4_i64], [5]]);
        for part in [narrow, wide] {
            gathered.add(&[("labels".to_owned(), part)]).expect("added");
        }
        let joined = gathered.joined().expect("joined");
        assert_eq!(joined[0].1.size(), [3, 3]);
        assert_eq!(
            values(&joined[0].1),
            [4.0, -100.0, -100.0, 5.0, -100.0, -100.0, 1.0, 2.0, 3.0]
        );
    }

    #[test]
    fn later_dimensions_are_left_alone() {
        let parts = [
            Tensor::ones([1, 1, 2], tch::kind::FLOAT_CPU),
            Tensor::ones([1, 2, 2], tch::kind::FLOAT_CPU),
        ];
        let joined = join(&parts).expect("joined");
        assert_eq!(joined.size(), [2, 2, 2]);
        assert_eq!(
            values(&joined),
            [1.0, 1.0, -100.0, -100.0, 1.0, 1.0, 1.0, 1.0]
        );
    }

    #[test]
    fn what_is_gathered_is_counted() {
        let mut gathered = Gathered::default();
        let logits = Tensor::zeros([3, 5], tch::kind::FLOAT_CPU);
        let labels = Tensor::from_slice(&[1_i64, 2, 3]);
        gathered
            .add(&[("logits".to_owned(), logits), ("labels".to_owned(), labels)])
            .expect("added");
        assert_eq!(gathered.bytes(), 3 * 5 * 4 + 3 * 8);
    }

    #[test]
    fn a_value_per_batch_becomes_a_row() {
        let mut gathered = Gathered::default();
        for value in [1.0, 2.0] {
            gathered
                .add(&[("score".to_owned(), Tensor::from(value))])
                .expect("added");
        }
        assert_eq!(values(&gathered.joined().expect("joined")[0].1), [1.0, 2.0]);
    }
}
