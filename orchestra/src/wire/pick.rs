//! A discovery resolver as the mesh's choice of endpoint.

use orchestra_core::{InstanceId, Monotonic, Outcome, Selector};
use orchestra_discovery::{NoCandidate, PickContext, Resolver, Token};
use orchestra_mesh::pick::{NoEndpoint, NoEndpointReason, Pick, PickRequest, PickToken, Picked};

/// Picks from a [`Resolver`]; the resolver's gates are the mesh's breakers.
#[derive(Debug, Clone)]
pub struct ResolverPick(Resolver);

impl ResolverPick {
    /// Picks from this resolver.
    pub const fn new(resolver: Resolver) -> Self {
        Self(resolver)
    }

    /// The tried ones and those outside the subset: the resolver excludes by id.
    fn excluded(&self, tried: &[InstanceId], subset: &Selector) -> Vec<InstanceId> {
        let members = self.0.members();
        let outside = members
            .iter()
            .filter(|instance| !subset.matches(&instance.labels));
        outside
            .map(|instance| instance.id.clone())
            .chain(tried.iter().cloned())
            .collect()
    }
}

impl Pick for ResolverPick {
    /// Allocates only when a subset is asked for.
    fn pick(&self, request: &PickRequest<'_>) -> Result<Picked, NoEndpoint> {
        let excluded;
        let tried = match request.subset {
            Some(subset) => {
                excluded = self.excluded(request.tried, subset);
                excluded.as_slice()
            }
            None => request.tried,
        };
        let context = PickContext::new(request.now, request.draw).tried(tried);
        match self.0.choose(&context) {
            Ok(choice) => {
                let token = PickToken::from_parts(choice.token.to_words());
                let instance = &choice.instance;
                Ok(Picked::new(
                    instance.id.clone(),
                    instance.endpoint.clone(),
                    token,
                ))
            }
            Err(none) => Err(no_endpoint(&none)),
        }
    }

    fn complete(&self, token: PickToken, outcome: Outcome, now: Monotonic) {
        self.0
            .settle(Token::from_words(token.into_parts()), outcome, now);
    }
}

fn no_endpoint(none: &NoCandidate) -> NoEndpoint {
    let reason = match none {
        NoCandidate { registered: 0, .. } => NoEndpointReason::NoneKnown,
        NoCandidate { refused: 1.., .. } => NoEndpointReason::AllRefused,
        NoCandidate { tried: 1.., .. } => NoEndpointReason::AllTried,
        _ => NoEndpointReason::NoneReady,
    };
    NoEndpoint::new(reason, none.retry_after)
}
