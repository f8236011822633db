//! Reading everything in a scope at one revision, page by page.

use std::sync::Arc;

use etcd_client::{GetOptions, GetResponse, ResponseHeader};

use super::record::Record;
use super::{Shared, fault};
use crate::error::{Error, ErrorKind, Result};
use crate::source::{Revision, Scope, Snapshot};

/// How many keys are read at once.
const PAGE: i64 = 1_000;
/// How often a snapshot begins anew because what it reads was compacted meanwhile.
const ATTEMPTS: u32 = 3;

enum Page {
    Read(GetResponse),
    Compacted,
    /// Strangers' values: ours are small.
    TooLarge,
}

impl Shared {
    pub(super) async fn snapshot(&self, scope: &Scope) -> Result<Snapshot> {
        for _ in 0..ATTEMPTS {
            if let Some(snapshot) = self.pages(scope).await? {
                return Ok(snapshot);
            }
        }
        let message = format!("etcd compacts faster than {scope} can be read");
        Err(Error::new(ErrorKind::Unavailable, message))
    }

    /// Nothing if the revision was compacted on the way.
    async fn pages(&self, scope: &Scope) -> Result<Option<Snapshot>> {
        let (first, end) = self.keys.range(scope);
        let mut from = first.into_bytes();
        let (mut limit, mut revision) = (PAGE, 0);
        let mut instances = Vec::new();
        loop {
            let options = GetOptions::new()
                .with_range(&*end)
                .with_limit(limit)
                .with_revision(revision);
            let page = match self.page(&from, &options).await? {
                Page::Read(page) => page,
                Page::Compacted => return Ok(None),
                Page::TooLarge if limit > 1 => {
                    limit /= 2;
                    continue;
                }
                Page::TooLarge => return Err(unreadable(&from)),
            };
            if revision == 0 {
                revision = page.header().map_or(0, ResponseHeader::revision);
            }
            for kv in page.kvs() {
                let put = unsigned(kv.mod_revision());
                if let Some(Record::Listed(instance)) = self.keys.read(kv.key(), kv.value(), put) {
                    instances.push(Arc::from(instance));
                }
            }
            match page.kvs().last() {
                Some(last) if page.more() => {
                    // The next key there can be.
                    from = last.key().to_vec();
                    from.push(0);
                }
                _ => break,
            }
        }
        let revision = Revision::new(unsigned(revision));
        Ok(Some(Snapshot::new(scope.clone(), revision, instances)))
    }

    async fn page(&self, from: &[u8], options: &GetOptions) -> Result<Page> {
        self.link
            .call("list instances", |mut peer| {
                let (from, options) = (from.to_vec(), options.clone());
                async move {
                    match peer.kv.get(from, Some(options)).await {
                        Err(fault) if fault::is_compacted(&fault) => Ok(Page::Compacted),
                        Err(fault) if fault::is_too_large(&fault) => Ok(Page::TooLarge),
                        answer => answer.map(Page::Read),
                    }
                }
            })
            .await
    }

    /// The latest revision of the cluster, not only of the member that is asked.
    pub(super) async fn latest(&self) -> Result<Revision> {
        let (first, _) = self.keys.range(&Scope::All);
        let answer = self
            .link
            .call("tell its revision", |mut peer| {
                let (first, options) = (first.clone(), GetOptions::new().with_count_only());
                async move { peer.kv.get(first, Some(options)).await }
            })
            .await?;
        let revision = answer.header().map_or(0, ResponseHeader::revision);
        Ok(Revision::new(unsigned(revision)))
    }
}

/// etcd's revisions are positive.
pub(super) fn unsigned(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

fn unreadable(from: &[u8]) -> Error {
    let message = format!(
        "the value after {} in etcd is too large to be read",
        String::from_utf8_lossy(from)
    );
    Error::new(ErrorKind::Protocol, message)
}
