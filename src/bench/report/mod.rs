//! What people look at: a table, JSON, a page.
