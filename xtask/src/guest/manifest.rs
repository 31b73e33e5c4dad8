//! What kernels-driver/guest/Cargo.toml says of the machines and of the programs that run in them, as cargo reads it. Nothing
//! is built or booted here.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::protocol::Kind;
use super::topology::Topology;
use crate::command::{cargo, output};
use crate::error::Error;

/// The package with the tests.
pub(super) const PACKAGE: &str = "limosa-guest";
/// Where it lies.
pub(super) const FOLDER: &str = "kernels-driver/guest";
/// The machine of who asks for none.
pub(super) const DEFAULT: &str = "default";

/// `package.metadata.guest`, and the test targets beside it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// The machines to boot, by name.
    pub(super) machines: BTreeMap<String, Machine>,
    /// Programs that are no test targets: the kernel's own tests.
    #[serde(default)]
    pub(super) programs: BTreeMap<String, Settings>,
    /// What test targets ask for.
    #[serde(default)]
    pub(super) tests: BTreeMap<String, Settings>,
}

/// A machine.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Machine {
    /// Memory of its devices in MiB, in their order on the bus.
    pub(super) vram: Vec<u64>,
    /// Where they and the data disk are plugged.
    pub(super) topology: Topology,
    /// QEMU's name of the processor; none: the one with everything.
    pub(super) cpu: Option<String>,
    /// Whether there is a second way to the data disk: from the root bus.
    pub(super) multipath: bool,
    /// MiB of memory of an NVMe controller without disks, behind the data disk, that its driver publishes; zero: there is
    /// none.
    pub(super) controller_memory: u64,
    /// What is loaded, with parameters.
    pub(super) modules: Vec<String>,
    /// More for the kernel's command line.
    pub(super) cmdline: Vec<String>,
    /// Booted only when it is asked for by name: for comparison, not for judging what is ours.
    pub(super) on_demand: bool,
}

/// How a program runs.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Settings {
    /// Where: on each of them.
    pub(super) machines: Vec<String>,
    /// In seconds, on a real processor.
    pub(super) limit: u64,
    /// `root` or `nobody`.
    pub(super) user: User,
    pub(super) kind: Kind,
    /// Of a program that is no test target: its file, if it is not called as it is.
    pub(super) file: Option<String>,
    pub(super) arguments: Vec<String>,
    /// Of a TAP program: the tests that may skip. Another that does has failed.
    pub(super) skips: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum User {
    Root,
    Nobody,
}

impl Default for Settings {
    fn default() -> Self {
        let (machines, arguments, skips) = (vec![DEFAULT.to_owned()], Vec::new(), Vec::new());
        Self { machines, limit: 60, user: User::Root, kind: Kind::Libtest, file: None, arguments, skips }
    }
}

impl Manifest {
    /// Reads it.
    pub(super) fn read() -> Result<Self, Error> {
        let json = output(&mut cargo(&["metadata", "--format-version", "1", "--no-deps"]))?;
        let wrong = |detail: String| Error::Output { what: format!("the manifest of {PACKAGE}"), detail };
        let metadata: Value = serde_json::from_slice(&json).map_err(|error| wrong(error.to_string()))?;
        Self::parse(&metadata).map_err(wrong)
    }

    /// The machine of a name, or those that are not on demand.
    pub(super) fn chosen(&self, name: Option<&str>) -> Result<Vec<(&str, &Machine)>, Error> {
        let all = self.machines.iter().map(|(name, machine)| (name.as_str(), machine));
        let chosen: Vec<_> =
            all.filter(|(own, machine)| name.map_or(!machine.on_demand, |name| name == *own)).collect();
        if chosen.is_empty() {
            let known: Vec<&str> = self.machines.keys().map(String::as_str).collect();
            let name = name.unwrap_or("always booted");
            return Err(Error::Usage(format!("no machine `{name}`; there are: {}", known.join(", "))));
        }
        Ok(chosen)
    }

    fn parse(metadata: &Value) -> Result<Self, String> {
        let packages = metadata["packages"].as_array().ok_or("no packages")?;
        let package = packages.iter().find(|package| package["name"] == PACKAGE).ok_or("no such package")?;
        let own = package["metadata"]["guest"].clone();
        let mut manifest: Self = serde_json::from_value(own).map_err(|error| error.to_string())?;
        let targets = package["targets"].as_array().ok_or("no targets")?;
        let tests = targets.iter().filter(|target| target["kind"] == serde_json::json!(["test"]));
        let names: Vec<&str> = tests.filter_map(|target| target["name"].as_str()).collect();
        if let Some(stray) = manifest.tests.keys().find(|name| !names.contains(&name.as_str())) {
            return Err(format!("settings for `{stray}`, which is no test target"));
        }
        for name in names {
            manifest.tests.entry(name.to_owned()).or_default();
        }
        let all = manifest.tests.iter().chain(&manifest.programs);
        let known = |one: &Settings| one.machines.iter().all(|name| manifest.machines.contains_key(name));
        if let Some((name, _)) = all.clone().find(|(_, one)| !known(one)) {
            return Err(format!("`{name}` runs on a machine that is not described"));
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(guest: &str) -> Result<Manifest, String> {
        let text = format!(
            "{{\"packages\":[{{\"name\":\"limosa-guest\",\"metadata\":{{\"guest\":{guest}}},\"targets\":[\
             {{\"kind\":[\"lib\"],\"name\":\"limosa_guest\"}},{{\"kind\":[\"test\"],\"name\":\"fuzz\"}},\
             {{\"kind\":[\"test\"],\"name\":\"basic\"}}]}}]}}"
        );
        Manifest::parse(&serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn a_test_target_without_settings_has_the_usual_ones() {
        let manifest = parse(
            r#"{"machines":{"default":{"vram":[512]},"peer":{"on_demand":true}},"tests":{"fuzz":{"user":"nobody","limit":200}},
                "programs":{"hmm-tests":{"kind":"tap","skips":["hmm.gup"]}}}"#,
        )
        .unwrap();
        assert_eq!(manifest.machines[DEFAULT].vram, [512]);
        assert_eq!((manifest.tests["basic"].limit, manifest.tests["basic"].user), (60, User::Root));
        assert_eq!((manifest.tests["fuzz"].limit, manifest.tests["fuzz"].user), (200, User::Nobody));
        assert_eq!(manifest.programs["hmm-tests"].kind, Kind::Tap);
        assert_eq!(manifest.programs["hmm-tests"].skips, ["hmm.gup"]);
        let chosen = |name| manifest.chosen(name).map(|found| found.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        assert_eq!((chosen(None).unwrap(), chosen(Some("peer")).unwrap()), (vec!["default"], vec!["peer"]));
        assert!(chosen(Some("pear")).unwrap_err().to_string().contains("default, peer"));
    }

    #[test]
    fn what_names_nothing_is_refused() {
        let machines = r#""machines":{"default":{}}"#;
        for (guest, word) in [
            (format!(r#"{{{machines},"tests":{{"fuz":{{}}}}}}"#), "`fuz`"),
            (format!(r#"{{{machines},"tests":{{"fuzz":{{"machines":["two"]}}}}}}"#), "not described"),
            (format!(r#"{{{machines},"tests":{{"fuzz":{{"limits":3}}}}}}"#), "limits"),
        ] {
            let error = parse(&guest).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
