//! A world opened to the LAN, as Minecraft does it: an announcement to 224.0.2.60:4445 every 1.5 s that names the port
//! where the game is, and a listener that has joined the group on the interface of the default route.
//!
//! Java's sockets do not hear what others have joined (`IP_MULTICAST_ALL` is off).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};

use super::{PATIENCE, PLAYED, Row, evening, worked};
use crate::lab::netns::Namespace;

const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(224, 0, 2, 60), 4445);
const EVERY: Duration = Duration::from_millis(1500);
/// A tick of the game.
const TICK: Duration = Duration::from_millis(50);

#[test]
#[ignore = "plays for half a minute; `scripts/test games` runs it"]
fn a_world_opened_to_the_lan_is_heard_and_joined() {
    evening(|evening| {
        let alice = &evening.alice;
        for (socket, from) in [("unbound", Ipv4Addr::UNSPECIFIED), ("bound to the overlay's address", alice.address)] {
            let (world, port) = open(&alice.host.netns).unwrap();
            let closed = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| announce(&alice.host.netns, from, port, &closed).unwrap());
                scope.spawn(|| serve(&world, &closed));
                let worlds = evening.guests.each_ref().map(|guest| heard(&guest.host.netns, alice.address));
                let played = [0, 1].map(|n| {
                    let guest = &evening.guests[n].host.netns;
                    let world = worlds[n].as_ref().ok().copied();
                    scope.spawn(move || world.is_some_and(|world| worked(play(guest, world))))
                });
                let played = played.map(|game| game.join().unwrap());
                closed.store(true, Ordering::Relaxed);
                let (program, asks) = ("as Minecraft", "multicast, 224.0.2.60:4445");
                Row { program, asks, socket, found: worlds.map(worked), played: Some(played) }.tell();
            });
        }
    });
}

fn open(machine: &Namespace) -> Result<(TcpListener, u16)> {
    let world = machine.enter(|| TcpListener::bind("0.0.0.0:0"))??;
    world.set_nonblocking(true)?;
    let port = world.local_addr()?.port();
    Ok((world, port))
}

fn announce(machine: &Namespace, from: Ipv4Addr, port: u16, closed: &AtomicBool) -> Result<()> {
    let socket = machine.enter(|| UdpSocket::bind((from, 0)))??;
    let mut next = Instant::now();
    while !closed.load(Ordering::Relaxed) {
        if next <= Instant::now() {
            socket.send_to(format!("[MOTD]alice - friday[/MOTD][AD]{port}[/AD]").as_bytes(), GROUP)?;
            next += EVERY;
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}

/// Gives back what comes, tick by tick.
fn serve(world: &TcpListener, closed: &AtomicBool) {
    let (mut players, mut tick) = (Vec::new(), [0; 8]);
    while !closed.load(Ordering::Relaxed) {
        players.extend(world.accept().ok().and_then(|(player, _)| {
            player.set_nonblocking(true).ok()?;
            Some(player)
        }));
        for player in &mut players {
            while player.read_exact(&mut tick).is_ok() {
                let _ = player.write_all(&tick);
            }
        }
        std::thread::sleep(TICK / 10);
    }
}

/// Where the world is that is announced from an address.
fn heard(machine: &Namespace, from: Ipv4Addr) -> Result<SocketAddr> {
    let listen = machine.enter(|| -> std::io::Result<UdpSocket> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.set_multicast_all_v4(false)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, GROUP.port())).into())?;
        socket.join_multicast_v4(GROUP.ip(), &Ipv4Addr::UNSPECIFIED)?;
        socket.set_read_timeout(Some(EVERY))?;
        Ok(socket.into())
    })??;
    let (start, mut text) = (Instant::now(), [0; 1500]);
    while start.elapsed() < PATIENCE {
        let Ok((length, source)) = listen.recv_from(&mut text) else { continue };
        let text = std::str::from_utf8(&text[..length])?;
        let port = text.split("[AD]").nth(1).and_then(|rest| rest.split("[/AD]").next()).context("no port")?;
        anyhow::ensure!(source.ip() == from, "announced from {source}");
        return Ok((from, port.parse()?).into());
    }
    anyhow::bail!("heard nothing for {PATIENCE:?}")
}

fn play(machine: &Namespace, world: SocketAddr) -> Result<()> {
    let mut player = machine.enter(|| TcpStream::connect_timeout(&world, PATIENCE))??;
    player.set_read_timeout(Some(PATIENCE))?;
    let (start, mut answer) = (Instant::now(), [0; 8]);
    for tick in 0_u64.. {
        player.write_all(&tick.to_le_bytes())?;
        player.read_exact(&mut answer)?;
        anyhow::ensure!(u64::from_le_bytes(answer) == tick, "tick {tick}");
        if start.elapsed() > PLAYED {
            break;
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}
