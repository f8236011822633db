#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod breaker;
pub mod budget;
pub mod client;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod conformance;
pub mod connect;
pub mod deadline;
pub mod error;
pub mod event;
pub mod gateway;
mod hash;
pub mod pick;
pub mod policy;
mod ratio;
mod request;
pub mod retry;
pub mod route;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod saboteur;
pub mod split;
pub mod tower;

pub use client::Client;
pub use error::Error;
pub use event::Event;
pub use gateway::Gateway;
pub use policy::Policy;
pub use ratio::Ratio;
pub use request::Body;
