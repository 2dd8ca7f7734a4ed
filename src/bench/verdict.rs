//! What was expected against what was measured.
