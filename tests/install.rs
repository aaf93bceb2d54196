//! `make install` and `make uninstall`.

mod harness;

use harness::{Scratch, run, text};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn make(target: &str, destination: &Path) {
    let mut command = Command::new("make");
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args([target, "PREFIX=/opt/tftp"])
        .arg(format!("DESTDIR={}", destination.display()))
        .arg(concat!("BINARY=", env!("CARGO_BIN_EXE_tftpool")))
        .env_remove("MAKEFLAGS");
    let output = run(&mut command);
    assert!(output.status.success(), "{}", text(&output));
}

fn files(folder: &Path, found: &mut BTreeSet<String>, top: &Path) {
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files(&path, found, top);
        } else {
            let inside = path.strip_prefix(top).expect("below the top");
            found.insert(inside.to_str().expect("ASCII").to_owned());
        }
    }
}

fn installed(top: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    files(top, &mut found, top);
    found
}

#[test]
fn what_make_installs_is_uninstalled_but_for_options() {
    let scratch = Scratch::new();
    let top = scratch.path();
    make("install", top);
    let found = installed(top);
    for wanted in [
        "opt/tftp/bin/tftpool",
        "opt/tftp/share/man/man1/tftpool.1",
        "opt/tftp/share/man/man1/tftpool-serve.1",
        "opt/tftp/share/bash-completion/completions/tftpool",
        "opt/tftp/share/zsh/site-functions/_tftpool",
        "opt/tftp/share/fish/vendor_completions.d/tftpool.fish",
        "opt/tftp/lib/systemd/system/tftpool.service",
        "opt/tftp/lib/systemd/system/tftpool.socket",
        "opt/tftp/lib/sysusers.d/tftpool.conf",
        "opt/tftp/lib/tmpfiles.d/tftpool.conf",
        "opt/tftp/share/doc/tftpool/README.md",
        "etc/default/tftpool",
    ] {
        assert!(found.contains(wanted), "{wanted} is not in {found:#?}");
    }
    let unit = scratch.at("opt/tftp/lib/systemd/system/tftpool.service");
    let unit = std::fs::read_to_string(unit).expect("text");
    assert!(
        unit.contains("ExecStart=/opt/tftp/bin/tftpool serve "),
        "{unit}"
    );
    let version = run(Command::new(scratch.at("opt/tftp/bin/tftpool")).arg("--version"));
    assert!(version.status.success());

    // Options of an operator stay, also where the installation is repeated.
    let options = scratch.at("etc/default/tftpool");
    std::fs::write(&options, "TFTPOOL_OPTIONS=-v\n").expect("written");
    make("install", top);
    make("uninstall", top);
    assert_eq!(
        installed(top),
        BTreeSet::from(["etc/default/tftpool".to_owned()])
    );
    let kept = std::fs::read_to_string(options).expect("text");
    assert_eq!(kept, "TFTPOOL_OPTIONS=-v\n");
}
