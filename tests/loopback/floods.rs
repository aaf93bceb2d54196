//! What anybody can send without ever having been answered, and lots of it.

use crate::rig::*;
use tftpool::{DropReason, Event, Mode, OptionName, Source, store_fn};

/// Counts answers to `count` of these datagrams; checks that the server still serves, and that no
/// more went out than may in the time it took.
fn flood(datagram: &[u8], count: usize) -> usize {
    let server = calm(shelf([("file", pattern(700))]));
    let mut events = server.events();
    let client = Client::new(server.local_addr());
    let begun = now();
    for sent in 1..=count {
        client.shout(datagram);
        // No faster than it is taken in, or the kernel drops some.
        if sent % 100 == 0 {
            fence(&server);
        }
    }
    assert_eq!(
        Client::new(server.local_addr()).get("file"),
        Ok(pattern(700))
    );
    let seconds = begun.elapsed().as_secs_f64();
    let answers = std::iter::from_fn(|| client.at_hand()).count();
    assert!(
        answers >= 100,
        "the first hundred are answered, not {answers}"
    );
    assert!(
        answers as f64 <= 101.0 + 100.0 * seconds,
        "{answers} in {seconds} s"
    );
    let seen = std::iter::from_fn(|| events.try_next())
        .filter(|event| {
            matches!(
                event,
                Event::Dropped {
                    reason: DropReason::Malformed(_),
                    ..
                } | Event::Refused { id: None, .. }
            )
        })
        .count();
    assert_eq!(seen, count, "each is counted");
    answers
}

#[test]
fn malformed_requests_bring_a_hundred_errors_a_second_and_no_more() {
    flood(b"\0\x01file\0mail\0", 3000);
}

#[test]
fn writes_to_a_reading_server_bring_a_hundred_errors_a_second_and_no_more() {
    flood(b"\0\x02file\0octet\0", 3000);
}

#[test]
fn one_client_or_network_may_have_few_that_were_never_answered() {
    let server = start(
        calmly(builder(shelf([("file", pattern(2000))]))).limits(|limits| {
            limits.max_unproven_per_client = Some(2);
            limits.max_unproven_per_network = Some(3);
        }),
    );
    let mut events = server.events();
    let mut ask_from = |host: u8, dropped: Option<DropReason>| {
        let mut client = Client::at(([127, 0, 0, host], 0).into(), server.local_addr());
        client.ask("file", &[]);
        match dropped {
            None => {
                client.data(1);
            }
            Some(wanted) => {
                let reason = wait_for(&mut events, |event| match event {
                    Event::Dropped { reason, .. } => Some(*reason),
                    _ => None,
                });
                assert_eq!(reason, wanted);
            }
        }
        client
    };
    let first = ask_from(1, None);
    let _second = ask_from(1, None);
    ask_from(1, Some(DropReason::ClientUnprovenFull));
    let _third = ask_from(2, None);
    ask_from(3, Some(DropReason::NetworkUnprovenFull));
    // Whoever answers makes room; the loop hears of it a moment later, and a client asks again.
    let mut first = first;
    first.ack(1);
    first.data(2);
    let options = [];
    let mut neighbour = Client::at(([127, 0, 0, 3], 0).into(), server.local_addr());
    assert!(
        fetch_over(
            &neighbour.socket,
            server.local_addr(),
            "file",
            Mode::Octet,
            &options
        )
        .is_ok()
    );
    neighbour.tid = None;
}

/// Streams keep their windows in memory: when that is short, there are smaller windows for all and
/// not none for some.
#[test]
fn windows_of_streams_get_smaller_when_the_memory_for_them_is_used_up() {
    let store = store_fn(|_| {
        Ok(Source::reader(
            std::io::Cursor::new(pattern(200_000)),
            Some(200_000),
        ))
    });
    let server = start(calmly(builder(store)).limits(|limits| {
        limits.max_buffered = 64 << 10;
        limits.client_memory = false; // it would remember who refuses
    }));
    let mut events = server.events();
    let window = |client: &mut Client| {
        client.ask("file", &[("blksize", "1024"), ("windowsize", "64")]);
        let oack = client.oack();
        let (_, blocks) = oack.rsplit_once('=').expect("a window");
        blocks.parse::<usize>().expect("a number")
    };
    let mut clients: Vec<_> = (0..40).map(|_| Client::new(server.local_addr())).collect();
    let windows: Vec<_> = clients.iter_mut().map(window).collect();
    assert_eq!(windows[0], 8, "an eighth of it");
    assert!(windows.is_sorted_by(|a, b| a >= b), "{windows:?}");
    assert_eq!(windows[39], 1);
    // Given back at the end.
    for client in &clients {
        client.abort(0);
    }
    for _ in &clients {
        failed(&mut events);
    }
    let end = now() + PATIENCE;
    loop {
        let mut last = Client::new(server.local_addr());
        let blocks = window(&mut last);
        last.abort(0);
        if blocks == 8 {
            break;
        }
        assert!(now() < end, "memory was not given back");
    }
    // A translation has a buffer of a block's size besides, and that counts as well.
    let server = start(
        calmly(builder(shelf([("file", pattern(200_000))]))).limits(|limits| {
            limits.max_buffered = 64 << 10;
        }),
    );
    let netascii = |options| {
        let client = Client::new(server.local_addr());
        client.shout(&rrq("file", "netascii", options));
        client
    };
    let mut plain: Vec<_> = (0..32).map(|_| netascii(&[])).collect();
    plain.iter_mut().for_each(|client| drop(client.data(1)));
    // 32 of 64 KiB are left, of which an eighth is 8 blocks of 512 bytes.
    assert_eq!(netascii(&[("windowsize", "64")]).oack(), "windowsize=8");
    // What lies in files or in memory anyway needs none.
    let server = start(
        calmly(builder(shelf([("file", pattern(200_000))])))
            .limits(|limits| limits.max_buffered = 64 << 10),
    );
    let asked = [(OptionName::Windowsize, 64)];
    assert!(fetch(server.local_addr(), "file", &asked) == Ok(pattern(200_000)));
    let mut client = Client::new(server.local_addr());
    assert_eq!(window(&mut client), 64);
}
