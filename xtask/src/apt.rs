//! Reading apt's and dpkg's texts: package sources in both formats, versions, os-release. Pure apart from
//! [`read_sources`]; nothing here installs or writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// One entry of apt's configuration for binary packages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Source {
    pub(crate) uris: Vec<String>,
    pub(crate) suites: Vec<String>,
    pub(crate) components: Vec<String>,
    /// As it stands in the file: a path, a fingerprint, or a whole key over several lines.
    pub(crate) signed_by: Option<String>,
    /// An archive that is marked as trusted without a signature keeps its mark for its backports.
    pub(crate) trusted: Option<String>,
}

/// All enabled entries below `etc_apt`, in apt's order: sources.list, then sources.list.d by name.
pub(crate) fn read_sources(etc_apt: &Path) -> Result<Vec<Source>, Error> {
    let mut files: Vec<PathBuf> = Vec::new();
    let parts = etc_apt.join("sources.list.d");
    if let Ok(entries) = fs::read_dir(&parts) {
        for entry in entries {
            files.push(entry.map_err(Error::io(format!("cannot read {}", parts.display())))?.path());
        }
    }
    files.sort();
    files.insert(0, etc_apt.join("sources.list"));
    let mut sources = Vec::new();
    for file in files.into_iter().filter(|file| file.is_file()) {
        // apt itself passes over files with any other ending.
        let parse = match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => parse_list,
            Some("sources") => parse_deb822,
            _ => continue,
        };
        let bytes = fs::read(&file).map_err(Error::io(format!("cannot read {}", file.display())))?;
        sources.extend(parse(&String::from_utf8_lossy(&bytes)));
    }
    Ok(sources)
}

/// Reads the stanzas of a `.sources` file.
pub(crate) fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let mut field = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#')).chain([""]) {
        if line.trim().is_empty() {
            sources.extend(source_of_fields(&std::mem::take(&mut fields)));
        } else if line.starts_with([' ', '\t']) {
            if let Some(value) = fields.get_mut(&field) {
                value.push('\n');
                value.push_str(line.trim_end());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            field = name.trim().to_ascii_lowercase();
            fields.insert(field.clone(), value.trim().to_owned());
        }
    }
    sources
}

fn source_of_fields(fields: &BTreeMap<String, String>) -> Option<Source> {
    let words = |name: &str| -> Vec<String> {
        fields.get(name).map_or_else(Vec::new, |value| value.split_whitespace().map(str::to_owned).collect())
    };
    let off = ["no", "false", "off", "without", "disable", "0"];
    let enabled = fields.get("enabled").is_none_or(|value| !off.contains(&value.as_str()));
    (enabled && words("types").iter().any(|kind| kind == "deb")).then(|| Source {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signed_by: fields.get("signed-by").cloned(),
        trusted: fields.get("trusted").cloned(),
    })
}

/// Reads the lines of a `.list` file: `deb [option=value …] uri suite component…`.
pub(crate) fn parse_list(text: &str) -> Vec<Source> {
    text.lines().filter_map(source_of_line).collect()
}

fn source_of_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let mut rest = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t', '[']))?.trim_start();
    let mut source = Source::default();
    if let Some(bracketed) = rest.strip_prefix('[') {
        let (options, after) = bracketed.split_once(']')?;
        for (name, value) in options.split_whitespace().filter_map(|option| option.split_once('=')) {
            match name.to_ascii_lowercase().as_str() {
                "signed-by" => source.signed_by = Some(value.replace(',', " ")),
                "trusted" => source.trusted = Some(value.to_owned()),
                _ => {}
            }
        }
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    source.uris.extend(words.next());
    source.suites.extend(words.next());
    source.components.extend(words);
    Some(source)
}

/// Whether any entry gives main of `suite`.
pub(crate) fn has_suite(sources: &[Source], suite: &str) -> bool {
    sources.iter().any(|source| gives_main(source, suite))
}

fn gives_main(source: &Source, suite: &str) -> bool {
    source.suites.iter().any(|name| name.trim_end_matches('/') == suite)
        && source.components.iter().any(|component| component == "main")
}

/// Debian's own archive for `codename`: the entry of the plain suite, not that of its updates or of its security.
///
/// Other vendors call their suites by Debian's codenames too, so an entry that looks like Debian's wins over one that
/// merely has the right suite; among equals the first wins. CD-ROMs have no backports.
pub(crate) fn debian_archive<'a>(sources: &'a [Source], codename: &str) -> Option<&'a Source> {
    let aliases = [codename, "stable", "oldstable", "oldoldstable"];
    let likeness = |source: &Source| -> usize {
        let archive_key = source.signed_by.as_ref().is_some_and(|key| key.contains("debian-archive"));
        let updates = format!("{codename}-updates");
        let has_updates = source.suites.contains(&updates);
        let sibling = sources.iter().any(|other| other.uris == source.uris && other.suites.contains(&updates));
        let path = source.uris.iter().any(|uri| uri.trim_end_matches('/').ends_with("/debian"));
        [archive_key, has_updates || sibling, path].into_iter().filter(|&sign| sign).count()
    };
    let mut best: Option<(&Source, usize)> = None;
    for source in sources {
        let reachable = source.uris.iter().any(|uri| !uri.starts_with("cdrom:"));
        if !reachable || !aliases.iter().any(|suite| gives_main(source, suite)) {
            continue;
        }
        let score = likeness(source);
        if best.is_none_or(|(_, best)| score > best) {
            best = Some((source, score));
        }
    }
    best.map(|(source, _)| source)
}

/// The text of a `.sources` file that gives `suites` from where `archive` is, and says what of it limosa needs.
pub(crate) fn sources_file(archive: &Source, suites: &str, needs: &str) -> String {
    let mut text = format!("# Written by `cargo xtask` of limosa, which needs {needs}.\n");
    let uris: Vec<&str> = archive.uris.iter().map(String::as_str).filter(|uri| !uri.starts_with("cdrom:")).collect();
    let mut field = |name: &str, value: &str| {
        // A value that begins on its second line (a key) has its own line breaks.
        let space = if value.starts_with('\n') { "" } else { " " };
        text.push_str(&format!("{name}:{space}{value}\n"));
    };
    field("Types", "deb");
    field("URIs", &uris.join(" "));
    field("Suites", suites);
    field("Components", "main");
    for (name, value) in [("Signed-By", &archive.signed_by), ("Trusted", &archive.trusted)] {
        if let Some(value) = value {
            field(name, value);
        }
    }
    text
}

/// Whether the upstream part of a Debian version (epoch and revision aside) is `least` or newer, number by number. A
/// release candidate counts as its release.
pub(crate) fn at_least(version: &str, least: &[u64]) -> bool {
    numbers(version).as_slice() >= least
}

/// The numbers of the upstream part of a Debian version.
pub(crate) fn numbers(version: &str) -> Vec<u64> {
    let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
    let end = upstream.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(upstream.len());
    upstream[..end].split('.').map_while(|number| number.parse().ok()).collect()
}

/// The installed packages of `dpkg-query --showformat='${Package}\t${db:Status-Status}\t${Version}\n'`, with versions.
pub(crate) fn parse_dpkg(text: &str) -> BTreeMap<String, String> {
    let mut installed = BTreeMap::new();
    for line in text.lines() {
        let mut columns = line.split('\t');
        if let (Some(name), Some("installed"), Some(version)) = (columns.next(), columns.next(), columns.next()) {
            installed.insert(name.to_owned(), version.to_owned());
        }
    }
    installed
}

/// What os-release says of the system.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) struct OsRelease {
    pub(crate) id: String,
    pub(crate) id_like: String,
    /// None on Debian's testing and unstable, which have no version yet.
    pub(crate) version: Option<u32>,
    pub(crate) codename: String,
    pub(crate) pretty_name: String,
}

impl OsRelease {
    pub(crate) fn parse(text: &str) -> Self {
        let mut os = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.trim().split_once('=')) {
            let value = value.trim_matches(['"', '\'']);
            match name {
                "ID" => os.id = value.to_owned(),
                "ID_LIKE" => os.id_like = value.to_owned(),
                "VERSION_ID" => os.version = value.split('.').next().and_then(|major| major.parse().ok()),
                "VERSION_CODENAME" => os.codename = value.to_owned(),
                "PRETTY_NAME" => os.pretty_name = value.to_owned(),
                _ => {}
            }
        }
        os
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
Types: deb deb-src
# the archive
URIs: http://archive.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://archive.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Enabled: no
Types: deb
URIs: http://archive.example/debian
Suites: bookworm-backports
Components: main
";

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn deb822_is_read_and_the_archive_found() {
        let sources = parse_deb822(DEB822);
        assert_eq!(sources.len(), 2, "the disabled entry does not count");
        assert_eq!(sources[0].suites, words("bookworm bookworm-updates"));
        assert_eq!(debian_archive(&sources, "bookworm"), Some(&sources[0]));
        assert!(!has_suite(&sources, "bookworm-backports"));
        assert!(has_suite(&sources, "bookworm-security"));
        assert_eq!(debian_archive(&sources, "trixie"), None);
    }

    #[test]
    fn source_packages_alone_are_no_source() {
        assert!(parse_deb822("Types: deb-src\nURIs: http://a/debian\nSuites: bookworm\nComponents: main\n").is_empty());
        assert!(parse_list("deb-src http://a/debian bookworm main\n").is_empty());
    }

    #[test]
    fn a_key_over_several_lines_survives() {
        let text = "types: deb\nuris: http://a/debian\nsuites:\n bookworm\n bookworm-updates\ncomponents: main\nSigned-By:\n \
                    -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBG\n -----END PGP PUBLIC KEY BLOCK-----\n";
        let sources = parse_deb822(text);
        assert_eq!(sources[0].suites, words("bookworm bookworm-updates"));
        let written = sources_file(&sources[0], "bookworm-backports", "this");
        let read = parse_deb822(&written);
        assert_eq!(read[0].signed_by, sources[0].signed_by);
        assert!(written.contains("Signed-By:\n -----BEGIN PGP"), "{written}");
        assert!(has_suite(&read, "bookworm-backports"));
    }

    #[test]
    fn one_line_entries_are_read() {
        let sources = parse_list(
            "# deb http://a.example/debian bookworm main\n\
             deb cdrom:[Debian GNU/Linux 12.0.0 _Bookworm_ - Official amd64]/ bookworm main\n\
             deb http://archive.example/debian/ bookworm main non-free-firmware # the archive\n\
             deb [arch=amd64 signed-by=/a.gpg,/b.gpg] https://b.example/debian bookworm-backports main\n\
             deb\thttp://c.example/x ./\n",
        );
        assert_eq!(sources.len(), 4);
        assert_eq!(sources[2].signed_by.as_deref(), Some("/a.gpg /b.gpg"));
        assert!(has_suite(&sources, "bookworm-backports"));
        let archive = debian_archive(&sources, "bookworm").unwrap();
        assert_eq!(archive.uris, ["http://archive.example/debian/"]);
        assert_eq!(archive.signed_by, None);
        assert!(!sources_file(archive, "bookworm-backports", "this").contains("Signed-By"));
    }

    #[test]
    fn another_vendors_suite_of_the_same_name_is_not_debians() {
        let sources = parse_list(
            "deb [signed-by=/usr/share/keyrings/vendor.gpg] https://packages.example/debian/12/prod bookworm main\n\
             deb https://mirror.example/debian bookworm main\n\
             deb https://mirror.example/debian bookworm-updates main\n",
        );
        assert_eq!(debian_archive(&sources, "bookworm"), Some(&sources[1]));
    }

    #[test]
    fn an_archive_by_its_alias_is_found() {
        let sources = parse_list("deb mirror+file:/etc/apt/mirrors/debian.list stable main\n");
        assert_eq!(debian_archive(&sources, "bookworm"), Some(&sources[0]));
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for newer in ["25.0.7-2~bpo12+1", "24.0.0", "24", "1:24.2-1", "24.1.0~rc1-1", "100.0"] {
            assert!(at_least(newer, &[24]), "{newer}");
        }
        for older in ["22.3.6-1+deb12u1", "9.9", "1:23.99-24", "3:4", "", "x24"] {
            assert!(!at_least(older, &[24]), "{older}");
        }
        assert!(at_least("24.10", &[24, 9]) && !at_least("24.8.9", &[24, 9]));
    }

    #[test]
    fn only_installed_packages_count() {
        let text = "libvulkan1\tinstalled\t1.3\nspirv-tools\tconfig-files\t2023\nglslang-tools\tnot-installed\t\n";
        assert_eq!(parse_dpkg(text).keys().collect::<Vec<_>>(), ["libvulkan1"]);
    }

    #[test]
    fn os_release_is_read() {
        let os = OsRelease::parse(
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\nID=debian\n",
        );
        assert_eq!((os.id.as_str(), os.version, os.codename.as_str()), ("debian", Some(12), "bookworm"));
        assert_eq!(OsRelease::parse("ID=debian\nVERSION_CODENAME=forky\n").version, None);
        assert_eq!(OsRelease::parse("ID=ubuntu\nID_LIKE=debian\nVERSION_ID='24.04'\n").version, Some(24));
    }
}
