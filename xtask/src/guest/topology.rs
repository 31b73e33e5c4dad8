//! Where a machine's devices and its data disk are plugged: whether one can reach the other's memory follows from it.

use serde::Deserialize;

/// What is between devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Topology {
    /// Each is at a port of one switch.
    #[default]
    Switch,
    /// All are below one conventional bridge.
    Bridge,
    /// Each is at a root port of its own, which the host bridge is between.
    Ports,
    /// All are on the root bus, beside each other.
    Root,
    /// All are functions of one slot, at the root port 00:10.0: of what can be above both here only that has access
    /// control services.
    Slot,
}

impl Topology {
    /// The bridges for so many devices, as QEMU's `-device` has them.
    pub(super) fn bridges(self, devices: usize) -> Vec<String> {
        match self {
            Self::Switch => {
                let above = ["pcie-root-port,id=above,bus=pcie.0,chassis=1", "x3130-upstream,id=switch,bus=above"];
                let port = |number: usize| {
                    let chassis = number + 2;
                    format!("xio3130-downstream,id=down{number},bus=switch,chassis={chassis},slot={number}")
                };
                above.into_iter().map(str::to_owned).chain((0..devices).map(port)).collect()
            }
            Self::Bridge => vec!["pcie-pci-bridge,id=bridge,bus=pcie.0".to_owned()],
            Self::Ports => {
                let port = |number| format!("pcie-root-port,id=port{number},bus=pcie.0,chassis={}", number + 1);
                (0..devices).map(port).collect()
            }
            Self::Root => Vec::new(),
            Self::Slot => vec!["pcie-root-port,id=port0,bus=pcie.0,chassis=1,addr=10.0".to_owned()],
        }
    }

    /// The place of a device, as its properties.
    pub(super) fn place(self, number: usize) -> String {
        match self {
            Self::Switch => format!("bus=down{number}"),
            Self::Bridge => format!("bus=bridge,addr={:x}.0", number + 1),
            Self::Ports => format!("bus=port{number}"),
            Self::Root => format!("bus=pcie.0,addr={:x}.0", number + 0x10),
            Self::Slot => format!("bus=port0,multifunction=on,addr=0.{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_on_a_bus_that_there_is() {
        for topology in [Topology::Switch, Topology::Bridge, Topology::Ports, Topology::Slot] {
            let bridges = topology.bridges(3);
            for number in 0..3 {
                let place = topology.place(number);
                let bus = place.split(',').next().and_then(|bus| bus.strip_prefix("bus=")).unwrap();
                let id = format!("id={bus},");
                assert_eq!(bridges.iter().filter(|bridge| bridge.contains(&id)).count(), 1, "{place} {bridges:?}");
            }
        }
        assert!(Topology::Root.bridges(3).is_empty() && Topology::Root.place(2).starts_with("bus=pcie.0,"));
    }
}
