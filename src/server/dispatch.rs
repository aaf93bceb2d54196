//! The loop: a driver of the [`Endpoint`] without decisions of its own. It takes requests from the
//! listening sockets and messages from workers and handles, and does what the endpoint says. It
//! never waits for a file, a worker, a reader of events or a send.

use super::MAIL;
use super::desk::Tid;
use super::endpoint::{Action, Answerable, Config, Datagram, Endpoint};
use super::lanes::Lanes;
use super::mailbox::{Mail, Mailbox};
use super::message::{Job, Message, Report};
use super::pool::Pool;
use super::shared::Shared;
use super::warnings::ThrottledWarnings;
use crate::error::{Error, Refusal, plain};
use crate::event::DropReason;
use crate::limits::{MAPPING_IDLE, MAX_REQUEST};
use crate::sys::udp::Listener;
use crate::transfer::now;
use crate::wire;
use mio::{Events, Interest, Poll, Token};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The waker's token; listeners have the numbers from 0.
pub(super) const WAKER: Token = Token(usize::MAX);

/// Readiness events taken from the system at once.
const EVENTS: usize = 64;
/// Requests taken from one listener before messages get their turn again.
const REQUESTS_PER_TURN: usize = 256;
/// Requests in the queue of the pool, beside two for each that is wanted, before it is cleared of
/// those that are over.
const OUTDATED_KEPT: usize = 1024;
/// How long the loop lets things gather while workers are busy. They are for longer than that.
const GATHER: Duration = Duration::from_micros(200);
/// How long the end waits for workers that are inside a store or a read.
const LAST_WAIT: Duration = Duration::from_secs(2);

pub(super) struct Loop {
    poll: Poll,
    mail: Mail<Message>,
    sockets: Vec<ListeningSocket>,
    endpoint: Endpoint,
    lanes: Lanes,
    /// When unused mappings are looked for; `None` while nothing was asked for since there were
    /// none.
    next_sweep: Option<Instant>,
    warnings: ThrottledWarnings,
    /// The server stops: no more requests are read.
    is_stopping: bool,
}

struct ListeningSocket {
    listener: Listener,
    /// The system has said that there is something, and not yet that there is nothing.
    open: bool,
}

impl Loop {
    pub(super) fn new(
        poll: Poll,
        (mailbox, mail): (Mailbox<Message>, Mail<Message>),
        shared: Arc<Shared>,
        listeners: Vec<Listener>,
        config: Config,
        workers: usize,
    ) -> Result<Self, Error> {
        let system = |doing| move |cause| Error::System { doing, cause };
        let mut sockets = Vec::with_capacity(listeners.len());
        for (index, listener) in listeners.into_iter().enumerate() {
            poll.registry()
                .register(&mut listener.readable(), Token(index), Interest::READABLE)
                .map_err(system("watch a listening socket"))?;
            sockets.push(ListeningSocket {
                listener,
                open: true,
            });
        }
        let pool =
            Pool::start(workers, Arc::clone(&shared), mailbox).map_err(system("start a thread"))?;
        Ok(Self {
            poll,
            mail,
            sockets,
            endpoint: Endpoint::new(config, RandomState::new().hash_one(()), now()),
            lanes: Lanes { shared, pool },
            next_sweep: None,
            warnings: ThrottledWarnings::default(),
            is_stopping: false,
        })
    }

    /// Runs until the server is stopped and its transfers have ended.
    pub(super) fn run(mut self) -> Result<(), Error> {
        let mut events = Events::with_capacity(EVENTS);
        let result = loop {
            self.gather();
            let timeout = self.mail.before_sleep(|| self.timeout());
            let polled = self.poll.poll(&mut events, timeout);
            self.mail.after_sleep();
            match polled {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => {
                    break Err(Error::System {
                        doing: "wait for packets",
                        cause,
                    });
                }
            }
            for event in &events {
                // A listening socket that was closed may still report, where the one who handed it
                // in kept a copy.
                if let Some(socket) = self.sockets.get_mut(event.token().0) {
                    socket.open = !self.is_stopping;
                }
            }
            // What workers say comes before new requests: a client's last ACK may stand between two
            // of its RRQs.
            self.read_mail();
            let time = now();
            self.requests(time);
            self.endpoint.timeout(time, &mut self.lanes);
            self.act();
            self.upkeep(time);
            self.publish();
            let is_finished = self.endpoint.is_finished(time, &mut self.lanes);
            self.act();
            if is_finished {
                break Ok(());
            }
            // A request without a socket of its own may still have to be refused from them.
            if self.is_stopping && !self.endpoint.has_unanswered() {
                self.sockets.clear();
            }
        };
        self.leave();
        result
    }

    /// Tells handles what only the loop knows.
    fn publish(&self) {
        let Shared {
            requests,
            half_open,
            ..
        } = &*self.lanes.shared;
        requests.store(self.endpoint.requests(), Ordering::Relaxed);
        half_open.store(self.endpoint.half_open(), Ordering::Relaxed);
    }

    /// Takes the messages that are there. False where there is none.
    fn read_mail(&mut self) -> bool {
        for taken in 0..MAIL {
            let Some(message) = self.mail.take() else {
                return taken > 0;
            };
            self.message(message);
        }
        true
    }

    /// While workers have enough to do anyway, lets requests and reports come together: a loop that
    /// wakes for each of them takes the processor from those who answer them.
    #[allow(
        clippy::disallowed_methods,
        reason = "whatever ended this wait is what it is to bundle"
    )]
    fn gather(&self) {
        let is_drained = self.sockets.iter().all(|socket| !socket.open);
        if is_drained && self.lanes.pool.is_busy() {
            std::thread::sleep(GATHER);
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let time = now();
        if self.sockets.iter().any(|socket| socket.open) {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.endpoint.next_timeout(time),
            self.next_sweep,
            self.warnings.due(),
            self.lanes.shared.reporter.due(),
            self.lanes.pool.due(time),
        ];
        let next = deadlines.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(time))
    }

    /// Takes requests from the listening sockets.
    fn requests(&mut self, time: Instant) {
        let mut buffer = [0; MAX_REQUEST];
        for index in 0..self.sockets.len() {
            if !self.sockets[index].open {
                continue;
            }
            for _ in 0..REQUESTS_PER_TURN {
                if !self.sockets[index].open {
                    break; // the server was stopped meanwhile
                }
                let received = match self.sockets[index].listener.recv(&mut buffer) {
                    Ok(Some(received)) => received,
                    Ok(None) => {
                        self.sockets[index].open = false;
                        break;
                    }
                    Err(error) => {
                        self.sockets[index].open = false;
                        self.warnings
                            .add(time, "cannot receive requests", &plain(&error));
                        break;
                    }
                };
                let answerable = match received.answerable {
                    true => Answerable::Yes,
                    false => Answerable::No,
                };
                let datagram = Datagram {
                    tid: Tid {
                        peer: received.peer,
                        local: received.local,
                    },
                    bytes: &buffer[..received.length],
                    is_cut: received.truncated,
                    broadcast: received.broadcast.then_some(answerable),
                };
                let mut result = self.endpoint.datagram(datagram, now(), &mut self.lanes);
                // A worker may have made room since the last message was taken: a client sends its
                // next request as soon as it has its last ACK.
                if result.is_err_and(DropReason::is_shortage) && self.read_mail() {
                    result = self.endpoint.datagram(datagram, now(), &mut self.lanes);
                }
                if let Err(reason) = result {
                    self.endpoint.dropped(received.peer, reason);
                }
                self.act();
            }
        }
    }

    fn message(&mut self, message: Message) {
        let lanes = &mut self.lanes;
        match message {
            Message::Reports(reports) => {
                for report in reports {
                    if let Report::Left(number) = report {
                        lanes.pool.left(number);
                    }
                    self.endpoint.report(report, now(), lanes);
                }
            }
            Message::Reload(done) => lanes.pool.job(Job::Reload(done)),
            Message::Check(done) => lanes.pool.job(Job::Check(done)),
            Message::Stop(stop) => {
                self.endpoint.stop(stop, now());
                self.ignore_sockets();
            }
            Message::Cancel(id) => self.endpoint.cancel(id, now(), lanes),
        }
        self.act();
    }

    /// Does what the endpoint says.
    fn act(&mut self) {
        while let Some(action) = self.endpoint.poll_action() {
            match action {
                Action::Open(opening, port) => {
                    self.next_sweep
                        .get_or_insert(opening.arrived + MAPPING_IDLE / 2);
                    self.lanes.pool.open(opening, port);
                }
                Action::Reply(tid, refusal) => self.reply(tid, &refusal),
                Action::ReplyWithin(tid, refusal) => {
                    if self.lanes.shared.may_refuse(now()) {
                        self.reply(tid, &refusal);
                    }
                }
                Action::Report(event) => self.lanes.shared.reporter.report(event),
                Action::Warn(what, why) => self.warnings.add(now(), what, &why),
            }
        }
    }

    /// Sends an ERROR from a listening port. Once: if it does not arrive, the client asks again.
    fn reply(&self, Tid { peer, local }: Tid, refusal: &Refusal) {
        let mut sockets = self.sockets.iter();
        if let Some(socket) = sockets.find(|socket| socket.listener.serves(local)) {
            let mut datagram = Vec::with_capacity(64);
            wire::emit_error(refusal.code(), refusal.text(), &mut datagram);
            let _ = socket.listener.reply(&datagram, local, peer);
        }
    }

    /// What has to be done now and then.
    fn upkeep(&mut self, time: Instant) {
        self.warnings.say(time);
        let Lanes { shared, pool } = &mut self.lanes;
        shared.reporter.catch_up(time);
        if self.next_sweep.is_some_and(|sweep| time >= sweep) {
            let is_needed = shared.mappings.has_entries();
            self.next_sweep = is_needed.then(|| time + MAPPING_IDLE / 2);
            if is_needed {
                pool.job(Job::Sweep);
            }
        }
        // Requests that were given up while they waited for a worker.
        if pool.waiting() > 2 * self.endpoint.len() + OUTDATED_KEPT {
            pool.keep_waiting(|opening| self.endpoint.has(opening.id));
        }
        if let Err(error) = pool.adjust(time) {
            self.warnings
                .add(time, "cannot start another worker", &plain(&error));
        }
        let reports = self.lanes.pool.take_reports();
        if !reports.is_empty() {
            self.read_mail(); // what these workers had sent before
            self.message(Message::Reports(reports));
        }
    }

    /// No more requests are read; those that were admitted are still answered.
    fn ignore_sockets(&mut self) {
        self.is_stopping = true;
        for socket in &mut self.sockets {
            socket.open = false;
            let readable = &mut socket.listener.readable();
            let _ = self.poll.registry().deregister(readable);
        }
    }

    /// Waits for the workers, but not for one that is stuck.
    fn leave(mut self) {
        self.warnings.say_all();
        let Lanes { shared, pool } = self.lanes;
        let left = pool.close(&self.mail, LAST_WAIT);
        if left > 0 {
            log::warn!("{left} workers are left behind inside the store");
        }
        shared.reporter.close();
    }
}
