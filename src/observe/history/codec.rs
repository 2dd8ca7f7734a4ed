//! The history as bytes: for the disk, and for a process that takes our place.
//!
//! ```text
//!   version · when it was written · runs · lines: subject, fine points, coarse points; points: given up before, …
//! ```
//!
//! All numbers are as in `bytes.rs`. Points stand at the wall clock's time, each behind how many steps it comes
//! after the one before; what is empty is left out.
//!
//! **To add a figure of a point**: it goes up a version, and the older one is still read.

use std::fmt;

use super::book::Book;
use super::bytes::{put, put_text, take, take_text};
use super::line::{COARSE, FINE, Level, Line, Track};
use super::point::{Point, whole};
use super::quantiles::Quantiles;
use super::{BYTES_MAX, Subject};

const VERSION: u64 = 1;

/// How much later than now a history may end, in seconds: two machines' clocks, or one before and after it was
/// set. What ends later than that is taken for one that ends now.
const AHEAD_MAX_S: u64 = 600;

/// Why a history cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It was written by a later version, or by something else.
    Version(u64),
    /// It ends in the middle, or says what cannot be.
    Broken,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => {
                write!(formatter, "its history is of version {version}, and this one knows {VERSION}")
            }
            Self::Broken => formatter.write_str("its history is not whole"),
        }
    }
}

impl std::error::Error for Unreadable {}

pub(super) fn write(book: &Book, at_s: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(book.bytes() / 2);
    put(&mut bytes, VERSION);
    put(&mut bytes, at_s);
    put(&mut bytes, book.runs.len() as u64);
    for &(from, to) in &book.runs {
        put(&mut bytes, from);
        put(&mut bytes, to - from.min(to));
    }
    put(&mut bytes, book.lines.len() as u64);
    for (subject, line) in &book.lines {
        put_subject(&mut bytes, subject);
        put_track(&mut bytes, &line.fine);
        put_track(&mut bytes, &line.coarse);
    }
    bytes
}

pub(super) fn read(mut bytes: &[u8], now_s: u64) -> Result<Book, Unreadable> {
    let version = take(&mut bytes).ok_or(Unreadable::Broken)?;
    if version != VERSION {
        return Err(Unreadable::Version(version));
    }
    let (mut book, written_at_s) =
        read_book(&mut bytes).filter(|_| bytes.is_empty()).ok_or(Unreadable::Broken)?;
    let end_s = book.taken_down_until().max(written_at_s);
    if end_s > now_s.saturating_add(AHEAD_MAX_S) {
        // The clock was ahead then, or is behind now.
        book.move_points(0, now_s.cast_signed().saturating_sub(end_s.cast_signed()));
    }
    book.end(0, BYTES_MAX);
    Ok(book)
}

fn read_book(bytes: &mut &[u8]) -> Option<(Book, u64)> {
    let (mut book, written_at_s) = (Book::default(), take(bytes)?);
    for _ in 0..take(bytes)? {
        let from = take_time(bytes)?;
        book.runs.push_back((from, from + take_time(bytes)?));
    }
    let mut size = 0;
    for _ in 0..take(bytes)? {
        let subject = take_subject(bytes)?;
        let (fine, coarse) = (take_track(bytes, FINE)?, take_track(bytes, COARSE)?);
        let line = Line { fine, coarse, open: None };
        size += line.bytes();
        if size > 2 * BYTES_MAX {
            return None;
        }
        book.lines.insert(subject, line);
    }
    let runs = book.runs.make_contiguous();
    (written_at_s <= TIME_MAX_S && runs.is_sorted()).then_some((book, written_at_s))
}

fn put_subject(bytes: &mut Vec<u8>, subject: &Subject) {
    let (kind, names): (u64, [&str; 2]) = match subject {
        Subject::Total => (0, [""; 2]),
        Subject::Listener(name) => (1, [name, ""]),
        Subject::Route(name) => (2, [name, ""]),
        Subject::Pool(name) => (3, [name, ""]),
        Subject::Upstream { pool, address } => (4, [pool, address]),
    };
    put(bytes, kind);
    for name in names {
        put_text(bytes, name);
    }
}

fn take_subject(bytes: &mut &[u8]) -> Option<Subject> {
    let (kind, name, address) = (take(bytes)?, take_text(bytes)?, take_text(bytes)?);
    Some(match kind {
        0 => Subject::Total,
        1 => Subject::Listener(name),
        2 => Subject::Route(name),
        3 => Subject::Pool(name),
        4 => Subject::Upstream { pool: name, address },
        _ => return None,
    })
}

fn put_track(bytes: &mut Vec<u8>, track: &Track) {
    put(bytes, track.given_up_before);
    put(bytes, track.points().count() as u64);
    let mut next = 0;
    for (step, point) in track.points() {
        put(bytes, step - next);
        put_point(bytes, point);
        next = step + 1;
    }
}

fn take_track(bytes: &mut &[u8], level: Level) -> Option<Track> {
    let (mut track, mut next) = (Track::default(), 0_u64);
    track.given_up_before = take_time(bytes)?;
    for _ in 0..take(bytes)? {
        let step = next.checked_add(take(bytes)?).filter(|&step| step <= TIME_MAX_S / level.step_s)?;
        *track.point(level, step)? = take_point(bytes)?;
        next = step + 1;
        if track.len() > BLOCKS_MAX {
            return None;
        }
    }
    Some(track)
}

fn put_point(bytes: &mut Vec<u8>, point: &Point) {
    let [p50, p90, p99] = point.quantiles.0.map(u64::from);
    for number in [
        point.requests.into(),
        point.errors.into(),
        point.timed.into(),
        whole(f64::from(point.time_ms) * 1e3),
        whole(point.request_bytes.into()),
        whole(point.response_bytes.into()),
        p50,
        p90.saturating_sub(p50),
        p99.saturating_sub(p90),
        point.in_flight_max.into(),
    ] {
        put(bytes, number);
    }
}

fn take_point(bytes: &mut &[u8]) -> Option<Point> {
    let mut small = || u32::try_from(take(bytes)?).ok();
    let (requests, errors, timed) = (small()?, small()?, small()?);
    let mut large = || take(bytes).map(|number| number as f32);
    let (micros, request_bytes, response_bytes) = (large()?, large()?, large()?);
    let mut code = || u16::try_from(take(bytes)?).ok();
    let (p50, more, yet_more) = (code()?, code()?, code()?);
    let p90 = p50.checked_add(more)?;
    let quantiles = Quantiles::read([p50, p90, p90.checked_add(yet_more)?]);
    let in_flight_max = u16::try_from(take(bytes)?).ok()?;
    let time_ms = micros / 1e3;
    Some(Point { requests, errors, timed, time_ms, request_bytes, response_bytes, quantiles, in_flight_max })
}

fn take_time(bytes: &mut &[u8]) -> Option<u64> {
    take(bytes).filter(|&seconds| seconds <= TIME_MAX_S)
}

/// Twice what sixty days take.
const BLOCKS_MAX: usize = 128;

/// The year 5138; whatever is later was not written by a clock.
const TIME_MAX_S: u64 = 100_000_000_000;
