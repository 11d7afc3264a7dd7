// Adds the milestones that come while the page is open, and keeps relative times true.
// Events are foreign text: they reach the page through textContent and nothing else.
"use strict";

const feed = document.getElementById("feed");
const state = document.getElementById("state");
const EVIDENCE_SHOWN = 3; // as in page.rs
const SHOWN_MAX = 500;
const RISKS = { "on-track": "On track", "at-risk": "At risk", blocked: "Blocked", completed: "Completed" };
const chosen = { scope: feed.dataset.scope, risk: feed.dataset.risk };
let after = Number(feed.dataset.after);
let unseen = 0;

// --- Times ---

const day = (time) => time.slice(0, 10);
const inFull = (time) => `${time.slice(0, 10)} ${time.slice(11, 19)} UTC`;
const dayWords = new Intl.DateTimeFormat("en-GB", {
  weekday: "long", day: "numeric", month: "long", year: "numeric", timeZone: "UTC",
});

// As in page.rs: how long ago for the last day, else the time of that day.
function relative(time) {
  const seconds = Math.floor((Date.now() - Date.parse(time)) / 1000);
  if (seconds < -60 || seconds >= 86400) return time.slice(11, 16);
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)}\u00a0min ago`;
  return `${Math.floor(seconds / 3600)}\u00a0h ago`;
}

function renewTimes() {
  for (const it of feed.querySelectorAll(".when time")) {
    const words = relative(it.dateTime);
    if (it.textContent !== words) it.textContent = words;
  }
}

// --- One milestone, as write_item in page.rs makes it ---

// As visible in page.rs: what would turn the writing direction or is no character is spelled out.
function visible(text) {
  const unsafe = /(?![\t\n\r])[\p{Cc}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;
  return text.replace(unsafe, (it) => `\\u{${it.codePointAt(0).toString(16)}}`);
}

function fill(item) {
  const li = document.getElementById("item").content.firstElementChild.cloneNode(true);
  const part = (selector) => li.querySelector(selector);
  const { seq, head } = item.receipt;
  li.id = `seq-${seq}`;
  li.className = item.riskStatus;
  li.dataset.time = item.timestampUtc;
  li.dataset.seq = seq;
  const time = part(".when time");
  time.dateTime = item.timestampUtc;
  time.title = inFull(item.timestampUtc);
  time.textContent = relative(item.timestampUtc);
  part(".scope").href = `/?scope=${encodeURIComponent(item.scope)}`;
  part(".scope bdi").textContent = visible(item.scope);
  part(".risk").classList.add(item.riskStatus);
  part(".risk").textContent = RISKS[item.riskStatus] ?? item.riskStatus;
  part(".claim").textContent = visible(item.claim);
  part(".next span[dir]").textContent = visible(item.nextAction);
  part(".source").textContent = item.source;
  const proof = part(".proof a");
  proof.href = `#seq-${seq}`;
  proof.title = `Received ${inFull(item.receivedAtUtc)}, hash ${head}`;
  proof.append(`№\u202f${seq} `, element("span", "hash", head.slice(0, 8)));

  const list = part(".evidence");
  const rest = item.evidence.slice(EVIDENCE_SHOWN);
  list.append(...item.evidence.slice(0, EVIDENCE_SHOWN).map(evidence));
  if (rest.length > 0) {
    const details = element("details");
    const more = element("ul", "evidence");
    more.append(...rest.map(evidence));
    details.append(element("summary", "", `${rest.length} more`), more);
    list.after(details);
  }
  return li;
}

function evidence({ type, path, summary, ref }) {
  const li = element("li");
  const words = element("span", "summary", visible(summary));
  words.dir = "auto";
  li.append(element("span", "type", type), " ", words);
  const place = element("span", "place");
  li.append(" ", place);
  if (path) {
    const isAddress = /^https?:\/\/[a-z0-9][!#-&(-;=?-[\]-~]*$/i.test(path) && /^https?:/.test(path);
    const shown = element(isAddress ? "a" : "span", "path");
    if (isAddress) {
      shown.href = path;
      shown.rel = "noopener noreferrer nofollow ugc";
    }
    shown.append(element("bdi", "", visible(path)));
    place.append(shown, " ");
  }
  if (ref) {
    const shown = element("span", "ref");
    shown.title = visible(ref);
    shown.append(element("bdi", "", visible(shortReference(type, ref))));
    place.append(shown);
  }
  return li;
}

function shortReference(type, ref) {
  const digits = ref.replace(/^sha256:/, "");
  if (!/^[0-9a-f]{16,}$/i.test(digits)) return [...ref].slice(0, 60).join("");
  return type === "commit" ? digits.slice(0, 8) : `sha256 ${digits.slice(0, 8)}`;
}

function element(name, className = "", text = "") {
  const it = document.createElement(name);
  if (className) it.className = className;
  if (text) it.textContent = text;
  return it;
}

// --- Its place: newest time first, of equal times the one that came last ---

function add(item) {
  if (chosen.scope && item.scope !== chosen.scope) return;
  if (chosen.risk && item.riskStatus !== chosen.risk) return;
  if (document.getElementById(`seq-${item.seq}`)) return;
  document.getElementById("empty")?.remove();
  const li = fill(item);
  li.classList.add("new");
  const list = listOf(day(item.timestampUtc));
  const isOlder = (other) =>
    other.dataset.time < item.timestampUtc ||
    (other.dataset.time === item.timestampUtc && Number(other.dataset.seq) < item.seq);
  list.insertBefore(li, [...list.children].find(isOlder) ?? null);
  const all = feed.querySelectorAll("li[data-seq]");
  if (all.length > SHOWN_MAX) {
    const last = all[all.length - 1];
    const section = last.closest(".day");
    last.remove();
    if (!section.querySelector("li[data-seq]")) section.remove();
  }
  if (document.hidden) document.title = `(${++unseen}) Milepost`;
}

function listOf(itsDay) {
  const sections = [...feed.querySelectorAll(".day")];
  const present = sections.find((it) => it.dataset.day === itsDay);
  if (present) return present.querySelector("ol");
  const section = element("section", "day");
  section.dataset.day = itsDay;
  const time = element("time", "", dayWords.format(new Date(`${itsDay}T00:00:00Z`)).replace(/,? /, ", "));
  time.dateTime = itsDay;
  const heading = element("h2");
  heading.append(time);
  section.append(heading, element("ol"));
  feed.insertBefore(section, sections.find((it) => it.dataset.day < itsDay) ?? null);
  return section.querySelector("ol");
}

// --- The stream ---

function show(className, words) {
  state.hidden = false;
  if (state.textContent !== words) state.textContent = words;
  state.className = `state ${className}`;
}

function connect() {
  const source = new EventSource(`/api/milestones/stream?after=${after}`);
  source.addEventListener("open", () => show("live", "Live"));
  source.addEventListener("milestone", (event) => {
    after = Math.max(after, Number(event.lastEventId));
    add(JSON.parse(event.data));
  });
  source.addEventListener("error", () => {
    show("waiting", "Reconnecting…");
    // The browser connects again by itself, unless it was refused: then we do, a little later.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 5000);
  });
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  unseen = 0;
  document.title = "Milepost";
  renewTimes();
});
const here = document.getElementById("here");
if (here) here.textContent = location.origin;
setInterval(renewTimes, 30000);
renewTimes();
show("waiting", "Connecting…");
connect();
