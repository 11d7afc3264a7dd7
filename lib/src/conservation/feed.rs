//! Receipts against the receiver's own journals, where they are in the same folder.
//!
//! # Invariants
//! - A receiver elsewhere has a feed of its own, with numbers of its own. Only when an endpoint has given receipts
//!   that the journals here confirm, and this receiver's audit says that it took the event, it is the same one.
//!
//! Not here: the chains themselves (`book`).

use super::{
    book::{Book, Contents},
    finding::{Finding, FindingKind, Findings},
    flow::{Flow, key_of, same_milestone},
};
use crate::{Result, logs::Logs};

/// Compares every receipt. `received` is what the receiver's audit tells of: key and `seq`.
pub(super) fn check(
    logs: &Logs,
    books: &[Book],
    flows: &[Flow],
    mut received: Vec<(u64, u64)>,
    findings: &mut Findings,
) -> Result<()> {
    received.sort_unstable();
    let feeds = books.iter().filter(|it| matches!(it.contents, Contents::Feed | Contents::Events));
    for feed in feeds {
        let number = |seq: u64| {
            let at = feed.extra.binary_search_by_key(&seq, |it| it.0).ok()?;
            (!feed.entries[at].is_damaged).then_some(at)
        };
        let last = feed.extra.iter().map(|it| it.0).max().unwrap_or(0);
        for flow in flows {
            let Some(queue) = flow.book.map(|it| &books[it]) else { continue };
            for endpoint in &flow.endpoints {
                let is_confirmed =
                    |seq: u64, head: u64| number(seq).is_some_and(|at| feed.extra[at].1 == head);
                if !endpoint.receipts.iter().any(|it| is_confirmed(it.seq, it.head)) {
                    continue;
                }
                for receipt in &endpoint.receipts {
                    let sent = &queue.entries[receipt.at as usize];
                    let is_ours = received.binary_search(&(sent.key, receipt.seq)).is_ok();
                    // What was received since we looked is not here yet.
                    if !is_ours || receipt.seq > last {
                        continue;
                    }
                    let place = |kind, what: String| {
                        let id = key_of(logs, queue, receipt.at as usize);
                        match number(receipt.seq) {
                            Some(at) => Finding::at(kind, &feed.name, feed.entries[at].offset, what),
                            None => Finding::in_journal(kind, &feed.name, what),
                        }
                        .about(id.as_deref())
                        .with_endpoint(&endpoint.name)
                    };
                    let Some(at) = number(receipt.seq) else {
                        let what = format!("it confirmed seq {}, which it does not have", receipt.seq);
                        findings.add(place(FindingKind::ReceiptContradicted, what));
                        continue;
                    };
                    let entry = &feed.entries[at];
                    if feed.extra[at].1 != receipt.head || entry.key != sent.key {
                        let what = format!("it confirmed seq {} with another hash or key", receipt.seq);
                        findings.add(place(FindingKind::ReceiptContradicted, what));
                    } else if entry.content != sent.content
                        && !same_milestone(logs, feed, entry.offset, queue, sent.offset)?
                    {
                        let what = format!("its event is not the one of {queue} at offset {}", sent.offset);
                        findings.add(place(FindingKind::FeedDiffers, what));
                    }
                }
            }
        }
    }
    Ok(())
}
