//! What goes through an upgraded connection, as far as we look: where one frame ends and the next begins.
//!
//! ```text
//!   client ──► bytes, untouched ──────────────► upstream     after the farewell: one Close frame each way,
//!          ◄────────────── untouched, bytes ◄──              in between two frames, and nothing behind it
//! ```
//!
//! Only lengths are read (RFC 6455 §5.2): a few instructions per frame, none per byte.

/// A Close frame to the client: 1001, going away.
pub(super) const CLOSE_TO_CLIENT: [u8; 4] = [0x88, 0x02, 0x03, 0xE9];

/// A Close frame to the upstream, masked as everything that clients send.
pub(super) fn close_to_upstream(mask: [u8; 4]) -> [u8; 8] {
    let [a, b, c, d] = mask;
    [0x88, 0x82, a, b, c, d, 0x03 ^ a, 0xE9 ^ b]
}

/// Both directions of one upgraded connection.
#[derive(Debug, Default)]
pub(super) struct Tunnel {
    /// Until the 101 itself has passed.
    opening: Opening,
    pub to_client: Frames,
    pub to_upstream: Frames,
    /// How much of the Close frame to the client is out.
    pub told_client: usize,
    pub told_upstream: bool,
}

impl Tunnel {
    /// These bytes went to the client.
    pub(super) fn passed_to_client(&mut self, bytes: &[u8]) {
        let frames = match self.opening.pass(bytes) {
            Some(end) => bytes.get(end..).unwrap_or_default(),
            None => return,
        };
        self.to_client.pass(frames);
    }

    /// How many of these bytes may still go to the client once nothing more is welcome: the rest of the frame
    /// under way.
    pub(super) fn welcome_to_client(&self, bytes: &[u8]) -> usize {
        let mut opening = self.opening;
        match opening.pass(bytes) {
            Some(end) => end + self.to_client.rest_of_frame(bytes.get(end..).unwrap_or_default()),
            None => bytes.len(),
        }
    }

    /// Whether the client is in between two frames.
    pub(super) fn is_client_ready(&self) -> bool {
        self.opening.is_over && self.to_client.is_between()
    }
}

/// The 101 on its way to the client, and what may come before it: other heads of one status line each.
#[derive(Clone, Copy, Debug, Default)]
struct Opening {
    is_over: bool,
    /// The status line as far as its status.
    start: [u8; 12],
    seen: usize,
    /// How much of the end of a head was seen.
    matched: usize,
}

impl Opening {
    const END: [u8; 4] = *b"\r\n\r\n";

    /// Where in `bytes` the 101 is over.
    fn pass(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.is_over {
            return Some(0);
        }
        for (index, &byte) in bytes.iter().enumerate() {
            if let Some(place) = self.start.get_mut(self.seen) {
                *place = byte;
            }
            self.seen += 1;
            let is_next = Self::END.get(self.matched) == Some(&byte);
            self.matched = if is_next { self.matched + 1 } else { usize::from(byte == b'\r') };
            if self.matched == Self::END.len() {
                self.is_over = self.start.ends_with(b"101");
                (self.seen, self.matched) = (0, 0);
                if self.is_over {
                    return Some(index + 1);
                }
            }
        }
        None
    }
}

/// Follows the frames of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Frames {
    /// What is here of the header of the next frame.
    header: [u8; HEADER_BYTES_MAX],
    have: usize,
    /// Payload of the frame under way that is still to come.
    left: u64,
}

/// Two bytes, a length of eight, a mask.
const HEADER_BYTES_MAX: usize = 14;

impl Frames {
    /// These bytes passed.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.take_frame(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    /// Whether the last byte that passed was the last one of a frame.
    pub(super) const fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// How many of these bytes belong to the frame that is under way; 0 when none is.
    pub(super) fn rest_of_frame(&self, bytes: &[u8]) -> usize {
        if self.is_between() { 0 } else { { *self }.take_frame(bytes) }
    }

    /// Takes bytes up to the end of one frame; says how many.
    fn take_frame(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while self.left == 0 {
            let (Some(&byte), Some(place)) = (bytes.get(taken), self.header.get_mut(self.have)) else {
                return taken;
            };
            *place = byte;
            (taken, self.have) = (taken + 1, self.have + 1);
            if self.have == self.header_length() {
                self.left = self.payload_length();
                self.have = 0;
                if self.left == 0 {
                    return taken;
                }
            }
        }
        let rest = (bytes.len() - taken) as u64;
        let passing = self.left.min(rest);
        self.left -= passing;
        taken + usize::try_from(passing).unwrap_or(usize::MAX)
    }

    /// As far as it can be told.
    fn header_length(&self) -> usize {
        if self.have < 2 {
            return HEADER_BYTES_MAX;
        }
        let [_, second, ..] = self.header;
        let extended = match second & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + extended + if second & 0x80 > 0 { 4 } else { 0 }
    }

    fn payload_length(&self) -> u64 {
        let [_, second, rest @ ..] = self.header;
        match second & 0x7F {
            126 => rest.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes).into()),
            127 => rest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes)),
            short => short.into(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(payload: usize, is_masked: bool) -> Vec<u8> {
        let mask = if is_masked { 0x80 } else { 0 };
        let mut frame = vec![0x82];
        match payload {
            0..126 => frame.push(u8::try_from(payload).unwrap() | mask),
            126..65536 => {
                frame.push(126 + mask);
                frame.extend(u16::try_from(payload).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(127 + mask);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        frame.extend(vec![0xFF; payload + if is_masked { 4 } else { 0 }]);
        frame
    }

    #[test]
    fn heads_before_the_101_are_no_frames() {
        let mut tunnel = Tunnel::default();
        tunnel.passed_to_client(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 101 Switching\r\nUpgrade: w\r\n",
        );
        assert!(!tunnel.is_client_ready());
        assert_eq!(tunnel.welcome_to_client(b"\r\n\x82\x01x"), 2);
        tunnel.passed_to_client(b"\r\n\x82\x02x");
        assert!(!tunnel.is_client_ready());
        assert_eq!(tunnel.welcome_to_client(b"y\x82\x01z"), 1);
        tunnel.passed_to_client(b"y");
        assert!(tunnel.is_client_ready());
        assert_eq!(tunnel.welcome_to_client(b"\x82\x01z"), 0);
    }

    #[test]
    fn a_close_frame_is_masked_for_the_upstream() {
        let [.., masked_high, masked_low] = close_to_upstream([1, 2, 3, 4]);
        assert_eq!([masked_high ^ 1, masked_low ^ 2], 1001_u16.to_be_bytes());
    }

    proptest! {
        /// However the bytes are cut into pieces, a boundary is where a frame ends and nowhere else.
        #[test]
        fn frames_end_where_they_end(
            frames in prop::collection::vec((prop_oneof![0..4_usize, 120..130_usize, 65_530..65_540_usize], any::<bool>()), 1..6),
            piece in 1..5_000_usize,
        ) {
            let (mut bytes, mut ends) = (Vec::new(), vec![0]);
            for (payload, is_masked) in frames {
                bytes.extend(frame(payload, is_masked));
                ends.push(bytes.len());
            }
            let (mut follower, mut at) = (Frames::default(), 0);
            for part in bytes.chunks(piece) {
                let next_end = *ends.iter().find(|&&end| end >= at).unwrap();
                prop_assert_eq!(follower.is_between(), next_end == at);
                prop_assert_eq!(follower.rest_of_frame(&bytes[at..]), next_end - at);
                follower.pass(part);
                at += part.len();
            }
            prop_assert!(follower.is_between());
        }
    }
}
