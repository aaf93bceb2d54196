//! The endpoint: what becomes of each request and of each transfer of a server, as `proto::Sender`
//! decides it for one transfer.
//!
//! It names no socket, file, thread or clock: `now` is an argument. What happens comes in as a
//! call; what is to be done comes out of [`poll_action`](Endpoint::poll_action), and
//! [`next_timeout`](Endpoint::next_timeout) says when to call again. Transfers belong to lanes;
//! what the endpoint has to know about one, and its orders, go through [`LaneAccess`].

use super::Stop;
use super::access::{Access, AccessRequest, Gate};
use super::admitted::{AdmittedRequest, Asked, StoreCall};
use super::bucket::TokenBucket;
use super::by_id::ById;
use super::desk::{Desk, Quota, Scope, Tid, Verdict, patience};
use super::message::Report;
use super::ports::{Lease, Supply};
use crate::error::{Refusal, TransferError, plain};
use crate::event::{DropReason, Event, Name, TransferId};
use crate::limits::{
    ERRORS_PER_SECOND, HALF_OPEN_CHANCE, HALF_OPEN_MIN_AGE, PORT_WAIT, STUCK_AFTER,
};
use crate::sys::is_scarce;
use crate::wire::{self, Direction, ErrorCode, Malformed, Packet};
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Entries in the heap per transfer, and in all, before outdated ones are removed.
const TIMERS_PER_SLOT: usize = 4;
const TIMERS_KEPT: usize = 1024;
/// Transfers looked at before a request gives up on finding room.
const ROOM_TRIES: usize = 8;
/// Requests for which the system had no socket try again when a socket is closed. Other programs
/// close theirs unseen: for that reason a few requests try again after this time. An attempt
/// without success may take the system a millisecond.
const SOCKET_RETRY: Duration = Duration::from_millis(100);
const RETRIES_AT_ONCE: usize = 4;
/// While the server drains, transfers whose peers fall silent are looked for this often.
const DRAIN_LOOK: Duration = Duration::from_millis(50);
/// How long the end waits for workers that are inside a store or a read.
const LAST_WAIT: Duration = Duration::from_secs(2);
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The lanes and the store, as far as the endpoint looks at them or gives them orders.
pub(super) trait LaneAccess {
    /// What is known about a transfer that is parked in this lane; `None` while it is in its turn.
    fn facts(&self, lane: usize, id: TransferId, now: Instant) -> Option<Facts>;
    /// True where the peer's datagrams lie unread.
    fn has_unread(&self, lane: usize, id: TransferId) -> bool;
    /// The peer repeats its request before it has answered. False where that brings nothing, `None`
    /// while the transfer is in its turn.
    fn repeat_request(&mut self, lane: usize, id: TransferId, now: Instant) -> Option<bool>;
    /// The transfer is to be [reported](Report::Parked) when it is parked next.
    fn recall(&mut self, lane: usize, id: TransferId);
    /// Ends a transfer that is parked and has the job to close it done; says when its peer was last
    /// sent something new. One that is in its turn is recalled instead.
    fn end(&mut self, lane: usize, id: TransferId, failure: TransferError) -> Option<Instant>;
    /// A complete upload that is in its turn is closed when that is over, and reported.
    fn abandon(&mut self, id: TransferId);
    /// Every turn ends its transfer from now on.
    fn end_turns(&mut self);
    /// True where a slow call may lose its store slot.
    fn may_give_slot_away(&self) -> bool;
    /// A slow call has lost its store slot: others may ask the store.
    fn give_slot_away(&mut self);
    /// True where no worker and no store slot will get free for a request that waits.
    fn is_hopeless(&self) -> bool;
}

/// A parked transfer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// The file is stored and acknowledged.
    pub(super) is_complete: bool,
    /// The peer has acknowledged something.
    pub(super) is_established: bool,
    /// The peer has said nothing for so long that a repeated request is not a late copy.
    pub(super) is_silent: bool,
    /// When the peer was last sent something new.
    pub(super) answered: Instant,
    /// When the peer moved on last, and how many windows it has got through by then.
    pub(super) moved: (Instant, u64),
}

/// What is to be done, in this order.
#[derive(Debug)]
pub(super) enum Action {
    /// Give a request to the pool, to be answered from this port; 0 lets the system choose.
    Open(Arc<AdmittedRequest>, u16),
    /// Send an ERROR from the listening port that was asked.
    Reply(Tid, Refusal),
    /// The same, if the budget for peers that have not answered allows it.
    ReplyWithin(Tid, Refusal),
    /// Tell what happened.
    Report(Event),
    /// Warn, at a limited rate.
    Warn(&'static str, Cow<'static, str>),
}

/// What a server takes on, as far as the endpoint decides about it.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) quota: Quota,
    pub(super) supply: Supply,
    pub(super) access: Gate,
    pub(super) takes_uploads: bool,
    pub(super) answer_broadcast: bool,
    pub(super) store_deadline: Duration,
}

/// A datagram at a listening socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram<'a> {
    pub(super) tid: Tid,
    pub(super) bytes: &'a [u8],
    /// It was longer than that.
    pub(super) is_cut: bool,
    /// It was sent to a broadcast address, and from which address it can be answered is known.
    pub(super) broadcast: Option<Answerable>,
}

/// Whether the address to answer a broadcast from is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answerable {
    Yes,
    No,
}

/// One transfer, or a request on its way to become one.
#[derive(Debug)]
struct Slot {
    /// The request, until it is a transfer: the store may never answer.
    opening: Option<Arc<AdmittedRequest>>,
    /// The number of its lane, once it is a transfer.
    lane: Option<usize>,
    /// When the request is looked at next.
    timer: Option<Instant>,
    /// To be looked at when the transfer is parked: the same request once more, and why it is to
    /// end.
    again: Option<Arrival>,
    fail_later: Option<TransferError>,
}

/// A request that was read and looked well-formed.
#[derive(Debug)]
struct Arrival {
    tid: Tid,
    digest: u64,
    asked: Asked,
    /// Options that mean nothing to the server.
    ignored: Option<Name>,
    /// When it had been received; never earlier.
    at: Instant,
    /// The same was asked before, and done: see [`AdmittedRequest::may_be_copy`].
    may_be_copy: bool,
    broadcast: bool,
}

/// What the same request once more is to its transfer.
enum Same {
    /// The transfer is in its turn, or the peer's answer lies unread.
    Busy,
    /// A late copy.
    Late,
    /// A question for the packet that opens the transfer.
    Repeated,
    /// A new request; perhaps a copy of the one for an upload that is complete.
    New { is_complete: bool },
}

#[derive(Debug)]
struct Stopping {
    deadline: Instant,
    forced: bool,
}

/// The requests and transfers of a server.
#[derive(Debug)]
pub(super) struct Endpoint {
    config: Config,
    desk: Desk,
    slots: ById<Slot>,
    /// Slots that have a lane.
    transfers: usize,
    /// When requests are looked at; outdated entries are skipped, and removed when they outnumber
    /// the rest.
    timers: BinaryHeap<Reverse<(Instant, TransferId)>>,
    /// Requests for which the system had no socket, and when the next of them try again.
    without_socket: VecDeque<Arc<AdmittedRequest>>,
    next_retry: Instant,
    /// The ports of transfers that have ended and whose sockets a worker has still to close.
    closing: ById<Lease>,
    /// Of these, sockets that are closed as soon as a worker is free.
    closed_soon: usize,
    /// Makes digests and random numbers that no client can foresee.
    secret: u64,
    /// Random numbers that were drawn.
    drawn: u64,
    /// ERROR replies to what starts nothing.
    errors: TokenBucket,
    stopping: Option<Stopping>,
    actions: VecDeque<Action>,
}

impl Endpoint {
    pub(super) fn new(config: Config, secret: u64, now: Instant) -> Self {
        Self {
            desk: Desk::new(config.quota, config.supply.clone()),
            config,
            slots: ById::default(),
            transfers: 0,
            timers: BinaryHeap::new(),
            without_socket: VecDeque::new(),
            next_retry: now,
            closing: ById::default(),
            closed_soon: 0,
            secret,
            drawn: 0,
            errors: TokenBucket::new(ERRORS_PER_SECOND, now),
            stopping: None,
            actions: VecDeque::new(),
        }
    }

    /// The next thing to do.
    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`timeout`](Self::timeout) has something to do, if nothing happens before.
    pub(super) fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let stopping = self.stopping.as_ref();
        let deadlines = [
            self.timers.peek().map(|Reverse((deadline, _))| *deadline),
            self.lacks_sockets().then_some(self.next_retry),
            self.desk.due(),
            stopping.map(|stopping| stopping.deadline.min(now + DRAIN_LOOK)),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Requests and transfers.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Requests that are no transfers yet.
    pub(super) fn requests(&self) -> usize {
        self.slots.len().saturating_sub(self.transfers)
    }

    /// Transfers, and requests on their way to become one, whose peers have not answered.
    pub(super) fn half_open(&self) -> usize {
        self.desk.half_open_transfers()
    }

    /// True while this request or transfer is not over.
    pub(super) fn has(&self, id: TransferId) -> bool {
        self.slots.contains_key(&id)
    }

    /// True where nothing is left of any request or transfer.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
            && self.desk.is_empty()
            && self.without_socket.is_empty()
            && self.closing.is_empty()
            && self.closed_soon == 0
            && self.transfers == 0
    }

    fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    fn warn(&mut self, what: &'static str, why: impl Into<Cow<'static, str>>) {
        self.act(Action::Warn(what, why.into()));
    }

    // ---- requests ---------------------------------------------------------------------------

    /// A datagram has come to a listening socket.
    ///
    /// # Errors
    /// The reason to drop it. [`dropped`](Self::dropped) tells it, unless the datagram is tried
    /// again.
    pub(super) fn datagram(
        &mut self,
        datagram: Datagram<'_>,
        now: Instant,
        lanes: &mut impl LaneAccess,
    ) -> Result<(), DropReason> {
        if self.stopping.is_some() {
            return Err(DropReason::Stopping);
        }
        let Datagram {
            tid,
            bytes,
            is_cut,
            broadcast,
        } = datagram;
        let is_broadcast = broadcast.is_some();
        let is_answered = self.config.answer_broadcast && broadcast != Some(Answerable::No);
        if is_broadcast && !is_answered {
            return Err(DropReason::Broadcast);
        }
        if tid.peer.port() == 0 || tid.peer == tid.local {
            return Err(DropReason::NoReturnAddress);
        }
        let request = match wire::parse(bytes) {
            Ok(Packet::Request(_)) if is_cut => Err(Malformed::LongRequest),
            Ok(Packet::Request(request)) => Ok(request),
            // ERROR above all is never answered: two servers would never stop (RFC 1350 §2).
            Ok(_) => return Err(DropReason::NotARequest),
            Err(malformed) => Err(malformed),
        };
        let directions: &[Direction] = match &request {
            Ok(request) => &[request.direction],
            Err(_) => &[Direction::Read, Direction::Write],
        };
        if let Some(denied) = self.denied(tid, directions) {
            let is_request = request
                .as_ref()
                .err()
                .is_none_or(|malformed| malformed.is_request());
            if denied == Access::Refuse && is_request && !is_broadcast {
                self.answer(tid, Refusal::access_violation(), now);
            }
            return Err(DropReason::Denied);
        }
        match request {
            // RFC 1123 §4.2.3.5; what is answered at all is a read.
            Err(_) if is_broadcast => Err(DropReason::Broadcast),
            Ok(request) if is_broadcast && request.direction == Direction::Write => {
                Err(DropReason::Broadcast)
            }
            Ok(request) if request.direction == Direction::Write && !self.config.takes_uploads => {
                let refusal = Refusal::read_only();
                self.answer(tid, refusal.clone(), now);
                self.act(Action::Report(Event::Refused {
                    id: None,
                    peer: tid.peer,
                    direction: request.direction,
                    name: Name::new(request.name),
                    refusal,
                }));
                Ok(())
            }
            Ok(request) => {
                let arrival = Arrival {
                    tid,
                    digest: self.keyed(bytes),
                    asked: Asked::from(&request),
                    ignored: wire::options_passed_over(bytes).map(|text| Name::new(&text)),
                    at: now,
                    may_be_copy: false,
                    broadcast: is_broadcast,
                };
                self.arrival(arrival, now, lanes)
            }
            Err(malformed) => {
                if malformed.is_request() {
                    let refusal = Refusal::new(ErrorCode::ILLEGAL_OPERATION, malformed.to_string());
                    self.answer(tid, refusal, now);
                }
                Err(DropReason::Malformed(malformed))
            }
        }
    }

    /// How a client is turned away that may ask for none of these; `None` where it may ask.
    fn denied(&self, tid: Tid, directions: &[Direction]) -> Option<Access> {
        let Tid { peer, local } = tid;
        let mut denied = None;
        for direction in directions.iter().copied() {
            match self.config.access.decide(&AccessRequest {
                peer,
                local,
                direction,
            }) {
                Access::Allow => return None,
                access => denied = Some(access),
            }
        }
        denied
    }

    /// The answer to what starts nothing, where not too many were given: its source may be forged.
    fn answer(&mut self, tid: Tid, refusal: Refusal, now: Instant) {
        if self.errors.take(now) {
            self.act(Action::Reply(tid, refusal));
        }
    }

    /// Tells that a datagram was dropped.
    pub(super) fn dropped(&mut self, peer: SocketAddr, reason: DropReason) {
        self.act(Action::Report(Event::Dropped { peer, reason }));
        let (what, why) = match reason {
            DropReason::Full => ("requests dropped", "too many transfers (max_transfers)"),
            DropReason::HalfOpenFull => ("requests dropped", "too many peers that never answer"),
            DropReason::ClientFull => (
                "requests dropped",
                "a client has too many (max_transfers_per_client)",
            ),
            DropReason::ClientHalfOpenFull => (
                "requests dropped",
                "a client never answers (max_half_open_per_client)",
            ),
            DropReason::NetworkHalfOpenFull => (
                "requests dropped",
                "a network never answers (max_half_open_per_network)",
            ),
            DropReason::Malformed(_) | DropReason::NotARequest => {
                ("datagrams ignored", "not requests")
            }
            DropReason::Denied => {
                let why = format!("access rules (last client {})", peer.ip());
                return self.warn("requests denied", why);
            }
            _ => return,
        };
        self.warn(what, why);
    }

    fn arrival(
        &mut self,
        arrival: Arrival,
        now: Instant,
        lanes: &mut impl LaneAccess,
    ) -> Result<(), DropReason> {
        match self.desk.current(&arrival.tid, arrival.digest) {
            Some(id) => self.again(id, arrival, now, lanes),
            None => self.new_transfer(arrival, lanes),
        }
    }

    fn new_transfer(
        &mut self,
        arrival: Arrival,
        lanes: &mut impl LaneAccess,
    ) -> Result<(), DropReason> {
        let Arrival {
            tid, digest, at, ..
        } = arrival;
        for _ in 0..ROOM_TRIES {
            let random = self.random();
            match self.desk.admit(tid, digest, random, at) {
                Verdict::Admit(id, port) => {
                    self.admit(id, port, arrival);
                    self.give_up_older(&tid, at, lanes);
                    return Ok(());
                }
                Verdict::Drop(reason) => return Err(reason),
                Verdict::MakeRoom(id) => _ = self.make_room(id, at, lanes),
            }
        }
        Err(DropReason::Full)
    }

    /// Ends half-open transfers of this TID whose client asks for something else by now, unless an
    /// answer lies unread.
    fn give_up_older(&mut self, tid: &Tid, now: Instant, lanes: &mut impl LaneAccess) {
        for id in self.desk.given_up(tid) {
            let lane = self.slots.get(&id).and_then(|slot| slot.lane);
            if !lane.is_some_and(|lane| lanes.has_unread(lane, id)) {
                self.end(id, TransferError::Superseded, now, lanes);
            }
        }
    }

    /// A number that no client can foresee.
    fn random(&mut self) -> u64 {
        self.drawn += 1;
        self.keyed(&self.drawn.to_ne_bytes())
    }

    fn keyed(&self, bytes: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.secret, bytes).hash(&mut hasher);
        hasher.finish()
    }

    fn admit(&mut self, id: TransferId, port: Option<u16>, arrival: Arrival) {
        let Arrival { tid, at, asked, .. } = arrival;
        self.act(Action::Report(Event::Request {
            id,
            peer: tid.peer,
            local: tid.local,
            direction: asked.direction,
            name: asked.name.clone(),
            mode: asked.mode,
            options: asked.options.clone(),
            ignored: arrival.ignored,
        }));
        let mut opening = AdmittedRequest::new(id, tid, asked, at);
        opening.tense = self.desk.is_tense(&tid);
        opening.may_be_copy = arrival.may_be_copy;
        opening.broadcast = arrival.broadcast;
        let opening = Arc::new(opening);
        let slot = Slot {
            opening: Some(Arc::clone(&opening)),
            lane: None,
            timer: None,
            again: None,
            fail_later: None,
        };
        self.slots.insert(id, slot);
        self.look_at(id, at + STUCK_AFTER);
        match port {
            Some(port) => self.act(Action::Open(opening, port)),
            None if self.next_retry <= at => self.next_retry = at + SOCKET_RETRY,
            None => {} // others wait, too
        }
    }

    /// Requests that have waited for a port and have one now go to the pool.
    fn open_granted(&mut self, now: Instant) {
        while let Some((id, port)) = self.desk.granted(now) {
            if let Some(opening) = self.slots.get(&id).and_then(|slot| slot.opening.clone()) {
                self.act(Action::Open(opening, port));
            }
        }
    }

    /// The same request while its transfer lives. What it means depends on what the peer has said
    /// by now, and that may lie unread in the transfer's socket or be in a worker's hands: then the
    /// question waits until the transfer is back.
    fn again(
        &mut self,
        id: TransferId,
        mut arrival: Arrival,
        now: Instant,
        lanes: &mut impl LaneAccess,
    ) -> Result<(), DropReason> {
        let Some(slot) = self.slots.get(&id) else {
            return Err(DropReason::Duplicate);
        };
        let lane = slot.lane;
        let same = lane.map_or(Same::Busy, |lane| {
            Self::same(lane, id, arrival.at, now, lanes)
        });
        match same {
            Same::Busy => {
                let slot = self.slots.get_mut(&id);
                let earlier = slot.and_then(|slot| slot.again.replace(arrival));
                if let Some(lane) = lane {
                    lanes.recall(lane, id);
                }
                earlier.map_or(Ok(()), |_| Err(DropReason::Duplicate))
            }
            Same::Late => Err(DropReason::Duplicate),
            Same::Repeated => Ok(()),
            Same::New { .. } if self.stopping.is_some() => Err(DropReason::Stopping),
            Same::New { is_complete } => {
                arrival.may_be_copy = is_complete;
                self.new_transfer(arrival, lanes)
            }
        }
    }

    fn same(
        lane: usize,
        id: TransferId,
        at: Instant,
        now: Instant,
        lanes: &mut impl LaneAccess,
    ) -> Same {
        let Some(facts) = lanes.facts(lane, id, now) else {
            return Same::Busy;
        };
        if lanes.has_unread(lane, id) {
            Same::Busy
        } else if at < facts.answered {
            Same::Late // what went out since then is the answer
        } else if !facts.is_complete && !facts.is_established {
            match lanes.repeat_request(lane, id, now) {
                None => Same::Busy,
                Some(true) => Same::Repeated,
                Some(false) => Same::Late,
            }
        } else if !facts.is_complete && !facts.is_silent {
            // Most likely a late copy; but a peer that says nothing else may have started again.
            Same::Late
        } else {
            let is_complete = facts.is_complete;
            Same::New { is_complete }
        }
    }

    // ---- time -------------------------------------------------------------------------------

    /// Time has passed.
    pub(super) fn timeout(&mut self, now: Instant, lanes: &mut impl LaneAccess) {
        while let Some(&Reverse((due, id))) = self.timers.peek() {
            if due > now {
                break;
            }
            self.timers.pop();
            if let Some(slot) = self.slots.get_mut(&id) {
                if slot.timer == Some(due) {
                    slot.timer = None;
                }
                self.unanswered(id, now, lanes);
            }
        }
        if self.lacks_sockets() && now >= self.next_retry {
            self.next_retry = now + SOCKET_RETRY;
            for _ in 0..RETRIES_AT_ONCE {
                self.retry_without_socket();
            }
            // Transfers that had to stay may go by now.
            for scope in self.desk.short_of_ports() {
                self.free_a_port(scope, now, lanes);
            }
        }
        self.open_granted(now);
    }

    /// A request is with the store, or on its way to it, for a while. A call that is slow loses its
    /// store slot; one that takes too long is abandoned, and the peer gets an ERROR.
    fn unanswered(&mut self, id: TransferId, now: Instant, lanes: &mut impl LaneAccess) {
        let Some(opening) = self.slots.get(&id).and_then(|slot| slot.opening.clone()) else {
            return;
        };
        let deadline = self.config.store_deadline;
        // A call that is past its deadline, too, gives its slot back first.
        if let StoreCall::Running { since, slow: false } = opening.call()
            && now >= since + STUCK_AFTER
            && lanes.may_give_slot_away()
            && opening.is_slow()
        {
            lanes.give_slot_away();
        }
        let (next, is_asked) = match opening.call() {
            StoreCall::Done | StoreCall::Abandoned { .. } => return,
            StoreCall::Queued if self.desk.waits(id) => {
                return self.portless(&opening, now, lanes);
            }
            StoreCall::Queued if now >= opening.arrived + deadline && lanes.is_hopeless() => {
                if !opening.give_up() {
                    return self.look_at(id, now + STUCK_AFTER);
                }
                (None, false)
            }
            StoreCall::Running { since, .. } if now >= since + deadline => {
                if !opening.abandon() {
                    return; // it was answered just now
                }
                (None, true)
            }
            StoreCall::Running { since, slow: true } => (Some(since + deadline), true),
            StoreCall::Running { since, .. } if now < since + STUCK_AFTER => {
                (Some(since + STUCK_AFTER), true)
            }
            StoreCall::Queued | StoreCall::Running { .. } => (Some(now + STUCK_AFTER), false),
        };
        if let Some(next) = next {
            return self.look_at(id, next);
        }
        let why = "the store does not answer";
        self.warn("requests refused", why);
        // A worker that is inside the store has a socket for it.
        self.refuse(&opening, why.into(), is_asked, now, lanes);
    }

    fn look_at(&mut self, id: TransferId, due: Instant) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.timer = Some(due);
            self.timers.push(Reverse((due, id)));
        }
    }

    // ---- room -------------------------------------------------------------------------------

    /// This transfer goes, if it may: it is parked, and its peer has been silent for too long; or
    /// no worker has got to its request. False where it stays.
    fn make_room(&mut self, id: TransferId, now: Instant, lanes: &mut impl LaneAccess) -> bool {
        let Some(slot) = self.slots.get(&id) else {
            return false;
        };
        let lane = slot.lane;
        let facts = lane.and_then(|lane| Some((lane, lanes.facts(lane, id, now)?)));
        let Some((lane, facts)) = facts else {
            if self.desk.is_complete(id) {
                lanes.abandon(id);
                self.over_but_open(id, now, true, now, lanes);
                return true;
            }
            if let Some(opening) = slot.opening.clone()
                && opening.give_up()
            {
                self.forget(&opening, TransferError::Evicted, now, lanes);
                return true;
            }
            self.desk.spare(id, now + HALF_OPEN_CHANCE);
            return false;
        };
        let (moved, windows) = facts.moved;
        let until = moved + patience(windows);
        let spared_until = if facts.is_complete {
            None
        } else if facts.is_established && until > now {
            Some(until)
        } else if !facts.is_established && now < facts.answered + HALF_OPEN_MIN_AGE {
            // The request may have waited for a worker.
            Some(facts.answered + HALF_OPEN_CHANCE)
        } else {
            // Its answer may lie unread.
            lanes.has_unread(lane, id).then_some(now + HALF_OPEN_CHANCE)
        };
        if let Some(until) = spared_until {
            self.desk.spare(id, until);
            return false;
        }
        self.end_parked(id, TransferError::Evicted, now, lanes)
    }

    /// A request has waited for a port for a while. Where a port is about to come back the request
    /// goes on waiting, but not for long.
    fn portless(
        &mut self,
        opening: &Arc<AdmittedRequest>,
        now: Instant,
        lanes: &mut impl LaneAccess,
    ) {
        let patience = match self.free_a_port(opening.tid.address(), now, lanes) {
            true => 2 * PORT_WAIT,
            false => PORT_WAIT,
        };
        if now < opening.arrived + patience {
            self.look_at(opening.id, opening.arrived + patience);
        } else if opening.give_up() {
            self.refuse_without_socket(opening, "no port is free".into(), now, lanes);
        }
    }

    /// Where more requests wait for a port of an address than ports are about to come back, a
    /// transfer goes. False where none can.
    fn free_a_port(&mut self, scope: Scope, now: Instant, lanes: &mut impl LaneAccess) -> bool {
        !self.desk.is_short_of_ports(scope) || self.one_goes(scope, now, lanes)
    }

    /// A transfer goes for the sake of its socket. False where none can.
    fn free_a_socket(&mut self, scope: Scope, now: Instant, lanes: &mut impl LaneAccess) -> bool {
        // One that is being closed for each that waits is enough.
        self.closed_soon > self.without_socket.len() || self.one_goes(scope, now, lanes)
    }

    fn one_goes(&mut self, scope: Scope, now: Instant, lanes: &mut impl LaneAccess) -> bool {
        for _ in 0..ROOM_TRIES {
            match self.desk.makes_room(scope, now) {
                None => return false,
                // A request that no worker has got to has a port, and nothing else that could be
                // given up.
                Some(id) if scope == Scope::All && !self.can_close(id, now, lanes) => {
                    self.desk.spare(id, now + HALF_OPEN_CHANCE);
                }
                Some(id) if self.make_room(id, now, lanes) => return true,
                Some(_) => {}
            }
        }
        false
    }

    /// True where the socket of this transfer can be closed now, or soon.
    fn can_close(&self, id: TransferId, now: Instant, lanes: &impl LaneAccess) -> bool {
        let Some(slot) = self.slots.get(&id) else {
            return false;
        };
        let is_parked = |lane| lanes.facts(lane, id, now).is_some();
        self.desk.is_complete(id) || slot.lane.is_some_and(is_parked)
    }

    /// There was no socket for a request. Where another program holds its port, the request gets
    /// another port. Where no descriptor, memory or port was free, another transfer gives way, and
    /// the request waits a little, then is refused.
    fn wait_for_socket(
        &mut self,
        opening: Arc<AdmittedRequest>,
        error: &io::Error,
        now: Instant,
        lanes: &mut impl LaneAccess,
    ) {
        if !self.slots.contains_key(&opening.id) {
            return; // it was given up
        }
        if !is_scarce(error) {
            // No route leads back, or a rule forbids it: the source may be forged, and waiting
            // would change nothing.
            let why = format!("no way back to the client: {}", plain(error));
            self.warn("requests dropped", why);
            return self.forget(&opening, TransferError::NoRoute, now, lanes);
        }
        let is_held = error.kind() == io::ErrorKind::AddrInUse;
        if is_held && self.desk.has_chosen_port(opening.id) {
            let random = self.random();
            if let Some(port) = self.desk.is_taken(opening.id, random, now) {
                self.act(Action::Open(opening, port));
            }
            return; // or it waits in line
        }
        let scope = match is_held {
            true => opening.tid.address(),
            false => Scope::All,
        };
        let patience = match self.free_a_socket(scope, now, lanes) {
            true => 2 * PORT_WAIT,
            false => PORT_WAIT,
        };
        if now < opening.arrived + patience && self.stopping.is_none() {
            if !self.lacks_sockets() {
                self.next_retry = now + SOCKET_RETRY;
            }
            self.without_socket.push_back(opening);
            return;
        }
        self.refuse_without_socket(&opening, plain(error), now, lanes);
    }

    fn refuse_without_socket(
        &mut self,
        opening: &AdmittedRequest,
        cause: String,
        now: Instant,
        lanes: &mut impl LaneAccess,
    ) {
        self.warn("requests refused", format!("no socket for them: {cause}"));
        self.refuse(opening, cause, false, now, lanes);
    }

    /// True while requests wait for sockets or ports.
    fn lacks_sockets(&self) -> bool {
        !self.without_socket.is_empty() || self.desk.has_waiting()
    }

    fn retry_without_socket(&mut self) {
        while let Some(opening) = self.without_socket.pop_front() {
            if self.slots.contains_key(&opening.id) {
                let port = self.desk.port(opening.id).unwrap_or(0);
                return self.act(Action::Open(opening, port));
            }
        }
    }

    // ---- transfers --------------------------------------------------------------------------

    /// A worker tells what became of a request or of a transfer.
    pub(super) fn report(&mut self, report: Report, now: Instant, lanes: &mut impl LaneAccess) {
        match report {
            Report::Opened(id, lane) => self.opened(id, lane, lanes),
            Report::Established(id) => self.established(id, now, lanes),
            Report::Complete(id) => self.complete(id, now, lanes),
            Report::Parked(id) => self.back(id, now, lanes),
            Report::NoSocket(opening, error) => self.wait_for_socket(opening, &error, now, lanes),
            Report::Ended {
                id,
                is_proven,
                answered,
            } => {
                if !self.slots.contains_key(&id) {
                    return self.closed(id, now); // it has made room
                }
                if is_proven {
                    self.established(id, now, lanes);
                }
                self.over(id, answered, now, lanes);
            }
            Report::Closed(id) => self.closed(id, now),
            Report::Left(_) => {}
        }
    }

    /// The socket of a transfer that has ended here is closed.
    fn closed(&mut self, id: TransferId, now: Instant) {
        if let Some(lease) = self.closing.remove(&id) {
            self.closed_soon -= usize::from(lease.is_closing());
            self.socket_closed(Some(lease), now);
        }
    }

    /// An upload is complete: from now on it makes room for others, even before its turn is over.
    fn complete(&mut self, id: TransferId, now: Instant, lanes: &mut impl LaneAccess) {
        self.established(id, now, lanes);
        self.desk.finished(id, now);
        // Requests that wait for a port or a socket can have its own.
        self.next_retry = self.next_retry.min(now);
    }

    /// A request has become a transfer of this lane.
    fn opened(&mut self, id: TransferId, lane: usize, lanes: &mut impl LaneAccess) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        slot.opening = None;
        self.transfers += usize::from(slot.lane.replace(lane).is_none());
        if slot.again.is_some() || slot.fail_later.is_some() {
            lanes.recall(lane, id);
        }
    }

    /// A transfer that was recalled is parked.
    fn back(&mut self, id: TransferId, now: Instant, lanes: &mut impl LaneAccess) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        if let Some(failure) = slot.fail_later.take() {
            return self.end(id, failure, now, lanes);
        }
        if let Some(arrival) = slot.again.take() {
            let peer = arrival.tid.peer;
            if let Err(reason) = self.again(id, arrival, now, lanes) {
                self.dropped(peer, reason);
            }
        }
    }

    /// The peer has answered this transfer: older ones of its TID are over, without a packet.
    fn established(&mut self, id: TransferId, now: Instant, lanes: &mut impl LaneAccess) {
        for older in self.desk.proven(id, now) {
            self.end(older, TransferError::Superseded, now, lanes);
        }
    }

    /// Ends a transfer because the embedder wants it; see [`TransferError::Cancelled`].
    pub(super) fn cancel(&mut self, id: TransferId, now: Instant, lanes: &mut impl LaneAccess) {
        self.end(id, TransferError::Cancelled, now, lanes);
    }

    /// Ends a transfer, at once where it is parked, else as soon as it comes back.
    fn end(
        &mut self,
        id: TransferId,
        failure: TransferError,
        now: Instant,
        lanes: &mut impl LaneAccess,
    ) {
        if !self.end_parked(id, failure.clone(), now, lanes)
            && let Some(slot) = self.slots.get_mut(&id)
        {
            slot.fail_later.get_or_insert(failure);
        }
    }

    /// Ends a transfer that is parked. False for one that is in its turn: it is recalled.
    fn end_parked(
        &mut self,
        id: TransferId,
        failure: TransferError,
        now: Instant,
        lanes: &mut impl LaneAccess,
    ) -> bool {
        let lane = self.slots.get(&id).and_then(|slot| slot.lane);
        let answered = lane.and_then(|lane| lanes.end(lane, id, failure));
        if let Some(answered) = answered {
            self.over_but_open(id, answered, true, now, lanes);
        }
        answered.is_some()
    }

    /// A transfer has ended, and its socket is closed.
    fn over(
        &mut self,
        id: TransferId,
        answered: Instant,
        now: Instant,
        lanes: &mut impl LaneAccess,
    ) {
        let lease = self.desk.remove(id);
        self.socket_closed(lease, now);
        self.ended(id, answered, now, lanes);
    }

    /// A transfer has ended. A worker closes its socket, and [reports](Report::Closed) that: soon,
    /// or when a call returns that may never return.
    fn over_but_open(
        &mut self,
        id: TransferId,
        answered: Instant,
        soon: bool,
        now: Instant,
        lanes: &mut impl LaneAccess,
    ) {
        if let Some(mut lease) = self.desk.remove(id) {
            if soon {
                self.desk.is_closing(&mut lease);
                self.closed_soon += 1;
            }
            self.closing.insert(id, lease);
        }
        self.ended(id, answered, now, lanes);
    }

    /// A socket was closed: requests that have waited for a port, or for a socket at all, get
    /// theirs.
    fn socket_closed(&mut self, lease: Option<Lease>, now: Instant) {
        if let Some(lease) = lease {
            self.desk.give_back(lease);
            self.open_granted(now);
        }
        self.retry_without_socket();
    }

    /// What its peer asked for again after the last thing it was sent is a new request.
    fn ended(
        &mut self,
        id: TransferId,
        answered: Instant,
        now: Instant,
        lanes: &mut impl LaneAccess,
    ) {
        let slot = self.slots.remove(&id);
        let had_lane = slot.as_ref().is_some_and(|slot| slot.lane.is_some());
        self.transfers -= usize::from(had_lane);
        // What requests that were answered long ago leave behind must not outgrow the table.
        if self.timers.len() > TIMERS_PER_SLOT * self.slots.len() + TIMERS_KEPT {
            let slots = &self.slots;
            self.timers.retain(|Reverse((due, id))| {
                let slot = slots.get(id);
                slot.is_some_and(|slot| slot.timer == Some(*due))
            });
        }
        let Some(arrival) = slot.and_then(|slot| slot.again) else {
            return;
        };
        let peer = arrival.tid.peer;
        let result = if arrival.at < answered {
            Err(DropReason::Duplicate)
        } else if self.stopping.is_some() {
            Err(DropReason::Stopping)
        } else {
            self.arrival(arrival, now, lanes)
        };
        if let Err(reason) = result {
            self.dropped(peer, reason);
        }
    }

    /// Refuses a request that never became a transfer, from the listening port. A worker may have a
    /// socket for it all the same, and closes it some time.
    fn refuse(
        &mut self,
        opening: &AdmittedRequest,
        detail: String,
        has_socket: bool,
        now: Instant,
        lanes: &mut impl LaneAccess,
    ) {
        let text = match self.stopping.as_ref().is_some_and(|it| it.forced) {
            true => crate::transfer::STOPPING,
            false => "server is busy",
        };
        if !self.slots.contains_key(&opening.id) {
            return; // it was given up while it waited
        }
        let refusal = Refusal::new(ErrorCode::NOT_DEFINED, text).because(detail);
        if !opening.broadcast {
            self.act(Action::ReplyWithin(opening.tid, refusal.clone()));
        }
        self.act(Action::Report(Event::Refused {
            id: Some(opening.id),
            peer: opening.tid.peer,
            direction: opening.asked.direction,
            name: opening.asked.name.clone(),
            refusal,
        }));
        match has_socket {
            true => self.over_but_open(opening.id, now, false, now, lanes),
            false => self.over(opening.id, now, now, lanes),
        }
    }

    /// Ends a request that never became a transfer, without a packet.
    fn forget(
        &mut self,
        opening: &AdmittedRequest,
        failure: TransferError,
        now: Instant,
        lanes: &mut impl LaneAccess,
    ) {
        let event = Event::Failed(opening.summary(now), failure);
        self.act(Action::Report(event));
        self.over(opening.id, now, now, lanes);
    }

    // ---- the end ----------------------------------------------------------------------------

    /// True while a request may have to be refused from the listening port: it has no socket.
    pub(super) fn has_unanswered(&self) -> bool {
        let mut openings = self.slots.values().filter_map(|slot| slot.opening.as_ref());
        let is_unanswered = |call| matches!(call, StoreCall::Queued | StoreCall::Running { .. });
        openings.any(|opening| is_unanswered(opening.call()))
    }

    /// The server is to stop: datagrams are dropped from now on.
    pub(super) fn stop(&mut self, stop: Stop, now: Instant) {
        let deadline = match stop {
            Stop::Now => now,
            // What is beyond the clock's end is as good as for ever.
            Stop::Drain(patience) => now.checked_add(patience).unwrap_or(now + FOR_EVER),
        };
        match &mut self.stopping {
            Some(stopping) if stopping.forced => {}
            // A second word can only hasten the end.
            Some(stopping) => stopping.deadline = stopping.deadline.min(deadline),
            None => {
                self.stopping = Some(Stopping {
                    deadline,
                    forced: false,
                });
            }
        }
    }

    /// Ends what is to end by now. True once the server may go.
    pub(super) fn is_finished(&mut self, now: Instant, lanes: &mut impl LaneAccess) -> bool {
        let Some(stopping) = &mut self.stopping else {
            return false;
        };
        // What only waits to repeat its last ACK, or for a peer that may not be there, does not
        // hold up the end.
        let is_done = |(id, slot): (&TransferId, &Slot)| {
            let facts = slot.lane.and_then(|lane| lanes.facts(lane, *id, now));
            facts.is_some_and(|it| it.is_complete || (!it.is_established && it.is_silent))
        };
        let is_drained = self.slots.iter().all(is_done);
        if !is_drained {
            if now < stopping.deadline {
                return false;
            }
            if stopping.forced {
                return true; // what is left is inside a store that does not return
            }
        }
        let deadline = now + LAST_WAIT;
        stopping.deadline = if stopping.forced {
            stopping.deadline
        } else {
            deadline
        };
        stopping.forced = true;
        // What workers hold comes back by itself.
        lanes.end_turns();
        let mut ids: Vec<_> = self.slots.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let opening = self.slots.get(&id).and_then(|slot| slot.opening.clone());
            match opening.filter(|opening| opening.give_up()) {
                Some(opening) => {
                    let why = "the server was stopped";
                    self.refuse(&opening, why.into(), false, now, lanes);
                }
                None => _ = self.end_parked(id, TransferError::Stopped, now, lanes),
            }
        }
        self.without_socket.clear();
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests;
