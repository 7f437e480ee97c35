//! As much of HTTP/1.1 as the laboratory's server and client speak to each other and to `curl`: persistent
//! connections, bodies with a `Content-Length`.

use std::io::{self, BufRead, Read as _};

/// Longest line of a head, to stop reading from something that is no HTTP.
const LINE: u64 = 8 << 10;

/// A start line and the one header field that matters.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Request or status line.
    pub(super) start: String,
    /// `Content-Length`, 0 if there is none.
    pub(super) length: u64,
    /// `Connection: close`.
    pub(super) close: bool,
}

/// Reads a head; none at the end of the stream.
pub(super) fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    let start = read_line(reader)?;
    if start.is_empty() {
        return Ok(None);
    }
    let mut head = Head { start, length: 0, close: false };
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            return Ok(Some(head));
        }
        let Some((name, value)) = line.split_once(':') else {
            return Err(malformed(&line));
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            head.length = value.parse().map_err(|_| malformed(&line))?;
        } else if name.eq_ignore_ascii_case("connection") {
            head.close = value.eq_ignore_ascii_case("close");
        }
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    let read = reader.take(LINE).read_until(b'\n', &mut line)?;
    if read > 0 && line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|e| malformed(&e.to_string()))
}

fn malformed(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP: {line}"))
}

/// Fills `bytes` with the body pattern from `offset` on: a function of the offset that repeats only after 4 GiB, so
/// that a lost, repeated or moved segment shows.
pub(super) fn fill(offset: u64, bytes: &mut [u8]) {
    for (byte, at) in bytes.iter_mut().zip(offset..) {
        *byte = pattern(at);
    }
}

/// The offset of the first byte that does not fit the pattern.
pub(super) fn mismatch(offset: u64, bytes: &[u8]) -> Option<u64> {
    bytes.iter().zip(offset..).find(|(byte, at)| **byte != pattern(*at)).map(|(_, at)| at)
}

/// The top byte of the offset times 2^32 / golden ratio (Knuth's multiplicative hash).
const fn pattern(offset: u64) -> u8 {
    (offset.wrapping_mul(2_654_435_769) >> 24) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_one_after_the_other() {
        let mut input: &[u8] =
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\nPOST /a HTTP/1.1\ncontent-length: 3\nConnection: Close\n\nabc";
        let first = read_head(&mut input).unwrap().unwrap();
        assert_eq!(first, Head { start: "GET / HTTP/1.1".into(), length: 0, close: false });
        let second = read_head(&mut input).unwrap().unwrap();
        assert_eq!(second, Head { start: "POST /a HTTP/1.1".into(), length: 3, close: true });
        assert_eq!(input, b"abc");
        assert!(read_head(&mut &b""[..]).unwrap().is_none());
        assert!(read_head(&mut &b"GET / HT"[..]).is_err());
        assert!(read_head(&mut &b"GET /\nnonsense\n\n"[..]).is_err());
    }

    #[test]
    fn the_pattern_shows_a_shift() {
        let mut bytes = [0; 4096];
        fill(70_000, &mut bytes);
        assert_eq!(mismatch(70_000, &bytes), None);
        assert!(mismatch(70_001, &bytes).is_some());
        assert!(mismatch(70_000 + 1460, &bytes).is_some());
        bytes[100] ^= 1;
        assert_eq!(mismatch(70_000, &bytes), Some(70_100));
    }
}
