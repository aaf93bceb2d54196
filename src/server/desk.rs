//! The admission desk: which requests become transfers. A pure table; it owns no socket and reads no clock.
//!
//! A TID is a client's address and port together with the address it asked. One TID has one current transfer, and for a
//! while those that it replaces. A transfer is *unproven* until its peer has acknowledged something: the source of a
//! request may be forged.

use crate::event::{DropReason, TransferId};
use crate::limits::{TRANSFERS_PER_TID, UNPROVEN_CHANCE};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

/// Who asked whom. An IPv6 link-local address carries its scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tid {
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
}

/// A table of transfers. Their numbers are ours, one after the other: nobody outside can make them collide.
pub(super) type ById<T> = HashMap<TransferId, T, BuildHasherDefault<Spread>>;

/// Spreads numbers that follow each other over all bits.
#[derive(Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, octets: &[u8]) {
        octets
            .iter()
            .for_each(|octet| self.write_u64((*octet).into()));
    }

    fn write_u64(&mut self, number: u64) {
        // 2^64 divided by the golden ratio.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// How many transfers there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quota {
    pub(super) transfers: usize,
    pub(super) per_client: Option<usize>,
    pub(super) unproven: usize,
    /// Of one address, and of one network: see [`network`].
    pub(super) unproven_per_client: Option<usize>,
    pub(super) unproven_per_network: Option<usize>,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A new transfer of this id was entered.
    Admit(TransferId),
    /// The same request while its transfer lives. Whoever knows how the transfer does decides: the opening packet once more,
    /// a late copy to be dropped, or [`Desk::admit`].
    Again(TransferId),
    /// This transfer has to go first: [`Desk::remove`] it or [`Desk::spare`] it, then ask again.
    MakeRoom(TransferId),
    /// Throw it away.
    Drop(DropReason),
}

/// The table.
pub(super) struct Desk {
    quota: Quota,
    next: u64,
    entries: ById<Entry>,
    /// Newest last.
    by_tid: HashMap<Tid, Vec<TransferId>>,
    by_client: HashMap<IpAddr, Held>,
    /// Unproven transfers of each network.
    by_network: HashMap<IpAddr, usize>,
    /// In order of admission; those that are proven or gone are skipped when they come to the front.
    waiting: VecDeque<(TransferId, Instant)>,
    unproven: usize,
    /// Uploads that are whole and only wait to repeat their last ACK; those that are gone are skipped.
    finished: VecDeque<TransferId>,
}

/// What one address has.
#[derive(Default)]
struct Held {
    transfers: usize,
    unproven: usize,
}

/// The network of an address: who can forge one address of it can forge them all. A /24 of IPv4, a /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & (!0 << 8)).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (!0 << 64)).into(),
    }
}

struct Entry {
    tid: Tid,
    /// Of the request's octets.
    digest: u64,
    proven: bool,
    finished: bool,
}

impl Desk {
    pub(super) fn new(quota: Quota) -> Self {
        Self {
            quota,
            next: 1,
            entries: ById::default(),
            by_tid: HashMap::new(),
            by_client: HashMap::new(),
            by_network: HashMap::new(),
            waiting: VecDeque::new(),
            unproven: 0,
            finished: VecDeque::new(),
        }
    }

    /// True where so many peers have not answered yet that OACKs are repeated less.
    pub(super) fn is_tense(&self) -> bool {
        self.unproven * 2 >= self.quota.unproven
    }

    /// Looks at a request whose octets have this digest.
    pub(super) fn arrive(&mut self, tid: Tid, digest: u64, now: Instant) -> Verdict {
        let same = self.by_tid.get(&tid).into_iter().flatten().rev();
        let same = same.copied().find(|id| self.entries[id].digest == digest);
        match same {
            Some(id) => Verdict::Again(id),
            None => self.admit(tid, digest, now),
        }
    }

    /// Enters a new transfer, whatever else its TID has, if there is room.
    pub(super) fn admit(&mut self, tid: Tid, digest: u64, now: Instant) -> Verdict {
        if let Some(reason) = self.full_for(tid.peer.ip()) {
            return Verdict::Drop(reason);
        }
        if self
            .by_tid
            .get(&tid)
            .is_some_and(|ids| ids.len() >= TRANSFERS_PER_TID)
        {
            return Verdict::Drop(DropReason::Duplicate);
        }
        let is_full = self.entries.len() >= self.quota.transfers;
        if is_full && let Some(id) = self.oldest_finished() {
            return Verdict::MakeRoom(id);
        }
        let are_silent = self.unproven >= self.quota.unproven;
        if is_full || are_silent {
            return match self.oldest_unproven(now) {
                Some(id) => Verdict::MakeRoom(id),
                None if are_silent => Verdict::Drop(DropReason::UnprovenFull),
                None => Verdict::Drop(DropReason::Full),
            };
        }
        let id = TransferId(self.next);
        self.next += 1;
        self.entries.insert(
            id,
            Entry {
                tid,
                digest,
                proven: false,
                finished: false,
            },
        );
        self.by_tid.entry(tid).or_default().push(id);
        let client = tid.peer.ip();
        let held = self.by_client.entry(client).or_default();
        held.transfers += 1;
        held.unproven += 1;
        *self.by_network.entry(network(client)).or_default() += 1;
        self.waiting.push_back((id, now));
        self.unproven += 1;
        Verdict::Admit(id)
    }

    /// Why this client may have no other transfer.
    fn full_for(&self, client: IpAddr) -> Option<DropReason> {
        let is_full = |held: usize, most: Option<usize>| most.is_some_and(|most| held >= most);
        let quota = &self.quota;
        let held = self.by_client.get(&client);
        let of_network = self.by_network.get(&network(client)).copied();
        if is_full(held.map_or(0, |held| held.transfers), quota.per_client) {
            Some(DropReason::ClientFull)
        } else if is_full(
            held.map_or(0, |held| held.unproven),
            quota.unproven_per_client,
        ) {
            Some(DropReason::ClientUnprovenFull)
        } else if is_full(of_network.unwrap_or(0), quota.unproven_per_network) {
            Some(DropReason::NetworkUnprovenFull)
        } else {
            None
        }
    }

    /// One of this client's transfers is not unproven any more.
    fn settle(&mut self, client: IpAddr) {
        self.unproven -= 1;
        if let Some(held) = self.by_client.get_mut(&client) {
            held.unproven -= 1;
        }
        let network = network(client);
        if let Some(count) = self.by_network.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.by_network.remove(&network);
            }
        }
    }

    /// The oldest unproven transfer, if it has had its chance.
    pub(super) fn oldest_unproven(&mut self, now: Instant) -> Option<TransferId> {
        while let Some(&(id, since)) = self.waiting.front() {
            if self.entries.get(&id).is_some_and(|entry| !entry.proven) {
                return (now >= since + UNPROVEN_CHANCE).then_some(id);
            }
            self.waiting.pop_front();
        }
        None
    }

    /// The one that has waited longest. It is named once: it either goes now or is about to.
    fn oldest_finished(&mut self) -> Option<TransferId> {
        while let Some(id) = self.finished.pop_front() {
            if self.entries.contains_key(&id) {
                return Some(id);
            }
        }
        None
    }

    /// The file of this one is whole: it counts for its client no more, and goes first where room is needed.
    pub(super) fn finished(&mut self, id: TransferId) {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| !entry.finished) else {
            return;
        };
        entry.finished = true;
        let client = entry.tid.peer.ip();
        self.finished.push_back(id);
        self.leave(client);
    }

    /// The client has one transfer less.
    fn leave(&mut self, client: IpAddr) {
        if let Some(held) = self.by_client.get_mut(&client) {
            held.transfers -= 1;
            if held.transfers == 0 {
                self.by_client.remove(&client);
            }
        }
    }

    /// This one cannot make room now: it goes to the end of the line.
    pub(super) fn spare(&mut self, id: TransferId, now: Instant) {
        if self.waiting.front().is_some_and(|(first, _)| *first == id) {
            self.waiting.pop_front();
            self.waiting.push_back((id, now));
        }
    }

    /// The peer has acknowledged something. Returns the older transfers of its TID: they have been replaced.
    pub(super) fn proven(&mut self, id: TransferId) -> Vec<TransferId> {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| !entry.proven) else {
            return Vec::new();
        };
        entry.proven = true;
        let tid = entry.tid;
        self.settle(tid.peer.ip());
        let ids = &self.by_tid[&tid];
        ids.iter()
            .copied()
            .take_while(|older| *older != id)
            .collect()
    }

    /// The transfer is over.
    pub(super) fn remove(&mut self, id: TransferId) {
        let Some(entry) = self.entries.remove(&id) else {
            return;
        };
        let client = entry.tid.peer.ip();
        if !entry.proven {
            self.settle(client);
        }
        // The line must not outgrow the table; cleaning it up seldom costs nothing on average.
        if self.waiting.len() > 2 * self.entries.len() {
            self.waiting
                .retain(|(id, _)| self.entries.get(id).is_some_and(|entry| !entry.proven));
        }
        if let Some(ids) = self.by_tid.get_mut(&entry.tid) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_tid.remove(&entry.tid);
            }
        }
        if self.finished.len() > 2 * self.entries.len() {
            self.finished.retain(|id| self.entries.contains_key(id));
        }
        if !entry.finished {
            self.leave(client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const QUOTA: Quota = Quota {
        transfers: 100,
        per_client: None,
        unproven: 100,
        unproven_per_client: None,
        unproven_per_network: None,
    };

    fn tid(host: u8, port: u16) -> Tid {
        Tid {
            peer: ([127, 0, 0, host], port).into(),
            local: ([127, 0, 0, 1], 69).into(),
        }
    }

    #[allow(clippy::disallowed_methods)] // any instant will do
    fn start() -> Instant {
        Instant::now()
    }

    fn admitted(verdict: Verdict) -> TransferId {
        match verdict {
            Verdict::Admit(id) => id,
            other => panic!("not admitted: {other:?}"),
        }
    }

    #[test]
    fn the_same_request_belongs_to_its_transfer_until_that_is_over() {
        let (mut desk, now) = (Desk::new(QUOTA), start());
        let id = admitted(desk.arrive(tid(1, 1000), 7, now));
        assert_eq!(desk.arrive(tid(1, 1000), 7, now), Verdict::Again(id));
        assert!(desk.proven(id).is_empty());
        assert_eq!(desk.arrive(tid(1, 1000), 7, now), Verdict::Again(id));
        desk.remove(id);
        assert_ne!(admitted(desk.arrive(tid(1, 1000), 7, now)), id);
    }

    #[test]
    fn other_octets_from_one_tid_are_a_new_transfer_that_replaces_the_old_when_proven() {
        let (mut desk, now) = (Desk::new(QUOTA), start());
        let old = admitted(desk.arrive(tid(1, 49153), 1, now));
        desk.proven(old);
        let new = admitted(desk.arrive(tid(1, 49153), 2, now));
        assert_eq!(desk.proven(new), [old]);
        assert_eq!(desk.proven(new), [], "said once");
    }

    /// One port that asks for ever new things takes no more than its share of the table.
    #[test]
    fn one_tid_has_four_transfers_at_once_and_no_more() {
        let (mut desk, now) = (Desk::new(QUOTA), start());
        let ids = [1, 2, 3, 4].map(|digest| admitted(desk.arrive(tid(1, 1000), digest, now)));
        assert_eq!(ids.len(), TRANSFERS_PER_TID);
        let full = Verdict::Drop(DropReason::Duplicate);
        assert_eq!(desk.arrive(tid(1, 1000), 5, now), full);
        // Nor has it more for asking for the same again.
        assert_eq!(desk.arrive(tid(1, 1000), 4, now), Verdict::Again(ids[3]));
        assert_eq!(desk.admit(tid(1, 1000), 4, now), full);
        admitted(desk.arrive(tid(1, 1001), 5, now));
        desk.remove(ids[1]);
        admitted(desk.arrive(tid(1, 1000), 5, now));
        assert_eq!(desk.arrive(tid(1, 1000), 6, now), full);
    }

    #[test]
    fn a_tid_is_port_and_asked_address_too() {
        let (mut desk, now) = (Desk::new(QUOTA), start());
        let first = admitted(desk.arrive(tid(1, 1000), 7, now));
        let other_port = admitted(desk.arrive(tid(1, 1001), 7, now));
        let local = ([127, 0, 0, 9], 69).into();
        let other_local = admitted(desk.arrive(
            Tid {
                local,
                ..tid(1, 1000)
            },
            7,
            now,
        ));
        assert!(first != other_port && first != other_local && other_port != other_local);
    }

    #[test]
    fn quotas_are_kept_and_given_back() {
        let now = start();
        let mut desk = Desk::new(Quota {
            transfers: 3,
            per_client: Some(2),
            ..QUOTA
        });
        let first = admitted(desk.arrive(tid(1, 1), 0, now));
        admitted(desk.arrive(tid(1, 2), 0, now));
        assert_eq!(
            desk.arrive(tid(1, 3), 0, now),
            Verdict::Drop(DropReason::ClientFull)
        );
        admitted(desk.arrive(tid(2, 1), 0, now));
        assert_eq!(
            desk.arrive(tid(3, 1), 0, now),
            Verdict::Drop(DropReason::Full)
        );
        desk.remove(first);
        admitted(desk.arrive(tid(1, 3), 0, now));
        assert_eq!(desk.entries.len(), 3);
    }

    #[test]
    fn the_oldest_unproven_makes_room_after_its_chance() {
        let now = start();
        let mut desk = Desk::new(Quota {
            unproven: 2,
            ..QUOTA
        });
        let proven = admitted(desk.arrive(tid(1, 1), 0, now));
        desk.proven(proven);
        let oldest = admitted(desk.arrive(tid(2, 1), 0, now));
        let younger = admitted(desk.arrive(tid(3, 1), 0, now + Duration::from_millis(1)));
        assert!(desk.is_tense());
        assert_eq!(
            desk.arrive(tid(4, 1), 0, now),
            Verdict::Drop(DropReason::UnprovenFull)
        );
        let later = now + UNPROVEN_CHANCE;
        assert_eq!(desk.arrive(tid(4, 1), 0, later), Verdict::MakeRoom(oldest));
        desk.spare(oldest, later);
        let later = later + Duration::from_millis(1);
        assert_eq!(desk.arrive(tid(4, 1), 0, later), Verdict::MakeRoom(younger));
        desk.remove(younger);
        admitted(desk.arrive(tid(4, 1), 0, later));
    }

    /// Where the table is full, those that never answered are not kept at the cost of those that ask.
    #[test]
    fn a_full_table_makes_room_in_the_same_way() {
        let now = start();
        let mut desk = Desk::new(Quota {
            transfers: 2,
            ..QUOTA
        });
        let running = admitted(desk.arrive(tid(1, 1), 0, now));
        desk.proven(running);
        let silent = admitted(desk.arrive(tid(2, 1), 0, now));
        let full = Verdict::Drop(DropReason::Full);
        assert_eq!(desk.arrive(tid(3, 1), 0, now), full);
        let later = now + UNPROVEN_CHANCE;
        assert_eq!(desk.arrive(tid(3, 1), 0, later), Verdict::MakeRoom(silent));
        desk.remove(silent);
        let asked = admitted(desk.arrive(tid(3, 1), 0, later));
        desk.proven(asked);
        let later = later + UNPROVEN_CHANCE;
        assert_eq!(desk.arrive(tid(4, 1), 0, later), full, "all of them run");
    }

    #[test]
    fn who_never_answers_has_few_where_that_was_asked_for() {
        let now = start();
        let mut desk = Desk::new(Quota {
            unproven_per_client: Some(2),
            unproven_per_network: Some(3),
            ..QUOTA
        });
        let first = admitted(desk.arrive(tid(1, 1), 0, now));
        let second = admitted(desk.arrive(tid(1, 2), 0, now));
        let full = Verdict::Drop(DropReason::ClientUnprovenFull);
        assert_eq!(desk.arrive(tid(1, 3), 0, now), full);
        // Whoever answers may have more; so may the neighbours, but together no more than three.
        desk.proven(first);
        admitted(desk.arrive(tid(1, 3), 0, now));
        admitted(desk.arrive(tid(2, 1), 0, now));
        let full = Verdict::Drop(DropReason::NetworkUnprovenFull);
        assert_eq!(desk.arrive(tid(3, 1), 0, now), full);
        let elsewhere = Tid {
            peer: ([127, 0, 1, 1], 1).into(),
            ..tid(1, 1)
        };
        admitted(desk.arrive(elsewhere, 0, now));
        desk.remove(second);
        admitted(desk.arrive(tid(3, 1), 0, now));
        // Of IPv6, 64 bits are one network.
        let v6 = |text: &str| Tid {
            peer: std::net::SocketAddr::new(text.parse().expect("an address"), 1),
            ..tid(1, 1)
        };
        for host in ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:0:1"] {
            admitted(desk.arrive(v6(host), 0, now));
        }
        assert_eq!(desk.arrive(v6("2001:db8::3"), 0, now), full);
        admitted(desk.arrive(v6("2001:db8:0:1::3"), 0, now));
    }

    /// 5,000 boards behind one address boot at once.
    #[test]
    fn by_default_one_address_may_have_them_all() {
        let now = start();
        let mut desk = Desk::new(Quota {
            transfers: 10_000,
            unproven: 5_000,
            ..QUOTA
        });
        for port in 1..=5_000 {
            admitted(desk.arrive(tid(1, port), 0, now));
        }
    }

    #[test]
    fn what_is_finished_counts_for_nobody_and_goes_first() {
        let now = start();
        let mut desk = Desk::new(Quota {
            transfers: 2,
            per_client: Some(1),
            unproven: 100,
            ..QUOTA
        });
        let done = admitted(desk.arrive(tid(1, 1), 0, now));
        desk.proven(done);
        desk.finished(done);
        desk.finished(done);
        let running = admitted(desk.arrive(tid(1, 2), 0, now));
        let full_for_it = Verdict::Drop(DropReason::ClientFull);
        assert_eq!(desk.arrive(tid(1, 3), 0, now), full_for_it);
        assert_eq!(
            desk.arrive(tid(2, 1), 0, now),
            Verdict::MakeRoom(done),
            "the table is full"
        );
        desk.remove(done);
        assert_eq!(desk.arrive(tid(1, 3), 0, now), full_for_it);
        desk.remove(running);
        assert!(desk.by_client.is_empty() && desk.finished.is_empty());
    }

    #[test]
    fn a_flood_leaves_nothing_behind() {
        let now = start();
        let mut desk = Desk::new(QUOTA);
        for round in 0..10_000u32 {
            let id = admitted(desk.arrive(tid((round % 250) as u8, round as u16), 0, now));
            if round % 3 == 0 {
                desk.proven(id);
            }
            desk.remove(id);
        }
        assert!(desk.entries.is_empty() && desk.by_tid.is_empty());
        assert!(desk.by_client.is_empty() && desk.by_network.is_empty());
        assert_eq!((desk.unproven, desk.waiting.len()), (0, 0));
    }
}
