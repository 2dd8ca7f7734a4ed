//! A process that we started: what it uses, and its certain end.
