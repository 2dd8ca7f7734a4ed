//! Perfect knowledge: where each request is served soonest.
