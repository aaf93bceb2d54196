//! What holds for any octets, any options and any order of events.

#[path = "../fuzz/bodies.rs"]
#[allow(unreachable_pub)]
mod bodies;

use proptest::collection::vec;
use proptest::prelude::*;
use tftpool::unversioned::proto::{Rollover, Terms, accept};
use tftpool::unversioned::wire::{Direction, Mode, OptionName, Options, Packet, Request, parse};

/// Octets that look like a packet: a fair opcode, and the strings that requests are made of.
fn likely_packet() -> impl Strategy<Value = Vec<u8>> {
    let word = proptest::sample::select(vec![
        "octet",
        "netascii",
        "blksize",
        "WINDOWSIZE",
        "tsize",
        "timeout",
        "0",
        "512",
        "65536",
        "",
        "\0",
        "é",
    ]);
    (0u8..8, vec(word, 0..20)).prop_map(|(opcode, words)| {
        let mut octets = vec![0, opcode];
        for word in words {
            octets.extend_from_slice(word.as_bytes());
            octets.push(0);
        }
        octets
    })
}

fn any_options() -> impl Strategy<Value = Options> {
    let value = prop_oneof![0u64..20, 0u64..70_000, 9_000u64..300_000_000, any::<u64>()];
    vec((0..OptionName::ALL.len(), value), 0..7).prop_map(|pairs| {
        pairs
            .into_iter()
            .fold(Options::default(), |options, (index, value)| {
                options.with(OptionName::ALL[index], value)
            })
    })
}

fn any_terms() -> impl Strategy<Value = Terms> {
    (any::<u16>(), any::<u16>(), 0u64..1 << 26).prop_map(|(blksize, windowsize, in_flight)| Terms {
        max_blksize: blksize,
        max_windowsize: windowsize,
        in_flight,
    })
}

/// The definition, digit by digit.
fn model_of_decimal(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Lines of what is done to files, and to which.
fn work_on_files() -> impl Strategy<Value = Vec<u8>> {
    let part = proptest::sample::select(vec![
        "/", "..", ".", "file", "to", "in", "out", "far", "round", "a/b", "up", "secret", "new",
    ]);
    let name = vec(part, 0..5).prop_map(|parts| parts.join("/"));
    let line = (proptest::sample::select(&b"rwlsmdxcn"[..]), name);
    let line = line.prop_map(|(what, name)| [&[what], name.as_bytes()].concat());
    vec(line, 1..10).prop_map(|lines| lines.join(&b'\n'))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_octets_are_a_packet_or_malformed_and_never_a_panic(octets in vec(any::<u8>(), 0..600)) {
        bodies::packet(&octets);
    }

    #[test]
    fn likely_packets_too(octets in likely_packet(), cut in 0usize..200) {
        bodies::packet(&octets);
        bodies::packet(&octets[..octets.len().min(cut)]);
    }

    #[test]
    fn a_request_that_was_written_is_read_as_it_was(
        name in vec(1u8.., 1..100),
        write in any::<bool>(),
        netascii in any::<bool>(),
        options in any_options(),
    ) {
        let request = Request {
            direction: if write { Direction::Write } else { Direction::Read },
            name: &name,
            mode: if netascii { Mode::Netascii } else { Mode::Octet },
            options,
        };
        let mut out = Vec::new();
        request.emit(&mut out);
        prop_assert_eq!(parse(&out), Ok(Packet::Request(request)));
    }

    #[test]
    fn option_values_are_strict_decimals(text in "[0-9]{0,22}|[ +-]?[0-9a-fx]{0,6} ?") {
        let pairs = [b"blksize\0", text.as_bytes(), b"\0"].concat();
        let options = Options::parse(&pairs);
        prop_assert!(options.is_present(OptionName::Blksize));
        prop_assert_eq!(options.get(OptionName::Blksize), model_of_decimal(text.as_bytes()));
    }

    #[test]
    fn what_is_granted_was_asked_for_and_our_client_understands_it(
        asked in any_options(),
        size in proptest::option::of(any::<u64>()),
        terms in any_terms(),
    ) {
        bodies::check_grant(&asked, size, &terms);
    }

    #[test]
    fn a_client_accepts_nothing_raised_and_nothing_new(asked in any_options(), oack in any_options()) {
        if let Ok(agreed) = accept(&asked, &oack) {
            for (name, value) in oack.iter() {
                let wanted = asked.get(name);
                prop_assert!(wanted.is_some());
                prop_assert!(name == OptionName::Tsize || Some(value) <= wanted);
            }
            prop_assert!((8..=65464).contains(&agreed.blksize) && agreed.windowsize > 0);
        }
    }

    #[test]
    fn admission_keeps_its_budgets_and_leaves_nothing(octets in vec(any::<u8>(), 0..300)) {
        bodies::admission(&octets);
    }

    #[test]
    fn options_never_panic(octets in vec(any::<u8>(), 0..300)) {
        bodies::options(&octets);
    }

    #[test]
    fn a_block_is_found_again_by_its_number(from in 0u64..1 << 48, ahead in 0u64..65_535, one in any::<bool>()) {
        let rollover = if one { Rollover::One } else { Rollover::Zero };
        let block = from + ahead;
        let wire = rollover.to_wire(block);
        // 0 comes once where 1 follows 65535: then 65535 blocks from 0 on have 65536 numbers.
        prop_assert_eq!(rollover.from_wire(wire, from), Some(block));
        prop_assert!(!one || wire > 0 || block == 0);
    }

    #[test]
    fn clients_survive_whatever_a_server_says(octets in vec(any::<u8>(), 1..400)) {
        bodies::client(&octets);
    }

    #[test]
    fn machines_survive_any_order_of_events(octets in vec(any::<u8>(), 3..400)) {
        bodies::session(&octets);
    }
}

proptest! {
    // Each makes a directory.
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_name_leads_out(octets in work_on_files()) {
        bodies::names(&octets);
    }
}
