#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(all(
        feature = "discovery",
        feature = "scheduler",
        feature = "saga",
        feature = "mesh",
        feature = "observe"
    )),
    allow(
        dead_code,
        unused_imports,
        clippy::allow_attributes,
        clippy::redundant_clone,
        clippy::unnecessary_wraps,
        clippy::unused_async,
        clippy::unused_self,
        reason = "with a crate left out, what connects it has no user"
    )
)]

mod builder;
#[cfg(all(feature = "discovery", feature = "mesh"))]
mod checks;
#[cfg(all(feature = "discovery", feature = "mesh"))]
mod clients;
#[cfg(feature = "serde")]
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
pub mod design;
mod error;
mod fan;
mod running;
pub mod wire;

pub use builder::Builder;
pub use error::{Error, ErrorKind, Result};
pub use running::Orchestra;

pub use orchestra_core as core;
#[cfg(feature = "discovery")]
#[cfg_attr(docsrs, doc(cfg(feature = "discovery")))]
pub use orchestra_discovery as discovery;
#[cfg(feature = "mesh")]
#[cfg_attr(docsrs, doc(cfg(feature = "mesh")))]
pub use orchestra_mesh as mesh;
#[cfg(feature = "observe")]
#[cfg_attr(docsrs, doc(cfg(feature = "observe")))]
pub use orchestra_observe as observe;
#[cfg(feature = "saga")]
#[cfg_attr(docsrs, doc(cfg(feature = "saga")))]
pub use orchestra_saga as saga;
#[cfg(feature = "scheduler")]
#[cfg_attr(docsrs, doc(cfg(feature = "scheduler")))]
pub use orchestra_scheduler as scheduler;
