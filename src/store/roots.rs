//! A root for each client: a directory beneath the common one, named after the client.

use super::names::{clean, refuse};
use super::{Dir, Request, Sink, Source, Store};
use crate::error::Refusal;
use crate::sys::neighbour;
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A layer over a [`Dir`] that serves each client from a directory of its own, where the common
/// root has one with the client's name. All other clients are served from the common root.
///
/// A client with a root does not leave it: `..` and symbolic links end at that directory, as they
/// end at the common root for all others. Trees that links may lead to are the same for all. The
/// directory itself may be a link that stays in the common root. Each request looks for it anew.
///
/// ```no_run
/// use tftpool::{Dir, PerClientRoot, Server};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let roots = PerClientRoot::new(Dir::read_only("/srv/tftp")?, "boards/{mac-dash}".parse()?);
/// let server = Server::builder(roots).start()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PerClientRoot {
    dir: Dir,
    template: RootTemplate,
    system: System,
}

/// How the root of a client is called: a path with variables.
///
/// `ip` stands for `{ip}`, and `mac` for `{mac-dash}`: the layouts of dnsmasq. Anything else has at
/// least one of these variables, which come from the request:
///
/// | variable | example |
/// | --- | --- |
/// | `{ip}` | `192.0.2.7`, `2001:db8::7` |
/// | `{ip-hex}` | `C0000207`, `20010DB8000000000000000000000007` |
/// | `{mac}` | `02:00:00:00:00:07` |
/// | `{mac-dash}` | `02-00-00-00-00-07` |
/// | `{interface}` | `eth0`: the one that has the address that was asked |
/// | `{local}` | `192.0.2.1`: the address that was asked |
///
/// The hardware address is that of the neighbour table, so it is known of clients on the server's
/// own links only. A client of which a variable is not known has no root of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootTemplate(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    Ip,
    IpHex,
    Mac,
    MacDash,
    Interface,
    Local,
}

impl Variable {
    const ALL: [(&str, Self); 6] = [
        ("ip", Self::Ip),
        ("ip-hex", Self::IpHex),
        ("mac", Self::Mac),
        ("mac-dash", Self::MacDash),
        ("interface", Self::Interface),
        ("local", Self::Local),
    ];
}

/// What is wrong with the text of a [`RootTemplate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootTemplateError(String);

impl fmt::Display for RootTemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RootTemplateError {}

impl FromStr for RootTemplate {
    type Err = RootTemplateError;

    fn from_str(text: &str) -> Result<Self, RootTemplateError> {
        let wrong = |why: &str| {
            let variables = Variable::ALL
                .map(|(name, _)| format!("{{{name}}}"))
                .join(", ");
            let why = format!("{why} (expected ip, mac, or a path with {variables})");
            Err(RootTemplateError(why))
        };
        match text {
            "ip" => return Ok(Self(vec![Part::Variable(Variable::Ip)])),
            "mac" => return Ok(Self(vec![Part::Variable(Variable::MacDash)])),
            _ => {}
        }
        if clean(text.as_bytes()).is_err() || text.split('/').any(|component| component == "..") {
            return wrong("not a path beneath the root");
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, behind)) = after.split_once('}') else {
                return wrong("a brace is not closed");
            };
            let known = Variable::ALL.iter().find(|(known, _)| *known == name);
            let Some((_, variable)) = known else {
                return wrong(&format!("unknown variable {{{name}}}"));
            };
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Variable(*variable));
            rest = behind;
        }
        if parts.is_empty() {
            return wrong("no variable, so all clients would share one root");
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }
}

impl RootTemplate {
    /// The path of a client's root; `None` where a variable is not known.
    fn expand(&self, request: &Request<'_>, system: &System) -> io::Result<Option<String>> {
        let client = request.peer.ip().to_canonical();
        let local = request.local.ip().to_canonical();
        let mut path = String::new();
        for part in &self.0 {
            let variable = match part {
                Part::Text(text) => {
                    path.push_str(text);
                    continue;
                }
                Part::Variable(variable) => variable,
            };
            let value = match variable {
                Variable::Ip => Some(client.to_string()),
                Variable::IpHex => Some(hexadecimal(client)),
                Variable::Mac => {
                    (system.mac)(client, scope(request.peer))?.map(|it| joined(it, ":"))
                }
                Variable::MacDash => {
                    (system.mac)(client, scope(request.peer))?.map(|it| joined(it, "-"))
                }
                Variable::Interface => (system.interface)(local)?,
                Variable::Local => Some(local.to_string()),
            };
            match value {
                Some(value) => path.push_str(&value),
                None => return Ok(None),
            }
        }
        Ok(Some(path))
    }
}

/// `C00002A9` for 192.0.2.169, and 32 digits for IPv6.
pub(super) fn hexadecimal(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{:08X}", u32::from(address)),
        IpAddr::V6(address) => format!("{:032X}", u128::from(address)),
    }
}

fn joined(mac: [u8; 6], between: &str) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(between)
}

/// The interface of a link-local address.
fn scope(peer: SocketAddr) -> u32 {
    match peer {
        SocketAddr::V6(peer) => peer.scope_id(),
        SocketAddr::V4(_) => 0,
    }
}

/// What the system is asked about clients.
#[derive(Clone, Copy)]
struct System {
    mac: fn(IpAddr, u32) -> io::Result<Option<[u8; 6]>>,
    interface: fn(IpAddr) -> io::Result<Option<String>>,
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("System")
    }
}

impl PerClientRoot {
    /// Serves clients from directories beneath that of `dir`.
    pub fn new(dir: Dir, template: RootTemplate) -> Self {
        Self {
            dir,
            template,
            system: System {
                mac: neighbour::mac,
                interface: neighbour::interface,
            },
        }
    }

    /// The directory that this request is served from.
    fn root(&self, request: &Request<'_>) -> Result<Cow<'_, Dir>, Refusal> {
        // Without an answer of the system, the client's root is not known, and the common one may
        // not be for this client.
        let name = self.template.expand(request, &self.system);
        let Some(name) = name.map_err(refuse)? else {
            return Ok(Cow::Borrowed(&self.dir));
        };
        let own = self
            .dir
            .beneath(&clean(name.as_bytes())?, request.direction)?;
        Ok(own.map_or(Cow::Borrowed(&self.dir), Cow::Owned))
    }
}

impl Store for PerClientRoot {
    fn read(&self, request: &Request<'_>) -> Result<Source, Refusal> {
        self.root(request)?.read(request)
    }

    fn takes_uploads(&self) -> bool {
        self.dir.takes_uploads()
    }

    fn write(&self, request: &Request<'_>) -> Result<Box<dyn Sink>, Refusal> {
        self.root(request)?.write(request)
    }

    fn reload(&self) {
        self.dir.reload();
    }
}

#[cfg(test)]
mod tests;
