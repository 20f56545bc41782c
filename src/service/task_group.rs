//! Background tasks that start and stop together, and are supervised in between.

use futures_util::future::{pending, select_all};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use passbook_telemetry::supervision::{self, TaskPanic};

/// Tasks that share a cancellation token. Dropping the group cancels the token and does not wait for the tasks.
#[derive(Debug)]
pub struct TaskGroup {
    shutdown: DropGuard,
    tasks: Vec<Task>,
}

#[derive(Debug)]
struct Task {
    name: &'static str,
    handle: JoinHandle<()>,
}

/// A task that ended although its group was not stopped.
#[derive(Debug, thiserror::Error)]
#[error("the background task `{name}` ended unexpectedly ({reason})")]
pub struct TaskEnded {
    /// The task.
    pub name: &'static str,
    /// The panic, or `returned`.
    pub reason: String,
}

impl From<TaskPanic> for TaskEnded {
    fn from(TaskPanic { name, reason }: TaskPanic) -> Self {
        Self { name, reason }
    }
}

impl TaskGroup {
    /// An empty group.
    pub fn new() -> Self {
        Self { shutdown: CancellationToken::new().drop_guard(), tasks: Vec::new() }
    }

    /// The token that is cancelled when the group stops.
    pub fn token(&self) -> CancellationToken {
        self.shutdown.token().clone()
    }

    /// Adds a running task that ends when the token is cancelled.
    pub fn add(&mut self, name: &'static str, handle: JoinHandle<()>) {
        self.tasks.push(Task { name, handle });
    }

    /// Starts a task that ends when the token is cancelled.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let task = async move {
            supervision::panic_if_injected(name);
            task.await;
        };
        self.add(name, tokio::spawn(task));
    }

    /// Waits until a task ends although the group runs. Returns at once if one has ended before.
    pub async fn unexpected_end(&mut self) -> TaskEnded {
        if self.tasks.is_empty() {
            return pending().await;
        }
        let (result, ended, _) = select_all(self.tasks.iter_mut().map(|task| &mut task.handle)).await;
        // A handle must not be polled again after it has returned.
        let Task { name, .. } = self.tasks.swap_remove(ended);
        TaskEnded { name, reason: reason(result) }
    }

    /// Cancels the token, and waits until all tasks have ended.
    pub async fn stop(self) {
        let Self { shutdown, tasks } = self;
        drop(shutdown);
        for Task { name, handle } in tasks {
            if let Err(error) = handle.await {
                tracing::error!(task = name, %error, "background task failed");
            }
        }
    }
}

fn reason(result: Result<(), JoinError>) -> String {
    result.map_or_else(|error| error.to_string(), |()| "it returned".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_reported_while_the_others_run() {
        let mut group = TaskGroup::new();
        group.spawn("steady", pending());
        group.spawn("faulty", async { panic!("a fault") });
        let ended = group.unexpected_end().await;
        assert_eq!(ended.name, "faulty");
        assert!(ended.reason.contains("a fault"), "{ended}");
    }

    #[tokio::test]
    async fn a_task_that_returns_early_is_reported() {
        let mut group = TaskGroup::new();
        group.spawn("short", async {});
        assert_eq!(group.unexpected_end().await.reason, "it returned");
    }

    #[tokio::test]
    async fn stopping_cancels_the_token_and_waits_for_the_tasks() {
        let mut group = TaskGroup::new();
        let (token, (sender, receiver)) = (group.token(), tokio::sync::oneshot::channel());
        group.spawn("worker", async move {
            token.cancelled().await;
            sender.send("done").expect("the test waits");
        });
        group.stop().await;
        assert_eq!(receiver.await, Ok("done"));
    }

    #[tokio::test]
    async fn dropping_the_group_cancels_the_token() {
        let group = TaskGroup::new();
        let token = group.token();
        drop(group);
        assert!(token.is_cancelled());
    }
}
