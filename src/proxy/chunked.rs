//! Finds the end of a chunked request body in the bytes that pass by.
//!
//! Pingora decodes the chunks; this only has to know where the body ends, so that bytes of the next
//! request never mix with it, and to refuse what two decoders could read in two ways.

/// Bytes of one chunk-size line or one trailer line, at most; extensions have no use behind a proxy.
const LINE_BYTES_MAX: usize = 256;

/// Bytes of all trailers together, at most.
const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// Digits of a chunk size: 2^60 is more than anyone sends, and cannot overflow.
const SIZE_DIGITS_MAX: u8 = 15;

/// Where in a chunked body the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the digits of a size; how many were read.
    Size(u8),
    /// Behind the size, in an extension that is passed over.
    Extension,
    /// At the line feed behind a size.
    SizeLineFeed,
    /// In the data of a chunk.
    Data,
    /// At the carriage return behind the data.
    DataCarriageReturn,
    /// At the line feed behind the data.
    DataLineFeed,
    /// At the start of a trailer line, or of the empty line that ends the body.
    TrailerStart,
    /// In a trailer line.
    Trailer,
    /// At the line feed of a trailer line.
    TrailerLineFeed,
    /// At the line feed that ends the body.
    LastLineFeed,
    /// Behind the body.
    End,
}

/// A body whose chunks cannot be told apart for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadChunk;

/// Follows one chunked body, byte by byte except for the data, which is skipped in one step.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkScanner {
    place: Place,
    /// Bytes of data left in this chunk.
    left: u64,
    /// Bytes of this line so far.
    line: usize,
    trailers: usize,
}

impl ChunkScanner {
    pub(super) const fn new() -> Self {
        Self { place: Place::Size(0), left: 0, line: 0, trailers: 0 }
    }

    /// Whether the last chunk and the trailers have passed.
    pub(super) fn is_done(&self) -> bool {
        self.place == Place::End
    }

    /// How many leading bytes of `bytes` belong to the body.
    ///
    /// # Errors
    ///
    /// Refuses anything but hexadecimal sizes, CRLF line ends and lines of a modest length.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        let mut taken = 0;
        while let Some(&byte) = bytes.get(taken) {
            match self.place {
                Place::End => break,
                Place::Data => taken += self.skip_data(bytes.len() - taken),
                _ => {
                    self.step(byte)?;
                    taken += 1;
                }
            }
        }
        Ok(taken)
    }

    fn skip_data(&mut self, available: usize) -> usize {
        let step = usize::try_from(self.left).unwrap_or(usize::MAX).min(available);
        self.left -= step as u64;
        if self.left == 0 {
            self.place = Place::DataCarriageReturn;
        }
        step
    }

    fn step(&mut self, byte: u8) -> Result<(), BadChunk> {
        self.line += 1;
        if self.line > LINE_BYTES_MAX {
            return Err(BadChunk);
        }
        self.place = match (self.place, byte) {
            (Place::Size(digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < SIZE_DIGITS_MAX => {
                self.left = self.left * 16 + u64::from((byte as char).to_digit(16).unwrap_or(0));
                Place::Size(digits + 1)
            }
            (Place::Size(1..) | Place::Extension, b'\r') => Place::SizeLineFeed,
            (Place::Size(1..), b';') | (Place::Extension, b' '..=b'~' | b'\t' | 0x80..) => Place::Extension,
            (Place::SizeLineFeed, b'\n') => self.after_size(),
            (Place::DataCarriageReturn, b'\r') => Place::DataLineFeed,
            (Place::DataLineFeed, b'\n') => self.next_line(Place::Size(0)),
            (Place::TrailerStart, b'\r') => Place::LastLineFeed,
            (Place::TrailerStart, b'!'..=b'~') | (Place::Trailer, b' '..=b'~' | b'\t' | 0x80..) => {
                self.trailers += 1;
                if self.trailers > TRAILER_BYTES_MAX {
                    return Err(BadChunk);
                }
                Place::Trailer
            }
            (Place::Trailer, b'\r') => Place::TrailerLineFeed,
            (Place::TrailerLineFeed, b'\n') => self.next_line(Place::TrailerStart),
            (Place::LastLineFeed, b'\n') => Place::End,
            _ => return Err(BadChunk),
        };
        Ok(())
    }

    fn after_size(&mut self) -> Place {
        self.next_line(if self.left == 0 { Place::TrailerStart } else { Place::Data })
    }

    fn next_line(&mut self, place: Place) -> Place {
        self.line = 0;
        place
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(bytes: &[u8]) -> Result<(usize, bool), BadChunk> {
        let mut scanner = ChunkScanner::new();
        let taken = scanner.advance(bytes)?;
        Ok((taken, scanner.is_done()))
    }

    #[test]
    fn the_body_ends_behind_the_last_chunk() {
        assert_eq!(scan(b"5\r\nhello\r\n0\r\n\r\nGET /"), Ok((15, true)));
        assert_eq!(scan(b"0\r\n\r\n"), Ok((5, true)));
        assert_eq!(scan(b"5;name=value\r\nhello\r\n0\r\nTrailer: x\r\n\r\n!"), Ok((38, true)));
        assert_eq!(scan(b"5\r\nhel"), Ok((6, false)));
    }

    #[test]
    fn every_ambiguous_chunk_is_refused() {
        for bytes in [
            &b"\r\n"[..],
            b"5\nhello\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello\r\n0\r\n\n",
            b"5;a\nb\r\nhello\r\n0\r\n\r\n",
            b"0\r\n folded: x\r\n\r\n",
            b"ffffffffffffffff\r\n",
        ] {
            assert_eq!(scan(bytes), Err(BadChunk), "{:?}", bytes.escape_ascii().to_string());
        }
        assert_eq!(scan(&[b'5'].into_iter().chain([b';'; 300]).collect::<Vec<_>>()), Err(BadChunk));
    }

    proptest! {
        #[test]
        fn a_body_in_pieces_ends_where_it_ends_at_once(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..5),
            cut in 0usize..100,
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                body.extend(chunk);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n\r\n");
            let length = body.len();
            body.extend(b"GET / HTTP/1.1\r\n");
            let cut = cut.min(body.len());
            let mut scanner = ChunkScanner::new();
            let first = scanner.advance(&body[..cut]).unwrap();
            let second = if first == cut { scanner.advance(&body[cut..]).unwrap() } else { 0 };
            prop_assert!(scanner.is_done());
            prop_assert_eq!(first + second, length);
        }
    }
}
