//! A store that keeps what it is given, and of which snapshots are taken.

use orchestra_saga::store::{Codec, EncodedStore};
use orchestra_saga::{Result, SagaId, SagaStore};

#[derive(Debug)]
pub(crate) struct Plain;

impl Codec for Plain {
    fn encode(&self, _: SagaId, plain: &[u8]) -> Result<Vec<u8>> {
        Ok(plain.to_vec())
    }

    fn decode(&self, _: SagaId, kept: &[u8]) -> Result<Vec<u8>> {
        Ok(kept.to_vec())
    }
}

/// The store, as one whose logs are not in memory.
pub(crate) fn as_if_distant<S: SagaStore>(store: S) -> EncodedStore<S, Plain> {
    EncodedStore::new(store, Plain)
}
