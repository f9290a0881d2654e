//! SSDP, by which machines of UPnP say what they are (UPnP Device Architecture 2.0 §1): headers as HTTP has them, in one
//! datagram.

use std::net::Ipv4Addr;

use super::{Found, Protocol, some_text, text};

/// Where it is said and asked.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
/// The UDP port of that.
pub const PORT: u16 = 1_900;
/// Asks each machine for itself, without all that it can do.
pub const QUESTION: &[u8] = b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n\
    ST: upnp:rootdevice\r\n\r\n";

/// Reads an answer, or what a machine says by itself; who leaves is not there.
pub fn read(bytes: &[u8]) -> Option<Found> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let first = lines.next()?;
    if !(first.starts_with(b"HTTP/1.1 200") || first.starts_with(b"NOTIFY ")) {
        return None;
    }
    let (mut name, mut kind, mut leaves) = (String::new(), None, false);
    for (key, value) in lines.filter_map(header) {
        match key.to_ascii_uppercase().as_slice() {
            b"SERVER" => name = text(value),
            b"ST" | b"NT" => kind = some_text(value),
            b"NTS" => leaves = value == b"ssdp:byebye",
            _ => {}
        }
    }
    kind.filter(|_| !leaves).map(|kind| Found { game: Some(kind), ..Found::named(Protocol::Ssdp, name) })
}

fn header(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    Some((line[..colon].trim_ascii(), line[colon + 1..].trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_says_what_it_is() {
        let said = b"NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nCache-Control:max-age=120\r\nLocation: http://192.0.2.1:5000/r.xml\r\n\
            Server: Debian/12 UPnP/1.1 MiniUPnPd/2.3.1\r\nNT: upnp:rootdevice\r\nUSN: uuid:1::upnp:rootdevice\r\nNTS: ssdp:alive\r\n\r\n";
        let found = read(said).expect("a machine");
        assert_eq!(found.name, "Debian/12 UPnP/1.1 MiniUPnPd/2.3.1");
        assert_eq!(found.game.as_deref(), Some("upnp:rootdevice"));
        let answer = b"HTTP/1.1 200 OK\r\nST:upnp:rootdevice\r\nSERVER:x\r\n\r\n";
        assert_eq!(read(answer).map(|found| found.name).as_deref(), Some("x"));
    }

    #[test]
    fn who_leaves_asks_or_says_nothing_is_nobody() {
        let leaves = b"NOTIFY * HTTP/1.1\r\nNT: upnp:rootdevice\r\nNTS: ssdp:byebye\r\n\r\n";
        for bytes in [&leaves[..], QUESTION, b"", b"NOTIFY ", b"HTTP/1.1 200 OK\r\n:\r\n"] {
            assert_eq!(read(bytes), None);
        }
    }
}
