//! How a run ended, and which exit code that is when several things went wrong.
//!
//! # Invariants
//! - Of several failures the gravest decides: 74 and 75 before 65, and 65 before 2.
//! - What may pass by itself comes before what does not: a caller that sees 75 runs it again, and what is
//!   permanent is then reported once more.
//!
//! Not here: the code of each kind (`Kind::exit_code`).

use crate::Kind;

/// How a run ended that has already said what was wrong, if anything was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// All was done: exit 0.
    #[default]
    Done,
    /// Some of it failed, at worst in this way.
    Failed(Kind),
    /// An answer that is an exit code of the tool's own (`milestone-status`: 0 to 3).
    Answer(u8),
}

impl Verdict {
    /// Counts one more failure in.
    pub fn add(&mut self, kind: Kind) {
        match self {
            Verdict::Failed(before) if gravity(*before) >= gravity(kind) => {}
            _ => *self = Verdict::Failed(kind),
        }
    }

    /// The exit code of the process.
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Done => 0,
            Verdict::Failed(kind) => kind.exit_code(),
            Verdict::Answer(code) => code,
        }
    }
}

fn gravity(kind: Kind) -> u8 {
    match kind {
        Kind::Io => 5,
        Kind::Temporary => 4,
        Kind::Unavailable => 3,
        Kind::Usage | Kind::NoInput | Kind::CannotCreate | Kind::Permission | Kind::Configuration => 2,
        Kind::BadData => 1,
        Kind::No => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_failure_decides_in_whatever_order_they_come() {
        let kinds = [Kind::No, Kind::BadData, Kind::NoInput, Kind::Unavailable, Kind::Temporary, Kind::Io];
        for (rank, worst) in kinds.iter().enumerate() {
            for other in &kinds[..=rank] {
                for pair in [[*worst, *other], [*other, *worst]] {
                    let mut verdict = Verdict::Done;
                    for kind in pair {
                        verdict.add(kind);
                    }
                    assert_eq!(verdict, Verdict::Failed(*worst));
                }
            }
        }
    }

    #[test]
    fn a_failure_comes_before_an_answer() {
        let mut verdict = Verdict::Answer(1);
        verdict.add(Kind::No);
        assert_eq!(verdict.exit_code(), 2);
    }
}
