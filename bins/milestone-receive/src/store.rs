//! The embedded store: one thread that appends, many requests at a time.
//!
//! Requests wait in a bounded channel. The thread takes whatever waits, appends what is new of it with one
//! sync, and only then answers all of them: under load many requests share each sync, and a single one
//! waits for nobody.
//!
//! # Invariants
//! - `Accepted` is answered when the line and its audit record are on disk, `Duplicate` when the first one's
//!   are. A refusal, a conflict too, is answered when the refused request is kept.
//! - One journal is locked at a time. What failed is answered `Unavailable`; a retry finds a duplicate or is
//!   accepted.
//! - Whoever has gone is not stored: an overloaded store does no work that nobody waits for.
//!
//! Not here: deciding who is new (`ledger`), checking requests (`ingest`), what readers see (`feed`).

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use milepost::{
    Error, Kind, Result,
    audit::Outcome,
    cli::Messages,
    ingest::Receipt,
    journal::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Journal, JournalName, keep_in_quarantine},
    logs::Logs,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    dead_letters::DeadLetters,
    feed::Feed,
    ledger::{Decision, Ledger},
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
    /// Nothing: whether the trouble has passed.
    Probe,
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

type Reply = oneshot::Sender<Answer>;

struct Job {
    offer: Offer,
    bytes: usize,
    reply: Reply,
}

/// A request that is refused, and how to answer it.
struct Refusal {
    what: Refused,
    outcome: Outcome,
    reply: Reply,
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

/// A store's thread, from outside.
#[derive(Debug)]
pub struct Running {
    /// Ends when the last handle of the store is gone.
    pub thread: thread::JoinHandle<()>,
    /// Resolves when the thread ends, also when it dies.
    pub ended: oneshot::Receiver<()>,
}

impl Store {
    /// Settles the journals, reads what readers need, and starts the thread.
    pub fn open(
        logs: &Logs,
        feed: &Arc<Feed>,
        dead_letters: &Arc<DeadLetters>,
        metrics: &Arc<Metrics>,
        messages: Messages,
    ) -> Result<(Store, Running)> {
        let journal = |name, describe| Journal::new(logs, JournalName::internal(name), describe);
        let trouble = Arc::default();
        let mut keeper = Keeper {
            milestones: Ledger::new(journal(FEED, record::describe_milestone), record::names_of_milestone),
            events: Ledger::new(journal(EVENTS, record::describe_event), record::names_of_event),
            rejected: Ledger::new(journal(REJECTED, record::describe_rejected), record::no_names),
            feed: Arc::clone(feed),
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
        Ok((Store { jobs, trouble }, Running { thread, ended }))
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

    /// Has it looked at whether the trouble has passed. Without that, a receiver whose requests stopped coming
    /// because it is not well would never be well again.
    pub fn probe(&self) {
        let (reply, _) = oneshot::channel();
        // When so many wait that there is no room, they will tell.
        let _ = self.jobs.try_send(Job { offer: Offer::Probe, bytes: 0, reply });
    }

    /// Whether the last batch could be stored.
    pub fn is_well(&self) -> bool {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

/// What the thread owns.
struct Keeper {
    milestones: Ledger,
    events: Ledger,
    rejected: Ledger,
    feed: Arc<Feed>,
    dead_letters: Arc<DeadLetters>,
    metrics: Arc<Metrics>,
    messages: Messages,
    trouble: Arc<Mutex<Option<Trouble>>>,
}

impl Keeper {
    /// Settles what a killed receiver left, and reads what is there.
    fn settle_all(&mut self) -> Result<()> {
        for ledger in [&self.milestones, &self.events, &self.rejected] {
            ledger.journal().write().map(drop)?;
        }
        for (offset, end) in self.feed.catch_up()? {
            let journal = self.milestones.journal();
            let copy =
                keep_in_quarantine(journal.logs(), journal.name(), offset, &journal.bytes(offset, end)?)?;
            self.messages.warn(format!(
                "{FEED}.jsonl: offset {offset}: the line is damaged and passed over; restore it from a backup; \
                 what is left of it is in {copy}"
            ));
        }
        self.dead_letters.read(self.rejected.journal())
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
            let is_probed = jobs.iter().any(|it| matches!(it.offer, Offer::Probe));
            jobs.retain(|it| !it.reply.is_closed());
            if jobs.is_empty() {
                if is_probed {
                    self.look();
                }
                continue;
            }
            self.commit(jobs);
        }
        for ledger in [&mut self.milestones, &mut self.events] {
            if let Err(error) = ledger.finish() {
                self.messages.warn(error);
            }
        }
    }

    /// Looks at whether something could be stored again, as far as that shows without storing anything.
    fn look(&self) {
        let journal = self.milestones.journal();
        let looked = journal.write().map(drop).and_then(|()| has_room(journal.logs().dir()));
        match looked {
            Ok(()) => self.well(),
            Err(error) => self.say(&error),
        }
    }

    fn commit(&mut self, jobs: Vec<Job>) {
        let (mut milestones, mut events, mut refusals) = (Vec::new(), Vec::new(), Vec::new());
        let (mut of_milestones, mut of_events) = (Vec::new(), Vec::new());
        self.metrics.batch(jobs.len());
        for Job { offer, reply, .. } in jobs {
            match offer {
                Offer::Milestone(it) => {
                    milestones.push(*it);
                    of_milestones.push(reply);
                }
                Offer::Event(it) => {
                    events.push(*it);
                    of_events.push(reply);
                }
                // Who offers something tells as much.
                Offer::Probe => {}
                Offer::Refused(it) => {
                    refusals.push(Refusal { what: *it, outcome: Outcome::Rejected, reply });
                }
            }
        }
        if !milestones.is_empty() {
            let decided = self.milestones.append(&milestones).map(|(decisions, appended)| {
                for it in &appended {
                    // What an earlier batch left on disk when it failed comes first, in order.
                    if self.feed.bytes() == it.offset {
                        self.feed.publish(it.offset, it.end, &it.line);
                    }
                }
                decisions
            });
            if self.feed.bytes() < self.milestones.end()
                && let Err(error) = self.feed.catch_up()
            {
                self.say(&error);
            }
            self.answer(decided, milestones, of_milestones, &mut refusals);
        }
        if !events.is_empty() {
            let decided = self.events.append(&events).map(|it| it.0);
            self.answer(decided, events, of_events, &mut refusals);
        }
        if !refusals.is_empty() {
            self.keep(refusals);
        }
    }

    /// Answers whatever is decided; conflicts become refusals.
    fn answer<T: Entry>(
        &self,
        decided: Result<Vec<Decision>>,
        entries: Vec<T>,
        replies: Vec<Reply>,
        refusals: &mut Vec<Refusal>,
    ) {
        let decisions = match decided {
            Ok(it) => it,
            Err(error) => {
                self.say(&error);
                for reply in replies {
                    send(reply, Answer::Unavailable);
                }
                return;
            }
        };
        self.well();
        for ((entry, reply), decision) in entries.into_iter().zip(replies).zip(decisions) {
            match decision {
                Decision::New(receipt) => send(reply, Answer::Accepted(receipt)),
                Decision::Known(receipt) => send(reply, Answer::Duplicate(receipt)),
                Decision::Conflict(seq) => {
                    let title = entry.title();
                    let what = Refused {
                        reason: Kept::Conflict,
                        detail: format!("{title} was accepted before with another content (seq {seq})"),
                        key: Some(entry.key().to_owned()),
                        request: entry.to_request(),
                    };
                    refusals.push(Refusal { what, outcome: Outcome::Conflict, reply });
                }
            }
        }
    }

    fn keep(&mut self, refusals: Vec<Refusal>) {
        let records: Vec<_> = refusals.iter().map(|it| (&it.what, it.outcome)).collect();
        let kept = self.rejected.keep(&records);
        match &kept {
            Ok(lines) => {
                self.well();
                for line in lines {
                    self.dead_letters.add(line);
                }
            }
            Err(error) => self.say(error),
        }
        for Refusal { what, reply, .. } in refusals {
            let answer = match (&kept, what.reason) {
                (Err(_), _) => Answer::Unavailable,
                (Ok(_), Kept::Conflict) => Answer::Conflict(what.detail),
                (Ok(_), _) => Answer::Kept,
            };
            send(reply, answer);
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

/// Whether the disk takes a batch of ordinary size.
fn has_room(dir: &Path) -> Result<()> {
    const WANTED_BYTES: u64 = 1 << 20;
    let looked = rustix::fs::statvfs(dir);
    match looked.map_err(|it| Error::io("cannot look at the disk", dir, it.into()))? {
        it if it.f_bavail.saturating_mul(it.f_frsize) >= WANTED_BYTES => Ok(()),
        _ => Err(Error::io("cannot store anything", dir, rustix::io::Errno::NOSPC.into())),
    }
}

/// A requester that gave up meanwhile needs no answer.
fn send(reply: Reply, answer: Answer) {
    let _ = reply.send(answer);
}
