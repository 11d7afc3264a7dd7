//! Which settings the tools would find here, where each comes from, and what is wrong with them.
//!
//! # Invariants
//! - No secret is shown, nor anything of it; nor who an address names before its host.
//! - What flags would say is not known here: each value says which flag overrides it.

use std::{env, fmt::Write as _, fs, os::unix::fs::PermissionsExt, path::Path};

use milepost::{
    audit::seal::{AUDIT_KEY, AUDIT_KEY_PREVIOUS},
    delivery::{Consumer, State},
    inventory,
    logs::{Logs, ROTATE_BYTES},
    secret::SecretSource,
    state_file::{self, Loaded},
    text::{for_people, without_userinfo},
    units::Size,
};
use serde::Serialize;

use crate::show::{BAD, GOOD, Screen, nothing, table};

/// Every variable of ours; docs/CONFIG.md says what each is.
const VARIABLES: [&str; 7] = [
    "MILESTONE_LOGS",
    "MILESTONE_ROTATE_BYTES",
    "MILESTONE_INGEST_URL",
    "MILESTONE_REMINDER_URL",
    "MILESTONE_SCOPE",
    "CLAWDBOT_MILESTONE_WEBHOOK_SECRET",
    "CLAWDBOT_MILESTONE_WEBHOOK_SECRET_PREVIOUS",
];

/// Whether anything is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    Wrong,
}

/// All settings.
#[derive(Debug, Serialize)]
pub struct Config {
    pub status: Status,
    pub values: Vec<Setting>,
}

/// One setting.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    /// What it is.
    pub name: String,
    /// What the tools would go by; none when it is not set.
    pub value: Option<String>,
    /// Where that comes from; none when it is not set.
    pub from: Option<String>,
    /// Where it can be set, what decides first.
    pub set_by: Vec<String>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

impl Config {
    /// What is found in the environment and the logs folder.
    pub fn found(logs: Option<&Path>, tool: &'static str) -> Config {
        let mut values = vec![folder(logs), rotation()];
        values.push(address("milestones are sent to", "MILESTONE_INGEST_URL"));
        values.push(address("reminders are sent to", "MILESTONE_REMINDER_URL"));
        values.push(secret("secret", &SecretSource::WEBHOOK));
        values.push(secret("secret before this one", &SecretSource::WEBHOOK_PREVIOUS));
        values.push(secret("key of the audit's seals", &AUDIT_KEY));
        values.push(secret("key before this one", &AUDIT_KEY_PREVIOUS));
        values.extend(misspelt());
        if let Ok(logs) = Logs::open(logs, tool) {
            values.extend(endpoints(&logs));
        }
        let is_wrong = values.iter().any(|it| it.problem.is_some());
        Config { status: if is_wrong { Status::Wrong } else { Status::Ok }, values }
    }

    /// The same for people.
    pub fn text(&self, screen: Screen) -> String {
        let word = match self.status {
            Status::Ok => screen.text("ok", Some(GOOD)),
            Status::Wrong => screen.text("wrong", Some(BAD)),
        };
        let mut out = format!("{word}\n");
        let rows = self.values.iter().map(|it| {
            let cell = |text: &str| for_people(text).into_owned();
            let value = it.value.as_deref().map_or_else(|| "not set".to_owned(), cell);
            [cell(&it.name), value, it.from.as_deref().map_or_else(nothing, cell), it.set_by.join(", ")]
        });
        table(&mut out, ["SETTING", "VALUE", "FROM", "SET BY"], rows.collect(), screen, |_, _| None);
        for (at, problem) in self.values.iter().filter_map(|it| it.problem.as_deref()).enumerate() {
            let gap = if at == 0 { "\n" } else { "" };
            let _ = writeln!(out, "{gap}{}: {}", screen.text("wrong", Some(BAD)), for_people(problem));
        }
        out
    }
}

/// An environment variable that is set and not empty.
fn variable(name: &str) -> Option<String> {
    env::var_os(name).filter(|it| !it.is_empty()).map(|it| it.to_string_lossy().into_owned())
}

/// Variables that look like one of ours and are none: whoever set them meant something.
fn misspelt() -> Vec<Setting> {
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let ours = names.filter(|it| ["MILESTONE_", "CLAWDBOT_"].iter().any(|prefix| it.starts_with(prefix)));
    let unknown = ours.filter(|it| !VARIABLES.contains(&it.as_str()));
    let meant = |name: String| {
        let known = milepost::text::nearest(&name, VARIABLES)?;
        let problem = Some(format!("${name} is read by nobody; is ${known} meant?"));
        Some(Setting { name: format!("${name}"), value: None, from: None, set_by: Vec::new(), problem })
    };
    unknown.filter_map(meant).collect()
}

fn folder(flag: Option<&Path>) -> Setting {
    let dir = Logs::choose(flag);
    let from = match (flag, variable("MILESTONE_LOGS")) {
        (Some(_), _) => "--logs",
        (None, Some(_)) => "$MILESTONE_LOGS",
        (None, None) => "default",
    };
    let problem = match fs::metadata(&dir) {
        Ok(it) if !it.is_dir() => Some(format!("{} is no folder", dir.display())),
        Ok(it) if it.permissions().mode() & 0o002 != 0 => {
            Some(format!("{} can be written to by everybody (chmod o-w)", dir.display()))
        }
        Ok(_) => None,
        Err(cause) => Some(format!("{}: {cause}; milestone-status --init creates it", dir.display())),
    };
    let value = Some(dir.display().to_string());
    let set_by = vec!["--logs".to_owned(), "$MILESTONE_LOGS".to_owned()];
    Setting { name: "logs folder".into(), value, from: Some(from.into()), set_by, problem }
}

fn rotation() -> Setting {
    const VARIABLE: &str = "MILESTONE_ROTATE_BYTES";
    let (value, from, problem) = match variable(VARIABLE) {
        None => (format!("{} MiB", ROTATE_BYTES >> 20), "default".to_owned(), None),
        Some(text) => {
            let problem = text.parse::<Size>().err().map(|why| format!("${VARIABLE} {why}"));
            (text, format!("${VARIABLE}"), problem)
        }
    };
    let set_by = vec!["--rotate-bytes".to_owned(), format!("${VARIABLE}")];
    Setting { name: "journals rotate at".into(), value: Some(value), from: Some(from), set_by, problem }
}

fn address(name: &str, from: &str) -> Setting {
    let url = variable(from);
    let host =
        url.as_deref().and_then(|it| it.split_once("://")).map(|(scheme, rest)| (scheme, host_of(rest)));
    let problem = match (&url, host) {
        (None, _) => None,
        // As milestone-deliver sees them: wherever they stand before the path.
        (Some(url), _) if without_userinfo(url) != *url => {
            Some(format!("${from} has credentials in the URL; milestone-deliver refuses it"))
        }
        (Some(_), Some(("https", host))) if !host.is_empty() => None,
        (Some(_), Some(("http", host))) if is_loopback(host) => None,
        (Some(_), Some(("http", host))) if !host.is_empty() => {
            Some(format!("${from} is plain http to {host}; milestone-deliver needs --allow-http for it"))
        }
        (Some(_), _) => Some(format!("${from} is no http or https address")),
    };
    let value = url.as_deref().map(without_userinfo);
    let set_by = vec!["--url".to_owned(), format!("${from}")];
    Setting { name: name.into(), from: value.is_some().then(|| format!("${from}")), value, set_by, problem }
}

/// The host of what stands behind `://`; empty where that is no host and port.
fn host_of(rest: &str) -> &str {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let (name, behind) = match host.strip_prefix('[').and_then(|it| it.split_once(']')) {
        Some(both) => both,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = |it: &str| it.parse::<u16>().is_ok_and(|it| it > 0);
    let is_whole = behind.is_empty() || behind.strip_prefix(':').is_some_and(is_port);
    if is_whole { name } else { "" }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|it| it.is_loopback())
}

fn secret(name: &str, source: &SecretSource<'static>) -> Setting {
    let (value, from, problem) = match source.load_optional(None, false) {
        Ok(Some(it)) => (Some("hidden".to_owned()), Some(it.origin().to_string()), None),
        Ok(None) => (None, None, None),
        Err(error) => (None, Some(error.place().to_owned()), Some(error.to_string())),
    };
    let credential = format!("$CREDENTIALS_DIRECTORY/{}", source.credential);
    let variable = source.variable.map(|it| format!("${it}"));
    let set_by = source.flag.map(str::to_owned).into_iter().chain([credential]).chain(variable).collect();
    Setting { name: name.into(), value, from, set_by, problem }
}

/// Where each endpoint was sent to last.
fn endpoints(logs: &Logs) -> Vec<Setting> {
    let queues = inventory::journals(logs).unwrap_or_default().into_iter().filter(|it| it.stem().is_some());
    let mut found = Vec::new();
    for queue in queues {
        for endpoint in inventory::endpoints(logs, &queue, "state", ".json").unwrap_or_default() {
            let Ok(consumer) = Consumer::new(logs, queue.clone(), &endpoint) else { continue };
            let (value, problem) = match state_file::load::<State>(logs, &consumer.state_file()) {
                Ok(Loaded::Found(it)) => (it.url.as_deref().map(without_userinfo), None),
                Ok(Loaded::Missing) => (None, None),
                Ok(Loaded::Damaged(why)) => (None, Some(why)),
                Err(error) => (None, Some(error.to_string())),
            };
            let to = if endpoint.is_empty() { String::new() } else { format!(" > {endpoint}") };
            found.push(Setting {
                name: format!("{}{to} was sent to", queue.file()),
                value,
                from: Some(consumer.state_file()),
                set_by: Vec::new(),
                problem,
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_from_what_stands_around_them() {
        let hosts = ["127.0.0.1:8787/x", "[::1]:8787", "u@a.example/x"].map(host_of);
        assert_eq!(hosts, ["127.0.0.1", "::1", "a.example"]);
        assert!(is_loopback("127.0.0.1") && is_loopback("::1") && !is_loopback("a.example"));
    }
}
