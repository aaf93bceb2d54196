//! Clients under measurement: this crate's own beside the ones people have, each as a process that
//! fetches one file, from its start to its end, at its defaults; and a bare receiver, which does
//! nothing that a client need not do.

use crate::contenders::Role;
use crate::pattern::Pattern;
use crate::process::Running;
use crate::report::{Figure, Sample};
use crate::sys;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddrV4;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tftpool::unversioned::wire::{self, Direction, Mode, OptionName, Options, Packet, Request};

/// One client and how it is called.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    program: String,
    arguments: &'static str,
}

/// The clients of this machine, at their defaults; none where this crate's own is missing. Tells
/// which are not there.
pub(crate) fn at_defaults() -> Vec<Tool> {
    let rival = |name, program: &str, arguments| Tool {
        name,
        role: Role::Rival,
        program: program.to_owned(),
        arguments,
    };
    let mut all = vec![
        own("tftpool get", "get tftp://ADDRESS:PORT/FILE -o OUT"),
        rival(
            "curl",
            "curl",
            "--silent --output OUT tftp://ADDRESS:PORT/FILE",
        ),
        rival("tftp-hpa", "tftp", "-m binary ADDRESS PORT -c get FILE OUT"),
        rival(
            "atftp",
            "atftp",
            "--get --remote-file FILE --local-file OUT ADDRESS PORT",
        ),
        rival("busybox", "busybox", "tftp -g -r FILE -l OUT ADDRESS PORT"),
    ];
    all.retain(|tool| {
        let is_there = tool.is_there();
        if !is_there {
            eprintln!("{}: is not installed; left out", tool.name);
        }
        is_there
    });
    if all.iter().all(|tool| tool.role != Role::Own) {
        all.clear();
    }
    all
}

/// What receives windows of 64 blocks of 1428 octets.
pub(crate) fn with_windows() -> io::Result<Vec<Tool>> {
    let bare = Tool {
        name: "bare receiver",
        role: Role::Limit,
        program: std::env::current_exe()?.display().to_string(),
        arguments: "receive ADDRESS:PORT 1428 64 FILE OUT",
    };
    let arguments = "get --blksize 1428 --windowsize 64 tftp://ADDRESS:PORT/FILE -o OUT";
    let own = own("tftpool get", arguments);
    // Alone, the bare receiver says nothing.
    Ok(if own.is_there() {
        vec![bare, own]
    } else {
        Vec::new()
    })
}

fn own(name: &'static str, arguments: &'static str) -> Tool {
    Tool {
        name,
        role: Role::Own,
        program: env!("CARGO_BIN_EXE_tftpool").to_owned(),
        arguments,
    }
}

impl Tool {
    /// Whether it can be called. Of this crate's command, whether it has grown a `get`.
    fn is_there(&self) -> bool {
        let help = match self.role {
            Role::Own => &["get", "--help"][..],
            _ => &["--help"],
        };
        let status = Command::new(&self.program)
            .args(help)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| self.role != Role::Own || status.success())
    }

    /// Fetches `file` of `size` octets once, into `scratch`, and checks it.
    pub(crate) fn fetch(
        &self,
        server: SocketAddrV4,
        file: &str,
        size: u64,
        scratch: &Path,
        pattern: &Pattern,
    ) -> io::Result<Sample> {
        const LIMIT: Duration = Duration::from_secs(20);
        let out = scratch.join("fetched");
        let _ = fs::remove_file(&out);
        let mut command = vec![self.program.clone()];
        command.extend(self.arguments.split_whitespace().map(|argument| {
            argument
                .replace("ADDRESS", &server.ip().to_string())
                .replace("PORT", &server.port().to_string())
                .replace("FILE", file)
                .replace("OUT", &out.display().to_string())
        }));
        let started = Instant::now();
        let mut running = Running::start(&command, &[], scratch, &scratch.join("client.log"))?;
        let status = running.wait(LIMIT);
        let seconds = started.elapsed().as_secs_f64();
        let cpu = running.cpu().as_secs_f64();
        let note = match status {
            None => "time limit".to_owned(),
            Some(status) if !status.success() => status.to_string(),
            Some(_) => match pattern.check(&out, size)? {
                true => String::new(),
                false => "the file is not what was served".to_owned(),
            },
        };
        let mut sample = Sample {
            note,
            ..Sample::default()
        };
        if sample.note.is_empty() {
            let octets = size as f64;
            sample
                .figures
                .insert(Figure::MibPerSecond, octets / f64::from(1 << 20) / seconds);
            sample
                .figures
                .insert(Figure::CpuSecondsPerGib, cpu / octets * f64::from(1 << 30));
        }
        Ok(sample)
    }
}

/// The least a client can do: takes whole windows in a few calls, writes what comes in order,
/// acknowledges the ends of windows. It repeats nothing and checks nothing, so it is for loopback
/// only.
pub(crate) fn receive([server, blksize, window, file, out]: [&str; 5]) -> io::Result<()> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidInput);
    let server: SocketAddrV4 = server.parse().map_err(|_| wrong())?;
    let blksize: u16 = blksize.parse().map_err(|_| wrong())?;
    let window: u16 = window.parse().map_err(|_| wrong())?;
    let socket = sys::udp_socket(false)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    sys::receive_buffer(
        &socket,
        4 * (usize::from(blksize) + 2048) * usize::from(window),
    )?;
    sys::coalesce(&socket)?;
    let mut request = Vec::new();
    Request {
        direction: Direction::Read,
        name: file.as_bytes(),
        mode: Mode::Octet,
        options: Options::default()
            .with(OptionName::Blksize, blksize.into())
            .with(OptionName::Windowsize, window.into()),
    }
    .emit(&mut request);
    socket.send_to(&request, server)?;
    let mut buffer = vec![0; 1 << 16];
    let opening = sys::receive(&socket, &mut buffer)?;
    socket.connect(opening.from)?;
    socket.send(&wire::ack(0))?;
    let mut out = File::create(out)?;
    let mut received = 0u16;
    let mut in_window = 0;
    let mut run = Vec::with_capacity(1 << 16);
    loop {
        let came = sys::receive(&socket, &mut buffer)?;
        let mut is_last = false;
        run.clear();
        for datagram in buffer[..came.length].chunks(came.segment) {
            let Ok(Packet::Data { block, payload }) = wire::parse(datagram) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            if block != received.wrapping_add(1) {
                return Err(io::Error::other("a block was lost"));
            }
            received = block;
            in_window += 1;
            run.extend_from_slice(payload);
            is_last = payload.len() < usize::from(blksize);
        }
        if in_window >= window || is_last {
            socket.send(&wire::ack(received))?;
            in_window = 0;
        }
        out.write_all(&run)?;
        if is_last {
            return Ok(());
        }
    }
}
