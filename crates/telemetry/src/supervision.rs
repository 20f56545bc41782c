//! Supervises the background tasks of this process that no other code waits for. If one panics, the process must exit, so that its
//! process manager starts it again: without the task it would look alive and do only a part of its work.
//!
//! The registry belongs to the process, as the metrics do, so that every crate can start tasks.

use std::{any::Any, panic::AssertUnwindSafe, sync::LazyLock};

use futures_util::FutureExt;
use tokio::{sync::watch, task::JoinHandle};

/// The first task that panicked.
static FAILED: LazyLock<watch::Sender<Option<TaskPanic>>> = LazyLock::new(|| watch::Sender::new(None));

/// A background task that panicked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskPanic {
    /// The task.
    pub name: &'static str,
    /// The message of the panic.
    pub reason: String,
}

/// Starts a background task. It may return at any time, but if it panics, [`failed`] reports it.
pub fn spawn(name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        let task = AssertUnwindSafe(async {
            panic_if_injected(name);
            task.await;
        });
        if let Err(panic) = task.catch_unwind().await {
            report(name, &*panic);
        }
    })
}

/// Reports a panic that the caller has caught, for example in a thread.
pub fn report(name: &'static str, panic: &(dyn Any + Send)) {
    let reason = panic_message(panic).to_owned();
    FAILED.send_if_modified(|first| {
        let is_first = first.is_none();
        first.get_or_insert(TaskPanic { name, reason });
        is_first
    });
}

/// The text of a caught panic.
pub fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("panicked")
}

/// Waits until a background task panics. Returns at once if one has panicked before.
pub async fn failed() -> TaskPanic {
    let mut failures = FAILED.subscribe();
    let first = failures.wait_for(Option::is_some).await.map(|failure| failure.clone());
    match first {
        Ok(Some(failure)) => failure,
        // The sender is never dropped.
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

/// The first background task that panicked.
pub fn failure() -> Option<TaskPanic> {
    FAILED.borrow().clone()
}

/// Panics if a test asks for it: in debug builds, with the task's name in `PASSBOOK_TEST_PANIC_TASK`.
pub fn panic_if_injected(name: &str) {
    #[cfg(debug_assertions)]
    {
        static INJECTED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("PASSBOOK_TEST_PANIC_TASK").ok());
        assert!(INJECTED.as_deref() != Some(name), "injected panic");
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_reported_and_a_return_is_not() {
        spawn("steady", async {}).await.expect("the task returns");
        assert_eq!(failure(), None);
        spawn("faulty", async { panic!("a fault") }).await.expect("the panic is caught");
        spawn("later", async { panic!("another fault") }).await.expect("the panic is caught");
        let expected = TaskPanic { name: "faulty", reason: "a fault".to_owned() };
        assert_eq!((failed().await, failure()), (expected.clone(), Some(expected)));
    }
}
