#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod balance;
pub mod cache;
pub mod coalesce;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod conformance;
pub mod damping;
pub mod error;
pub mod event;
pub mod follow;
pub mod gate;
pub mod hash;
pub mod health;
pub mod heartbeat;
pub mod instance;
pub mod locality;
pub mod merge;
pub mod outlier;
pub mod preserve;
pub mod priority;
pub mod registry;
pub mod reported;
pub mod resolver;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod saboteur;
pub mod score;
pub mod slow_start;
pub mod source;
pub mod subset;
pub mod subsetting;

#[cfg(feature = "http")]
mod exchange;
mod slab;
mod task;
mod weights;

pub use balance::{
    Balancer, Candidates, KetamaHash, LeastRequest, MaglevHash, P2c, PoolMembers, Prepared, Random,
    RendezvousHash, RingHash, RoundRobin, Scored, SmoothRoundRobin, Weighted,
};
pub use cache::Cache;
pub use error::{Error, ErrorKind, Result};
pub use event::Event;
pub use follow::Follow;
pub use gate::{Gate, GateToken, Gates, Refusal};
#[cfg(feature = "http")]
pub use health::grpc::GrpcProbe;
#[cfg(feature = "http")]
pub use health::http::HttpProbe;
#[cfg(feature = "tcp")]
pub use health::tcp::TcpProbe;
pub use health::{Health, HealthCheck, Probe, Verdict};
pub use heartbeat::Heartbeat;
pub use instance::{Incarnation, Instance, Override, ProbeTarget, Registration, Status};
#[cfg(feature = "etcd")]
pub use registry::etcd::EtcdRegistry;
#[cfg(feature = "http")]
pub use registry::http::HttpRegistry;
pub use registry::memory::MemoryRegistry;
#[cfg(feature = "nats")]
pub use registry::nats::NatsRegistry;
#[cfg(feature = "redis")]
pub use registry::redis::RedisRegistry;
pub use registry::{Lease, Registry};
pub use resolver::{Choice, Completion, InFlight, NoCandidate, PickContext, Resolver, Token};
pub use score::{FourFactors, Scorer};
#[cfg(feature = "dns")]
pub use source::dns::DnsSource;
#[cfg(feature = "file")]
pub use source::file::FileSource;
pub use source::{
    Capabilities, Change, Removal, RemovalReason, Revision, Scope, Snapshot, Source, Watch,
    WatchEvent, WatchStream,
};
