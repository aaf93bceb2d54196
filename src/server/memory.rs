//! What the server has learned about its clients: which of them need smaller windows or blocks, or
//! no options at all.
//!
//! A pure table: it owns no socket and reads no clock. It is taught at the end of a transfer, by a
//! peer that has answered, so a forged address teaches nothing, and asked when the next one opens.
//! An ERROR is no such answer, unless blocks have got through to its address. A transfer that the
//! client ends with an ERROR says nothing about the path: windows and blocks become smaller after
//! silence only. What was learned belongs to an address and the options it asks with, and is
//! forgotten after [`MEMORY_TIME`]. Where several clients share an address nothing is learned or
//! used: what is good for one may be bad for the others.

use crate::event::Lesson;
use crate::limits::{
    DEFAULT_BLKSIZE, LESSON_BLKSIZES, LESSON_OPENING_RESENDS, LESSON_REFUSALS, LESSON_TORN_WINDOWS,
    LESSON_WINDOW, LESSONS_PER_CLIENT, MAX_BLKSIZE, MAX_WINDOWSIZE, MEMORY_CLIENTS, MEMORY_OVERLAP,
    MEMORY_TIME,
};
use crate::transfer::{Course, Outset};
use crate::wire::{OptionName, Options};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Instant;

/// What a request of this client may be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Advice {
    pub(super) max_windowsize: u16,
    pub(super) max_blksize: u16,
    /// False where an OACK would be refused.
    pub(super) options: bool,
}

impl Default for Advice {
    fn default() -> Self {
        Self {
            max_windowsize: MAX_WINDOWSIZE,
            max_blksize: MAX_BLKSIZE,
            options: true,
        }
    }
}

/// The table.
#[derive(Default)]
pub(super) struct Memory {
    /// By address; the port is 0. A link-local address keeps its scope.
    clients: HashMap<SocketAddr, Client>,
    /// Who was heard of last stands last, by a number that only grows.
    order: BTreeMap<u64, SocketAddr>,
    next: u64,
}

#[derive(Default)]
struct Client {
    place: u64,
    lessons: Vec<(Options, Lessons)>,
    /// The newest transfer in which blocks got through.
    last: Option<Span>,
    shared_until: Option<Instant>,
}

/// What one set of options has taught.
#[derive(Clone, Copy)]
struct Lessons {
    advice: Advice,
    /// OACKs in a row that were refused.
    refusals: u32,
    until: Instant,
}

/// A transfer of one port, from its request to its last progress.
#[derive(Clone, Copy)]
struct Span {
    port: u16,
    from: Instant,
    to: Instant,
}

impl Memory {
    /// What to grant to a request with these options.
    pub(super) fn advise(&self, peer: SocketAddr, asked: &Options, now: Instant) -> Advice {
        let Some(client) = self.clients.get(&address(peer)) else {
            return Advice::default();
        };
        let asked = fingerprint(asked);
        let lessons = client.lessons.iter().find(|(options, _)| *options == asked);
        match lessons {
            Some((_, lessons)) if now < lessons.until && !client.is_shared(now) => lessons.advice,
            _ => Advice::default(),
        }
    }

    /// Takes a transfer that has ended, whose peer had answered. Says what is new.
    pub(super) fn learn(
        &mut self,
        peer: SocketAddr,
        asked: &Options,
        course: &Course,
        now: Instant,
    ) -> Option<Lesson> {
        let is_worth_it = course.blocks > 0 || !asked.is_empty();
        if !is_worth_it {
            return None;
        }
        // Who refuses an OACK has acknowledged nothing: its address may be forged, and the port
        // guessed.
        if course.outset == Outset::Refused && !self.has_fetched(peer, now) {
            return None;
        }
        let client = self.client(peer);
        if course.blocks > 0 {
            client.saw(peer.port(), course, now);
        }
        if asked.is_empty() || client.is_shared(now) {
            return None;
        }
        client.lessons(fingerprint(asked), now).take(course, now)
    }

    /// Whether blocks have got through to this address lately.
    fn has_fetched(&self, peer: SocketAddr, now: Instant) -> bool {
        let client = self.clients.get(&address(peer));
        let last = client.and_then(|client| client.last);
        last.is_some_and(|last| now < last.to + MEMORY_TIME)
    }

    /// The client's entry, moved to the end of the line; the one at its beginning makes room.
    fn client(&mut self, peer: SocketAddr) -> &mut Client {
        let address = address(peer);
        if let Some(client) = self.clients.get(&address) {
            self.order.remove(&client.place);
        } else if self.clients.len() >= MEMORY_CLIENTS
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.clients.remove(&oldest);
        }
        self.next += 1;
        self.order.insert(self.next, address);
        let client = self.clients.entry(address).or_default();
        client.place = self.next;
        client
    }
}

impl Client {
    fn is_shared(&self, now: Instant) -> bool {
        self.shared_until.is_some_and(|until| now < until)
    }

    /// Two transfers of different ports in which blocks got through at the same time: a boot loader
    /// fetches one file after the other, and one that was given up makes no progress any more. So
    /// there are several clients.
    fn saw(&mut self, port: u16, course: &Course, now: Instant) {
        let span = Span {
            port,
            from: course.begun,
            to: course.moved,
        };
        let is_beside = |last: &Span| {
            let both = last
                .to
                .min(span.to)
                .saturating_duration_since(last.from.max(span.from));
            last.port != span.port && both > MEMORY_OVERLAP
        };
        if self.last.as_ref().is_some_and(is_beside) {
            self.shared_until = Some(now + MEMORY_TIME);
            self.lessons.clear();
        }
        if self.last.is_none_or(|last| last.to < span.to) {
            self.last = Some(span);
        }
    }

    /// What these options have taught, new if need be; the oldest makes room.
    fn lessons(&mut self, asked: Options, now: Instant) -> &mut Lessons {
        let known = self
            .lessons
            .iter()
            .position(|(options, _)| *options == asked);
        let index = known.unwrap_or_else(|| {
            if self.lessons.len() == LESSONS_PER_CLIENT {
                self.lessons.remove(0);
            }
            self.lessons.push((asked, Lessons::none(now)));
            self.lessons.len() - 1
        });
        let lessons = &mut self.lessons[index].1;
        if now >= lessons.until {
            *lessons = Lessons::none(now);
        }
        lessons
    }
}

impl Lessons {
    fn none(now: Instant) -> Self {
        Self {
            advice: Advice::default(),
            refusals: 0,
            until: now + MEMORY_TIME,
        }
    }

    fn take(&mut self, course: &Course, now: Instant) -> Option<Lesson> {
        let lesson = match course.outset {
            Outset::Plain => None,
            Outset::Refused => {
                self.refusals += 1;
                (self.refusals == LESSON_REFUSALS).then_some(Lesson::NoOptions)
            }
            Outset::Agreed => {
                self.refusals = 0;
                if course.aborted {
                    return None;
                }
                smaller_block(course).or_else(|| smaller_window(course))
            }
        }?;
        match lesson {
            Lesson::Blksize(octets) => self.advice.max_blksize = octets,
            Lesson::Window(blocks) => self.advice.max_windowsize = blocks,
            Lesson::NoOptions => self.advice.options = false,
        }
        self.until = now + MEMORY_TIME;
        Some(lesson)
    }
}

/// The peer took the OACK, and then not one block: they are too large for some link on the way.
fn smaller_block(course: &Course) -> Option<Lesson> {
    let never_arrived = course.blocks == 0
        && course.failed
        && course.blksize > DEFAULT_BLKSIZE
        && course.retransmits >= LESSON_OPENING_RESENDS;
    let smaller = LESSON_BLKSIZES
        .into_iter()
        .find(|size| *size < course.blksize);
    never_arrived.then_some(Lesson::Blksize(smaller?))
}

/// Of its windows at least a third came back torn, and at such places that the pace had to give in:
/// its receiver has no room for more. Loss that strikes anywhere is no reason: with smaller windows
/// it would strike as often.
fn smaller_window(course: &Course) -> Option<Lesson> {
    let whole = course.blocks / u64::from(course.windowsize);
    let is_torn = course.torn >= LESSON_TORN_WINDOWS && course.torn * 2 > whole;
    let smaller = (course.windowsize / 2).max(course.burst).max(LESSON_WINDOW);
    (is_torn && smaller < course.windowsize).then_some(Lesson::Window(smaller))
}

fn address(mut peer: SocketAddr) -> SocketAddr {
    peer.set_port(0);
    peer
}

/// The size that stands beside `tsize` belongs to a file and not to a client.
fn fingerprint(asked: &Options) -> Options {
    match asked.is_present(OptionName::Tsize) {
        true => asked.with(OptionName::Tsize, 0),
        false => *asked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    #[allow(clippy::disallowed_methods)] // any instant will do
    fn start() -> Instant {
        Instant::now()
    }

    fn peer(port: u16) -> SocketAddr {
        ([192, 0, 2, 7], port).into()
    }

    fn asked() -> Options {
        Options::default()
            .with(OptionName::Blksize, 1468)
            .with(OptionName::Windowsize, 64)
    }

    /// A transfer of a thousand blocks, whole, that took a second.
    fn good(now: Instant) -> Course {
        Course {
            begun: now,
            moved: now + 1000 * MS,
            outset: Outset::Agreed,
            failed: false,
            aborted: false,
            blksize: 1468,
            windowsize: 64,
            blocks: 1000,
            torn: 0,
            burst: 64,
            retransmits: 0,
        }
    }

    fn torn(now: Instant) -> Course {
        Course {
            torn: 20,
            burst: 2,
            ..good(now)
        }
    }

    fn refused(now: Instant) -> Course {
        Course {
            outset: Outset::Refused,
            failed: true,
            aborted: true,
            blocks: 0,
            ..good(now)
        }
    }

    fn never_arrived(now: Instant, blksize: u16) -> Course {
        Course {
            failed: true,
            blksize,
            blocks: 0,
            retransmits: 9,
            ..good(now)
        }
    }

    #[test]
    fn torn_windows_are_halved_down_to_four() {
        let (mut memory, now) = (Memory::default(), start());
        assert_eq!(memory.learn(peer(1), &asked(), &good(now), now), None);
        let mut windowsize = 64;
        for smaller in [32, 16, 8, 4] {
            let course = Course {
                windowsize,
                torn: 1000,
                ..torn(now)
            };
            let lesson = memory.learn(peer(1), &asked(), &course, now);
            assert_eq!(lesson, Some(Lesson::Window(smaller)));
            windowsize = memory.advise(peer(9), &asked(), now).max_windowsize;
            assert_eq!(windowsize, smaller);
        }
        let course = Course {
            windowsize,
            torn: 1000,
            ..torn(now)
        };
        assert_eq!(memory.learn(peer(1), &asked(), &course, now), None);
        // What the pace found out need not be found again.
        let mut memory = Memory::default();
        let course = Course {
            burst: 40,
            ..torn(now)
        };
        let lesson = memory.learn(peer(1), &asked(), &course, now);
        assert_eq!(lesson, Some(Lesson::Window(40)));
        // Loss that strikes anywhere, which the pace leaves alone, teaches nothing; neither do a
        // few torn among many, nor a few at all.
        let mut memory = Memory::default();
        let course = Course {
            burst: 64,
            ..torn(now)
        };
        assert_eq!(memory.learn(peer(1), &asked(), &course, now), None);
        for few in [3, 7] {
            let course = Course {
                torn: few,
                ..torn(now)
            };
            assert_eq!(memory.learn(peer(1), &asked(), &course, now), None);
        }
        // Other options, other clients: nothing is known.
        let other = asked().with(OptionName::Timeout, 1);
        assert_eq!(memory.advise(peer(1), &other, now), Advice::default());
        let stranger = ([192, 0, 2, 8], 1).into();
        assert_eq!(memory.advise(stranger, &asked(), now), Advice::default());
    }

    #[test]
    fn two_refusals_in_a_row_end_the_options() {
        let (mut memory, now) = (Memory::default(), start());
        for course in [good(now), refused(now), good(now), refused(now)] {
            assert_eq!(memory.learn(peer(1), &asked(), &course, now), None);
            assert!(memory.advise(peer(1), &asked(), now).options);
        }
        let lesson = memory.learn(peer(2), &asked(), &refused(now), now);
        assert_eq!(lesson, Some(Lesson::NoOptions));
        assert!(!memory.advise(peer(3), &asked(), now).options);
        // What was then fetched without options does not bring them back.
        let plain = Course {
            outset: Outset::Plain,
            ..good(now + 5000 * MS)
        };
        memory.learn(peer(3), &asked(), &plain, now);
        assert!(!memory.advise(peer(3), &asked(), now).options);
    }

    /// It may be a forged address and a guessed port.
    #[test]
    fn who_has_not_fetched_anything_lately_cannot_refuse_for_good() {
        let (mut memory, now) = (Memory::default(), start());
        let refuse = |memory: &mut Memory, now: Instant| {
            let lessons = (0..4).map(|_| memory.learn(peer(1), &asked(), &refused(now), now));
            lessons.flatten().collect::<Vec<_>>()
        };
        assert_eq!(refuse(&mut memory, now), []);
        assert!(memory.clients.is_empty(), "nor takes it a place");
        memory.learn(peer(1), &Options::default(), &good(now), now);
        let later = now + MEMORY_TIME + 1000 * MS;
        assert_eq!(refuse(&mut memory, later), []);
        assert_eq!(refuse(&mut memory, later - MS), [Lesson::NoOptions]);
    }

    #[test]
    fn blocks_that_never_arrive_get_smaller_by_steps() {
        let (mut memory, now) = (Memory::default(), start());
        for (blksize, smaller) in [(65464, 1428), (1468, 1428), (1428, 1024), (1024, 512)] {
            let course = never_arrived(now, blksize);
            let lesson = memory.learn(peer(1), &asked(), &course, now);
            assert_eq!(lesson, Some(Lesson::Blksize(smaller)));
            assert_eq!(memory.advise(peer(1), &asked(), now).max_blksize, smaller);
        }
        assert_eq!(
            memory.learn(peer(1), &asked(), &never_arrived(now, 512), now),
            None
        );
        // Fewer copies than this may have been lost one by one.
        for (lost, lesson) in [(2, None), (3, Some(Lesson::Blksize(1428)))] {
            let course = Course {
                retransmits: lost,
                ..never_arrived(now, 1468)
            };
            let asked = asked().with(OptionName::Timeout, lost);
            assert_eq!(memory.learn(peer(1), &asked, &course, now), lesson);
        }
        // A client that ends the transfer with an ERROR may have all the blocks that it wanted.
        for course in [never_arrived(now, 1468), torn(now)] {
            let course = Course {
                aborted: true,
                ..course
            };
            assert_eq!(memory.learn(peer(1), &asked(), &course, now), None);
        }
        // One who leaves at once has not lost anything.
        let course = Course {
            retransmits: 0,
            ..never_arrived(now, 1468)
        };
        assert_eq!(memory.learn(peer(1), &asked(), &course, now), None);
    }

    #[test]
    fn everything_is_forgotten_after_its_time() {
        let (mut memory, now) = (Memory::default(), start());
        memory.learn(peer(1), &asked(), &torn(now), now);
        let later = now + MEMORY_TIME;
        assert_eq!(
            memory.advise(peer(1), &asked(), later - MS).max_windowsize,
            32
        );
        assert_eq!(memory.advise(peer(1), &asked(), later), Advice::default());
        memory.learn(peer(1), &asked(), &good(later), later);
        assert_eq!(memory.advise(peer(1), &asked(), later), Advice::default());
    }

    /// The size in a request is that of a file, or nothing: with another one it is the same client
    /// with the same options.
    #[test]
    fn the_size_that_is_asked_with_makes_no_difference() {
        let (mut memory, now) = (Memory::default(), start());
        let sized = |size| asked().with(OptionName::Tsize, size);
        memory.learn(peer(1), &sized(0), &torn(now), now);
        assert_eq!(memory.advise(peer(1), &sized(7), now).max_windowsize, 32);
        assert_eq!(memory.advise(peer(1), &asked(), now), Advice::default());
    }

    #[test]
    fn clients_that_share_an_address_are_left_alone() {
        let (mut memory, now) = (Memory::default(), start());
        memory.learn(peer(1), &asked(), &torn(now), now);
        assert_eq!(memory.advise(peer(9), &asked(), now).max_windowsize, 32);
        let beside = Course {
            begun: now + 500 * MS,
            ..good(now + 500 * MS)
        };
        memory.learn(peer(2), &asked(), &beside, now);
        assert_eq!(memory.advise(peer(9), &asked(), now), Advice::default());
        assert_eq!(
            memory.learn(peer(3), &asked(), &torn(now + 9000 * MS), now),
            None
        );
        // Ten minutes later it may be a single client again.
        let later = now + MEMORY_TIME;
        let lesson = memory.learn(peer(3), &asked(), &torn(later), later);
        assert_eq!(lesson, Some(Lesson::Window(32)));
    }

    /// A transfer that was given up may last while its client asks again from another port.
    #[test]
    fn what_stands_still_is_nobody_else() {
        let (mut memory, now) = (Memory::default(), start());
        let given_up = Course {
            failed: true,
            ..good(now)
        };
        let again = torn(now + 5000 * MS);
        memory.learn(peer(2), &asked(), &again, now + 7000 * MS);
        memory.learn(peer(1), &asked(), &given_up, now + 20_000 * MS);
        let advice = memory.advise(peer(3), &asked(), now + 20_000 * MS);
        assert_eq!(advice.max_windowsize, 32);
    }

    #[test]
    fn it_remembers_no_more_clients_than_it_may_and_the_newest_of_them() {
        let (mut memory, now) = (Memory::default(), start());
        let many = MEMORY_CLIENTS as u32 + 10;
        let client = |number: u32| SocketAddr::from((std::net::Ipv4Addr::from(number), 1));
        for number in 0..many {
            memory.learn(client(0), &asked(), &torn(now), now);
            memory.learn(client(number), &asked(), &torn(now), now);
        }
        assert_eq!(memory.clients.len(), MEMORY_CLIENTS);
        assert_eq!(memory.order.len(), MEMORY_CLIENTS);
        assert!(memory.clients.contains_key(&address(client(0))));
        assert!(memory.clients.contains_key(&address(client(many - 1))));
        assert!(!memory.clients.contains_key(&address(client(5))));
        for size in 0..100 {
            let asked = asked().with(OptionName::Blksize, 1000 + size);
            memory.learn(client(0), &asked, &torn(now), now);
        }
        assert_eq!(
            memory.clients[&address(client(0))].lessons.len(),
            LESSONS_PER_CLIENT
        );
    }
}
