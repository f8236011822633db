//! Asking servers with `hickory-resolver`.
//!
//! It sends, retries, follows aliases and turns to TCP when an answer is truncated. Its cache is off: what is
//! cached here is the members of a service, and their TTL must be the server's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
    ServerOrderingStrategy,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};

use super::Config;
use super::answer::{Answer, Kind, Record, Srv};
use super::resolve::Ask;
use super::ttl::Ttl;
use crate::error::{Error, ErrorKind, Result};

pub(super) struct Hickory(TokioResolver);

impl Hickory {
    pub(super) fn new(config: &Config) -> Result<Self> {
        let servers = config.servers.iter().map(|server| name_server(*server));
        let servers = ResolverConfig::from_name_servers(servers.collect());
        let provider = TokioRuntimeProvider::default();
        let mut builder = Resolver::builder_with_config(servers, provider);
        options(builder.options_mut(), config);
        let resolver = builder.build().map_err(|error| {
            Error::new(ErrorKind::Invalid, "the DNS servers cannot be used").with_source(error)
        })?;
        Ok(Self(resolver))
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.to_vec())
}

fn options(options: &mut ResolverOpts, config: &Config) {
    options.timeout = config.timeout;
    options.attempts = usize::try_from(config.retries).unwrap_or(usize::MAX);
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    options.num_concurrent_reqs = 1;
    options.case_randomization = true;
}

impl Ask for Hickory {
    async fn ask(&self, name: &str, kind: Kind) -> Result<Answer> {
        let record_type = match kind {
            Kind::A => RecordType::A,
            Kind::Aaaa => RecordType::AAAA,
            Kind::Srv => RecordType::SRV,
        };
        match self.0.lookup(name, record_type).await {
            Ok(lookup) => Ok(found(&lookup)),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => not_found(&none, name),
            Err(error) => Err(failed(error, name, record_type)),
        }
    }
}

fn found(lookup: &Lookup) -> Answer {
    let answers = lookup.answers();
    // That of an alias on the way counts as well.
    let ttl = answers.iter().map(|record| record.ttl).min();
    let records: Vec<_> = answers
        .iter()
        .filter_map(|record| read(&record.data))
        .collect();
    let ttl = ttl.map(|seconds| Duration::from_secs(seconds.into()));
    let ttl = match ttl {
        Some(ttl) if !records.is_empty() => Ttl::Records(ttl),
        ttl => Ttl::None(ttl),
    };
    Answer { records, ttl }
}

fn read(data: &RData) -> Option<Record> {
    match data {
        RData::A(a) => Some(Record::Address(a.0.into())),
        RData::AAAA(aaaa) => Some(Record::Address(aaaa.0.into())),
        RData::SRV(srv) => Some(Record::Service(Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: srv.target.to_ascii(),
        })),
        _ => None,
    }
}

/// That there is no such name, or none of its records is of the type, is an answer; being sent elsewhere is
/// not.
fn not_found(none: &NoRecords, name: &str) -> Result<Answer> {
    let answered = matches!(
        none.response_code,
        ResponseCode::NXDomain | ResponseCode::NoError
    );
    if !answered || (none.ns.is_some() && none.soa.is_none()) {
        let message = format!("asked for {name}, the DNS server refers to others");
        return Err(Error::new(ErrorKind::Protocol, message));
    }
    let ttl = none.negative_ttl.map(|ttl| Duration::from_secs(ttl.into()));
    Ok(Answer {
        records: Vec::new(),
        ttl: Ttl::None(ttl),
    })
}

fn failed(error: NetError, name: &str, record_type: RecordType) -> Error {
    let kind = match &error {
        NetError::Timeout => ErrorKind::Timeout,
        NetError::Proto(_)
        | NetError::Dns(DnsError::ResponseCode(ResponseCode::FormErr | ResponseCode::NotImp)) => {
            ErrorKind::Protocol
        }
        _ => ErrorKind::Unavailable,
    };
    let message = format!("no answer about {record_type} records of {name}");
    Error::new(kind, message).with_source(Arc::new(error))
}
