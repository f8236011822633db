//! Steps that make no call: they wait for a time or for a signal.

use std::sync::Arc;
use std::time::Duration;

use super::step::Draft;
use super::{Body, Builder, Handle, Inputs, Kind};

impl Builder {
    /// A step that waits that long, durably: the process may end meanwhile, and the saga is not in memory.
    /// It runs after its inputs and reads none of them. Before the point of no return the
    /// saga goes back after its [`timeout`](Builder::timeout) also while it sleeps, five minutes by default: set
    /// that to more than all its pauses, or to `None`. [`Builder::build`] refuses pauses that are longer than the
    /// timeout by themselves, if a step that can fail follows them.
    ///
    /// ```
    /// use std::time::Duration;
    /// use orchestra_saga::{Call, Definition};
    ///
    /// let mut d = Definition::builder("reminder", "1");
    /// let name = d.input::<String>();
    /// let greeted = d.step("greet", name, |_: Call, _: String| async { Ok(()) }).read_only();
    /// let later = d.sleep("a_week", greeted, Duration::from_secs(7 * 86_400));
    /// d.step("remind", name, |_: Call, _: String| async { Ok(()) }).after(later).retriable();
    /// assert_eq!(d.build()?.steps().count(), 3);
    /// # Ok::<(), orchestra_saga::Error>(())
    /// ```
    #[expect(
        clippy::needless_pass_by_value,
        reason = "handles are copied, and tuples of them read best by value"
    )]
    pub fn sleep<I: Inputs>(&mut self, name: &str, after: I, length: Duration) -> Handle<()> {
        self.wait(name, &after, Body::Timer(length))
    }

    /// A step that waits for a signal of that name ([`Executor::signal`](crate::Executor::signal)), whose
    /// payload is read as `T`. Each such step takes one signal; those that come early are kept for it.
    /// With a limit, a signal that does not come in time fails the step, and the saga goes back. Before the point
    /// of no return it goes back after its [`timeout`](Builder::timeout) too, five minutes by default: for an
    /// answer that takes days, set that as well.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "handles are copied, and tuples of them read best by value"
    )]
    pub fn signal<T, I: Inputs>(
        &mut self,
        name: &str,
        after: I,
        signal: &str,
        limit: impl Into<Option<Duration>>,
    ) -> Handle<T> {
        self.wait(name, &after, Body::Signal(Arc::from(signal), limit.into()))
    }

    fn wait<T, I: Inputs>(&mut self, name: &str, after: &I, body: Body) -> Handle<T> {
        let mut draft = Draft::new(name, after.edges(), body, self.defaults());
        draft.kind = Kind::ReadOnly;
        let (source, definition) = self.push(draft);
        Handle::new(source, definition)
    }
}
