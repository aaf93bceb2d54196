//! So many a second, and no more: for what anybody can make the server do without having answered
//! it.

use std::time::{Duration, Instant};

/// A token bucket. It is full at first, and holds the tokens of one second at most.
#[derive(Debug)]
pub(super) struct TokenBucket {
    a_second: u32,
    tokens: u32,
    filled: Instant,
}

impl TokenBucket {
    pub(super) fn new(a_second: u32, now: Instant) -> Self {
        Self {
            a_second,
            tokens: a_second,
            filled: now,
        }
    }

    /// Takes one token; false where none is left.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled);
        let elapsed = elapsed.min(Duration::from_secs(1)).as_micros() as u64;
        let more = (elapsed * u64::from(self.a_second) / 1_000_000) as u32;
        if more > 0 {
            self.tokens = (self.tokens + more).min(self.a_second);
            self.filled = now;
        }
        let has = self.tokens > 0;
        self.tokens -= u32::from(has);
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)] // any instant will do
    fn it_gives_a_second_worth_at_once_and_then_at_its_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(100, start);
        let taken = |bucket: &mut TokenBucket, millis| {
            let now = start + Duration::from_millis(millis);
            (0..1000).filter(|_| bucket.take(now)).count()
        };
        assert_eq!(taken(&mut bucket, 0), 100);
        assert_eq!(taken(&mut bucket, 9), 0);
        assert_eq!(taken(&mut bucket, 10), 1);
        assert_eq!(taken(&mut bucket, 510), 50);
        assert_eq!(taken(&mut bucket, 60_000), 100, "not more for waiting");
    }
}
