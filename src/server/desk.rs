//! The admission desk: which requests become transfers, and which transfers make room for them. A
//! pure table; it owns no socket and reads no clock.
//!
//! A TID is a client's address and port together with the address it asked. One TID has one current
//! transfer, and for a while those that it replaces.
//!
//! A transfer is *half-open* until its peer has acknowledged something: the source of a request may
//! be forged. Then it is *established*, and an upload is *complete* once its file is stored and
//! acknowledged. Places, ports, descriptors and memory are scarce in the same way, and this is the
//! one list of what makes room for a request:
//!
//! 1. complete uploads, the one that has been complete for longest first;
//! 2. half-open transfers that have had [`HALF_OPEN_CHANCE`], and established ones whose peers have
//!    been silent for longer than [`patience`] allows: those of the address that has the most
//!    transfers first, and of these the one whose time was up first;
//! 3. where half-open transfers have all the places or ports that they may have, one of those that
//!    have had [`HALF_OPEN_MIN_AGE`]: the oldest of the host that asks, or where it has none, one
//!    of all, chosen at random by its age. In a flood of forged requests a place is held for as
//!    long as the flood needs to fill all of them, and a client that answers sooner is served.
//!
//! All other transfers stay.

use super::by_id::ById;
use super::ports::{Lease, Ports, Supply, without_port};
use crate::event::{DropReason, TransferId};
use crate::limits::{
    HALF_OPEN_CHANCE, HALF_OPEN_MIN_AGE, HALF_OPEN_PER_TID, MOST_SILENCE, SHARE_PER_FREE_PLACE,
    SILENCE_PER_WINDOW, TRANSFERS_PER_TID,
};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Who asked whom. An IPv6 link-local address carries its scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tid {
    /// The client.
    pub peer: SocketAddr,
    /// The address that it asked, with the port of requests.
    pub local: SocketAddr,
}

/// How many transfers there may be.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// In all.
    pub transfers: usize,
    /// Of one client address.
    pub per_client: Option<usize>,
    /// Half-open ones, in all. Never more than half of the ports of one local address.
    pub half_open: usize,
    /// Half-open ones of one client address.
    pub half_open_per_client: Option<usize>,
    /// Half-open ones of one network: an IPv4 /24 or an IPv6 /64.
    pub half_open_per_network: Option<usize>,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A new transfer of this id was entered, with a port; or it waits for one, which comes out of
    /// [`Desk::granted`].
    Admit(TransferId, Option<u16>),
    /// This transfer has to go first: [`Desk::remove`] it or [`Desk::spare`] it, then ask again.
    MakeRoom(TransferId),
    /// Throw it away.
    Drop(DropReason),
}

/// Whose transfers are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All of them.
    All,
    /// Those that use a port of this local address; see [`Tid::address`].
    Local(SocketAddr),
    /// Those of one client address.
    Client(IpAddr),
    /// Those of one network of clients.
    Network(IpAddr),
}

/// Which transfers help against what is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victims {
    /// Where there are too many half-open ones.
    HalfOpen,
    /// Where a client has too many: complete ones do not count for it.
    Incomplete,
    /// Where a place, a port, a descriptor or memory is short.
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    HalfOpen,
    Established,
    Complete,
}

/// How long the peer of an established transfer may be silent before the transfer may make room for
/// others.
pub fn patience(windows: u64) -> Duration {
    let earned = SILENCE_PER_WINDOW.saturating_mul(u32::try_from(windows).unwrap_or(u32::MAX));
    (HALF_OPEN_CHANCE + earned.min(MOST_SILENCE)).min(MOST_SILENCE)
}

/// The table.
#[derive(Debug)]
pub struct Desk {
    quota: Quota,
    next: u64,
    entries: ById<Entry>,
    /// Newest last.
    by_tid: HashMap<Tid, Vec<TransferId>>,
    groups: HashMap<Scope, Group>,
    /// [Hosts](Tid::host) by the number of their transfers that are not complete, where these are
    /// several.
    ranking: BTreeSet<(usize, Scope)>,
    ports: Ports,
    /// Transfers that have waited for a port and have one now. Some may be over since then.
    granted: VecDeque<TransferId>,
}

/// One of the transfers of a group, and from when on it may make room.
type Place = (Instant, TransferId);

/// The transfers of one scope.
#[derive(Debug, Default)]
struct Group {
    half_open: BTreeSet<Place>,
    established: BTreeSet<Place>,
    complete: BTreeSet<Place>,
}

impl Group {
    /// Transfers that are not complete.
    fn held(&self) -> usize {
        self.half_open.len() + self.established.len()
    }

    fn is_empty(&self) -> bool {
        self.held() == 0 && self.complete.is_empty()
    }

    fn places(&mut self, state: State) -> &mut BTreeSet<Place> {
        match state {
            State::HalfOpen => &mut self.half_open,
            State::Established => &mut self.established,
            State::Complete => &mut self.complete,
        }
    }

    /// Those that are not complete and whose time is up.
    fn overdue(&self, victims: Victims, now: Instant) -> impl Iterator<Item = Place> {
        let up = move |place: &&Place| place.0 <= now;
        let half_open = self.half_open.iter().take_while(up);
        let established = self.established.iter().take_while(up);
        let mut half_open = half_open.copied().peekable();
        let mut established = established
            .copied()
            .take(if victims == Victims::HalfOpen {
                0
            } else {
                usize::MAX
            })
            .peekable();
        std::iter::from_fn(move || match (half_open.peek(), established.peek()) {
            (Some(one), Some(two)) if two < one => established.next(),
            (None, _) => established.next(),
            _ => half_open.next(),
        })
    }
}

/// The network of an address: who can forge one address of it can forge them all. A /24 of IPv4, a
/// /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & (!0 << 8)).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (!0 << 64)).into(),
    }
}

impl Tid {
    fn client(&self) -> Scope {
        Scope::Client(self.peer.ip())
    }

    fn network(&self) -> Scope {
        Scope::Network(network(self.peer.ip()))
    }

    /// What has a share of the places: an IPv4 address, or the /64 network of an IPv6 address,
    /// since one host can use all addresses of its network.
    fn host(&self) -> Scope {
        match self.peer.ip().to_canonical() {
            IpAddr::V4(_) => self.client(),
            IpAddr::V6(_) => self.network(),
        }
    }

    /// Where its port is taken from.
    pub fn address(&self) -> Scope {
        Scope::Local(without_port(self.local))
    }

    fn scopes(&self) -> [Scope; 4] {
        [Scope::All, self.address(), self.client(), self.network()]
    }
}

#[derive(Debug)]
struct Entry {
    tid: Tid,
    /// Of the request's octets.
    digest: u64,
    state: State,
    /// When it may make room.
    due: Instant,
    /// `None` while it waits for a port.
    lease: Option<Lease>,
}

/// Client addresses with many transfers that are looked at before the transfer whose time was up
/// first, whichever address has it.
const RANKED: usize = 8;
/// Transfers of one address that are looked at for one that frees a port.
const WITH_PORT: usize = 8;

impl Desk {
    /// An empty table.
    pub fn new(quota: Quota, supply: Supply) -> Self {
        Self {
            quota,
            next: 1,
            entries: ById::default(),
            by_tid: HashMap::new(),
            groups: HashMap::new(),
            ranking: BTreeSet::new(),
            ports: Ports::new(supply),
            granted: VecDeque::new(),
        }
    }

    /// Transfers whose peers have not answered.
    pub fn half_open_transfers(&self) -> usize {
        self.group(Scope::All, |group| group.half_open.len())
    }

    /// True where so many peers have not answered yet that OACKs are repeated less.
    pub fn is_tense(&self, tid: &Tid) -> bool {
        let half_open = |scope| self.group(scope, |group| group.half_open.len());
        half_open(Scope::All) * 2 >= self.quota.half_open
            || half_open(tid.address()) * 2 >= self.half_of_the_ports(tid)
    }

    /// The transfer that a request of this TID with this digest has begun, while it lives. The
    /// state of that transfer says what the request is: a question for the opening packet, a late
    /// copy, or one to [admit](Self::admit) once more.
    pub fn current(&self, tid: &Tid, digest: u64) -> Option<TransferId> {
        let mut same = self.by_tid.get(tid)?.iter().rev();
        same.find(|id| self.entries[id].digest == digest).copied()
    }

    /// Enters a new transfer, whatever else its TID has, if there is room; `random` chooses its
    /// port.
    pub fn admit(&mut self, tid: Tid, digest: u64, random: u64, now: Instant) -> Verdict {
        if let Some(victim) = self.shortage_of_tid(&tid) {
            return victim.map_or(Verdict::Drop(DropReason::Duplicate), Verdict::MakeRoom);
        }
        if let Some((scope, victims, reason)) = self.shortage(&tid) {
            let victim = self
                .victim(scope, victims, now)
                .or_else(|| self.early_victim(&tid, scope, victims, random, now));
            return victim.map_or(Verdict::Drop(reason), Verdict::MakeRoom);
        }
        if !self.ports.has_free(tid.local)
            && !self.ports.is_one_coming(tid.local)
            && let Some(id) = self.victim(tid.address(), Victims::Any, now)
        {
            return Verdict::MakeRoom(id);
        }
        let id = TransferId(self.next);
        self.next += 1;
        let lease = self.ports.take(tid.local, random);
        let port = lease.as_ref().map(Lease::port);
        let entry = Entry {
            tid,
            digest,
            state: State::HalfOpen,
            due: now + HALF_OPEN_CHANCE,
            lease,
        };
        self.list(id, &entry);
        self.entries.insert(id, entry);
        self.by_tid.entry(tid).or_default().push(id);
        if port.is_none() {
            self.ports.wait(tid.local, id);
            self.hand_out();
        }
        Verdict::Admit(id, port)
    }

    /// If the TID has all the transfers that it may have: the oldest of those that are half-open,
    /// if there is one.
    fn shortage_of_tid(&self, tid: &Tid) -> Option<Option<TransferId>> {
        let ids = self.by_tid.get(tid)?;
        let is_full = ids.len() >= TRANSFERS_PER_TID;
        is_full.then(|| self.half_open(ids).next())
    }

    /// Half-open transfers that a client has given up by asking for other files from the same port,
    /// the oldest first.
    pub fn given_up(&self, tid: &Tid) -> Vec<TransferId> {
        let ids = self.by_tid.get(tid).map_or(&[][..], Vec::as_slice);
        let count = self.half_open(ids).count();
        let given_up = count.saturating_sub(HALF_OPEN_PER_TID);
        self.half_open(ids).take(given_up).collect()
    }

    fn half_open<'a>(&'a self, ids: &'a [TransferId]) -> impl Iterator<Item = TransferId> + 'a {
        let ids = ids.iter().copied();
        ids.filter(|id| self.entries[id].state == State::HalfOpen)
    }

    /// What there is too little of for one more transfer: whose transfers to look at, which of
    /// these help, and the reason to drop the request where none of them can go. A port may be
    /// waited for, and is not among them.
    fn shortage(&self, tid: &Tid) -> Option<(Scope, Victims, DropReason)> {
        let quota = &self.quota;
        let (client, address) = (tid.client(), tid.address());
        let half_open = |scope| self.group(scope, |group| group.half_open.len());
        let is_full =
            |scope, most: Option<usize>| most.is_some_and(|most| half_open(scope) >= most);
        let held = self.group(client, Group::held);
        if quota.per_client.is_some_and(|most| held >= most) {
            return Some((client, Victims::Incomplete, DropReason::ClientFull));
        }
        if is_full(client, quota.half_open_per_client) {
            return Some((client, Victims::HalfOpen, DropReason::ClientHalfOpenFull));
        }
        if is_full(tid.network(), quota.half_open_per_network) {
            let reason = DropReason::NetworkHalfOpenFull;
            return Some((tid.network(), Victims::HalfOpen, reason));
        }
        // What stays free behind the new transfer is for hosts that have none.
        let stay_free = self.free_places(tid).saturating_sub(1);
        let held = self.group(tid.host(), Group::held);
        if held > 0 && held >= SHARE_PER_FREE_PLACE * stay_free {
            return Some((Scope::All, Victims::Incomplete, DropReason::Full));
        }
        if self.entries.len() >= quota.transfers {
            return Some((Scope::All, Victims::Any, DropReason::Full));
        }
        let full = DropReason::HalfOpenFull;
        if half_open(Scope::All) >= quota.half_open {
            return Some((Scope::All, Victims::HalfOpen, full));
        }
        let is_over = half_open(address) >= self.half_of_the_ports(tid);
        is_over.then_some((address, Victims::HalfOpen, full))
    }

    /// What is never answered must leave ports to others.
    fn half_of_the_ports(&self, tid: &Tid) -> usize {
        self.ports.capacity(tid.local).div_ceil(2).max(1)
    }

    /// Places, or ports where there are fewer, that no transfer holds but complete ones.
    fn free_places(&self, tid: &Tid) -> usize {
        let places = self
            .quota
            .transfers
            .saturating_sub(self.group(Scope::All, Group::held));
        let held = self.group(tid.address(), Group::held);
        places.min(self.ports.capacity(tid.local).saturating_sub(held))
    }

    fn group<T: Default>(&self, scope: Scope, look: impl FnOnce(&Group) -> T) -> T {
        self.groups.get(&scope).map(look).unwrap_or_default()
    }

    /// The transfer of this scope that makes room first, if one may: see the head of this file.
    pub fn makes_room(&self, scope: Scope, now: Instant) -> Option<TransferId> {
        self.victim(scope, Victims::Any, now)
    }

    fn victim(&self, scope: Scope, victims: Victims, now: Instant) -> Option<TransferId> {
        let group = self.groups.get(&scope)?;
        let complete = group.complete.first().filter(|(due, _)| *due <= now);
        if let Some((_, id)) = complete.filter(|_| victims == Victims::Any) {
            return Some(*id);
        }
        let helps = |(_, id): &Place| {
            let entry = &self.entries[id];
            match scope {
                // A request that waits for a port has none to give.
                Scope::Local(_) if victims == Victims::Any && entry.lease.is_none() => false,
                Scope::Local(_) => entry.tid.address() == scope,
                _ => true,
            }
        };
        let of = |group: &Group| {
            let mut overdue = group.overdue(victims, now).take(WITH_PORT);
            overdue.find(helps).map(|(_, id)| id)
        };
        let of_many = || {
            let hosts = self.ranking.iter().rev().take(RANKED);
            let mut groups = hosts.map(|(_, scope)| &self.groups[scope]);
            groups.find_map(of)
        };
        match scope {
            Scope::All | Scope::Local(_) => of_many().or_else(|| of(group)),
            Scope::Client(_) | Scope::Network(_) => of(group),
        }
    }

    /// A half-open transfer that makes room before its time, where half-open ones have taken all
    /// there is for them: any one of all, by its age, or the oldest of a host or network that has
    /// transfers.
    fn early_victim(
        &self,
        tid: &Tid,
        scope: Scope,
        victims: Victims,
        random: u64,
        now: Instant,
    ) -> Option<TransferId> {
        let (scope, share) = match scope {
            Scope::Client(_) | Scope::Network(_) => (scope, 0.0),
            _ if victims == Victims::Incomplete => return None,
            _ if self.group(tid.host(), Group::held) > 0 => (tid.host(), 0.0),
            _ => (scope, (random >> 32) as f64 / (1u64 << 32) as f64),
        };
        let places = &self.groups.get(&scope)?.half_open;
        let (oldest, _) = places.first()?;
        let range = (now + HALF_OPEN_CHANCE - HALF_OPEN_MIN_AGE).checked_duration_since(*oldest)?;
        let before = (*oldest + range.mul_f64(share), TransferId(u64::MAX));
        places.range(..=before).next_back().map(|(_, id)| *id)
    }

    /// Enters a transfer into the groups that it belongs to.
    fn list(&mut self, id: TransferId, entry: &Entry) {
        for scope in entry.tid.scopes() {
            let group = self.groups.entry(scope).or_default();
            group.places(entry.state).insert((entry.due, id));
        }
        self.rank(&entry.tid, entry.state, |held| held - 1);
    }

    fn unlist(&mut self, id: TransferId, entry: &Entry) {
        for scope in entry.tid.scopes() {
            if let Some(group) = self.groups.get_mut(&scope) {
                group.places(entry.state).remove(&(entry.due, id));
                if group.is_empty() {
                    self.groups.remove(&scope);
                }
            }
        }
        self.rank(&entry.tid, entry.state, |held| held + 1);
    }

    /// Moves a host to its rank after it got or lost a transfer in this state.
    fn rank(&mut self, tid: &Tid, state: State, before: impl FnOnce(usize) -> usize) {
        if state == State::Complete {
            return;
        }
        let host = tid.host();
        let held = self.group(host, Group::held);
        self.ranking.remove(&(before(held), host));
        if held > 1 {
            self.ranking.insert((held, host));
        }
    }

    /// Changes the state of a transfer, or when it may make room.
    fn change(&mut self, id: TransferId, state: State, due: Instant) {
        if let Some(mut entry) = self.entries.remove(&id) {
            self.unlist(id, &entry);
            (entry.state, entry.due) = (state, due);
            self.list(id, &entry);
            self.entries.insert(id, entry);
        }
    }

    /// The file of this one is whole: it counts for its client no more, and goes first where room
    /// is needed.
    pub fn finished(&mut self, id: TransferId, now: Instant) {
        let state = self.entries.get(&id).map(|entry| entry.state);
        if state.is_some_and(|state| state != State::Complete) {
            self.change(id, State::Complete, now);
        }
    }

    /// True for an upload whose file is stored and acknowledged.
    pub fn is_complete(&self, id: TransferId) -> bool {
        let state = self.entries.get(&id).map(|entry| entry.state);
        state == Some(State::Complete)
    }

    /// This one cannot make room before `until`.
    pub fn spare(&mut self, id: TransferId, until: Instant) {
        if let Some(state) = self.entries.get(&id).map(|entry| entry.state) {
            self.change(id, state, until);
        }
    }

    /// The peer has acknowledged something. Returns the older transfers of its TID: they have been
    /// replaced.
    pub fn proven(&mut self, id: TransferId, now: Instant) -> Vec<TransferId> {
        let entry = self.entries.get(&id);
        let Some(entry) = entry.filter(|entry| entry.state == State::HalfOpen) else {
            return Vec::new();
        };
        let tid = entry.tid;
        self.change(id, State::Established, now + patience(1));
        let ids = &self.by_tid[&tid];
        ids.iter()
            .copied()
            .take_while(|older| *older != id)
            .collect()
    }

    /// The transfer is over. Returns its port, to be [given back](Self::give_back) once its socket
    /// is closed.
    pub fn remove(&mut self, id: TransferId) -> Option<Lease> {
        let entry = self.entries.remove(&id)?;
        self.unlist(id, &entry);
        if let Some(ids) = self.by_tid.get_mut(&entry.tid) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_tid.remove(&entry.tid);
            }
        }
        if entry.lease.is_none() {
            self.ports.leave(entry.tid.local, id);
        }
        entry.lease
    }

    /// The socket at this port is about to be closed.
    pub fn is_closing(&mut self, lease: &mut Lease) {
        self.ports.is_closing(lease);
    }

    /// The socket at this port is closed, or was never opened. Ask [`granted`](Self::granted)
    /// afterwards.
    pub fn give_back(&mut self, lease: Lease) {
        self.ports.give_back(lease);
        self.hand_out();
    }

    /// Ports that came back belong to those that waited from now on, so that none is lost with a
    /// transfer that ends.
    fn hand_out(&mut self) {
        while let Some((id, lease)) = self.ports.granted() {
            let entry = self.entries.get_mut(&id);
            entry.expect("one that waits is here").lease = Some(lease);
            self.granted.push_back(id);
        }
    }

    /// Another program holds the port of this transfer. Returns another one; `None` where the
    /// transfer has to wait.
    pub fn is_taken(&mut self, id: TransferId, random: u64, now: Instant) -> Option<u16> {
        let entry = self.entries.get_mut(&id)?;
        let local = entry.tid.local;
        if let Some(lease) = entry.lease.take() {
            self.ports.set_aside(lease, now);
        }
        entry.lease = self.ports.take(local, random);
        let port = entry.lease.as_ref().map(Lease::port);
        if port.is_none() {
            self.ports.wait(local, id);
            self.hand_out();
        }
        port
    }

    /// The port of this transfer; 0 lets the system choose. `None` while the transfer waits for
    /// one.
    pub fn port(&self, id: TransferId) -> Option<u16> {
        let lease = self.entries.get(&id)?.lease.as_ref();
        lease.map(Lease::port)
    }

    /// True where the port of this transfer is one of a range.
    pub fn has_chosen_port(&self, id: TransferId) -> bool {
        let lease = self.entries.get(&id).and_then(|entry| entry.lease.as_ref());
        lease.is_some_and(Lease::is_chosen)
    }

    /// True while this transfer waits for a port.
    pub fn waits(&self, id: TransferId) -> bool {
        let entry = self.entries.get(&id);
        entry.is_some_and(|entry| entry.lease.is_none())
    }

    /// The next transfer that has waited for a port and now has this one.
    pub fn granted(&mut self, now: Instant) -> Option<(TransferId, u16)> {
        self.ports.advance(now);
        self.hand_out();
        while let Some(id) = self.granted.pop_front() {
            if let Some(lease) = self.entries.get(&id).and_then(|entry| entry.lease.as_ref()) {
                let port = lease.port();
                self.spare(id, now + HALF_OPEN_CHANCE);
                return Some((id, port));
            }
        }
        None
    }

    /// When [`granted`](Self::granted) may have something, if no port is given back before.
    pub fn due(&self) -> Option<Instant> {
        self.ports.due()
    }

    /// Local addresses, 16 at most, where more requests wait for a port than ports are about to
    /// come back.
    pub fn short_of_ports(&self) -> Vec<Scope> {
        let addresses = self.ports.short().take(16);
        addresses.map(Scope::Local).collect()
    }

    /// True where more requests wait for a port of this address than ports are about to come back.
    pub fn is_short_of_ports(&self, scope: Scope) -> bool {
        matches!(scope, Scope::Local(address) if self.ports.is_short(address))
    }

    /// True where any transfer waits for a port.
    pub fn has_waiting(&self) -> bool {
        self.ports.has_waiting()
    }

    /// True where nothing is left of any transfer.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
            && self.by_tid.is_empty()
            && self.groups.is_empty()
            && self.ranking.is_empty()
            && self.ports.is_idle()
            && self.granted.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PORT_ASIDE;

    const QUOTA: Quota = Quota {
        transfers: 100,
        per_client: None,
        half_open: 100,
        half_open_per_client: None,
        half_open_per_network: None,
    };
    const MS: Duration = Duration::from_millis(1);

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
            Verdict::Admit(id, _) => id,
            other => panic!("not admitted: {other:?}"),
        }
    }

    /// With more ports than anything here takes.
    fn desk(quota: Quota) -> Desk {
        Desk::new(quota, Supply::System(28_000))
    }

    /// With ports 40000 and on.
    fn with_ports(quota: Quota, ports: u16) -> Desk {
        Desk::new(quota, Supply::Range(40_000..=40_000 + ports - 1))
    }

    impl Desk {
        fn ask(&mut self, tid: Tid, digest: u64, now: Instant) -> Verdict {
            self.admit(tid, digest, 0, now)
        }

        /// The transfer is over, and its socket is closed.
        fn end(&mut self, id: TransferId) {
            if let Some(lease) = self.remove(id) {
                self.give_back(lease);
            }
        }

        /// What the loop does: the transfer that is named makes room, until there is an answer.
        fn insist(&mut self, tid: Tid, now: Instant) -> Verdict {
            let mut verdict = self.ask(tid, 0, now);
            while let Verdict::MakeRoom(id) = verdict {
                self.end(id);
                verdict = self.admit(tid, 0, 0, now);
            }
            verdict
        }

        fn established(&mut self, tid: Tid, now: Instant) -> TransferId {
            let id = admitted(self.ask(tid, 0, now));
            self.proven(id, now);
            id
        }

        fn held_by(&self, host: u8) -> usize {
            self.group(tid(host, 1).client(), Group::held)
        }
    }

    #[test]
    fn the_same_request_belongs_to_its_transfer_until_that_is_over() {
        let (mut desk, now) = (desk(QUOTA), start());
        let id = admitted(desk.ask(tid(1, 1000), 7, now));
        assert_eq!(desk.current(&tid(1, 1000), 7), Some(id));
        assert_eq!(desk.current(&tid(1, 1000), 8), None);
        assert!(desk.proven(id, now).is_empty());
        let again = admitted(desk.ask(tid(1, 1000), 7, now));
        assert_eq!(desk.current(&tid(1, 1000), 7), Some(again), "the newest");
        desk.end(again);
        assert_eq!(desk.current(&tid(1, 1000), 7), Some(id));
        desk.end(id);
        assert_eq!(desk.current(&tid(1, 1000), 7), None);
    }

    #[test]
    fn other_octets_from_one_tid_are_a_new_transfer_that_replaces_the_old_when_proven() {
        let (mut desk, now) = (desk(QUOTA), start());
        let old = admitted(desk.ask(tid(1, 49153), 1, now));
        desk.proven(old, now);
        let new = admitted(desk.ask(tid(1, 49153), 2, now));
        assert_eq!(desk.proven(new, now), [old]);
        assert_eq!(desk.proven(new, now), [], "said once");
    }

    /// A client that asks for other files from the same port has given the older requests up, and
    /// is never met with silence.
    #[test]
    fn one_tid_has_two_half_open_transfers_and_older_ones_are_given_up() {
        let (mut desk, now) = (desk(QUOTA), start());
        let asked = tid(1, 1000);
        let ids = [1, 2, 3, 4].map(|digest| admitted(desk.ask(asked, digest, now)));
        assert_eq!(desk.given_up(&asked), ids[..2]);
        let verdict = desk.ask(asked, 5, now);
        assert_eq!(
            verdict,
            Verdict::MakeRoom(ids[0]),
            "where they are still there"
        );
        desk.end(ids[0]);
        desk.proven(ids[1], now);
        assert_eq!(
            desk.given_up(&asked),
            [],
            "an established one does not count"
        );
        assert_eq!(desk.given_up(&tid(1, 1001)), []);
    }

    /// One port that is acknowledged again and again takes no more than its share of the table.
    #[test]
    fn one_tid_has_four_transfers_at_once_and_no_more() {
        let (mut desk, now) = (desk(QUOTA), start());
        let ids = [1, 2, 3, 4].map(|digest| {
            let id = admitted(desk.ask(tid(1, 1000), digest, now));
            desk.proven(id, now);
            id
        });
        assert_eq!(ids.len(), TRANSFERS_PER_TID);
        let full = Verdict::Drop(DropReason::Duplicate);
        assert_eq!(desk.ask(tid(1, 1000), 5, now), full);
        // Nor has it more for asking for the same again.
        assert_eq!(desk.ask(tid(1, 1000), 4, now), full);
        admitted(desk.ask(tid(1, 1001), 5, now));
        desk.end(ids[1]);
        let half_open = admitted(desk.ask(tid(1, 1000), 5, now));
        let verdict = desk.ask(tid(1, 1000), 6, now);
        assert_eq!(verdict, Verdict::MakeRoom(half_open));
    }

    #[test]
    fn a_tid_that_has_all_its_transfers_evicts_no_other() {
        let now = start();
        let mut desk = desk(Quota {
            transfers: TRANSFERS_PER_TID + 1,
            ..QUOTA
        });
        for digest in 0..TRANSFERS_PER_TID as u64 {
            let id = admitted(desk.ask(tid(1, 1000), digest, now));
            desk.proven(id, now);
        }
        let later = now + HALF_OPEN_CHANCE;
        let full = Verdict::Drop(DropReason::Duplicate);
        assert_eq!(desk.ask(tid(1, 1000), 9, later), full);
    }

    #[test]
    fn a_tid_is_port_and_asked_address_too() {
        let (mut desk, now) = (desk(QUOTA), start());
        let first = admitted(desk.ask(tid(1, 1000), 7, now));
        let other_port = admitted(desk.ask(tid(1, 1001), 7, now));
        let local = ([127, 0, 0, 9], 69).into();
        let other_local = admitted(desk.ask(
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
        let mut desk = desk(Quota {
            transfers: 3,
            per_client: Some(2),
            ..QUOTA
        });
        let first = admitted(desk.ask(tid(1, 1), 0, now));
        admitted(desk.ask(tid(1, 2), 0, now));
        let full = Verdict::Drop(DropReason::ClientFull);
        assert_eq!(desk.ask(tid(1, 3), 0, now), full);
        admitted(desk.ask(tid(2, 1), 0, now));
        let full = Verdict::Drop(DropReason::Full);
        assert_eq!(desk.ask(tid(3, 1), 0, now), full);
        desk.end(first);
        let last_place = desk.ask(tid(1, 3), 0, now);
        assert_eq!(last_place, full, "kept for addresses that have none");
        admitted(desk.ask(tid(3, 1), 0, now));
        assert_eq!(desk.entries.len(), 3);
    }

    #[test]
    fn the_oldest_half_open_makes_room_after_its_chance() {
        let now = start();
        let mut desk = desk(Quota {
            half_open: 2,
            ..QUOTA
        });
        desk.established(tid(1, 1), now);
        assert!(!desk.is_tense(&tid(4, 1)));
        let oldest = admitted(desk.ask(tid(2, 1), 0, now));
        assert!(desk.is_tense(&tid(4, 1)));
        let younger = admitted(desk.ask(tid(3, 1), 0, now + MS));
        let full = Verdict::Drop(DropReason::HalfOpenFull);
        assert_eq!(desk.ask(tid(4, 1), 0, now + HALF_OPEN_MIN_AGE - MS), full);
        let later = now + HALF_OPEN_CHANCE;
        assert_eq!(desk.ask(tid(4, 1), 0, later), Verdict::MakeRoom(oldest));
        desk.spare(oldest, later + HALF_OPEN_CHANCE);
        let later = later + MS;
        assert_eq!(desk.ask(tid(4, 1), 0, later), Verdict::MakeRoom(younger));
        desk.end(younger);
        admitted(desk.ask(tid(4, 1), 0, later));
    }

    /// One host can use all addresses of its IPv6 network.
    #[test]
    fn an_ipv6_network_has_the_share_of_one_address() {
        let (mut desk, now) = (desk(QUOTA), start());
        let of = |network: u16, host: u16| Tid {
            peer: (Ipv6Addr::new(0xfd00, network, 0, 0, host, 0, 0, host), 1000).into(),
            local: ([0, 0, 0, 0, 0, 0, 0, 1], 69).into(),
        };
        let mut taken = 0;
        while let Verdict::Admit(id, _) = desk.ask(of(1, taken), 0, now) {
            desk.proven(id, now);
            taken += 1;
        }
        assert!((50..100).contains(&taken), "{taken} places");
        let others = (2..8).map(|network| desk.ask(of(network, 1), 0, now));
        assert!(
            others
                .into_iter()
                .all(|verdict| matches!(verdict, Verdict::Admit(..)))
        );
        // Where a place is needed, its silent transfers go first.
        let later = now + patience(1);
        let quiet = admitted(desk.insist(of(9, 1), later));
        desk.proven(quiet, later);
        while desk.entries.len() < 100 {
            admitted(desk.ask(of(10 + desk.entries.len() as u16, 1), 0, later));
        }
        let Verdict::MakeRoom(id) = desk.ask(of(500, 1), 0, later) else {
            panic!("silent transfers make room");
        };
        let network = desk.entries[&id].tid.network();
        assert_eq!(network, of(1, 0).network());
    }

    /// A flood fills all places again and again: a client that answers at once is served beside it,
    /// and the place of each transfer is safe for a moment.
    #[test]
    fn in_a_flood_half_open_transfers_make_room_before_their_time() {
        let now = start();
        let mut desk = desk(Quota {
            transfers: 1000,
            half_open: 100,
            ..QUOTA
        });
        let flood = |n: u64| tid(2 + (n % 200) as u8, 1 + (n / 200) as u16);
        for n in 0..100 {
            admitted(desk.ask(flood(n), 0, now + MS * n as u32));
        }
        let full = Verdict::Drop(DropReason::HalfOpenFull);
        let early = now + HALF_OPEN_MIN_AGE - MS;
        assert_eq!(desk.ask(tid(1, 1), 0, early), full);
        // By then half of them have had the least time.
        let later = now + HALF_OPEN_MIN_AGE + 49 * MS;
        let mut victims = BTreeSet::new();
        for step in 0..64u64 {
            let Verdict::MakeRoom(id) = desk.admit(tid(1, 1), 0, step << 58, later) else {
                panic!("a flood keeps its places");
            };
            victims.insert(id);
        }
        assert!(victims.len() > 16, "not the oldest only: {victims:?}");
        assert!(victims.iter().all(|id| id.0 <= 50), "{victims:?}");
        // An address that has transfers takes the places of no other.
        let own = admitted(desk.insist(tid(1, 1), later));
        assert_eq!(desk.ask(tid(1, 2), 0, later + HALF_OPEN_MIN_AGE - MS), full);
        let later = later + HALF_OPEN_MIN_AGE;
        assert_eq!(desk.ask(tid(1, 2), 0, later), Verdict::MakeRoom(own));
    }

    /// Where the table is full, those that never answered are not kept at the cost of those that
    /// ask.
    #[test]
    fn a_full_table_makes_room_in_the_same_way() {
        let now = start();
        let mut desk = desk(Quota {
            transfers: 2,
            ..QUOTA
        });
        let running = desk.established(tid(1, 1), now);
        let silent = admitted(desk.ask(tid(2, 1), 0, now));
        let full = Verdict::Drop(DropReason::Full);
        assert_eq!(desk.ask(tid(3, 1), 0, now), full);
        let later = now + HALF_OPEN_CHANCE;
        assert_eq!(desk.ask(tid(3, 1), 0, later), Verdict::MakeRoom(silent));
        desk.end(silent);
        desk.established(tid(3, 1), later);
        desk.spare(running, later + 10 * HALF_OPEN_CHANCE);
        let later = later + HALF_OPEN_CHANCE;
        assert_eq!(desk.ask(tid(4, 1), 0, later), full, "all of them run");
    }

    /// A request is one packet, and an acknowledgement is another.
    #[test]
    fn an_established_transfer_may_be_silent_for_a_second_and_one_for_each_window() {
        assert_eq!(patience(0), HALF_OPEN_CHANCE);
        assert_eq!(patience(1), HALF_OPEN_CHANCE + SILENCE_PER_WINDOW);
        assert_eq!(patience(58), MOST_SILENCE - SILENCE_PER_WINDOW);
        assert_eq!(patience(59), MOST_SILENCE);
        assert_eq!(patience(u64::MAX), MOST_SILENCE);
        let now = start();
        let mut desk = desk(Quota {
            transfers: 1,
            ..QUOTA
        });
        let id = desk.established(tid(1, 1), now);
        let full = Verdict::Drop(DropReason::Full);
        assert_eq!(desk.ask(tid(2, 1), 0, now + patience(1) - MS), full);
        // Meanwhile it has got further, which the desk learns when it asks for the place.
        let later = now + patience(1);
        assert_eq!(desk.ask(tid(2, 1), 0, later), Verdict::MakeRoom(id));
        desk.spare(id, later + patience(9));
        assert_eq!(desk.ask(tid(2, 1), 0, later + patience(9) - MS), full);
        let later = later + patience(9);
        assert_eq!(desk.ask(tid(2, 1), 0, later), Verdict::MakeRoom(id));
    }

    #[test]
    fn who_never_answers_has_few_where_that_was_asked_for() {
        let now = start();
        let mut desk = desk(Quota {
            half_open_per_client: Some(2),
            half_open_per_network: Some(3),
            ..QUOTA
        });
        let first = admitted(desk.ask(tid(1, 1), 0, now));
        let second = admitted(desk.ask(tid(1, 2), 0, now));
        let full = Verdict::Drop(DropReason::ClientHalfOpenFull);
        assert_eq!(desk.ask(tid(1, 3), 0, now), full);
        // Whoever answers may have more; so may the neighbours, but together no more than three.
        desk.proven(first, now);
        admitted(desk.ask(tid(1, 3), 0, now));
        admitted(desk.ask(tid(2, 1), 0, now));
        let full = Verdict::Drop(DropReason::NetworkHalfOpenFull);
        assert_eq!(desk.ask(tid(3, 1), 0, now), full);
        let elsewhere = Tid {
            peer: ([127, 0, 1, 1], 1).into(),
            ..tid(1, 1)
        };
        admitted(desk.ask(elsewhere, 0, now));
        desk.end(second);
        admitted(desk.ask(tid(3, 1), 0, now));
        // Of IPv6, 64 bits are one network.
        let v6 = |text: &str| Tid {
            peer: SocketAddr::new(text.parse().expect("an address"), 1),
            ..tid(1, 1)
        };
        for host in ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:0:1"] {
            admitted(desk.ask(v6(host), 0, now));
        }
        assert_eq!(desk.ask(v6("2001:db8::3"), 0, now), full);
        admitted(desk.ask(v6("2001:db8:0:1::3"), 0, now));
    }

    /// Requests that were never answered may be forged, or those of a ROM that was reset.
    #[test]
    fn a_quota_makes_room_among_the_transfers_that_it_counts_and_keeps_the_established_ones() {
        let (per_client, half_open) = (DropReason::ClientFull, DropReason::ClientHalfOpenFull);
        let per_network = DropReason::NetworkHalfOpenFull;
        for (host, reason) in [(1, per_client), (1, half_open), (7, per_network)] {
            let two = |wanted| (reason == wanted).then_some(2);
            let mut desk = desk(Quota {
                per_client: two(per_client),
                half_open_per_client: two(half_open),
                half_open_per_network: two(per_network),
                ..QUOTA
            });
            let now = start();
            // The oldest transfer of all is of another network, and is left alone.
            let elsewhere = Tid {
                peer: ([127, 9, 0, 1], 1).into(),
                ..tid(1, 1)
            };
            admitted(desk.ask(elsewhere, 0, now));
            let first = admitted(desk.ask(tid(host, 1), 0, now + MS));
            let second = admitted(desk.ask(tid(host, 2), 0, now + 2 * MS));
            let full = Verdict::Drop(reason);
            assert_eq!(desk.ask(tid(1, 3), 0, now + HALF_OPEN_MIN_AGE), full);
            // Forged requests cannot keep the places of an address, or of its network, for long.
            let soon = now + HALF_OPEN_MIN_AGE + MS;
            let room = Verdict::MakeRoom(first);
            assert_eq!(desk.ask(tid(1, 3), 0, soon), room, "{reason:?}");
            let later = now + HALF_OPEN_CHANCE + MS;
            let room = Verdict::MakeRoom(first);
            assert_eq!(desk.ask(tid(1, 3), 0, later), room, "{reason:?}");
            // Established transfers count for one of the three, and do not go.
            desk.proven(first, later);
            desk.proven(second, later);
            let verdict = desk.ask(tid(1, 3), 0, later + MS);
            assert_eq!(verdict == full, reason == per_client, "{verdict:?}");
        }
    }

    /// 5,000 boards behind one address boot at once.
    #[test]
    fn by_default_one_address_may_have_nearly_all() {
        let now = start();
        let mut desk = desk(Quota {
            transfers: 5_334,
            half_open: 5_334,
            ..QUOTA
        });
        for port in 1..=5_000 {
            admitted(desk.ask(tid(1, port), 0, now));
        }
    }

    /// Of any number of places, and of ports where there are fewer.
    #[test]
    fn a_share_of_the_places_is_kept_for_addresses_that_have_none() {
        let shares = [
            (1, 1),
            (2, 1),
            (3, 2),
            (8, 7),
            (16, 15),
            (31, 29),
            (32, 30),
            (100, 93),
            (1000, 937),
        ];
        let full = Verdict::Drop(DropReason::Full);
        let now = start();
        for (places, share) in shares {
            let quota = |transfers| Quota {
                transfers,
                half_open: transfers,
                ..QUOTA
            };
            for (mut desk, what) in [
                (desk(quota(places)), "places"),
                (with_ports(quota(2000), places as u16), "ports"),
            ] {
                let mut established = |tid: Tid| {
                    let verdict = desk.insist(tid, now);
                    if let Verdict::Admit(id, _) = verdict {
                        desk.proven(id, now);
                    }
                    verdict
                };
                let of_one = (1..=1001).take_while(|port| established(tid(1, *port)) != full);
                assert_eq!(of_one.count(), share, "of {places} {what}");
                // A second address has the same share of the rest, and none of the last place.
                let rest = places - share;
                let of_other = (1..=1001).take_while(|port| {
                    let verdict = established(tid(2, *port));
                    matches!(verdict, Verdict::Admit(_, Some(_)))
                });
                assert_eq!(of_other.count(), (rest * 15 / 16).max(rest.min(1)));
                assert_eq!(established(tid(1, 1002)), full);
            }
        }
    }

    #[test]
    fn an_address_that_has_none_gets_the_last_place() {
        let now = start();
        let mut desk = desk(Quota {
            transfers: 1600,
            half_open: 1600,
            ..QUOTA
        });
        let full = Verdict::Drop(DropReason::Full);
        for (host, share) in [(1, 1500), (2, 93)] {
            let ports = (1..=1600).take_while(|port| desk.insist(tid(host, *port), now) != full);
            assert_eq!(ports.count(), share);
        }
        for host in 3..=9 {
            admitted(desk.insist(tid(host, 1), now));
        }
        assert_eq!(desk.insist(tid(10, 1), now), full);
        assert_eq!(desk.entries.len(), 1600);
    }

    #[test]
    fn the_address_with_the_most_transfers_gives_way_first() {
        let now = start();
        let mut desk = desk(Quota {
            transfers: 40,
            ..QUOTA
        });
        // The oldest transfers of all are those of others.
        for host in 10..20 {
            admitted(desk.ask(tid(host, 1), 0, now));
        }
        let flood: Vec<_> = (1..=28)
            .map(|port| admitted(desk.ask(tid(1, port), 0, now + MS)))
            .collect();
        for host in 20..22 {
            admitted(desk.ask(tid(host, 1), 0, now + MS));
        }
        let later = now + HALF_OPEN_CHANCE + MS;
        assert_eq!(desk.ask(tid(2, 1), 0, later), Verdict::MakeRoom(flood[0]));
        // A lab gets as many as the flood has, and the flood nothing of the lab's.
        for round in 0u16..100 {
            let at = later + u32::from(round) * 100 * MS;
            desk.insist(tid(2, 1 + round), at);
            desk.insist(tid(1, 100 + round), at);
        }
        let counts = (desk.held_by(1), desk.held_by(2));
        assert!(counts.0.abs_diff(counts.1) <= 2, "{counts:?}");
        assert!((10..22).all(|host| desk.held_by(host) == 1));
        assert_eq!(desk.entries.len(), 39, "one is kept");
    }

    #[test]
    fn silent_transfers_of_one_address_that_were_answered_once_make_room_too() {
        let now = start();
        let mut desk = desk(Quota {
            transfers: 16,
            ..QUOTA
        });
        let first = desk.established(tid(1, 1), now);
        for port in 2..=15 {
            desk.established(tid(1, port), now);
        }
        desk.established(tid(3, 1), now);
        let full = Verdict::Drop(DropReason::Full);
        assert_eq!(desk.ask(tid(2, 1), 0, now + HALF_OPEN_CHANCE), full);
        let later = now + patience(1);
        assert_eq!(desk.ask(tid(2, 1), 0, later), Verdict::MakeRoom(first));
    }

    #[test]
    fn what_is_finished_counts_for_nobody_and_goes_first() {
        let now = start();
        let mut desk = desk(Quota {
            transfers: 3,
            per_client: Some(1),
            ..QUOTA
        });
        let silent = admitted(desk.ask(tid(9, 1), 0, now));
        let later = now + HALF_OPEN_CHANCE;
        let done = desk.established(tid(1, 1), later);
        desk.finished(done, later);
        desk.finished(done, later + MS);
        let running = admitted(desk.ask(tid(1, 2), 0, later));
        let full_for_it = Verdict::Drop(DropReason::ClientFull);
        assert_eq!(desk.ask(tid(1, 3), 0, later), full_for_it);
        assert_eq!(desk.ask(tid(2, 1), 0, later), Verdict::MakeRoom(done));
        // One that cannot go now is not named again at once.
        desk.spare(done, later + HALF_OPEN_CHANCE);
        assert_eq!(desk.ask(tid(2, 1), 0, later), Verdict::MakeRoom(silent));
        [silent, done].into_iter().for_each(|id| desk.end(id));
        assert_eq!(desk.ask(tid(1, 3), 0, later), full_for_it);
        desk.end(running);
        assert!(desk.is_empty());
    }

    #[test]
    fn complete_uploads_give_their_ports_too() {
        let now = start();
        let mut desk = with_ports(QUOTA, 3);
        let running = desk.established(tid(1, 1), now);
        let done = desk.established(tid(1, 2), now);
        desk.finished(done, now);
        let silent = admitted(desk.ask(tid(2, 1), 0, now));
        assert_eq!(desk.ask(tid(3, 1), 0, now), Verdict::MakeRoom(done));
        // Its socket has still to be closed: the request waits for that, and no other transfer has
        // to go for it.
        let mut lease = desk.remove(done).expect("its port");
        desk.is_closing(&mut lease);
        let verdict = desk.admit(tid(3, 1), 0, 0, now);
        let Verdict::Admit(waits, None) = verdict else {
            panic!("{verdict:?}");
        };
        assert!(desk.waits(waits) && !desk.has_chosen_port(waits));
        assert_eq!(desk.granted(now), None);
        let port = lease.port();
        desk.give_back(lease);
        assert_eq!(desk.granted(now), Some((waits, port)));
        assert!(!desk.waits(waits) && desk.has_chosen_port(waits));
        [running, silent, waits]
            .into_iter()
            .for_each(|id| desk.end(id));
        assert!(desk.is_empty());
    }

    #[test]
    fn half_open_transfers_have_half_of_the_ports_of_each_address() {
        let now = start();
        for supply in [Supply::Range(40_000..=40_009), Supply::System(10)] {
            let mut desk = Desk::new(QUOTA, supply);
            let ids: Vec<_> = (1..=5)
                .map(|host| admitted(desk.ask(tid(host, 1), 0, now)))
                .collect();
            let full = Verdict::Drop(DropReason::HalfOpenFull);
            assert_eq!(desk.ask(tid(6, 1), 0, now), full);
            assert!(desk.is_tense(&tid(6, 1)));
            let mut elsewhere = tid(7, 1);
            elsewhere.local = ([127, 0, 0, 2], 69).into();
            assert!(!desk.is_tense(&elsewhere));
            admitted(desk.ask(elsewhere, 0, now - MS));
            // It is the oldest, and its port would be of no use.
            let later = now + HALF_OPEN_CHANCE;
            assert_eq!(desk.ask(tid(6, 1), 0, later), Verdict::MakeRoom(ids[0]));
            // A second port of requests at the same address has no more ports.
            let mut beside = tid(8, 1);
            beside.local.set_port(6969);
            assert_eq!(desk.ask(beside, 0, now), full);
        }
    }

    /// Those that wait cost a moment each, however many ports there are.
    #[test]
    fn requests_without_a_port_wait_in_line_and_are_half_of_the_ports_at_most() {
        let now = start();
        let mut desk = with_ports(QUOTA, 4);
        let running: Vec<_> = (11..=14)
            .map(|host| desk.established(tid(host, 1), now))
            .collect();
        let waiting: Vec<_> = (2..=3).map(|host| desk.ask(tid(host, 1), 0, now)).collect();
        assert!(
            waiting
                .iter()
                .all(|it| matches!(it, Verdict::Admit(_, None)))
        );
        let full = Verdict::Drop(DropReason::HalfOpenFull);
        assert_eq!(desk.ask(tid(4, 1), 0, now), full);
        let [first, second] = [waiting[0], waiting[1]].map(admitted);
        desk.end(first);
        assert_eq!(desk.granted(now), None);
        let late = now + HALF_OPEN_CHANCE - MS;
        desk.end(running[2]);
        assert!(matches!(desk.granted(late), Some((id, _)) if id == second));
        // It has a second from the moment when it can be answered.
        let due = late + HALF_OPEN_CHANCE;
        assert_eq!(desk.entries[&second].due, due);
    }

    /// One that waits for a port has none to give.
    #[test]
    fn a_request_that_waits_makes_no_room_for_another_that_needs_a_port() {
        let now = start();
        let mut desk = with_ports(QUOTA, 6);
        for host in 11..=16 {
            desk.established(tid(host, 1), now);
        }
        let waits = admitted(desk.ask(tid(2, 1), 0, now));
        let later = now + HALF_OPEN_CHANCE;
        assert!(desk.waits(waits));
        assert!(matches!(
            desk.ask(tid(3, 1), 0, later),
            Verdict::Admit(_, None)
        ));
    }

    #[test]
    fn a_port_that_another_program_holds_costs_one_attempt() {
        let now = start();
        let mut desk = with_ports(QUOTA, 2);
        let verdict = desk.ask(tid(1, 1), 0, now);
        let Verdict::Admit(id, Some(held)) = verdict else {
            panic!("{verdict:?}");
        };
        let other = desk.is_taken(id, 0, now).expect("the other port");
        assert_ne!(held, other);
        assert_eq!(desk.is_taken(id, 0, now), None, "both are held");
        assert!(desk.waits(id));
        assert_eq!(desk.due(), Some(now + PORT_ASIDE));
        assert_eq!(desk.granted(now + PORT_ASIDE), Some((id, held)));
        desk.end(id);
        assert_eq!(desk.granted(now + PORT_ASIDE), None);
        assert!(desk.is_empty());
    }

    #[test]
    fn a_flood_leaves_nothing_behind() {
        let now = start();
        let mut desk = with_ports(QUOTA, 50);
        for round in 0..10_000u32 {
            let id = admitted(desk.ask(tid((round % 250) as u8, round as u16), 0, now));
            if round % 3 == 0 {
                desk.proven(id, now);
            }
            if round % 9 == 0 {
                desk.finished(id, now);
            }
            desk.end(id);
        }
        assert!(desk.is_empty(), "{desk:?}");
    }
}
