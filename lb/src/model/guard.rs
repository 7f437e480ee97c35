use datapath::abi::Guard;

/// What a Service says of how its connections are guarded; what it does not say is the node's to decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardWish {
    /// Annotation `portico.dev/syn-cookies`.
    pub cookies: Option<u32>,
    /// Annotation `portico.dev/max-new-flows`.
    pub flows: Option<u32>,
    /// Annotation `portico.dev/max-new-flows-per-source`.
    pub source_flows: Option<u32>,
}

impl GuardWish {
    /// What is to be done, where the node does this by default.
    #[must_use]
    pub fn or(&self, default: Guard) -> Guard {
        Guard {
            cookies: self.cookies.unwrap_or(default.cookies),
            flows: self.flows.unwrap_or(default.flows),
            source_flows: self.source_flows.unwrap_or(default.source_flows),
        }
    }
}
