//! Which file a name means, as clients see it: map files beside tftpd-hpa, prefixes, case, roots of
//! clients, and access rules.

mod harness;

use harness::{
    Scratch, Server, answers, ask, error, fetched, first_block, run, skip, text, tftpool,
};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Stdio};
use tftpool::{Direction, MapOutcome, MapRequest, MapRules};

/// The content of the file that is served, or the code of the ERROR.
fn answer(server: SocketAddr, name: &str) -> Result<String, u16> {
    let packet = ask(server, name);
    match packet[1] {
        3 => Ok(String::from_utf8_lossy(first_block(&packet)).into_owned()),
        _ => Err(error(&packet).0),
    }
}

/// tftpd-hpa with a map file. Killed and reaped when dropped.
struct Hpa {
    child: Child,
    address: SocketAddr,
}

impl Hpa {
    fn start(root: &Path, map: &Path) -> Self {
        let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = free.local_addr().expect("bound");
        drop(free);
        let child = fetched("in.tftpd.hpa")
            .args([
                "-L",
                "-4",
                "--address",
                &address.to_string(),
                "--user",
                "root",
            ])
            .arg("--map-file")
            .arg(map)
            .arg("--secure")
            .arg(root)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("in.tftpd");
        let hpa = Self { child, address };
        answers(address).expect("tftpd-hpa answers");
        hpa
    }
}

impl Drop for Hpa {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What boot loaders, phones and switches ask for.
fn boot_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "pxelinux.0",
        "/pxelinux.0",
        "lpxelinux.0",
        "ldlinux.c32",
        "pxelinux.cfg/b8945908-d6a6-41a9-611d-74a6ab80b83d",
        "pxelinux.cfg/01-88-99-aa-bb-cc-dd",
        "pxelinux.cfg/default",
        "grub/i386-pc/core.0",
        "/boot/grub/x86_64-efi/command.lst",
        "/boot/grub/x86_64-efi/fs.lst",
        "/boot/grub/grub.cfg-01-88-99-aa-bb-cc-dd",
        "/boot/grub/grub.cfg-C0A80264",
        "/boot/grub/grub.cfg",
        "(tftp)/grub/grub.cfg",
        "bootx64.efi",
        "EFI/BOOT/BOOTX64.EFI",
        "shimx64.efi",
        "grubx64.efi",
        "revocations.efi",
        "undionly.kpxe",
        "ipxe.efi",
        "autoexec.ipxe",
        "boot.scr.uimg",
        "C0A80264.img",
        "uImage",
        "zImage",
        "am335x-boneblack.dtb",
        "fitImage-board_v2.1",
        "u-boot.img",
        "MLO",
        r"\Boot\BCD",
        r"\boot\bcd",
        r"Boot\BCD",
        r"\Boot\x64\wdsnbp.com",
        r"boot\x64\pxeboot.n12",
        r"\boot\fonts\wgl4_boot.ttf",
        r"\Boot\boot.sdi",
        r"\Boot\x64\Images\boot.wim",
        r"\hiberfil.sys",
        r"C:\RemoteInstall\Boot\bootmgr.exe",
        r"\SMSBoot\x64\wdsmgfw.efi",
        "SEP001122334455.cnf.xml",
        "SEP001122334455.cnf.xml.sgn",
        "CTLSEP001122334455.tlv",
        "ITLSEP001122334455.tlv",
        "XMLDefault.cnf.xml",
        "SIP001122334455.cnf",
        "SIPDefault.cnf",
        "dialplan.xml",
        "RINGLIST.XML",
        "jar45sccp.9-4-2.sbn",
        "network-confg",
        "cisconet.cfg",
        "router-confg",
        "ciscortr.cfg",
        "/tftpboot/c2960-lanbasek9-mz.150-2.SE11.bin",
        "start4.elf",
        "fixup4.dat",
        "config.txt",
        "1a2b3c4d/start4.elf",
        "1a2b3c4d/config.txt",
        "dc-a6-32-01-02-03/config.txt",
        "kernel8.img",
        "bcm2711-rpi-4-b.dtb",
        "overlays/overlay_map.dtb",
        "../etc/passwd",
        "/srv/tftp/pxelinux.0",
        "/srv/tftp//images/kernel",
        "images/../pxelinux.0",
        "name with spaces",
        "a#b",
        "a%20b",
        "file.pvt",
        "secret/file.pvt",
        "ok/file.pvt",
        "Upper/CASE/Name.TXT",
        "a",
        "aa",
        "aaa",
        "abab",
        "a.b.c",
        "x/ab/y",
    ]
    .map(str::to_owned)
    .into();
    // The search of PXELINUX, of GRUB and of U-Boot by the address in hexadecimal.
    for address in ["C0A80264", "0A000007", "C000025B"] {
        for length in 1..=8 {
            names.push(format!("pxelinux.cfg/{}", &address[..length]));
            names.push(format!("/boot/grub/grub.cfg-{}", &address[..length]));
        }
        names.push(format!("pxelinux.cfg/default-arm-{address}"));
    }
    for board in ["alpha", "beta", "gamma"] {
        for file in [
            "kernel",
            "initrd.img",
            "root.squashfs",
            r"dtb\board.dtb",
            "UPPER.CFG",
        ] {
            names.push(format!("{board}/{file}"));
            names.push(format!("/tftpboot/{board}/{file}"));
            names.push(format!(r"{board}\{file}"));
        }
    }
    names
}

/// Map files that use everything that tftpd-hpa 5.2 has, but what it gets wrong: it skips the first
/// rule after a restart, and puts the rest of the name around the text of a refusal.
const MAPS: [&str; 7] = [
    // Debian's sample.
    "ri\t^[a-z]:\t\t# drive letters\n\
     rg\t\\\\\t\t/\t# slashes\n\
     rg\t\\#\t\t@\t# hash marks\n\
     rg\t/../\t\t/..no../\n\
     e\t^ok/\n\
     r\t^[^/]\t\t/tftpboot/\\0\n\
     a\t\\.pvt$\n",
    // Prefixes off, in any spelling.
    "rg \\\\ /\nrg // /\nri ^/?(srv/tftp|tftpboot)/\nri ^/\nr ^ top/\n",
    // Case.
    "rg \\\\ /\nr (.*)/([^/]*)$ \\L\\1\\E/\\2\nri ^(boot)/(.*)\\.(efi|cfg|com)$ \\U\\1\\E/\\2.\\L\\3\n",
    // The client, groups, and the end of the rules.
    "re ^pxelinux\\.cfg/(default)$ by-address/\\i/\\1\n\
     re ^pxelinux\\.cfg/([0-9A-F]{8})$ by-hex/\\x/\\1\n\
     re ^pxelinux\\.cfg/([0-9a-f]{2}-){6}[0-9a-f]{2}$ by-mac/\\0\n\
     re SEP([0-9A-F]+)\\.cnf\\.xml(\\.sgn)?$ phones/\\1/config\\2\n\
     e ^(images|overlays)/\n\
     r ^([^/.]*)\\.([^/]*)$ files/\\2/\\1\n",
    // The longest of several alternatives, repetitions, classes, anchors in the middle.
    "r a|ab|aba <\\0>\nr (b|bo|boo)(t|ot)? [\\1.\\2]\nr ([[:upper:]]+)[[:punct:]] {\\1}\nrg \\  _\n\
     r x^ never\nr ^pxe|\\.0$ P\n",
    // Inverted rules, directions and families.
    "a~ ^[^.]|^\\.[^.]\nrG \\.txt$ .read\nrP \\.txt$ .write\nr4 ^config v4-config\nr6 ^config v6-config\n\
     ~e ^/\nr ^/boot/ b/\n",
    // Restarts, where the first rule is none that matters.
    "r ^nothing$ x\nrs ^/srv/tftp//?\nrs ^/tftpboot/\nrs ^/\nr ^ root/\n",
];

/// The same tree, the same rules, the same names.
#[test]
fn a_map_file_means_the_same_as_to_tftpd_hpa() {
    if !nix::unistd::geteuid().is_root() {
        return skip("tftpd-hpa needs root here (sudo make test)");
    }
    let names = boot_names();
    assert!(names.len() >= 150, "{}", names.len());
    let mut wrong = Vec::new();
    for map in MAPS {
        let rules = MapRules::parse(map.as_bytes()).unwrap_or_else(|it| panic!("{map}: {it}"));
        // Every name that is meant is there, and says which one it is; what would climb out is
        // refused by us and looked up in its chroot by tftpd-hpa.
        let (scratch, root) = (Scratch::new(), Scratch::new());
        let means = |name: &String| {
            let request = MapRequest {
                name: name.as_bytes(),
                client: Ipv4Addr::LOCALHOST.into(),
                direction: Direction::Read,
            };
            match rules.apply(&request, |_| false, |_| {}) {
                MapOutcome::Name(name) => Some(String::from_utf8(name).expect("text")),
                _ => None,
            }
        };
        let asked: Vec<_> = names
            .iter()
            .filter(|name| !means(name).is_some_and(|name| name.contains("../")))
            .collect();
        let meant: BTreeSet<_> = asked.iter().filter_map(|name| means(name)).collect();
        for name in &meant {
            let path = name.trim_start_matches('/');
            let is_directory = |other: &String| {
                let other = other.trim_start_matches('/');
                other
                    .strip_prefix(path)
                    .is_some_and(|rest| rest.starts_with('/'))
            };
            if !path.is_empty() && !path.ends_with('/') && !meant.iter().any(is_directory) {
                root.file(path, path);
            }
        }
        let path = scratch.file("map", map);
        let options = [
            "--map-file",
            path.to_str().expect("UTF-8"),
            "--user",
            "root",
        ];
        let ours = Server::start(root.path(), &options);
        let theirs = Hpa::start(root.path(), &path);
        for name in asked {
            let (got, wanted) = (answer(ours.address(), name), answer(theirs.address, name));
            // A directory is refused with ERROR 2 here, and with ERROR 0 there.
            if got != wanted && (&got, &wanted) != (&Err(2), &Err(0)) {
                wrong.push(format!("{name:?} by {map:?}: {got:?}, there {wanted:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_map_file_is_read_again_on_sighup_and_a_broken_one_changes_nothing() {
    let (scratch, root) = (Scratch::new(), Scratch::new());
    root.file("one", "one");
    root.file("two", "two");
    let path = scratch.file("map", "r ^x one\n");
    let map = path.to_str().expect("UTF-8");
    let server = Server::start(root.path(), &["--map-file", map]);
    let is = |name: &str| answer(server.address(), name);
    assert_eq!(is("x"), Ok("one".into()));
    scratch.file("map", "r ^x two\nr (two x\n");
    server.signal(Signal::SIGHUP);
    let line = server.line_with(":2:3: this group is not closed");
    assert!(
        line.contains(map) && line.contains("the old rules stay"),
        "{line}"
    );
    assert_eq!(is("x"), Ok("one".into()));
    scratch.file("map", "r ^x two\na ^no\n");
    server.signal(Signal::SIGHUP);
    server.line_with("map file read rules=2");
    assert_eq!(is("x"), Ok("two".into()));
    assert_eq!(is("no"), Err(2));
}

#[test]
fn a_map_file_that_is_of_no_use_is_an_error_at_the_start() {
    let scratch = Scratch::new();
    let broken = scratch.file("broken", "r a b\nz a\n");
    for (path, words) in [
        (
            broken.clone(),
            format!("{}:2:1: unknown letter \"z\"", broken.display()),
        ),
        (
            scratch.at("none"),
            format!("cannot read {}: ", scratch.at("none").display()),
        ),
        (scratch.path().to_owned(), "not a regular file".to_owned()),
    ] {
        let mut command = tftpool();
        command
            .args(["serve", "--port", "0", "--map-file"])
            .arg(&path);
        let output = run(command.arg(scratch.path()));
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(&words), "{}", text(&output));
    }
}

#[test]
fn access_rules_decide_in_the_order_of_the_command_line() {
    let root = Scratch::new();
    root.file("file", "content");
    let served = Ok("content".to_owned());
    // Every client here has the address 127.0.0.1.
    for (options, wanted) in [
        (vec!["--deny", "127.0.0.0/8"], Err(2)),
        (
            vec!["--allow", "127.0.0.1", "--deny", "127.0.0.0/8"],
            served.clone(),
        ),
        (
            vec!["--deny", "127.0.0.0/8", "--allow", "127.0.0.1"],
            Err(2),
        ),
        (vec!["--allow", "192.0.2.0/24"], Err(2)),
        (vec!["--allow", "192.0.2.0/24,write"], served),
    ] {
        let options = [&options[..], &["--denied", "refuse"]].concat();
        let server = Server::start(root.path(), &options);
        assert_eq!(answer(server.address(), "file"), wanted, "{options:?}");
        if wanted.is_err() {
            server.line_with(
                "requests denied count=1 reason=\"access rules (last client 127.0.0.1)\"",
            );
        }
    }
}

/// The prefix comes off first, then the rules are applied, then the case is ignored.
#[test]
fn prefixes_rules_and_case_work_together() {
    let (scratch, root) = (Scratch::new(), Scratch::new());
    root.file("Boot/BCD", "bcd");
    root.file("images/Kernel", "kernel");
    let map = scratch.file("map", "ri ^vmlinuz images/kernel\n");
    let server = Server::start(
        root.path(),
        &[
            "--strip-prefix",
            "/srv/tftp",
            "--strip-prefix",
            "/Srv",
            "--map-file",
            map.to_str().expect("UTF-8"),
            "--ignore-case",
        ],
    );
    for (name, wanted) in [
        (r"\boot\bcd", Ok("bcd")),
        ("/SRV/TFTP/BOOT/bcd", Ok("bcd")),
        ("/srv/Images/KERNEL", Ok("kernel")),
        ("srv/tftp/VMLINUZ", Ok("kernel")),
        ("srv/tftp/missing", Err(1)),
    ] {
        let wanted = wanted.map(str::to_owned);
        assert_eq!(answer(server.address(), name), wanted, "{name}");
    }
    root.file("boot/other", "other");
    assert_eq!(answer(server.address(), "BOOT/bcd"), Err(2));
    server.line_with("differ in case only");
}

#[test]
fn a_client_is_served_from_the_root_of_its_address_or_hardware_address() {
    let root = Scratch::new();
    root.file("file", "common");
    root.file("127.0.0.1/file", "by address");
    root.file("7F000001/boot/file", "by hexadecimal");
    for (template, wanted) in [
        ("ip", "by address"),
        ("{ip-hex}/boot", "by hexadecimal"),
        ("{local}", "by address"),
        ("clients/{ip}", "common"),
    ] {
        let server = Server::start(root.path(), &["--per-client-root", template]);
        let got = answer(server.address(), "file");
        assert_eq!(got, Ok(wanted.to_owned()), "{template}");
    }
    root.file("02-00-00-00-00-07/file", "by hardware address");
    root.file("lo/file", "by interface");
    harness::in_a_network(move || {
        let is = |template: &str| {
            let server = Server::start(root.path(), &["--per-client-root", template]);
            answer(server.address(), "file").expect("a file")
        };
        assert_eq!(is("{interface}"), "by interface");
        assert_eq!(is("mac"), "common", "it is not known");
        // The loopback device has no neighbours, so another one has this client's address too.
        for words in [
            "link add va type veth peer name vb",
            "link set va up",
            "neigh replace 127.0.0.1 lladdr 02:00:00:00:00:07 dev va nud permanent",
        ] {
            let made = std::process::Command::new("ip")
                .args(words.split(' '))
                .status();
            assert!(made.expect("iproute2").success(), "ip {words}");
        }
        assert_eq!(is("mac"), "by hardware address");
    });
}

/// dnsmasq with a root for each client. Killed and reaped when dropped.
struct Dnsmasq(Child);

impl Dnsmasq {
    /// It serves at port 69 only, so each process of tests has an address of its own.
    fn start(root: &Path) -> (Self, SocketAddr) {
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let ip = Ipv4Addr::new(127, 69, high, low);
        let address = (ip, 69).into();
        let child = fetched("dnsmasq")
            .args([
                "--conf-file=/dev/null",
                "--port=0",
                "--enable-tftp",
                "--user=root",
            ])
            .args(["--keep-in-foreground", "--bind-interfaces", "--pid-file="])
            .args(["--log-facility=/dev/null", "--tftp-unique-root=ip"])
            .arg(format!("--tftp-root={}", root.display()))
            .arg(format!("--listen-address={ip}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("dnsmasq");
        let dnsmasq = Self(child);
        answers(address).expect("dnsmasq answers");
        (dnsmasq, address)
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The same tree and the same names, before and after the client gets a root.
#[test]
fn the_root_of_a_client_is_that_of_dnsmasq() {
    if !nix::unistd::geteuid().is_root() {
        return skip("dnsmasq needs root here (sudo make test)");
    }
    let root = Scratch::new();
    for name in ["file", "other", "192.0.2.9/file", "sub/file"] {
        root.file(name, name);
    }
    let ours = Server::start(root.path(), &["--per-client-root", "ip"]);
    let (_dnsmasq, theirs) = Dnsmasq::start(root.path());
    let same = |wanted: [Result<&str, u16>; 5]| {
        let names = ["file", "/other", "192.0.2.9/file", r"sub\file", "missing"];
        for (name, wanted) in names.into_iter().zip(wanted) {
            let wanted = wanted.map(str::to_owned);
            assert_eq!(answer(theirs, name), wanted, "dnsmasq: {name}");
            assert_eq!(answer(ours.address(), name), wanted, "{name}");
        }
    };
    same([
        Ok("file"),
        Ok("other"),
        Ok("192.0.2.9/file"),
        Ok("sub/file"),
        Err(1),
    ]);
    root.file("127.0.0.1/file", "own");
    root.file("127.0.0.1/sub/file", "own sub");
    same([Ok("own"), Err(1), Err(1), Ok("own sub"), Err(1)]);
}
