//! Command lines as people write them, brought into the one form that argh reads.
//!
//! argh takes `--option value` and nothing else. People also write `--option=value`, `-n5`, `-qn 5`, `-` for
//! standard input and `--` before what is no option. So the words are walked here, with the help of argh's
//! own table of flags, and argh gets: options by their long names, `--`, positional arguments.
//!
//! # Invariants
//! - An option never takes a word for its value that reads like another option: `--claim --dry-run` is an
//!   error, `--claim=--dry-run` is not. (A claim "--dry-run" in a journal would be there for ever.)
//! - `help` is a word like any other; help is `-h` (short) and `--help` (long).
//! - Every error is one line, of kind `Usage`, and names the nearest flag where there is one.
//!
//! Not here: what the help says (`help`), what a value means (the tools' own types, through `FromStr`).

use std::ffi::OsString;

use argh::{ArgsInfo, CommandInfoWithArgs, FlagInfo, FlagInfoKind, TopLevelCommand};

use super::help::Length;
use crate::{Error, Kind, Result, text};

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request<A> {
    Run(A),
    Help(Length),
    /// The definition as JSON, for programs that make man pages and completions.
    Definition,
    Version,
}

/// The command line in argh's form.
#[derive(Debug, Default, PartialEq, Eq)]
struct Words {
    /// Long names of flags, each option's followed by its value.
    options: Vec<String>,
    positionals: Vec<String>,
}

/// Reads the arguments after the program's name.
pub(super) fn parse<A>(tool: &str, arguments: impl Iterator<Item = OsString>) -> Result<Request<A>>
where
    A: TopLevelCommand + ArgsInfo,
{
    let info = A::get_args_info();
    let request = decoded(arguments).and_then(|it| normalised(&info, &it)).and_then(|it| match it {
        Request::Run(words) => from_words(tool, &info, &words).map(Request::Run),
        Request::Help(length) => Ok(Request::Help(length)),
        Request::Definition => Ok(Request::Definition),
        Request::Version => Ok(Request::Version),
    });
    request.map_err(|(what, hint)| {
        let hint = hint.map_or_else(String::new, |it| format!("{it}? "));
        let see = if hint.is_empty() { "see" } else { "See" };
        Error::new(Kind::Usage, "", what).cure(format!("{hint}{see} {tool} --help"))
    })
}

/// What is wrong with a command line, and a question that may help.
type Wrong = (String, Option<String>);

fn wrong<T>(what: String) -> Result<T, Wrong> {
    Err((what, None))
}

fn decoded(arguments: impl Iterator<Item = OsString>) -> Result<Vec<String>, Wrong> {
    (1..)
        .zip(arguments)
        .map(|(number, it)| {
            it.into_string().or_else(|it| {
                let shown = it.as_encoded_bytes().escape_ascii();
                wrong(format!("argument {number} is not valid UTF-8: \"{shown}\""))
            })
        })
        .collect()
}

fn normalised(info: &CommandInfoWithArgs, arguments: &[String]) -> Result<Request<Words>, Wrong> {
    let mut words = Words::default();
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        if word == "--" {
            words.positionals.extend(rest.by_ref().cloned());
        } else if word.starts_with("--") {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.as_str(), None),
            };
            match (name, value) {
                ("--help", None) => return Ok(Request::Help(Length::Long)),
                ("--help", Some("json")) => return Ok(Request::Definition),
                ("--version", None) => return Ok(Request::Version),
                ("--help" | "--version", Some(_)) => return wrong(format!("{name} takes no value")),
                _ => {}
            }
            let flag = info.flags.iter().find(|it| it.long == name).ok_or_else(|| unknown(info, name))?;
            words.add(info, flag, name, value, &mut rest)?;
        } else if word.len() > 1 && word.starts_with('-') {
            let mut letters = &word[1..];
            while let Some(letter) = letters.chars().next() {
                letters = &letters[letter.len_utf8()..];
                match letter {
                    'h' => return Ok(Request::Help(Length::Short)),
                    'V' => return Ok(Request::Version),
                    _ => {}
                }
                let flag = info
                    .flags
                    .iter()
                    .find(|it| it.short == Some(letter))
                    .ok_or_else(|| unknown_letter(info, word, letter))?;
                let is_switch = matches!(flag.kind, FlagInfoKind::Switch);
                // `-n=5` means 5, not "=5"; and a switch must hear of a value to refuse it.
                let value = match letters.strip_prefix('=') {
                    Some(value) => Some(value),
                    None => Some(letters).filter(|it| !is_switch && !it.is_empty()),
                };
                words.add(info, flag, &format!("-{letter}"), value, &mut rest)?;
                if value.is_some() {
                    break;
                }
            }
        } else {
            words.positionals.push(word.clone());
        }
    }
    Ok(Request::Run(words))
}

impl Words {
    /// Adds `flag`, written as `name`, with the attached value or the next word as its value.
    fn add<'a>(
        &mut self,
        info: &CommandInfoWithArgs,
        flag: &FlagInfo<'_>,
        name: &str,
        attached: Option<&str>,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), Wrong> {
        self.options.push(flag.long.to_owned());
        if matches!(flag.kind, FlagInfoKind::Switch) {
            return if attached.is_some() { wrong(format!("{name} takes no value")) } else { Ok(()) };
        }
        let value = match attached {
            Some(value) => value,
            None => match rest.next() {
                None => return wrong(format!("{name} needs a value")),
                Some(word) if word == "--" => return wrong(format!("{name} needs a value before --")),
                Some(word) => match meant_as_option(info, word) {
                    None => word,
                    Some(option) => {
                        let what = if word == option {
                            format!("{name} needs a value, but {option} is an option")
                        } else {
                            format!("{name} needs a value, but {} reads like {option}", shown(word))
                        };
                        let instead = format!("did you mean {}={}", flag.long, shown(word));
                        return Err((what, Some(instead)));
                    }
                },
            },
        };
        self.options.push(value.to_owned());
        Ok(())
    }
}

/// The flag that `word` would be if it did not stand where a value is due; misspelt ones too.
fn meant_as_option<'a>(info: &'a CommandInfoWithArgs, word: &str) -> Option<&'a str> {
    if word.starts_with("--") {
        let name = word.split_once('=').map_or(word, |(name, _)| name);
        return text::nearest(name, long_names(info));
    }
    let mut letters = word.strip_prefix('-')?.chars();
    let (letter, None) = (letters.next()?, letters.next()) else { return None };
    info.flags.iter().find(|it| it.short == Some(letter)).map(|it| it.long)
}

fn long_names(info: &CommandInfoWithArgs) -> impl Iterator<Item = &'static str> {
    info.flags.iter().filter(|it| !it.hidden).map(|it| it.long).chain(["--help", "--version"])
}

fn unknown(info: &CommandInfoWithArgs, name: &str) -> Wrong {
    let nearest = text::nearest(name, long_names(info)).map(|it| format!("did you mean {it}"));
    (format!("unknown option {}", shown(name)), nearest)
}

/// `-scope` is more often a forgotten dash than five short options.
fn unknown_letter(info: &CommandInfoWithArgs, word: &str, letter: char) -> Wrong {
    let (name, _) = word.split_once('=').unwrap_or((word, ""));
    if name.chars().count() > 2
        && let (what, Some(nearest)) = unknown(info, name)
    {
        return (what, Some(nearest));
    }
    (format!("unknown option {}", shown(&format!("-{letter}"))), None)
}

/// A word in a message: as it is when it is a plain one, else quoted and cut.
fn shown(word: &str) -> String {
    if word.len() <= 80 && word.bytes().all(|it| it.is_ascii_graphic()) {
        word.to_owned()
    } else {
        text::quoted(word)
    }
}

fn from_words<A: TopLevelCommand>(tool: &str, info: &CommandInfoWithArgs, words: &Words) -> Result<A, Wrong> {
    let mut all: Vec<&str> = words.options.iter().map(String::as_str).collect();
    // Behind `--` a word `help` is no request for help, and a name may begin with a dash.
    all.push("--");
    all.extend(words.positionals.iter().map(String::as_str));
    A::from_args(&[tool], &all).map_err(|it| (explained(info, words, &it.output), None))
}

/// argh's complaint as one line. Its beginning is compared whole, since a value may hold anything.
fn explained(info: &CommandInfoWithArgs, words: &Words, output: &str) -> String {
    for pair in words.options.windows(2) {
        let [name, value] = pair else { continue };
        if let Some(why) =
            output.strip_prefix(&format!("Error parsing option '{name}' with value '{value}': "))
        {
            return match why.trim_end() {
                "duplicate values provided" => format!("{name} is given twice"),
                why => about_value(name, value, why),
            };
        }
    }
    for value in &words.positionals {
        for positional in info.positionals {
            let name = positional.name;
            let start = format!("Error parsing positional argument '{name}' with value '{value}': ");
            if let Some(why) = output.strip_prefix(&start) {
                return about_value(name, value, why.trim_end());
            }
        }
        if output.strip_prefix("Unrecognized argument: ").is_some_and(|it| it.trim_end_matches('\n') == value)
        {
            return format!("unexpected argument {}", text::quoted(value));
        }
    }
    let missing: Vec<&str> = output.lines().filter_map(|it| it.strip_prefix("    ")).collect();
    if missing.is_empty() {
        output.split_whitespace().collect::<Vec<&str>>().join(" ")
    } else {
        format!("missing {}", missing.join(", "))
    }
}

/// Some types' errors show the value; the standard library's do not, and speak of its own affairs.
fn about_value(name: &str, value: &str, why: &str) -> String {
    let why = match why {
        "invalid digit found in string" | "cannot parse integer from empty string" => "is no whole number",
        "number too large to fit in target type" => "is too large a number",
        why => why,
    };
    let quoted = text::quoted(value);
    if why.contains(&quoted) { format!("{name}: {why}") } else { format!("{name} {quoted}: {why}") }
}

#[cfg(test)]
mod tests {
    use argh::FromArgs;

    use super::*;

    /// A tool.
    #[derive(FromArgs, ArgsInfo, Debug, Default, PartialEq)]
    struct Args {
        /// follow
        #[argh(switch, short = 'f')]
        follow: bool,
        /// quiet
        #[argh(switch, short = 'q')]
        quiet: bool,
        /// validate only
        #[argh(switch)]
        dry_run: bool,
        /// how many
        #[argh(option, short = 'n')]
        lines: Option<u32>,
        /// a text
        #[argh(option, short = 's')]
        scope: Option<String>,
        /// texts
        #[argh(option)]
        evidence: Vec<String>,
        /// how long
        #[argh(option)]
        timeout: Option<crate::units::DurationArg>,
        /// files
        #[argh(positional)]
        files: Vec<String>,
    }

    /// A tool with things required.
    #[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
    struct Strict {
        /// a text
        #[argh(option)]
        task: String,
        /// a text
        #[argh(option)]
        scope: String,
        /// a number
        #[argh(positional)]
        count: u32,
    }

    fn request<A: TopLevelCommand + ArgsInfo>(words: &[&str]) -> Result<Request<A>, String> {
        parse("tool", words.iter().map(OsString::from)).map_err(|it| {
            assert_eq!(it.kind(), Kind::Usage);
            it.to_string()
        })
    }

    fn args(words: &[&str]) -> Args {
        match request(words) {
            Ok(Request::Run(args)) => args,
            other => panic!("{words:?} gave {other:?}"),
        }
    }

    fn error(words: &[&str]) -> String {
        request::<Args>(words).unwrap_err()
    }

    #[test]
    fn a_value_may_be_attached_or_follow() {
        for words in [
            &["--scope", "a=b", "--lines", "5"][..],
            &["--scope=a=b", "--lines=5"],
            &["-s", "a=b", "-n", "5"],
            &["-sa=b", "-n5"],
            &["-s=a=b", "-n=5"],
        ] {
            assert_eq!(
                args(words),
                Args { scope: Some("a=b".into()), lines: Some(5), ..Args::default() },
                "{words:?}"
            );
        }
        assert_eq!(args(&["--scope="]).scope.as_deref(), Some(""));
        assert_eq!(args(&["--scope", ""]).scope.as_deref(), Some(""));
        assert_eq!(args(&["--scope", "help"]).scope.as_deref(), Some("help"));
    }

    #[test]
    fn short_options_combine() {
        let wanted = Args { follow: true, quiet: true, lines: Some(20), ..Args::default() };
        for words in [&["-fqn20"][..], &["-fqn", "20"], &["-fq", "-n20"], &["-qfn=20"]] {
            assert_eq!(args(words), wanted, "{words:?}");
        }
    }

    #[test]
    fn a_value_may_begin_with_a_dash() {
        assert_eq!(args(&["--scope", "-"]).scope.as_deref(), Some("-"));
        assert_eq!(args(&["--scope", "-> next"]).scope.as_deref(), Some("-> next"));
        assert_eq!(args(&["--scope", "-5"]).scope.as_deref(), Some("-5"));
        assert_eq!(args(&["--scope=--dry-run"]).scope.as_deref(), Some("--dry-run"));
        assert_eq!(args(&["--scope=--"]).scope.as_deref(), Some("--"));
        assert_eq!(args(&["--scope=--help"]).scope.as_deref(), Some("--help"));
        assert_eq!(args(&["-s--dry-run"]).scope.as_deref(), Some("--dry-run"));
    }

    #[test]
    fn an_option_does_not_swallow_another() {
        assert_eq!(
            error(&["--scope", "--dry-run"]),
            "--scope needs a value, but --dry-run is an option; did you mean --scope=--dry-run? See tool --help"
        );
        for swallowed in ["--dryrun", "--lines=5", "--help", "--version", "-f", "-n"] {
            assert!(error(&["--scope", swallowed]).starts_with("--scope needs a value, but "), "{swallowed}");
        }
        assert_eq!(error(&["-s", "--", "x"]), "-s needs a value before --; see tool --help");
        assert_eq!(error(&["--scope"]), "--scope needs a value; see tool --help");
    }

    #[test]
    fn a_dash_alone_is_an_argument_and_two_end_the_options() {
        assert_eq!(args(&["-"]).files, ["-"]);
        assert_eq!(args(&["a", "-q", "-"]).files, ["a", "-"]);
        assert!(args(&["a", "-q", "-"]).quiet);
        assert_eq!(args(&["--", "--quiet", "-n", "--", "-h"]).files, ["--quiet", "-n", "--", "-h"]);
        assert_eq!(args(&["help"]).files, ["help"]);
    }

    #[test]
    fn repeatable_options_repeat_and_others_do_not() {
        assert_eq!(args(&["--evidence=a", "--evidence", "b"]).evidence, ["a", "b"]);
        assert_eq!(error(&["--scope=a", "-s", "b"]), "--scope is given twice; see tool --help");
        assert!(args(&["-qq", "--quiet"]).quiet);
    }

    #[test]
    fn help_and_version_are_asked_for_by_options_only() {
        for words in [&["-h"][..], &["--help"], &["-qh"], &["x", "--help", "--bogus"]] {
            assert!(matches!(request::<Args>(words), Ok(Request::Help(_))), "{words:?}");
        }
        assert_eq!(request::<Strict>(&["--version"]), Ok(Request::Version), "nothing else is required then");
        assert_eq!(request::<Strict>(&["-V"]), Ok(Request::Version));
        assert_eq!(request::<Strict>(&["--help=json"]), Ok(Request::Definition));
        assert_eq!(request::<Args>(&["-h"]), Ok(Request::Help(Length::Short)));
        assert_eq!(request::<Args>(&["--help"]), Ok(Request::Help(Length::Long)));
        assert_eq!(error(&["--help=yes"]), "--help takes no value; see tool --help");
    }

    #[test]
    fn an_unknown_option_names_the_nearest() {
        assert_eq!(error(&["--scpoe", "x"]), "unknown option --scpoe; did you mean --scope? See tool --help");
        assert_eq!(
            error(&["--dry_run"]),
            "unknown option --dry_run; did you mean --dry-run? See tool --help"
        );
        assert_eq!(error(&["--Scope=x"]), "unknown option --Scope; did you mean --scope? See tool --help");
        assert_eq!(
            error(&["-evidence", "x"]),
            "unknown option -evidence; did you mean --evidence? See tool --help"
        );
        assert_eq!(error(&["-x"]), "unknown option -x; see tool --help");
        assert_eq!(error(&["--colour"]), "unknown option --colour; see tool --help");
        assert_eq!(
            error(&["--verison"]),
            "unknown option --verison; did you mean --version? See tool --help"
        );
        assert_eq!(error(&["-é"]), "unknown option \"-é\"; see tool --help");
    }

    #[test]
    fn a_switch_takes_no_value() {
        assert_eq!(error(&["--quiet=yes"]), "--quiet takes no value; see tool --help");
        assert_eq!(error(&["-q=yes"]), "-q takes no value; see tool --help");
    }

    #[test]
    fn a_bad_value_is_shown_once_with_the_reason() {
        assert_eq!(error(&["-n", "x"]), "--lines \"x\": is no whole number; see tool --help");
        assert_eq!(
            error(&["--timeout=5"]),
            "--timeout \"5\": has no unit: write 5ms, 5s, 5m, 5h or 5d; see tool --help"
        );
    }

    #[test]
    fn what_is_missing_or_too_much_is_one_line() {
        let error = |words: &[&str]| request::<Strict>(words).unwrap_err();
        assert_eq!(error(&[]), "missing count, --task, --scope; see tool --help");
        assert_eq!(error(&["--task=a", "1"]), "missing --scope; see tool --help");
        assert_eq!(error(&["x"]), "count \"x\": is no whole number; see tool --help");
        assert_eq!(error(&["1", "a b"]), "unexpected argument \"a b\"; see tool --help");
    }

    #[test]
    fn what_is_no_text_is_shown_escaped() {
        use std::os::unix::ffi::OsStringExt;
        let words = [OsString::from("-q"), OsString::from_vec(b"caf\xe9".to_vec())];
        let error = parse::<Args>("tool", words.into_iter()).unwrap_err();
        assert_eq!(error.to_string(), "argument 2 is not valid UTF-8: \"caf\\xe9\"; see tool --help");
    }
}
