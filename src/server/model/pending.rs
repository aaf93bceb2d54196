//! The counterpart of `server/pending.rs`: the source is there when it has called the waker.

use super::admitted::AdmittedRequest;
use super::network::Link;
use super::script::News;
use super::shared::Shared;
use super::transfer::Transfer;
use super::{clock, record};
use crate::error::TransferError;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

pub(super) struct PendingRequest {
    pub(super) opening: Arc<AdmittedRequest>,
    pub(super) link: Link,
    pub(super) source: News,
    pub(super) waker: Waker,
    pub(super) since: Instant,
    pub(super) until: Instant,
}

pub(super) enum Resolved {
    Pending(Box<PendingRequest>),
    Begun(Box<Transfer>),
    Ended(Box<PendingRequest>),
}

impl PendingRequest {
    pub(super) fn resolve(self: Box<Self>, shared: &Shared, is_stopping: bool) -> Resolved {
        let id = self.opening.id;
        let is_there = self.source.is_there();
        record::trace(|| format!("{id:?} asks for its source, is_there={is_there}"));
        if is_there {
            let script = shared.scripts[&id].1.clone();
            let Self { link, waker, .. } = *self;
            let transfer = Transfer::new(id, link, waker, script);
            return Resolved::Begun(Box::new(transfer));
        }
        if !is_stopping && clock::now() < self.until {
            return Resolved::Pending(self);
        }
        record::ended(id);
        Resolved::Ended(self)
    }

    pub(super) fn fail(&self, _: &Shared, _: Option<&str>, _: TransferError) {
        record::ended(self.opening.id);
    }
}
