//! Names that clients ask for with a path in front: `/srv/tftp/boot/kernel` means `boot/kernel`.

use super::{Request, Sink, Source, Store};
use crate::error::Refusal;
use crate::text::Name;
use std::fmt;
use std::str::FromStr;

/// A layer that takes a prefix off names before the store below is asked.
///
/// A prefix is compared whole component by component. Leading, doubled and backward slashes do not
/// matter, and neither do `.` components: `/srv/tftp`, `srv/tftp/` and `\srv\tftp` are one prefix,
/// and each takes any of the three off. `..` is never part of a prefix. Of several that fit, the
/// longest is taken off, once. A name that is nothing but a prefix stays.
///
/// ```
/// use tftpool::{Direction, Refusal, Request, Source, Store, StripPrefix, store_fn};
///
/// let below = store_fn(|request| match request.name {
///     b"boot/kernel" => Ok(Source::bytes(*b"content")),
///     _ => Err(Refusal::not_found()),
/// });
/// let store = StripPrefix::new(below, ["/srv/tftp".parse()?]);
/// let request = Request::new(Direction::Read, "/srv/tftp/boot/kernel");
/// assert!(store.read(&request).is_ok());
/// # Ok::<(), tftpool::PrefixError>(())
/// ```
#[derive(Clone, Debug)]
pub struct StripPrefix<S> {
    prefixes: Vec<Prefix>,
    ignores_case: bool,
    below: S,
}

/// A path for [`StripPrefix`] to take off: its components, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(Vec<Vec<u8>>);

/// A prefix has no component, or one that is `..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixError(Name);

impl fmt::Display for PrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(prefix) = self;
        write!(
            f,
            "invalid prefix {prefix} (expected a path such as /srv/tftp, without ..)"
        )
    }
}

impl std::error::Error for PrefixError {}

impl Prefix {
    /// A prefix of any bytes.
    ///
    /// # Errors
    /// It has no component, or one that is `..`.
    pub fn new(text: &[u8]) -> Result<Self, PrefixError> {
        let components = text.split(is_separator);
        let components = components.filter(|component| !matches!(*component, b"" | b"."));
        let components: Vec<_> = components.map(<[u8]>::to_vec).collect();
        match components.is_empty() || components.iter().any(|component| component == b"..") {
            true => Err(PrefixError(Name::new(text))),
            false => Ok(Self(components)),
        }
    }

    /// What is left of a name that begins with this prefix and goes on.
    fn strip<'a>(&self, name: &'a [u8], ignores_case: bool) -> Option<&'a [u8]> {
        let mut rest = name;
        for wanted in &self.0 {
            let component = next(&mut rest)?;
            let is_same = match ignores_case {
                true => component.eq_ignore_ascii_case(wanted),
                false => component == wanted,
            };
            if !is_same {
                return None;
            }
        }
        let start = rest.iter().position(|byte| !is_separator(byte))?;
        Some(&rest[start..])
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        Self::new(text.as_bytes())
    }
}

fn is_separator(byte: &u8) -> bool {
    matches!(byte, b'/' | b'\\')
}

/// Takes the next component off that says something.
fn next<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    loop {
        let start = rest.iter().position(|byte| !is_separator(byte))?;
        let name = &rest[start..];
        let end = name.iter().position(is_separator).unwrap_or(name.len());
        let component;
        (component, *rest) = name.split_at(end);
        if component != b"." {
            return Some(component);
        }
    }
}

impl<S: Store> StripPrefix<S> {
    /// Takes these prefixes off.
    pub fn new(below: S, prefixes: impl IntoIterator<Item = Prefix>) -> Self {
        let mut prefixes: Vec<_> = prefixes.into_iter().collect();
        prefixes.sort_by_key(|Prefix(components)| std::cmp::Reverse(components.len()));
        Self {
            prefixes,
            ignores_case: false,
            below,
        }
    }

    /// Takes a prefix off in any case of its ASCII letters.
    #[must_use]
    pub fn ignore_case(mut self, ignore: bool) -> Self {
        self.ignores_case = ignore;
        self
    }

    fn strip<'a>(&self, name: &'a [u8]) -> &'a [u8] {
        let mut prefixes = self.prefixes.iter();
        let found = prefixes.find_map(|prefix| prefix.strip(name, self.ignores_case));
        found.unwrap_or(name)
    }
}

impl<S: Store> Store for StripPrefix<S> {
    fn read(&self, request: &Request<'_>) -> Result<Source, Refusal> {
        self.below
            .read(&request.with_name(self.strip(request.name)))
    }

    fn takes_uploads(&self) -> bool {
        self.below.takes_uploads()
    }

    fn write(&self, request: &Request<'_>) -> Result<Box<dyn Sink>, Refusal> {
        self.below
            .write(&request.with_name(self.strip(request.name)))
    }

    fn reload(&self) {
        self.below.reload();
    }
}

#[cfg(test)]
mod tests {
    use super::super::store_fn;
    use super::*;

    #[test]
    fn prefixes_come_off_whole_and_once() {
        let below = || store_fn(|_| Err(Refusal::not_found()));
        for (prefixes, name, wanted) in [
            (&["/srv/tftp"][..], "/srv/tftp/boot/kernel", "boot/kernel"),
            (&["srv/tftp/"], "/srv/tftp/kernel", "kernel"),
            (&["/srv/tftp"], "srv/tftp/kernel", "kernel"),
            (&["/srv/tftp"], "//srv/./tftp///kernel", "kernel"),
            (&["/srv/tftp"], r"\srv\tftp\boot\kernel", r"boot\kernel"),
            (&[r"\srv\tftp"], "/srv/tftp/kernel", "kernel"),
            (
                &["/srv/tftp"],
                "/srv/tftpboot/kernel",
                "/srv/tftpboot/kernel",
            ),
            (&["/srv/tftp"], "/srv/kernel", "/srv/kernel"),
            (&["/srv/tftp"], "kernel", "kernel"),
            (&["/srv/tftp"], "x/srv/tftp/kernel", "x/srv/tftp/kernel"),
            // Not the root itself, and never by way of `..`.
            (&["/srv/tftp"], "/srv/tftp", "/srv/tftp"),
            (&["/srv/tftp"], "/srv/tftp//", "/srv/tftp//"),
            (
                &["/srv/tftp"],
                "/srv/x/../tftp/kernel",
                "/srv/x/../tftp/kernel",
            ),
            (&["/srv/tftp"], "/srv/tftp/../kernel", "../kernel"),
            (&["/srv/tftp"], "", ""),
            // Once, and the longest of several.
            (&["a"], "a/a/kernel", "a/kernel"),
            (&["a", "a/b"], "a/b/kernel", "kernel"),
            (&["a/b", "a"], "a/c/kernel", "c/kernel"),
            (&["/tftpboot", "C:/"], r"C:\kernel", "kernel"),
            (&["/TftpBoot"], "/tftpboot/kernel", "/tftpboot/kernel"),
            (&[], "/srv/tftp/kernel", "/srv/tftp/kernel"),
        ] {
            let prefixes = prefixes.iter().map(|text| text.parse().expect("a prefix"));
            let store = StripPrefix::new(below(), prefixes);
            let got = store.strip(name.as_bytes());
            assert_eq!(
                got.escape_ascii().to_string(),
                wanted.escape_default().to_string(),
                "{name}"
            );
        }
        let prefix = "/TftpBoot".parse().expect("a prefix");
        let store = StripPrefix::new(below(), [prefix]).ignore_case(true);
        assert_eq!(store.strip(b"tFtPbOoT/Kernel"), b"Kernel");
        for wrong in ["", "/", "./", "..", "/srv/../tftp"] {
            let error = wrong.parse::<Prefix>();
            assert_eq!(
                error,
                Err(PrefixError(Name::new(wrong.as_bytes()))),
                "{wrong}"
            );
        }
    }
}
