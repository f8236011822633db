//! A discovery resolver as the mesh's choice of endpoint.

use orchestra_core::{InstanceId, Locality, Monotonic, Outcome, Selector};
use orchestra_discovery::outlier::Report;
use orchestra_discovery::reported::LoadReport;
use orchestra_discovery::{Completion, NoCandidate, PickContext, Resolver, Token};
use orchestra_mesh::pick::{
    self, NoEndpoint, NoEndpointReason, Pick, PickRequest, PickToken, Picked,
};
use orchestra_mesh::retry::Failure;

/// Picks from a [`Resolver`]; the resolver's gates are the mesh's breakers.
///
/// A subset that asks for one value of each of some keys is looked up, if the resolver was made with subsets by
/// those keys; the fallback it was made with is kept to. Any other is matched against every member.
#[derive(Debug, Clone)]
pub struct ResolverPick {
    resolver: Resolver,
    locality: Option<Locality>,
}

impl ResolverPick {
    /// Picks from this resolver.
    pub const fn new(resolver: Resolver) -> Self {
        Self {
            resolver,
            locality: None,
        }
    }

    /// The calls come from here.
    #[must_use]
    pub fn locality(mut self, locality: Locality) -> Self {
        self.locality = Some(locality);
        self
    }

    /// The tried ones and those outside the subset: the resolver excludes by id.
    fn excluded(&self, tried: &[InstanceId], subset: &Selector) -> Vec<InstanceId> {
        let members = self.resolver.members();
        let outside = members
            .iter()
            .filter(|instance| !subset.matches(&instance.labels));
        outside
            .map(|instance| instance.id.clone())
            .chain(tried.iter().cloned())
            .collect()
    }

    fn choose(&self, context: &PickContext<'_>, is_retry: bool) -> Result<Picked, NoEndpoint> {
        match self.resolver.choose(context) {
            Ok(choice) => {
                let token = PickToken::from_parts(choice.token.to_words());
                let instance = &choice.instance;
                Ok(Picked::new(
                    instance.id.clone(),
                    instance.endpoint.clone(),
                    token,
                ))
            }
            Err(none) => Err(no_endpoint(&none, is_retry)),
        }
    }
}

impl Pick for ResolverPick {
    /// Allocates only when a subset is asked for: in proportion to its keys if it is looked up, to the members
    /// otherwise.
    fn pick(&self, request: &PickRequest<'_>) -> Result<Picked, NoEndpoint> {
        let is_retry = !request.tried.is_empty();
        let mut context = PickContext::new(request.now, request.draw).tried(request.tried);
        context.hash = request.hash;
        context.sticky = request.sticky;
        context.locality = self.locality.as_ref();
        let Some(subset) = request.subset else {
            return self.choose(&context, is_retry);
        };
        if let Some(asked) = subset.to_labels()
            && self.resolver.divides_by(&asked)
        {
            return self.choose(&context.subset(&asked), is_retry);
        }
        let excluded = self.excluded(request.tried, subset);
        self.choose(&context.tried(&excluded), is_retry)
    }

    /// Allocates only for named metrics in a report of load.
    fn complete(&self, token: PickToken, completion: pick::Completion<'_>, now: Monotonic) {
        let token = Token::from_words(token.into_parts());
        // An instance that reports nonsense is not to lose its calls for it.
        let load = completion
            .load
            .and_then(|text| LoadReport::parse(text).ok());
        let mut told = Completion::from(completion.outcome);
        if let Some(report) = report(&completion) {
            told = told.report(report);
        }
        if let Some(after) = completion.retry_after {
            told = told.retry_after(after);
        }
        match &load {
            Some(load) => self.resolver.settle(token, told.load(load), now),
            None => self.resolver.settle(token, told, now),
        }
    }
}

/// Whose failure it was, as Envoy's router tells its outlier detection; `None` if the outcome says it all.
fn report(completion: &pick::Completion<'_>) -> Option<Report> {
    if completion.outcome != Outcome::Failure {
        return None;
    }
    match completion.result? {
        Ok(status) => matches!(status.as_u16(), 502..=504).then_some(Report::Gateway),
        Err(Failure::Timeout) => Some(Report::TimedOut),
        Err(_) => Some(Report::ConnectFailed),
    }
}

fn no_endpoint(none: &NoCandidate, is_retry: bool) -> NoEndpoint {
    let reason = match none {
        NoCandidate { registered: 0, .. } => NoEndpointReason::NoneKnown,
        NoCandidate { refused: 1.., .. } => NoEndpointReason::AllRefused,
        // At the first attempt it is those outside the subset that count as tried.
        NoCandidate { tried: 1.., .. } if is_retry => NoEndpointReason::AllTried,
        _ => NoEndpointReason::NoneReady,
    };
    NoEndpoint::new(reason, none.retry_after)
}
