//! All candidates in turns, round after round.
