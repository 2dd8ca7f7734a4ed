//! A chunked body, of which only the length matters (RFC 9112, section 7.1).

use super::answer::NoAnswer;

/// Where in the body we are.
#[derive(Debug)]
pub(super) struct Chunks {
    part: Part,
    /// Bytes of this chunk still to come; while its size is read, the size so far.
    left: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Hexadecimal digits, so many so far.
    Size(u8),
    /// The rest of the line behind them.
    Extension,
    Data,
    /// The line break behind the data.
    DataEnd,
    /// A line behind the last chunk; whether it is empty so far.
    Trailer(bool),
    Done,
}

/// Sixteen of them are all that 64 bits hold.
const DIGITS_MAX: u8 = 15;

impl Chunks {
    pub(super) const fn new() -> Self {
        Self { part: Part::Size(0), left: 0 }
    }

    pub(super) fn is_done(&self) -> bool {
        self.part == Part::Done
    }

    /// Takes in what has come; returns how many bytes of it are the body's.
    pub(super) fn feed(&mut self, mut piece: &[u8]) -> Result<u64, NoAnswer> {
        let mut length = 0;
        while let Some((&byte, others)) = piece.split_first() {
            if self.part == Part::Data {
                let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(piece.len());
                self.take(taken as u64);
                length += taken as u64;
                piece = piece.get(taken..).unwrap_or_default();
            } else {
                self.part = self.next_part(byte)?;
                piece = others;
            }
        }
        Ok(length)
    }

    fn take(&mut self, taken: u64) {
        self.left -= taken;
        if self.left == 0 {
            self.part = Part::DataEnd;
        }
    }

    fn next_part(&mut self, byte: u8) -> Result<Part, NoAnswer> {
        match (self.part, byte) {
            (Part::Size(1..) | Part::Extension, b'\n') if self.left == 0 => Ok(Part::Trailer(true)),
            (Part::Size(1..) | Part::Extension, b'\n') => Ok(Part::Data),
            (Part::Size(1..), b'\r' | b';' | b' ' | b'\t') | (Part::Extension, _) => Ok(Part::Extension),
            (Part::Size(digits @ ..DIGITS_MAX), _) => {
                let digit = char::from(byte).to_digit(16).ok_or(NoAnswer)?;
                self.left = self.left * 16 + u64::from(digit);
                Ok(Part::Size(digits + 1))
            }
            (Part::DataEnd | Part::Trailer(_), b'\r') => Ok(self.part),
            (Part::DataEnd, b'\n') => Ok(Part::Size(0)),
            (Part::Trailer(true), b'\n') => Ok(Part::Done),
            (Part::Trailer(_), _) => Ok(Part::Trailer(byte == b'\n')),
            (Part::Size(_) | Part::Data | Part::DataEnd | Part::Done, _) => Err(NoAnswer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it ends there, and how long the body is.
    fn read(text: &str) -> Result<(bool, u64), NoAnswer> {
        let mut chunks = Chunks::new();
        let length = chunks.feed(text.as_bytes())?;
        Ok((chunks.is_done(), length))
    }

    #[test]
    fn the_body_is_what_the_chunks_hold() {
        assert_eq!(read("5\r\nhello\r\n0\r\n\r\n"), Ok((true, 5)));
        assert_eq!(
            read("1a;x=y\r\nabcdefghijklmnopqrstuvwxyz\r\n1\r\n!\r\n0\r\nx: y\r\n\r\n"),
            Ok((true, 27))
        );
        assert_eq!(read("0\r\n\r\n"), Ok((true, 0)));
        assert_eq!(read("5\r\nhel"), Ok((false, 3)));
        assert_eq!(read("5\r\nhello\r\n0\r\n"), Ok((false, 5)));
    }

    #[test]
    fn what_is_not_chunked_is_refused() {
        for text in ["\r\n", "x\r\n", "5\r\nhelloo\r\n", "-1\r\n", "0\r\n\r\nmore", "ffffffffffffffff1\r\n"] {
            assert_eq!(read(text), Err(NoAnswer), "{text:?}");
        }
    }
}
