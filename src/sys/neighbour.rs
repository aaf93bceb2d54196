//! What the kernel knows of the hosts on its own links, and which interface has an address.

use std::io;
use std::net::IpAddr;

/// The hardware address of a neighbour; `scope` is the interface of an IPv6 link-local address.
/// `None` where the kernel knows none.
#[cfg(target_os = "linux")]
pub(crate) fn mac(address: IpAddr, scope: u32) -> io::Result<Option<[u8; 6]>> {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
    };
    use std::os::fd::AsRawFd;

    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    send(netlink.as_raw_fd(), &question(address), MsgFlags::empty())?;
    let mut buffer = vec![0; 64 << 10];
    let mut found = None;
    loop {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        let before = rest.len();
        while let Some(message) = next_message(&mut rest) {
            match message {
                Message::Neighbour(neighbour) => {
                    let is_it = neighbour.address == address
                        && (scope == 0 || scope == neighbour.interface);
                    if is_it {
                        found = found.or(neighbour.mac);
                    }
                }
                Message::Other => {}
                Message::Done => return Ok(found),
                Message::Failed(errno) => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
        if before == 0 {
            return Ok(found);
        }
    }
}

/// The hardware address of a neighbour; this system is not asked.
#[cfg(not(target_os = "linux"))]
pub(crate) fn mac(_: IpAddr, _: u32) -> io::Result<Option<[u8; 6]>> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The name of the interface that has this address.
pub(crate) fn interface(address: IpAddr) -> io::Result<Option<String>> {
    let mut interfaces = nix::ifaddrs::getifaddrs()?;
    let has_it = |interface: &nix::ifaddrs::InterfaceAddress| {
        let own = interface.address.as_ref();
        let v4 = own.and_then(|own| own.as_sockaddr_in().map(|own| IpAddr::V4(own.ip())));
        let v6 = || own.and_then(|own| own.as_sockaddr_in6().map(|own| IpAddr::V6(own.ip())));
        v4.or_else(v6) == Some(address)
    };
    let found = interfaces.find(has_it);
    Ok(found.map(|interface| interface.interface_name))
}

/// What the kernel says of one neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Neighbour {
    address: IpAddr,
    interface: u32,
    mac: Option<[u8; 6]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Neighbour(Neighbour),
    Other,
    Done,
    Failed(i32),
}

// rtnetlink(7) and <linux/neighbour.h>.
const HEADER: usize = 16;
const NDMSG: usize = 12;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
/// NLM_F_REQUEST and NLM_F_DUMP.
const DUMP: u16 = 0x301;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

/// Asks for all neighbours of the family.
fn question(address: IpAddr) -> [u8; HEADER + NDMSG] {
    let mut message = [0; HEADER + NDMSG];
    message[..4].copy_from_slice(&((HEADER + NDMSG) as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&RTM_GETNEIGH.to_ne_bytes());
    message[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    message[HEADER] = match address {
        IpAddr::V4(_) => nix::libc::AF_INET as u8,
        IpAddr::V6(_) => nix::libc::AF_INET6 as u8,
    };
    message
}

/// Takes a message off a datagram. `None` at its end, and where the rest makes no sense.
fn next_message(rest: &mut &[u8]) -> Option<Message> {
    let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
    let message = rest.get(..length)?;
    let kind = u16::from_ne_bytes(*message.get(4..)?.first_chunk()?);
    let body = message.get(HEADER..)?;
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some(match kind {
        NLMSG_DONE => Message::Done,
        NLMSG_ERROR => Message::Failed(-i32::from_ne_bytes(*body.first_chunk()?)),
        RTM_NEWNEIGH => neighbour(body).map_or(Message::Other, Message::Neighbour),
        _ => Message::Other,
    })
}

fn neighbour(body: &[u8]) -> Option<Neighbour> {
    let interface = u32::from_ne_bytes(*body.get(4..)?.first_chunk()?);
    let mut attributes = body.get(NDMSG..)?;
    let (mut address, mut mac) = (None, None);
    while let Some(length) = attributes.first_chunk().copied().map(u16::from_ne_bytes) {
        let attribute = attributes.get(..usize::from(length))?;
        let value = attribute.get(4..)?;
        let kind = u16::from_ne_bytes(*attribute.get(2..)?.first_chunk()?);
        match kind {
            NDA_DST => {
                let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
                address = v4
                    .or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from))
                    .ok();
            }
            NDA_LLADDR => mac = value.try_into().ok(),
            _ => {}
        }
        let next = usize::from(length).next_multiple_of(4);
        attributes = attributes.get(next..).unwrap_or_default();
    }
    // A loopback device has addresses of zeros.
    let mac = mac.filter(|mac| *mac != [0; 6]);
    let address = address?;
    Some(Neighbour {
        address,
        interface,
        mac,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(body);
        bytes
    }

    fn ndmsg(interface: u32) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0];
        bytes.extend(interface.to_ne_bytes());
        bytes.resize(NDMSG, 0);
        bytes
    }

    #[test]
    fn a_datagram_of_the_kernel_is_read_to_its_end_whatever_is_in_it() {
        let mac = [2, 0, 0, 0, 0, 7];
        let known = [
            ndmsg(3),
            attribute(NDA_DST, &[192, 0, 2, 7]),
            attribute(9, b"x"),
            attribute(NDA_LLADDR, &mac),
        ]
        .concat();
        let unknown = [ndmsg(4), attribute(NDA_DST, &[0xfe; 16])].concat();
        let loopback = [
            ndmsg(1),
            attribute(NDA_DST, &[127, 0, 0, 1]),
            attribute(NDA_LLADDR, &[0; 6]),
        ]
        .concat();
        let datagram = [
            message(RTM_NEWNEIGH, &known),
            message(RTM_NEWNEIGH, &unknown),
            message(RTM_NEWNEIGH, &loopback),
            message(RTM_NEWNEIGH, &ndmsg(5)),
            message(99, b"abcd"),
            message(NLMSG_ERROR, &(-13_i32).to_ne_bytes()),
            message(NLMSG_DONE, &[0; 4]),
        ]
        .concat();
        let mut rest = &datagram[..];
        let messages: Vec<_> = std::iter::from_fn(|| next_message(&mut rest)).collect();
        let of = |address: IpAddr, interface, mac| {
            Message::Neighbour(Neighbour {
                address,
                interface,
                mac,
            })
        };
        let wanted = [
            of([192, 0, 2, 7].into(), 3, Some(mac)),
            of([0xfe; 16].into(), 4, None),
            of([127, 0, 0, 1].into(), 1, None),
            Message::Other,
            Message::Other,
            Message::Failed(13),
            Message::Done,
        ];
        assert_eq!(messages, wanted);
        // Cut anywhere, it ends early and nothing is made up.
        for end in 0..datagram.len() {
            let mut rest = &datagram[..end];
            let messages: Vec<_> = std::iter::from_fn(|| next_message(&mut rest)).collect();
            assert_eq!(messages, wanted[..messages.len()], "{end}");
        }
        // A length of zero must not be read for ever.
        assert_eq!(next_message(&mut &[0; 32][..]), None);
        let stuck = message(RTM_NEWNEIGH, &[ndmsg(3), vec![0; 8]].concat());
        assert_eq!(next_message(&mut &stuck[..]), Some(Message::Other));
    }

    #[test]
    fn the_loopback_interface_has_its_address_and_no_other() {
        let loopback = interface([127, 0, 0, 1].into()).expect("a list of addresses");
        assert!(loopback.is_some());
        let unknown = interface([192, 0, 2, 200].into()).expect("a list of addresses");
        assert_eq!(unknown, None);
    }
}
