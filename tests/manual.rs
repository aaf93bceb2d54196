//! The manual pages and the completions in `packaging/` are made of the command line and of
//! `packaging/man/sections/`, and are under version control. `make man` writes them; this test
//! fails when they are stale.

use clap_complete::Shell;
use clap_mangen::Man;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging")
}

/// Every file, by its path below `packaging/`.
fn files() -> Vec<(String, Vec<u8>)> {
    let mut command = tftpool::cli::command().disable_help_subcommand(true);
    command.build();
    let mut files = Vec::new();
    pages(&command, &mut files);
    let shells = [
        (Shell::Bash, "tftpool.bash"),
        (Shell::Zsh, "_tftpool"),
        (Shell::Fish, "tftpool.fish"),
    ];
    for (shell, name) in shells {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command, "tftpool", &mut text);
        files.push((format!("completions/{name}"), text));
    }
    files
}

/// The page of a command, and those of its subcommands.
fn pages(command: &clap::Command, files: &mut Vec<(String, Vec<u8>)>) {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let man = Man::new(command.clone())
        .manual("User Commands")
        .source(format!("tftpool {}", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    man.render_title(&mut page).expect("memory");
    man.render_name_section(&mut page).expect("memory");
    page.extend_from_slice(synopsis(command.clone()).as_bytes());
    man.render_description_section(&mut page).expect("memory");
    man.render_options_section(&mut page).expect("memory");
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page).expect("memory");
    }
    let short = name.strip_prefix("tftpool-").unwrap_or(name);
    page.extend_from_slice(roff(&sections(short)).as_bytes());
    page.extend_from_slice(see_also(name, command).as_bytes());
    files.push((format!("man/{name}.1"), ascii(&page).into_bytes()));
    for subcommand in command.get_subcommands() {
        pages(subcommand, files);
    }
}

/// What stands in a page beside the options.
fn sections(command: &str) -> String {
    let path = packaging().join(format!("man/sections/{command}.txt"));
    std::fs::read_to_string(&path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()))
}

fn see_also(name: &str, command: &clap::Command) -> String {
    let mut others: Vec<String> = command
        .get_subcommands()
        .map(|it| it.get_display_name().unwrap_or(it.get_name()).to_owned())
        .collect();
    if let Some((above, _)) = name.rsplit_once('-') {
        others.push(above.to_owned());
    }
    others.sort();
    let mut text = String::from(".SH SEE ALSO\n");
    for (index, other) in others.iter().enumerate() {
        let comma = if index + 1 < others.len() { " ," } else { "" };
        let _ = writeln!(text, ".BR {} (1){comma}", escaped(other));
    }
    text
}

/// `# TITLE`, paragraphs, and lines that are indented by four spaces and stay as they are.
fn roff(text: &str) -> String {
    let mut page = String::new();
    let mut is_example = false;
    for line in text.lines() {
        let example = line.strip_prefix("    ");
        if example.is_some() != is_example {
            page += if is_example {
                ".fi\n.RE\n"
            } else {
                ".RS 4\n.nf\n"
            };
            is_example = !is_example;
        }
        match (line.strip_prefix("# "), example) {
            (Some(title), _) => _ = writeln!(page, ".SH {title}\n.PP"),
            (_, Some(example)) => _ = writeln!(page, "{}", escaped(example)),
            _ if line.is_empty() => page += ".PP\n",
            _ => _ = writeln!(page, "{}", escaped(line)),
        }
    }
    if is_example {
        page += ".fi\n.RE\n";
    }
    // A paragraph that a heading or nothing follows is empty.
    page.replace(".PP\n.SH", ".SH").replace(".PP\n.PP", ".PP")
}

/// The usage line of `--help`: one that spells every option is no help here.
fn synopsis(mut command: clap::Command) -> String {
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").replace('-', "\\-");
    format!(".SH SYNOPSIS\n{usage}\n")
}

/// Other letters by their number: not every reader of a page knows its encoding.
fn ascii(page: &[u8]) -> String {
    let mut text = String::new();
    for letter in std::str::from_utf8(page).expect("text").chars() {
        match letter.is_ascii() {
            true => text.push(letter),
            false => _ = write!(text, "\\[u{:04X}]", u32::from(letter)),
        }
    }
    text
}

fn escaped(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-");
    match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}"),
        false => line,
    }
}

#[test]
fn manual_pages_and_completions_are_those_of_the_command_line() {
    let is_blessed = std::env::var_os("BLESS").is_some();
    let mut stale = Vec::new();
    let mut wanted: Vec<PathBuf> = Vec::new();
    for (name, content) in files() {
        let path = packaging().join(&name);
        if is_blessed {
            std::fs::create_dir_all(path.parent().expect("below packaging")).expect("a folder");
            std::fs::write(&path, &content).expect("written");
        } else if std::fs::read(&path).ok().as_ref() != Some(&content) {
            stale.push(name);
        }
        wanted.push(path);
    }
    assert!(stale.is_empty(), "stale, run `make man`: {stale:?}");
    for folder in ["man", "completions"] {
        for entry in std::fs::read_dir(packaging().join(folder)).expect("the folder is there") {
            let path = entry.expect("readable").path();
            let is_known = path.is_dir() || wanted.contains(&path);
            assert!(is_known, "of no command: {}", path.display());
        }
    }
}

/// Each example is a command line that `tftpool` understands.
#[test]
fn examples_of_the_manual_are_understood() {
    let mut count = 0;
    for entry in std::fs::read_dir(packaging().join("man/sections")).expect("the folder is there") {
        let path = entry.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("text");
        for line in text.lines().filter_map(|line| line.strip_prefix("    ")) {
            assert!(line.starts_with("tftpool "), "{}: {line}", path.display());
            let parsed = tftpool::cli::command().try_get_matches_from(line.split(' '));
            assert!(parsed.is_ok(), "{}: {line}: {parsed:?}", path.display());
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
}
