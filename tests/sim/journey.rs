//! From the gateway of the sender over the core to the gateway of the receiver.

use super::recorder;
use super::topology::{Flight, Gateway, Line};
use super::world::{GatewayId, HostId, LAN_DELAY, World};

/// How far a datagram has come.
pub(super) enum Stage {
    /// At a gateway, from inside.
    Leaving(usize),
    /// At the core, on its way to a gateway.
    Core,
    /// At a gateway, from outside.
    Entering(usize),
    /// At a host.
    Arriving(usize),
    /// At a host, said to all in its house.
    Said(usize),
}

impl World {
    /// It has come so far.
    pub(super) fn advance(&mut self, stage: Stage, flight: Flight) {
        match stage {
            Stage::Leaving(gateway) => self.leave_house(gateway, flight),
            Stage::Core => self.cross_core(flight),
            Stage::Entering(gateway) => self.enter_house(gateway, flight),
            Stage::Arriving(host) => self.arrive(host, flight),
            Stage::Said(host) => self.hear(host, &flight),
        }
    }

    /// The sender's gateway: one hop, translation, the line up.
    fn leave_house(&mut self, gateway: usize, mut flight: Flight) {
        if !hop(&mut flight) {
            return self.lose(&flight, "TTL ended at the own gateway");
        }
        if self.gateways[gateway].udp_blocked {
            return self.lose(&flight, "the own gateway lets no UDP out");
        }
        let now = self.now;
        let house = &mut self.gateways[gateway];
        if let Some(nat) = house.translator(flight.destination.ip()) {
            match nat.outbound(now, flight.source, flight.destination) {
                Some(source) => flight.source = source,
                None => return self.lose(&flight, "the own gateway does not let it out (hairpin, ports)"),
            }
        }
        if self.gateways[gateway].is_external(flight.destination.ip()) {
            return self.enter_house(gateway, flight);
        }
        let house = &mut self.gateways[gateway];
        house.carried.0 += flight.payload.len() as u64;
        let line = house.up;
        self.over_the_line(line, &flight, || Stage::Core);
    }

    /// The core: one hop, a route, the line down.
    fn cross_core(&mut self, mut flight: Flight) {
        if !hop(&mut flight) {
            return self.lose(&flight, "TTL ended in the core");
        }
        let ip = flight.destination.ip();
        let routed = |(i, g): (usize, &Gateway)| {
            (g.is_external(ip) || g.is_routed(ip) && self.host_in(i, ip).is_some()).then_some(i)
        };
        let Some(gateway) = self.gateways.iter().enumerate().find_map(routed) else {
            return self.lose(&flight, "no route in the core");
        };
        let GatewayId(from) = self.gateway_of(HostId(flight.host));
        if self.only.is_some_and(|GatewayId(only)| only != gateway && only != from) {
            return self.lose(&flight, "the core is shut");
        }
        let house = &mut self.gateways[gateway];
        house.carried.1 += flight.payload.len() as u64;
        let line = house.down;
        self.over_the_line(line, &flight, || Stage::Entering(gateway));
    }

    fn over_the_line(&mut self, line: Line, flight: &Flight, next: impl Fn() -> Stage) {
        let arrivals = line.cross(self.now, &mut self.rng);
        if arrivals.is_empty() {
            self.line_lost += usize::from(recorder::carries_data(&flight.payload));
            self.lose(flight, if line.dead { "dead line" } else { "the line" });
        }
        for at in arrivals {
            self.enqueue(at, next(), flight.clone());
        }
    }

    /// The receiver's gateway: translation, one hop.
    fn enter_house(&mut self, gateway: usize, mut flight: Flight) {
        if self.gateways[gateway].udp_blocked {
            return self.lose(&flight, "the other gateway lets no UDP in");
        }
        let now = self.now;
        let house = &mut self.gateways[gateway];
        if let Some(nat) = house.translator(flight.destination.ip()) {
            match nat.inbound(now, flight.destination, flight.source) {
                Some(inside) => flight.destination = inside,
                None => {
                    let why = format!("filtered by {}, from {}", house.name, flight.source);
                    return self.lose(&flight, &why);
                }
            }
        }
        if !hop(&mut flight) {
            return self.lose(&flight, "TTL ended at the other gateway");
        }
        match self.host_in(gateway, flight.destination.ip()) {
            Some(host) => self.enqueue(self.now + LAN_DELAY, Stage::Arriving(host), flight),
            None => self.lose(&flight, "nobody has that address"),
        }
    }
}

/// A router counts a hop; `false`: it was one too many.
fn hop(flight: &mut Flight) -> bool {
    flight.ttl = flight.ttl.saturating_sub(1);
    flight.ttl > 0
}
