//! Metrics from plugins: `metrics`, which sees the pass batch by batch, and `whole-metrics`, for which the host gathers
//! the pass and which is called once.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::Result;
use wasmtime::component::{Resource, ResourceAny};

use super::batch::{Batch, share_columns};
use super::context::check_name;
use super::fault::Violation;
use super::hook::Hook;
use super::instance::{Instance, absent};
use super::limits::Limit;
use crate::data::Accumulator;
use crate::metric::{EvaluationBatch, Metric};

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
    outputs: Accumulator,
    labels: Accumulator,
    inputs: Accumulator,
}

impl Whole {
    pub(super) fn new(instance: Rc<RefCell<Instance>>) -> Self {
        let name = instance.borrow().name().to_owned();
        Self {
            name,
            instance,
            dataset: String::new(),
            size: 0,
            outputs: Accumulator::new(),
            labels: Accumulator::new(),
            inputs: Accumulator::new(),
        }
    }

    fn gathered(&mut self) -> [&mut Accumulator; 3] {
        [&mut self.outputs, &mut self.labels, &mut self.inputs]
    }
}

impl Metric for Whole {
    fn name(&self) -> &str {
        &self.name
    }

    fn reset(&mut self, dataset: &str) -> Result<()> {
        dataset.clone_into(&mut self.dataset);
        self.size = 0;
        for gathered in self.gathered() {
            *gathered = Accumulator::new();
        }
        Ok(())
    }

    fn update(&mut self, batch: &EvaluationBatch<'_>) -> Result<()> {
        self.size += batch.size as u64;
        self.outputs.push(batch.outputs)?;
        self.labels.push(batch.labels)?;
        self.inputs.push(&share_columns(batch.inputs))
    }

    fn to_host(&mut self) -> Result<()> {
        self.gathered()
            .into_iter()
            .try_for_each(Accumulator::to_host)
    }

    fn held_bytes(&self) -> u64 {
        let gathered = [&self.outputs, &self.labels, &self.inputs];
        gathered.into_iter().map(Accumulator::bytes).sum()
    }

    fn compute(&mut self) -> Result<Vec<(String, f64)>> {
        let batch = Batch {
            outputs: std::mem::take(&mut self.outputs).finish()?,
            labels: std::mem::take(&mut self.labels).finish()?,
            inputs: std::mem::take(&mut self.inputs).finish()?,
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
