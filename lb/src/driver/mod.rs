//! driver.

pub mod conntrack;
pub mod link;
pub mod nft;
pub mod probe;
