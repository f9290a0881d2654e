//! What is asked of each contender, and what came of it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};

use crate::contenders::Running;
use crate::lab::netns::{Namespace, run};
use crate::lab::programs::{Program, await_true};
use crate::place::Place;

/// One contender in one round.
#[derive(Debug)]
pub struct Measured {
    /// Mbit/s.
    pub tcp: f64,
    pub tcp4: f64,
    pub reverse: f64,
    /// All its programs, for each GB of the single stream.
    pub cpu: Option<f64>,
    /// Packets of 100 bytes that arrive in a second.
    pub small: f64,
    /// Mbit/s that arrive in datagrams of 1,200 bytes.
    pub datagrams: f64,
    /// Round trip, median and 99 %, ms.
    pub idle: (f64, f64),
    pub loaded: (f64, f64),
    /// Resident, all its programs, the largest of them after the load.
    pub memory: Option<f64>,
    /// What its relay carries in a second of a core.
    pub relay: Option<Relayed>,
}

/// Carried in a second of one core.
#[derive(Clone, Copy, Debug)]
pub struct Relayed {
    /// Mbit of a TCP stream.
    pub stream: f64,
    /// Packets of 100 bytes that arrive.
    pub packets: f64,
}

const PATIENCE: Duration = Duration::from_secs(15);
/// Datagrams in one system call.
const BATCH: usize = 64;

pub fn measure(place: &Place, running: &Running, time: Duration) -> Result<Measured> {
    let target: Ipv4Addr = running.target.parse()?;
    await_true("the first ping", PATIENCE, || {
        Ok(run(place.a.command("ping").args(["-c1", "-W1", &running.target])).is_ok())
    })?;
    // Paths settle.
    std::thread::sleep(Duration::from_secs(2));
    let mut listen = place.b.command("iperf3");
    listen.args(["-s", "--forceflush", "-B", &running.target]);
    let listening = Program::start(listen, place.folder().join("iperf3.log"))?;
    await_true("iperf3 to listen", PATIENCE, || Ok(listening.said().contains("listening")))?;
    let idle = ping(&place.a, &running.target, Duration::from_secs(1))?;
    let (before, relay_before) = (cpu(&running.programs)?, cpu(&running.relay)?);
    let (tcp, bytes) = iperf(place, &running.target, time, &[])?;
    let relay_stream = cpu(&running.relay)? - relay_before;
    let spent = cpu(&running.programs)? - before + relay_stream;
    let (tcp4, _) = iperf(place, &running.target, time, &["-P4"])?;
    let (reverse, _) = iperf(place, &running.target, time, &["-R"])?;
    let loaded = std::thread::scope(|scope| {
        let busy = scope.spawn(|| iperf(place, &running.target, time, &[]));
        std::thread::sleep(time / 6);
        let loaded = ping(&place.a, &running.target, time * 2 / 3);
        busy.join().unwrap()?;
        loaded
    })?;
    let (start, relay_before) = (Instant::now(), cpu(&running.relay)?);
    let small = flood(place, target, 100, time)?;
    let (flooded, relay_flood) = (start.elapsed().as_secs_f64(), cpu(&running.relay)? - relay_before);
    let datagrams = flood(place, target, 1_200, time)? * 1_200.0 * 8.0 / 1e6;
    let memory = running
        .programs
        .iter()
        .chain(&running.relay)
        .map(resident)
        .collect::<Result<Vec<f64>>>()?
        .into_iter()
        .reduce(f64::max);
    let cpu = (!running.programs.is_empty()).then(|| spent / (bytes / 1e9));
    let relay = running
        .relay
        .is_some()
        .then(|| Relayed { stream: bytes * 8.0 / 1e6 / relay_stream, packets: small * flooded / relay_flood });
    Ok(Measured { tcp, tcp4, reverse, cpu, small, datagrams, idle, loaded, memory, relay })
}

/// Mbit/s and bytes that arrived.
fn iperf(place: &Place, target: &str, time: Duration, args: &[&str]) -> Result<(f64, f64)> {
    let seconds = time.as_secs().to_string();
    let output = run(place.a.command("iperf3").args(["-c", target, "-J", "-t", &seconds]).args(args))?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let sum = &report["end"]["sum_received"];
    let number = |name: &str| sum[name].as_f64().with_context(|| format!("iperf3 says {name}"));
    Ok((number("bits_per_second")? / 1e6, number("bytes")?))
}

/// Median and 99 % of the round trips, ms.
fn ping(from: &Namespace, target: &str, time: Duration) -> Result<(f64, f64)> {
    let count = (time.as_millis() / 5).to_string();
    // A lost one is no error here.
    let output = from.command("ping").args(["-i", "0.005", "-W", "1", "-c", &count, target]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let times = text.lines().filter_map(|line| line.split("time=").nth(1)?.split(' ').next()?.parse::<f64>().ok());
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    let at =
        |share: usize| times.get(times.len() * share / 100).or(times.last()).copied().context("pings are answered");
    Ok((at(50)?, at(99)?))
}

/// Sends datagrams of that length as fast as it goes; how many arrive in a second.
fn flood(place: &Place, target: Ipv4Addr, len: usize, time: Duration) -> Result<f64> {
    let receiver = place.b.enter(|| UdpSocket::bind((target, 0)))??;
    let sender = place.a.enter(|| UdpSocket::bind("0.0.0.0:0"))??;
    let to: SocketAddr = receiver.local_addr()?;
    receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (arrived, end) = (AtomicU64::new(0), AtomicBool::new(false));
    let start = Instant::now();
    std::thread::scope(|scope| -> Result<()> {
        let counting = scope.spawn(|| count(&receiver, &arrived, &end));
        send(&sender, to, len, time)?;
        end.store(true, Ordering::Relaxed);
        counting.join().unwrap()
    })?;
    Ok(arrived.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
}

fn send(socket: &UdpSocket, to: SocketAddr, len: usize, time: Duration) -> Result<()> {
    let SocketAddr::V4(to) = to else { anyhow::bail!("IPv4") };
    let payload = vec![7; len];
    let pieces: Vec<[std::io::IoSlice<'_>; 1]> = (0..BATCH).map(|_| [std::io::IoSlice::new(&payload)]).collect();
    let addresses = vec![Some(SockaddrIn::from(to)); BATCH];
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    let end = Instant::now() + time;
    while Instant::now() < end {
        // A full queue is what is wanted.
        let _ = sendmmsg(socket.as_raw_fd(), &mut headers, &pieces, &addresses, [], MsgFlags::empty());
    }
    Ok(())
}

fn count(socket: &UdpSocket, arrived: &AtomicU64, end: &AtomicBool) -> Result<()> {
    let mut bytes = vec![[0_u8; 2_048]; BATCH];
    let mut headers: MultiHeaders<SockaddrIn> = MultiHeaders::preallocate(BATCH, None);
    while !end.load(Ordering::Relaxed) {
        let mut pieces: Vec<[std::io::IoSliceMut<'_>; 1]> =
            bytes.iter_mut().map(|bytes| [std::io::IoSliceMut::new(bytes)]).collect();
        let received = recvmmsg(socket.as_raw_fd(), &mut headers, pieces.iter_mut(), MsgFlags::MSG_WAITFORONE, None);
        if let Ok(received) = received {
            arrived.fetch_add(received.count() as u64, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Seconds of programs so far.
fn cpu<'a>(programs: impl IntoIterator<Item = &'a Program>) -> Result<f64> {
    let mut ticks = 0;
    for program in programs {
        let stat = fs::read_to_string(format!("/proc/{}/stat", program.pid()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().context("a name")?.split_whitespace().collect();
        // utime and stime (proc(5)).
        ticks += fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    }
    Ok(ticks as f64 / 100.0)
}

/// MB of a program.
fn resident(program: &Program) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", program.pid()))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS")).context("it runs")?;
    Ok(line.split_whitespace().nth(1).context("kB")?.parse::<f64>()? / 1e3)
}
