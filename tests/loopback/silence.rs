//! Peers that say nothing, or nothing any more. These tests take as long as the protocol does,
//! hence short intervals.

use crate::rig::*;
use std::net::UdpSocket;
use std::time::Duration;
use tftpool::{Failure, Retransmit, Server};

fn hasty(interval: u64) -> Server {
    start(builder(shelf([("file", pattern(9000))])).limits(|limits| {
        limits.timeout = Duration::from_millis(interval);
        limits.retries = 3;
    }))
}

fn all_that_came(client: &Client) -> Vec<Reply> {
    std::iter::from_fn(|| client.at_hand()).collect()
}

#[test]
fn an_unanswered_data_1_goes_out_twice() {
    let server = hasty(10);
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[]);
    let (summary, failure) = failed(&mut events);
    assert_eq!(
        (failure, summary.bytes, summary.retransmits),
        (Failure::Unanswered, 0, 1)
    );
    assert_eq!(
        all_that_came(&client),
        vec![Reply::Data(1, pattern(512)); 2]
    );
}

#[test]
fn an_error_for_a_request_is_sent_once() {
    let server = hasty(10);
    let mut events = server.events();
    let mut refused: Vec<_> = (0..3).map(|_| Client::new(server.local_addr())).collect();
    refused[0].ask("missing", &[("tsize", "0")]);
    refused[1].shout(b"\0\x02file\0octet\0");
    refused[2].shout(b"\0\x01file\0mail\0");
    for (client, code) in refused.iter_mut().zip([1, 2, 4]) {
        assert_eq!(client.error().0, code);
    }
    // Whatever is repeated at all is repeated while this one is.
    Client::new(server.local_addr()).ask("file", &[]);
    failed(&mut events);
    refused.iter().for_each(Client::quiet);
    assert_eq!(server.stats().active, 0);
}

#[test]
fn an_unanswered_oack_goes_out_four_times_a_second_apart() {
    let server = hasty(10);
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    let begun = now();
    client.ask("file", &[("windowsize", "8"), ("timeout", "1")]);
    let (_, failure) = failed(&mut events);
    assert_eq!(failure, Failure::Unanswered);
    assert!(now() - begun >= Duration::from_secs(4));
    assert_eq!(
        all_that_came(&client),
        vec![Reply::Oack("windowsize=8 timeout=1".into()); 4]
    );
}

/// Where half of those that may be there have not answered, each further one costs less.
#[test]
fn an_unanswered_oack_goes_out_twice_where_many_others_are_unanswered() {
    let server = start(builder(shelf([("file", pattern(9000))])).limits(|limits| {
        limits.timeout = Duration::from_millis(10);
        limits.retries = 3;
        limits.max_unproven = Some(4);
    }));
    let mut events = server.events();
    let [mut first, mut second] = [(); 2].map(|()| Client::new(server.local_addr()));
    let options = [("windowsize", "8"), ("timeout", "1")];
    first.ask("file", &options);
    let oack = Reply::Oack(first.oack());
    second.ask("file", &options);
    for _ in 0..2 {
        assert_eq!(failed(&mut events).1, Failure::Unanswered);
    }
    assert_eq!(all_that_came(&second), vec![oack.clone(); 2]);
    // When this one came there were few.
    assert_eq!(all_that_came(&first), vec![oack; 3]);
}

#[test]
fn an_oack_is_not_repeated_within_a_second_whatever_was_agreed() {
    let server = hasty(10);
    let mut client = Client::new(server.local_addr());
    let begun = now();
    client.ask("file", &[("utimeout", "10000")]);
    client.oack();
    client.oack();
    assert!(now() - begun >= Duration::from_secs(1));
}

#[test]
fn a_peer_that_falls_silent_fails_after_its_retries() {
    for windowsize in ["1", "4"] {
        let server = hasty(20);
        let mut events = server.events();
        let mut client = Client::new(server.local_addr());
        client.ask("file", &[("windowsize", windowsize)]);
        client.oack();
        client.ack(0);
        let (summary, failure) = failed(&mut events);
        assert_eq!(failure, Failure::Silent);
        assert_eq!(summary.bytes, 0);
        assert!(summary.retransmits >= 3);
        let (window, mut came) = (
            windowsize.parse::<usize>().expect("a number"),
            all_that_came(&client),
        );
        // Whole windows for the first send and three intervals; probes in between.
        assert!(came.len() >= 4 * window, "{} packets", came.len());
        came.dedup();
        for reply in came {
            let Reply::Data(block, octets) = reply else {
                panic!("{reply:?}")
            };
            let at = 512 * (block as usize - 1);
            assert_eq!(octets, pattern(9000)[at..at + 512]);
        }
    }
}

/// A stale ACK moves no clock: whoever babbles it does not keep a dead transfer alive.
#[test]
fn a_babbling_peer_does_not_keep_a_transfer_alive() {
    let server = hasty(20);
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[]);
    client.data_at_last(1);
    client.ack(1);
    client.data_at_last(2);
    let (_, failure) = wait_for_while(&mut events, || client.ack(1));
    assert!(
        matches!(failure, Failure::Silent | Failure::Unreachable),
        "{failure:?}"
    );
}

fn wait_for_while(
    events: &mut tftpool::Events,
    mut babble: impl FnMut(),
) -> (tftpool::Summary, Failure) {
    let end = now() + PATIENCE;
    while now() < end {
        babble();
        if let Some(tftpool::Event::Failed(summary, failure)) =
            events.next_within(Duration::from_millis(1))
        {
            return (summary, failure);
        }
    }
    panic!("it never failed");
}

/// ICMP is a hint: it names the end, and makes it come no sooner.
#[test]
fn a_peer_whose_port_is_closed_has_the_patience_of_a_silent_one() {
    for windowsize in ["1", "4"] {
        let server = hasty(50);
        let mut events = server.events();
        let mut client = Client::new(server.local_addr());
        client.ask("file", &[("windowsize", windowsize)]);
        client.oack();
        client.ack(0);
        for block in 1..=windowsize.parse().expect("a number") {
            client.data_at_last(block);
        }
        drop(client);
        let begun = now();
        assert_eq!(failed(&mut events).1, Failure::Unreachable);
        let took = now() - begun;
        assert!(took >= Duration::from_millis(500), "{took:?}");
    }
}

/// scapy has no socket: each DATA finds a closed port, and is acknowledged later than the interval.
#[test]
fn a_slow_client_without_a_socket_gets_its_file() {
    let server = hasty(100);
    let mut events = server.events();
    let asking = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let own = asking.local_addr().expect("bound");
    let request = rrq("file", "octet", &[]);
    asking.send_to(&request, server.local_addr()).expect("sent");
    let mut data = [0; 600];
    let (_, peer) = asking.recv_from(&mut data).expect("DATA 1");
    drop(asking);
    let mut block = 1_u16;
    loop {
        std::thread::park_timeout(Duration::from_millis(150));
        // Whatever comes meanwhile is refused by the kernel, and comes again.
        let answering = UdpSocket::bind(own).expect("the port is free");
        answering
            .send_to(&[[0, 4], block.to_be_bytes()].concat(), peer)
            .expect("sent");
        drop(answering);
        match events.next_within(Duration::from_millis(1)) {
            Some(tftpool::Event::Completed(summary)) => {
                return assert_eq!(summary.bytes, 9000);
            }
            Some(tftpool::Event::Failed(_, failure)) => panic!("{failure:?} at block {block}"),
            _ => block += 1,
        }
    }
}

#[test]
fn by_the_letter_nothing_is_sent_before_the_interval() {
    let server = start(builder(shelf([("file", pattern(9000))])).limits(|limits| {
        limits.timeout = Duration::from_millis(300);
        limits.retransmit = Retransmit::Rfc;
    }));
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[]);
    client.data_at_last(1);
    let begun = now();
    client.ack(1);
    client.data_at_last(2);
    client.data_at_last(2);
    assert!(now() - begun >= Duration::from_millis(300));
}

/// Whatever a peer does, a transfer has an end.
#[test]
fn a_transfer_that_takes_too_long_is_ended_with_an_error() {
    let server = start(
        calmly(builder(shelf([("file", pattern(9000))])))
            .limits(|limits| limits.max_time = Duration::from_secs(1)),
    );
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[("timeout", "255")]);
    client.oack();
    client.ack(0);
    client.data(1);
    client.ack(1);
    client.data(2);
    assert_eq!(client.error(), (0, "transfer took too long".into()));
    let (summary, failure) = failed(&mut events);
    assert_eq!((summary.bytes, failure), (512, Failure::TooLong));
    assert!(summary.duration >= Duration::from_secs(1));
}
