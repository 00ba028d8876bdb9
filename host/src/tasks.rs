//! The one place that spawns tasks and threads.

use std::future::Future;
use std::pin::Pin;

use tokio::sync::watch;

/// A future that stays on the thread it was made on.
pub type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

/// Spawns tasks on the current runtime and lanes beside it.
#[derive(Clone, Debug)]
pub struct Tasks {
    mode: Mode,
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    /// A lane is an operating system thread with a runtime of its own.
    Threads,
    /// A lane is a local task of the one simulated thread.
    OneThread,
}

/// A running task; aborted when dropped.
#[derive(Debug)]
#[must_use = "a task is aborted when its handle is dropped"]
pub struct Task {
    handle: Option<tokio::task::JoinHandle<()>>,
}

impl Task {
    /// Stops it at its next await.
    pub fn abort(&self) {
        if let Some(handle) = &self.handle {
            handle.abort();
        }
    }

    /// Whether it has ended, by itself or not.
    pub fn is_finished(&self) -> bool {
        self.handle.as_ref().is_none_or(tokio::task::JoinHandle::is_finished)
    }

    /// Lets it run on without a handle.
    pub fn detach(mut self) {
        self.handle = None;
    }

    /// Waits until it has ended. Cancel safe.
    pub async fn finished(&mut self) {
        if let Some(handle) = &mut self.handle {
            // A panic of the task was reported by the runtime already.
            drop(handle.await);
            self.handle = None;
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.abort();
    }
}

/// A running lane. It ends when its future does; dropping the handle does not stop it.
#[derive(Clone, Debug)]
pub struct Lane {
    done: watch::Receiver<bool>,
}

impl Lane {
    /// Whether its future has ended.
    pub fn is_finished(&self) -> bool {
        *self.done.borrow() || self.done.has_changed().is_err()
    }

    /// Waits until its future has ended. Cancel safe.
    pub async fn finished(&mut self) {
        // An error means that the lane is gone: ended as well.
        drop(self.done.wait_for(|done| *done).await);
    }
}

impl Tasks {
    /// Real threads.
    pub fn threads() -> Self {
        Self { mode: Mode::Threads }
    }

    /// Everything in the thread of a simulation; lanes must be started inside a `LocalSet`.
    pub fn one_thread() -> Self {
        Self { mode: Mode::OneThread }
    }

    /// Runs `future` on the current runtime. It must not block.
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    pub fn spawn(&self, _name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> Task {
        let handle = tokio::spawn(future);
        Task { handle: Some(handle) }
    }

    /// Runs a future on a lane of its own: a thread where it may block, with a runtime nobody shares. What
    /// starves elsewhere does not starve it.
    ///
    /// # Panics
    /// When the operating system has no thread left to give.
    pub fn spawn_lane(&self, name: &str, make: impl FnOnce() -> LocalFuture + Send + 'static) -> Lane {
        let (ended, done) = watch::channel(false);
        match self.mode {
            Mode::Threads => {
                std::thread::Builder::new()
                    .name(name.to_owned())
                    .spawn(move || {
                        let runtime = tokio::runtime::Builder::new_current_thread()
                            .enable_all()
                            .build()
                            .expect("a current-thread runtime needs only a few descriptors at start");
                        let local = tokio::task::LocalSet::new();
                        local.block_on(&runtime, async move { make().await });
                        ended.send_replace(true);
                    })
                    .expect("the operating system gives a thread for each lane at start");
            }
            Mode::OneThread => {
                tokio::task::spawn_local(async move {
                    make().await;
                    ended.send_replace(true);
                });
            }
        }
        Lane { done }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lane_runs_on_its_own_thread_and_tells_its_end() {
        let here = std::thread::current().id();
        let (send, receive) = tokio::sync::oneshot::channel();
        let mut lane = Tasks::threads().spawn_lane("t", move || {
            Box::pin(async move {
                let _ = send.send(std::thread::current().id());
            })
        });
        assert_ne!(receive.await.expect("the lane answers"), here);
        lane.finished().await;
        assert!(lane.is_finished());
    }

    #[tokio::test]
    async fn a_dropped_task_is_aborted() {
        let (send, receive) = tokio::sync::oneshot::channel::<()>();
        drop(Tasks::threads().spawn("t", async move {
            std::future::pending::<()>().await;
            drop(send);
        }));
        assert!(receive.await.is_err());
    }
}
