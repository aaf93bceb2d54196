//! Two layers over two directories: `cargo run --example layers -- UPPER LOWER [ADDRESS]`.
//!
//! `Overlay` serves a file from UPPER if UPPER has it, and from LOWER otherwise. Uploads go to
//! UPPER. `Renamed` lies over it: a board that asks for `tftpboot/x` gets the file `x`. A layer is
//! a store that wraps a store, so a layer for access rules, for counting or for one root per client
//! is made in the same way.

use std::borrow::Cow;
use tftpool::{Dir, ErrorCode, Refusal, Request, Server, Sink, Source, Store, WriteMode};

/// Names that begin with `from` begin with `to` for the store below.
struct Renamed<S> {
    from: &'static [u8],
    to: &'static [u8],
    below: S,
}

impl<S> Renamed<S> {
    fn name<'a>(&self, request: &Request<'a>) -> Cow<'a, [u8]> {
        match request.name.strip_prefix(self.from) {
            Some(rest) => [self.to, rest].concat().into(),
            None => request.name.into(),
        }
    }
}

impl<S: Store> Store for Renamed<S> {
    fn read(&self, request: &Request<'_>) -> Result<Source, Refusal> {
        self.below.read(&request.with_name(&self.name(request)))
    }

    fn takes_uploads(&self) -> bool {
        self.below.takes_uploads()
    }

    fn write(&self, request: &Request<'_>) -> Result<Box<dyn Sink>, Refusal> {
        self.below.write(&request.with_name(&self.name(request)))
    }

    fn reload(&self) {
        self.below.reload();
    }
}

/// Files of `upper` hide those of `lower`.
struct Overlay<U, L> {
    upper: U,
    lower: L,
}

impl<U: Store, L: Store> Store for Overlay<U, L> {
    fn read(&self, request: &Request<'_>) -> Result<Source, Refusal> {
        match self.upper.read(request) {
            // Any other refusal stands: a file that may not be read hides the one below it too.
            Err(refusal) if refusal.code() == ErrorCode::NOT_FOUND => self.lower.read(request),
            answer => answer,
        }
    }

    fn takes_uploads(&self) -> bool {
        self.upper.takes_uploads()
    }

    fn write(&self, request: &Request<'_>) -> Result<Box<dyn Sink>, Refusal> {
        self.upper.write(request)
    }

    fn reload(&self) {
        self.upper.reload();
        self.lower.reload();
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut directory = || {
        arguments
            .next()
            .ok_or("usage: layers UPPER LOWER [ADDRESS]")
    };
    let (upper, lower) = (directory()?, directory()?);
    let address = arguments.next().unwrap_or("127.0.0.1:6969".into());

    let store = Renamed {
        from: b"tftpboot/",
        to: b"",
        below: Overlay {
            upper: Dir::builder(upper).uploads(WriteMode::Create).open()?,
            lower: Dir::read_only(lower)?,
        },
    };
    let server = Server::builder(store).bind(address.parse()?).start()?;
    println!("serving on {}", server.local_addr());
    server.join()?;
    Ok(())
}
