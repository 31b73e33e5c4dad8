//! Naming a device on the command line, and describing one. Choosing among devices is the library's.

use limosa::{Adapter, Backing, DeviceChoice, DeviceKind, Heap};

/// A device as the user names it: an index, a kind, or a part of its name.
pub(crate) fn parse_choice(text: &str) -> Result<DeviceChoice, String> {
    if text.is_empty() {
        return Err("expected an index, `best`, a kind, or a part of a name".to_owned());
    }
    if let Ok(index) = text.parse() {
        return Ok(DeviceChoice::Index(index));
    }
    Ok(match text {
        "best" => DeviceChoice::Best,
        "discrete" => DeviceChoice::Kind(DeviceKind::Discrete),
        "integrated" => DeviceChoice::Kind(DeviceKind::Integrated),
        "virtual" => DeviceChoice::Kind(DeviceKind::Virtual),
        "cpu" => DeviceChoice::Kind(DeviceKind::Cpu),
        name => DeviceChoice::Name(name.to_owned()),
    })
}

/// The kind in one word, as [`parse_choice`] takes it.
pub(crate) fn kind_word(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Discrete => "discrete",
        DeviceKind::Integrated => "integrated",
        DeviceKind::Virtual => "virtual",
        DeviceKind::Cpu => "cpu",
        DeviceKind::Other => "other",
    }
}

/// Name, kind, driver and Vulkan version.
pub(crate) fn describe(adapter: &Adapter) -> String {
    let Adapter { index, name, kind, driver, api, .. } = adapter;
    format!("{name} (index {index}, {kind}; driver {}; Vulkan {api})", driver.trim_end())
}

/// How the host's faults reach the library.
pub(crate) fn host_engine(heap: &Heap, mode: limosa::FaultMode) -> String {
    let by = match mode {
        limosa::FaultMode::HandlerThread => "handler thread",
        limosa::FaultMode::InThread => "in the faulting thread",
    };
    let scope = if heap.serves_system_calls() { "system calls served" } else { "user mode only" };
    format!("userfaultfd, {by}, {scope}")
}

/// The pages behind the heap.
pub(crate) fn pages(backing: &Backing) -> String {
    match backing {
        Backing::Huge => "huge pages".to_owned(),
        Backing::Small(why) => format!("4 KiB pages: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_by_index_kind_or_name() {
        assert_eq!(parse_choice("1"), Ok(DeviceChoice::Index(1)));
        assert_eq!(parse_choice("best"), Ok(DeviceChoice::Best));
        assert_eq!(parse_choice("Radeon"), Ok(DeviceChoice::Name("Radeon".into())));
        assert!(parse_choice("").is_err());
        for kind in [DeviceKind::Discrete, DeviceKind::Integrated, DeviceKind::Virtual, DeviceKind::Cpu] {
            assert_eq!(parse_choice(kind_word(kind)), Ok(DeviceChoice::Kind(kind)));
        }
    }
}
