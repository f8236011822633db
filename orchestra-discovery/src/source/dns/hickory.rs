//! Asking servers with `hickory-resolver`.
//!
//! It speaks the protocol, follows aliases and turns to TCP when an answer is truncated. Its cache is off:
//! what is cached here is the members of a service, and their TTL must be the server's. Its pool of servers
//! takes the first SERVFAIL or REFUSED for the answer of all, so each server has a resolver of its own here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
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

pub(super) struct Hickory {
    /// One for each server.
    servers: Vec<TokioResolver>,
    /// The server that answered last: while it does, one that is down costs nothing.
    first: AtomicUsize,
    rounds: u32,
}

impl Hickory {
    pub(super) fn new(config: &Config) -> Result<Self> {
        let servers = config
            .servers
            .iter()
            .map(|server| resolver(*server, config));
        Ok(Self {
            servers: servers.collect::<Result<_>>()?,
            first: AtomicUsize::new(0),
            rounds: config.retries.saturating_add(1),
        })
    }
}

fn resolver(server: SocketAddr, config: &Config) -> Result<TokioResolver> {
    let servers = ResolverConfig::from_name_servers(vec![name_server(server)]);
    let provider = TokioRuntimeProvider::default();
    let mut builder = Resolver::builder_with_config(servers, provider);
    let options = builder.options_mut();
    options.timeout = config.timeout;
    options.attempts = 0;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.case_randomization = true;
    builder.build().map_err(|error| {
        let message = format!("DNS server {server} cannot be used");
        Error::new(ErrorKind::Invalid, message).with_source(error)
    })
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.to_vec())
}

impl Ask for Hickory {
    async fn ask(&self, name: &str, kind: Kind) -> Result<Answer> {
        let record_type = match kind {
            Kind::A => RecordType::A,
            Kind::Aaaa => RecordType::AAAA,
            Kind::Srv => RecordType::SRV,
        };
        let mut failure = None;
        for _round in 0..self.rounds {
            let first = self.first.load(Ordering::Relaxed);
            let servers = self.servers.iter().enumerate().cycle();
            for (number, server) in servers.skip(first).take(self.servers.len()) {
                match one(server, name, record_type).await {
                    Ok(answer) => {
                        self.first.store(number, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    Err(error) => failure = Some(error),
                }
            }
        }
        Err(failure.unwrap_or_else(|| Error::new(ErrorKind::Invalid, "there is no DNS server")))
    }
}

async fn one(server: &TokioResolver, name: &str, record_type: RecordType) -> Result<Answer> {
    match server.lookup(name, record_type).await {
        Ok(lookup) => Ok(found(&lookup)),
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => not_found(&none, name),
        Err(error) => Err(failed(error, name, record_type)),
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
