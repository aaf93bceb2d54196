//! Where a file is on a server, as people type it: `tftp://HOST[:PORT]/PATH[;mode=octet]` (RFC
//! 3617), or `HOST:PATH`. Every command reads a place with this one parser.
//!
//! In a URL the path is percent-encoded and its first slash belongs to the URL: `tftp://HOST//PATH`
//! asks for `/PATH`. After `HOST:` the path is taken as it stands, first slash included. Only a URL
//! has a port. A `HOST:PATH` that also reads as something else, such as a port or an IPv6 address,
//! is refused with the URL to write instead.

use crate::limits;
use crate::text::Name;
use crate::wire::Mode;
use percent_encoding::{
    AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode, utf8_percent_encode,
};
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// Longest host name (RFC 1035 §2.3.4), or address with its scope.
const MAX_HOST: usize = 255;

/// The two ways to write a place.
pub(super) const PLACES: &str = "tftp://HOST[:PORT]/PATH or HOST:PATH";

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
                return Err("unsupported URL scheme (expected tftp://)".into());
            }
            _ => Self::from_pair(text)?,
        };
        place.checked()
    }
}

impl Place {
    fn new(host: &str, port: u16, path: &str) -> Self {
        Self {
            host: host.into(),
            port,
            path: path.into(),
            mode: None,
        }
    }

    fn checked(self) -> Result<Self, String> {
        let place = self;
        if place.host.is_empty() || place.host.len() > MAX_HOST {
            return Err("the host is missing or too long".into());
        }
        if place.path.contains(&0) {
            return Err("a file name on a server cannot contain NUL".into());
        }
        if place.path.len() > limits::MAX_ASKED_NAME {
            let most = limits::MAX_ASKED_NAME;
            return Err(format!("a file name on a server has at most {most} bytes"));
        }
        Ok(place)
    }

    /// What stands behind `tftp://`.
    fn from_url(text: &str) -> Result<Self, String> {
        let (authority, path) = text.split_once('/').unwrap_or((text, ""));
        if let Some((_, host)) = authority.rsplit_once('@') {
            return Err(format!(
                "TFTP has no users and no passwords: write tftp://{host}/{path}"
            ));
        }
        if let Some(address) = bare_ipv6(authority) {
            let (address, scope) = address.split_once('%').unwrap_or((address, ""));
            let scope = match scope.strip_prefix("25").unwrap_or(scope) {
                "" => String::new(),
                scope => format!("%25{scope}"),
            };
            return Err(format!(
                "an IPv6 address needs brackets: write tftp://[{address}{scope}]/{path}"
            ));
        }
        // RFC 3617 §3: mode = ";" "mode=" ( "netascii" / "octet" )
        let (path, mode) = match path.rsplit_once(';') {
            Some((path, setting)) if is_mode(setting) => {
                (path, Some(super::value::mode(&setting["mode=".len()..])?))
            }
            _ => (path, None),
        };
        let (host, port) = host_and_port(authority)?;
        let host = String::from_utf8(decoded(host)?).map_err(|_| "the host is not UTF-8 text")?;
        if host.contains(['@', '/', '\0']) {
            return Err("the host contains `@`, `/` or NUL".into());
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
        if let Some(address) = bare_ipv6(text) {
            let path = text[address.len()..].trim_start_matches([':', '/']);
            let path = if path.is_empty() { "PATH" } else { path };
            return Err(format!(
                "an IPv6 address needs brackets: write [{address}]:{path}"
            ));
        }
        let pair = match text.strip_prefix('[') {
            Some(rest) => rest.split_once("]:"),
            None => text.split_once(':'),
        };
        let (host, path) = pair
            .filter(|(host, _)| !host.is_empty() && !host.contains('/'))
            .ok_or_else(|| format!("expected {PLACES}"))?;
        if host.eq_ignore_ascii_case("tftp") && path.starts_with('/') {
            return Err(format!(
                "a URL has two slashes behind its scheme: write tftp://{}",
                path.trim_start_matches('/')
            ));
        }
        if let Some((digits, behind)) = port_of(path) {
            let file = Self::new(host, limits::PORT, path);
            let mut hint = format!("write {file} for the file {path}");
            if let Some(port) = port_number(digits) {
                let named = if behind.is_empty() { "PATH" } else { behind };
                let place = Self::new(host, port, named);
                hint = format!("write {place} for port {digits}, or {file} for the file {path}");
            }
            return Err(format!("HOST:PATH has no port: {hint}"));
        }
        Ok(Self::new(host, limits::PORT, path))
    }

    /// The last component of the path as a name that is safe here: no directory, no control
    /// characters. `None` where there is none.
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
        let host = utf8_percent_encode(&self.host, HOST);
        if self.host.contains(':') {
            write!(f, "tftp://[{host}]")?;
        } else {
            write!(f, "tftp://{host}")?;
        }
        if self.port != limits::PORT {
            write!(f, ":{}", self.port)?;
        }
        write!(f, "/{}", percent_encode(&self.path, PATH))?;
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
            let (host, port) = rest
                .split_once(']')
                .ok_or("the host has a `[` without a `]`")?;
            let port = match port {
                "" => None,
                port => Some(
                    port.strip_prefix(':')
                        .ok_or("only `:` and a port may follow `]`")?,
                ),
            };
            (host, port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port.filter(|port| !port.is_empty()) {
        None => limits::PORT,
        Some(port) => port_number(port).ok_or("expected a port from 1 to 65535 behind the host")?,
    };
    Ok((host, port))
}

/// Digits alone: no sign.
fn port_number(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|digit| digit.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port > 0)
}

/// The port that the path of a `HOST:PATH` may have been meant for, and what follows it: the path
/// is digits, or digits before `/` or `:`. What is no port, such as `0` or `70000`, may have been
/// meant for one as well.
fn port_of(path: &str) -> Option<(&str, &str)> {
    let end = path.find(|letter: char| !letter.is_ascii_digit());
    let (digits, rest) = path.split_at(end.unwrap_or(path.len()));
    let behind = match rest {
        "" => "",
        _ => rest.strip_prefix([':', '/'])?,
    };
    (!digits.is_empty()).then_some((digits, behind))
}

/// The IPv6 address without brackets, scope included, that a text starts with, up to its end or a
/// `:` or `/`. The longest one.
fn bare_ipv6(text: &str) -> Option<&str> {
    let ends = text.match_indices([':', '/']).map(|(at, _)| at);
    let mut prefixes = ends.chain([text.len()]).map(|end| &text[..end]);
    let is_address = |prefix: &&str| {
        let (address, scope) = prefix.split_once('%').unwrap_or((prefix, ""));
        address.parse::<Ipv6Addr>().is_ok() && !scope.contains([':', '/'])
    };
    prefixes.rfind(is_address)
}

fn is_mode(setting: &str) -> bool {
    setting
        .get(.."mode=".len())
        .is_some_and(|key| key.eq_ignore_ascii_case("mode="))
}

/// Decodes `%41` to `A`. The crate leaves a `%` alone that has no two hexadecimal digits behind it;
/// in a place that is an error, not a guess.
fn decoded(text: &str) -> Result<Vec<u8>, &'static str> {
    let is_pair = |rest: &str| {
        let pair = rest.as_bytes().get(..2);
        pair.is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit))
    };
    if text.split('%').skip(1).all(is_pair) {
        Ok(percent_decode_str(text).collect())
    } else {
        Err("invalid percent-encoding (write `%` itself as %25)")
    }
}

/// Everything but the unreserved characters of RFC 3986 §2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// Encoded in a host. Only an IPv6 address, between its brackets, has a `:`.
const HOST: &AsciiSet = &RESERVED.remove(b':');
/// Encoded in a path.
const PATH: &AsciiSet = &RESERVED.remove(b'/');

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn places_are_read_by_one_grammar() {
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
            ("h:7010.bin", "h", 69, "7010.bin", None),
            ("h:/7010", "h", 69, "/7010", None),
            ("h:", "h", 69, "", None),
            ("tftp:file", "tftp", 69, "file", None),
            ("dead:beef", "dead", 69, "beef", None),
            ("tftp://h/7010", "h", 69, "7010", None),
            ("tftp://h:7010", "h", 7010, "", None),
            ("tftp://h/a@b", "h", 69, "a@b", None),
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
    fn other_texts_are_refused_with_what_to_write() {
        let port = "port from 1 to 65535";
        let host = "the host is missing or too long";
        let percent = "invalid percent-encoding";
        let mode = "octet or netascii";
        let long_path = format!("h:{}", "x".repeat(limits::MAX_ASKED_NAME + 1));
        let long_host = format!("tftp://{}/f", "h".repeat(256));
        for (wrong, words) in [
            ("", PLACES),
            ("file", PLACES),
            ("dir/file:x", PLACES),
            (":f", PLACES),
            ("[::1]", PLACES),
            ("[]:f", PLACES),
            ("http://h/f", "unsupported URL scheme (expected tftp://)"),
            ("tftp:///f", host),
            ("tftp://[]/f", host),
            (&long_host, host),
            (&long_path, "at most 400 bytes"),
            ("tftp://h:0/f", port),
            ("tftp://h:65536/f", port),
            ("tftp://h:+69/f", port),
            ("tftp://h:x/f", port),
            ("tftp://[::1/f", "`[` without a `]`"),
            ("tftp://[::1]x/f", "only `:` and a port"),
            ("tftp://h/%", percent),
            ("tftp://h/%4", percent),
            ("tftp://h/%zz", percent),
            ("tftp://h/%é", percent),
            ("tftp://h/a%00b", "cannot contain NUL"),
            ("tftp://h/f;mode=mail", mode),
            ("tftp://h/f;mode=", mode),
            (
                "tftp://u@h/f",
                "no users and no passwords: write tftp://h/f",
            ),
            ("tftp://u:p@h:6970/x", "no passwords: write tftp://h:6970/x"),
            ("tftp://u%40h/f", "the host contains `@`"),
            ("tftp://::1/x", "brackets: write tftp://[::1]/x"),
            (
                "tftp://fe80::1%eth0/x",
                "brackets: write tftp://[fe80::1%25eth0]/x",
            ),
            (
                "tftp://fe80::1%25eth0/x",
                "brackets: write tftp://[fe80::1%25eth0]/x",
            ),
            ("::1", "brackets: write [::1]:PATH"),
            ("::1/x", "brackets: write [::1]:x"),
            ("2001:db8::1:x:y", "brackets: write [2001:db8::1]:x:y"),
            ("fe80::1%eth0:x", "brackets: write [fe80::1%eth0]:x"),
            (
                "tftp:/h/x",
                "two slashes behind its scheme: write tftp://h/x",
            ),
            ("TFTP:/h/x", "write tftp://h/x"),
            (
                "192.0.2.1:7010",
                "write tftp://192.0.2.1:7010/PATH for port 7010, or tftp://192.0.2.1/7010 for the file 7010",
            ),
            ("h:6970/x", "write tftp://h:6970/x for port 6970"),
            ("h:6970/x", "or tftp://h/6970/x for the file 6970/x"),
            ("h:6970:x", "write tftp://h:6970/x for port 6970"),
            ("h:69/x", "write tftp://h/x for port 69"),
            ("h:6970/", "write tftp://h:6970/PATH for port 6970"),
            ("[::1]:6970/x", "write tftp://[::1]:6970/x for port 6970"),
            (
                "h:70000/x",
                "HOST:PATH has no port: write tftp://h/70000/x for the file",
            ),
            (
                "h:0",
                "HOST:PATH has no port: write tftp://h/0 for the file 0",
            ),
        ] {
            let error = wrong.parse::<Place>().expect_err(wrong);
            assert!(error.contains(words), "{wrong}: {error}");
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
