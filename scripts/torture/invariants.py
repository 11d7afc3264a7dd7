"""What must hold of a logs folder after any fault and one ordinary run: the one judge of all torture.

The idea: docs/FORMAT.md says what the bytes mean, so the promises can be checked from the files alone, by
code that shares nothing with the tools.

Invariants, each checked by one function
- journal: segments join without a gap, none that is sealed is empty, every line is one whole JSON object, and
  the mark stands at the end (nothing is left unsettled, nothing is believed that is not there).
- chain: every record of a hash chain holds the hash of the one before, and counts on from it.
- audited: every record of a journal is told of in the audit exactly once, and nothing is that is not there.
- quarantine: a file there holds the bytes that its name says.
- milestones: each acknowledged id is there exactly once, at its offset, with its content; nothing else is.
- queue: exactly the source's ids, once each, in its order, each with the position behind its line.
- deliveries: every record of the queue is received, or refused and a dead letter, and settled once in the audit.
- feed: each acknowledged key is there exactly once, with the receipt that was given.

`Folder` reads everything once and collects violations in words.
"""
import hashlib
import json
import os
import re
import zlib

MARK_BYTES = 320
GENESIS = "0" * 64
_SEGMENT = re.compile(r"^(.+?)(?:\.(\d{20}))?\.jsonl$")
_TRIMMED = re.compile(r"^(.+?)\.(\d{20})\.keys$")


def canonical(value):
    """The canonical form, for what the torture sends: no keys beyond the BMP, no fractions."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def fingerprint(line):
    return hashlib.sha256(line).hexdigest()[:16] if line else ""


def read_mark(folder, name):
    """The mark of a journal; None when there is none that may be believed."""
    try:
        with open(os.path.join(folder, ".lock", name + ".lock"), "rb") as file:
            raw = file.read(MARK_BYTES)
    except FileNotFoundError:
        return None
    body, found, check = raw.rpartition(b',"check":"')
    if not found or len(raw) != MARK_BYTES or check.rstrip() != b'%08x"}' % zlib.crc32(body):
        return None
    mark = json.loads(body + b"}")
    return mark if mark["version"] == 1 else None


class Journal:
    """All segments of a journal, and its lines by logical offset."""

    def __init__(self, name):
        self.name, self.segments, self.lines = name, [], []
        # What was trimmed: offset by the digest of the key, and where each file of keys begins.
        self.kept, self.trimmed = {}, []

    def begins(self):
        return self.segments[0][0]

    def end(self):
        return self.segments[-1][0] + len(self.segments[-1][1])

    def records(self):
        """(offset, end, record) of the lines that are JSON objects."""
        return [(offset, offset + len(line) + 1, record) for offset, line, record in self.lines if record is not None]


class Folder:
    """A logs folder, read whole. `damaged` are the lines, as (journal, offset), that a test damaged itself."""

    def __init__(self, path, damaged=()):
        self.path, self.damaged, self.violations, self.journals = path, set(damaged), [], {}
        for sub in ("", "receive"):
            where = os.path.join(path, sub)
            for file in sorted(os.listdir(where)) if os.path.isdir(where) else ():
                match = _TRIMMED.match(file)
                if match:
                    journal = self.journals.setdefault(os.path.join(sub, match[1]), Journal(os.path.join(sub, match[1])))
                    journal.trimmed.append(int(match[2]))
                    with open(os.path.join(where, file), encoding="ascii") as opened:
                        journal.kept.update((key, int(at)) for at, key, _, _ in map(str.split, opened))
                match = _SEGMENT.match(file)
                if match:
                    name = os.path.join(sub, match[1])
                    with open(os.path.join(where, file), "rb") as opened:
                        base = int(match[2]) if match[2] else None
                        self.journals.setdefault(name, Journal(name)).segments.append((base, opened.read()))
        for journal in self.journals.values():
            self._join(journal)

    def wrong(self, what):
        self.violations.append(what)

    def check_all(self):
        """Everything that can be said without knowing what was done."""
        for journal in self.journals.values():
            self.check_mark(journal)
        for name in self.journals:
            if name == "audit" or name.startswith("receive/"):
                self.check_chain(name)
        self.check_audited()
        self.check_quarantine()
        return self

    # journal

    def _join(self, journal):
        name, end, joined = journal.name, 0, []
        sealed = sorted(it for it in journal.segments if it[0] is not None)
        active = [it for it in journal.segments if it[0] is None]
        if 0 in journal.trimmed and sealed:
            end = sealed[0][0]
        if journal.trimmed and 0 not in journal.trimmed:
            self.wrong(f"{name}: was trimmed, but not from its beginning on: {journal.trimmed}")
        for base, content in sealed:
            if base != end:
                self.wrong(f"{name}: a sealed segment begins at {base}, the one before ends at {end}")
            if not content:
                self.wrong(f"{name}: the sealed segment at {base} is empty")
            joined.append((base, content))
            end = base + len(content)
        joined.append((end, active[0][1] if active else b""))
        journal.segments = joined
        for base, content in joined:
            if content and not content.endswith(b"\n"):
                self.wrong(f"{name}: the segment at {base} ends within a line")
            offset = base
            for line in content.split(b"\n")[:-1]:
                journal.lines.append((offset, line, self._record(name, offset, line)))
                offset += len(line) + 1

    def _record(self, name, offset, line):
        try:
            record = json.loads(line.decode())
            if not isinstance(record, dict) or b"\0" in line:
                raise ValueError("no object")
            return record
        except ValueError as cause:
            if (name, offset) not in self.damaged:
                self.wrong(f"{name}: the line at {offset} is no JSON object: {cause}: {line[:60]!r}")
            return None

    def check_mark(self, journal):
        mark, (base, content) = read_mark(self.path, journal.name), journal.segments[-1]
        if mark is None:
            if content:
                self.wrong(f"{journal.name}: no mark, and {len(content)} unsettled bytes")
        elif mark["undo"]:
            self.wrong(f"{journal.name}: a batch of all or nothing is still open")
        elif (mark["base"], mark["length"]) != (base, len(content)):
            at = f"{mark['base']}+{mark['length']}"
            self.wrong(f"{journal.name}: the mark is at {at}, the journal ends at {base}+{len(content)}")

    # chain

    def check_chain(self, name):
        seq, head = 0, GENESIS
        for offset, _, record in self.journals[name].lines:
            if record is None:
                continue
            stated = record.pop("hash", None)
            linked = hashlib.sha256((head + canonical(record)).encode()).hexdigest()
            if record.get("seq") != seq + 1 or record.get("prev") != head or stated != linked:
                self.wrong(f"{name}: the chain is broken at offset {offset}, seq {record.get('seq')} after {seq}")
                return
            record["hash"] = stated
            seq, head = seq + 1, stated

    # audited

    def check_audited(self):
        told = {}
        for _, _, record in self._lines_of("audit"):
            detail = record["detail"]
            if "journal" not in detail:
                continue
            if "quarantine" in detail:
                if not os.path.exists(os.path.join(self.path, detail["quarantine"])):
                    self.wrong(f"audit seq {record['seq']} names {detail['quarantine']}, which is not there")
                continue
            start = detail.get("from", detail.get("offset"))
            if detail["journal"] in self.journals and start < self.journals[detail["journal"]].begins():
                continue
            told.setdefault(detail["journal"], []).append((start, detail.get("to"), record))
        for name in sorted(set(told) | set(self.journals) - {"audit"}):
            outcomes = {offset: [] for offset, _, _ in self.journals[name].lines} if name in self.journals else {}
            for start, to, record in told.get(name, ()):
                covered = [it for it in outcomes if (start <= it < to if to else it == start)]
                what = f"audit seq {record['seq']} ({record['outcome']})"
                if not covered or record["detail"].get("records", len(covered)) != len(covered):
                    self.wrong(f"{what} tells of {name} at {start}..{to}, where {len(covered)} records are")
                # A duplicate names the first one, and tells nothing new of it.
                for offset in covered if record["outcome"] != "duplicate" else ():
                    outcomes[offset].append(record["outcome"])
            for offset, told_of in outcomes.items():
                # A dead letter may be recovered as a line, and then its item's end is told as well.
                is_dead = "-deadletter" in name and told_of == ["recovered", "dead-lettered"]
                if len(told_of) != 1 and not is_dead and (name, offset) not in self.damaged:
                    self.wrong(f"{name}: the record at {offset} is audited as {told_of or 'nothing'}")

    def _lines_of(self, name):
        return self.journals[name].records() if name in self.journals else []

    # quarantine

    def check_quarantine(self):
        where = os.path.join(self.path, "quarantine")
        for file in os.listdir(where) if os.path.isdir(where) else ():
            with open(os.path.join(where, file), "rb") as opened:
                content = opened.read()
            if not file.endswith(".tmp") and file.rsplit(".", 1)[1] != hashlib.sha256(content).hexdigest()[:16]:
                self.wrong(f"quarantine/{file} does not hold what its name says")

    # milestones

    def check_milestones(self, offered, acked):
        """`offered`: content by id; `acked`: offset by id."""
        seen = {}
        for offset, _, record in self._lines_of("milestones"):
            identity = record.get("milestoneId")
            if identity in seen:
                self.wrong(f"{identity} is in milestones twice, at {seen[identity]} and {offset}")
            seen[identity] = offset
            if ("milestones", offset) in self.damaged:
                continue
            if identity not in offered:
                self.wrong(f"milestones: {identity} at {offset} was never emitted")
            elif any(record.get(key) != value for key, value in offered[identity].items()):
                self.wrong(f"milestones: {identity} at {offset} has other content")
        for identity in offered if "milestones" in self.journals else ():
            # Of what was trimmed stays where it was, under half of a SHA-256.
            kept = self.journals["milestones"].kept.get(hashlib.sha256(identity.encode()).hexdigest()[:32])
            if kept is not None and kept < self.journals["milestones"].begins():
                if identity in seen:
                    self.wrong(f"{identity} was trimmed at {kept} and is at {seen[identity]} again")
                seen[identity] = kept
        for identity, offset in acked.items():
            if seen.get(identity) != offset:
                self.wrong(f"{identity} was acknowledged at {offset} and is at {seen.get(identity)}")
        return seen

    # queue

    def check_queue(self, queue="milestone-delivery-queue", source="milestones", passed_over=(), upto=None):
        """All of the source is in the queue (or all below `upto`), but for the ids in `passed_over`. Returns the
        dead letters that were put back; the keys that were resent are in `resent` then."""
        behind, wanted = {}, []
        for offset, line, record in self.journals[source].lines if source in self.journals else ():
            end = offset + len(line) + 1
            key = f"milestone:{record['milestoneId']}" if record and "milestoneId" in record else None
            if key and record["milestoneId"] not in passed_over:
                wanted.append((key, end))
            behind[end] = fingerprint(line)
        behind[0] = ""
        begins = self.journals[source].begins() if source in self.journals else 0
        there, redriven, self.resent = [], set(), []
        for offset, _, record in self._lines_of(queue):
            resume = record.get("resume") or {}
            if begins and resume.get("offset", 0) <= begins:
                continue
            if behind.get(resume.get("offset")) != resume.get("fingerprint"):
                self.wrong(f"{queue}: the record at {offset} resumes nowhere: {resume}")
            if "endpoint" in record and "redrive_of" not in record:
                self.resent.append(record["idempotency_key"])
            elif "endpoint" in record:
                origin = (record["endpoint"], record["redrive_of"])
                if origin in redriven:
                    self.wrong(f"{queue}: dead letter {origin} was put back twice, again at {offset}")
                redriven.add(origin)
            else:
                there.append((record["idempotency_key"], resume.get("offset")))
        keys = [key for key, _ in there]
        if len(set(keys)) != len(keys):
            self.wrong(f"{queue}: {sorted(it for it in set(keys) if keys.count(it) > 1)} twice")
        if upto is not None:
            missing = [key for key, end in wanted if end <= upto and key not in set(keys)]
            if missing:
                self.wrong(f"{queue}: says it is done up to {upto} and lacks {missing}")
        elif keys != [key for key, _ in wanted]:
            self.wrong(f"{queue}: holds {keys}, the source {[key for key, _ in wanted]}")
        return redriven

    # deliveries

    def check_deliveries(self, received, refused, again=False, queue="milestone-delivery-queue"):
        """`received`: the keys that the endpoint has; `refused`: those that it will never take; `again`: whether
        records may be settled more than once."""
        dead = [record["idempotency_key"] for _, _, record in self._lines_of(queue.replace("-queue", "-deadletter"))]
        if sorted(dead) != sorted(refused):
            self.wrong(f"dead letters are {dead}, refused was {sorted(refused)}")
        settled = {}
        for _, _, record in self._lines_of("audit"):
            if record["action"] == "deliver" and record["outcome"] in ("acknowledged", "dead-lettered"):
                settled.setdefault(record["detail"]["queueOffset"], []).append(record["outcome"])
        for offset, _, record in self._lines_of(queue):
            key = record["idempotency_key"]
            if key not in received and key not in refused:
                self.wrong(f"{key} was never received")
            told, wanted = settled.pop(offset, []), ["dead-lettered" if key in refused else "acknowledged"]
            if (sorted(set(told)) if again else told) != wanted:
                self.wrong(f"{key} at {offset} of the queue is not settled once in the audit")
        if settled:
            self.wrong(f"the audit settles what is not in the queue: {settled}")

    # feed

    def check_feed(self, offered, receipts):
        """`offered`: events by key; `receipts`: (seq, head) by key, as they were answered."""
        seen = {}
        for offset, _, record in self._lines_of("receive/feed"):
            key = record["idempotencyKey"]
            if key in seen:
                self.wrong(f"feed: {key} twice, again at {offset}")
            seen[key] = (record["seq"], record["hash"])
            if key not in offered or any(record["event"].get(field) != it for field, it in offered[key].items()):
                self.wrong(f"feed: {key} at {offset} was never sent with this content")
        for key, receipt in receipts.items():
            if seen.get(key) != receipt:
                self.wrong(f"feed: {key} was answered {receipt} and is {seen.get(key)}")
