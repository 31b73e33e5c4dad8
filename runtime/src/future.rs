//! Events as futures, for any executor. Nothing runs unless it is polled, and no runtime is needed.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use limosa_pager::{EventPoll, LaunchEvent};

use crate::{Error, Result};

/// Waits for an [`Event`](crate::Event); made by `.await`ing it. Dropping it changes nothing for the event.
///
/// The task that polled last is woken, by a thread that may be used for anything. Polled again after it was ready, it is
/// ready again.
#[must_use = "futures do nothing unless polled"]
pub struct EventFuture {
    inner: EventPoll,
}

impl EventFuture {
    pub(crate) fn new(event: LaunchEvent) -> Self {
        Self { inner: EventPoll::new(event) }
    }
}

impl Future for EventFuture {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll(context).map_err(Error::from)
    }
}
