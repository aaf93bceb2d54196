//! The configuration file, the variables and the command line: which of them wins, what is said
//! about mistakes, and what `tftpool config` prints.

mod harness;

use harness::{Scratch, Server, run, text, tftpool};
use nix::sys::signal::Signal;
use std::path::Path;
use std::process::{Command, Output};

/// A directory that holds a configuration file.
fn file(lines: &str) -> (Scratch, String) {
    let scratch = Scratch::new();
    let path = scratch.path().join("tftpool.toml");
    std::fs::write(&path, lines).expect("a file");
    let path = path.to_str().expect("text").to_owned();
    (scratch, path)
}

fn config(arguments: &[&str]) -> Command {
    let mut command = tftpool();
    command.arg("config").args(arguments);
    command
}

/// The value of a key in what `config print` says, and where it came from.
fn printed(output: &Output, key: &str) -> (String, String) {
    let text = text(output);
    let start = format!("{key} = ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    let line = line.unwrap_or_else(|| panic!("no {key} in {text}"));
    let (value, origin) = line.rsplit_once("  # ").expect("an origin");
    (value.into(), origin.into())
}

#[test]
fn every_mistake_is_named_with_its_place_and_what_is_accepted() {
    // A file, and what is said about it behind its name.
    let cases = [
        (
            "port = 70000",
            "1:8: port: expected a number from 0 to 65535, found 70000",
        ),
        (
            "\n  port = true",
            "2:10: port: expected a value, found true or false",
        ),
        (
            "port = [1, 2]",
            "1:8: port: expected one value, found a list",
        ),
        (
            "hosts = \"::1\"",
            "1:1: hosts: unknown key (did you mean host?)",
        ),
        (
            "directroy = \"/\"",
            "1:1: directroy: unknown key (did you mean directory?)",
        ),
        (
            "config = \"/x\"",
            "1:1: config: this option is for the command line only",
        ),
        ("freebind = 1", "1:12: freebind: expected true or false"),
        (
            "verbose = 3",
            "1:11: verbose: expected a number from 0 to 2",
        ),
        (
            "write = \"creat\"",
            "1:9: write: expected one of none, create, overwrite, unique, found \"creat\"",
        ),
        (
            "timeout = \"5m\"",
            "1:11: timeout: expected a time from 10ms to 255s, such as 500ms, 1.5, 2s, found \"5m\"",
        ),
        (
            "umask = 0o22",
            "1:9: umask: expected a string, a decimal number",
        ),
        ("[network]\nport = 69", "1:2: network: unknown key"),
        ("port = 69\nport = 70", "2:1: duplicate key"),
        ("port = \"69", "1:"),
    ];
    for (lines, said) in cases {
        let (_scratch, path) = file(lines);
        let checked = run(&mut config(&["check", &path]));
        assert_eq!(checked.status.code(), Some(1), "{lines}");
        let wanted = format!("tftpool: {path}:{said}");
        assert!(
            text(&checked).contains(&wanted),
            "{lines}: {}",
            text(&checked)
        );
        assert_eq!(
            text(&checked).lines().count(),
            1,
            "{lines}: {}",
            text(&checked)
        );
        // A server does not start with it, and says the same.
        let served = run(tftpool().args(["serve", "--config", &path, "/"]));
        assert_eq!(served.status.code(), Some(2), "{lines}");
        assert_eq!(text(&served), text(&checked));
    }
    let (_scratch, path) = file("port = -1\nwrokers = 2\nretries = \"many\"\n");
    let checked = run(&mut config(&["check", &path]));
    assert_eq!(
        text(&checked).lines().count(),
        3,
        "all at once: {}",
        text(&checked)
    );
}

#[test]
fn options_that_exclude_each_other_are_a_mistake_in_one_source() {
    let (_scratch, path) = file("quiet = 1\nverbose = 1\n");
    let checked = run(&mut config(&["check", &path]));
    let wanted = format!("tftpool: {path}:2:11: verbose: cannot be combined with quiet\n");
    assert_eq!(text(&checked), wanted);
    let (_scratch, path) = file("quiet = 1\nverbose = 0\n");
    let checked = run(&mut config(&["check", &path]));
    assert_eq!(text(&checked), format!("{path}: ok\n"));
}

#[test]
fn the_command_line_wins_over_variables_and_they_over_the_file() {
    let (_scratch, path) = file(
        "directory = \"/srv\"\nport = 1001\nretries = 1\nworkers = 1\n\
         host = [\"127.0.0.1\", \"::1\"]\nfreebind = true\nquiet = 2\n",
    );
    let mut command = config(&["print", "--config", &path, "--port", "1003", "-v", "/tmp"]);
    command.env("TFTPOOL_PORT", "1002");
    command.env("TFTPOOL_RETRIES", "2");
    command.env("TFTPOOL_DURABLE", "true");
    let printed_by = run(&mut command);
    let at = |line: u32| format!("{path}:{line}");
    let wanted = [
        ("directory", "\"/tmp\"", "command line".into()),
        ("port", "1003", "command line".into()),
        ("retries", "2", "TFTPOOL_RETRIES".into()),
        ("durable", "true", "TFTPOOL_DURABLE".into()),
        ("workers", "1", at(4)),
        ("host", "[\"127.0.0.1\", \"::1\"]", at(5)),
        ("freebind", "true", at(6)),
        ("verbose", "1", "command line".into()),
        // -v excludes it.
        ("quiet", "0", "default".into()),
        ("max-time", "\"24h\"", "default".into()),
    ];
    for (key, value, origin) in wanted {
        let wanted = (value.to_owned(), origin);
        assert_eq!(printed(&printed_by, key), wanted, "{key}");
    }
    // A variable switches off what the file switches on.
    let mut command = config(&["print", "--config", &path]);
    let printed_by = run(command.env("TFTPOOL_FREEBIND", "0"));
    let off = ("false".to_owned(), "TFTPOOL_FREEBIND".to_owned());
    assert_eq!(printed(&printed_by, "freebind"), off);
    // A list of the command line takes the place of the file's.
    let mut command = config(&["print", "--config", &path, "--host", "127.0.0.2"]);
    let printed_by = run(&mut command);
    assert_eq!(printed(&printed_by, "host").0, "[\"127.0.0.2\"]");
    assert_eq!(printed(&printed_by, "directory").0, "\"/srv\"");
}

#[test]
fn variables_are_checked_as_options_are_and_those_of_kubernetes_are_not_ours() {
    let mut command = config(&["print", "/tmp"]);
    command.env("TFTPOOL_RETRIES", "many");
    let said = text(&run(&mut command));
    assert_eq!(
        said,
        "tftpool: TFTPOOL_RETRIES: expected a number from 0 to 100, found \"many\"\n"
    );
    let mut command = config(&["print", "/tmp"]);
    command.env("TFTPOOL_PORT", "udp://10.0.0.1:69");
    command.env("TFTPOOL_PORT_69_UDP_ADDR", "10.0.0.1");
    command.env("TFTPOOL_HOST", "127.0.0.1, ::1");
    let printed_by = run(&mut command);
    let said = text(&printed_by);
    assert!(said.contains("# port is not set\n"), "{said}");
    assert_eq!(printed(&printed_by, "host").0, "[\"127.0.0.1\", \"::1\"]");
}

#[test]
fn what_is_printed_is_a_file_that_means_the_same() {
    let (scratch, path) = file(
        "directory = \"/tmp\"\nport = 1001\nhost = [\"::1\"]\nwrite = \"unique\"\numask = \"007\"\n",
    );
    let first = run(&mut config(&["print", "--config", &path]));
    let again = scratch.path().join("again.toml");
    std::fs::write(&again, &first.stdout).expect("a file");
    let again = again.to_str().expect("text");
    let second = run(&mut config(&["print", "--config", again]));
    let values = |output: &Output| -> Vec<String> {
        let text = text(output);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let values = lines.map(|line| line.split("  # ").next().unwrap_or_default().to_owned());
        values.collect()
    };
    assert!(values(&first).len() > 20, "{}", text(&first));
    assert_eq!(values(&first), values(&second));
}

#[test]
fn the_file_of_defaults_changes_nothing_and_has_every_option() {
    let written = text(&run(&mut config(&["default"])));
    assert!(written.contains("# Retransmission interval, 10ms to 255s, "));
    assert!(!written.contains("{range"), "a range is missing");
    let help = text(&run(&mut config(&["print", "--help"])));
    assert!(
        help.contains("10ms to 255s") && !help.contains("{range"),
        "{help}"
    );
    let (scratch, path) = file(&written);
    let said = text(&run(&mut config(&["check", &path])));
    assert_eq!(said, format!("{path}: ok\n"));
    // The samples of keys without a default, such as "ADDR", are not values.
    let keys: Vec<&str> = written
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .collect();
    let keys = keys
        .iter()
        .filter(|line| !line.is_empty() && !line.starts_with([' ', '#']));
    let (mut all, mut defaults) = (Vec::new(), String::new());
    for line in keys {
        let (key, value) = line.split_once(" = ").expect("a key and a value");
        all.push(key);
        if !value
            .trim_matches(['[', ']', '"'])
            .starts_with(|c: char| c.is_ascii_uppercase())
            && value != "\"LO:HI\""
        {
            defaults.push_str(line);
            defaults.push('\n');
        }
    }
    let help = text(&run(tftpool().args(["serve", "--help"])));
    let words = help
        .split_whitespace()
        .filter(|word| word.starts_with("--"));
    let mut options: Vec<&str> = words.map(|word| word.trim_start_matches("--")).collect();
    options.retain(|option| {
        option
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
    });
    options.sort_unstable();
    options.dedup();
    for option in options {
        let key = match option {
            "file-directory" => "directory",
            "config" | "no-config" | "help" | "version" => continue,
            option => option,
        };
        assert!(all.contains(&key), "{key} is missing in {all:?}");
    }
    let uncommented = scratch.path().join("all.toml");
    std::fs::write(&uncommented, &defaults).expect("a file");
    let uncommented = uncommented.to_str().expect("text");
    let with = run(&mut config(&["print", "--config", uncommented, "/tmp"]));
    let without = run(&mut config(&["print", "/tmp"]));
    let values = |output: &Output| -> Vec<String> {
        let text = text(output);
        let values = text
            .lines()
            .map(|line| line.split("  # ").next().unwrap_or_default());
        values.map(ToOwned::to_owned).collect()
    };
    assert!(defaults.lines().count() > 15, "{defaults}");
    assert_eq!(values(&with), values(&without));
}

#[test]
fn a_file_that_is_not_there_is_an_error_only_where_it_was_named() {
    let missing = "/nonexistent/tftpool.toml";
    for command in [
        tftpool().args(["serve", "--config", missing]),
        tftpool().arg("serve").env("TFTPOOL_CONFIG", missing),
    ] {
        let output = run(command);
        assert_eq!(output.status.code(), Some(2));
        let wanted = format!("tftpool: {missing}: cannot read it: no such file or directory\n");
        assert_eq!(text(&output), wanted);
    }
    let (_scratch, path) = file("retries = \"wrong\"\n");
    let mut command = config(&["print", "--no-config", "/tmp"]);
    let printed_by = run(command.env("TFTPOOL_CONFIG", &path));
    assert_eq!(printed(&printed_by, "retries").1, "default");
}

#[test]
fn a_server_has_the_options_of_its_file_and_says_on_sighup_what_needs_a_restart() {
    let (scratch, path) = file("");
    let root = scratch.path().to_str().expect("text");
    let lines = |more: &str| {
        let lines = format!(
            "directory = \"{root}\"\nhost = \"127.0.0.1\"\nport = 0\nuser = \"root\"\n{more}"
        );
        std::fs::write(Path::new(&path), lines).expect("a file");
    };
    lines("verbose = 1\n");
    let mut command = tftpool();
    command.args(["serve", "--config", &path]);
    let server = match nix::unistd::geteuid().is_root() {
        true => Server::spawn(command),
        false => return harness::skip("only root keeps root's rights"),
    };
    assert!(server.banner.contains(root), "{}", server.banner);
    assert!(server.address().ip().is_loopback());
    lines("verbose = 1\nretries = 9\n");
    server.signal(Signal::SIGHUP);
    let line = server.line_with("option changed");
    assert!(
        line.contains("key=retries (restart the server to apply it)"),
        "{line}"
    );
    lines("retries = nine\n");
    server.signal(Signal::SIGHUP);
    let line = server.line_with("the options that were read at the start stay");
    assert!(line.contains(&format!("{path}:5:")), "{line}");
    lines("");
    server.signal(Signal::SIGHUP);
    let line = server.line_with("option changed");
    assert!(line.contains("key=retries"), "{line}");
    let line = server.line_with("option changed");
    assert!(line.contains("key=verbose"), "{line}");
}
