//! The layering check: which crate may use which. The table below is DESIGN.md's picture of the dependencies as data;
//! the check compares it with what cargo says of the workspace. It reads manifests only, no source (see `sources`).

use serde_json::Value;

use crate::command::{cargo, output};
use crate::error::Error;

/// The rules of one crate of the workspace.
struct Layer {
    name: &'static str,
    /// The crates of the workspace that it may use.
    uses: &'static [&'static str],
    /// Those that its tests may use besides.
    tests_use: &'static [&'static str],
}

const LAYERS: [Layer; 11] = [
    Layer { name: "limosa-derive", uses: &[], tests_use: &[] },
    Layer { name: "limosa-model", uses: &[], tests_use: &[] },
    Layer { name: "limosa-shaders", uses: &[], tests_use: &[] },
    Layer { name: "limosa-os", uses: &["limosa-model"], tests_use: &[] },
    Layer { name: "limosa-gpu", uses: &["limosa-model", "limosa-shaders"], tests_use: &[] },
    Layer { name: "limosa-pager", uses: &["limosa-model", "limosa-os", "limosa-gpu"], tests_use: &[] },
    Layer {
        name: "limosa",
        uses: &["limosa-derive", "limosa-pager", "limosa-gpu", "limosa-model"],
        tests_use: &["limosa-shaders", "limosa-os"],
    },
    // The command takes the twins from shaders, to verify what the device computed.
    Layer { name: "limosa-cli", uses: &["limosa", "limosa-shaders"], tests_use: &[] },
    // They measure the API, and beside it the pager's own calls.
    Layer {
        name: "limosa-benches",
        uses: &[],
        tests_use: &["limosa", "limosa-pager", "limosa-gpu", "limosa-model", "limosa-shaders"],
    },
    // The shim's tests, and what they need of the guest that they run in.
    Layer {
        name: "limosa-guest",
        uses: &[],
        tests_use: &["limosa", "limosa-os", "limosa-gpu", "limosa-model", "limosa-shaders"],
    },
    Layer { name: "xtask", uses: &[], tests_use: &[] },
];

/// External crates that only one crate may use: all unsafe of one kind stays in one place. Tests are excepted.
const KEPT: [(&str, &str); 4] =
    [("ash", "limosa-gpu"), ("gpu-allocator", "limosa-gpu"), ("libc", "limosa-os"), ("io-uring", "limosa-os")];

/// Crates that hold no unsafe code at all, and say so in every root of theirs.
const SAFE: [&str; 4] = ["limosa-guest", "limosa-model", "limosa-shaders", "xtask"];

/// A crate of the workspace, as far as the rules look at it.
#[derive(Debug, Default)]
pub(crate) struct Crate {
    name: String,
    dependencies: Vec<Dependency>,
    /// Its library and binaries, as paths of their roots.
    roots: Vec<String>,
}

#[derive(Debug)]
struct Dependency {
    name: String,
    for_tests: bool,
}

/// The crates of this workspace, from cargo.
pub(crate) fn workspace() -> Result<Vec<Crate>, Error> {
    let json = output(&mut cargo(&["metadata", "--format-version", "1", "--no-deps"]))?;
    parse(&json).ok_or_else(|| Error::Output {
        what: "`cargo metadata`".to_owned(),
        detail: "no list of packages with names, dependencies and targets".to_owned(),
    })
}

fn parse(json: &[u8]) -> Option<Vec<Crate>> {
    let metadata: Value = serde_json::from_slice(json).ok()?;
    metadata.get("packages")?.as_array()?.iter().map(parse_crate).collect()
}

fn parse_crate(package: &Value) -> Option<Crate> {
    let text = |value: &Value, field: &str| Some(value.get(field)?.as_str()?.to_owned());
    let dependency = |value: &Value| {
        // The name is the package's own even where the manifest renames it; the kind is null, "build" or "dev".
        let for_tests = value.get("kind").and_then(Value::as_str) == Some("dev");
        Some(Dependency { name: text(value, "name")?, for_tests })
    };
    let mut roots = Vec::new();
    for target in package.get("targets")?.as_array()? {
        let kinds = target.get("kind")?.as_array()?;
        if kinds.iter().any(|kind| kind == "lib" || kind == "bin") {
            roots.push(text(target, "src_path")?);
        }
    }
    let dependencies = package.get("dependencies")?.as_array()?.iter().map(dependency).collect::<Option<_>>()?;
    Some(Crate { name: text(package, "name")?, dependencies, roots })
}

/// Every rule that the crates break, in words.
pub(crate) fn violations(crates: &[Crate]) -> Vec<String> {
    let mut found = Vec::new();
    let internal = |name: &str| crates.iter().any(|one| one.name == name);
    for one in crates {
        let Some(layer) = LAYERS.iter().find(|layer| layer.name == one.name) else {
            found.push(format!("{}: has no place in the layering; give it one in xtask/src/layering.rs", one.name));
            continue;
        };
        for dependency in &one.dependencies {
            if internal(&dependency.name) {
                found.extend(internal_violation(layer, dependency));
            } else if !dependency.for_tests {
                found.extend(external_violation(&one.name, &dependency.name));
            }
        }
    }
    found.extend(cycle(crates));
    found
}

fn internal_violation(layer: &Layer, dependency: &Dependency) -> Option<String> {
    let name = dependency.name.as_str();
    let Layer { name: user, uses, tests_use } = layer;
    if uses.contains(&name) || (dependency.for_tests && tests_use.contains(&name)) {
        return None;
    }
    let listed = |names: &[&str]| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    let kind = if dependency.for_tests { "dev-dependencies" } else { "dependencies" };
    Some(format!(
        "{user}: {name} in its {kind}; of the workspace it may use {}, and its tests {} besides",
        listed(uses),
        listed(tests_use)
    ))
}

fn external_violation(user: &str, name: &str) -> Option<String> {
    let (_, owner) = KEPT.iter().find(|(kept, _)| *kept == name)?;
    (*owner != user)
        .then(|| format!("{user}: {name} in its dependencies; only {owner} may use {name} (tests excepted)"))
}

/// The first cycle among the crates of the workspace, dev-dependencies included: cargo bears with those, we do not.
fn cycle(crates: &[Crate]) -> Option<String> {
    fn visit<'a>(one: &'a Crate, crates: &'a [Crate], path: &mut Vec<&'a str>, done: &mut Vec<&'a str>) -> bool {
        if let Some(start) = path.iter().position(|name| *name == one.name) {
            path.drain(..start);
            path.push(&one.name);
            return true;
        }
        if done.contains(&one.name.as_str()) {
            return false;
        }
        path.push(&one.name);
        for dependency in &one.dependencies {
            let Some(next) = crates.iter().find(|other| other.name == dependency.name) else { continue };
            if visit(next, crates, path, done) {
                return true;
            }
        }
        path.pop();
        done.push(&one.name);
        false
    }
    let (mut path, mut done) = (Vec::new(), Vec::new());
    let found = crates.iter().any(|one| visit(one, crates, &mut path, &mut done));
    found.then(|| format!("{}: depends on itself: {}", path[0], path.join(" → ")))
}

/// The roots of crates that hold no unsafe code, with the crate's name.
pub(crate) fn safe_roots(crates: &[Crate]) -> Vec<(&str, &str)> {
    let safe = crates.iter().filter(|one| SAFE.contains(&one.name.as_str()));
    safe.flat_map(|one| one.roots.iter().map(|root| (one.name.as_str(), root.as_str()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace of `name: dependency…`, where `~` stands before a dev-dependency.
    fn workspace(lines: &[&str]) -> Vec<Crate> {
        let parse = |line: &&str| {
            let (name, dependencies) = line.split_once(':').unwrap();
            let dependencies = dependencies.split_whitespace().map(|word| Dependency {
                name: word.trim_start_matches('~').to_owned(),
                for_tests: word.starts_with('~'),
            });
            Crate { name: name.to_owned(), dependencies: dependencies.collect(), roots: vec![] }
        };
        lines.iter().map(parse).collect()
    }

    const GOOD: [&str; 10] = [
        "limosa-model: arrayvec ~proptest",
        "limosa-shaders:",
        "limosa-os: limosa-model libc io-uring",
        "limosa-gpu: limosa-model limosa-shaders ash gpu-allocator ~libc",
        "limosa-pager: limosa-model limosa-os limosa-gpu crossbeam",
        "limosa: limosa-pager limosa-gpu limosa-model ~limosa-shaders ~limosa-os ~libc ~ash",
        "limosa-cli: limosa limosa-shaders clap",
        "limosa-benches: wgpu ~limosa ~limosa-pager ~limosa-gpu ~limosa-model ~limosa-shaders ~ash ~libc",
        "limosa-guest: serde ~limosa ~limosa-os ~limosa-gpu ~limosa-model ~limosa-shaders ~libc",
        "xtask: serde_json",
    ];

    /// The one violation of the good workspace with a line in place of its namesake.
    fn violation_with(line: &str) -> String {
        let (name, _) = line.split_once(':').unwrap();
        let lines: Vec<&str> =
            GOOD.into_iter().map(|good| if good.starts_with(&format!("{name}:")) { line } else { good }).collect();
        let found = violations(&workspace(&lines));
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    }

    #[test]
    fn the_design_fits_its_own_rules() {
        assert_eq!(violations(&workspace(&GOOD)), Vec::<String>::new());
    }

    #[test]
    fn os_and_gpu_do_not_meet() {
        let text = violation_with("limosa-gpu: limosa-model limosa-os");
        assert!(text.starts_with("limosa-gpu: limosa-os in its dependencies"), "{text}");
    }

    #[test]
    fn kept_crates_stay_where_they_are_kept() {
        let text = violation_with("limosa-pager: limosa-model ash");
        assert!(text.starts_with("limosa-pager: ash") && text.contains("only limosa-gpu"), "{text}");
        let text = violation_with("limosa-gpu: libc");
        assert!(text.contains("only limosa-os"), "{text}");
    }

    #[test]
    fn what_tests_may_use_the_crate_may_not() {
        let text = violation_with("limosa: limosa-pager limosa-shaders");
        assert!(text.starts_with("limosa: limosa-shaders in its dependencies"), "{text}");
        let text = violation_with("limosa-model: ~limosa-shaders");
        assert!(text.contains("dev-dependencies"), "{text}");
    }

    #[test]
    fn a_cycle_is_named_also_through_tests() {
        let found = violations(&workspace(&["limosa-model: ~limosa-os", "limosa-os: limosa-model"]));
        let text = found.last().unwrap();
        assert!(text.contains("limosa-model → limosa-os → limosa-model"), "{text}");
        let found = violations(&workspace(&["xtask:", "limosa: ~limosa"]));
        assert!(found.last().unwrap().contains("limosa → limosa"), "{found:?}");
    }

    #[test]
    fn a_crate_without_a_place_is_named() {
        let found = violations(&workspace(&["limosa-capi: limosa", "limosa:"]));
        assert!(found.len() == 1 && found[0].starts_with("limosa-capi: has no place"), "{found:?}");
    }

    #[test]
    fn cargos_metadata_is_read() {
        let json = br#"{"packages":[{"name":"xtask","dependencies":[
            {"name":"limosa","kind":null},{"name":"libc","kind":"dev","rename":"c"}],
            "targets":[{"kind":["bin"],"src_path":"/r/main.rs"},{"kind":["test"],"src_path":"/r/t.rs"}]}]}"#;
        let crates = parse(json).unwrap();
        assert_eq!(crates[0].dependencies.iter().map(|d| d.for_tests).collect::<Vec<_>>(), [false, true]);
        assert_eq!(safe_roots(&crates), [("xtask", "/r/main.rs")]);
        assert!(parse(b"{}").is_none());
    }
}
