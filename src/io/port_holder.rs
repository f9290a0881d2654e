//! Who holds a UDP port: for an error message that helps. Read from `/proc`; where that is not possible
//! (another system, another user's process) there is no answer.

/// The program and process that hold UDP port `port`, as text.
#[cfg(target_os = "linux")]
pub(super) fn udp(port: u16) -> Option<String> {
    let inodes: Vec<String> =
        ["udp", "udp6"].iter().flat_map(|table| inodes_of_port(&read_table(table), port)).collect();
    let processes = std::fs::read_dir("/proc").ok()?;
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| holds_any(*pid, &inodes))
        .map(describe)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn udp(_port: u16) -> Option<String> {
    None
}

/// This thread's own table, in case it stands in a network namespace of its own.
#[cfg(target_os = "linux")]
fn read_table(name: &str) -> String {
    std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default()
}

/// Socket inodes of a port in a table of `/proc/net`: column 2 is `address:port` in hexadecimal, column 10
/// the inode.
#[cfg(target_os = "linux")]
fn inodes_of_port(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let rows = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(1).is_some_and(|local| local.ends_with(&suffix)))
        .filter_map(|row| row.get(9).map(|inode| (*inode).to_owned()))
        .collect()
}

#[cfg(target_os = "linux")]
fn holds_any(pid: u32, inodes: &[String]) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).any(|target| {
        let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']'));
        inode.is_some_and(|inode| inodes.iter().any(|held| held == inode))
    })
}

#[cfg(target_os = "linux")]
fn describe(pid: u32) -> String {
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{} (pid {pid})", name.trim_end().escape_debug()),
        Err(_) => format!("pid {pid}"),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_port_is_found() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        let port = socket.local_addr().expect("address").port();
        let holder = udp(port).expect("this process");
        assert!(holder.ends_with(&format!("(pid {})", std::process::id())), "{holder}");
    }

    #[test]
    fn a_table_that_is_cut_off_names_nobody() {
        let table = "  sl  local_address\n 1: 00000000:0D96 00000000:0000 07\n";
        assert_eq!(inodes_of_port(table, 3478), Vec::<String>::new());
    }
}
