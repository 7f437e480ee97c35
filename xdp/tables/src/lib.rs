//! Maps.
#![no_std]
