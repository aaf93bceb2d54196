use super::*;

/// A name that rules get: a read by 192.0.2.169 of `NAME`; `put NAME` is a write, and `v6 NAME`
/// comes from 2001:db8::1, `mapped NAME` from ::ffff:192.0.2.169. Files called `here…` exist.
fn outcome(rules: &MapRules, asked: &str) -> String {
    let (direction, asked) = match asked.strip_prefix("put ") {
        Some(name) => (Direction::Write, name),
        None => (Direction::Read, asked),
    };
    let (client, name) = if let Some(name) = asked.strip_prefix("v6 ") {
        ("2001:db8::1", name)
    } else if let Some(name) = asked.strip_prefix("mapped ") {
        ("::ffff:192.0.2.169", name)
    } else {
        ("192.0.2.169", asked)
    };
    let request = MapRequest {
        name: name.as_bytes(),
        client: client.parse().expect("an address"),
        direction,
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    match rules.apply(&request, |name| name.starts_with(b"here"), |_| {}) {
        MapOutcome::Name(name) => text(name),
        MapOutcome::Refused { line, text: None } => format!("refused by {line}"),
        MapOutcome::Refused {
            line,
            text: Some(it),
        } => format!("refused by {line}: {}", text(it)),
        MapOutcome::Failed { line, why } => format!("failed at {line}: {why}"),
    }
}

#[test]
fn rules_mean_what_the_manual_of_tftpd_says() {
    let long = "x".repeat(MAX_NAME);
    let endless = "failed at 1: the rules come to no end";
    let too_long = "failed at 1: the name gets too long";
    let cases: &[(&str, &[(&str, &str)])] = &[
        // The sample of tftpd-hpa.
        (
            "ri\t^[a-z]:\t\t\t\t# drive letters\n\
             rg\t\\\\\t\t/\n\
             rg\t\\#\t\t@\n\
             rg\t/../\t\t/..no../\n\
             e\t^ok/\n\
             r\t^[^/]\t\t/tftpboot/\\0\n\
             a\t\\.pvt$\n",
            &[
                (r"C:\Boot\x64\wdsnbp.com", "/Boot/x64/wdsnbp.com"),
                ("a#b#c", "/tftpboot/a@b@c"),
                ("/x/ab/y", "/x/..no../y"),
                ("ok/some.pvt", "ok/some.pvt"),
                ("some.pvt", "refused by 7"),
                ("/x", "/x"),
            ],
        ),
        // Words: white space and hash marks end them, unless a backslash stands before.
        (
            "# a comment\n   # another\n\n r a\\ b c\\ d # the rest\r\nr \\# hash\nr q a\\#\\\\b more\nr y\r\n",
            &[
                ("xa bx", "xc dx"),
                ("#", "hash"),
                ("q", "a#\\b"),
                ("xyz", "xz"),
            ],
        ),
        // Every rule in turn, with what the ones before have made.
        (
            "r a b\nr b c\nr c d",
            &[("a", "d"), ("b", "d"), ("aa", "da")],
        ),
        ("rg a b", &[("banana", "bbnbnb")]),
        ("rg ab b", &[("aaab", "b")]),
        ("rgg ab b", &[("aaab ab", "aab b")]),
        ("rgg a aa", &[("banana", "baanaanaa")]),
        ("rgg x* -", &[("ab", "-a-b-"), ("axb", "-a--b-")]),
        ("rgg ^a b", &[("aaa", "baa")]),
        ("rg ^a ", &[("aab", "b")]),
        ("g a b", &[("a", "a")]),
        ("rg a aa", &[("a", too_long), ("b", "b")]),
        ("rg a a", &[("a", endless)]),
        ("s a", &[("a", endless), ("b", "b")]),
        ("r ^ xx", &[(&long, too_long)]),
        ("r ^x \\0\\0", &[(&long, too_long)]),
        // Where the rules end, and where they begin again.
        ("re a b\nr b c", &[("a", "b"), ("b", "c")]),
        ("r ^1 2\nrs ^a 1", &[("a", "2")]),
        ("es a\nr ^ x", &[("a", "a")]),
        // Refusals, and their text.
        (
            "a ^a\na ^b No\\ \\0",
            &[("a", "refused by 1"), ("bc", "refused by 2: No b")],
        ),
        ("ra ^a b", &[("a", "refused by 1: b")]),
        ("as ^a", &[("a", "refused by 1")]),
        ("a~ ^ok/", &[("ok/a", "ok/a"), ("a", "refused by 1")]),
        ("~e ^a\nr ^ x", &[("b", "b"), ("a", "xa")]),
        (
            "a~ ^ok/ \\0denied\\ \\i",
            &[("a", "refused by 1: denied 192.0.2.169")],
        ),
        // Who asks, and for what.
        (
            "rG ^ get/\nrP ^ put/\nrGP ^ never/",
            &[("a", "get/a"), ("put a", "put/a")],
        ),
        (
            "r4 ^ v4/\nr6 ^ v6/\nr46 ^ never/",
            &[("a", "v4/a"), ("v6 a", "v6/a"), ("mapped a", "v4/a")],
        ),
        (
            "r ^ \\i/\\x/",
            &[
                ("a", "192.0.2.169/C00002A9/a"),
                ("mapped a", "192.0.2.169/C00002A9/a"),
                ("v6 a", "2001:db8::1/20010DB8000000000000000000000001/a"),
            ],
        ),
        // Groups, and case.
        (
            "r ^(.)(.)(.)(.)(.)(.)(.)(.)(.)(.) \\9\\8\\7\\6\\5\\4\\3\\2\\1\\0",
            &[("abcdefghij", "ihgfedcbaabcdefghij")],
        ),
        ("r (a)|(b) <\\1\\2>", &[("b", "<b>"), ("a", "<a>")]),
        ("r .*- \\U\\0x\\E\\0\\LX\\0", &[("aB-c", "AB-XaB-xab-c")]),
        ("r ^ \\L\\xY\\E\\q\\\\\\", &[("", "c00002a9yq\\\\")]),
        ("ri ^BOOT x\nr ^BOOT y", &[("boot", "x"), ("Boot", "x")]),
        // Additions of 7.x: labels, jumps, and whether a file exists.
        (
            "j ^a end\nr ^ x\n:end\nr ^ y\n: spaced\nr ^ z",
            &[("a", "zya"), ("b", "zyxb")],
        ),
        (
            "j ^([ab])/ on-\\1\nr ^ x\n:on-a\nr ^ y\n:on-b\nr ^ z",
            &[("a/", "zya/"), ("b/", "zb/"), ("c/", "zyxc/")],
        ),
        (
            "j ^(.)$ \\1\n:a",
            &[
                ("a", "a"),
                ("b", "failed at 1: the label of the jump is missing"),
            ],
        ),
        ("j~ ^a end\nr ^ x\n:end", &[("a", "xa"), ("b", "b")]),
        (
            ":top\nj ^a top",
            &[("a", "failed at 2: the rules come to no end")],
        ),
        (
            ":twice\nr ^b c\nr ^a b\nj ^b twice\n:twice\nr ^ x",
            &[("a", "xc")],
        ),
        ("rE ^ here/\nr ^ x", &[("a", "here/a"), ("put a", "here/a")]),
        ("rE ^ gone/\nr ^ x", &[("a", "xa")]),
        ("E ^h\nr ^ x", &[("here", "here"), ("hidden", "xhidden")]),
        ("~E ^h\nr ^ x", &[("here", "xhere")]),
    ];
    let mut wrong = Vec::new();
    for (text, names) in cases {
        let rules = MapRules::parse(text.as_bytes());
        let rules = rules.unwrap_or_else(|error| panic!("{text:?}: {error}"));
        for (asked, wanted) in *names {
            let got = outcome(&rules, asked);
            if got != *wanted {
                wrong.push(format!("{asked:?} by {text:?}: {got:?}, not {wanted:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_wrong_is_named_with_line_and_column() {
    for (text, wanted) in [
        ("rx ^a b", "1:2: unknown letter \"x\""),
        ("\n  r ^a b\n\t /", "3:3: unknown letter \"/\""),
        ("r~ ^a b", "1:1: r and ~ cannot be combined"),
        ("rj ^a b\n:b", "1:1: r and j cannot be combined"),
        ("js ^a b\n:b", "1:1: s and j cannot be combined"),
        ("Ea ^a b", "1:1: a and E cannot be combined"),
        ("r", "1:2: the expression is missing"),
        ("r # comment", "1:2: the expression is missing"),
        ("r a[b c", "1:4: this bracket is not closed"),
        ("r (a)\\1 c", "1:6: back references are not supported"),
        ("r ^* c", "1:4: nothing to repeat"),
        ("r (a{999}){999} c", "1:3: the expression is too large"),
        ("j ^a", "1:2: the label to jump to is missing"),
        (
            "r a b\nj ^a nowhere",
            "2:6: no label \"nowhere\" in the file",
        ),
        ("\u{e4} a", "1:1: unknown letter \"\\xc3\""),
    ] {
        let error = MapRules::parse(text.as_bytes()).expect_err(text);
        assert!(error.to_string().starts_with(wanted), "{text:?}: {error}");
    }
    for (text, wanted) in [
        (
            "r a b\n".repeat(MAP_RULES + 1),
            format!("{}:1: more than", MAP_RULES + 1),
        ),
        ("#".repeat(MAP_FILE_BYTES + 1), "1:1: more than".to_owned()),
    ] {
        let error = MapRules::parse(text.as_bytes()).expect_err("too much");
        assert!(error.to_string().starts_with(&wanted), "{error}");
    }
}

#[test]
fn the_trace_tells_each_rule_that_fired_and_what_it_made() {
    let rules =
        MapRules::parse(b"# first\nr a b\nr x y\nE ^gone\nrs ^b c\nrE c here\n").expect("rules");
    let request = MapRequest {
        name: b"a",
        client: [192, 0, 2, 1].into(),
        direction: Direction::Read,
    };
    let mut steps = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let trace = |step: MapStep<'_>| {
        steps.push((step.line, text(step.before), text(step.after)));
    };
    let outcome = rules.apply(&request, |name| name == b"here", trace);
    assert_eq!(outcome, MapOutcome::Name(b"here".to_vec()));
    let step = |line, before: &str, after: &str| (line, before.to_owned(), after.to_owned());
    let wanted = [step(2, "a", "b"), step(5, "b", "c"), step(6, "c", "here")];
    assert_eq!(steps, wanted);
}

/// Each look-up is a call into the store.
#[test]
fn one_name_brings_so_many_look_ups_and_no_more() {
    let text = "E ^a\n".repeat(MAP_PROBES + 1);
    let rules = MapRules::parse(text.as_bytes()).expect("rules");
    let mut asked = 0;
    let request = MapRequest {
        name: b"a",
        client: [192, 0, 2, 1].into(),
        direction: Direction::Read,
    };
    let exists = |_: &[u8]| {
        asked += 1;
        false
    };
    let outcome = rules.apply(&request, exists, |_| {});
    assert!(matches!(outcome, MapOutcome::Failed { line, .. } if line == MAP_PROBES + 1));
    assert_eq!(asked, MAP_PROBES);
}
