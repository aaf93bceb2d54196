//! One rule at a time: the test says what the lanes know.

use super::super::*;
use crate::limits::HALF_OPEN_CHANCE;
use crate::server::access::AccessRules;
use crate::transfer::now;
use std::collections::BTreeMap;

const QUOTA: Quota = Quota {
    transfers: 100,
    per_client: None,
    half_open: 1,
    half_open_per_client: None,
    half_open_per_network: None,
};
const DEADLINE: Duration = Duration::from_secs(30);

/// What the lanes say, and what they were told.
#[derive(Default)]
struct Lanes {
    parked: BTreeMap<u64, (Facts, bool)>,
    ended: Vec<(u64, TransferError)>,
    recalled: Vec<u64>,
    abandoned: Vec<u64>,
    slots_given_away: usize,
}

impl LaneAccess for Lanes {
    fn facts(&self, _: usize, id: TransferId, _: Instant) -> Option<Facts> {
        self.parked.get(&id.0).map(|(facts, _)| *facts)
    }

    fn has_unread(&self, _: usize, id: TransferId) -> bool {
        self.parked.get(&id.0).is_some_and(|(_, unread)| *unread)
    }

    fn repeat_request(&mut self, _: usize, id: TransferId, _: Instant) -> Option<bool> {
        self.parked.get(&id.0).map(|_| true)
    }

    fn recall(&mut self, _: usize, id: TransferId) {
        self.recalled.push(id.0);
    }

    fn end(&mut self, _: usize, id: TransferId, failure: TransferError) -> Option<Instant> {
        let Some((facts, _)) = self.parked.remove(&id.0) else {
            self.recalled.push(id.0);
            return None;
        };
        self.ended.push((id.0, failure));
        Some(facts.answered)
    }

    fn abandon(&mut self, id: TransferId) {
        self.abandoned.push(id.0);
    }

    fn end_turns(&mut self) {}

    fn may_give_slot_away(&self) -> bool {
        true
    }

    fn give_slot_away(&mut self) {
        self.slots_given_away += 1;
    }

    fn is_hopeless(&self) -> bool {
        true
    }
}

struct Rig {
    endpoint: Endpoint,
    lanes: Lanes,
    start: Instant,
    /// What was said, newest last.
    actions: Vec<Action>,
}

/// One client address for each.
fn peer(number: u16) -> Tid {
    let [high, low] = number.to_be_bytes();
    Tid {
        peer: ([127, 1, high, low], 2000).into(),
        local: ([127, 0, 0, 1], 69).into(),
    }
}

impl Rig {
    fn new(quota: Quota, supply: Supply) -> Self {
        let start = now();
        let config = Config {
            quota,
            supply,
            access: Gate::default(),
            takes_uploads: false,
            answer_broadcast: true,
            store_deadline: DEADLINE,
        };
        Self {
            endpoint: Endpoint::new(config, 7, start),
            lanes: Lanes::default(),
            start,
            actions: Vec::new(),
        }
    }

    fn ask(&mut self, tid: Tid, at: Instant) -> Result<(), DropReason> {
        self.ask_with(tid, at, None)
    }

    fn ask_with(
        &mut self,
        tid: Tid,
        at: Instant,
        broadcast: Option<Answerable>,
    ) -> Result<(), DropReason> {
        let datagram = Datagram {
            tid,
            bytes: b"\0\x01file\0octet\0blksize\x001000\0",
            is_cut: false,
            broadcast,
        };
        let before = self.actions.len();
        if let Err(reason) = self.endpoint.datagram(datagram, at, &mut self.lanes) {
            self.endpoint.dropped(tid.peer, reason);
        }
        self.act();
        let dropped = self.actions[before..]
            .iter()
            .find_map(|action| match action {
                Action::Report(Event::Dropped { reason, .. }) => Some(*reason),
                _ => None,
            });
        dropped.map_or(Ok(()), Err)
    }

    fn act(&mut self) {
        while let Some(action) = self.endpoint.poll_action() {
            self.actions.push(action);
        }
    }

    fn report(&mut self, report: Report, at: Instant) {
        self.endpoint.report(report, at, &mut self.lanes);
        self.act();
    }

    fn timeout(&mut self, at: Instant) {
        self.endpoint.timeout(at, &mut self.lanes);
        self.act();
    }

    /// The newest request that went to the pool, and its port.
    fn opened(&self) -> (Arc<AdmittedRequest>, u16) {
        let opened = self.actions.iter().rev().find_map(|action| match action {
            Action::Open(opening, port) => Some((Arc::clone(opening), *port)),
            _ => None,
        });
        opened.expect("a request in the pool")
    }

    /// A worker makes a transfer of the newest request, and parks it.
    fn park(&mut self, at: Instant) -> u64 {
        let (opening, _) = self.opened();
        let id = opening.id;
        assert!(opening.ask(at) && opening.answered().0);
        let facts = Facts {
            is_complete: false,
            is_established: false,
            is_silent: true,
            answered: at,
            moved: (at, 0),
        };
        self.lanes.parked.insert(id.0, (facts, false));
        self.report(Report::Opened(id, 0), at);
        id.0
    }

    /// An established transfer ends in its turn.
    fn ended(&mut self, id: u64, at: Instant) {
        let ended = Report::Ended {
            id: TransferId(id),
            is_proven: true,
            answered: self.start,
        };
        self.report(ended, at);
    }

    fn establish(&mut self, id: u64, at: Instant) {
        let (facts, _) = self.lanes.parked.get_mut(&id).expect("parked");
        facts.is_established = true;
        self.report(Report::Established(TransferId(id)), at);
    }
}

#[test]
fn a_transfer_whose_answer_lies_unread_makes_no_room() {
    let mut rig = Rig::new(QUOTA, Supply::System(1000));
    let start = rig.start;
    assert_eq!(rig.ask(peer(1), start), Ok(()));
    let first = rig.park(start);
    rig.lanes.parked.get_mut(&first).expect("parked").1 = true;
    let later = start + HALF_OPEN_CHANCE;
    let full = Err(DropReason::HalfOpenFull);
    assert_eq!(rig.ask(peer(2), later), full);
    // Once it was read there is room.
    rig.establish(first, later);
    assert_eq!(rig.ask(peer(2), later), Ok(()));
    let second = rig.park(later);
    // A peer that has said nothing does make room.
    assert_eq!(rig.ask(peer(3), later), full, "it has its chance");
    let later = later + HALF_OPEN_CHANCE;
    assert_eq!(rig.ask(peer(3), later), Ok(()));
    assert!(matches!(rig.lanes.ended[..], [(id, TransferError::Evicted)] if id == second));
}

/// A denied client costs no place, no port, no call of the store, and by default no packet.
#[test]
fn a_denied_request_takes_nothing_and_gets_what_the_rules_say() {
    let read = b"\0\x01file\0octet\0".as_slice();
    let write = b"\0\x02file\0octet\0".as_slice();
    let (malformed, garbage) = (b"\0\x01file\0octet".as_slice(), b"garbage".as_slice());
    for (rules, refuses, bytes, broadcast, is_denied, is_told) in [
        ("127.1.0.0/16", false, read, None, true, false),
        ("127.1.0.0/16", true, read, None, true, true),
        (
            "127.1.0.0/16",
            true,
            read,
            Some(Answerable::Yes),
            true,
            false,
        ),
        // The server takes no uploads, and does not say so to one who may not ask.
        ("127.1.0.0/16", false, write, None, true, false),
        ("127.1.0.0/16,write", false, read, None, false, false),
        ("127.1.0.0/16,write", true, write, None, true, true),
        ("127.1.0.0/16", false, malformed, None, true, false),
        ("127.1.0.0/16", true, malformed, None, true, true),
        ("127.1.0.0/16", true, garbage, None, true, false),
        // One who may ask for something learns what was wrong.
        ("127.1.0.0/16,write", false, malformed, None, false, true),
        ("127.2.0.0/16", false, read, None, false, false),
    ] {
        let what = format!("{rules} {refuses} {}", bytes.escape_ascii());
        let mut rig = Rig::new(QUOTA, Supply::System(1000));
        let rules = AccessRules::default().deny(rules).expect("rules");
        let rules = rules.refuse(refuses);
        rig.endpoint.config.access = Gate::new(move |request| rules.decide(request));
        let datagram = Datagram {
            tid: peer(1),
            bytes,
            is_cut: false,
            broadcast,
        };
        let result = rig.endpoint.datagram(datagram, rig.start, &mut rig.lanes);
        assert_eq!(result == Err(DropReason::Denied), is_denied, "{what}");
        if let Err(reason) = result {
            rig.endpoint.dropped(peer(1).peer, reason);
        }
        rig.act();
        let is_reply = |action: &Action| matches!(action, Action::Reply(..));
        assert_eq!(rig.actions.iter().any(is_reply), is_told, "{what}");
        if is_denied {
            assert!(rig.endpoint.is_empty(), "{what}: it has taken a place");
            let is_quiet = |action: &Action| {
                is_reply(action)
                    || matches!(action, Action::Warn("requests denied", _))
                    || matches!(action, Action::Report(Event::Dropped { reason, .. }) if *reason == DropReason::Denied)
            };
            assert!(
                rig.actions.iter().all(is_quiet),
                "{what}: {:?}",
                rig.actions
            );
            assert_eq!(rig.actions.len(), 2 + usize::from(is_told), "{what}");
        }
    }
}

/// Another server may have the file that a broadcast asks for.
#[test]
fn a_broadcast_is_not_told_that_the_server_is_busy() {
    for (broadcast, told) in [(Some(Answerable::Yes), false), (None, true)] {
        let mut rig = Rig::new(QUOTA, Supply::System(1000));
        assert_eq!(rig.ask_with(peer(1), rig.start, broadcast), Ok(()));
        rig.timeout(rig.start + DEADLINE);
        let said = |action: &Action| matches!(action, Action::ReplyWithin(..));
        assert_eq!(rig.actions.iter().any(said), told);
        let refused = |action: &Action| matches!(action, Action::Report(Event::Refused { .. }));
        assert!(rig.actions.iter().any(refused));
        assert!(rig.endpoint.is_empty());
    }
}

/// A worker is inside the store and has a socket at that port.
#[test]
fn the_port_of_a_request_that_the_store_never_answered_comes_back_with_the_worker() {
    let mut rig = Rig::new(QUOTA, Supply::System(1000));
    assert_eq!(rig.ask(peer(1), rig.start), Ok(()));
    let (opening, _) = rig.opened();
    assert!(opening.ask(rig.start));
    rig.timeout(rig.start + STUCK_AFTER);
    assert_eq!(rig.lanes.slots_given_away, 1);
    rig.timeout(rig.start + DEADLINE);
    assert_eq!(rig.lanes.slots_given_away, 1, "it has one");
    assert_eq!(opening.call(), StoreCall::Abandoned { slow: true });
    assert_eq!(rig.endpoint.len(), 0);
    assert!(!rig.endpoint.is_empty(), "its port is in use");
    rig.report(Report::Closed(opening.id), rig.start + DEADLINE);
    assert!(rig.endpoint.is_empty());
}

/// Transfers that could not make room when the request came may go a little later.
#[test]
fn one_transfer_goes_for_each_request_that_waits_for_a_port() {
    let quota = Quota {
        half_open: 100,
        ..QUOTA
    };
    let mut rig = Rig::new(quota, Supply::System(5));
    let start = rig.start;
    for number in 1..=5 {
        assert_eq!(rig.ask(peer(number), start), Ok(()));
        let id = rig.park(start);
        if number <= 3 {
            rig.establish(id, start);
        }
    }
    let begun = start + HALF_OPEN_CHANCE - SOCKET_RETRY;
    assert_eq!(rig.ask(peer(6), begun), Ok(()));
    assert!(rig.endpoint.desk.waits(TransferId(6)));
    assert_eq!(rig.endpoint.len(), 6, "none may go yet");
    for time in [
        start + HALF_OPEN_CHANCE,
        start + 2 * HALF_OPEN_CHANCE - SOCKET_RETRY,
    ] {
        rig.timeout(time);
        assert_eq!(rig.endpoint.len(), 5, "one for one");
        assert!(rig.endpoint.desk.waits(TransferId(6)), "not closed yet");
    }
    let (gone, _) = rig.lanes.ended[0].clone();
    rig.report(
        Report::Closed(TransferId(gone)),
        start + 2 * HALF_OPEN_CHANCE,
    );
    assert_eq!(rig.opened().0.id, TransferId(6));
}

/// Each of them leaves an entry in the heap.
#[test]
fn requests_that_made_room_for_others_are_cleared_out() {
    let mut rig = Rig::new(QUOTA, Supply::System(1000));
    let start = rig.start;
    assert_eq!(rig.ask(peer(1), start), Ok(()));
    rig.report(Report::Established(TransferId(1)), start); // this one stays
    let rounds = 4 * TIMERS_KEPT as u32;
    for round in 1..=rounds {
        let at = start + round * HALF_OPEN_CHANCE;
        assert_eq!(rig.ask(peer(1000 + round as u16), at), Ok(()));
        assert_eq!(rig.endpoint.len(), 2, "the one before has gone");
        assert!(rig.endpoint.timers.len() <= TIMERS_KEPT + 3 * TIMERS_PER_SLOT);
        rig.actions.clear();
    }
    for id in [1, u64::from(rounds) + 1].map(TransferId) {
        let mut timers = rig.endpoint.timers.iter();
        assert!(
            timers.any(|Reverse((_, other))| *other == id),
            "it is watched"
        );
    }
}

/// The same request while the transfer is in its turn is looked at when the transfer is back.
#[test]
fn a_repeated_request_waits_for_the_transfer_to_be_parked() {
    let mut rig = Rig::new(QUOTA, Supply::System(1000));
    let start = rig.start;
    assert_eq!(rig.ask(peer(1), start), Ok(()));
    let id = rig.park(start);
    let parked = rig.lanes.parked.remove(&id).expect("parked");
    let again = start + SOCKET_RETRY;
    assert_eq!(rig.ask(peer(1), again), Ok(()));
    assert_eq!(rig.lanes.recalled, [id]);
    assert_eq!(rig.ask(peer(1), again), Err(DropReason::Duplicate));
    rig.lanes.parked.insert(id, parked);
    rig.report(Report::Parked(TransferId(id)), again);
    // It was a question for the OACK, and no second transfer.
    assert_eq!(rig.endpoint.len(), 1);
    // A transfer that ends in its turn leaves the request to a new transfer.
    rig.lanes.parked.remove(&id);
    assert_eq!(rig.ask(peer(1), again), Ok(()));
    rig.ended(id, again);
    assert_eq!(rig.opened().0.id, TransferId(2));
}

/// Requests that no worker has got to are told so; a call that runs is waited for.
#[test]
fn a_stop_refuses_what_waits_and_ends_what_is_parked() {
    let quota = Quota {
        half_open: 100,
        ..QUOTA
    };
    let mut rig = Rig::new(quota, Supply::System(1000));
    let start = rig.start;
    assert_eq!(rig.ask(peer(1), start), Ok(()));
    let parked = rig.park(start);
    assert_eq!(rig.ask(peer(2), start), Ok(()));
    let (running, _) = rig.opened();
    assert!(running.ask(start));
    assert_eq!(rig.ask(peer(3), start), Ok(()));
    rig.endpoint.stop(Stop::Now, start);
    assert!(!rig.endpoint.is_finished(start, &mut rig.lanes));
    rig.act();
    assert!(matches!(rig.lanes.ended[..], [(id, TransferError::Stopped)] if id == parked));
    let refused = rig.actions.iter().find_map(|action| match action {
        Action::ReplyWithin(tid, refusal) => Some((*tid, refusal.text().to_owned())),
        _ => None,
    });
    assert_eq!(refused, Some((peer(3), "server is stopping".to_owned())));
    assert_eq!(rig.endpoint.len(), 1, "the call runs");
    assert!(rig.endpoint.is_finished(start + LAST_WAIT, &mut rig.lanes));
}

/// A peer that may not be there, and one that has its file, do not hold up the end.
#[test]
fn a_drain_waits_for_established_transfers_only() {
    let quota = Quota {
        half_open: 100,
        ..QUOTA
    };
    let mut rig = Rig::new(quota, Supply::System(1000));
    let start = rig.start;
    for number in 1..=3 {
        assert_eq!(rig.ask(peer(number), start), Ok(()));
        rig.park(start);
    }
    rig.establish(2, start);
    rig.establish(3, start);
    rig.lanes.parked.get_mut(&3).expect("parked").0.is_complete = true;
    let drain = Stop::Drain(Duration::from_secs(60));
    rig.endpoint.stop(drain, start);
    assert!(!rig.endpoint.is_finished(start, &mut rig.lanes));
    assert!(rig.lanes.ended.is_empty(), "one of them is being served");
    rig.lanes.parked.remove(&2);
    rig.ended(2, start);
    assert!(rig.endpoint.is_finished(start, &mut rig.lanes));
    assert_eq!(rig.lanes.ended.len(), 2);
}

/// The client of an upload asks for something else as soon as it has the last ACK.
#[test]
fn a_complete_upload_makes_room_while_it_is_in_its_turn() {
    let quota = Quota {
        transfers: 1,
        ..QUOTA
    };
    let mut rig = Rig::new(quota, Supply::System(1000));
    let start = rig.start;
    assert_eq!(rig.ask(peer(1), start), Ok(()));
    let id = rig.park(start);
    let _ = rig.lanes.parked.remove(&id);
    assert_eq!(rig.ask(peer(2), start), Err(DropReason::Full));
    rig.report(Report::Complete(TransferId(id)), start);
    assert_eq!(rig.ask(peer(2), start), Ok(()));
    assert_eq!(
        (rig.lanes.abandoned.clone(), rig.endpoint.len()),
        (vec![id], 1)
    );
    assert!(
        rig.endpoint.closing.contains_key(&TransferId(id)),
        "its port is in use"
    );
    rig.ended(id, start);
    assert!(rig.endpoint.closing.is_empty() && rig.endpoint.closed_soon == 0);
    assert!(rig.endpoint.has(TransferId(2)));
}
