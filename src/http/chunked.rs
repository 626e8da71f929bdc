//! Chunked bodies (RFC 9112 7.1), strictly, however they are cut.
//!
//! ```text
//! Size ─digits─► Size ─;─► Extension ─CR─► SizeFeed ─LF─► Data(n) ─► DataReturn ─CR─► DataFeed ─LF─► Size
//!                  └──────────CR──────────────▲  └─LF, n = 0─► Trailer ─CR─► EndFeed ─LF─► End
//!                                                    field: TrailerLine ─CR─► TrailerFeed ─LF─► Trailer
//! ```
//! - A size is 1 to 16 hexadecimal digits: no sign, no `0x`, no white space,
//!   so it cannot overflow.
//! - Extensions are ignored, as RFC 9112 7.1.1 requires, and trailers dropped;
//!   both together are bounded by [`FRAMING_SIZE_MAX`] in one body.
//! - Lines end with CR LF; no other control character anywhere but a tab.

/// Bytes of extensions and trailers in one body.
pub const FRAMING_SIZE_MAX: u16 = 8 * 1024;
const SIZE_DIGITS_MAX: u8 = 16;

/// Where in a chunked body we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Size,
    Extension,
    SizeFeed,
    Data,
    DataReturn,
    DataFeed,
    Trailer,
    TrailerLine,
    TrailerFeed,
    EndFeed,
    End,
}

/// Reads a chunked body's framing; the data between is the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoder {
    /// The size being read, then what is left of the chunk's data.
    size: u64,
    framing_size: u16,
    digits: u8,
    place: Place,
    /// The trailer line has had its colon.
    colon: bool,
}

/// What comes after the framing that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The input ended inside framing, or where data would begin.
    More,
    /// A chunk's data, this much of it still to come.
    Data(u64),
    /// The body and its trailers are over.
    End,
}

/// The framing is broken; says how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkFault(pub &'static str);

impl Default for Decoder {
    fn default() -> Self {
        Self { size: 0, framing_size: 0, digits: 0, place: Place::Size, colon: false }
    }
}

impl Decoder {
    /// Reads framing up to the next data, or the end, or the end of `input`.
    /// Returns how many bytes it took.
    ///
    /// # Errors
    /// Where the framing is broken.
    pub fn framing(&mut self, input: &[u8]) -> Result<(usize, Next), ChunkFault> {
        let mut taken = 0;
        loop {
            match self.place {
                Place::Data => return Ok((taken, Next::Data(self.size))),
                Place::End => return Ok((taken, Next::End)),
                _ => {}
            }
            let Some(&byte) = input.get(taken) else {
                return Ok((taken, Next::More));
            };
            self.step(byte)?;
            taken += 1;
        }
    }

    /// So much of the chunk's data was taken from the input.
    ///
    /// # Panics
    /// Where that is more than [`Next::Data`] said.
    pub fn data_taken(&mut self, size: usize) {
        assert!(self.place == Place::Data && size as u64 <= self.size, "more data than the chunk has");
        self.size -= size as u64;
        if self.size == 0 {
            self.place = Place::DataReturn;
        }
    }

    fn step(&mut self, byte: u8) -> Result<(), ChunkFault> {
        self.place = match (self.place, byte) {
            (Place::Size, byte) if byte.is_ascii_hexdigit() => {
                if self.digits == SIZE_DIGITS_MAX {
                    return Err(ChunkFault("a chunk's size has too many digits"));
                }
                self.digits += 1;
                self.size = self.size << 4 | u64::from(hex_value(byte));
                Place::Size
            }
            (Place::Size, _) if self.digits == 0 => {
                return Err(ChunkFault("a chunk begins with its size in hexadecimal digits"));
            }
            (Place::Size, b';') => Place::Extension,
            (Place::Size | Place::Extension, b'\r') => Place::SizeFeed,
            (Place::Size, _) => return Err(ChunkFault("a chunk's size is not a hexadecimal number")),
            (Place::Extension, byte) => {
                self.count_text(byte)?;
                Place::Extension
            }
            (Place::SizeFeed, b'\n') if self.size == 0 => Place::Trailer,
            (Place::SizeFeed, b'\n') => Place::Data,
            (Place::DataReturn, b'\r') => Place::DataFeed,
            (Place::DataFeed, b'\n') => {
                self.digits = 0;
                Place::Size
            }
            (Place::DataReturn | Place::DataFeed, _) => {
                return Err(ChunkFault("a chunk's data is longer than its size"));
            }
            (Place::Trailer, b'\r') => Place::EndFeed,
            (Place::Trailer, byte) if super::request::is_token_byte(byte) => {
                self.count_text(byte)?;
                self.colon = false;
                Place::TrailerLine
            }
            (Place::TrailerLine, b'\r') if self.colon => Place::TrailerFeed,
            (Place::TrailerLine, byte)
                if self.colon || byte == b':' || super::request::is_token_byte(byte) =>
            {
                self.count_text(byte)?;
                self.colon |= byte == b':';
                Place::TrailerLine
            }
            (Place::Trailer | Place::TrailerLine, _) => return Err(ChunkFault("a trailer is malformed")),
            (Place::TrailerFeed, b'\n') => Place::Trailer,
            (Place::EndFeed, b'\n') => Place::End,
            (Place::SizeFeed | Place::TrailerFeed | Place::EndFeed, _) => {
                return Err(ChunkFault("a bare CR in a chunked body's framing"));
            }
            (Place::Data | Place::End, _) => unreachable!("no framing byte is read here"),
        };
        Ok(())
    }

    /// One byte of an extension or a trailer: allowed, and within the bound?
    fn count_text(&mut self, byte: u8) -> Result<(), ChunkFault> {
        if (byte < 0x20 && byte != b'\t') || byte == 0x7F {
            return Err(ChunkFault("a control character in a chunked body's framing"));
        }
        if self.framing_size == FRAMING_SIZE_MAX {
            return Err(ChunkFault("chunk extensions and trailers are too long"));
        }
        self.framing_size += 1;
        Ok(())
    }
}

pub(super) fn hex_value(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        _ => (byte | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The decoded body, and whether and where it ended; input in one piece.
    fn decode(input: &[u8]) -> Result<(Vec<u8>, Option<usize>), ChunkFault> {
        let mut decoder = Decoder::default();
        let mut body = Vec::new();
        let mut at = 0;
        loop {
            let (taken, next) = decoder.framing(&input[at..])?;
            at += taken;
            match next {
                Next::More => return Ok((body, None)),
                Next::End => return Ok((body, Some(at))),
                Next::Data(size) => {
                    let size = (size as usize).min(input.len() - at);
                    if size == 0 {
                        return Ok((body, None));
                    }
                    body.extend_from_slice(&input[at..at + size]);
                    decoder.data_taken(size);
                    at += size;
                }
            }
        }
    }

    #[test]
    fn chunks_are_joined_and_trailers_dropped() {
        let input =
            b"4\r\nWiki\r\n0005;a=b;c=\"d e\"\r\npedia\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\nGET";
        assert_eq!(decode(input), Ok((b"Wikipedia0123456789".to_vec(), Some(input.len() - 3))));
    }

    #[test]
    fn bad_sizes_are_refused() {
        for input in [
            &b"\r\n"[..],
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b" 1\r\n",
            b"1 \r\n",
            b"1\t;a\r\n",
            b"1\n",
            b"1\rX",
            b"g\r\n",
            b";a\r\n",
            b"00000000000000001\r\n",
            b"fffffffffffffffff\r\n",
            b"1\0\r\n",
        ] {
            assert!(decode(input).is_err(), "{:?}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn data_must_end_where_the_size_says() {
        for input in [&b"1\r\nab\r\n"[..], b"1\r\na\n", b"1\r\na\rX", b"2\r\na\r\n0\r\n\r\n"] {
            assert!(decode(input).is_err(), "{:?}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn bad_trailers_and_extensions_are_refused() {
        for input in [
            &b"0\r\n folded: x\r\n\r\n"[..],
            b"0\r\nno colon\r\n\r\n",
            b"0\r\nnocolon\r\n\r\n",
            b"0\r\na : b\r\n\r\n",
            b"0\r\n:x\r\n\r\n",
            b"0\r\na: b\n\r\n",
            b"0\r\na: \0\r\n\r\n",
            b"0\r\n\n",
            b"1;\n\r\n",
            b"1;a\0\r\n",
        ] {
            assert!(decode(input).is_err(), "{:?}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded_together() {
        let mut input = b"1;".to_vec();
        input.resize(2 + FRAMING_SIZE_MAX as usize - 1, b'x');
        input.extend_from_slice(b"\r\na\r\n0\r\n");
        let mut enough = input.clone();
        enough.extend_from_slice(b"\r\n");
        assert_eq!(decode(&enough), Ok((b"a".to_vec(), Some(enough.len()))));
        input.extend_from_slice(b"t:\r\n\r\n");
        assert!(decode(&input).is_err());
    }
}
