//! A source that is not there yet: the caller's thread waits for it.

use crate::error::Failure;
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

/// Waits until a source is there, but no longer than the transfer may take.
pub(super) fn resolved(mut source: Source, max_time: Option<Duration>) -> Result<Source, Failure> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let end = max_time.and_then(|most| now().checked_add(most));
    while let Source(Kind::Later(later)) = &mut source {
        match (later.as_mut().poll(&mut context), end) {
            (Poll::Ready(answer), _) => source = answer.map_err(Failure::Store)?,
            (Poll::Pending, None) => std::thread::park(),
            (Poll::Pending, Some(end)) => {
                let left = end.saturating_duration_since(now());
                if left.is_zero() {
                    return Err(Failure::TooLong);
                }
                std::thread::park_timeout(left);
            }
        }
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
        let source = resolved(source, None).expect("a source");
        assert!(matches!(source.0, Kind::Bytes(_)));
        waking.join().expect("it ends with the future");

        let refused = Source::future(async { Err(Refusal::not_found()) });
        let failure = resolved(refused, None).expect_err("a refusal");
        assert_eq!(failure, Failure::Store(Refusal::not_found()));
        let never = Source::future(std::future::pending());
        let failure = resolved(never, Some(Duration::from_millis(1)));
        assert_eq!(failure.expect_err("no source"), Failure::TooLong);
    }
}
