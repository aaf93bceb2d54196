//! Which clients may ask at all: decided by address and direction, before a request takes a place.
//! Pure: rules from text, and a request to an answer.

use crate::wire::Direction;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::Arc;

/// A request, as far as access rules look at it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct AccessRequest {
    /// The client.
    pub peer: SocketAddr,
    /// The address that was asked.
    pub local: SocketAddr,
    /// Which way the file is to go.
    pub direction: Direction,
}

impl AccessRequest {
    /// A request of a client to an unspecified address: for programs that ask their rules
    /// themselves. `local` can be assigned.
    pub fn new(peer: SocketAddr, direction: Direction) -> Self {
        Self {
            peer,
            local: (Ipv4Addr::UNSPECIFIED, 0).into(),
            direction,
        }
    }
}

/// Whether a client may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may.
    Allow,
    /// It may not, and gets no answer: the request costs a few comparisons and no more.
    Ignore,
    /// It may not, and gets ERROR 2, as far as the budget for such answers allows.
    Refuse,
}

/// Rules that allow or deny networks. The first that fits a request decides.
///
/// A request that no rule fits is decided by what is allowed elsewhere. A read is denied if some
/// rule allows reads. A write is denied if some rule allows anything. So without a rule that
/// allows, everything is allowed that is not denied.
///
/// ```
/// use tftpool::{AccessRules, Dir, Server};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rules = AccessRules::default()
///     .deny("192.0.2.13")?
///     .allow("192.0.2.0/24,read")?
///     .allow("2001:db8::/32")?;
/// let server = Server::builder(Dir::read_only("/")?)
///     .access(move |request| rules.decide(request));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessRules {
    rules: Vec<AccessRule>,
    refuses: bool,
}

impl AccessRules {
    /// Adds a rule that allows a network: an address or a CIDR, and behind a comma `read`, `write`
    /// or `both`, which is the default.
    ///
    /// # Errors
    /// The text of the network is wrong.
    pub fn allow(self, network: &str) -> Result<Self, AccessRuleError> {
        Ok(self.with(AccessRule::allow(network)?))
    }

    /// Adds a rule that denies a network.
    ///
    /// # Errors
    /// The text of the network is wrong.
    pub fn deny(self, network: &str) -> Result<Self, AccessRuleError> {
        Ok(self.with(AccessRule::deny(network)?))
    }

    /// Adds a rule behind the others.
    #[must_use]
    pub fn with(mut self, rule: AccessRule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Answers denied requests with ERROR 2, and not with silence.
    #[must_use]
    pub fn refuse(mut self, refuse: bool) -> Self {
        self.refuses = refuse;
        self
    }

    /// The rule that decides a request, where one fits.
    pub fn find(&self, request: &AccessRequest) -> Option<&AccessRule> {
        let client = request.peer.ip().to_canonical();
        let mut rules = self.rules.iter();
        rules.find(|rule| rule.covers(request.direction) && rule.network.has(client))
    }

    /// What becomes of a request.
    pub fn decide(&self, request: &AccessRequest) -> Access {
        let is_allowed = match self.find(request) {
            Some(rule) => rule.allows,
            None => {
                let closes = |rule: &AccessRule| {
                    rule.allows
                        && (request.direction == Direction::Write || rule.covers(Direction::Read))
                };
                !self.rules.iter().any(closes)
            }
        };
        match (is_allowed, self.refuses) {
            (true, _) => Access::Allow,
            (false, true) => Access::Refuse,
            (false, false) => Access::Ignore,
        }
    }
}

/// One rule of [`AccessRules`]. `Display` writes it as `allow 192.0.2.0/24,read`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessRule {
    allows: bool,
    network: Network,
    /// `None` for both.
    direction: Option<Direction>,
}

impl AccessRule {
    /// A rule that allows a network; see [`AccessRules::allow`].
    ///
    /// # Errors
    /// The text of the network is wrong.
    pub fn allow(network: &str) -> Result<Self, AccessRuleError> {
        Self::parse(true, network)
    }

    /// A rule that denies a network.
    ///
    /// # Errors
    /// The text of the network is wrong.
    pub fn deny(network: &str) -> Result<Self, AccessRuleError> {
        Self::parse(false, network)
    }

    fn parse(allows: bool, text: &str) -> Result<Self, AccessRuleError> {
        let (network, direction) = match text.split_once(',') {
            None => (text, None),
            Some((network, "both")) => (network, None),
            Some((network, "read")) => (network, Some(Direction::Read)),
            Some((network, "write")) => (network, Some(Direction::Write)),
            Some(_) => return Err(AccessRuleError(Wrong::Direction)),
        };
        Ok(Self {
            allows,
            network: network.parse().map_err(AccessRuleError)?,
            direction,
        })
    }

    fn covers(&self, direction: Direction) -> bool {
        self.direction.is_none_or(|own| own == direction)
    }
}

impl fmt::Display for AccessRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.allows { "allow" } else { "deny" };
        let direction = match self.direction {
            None => "",
            Some(Direction::Read) => ",read",
            Some(Direction::Write) => ",write",
        };
        write!(f, "{verb} {}{direction}", self.network)
    }
}

/// What is wrong with the text of an access rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessRuleError(Wrong);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Direction,
    Network,
    /// Bits behind the prefix are set; this network was meant.
    HostBits(Network),
}

impl fmt::Display for AccessRuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Wrong::Direction => f.write_str("expected read, write or both behind the comma"),
            Wrong::Network => f.write_str(
                "expected an address or a network such as 192.0.2.0/24 or 2001:db8::/32",
            ),
            Wrong::HostBits(network) => {
                write!(f, "bits behind the prefix are set (expected {network})")
            }
        }
    }
}

impl std::error::Error for AccessRuleError {}

/// Addresses that have their first bits in common. IPv4 inside IPv6 is IPv4 here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    V4(u32, u32),
    V6(u128, u32),
}

impl Network {
    fn has(self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::V4(network, prefix), IpAddr::V4(address)) => {
                first(u32::from(address), prefix) == network
            }
            (Self::V6(network, prefix), IpAddr::V6(address)) => {
                first_v6(u128::from(address), prefix) == network
            }
            _ => false,
        }
    }
}

/// The first bits of an address, the others cleared.
fn first(address: u32, prefix: u32) -> u32 {
    address & u32::MAX.checked_shl(32 - prefix).unwrap_or(0)
}

fn first_v6(address: u128, prefix: u32) -> u128 {
    address & u128::MAX.checked_shl(128 - prefix).unwrap_or(0)
}

impl FromStr for Network {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let (address, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((address, digits)) => {
                // `parse` takes a sign.
                let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
                let prefix = digits.parse::<u32>().ok().filter(|_| is_number);
                (address, Some(prefix.ok_or(Wrong::Network)?))
            }
        };
        let address: IpAddr = address.parse().map_err(|_| Wrong::Network)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        if prefix > bits {
            return Err(Wrong::Network);
        }
        let (given, network) = match (address, address.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(inside)) if prefix >= 96 => {
                let (given, prefix) = (u32::from(inside), prefix - 96);
                (u128::from(given), Self::V4(first(given, prefix), prefix))
            }
            (IpAddr::V4(address), _) => {
                let given = u32::from(address);
                (u128::from(given), Self::V4(first(given, prefix), prefix))
            }
            (IpAddr::V6(address), _) => {
                let given = u128::from(address);
                (given, Self::V6(first_v6(given, prefix), prefix))
            }
        };
        let kept = match network {
            Self::V4(kept, _) => u128::from(kept),
            Self::V6(kept, _) => kept,
        };
        match kept == given {
            true => Ok(network),
            false => Err(Wrong::HostBits(network)),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::V4(address, 32) => write!(f, "{}", Ipv4Addr::from(address)),
            Self::V4(address, prefix) => write!(f, "{}/{prefix}", Ipv4Addr::from(address)),
            Self::V6(address, 128) => write!(f, "{}", Ipv6Addr::from(address)),
            Self::V6(address, prefix) => write!(f, "{}/{prefix}", Ipv6Addr::from(address)),
        }
    }
}

type Decide = dyn Fn(&AccessRequest) -> Access + Send + Sync;

/// What a server was given to decide who may ask; nothing allows everything.
#[derive(Clone, Default)]
pub(super) struct Gate(Option<Arc<Decide>>);

impl Gate {
    pub(super) fn new(decide: impl Fn(&AccessRequest) -> Access + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(decide)))
    }

    /// What becomes of a request. A closure that panics denies it.
    pub(super) fn decide(&self, request: &AccessRequest) -> Access {
        match &self.0 {
            None => Access::Allow,
            Some(decide) => {
                catch_unwind(AssertUnwindSafe(|| decide(request))).unwrap_or(Access::Ignore)
            }
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.0.is_some() { "closure" } else { "open" };
        write!(f, "Gate({kind})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+` allows and `-` denies; `get ADDRESS` and `put ADDRESS` ask.
    fn is_allowed(rules: &str, asked: &str) -> bool {
        let mut all = AccessRules::default();
        for rule in rules.split_whitespace() {
            let (sign, network) = rule.split_at(1);
            let rule = match sign {
                "+" => AccessRule::allow(network),
                _ => AccessRule::deny(network),
            };
            all = all.with(rule.unwrap_or_else(|error| panic!("{network}: {error}")));
        }
        let (verb, address) = asked.split_once(' ').expect("two words");
        let peer = (address.parse::<IpAddr>().expect("an address"), 2070).into();
        let request = AccessRequest::new(
            peer,
            match verb {
                "get" => Direction::Read,
                _ => Direction::Write,
            },
        );
        let decided = all.decide(&request);
        let refused = all.refuse(true).decide(&request);
        assert_eq!(decided == Access::Allow, refused == Access::Allow);
        assert!(decided != Access::Refuse && refused != Access::Ignore);
        decided == Access::Allow
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        for (rules, allowed, denied) in [
            // Nothing is denied where nothing is said.
            ("", "get 192.0.2.1,put 192.0.2.1,get ::1,put ::1", ""),
            (
                "-192.0.2.0/24",
                "get 198.51.100.1,put 198.51.100.1,get ::1",
                "get 192.0.2.1,put 192.0.2.255",
            ),
            // One network that is allowed denies all others.
            (
                "+192.0.2.0/24",
                "get 192.0.2.1,put 192.0.2.255",
                "get 192.0.3.0,put 198.51.100.1,get ::1,put ::1",
            ),
            (
                "+192.0.2.0/24,read",
                "get 192.0.2.1",
                "put 192.0.2.1,get 192.0.3.1,put 192.0.3.1",
            ),
            (
                "+192.0.2.0/24,both",
                "get 192.0.2.1,put 192.0.2.1",
                "get 192.0.3.1",
            ),
            // What is allowed for writes alone leaves reads as they were.
            (
                "+192.0.2.0/24,write",
                "put 192.0.2.1,get 192.0.2.1,get 192.0.3.1,get ::1",
                "put 192.0.3.1,put ::1",
            ),
            // The order counts.
            (
                "-192.0.2.13 +192.0.2.0/24",
                "get 192.0.2.12,get 192.0.2.14",
                "get 192.0.2.13",
            ),
            (
                "+192.0.2.0/24 -192.0.2.13",
                "get 192.0.2.13",
                "get 192.0.3.13",
            ),
            (
                "-192.0.2.0/24,write +192.0.2.0/24",
                "get 192.0.2.1",
                "put 192.0.2.1",
            ),
            // The whole of a family.
            ("-0.0.0.0/0", "get ::1", "get 192.0.2.1"),
            ("-::/0", "get 192.0.2.1", "get ::1,get 2001:db8::1"),
            ("+::/0", "get ::1", "get 192.0.2.1,get ::ffff:192.0.2.1"),
            // IPv6, and IPv4 inside IPv6.
            (
                "+2001:db8::/32",
                "get 2001:db8:ffff::1",
                "get 2001:db9::1,get 192.0.2.1",
            ),
            ("+fe80::/10", "get fe80::1,get febf::1", "get fec0::1"),
            ("+2001:db8::1", "get 2001:db8::1", "get 2001:db8::2"),
            (
                "+192.0.2.0/24",
                "get ::ffff:192.0.2.1",
                "get ::ffff:192.0.3.1",
            ),
            (
                "+::ffff:192.0.2.0/120",
                "get 192.0.2.1,get ::ffff:192.0.2.1",
                "get 192.0.3.1",
            ),
            ("+::ffff:0.0.0.0/96", "get 192.0.2.1", "get ::1"),
            ("+::ffff:192.0.2.1", "get 192.0.2.1", "get 192.0.2.2"),
            ("-10.0.0.0/9", "get 10.128.0.0", "get 10.127.255.255"),
            ("-10.0.0.1/32", "get 10.0.0.2", "get 10.0.0.1"),
        ] {
            for (asked, wanted) in [(allowed, true), (denied, false)] {
                for asked in asked.split(',').filter(|asked| !asked.is_empty()) {
                    assert_eq!(is_allowed(rules, asked), wanted, "{asked} by {rules:?}");
                }
            }
        }
    }

    #[test]
    fn wrong_rules_are_told_what_is_expected() {
        for (text, wanted) in [
            ("", "expected an address"),
            ("192.0.2", "expected an address"),
            ("host.example", "expected an address"),
            ("192.0.2.0/33", "expected an address"),
            ("192.0.2.0/", "expected an address"),
            ("192.0.2.0/+24", "expected an address"),
            ("2001:db8::/129", "expected an address"),
            ("fe80::1%eth0", "expected an address"),
            ("192.0.2.0/24,readwrite", "expected read, write or both"),
            ("192.0.2.0/24,", "expected read, write or both"),
            ("192.0.2.1/24", "(expected 192.0.2.0/24)"),
            ("2001:db8::1/32", "(expected 2001:db8::/32)"),
            ("::ffff:192.0.2.1/120", "(expected 192.0.2.0/24)"),
        ] {
            let error = AccessRule::deny(text).expect_err(text).to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
        for (text, wanted) in [
            ("192.0.2.1/32", "deny 192.0.2.1"),
            ("::ffff:192.0.2.0/120,both", "deny 192.0.2.0/24"),
            ("2001:db8::/32,write", "deny 2001:db8::/32,write"),
        ] {
            let rule = AccessRule::deny(text).expect(text);
            assert_eq!(rule.to_string(), wanted);
        }
    }

    #[test]
    fn a_closure_that_panics_lets_nothing_in() {
        let peer = (Ipv4Addr::LOCALHOST, 2070).into();
        let request = AccessRequest::new(peer, Direction::Read);
        assert_eq!(Gate::default().decide(&request), Access::Allow);
        let gate = Gate::new(|_| panic!("on purpose"));
        assert_eq!(gate.decide(&request), Access::Ignore);
    }
}
