//! Where a file is on a server, as people type it: `tftp://host[:port]/path[;mode=octet]` (RFC 3617), or `HOST:PATH`.
//!
//! In a URL the path is percent-encoded and its first slash belongs to the URL; `tftp://host//path` asks for `/path`. After
//! `HOST:` the path is taken as it stands, first slash included.

use crate::event::Name;
use crate::limits;
use crate::wire::Mode;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// Longest host name (RFC 1035 §2.3.4), or address with its scope.
const MAX_HOST: usize = 255;

/// A file, or with an empty or slash-ended path a directory, on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// As it goes into the request.
    pub(super) path: Vec<u8>,
    /// What the URL says about it.
    pub(super) mode: Option<Mode>,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("tftp") => Self::from_url(rest)?,
            Some((scheme, _)) if !scheme.contains([':', '/']) => {
                return Err("only tftp:// is spoken here".into());
            }
            _ => Self::from_pair(text)?,
        };
        place.checked()
    }
}

impl Place {
    /// A host, its port perhaps, and a path that were typed apart.
    pub(super) fn of(host: &str, path: &str) -> Result<Self, String> {
        // Several colons without brackets are an IPv6 address alone.
        let is_bare = !host.starts_with('[') && host.matches(':').count() > 1;
        let (host, port) = match is_bare {
            true => (host, limits::PORT),
            false => host_and_port(host)?,
        };
        let place = Self {
            host: host.into(),
            port,
            path: path.into(),
            mode: None,
        };
        place.checked()
    }

    fn checked(self) -> Result<Self, String> {
        let place = self;
        if place.host.is_empty() || place.host.len() > MAX_HOST {
            return Err("the host is missing or too long".into());
        }
        if place.path.contains(&0) {
            return Err("a name on a server cannot hold a NUL".into());
        }
        if place.path.len() > limits::MAX_ASKED_NAME {
            let most = limits::MAX_ASKED_NAME;
            return Err(format!("a name on a server has at most {most} octets"));
        }
        Ok(place)
    }

    /// What stands behind `tftp://`.
    fn from_url(text: &str) -> Result<Self, String> {
        let (authority, path) = text.split_once('/').unwrap_or((text, ""));
        // RFC 3617 §3: mode = ";" "mode=" ( "netascii" / "octet" )
        let (path, mode) = match path.rsplit_once(';') {
            Some((path, setting)) if is_mode(setting) => {
                (path, Some(super::value::mode(&setting["mode=".len()..])?))
            }
            _ => (path, None),
        };
        let (host, port) = host_and_port(authority)?;
        let host = String::from_utf8(decoded(host)?).map_err(|_| "the host is not text")?;
        if host.contains(['@', '/', '\0']) {
            return Err("TFTP knows no users: the host comes right behind tftp://".into());
        }
        Ok(Self {
            host,
            port,
            path: decoded(path)?,
            mode,
        })
    }

    /// `HOST:PATH`, `[IPV6]:PATH`.
    fn from_pair(text: &str) -> Result<Self, String> {
        let pair = match text.strip_prefix('[') {
            Some(rest) => rest.split_once("]:"),
            None => text.split_once(':'),
        };
        let (host, path) = pair
            .filter(|(host, _)| !host.is_empty() && !host.contains('/'))
            .ok_or("expected tftp://HOST[:PORT]/PATH or HOST:PATH")?;
        Ok(Self {
            host: host.into(),
            port: limits::PORT,
            path: path.into(),
            mode: None,
        })
    }

    /// The last component of the path as a name that is safe here: no directory, no control characters. `None` where there
    /// is none.
    pub(super) fn file_name(&self) -> Option<String> {
        let last = self.path.rsplit(|octet| matches!(octet, b'/' | b'\\'));
        let name: String = String::from_utf8_lossy(last.into_iter().next()?)
            .chars()
            .map(|letter| if letter.is_control() { '_' } else { letter })
            .collect();
        (!matches!(name.as_str(), "" | "." | "..")).then_some(name)
    }

    /// This place, or for a directory the file of that name in it.
    pub(super) fn with_name(&self, name: &str) -> Self {
        let mut place = self.clone();
        if place.is_directory() {
            place.path.extend_from_slice(name.as_bytes());
        }
        place
    }

    /// Whether a name has yet to be added.
    pub(super) fn is_directory(&self) -> bool {
        self.path.last().is_none_or(|last| *last == b'/')
    }

    /// Every address of the host, each once, as far as its family is wanted.
    pub(super) fn addresses(&self, family: Family) -> Result<Vec<SocketAddr>, String> {
        let host = Name::new(self.host.as_bytes());
        let found = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|cause| format!("cannot find host {host}: {}", crate::error::plain(&cause)))?;
        let mut addresses = Vec::new();
        for address in found.filter(|address| family.has(address)) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(format!("host {host} has no {} address", family.name()));
        }
        Ok(addresses)
    }
}

impl fmt::Display for Place {
    /// As a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "tftp://[{}]", encoded(self.host.as_bytes(), b":"))?;
        } else {
            write!(f, "tftp://{}", encoded(self.host.as_bytes(), b""))?;
        }
        if self.port != limits::PORT {
            write!(f, ":{}", self.port)?;
        }
        write!(f, "/{}", encoded(&self.path, b"/"))?;
        match self.mode {
            Some(mode) => write!(f, ";mode={}", mode.as_str()),
            None => Ok(()),
        }
    }
}

/// Which addresses of a host are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Any,
    V4,
    V6,
}

impl Family {
    fn has(self, address: &SocketAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Any => "IP",
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// `HOST`, `HOST:PORT`, `[IPV6]`, `[IPV6]:PORT`.
fn host_and_port(text: &str) -> Result<(&str, u16), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("`[` without `]`")?;
            let port = match port {
                "" => None,
                port => Some(port.strip_prefix(':').ok_or("`]` wants a `:` behind it")?),
            };
            (host, port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_number = |port: &&str| port.bytes().all(|digit| digit.is_ascii_digit());
    let port = match port.filter(|port| !port.is_empty()) {
        None => limits::PORT,
        Some(port) => (Some(port).filter(is_number))
            .and_then(|port| port.parse().ok())
            .filter(|port| *port > 0)
            .ok_or("the port is a number from 1 to 65535")?,
    };
    Ok((host, port))
}

fn is_mode(setting: &str) -> bool {
    setting
        .get(.."mode=".len())
        .is_some_and(|key| key.eq_ignore_ascii_case("mode="))
}

/// `%41` → `A`. What is no two digits behind a `%` is an error, not a guess.
fn decoded(text: &str) -> Result<Vec<u8>, String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        let octet = match octet {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let pair = digit().zip(digit());
                let (high, low) = pair.ok_or("`%` in a URL wants two hexadecimal digits")?;
                (high * 16 + low) as u8
            }
            other => other,
        };
        octets.push(octet);
    }
    Ok(octets)
}

/// The way back, for showing: everything but letters, digits, a few marks and `kept` is encoded.
fn encoded(octets: &[u8], kept: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len());
    for octet in octets {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(octet) || kept.contains(octet) {
            text.push(char::from(*octet));
        } else {
            text.push_str(&format!("%{octet:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn urls_follow_rfc_3617() {
        for (url, host, port, path, mode) in [
            ("tftp://h/f", "h", 69, "f", None),
            ("TFTP://h/f", "h", 69, "f", None),
            ("tftp://h:6969/a/b", "h", 6969, "a/b", None),
            ("tftp://h:/f", "h", 69, "f", None),
            ("tftp://h//abs", "h", 69, "/abs", None),
            (
                "tftp://h/f;mode=netascii",
                "h",
                69,
                "f",
                Some(Mode::Netascii),
            ),
            ("tftp://h/f;MODE=Octet", "h", 69, "f", Some(Mode::Octet)),
            ("tftp://h/f;x", "h", 69, "f;x", None),
            ("tftp://h/f%3Bmode=octet", "h", 69, "f;mode=octet", None),
            ("tftp://h/a%20b%2fc", "h", 69, "a b/c", None),
            ("tftp://h/a?b#c", "h", 69, "a?b#c", None),
            ("tftp://[2001:db8::1]/f", "2001:db8::1", 69, "f", None),
            (
                "tftp://[fe80::1%25eth0]:70/f",
                "fe80::1%eth0",
                70,
                "f",
                None,
            ),
            ("tftp://h", "h", 69, "", None),
            ("h:f", "h", 69, "f", None),
            ("h:/abs%20", "h", 69, "/abs%20", None),
            ("h:a:b", "h", 69, "a:b", None),
            ("[::1]:f", "::1", 69, "f", None),
            ("192.0.2.1:", "192.0.2.1", 69, "", None),
        ] {
            let wanted = Place {
                host: host.into(),
                port,
                path: path.into(),
                mode,
            };
            assert_eq!(place(url), wanted, "{url}");
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        let long = format!("h:{}", "x".repeat(limits::MAX_ASKED_NAME + 1));
        let host = format!("tftp://{}/f", "h".repeat(256));
        for wrong in [
            "",
            "file",
            "dir/file:x",
            ":f",
            "http://h/f",
            "tftp:///f",
            "tftp://h:0/f",
            "tftp://h:65536/f",
            "tftp://h:+69/f",
            "tftp://h:x/f",
            "tftp://[::1/f",
            "tftp://[::1]x/f",
            "tftp://user@h/f",
            "tftp://h/%",
            "tftp://h/%4",
            "tftp://h/%zz",
            "tftp://h/%é",
            "tftp://h/a%00b",
            "tftp://h/f;mode=mail",
            "tftp://h/f;mode=",
            &long,
            &host,
        ] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_host_typed_apart_may_have_a_port() {
        for (host, bare, port) in [
            ("h", "h", 69),
            ("h:6969", "h", 6969),
            ("127.0.0.1:6969", "127.0.0.1", 6969),
            ("::1", "::1", 69),
            ("fe80::1%eth0", "fe80::1%eth0", 69),
            ("[::1]", "::1", 69),
            ("[fe80::1%eth0]:6969", "fe80::1%eth0", 6969),
        ] {
            let place = Place::of(host, "a%20b").unwrap_or_else(|error| panic!("{host}: {error}"));
            assert_eq!((place.host.as_str(), place.port), (bare, port), "{host}");
            assert_eq!(place.path, b"a%20b");
        }
        for wrong in ["", "[]", ":69", "h:0", "h:x", "[::1", "[::1]69"] {
            assert!(Place::of(wrong, "f").is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_taken_from_a_url_stays_in_the_directory() {
        for (url, name) in [
            ("h:boot/vmlinuz", Some("vmlinuz")),
            ("h:vmlinuz", Some("vmlinuz")),
            ("h:a\\b", Some("b")),
            ("tftp://h/a%1b%5B2J", Some("a_[2J")),
            ("tftp://h/..%2f..%2fetc%2fpasswd", Some("passwd")),
            ("h:a/..", None),
            ("h:a/.", None),
            ("h:a/", None),
            ("h:", None),
        ] {
            assert_eq!(place(url).file_name().as_deref(), name, "{url}");
        }
    }

    #[test]
    fn a_directory_takes_the_files_name() {
        let named = |text: &str| place(text).with_name("f").path;
        assert_eq!(named("h:"), b"f");
        assert_eq!(named("tftp://h/dir/"), b"dir/f");
        assert_eq!(named("tftp://h/dir"), b"dir");
    }

    #[test]
    fn what_is_shown_is_a_url_again() {
        for (text, shown) in [
            ("h:a b", "tftp://h/a%20b"),
            ("h:/a", "tftp://h//a"),
            ("tftp://h:6969/x%1b", "tftp://h:6969/x%1B"),
            ("[fe80::1%eth0]:f", "tftp://[fe80::1%25eth0]/f"),
            ("tftp://h/f;MODE=NetASCII", "tftp://h/f;mode=netascii"),
            ("h:f;mode=octet", "tftp://h/f%3Bmode%3Doctet"),
        ] {
            assert_eq!(place(text).to_string(), shown);
            assert_eq!(place(shown), place(text));
        }
    }

    #[test]
    fn families_are_chosen() {
        let four = place("127.0.0.1:f");
        assert_eq!(
            four.addresses(Family::V4),
            Ok(vec![([127, 0, 0, 1], 69).into()])
        );
        let error = four.addresses(Family::V6).expect_err("an IPv4 address");
        assert_eq!(error, "host \"127.0.0.1\" has no IPv6 address");
    }
}
