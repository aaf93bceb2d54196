//! The counterpart of `server/pending.rs`.

use super::admitted::AdmittedRequest;
use super::network::Link;
use super::script::News;
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
