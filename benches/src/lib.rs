//! What is measured of the orchestra crates, shared by the criterion benches and by `figures`.

pub mod discovery;
pub mod disk;
pub mod measure;
pub mod mesh;
pub mod observe;
pub mod saga;
pub mod tasks;
