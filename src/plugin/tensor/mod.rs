//! The tensors of one plugin: handles, who may still use them, and the budget of bytes.
//!
//! A handle is a slot. When a call ends, the slots it filled are emptied but stay taken until the guest drops its handle,
//! so that a later use is answered with `stale` and never with another tensor. Bytes belong to a [`Charge`] that a result
//! and all views of it share; the budget gets them back when the last of these is gone.

mod constant;
mod operations;
mod reading;
pub(in crate::plugin) mod rules;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tch::{Kind, Tensor};
use wasmtime::component::Resource;

use super::fault::{HostError, Violation};
use super::limits::{Bytes, Limit, Limits};
use rules::{Form, Plan};

/// Marks the `tensor` resource; the number of a resource is the number of its slot.
#[derive(Debug)]
pub enum Handle {}

/// Bytes that count against a budget for as long as this lives.
#[derive(Debug)]
struct Charge {
    account: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum Slot {
    /// May be filled.
    Free,
    /// Its call is over, but the guest still holds the handle.
    Stale,
    Live {
        tensor: Tensor,
        charge: Option<Arc<Charge>>,
        kept: bool,
    },
}

/// All tensors that a plugin can reach.
#[derive(Debug)]
pub(super) struct Tensors {
    slots: Vec<Slot>,
    free: Vec<u32>,
    taken: u64,
    /// Whether this call filled a slot; most calls do not, and have nothing to clear.
    touched: bool,
    account: Arc<AtomicU64>,
    /// While a graph is recorded: it keeps tensors whose handles are gone, so their bytes stay charged until the call ends.
    recorded: Option<Vec<Arc<Charge>>>,
    max_handles: u64,
    max_bytes: u64,
    max_read: u64,
    read_in_call: u64,
    reads: u64,
    violation: Option<Violation>,
}

impl Tensors {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            taken: 0,
            touched: false,
            account: Arc::default(),
            recorded: None,
            max_handles: limits.handles,
            max_bytes: limits.tensors,
            max_read: limits.reads,
            read_in_call: 0,
            reads: 0,
            violation: None,
        }
    }

    /// Ends a call: what it made and did not keep is gone.
    pub(super) fn end_call(&mut self) {
        self.read_in_call = 0;
        self.recorded = None;
        if !std::mem::take(&mut self.touched) {
            return;
        }
        for slot in &mut self.slots {
            if matches!(slot, Slot::Live { kept: false, .. }) {
                *slot = Slot::Stale;
            }
        }
    }

    /// From here to the end of the call, operations are part of a graph.
    pub(super) fn record(&mut self) {
        self.recorded = Some(Vec::new());
    }

    /// The first limit that was reached since the last time this was asked.
    pub(super) fn take_violation(&mut self) -> Option<Violation> {
        self.violation.take()
    }

    /// Notes a limit that something else of the call has reached, unless one was reached before.
    pub(super) fn note(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// Reads of elements so far.
    pub(super) fn reads(&self) -> u64 {
        self.reads
    }

    /// Gives the guest a tensor of the host. Nothing is copied and nothing charged.
    pub(super) fn lend(&mut self, tensor: &Tensor) -> Result<Resource<Handle>, HostError> {
        self.insert(tensor.shallow_clone(), None, false)
    }

    /// The tensor behind a handle that stays with the guest.
    pub(super) fn share(&self, handle: &Resource<Handle>) -> Result<Tensor, HostError> {
        Ok(self.get(handle)?.shallow_clone())
    }

    /// A tensor that a hook returned: the handle is the host's again.
    pub(super) fn take_back(&mut self, handle: Resource<Handle>) -> Result<Tensor, HostError> {
        let tensor = self.share(&handle);
        self.release(&handle);
        tensor
    }

    /// A new tensor: `make` runs only if the budget has room for it and for `scratch` bytes besides.
    pub(super) fn create(
        &mut self,
        form: Form,
        scratch: u64,
        make: impl FnOnce() -> Result<Tensor, HostError>,
    ) -> Result<Resource<Handle>, HostError> {
        let charge = self.charge(form.bytes()?, scratch)?;
        let tensor = make()?;
        #[cfg(test)]
        assert_eq!(
            Form::of(&tensor)?,
            form,
            "a rule does not say what libtorch does"
        );
        self.insert(tensor, Some(charge), false)
    }

    /// The result of an operation on a tensor: a view shares the bytes of its base.
    fn derive(
        &mut self,
        base: &Resource<Handle>,
        plan: &Plan,
        operation: impl FnOnce(&Tensor) -> Result<Tensor, tch::TchError>,
    ) -> Result<Resource<Handle>, HostError> {
        let charge = match plan.view {
            true => self.slot(base)?.1.cloned(),
            false => Some(self.charge(plan.form.bytes()?, plan.scratch)?),
        };
        let result = operation(self.get(base)?)?;
        #[cfg(test)]
        assert_eq!(
            Form::of(&result)?,
            plan.form,
            "a rule does not say what libtorch does"
        );
        self.insert(result, charge, false)
    }

    fn get(&self, handle: &Resource<Handle>) -> Result<&Tensor, HostError> {
        Ok(self.slot(handle)?.0)
    }

    fn slot(
        &self,
        handle: &Resource<Handle>,
    ) -> Result<(&Tensor, Option<&Arc<Charge>>), HostError> {
        match self.slots.get(handle.rep() as usize) {
            Some(Slot::Live { tensor, charge, .. }) => Ok((tensor, charge.as_ref())),
            _ => Err(HostError::stale(
                "the tensor belongs to an earlier call; `keep` makes one that outlives its call",
            )),
        }
    }

    /// The form of an operand. Types that no operation is defined for are refused here.
    pub(super) fn form(&self, handle: &Resource<Handle>) -> Result<Form, HostError> {
        let form = Form::of(self.get(handle)?)?;
        let known = rules::is_float(form.kind)
            || matches!(
                form.kind,
                Kind::Bool | Kind::Uint8 | Kind::Int8 | Kind::Int16 | Kind::Int | Kind::Int64
            );
        if known {
            return Ok(form);
        }
        Err(HostError::unsupported(format!(
            "no operations on tensors of type {}",
            rules::name(form.kind)
        )))
    }

    fn charge(&mut self, bytes: u64, scratch: u64) -> Result<Arc<Charge>, HostError> {
        let held = self.account.load(Ordering::Relaxed);
        let wanted = held.saturating_add(bytes).saturating_add(scratch);
        if wanted > self.max_bytes {
            self.violation
                .get_or_insert(Violation::bytes(Limit::Tensors, wanted));
            let (wanted, limit) = (Bytes(wanted), Bytes(self.max_bytes));
            return Err(HostError::limit(format!(
                "the operation needs {wanted} of tensors in all; the limit is {limit}"
            )));
        }
        self.account.fetch_add(bytes, Ordering::Relaxed);
        let charge = Arc::new(Charge {
            account: self.account.clone(),
            bytes,
        });
        if let Some(recorded) = &mut self.recorded {
            recorded.push(charge.clone());
        }
        Ok(charge)
    }

    fn insert(
        &mut self,
        tensor: Tensor,
        charge: Option<Arc<Charge>>,
        kept: bool,
    ) -> Result<Resource<Handle>, HostError> {
        if self.taken >= self.max_handles {
            self.violation
                .get_or_insert(Violation::count(Limit::Handles, self.taken + 1));
            let stale = self
                .slots
                .iter()
                .filter(|slot| matches!(slot, Slot::Stale))
                .count();
            return Err(HostError::limit(format!(
                "{} tensor handles are the limit; {stale} of them are from earlier calls and were never dropped",
                self.max_handles
            )));
        }
        let slot = Slot::Live {
            tensor,
            charge,
            kept,
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = slot;
                number
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        };
        self.taken += 1;
        self.touched = true;
        Ok(Resource::new_own(number))
    }

    fn release(&mut self, handle: &Resource<Handle>) {
        let number = handle.rep();
        if let Some(slot) = self.slots.get_mut(number as usize)
            && !matches!(slot, Slot::Free)
        {
            *slot = Slot::Free;
            self.free.push(number);
            self.taken -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bindings::trainer::host::types::ErrorKind;
    use super::*;

    fn kind_of<T: std::fmt::Debug>(result: Result<T, HostError>) -> ErrorKind {
        match result.expect_err("refused") {
            HostError::Guest(error) => error.kind,
            HostError::Trap(error) => panic!("{error:#}"),
        }
    }

    fn floats(count: u64) -> Form {
        Form::of_guest(&[count], Kind::Float).expect("a form")
    }

    fn make(tensors: &mut Tensors, count: u64) -> Result<Resource<Handle>, HostError> {
        tensors.create(floats(count), 0, || {
            Ok(Tensor::f_zeros([count as i64], tch::kind::FLOAT_CPU)?)
        })
    }

    #[test]
    fn a_handle_dies_with_its_call_and_its_number_is_not_given_away() {
        let mut tensors = Tensors::new(&Limits::default());
        let old = make(&mut tensors, 4).expect("fits");
        tensors.end_call();
        assert_eq!(
            kind_of(tensors.get(&old).map(Tensor::size)),
            ErrorKind::Stale
        );
        let new = make(&mut tensors, 5).expect("fits");
        assert_ne!(new.rep(), old.rep());
        tensors.release(&old);
        assert_eq!(make(&mut tensors, 6).expect("fits").rep(), old.rep());
    }

    #[test]
    fn a_view_keeps_the_bytes_of_its_base_charged() {
        let limits = Limits {
            tensors: 1000,
            ..Limits::default()
        };
        let mut tensors = Tensors::new(&limits);
        let base = make(&mut tensors, 200).expect("800 bytes fit");
        let form = tensors.form(&base).expect("a form");
        let (plan, dim, start) = rules::narrow(&form, 0, 0, 1).expect("a plan");
        let view = tensors
            .derive(&base, &plan, |tensor| tensor.f_narrow(dim, start, 1))
            .expect("free");
        tensors.release(&base);
        assert_eq!(kind_of(make(&mut tensors, 200)), ErrorKind::Limit);
        tensors.release(&view);
        make(&mut tensors, 200).expect("the bytes came back");
    }

    #[test]
    fn what_a_graph_may_keep_stays_charged_until_the_call_ends() {
        let mut tensors = Tensors::new(&Limits {
            tensors: 1000,
            ..Limits::default()
        });
        tensors.record();
        let first = make(&mut tensors, 200).expect("fits");
        tensors.release(&first);
        assert_eq!(kind_of(make(&mut tensors, 200)), ErrorKind::Limit);
        tensors.end_call();
        make(&mut tensors, 200).expect("fits in the next call");
    }

    #[test]
    fn a_failed_operation_costs_nothing() {
        let mut tensors = Tensors::new(&Limits {
            tensors: 1000,
            ..Limits::default()
        });
        for _ in 0..10 {
            let failed = tensors.create(floats(200), 0, || Err(HostError::data("no")));
            assert_eq!(kind_of(failed), ErrorKind::Data);
        }
        make(&mut tensors, 200).expect("fits");
    }

    #[test]
    fn handles_are_counted_even_if_stale() {
        let mut tensors = Tensors::new(&Limits {
            handles: 3,
            ..Limits::default()
        });
        let first = make(&mut tensors, 1).expect("fits");
        tensors.end_call();
        make(&mut tensors, 1).expect("fits");
        make(&mut tensors, 1).expect("fits");
        assert_eq!(kind_of(make(&mut tensors, 1)), ErrorKind::Limit);
        assert_eq!(
            tensors.take_violation(),
            Some(Violation::count(Limit::Handles, 4))
        );
        tensors.release(&first);
        make(&mut tensors, 1).expect("fits again");
    }
}
