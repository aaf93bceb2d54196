//! The counterpart of `server/opening.rs`: the store follows a script.

use super::admitted::AdmittedRequest;
use super::guarded::guarded;
use super::network::Link;
use super::pending::PendingRequest;
use super::script::{News, StoreScript};
use super::shared::Shared;
use super::transfer::Transfer;
use super::waiting::Waiting;
use super::{clock, record};
use crate::error::TransferError;
use crate::event::TransferId;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

pub(super) struct Answer {
    given: Given,
    link: Link,
}

enum Given {
    Now,
    Later(News),
    Refusal,
}

thread_local! {
    static WITHOUT_SOCKET: RefCell<BTreeSet<TransferId>> = RefCell::default();
}

pub(super) fn reset() {
    WITHOUT_SOCKET.take();
}

pub(super) fn ask(
    shared: &Shared,
    opening: &AdmittedRequest,
    _: u16,
    waker: &Waker,
) -> io::Result<Answer> {
    let id = opening.id;
    let link = Link::open(id);
    record::trace(|| format!("{id:?} {:?}", shared.scripts[&id].0));
    let answer: Option<io::Result<Given>> = guarded(|| match shared.scripts[&id].0 {
        StoreScript::Answers => Ok(Given::Now),
        StoreScript::Takes(time) => {
            clock::sleep(time);
            Ok(Given::Now)
        }
        StoreScript::HeldBy(other) => {
            record::wait_for_end(other);
            Ok(Given::Now)
        }
        StoreScript::Later(time) => Ok(Given::Later(News::after(time, waker.clone()))),
        StoreScript::Refuses => Ok(Given::Refusal),
        StoreScript::Panics => resume_unwind(Box::new("the store panics")),
        StoreScript::NoSocketAtFirst => {
            let is_first = WITHOUT_SOCKET.with_borrow_mut(|set| set.insert(id));
            match is_first {
                true => Err(io::ErrorKind::AddrInUse.into()),
                false => Ok(Given::Now),
            }
        }
    });
    let given = answer.unwrap_or(Ok(Given::Refusal))?;
    Ok(Answer { given, link })
}

impl Answer {
    pub(super) fn begin(
        self,
        shared: &Shared,
        opening: &Arc<AdmittedRequest>,
        waker: &Waker,
    ) -> Result<Waiting, Instant> {
        let (id, link, waker) = (opening.id, self.link, waker.clone());
        match self.given {
            Given::Now => {
                let script = shared.scripts[&id].1.clone();
                let transfer = Transfer::new(id, link, waker, script);
                Ok(Waiting::Transfer(Box::new(transfer)))
            }
            Given::Later(source) => {
                let since = clock::now();
                Ok(Waiting::Request(Box::new(PendingRequest {
                    opening: Arc::clone(opening),
                    link,
                    source,
                    waker,
                    since,
                    until: since + shared.store_deadline,
                })))
            }
            Given::Refusal => {
                record::ended(id);
                Err(clock::now())
            }
        }
    }
}

pub(super) enum Resolved {
    Pending(Box<PendingRequest>),
    Begun(Box<Transfer>),
    Ended(Box<PendingRequest>),
}

pub(super) fn resolve(
    shared: &Shared,
    request: Box<PendingRequest>,
    is_stopping: bool,
) -> Resolved {
    let id = request.opening.id;
    let is_there = request.source.is_there();
    record::trace(|| format!("{id:?} asks for its source, is_there={is_there}"));
    if is_there {
        let script = shared.scripts[&id].1.clone();
        let PendingRequest { link, waker, .. } = *request;
        let transfer = Transfer::new(id, link, waker, script);
        return Resolved::Begun(Box::new(transfer));
    }
    if !is_stopping && clock::now() < request.until {
        return Resolved::Pending(request);
    }
    record::ended(id);
    Resolved::Ended(request)
}

pub(super) fn fail(_: &Shared, request: &PendingRequest, _: Option<&str>, _: TransferError) {
    record::ended(request.opening.id);
}
