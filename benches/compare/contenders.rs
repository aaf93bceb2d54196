//! Who is measured: the two limits, this crate's server, and the rivals that `peers.sh` has
//! fetched.

use crate::Settings;
use crate::bed::Namespace;
use crate::client::Fetch;
use crate::load::{self, Report};
use crate::pattern::Pattern;
use crate::process::Running;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a server counts in the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Does nothing of what a server must: the measure of what is possible.
    Limit,
    /// This crate.
    Own,
    /// Another server.
    Rival,
}

/// One server and how it is started.
#[derive(Clone)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    /// Agrees to `windowsize` (RFC 7440).
    pub(crate) windows: bool,
    /// Serves many clients at once.
    pub(crate) crowds: bool,
    pub(crate) program: PathBuf,
    arguments: &'static str,
    environment: Vec<(String, String)>,
    /// Listens there whatever one says.
    fixed: Option<SocketAddrV4>,
    /// Runs in there, and so do its clients.
    namespace: Option<Arc<Namespace>>,
    /// What is told of it before the first table.
    remark: Option<String>,
}

/// The other build of this crate's command that `BASE` names.
pub(crate) const BASE: &str = "tftpool base";

/// A file small enough to ask whether a server is there.
pub(crate) const SMALL: &str = "f-1024";

/// All contenders that start here. Tells who does not.
pub(crate) fn present(
    settings: &Settings,
    directory: &Path,
    pattern: &Pattern,
) -> io::Result<Vec<Contender>> {
    let mut all = all(settings.peers.as_deref())?;
    if let Some(program) = &settings.base_program {
        std::fs::metadata(program)
            .map_err(|why| io::Error::other(format!("BASE={}: {why}", program.display())))?;
        let own = all.iter().position(|one| one.role == Role::Own);
        let at = own.unwrap_or(all.len() - 1);
        let base = Contender {
            name: BASE,
            program: program.clone(),
            ..all[at].clone()
        };
        all.insert(at + 1, base);
    }
    all.retain(|one| {
        let started = one.at_home(|| one.start(directory, pattern).map(drop));
        if let Err(why) = &started {
            eprintln!("{}: {why}; left out", one.name);
        }
        started.is_ok()
    });
    for one in &all {
        if let Some(remark) = &one.remark {
            println!("{}: {remark}", one.name);
        }
    }
    Ok(all)
}

/// All contenders. `peers` is the directory that `peers.sh` has filled.
pub(crate) fn all(peers: Option<&Path>) -> io::Result<Vec<Contender>> {
    let this = std::env::current_exe()?;
    let contender = |name, role, windows, program: PathBuf, arguments| Contender {
        name,
        role,
        windows,
        crowds: true,
        program,
        arguments,
        environment: Vec::new(),
        fixed: None,
        namespace: None,
        remark: None,
    };
    let mut all = vec![
        Contender {
            crowds: false,
            ..contender(
                "bare sender",
                Role::Limit,
                true,
                this.clone(),
                "serve-bare ADDRESS PORT DIR",
            )
        },
        contender(
            "floor",
            Role::Limit,
            true,
            this,
            "serve-floor ADDRESS PORT DIR",
        ),
        contender(
            "tftpool",
            Role::Own,
            true,
            env!("CARGO_BIN_EXE_tftpool").into(),
            "serve --host ADDRESS --port PORT DIR",
        ),
    ];
    let Some(peers) = peers else {
        return Ok(all);
    };
    let rival = |name, windows, program: &str, arguments| {
        contender(name, Role::Rival, windows, peers.join(program), arguments)
    };
    let rivals = [
        rival(
            "tftpd-hpa",
            false,
            "deb/usr/sbin/in.tftpd.hpa",
            "-L -4 --address ADDRESS:PORT --secure --user root DIR",
        ),
        rival(
            "atftpd",
            true,
            "deb/usr/sbin/atftpd",
            "--daemon --no-fork --bind-address ADDRESS --port PORT --user root.root --maxthread 10000 --logfile /dev/null \
             --verbose=1 DIR",
        ),
        alone(rival(
            "dnsmasq",
            false,
            "deb/usr/sbin/dnsmasq",
            "--conf-file=/dev/null --port=0 --enable-tftp --tftp-root=DIR --tftp-max=10000 --quiet-tftp --user=root \
             --keep-in-foreground --listen-address=ADDRESS --bind-interfaces --pid-file= --log-facility=/dev/null",
        )),
        rival(
            "rs-tftpd",
            true,
            "bin/tftpd",
            "-i ADDRESS -p PORT -d DIR -r -q",
        ),
        rival(
            "r-tftpd",
            true,
            "bin/r-tftpd",
            "-l ADDRESS -p PORT -m 10000",
        ),
    ];
    let libraries = ["deb/usr/lib", "deb/lib"].map(|under| {
        let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
        peers.join(under).join(triple).display().to_string()
    });
    for mut rival in rivals {
        rival.environment = vec![
            ("LD_LIBRARY_PATH".to_owned(), libraries.join(":")),
            ("RUST_LOG".to_owned(), "error".to_owned()),
        ];
        all.push(rival);
    }
    Ok(all)
}

/// A server that answers.
pub(crate) struct Ready {
    pub(crate) running: Running,
    pub(crate) address: SocketAddrV4,
    /// From exec to the first answer.
    pub(crate) first_answer: Duration,
}

impl Contender {
    /// The same server, listening there.
    pub(crate) fn at(&self, address: SocketAddrV4) -> Self {
        Self {
            fixed: Some(address),
            namespace: None,
            ..self.clone()
        }
    }

    /// Runs `work`, which starts this server and asks it, in the server's network namespace where
    /// it has one, so that its clients reach it by loopback as they reach everybody else. A server
    /// ends with the thread that has started it: it cannot outlive `work`.
    pub(crate) fn at_home<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.namespace {
            Some(namespace) => namespace.inside(work),
            None => work(),
        }
    }

    /// True where nobody else is in the server's network namespace.
    pub(crate) fn is_alone(&self) -> bool {
        self.namespace.is_some()
    }

    /// Starts the server over `directory` and waits until it has served the small file.
    pub(crate) fn start(&self, directory: &Path, pattern: &Pattern) -> Result<Ready, String> {
        self.start_under(&[], directory, pattern)
    }

    /// The same, with the program and its arguments handed to another command, which may make it
    /// slow.
    pub(crate) fn start_under(
        &self,
        wrapper: &[String],
        directory: &Path,
        pattern: &Pattern,
    ) -> Result<Ready, String> {
        if !self.program.exists() {
            return Err("is not installed".to_owned());
        }
        let address = match self.fixed {
            Some(address) => address,
            None => free_address().map_err(|error| error.to_string())?,
        };
        let mut command = wrapper.to_vec();
        command.push(self.program.display().to_string());
        command.extend(self.arguments.split_whitespace().map(|argument| {
            argument
                .replace("ADDRESS", &address.ip().to_string())
                .replace("PORT", &address.port().to_string())
                .replace("DIR", &directory.display().to_string())
        }));
        if !wrapper.is_empty() && self.role == Role::Own && nix::unistd::geteuid().is_root() {
            // As nobody it could not write what the wrapper wants to write in the end.
            command.splice(
                wrapper.len() + 2..wrapper.len() + 2,
                ["--user", "root"].map(String::from),
            );
        }
        let log = directory.with_extension(format!("{}.log", self.name.replace(' ', "-")));
        let started = Instant::now();
        let mut running = Running::start(&command, &self.environment, directory, &log)
            .map_err(|error| format!("does not start: {error}"))?;
        let answered = await_answer(address, started + Duration::from_secs(5));
        let first_answer = started.elapsed();
        let served = answered.and_then(|()| fetch_small(pattern, address));
        match served {
            _ if running.has_ended() => Err(format!("ends at once, see {}", log.display())),
            Ok(report) if report.done == 1 => Ok(Ready {
                running,
                address,
                first_answer,
            }),
            Ok(report) => Err(format!("does not serve {SMALL}: {:?}", report.failures)),
            Err(error) => Err(format!("does not answer: {error}")),
        }
    }
}

/// A server that knows port 69 only: alone in a network namespace that nobody else has, with its
/// clients. The namespace has no name, and lives as long as what is inside and this process.
pub(crate) fn alone(contender: Contender) -> Contender {
    let (address, namespace, remark) = match Namespace::new() {
        Ok(namespace) => (
            Ipv4Addr::LOCALHOST,
            Some(Arc::new(namespace)),
            "with its clients in a network namespace of its own".to_owned(),
        ),
        Err(why) => {
            let address = own_address();
            let remark = format!("at {address}, without a network namespace of its own ({why})");
            (address, None, remark)
        }
    };
    Contender {
        fixed: Some(SocketAddrV4::new(address, 69)),
        namespace,
        remark: Some(remark),
        ..contender
    }
}

/// An address of this process's own, where port 69 is free whoever else serves on this machine.
fn own_address() -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 69, high, low.clamp(1, 254))
}

/// A port that is free now.
fn free_address() -> io::Result<SocketAddrV4> {
    let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port();
    Ok(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

/// Asks for a file that is not there until the answer comes: the ERROR is the whole conversation,
/// so that nothing of it is left when the measurement begins.
fn await_answer(address: SocketAddrV4, until: Instant) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_nonblocking(true)?;
    while Instant::now() < until {
        socket.send_to(b"\0\x01absent\0octet\0", address)?;
        let again = Instant::now() + Duration::from_micros(500);
        while Instant::now() < again {
            if socket.recv(&mut [0; 64]).is_ok() {
                return Ok(());
            }
            std::thread::yield_now();
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn fetch_small(pattern: &Pattern, address: SocketAddrV4) -> io::Result<Report> {
    let fetch = Fetch {
        name: SMALL.to_owned(),
        size: 1024,
        blksize: 1428,
        windowsize: 1,
        coalesce: false,
    };
    load::single(&fetch, pattern, address, Duration::from_millis(500))
}
