//! A task that ends with whoever holds it.

use std::future::Future;

use tokio::task::AbortHandle;

pub(super) struct Guarded(AbortHandle);

impl Guarded {
    /// Runs `task` until it ends or this is dropped.
    pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task).abort_handle())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.0.abort();
    }
}
