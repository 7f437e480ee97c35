use aya::maps::{Array, MapData};
use datapath::abi::{Rate, map};

use super::{Error, Map, open};
use crate::driver::pins::PinDir;

/// What the guard has seen of service ports.
#[derive(Debug)]
pub struct Rates(Map);

impl Rates {
    pub(super) fn open(pins: &PinDir) -> Result<Self, Error> {
        let (map, _) = open(pins.map(map::RATES), map::RATES)?;
        Ok(Self(Map::Array(map)))
    }

    /// Of a service port, by its id.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn get(&self, service: u32) -> Result<Rate, Error> {
        let read = |source| Error::Read { name: map::RATES, source };
        let rates: Array<&MapData, Rate> = Array::try_from(&self.0).map_err(read)?;
        rates.get(&service, 0).map_err(read)
    }
}
