//! Where plugins come from: names, the lock file of a folder, the store of components by digest, and what brings them
//! there: registries, signatures, rules of trust, the index.
//!
//! ```text
//! oci://... -> distribution (over http, with credentials) -> store -- by digest --> a run
//!                 artifact: is it one component?               ^
//!                 signature + trust: may it come in?      plugins.lock: digest, grants, signer
//! ```
//! A run reads [`lock`] and [`store`] only. Nothing here looks into a component: that is `plugin`'s, and `cli` brings the
//! two together.

#[cfg(feature = "plugin")]
pub mod artifact;
#[cfg(feature = "plugin")]
pub mod credentials;
#[cfg(feature = "plugin")]
pub mod distribution;
pub mod file;
#[cfg(feature = "plugin")]
pub mod http;
#[cfg(feature = "plugin")]
pub mod index;
pub mod lock;
pub mod name;
#[cfg(feature = "plugin")]
pub mod signature;
pub mod store;
pub mod trust;
