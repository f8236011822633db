//! What operators do with many sagas, and what they see of one.
//!
//! One saga at a time: [`Executor::retry`], [`Executor::resolve`], [`Executor::skip`], [`Executor::pause`],
//! [`Executor::resume`], [`Executor::cancel`], [`Executor::revoke`], [`Executor::fork`]. Each leaves an event
//! with who did it and why; the history of the saga is the audit trail.

use std::sync::Arc;

use crate::diagram::Diagram;
use crate::error::{Error, Result};
use crate::event::Operator;
use crate::executor::Executor;
use crate::id::{SagaId, StepName};
use crate::recovery;
use crate::status::SagaView;
use crate::step::Operation;
use crate::store::Filter;

/// What is done with each of many sagas.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Parked steps are tried again at once.
    Retry,
    /// They go back, unless they are past their point of no return.
    Cancel,
    /// Nothing more of them is begun.
    Pause,
    /// They go on after a pause.
    Resume,
    /// They go on as if this operation were done; see [`Executor::skip`]. A saga without that step is among the
    /// [failed](Report::failed).
    Skip(StepName, Operation),
}

/// What became of many sagas.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Those that the filter let through.
    pub matched: usize,
    /// Those for which it changed something.
    pub changed: usize,
    /// Those for which it failed, a hundred at most.
    pub failed: Vec<(SagaId, Error)>,
    /// The last saga that was looked at, to go on after it.
    pub last: Option<SagaId>,
}

/// Sagas that are read at a time.
const PAGE: usize = 256;
/// Failures that are told one by one.
const TOLD: usize = 100;

impl Executor {
    /// Does something with every saga of this executor's partition that the filter lets through, and at most
    /// as many as its limit. Each is asked in turn, and the request is durable before the next is asked.
    ///
    /// Cancel: those that were asked stay so; [`Report::last`] of an earlier call tells where to go on.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// use orchestra_saga::operate::Action;
    /// use orchestra_saga::{Executor, Filter, MemoryStore, Operator, Status};
    ///
    /// let executor = Executor::builder(MemoryStore::default()).build().await?;
    /// let ada = Operator::new("ada", "the bank is back");
    /// let parked = Filter::of(Status::Parked).definition("checkout").limit(1_000);
    /// let report = executor.bulk(&parked, Action::Retry, &ada).await?;
    /// assert_eq!((report.matched, report.changed), (0, 0));
    /// # Ok::<(), orchestra_saga::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn bulk(&self, filter: &Filter, action: Action, by: &Operator) -> Result<Report> {
        let mut report = Report {
            last: filter.after,
            ..Report::default()
        };
        while report.matched < filter.limit {
            let room = PAGE.min(filter.limit - report.matched);
            let page = filter.clone().partition(self.partition());
            let page = self.list(&page.after(report.last).limit(room)).await?;
            let Some(last) = page.last() else {
                break;
            };
            report.last = Some(last.saga);
            for summary in &page {
                report.matched += 1;
                match self.act(summary.saga, &action, by).await {
                    Ok(changed) => report.changed += usize::from(changed),
                    Err(error) if report.failed.len() < TOLD => {
                        report.failed.push((summary.saga, error));
                    }
                    Err(error) => tracing::warn!(saga = %summary.saga, %error, "not acted upon"),
                }
            }
        }
        Ok(report)
    }

    async fn act(&self, saga: SagaId, action: &Action, by: &Operator) -> Result<bool> {
        let by = by.clone();
        match action {
            Action::Retry => self.retry(saga, by).await,
            Action::Pause => self.pause(saga, by).await,
            Action::Resume => self.resume(saga, by).await,
            Action::Skip(step, op) => self.skip(saga, step, *op, by).await,
            Action::Cancel => {
                let asked = self.cancel(saga, by.to_string()).await?;
                Ok(asked == crate::executor::Cancel::Requested)
            }
        }
    }

    /// The graph of a saga with where each step stands.
    pub async fn diagram(&self, saga: SagaId) -> Result<Diagram> {
        let machine = recovery::load(self.store(), saga, self.definitions()).await?;
        let view = SagaView::of(&machine);
        Ok(Diagram::live(Arc::clone(machine.definition()), view))
    }
}
