//! maglev.
