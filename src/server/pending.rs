//! A request that the store has answered with a future: it waits in a lane for its source, without
//! a thread, and becomes a transfer, or is refused.

use super::admitted::AdmittedRequest;
use crate::error::Refusal;
use crate::event::Name;
use crate::store::{Kind, Later, Source};
use crate::transfer::{Link, tell};
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

impl PendingRequest {
    /// Tells the peer why the request ends. It has never answered: only if that may be, and not
    /// where another server may have the file.
    pub(super) fn end(&self, words: Option<&str>, may_refuse: impl FnOnce() -> bool) {
        if let Some(words) = words.filter(|_| !self.opening.broadcast)
            && may_refuse()
        {
            tell(&self.link, ErrorCode::NOT_DEFINED, words);
        }
    }

    /// Asks the embedder's future, which may panic, for the source.
    pub(super) fn poll(&mut self, now: Instant) -> Poll<Result<Source, Refusal>> {
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
