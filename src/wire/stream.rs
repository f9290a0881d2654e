//! Datagrams on a stream: for networks that let TCP pass and no UDP. Each is what it would be by UDP, behind its length.
//!
//! ```text
//! 0          2
//! +----------+----------------------+----------+-----
//! | len u16  | a datagram           | len u16  | …
//! +----------+----------------------+----------+-----
//! ```
//!
//! A length that no datagram of ours has ends the stream: where such a one came from nothing can be trusted to be a
//! beginning. A web browser's or a TLS client's first bytes are such lengths.

use super::Malformed;

/// Bytes in front of each datagram.
pub const LEAD: usize = 2;
/// The longest datagram: as long as any of ours is, through a relay.
pub const LONGEST: usize = 2_048;

/// Appends a datagram with its length; `false`: none of ours is so long, or so short.
pub fn push(out: &mut Vec<u8>, datagram: &[u8]) -> bool {
    match u16::try_from(datagram.len()) {
        Ok(len) if (1..=LONGEST).contains(&datagram.len()) => {
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(datagram);
            true
        }
        _ => false,
    }
}

/// How many of these bytes are whole datagrams with their lengths.
///
/// # Errors
/// A length that no datagram of ours has.
pub fn whole(bytes: &[u8]) -> Result<usize, Malformed> {
    let mut taken = 0;
    while let Some(lead) = bytes.get(taken..taken + LEAD) {
        let len = usize::from(u16::from_be_bytes([lead[0], lead[1]]));
        if !(1..=LONGEST).contains(&len) {
            return Err(Malformed::Bad("length"));
        }
        if bytes.len() < taken + LEAD + len {
            break;
        }
        taken += LEAD + len;
    }
    Ok(taken)
}

/// The datagrams of what [`whole`] counted.
pub fn datagrams(mut bytes: &mut [u8]) -> impl Iterator<Item = &mut [u8]> {
    std::iter::from_fn(move || {
        let (lead, rest) = std::mem::take(&mut bytes).split_first_chunk_mut::<LEAD>()?;
        let (datagram, rest) = rest.split_at_mut_checked(usize::from(u16::from_be_bytes(*lead)))?;
        bytes = rest;
        Some(datagram)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_pushed_comes_out_again_wherever_the_stream_was_cut(
            sent in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..20),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = Vec::new();
            sent.iter().for_each(|datagram| assert!(push(&mut bytes, datagram)));
            let first = whole(&bytes[..cut.index(bytes.len() + 1)]).expect("good lengths");
            let mut came: Vec<Vec<u8>> = datagrams(&mut bytes[..first]).map(|d| d.to_vec()).collect();
            prop_assert_eq!(whole(&bytes[first..]), Ok(bytes.len() - first));
            came.extend(datagrams(&mut bytes[first..]).map(|d| d.to_vec()));
            prop_assert_eq!(came, sent);
        }

        #[test]
        fn no_bytes_make_it_stumble(mut bytes in proptest::collection::vec(any::<u8>(), 0..5_000)) {
            if let Ok(taken) = whole(&bytes) {
                prop_assert!(taken <= bytes.len());
            }
            datagrams(&mut bytes).for_each(drop);
        }
    }

    #[test]
    fn what_is_no_length_of_ours_ends_the_stream() {
        for garbage in [&b"GET / HTTP/1.1"[..], &[0x16, 0x03, 0x01, 0x02], &[0, 0], &[0xff, 0xff], &[0x08, 0x01]] {
            assert!(whole(garbage).is_err(), "{garbage:?}");
        }
        let mut out = Vec::new();
        assert!(!push(&mut out, &[]) && !push(&mut out, &[0; LONGEST + 1]) && out.is_empty());
        assert!(push(&mut out, &[7; LONGEST]));
        assert_eq!(whole(&out), Ok(LEAD + LONGEST));
        assert_eq!(whole(&out[..out.len() - 1]), Ok(0));
        assert_eq!(whole(&out[..1]), Ok(0));
    }
}
