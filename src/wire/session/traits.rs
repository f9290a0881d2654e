//! What is known of a NAT, as it travels: nine bytes, zero where nothing is known.

use crate::nat::{Allocation, Behaviour, Traits};
use crate::wire::{Malformed, Reader, Writer};

const BEHAVIOURS: [Behaviour; 3] =
    [Behaviour::EndpointIndependent, Behaviour::AddressDependent, Behaviour::AddressAndPortDependent];

pub(super) fn put_traits(w: &mut Writer, traits: Traits) -> &mut Writer {
    let Traits { translates, mapping, filtering, hairpin, allocation } = traits;
    w.u8(switch(translates)).u8(behaviour(mapping)).u8(behaviour(filtering)).u8(switch(hairpin));
    match allocation {
        None => w.u8(0).u32(0),
        Some(Allocation::Preserved) => w.u8(1).u32(0),
        Some(Allocation::Sequential { step }) => w.u8(2).u32(step.cast_unsigned()),
        Some(Allocation::Block { first, last }) => w.u8(3).u16(first).u16(last),
        Some(Allocation::Random) => w.u8(4).u32(0),
    }
}

/// What a later version may say in other words is not known.
pub(super) fn take_traits(r: &mut Reader<'_>) -> Result<Traits, Malformed> {
    let translates = read_switch(r.u8()?);
    let [mapping, filtering] = [read_behaviour(r.u8()?), read_behaviour(r.u8()?)];
    let hairpin = read_switch(r.u8()?);
    let allocation = match (r.u8()?, r.u16()?, r.u16()?) {
        (1, _, _) => Some(Allocation::Preserved),
        (2, high, low) => Some(Allocation::Sequential { step: (u32::from(high) << 16 | u32::from(low)).cast_signed() }),
        (3, first, last) => Some(Allocation::Block { first, last }),
        (4, _, _) => Some(Allocation::Random),
        _ => None,
    };
    Ok(Traits { translates, mapping, filtering, hairpin, allocation })
}

fn switch(known: Option<bool>) -> u8 {
    known.map_or(0, |on| 1 + u8::from(on))
}

const fn read_switch(byte: u8) -> Option<bool> {
    match byte {
        1 => Some(false),
        2 => Some(true),
        _ => None,
    }
}

fn behaviour(known: Option<Behaviour>) -> u8 {
    let place = known.and_then(|known| BEHAVIOURS.iter().position(|behaviour| *behaviour == known));
    place.map_or(0, |place| 1 + u8::try_from(place).expect("three"))
}

fn read_behaviour(byte: u8) -> Option<Behaviour> {
    BEHAVIOURS.get(usize::from(byte).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_can_be_known_survives_the_wire() {
        let allocations = [
            Allocation::Preserved,
            Allocation::Sequential { step: -2 },
            Allocation::Block { first: 1_024, last: 65_535 },
            Allocation::Random,
        ];
        for allocation in allocations.map(Some).into_iter().chain([None]) {
            for behaviour in BEHAVIOURS.map(Some).into_iter().chain([None]) {
                for switch in [None, Some(false), Some(true)] {
                    let (mapping, filtering) = (behaviour, behaviour);
                    let traits = Traits { translates: switch, mapping, filtering, hairpin: switch, allocation };
                    let mut w = Writer::default();
                    let bytes = put_traits(&mut w, traits).as_slice().to_vec();
                    assert_eq!((bytes.len(), take_traits(&mut Reader::new(&bytes))), (9, Ok(traits)));
                }
            }
        }
        assert_eq!(take_traits(&mut Reader::new(&[9; 9])), Ok(Traits::default()));
    }
}
