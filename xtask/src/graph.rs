//! `cargo xtask graph`: makes the bundled graph anew from the package lists that apt keeps on this machine. Packages of
//! main for amd64 are its nodes; `Depends` and `Pre-Depends` are its edges. It downloads nothing and knows no versions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{output, root, say};
use crate::error::Error;
use crate::graph_codec::{NamedGraph, decode, encode};

const APT_HELPER: &str = "/usr/lib/apt/apt-helper";

/// The suite that the bundled file is made of unless another is asked for.
pub(crate) const SUITE: &str = "bookworm";

/// Writes the graph of `suite` to `path`, or to its place in the repository.
pub(crate) fn generate(suite: &str, path: Option<&Path>) -> Result<(), Error> {
    let default = root().join(format!("examples/data/debian-{suite}.graph"));
    let path = path.unwrap_or(&default);
    let lists = Lists::find(suite)?;
    say(&format!("graph: from {}", lists.packages.display()));
    let packages = output(Command::new(APT_HELPER).arg("cat-file").arg(&lists.packages))?;
    let release =
        fs::read_to_string(&lists.release).map_err(Error::io(format!("cannot read {}", lists.release.display())))?;
    let graph = build(&parse_packages(&String::from_utf8_lossy(&packages)), describe(suite, &release));
    if graph.edges.is_empty() {
        return Err(Error::NoLists(format!("{} holds no dependencies", lists.packages.display())));
    }

    let file = encode(&graph)?;
    if decode(&file)? != graph {
        let detail = "what was written does not read back as what was meant".to_owned();
        return Err(Error::Output { what: "the encoded graph".to_owned(), detail });
    }
    fs::write(path, &file).map_err(Error::io(format!("cannot write {}", path.display())))?;
    say(&format!("graph: {}", graph.source));
    let (nodes, edges, bytes) = (graph.names.len(), graph.edges.len(), file.len());
    say(&format!("graph: {nodes} nodes, {edges} edges, {bytes} bytes in {}", path.display()));
    Ok(())
}

/// Where apt keeps what the graph is made of.
struct Lists {
    packages: PathBuf,
    release: PathBuf,
}

impl Lists {
    fn find(suite: &str) -> Result<Self, Error> {
        let codename = format!("Codename: {suite}");
        let text = output(Command::new("apt-get").env("LC_ALL", "C").args([
            "indextargets",
            "--format",
            "$(FILENAME)",
            "Created-By: Packages",
            // Debian's own: other vendors call their suites by its codenames too.
            "Label: Debian",
            &codename,
            "Component: main",
            "Architecture: amd64",
        ]))?;
        let text = String::from_utf8_lossy(&text);
        let packages = text.lines().next().map(PathBuf::from).ok_or_else(|| {
            Error::NoLists(format!(
                "apt has no package lists of Debian {suite} (main, amd64) on this machine; run `apt-get update` on a \
                 machine whose apt is configured for {suite}, or name another with --suite"
            ))
        })?;
        // The Release file's name is that of the list, up to the suite.
        let name = packages.to_string_lossy().into_owned();
        let stem = name.split("_main_binary-").next().unwrap_or_default();
        let releases = ["InRelease", "Release"].map(|kind| PathBuf::from(format!("{stem}_{kind}")));
        let release = releases.into_iter().find(|file| file.exists());
        let release = release.ok_or_else(|| Error::NoLists(format!("no Release file beside {name}")))?;
        Ok(Self { packages, release })
    }
}

/// What the graph is and of which date, from the Release file.
fn describe(suite: &str, release: &str) -> String {
    let field = |name: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map_or("unknown", str::trim).to_owned()
    };
    format!("Debian {} ({suite}), main, amd64, {}: package dependencies", field("Version"), field("Date"))
}

/// A stanza of a package list, as far as the graph looks at it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Package<'a> {
    name: &'a str,
    depends: Vec<&'a str>,
    provides: Vec<&'a str>,
}

fn parse_packages(text: &str) -> Vec<Package<'_>> {
    let mut packages = Vec::new();
    for stanza in text.split("\n\n") {
        let mut package = Package::default();
        for line in stanza.lines() {
            // None of these fields has continuation lines in a package list.
            let Some((field, value)) = line.split_once(": ") else { continue };
            match field {
                "Package" => package.name = value.trim(),
                "Depends" | "Pre-Depends" => package.depends.extend(names_in(value)),
                "Provides" => package.provides.extend(names_in(value)),
                _ => {}
            }
        }
        if !package.name.is_empty() {
            packages.push(package);
        }
    }
    packages
}

/// The names in a relation field: `a (>= 1) | b:any, c` gives a, b, c.
fn names_in(relations: &str) -> impl Iterator<Item = &str> {
    let names = relations.split([',', '|']).map(|relation| {
        let relation = relation.trim();
        &relation[..relation.find([' ', '(', ':', '[', '<']).unwrap_or(relation.len())]
    });
    names.filter(|name| !name.is_empty())
}

fn build(packages: &[Package<'_>], source: String) -> NamedGraph {
    // Sorted and without duplicates: a suite may hold two versions of a package.
    let names: BTreeSet<&str> = packages.iter().map(|package| package.name).collect();
    let number: BTreeMap<&str, u32> = names.iter().copied().zip(0u32..).collect();
    let mut providers: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for package in packages {
        for &virtual_name in &package.provides {
            providers.entry(virtual_name).or_default().insert(number[package.name]);
        }
    }
    let mut edges = BTreeSet::new();
    for package in packages {
        let from = number[package.name];
        for name in &package.depends {
            if let Some(&to) = number.get(name) {
                edges.insert((from, to));
            } else if let Some(providers) = providers.get(name) {
                edges.extend(providers.iter().map(|&to| (from, to)));
            }
        }
    }
    let edges = edges.into_iter().filter(|(from, to)| from != to).collect();
    NamedGraph { source, names: names.into_iter().map(str::to_owned).collect(), edges }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
Package: editor
Version: 1
Pre-Depends: libc6 (>= 2.36)
Depends: mail-agent | libc6, perl:any, gone (= 1), editor, toolkit (<< 3) | libc6
Description: an editor
Provides: toolkit-user

Package: libc6
Description: the C library

Package: perl
Depends: toolkit
Provides: perlapi-5 (= 5.36)

Package: smtp
Provides: mail-agent, toolkit

Package: qmail
Depends: mail-agent
Provides: mail-agent
";

    #[test]
    fn packages_and_their_dependencies_become_a_graph() {
        let graph = build(&parse_packages(LIST), "a test".to_owned());
        assert_eq!(graph.names, ["editor", "libc6", "perl", "qmail", "smtp"]);
        // Of the virtual packages, mail-agent is qmail and smtp, toolkit is smtp; `gone` is nothing; no self-loops.
        let editor = [(0, 1), (0, 2), (0, 3), (0, 4)];
        assert_eq!(graph.edges, [&editor[..], &[(2, 4), (3, 4)]].concat());
        assert_eq!(decode(&encode(&graph).unwrap()).unwrap(), graph);
    }

    #[test]
    fn relations_lose_versions_architectures_and_profiles() {
        let names: Vec<&str> = names_in("a (>= 1:2~), b:any | c [amd64] ,d <!nocheck>,, e").collect();
        assert_eq!(names, ["a", "b", "c", "d", "e"]);
    }

    #[test]
    fn the_release_says_what_and_when() {
        let release = "Hash: SHA256\n\nOrigin: Debian\nVersion: 12.1\nDate: Sat, 22 Jul 2023 09:00:00 UTC\n";
        let text = describe("bookworm", release);
        assert_eq!(text, "Debian 12.1 (bookworm), main, amd64, Sat, 22 Jul 2023 09:00:00 UTC: package dependencies");
    }
}
