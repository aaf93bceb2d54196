//! Each example is run as a program and does what it says.
//!
//! `cargo test` builds the examples with the tests; where only this test was asked for, it has them
//! built.

#[path = "loopback/rig.rs"]
mod rig;

use rig::*;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::sync::mpsc::{Receiver, channel};
use tftpool::{Mode, OptionName};

/// Where the examples are built: beside the directory of this very program.
fn program(name: &str) -> PathBuf {
    static BUILT: Once = Once::new();
    let own = std::env::current_exe().expect("a path");
    let folder = own.ancestors().nth(2).expect("a target directory");
    BUILT.call_once(|| {
        let target = folder.parent().expect("a target directory");
        let built = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--locked",
                "--offline",
                "--examples",
                "--all-features",
            ])
            .args(["--profile", "test", "--target-dir"])
            .arg(target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(
            built.is_ok_and(|status| status.success()),
            "examples do not build"
        );
    });
    folder.join("examples").join(name)
}

/// A running example. Killed when dropped.
struct Example {
    child: Child,
    lines: Receiver<String>,
}

impl Example {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(program(name))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut lines = stdout.lines().map_while(Result::ok);
            lines.try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    /// The next line with these words.
    fn line_with(&mut self, words: &str) -> String {
        let mut passed = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(words) => return line,
                Ok(line) => passed.push(line),
                Err(error) => panic!("no {words:?} after {passed:?}: {error}"),
            }
        }
    }

    fn address(&mut self) -> SocketAddr {
        let line = self.line_with("serving on ");
        let address = line.strip_prefix("serving on ").expect("an address");
        address.parse().expect("an address")
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("text").to_owned()
}

const ANY: &str = "127.0.0.1:0";

#[test]
fn serve_dir_serves_a_directory() {
    let scratch = Scratch::new();
    scratch.file("boot/kernel", &pattern(100_000));
    let mut example = Example::start("serve_dir", &[&text(scratch.path()), ANY]);
    let asked = example.address();
    let options = [(OptionName::Windowsize, 8)];
    assert_eq!(fetch(asked, "boot/kernel", &options), Ok(pattern(100_000)));
    assert!(example.line_with("Completed").contains("boot/kernel"));
}

#[test]
fn serve_memory_makes_contents_up() {
    let mut example = Example::start("serve_memory", &[ANY]);
    let asked = example.address();
    let mut client = Client::new(asked);
    let own = client.socket.local_addr().expect("an address");
    assert_eq!(client.get("whoami"), Ok(format!("{own}\n").into_bytes()));
    assert_eq!(fetch(asked, "count", &[]), Ok(b"1\n".to_vec()));
    assert_eq!(fetch(asked, "count", &[]), Ok(b"2\n".to_vec()));
    assert_eq!(fetch(asked, "zeros", &[]), Ok(vec![b'0'; 1_000_000]));
    let missing = Err(Trouble::Told(1, "file not found".into()));
    assert_eq!(fetch(asked, "else", &[]), missing);
}

#[test]
fn receive_memory_takes_uploads_and_serves_them() {
    let mut example = Example::start("receive_memory", &[ANY]);
    let asked = example.address();
    let options = [(OptionName::Windowsize, 4)];
    let file = pattern(100_000);
    assert_eq!(put(asked, "dump", Mode::Octet, &options, &file), Ok(()));
    assert_eq!(example.line_with("dump"), "dump: 100000 bytes");
    assert_eq!(fetch(asked, "dump", &options), Ok(file));
    let large = Err(Trouble::Told(3, "file is too large".into()));
    let announced = [(OptionName::Tsize, (1 << 20) + 1)];
    assert_eq!(put(asked, "dump", Mode::Octet, &announced, b"x"), large);
    let unannounced = pattern((1 << 20) + 1);
    let options = [(OptionName::Blksize, 8192)];
    assert_eq!(
        put(asked, "other", Mode::Octet, &options, &unannounced),
        large
    );
    let missing = Err(Trouble::Told(1, "file not found".into()));
    assert_eq!(fetch(asked, "other", &[]), missing);
}

#[test]
fn per_client_fills_templates_in() {
    let scratch = Scratch::new();
    scratch.file(
        "boot.ipxe",
        "#!ipxe\nkernel tftp://{server}/linux ip={ip}\n",
    );
    scratch.file("127.0.0.2/boot.ipxe", "own file of {ip}: {name}\n");
    scratch.file("linux", &pattern(70_000));
    let mut example = Example::start("per_client", &[&text(scratch.path()), ANY]);
    let asked = example.address();
    let of = |ip: [u8; 4], name: &str| Client::at((ip, 0).into(), asked).get(name);
    let wanted = b"#!ipxe\nkernel tftp://127.0.0.1/linux ip=127.0.0.9\n";
    assert_eq!(of([127, 0, 0, 9], "boot.ipxe"), Ok(wanted.to_vec()));
    let wanted = b"own file of 127.0.0.2: 127.0.0.2/boot.ipxe\n";
    assert_eq!(of([127, 0, 0, 2], "boot.ipxe"), Ok(wanted.to_vec()));
    assert_eq!(of([127, 0, 0, 2], "linux"), Ok(pattern(70_000)));
    scratch.file("dir/x.cfg", "for {ip}\n");
    let wanted = b"for 127.0.0.9\n";
    assert_eq!(of([127, 0, 0, 9], "dir\\x.cfg"), Ok(wanted.to_vec()));
    assert_eq!(of([127, 0, 0, 2], "x.ipxe").map_err(|told| told.0), Err(1));
    assert_eq!(
        of([127, 0, 0, 2], "../x.ipxe").map_err(|told| told.0),
        Err(2)
    );
    assert_eq!(of([127, 0, 0, 2], "../../x").map_err(|told| told.0), Err(2));
}

#[test]
fn layers_rename_what_is_asked_and_serve_the_upper_file_first() {
    let scratch = Scratch::new();
    scratch.file("upper/both", "upper");
    scratch.file("lower/both", "lower");
    scratch.file("lower/kernel", &pattern(70_000));
    let [upper, lower] = ["upper", "lower"].map(|name| text(&scratch.at(name)));
    let mut example = Example::start("layers", &[&upper, &lower, ANY]);
    let asked = example.address();
    for name in ["both", "tftpboot/both"] {
        assert_eq!(fetch(asked, name, &[]), Ok(b"upper".to_vec()), "{name}");
    }
    for name in ["kernel", "tftpboot/kernel"] {
        assert_eq!(fetch(asked, name, &[]), Ok(pattern(70_000)), "{name}");
    }
    let missing = Client::new(asked).get("none");
    assert_eq!(missing.map_err(|told| told.0), Err(1));
    let sent = put(asked, "tftpboot/log", Mode::Octet, &[], &pattern(3000));
    assert_eq!(sent, Ok(()));
    let stored = std::fs::read(scratch.at("upper/log")).expect("the upload");
    assert_eq!(stored, pattern(3000));
}

#[test]
fn events_to_json_prints_an_object_a_line() {
    let scratch = Scratch::new();
    scratch.file("quoted \"name\"", &pattern(3000));
    let mut example = Example::start("events_to_json", &[&text(scratch.path()), ANY]);
    let mut next = |event: &str| -> Value {
        let line = example.line_with(&format!(r#""event":"{event}""#));
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    };
    let address = next("listening")["address"].as_str().map(str::parse);
    let asked = address.expect("text").expect("an address");
    assert_eq!(fetch(asked, "quoted \"name\"", &[]), Ok(pattern(3000)));
    for event in ["request", "started", "completed"] {
        let object = next(event);
        assert_eq!(object["id"], "1", "{object}");
        if event != "started" {
            assert_eq!(object["file"], "quoted \"name\"", "{object}");
        }
        if event == "completed" {
            assert_eq!(object["bytes"], 3000, "{object}");
        }
    }
    assert!(fetch(asked, "missing\u{1}", &[]).is_err());
    let object = next("refused");
    assert_eq!(object["file"], "missing\u{1}", "{object}");
    assert_eq!(object["code"], 2, "{object}");
}

#[test]
fn driver_serves_files_once_and_cleans_up() {
    let scratch = Scratch::new();
    let sources = [("one", 5000), ("two", 0)]
        .map(|(name, length)| text(&scratch.file(name, &pattern(length))));
    let root = text(&scratch.at("root"));
    let mut example = Example::start("driver", &[&root, &sources[0], &sources[1]]);
    let asked = example.address();
    assert_eq!(fetch(asked, "one", &[]), Ok(pattern(5000)));
    assert!(fetch(asked, "three", &[]).is_err());
    assert!(scratch.at("root/one").exists());
    assert_eq!(fetch(asked, "two", &[]), Ok(Vec::new()));
    assert_eq!(example.line_with("files"), "2 files, 5000 octets");
    let status = example.child.wait().expect("our own child");
    assert!(status.success());
    let left = std::fs::read_dir(root).expect("the root stays");
    assert_eq!(left.count(), 0);
}

#[test]
fn own_event_loop_serves_many_at_once_on_one_port() {
    let scratch = Scratch::new();
    let file = text(&scratch.file("file", &pattern(150_000)));
    let mut example = Example::start("own_event_loop", &[&file, ANY]);
    let asked = example.address();
    std::thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                let options = [(OptionName::Blksize, 1000), (OptionName::Windowsize, 4)];
                let got = fetch(asked, "any", &options[..number % 3]);
                assert_eq!(got, Ok(pattern(150_000)));
            });
        }
    });
    for _ in 0..8 {
        example.line_with("Complete");
    }
    let write = Client::new(asked);
    write.shout(b"\0\x02file\0octet\0");
    assert_eq!(write.next_from().1, Reply::Error(2, "read-only".into()));
}
