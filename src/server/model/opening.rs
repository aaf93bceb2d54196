//! The counterpart of `server/opening.rs`: the store follows a script.

use super::admitted::AdmittedRequest;
use super::guarded::guarded;
use super::script::StoreScript;
use super::shared::Shared;
use super::transfer::Transfer;
use super::{clock, record};
use crate::event::TransferId;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::panic::resume_unwind;
use std::time::Instant;

pub(super) struct Answer {
    is_granted: bool,
}

thread_local! {
    static WITHOUT_SOCKET: RefCell<BTreeSet<TransferId>> = RefCell::default();
}

pub(super) fn reset() {
    WITHOUT_SOCKET.take();
}

pub(super) fn ask(shared: &Shared, opening: &AdmittedRequest, _: u16) -> io::Result<Answer> {
    let id = opening.id;
    record::trace(|| format!("{id:?} {:?}", shared.scripts[&id].0));
    let answer: Option<io::Result<bool>> = guarded(|| match shared.scripts[&id].0 {
        StoreScript::Answers => Ok(true),
        StoreScript::Takes(time) => {
            clock::sleep(time);
            Ok(true)
        }
        StoreScript::HeldBy(other) => {
            record::wait_for_end(other);
            Ok(true)
        }
        StoreScript::Refuses => Ok(false),
        StoreScript::Panics => resume_unwind(Box::new("the store panics")),
        StoreScript::NoSocketAtFirst => {
            let is_first = WITHOUT_SOCKET.with_borrow_mut(|set| set.insert(id));
            match is_first {
                true => Err(io::ErrorKind::AddrInUse.into()),
                false => Ok(true),
            }
        }
    });
    let is_granted = answer.unwrap_or(Ok(false))?;
    Ok(Answer { is_granted })
}

impl Answer {
    pub(super) fn begin(
        self,
        shared: &Shared,
        opening: &AdmittedRequest,
    ) -> Result<Box<Transfer>, Instant> {
        if !self.is_granted {
            record::ended(opening.id);
            return Err(clock::now());
        }
        let script = shared.scripts[&opening.id].1.clone();
        Ok(Box::new(Transfer::new(opening.id, script)))
    }
}
