// Adds the milestones that come while the page is open, and keeps relative times true.
// Events are foreign text: they reach the page through textContent and nothing else.
"use strict";

const feed = document.getElementById("feed");
const state = document.getElementById("state");
const EVIDENCE_SHOWN = 3; // as in page/entry.rs
const SHOWN_MAX = 500;
const STALE_MS = 60_000;
const RISKS = { "on-track": "On track", "at-risk": "At risk", blocked: "Blocked", completed: "Completed" };
// The page of one milestone has no feed, and needs no stream.
const chosen = feed && { scope: feed.dataset.scope, risk: feed.dataset.risk, words: feed.dataset.words };
const isLive = feed?.dataset.live === "true";
let after = Number(feed?.dataset.after);
let unseen = 0;

// --- Times ---

const day = (time) => time.slice(0, 10);
const inFull = (time) => `${time.slice(0, 10)} ${time.slice(11, 19)} UTC`;
const dayWords = new Intl.DateTimeFormat("en-GB", {
  weekday: "long", day: "numeric", month: "long", year: "numeric", timeZone: "UTC",
});

// As in page/times.rs: how long ago for the last day, else the time of that day.
function relative(time) {
  const seconds = Math.floor((Date.now() - Date.parse(time)) / 1000);
  if (seconds < -60 || seconds >= 86400) return time.slice(11, 16);
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)}\u00a0min ago`;
  return `${Math.floor(seconds / 3600)}\u00a0h ago`;
}

function renewTimes() {
  for (const it of document.querySelectorAll(".when time")) {
    const words = relative(it.dateTime);
    if (it.textContent !== words) it.textContent = words;
  }
}

// --- One milestone, as `write_item` in page/entry.rs makes it ---

// As `visible` in html.rs: what would turn the writing direction or is no character is spelled out.
function visible(text) {
  const unsafe = /(?![\t\n\r])[\p{Cc}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;
  return text.replace(unsafe, (it) => `\\u{${it.codePointAt(0).toString(16)}}`);
}

// As `encode` in query.rs.
function encoded(text) {
  return encodeURIComponent(text).replace(/[!'()*]/g, (it) => `%${it.charCodeAt(0).toString(16).toUpperCase()}`);
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
  part(".scope").href = `/?scope=${encoded(item.scope)}`;
  part(".scope bdi").textContent = visible(item.scope);
  part(".risk").classList.add(item.riskStatus);
  part(".risk").textContent = RISKS[item.riskStatus] ?? item.riskStatus;
  part(".claim").textContent = visible(item.claim);
  part(".next span[dir]").textContent = visible(item.nextAction);
  part(".source").textContent = item.source;
  const proof = part(".proof a");
  proof.href = `/?milestone=${encoded(item.milestoneId)}`;
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

// As `has` in item.rs.
function has(item, words) {
  const texts = [item.milestoneId, item.scope, item.claim, item.nextAction];
  for (const it of item.evidence) texts.push(it.path ?? "", it.summary, it.ref ?? "");
  return texts.some((it) => it.toLowerCase().includes(words));
}

function add(item) {
  if (chosen.scope && item.scope !== chosen.scope) return;
  if (chosen.risk && item.riskStatus !== chosen.risk) return;
  if (chosen.words && !has(item, chosen.words)) return;
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

// --- The chart: counted by the server, fetched anew a moment after something came ---

let chartIsDue = 0;

function renewChart() {
  if (chartIsDue) return;
  chartIsDue = setTimeout(async () => {
    chartIsDue = 0;
    try {
      const answer = await fetch("/?limit=1", { headers: { accept: "text/html" } });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const chart = page.getElementById("chart");
      if (!chart) return;
      const old = document.getElementById("chart");
      if (old) old.replaceWith(document.importNode(chart, true));
      else document.querySelector(".filters").before(document.importNode(chart, true));
    } catch {
      // It is as old as the rest of the page then.
    }
  }, 2000);
}

// --- The stream, and what is said about it ---

const updated = document.getElementById("updated");
let seenAt = Date.parse(updated?.dateTime ?? "");
let isConnected = false;

function show() {
  const isOffline = !navigator.onLine || (!isConnected && Date.now() - seenAt > STALE_MS);
  const [name, words] = isConnected
    ? ["live", "Live"]
    : isOffline
      ? ["offline", "Offline"]
      : ["stale", "Connecting…"];
  const time = new Date(seenAt).toISOString();
  state.parentElement.className = `state ${name}`;
  if (state.textContent !== words) state.textContent = words;
  updated.dateTime = time;
  updated.textContent = `${isConnected ? "updated" : "as of"} ${time.slice(11, 16)} UTC`;
}

function connect() {
  const source = new EventSource(`/api/milestones/stream?after=${after}`);
  const heard = () => {
    isConnected = true;
    seenAt = Date.now();
    show();
  };
  source.addEventListener("open", heard);
  source.addEventListener("milestone", (event) => {
    after = Math.max(after, Number(event.lastEventId));
    add(JSON.parse(event.data));
    heard();
    renewChart();
  });
  // More was missed than is sent again: the page as it is now has it.
  source.addEventListener("reset", () => location.reload());
  source.addEventListener("error", () => {
    if (isConnected) seenAt = Date.now();
    isConnected = false;
    show();
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
// An address without empty fields is one that people can read and pass on.
document.getElementById("find")?.addEventListener("submit", (event) => {
  for (const it of event.target.elements) it.disabled ||= it.name !== "" && it.value.trim() === "";
});
addEventListener("pageshow", () => {
  for (const it of document.getElementById("find")?.elements ?? []) it.disabled = false;
});
const here = document.getElementById("here");
if (here) here.textContent = location.origin;
setInterval(renewTimes, 30_000);
renewTimes();
if (isLive) {
  addEventListener("online", show);
  addEventListener("offline", show);
  setInterval(show, 10_000);
  show();
  connect();
}
