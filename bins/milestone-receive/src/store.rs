//! The embedded store: journals that one thread appends to, many requests at a time.
//!
//! Requests wait in a bounded channel. The thread takes whatever waits, decides who is new, appends the new
//! ones with one sync, and only then answers all of them: under load many requests share each sync, and a
//! single one waits for nobody.
//!
//! # Invariants
//! - `Accepted` is answered when the line and its audit record are on disk, `Duplicate` when the first one's
//!   are. A conflict is answered when the refused request is kept.
//! - One journal is locked at a time. What failed is answered `Unavailable`, and the journal is opened anew
//!   for the next batch: a retry then finds a duplicate or is accepted.
//! - An identity is decided under the journal's lock, against the journal and the batch itself.
//! - Whoever has gone is not stored: an overloaded store does no work that nobody waits for.
//!
//! Not here: checking requests (`ingest`), lines (`record`), what readers see (`feed`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use milepost::{
    Error, Kind, Result,
    audit::{Action, Draft, Outcome},
    chain::Chain,
    cli::Messages,
    clock,
    index::Index,
    ingest::Receipt,
    journal::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Batch, Journal, JournalName},
    logs::Logs,
};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use crate::{
    dead_letters::DeadLetters,
    feed::Feed,
    metrics::Metrics,
    reason::Kept,
    record::{self, Entry, Milestone, OtherEvent, Refused},
};

/// Requests that may wait: more than there are connections, so that the connections are the bound.
const WAITING_MAX: usize = 2048;
/// How long a journal's lock is waited for: less than a request waits (`ingest::PATIENCE`), so that it hears
/// why.
pub const LOCK_WAIT: Duration = Duration::from_secs(7);
/// How often the same trouble is said again.
const REMIND_EVERY: Duration = Duration::from_secs(60);

/// The feed's journal.
pub const FEED: &str = "receive/feed";
const EVENTS: &str = "receive/events";
const REJECTED: &str = "receive/rejected";

/// Something authentic to be stored.
#[derive(Debug)]
pub enum Offer {
    /// A milestone for the feed.
    Milestone(Box<Milestone>),
    /// An event that no reader is shown.
    Event(Box<OtherEvent>),
    /// A request that is refused, to be kept.
    Refused(Box<Refused>),
}

/// What became of an offer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It is on disk.
    Accepted(Receipt),
    /// The first one is on disk.
    Duplicate(Receipt),
    /// Its identity belongs to another event; it is kept among the refused.
    Conflict(String),
    /// The refused request is kept.
    Kept,
    /// Not now.
    Unavailable,
}

struct Job {
    offer: Offer,
    bytes: usize,
    reply: oneshot::Sender<Answer>,
}

/// The way to the store's thread.
#[derive(Clone, Debug)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    trouble: Arc<Mutex<Option<Trouble>>>,
}

/// Why nothing can be stored at the moment.
#[derive(Debug)]
struct Trouble {
    message: String,
    said: Instant,
}

impl Store {
    /// Settles the journals, reads what readers need, and starts the thread. The thread ends when the last
    /// handle is gone; `ended` is dropped then, also when it dies.
    pub fn open(
        logs: &Logs,
        feed: &Arc<Feed>,
        dead_letters: &Arc<DeadLetters>,
        metrics: &Arc<Metrics>,
        messages: Messages,
    ) -> Result<(Store, thread::JoinHandle<()>, oneshot::Receiver<()>)> {
        let journal = |name, describe| Journal::new(logs, JournalName::internal(name), describe);
        let trouble = Arc::default();
        let mut keeper = Keeper {
            feed: Ledger::new(journal(FEED, record::describe_milestone), record::names_of_milestone),
            events: Ledger::new(journal(EVENTS, record::describe_event), record::names_of_event),
            rejected: Ledger::new(journal(REJECTED, record::describe_rejected), record::no_names),
            shown: Arc::clone(feed),
            dead_letters: Arc::clone(dead_letters),
            metrics: Arc::clone(metrics),
            messages,
            trouble: Arc::clone(&trouble),
        };
        keeper.settle_all()?;
        let (jobs, waiting) = mpsc::channel(WAITING_MAX);
        let (alive, ended) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                let _alive: oneshot::Sender<()> = alive;
                keeper.run(waiting);
            })
            .map_err(|it| Error::new(Kind::Temporary, "", "cannot start the store's thread").because(it))?;
        Ok((Store { jobs, trouble }, thread, ended))
    }

    /// Offers something of about so many bytes; waits until it is decided. Who stops waiting may find a
    /// duplicate later.
    pub async fn offer(&self, offer: Offer, bytes: usize) -> Answer {
        let (reply, answer) = oneshot::channel();
        if self.jobs.send(Job { offer, bytes, reply }).await.is_err() {
            return Answer::Unavailable;
        }
        answer.await.unwrap_or(Answer::Unavailable)
    }

    /// Whether the last batch could be stored.
    pub fn is_well(&self) -> bool {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

/// A journal, and who is in it.
struct Ledger {
    journal: Journal,
    names_of: fn(&[u8], &mut dyn FnMut(&str)),
    index: Option<Index>,
    /// The logical offset up to which the index knows the journal.
    end: u64,
}

/// A line that was appended.
struct Appended {
    offset: u64,
    end: u64,
    line: Vec<u8>,
}

/// One that waits, with how to answer it.
struct Waiting<T> {
    what: T,
    reply: oneshot::Sender<Answer>,
}

impl<T> Waiting<T> {
    fn answer(self, answer: Answer) {
        // A requester that gave up meanwhile needs no answer.
        let _ = self.reply.send(answer);
    }
}

/// An entry of the batch that is being made.
struct Pending<T> {
    entry: T,
    offset: u64,
    receipt: Receipt,
}

/// Where an identity was found.
struct Found {
    same: bool,
    offset: u64,
    receipt: Receipt,
}

impl Ledger {
    fn new(journal: Journal, names_of: fn(&[u8], &mut dyn FnMut(&str))) -> Ledger {
        Ledger { journal, names_of, index: None, end: 0 }
    }

    /// Appends what is new of `waiting` with one sync, and answers all but the conflicts, which it returns.
    /// On an error nobody is answered: everyone is returned.
    fn append<T: Entry>(
        &mut self,
        waiting: Vec<Waiting<T>>,
        published: impl FnMut(&Appended),
    ) -> Result<Vec<(Waiting<T>, u64)>, (Error, Vec<Waiting<T>>)> {
        match self.decide_and_append(waiting.iter().map(|it| &it.what), published) {
            Ok(answers) => {
                let mut conflicts = Vec::new();
                for (waiting, answer) in waiting.into_iter().zip(answers) {
                    match answer {
                        Ok(answer) => waiting.answer(answer),
                        Err(seq) => conflicts.push((waiting, seq)),
                    }
                }
                Ok(conflicts)
            }
            Err(error) => {
                // Whatever the index believes may be ahead of the journal: it is opened again.
                self.index = None;
                Err((error, waiting))
            }
        }
    }

    /// The answers in order; a conflict is the seq of the one that was first.
    fn decide_and_append<'a, T: Entry + 'a>(
        &mut self,
        offered: impl Iterator<Item = &'a T>,
        mut published: impl FnMut(&Appended),
    ) -> Result<Vec<Result<Answer, u64>>> {
        let mut writer = self.journal.write()?;
        let index = match self.index.take() {
            // Only a batch that failed after it was on disk makes the journal longer than we know.
            Some(it) if self.end == writer.end() => self.index.insert(it),
            _ => self.index.insert(Index::open(&self.journal, self.names_of)?),
        };
        self.end = writer.end();
        let mut chain = writer.chain()?;
        let name = self.journal.name().as_str();
        let now = clock::now();
        let mut batch = Batch::default();
        let mut pending: Vec<Pending<&T>> = Vec::new();
        let mut pending_names: HashMap<String, usize> = HashMap::new();
        let mut appended = Vec::new();
        let mut answers = Vec::new();

        for entry in offered {
            let names = entry.names();
            let detail = |offset: u64, seq: u64| json!({ "journal": name, "offset": offset, "seq": seq });
            let draft = |outcome, detail| Draft {
                key: Some(entry.key().to_owned()),
                scope: entry.scope().map(str::to_owned),
                ..Draft::new(Action::Receive, outcome, detail)
            };
            let found = match names.iter().find_map(|it| pending_names.get(it)) {
                Some(at) => {
                    let it = &pending[*at];
                    let same = it.entry.is_same(entry);
                    Some(Found { same, offset: it.offset, receipt: it.receipt.clone() })
                }
                None => find(&self.journal, index, entry, &names)?,
            };
            if let Some(found) = found {
                let seq = found.receipt.seq;
                answers.push(if found.same {
                    batch.audit(draft(Outcome::Duplicate, detail(found.offset, seq)));
                    Ok(Answer::Duplicate(found.receipt))
                } else {
                    Err(seq)
                });
                continue;
            }
            let seq = chain.seq + 1;
            let offset = self.end + batch.bytes();
            let (line, head) = entry.to_line(seq, now, chain.prev()).map_err(|it| cannot_write(name, it))?;
            batch.push(&line);
            batch.audit(draft(Outcome::Appended, detail(offset, seq)));
            chain = Chain { seq, head: head.clone() };
            let receipt = Receipt { seq, head };
            answers.push(Ok(Answer::Accepted(receipt.clone())));
            for it in names {
                pending_names.insert(it, pending.len());
            }
            pending.push(Pending { entry, offset, receipt });
            appended.push(Appended { offset, end: offset + line.len() as u64, line });
        }

        if batch.is_empty() {
            return Ok(answers);
        }
        batch.chain_ends(chain);
        writer.append(&batch)?;
        for it in &appended {
            index.add(it.offset, it.end, &it.line);
            self.end = it.end;
            published(it);
        }
        // Everything is stored and will be answered so; an index that fails is opened again.
        if index.settle().is_err() {
            self.index = None;
        }
        Ok(answers)
    }

    /// Saves the next start from reading what only memory knows. The index is a cache: nothing hangs on it.
    fn finish(&mut self) -> Result<()> {
        let Some(index) = self.index.take() else { return Ok(()) };
        let _locked = self.journal.write()?;
        index.finish()
    }

    /// Appends refused requests, which have no identity.
    fn keep(&mut self, refused: &[(&Refused, Outcome)], mut kept: impl FnMut(&[u8])) -> Result<()> {
        let mut writer = self.journal.write()?;
        let mut chain = writer.chain()?;
        let name = self.journal.name().as_str();
        let mut batch = Batch::default();
        let mut lines = Vec::new();
        let now = clock::now();
        for (refused, outcome) in refused {
            let seq = chain.seq + 1;
            let detail = json!({
                "journal": name,
                "offset": writer.end() + batch.bytes(),
                "reason": refused.reason.code(),
                "seq": seq,
            });
            let (line, head) =
                refused.to_line(seq, now, chain.prev()).map_err(|it| cannot_write(name, it))?;
            batch.push(&line);
            batch.audit(Draft { key: refused.key.clone(), ..Draft::new(Action::Receive, *outcome, detail) });
            chain = Chain { seq, head };
            lines.push(line);
        }
        batch.chain_ends(chain);
        writer.append(&batch)?;
        lines.iter().for_each(|it| kept(it));
        Ok(())
    }
}

/// Looks an identity up in the journal: by key first, then by the other names.
fn find<T: Entry>(
    journal: &Journal,
    index: &mut Index,
    entry: &T,
    names: &[String],
) -> Result<Option<Found>> {
    for name in names {
        for offset in index.find(name)? {
            // A hit is a hint: only the record itself is believed.
            let Some(line) = journal.line_at(offset)? else { continue };
            let Some((stored, receipt)) = T::from_line(&line) else { continue };
            if stored.names().contains(name) {
                return Ok(Some(Found { same: stored.is_same(entry), offset, receipt }));
            }
        }
    }
    Ok(None)
}

fn cannot_write(name: &str, cause: serde_json::Error) -> Error {
    Error::new(Kind::Io, name, "cannot write the record as JSON").because(cause)
}

/// What the thread owns.
struct Keeper {
    feed: Ledger,
    events: Ledger,
    rejected: Ledger,
    shown: Arc<Feed>,
    dead_letters: Arc<DeadLetters>,
    metrics: Arc<Metrics>,
    messages: Messages,
    trouble: Arc<Mutex<Option<Trouble>>>,
}

impl Keeper {
    /// Settles what a killed receiver left, and reads what is there.
    fn settle_all(&mut self) -> Result<()> {
        for ledger in [&self.feed, &self.events, &self.rejected] {
            ledger.journal.write().map(drop)?;
        }
        for offset in self.shown.catch_up()? {
            self.messages.warn(format!(
                "{FEED}.jsonl: offset {offset}: the line is damaged and passed over; restore it from a copy"
            ));
        }
        self.dead_letters.read(&self.rejected.journal)
    }

    fn run(&mut self, mut waiting: mpsc::Receiver<Job>) {
        while let Some(first) = waiting.blocking_recv() {
            let mut bytes = first.bytes;
            let mut jobs = vec![first];
            while jobs.len() < BATCH_RECORDS_MAX
                && bytes < BATCH_BYTES_MAX
                && let Ok(job) = waiting.try_recv()
            {
                bytes += job.bytes;
                jobs.push(job);
            }
            jobs.retain(|it| !it.reply.is_closed());
            self.commit(jobs);
        }
        for ledger in [&mut self.feed, &mut self.events] {
            if let Err(error) = ledger.finish() {
                self.messages.warn(error);
            }
        }
    }

    fn commit(&mut self, jobs: Vec<Job>) {
        let (mut milestones, mut events, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for Job { offer, reply, .. } in jobs {
            match offer {
                Offer::Milestone(it) => milestones.push(Waiting { what: *it, reply }),
                Offer::Event(it) => events.push(Waiting { what: *it, reply }),
                Offer::Refused(it) => refused.push((Waiting { what: *it, reply }, Outcome::Rejected)),
            }
        }
        if !milestones.is_empty() {
            self.metrics.batch(milestones.len());
            // What an earlier failed batch left on disk is published first, in order.
            let shown = &self.shown;
            let outcome = self.feed.append(milestones, |it| {
                if shown.bytes() == it.offset {
                    shown.publish(it.offset, it.end, &it.line);
                }
            });
            let behind = self.shown.bytes() < self.feed.end;
            if behind && let Err(error) = self.shown.catch_up() {
                self.say(&error);
            }
            self.finish(outcome, &mut refused);
        }
        if !events.is_empty() {
            self.metrics.batch(events.len());
            let outcome = self.events.append(events, |_| {});
            self.finish(outcome, &mut refused);
        }
        if !refused.is_empty() {
            self.keep(refused);
        }
    }

    /// Notes how an append went; conflicts become refused requests.
    fn finish<T: Entry>(
        &mut self,
        outcome: Result<Vec<(Waiting<T>, u64)>, (Error, Vec<Waiting<T>>)>,
        refused: &mut Vec<(Waiting<Refused>, Outcome)>,
    ) {
        match outcome {
            Ok(conflicts) => {
                self.well();
                for (Waiting { what: entry, reply }, seq) in conflicts {
                    let detail =
                        format!("{} was accepted before with another content (seq {seq})", entry.title());
                    let what = Refused {
                        reason: Kept::Conflict,
                        detail,
                        key: Some(entry.key().to_owned()),
                        request: entry.to_request(),
                    };
                    refused.push((Waiting { what, reply }, Outcome::Conflict));
                }
            }
            Err((error, waiting)) => {
                self.say(&error);
                waiting.into_iter().for_each(|it| it.answer(Answer::Unavailable));
            }
        }
    }

    fn keep(&mut self, refused: Vec<(Waiting<Refused>, Outcome)>) {
        let records: Vec<_> = refused.iter().map(|(it, outcome)| (&it.what, *outcome)).collect();
        let dead_letters = &self.dead_letters;
        let outcome = self.rejected.keep(&records, |line| dead_letters.add(line));
        match &outcome {
            Ok(()) => self.well(),
            Err(error) => self.say(error),
        }
        for (waiting, _) in refused {
            let answer = match (&outcome, waiting.what.reason) {
                (Err(_), _) => Answer::Unavailable,
                (Ok(()), Kept::Conflict) => Answer::Conflict(waiting.what.detail.clone()),
                (Ok(()), _) => Answer::Kept,
            };
            waiting.answer(answer);
        }
    }

    fn well(&self) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.take().is_some() {
            self.messages.note("the store works again");
        }
    }

    /// Says what is wrong, once until it changes or a minute has passed.
    fn say(&self, error: &Error) {
        let message = error.to_string();
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known =
            trouble.as_ref().is_some_and(|it| it.message == message && it.said.elapsed() < REMIND_EVERY);
        if !is_known {
            self.messages.error(format!("{message}; requests get 503 until it passes"));
            *trouble = Some(Trouble { message, said: Instant::now() });
        }
    }
}
