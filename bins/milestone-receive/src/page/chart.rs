//! Milestones a day by risk status, as inline SVG: shape and colour only, the numbers stand in its description.
//!
//! # Invariants
//! - Nothing of an event is in it, only counts.

use std::fmt::{self, Write as _};

use milepost::Timestamp;

use super::times::day_in_words;
use crate::{feed::Days, query};

/// Days that are shown, today the last.
const DAYS: i64 = 30;
/// In units of the drawing.
const WIDTH: i64 = 20;
const GAP: i64 = 4;
const HEIGHT: u64 = 56;

/// Writes the chart; nothing when no day of it has a milestone.
pub fn write(html: &mut String, days: &Days, now: Timestamp) -> fmt::Result {
    let today = Days::day_of(now);
    let shown: Vec<(i64, [u64; 4])> = (today - DAYS + 1..=today).map(|day| (day, days.of(day))).collect();
    let total = |counts: &[u64; 4]| counts.iter().sum::<u64>();
    let most = shown.iter().map(|it| total(&it.1)).max().unwrap_or(0);
    let all: u64 = shown.iter().map(|it| total(&it.1)).sum();
    if most == 0 {
        return Ok(());
    }
    write!(
        html,
        "<figure id=\"chart\" class=\"chart\">\n<svg viewBox=\"0 0 {} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{all} milestones in the last {DAYS} days, at most {most} a day\">\n",
        DAYS * WIDTH - GAP,
    )?;
    for (at, (day, counts)) in (0..).zip(&shown) {
        let x = at * WIDTH;
        let width = WIDTH - GAP;
        // A day without any keeps its place, so that a pause shows.
        if total(counts) == 0 {
            writeln!(
                html,
                "<rect class=\"none\" x=\"{x}\" y=\"{}\" width=\"{width}\" height=\"1\"/>",
                HEIGHT - 1
            )?;
            continue;
        }
        write!(html, "<g><title>{}: {}</title>", day_in_words(Days::start_of(*day)), in_words(counts))?;
        let mut below = HEIGHT;
        // What is finished at the bottom, what needs somebody on top.
        for risk in [3, 0, 1, 2] {
            if counts[risk] == 0 {
                continue;
            }
            // However few, they show; however many others there are.
            let height = (counts[risk] * (HEIGHT - 8)).div_ceil(most).max(2);
            below = below.saturating_sub(height);
            let slug = query::RISKS[risk].1;
            write!(
                html,
                "<rect class=\"{slug}\" x=\"{x}\" y=\"{below}\" width=\"{width}\" height=\"{height}\"/>"
            )?;
        }
        html.push_str("</g>\n");
    }
    writeln!(html, "</svg>\n<figcaption>{all} in the last {DAYS} days</figcaption>\n</figure>")
}

fn in_words(counts: &[u64; 4]) -> String {
    let parts = query::RISKS.iter().zip(counts).filter(|it| *it.1 > 0);
    parts.map(|(risk, count)| format!("{count} {}", risk.2.to_lowercase())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use milepost::event::RiskStatus;

    use super::*;

    #[test]
    fn a_day_is_a_bar_with_its_numbers_in_words() {
        let now = Timestamp::parse_utc("2026-03-30T12:00Z").unwrap();
        let mut days = Days::default();
        let mut chart = String::new();
        write(&mut chart, &days, now).unwrap();
        assert_eq!(chart, "");
        for (time, risk) in [
            ("2026-03-30T00:00Z", RiskStatus::Blocked),
            ("2026-03-30T11:00Z", RiskStatus::OnTrack),
            ("2026-03-01T23:59Z", RiskStatus::OnTrack),
            ("2026-02-28T23:59Z", RiskStatus::OnTrack),
        ] {
            days.add(Timestamp::parse_utc(time).unwrap(), risk);
        }
        write(&mut chart, &days, now).unwrap();
        assert!(chart.contains("<title>Monday, 30 March 2026: 1 on track, 1 blocked</title>"), "{chart}");
        assert!(chart.contains("3 milestones in the last 30 days, at most 2 a day"), "{chart}");
        assert_eq!(chart.matches("class=\"none\"").count(), 28);
    }
}
