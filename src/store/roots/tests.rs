use super::super::scratch::Scratch;
use super::super::{Kind, WriteMode};
use super::*;
use crate::wire::Direction;
use std::io::Read;

/// Knows one client's hardware address and one interface, and fails for one address.
const SYSTEM: System = System {
    mac: |client, scope| match client {
        IpAddr::V4(client) if client.octets() == [192, 0, 2, 7] => Ok(Some([2, 0, 0xab, 0, 0, 7])),
        IpAddr::V4(client) if client.octets() == [192, 0, 2, 99] => {
            Err(io::ErrorKind::PermissionDenied.into())
        }
        IpAddr::V6(_) if scope == 3 => Ok(Some([2, 0, 0xab, 0, 0, 8])),
        _ => Ok(None),
    },
    interface: |local| match local {
        IpAddr::V4(_) => Ok(Some("eth0".into())),
        IpAddr::V6(_) => Ok(None),
    },
};

fn request<'a>(direction: Direction, client: &str, name: &'a str) -> Request<'a> {
    let mut request = Request::new(direction, name);
    request.peer = client.parse().expect("an address");
    request.local = match request.peer {
        SocketAddr::V4(_) => ([192, 0, 2, 1], 69).into(),
        SocketAddr::V6(_) => "[2001:db8::1]:69".parse().expect("an address"),
    };
    request
}

const V4: &str = "192.0.2.7:2070";
const MAPPED: &str = "[::ffff:192.0.2.7]:2070";
const V6: &str = "[2001:db8::7]:2070";
const LINK: &str = "[fe80::7%3]:2070";

#[test]
fn a_root_is_called_what_the_template_says() {
    for (template, client, wanted) in [
        ("ip", V4, Some("192.0.2.7")),
        ("ip", MAPPED, Some("192.0.2.7")),
        ("ip", V6, Some("2001:db8::7")),
        ("ip", LINK, Some("fe80::7")),
        ("mac", V4, Some("02-00-ab-00-00-07")),
        ("mac", LINK, Some("02-00-ab-00-00-08")),
        ("mac", V6, None),
        ("{mac}", V4, Some("02:00:ab:00:00:07")),
        ("{mac-dash}", V4, Some("02-00-ab-00-00-07")),
        ("{ip-hex}", V4, Some("C0000207")),
        ("{ip-hex}", V6, Some("20010DB8000000000000000000000007")),
        ("boards/{ip}/boot", V4, Some("boards/192.0.2.7/boot")),
        ("{interface}", V4, Some("eth0")),
        ("{interface}", V6, None),
        (
            "{interface}/{ip-hex}-{ip}",
            V4,
            Some("eth0/C0000207-192.0.2.7"),
        ),
        ("{local}", V4, Some("192.0.2.1")),
        ("{local}", V6, Some("2001:db8::1")),
    ] {
        let parsed: RootTemplate = template.parse().expect(template);
        let got = parsed.expand(&request(Direction::Read, client, "file"), &SYSTEM);
        assert_eq!(
            got.expect("known").as_deref(),
            wanted,
            "{template} for {client}"
        );
    }
    for (template, why) in [
        ("", "not a path"),
        ("/", "not a path"),
        ("../{ip}", "not a path"),
        ("a/../{ip}", "not a path"),
        ("{ip}/..", "not a path"),
        ("board", "no variable"),
        ("{ip", "a brace is not closed"),
        ("{host}", "unknown variable {host}"),
        ("{}", "unknown variable {}"),
    ] {
        let error = template
            .parse::<RootTemplate>()
            .expect_err(template)
            .to_string();
        assert!(
            error.starts_with(why) && error.contains("{mac-dash}"),
            "{template}: {error}"
        );
    }
}

fn got(store: &impl Store, client: &str, name: &str) -> Result<String, u16> {
    let source = store.read(&request(Direction::Read, client, name));
    let Kind::File(mut file, _) = source.map_err(|refusal| refusal.code().0)?.0 else {
        panic!("a directory serves files");
    };
    let mut content = String::new();
    file.read_to_string(&mut content).expect("text");
    Ok(content)
}

const OTHER: &str = "192.0.2.8:2070";
const LINKED: &str = "192.0.2.9:2070";
const AWAY: &str = "192.0.2.10:2070";

/// A root of 192.0.2.7; that of 192.0.2.9 is a link to `boards/alpha`, that of 192.0.2.10 leaves.
fn tree() -> Scratch {
    let scratch = Scratch::new();
    for name in [
        "common",
        "192.0.2.7/own",
        "192.0.2.7/common",
        "192.0.2.7/deep/file",
        "boards/alpha/own",
        "boards/beta/own",
        "shared/kernel",
    ] {
        scratch.file(name, name);
    }
    scratch.link("192.0.2.9", "boards/alpha");
    scratch.link("192.0.2.10", "/usr");
    scratch.link("192.0.2.7/up", "../common");
    scratch.link("192.0.2.7/own-link", "deep/file");
    scratch.link("192.0.2.7/absolute", "/own");
    scratch.link("192.0.2.7/kernel", "../shared/kernel");
    scratch.link("192.0.2.7/host-kernel", scratch.at("shared/kernel"));
    scratch.link("boards/alpha/sibling", "../beta/own");
    scratch
}

#[test]
fn a_client_has_its_root_and_nothing_else() {
    let scratch = tree();
    let roots = |dir: Dir| PerClientRoot::new(dir, "ip".parse().expect("a template"));
    let store = roots(Dir::read_only(scratch.path()).expect("a directory"));
    for (client, name, wanted) in [
        (V4, "own", Ok("192.0.2.7/own")),
        (V4, "/own", Ok("192.0.2.7/own")),
        (MAPPED, "own", Ok("192.0.2.7/own")),
        (V4, "common", Ok("192.0.2.7/common")),
        (V4, "deep/../own", Ok("192.0.2.7/own")),
        (V4, r"deep\file", Ok("192.0.2.7/deep/file")),
        (V4, "shared/kernel", Err(1)),
        (V4, "../common", Err(2)),
        (V4, "deep/../../common", Err(2)),
        (V4, "../192.0.2.7/own", Err(2)),
        (V4, "up", Err(2)),
        (V4, "own-link", Ok("192.0.2.7/deep/file")),
        (V4, "absolute", Ok("192.0.2.7/own")),
        (V4, "kernel", Err(2)),
        (V4, "host-kernel", Err(2)),
        // Without one, the common root.
        (OTHER, "common", Ok("common")),
        (OTHER, "own", Err(1)),
        (OTHER, "192.0.2.7/own", Ok("192.0.2.7/own")),
        (V6, "common", Ok("common")),
        (LINKED, "own", Ok("boards/alpha/own")),
        (LINKED, "common", Err(1)),
        (LINKED, "sibling", Err(2)),
        (AWAY, "common", Err(2)),
        (AWAY, "bin/env", Err(2)),
    ] {
        let got = got(&store, client, name);
        assert_eq!(got, wanted.map(str::to_owned), "{name} for {client}");
    }
    // Trees that links may lead to are the same for all.
    let shared = scratch.at("shared");
    let dir = Dir::builder(scratch.path())
        .allow_symlink_target(shared)
        .ignore_case(true);
    let store = roots(dir.open().expect("a directory"));
    for name in ["kernel", "host-kernel"] {
        assert_eq!(got(&store, V4, name), Ok("shared/kernel".into()), "{name}");
    }
    assert_eq!(
        got(&store, V4, "DEEP/File"),
        Ok("192.0.2.7/deep/file".into())
    );
    assert_eq!(got(&store, V4, "up"), Err(2));
}

/// Nothing is remembered: a root that comes or goes counts at once.
#[test]
fn a_root_that_comes_or_goes_counts_for_the_next_request() {
    let scratch = tree();
    let dir = Dir::read_only(scratch.path()).expect("a directory");
    let store = PerClientRoot::new(dir, "ip".parse().expect("a template"));
    assert_eq!(got(&store, OTHER, "common"), Ok("common".into()));
    scratch.file("192.0.2.8/common", "its own");
    assert_eq!(got(&store, OTHER, "common"), Ok("its own".into()));
    std::fs::rename(scratch.at("192.0.2.8"), scratch.at("away")).expect("renamed");
    assert_eq!(got(&store, OTHER, "common"), Ok("common".into()));
    // A file is no root.
    scratch.file("192.0.2.8", "a file");
    assert_eq!(got(&store, OTHER, "common"), Ok("common".into()));
}

#[test]
fn a_client_that_cannot_be_told_apart_is_refused() {
    let scratch = tree();
    let dir = Dir::read_only(scratch.path()).expect("a directory");
    let mut store = PerClientRoot::new(dir, "mac".parse().expect("a template"));
    store.system = SYSTEM;
    assert_eq!(got(&store, OTHER, "common"), Ok("common".into()), "unknown");
    assert_eq!(got(&store, "192.0.2.99:2070", "common"), Err(2));
}

#[test]
fn uploads_go_to_the_root_of_their_client() {
    for has_upload_dir in [false, true] {
        let scratch = tree();
        let uploads = Scratch::new();
        uploads.directory("192.0.2.7");
        let mut dir = Dir::builder(scratch.path()).uploads(WriteMode::Create);
        if has_upload_dir {
            dir = dir.upload_dir(uploads.path());
        }
        let dir = dir.open().expect("a directory");
        let store = PerClientRoot::new(dir, "ip".parse().expect("a template"));
        assert!(store.takes_uploads());
        let base = if has_upload_dir { &uploads } else { &scratch };
        for (client, name, wanted) in [
            (V4, "new", Ok("192.0.2.7/new")),
            (V4, "/abs", Ok("192.0.2.7/abs")),
            (V4, "../new", Err(2)),
            (V4, "up", Err(6)),
            (OTHER, "new", Ok("new")),
        ] {
            if has_upload_dir && name == "up" {
                continue;
            }
            let sink = store.write(&request(Direction::Write, client, name));
            let stored = sink.and_then(|mut sink| {
                sink.append(b"sent")?;
                sink.commit()
            });
            let stored = stored.map_err(|refusal| refusal.code().0);
            assert_eq!(stored, wanted.map(drop), "{name} of {client}");
            if let Ok(wanted) = wanted {
                let content = std::fs::read(base.at(wanted)).expect("the file");
                assert_eq!(content, b"sent");
            }
        }
    }
}
