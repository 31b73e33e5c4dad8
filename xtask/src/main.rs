//! Set-up, demo, tests and checks of the limosa repository, as `cargo xtask <verb>`. It drives cargo and apt and reads
//! what they say; it holds none of the runtime, and nothing of the runtime depends on it.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

mod apt;
mod benches;
mod command;
mod error;
mod graph;
/// The same file that the command reads the bundled graph with: one description of the format.
#[path = "../../runtime/cli/src/graph/codec.rs"]
mod graph_codec;
mod guest;
mod layering;
mod setup;
mod sources;
mod steps;

use error::Error;
use setup::Purpose;

/// What is said to who asks, and to who errs.
const USAGE: &str = "\
usage: cargo xtask <verb>
  setup [--no-install]              install what limosa and its tests need of the machine
  demo [--no-install] [-- ARG…]     set up, build and run `limosa demo ARG…`
  test [--no-install] [--no-guest]  set up and run every check and test, and the demo
  guest [--no-install] [--accel kvm|tcg|auto] [--debug-kernel] [--machine NAME] [-- FILTER…]
                                    the kernel shim's tests, in virtual machines, or in one of them
  guest shell [OPTION…]             a shell in such a machine (leave it with ^D)
  check                             the lints alone: layering, format, clippy, documentation
  bench [--no-install] [-- ARG…]    set up and run the benchmarks (-- --help: what they take)
  bench --check                     run them as little as shows that they run, as `test` does
  shaders [--check]                 make the checked-in SPIR-V anew, or compare it
  bindings [--check]                make the checked-in bindings of the kernel module's header anew, or compare them
  graph [--suite NAME] [--output PATH]
                                    make the bundled graph anew from apt's package lists
--debug-kernel: under a kernel that is built to find mistakes, which takes half an hour once
--no-guest: without the kernel shim's tests
--no-install: say what is missing, and fail, instead of installing it";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|one| one.to_string_lossy().into_owned()).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<(), Error> {
    match Verb::parse(arguments)? {
        Verb::Help => {
            println!("{USAGE}");
            Ok(())
        }
        Verb::Setup { no_install } => setup::setup(Purpose::Test, no_install),
        Verb::Demo { no_install, rest } => steps::demo(no_install, &rest),
        Verb::Test { no_install, no_guest } => steps::test(no_install, no_guest),
        Verb::Guest(options) => guest::test(&options, None),
        Verb::GuestShell(options) => guest::shell(&options),
        Verb::Check => steps::check(),
        Verb::Bench { no_install, rest } => benches::bench(no_install, &rest),
        Verb::CheckBenches => steps::check_benches(),
        Verb::Shaders { check } => steps::shaders(check),
        Verb::Bindings { check } => steps::bindings(check),
        Verb::Graph { suite, output } => graph::generate(&suite, output.as_deref().map(Path::new)),
    }
}

/// What the user asks for.
#[derive(Debug, PartialEq, Eq)]
enum Verb {
    Help,
    Setup { no_install: bool },
    Demo { no_install: bool, rest: Vec<String> },
    Test { no_install: bool, no_guest: bool },
    Guest(guest::Options),
    GuestShell(guest::Options),
    Check,
    Bench { no_install: bool, rest: Vec<String> },
    CheckBenches,
    Shaders { check: bool },
    Bindings { check: bool },
    Graph { suite: String, output: Option<String> },
}

impl Verb {
    fn parse(arguments: &[String]) -> Result<Self, Error> {
        let Some((verb, own)) = arguments.split_first() else {
            return Err(Error::Usage("no verb".to_owned()));
        };
        // What follows `--` is for the program that is run, not for us.
        let (own, rest) = match own.iter().position(|argument| argument == "--") {
            Some(at) => (&own[..at], own[at + 1..].to_vec()),
            None => (own, Vec::new()),
        };
        let mut options = Options { verb, left: own.to_vec() };
        let takes_rest = matches!(verb.as_str(), "demo" | "bench" | "guest");
        if !rest.is_empty() && !takes_rest {
            return Err(Error::Usage(format!("`{verb}` takes nothing after `--`")));
        }
        let parsed = match verb.as_str() {
            "help" | "--help" | "-h" => Self::Help,
            "setup" => Self::Setup { no_install: options.flag("--no-install") },
            "demo" => Self::Demo { no_install: options.flag("--no-install"), rest },
            "test" => {
                let (no_install, no_guest) = (options.flag("--no-install"), options.flag("--no-guest"));
                Self::Test { no_install, no_guest }
            }
            "guest" => Self::guest(&mut options, rest)?,
            "check" => Self::Check,
            "bench" if rest.is_empty() && options.flag("--check") => Self::CheckBenches,
            "bench" => Self::Bench { no_install: options.flag("--no-install"), rest },
            "shaders" => Self::Shaders { check: options.flag("--check") },
            "bindings" => Self::Bindings { check: options.flag("--check") },
            "graph" => Self::Graph {
                suite: options.value("--suite")?.unwrap_or_else(|| graph::SUITE.to_owned()),
                output: options.value("--output")?,
            },
            _ => return Err(Error::Usage(format!("no such verb: `{verb}`"))),
        };
        options.finish()?;
        Ok(parsed)
    }
}

impl Verb {
    fn guest(options: &mut Options, filters: Vec<String>) -> Result<Self, Error> {
        let shell = options.flag("shell");
        let accel = match options.value("--accel")?.as_deref() {
            None | Some("auto") => None,
            Some("kvm") => Some(guest::Accel::Kvm),
            Some("tcg") => Some(guest::Accel::Tcg),
            Some(other) => return Err(Error::Usage(format!("`--accel` takes kvm, tcg or auto, not `{other}`"))),
        };
        let (no_install, debug_kernel) = (options.flag("--no-install"), options.flag("--debug-kernel"));
        if shell && !filters.is_empty() {
            return Err(Error::Usage("`guest shell` takes nothing after `--`".to_owned()));
        }
        let machine = options.value("--machine")?;
        let options = guest::Options { no_install, accel, machine, debug_kernel, filters };
        Ok(if shell { Self::GuestShell(options) } else { Self::Guest(options) })
    }
}

/// The arguments of a verb that no option has taken yet.
struct Options<'a> {
    verb: &'a str,
    left: Vec<String>,
}

impl Options<'_> {
    fn flag(&mut self, name: &str) -> bool {
        let at = self.left.iter().position(|argument| argument == name);
        at.map(|at| self.left.remove(at)).is_some()
    }

    fn value(&mut self, name: &str) -> Result<Option<String>, Error> {
        let Some(at) = self.left.iter().position(|argument| argument == name) else { return Ok(None) };
        if at + 1 == self.left.len() {
            return Err(Error::Usage(format!("`{name}` lacks its value")));
        }
        self.left.remove(at);
        Ok(Some(self.left.remove(at)))
    }

    fn finish(self) -> Result<(), Error> {
        match self.left.first() {
            None => Ok(()),
            Some(argument) => Err(Error::Usage(format!("`{}` does not know `{argument}`", self.verb))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Verb, Error> {
        Verb::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn verbs_and_their_options_are_read() {
        assert_eq!(parse("setup").unwrap(), Verb::Setup { no_install: false });
        assert_eq!(parse("test --no-install").unwrap(), Verb::Test { no_install: true, no_guest: false });
        let options =
            guest::Options { accel: Some(guest::Accel::Tcg), filters: vec!["fork".to_owned()], ..Default::default() };
        assert_eq!(parse("guest --accel tcg -- fork").unwrap(), Verb::Guest(options));
        let rest = vec!["--no-install".to_owned(), "x".to_owned()];
        assert_eq!(parse("demo -- --no-install x").unwrap(), Verb::Demo { no_install: false, rest });
        assert_eq!(parse("shaders --check").unwrap(), Verb::Shaders { check: true });
        assert_eq!(parse("bindings").unwrap(), Verb::Bindings { check: false });
        assert_eq!(parse("bench --check").unwrap(), Verb::CheckBenches);
        let rest = vec!["--quick".to_owned()];
        assert_eq!(parse("bench -- --quick").unwrap(), Verb::Bench { no_install: false, rest });
        let (suite, output) = ("bookworm".to_owned(), Some("/tmp/g".to_owned()));
        assert_eq!(parse("graph --output /tmp/g").unwrap(), Verb::Graph { suite, output });
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for line in [
            "",
            "jump",
            "guest --accel hvf",
            "guest shell -- x",
            "guest --machine",
            "check --no-install",
            "bench --check -- x",
            "demo --fast",
            "test -- x",
            "graph --output",
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains("usage: cargo xtask"), "{line}");
        }
    }
}
