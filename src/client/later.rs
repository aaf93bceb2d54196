//! A source that is not there yet: the caller's thread waits for it.

use super::cancel::CancelHandle;
use super::error::ClientError;
use crate::limits::CLIENT_PROGRESS_INTERVAL;
use crate::store::{Kind, Source};
use crate::transfer::now;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

/// Ends the sleep of the caller's thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits until a source is there, but no longer than the transfer may take, and not after a cancel.
pub(super) fn resolved(
    mut source: Source,
    max_time: Option<Duration>,
    cancel: &CancelHandle,
) -> Result<Source, ClientError> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let end = max_time.and_then(|most| now().checked_add(most));
    while let Source(Kind::Later(later), _) = &mut source {
        if let Poll::Ready(answer) = later.as_mut().poll(&mut context) {
            source = answer.map_err(ClientError::Store)?;
            continue;
        }
        if cancel.is_cancelled() {
            return Err(ClientError::Cancelled);
        }
        let left = end.map(|end| end.saturating_duration_since(now()));
        if left == Some(Duration::ZERO) {
            return Err(ClientError::TooLong);
        }
        // A cancel wakes no thread.
        let pause = left.map_or(CLIENT_PROGRESS_INTERVAL, |left| {
            left.min(CLIENT_PROGRESS_INTERVAL)
        });
        std::thread::park_timeout(pause);
    }
    Ok(source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Refusal;
    use std::sync::mpsc;

    #[test]
    fn the_caller_waits_for_a_source_and_no_longer_than_it_may() {
        let (sender, receiver) = mpsc::channel::<Waker>();
        let mut polls = 0;
        let source = Source::future(std::future::poll_fn(move |context| {
            polls += 1;
            if polls < 3 {
                sender.send(context.waker().clone()).expect("a waker");
                return Poll::Pending;
            }
            Poll::Ready(Ok(Source::future(async { Ok(Source::bytes(*b"x")) })))
        }));
        let waking = std::thread::spawn(move || receiver.iter().for_each(Waker::wake));
        let cancel = CancelHandle::new();
        let source = resolved(source, None, &cancel).expect("a source");
        assert!(matches!(source.0, Kind::Bytes(_)));
        waking.join().expect("it ends with the future");

        let refused = Source::future(async { Err(Refusal::not_found()) });
        let failure = resolved(refused, None, &cancel).expect_err("a refusal");
        assert_eq!(failure, ClientError::Store(Refusal::not_found()));
        let never = Source::future(std::future::pending());
        let failure = resolved(never, Some(Duration::from_millis(1)), &cancel);
        assert_eq!(failure.expect_err("no source"), ClientError::TooLong);
        cancel.cancel();
        let never = Source::future(std::future::pending());
        let failure = resolved(never, None, &cancel);
        assert_eq!(failure.expect_err("no source"), ClientError::Cancelled);
    }
}
