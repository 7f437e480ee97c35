//! Where established flows are forwarded.

use std::collections::{BTreeMap, BTreeSet};

use datapath::abi::{Input, InputKey, Output};

/// Between which links established flows are forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Where they may arrive.
    pub inputs: BTreeMap<InputKey, Input>,
    /// Where they may leave, by the index of the interface that routes.
    pub outputs: BTreeMap<u32, Output>,
    /// Devices that packets may be redirected to: those of the former, and those where the guard answers.
    pub devices: BTreeSet<u32>,
}
