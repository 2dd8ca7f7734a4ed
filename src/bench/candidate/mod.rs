//! The balancers under test, each a process of its own.
