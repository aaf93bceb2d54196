//! A server that cannot be trusted: what it says never makes a block, a window, a file or a line on
//! a terminal larger than the client allows.

use crate::rig::pattern;
use crate::script::{Call, hasty, play};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tftpool::unversioned::wire;
use tftpool::{Client, Failure, Fault, Refusal, Sink};

fn plain(server: SocketAddr) -> Client {
    Client::new(server).options(false)
}

fn get(client: &Client) -> (Result<u64, Failure>, Vec<u8>) {
    let mut got = Vec::new();
    let result = client.get("file", &mut got).map(|summary| summary.bytes);
    (result, got)
}

#[test]
fn data_longer_than_agreed_ends_the_transfer() {
    let script = |call: Call, first: &[u8]| {
        call.data(1, first);
        assert_eq!(call.refused(), (4, "block too long".into()));
    };
    let (result, got) = play(|port| script(port.call(), &[7; 513]), |at| get(&plain(at)));
    assert_eq!(result, Err(Failure::Protocol("block too long")));
    assert_eq!(got, b"");

    // In mid-transfer, with a size that was agreed.
    let (result, got) = play(
        |port| {
            let call = port.call();
            call.oack("blksize\x001000\0");
            call.acked(0);
            call.data(1, &[7; 1000]);
            call.acked(1);
            call.data(2, &[7; 1001]);
            assert_eq!(call.refused().0, 4);
        },
        |at| get(&Client::new(at)),
    );
    assert_eq!(result, Err(Failure::Protocol("block too long")));
    assert!(got.len() <= 1000, "{}", got.len());
}

/// The port may have belonged to somebody whose server still sends.
#[test]
fn a_long_block_before_the_answer_is_somebody_elses() {
    let wanted = pattern(700);
    let (result, got) = play(
        |port| {
            let call = port.call();
            call.data(1, &[7; 1428]);
            call.serve(&wanted);
        },
        |at| get(&Client::new(at)),
    );
    assert_eq!((result, got), (Ok(700), wanted));
}

#[test]
fn an_oack_may_only_say_what_was_asked_for() {
    let wanted = pattern(700);
    for pairs in [
        "multicast\x00239.0.0.1,1758,1\0",
        "timeout\x001\0",
        "rollover\x001\0",
        "blksize\x001429\0",
        "blksize\x0065464\0",
        "blksize\x007\0",
        "blksize\x00-1\0",
        "blksize\x0018446744073709551617\0",
        "windowsize\x0017\0",
        "windowsize\x000\0",
        "windowsize\x0065536\0",
        "tsize\x00x\0",
    ] {
        let (result, got) = play(
            |port| {
                let call = port.call();
                call.oack(pairs);
                assert_eq!(call.refused().0, 8, "{pairs:?}");
                // Without options there is nothing to lie about.
                let call = port.call();
                assert!(call.options().is_empty(), "{pairs:?}");
                call.serve(&wanted);
            },
            |at| get(&Client::new(at)),
        );
        assert_eq!((result, got), (Ok(700), wanted.clone()), "{pairs:?}");
    }
    let (result, _) = play(
        |port| {
            let call = port.call();
            call.oack("blksize\x001428\0");
            assert_eq!(call.refused().0, 8);
        },
        |at| get(&plain(at)),
    );
    assert_eq!(result, Err(Failure::Protocol("option was not asked for")));
}

#[test]
fn an_endless_file_ends_at_the_limit() {
    let (result, got) = play(
        |port| {
            let call = port.call();
            for block in 1..=20 {
                call.data(block, &[7; 512]);
                if block < 20 {
                    call.acked(block);
                }
            }
            assert_eq!(call.refused(), (3, "file is too large".into()));
        },
        |at| get(&plain(at).max_size(19 * 512)),
    );
    assert_eq!(result, Err(Failure::TooLarge { limit: 19 * 512 }));
    assert!(got.len() <= 19 * 512, "{}", got.len());
}

#[test]
fn a_file_that_is_announced_too_large_is_not_begun() {
    let (result, got) = play(
        |port| {
            let call = port.call();
            call.oack("tsize\x001001\0");
            assert_eq!(call.recv(), b"\0\x05\0\x03file is too large\0");
        },
        |at| get(&Client::new(at).max_size(1000)),
    );
    assert_eq!(result, Err(Failure::TooLarge { limit: 1000 }));
    assert_eq!(got, b"");
}

/// Octets that are counted, and whether they were committed.
struct Counting<'a>(&'a AtomicBool);

impl Sink for Counting<'_> {
    fn append(&mut self, _: &[u8]) -> Result<(), Refusal> {
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), Refusal> {
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn a_size_that_lies_is_noticed_before_the_last_ack() {
    for (announced, sent) in [(600, 599), (600, 601), (600, 1024), (600, 511)] {
        let committed = AtomicBool::new(false);
        let result = play(
            |port| {
                let call = port.call();
                call.oack(&format!("tsize\0{announced}\0"));
                call.acked(0);
                let content = pattern(sent);
                for (block, payload) in (1..).zip(content.chunks(512)) {
                    call.data(block, payload);
                    if payload.len() == 512 && block == 1 {
                        call.acked(1);
                    }
                }
                assert_eq!(
                    call.refused(),
                    (3, "not the size that was announced".into()),
                    "{announced} {sent}"
                );
            },
            |at| Client::new(at).get_into("file", Box::new(Counting(&committed))),
        );
        let failure = result.expect_err("a lie");
        let received = sent as u64;
        assert_eq!(
            failure,
            Failure::SizeDiffers {
                announced,
                received
            }
        );
        assert_eq!(failure.fault(), Fault::Peer);
        assert!(!committed.into_inner(), "{announced} {sent}");
    }
}

/// 0 is what servers say that do not know; and whoever does not ask is not told.
#[test]
fn no_size_is_no_lie() {
    let wanted = pattern(600);
    let serve = |call: &Call| {
        call.acked(0);
        call.serve(&wanted);
    };
    let (result, got) = play(
        |port| {
            let call = port.call();
            call.oack("tsize\x000\0");
            serve(&call);
        },
        |at| get(&Client::new(at)),
    );
    assert_eq!((result, &got), (Ok(600), &wanted));
    let (result, got) = play(
        |port| {
            let call = port.call();
            assert!(!call.options().is_present(tftpool::OptionName::Tsize));
            call.oack("blksize\x00512\0".replace("512", "1428").as_str());
            call.acked(0);
            call.data(1, &wanted);
            call.acked(1);
        },
        |at| get(&Client::new(at).tsize(false)),
    );
    assert_eq!((result, got), (Ok(600), wanted));
}

#[test]
fn a_wrong_tid_changes_nothing() {
    let wanted = pattern(1000);
    let (result, got) = play(
        |port| {
            let call = port.call();
            call.data(1, &wanted[..512]);
            call.acked(1);
            // The right address, another port; the socket does not hear it.
            let stranger = UdpSocket::bind("127.0.0.1:0").expect("a free port");
            let evil = [&wire::data_header(2)[..], b"evil"].concat();
            stranger.send_to(&evil, call.peer).expect("sent");
            stranger
                .send_to(b"\0\x05\0\0stop\0", call.peer)
                .expect("sent");
            call.data(2, &wanted[512..]);
            call.acked(2);
        },
        |at| get(&plain(at)),
    );
    assert_eq!((result, got), (Ok(1000), wanted));
}

#[test]
fn an_answer_from_another_address_is_not_believed_but_told() {
    let other: IpAddr = [127, 0, 0, 2].into();
    let (result, got) = play(
        |port| {
            let call = port.call_from(other);
            call.data(1, b"evil");
            assert_eq!(call.refused(), (5, "unknown transfer ID".into()));
        },
        |at| get(&hasty(at).options(false).retries(1)),
    );
    let Err(Failure::AnsweredElsewhere(address)) = result else {
        panic!("{result:?}");
    };
    assert_eq!(address.ip(), other);
    assert_eq!(got, b"");
}

#[test]
fn an_error_text_cannot_reach_the_terminal() {
    let (result, _) = play(
        |port| {
            port.call()
                .error(1, "\x1b[2J\x1b]0;gone\x07\r\nfake line \u{202e}")
        },
        |at| get(&Client::new(at)),
    );
    let Err(failure @ Failure::Aborted { .. }) = &result else {
        panic!("{result:?}");
    };
    let words = failure.to_string();
    assert!(words.starts_with("peer sent error 1 "), "{words}");
    assert!(!words.contains(char::is_control), "{words:?}");
    assert!(!words.contains('\u{202e}'), "{words:?}");
}

#[test]
fn junk_in_mid_transfer_is_passed_over() {
    let wanted = pattern(1000);
    let (result, got) = play(
        |port| {
            let call = port.call();
            call.data(1, &wanted[..512]);
            call.acked(1);
            for junk in [
                &b""[..],
                b"\0",
                b"\0\x03",
                b"\0\x09junk",
                b"\0\x01f\0octet\0",
                b"\0\x04\0\x07",
                b"\0\x06blksize\x0065464\0",
                b"\0\x03\x80\0far away",
            ] {
                call.send(junk);
            }
            call.data(2, &wanted[512..]);
            call.acked(2);
        },
        |at| get(&plain(at)),
    );
    assert_eq!((result, got), (Ok(1000), wanted));
}

#[test]
fn a_file_takes_no_longer_than_it_may() {
    let limit = Duration::from_millis(300);
    let (result, _) = play(
        |port| {
            let call = port.call();
            call.data(1, &[7; 512]);
            // It waits, asks again, and says goodbye.
            assert_eq!(call.refused().0, 0);
        },
        |at| get(&plain(at).retries(100).max_time(limit)),
    );
    assert_eq!(result, Err(Failure::TooLong));
}

#[test]
fn a_writer_that_fails_is_told_to_the_server() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let result = play(
        |port| {
            let call = port.call();
            call.data(1, b"a little");
            assert_eq!(call.refused(), (3, "cannot write".into()));
        },
        |at| plain(at).get("file", &mut Full),
    );
    let Err(failure @ Failure::Store(_)) = result else {
        panic!("{result:?}");
    };
    assert_eq!(failure.fault(), Fault::Here);
}
