//! Times in words, as `app.js` says them too.

use milepost::Timestamp;

/// How long ago, for the last day; else the time of that day.
pub fn relative(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(time).as_secs();
    match seconds {
        _ if time > now => clock_time(time),
        0..60 => "just now".to_owned(),
        60..3600 => format!("{}\u{a0}min ago", seconds / 60),
        3600..86400 => format!("{}\u{a0}h ago", seconds / 3600),
        _ => clock_time(time),
    }
}

/// `09:05`
pub fn clock_time(time: Timestamp) -> String {
    time.to_string()[11..16].to_owned()
}

/// `2026-03-01 09:05:00 UTC`
pub fn in_full(time: Timestamp) -> String {
    let text = time.to_string();
    format!("{} {} UTC", &text[..10], &text[11..19])
}

/// `Sunday, 1 March 2026`
pub fn day_in_words(time: Timestamp) -> String {
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    // 1 January 1970 was a Thursday.
    let day = usize::try_from(time.unix_seconds().div_euclid(86_400).rem_euclid(7)).unwrap_or(0);
    let text = time.to_string();
    let month = text[5..7].parse::<usize>().unwrap_or(1);
    let month = MONTHS.get(month.wrapping_sub(1)).unwrap_or(&"");
    format!("{}, {} {month} {}", DAYS[day], text[8..10].trim_start_matches('0'), &text[..4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_people_say_them() {
        let at = |text: &str| Timestamp::parse_utc(text).unwrap();
        let now = at("2026-03-01T12:00:00Z");
        assert_eq!(relative(at("2026-03-01T11:59:30Z"), now), "just now");
        assert_eq!(relative(at("2026-03-01T11:05:00Z"), now), "55\u{a0}min ago");
        assert_eq!(relative(at("2026-02-28T12:00:01Z"), now), "23\u{a0}h ago");
        assert_eq!(relative(at("2026-02-28T12:00:00Z"), now), "12:00");
        assert_eq!(relative(at("2026-03-02T08:30:00Z"), now), "08:30");
        assert_eq!(day_in_words(now), "Sunday, 1 March 2026");
        assert_eq!(day_in_words(at("1969-12-31T00:00Z")), "Wednesday, 31 December 1969");
        assert_eq!(day_in_words(at("2024-02-29T23:59Z")), "Thursday, 29 February 2024");
    }
}
