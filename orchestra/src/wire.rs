//! The adapters between the crates: the only code that knows two of them.
//!
//! [`Orchestra::builder`](crate::Orchestra::builder) uses all of them; each can be used alone.

#[cfg(all(
    feature = "observe",
    any(
        feature = "discovery",
        feature = "scheduler",
        feature = "saga",
        feature = "mesh"
    )
))]
#[cfg_attr(docsrs, doc(cfg(feature = "observe")))]
pub mod events;
#[cfg(all(feature = "discovery", feature = "mesh"))]
#[cfg_attr(docsrs, doc(cfg(all(feature = "discovery", feature = "mesh"))))]
pub mod gate;
#[cfg(all(feature = "discovery", feature = "mesh"))]
#[cfg_attr(docsrs, doc(cfg(all(feature = "discovery", feature = "mesh"))))]
pub mod pick;
#[cfg(all(feature = "discovery", feature = "scheduler"))]
#[cfg_attr(docsrs, doc(cfg(all(feature = "discovery", feature = "scheduler"))))]
pub mod registration;
#[cfg(all(feature = "saga", feature = "mesh", feature = "discovery"))]
#[cfg_attr(
    docsrs,
    doc(cfg(all(feature = "saga", feature = "mesh", feature = "discovery")))
)]
pub mod steps;
