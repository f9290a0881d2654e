//! Which ports a NAT gives, as far as can be seen, and where that has somebody look next.

use std::fmt;
use std::ops::RangeInclusive;

/// Which port new mappings get outside (RFC 4787 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// That of the socket.
    Preserved,
    /// Each so many above the one before.
    Sequential {
        /// How many; below, if negative.
        step: i32,
    },
    /// Any within a block.
    Block {
        /// The lowest that was seen.
        first: u16,
        /// The highest that was seen.
        last: u16,
    },
    /// Any.
    Random,
}

impl fmt::Display for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preserved => f.write_str("preserved"),
            Self::Sequential { step } => write!(f, "sequential, step {step}"),
            Self::Block { first, last } => write!(f, "within a block, {first}-{last}"),
            Self::Random => f.write_str("random"),
        }
    }
}

/// Blocks of ports that providers give to a customer are no wider (RFC 6431, RFC 7753: usually 512 to 4,096). Of eight
/// random ports all are so close together once in fifty million times.
const BLOCK: u16 = 4_096;
/// Whoever counts up takes no larger steps.
const LARGEST_STEP: i32 = 64;
/// So many sockets must have been seen to tell how ports are allocated.
const ENOUGH: usize = 5;

impl Allocation {
    /// How ports are allocated, from {place, ours, outside} of those of `asked` sockets that were seen:
    /// the place is that among all in the order in which they sent first.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub fn infer(asked: usize, ports: &[(i32, u16, u16)]) -> Result<Self, String> {
        if ports.len() < ENOUGH {
            return Err(format!("only {} of {asked} sockets were answered", ports.len()));
        }
        // Somebody else in the house may hold one of the ports, or open a connection between two of ours.
        let tolerated = ports.len() / 4;
        if ports.iter().filter(|(_, own, outside)| own != outside).count() <= tolerated {
            return Ok(Self::Preserved);
        }
        if ports.iter().all(|(_, _, outside)| *outside == ports[0].2) {
            return Err("all sockets were seen at one port".to_owned());
        }
        // Who is missing took a port, or was lost before the router.
        let steps = ports.windows(2).map(|pair| (i32::from(pair[1].2) - i32::from(pair[0].2), pair[1].0 - pair[0].0));
        let steps: Vec<i32> = steps.map(|(up, places)| if up % places == 0 { up / places } else { up }).collect();
        let count = |step: i32| steps.iter().filter(|other| **other == step).count();
        let step = steps.iter().copied().max_by_key(|step| (count(*step), std::cmp::Reverse(step.abs()))).unwrap_or(0);
        if step != 0 && step.abs() <= LARGEST_STEP && count(step) + tolerated >= steps.len() {
            return Ok(Self::Sequential { step });
        }
        let outside = || ports.iter().map(|(_, _, outside)| *outside);
        let (first, last) = (outside().min().unwrap_or(0), outside().max().unwrap_or(u16::MAX));
        Ok(if last - first < BLOCK { Self::Block { first, last } } else { Self::Random })
    }
}

/// The ports that NATs give away.
pub const PORTS: RangeInclusive<u16> = 1_024..=u16::MAX;

/// At which port outside whoever was not written to before will see a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextPorts {
    /// At the one where everybody sees it.
    Same,
    /// At this one, and the next at one so many steps above, or below.
    Counted {
        /// The next.
        first: u16,
        /// From one to the next.
        step: i16,
    },
    /// At any of these.
    Within {
        /// The lowest.
        first: u16,
        /// The highest.
        last: u16,
    },
}

impl NextPorts {
    /// All ports.
    pub const ANY: Self = Self::Within { first: *PORTS.start(), last: *PORTS.end() };

    /// After the sockets from which `allocation` was inferred, the last of which was seen at `newest`.
    pub fn after(allocation: Allocation, newest: u16) -> Self {
        match allocation {
            Allocation::Preserved => Self::Same,
            Allocation::Sequential { step } => {
                let step = i16::try_from(step).expect("no larger than LARGEST_STEP");
                Self::Counted { first: counted(newest, i32::from(step)), step }
            }
            Allocation::Block { first, last } => Self::Within { first, last },
            Allocation::Random => Self::ANY,
        }
    }

    /// The `n`-th port of those that are counted.
    pub fn counted(first: u16, step: i16, n: u32) -> u16 {
        let steps = i32::try_from(n).unwrap_or(i32::MAX);
        counted(first, steps.saturating_mul(step.into()))
    }
}

/// So far above a port, beginning anew at the end of [`PORTS`].
fn counted(port: u16, above: i32) -> u16 {
    let (least, all) = (i32::from(*PORTS.start()), i32::try_from(PORTS.len()).expect("fewer than 2^16"));
    let place = (i32::from(port) - least).saturating_add(above).rem_euclid(all);
    u16::try_from(least + place).expect("one of PORTS")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocated(outside: [u16; 8]) -> Result<Allocation, String> {
        let own = [41_003, 58_120, 33_017, 49_999, 37_204, 52_811, 60_002, 44_444];
        let ports = (0..).zip(own).zip(outside).map(|((place, own), outside)| (place, own, outside));
        Allocation::infer(8, &ports.collect::<Vec<_>>())
    }

    #[test]
    fn ports_are_preserved_counted_up_in_a_block_or_random() {
        let own = [41_003, 58_120, 33_017, 49_999, 37_204, 52_811, 60_002, 44_444];
        assert_eq!(allocated(own), Ok(Allocation::Preserved));
        let one_taken = [41_003, 58_120, 1_024, 49_999, 37_204, 52_811, 60_002, 44_444];
        assert_eq!(allocated(one_taken), Ok(Allocation::Preserved));
        let up = [2_000, 2_001, 2_002, 2_003, 2_004, 2_005, 2_006, 2_007];
        assert_eq!(allocated(up), Ok(Allocation::Sequential { step: 1 }));
        let interrupted = [2_000, 2_002, 2_004, 2_010, 2_012, 2_014, 2_016, 2_018];
        assert_eq!(allocated(interrupted), Ok(Allocation::Sequential { step: 2 }));
        let over_the_end = [65_533, 65_534, 65_535, 1_024, 1_025, 1_026, 1_027, 1_028];
        assert_eq!(allocated(over_the_end), Ok(Allocation::Sequential { step: 1 }));
        let down = [2_007, 2_006, 2_005, 2_004, 2_003, 2_002, 2_001, 2_000];
        assert_eq!(allocated(down), Ok(Allocation::Sequential { step: -1 }));
        let block = [5_120, 6_001, 5_500, 5_121, 6_143, 5_900, 5_777, 5_333];
        assert_eq!(allocated(block), Ok(Allocation::Block { first: 5_120, last: 6_143 }));
        let random = [5_120, 46_001, 15_500, 25_121, 36_143, 55_900, 65_000, 1_333];
        assert_eq!(allocated(random), Ok(Allocation::Random));
        assert_eq!(Allocation::infer(8, &[(0, 1, 2); 4]), Err("only 4 of 8 sockets were answered".to_owned()));
    }

    #[test]
    fn one_port_for_all_is_neither_counting_nor_a_block() {
        assert_eq!(allocated([2_000; 8]), Err("all sockets were seen at one port".to_owned()));
    }

    #[test]
    fn sockets_that_are_missing_do_not_hide_the_counting() {
        let seen = |places: &[i32], outside: fn(i32) -> i32| {
            let outside = |place| u16::try_from(outside(place)).expect("a port");
            Allocation::infer(8, &places.iter().map(|place| (*place, 41_003, outside(*place))).collect::<Vec<_>>())
        };
        assert_eq!(seen(&[0, 2, 3, 5, 7], |place| 2_000 + 3 * place), Ok(Allocation::Sequential { step: 3 }));
        assert_eq!(seen(&[0, 2, 4, 5, 7], |place| 2_000 - place), Ok(Allocation::Sequential { step: -1 }));
    }

    #[test]
    fn an_allocation_is_said_in_words_that_programs_can_rely_on() {
        assert_eq!(Allocation::Sequential { step: -2 }.to_string(), "sequential, step -2");
        assert_eq!(Allocation::Block { first: 1024, last: 2047 }.to_string(), "within a block, 1024-2047");
    }

    #[test]
    fn the_next_port_follows_the_newest_and_begins_anew_after_the_last() {
        let after = NextPorts::after;
        assert_eq!(after(Allocation::Preserved, 7_000), NextPorts::Same);
        assert_eq!(after(Allocation::Sequential { step: 3 }, 65_534), NextPorts::Counted { first: 1_025, step: 3 });
        assert_eq!(after(Allocation::Sequential { step: -1 }, 1_024), NextPorts::Counted { first: 65_535, step: -1 });
        let block = Allocation::Block { first: 5_000, last: 5_400 };
        assert_eq!(after(block, 5_300), NextPorts::Within { first: 5_000, last: 5_400 });
        assert_eq!(after(Allocation::Random, 7_000), NextPorts::Within { first: 1_024, last: 65_535 });
        let third = [(2_000, 1), (65_534, 1), (1_025, -1)].map(|(first, step)| NextPorts::counted(first, step, 3));
        assert_eq!(third, [2_003, 1_025, 65_534]);
        assert_eq!(NextPorts::counted(2_000, 64, u32::MAX), NextPorts::counted(2_000, 64, u32::MAX), "no overflow");
    }
}
