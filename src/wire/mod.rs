//! Bytes ↔ packets (RFC 1350 §5, RFC 2347).
//!
//! Parsing borrows from the datagram, never allocates, never panics and never guesses: what is
//! sloppy but clear in the field is taken (padding after the last string, odd case), what is
//! unclear is [`Malformed`].

mod options;

pub use options::{OptionName, Options};

use crate::limits::{MAX_ERROR_TEXT, MAX_NAME};
use std::fmt;

const RRQ: u16 = 1;
const WRQ: u16 = 2;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

/// One TFTP packet, borrowed from the datagram it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// RRQ or WRQ (RFC 1350 §5).
    Request(Request<'a>),
    /// DATA: a block of the file, with the 16-bit number it has on the wire.
    Data {
        /// Block number modulo 65536 (or 65535, see `rollover`).
        block: u16,
        /// The octets of the block.
        payload: &'a [u8],
    },
    /// ACK of one block.
    Ack {
        /// Block number as on the wire.
        block: u16,
    },
    /// ERROR: the end of the transfer, never answered.
    Error {
        /// What went wrong.
        code: ErrorCode,
        /// Text for people, as sent: not trusted, not escaped.
        message: &'a [u8],
    },
    /// OACK: the options that the server accepted (RFC 2347).
    OptionAck(Options),
}

/// An RRQ or WRQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Which way the file goes.
    pub direction: Direction,
    /// File name: any octets but NUL.
    pub name: &'a [u8],
    /// How the octets are to be translated.
    pub mode: Mode,
    /// The options asked for; unknown ones are counted only.
    pub options: Options,
}

/// Which way the file goes, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// RRQ: the server sends.
    Read,
    /// WRQ: the server receives.
    Write,
}

/// Transfer mode (RFC 1350 §1). `mail` is obsolete and is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Octets as they are.
    Octet,
    /// Text with the line ends of RFC 764: LF goes as CR LF, CR as CR NUL.
    Netascii,
}

/// The code of an ERROR packet (RFC 1350 §5, RFC 2347).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    /// 0: see the message.
    pub const NOT_DEFINED: Self = Self(0);
    /// 1: file not found.
    pub const NOT_FOUND: Self = Self(1);
    /// 2: access violation.
    pub const ACCESS_VIOLATION: Self = Self(2);
    /// 3: disk full or allocation exceeded.
    pub const DISK_FULL: Self = Self(3);
    /// 4: illegal TFTP operation.
    pub const ILLEGAL_OPERATION: Self = Self(4);
    /// 5: unknown transfer ID.
    pub const UNKNOWN_TID: Self = Self(5);
    /// 6: file already exists.
    pub const FILE_EXISTS: Self = Self(6);
    /// 7: no such user.
    pub const NO_SUCH_USER: Self = Self(7);
    /// 8: option negotiation failed (RFC 2347).
    pub const OPTION_REFUSED: Self = Self(8);
}

/// Why a datagram is not a TFTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Malformed {
    /// Shorter than its header.
    TooShort,
    /// The opcode is none of 1 to 6.
    Opcode(u16),
    /// The file name is not ended by a NUL octet.
    UnterminatedName,
    /// The file name has no octet at all.
    EmptyName,
    /// The file name is longer than this server takes.
    LongName,
    /// The mode is not ended by a NUL octet.
    UnterminatedMode,
    /// The mode is neither `octet` nor `netascii`.
    UnknownMode,
    /// Longer than any request may be (RFC 2347: 512 octets; the buffer holds four times that).
    LongRequest,
}

impl Malformed {
    /// True where the sender meant a request, so that ERROR 4 is a useful answer. Everything else
    /// is dropped.
    pub fn is_request(self) -> bool {
        !matches!(self, Self::TooShort | Self::Opcode(_))
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort => f.write_str("packet too short"),
            Self::Opcode(code) => write!(f, "unknown opcode {code}"),
            Self::UnterminatedName => f.write_str("file name without end"),
            Self::EmptyName => f.write_str("empty file name"),
            Self::LongName => f.write_str("file name too long"),
            Self::UnterminatedMode => f.write_str("transfer mode without end"),
            Self::UnknownMode => f.write_str("unknown transfer mode"),
            Self::LongRequest => f.write_str("request too long"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Reads one datagram.
///
/// # Errors
/// [`Malformed`] says what is missing; nothing of the packet may be used then.
pub fn parse(datagram: &[u8]) -> Result<Packet<'_>, Malformed> {
    let (opcode, body) = split_u16(datagram).ok_or(Malformed::TooShort)?;
    match opcode {
        RRQ => parse_request(Direction::Read, body).map(Packet::Request),
        WRQ => parse_request(Direction::Write, body).map(Packet::Request),
        DATA => {
            let (block, payload) = split_u16(body).ok_or(Malformed::TooShort)?;
            Ok(Packet::Data { block, payload })
        }
        // Octets behind an ACK are the padding of a short Ethernet frame.
        ACK => {
            let (block, _padding) = split_u16(body).ok_or(Malformed::TooShort)?;
            Ok(Packet::Ack { block })
        }
        ERROR => {
            let (code, text) = split_u16(body).ok_or(Malformed::TooShort)?;
            // The text should end in NUL; several ROMs forget it, and nothing depends on it.
            let message = split_string(text).map_or(text, |(message, _)| message);
            let message = &message[..message.len().min(MAX_ERROR_TEXT)];
            Ok(Packet::Error {
                code: ErrorCode(code),
                message,
            })
        }
        OACK => Ok(Packet::OptionAck(Options::parse(body))),
        other => Err(Malformed::Opcode(other)),
    }
}

/// What a server does not understand of the options of a request, for logs: see
/// [`options::passed_over`].
pub(crate) fn options_passed_over(request: &[u8]) -> Option<Vec<u8>> {
    let (_opcode, body) = split_u16(request)?;
    let (_name, rest) = split_string(body)?;
    let (_mode, options) = split_string(rest)?;
    options::passed_over(options)
}

fn parse_request(direction: Direction, body: &[u8]) -> Result<Request<'_>, Malformed> {
    let (name, rest) = split_string(body).ok_or(Malformed::UnterminatedName)?;
    if name.is_empty() {
        return Err(Malformed::EmptyName);
    }
    if name.len() > MAX_NAME {
        return Err(Malformed::LongName);
    }
    let (mode, options) = split_string(rest).ok_or(Malformed::UnterminatedMode)?;
    let mode = if mode.eq_ignore_ascii_case(b"octet") {
        Mode::Octet
    } else if mode.eq_ignore_ascii_case(b"netascii") {
        Mode::Netascii
    } else {
        return Err(Malformed::UnknownMode);
    };
    Ok(Request {
        direction,
        name,
        mode,
        options: Options::parse(options),
    })
}

impl Request<'_> {
    /// Appends the request as a datagram. Options are written in the order of [`OptionName::ALL`].
    pub fn emit(&self, out: &mut Vec<u8>) {
        let opcode = match self.direction {
            Direction::Read => RRQ,
            Direction::Write => WRQ,
        };
        out.extend_from_slice(&opcode.to_be_bytes());
        out.extend_from_slice(self.name);
        out.push(0);
        out.extend_from_slice(self.mode.as_str().as_bytes());
        out.push(0);
        self.options.emit(out);
    }
}

impl Mode {
    /// The name as it stands in a request.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Octet => "octet",
            Self::Netascii => "netascii",
        }
    }
}

/// The four octets before the payload of a DATA packet.
pub fn data_header(block: u16) -> [u8; 4] {
    header(DATA, block)
}

/// A whole ACK packet.
pub fn ack(block: u16) -> [u8; 4] {
    header(ACK, block)
}

/// Appends an ERROR packet. The text is cut at [`MAX_ERROR_TEXT`] octets and at the first NUL.
pub fn emit_error(code: ErrorCode, text: &str, out: &mut Vec<u8>) {
    let text = text.as_bytes();
    let end = text
        .iter()
        .position(|&octet| octet == 0)
        .unwrap_or(text.len())
        .min(MAX_ERROR_TEXT);
    out.extend_from_slice(&header(ERROR, code.0));
    out.extend_from_slice(&text[..end]);
    out.push(0);
}

/// Appends an OACK packet.
pub fn emit_option_ack(options: &Options, out: &mut Vec<u8>) {
    out.extend_from_slice(&OACK.to_be_bytes());
    options.emit(out);
}

fn header(opcode: u16, number: u16) -> [u8; 4] {
    let [a, b] = opcode.to_be_bytes();
    let [c, d] = number.to_be_bytes();
    [a, b, c, d]
}

fn split_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*number), rest))
}

/// Cuts at the first NUL; `None` where there is none.
fn split_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&octet| octet == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(datagram: &[u8]) -> Request<'_> {
        match parse(datagram) {
            Ok(Packet::Request(request)) => request,
            other => panic!("not a request: {other:?}"),
        }
    }

    #[test]
    fn request_with_odd_case_and_unknown_options() {
        let request = request(b"\0\x01boot/x\0OcTeT\0BlkSize\x001428\0multicast\0\0TSIZE\x000\0");
        assert_eq!(request.name, b"boot/x");
        assert_eq!(request.mode, Mode::Octet);
        assert_eq!(request.direction, Direction::Read);
        assert_eq!(request.options.get(OptionName::Blksize), Some(1428));
        assert_eq!(request.options.get(OptionName::Tsize), Some(0));
        assert_eq!(request.options.unknown(), 1);
    }

    #[test]
    fn padding_and_junk_after_the_last_pair_are_ignored() {
        let padded = request(b"\0\x01f\0octet\0blksize\x00512\0\0\0\0\0\0");
        assert_eq!(padded.options.get(OptionName::Blksize), Some(512));
        assert_eq!(padded.options.unknown(), 0);
        let junk = request(b"\0\x01f\0octet\0blksize\x00512\0windowsize\x001");
        assert_eq!(junk.options.get(OptionName::Blksize), Some(512));
        assert_eq!(
            junk.options.get(OptionName::Windowsize),
            None,
            "a value without its NUL is no value"
        );
    }

    #[test]
    fn what_is_not_a_request_says_why() {
        let long = [&b"\0\x01"[..], &[b'a'; MAX_NAME + 1], b"\0octet\0"].concat();
        let cases: [(&[u8], Malformed); 10] = [
            (b"", Malformed::TooShort),
            (b"\0", Malformed::TooShort),
            (b"\0\x01", Malformed::UnterminatedName),
            (b"\0\x01name", Malformed::UnterminatedName),
            (b"\0\x01\0octet\0", Malformed::EmptyName),
            (b"\0\x02name\0octet", Malformed::UnterminatedMode),
            (b"\0\x01name\0octets\0", Malformed::UnknownMode),
            (b"\0\x01name\0mail\0", Malformed::UnknownMode),
            (b"\0\x07name\0octet\0", Malformed::Opcode(7)),
            (&long, Malformed::LongName),
        ];
        for (datagram, why) in cases {
            assert_eq!(parse(datagram), Err(why), "{datagram:?}");
        }
    }

    #[test]
    fn short_headers_are_malformed_and_long_acks_are_not() {
        for datagram in [
            &b"\0\x03"[..],
            b"\0\x03\0",
            b"\0\x04",
            b"\0\x04\0",
            b"\0\x05",
            b"\0\x05\0",
        ] {
            assert_eq!(parse(datagram), Err(Malformed::TooShort), "{datagram:?}");
        }
        assert_eq!(
            parse(b"\0\x04\x01\x02paddingpadding"),
            Ok(Packet::Ack { block: 0x0102 })
        );
        assert_eq!(
            parse(b"\0\x03\x01\x02"),
            Ok(Packet::Data {
                block: 0x0102,
                payload: b""
            })
        );
    }

    #[test]
    fn error_text_is_cut_and_needs_no_end() {
        let expected = Packet::Error {
            code: ErrorCode::OPTION_REFUSED,
            message: b"no",
        };
        assert_eq!(parse(b"\0\x05\0\x08no"), Ok(expected));
        assert_eq!(parse(b"\0\x05\0\x08no\0rest"), Ok(expected));
        let mut out = Vec::new();
        emit_error(ErrorCode::NOT_FOUND, &"x".repeat(500), &mut out);
        assert_eq!(out.len(), 4 + MAX_ERROR_TEXT + 1);
        assert_eq!(out.last(), Some(&0));
    }

    #[test]
    fn emitted_packets_parse_back() {
        let options = Options::default()
            .with(OptionName::Blksize, 1428)
            .with(OptionName::Windowsize, 16)
            .with(OptionName::Tsize, 1 << 40);
        let request = Request {
            direction: Direction::Write,
            name: b"a b\xff",
            mode: Mode::Netascii,
            options,
        };
        let mut out = Vec::new();
        request.emit(&mut out);
        assert_eq!(parse(&out), Ok(Packet::Request(request)));
        out.clear();
        emit_option_ack(&options, &mut out);
        assert_eq!(parse(&out), Ok(Packet::OptionAck(options)));
        assert_eq!(parse(&ack(513)), Ok(Packet::Ack { block: 513 }));
        assert_eq!(
            parse(&data_header(513)),
            Ok(Packet::Data {
                block: 513,
                payload: b""
            })
        );
    }
}
