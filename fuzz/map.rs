//! The map file and a name for it, with a NUL between them. No text and no name makes the rules
//! panic or run away, what they make of a name is short, and the same name means the same again.

use tftpool::unversioned::limits::{MAP_PROBES, MAX_NAME};
use tftpool::{Direction, MapOutcome, MapRequest, MapRules};

pub fn map(bytes: &[u8]) {
    let mut halves = bytes.splitn(2, |byte| *byte == 0);
    let text = halves.next().unwrap_or_default();
    let name = halves.next().unwrap_or_default();
    let rules = match MapRules::parse(text) {
        Ok(rules) => rules,
        Err(error) => {
            let line = text.split(|byte| *byte == b'\n').nth(error.line - 1);
            let line = line.expect("a line of the file");
            assert!(error.column <= line.len() + 1, "{error}");
            return;
        }
    };
    for direction in [Direction::Read, Direction::Write] {
        let request = MapRequest {
            name: &name[..name.len().min(MAX_NAME)],
            client: [192, 0, 2, 169].into(),
            direction,
        };
        let run = || {
            let mut probes = 0;
            let exists = |name: &[u8]| {
                probes += 1;
                name.len().is_multiple_of(3)
            };
            let outcome = rules.apply(&request, exists, |step| {
                assert!(step.after.len() <= MAX_NAME);
            });
            assert!(probes <= MAP_PROBES);
            outcome
        };
        let outcome = run();
        if let MapOutcome::Name(name) = &outcome {
            assert!(name.len() <= MAX_NAME);
        }
        assert_eq!(outcome, run());
    }
}
