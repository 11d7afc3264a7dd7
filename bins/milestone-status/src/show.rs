//! The answer for people: aligned text.
//!
//! # Invariants
//! - No table is wider than the terminal where it can be folded to fit.
//! - What came from outside (addresses, reasons) cannot play tricks on a terminal.
//! - Ages are relative to a time that is passed in, so the same answer gives the same text.

use std::fmt::Write as _;

use milepost::{
    Timestamp, cli,
    delivery::breaker::{Breaker, Gate},
    text::for_people,
};

use crate::look::{Answer, EndpointStatus, Level, QueueStatus, Waiting};

/// Colours by what they mean (SGR codes).
pub const GOOD: u8 = 32;
pub const MAY_PASS: u8 = 33;
pub const BAD: u8 = 31;
const FAINT: u8 = 2;

/// The whole answer.
pub fn text(answer: &Answer, now: Timestamp, screen: Screen) -> String {
    let mut out = format!("{}: {}\n", screen.level(answer.status), for_people(&answer.logs));
    let journals = answer.journals.iter().map(|it| {
        let last = it.last_record_utc.map_or_else(nothing, |at| ago(at, now));
        [it.journal.clone(), size(it.bytes), last]
    });
    table(&mut out, ["JOURNAL", "BYTES", "LAST RECORD"], journals.collect(), screen, |_, _| None);
    let steps = answer.queues.iter().flat_map(|it| steps(it, now));
    let heading = ["STEP", "BEHIND", "OLDEST WAITING", "LAST ACK", "RETRIES", "DEAD", "BREAKER"];
    table(&mut out, heading, steps.collect(), screen, |column, cell| match (column, cell) {
        (4 | 5, it) if !matches!(it, "0" | "-") => Some(MAY_PASS),
        (6, "closed") => Some(GOOD),
        (6, "open" | "held") => Some(BAD),
        _ => None,
    });
    for (at, problem) in answer.problems.iter().enumerate() {
        let gap = if at == 0 { "\n" } else { "" };
        let _ = writeln!(out, "{gap}{}: {}", screen.level(problem.level), for_people(&problem.message));
    }
    if let Some(errors) = &answer.errors {
        let rows = errors.iter().map(|it| {
            let event = it.idempotency_key.as_deref().unwrap_or("-");
            let cell = |text: &str| for_people(text).into_owned();
            let what = format!("{} {}", it.action, it.outcome);
            [ago(it.at_utc, now), cell(&it.tool), cell(&what), cell(event), cell(&it.reason)]
        });
        let rows: Vec<_> = rows.collect();
        if rows.is_empty() {
            out.push_str("\nno errors\n");
        }
        table(&mut out, ["LAST ERRORS", "TOOL", "WHAT", "EVENT", "REASON"], rows, screen, |_, _| None);
    }
    out
}

/// A picture that takes the place of the one before on a terminal.
pub fn redraw(picture: &str) -> String {
    let mut out = String::from("\u{1b}[H");
    for line in picture.lines() {
        let _ = writeln!(out, "{line}\u{1b}[K");
    }
    out.push_str("\u{1b}[J");
    out
}

/// What an answer is shown on.
#[derive(Clone, Copy)]
pub struct Screen {
    /// Whether it shows colours.
    pub colours: bool,
    /// How wide it is, where it is a terminal.
    pub columns: Option<usize>,
}

impl Screen {
    /// Standard output.
    pub fn of_stdout() -> Screen {
        Screen { colours: cli::colours_on_stdout(), columns: cli::columns_on_stdout() }
    }

    fn level(self, level: Level) -> String {
        let colour = match level {
            Level::Healthy => GOOD,
            Level::Warning => MAY_PASS,
            Level::Critical | Level::Unknown => BAD,
        };
        self.text(level.as_str(), Some(colour))
    }

    /// A text in a colour.
    pub fn text(self, text: &str, colour: Option<u8>) -> String {
        match colour {
            Some(colour) if self.colours && !text.is_empty() => format!("\u{1b}[{colour}m{text}\u{1b}[0m"),
            _ => text.to_owned(),
        }
    }
}

/// The steps into a queue and out of it.
fn steps(queue: &QueueStatus, now: Timestamp) -> Vec<[String; 7]> {
    let step = |name: String, waiting: &Waiting, more: [String; 4]| {
        let oldest = waiting.oldest_waiting_utc.map_or_else(nothing, |at| ago(at, now));
        let [ack, retries, dead, breaker] = more;
        [name, size(waiting.behind_bytes), oldest, ack, retries, dead, breaker]
    };
    let out_of = |it: &EndpointStatus| {
        let endpoint = if it.endpoint.is_empty() { "endpoint" } else { &it.endpoint };
        let ack = it.last_ack_utc.map_or_else(nothing, |at| ago(at, now));
        let more = [ack, it.retries.to_string(), it.dead_letters.to_string(), gate(&it.breaker)];
        step(for_people(&format!("{} > {endpoint}", queue.queue)).into_owned(), &it.waiting, more)
    };
    let into = queue.source.iter().map(|source| {
        let more = [nothing(), nothing(), nothing(), nothing()];
        step(format!("{source} > queue"), &queue.waiting, more)
    });
    into.chain(queue.endpoints.iter().map(out_of)).collect()
}

/// What is between two columns, and before a line that goes on from the one above.
const GAP: usize = 2;

/// Columns as wide as their widest cell, with colours by column and cell; nothing without rows. On a screen that is
/// too narrow for them each row goes on in further lines.
pub fn table<const N: usize>(
    out: &mut String,
    heading: [&str; N],
    rows: Vec<[String; N]>,
    screen: Screen,
    colour: impl Fn(usize, &str) -> Option<u8>,
) {
    if rows.is_empty() {
        return;
    }
    let rows: Vec<[String; N]> = std::iter::once(heading.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|it| it[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    let folds = folds(&widths, screen.columns.unwrap_or(usize::MAX));
    out.push('\n');
    for (at, row) in rows.iter().enumerate() {
        let last = row.iter().rposition(|it| !it.is_empty()).unwrap_or(0);
        for (column, cell) in row.iter().enumerate().take(last + 1) {
            let colour = if at == 0 { Some(FAINT) } else { colour(column, cell) };
            let is_end = column == last || folds[column + 1];
            let gap = if is_end { 0 } else { widths[column] + GAP - cell.chars().count() };
            if folds[column] {
                let _ = write!(out, "\n{:GAP$}", "");
            }
            let _ = write!(out, "{}{:gap$}", screen.text(cell, colour), "");
        }
        out.push('\n');
    }
}

/// Before which columns a row goes on in a new line: none where all fit into one; only the second where the first, which
/// names the row, leaves room when it stands alone; else wherever a line is full.
fn folds<const N: usize>(widths: &[usize; N], columns: usize) -> [bool; N] {
    let mut folds = [false; N];
    let all = widths.iter().map(|it| it + GAP).sum::<usize>() - GAP;
    if all <= columns {
        return folds;
    }
    if all - widths[0] <= columns {
        folds[1] = true;
        return folds;
    }
    let mut end = widths[0];
    for (fold, width) in folds.iter_mut().zip(widths).skip(1) {
        end += GAP + width;
        *fold = end > columns;
        if *fold {
            end = GAP + width;
        }
    }
    folds
}

fn gate(breaker: &Breaker) -> String {
    let word = match breaker.state {
        Gate::Closed => "closed",
        Gate::Open => "open",
        Gate::Held => "held",
    };
    word.to_owned()
}

pub fn nothing() -> String {
    "-".to_owned()
}

/// `512 B`, `1.4 KiB`: cut, not rounded.
fn size(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

/// How long ago `at` was, in its largest unit.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    let (length, is_past) = if at <= now { (now.since(at), true) } else { (at.since(now), false) };
    let length = match length.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    };
    if is_past { format!("{length} ago") } else { format!("in {length}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_cut_to_what_a_glance_takes_in() {
        assert_eq!(
            [0, 1023, 1024, 1535, 3 << 30].map(size),
            ["0 B", "1023 B", "1.0 KiB", "1.4 KiB", "3.0 GiB"]
        );
        let now = Timestamp::from_millis(1_000_000_000_000);
        let ages = [0, 59_999, 60_000, 7_200_000, 200_000_000, -90_000];
        let ages = ages.map(|it| ago(Timestamp::from_millis(now.millis() - it), now));
        assert_eq!(ages, ["0 s ago", "59 s ago", "1 min ago", "2 h ago", "2 d ago", "in 1 min"]);
    }

    #[test]
    fn columns_stand_under_their_headings() {
        let mut out = String::new();
        let rows = vec![["long".into(), "é".into()], ["b".into(), "-".into()]];
        let plain = Screen { colours: false, columns: None };
        table(&mut out, ["A", "LONG"], rows.clone(), plain, |_, _| None);
        assert_eq!(out, "\nA     LONG\nlong  é\nb     -\n");
        let mut coloured = String::new();
        let screen = Screen { colours: true, ..plain };
        table(&mut coloured, ["A", "LONG"], rows, screen, |_, cell| (cell == "b").then_some(GOOD));
        assert_eq!(coloured.lines().nth(3), Some("\u{1b}[32mb\u{1b}[0m     -"));
    }

    #[test]
    fn a_table_is_folded_to_fit_the_terminal() {
        let shown = |columns| {
            let mut out = String::new();
            let rows = vec![["source > queue".into(), "7 B".into(), "-".into(), "closed".into()]];
            let screen = Screen { colours: false, columns: Some(columns) };
            table(&mut out, ["STEP", "BEHIND", "DEAD", "BREAKER"], rows, screen, |_, _| None);
            out
        };
        let wide = "\nSTEP            BEHIND  DEAD  BREAKER\nsource > queue  7 B     -     closed\n";
        assert_eq!(shown(37), wide);
        let folded = "\nSTEP\n  BEHIND  DEAD  BREAKER\nsource > queue\n  7 B     -     closed\n";
        assert_eq!(shown(36), folded);
        let narrow = "\nSTEP\n  BEHIND  DEAD\n  BREAKER\nsource > queue\n  7 B     -\n  closed\n";
        assert_eq!(shown(20), narrow);
    }
}
