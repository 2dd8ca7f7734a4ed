//! What is installed here, and what machine this is.
