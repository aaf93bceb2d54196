//! A request that the store has answered with a future: it waits in a lane for its source, without
//! a thread, and becomes a transfer, or is refused.

use super::admitted::AdmittedRequest;
use super::guarded::{close, guarded};
use super::opening::{PANICKED, begin, failed_read, granted, refuse};
use super::shared::Shared;
use crate::error::{Refusal, TransferError};
use crate::event::{Event, Name};
use crate::store::{Kind, Later, Source};
use crate::transfer::{Link, STOPPING, Transfer, now, tell};
use crate::wire::ErrorCode;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// A request without a source. The peer has been sent nothing.
pub(super) struct PendingRequest {
    pub(super) opening: Arc<AdmittedRequest>,
    pub(super) link: Link,
    pub(super) source: Later,
    /// The name that it has in the store, unless the source that comes knows better.
    pub(super) name: Option<Name>,
    pub(super) waker: Waker,
    /// When the store has answered.
    pub(super) since: Instant,
    /// When the request is refused if there is no source.
    pub(super) until: Instant,
}

/// What became of a request in its turn.
pub(super) enum Resolved {
    /// There is no source yet.
    Pending(Box<PendingRequest>),
    Begun(Box<Transfer>),
    /// It never becomes a transfer, and that is reported.
    Ended(Box<PendingRequest>),
}

impl PendingRequest {
    /// Asks for the source, and makes the transfer if it is there. Where all are to end none waits.
    pub(super) fn resolve(mut self: Box<Self>, shared: &Shared, is_stopping: bool) -> Resolved {
        let mode = self.opening.asked.mode;
        let answer = guarded(|| {
            let source = match self.poll(now()) {
                Poll::Ready(source) => source,
                Poll::Pending => return Poll::Pending,
            };
            Poll::Ready(source.and_then(|source| granted(shared, source, mode)))
        });
        let panicked = || Poll::Ready(Err(failed_read().because(PANICKED)));
        match answer.unwrap_or_else(panicked) {
            Poll::Pending if !is_stopping => Resolved::Pending(self),
            Poll::Pending => {
                self.fail(shared, Some(STOPPING), TransferError::Stopped);
                Resolved::Ended(self)
            }
            Poll::Ready(Ok(granted)) => {
                let Self {
                    opening,
                    link,
                    source,
                    ..
                } = *self;
                close(source);
                Resolved::Begun(begin(shared, granted, &opening, link))
            }
            Poll::Ready(Err(refusal)) => {
                refuse(shared, &self.opening, &self.link, refusal);
                Resolved::Ended(self)
            }
        }
    }

    /// Reports that the request fails, and tells the peer why, in these words. The peer has never
    /// answered: it is told only if that may be, and not where another server may have the file.
    pub(super) fn fail(&self, shared: &Shared, words: Option<&str>, failure: TransferError) {
        if let Some(words) = words.filter(|_| !self.opening.broadcast)
            && shared.may_refuse(now())
        {
            tell(&self.link, ErrorCode::NOT_DEFINED, words);
        }
        let summary = self.opening.summary(now());
        shared.reporter.report(Event::Failed(summary, failure));
    }

    /// Asks the embedder's future, which may panic, for the source.
    fn poll(&mut self, now: Instant) -> Poll<Result<Source, Refusal>> {
        let mut context = Context::from_waker(&self.waker);
        loop {
            match self.source.as_mut().poll(&mut context) {
                Poll::Ready(Ok(Source(kind, name))) => {
                    self.name = name.or(self.name.take());
                    match kind {
                        Kind::Later(next) => self.source = next,
                        kind => return Poll::Ready(Ok(Source(kind, self.name.take()))),
                    }
                }
                Poll::Ready(Err(refusal)) => return Poll::Ready(Err(refusal)),
                Poll::Pending if now >= self.until => {
                    let refusal = Refusal::new(ErrorCode::NOT_DEFINED, "server is busy");
                    return Poll::Ready(Err(refusal.because("the store does not answer")));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
