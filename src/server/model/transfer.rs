//! The counterpart of `crate::transfer`: a transfer follows a script.

use super::network::{Link, has_unread, receive, receive_within};
use super::script::{Deed, News};
use super::{clock, network, record};
use crate::event::TransferId;
use crate::limits::PATIENCE;
use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::task::Waker;
use std::time::Instant;

pub(super) use crate::transfer::{CANCELLED, Ending, STOPPING, Surroundings, Turn};

pub(super) struct Scratch;

impl Scratch {
    pub(super) fn new() -> Self {
        Self
    }
}

pub(super) struct Transfer {
    id: TransferId,
    _link: Link,
    waker: Waker,
    script: VecDeque<Deed>,
    /// The block of the first deed was sent.
    is_sent: bool,
    is_proven: bool,
    is_complete: bool,
    is_concluded: bool,
    /// The worker panics behind this turn.
    pub(super) is_deadly: bool,
    /// When the current pause ends.
    until: Option<Instant>,
    /// What its source will have.
    news: Option<News>,
}

impl Transfer {
    pub(super) fn new(id: TransferId, link: Link, waker: Waker, script: Vec<Deed>) -> Self {
        Self {
            id,
            _link: link,
            waker,
            script: script.into(),
            is_sent: false,
            is_proven: false,
            is_complete: false,
            is_concluded: false,
            is_deadly: false,
            until: None,
            news: None,
        }
    }

    pub(super) fn id(&self) -> TransferId {
        self.id
    }

    pub(super) fn run(&mut self, _: &mut Scratch, around: &impl Surroundings) -> Turn {
        loop {
            if around.is_stopping() {
                return Turn::Done(Ending::Failed(crate::error::TransferError::Stopped));
            }
            let Some(&deed) = self.script.front() else {
                return Turn::Done(Ending::Completed);
            };
            let others_wait = around.others_wait();
            record::trace(|| format!("{:?} {deed:?} others_wait={others_wait}", self.id));
            match deed {
                Deed::Block(time) => {
                    if !self.is_sent {
                        self.is_sent = true;
                        let id = self.id;
                        clock::after(time, move || network::arrive(id));
                        if others_wait {
                            return Turn::Quiet(clock::now() + clock::NEVER);
                        }
                    }
                    let came = if others_wait {
                        receive(self.id)
                    } else {
                        around.listens(true);
                        let came = receive_within(self.id, PATIENCE);
                        around.listens(false);
                        came
                    };
                    if !came {
                        return Turn::Quiet(clock::now() + clock::NEVER);
                    }
                    self.is_proven = true;
                    self.is_sent = false;
                }
                Deed::Source(time) => {
                    let waker = &self.waker;
                    let news = self
                        .news
                        .get_or_insert_with(|| News::after(time, waker.clone()));
                    if !news.is_there() {
                        return Turn::Quiet(clock::now() + clock::NEVER);
                    }
                    self.news = None;
                }
                Deed::Pause(time) => {
                    let now = clock::now();
                    let until = *self.until.get_or_insert(now + time);
                    if now < until {
                        return Turn::Quiet(until);
                    }
                    self.until = None;
                }
                Deed::Slice => {
                    self.script.pop_front();
                    return Turn::SliceUsed;
                }
                Deed::Held(time) => clock::sleep(time),
                Deed::HeldBy(other) => {
                    around.listens(true);
                    record::wait_for_end(other);
                    around.listens(false);
                }
                Deed::Complete => {
                    around.completes(self.id);
                    self.is_complete = true;
                }
                // Without the hook, which would take it for a failed test.
                Deed::Wait => return Turn::Quiet(clock::now() + clock::NEVER),
                Deed::Die => {
                    self.is_deadly = true;
                    return Turn::Quiet(clock::now() + clock::NEVER);
                }
                Deed::Panic => resume_unwind(Box::new("a source panics")),
            }
            self.script.pop_front();
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    pub(super) fn is_proven(&self) -> bool {
        self.is_proven
    }

    pub(super) fn is_silent(&self) -> bool {
        false
    }

    pub(super) fn answered(&self) -> Instant {
        clock::now()
    }

    pub(super) fn moved(&self) -> (Instant, u64) {
        (clock::now(), 0)
    }

    pub(super) fn has_mail(&self) -> bool {
        has_unread(self.id)
    }

    pub(super) fn request_repeated(&mut self) -> bool {
        true
    }

    pub(super) fn leave(&self, _: &str, _: impl FnOnce() -> bool) {}

    pub(super) fn conclude(&mut self) -> bool {
        !std::mem::replace(&mut self.is_concluded, true)
    }
}
