//! The wrapping key of the service. It seals secrets that the database stores: data keys, webhook secrets, the signing key of the
//! log. The key itself is in a file, so that a copy of the database alone reveals none of them.
//!
//! A file holds one or more keys. The first seals; all of them open, so that the wrapping key can be replaced without touching what
//! a data key has sealed.

mod cipher;
mod data_key;
mod key_file;
mod recorded;
mod wrapping;

pub use cipher::OpenError;
pub use data_key::DataKey;
pub use key_file::{DEFAULT_FILE, Error, KeyFile, KeySource};
pub use recorded::{Keys, Unavailable};
pub use wrapping::{Fingerprint, WrappingKeys};
