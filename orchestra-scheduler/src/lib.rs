#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod cluster;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod conformance;
pub mod error;
pub mod event;
pub mod filter;
pub mod node;
pub mod reconcile;
pub mod reconciler;
pub mod resources;
pub mod runtime;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod saboteur;
pub mod schedule;
pub mod score;
pub mod workload;

pub use cluster::{Cluster, NodeIndex, NodeView, View};
pub use error::{Error, ErrorKind, Result};
pub use event::Event;
pub use node::{Availability, Node};
pub use reconciler::{Handle, Reconciler};
pub use resources::{BitsPerSecond, Bytes, Limits, Millicores, Resources};
pub use runtime::{ContainerRuntime, ContainerSpec};
pub use schedule::{Placement, Scheduler, Unschedulable};
pub use workload::{Command, Template, Workload};
