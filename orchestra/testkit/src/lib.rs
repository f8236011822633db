#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod alloc;
pub mod clock;
pub mod process;
pub mod proxy;
pub mod seed;

pub use alloc::{CountingAllocator, allocations, held_by_all, retained};
pub use clock::FollowingWallClock;
pub use process::Process;
pub use proxy::{Faults, Proxy};
pub use seed::Seed;
