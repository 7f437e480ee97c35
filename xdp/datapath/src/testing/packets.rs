/// x
pub struct Fixture;
/// x
pub struct Layers;
/// x
pub fn fixtures() {}
