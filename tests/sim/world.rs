//! One client, one server, two links and a clock that jumps from event to event. A seed gives a
//! world; a world runs the same way every time.

use crate::ends::{Ask, Datagram, End, File, Outbox, Receiving, Rest, Sending, Stored};
use crate::link::{Arrival, Link, Spec};
use crate::quirks::{Habit, Quirk};
use crate::receivers;
use crate::rng::Rng;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};
use tftpool::unversioned::proto::{Agreed, Outcome, Policy, Retransmit, Terms};
use tftpool::unversioned::wire::{Direction, OptionName, Options, Packet, parse};

/// A full send buffer has drained after this long.
const DRAIN: Duration = Duration::from_micros(100);

/// Everything that decides how a transfer goes.
#[derive(Clone, Debug)]
pub struct World {
    pub seed: u64,
    pub ask: Ask,
    pub terms: Terms,
    /// Client, server.
    pub policies: [Policy; 2],
    /// `None`: the house's own machine.
    pub habit: Option<Habit>,
    pub dally: Duration,
    /// From the client, from the server.
    pub links: [Spec; 2],
    /// Datagrams that leave at once.
    pub room: usize,
    /// A packet for an end that is gone brings an ICMP message back.
    pub icmp: bool,
    /// Poll at instants when there is nothing to do.
    pub nosy: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub client: Outcome,
    /// Of the transfer that the client knows, if it ever heard of one.
    pub server: Option<Outcome>,
    pub stored: Stored,
    /// Datagrams sent: by the client, by the server.
    pub packets: [Counts; 2],
    /// When the receiving end first acknowledged the last block.
    pub stored_at: Option<Duration>,
    /// When the sending end was done, and when both were.
    pub sender_done: Duration,
    pub took: Duration,
    pub events: u64,
    /// A final ACK reached a sender that was still there.
    pub final_ack_arrived: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub opening: u64,
    pub data: u64,
    pub acks: u64,
    pub errors: u64,
}

pub const CLIENT: usize = 0;
pub const SERVER: usize = 1;

struct Side {
    end: Box<dyn End>,
    rest: Rest,
    /// When it polls next, on the world's clock.
    wake: Option<Duration>,
}

impl Side {
    fn outcome(&self) -> Outcome {
        match self.rest {
            Rest::Done(outcome) => outcome,
            rest => panic!("not done: {rest:?}"),
        }
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    at: Duration,
    number: u64,
    to: usize,
    /// The server's TID; 0 for a request, which goes to the listening port.
    tid: u32,
    octets: Vec<u8>,
    is_final_ack: bool,
    is_icmp: bool,
}

impl World {
    pub fn agreed(&self) -> Agreed {
        self.ask.granted(&self.terms).0
    }

    pub fn blocks(&self) -> u64 {
        self.ask.file.last(self.agreed().blksize)
    }

    pub fn sender(&self) -> usize {
        match self.ask.direction {
            Direction::Read => SERVER,
            Direction::Write => CLIENT,
        }
    }

    pub fn run(&self, trace: bool) -> Report {
        Run::new(self, trace).run()
    }
}

struct Run<'a> {
    world: &'a World,
    base: Instant,
    now: Duration,
    links: [Link; 2],
    rng: Rng,
    flights: BinaryHeap<Reverse<Flight>>,
    client: Side,
    /// One for each TID, from 1; only the newest lives.
    servers: Vec<Side>,
    /// The TID that the client has heard first.
    heard: Option<u32>,
    out: Outbox,
    report: Report,
    numbers: u64,
    trace: bool,
}

impl<'a> Run<'a> {
    #[allow(clippy::disallowed_methods)] // one real instant, from which the virtual clock counts
    fn new(world: &'a World, trace: bool) -> Self {
        let base = Instant::now();
        let mut rng = Rng::new(world.seed);
        let client: Box<dyn End> = match (world.ask.direction, world.habit) {
            (Direction::Read, Some(habit)) => Box::new(Quirk::new(habit, &world.ask, base)),
            (Direction::Read, None) => Box::new(Receiving::client(
                &world.ask,
                world.dally,
                &world.policies[CLIENT],
                base,
            )),
            (Direction::Write, _) => {
                Box::new(Sending::client(&world.ask, &world.policies[CLIENT], base))
            }
        };
        Self {
            world,
            base,
            now: Duration::ZERO,
            links: [
                Link::new(world.links[CLIENT].clone(), rng.fork()),
                Link::new(world.links[SERVER].clone(), rng.fork()),
            ],
            rng,
            flights: BinaryHeap::new(),
            client: Side {
                end: client,
                rest: Rest::Until(base),
                wake: Some(Duration::ZERO),
            },
            servers: Vec::new(),
            heard: None,
            out: Outbox {
                datagrams: Vec::new(),
                room: world.room,
                spare: Vec::new(),
            },
            report: Report {
                client: Outcome::Unanswered,
                server: None,
                stored: Stored::default(),
                packets: [Counts::default(); 2],
                stored_at: None,
                sender_done: Duration::ZERO,
                took: Duration::ZERO,
                events: 0,
                final_ack_arrived: false,
            },
            numbers: 0,
            trace,
        }
    }

    fn run(mut self) -> Report {
        let window = u64::from(self.world.agreed().windowsize);
        let most_events = 200_000 + 1200 * (self.world.blocks() + window);
        while let Some(next) = self.next_event() {
            if self.world.nosy && self.rng.one_in(4) {
                self.peek_before(next);
            }
            self.now = next;
            self.report.events += 1;
            assert!(self.report.events < most_events, "no end in sight");
            if self
                .flights
                .peek()
                .is_some_and(|flight| flight.0.at <= next)
            {
                let Reverse(flight) = self.flights.pop().expect("just seen");
                self.arrive(flight);
            } else {
                for side in [CLIENT, SERVER] {
                    if self
                        .side(side)
                        .is_some_and(|it| it.wake.is_some_and(|at| at <= next))
                    {
                        self.poll(side);
                    }
                }
            }
        }
        self.finish()
    }

    /// The next instant at which something happens; `None` once both ends are done.
    fn next_event(&self) -> Option<Duration> {
        let wakes = [
            self.client.wake,
            self.servers.last().and_then(|side| side.wake),
        ];
        let wake = wakes.into_iter().flatten().min();
        let nobody = wake.is_none() && (!self.servers.is_empty() || self.flights.is_empty());
        let flight = self.flights.peek().map(|flight| flight.0.at);
        [wake, flight]
            .into_iter()
            .flatten()
            .min()
            .filter(|_| !nobody)
    }

    fn side(&mut self, side: usize) -> Option<&mut Side> {
        match side {
            CLIENT => Some(&mut self.client),
            _ => self.servers.last_mut(),
        }
    }

    fn arrive(&mut self, flight: Flight) {
        let now = self.base + self.now;
        let to = flight.to;
        if flight.is_icmp {
            if let Some(side) = self.side(to) {
                side.end.unreachable(now);
                self.poll(to);
            }
            return;
        }
        if !self.links[1 - to].has_room(self.now) {
            self.tell(1 - to, &flight.octets, "no room in the ring");
            return;
        }
        self.tell(1 - to, &flight.octets, "arrives");
        match to {
            CLIENT => {
                let packet = parse(&flight.octets);
                if packet.is_ok() && !matches!(packet, Ok(Packet::Request(_))) {
                    self.heard.get_or_insert(flight.tid);
                }
                if self.heard == Some(flight.tid) {
                    self.client.end.receive(&flight.octets, now);
                }
            }
            _ if flight.tid == 0 => self.request(&flight.octets, now),
            _ if flight.tid as usize == self.servers.len() => {
                let server = self.servers.last_mut().expect("it has a TID");
                let lives = !matches!(server.rest, Rest::Done(_));
                self.report.final_ack_arrived |= lives && flight.is_final_ack;
                server.end.receive(&flight.octets, now);
            }
            _ => {}
        }
        if to == CLIENT && !matches!(self.client.rest, Rest::Done(_)) {
            self.report.final_ack_arrived |= flight.is_final_ack;
        }
        let gone = self
            .side(to)
            .is_some_and(|side| matches!(side.rest, Rest::Done(_)));
        if gone && self.world.icmp && flight.tid == self.heard.unwrap_or_default() {
            let at = self.now + self.world.links[to].delay;
            self.fly(at, 1 - to, flight.tid, flight.octets, false, true);
            return;
        }
        self.out.spare.push(flight.octets);
        self.poll(to);
    }

    /// A request at the listening port: a new transfer, or a word to the one that lives.
    fn request(&mut self, octets: &[u8], now: Instant) {
        if let Some(server) = self.servers.last_mut()
            && !matches!(server.rest, Rest::Done(_))
        {
            server.end.receive(octets, now);
            return;
        }
        let Ok(Packet::Request(request)) = parse(octets) else {
            return;
        };
        let World {
            ask, terms, dally, ..
        } = self.world;
        let policy = &self.world.policies[SERVER];
        let ask = Ask {
            options: request.options,
            ..*ask
        };
        let end: Box<dyn End> = match request.direction {
            Direction::Read => Box::new(Sending::server(&ask, terms, policy, now)),
            Direction::Write => Box::new(Receiving::server(&ask, terms, *dally, policy, now)),
        };
        self.servers.push(Side {
            end,
            rest: Rest::Until(now),
            wake: Some(self.now),
        });
    }

    fn poll(&mut self, side: usize) {
        let now = self.base + self.now;
        let tid = match side {
            CLIENT => self.heard.unwrap_or_default(),
            _ => self.servers.len() as u32,
        };
        let mut out = std::mem::replace(
            &mut self.out,
            Outbox {
                datagrams: Vec::new(),
                room: 0,
                spare: Vec::new(),
            },
        );
        out.room = self.world.room;
        let (base, clock) = (self.base, self.now);
        let Some(it) = self.side(side) else {
            self.out = out;
            return;
        };
        let was_done = matches!(it.rest, Rest::Done(_));
        it.rest = it.end.poll(now, &mut out);
        it.wake = match it.rest {
            Rest::Until(until) => {
                assert!(until > now, "asks to be woken in the past");
                Some(until - base)
            }
            Rest::Full => Some(clock + DRAIN),
            Rest::Done(_) => None,
        };
        let is_done = it.wake.is_none();
        if is_done && !was_done {
            self.done(side);
        }
        for Datagram {
            octets,
            is_final_ack,
        } in out.datagrams.drain(..)
        {
            if is_final_ack {
                self.report.stored_at.get_or_insert(clock);
            }
            self.send(side, tid, octets, is_final_ack);
        }
        out.spare.append(&mut self.out.spare);
        self.out = out;
    }

    fn done(&mut self, side: usize) {
        if side == self.world.sender() {
            self.report.sender_done = self.now;
        }
        if self.trace {
            let rest = self.side(side).map(|it| it.rest);
            println!("{:>14.3?}  {} {rest:?}", self.now, name(side));
        }
    }

    fn send(&mut self, from: usize, tid: u32, octets: Vec<u8>, is_final_ack: bool) {
        let counts = &mut self.report.packets[from];
        let tid = match octets[1] {
            3 => {
                counts.data += 1;
                tid
            }
            4 => {
                counts.acks += 1;
                tid
            }
            5 => {
                counts.errors += 1;
                tid
            }
            6 => {
                counts.opening += 1;
                tid
            }
            _ => {
                counts.opening += 1;
                0
            }
        };
        let arrivals = self.links[from].carry(self.now, octets.len());
        let fate = match arrivals {
            [None, _] => "lost",
            [Some(Arrival::Junk(_)), _] => "becomes junk",
            [_, Some(_)] => "doubled",
            _ => "",
        };
        self.tell(from, &octets, fate);
        let [first, second] = arrivals;
        if let Some(Arrival::Whole(at)) = second {
            self.fly(at, 1 - from, tid, octets.clone(), is_final_ack, false);
        }
        match first {
            None => self.out.spare.push(octets),
            Some(Arrival::Whole(at)) => self.fly(at, 1 - from, tid, octets, is_final_ack, false),
            Some(Arrival::Junk(at)) => {
                let junk = self.links[from].junk(&octets);
                self.fly(at, 1 - from, tid, junk, false, false);
            }
        }
    }

    fn fly(&mut self, at: Duration, to: usize, tid: u32, octets: Vec<u8>, last: bool, icmp: bool) {
        self.numbers += 1;
        self.flights.push(Reverse(Flight {
            at,
            number: self.numbers,
            to,
            tid,
            octets,
            is_final_ack: last,
            is_icmp: icmp,
        }));
    }

    /// Polls both ends at an instant before the next event. They must have nothing to say.
    fn peek_before(&mut self, next: Duration) {
        let gap = next.saturating_sub(self.now).as_nanos() as u64;
        if gap < 2 {
            return;
        }
        let early = self.base + self.now + Duration::from_nanos(self.rng.between(1, gap - 1));
        let mut out = Outbox {
            datagrams: Vec::new(),
            room: 100,
            spare: Vec::new(),
        };
        for side in [CLIENT, SERVER] {
            if let Some(it) = self.side(side)
                && it.rest != Rest::Full
            {
                assert_eq!(
                    it.end.poll(early, &mut out),
                    it.rest,
                    "woken early, the {} changed its mind",
                    name(side)
                );
                assert!(out.datagrams.is_empty(), "woken early, it sent something");
            }
        }
    }

    fn finish(mut self) -> Report {
        self.report.client = self.client.outcome();
        let known = self.heard.map_or(self.servers.len(), |tid| tid as usize);
        let server = known.checked_sub(1).map(|index| &self.servers[index]);
        self.report.server = server.map(Side::outcome);
        let stored = self.client.end.stored();
        self.report.stored = stored.or_else(|| server?.end.stored()).unwrap_or_default();
        self.report.took = self.now;
        self.report
    }

    fn tell(&self, from: usize, octets: &[u8], what: &str) {
        if !self.trace {
            return;
        }
        let packet = match parse(octets) {
            Ok(Packet::Data { block, payload }) => format!("DATA {block} ({})", payload.len()),
            other => format!("{other:?}"),
        };
        println!("{:>14.3?}  {} {packet} {what}", self.now, name(from));
    }
}

fn name(side: usize) -> &'static str {
    ["client", "server"][side]
}

impl World {
    /// A plain world: both machines at their defaults, a clean network with this round trip.
    pub fn clean(
        direction: Direction,
        octets: u64,
        options: Options,
        round_trip: Duration,
    ) -> Self {
        let link = Spec {
            delay: round_trip / 2,
            ..Spec::default()
        };
        Self {
            seed: 1,
            ask: Ask {
                direction,
                options,
                file: File { octets },
            },
            terms: Terms::default(),
            policies: [Policy::default(); 2],
            habit: None,
            dally: Duration::from_secs(5),
            links: [link.clone(), link],
            room: usize::MAX,
            icmp: false,
            nosy: false,
        }
    }

    /// Any world at all.
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let direction = rng.pick(&[Direction::Read, Direction::Write]);
        let habit = (direction == Direction::Read && rng.one_in(3)).then(|| {
            rng.pick(&[
                Habit::Foreign(receivers::Habit::ReportOnce),
                Habit::Foreign(receivers::Habit::ReportNever),
                Habit::Foreign(receivers::Habit::AckAgain),
                Habit::Foreign(receivers::Habit::EveryBlock),
                Habit::Busybox,
                Habit::SizeProbe,
            ])
        });
        let large = rng.one_in(60);
        let options = random_options(&mut rng, habit, large);
        let terms = Terms {
            max_windowsize: rng.pick(&[1, 8, 64, 1000, u16::MAX]),
            max_blksize: rng.pick(&[512, 1428, u16::MAX]),
            in_flight: rng.pick(&[1 << 16, 1 << 20, 32 << 20]),
        };
        let mut ask = Ask {
            direction,
            options,
            file: File { octets: 1 },
        };
        let agreed = ask.granted(&terms).0;
        ask.file.octets = random_length(&mut rng, &agreed, large);
        let links = random_links(&mut rng, &agreed, large);
        let policies = [(); 2].map(|()| Policy {
            retransmit: rng.pick(&[Retransmit::Adaptive, Retransmit::Adaptive, Retransmit::Rfc]),
            ..Policy::default()
        });
        Self {
            seed,
            ask,
            terms,
            policies,
            habit,
            dally: Duration::from_millis(rng.between(250, 10_000)),
            links,
            room: rng.pick(&[usize::MAX, usize::MAX, 7, 1]),
            icmp: rng.one_in(4),
            nosy: rng.one_in(4),
        }
    }
}

fn random_options(rng: &mut Rng, habit: Option<Habit>, large: bool) -> Options {
    use OptionName::*;
    let mut options = Options::default();
    if habit == Some(Habit::SizeProbe) {
        return options
            .with(Tsize, 0)
            .with(Blksize, 1468)
            .with(Windowsize, 4);
    }
    if large {
        let window = rng.pick(&[16, 64, 1000, 32_767, 65_535]);
        options = options
            .with(Blksize, rng.between(8, 16))
            .with(Windowsize, window);
    } else {
        if rng.one_in(2) {
            let any = rng.between(8, 65_464);
            options = options.with(Blksize, rng.pick(&[8, 9, 512, 1428, 1468, 8192, any]));
        }
        if rng.one_in(2) && habit != Some(Habit::Busybox) {
            let any = rng.between(1, 65_535);
            let window = rng.pick(&[1, 2, 4, 8, 16, 17, 32, 64, 200, any]);
            options = options.with(Windowsize, window);
        }
    }
    for (name, value) in [
        (Timeout, rng.between(1, 5)),
        (Utimeout, rng.between(10_000, 3_000_000)),
        (Rollover, rng.between(0, 1)),
        (Tsize, 0),
    ] {
        if rng.one_in(4) {
            options = options.with(name, value);
        }
    }
    options
}

fn random_length(rng: &mut Rng, agreed: &Agreed, large: bool) -> u64 {
    let window = u64::from(agreed.windowsize);
    let blocks = if large {
        let near = rng.pick(&[65_534, 65_535, 65_536, 131_070, 131_072, 200_000]);
        rng.between(near, near + 3)
    } else {
        let few = rng.between(0, 40);
        let many = rng.between(0, 600);
        let windows = (window * rng.between(1, 5)).min(2000);
        let around = (windows + rng.between(0, 2)).saturating_sub(1);
        rng.pick(&[0, 1, few, few, many, windows, around])
    };
    let blksize = u64::from(agreed.blksize);
    let most = 8 << 20;
    let rest = rng.between(0, blksize - 1);
    blocks.min(most / blksize) * blksize + rng.pick(&[0, 1, rest])
}

fn random_links(rng: &mut Rng, agreed: &Agreed, large: bool) -> [Spec; 2] {
    let window_octets = u64::from(agreed.windowsize) * u64::from(agreed.blksize);
    // A block number comes again after 65536 blocks: a network that holds packets back for longer
    // than that mixes them up, and TFTP cannot tell.
    let may_reorder = agreed.windowsize <= 8192;
    let bad = if large { rng.one_in(4) } else { rng.one_in(2) };
    let delay = Duration::from_micros(rng.pick(&[0, 20, 100, 1_000, 10_000, 100_000]));
    let blackout = (bad && rng.one_in(6)).then(|| {
        let from = Duration::from_millis(rng.between(0, 2_000));
        from..from + Duration::from_millis(rng.between(0, 30_000))
    });
    [(); 2].map(|()| Spec {
        delay,
        jitter: delay.mul_f64(rng.pick(&[0.0, 0.0, 0.1, 1.0])),
        // A window in a quarter of a second, at least.
        rate: rng
            .one_in(4)
            .then(|| window_octets * 4 + rng.between(100_000, 100_000_000)),
        loss: if bad && large {
            rng.pick(&[0, 10, 1_000])
        } else if bad {
            rng.pick(&[0, 1_000, 10_000, 50_000, 200_000])
        } else {
            0
        },
        duplicate: if bad {
            rng.pick(&[0, 10_000, 1_000_000])
        } else {
            0
        },
        reorder: if bad && may_reorder {
            rng.pick(&[0, 0, 10_000, 200_000])
        } else {
            0
        },
        // Each stall adds to the time that a window takes to pass.
        stall: if bad && agreed.windowsize <= 64 {
            rng.pick(&[0, 0, 1_000, 10_000])
        } else {
            0
        },
        junk: if bad { rng.pick(&[0, 10_000]) } else { 0 },
        blackouts: blackout.iter().cloned().collect(),
        ring: rng.one_in(5).then(|| rng.between(4, 40) as u32),
    })
}
