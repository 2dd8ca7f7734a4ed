//! Scripted app servers.
