//! The embedded store: one thread that appends, many requests at a time.
//!
//! Requests wait in a bounded channel. The thread takes whatever waits, appends what is new of it with one
//! sync, and only then answers all of them: under load many requests share each sync, and a single one
//! waits for nobody (`gather`).
//!
//! # Invariants
//! - `Accepted` is answered when the line and its audit record are on disk, `Duplicate` when the first one's
//!   are. A refusal, a conflict too, is answered when the refused request is kept.
//! - One journal is locked at a time. What failed is answered `Unavailable`; a retry finds a duplicate or is
//!   accepted.
//! - Whoever has gone is not stored: an overloaded store does no work that nobody waits for.
//!
//! Not here: deciding who is new (`ledger`), checking requests (`ingest`), what readers see (`feed`).

mod gather;

use std::{
    borrow::Cow,
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
    journal::{Journal, JournalName},
    logs::Logs,
};
use tokio::sync::{mpsc, oneshot};

use self::gather::{Bell, Gathering, Sleep};
use crate::{
    dead_letters::DeadLetters,
    feed::{Feed, Published},
    ledger::{Appended, AppendedEntry, Decision, Ledger},
    metrics::Metrics,
    reason::Kept,
    record::{self, Entry, Milestone, OtherEvent, Refused},
};

/// Requests that may wait: more than there are connections, so that the connections are the bound.
const WAITING_MAX: usize = 2048;
/// Bytes of requests that are stored together. Less than a journal takes: what is made of them, lines, audit records
/// and answers, is in memory at the same time.
const TOGETHER_BYTES_MAX: usize = 1 << 20;
/// How long a journal's lock is waited for: less than a request waits (`ingest::PATIENCE`), so that it hears
/// why.
pub const LOCK_WAIT: Duration = Duration::from_secs(7);
/// How often the same trouble is said again.
const REMIND_EVERY: Duration = Duration::from_secs(60);

/// The feed's journal.
const FEED: &str = "receive/feed";
const EVENTS: &str = "receive/events";
const REJECTED: &str = "receive/rejected";

/// The feed's journal in a logs folder.
pub fn feed_journal(logs: &Logs) -> Journal {
    Journal::new(logs, JournalName::internal(FEED), record::describe_milestone)
}

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

type Reply = oneshot::Sender<Vec<Answer>>;

/// What became of a group.
struct Decided {
    /// The answers to all of its requests.
    answers: Vec<(Reply, Vec<Answer>)>,
    /// What was stored of it: whoever made its many pieces frees them best himself.
    spent: Vec<Vec<Milestone>>,
}

/// What the thread is asked.
enum Job {
    /// To store these, of about so many bytes.
    Store { offers: Vec<Offer>, bytes: usize, reply: Reply },
    /// Where the milestone with this id is.
    Find { milestone_id: String, reply: oneshot::Sender<Result<Option<u64>>> },
    /// Whether the trouble has passed.
    Probe,
}

/// Where an answer belongs: which of the jobs, which of its offers.
#[derive(Clone, Copy)]
struct Place {
    job: usize,
    at: usize,
}

/// A request that is refused, and whose answer that is.
struct Refusal {
    what: Refused,
    outcome: Outcome,
    place: Place,
}

/// Answers as they come together: unavailable until another one is known.
struct Answers(Vec<Vec<Answer>>);

impl Answers {
    fn set(&mut self, place: Place, answer: Answer) {
        self.0[place.job][place.at] = answer;
    }
}

/// The way to the store's thread.
#[derive(Clone, Debug)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    bell: Arc<Bell>,
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
    /// What is to run beside the requests.
    pub usher: Usher,
}

/// Brings the answers of a group to those who wait for them. Its thread is theirs: so the store's wakes that one
/// once for all of them, not once for each.
#[derive(Debug)]
pub struct Usher(mpsc::UnboundedReceiver<Decided>);

impl Usher {
    /// Goes on until the store's thread ends.
    pub async fn run(mut self) {
        while let Some(Decided { answers, spent }) = self.0.recv().await {
            for (reply, answers) in answers {
                // Whoever gave up meanwhile needs no answer.
                let _ = reply.send(answers);
            }
            drop(spent);
        }
    }
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
        let (trouble, bell) = (Arc::default(), Arc::<Bell>::default());
        // No longer than what waits for answers, and that is bounded.
        let (decided, answers) = mpsc::unbounded_channel();
        let mut keeper = Keeper {
            milestones: Ledger::new(feed_journal(logs), record::names_of_milestone),
            events: Ledger::new(journal(EVENTS, record::describe_event), record::names_of_event),
            rejected: Ledger::new(journal(REJECTED, record::describe_rejected), record::no_names),
            feed: Arc::clone(feed),
            dead_letters: Arc::clone(dead_letters),
            metrics: Arc::clone(metrics),
            messages,
            trouble: Arc::clone(&trouble),
            bell: Arc::clone(&bell),
            decided,
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
        Ok((Store { jobs, bell, trouble }, Running { thread, ended, usher: Usher(answers) }))
    }

    /// Offers things of about so many bytes together; waits until they are decided, each in its place. Who stops
    /// waiting may find duplicates later.
    pub async fn offer(&self, offers: Vec<Offer>, bytes: usize) -> Vec<Answer> {
        let count = offers.len();
        let (reply, answers) = oneshot::channel();
        let sent = self.jobs.send(Job::Store { offers, bytes, reply }).await;
        self.bell.ring(self.jobs.max_capacity() - self.jobs.capacity());
        let answers = if sent.is_ok() { answers.await.ok() } else { None };
        answers.unwrap_or_else(|| vec![Answer::Unavailable; count])
    }

    /// The logical offset of the milestone with this id in the feed.
    pub async fn find(&self, milestone_id: String) -> Result<Option<u64>> {
        let (reply, answer) = oneshot::channel();
        let sent = self.jobs.send(Job::Find { milestone_id, reply }).await;
        let answer = if sent.is_ok() { answer.await.ok() } else { None };
        answer.unwrap_or_else(|| Err(Error::new(Kind::Temporary, "", "the store has ended")))
    }

    /// Has it looked at whether the trouble has passed. Without that, a receiver whose requests stopped coming
    /// because it is not well would never be well again.
    pub fn probe(&self) {
        // When so many wait that there is no room, they will tell.
        let _ = self.jobs.try_send(Job::Probe);
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
    bell: Arc<Bell>,
    decided: mpsc::UnboundedSender<Decided>,
}

impl Keeper {
    /// Settles what a killed receiver left, and reads what is there.
    fn settle_all(&mut self) -> Result<()> {
        for ledger in [&self.milestones, &self.events, &self.rejected] {
            ledger.journal().write().map(drop)?;
        }
        self.feed.recall();
        self.feed.catch_up()?;
        self.dead_letters.read(self.rejected.journal())
    }

    fn run(&mut self, mut waiting: mpsc::Receiver<Job>) {
        let (mut next, mut gathering) = (Vec::new(), Gathering::default());
        // As many as may wait: what is too much for one batch of the journal, the ledger divides.
        while waiting.blocking_recv_many(&mut next, WAITING_MAX) > 0 {
            let mut jobs = Vec::with_capacity(next.len());
            let mut is_probed = false;
            for job in next.drain(..) {
                match job {
                    // Whoever has gone is not stored.
                    Job::Store { reply, .. } if reply.is_closed() => {}
                    Job::Store { offers, bytes, reply } => jobs.push((offers, bytes, reply)),
                    Job::Find { milestone_id, reply } => self.answer_find(&milestone_id, reply),
                    Job::Probe => is_probed = true,
                }
            }
            if is_probed && jobs.is_empty() {
                self.look();
            }
            let (answered, sleep) = (jobs.len(), Sleep::measure());
            // Of long requests a few make a batch: whoever is first should not wait for all of them.
            while !jobs.is_empty() {
                let mut bytes = 0;
                let ends = jobs.iter().position(|it| {
                    bytes += it.1;
                    bytes >= TOGETHER_BYTES_MAX
                });
                let rest = jobs.split_off(ends.map_or(jobs.len(), |it| it + 1));
                self.commit(jobs);
                jobs = rest;
            }
            // Those who were just answered may be here in a moment, and share the next syncs.
            if let Some(wait) = gathering.after(answered, waiting.len(), sleep.length()) {
                gathering.ended(self.bell.wait(wait, || waiting.len()));
            }
        }
        self.feed.remember();
        for ledger in [&mut self.milestones, &mut self.events] {
            if let Err(error) = ledger.finish() {
                self.messages.warn(error);
            }
        }
    }

    fn answer_find(&mut self, milestone_id: &str, reply: oneshot::Sender<Result<Option<u64>>>) {
        let is_it = |line: &[u8]| Milestone::from_line(line).is_some_and(|it| it.0.id == milestone_id);
        // Whoever gave up meanwhile needs no answer.
        let _ = reply.send(self.milestones.find(&record::milestone_name(milestone_id), is_it));
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

    fn commit(&mut self, jobs: Vec<(Vec<Offer>, usize, Reply)>) {
        let (mut milestones, mut events, mut refusals) = (Vec::new(), Vec::new(), Vec::new());
        let (mut of_milestones, mut of_events) = (Vec::new(), Vec::new());
        let mut answers = Answers(Vec::with_capacity(jobs.len()));
        let mut replies = Vec::with_capacity(jobs.len());
        for (job, (offers, _, reply)) in jobs.into_iter().enumerate() {
            answers.0.push(vec![Answer::Unavailable; offers.len()]);
            replies.push(reply);
            for (at, offer) in offers.into_iter().enumerate() {
                let place = Place { job, at };
                match offer {
                    Offer::Milestone(it) => {
                        milestones.push(*it);
                        of_milestones.push(place);
                    }
                    Offer::Event(it) => {
                        events.push(*it);
                        of_events.push(place);
                    }
                    Offer::Refused(it) => {
                        refusals.push(Refusal { what: *it, outcome: Outcome::Rejected, place });
                    }
                }
            }
        }
        self.metrics.batch(milestones.len() + events.len() + refusals.len());

        let (mut places, mut spent) = (&of_milestones[..], Vec::new());
        while !milestones.is_empty() {
            let outcome = self.milestones.append(&milestones);
            let Some((decisions, appended)) = self.decided(outcome) else { break };
            let rest = milestones.split_off(decisions.len());
            let (now, later) = places.split_at(decisions.len());
            settle(decisions, now, &milestones, &mut answers, &mut refusals);
            self.publish(&milestones, appended);
            spent.push(std::mem::replace(&mut milestones, rest));
            places = later;
        }
        let mut places = &of_events[..];
        while !events.is_empty() {
            let outcome = self.events.append(&events);
            let Some((decisions, _)) = self.decided(outcome) else { break };
            let rest = events.split_off(decisions.len());
            let (now, later) = places.split_at(decisions.len());
            settle(decisions, now, &events, &mut answers, &mut refusals);
            (events, places) = (rest, later);
        }
        let mut refusals = &refusals[..];
        while !refusals.is_empty() {
            let records: Vec<_> = refusals.iter().map(|it| (&it.what, it.outcome)).collect();
            let outcome = self.rejected.keep(&records);
            let Some(lines) = self.decided(outcome) else { break };
            let (now, later) = refusals.split_at(lines.len());
            for (line, Refusal { what, place, .. }) in lines.iter().zip(now) {
                self.dead_letters.add(line);
                let is_conflict = what.reason == Kept::Conflict;
                answers.set(
                    *place,
                    if is_conflict { Answer::Conflict(what.detail.clone()) } else { Answer::Kept },
                );
            }
            refusals = later;
        }
        // When nobody hands them out any more, nobody waits for them either.
        let _ = self.decided.send(Decided { answers: replies.into_iter().zip(answers.0).collect(), spent });
    }

    /// Tells readers of what was appended.
    fn publish(&self, milestones: &[Milestone], appended: Appended) {
        let Appended { entries, lines, head } = appended;
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
        let (start, end) = (first.offset, last.end);
        // What an earlier batch left on disk when it failed comes first, in order.
        if start == self.feed.bytes() {
            let mut rest = &lines[..];
            let published = entries.iter().map(|it| {
                let AppendedEntry { at, offset, end, seq } = *it;
                let Milestone { time, hashes, risk, .. } = &milestones[at];
                let line;
                (line, rest) = rest.split_at(usize::try_from(end - offset).unwrap_or(rest.len()));
                Published { offset, end, seq, time: *time, scope: &hashes.scope, risk: *risk, line }
            });
            self.feed.publish(published, head);
        }
        if self.feed.bytes() < end
            && let Err(error) = self.feed.catch_up()
        {
            self.say(&error);
        }
        self.feed.remember_now_and_then();
    }

    /// Notes whether the store is well; none when it is not.
    fn decided<T>(&self, outcome: Result<T>) -> Option<T> {
        match outcome {
            Ok(it) => {
                self.well();
                Some(it)
            }
            Err(error) => {
                self.say(&error);
                None
            }
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

/// Answers whatever is decided; conflicts become refusals.
fn settle<T: Entry>(
    decisions: Vec<Decision>,
    places: &[Place],
    entries: &[T],
    answers: &mut Answers,
    refusals: &mut Vec<Refusal>,
) {
    for ((entry, place), decision) in entries.iter().zip(places).zip(decisions) {
        match decision {
            Decision::New(receipt) => answers.set(*place, Answer::Accepted(receipt)),
            Decision::Known(receipt) => answers.set(*place, Answer::Duplicate(receipt)),
            Decision::Conflict(seq) => {
                let title = entry.title();
                let what = Refused {
                    reason: Kept::Conflict,
                    detail: format!("{title} was accepted before with another content (seq {seq})"),
                    key: Some(entry.key().to_owned()),
                    scope: entry.scope().map(Cow::into_owned),
                    request: entry.to_request(),
                };
                refusals.push(Refusal { what, outcome: Outcome::Conflict, place: *place });
            }
        }
    }
}
