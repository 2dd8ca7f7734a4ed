//! Upstreams that one request has tried already.

/// Attempts that one request may make in all. Sixteen upstreams that all fail are an outage, which
/// a seventeenth attempt makes worse; and so the list fits in one cache line of the request.
pub const ATTEMPTS_MAX: usize = 16;

/// Indexes, into the pool's slice, of the upstreams that this request has tried. Never allocates.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    indexes: [u32; ATTEMPTS_MAX],
    count: usize,
}

impl Tried {
    /// Nobody yet.
    pub const fn new() -> Self {
        Self { indexes: [0; ATTEMPTS_MAX], count: 0 }
    }

    /// Remembers an attempt. The caller stops at [`ATTEMPTS_MAX`]: what comes after is forgotten.
    pub fn insert(&mut self, index: usize) {
        let (Some(slot), Ok(index)) = (self.indexes.get_mut(self.count), u32::try_from(index)) else {
            return;
        };
        *slot = index;
        self.count += 1;
    }

    /// Whether this request has tried the upstream.
    pub fn contains(&self, index: usize) -> bool {
        self.indexes.iter().take(self.count).any(|&tried| tried as usize == index)
    }

    /// Forgets an attempt that never reached the upstream, so that it may be tried again.
    pub fn remove(&mut self, index: usize) {
        let kept = self.indexes.iter().take(self.count).filter(|&&tried| tried as usize != index);
        let mut left = Self::new();
        for (slot, &kept) in left.indexes.iter_mut().zip(kept) {
            *slot = kept;
            left.count += 1;
        }
        *self = left;
    }

    /// Attempts so far.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether this is the first attempt.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tried_is_remembered_and_nothing_else() {
        let mut tried = Tried::default();
        assert!(tried.is_empty() && !tried.contains(0));

        tried.insert(3);
        tried.insert(70_000);
        assert!(tried.contains(3) && tried.contains(70_000) && !tried.contains(0));
        assert_eq!(tried.len(), 2);

        tried.remove(3);
        assert!(tried.contains(70_000) && !tried.contains(3));
        assert_eq!(tried.len(), 1);
    }

    #[test]
    fn the_seventeenth_attempt_is_forgotten_not_a_panic() {
        let mut tried = Tried::default();
        (0..20).for_each(|index| tried.insert(index));
        assert_eq!(tried.len(), ATTEMPTS_MAX);
        assert!(tried.contains(15) && !tried.contains(16));
    }
}
