//! Clients of the field that read, each as small as its habit allows. None of them is a model to
//! follow.

use crate::ends::{Ask, Disk, End, Outbox, Rest, Stored};
use crate::receivers::{self, Position};
use std::time::{Duration, Instant};
use tftpool::unversioned::proto::{Agreed, Outcome, accept};
use tftpool::unversioned::wire::{ErrorCode, OptionName, Packet, ack, emit_error, parse};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// A receiver that the lab and the load generator have as well. Its timer has what it asks for
    /// as `timeout`, or 1 s.
    Foreign(receivers::Habit),
    /// busybox: lock step, no answer to a repeated block, a timer that grows by half from 100 ms.
    Busybox,
    /// EDK2: reads `tsize` from the OACK, answers ERROR 8 and is gone.
    SizeProbe,
}

pub struct Quirk {
    habit: Habit,
    ask: Ask,
    agreed: Agreed,
    answered: bool,
    disk: Disk,
    position: Position,
    ack_due: bool,
    refuse: bool,
    tries: u32,
    wake: Instant,
    done: Option<Outcome>,
}

impl Quirk {
    pub fn new(habit: Habit, ask: &Ask, now: Instant) -> Self {
        let agreed = Agreed::default();
        Self {
            habit,
            ask: *ask,
            agreed,
            answered: false,
            disk: Disk::new(ask.file, agreed.blksize),
            position: position(habit, &agreed),
            ack_due: false,
            refuse: false,
            tries: 0,
            wake: now,
            done: None,
        }
    }

    fn interval(&self) -> Duration {
        match self.habit {
            Habit::Foreign(_) => {
                let seconds = self.ask.options.get(OptionName::Timeout).unwrap_or(1);
                Duration::from_secs(seconds)
            }
            Habit::SizeProbe => Duration::from_secs(1),
            Habit::Busybox => {
                let grown = Duration::from_millis(100).mul_f64(1.5f64.powi(self.tries as i32));
                grown.min(Duration::from_secs(2))
            }
        }
    }

    fn data(&mut self, wire: u16, payload: &[u8], now: Instant) {
        let next = self.position.received + 1;
        let is_next = wire == self.agreed.rollover.to_wire(next);
        let is_last = payload.len() < usize::from(self.agreed.blksize);
        let reaction = self.position.block(is_next, is_last);
        if reaction.store {
            self.tries = 0;
            self.disk.store(next, payload, is_last);
        }
        if reaction.restart {
            self.wake = now + self.interval();
        }
        self.ack_due |= reaction.ack;
    }
}

/// busybox, in lock step, is as silent about blocks that come twice as the receiver that never
/// reports.
fn position(habit: Habit, agreed: &Agreed) -> Position {
    let habit = match habit {
        Habit::Foreign(habit) => habit,
        Habit::Busybox | Habit::SizeProbe => receivers::Habit::ReportNever,
    };
    Position::new(habit, agreed.windowsize.into())
}

impl End for Quirk {
    fn receive(&mut self, datagram: &[u8], now: Instant) {
        if self.done.is_some() || self.disk.stored.complete {
            return;
        }
        match parse(datagram) {
            Ok(Packet::OptionAck(_)) if self.habit == Habit::SizeProbe => self.refuse = true,
            Ok(Packet::OptionAck(oack)) if !self.answered => {
                self.agreed = accept(&self.ask.options, &oack).expect("a sound OACK");
                self.disk = Disk::new(self.ask.file, self.agreed.blksize);
                self.position = position(self.habit, &self.agreed);
                self.answered = true;
                self.ack_due = true;
                self.tries = 0;
                self.wake = now + self.interval();
            }
            Ok(Packet::OptionAck(_)) if self.position.received == 0 => {
                self.ack_due = true;
                self.wake = now + self.interval();
            }
            Ok(Packet::Data { block, payload }) if self.answered || block == 1 => {
                self.answered = true;
                self.data(block, payload, now);
            }
            Ok(Packet::Error { code, .. }) => {
                let at_opening = !self.answered;
                self.done = Some(Outcome::Aborted { code, at_opening });
            }
            _ => {}
        }
    }

    fn unreachable(&mut self, _now: Instant) {}

    fn poll(&mut self, now: Instant, out: &mut Outbox) -> Rest {
        if let Some(outcome) = self.done {
            return Rest::Done(outcome);
        }
        if self.refuse {
            out.push(|octets| emit_error(ErrorCode::OPTION_REFUSED, "user aborted", octets));
            self.done = Some(Outcome::Complete);
            return Rest::Done(Outcome::Complete);
        }
        if now >= self.wake {
            if self.tries == 12 {
                self.done = Some(Outcome::Silent);
                return Rest::Done(Outcome::Silent);
            }
            self.tries += 1;
            self.wake = now + self.interval();
            if !self.answered {
                out.push(|octets| octets.extend_from_slice(&self.ask.datagram()));
                return Rest::Until(self.wake);
            }
            self.ack_due = true;
            self.position.timer();
        }
        if self.ack_due {
            self.ack_due = false;
            let number = self.agreed.rollover.to_wire(self.position.received);
            out.push(|octets| octets.extend_from_slice(&ack(number)));
            if self.disk.stored.complete {
                // Gone at once: whoever missed this ACK will never know.
                out.datagrams.last_mut().expect("just pushed").is_final_ack = true;
                self.done = Some(Outcome::Complete);
                return Rest::Done(Outcome::Complete);
            }
        }
        Rest::Until(self.wake)
    }

    fn stored(&self) -> Option<Stored> {
        (self.habit != Habit::SizeProbe).then_some(self.disk.stored)
    }
}
