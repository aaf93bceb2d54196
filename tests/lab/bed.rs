//! Two network namespaces with something between them: a pair of `veth` devices whose input drops
//! packets by chance, or a relay of ours between two TUN devices. Nothing has a name outside:
//! namespaces, devices and rules live as long as what holds them open, so a test that panics, or is
//! killed, leaves nothing behind.
//!
//! It takes the rights to make namespaces and devices (root, `CAP_SYS_ADMIN`, `CAP_NET_ADMIN`),
//! `/dev/net/tun`, and the programs `ip` and `nft`.

#![allow(dead_code)] // each program uses its part

use crate::relay::{self, Counts, Link, Relay};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::process::Command;
use std::thread;

/// The server's address in its namespace.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 69, 0, 1);
/// The clients' address in theirs.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 69, 0, 2);

/// The standard port: nobody else is there.
pub(crate) fn server_address() -> SocketAddr {
    SocketAddrV4::new(SERVER, 69).into()
}

/// A network namespace without a name.
pub(crate) struct Namespace(File);

impl Namespace {
    /// Nothing is in it but a loopback device that is up.
    pub(crate) fn new() -> io::Result<Self> {
        in_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let namespace = Self(File::open("/proc/thread-self/ns/net")?);
            run("ip", "link set lo up")?;
            Ok(namespace)
        })
    }

    /// Runs `work` inside, in a thread of its own. Threads and processes that it starts are inside
    /// too, and sockets that it opens stay there, whoever uses them.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_a_thread(|| {
            setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).expect("our own namespace");
            work()
        })
    }
}

fn in_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// Runs a program; its arguments are words.
fn run(program: &str, arguments: &str) -> io::Result<()> {
    said(program, arguments).map(|_| ())
}

/// Runs a program; its arguments are words. Returns what it says.
fn said(program: &str, arguments: &str) -> io::Result<String> {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .map_err(|cause| io::Error::new(cause.kind(), format!("{program}: {cause}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let cause = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "{program} {arguments}: {}",
        cause.trim()
    )))
}

/// Two namespaces that reach each other.
pub(crate) struct Lab {
    pub(crate) server: Namespace,
    pub(crate) clients: Namespace,
    relay: Option<Relay>,
}

impl Lab {
    /// What the relay has done so far.
    pub(crate) fn counts(&self) -> &Counts {
        &self.relay.as_ref().expect("a relayed lab").counts
    }

    /// Packets that the filters of a cable have dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        [&self.server, &self.clients]
            .map(|end| end.inside(|| said("nft", "list chain inet lab input")))
            .iter()
            .map(|said| {
                let words = said.as_ref().expect("the rule that was added");
                let (_, count) = words.split_once("counter packets ").expect("a counter");
                let count = count.split_whitespace().next().expect("a number");
                count.parse::<u64>().expect("a number")
            })
            .sum()
    }

    /// A relay between them: what `to_server` and `to_clients` say happens to each packet.
    pub(crate) fn relayed(to_server: Link, to_clients: Link, seed: u64) -> io::Result<Self> {
        let (server, clients) = (Namespace::new()?, Namespace::new()?);
        let device = |own: Ipv4Addr, peer: Ipv4Addr| {
            move || {
                let tun = relay::tun("lab")?;
                run("ip", &format!("address add {own} peer {peer} dev lab"))?;
                run("ip", "link set lab mtu 1500 txqueuelen 10000 up")?;
                Ok::<_, io::Error>(tun)
            }
        };
        let ends = [
            server.inside(device(SERVER, CLIENT))?,
            clients.inside(device(CLIENT, SERVER))?,
        ];
        let relay = Relay::start(ends, [to_clients, to_server], seed)?;
        Ok(Self {
            server,
            clients,
            relay: Some(relay),
        })
    }

    /// Two ends of one cable, each dropping so many of a million packets that come in.
    pub(crate) fn cabled(loss_ppm: u32) -> io::Result<Self> {
        let (server, clients) = (Namespace::new()?, Namespace::new()?);
        // The kernel names the new device's home by a thread that lives there.
        let (sender, home) = std::sync::mpsc::channel();
        let (done, wait) = std::sync::mpsc::channel::<()>();
        thread::scope(|scope| {
            let clients = &clients;
            scope.spawn(move || {
                clients.inside(move || {
                    let _ = sender.send(nix::unistd::gettid());
                    let _ = wait.recv();
                });
            });
            let home = home.recv().map_err(io::Error::other)?;
            let made = server.inside(|| {
                run(
                    "ip",
                    &format!("link add lab type veth peer name lab netns {home}"),
                )
            });
            drop(done);
            made
        })?;
        server.inside(|| cable_end(SERVER, CLIENT, loss_ppm))?;
        clients.inside(|| cable_end(CLIENT, SERVER, loss_ppm))?;
        Ok(Self {
            server,
            clients,
            relay: None,
        })
    }
}

/// Packets leave one by one: otherwise whole bursts cross the cable as one, and are lost as one.
fn cable_end(own: Ipv4Addr, peer: Ipv4Addr, loss_ppm: u32) -> io::Result<()> {
    run("ip", &format!("address add {own} peer {peer} dev lab"))?;
    run("ip", "link set lab gso_max_segs 1 up")?;
    if loss_ppm == 0 {
        return Ok(());
    }
    run("nft", "add table inet lab")?;
    run(
        "nft",
        "add chain inet lab input { type filter hook input priority 0 ; }",
    )?;
    run(
        "nft",
        &format!(
            "add rule inet lab input iifname lab numgen random mod 1000000 < {loss_ppm} counter drop"
        ),
    )
}

/// The lab, or `None` where this process may not have one, which it says. In CI (the variable `CI`
/// is set) that is a failure: a proof that was left out has proved nothing.
pub(crate) fn or_skip(lab: io::Result<Lab>) -> Option<Lab> {
    match lab {
        Ok(lab) => Some(lab),
        Err(cause) if std::env::var_os("CI").is_none() && lacks_rights(&cause) => {
            // Past the test harness, which shows nothing of a test that passes.
            let _ = writeln!(
                io::stderr(),
                "skipped: no network namespaces here ({cause}); run as root, with /dev/net/tun, iproute2 and nftables"
            );
            None
        }
        Err(cause) => panic!("the lab cannot be built: {cause}"),
    }
}

fn lacks_rights(cause: &io::Error) -> bool {
    use io::ErrorKind::{NotFound, PermissionDenied};
    matches!(cause.kind(), NotFound | PermissionDenied)
        || cause.to_string().contains("not permitted")
}
