//! The ports that transfers answer from: which are free at each local address, and which requests
//! wait for one. A pure table; it opens no socket and reads no clock.
//!
//! Invariants: a port is free, leased, or set aside because another program holds it. While
//! requests wait at an address, no port is free there. Each operation takes a time that does not
//! depend on the number of ports.

use super::by_id::Spread;
use crate::event::TransferId;
use crate::limits::PORT_ASIDE;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Instant;

/// The ports that one local address has for transfers.
#[derive(Clone, Debug)]
pub enum Supply {
    /// These. The table chooses one at random: a port seldom comes twice in close succession (RFC
    /// 1350 §4).
    Range(RangeInclusive<u16>),
    /// This many of the system's choice; the table counts them.
    System(usize),
}

impl Supply {
    /// How many ports one address has.
    pub fn len(&self) -> usize {
        match self {
            Self::Range(ports) => ports.len(),
            Self::System(count) => *count,
        }
    }

    /// True where an address has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One port at one address, taken by one transfer until its socket is closed.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a port that is not given back is lost"]
pub struct Lease {
    address: SocketAddr,
    port: u16,
    is_closing: bool,
}

impl Lease {
    /// The port to bind to; 0 lets the system choose.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the port is, without it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// True where a worker is about to close the socket.
    pub fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// True where the port comes from a range. If it is in use, another program holds it.
    pub fn is_chosen(&self) -> bool {
        self.port != 0
    }
}

/// The table. An address is in it while a port of it is leased, set aside or waited for.
#[derive(Debug)]
pub struct Ports {
    supply: Supply,
    addresses: HashMap<SocketAddr, Address>,
    /// Ports that other programs hold, and when each is tried again. In order of time.
    aside: VecDeque<(Instant, SocketAddr, u16)>,
    /// Requests that got the port they waited for.
    granted: VecDeque<(TransferId, Lease)>,
    /// Addresses where requests wait.
    waiting: BTreeSet<SocketAddr>,
}

/// The ports of one address.
#[derive(Debug)]
struct Address {
    free: FreeList,
    leased: usize,
    /// Of those that are leased: sockets that a worker is about to close.
    closing: usize,
    aside: usize,
    /// Transfers are numbered in the order of their requests.
    waiting: BTreeSet<TransferId>,
}

impl Ports {
    /// A table in which every port is free.
    pub fn new(supply: Supply) -> Self {
        Self {
            supply,
            addresses: HashMap::new(),
            aside: VecDeque::new(),
            granted: VecDeque::new(),
            waiting: BTreeSet::new(),
        }
    }

    /// Ports that `address` has, without those that other programs hold.
    pub fn capacity(&self, address: SocketAddr) -> usize {
        let aside = self
            .addresses
            .get(&without_port(address))
            .map_or(0, |it| it.aside);
        self.supply.len() - aside
    }

    /// True where a new request gets a port at once.
    pub fn has_free(&self, address: SocketAddr) -> bool {
        match self.addresses.get(&without_port(address)) {
            Some(it) => it.waiting.is_empty() && it.free.count > 0,
            None => !self.supply.is_empty(),
        }
    }

    /// True where one more request would get a port that is about to come back.
    pub fn is_one_coming(&self, address: SocketAddr) -> bool {
        let address = self.addresses.get(&without_port(address));
        address.is_some_and(|it| it.closing > it.waiting.len())
    }

    /// True where more requests wait than ports are about to come back.
    pub fn is_short(&self, address: SocketAddr) -> bool {
        let address = self.addresses.get(&without_port(address));
        address.is_some_and(|it| it.closing < it.waiting.len())
    }

    /// Leases a free port of `address`, chosen by a random number; `None` where there is none, or
    /// where others wait.
    pub fn take(&mut self, address: SocketAddr, random: u64) -> Option<Lease> {
        self.has_free(address).then(|| {
            let address = without_port(address);
            self.lease(address, random)
        })
    }

    /// Puts a request into the line for a port of `address`. It comes out of
    /// [`granted`](Self::granted).
    pub fn wait(&mut self, address: SocketAddr, id: TransferId) {
        let address = without_port(address);
        self.entry(address).waiting.insert(id);
        self.waiting.insert(address);
        self.hand_over(address);
    }

    /// True while this request waits for a port of `address`.
    pub fn waits(&self, address: SocketAddr, id: TransferId) -> bool {
        let address = self.addresses.get(&without_port(address));
        address.is_some_and(|it| it.waiting.contains(&id))
    }

    /// A request does not wait any more.
    pub fn leave(&mut self, address: SocketAddr, id: TransferId) {
        let address = without_port(address);
        let Some(it) = self.addresses.get_mut(&address) else {
            return;
        };
        it.waiting.remove(&id);
        self.tidy(address);
    }

    /// The socket at this port is about to be closed: see [`is_one_coming`](Self::is_one_coming).
    pub fn is_closing(&mut self, lease: &mut Lease) {
        lease.is_closing = true;
        if let Some(it) = self.addresses.get_mut(&lease.address) {
            it.closing += 1;
        }
    }

    /// The socket at this port is closed, or was never opened. The request that has waited longest
    /// gets the port.
    pub fn give_back(&mut self, lease: Lease) {
        let address = lease.address;
        self.end(&lease).put(lease.port);
        self.hand_over(address);
    }

    /// Another program holds this port: it is not tried again before [`PORT_ASIDE`] has passed.
    pub fn set_aside(&mut self, lease: Lease, now: Instant) {
        self.end(&lease);
        self.entry(lease.address).aside += 1;
        let due = now + PORT_ASIDE;
        self.aside.push_back((due, lease.address, lease.port));
    }

    /// Time has passed: ports that were set aside are tried again.
    pub fn advance(&mut self, now: Instant) {
        while let Some((_, address, port)) = self.aside.pop_front_if(|(due, ..)| *due <= now) {
            let it = self.entry(address);
            it.aside -= 1;
            it.free.put(port);
            self.hand_over(address);
        }
    }

    /// When [`advance`](Self::advance) may have a port for a request that waits.
    pub fn due(&self) -> Option<Instant> {
        let next = self.aside.front().map(|(due, ..)| *due);
        next.filter(|_| self.has_waiting())
    }

    /// True where any request waits.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Addresses where more requests wait than ports are about to come back.
    pub fn short(&self) -> impl Iterator<Item = SocketAddr> {
        let is_short = |address: &SocketAddr| self.is_short(*address);
        self.waiting.iter().copied().filter(is_short)
    }

    /// The next request that has waited and now has a port.
    pub fn granted(&mut self) -> Option<(TransferId, Lease)> {
        self.granted.pop_front()
    }

    /// True where nothing is leased, set aside or waited for.
    pub fn is_idle(&self) -> bool {
        self.addresses.is_empty()
            && self.aside.is_empty()
            && self.granted.is_empty()
            && self.waiting.is_empty()
    }

    fn entry(&mut self, address: SocketAddr) -> &mut Address {
        let supply = &self.supply;
        self.addresses.entry(address).or_insert_with(|| Address {
            free: FreeList::new(supply),
            leased: 0,
            closing: 0,
            aside: 0,
            waiting: BTreeSet::new(),
        })
    }

    fn lease(&mut self, address: SocketAddr, random: u64) -> Lease {
        let it = self.entry(address);
        it.leased += 1;
        let port = it.free.take(random);
        Lease {
            address,
            port,
            is_closing: false,
        }
    }

    /// Ends a lease; its port goes to the list that is returned, or is set aside.
    fn end(&mut self, lease: &Lease) -> &mut FreeList {
        let it = self.entry(lease.address);
        it.leased -= 1;
        it.closing -= usize::from(lease.is_closing);
        &mut it.free
    }

    /// A free port goes to the request that has waited longest.
    fn hand_over(&mut self, address: SocketAddr) {
        while let Some(it) = self.addresses.get_mut(&address)
            && it.free.count > 0
            && let Some(id) = it.waiting.pop_first()
        {
            // The port that has just come is the only one.
            let lease = self.lease(address, 0);
            self.granted.push_back((id, lease));
        }
        self.tidy(address);
    }

    /// Forgets an address at which nothing is left.
    fn tidy(&mut self, address: SocketAddr) {
        if self
            .addresses
            .get(&address)
            .is_none_or(|it| it.waiting.is_empty())
        {
            self.waiting.remove(&address);
        }
        if let Some(it) = self.addresses.get(&address)
            && it.leased == 0
            && it.aside == 0
            && it.waiting.is_empty()
        {
            self.addresses.remove(&address);
        }
    }
}

/// Ports are per address. A link-local one keeps its scope.
pub(super) fn without_port(mut address: SocketAddr) -> SocketAddr {
    address.set_port(0);
    address
}

/// The free ports of an address: a list that is shuffled as it is used, of which only the places
/// that have changed are stored. It costs memory for the ports that were leased, not for the range.
#[derive(Debug)]
struct FreeList {
    first: Option<u16>,
    count: usize,
    /// What stands at a place of the list, where that is not the place's own number.
    moved: HashMap<usize, u16, BuildHasherDefault<Spread>>,
}

impl FreeList {
    fn new(supply: &Supply) -> Self {
        Self {
            first: match supply {
                Supply::Range(ports) => Some(*ports.start()),
                Supply::System(_) => None,
            },
            count: supply.len(),
            moved: HashMap::default(),
        }
    }

    /// Takes one of the free ports; 0 where the system chooses.
    fn take(&mut self, random: u64) -> u16 {
        let last = self.count - 1;
        self.count = last;
        let Some(first) = self.first else {
            return 0;
        };
        let at = (random % (last as u64 + 1)) as usize;
        // The last one goes to the place of the one that is taken.
        let end = self.moved.remove(&last).unwrap_or(last as u16);
        if at == last {
            return first + end;
        }
        first + self.moved.insert(at, end).unwrap_or(at as u16)
    }

    fn put(&mut self, port: u16) {
        let last = self.count;
        self.count += 1;
        if let Some(first) = self.first
            && usize::from(port - first) != last
        {
            self.moved.insert(last, port - first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const RANGE: Supply = Supply::Range(40_000..=40_009);

    #[allow(clippy::disallowed_methods)] // any instant will do
    fn start() -> Instant {
        Instant::now()
    }

    fn at(host: u8) -> SocketAddr {
        ([127, 0, 0, host], 69).into()
    }

    fn all(ports: &mut Ports, host: u8) -> Vec<Lease> {
        (0..)
            .map_while(|number| ports.take(at(host), number * 7919))
            .collect()
    }

    #[test]
    fn every_port_of_a_range_is_leased_once_and_comes_back() {
        let mut ports = Ports::new(RANGE);
        for _ in 0..3 {
            let mut leases = all(&mut ports, 1);
            let mut numbers: Vec<_> = leases.iter().map(Lease::port).collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (40_000..=40_009).collect::<Vec<_>>());
            // Some come back in another order, and are leased again.
            leases.swap(0, 5);
            leases.drain(..4).for_each(|lease| ports.give_back(lease));
            leases.extend(all(&mut ports, 1));
            assert_eq!(leases.len(), 10);
            assert!(!ports.has_free(at(1)));
            leases.drain(..).for_each(|lease| ports.give_back(lease));
            assert!(ports.is_idle());
        }
    }

    #[test]
    fn each_address_has_ports_of_its_own() {
        let mut ports = Ports::new(RANGE);
        let first = all(&mut ports, 1);
        let second = all(&mut ports, 2);
        assert_eq!((first.len(), second.len()), (10, 10));
        first.into_iter().for_each(|lease| ports.give_back(lease));
        assert!(ports.has_free(at(1)) && !ports.has_free(at(2)));
        assert_eq!(ports.addresses.len(), 1, "one address is forgotten");
        second.into_iter().for_each(|lease| ports.give_back(lease));
    }

    #[test]
    fn the_choice_follows_the_random_number_and_every_port_is_equally_likely() {
        let mut seen = [0; 10];
        for random in 0..1000 {
            let mut ports = Ports::new(RANGE);
            let first = ports.take(at(1), 3).expect("a port");
            let lease = ports.take(at(1), random).expect("a port");
            seen[usize::from(lease.port() - 40_000)] += 1;
            ports.give_back(lease);
            ports.give_back(first);
        }
        assert_eq!(seen, [112, 111, 111, 0, 111, 111, 111, 111, 111, 111]);
    }

    #[test]
    fn a_list_costs_memory_for_what_was_leased_and_not_for_the_range() {
        let mut ports = Ports::new(Supply::Range(1..=65_535));
        let leases: Vec<_> = (0..100)
            .filter_map(|number| ports.take(at(1), number * 7919))
            .collect();
        assert!(ports.entry(without_port(at(1))).free.moved.len() <= 100);
        leases.into_iter().for_each(|lease| ports.give_back(lease));
        assert!(ports.is_idle());
    }

    #[test]
    fn the_systems_ports_are_counted_and_not_chosen() {
        let mut ports = Ports::new(Supply::System(3));
        let mut leases = all(&mut ports, 1);
        assert_eq!(leases.len(), 3);
        assert!(leases.iter().all(|lease| lease.port() == 0));
        assert!(!leases[0].is_chosen());
        ports.give_back(leases.remove(0));
        assert!(ports.has_free(at(1)));
        leases.extend(all(&mut ports, 1));
        assert_eq!(leases.len(), 3);
        leases.into_iter().for_each(|lease| ports.give_back(lease));
        assert!(ports.is_idle());
    }

    #[test]
    fn a_port_that_comes_back_goes_to_the_request_that_has_waited_longest() {
        let mut ports = Ports::new(RANGE);
        let mut leases = all(&mut ports, 1);
        for id in [3, 4, 5].map(TransferId) {
            ports.wait(at(1), id);
        }
        assert_eq!(ports.granted(), None);
        ports.leave(at(1), TransferId(4));
        assert!(!ports.waits(at(1), TransferId(4)) && ports.waits(at(1), TransferId(5)));
        let port = leases[0].port();
        ports.give_back(leases.remove(0));
        assert!(!ports.has_free(at(1)), "a new request does not overtake");
        let (id, lease) = ports.granted().expect("a grant");
        assert_eq!((id, lease.port()), (TransferId(3), port));
        assert_eq!(ports.granted(), None, "one port, one request");
        leases.push(lease);
        leases.drain(..2).for_each(|lease| ports.give_back(lease));
        let (id, lease) = ports.granted().expect("a grant");
        assert_eq!(id, TransferId(5));
        assert!(ports.has_free(at(1)));
        leases.push(lease);
        leases.into_iter().for_each(|lease| ports.give_back(lease));
        assert!(ports.is_idle());
    }

    #[test]
    fn sockets_that_are_about_to_close_are_counted_against_those_that_wait() {
        let mut ports = Ports::new(RANGE);
        let mut leases = all(&mut ports, 1);
        assert!(!ports.is_one_coming(at(1)));
        let mut lease = leases.remove(0);
        ports.is_closing(&mut lease);
        assert!(ports.is_one_coming(at(1)));
        ports.wait(at(1), TransferId(1));
        assert!(!ports.is_one_coming(at(1)), "it is promised already");
        ports.give_back(lease);
        leases.push(ports.granted().expect("a grant").1);
        assert!(!ports.is_one_coming(at(1)));
        leases.into_iter().for_each(|lease| ports.give_back(lease));
        assert!(ports.is_idle());
    }

    #[test]
    fn a_port_that_another_program_holds_is_skipped_and_tried_again_later() {
        let mut ports = Ports::new(RANGE);
        let now = start();
        let lease = ports.take(at(1), 4).expect("a port");
        let port = lease.port();
        ports.set_aside(lease, now);
        assert_eq!(ports.capacity(at(1)), 9);
        let mut leases = all(&mut ports, 1);
        assert_eq!(leases.len(), 9);
        assert!(leases.iter().all(|lease| lease.port() != port));
        assert_eq!(ports.due(), None, "no request waits for it");
        ports.wait(at(1), TransferId(7));
        assert_eq!(ports.due(), Some(now + PORT_ASIDE));
        ports.advance(now + PORT_ASIDE - Duration::from_millis(1));
        assert_eq!(ports.granted(), None);
        ports.advance(now + PORT_ASIDE);
        let (id, lease) = ports.granted().expect("a grant");
        assert_eq!((id, lease.port()), (TransferId(7), port));
        leases.push(lease);
        leases.into_iter().for_each(|lease| ports.give_back(lease));
        assert!(ports.is_idle());
    }
}
