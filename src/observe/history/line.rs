//! The points of one subject: blocks, made when something happens in their time.

use std::collections::VecDeque;

use super::mark::Packed;
use super::point::Point;

/// Seconds of a step of the last hour.
pub(super) const FINE_S: u64 = 10;

/// Seconds of a step of the last days.
pub(super) const COARSE_S: u64 = 600;

/// What one [`Track`] keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    /// Seconds of a step.
    pub(super) step_s: u64,
    /// Steps of a block.
    steps: u64,
    /// Seconds for which a point is kept, and until its block is past that.
    pub(super) kept_s: u64,
}

impl Level {
    /// From where on points are kept at `now_s`: where a block begins.
    pub(super) const fn kept_from_s(self, now_s: u64) -> u64 {
        let block_s = self.step_s * self.steps;
        now_s.saturating_sub(self.kept_s) / block_s * block_s
    }
}

/// An hour in blocks of ten minutes.
pub(super) const FINE: Level = Level { step_s: FINE_S, steps: 60, kept_s: 3_600 };

/// Thirty days in blocks of one.
pub(super) const COARSE: Level = Level { step_s: COARSE_S, steps: 144, kept_s: 30 * DAY_S };

/// Of everything together twice as long, so that thirty days can be compared with those before.
pub(super) const COARSE_OF_TOTAL: Level = Level { kept_s: 60 * DAY_S, ..COARSE };

pub(super) const DAY_S: u64 = 86_400;

/// Points that follow each other.
#[derive(Debug)]
struct Block {
    /// The first step, counted from 1970.
    start: u64,
    points: Box<[Point]>,
}

/// Points of one resolution, ascending.
#[derive(Debug, Default)]
pub(super) struct Track {
    blocks: VecDeque<Block>,
    /// Seconds since 1970 before which points were given up for want of room.
    pub(super) given_up_before: u64,
}

impl Track {
    /// The point of a step, made if need be.
    pub(super) fn point(&mut self, level: Level, step: u64) -> Option<&mut Point> {
        let start = step - step % level.steps;
        let place = match self.blocks.binary_search_by_key(&start, |block| block.start) {
            Ok(place) => place,
            Err(place) => {
                let points = (0..level.steps).map(|_| Point::default()).collect();
                self.blocks.insert(place, Block { start, points });
                place
            }
        };
        self.blocks.get_mut(place)?.points.get_mut(usize::try_from(step - start).ok()?)
    }

    /// Points in which something happened, with their steps.
    pub(super) fn points(&self) -> impl Iterator<Item = (u64, &Point)> {
        self.blocks
            .iter()
            .flat_map(|block| (block.start..).zip(&block.points))
            .filter(|(_, it)| !it.is_empty())
    }

    /// The same from one step to before another.
    pub(super) fn between(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, &Point)> {
        let has_some =
            move |block: &&Block| block.start < to && block.start + block.points.len() as u64 > from;
        let blocks = self.blocks.iter().filter(has_some);
        blocks
            .flat_map(|block| (block.start..).zip(&block.points))
            .filter(move |(step, point)| (from..to).contains(step) && !point.is_empty())
    }

    /// How many blocks there are.
    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    fn forget_before(&mut self, step: u64) {
        while self.blocks.front().is_some_and(|block| block.start + block.points.len() as u64 <= step) {
            self.blocks.pop_front();
        }
    }

    fn bytes(&self) -> usize {
        let points: usize = self.blocks.iter().map(|block| size_of_val(&*block.points)).sum();
        points + self.blocks.capacity() * size_of::<Block>()
    }
}

/// A coarse step under way, whose times are known in full.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) step: u64,
    /// What is in its point from before, such as from a file.
    pub(super) before: Point,
    pub(super) times: Packed,
}

/// Everything that is kept of one subject.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) fine: Track,
    pub(super) coarse: Track,
    pub(super) open: Option<Box<Open>>,
}

impl Line {
    /// Forgets what is too old at `now_s`. Whether anything is left.
    pub(super) fn forget(&mut self, now_s: u64, coarse: Level) -> bool {
        self.fine.forget_before(now_s.saturating_sub(FINE.kept_s) / FINE.step_s);
        self.coarse.forget_before(now_s.saturating_sub(coarse.kept_s) / coarse.step_s);
        if self.open.as_ref().is_some_and(|open| open.step < now_s / COARSE_S) {
            self.open = None;
        }
        !self.fine.blocks.is_empty() || !self.coarse.blocks.is_empty()
    }

    /// Gives up its oldest block, if that is not one of the present. How many bytes that frees.
    pub(super) fn give_up_oldest(&mut self, now_s: u64) -> usize {
        let begins = |track: &Track, level: Level| {
            let block =
                track.blocks.front().filter(|block| (block.start + level.steps) * level.step_s <= now_s);
            block.map(|block| (block.start * level.step_s, (block.start + level.steps) * level.step_s))
        };
        let (fine, coarse) = (begins(&self.fine, FINE), begins(&self.coarse, COARSE));
        let (track, end) = match (fine, coarse) {
            (Some((fine, end)), coarse) if coarse.is_none_or(|(coarse, _)| fine < coarse) => {
                (&mut self.fine, end)
            }
            (_, Some((_, end))) => (&mut self.coarse, end),
            _ => return 0,
        };
        track.given_up_before = track.given_up_before.max(end);
        track.blocks.pop_front().map_or(0, |block| size_of_val(&*block.points))
    }

    /// Requests in the last days: how much it is used.
    pub(super) fn used(&self) -> u64 {
        self.coarse.points().map(|(_, point)| u64::from(point.requests)).sum()
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        let open = self.open.as_ref().map_or(0, |open| size_of::<Open>() + open.times.bytes());
        self.fine.bytes() + self.coarse.bytes() + open + LINE_BYTES
    }
}

/// The line itself, its subject with two names, and its place in the tree.
const LINE_BYTES: usize = size_of::<Line>() + 192;
