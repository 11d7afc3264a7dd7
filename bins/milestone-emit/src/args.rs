//! The command line of milestone-emit, and the event that its flags describe.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};
use milepost::{Error, Kind, Result, event::Evidence, units::Size};
use serde_json::{Map, Value};

/// Append milestones to the journal: one by flags, or one JSON document a line from files or stdin.
///
/// A milestone is appended once for its id: the same again is a duplicate (success), the same id with other
/// content is a conflict. Without --id an id is made from scope, time and content; only an id of your own makes
/// it safe to run the same command again.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    example = "{command_name} --id nightly.2026-03-01 --scope runtime --claim \"Nightly batch ran.\" \\\n    --evidence type=log,path=/var/log/nightly.log,summary=\"exit 0\" \\\n    --risk on-track --next \"Watch the next run.\"\njq -c '.[]' milestones.json | {command_name} -\n{command_name} --dry-run milestones.jsonl",
    error_code(2, "an id is there with other content"),
    error_code(65, "some input is no valid milestone, or the journal was truncated, replaced or rewritten")
)]
pub struct Args {
    /// logs folder (default: `$MILESTONE_LOGS`, else ./logs)
    #[argh(option, arg_name = "DIR")]
    pub logs: Option<PathBuf>,

    /// id of the milestone, 1 to 200 characters; makes running the same command again safe
    #[argh(option, arg_name = "ID")]
    pub id: Option<String>,

    /// what it belongs to, such as runtime or billing
    #[argh(option, arg_name = "SCOPE")]
    pub scope: Option<String>,

    /// what has been reached
    #[argh(option, arg_name = "TEXT")]
    pub claim: Option<String>,

    /// what proves it: type=log,path=…,summary=…[,ref=…] with a type of doc, commit, issue, pr, runbook, metric or log;
    /// may be given several times
    #[argh(option, arg_name = "PROOF")]
    pub evidence: Vec<String>,

    /// how it stands
    #[argh(option, arg_name = "on-track|at-risk|blocked|completed")]
    pub risk: Option<String>,

    /// what happens next
    #[argh(option, arg_name = "TEXT")]
    pub next: Option<String>,

    /// who reports (default: operator)
    #[argh(option, arg_name = "orchestrator|agent|operator")]
    pub source: Option<String>,

    /// when it was reached, RFC 3339 in UTC (default: now)
    #[argh(option, arg_name = "TIME")]
    pub timestamp: Option<String>,

    /// judge the input and write nothing
    #[argh(switch)]
    pub dry_run: bool,

    /// append all of the input or, when any of it is refused, nothing
    #[argh(switch)]
    pub all_or_nothing: bool,

    /// whether evidence must be there (default: warn)
    #[argh(option, arg_name = "off|warn|require", default = "VerifyEvidence::Warn")]
    pub verify_evidence: VerifyEvidence,

    /// folder that evidence paths are relative to
    #[argh(option, arg_name = "DIR")]
    pub evidence_root: Option<PathBuf>,

    /// size at which a journal begins a new file (default: `$MILESTONE_ROTATE_BYTES`, else 64MiB)
    #[argh(option, arg_name = "SIZE")]
    pub rotate_bytes: Option<Size>,

    /// say nothing about success; errors stay
    #[argh(switch, short = 'q')]
    pub quiet: bool,

    /// input with one JSON document a line, or - for stdin
    #[argh(positional, arg_name = "FILE")]
    pub files: Vec<String>,
}

/// What `--verify-evidence` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyEvidence {
    Off,
    Warn,
    Require,
}

impl std::str::FromStr for VerifyEvidence {
    type Err = String;

    fn from_str(word: &str) -> Result<VerifyEvidence, String> {
        match word {
            "off" => Ok(VerifyEvidence::Off),
            "warn" => Ok(VerifyEvidence::Warn),
            "require" => Ok(VerifyEvidence::Require),
            _ => Err("is not off, warn or require".to_owned()),
        }
    }
}

/// The fields of a milestone, each with the flag that gives it.
pub const FIELDS: [(&str, &str); 8] = [
    ("milestoneId", "--id"),
    ("timestampUtc", "--timestamp"),
    ("scope", "--scope"),
    ("claim", "--claim"),
    ("evidence", "--evidence"),
    ("riskStatus", "--risk"),
    ("nextAction", "--next"),
    ("source", "--source"),
];

impl Args {
    /// The document that the flags describe; `None` when no flag describes any.
    ///
    /// # Errors
    /// A usage error for an `--evidence` of another form, or for flags together with files.
    pub fn event(&self) -> Result<Option<Value>> {
        let texts = [
            ("milestoneId", &self.id),
            ("timestampUtc", &self.timestamp),
            ("scope", &self.scope),
            ("claim", &self.claim),
            ("riskStatus", &self.risk),
            ("nextAction", &self.next),
            ("source", &self.source),
        ];
        if texts.iter().all(|(_, text)| text.is_none()) && self.evidence.is_empty() {
            return Ok(None);
        }
        if !self.files.is_empty() {
            return Err(Error::new(
                Kind::Usage,
                "",
                "a milestone by flags and input files do not go together",
            )
            .cure("give either"));
        }
        let mut document = Map::new();
        for (name, text) in texts {
            if let Some(text) = text {
                document.insert(name.to_owned(), Value::from(text.as_str()));
            }
        }
        if !self.evidence.is_empty() {
            let parse = |flag: &String| {
                Evidence::from_flag(flag).map_err(|it| Error::new(Kind::Usage, "--evidence", it))
            };
            let evidence: Vec<Value> = self.evidence.iter().map(parse).collect::<Result<_>>()?;
            document.insert("evidence".to_owned(), Value::from(evidence));
        }
        Ok(Some(Value::Object(document)))
    }
}
