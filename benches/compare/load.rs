//! The load: one client that blocks on its socket, or thousands on one epoll. Every load has a time
//! limit.

use crate::client::{Client, Failure, Fetch, Fetched, Progress};
use crate::pattern::Pattern;
use crate::sys;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};
use tftpool::unversioned::wire::{self, Packet};

/// How often the crowd's deadlines are looked through.
const SCAN: Duration = Duration::from_millis(10);
/// How long what comes to clients that say no more is thrown away.
const SETTLING: Duration = Duration::from_millis(200);
/// How many clients wait for their first answer at a time, where this is not about a storm.
const AT_ONCE: usize = 64;
/// After how long a client of [`park`] that has no answer repeats its request.
const PARK_REPEAT: Duration = Duration::from_secs(1);
/// Room for the longest run of coalesced datagrams.
const BUFFER: usize = 1 << 16;

/// What a load brought.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) done: u64,
    /// From the first request to the last completion.
    pub(crate) elapsed: Duration,
    pub(crate) first_replies: Vec<Duration>,
    pub(crate) completions: Vec<Duration>,
    pub(crate) failures: BTreeMap<Failure, u64>,
    pub(crate) blksize: u16,
    pub(crate) windowsize: u16,
    pub(crate) ignored: u64,
    /// CPU time of the thread that generated the load.
    pub(crate) cpu: Duration,
}

impl Report {
    fn count(&mut self, result: Result<Fetched, Failure>) {
        match result {
            Ok(fetched) => {
                self.done += 1;
                self.first_replies.push(fetched.first_reply);
                self.completions.push(fetched.completion);
                self.blksize = fetched.agreed.blksize;
                self.windowsize = fetched.agreed.windowsize;
                self.ignored += fetched.ignored;
            }
            Err(why) => *self.failures.entry(why).or_default() += 1,
        }
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

/// CPU time so far: of this process, or of this thread.
pub(crate) fn cpu(who: UsageWho) -> Duration {
    let Ok(usage) = getrusage(who) else {
        return Duration::ZERO;
    };
    [usage.user_time(), usage.system_time()]
        .map(|time| Duration::from_micros(time.num_microseconds().unsigned_abs()))
        .iter()
        .sum()
}

/// The value below which `percent` of the values lie.
pub(crate) fn percentile(values: &mut [Duration], percent: usize) -> Duration {
    values.sort_unstable();
    let index = (values.len() * percent / 100).min(values.len().saturating_sub(1));
    values.get(index).copied().unwrap_or_default()
}

/// One client, on this thread alone, blocking: two system calls a block in lock step.
pub(crate) fn single(
    fetch: &Fetch,
    pattern: &Pattern,
    server: SocketAddrV4,
    limit: Duration,
) -> io::Result<Report> {
    let started = Instant::now();
    let mut report = Report::default();
    let mut buffer = vec![0; BUFFER];
    let mut client = Client::new(fetch, pattern, server, false, started)?;
    client
        .socket()
        .set_read_timeout(Some(Duration::from_millis(100)))?;
    let result = loop {
        let now = Instant::now();
        match client.drive(now) {
            Progress::Finished(result) => break result,
            Progress::Waiting(_) if now - started > limit => break Err("time limit".to_owned()),
            Progress::Waiting(_) => client.receive(&mut buffer),
        }
    };
    report.elapsed = started.elapsed();
    report.count(result);
    Ok(report)
}

/// How a crowd behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Crowd {
    /// All ask at once, each for one file.
    Storm(usize),
    /// This many at a time. A client that is done asks again, until the time is over. At most
    /// [`AT_ONCE`] clients wait for their first answer at a time, because the storms are about
    /// listening sockets that overflow, and these rows are about what comes after.
    Endless(usize, Duration),
}

/// Many clients on one thread.
pub(crate) fn crowd(
    crowd: Crowd,
    fetch: &Fetch,
    pattern: &Pattern,
    server: SocketAddrV4,
    limit: Duration,
) -> io::Result<Report> {
    let (count, refill_for, at_once) = match crowd {
        Crowd::Storm(count) => (count, Duration::ZERO, count),
        Crowd::Endless(count, time) => (count, time, AT_ONCE),
    };
    let mut seats = Seats {
        fetch,
        pattern,
        server,
        epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
        clients: (0..count).map(|_| None).collect(),
        deadlines: vec![Instant::now() + limit; count],
        seated: 0,
        empty: (0..count).collect(),
        at_once,
        unanswered: 0,
        due: VecDeque::with_capacity(count),
    };
    seats.fill()?; // the sockets of a storm are there before its clock starts
    seats.run(refill_for, limit)
}

/// Clients that ask for a file, acknowledge `acknowledged` blocks, and say no more, so that the
/// server has to wait for them. Their sockets are there before `begin` is called, so that what is
/// seen from then on is the server's. Returns how many it waits for.
pub(crate) fn park(
    count: usize,
    acknowledged: u16,
    fetch: &Fetch,
    server: SocketAddrV4,
    limit: Duration,
    begin: impl FnOnce(),
) -> io::Result<(usize, Vec<UdpSocket>)> {
    let request = fetch.request();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut sockets = Vec::with_capacity(count);
    for seat in 0..count {
        let socket = sys::udp_socket(true)?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, seat as u64))?;
        sockets.push(socket);
    }
    begin();
    let started = Instant::now();
    let mut is_parked = vec![false; count];
    let mut parked = 0;
    let mut events = vec![EpollEvent::empty(); 1024];
    let mut buffer = vec![0; BUFFER];
    let mut asked = 0;
    let mut again = started + PARK_REPEAT;
    while parked < count && started.elapsed() < limit {
        while asked < count && asked < parked + AT_ONCE {
            sockets[asked].send_to(&request, server)?;
            asked += 1;
        }
        if Instant::now() >= again {
            again += PARK_REPEAT;
            for seat in (0..asked).filter(|&seat| !is_parked[seat]) {
                sockets[seat].send_to(&request, server)?;
            }
        }
        let ready = wait(&epoll, &mut events, scan())?;
        for event in &events[..ready] {
            let seat = event.data() as usize;
            while let Ok((length, from)) = sockets[seat].recv_from(&mut buffer) {
                match wire::parse(&buffer[..length]) {
                    Ok(Packet::OptionAck(_)) => {
                        sockets[seat].send_to(&wire::ack(0), from)?;
                    }
                    Ok(Packet::Data { block, .. }) if block <= acknowledged => {
                        sockets[seat].send_to(&wire::ack(block), from)?;
                    }
                    Ok(Packet::Data { .. }) if !is_parked[seat] => {
                        is_parked[seat] = true;
                        parked += 1;
                    }
                    _ => {}
                }
            }
        }
    }
    // What still comes is taken, so that no queue of ours is counted for the server.
    let settling = Instant::now();
    while settling.elapsed() < SETTLING {
        let ready = wait(&epoll, &mut events, scan())?;
        for event in &events[..ready] {
            while sockets[event.data() as usize].recv(&mut buffer).is_ok() {}
        }
    }
    Ok((parked, sockets))
}

/// Until the next look at the deadlines.
fn scan() -> EpollTimeout {
    EpollTimeout::from(SCAN.as_millis() as u8)
}

/// How many sockets are ready; none where the process was stopped meanwhile, or a tracer came.
pub(crate) fn wait(
    epoll: &Epoll,
    events: &mut [EpollEvent],
    timeout: EpollTimeout,
) -> io::Result<usize> {
    match epoll.wait(events, timeout) {
        Err(Errno::EINTR) => Ok(0),
        ready => Ok(ready?),
    }
}

/// The clients of a crowd, each with a seat, its number the token of its socket.
struct Seats<'a> {
    fetch: &'a Fetch,
    pattern: &'a Pattern,
    server: SocketAddrV4,
    epoll: Epoll,
    clients: Vec<Option<Client<'a>>>,
    deadlines: Vec<Instant>,
    seated: usize,
    /// Seats whose next client is still to come.
    empty: VecDeque<usize>,
    /// The limit on `unanswered`.
    at_once: usize,
    /// Clients that wait for their first answer.
    unanswered: usize,
    /// Clients that have something to send, or have to look at their timers.
    due: VecDeque<usize>,
}

impl Seats<'_> {
    /// Seats as many new clients as may ask now.
    fn fill(&mut self) -> io::Result<()> {
        while self.unanswered < self.at_once
            && let Some(seat) = self.empty.pop_front()
        {
            let client = Client::new(self.fetch, self.pattern, self.server, true, Instant::now())?;
            let event = EpollEvent::new(EpollFlags::EPOLLIN, seat as u64);
            self.epoll.add(client.socket(), event)?;
            self.clients[seat] = Some(client);
            self.seated += 1;
            self.unanswered += 1;
            self.due.push_back(seat);
        }
        Ok(())
    }

    fn receive(&mut self, seat: usize, buffer: &mut [u8]) {
        if let Some(client) = &mut self.clients[seat] {
            let was_answered = client.is_answered();
            client.receive(buffer);
            self.unanswered -= usize::from(client.is_answered() != was_answered);
            self.due.push_back(seat);
        }
    }

    /// Lets one client go on; its result, where it is done.
    fn drive(&mut self, seat: usize) -> Option<Result<Fetched, Failure>> {
        let client = self.clients[seat].as_mut()?;
        match client.drive(Instant::now()) {
            Progress::Waiting(until) => {
                self.deadlines[seat] = until;
                None
            }
            Progress::Finished(result) => {
                self.unanswered -= usize::from(!client.is_answered());
                self.clients[seat] = None; // closing takes it off the epoll
                self.seated -= 1;
                Some(result)
            }
        }
    }

    fn run(&mut self, refill_for: Duration, limit: Duration) -> io::Result<Report> {
        let started = Instant::now();
        let cpu_before = cpu(UsageWho::RUSAGE_THREAD);
        let mut report = Report::default();
        let mut buffer = vec![0; BUFFER];
        let mut events = vec![EpollEvent::empty(); 1024];
        let mut next_scan = started + SCAN;
        while self.seated > 0 {
            while let Some(seat) = self.due.pop_front() {
                if let Some(result) = self.drive(seat) {
                    report.count(result);
                    report.elapsed = started.elapsed();
                    if report.elapsed < refill_for {
                        self.empty.push_back(seat);
                    }
                }
                self.fill()?;
            }
            let now = Instant::now();
            if now - started > limit {
                *report.failures.entry("time limit".to_owned()).or_default() += self.seated as u64;
                break;
            }
            if now >= next_scan {
                next_scan = now + SCAN;
                let is_due = |seat: &usize| self.deadlines[*seat] <= now;
                self.due.extend((0..self.clients.len()).filter(is_due));
            }
            let ready = wait(&self.epoll, &mut events, scan())?;
            for event in &events[..ready] {
                self.receive(event.data() as usize, &mut buffer);
            }
        }
        report.cpu = cpu(UsageWho::RUSAGE_THREAD).saturating_sub(cpu_before);
        Ok(report)
    }
}
