//! Frames of HTTP/2 on a client's socket: the bytes pass as they are, and the goodwill that is left is that of
//! an oracle which sees each direction in one piece.

use std::io::IoSlice;
use std::time::Instant;

use evener::fuzzing::proxy::count_frames;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex};

use crate::engines::block_on;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const GOODWILL_MAX: i64 = 10_000;

/// Comes back with time; what cannot be told from here is only how much time has passed inside.
const GOODWILL_PER_SECOND: f64 = 200.0;

/// Enough that the smallest frames use up all goodwill.
const BYTES_MAX: usize = 256 * 1024;

/// From here on the first byte means as often as [`BYTES_MAX`] lets us: a flood takes a thousand times as long.
const FLOOD: u8 = 0xf0;

/// How often, how finely cut, how much of the rest comes from the client; then that, and what is sent to it.
pub fn run(bytes: &[u8]) {
    let Some((&[often, step, share], rest)) = bytes.split_first_chunk() else { return };
    let (received, sent) = rest.split_at(rest.len() * usize::from(share) / 255);
    let often = if often < FLOOD { usize::from(often / 16) + 1 } else { 1 + BYTES_MAX / rest.len().max(9) };
    block_on(converse(received, sent, often, usize::from(step) + 1));
}

async fn converse(received: &[u8], sent: &[u8], often: usize, step: usize) {
    let started = Instant::now();
    let (mut client, socket) = duplex(PREFACE.len() + received.len() + sent.len() + 1);
    let (mut counted, pulse) = count_frames(Box::new(socket));
    let mut left = GOODWILL_MAX;
    let mut inbound =
        Direction::new(&[PREFACE, &received.repeat(often)].concat(), PREFACE.len(), earned_by_received);
    let mut outbound = Direction::new(&sent.repeat(often), 0, earned_by_sent);
    let mut buffer = vec![0; step];
    for turn in 0..often {
        let come = if turn == 0 { [PREFACE, received].concat() } else { received.to_vec() };
        client.write_all(&come).await.unwrap();
        let mut rest = come.as_slice();
        while !rest.is_empty() {
            let wanted = buffer.len().min(rest.len());
            counted.read_exact(&mut buffer[..wanted]).await.unwrap();
            assert_eq!(buffer[..wanted], rest[..wanted], "the bytes pass as they are");
            rest = &rest[wanted..];
            inbound.pass(wanted, &mut left);
            let (bytes, is_flooded) = pulse();
            assert_eq!(bytes, inbound.passed as u64);
            if is_flooded {
                assert!(left < 0, "{left} left, and cut off");
                return;
            }
            let by_time = started.elapsed().as_secs_f64() * GOODWILL_PER_SECOND;
            assert!(left as f64 >= -by_time - 1.0, "{left} left, and still welcome");
        }
        send(&mut counted, sent, step).await;
        outbound.pass(sent.len(), &mut left);
        let mut seen = vec![0; sent.len()];
        client.read_exact(&mut seen).await.unwrap();
        assert_eq!(seen, sent, "the bytes pass as they are");
    }
}

/// By turns in one slice and in two.
async fn send(counted: &mut (impl AsyncWrite + Unpin), bytes: &[u8], step: usize) {
    for (nth, piece) in bytes.chunks(step).enumerate() {
        let (one, other) = piece.split_at(piece.len() / 2);
        let written = if nth % 2 == 0 {
            counted.write_vectored(&[IoSlice::new(one), IoSlice::new(other)]).await.unwrap()
        } else {
            0
        };
        counted.write_all(&piece[written..]).await.unwrap();
    }
}

/// One direction of a connection, read in advance: where each head of a frame ends, and what it earns.
struct Direction {
    heads: Vec<(usize, i64)>,
    passed: usize,
}

impl Direction {
    fn new(bytes: &[u8], mut at: usize, earned: fn(u8, u8, usize) -> i64) -> Self {
        let mut heads = Vec::new();
        while let Some(&[high, middle, low, kind, flags, _, _, _, _]) = bytes.get(at..at + 9) {
            let length = usize::from(high) * 65536 + usize::from(middle) * 256 + usize::from(low);
            heads.push((at + 9, earned(kind, flags, length)));
            at += 9 + length;
        }
        heads.reverse();
        Self { heads, passed: 0 }
    }

    fn pass(&mut self, bytes: usize, left: &mut i64) {
        self.passed += bytes;
        while let Some((_, earned)) = self.heads.pop_if(|(end, _)| *end <= self.passed) {
            *left = (*left + earned).min(GOODWILL_MAX);
        }
    }
}

/// What `src/proxy/frames.rs` promises, said once more.
fn earned_by_received(kind: u8, flags: u8, length: usize) -> i64 {
    match (kind, length, flags & 1) {
        (0, 0, 0) => -1,
        (0, ..) => length as i64 / 256,
        (1, ..) => 10,
        (3, ..) => -20,
        (9, ..) => 0,
        _ => -1,
    }
}

fn earned_by_sent(kind: u8, _: u8, length: usize) -> i64 {
    match kind {
        0 => 4 + length as i64 / 256,
        1 => 10,
        _ => 0,
    }
}
