//! One milestone in HTML; `fill` in `app.js` makes the same elements.

use std::fmt::{self, Write as _};

use milepost::{
    Timestamp,
    event::{Evidence, EvidenceType},
};

use super::times::{in_full, relative};
use crate::{
    feed::Filter,
    html::{Escaped, visible},
    item::{Item, is_web_address},
    query,
};

/// Pieces of evidence that are shown before the rest is folded away.
const EVIDENCE_SHOWN: usize = 3;

/// Writes one milestone as an element of a list.
pub fn write_item(html: &mut String, item: &Item, now: Timestamp) -> fmt::Result {
    let Item { seq, event, head, received_at, .. } = item;
    let (slug, words) = query::words_of(event.risk_status);
    let time = event.timestamp_utc;
    let scope_link = link_to(&Filter { scope: Some(event.scope.clone()), ..Filter::default() }, None);
    let own_link = link_to_one(&event.milestone_id);
    write!(
        html,
        "<li id=\"seq-{seq}\" class=\"{slug}\" data-time=\"{time}\" data-seq=\"{seq}\"><article>\n\
         <p class=\"when\"><time datetime=\"{time}\" title=\"{}\">{}</time></p>\n\
         <p class=\"what\"><a class=\"scope\" href=\"{scope_link}\"><bdi>{}</bdi></a> \
         <span class=\"risk {slug}\">{words}</span></p>\n\
         <h3 class=\"claim\" dir=\"auto\">{}</h3>\n",
        in_full(time),
        relative(time, now),
        Escaped(&visible(&event.scope)),
        Escaped(&visible(&event.claim)),
    )?;
    let (first, rest) = event.evidence.split_at(event.evidence.len().min(EVIDENCE_SHOWN));
    html.push_str("<ul class=\"evidence\">\n");
    first.iter().try_for_each(|it| write_evidence(html, it))?;
    html.push_str("</ul>\n");
    if !rest.is_empty() {
        writeln!(html, "<details><summary>{} more</summary><ul class=\"evidence\">", rest.len())?;
        rest.iter().try_for_each(|it| write_evidence(html, it))?;
        html.push_str("</ul></details>\n");
    }
    write!(
        html,
        "<p class=\"next\"><span class=\"label\">Next</span> <span dir=\"auto\">{}</span></p>\n\
         <p class=\"proof\"><span class=\"source\">{}</span> <a href=\"{own_link}\" \
         title=\"Received {}, hash {head}\">№&#8239;{seq} <span class=\"hash\">{}</span></a></p>\n\
         </article></li>\n",
        Escaped(&visible(&event.next_action)),
        event.source.as_str(),
        in_full(*received_at),
        short(head),
    )
}

/// Writes one piece of evidence as an element of a list.
pub fn write_evidence(html: &mut String, evidence: &Evidence) -> fmt::Result {
    let Evidence { kind, path, summary, reference } = evidence;
    write!(
        html,
        "<li><span class=\"type\">{}</span> <span class=\"summary\" dir=\"auto\">{}</span>",
        kind.as_str(),
        Escaped(&visible(summary))
    )?;
    html.push_str(" <span class=\"place\">");
    let path = visible(path);
    let path = Escaped(&path);
    if is_web_address(path.0) {
        write!(
            html,
            "<a class=\"path\" href=\"{path}\" rel=\"noopener noreferrer nofollow ugc\"><bdi>{path}</bdi></a> "
        )?;
    } else if !path.0.is_empty() {
        write!(html, "<span class=\"path\"><bdi>{path}</bdi></span> ")?;
    }
    if let Some(reference) = reference {
        let (full, short) = (visible(reference), short_reference(*kind, reference));
        let full = Escaped(&full);
        write!(html, "<span class=\"ref\" title=\"{full}\"><bdi>{}</bdi></span>", Escaped(&visible(&short)))?;
    }
    html.push_str("</span>");
    html.push_str("</li>\n");
    Ok(())
}

/// The page with this filter.
pub fn link_to(filter: &Filter, limit: Option<usize>) -> String {
    let mut parts = Vec::new();
    if let Some(scope) = &filter.scope {
        parts.push(format!("scope={}", query::encode(scope)));
    }
    if let Some(risk) = filter.risk {
        parts.push(format!("riskStatus={}", query::words_of(risk).0));
    }
    if let Some(words) = &filter.words {
        parts.push(format!("q={}", query::encode(words)));
    }
    if let Some(limit) = limit {
        parts.push(format!("limit={limit}"));
    }
    if parts.is_empty() { "/".to_owned() } else { format!("/?{}", parts.join("&amp;")) }
}

/// The page of one milestone.
pub fn link_to_one(milestone_id: &str) -> String {
    format!("/?milestone={}", query::encode(milestone_id))
}

/// The first digits of a hash: enough to recognise it.
pub fn short(hash: &str) -> &str {
    hash.get(..8).unwrap_or(hash)
}

/// A commit's id as git shortens it, a file's hash likewise; anything else as it is.
fn short_reference(kind: EvidenceType, reference: &str) -> String {
    let digits = reference.strip_prefix("sha256:").unwrap_or(reference);
    let is_hash = digits.len() >= 16 && digits.bytes().all(|it| it.is_ascii_hexdigit());
    match kind {
        _ if !is_hash => reference.chars().take(60).collect(),
        EvidenceType::Commit => short(digits).to_owned(),
        _ => format!("sha256 {}", short(digits)),
    }
}
