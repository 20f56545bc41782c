//! Sends a file of commands to a running service: `POST /v1/batches` as NDJSON, one command a line.
//!
//! Every line has an idempotency key, its own or one that is derived from the line. After an interruption the lines without a
//! result are sent again, in this process or in a later one, and each command is executed once. The window of lines without a
//! result is limited, so the memory of an import does not depend on its length.

mod endpoint;
mod error;
mod import;
mod input;
mod key;
mod line;
mod refusal_file;
mod result_reader;
mod retry;
mod summary;
#[cfg(test)]
mod tests;
mod window;

pub use endpoint::{Endpoint, ResultForm, Token};
pub use error::Error;
pub use import::Import;
pub use input::{Input, Source};
pub use key::KeyPrefix;
pub use refusal_file::RefusalFile;
pub use retry::RetryPolicy;
pub use summary::{Event, Refusals, Summary};
