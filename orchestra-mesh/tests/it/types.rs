use orchestra_mesh::breaker::Breaker;
use orchestra_mesh::budget::Budget;
use orchestra_mesh::client::ResponseFuture;
use orchestra_mesh::gateway::{self, Serving};
use orchestra_mesh::pick::{Picked, RoundRobin};
use orchestra_mesh::route::Table;
use orchestra_mesh::split::Split;
use orchestra_mesh::tower::{BreakerLayer, DeadlineLayer, RetryLayer};
use orchestra_mesh::{Body, Client, Error, Event, Gateway, Policy};

const fn shared<T: Send + Sync>() {}
const fn sent<T: Send>() {}

/// It compiles, or it does not.
#[test]
fn what_is_shared_between_threads_can_be() {
    shared::<(Client, Gateway, Serving, Policy, Error, Event)>();
    shared::<(Breaker, Budget, RoundRobin, Picked, Table, Split)>();
    shared::<(BreakerLayer, DeadlineLayer, RetryLayer)>();
    // A body has one reader, and many streams of others cannot be shared.
    sent::<(Body, ResponseFuture, gateway::ResponseFuture)>();
}
