//! A world of Minecraft (Java) that is open to the LAN: `[MOTD]text[/MOTD][AD]port[/AD]`, every 1.5 s.

use std::net::Ipv4Addr;

use super::{Found, Protocol, text};

/// Where it is said.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 2, 60);
/// The UDP port of that.
pub const PORT: u16 = 4_445;

/// Reads one.
pub fn read(bytes: &[u8]) -> Option<Found> {
    let said = String::from_utf8_lossy(bytes);
    let address = between(&said, "[AD]", "[/AD]")?;
    // Old versions write their address before the port.
    let port = address.rsplit(':').next()?.trim().parse().ok().filter(|port| *port != 0)?;
    let name = text(plain(between(&said, "[MOTD]", "[/MOTD]").unwrap_or_default()).as_bytes());
    Some(Found { port: Some(port), ..Found::named(Protocol::Minecraft, name) })
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    text.split_once(start)?.1.split_once(end).map(|(inner, _)| inner)
}

/// Without what colours it: each `§` and the character behind it.
fn plain(text: &str) -> String {
    let mut parts = text.split('§');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + part.chars().next().map_or("", |colour| &part[colour.len_utf8()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_and_its_port_are_read() {
        let found = read("[MOTD]Steve - §aNew §lWorld[/MOTD][AD]52417[/AD]".as_bytes()).expect("a world");
        assert_eq!((found.name.as_str(), found.port), ("Steve - New World", Some(52_417)));
        let old = read(b"[MOTD]Steve[/MOTD][AD]192.168.0.7:25565[/AD]").expect("a world");
        assert_eq!(old.port, Some(25_565));
        assert_eq!(read("[MOTD]§[/MOTD][AD]1[/AD]".as_bytes()).map(|found| found.name).as_deref(), Some(""));
    }

    #[test]
    fn what_names_no_port_is_no_world() {
        let none: [&[u8]; 6] = [b"", b"[MOTD]x[/MOTD]", b"[AD]0[/AD]", b"[AD]65536[/AD]", b"[AD]x[/AD]", b"[AD]25565"];
        none.into_iter().for_each(|bytes| assert_eq!(read(bytes), None));
    }
}
