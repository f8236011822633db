//! Steps in three parts: try, and then confirm or cancel.
//!
//! Such a step is two: the try, which cancelling compensates, and the confirmation, a retriable step
//! after everything that can still fail. Once all that can fail is done, the saga is decided by that very
//! append, and the confirmations follow until they succeed.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::step::Draft;
use super::{Body, Definition, Handle, Inputs, Kind, Shape, Source, StepBuilder};
use crate::config::Config;
use crate::id::StepName;
use crate::step::{Call, Failure, TypedAction, TypedCompensation};

/// What the name of a confirmation adds to that of its step.
pub(crate) const CONFIRM: &str = ".confirm";

impl<I: Inputs, T> StepBuilder<'_, I, T> {
    /// The action only tries (it reserves, say); `confirm` makes it final once nothing in the saga can
    /// fail any more, and `cancel` takes it back if the saga goes back (TCC: try, confirm, cancel; Pardon
    /// and Pautasso, "Towards distributed atomic transactions over `RESTful` services", 2011).
    ///
    /// `confirm` is a step named after this one with `.confirm` at the end. It may not refuse: it is tried
    /// until it succeeds.
    ///
    /// ```
    /// use orchestra_saga::{Call, Definition, Failure};
    ///
    /// async fn reserve(_: Call, amount: u32) -> Result<u64, Failure> { Ok(u64::from(amount)) }
    /// async fn confirm(_: Call, _reservation: u64) -> Result<(), Failure> { Ok(()) }
    /// async fn cancel(_: Call, _: u32, _reservation: Option<u64>) -> Result<(), Failure> { Ok(()) }
    ///
    /// let mut d = Definition::builder("transfer", "1");
    /// let amount = d.input::<u32>();
    /// d.step("withdraw", amount, reserve).confirm(confirm, cancel);
    /// d.step("deposit", amount, reserve).confirm(confirm, cancel);
    /// let names: Vec<_> = d.build()?.steps().map(|(name, _)| name.to_string()).collect();
    /// assert_eq!(names, ["withdraw", "deposit", "withdraw.confirm", "deposit.confirm"]);
    /// # Ok::<(), orchestra_saga::Error>(())
    /// ```
    pub fn confirm<F, Fut, G, Gut>(self, confirm: F, cancel: G) -> Handle<T>
    where
        T: DeserializeOwned + Send + 'static,
        F: Fn(Call, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
        G: Fn(Call, I::Value, Option<T>) -> Gut + Send + Sync + 'static,
        Gut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let cancel = TypedCompensation::<I::Value, T, G>::new(cancel);
        let confirm = TypedAction::<T, (), F>::new(confirm);
        let bodies = (Body::Code(Arc::new(confirm)), Body::Code(Arc::new(cancel)));
        self.end_in_three(bodies)
    }

    pub(crate) fn end_in_three(self, (confirm, cancel): (Body, Body)) -> Handle<T> {
        let mut draft = self.draft;
        draft.kind = Kind::Compensatable;
        draft.compensation = Some(cancel);
        let name = format!("{}{CONFIRM}", draft.name);
        let (source, definition) = self.builder.push(draft);
        let of = (source, definition);
        let draft = Draft::confirmation(&name, of, confirm, self.builder.defaults());
        self.builder.confirm(draft);
        Handle::new(source, definition)
    }
}

impl Draft {
    /// A confirmation, whose other parents are known when the definition is built.
    fn confirmation(name: &str, of: (Source, u64), body: Body, config: &Config) -> Self {
        let edges = super::handle::Edges {
            shape: Shape::One(of.0),
            origins: vec![of],
        };
        let mut draft = Self::new(name, edges, body, config);
        draft.kind = Kind::Retriable;
        draft.confirms = match of.0 {
            Source::Step(tried) => Some(tried),
            Source::Input => None,
        };
        draft
    }
}

impl Definition {
    /// A confirmation among these steps, and the step that it makes final, which is not among them.
    pub(crate) fn unprepared(&self, steps: &HashSet<u32>) -> Option<(&StepName, &StepName)> {
        let numbered = (0..).zip(&self.steps);
        let mut confirmations = numbered.filter(|(number, _)| steps.contains(number));
        confirmations.find_map(|(_, spec)| {
            let tried = spec.confirms.filter(|tried| !steps.contains(tried))?;
            Some((&spec.name, &self.spec(tried).name))
        })
    }
}
