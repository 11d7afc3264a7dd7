"""What is tortured: each scenario is one use of the tools, how it is recovered from, and what must hold then.

The idea: a fault may leave anything behind, but one ordinary run later nothing of it shows. So a scenario is
four steps: `prepare` makes the folder as it was before, `steps` are the command lines under fault, `recover`
is what an operator would run next, and `check` judges the files (`invariants`) against what was acknowledged.

Invariants
- `recover` runs only what is documented and expects success; nothing is repaired by hand.
- What was printed before the fault is a promise: `Acks` reads it from the bytes of stdout, whole lines only.
- Input is made from the scenario's own name and a seed, so a violation can be repeated.

Not here: which faults there are (faultsweep, powerloss), many processes at once (writers).
"""
import json
import os
import random
import shutil
import signal
import subprocess
import time

from invariants import Folder, canonical
from peers import SECRET, Client, Endpoint, address_in, post

# A hang is one even where a hundred others want the same processor.
TIMEOUT_S = 90
QUEUE = "milestone-delivery-queue"
DEAD = "milestone-delivery-deadletter"
# What the tools may exit with (sysexits.h; docs/MESSAGES.md); a panic (101) or an abort is a violation by itself.
EXITS = {0, 2, 65, 66, 69, 73, 74, 75, 77}


class Wrong(Exception):
    """A violation that is noticed while recovering."""


def event(name, number, size=0):
    """A milestone with an id, different from all others in its content."""
    return {
        "milestoneId": f"{name}.{number}", "timestampUtc": "2026-03-01T09:05:00.000Z", "scope": f"scope{number % 3}",
        "claim": f"Claim {number} of {name}: \u00e9\u4e2d\U0001f600 \"\\ done." + " x" * size,
        "evidence": [{"type": "log", "path": f"/var/log/{name}.{number}.log", "summary": "exit 0"}],
        "riskStatus": "on-track", "nextAction": "Watch the next run.", "source": "agent"}


class Tools:
    """The built programs."""

    def __init__(self, folder):
        self.folder = folder

    def argv(self, tool, logs, *flags):
        return [os.path.join(self.folder, tool), "--logs", logs, *flags]

    def run(self, tool, logs, *flags, stdin=b"", expect=(0,)):
        """Runs a tool to its end; its results."""
        argv = self.argv(tool, logs, *flags)
        try:
            done = subprocess.run(argv, input=stdin, capture_output=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise Wrong(f"{tool} {' '.join(flags)} hangs") from None
        if done.returncode not in expect:
            said = done.stderr.decode(errors="replace").strip()[-300:]
            raise Wrong(f"{tool} {' '.join(flags)} -> {done.returncode}: {said}")
        return [json.loads(line) for line in done.stdout.splitlines()]


class Acks:
    """What was acknowledged on stdout."""

    def __init__(self, stdout):
        lines = [json.loads(line) for line in stdout.split(b"\n")[:-1] if line]
        taken = [it for it in lines if it.get("status") in ("appended", "duplicate")]
        self.milestones = {it["milestoneId"]: it["offset"] for it in taken}
        # A resync may set a queue back, so the last word counts.
        self.cursor = next((it["cursor"] for it in reversed(lines) if "cursor" in it), None)


class Scenario:
    """Common ground; `offered` is all that is ever emitted, by id."""

    name = ""
    # Segments this small rotate every few records.
    rotate = ()
    # Whether exit 0 means that everything was done; a service stays up and says so in each answer.
    exit_says_all = True
    # Whether the folder was given by hand what no tool leaves.
    planted = False
    # Left out of --quick, unless it is asked for by its name.
    slow = False

    def __init__(self, tools, seed=1):
        self.tools, self.random = tools, random.Random(f"{self.name} {seed}")
        self.offered = {}
        self.damaged, self.passed_over = set(), set()

    def new(self, count, size=None):
        """Fresh events, as input lines."""
        first = len(self.offered)
        events = [event(self.name, first + at, self.random.randrange(40) if size is None else size)
                  for at in range(count)]
        self.offered.update({it["milestoneId"]: it for it in events})
        return events

    def emit(self, logs, events, *flags, expect=(0,)):
        lines = "".join(json.dumps(it) + "\n" for it in events).encode()
        flags = (*self.rotate, *flags)
        return self.tools.run("milestone-emit", logs, "--verify-evidence", "off", *flags, "-", stdin=lines, expect=expect)

    def queue(self, logs, *flags, expect=(0,)):
        return self.tools.run("milestone-queue", logs, *self.rotate, *flags, expect=expect)

    def emit_step(self, logs, file, *flags):
        return self.tools.argv("milestone-emit", logs, "--verify-evidence", "off", *self.rotate, *flags,
                               os.path.join(logs, file))

    def queue_step(self, logs, *flags):
        return self.tools.argv("milestone-queue", logs, *self.rotate, *flags)

    def save(self, logs, file, events):
        with open(os.path.join(logs, file), "w", encoding="utf-8") as out:
            out.writelines((it if isinstance(it, str) else json.dumps(it)) + "\n" for it in events)

    def make(self, logs):
        """The folder as it is before the fault."""
        self.prepare(logs)
        self.later = self.new(1)

    def prepare(self, logs):
        raise NotImplementedError

    def steps(self, logs):
        raise NotImplementedError

    def companion(self, acks):
        """Who works beside the steps, if anybody, and notes in `acks` what was promised: an object with
        `start(pid)`, called for each step, and `stop()`. It is there before `steps` is asked."""
        return None

    def recover(self, logs, stdout):
        raise NotImplementedError

    def check(self, logs, stdout):
        """Violations, in words."""
        acks = Acks(stdout)
        folder = Folder(logs, self.damaged).check_all()
        there = folder.check_milestones(self.offered, acks.milestones)
        missing = set(self.offered) - set(there)
        if missing:
            folder.wrong(f"emitted again and not there: {sorted(missing)}")
        if QUEUE in folder.journals:
            folder.check_queue(passed_over=self.passed_over)
        return folder.violations

    def second_opinion(self, logs, tolerated=()):
        """What `milestone-status --check` finds in the folder: nothing, but what was damaged, and these kinds."""
        try:
            result = self.tools.run("milestone-status", logs, "--check", "--json", expect=(0, 2))[0]
        except Wrong as wrong:
            return [str(wrong)]
        findings = [it for it in result["findings"] if it["kind"] not in tolerated]
        is_sound = result["status"] == "holds" or not findings
        if is_sound == (not self.damaged):
            return []
        return [f"milestone-status --check: {result['status']}: {json.dumps(findings[:3])}"]

    def as_left(self, logs):
        """What a fault leaves is not yet settled, and is no damage to whoever only looks."""
        if self.damaged or self.planted:
            return []
        wrong = []
        for tool, flag in (("milestone-status", "--check"), ("audit-tail", "--verify")):
            said = self.tools.run(tool, logs, flag, "--json", expect=(0, 2))[0]
            if said.get("status") != "holds" and not said.get("ok"):
                found = said.get("findings") or said.get("problems")
                wrong.append(f"{tool} {flag} before anybody has recovered: {json.dumps(found[:3])}")
        return wrong

    def emit_again(self, logs, events, acked):
        """The same input once more: what was acknowledged must be a duplicate, at the same offset."""
        for result in self.emit(logs, events):
            identity = result["milestoneId"]
            if identity in acked and (result["status"], result["offset"]) != ("duplicate", acked[identity]):
                raise Wrong(f"{identity} was acknowledged at {acked[identity]}, and again: {result}")


class EmitFresh(Scenario):
    """The first emit into an empty folder: everything is created."""

    name = "emit-fresh"

    def prepare(self, logs):
        self.save(logs, "input", self.new(3))

    def steps(self, logs):
        return [self.emit_step(logs, "input")]

    def recover(self, logs, stdout):
        self.emit(logs, self.later)
        self.emit_again(logs, list(self.offered.values()), Acks(stdout).milestones)


class EmitMore(EmitFresh):
    """New ids, duplicates, a conflict and a refused line, into a folder in use."""

    name = "emit-more"

    def prepare(self, logs):
        old = self.new(5)
        self.emit(logs, old)
        new = self.new(3)
        conflict = dict(old[2], claim="Something else.")
        self.save(logs, "input", [old[1], new[0], conflict, new[1], '{"milestoneId":"half"', new[2], new[0], old[4]])


class EmitMany(EmitFresh):
    """So many at once that the audit's lines are made while the journal goes to disk."""

    name = "emit-many"

    def prepare(self, logs):
        self.save(logs, "input", self.new(300, size=0))


class EmitRotating(EmitFresh):
    """Several emits, each of which rotates its journal or the audit."""

    name = "emit-rotating"
    rotate = ("--rotate-bytes", "1500")

    def prepare(self, logs):
        self.emit(logs, self.new(2))
        for at in range(3):
            self.save(logs, f"input{at}", self.new(2))

    def steps(self, logs):
        return [self.emit_step(logs, f"input{at}") for at in range(3)]


class EmitAllOrNothing(Scenario):
    """A batch of which all or nothing counts, in a folder in use."""

    name = "emit-all-or-nothing"

    def prepare(self, logs):
        self.emit(logs, self.new(2))
        self.batch = self.new(4)
        self.save(logs, "input", self.batch)

    def steps(self, logs):
        return [self.emit_step(logs, "input", "--all-or-nothing")]

    def recover(self, logs, stdout):
        acked = Acks(stdout).milestones
        self.emit(logs, self.later)
        there = {it["milestoneId"] for _, _, it in Folder(logs).journals["milestones"].records()}
        batch = {it["milestoneId"] for it in self.batch}
        if len(batch & there) not in (0, len(batch)):
            raise Wrong(f"only {sorted(batch & there)} of the batch are there")
        self.emit_again(logs, list(self.offered.values()), acked)


class EmitAllOrNothingRotating(EmitAllOrNothing):
    """The same, where the batch rotates the journal first."""

    name = "emit-all-or-nothing-rotating"
    rotate = ("--rotate-bytes", "1200")


class QueueFresh(Scenario):
    """The first run of the queue over a journal."""

    name = "queue-fresh"

    def prepare(self, logs):
        self.emit(logs, self.new(4))

    def steps(self, logs):
        return [self.queue_step(logs)]

    def recover(self, logs, stdout):
        cursor = Acks(stdout).cursor
        if cursor is not None:
            folder = Folder(logs, self.damaged)
            folder.violations.clear()  # a tail may be torn before the next run
            folder.check_queue(passed_over=self.passed_over, upto=cursor)
            lacks = [it for it in folder.violations if "says it is done" in it]
            if lacks:
                raise Wrong(lacks[0])
        self.queue(logs, expect=(0, 65) if self.damaged else (0,))
        self.emit(logs, self.later)
        self.queue(logs, expect=(0, 65) if self.damaged else (0,))


class QueueMore(QueueFresh):
    """A queue in use, and more in the source."""

    name = "queue-more"

    def prepare(self, logs):
        self.emit(logs, self.new(3))
        self.queue(logs)
        self.emit(logs, self.new(3))


class QueueMany(QueueFresh):
    """So many at once that the index learns them while the queue goes to disk."""

    name = "queue-many"

    def prepare(self, logs):
        self.emit(logs, self.new(300, size=0))


class QueueRotating(QueueFresh):
    """Source, queue and audit rotate while emit and queue take turns."""

    name = "queue-rotating"
    rotate = ("--rotate-bytes", "2000")

    def prepare(self, logs):
        self.emit(logs, self.new(2))
        self.queue(logs)
        self.save(logs, "input0", self.new(3))
        self.save(logs, "input1", self.new(2))

    def steps(self, logs):
        return [self.emit_step(logs, "input0"), self.queue_step(logs), self.emit_step(logs, "input1"),
                self.queue_step(logs)]

    def recover(self, logs, stdout):
        for at in range(2):
            events = [self.offered[json.loads(line)["milestoneId"]] for line in open(os.path.join(logs, f"input{at}"), "rb")]
            self.emit_again(logs, events, Acks(stdout).milestones)
        super().recover(logs, stdout)


class QueueTrim(QueueFresh):
    """Closed files that the queue has passed are removed, between emits; afterwards the index is made anew of what is
    left of them."""

    name = "queue-trim"
    rotate = ("--rotate-bytes", "900")

    def prepare(self, logs):
        for _ in range(4):
            self.emit(logs, self.new(2))
            self.queue(logs)
        self.save(logs, "input", self.new(2))

    def steps(self, logs):
        return [self.queue_step(logs, "--trim"), self.emit_step(logs, "input"), self.queue_step(logs),
                self.queue_step(logs, "--trim")]

    def recover(self, logs, stdout):
        acked = Acks(stdout).milestones
        self.emit_again(logs, list(self.offered.values()), acked)
        super().recover(logs, stdout)
        self.queue(logs, "--trim")
        shutil.rmtree(os.path.join(logs, ".index"), ignore_errors=True)
        again = self.emit(logs, list(self.offered.values()))
        forgotten = [it["milestoneId"] for it in again if it["status"] != "duplicate"]
        if forgotten:
            raise Wrong(f"not known any more: {forgotten}")


class QueueDamaged(QueueFresh):
    """The source holds a damaged line below its mark and a torn one beyond it."""

    name = "queue-damaged"

    def prepare(self, logs):
        results = self.emit(logs, self.new(4))
        hurt = results[1]
        path = os.path.join(logs, "milestones.jsonl")
        with open(path, "r+b") as file:
            file.seek(hurt["offset"] + 5)
            file.write(b"\0\0\0")
            file.seek(0, os.SEEK_END)
            file.write(json.dumps(event(self.name, 77)).encode()[:100])
        self.damaged = {("milestones", hurt["offset"])}
        self.passed_over = {hurt["milestoneId"]}

    def check(self, logs, stdout):
        # The damaged id cannot be read any more; its offset stays audited as it was.
        hurt = {it: self.offered.pop(it) for it in self.passed_over}
        try:
            return super().check(logs, stdout)
        finally:
            self.offered.update(hurt)


class QueueRedrive(QueueFresh):
    """Dead letters are put back, twice asked for."""

    name = "queue-redrive"
    planted = True

    def prepare(self, logs):
        self.emit(logs, self.new(4))
        self.queue(logs)
        plant_dead_letters(logs, 3)

    def steps(self, logs):
        return [self.queue_step(logs, "--redrive-all"), self.queue_step(logs, "--redrive-all")]

    def recover(self, logs, stdout):
        self.queue(logs, "--redrive-all")
        super().recover(logs, stdout)

    def check(self, logs, stdout):
        folder = Folder(logs)
        redriven = folder.check_queue()
        letters = {("", offset) for offset, _, _ in folder.journals[DEAD].records()}
        wrong = [] if redriven == letters else [f"put back {sorted(redriven)} of {sorted(letters)}"]
        return wrong + super().check(logs, stdout)


class QueueVerbs(QueueFresh):
    """What was delivered is sent again, one dead letter is discarded, the others are put back."""

    name = "queue-verbs"

    def prepare(self, logs):
        with open(os.path.join(logs, "secret"), "w", encoding="ascii") as file:
            file.write(SECRET)
        first = self.new(5)
        self.emit(logs, first)
        self.queue(logs)
        keys = [f"milestone:{it['milestoneId']}" for it in first]
        self.dropped, self.had = keys[1], [keys[0], keys[2], keys[4]]
        endpoint = Endpoint(logs + ".first", {}, {keys[1], keys[3]})
        try:
            self.tools.run("milestone-deliver", logs, "--url", f"http://{endpoint.address}", "--secret-file",
                           os.path.join(logs, "secret"), "--allow-readable-secret")
        finally:
            endpoint.stop()

    def verbs(self):
        return [("--resend-all", "--since", "2000-01-01T00:00:00Z"), ("--discard", self.dropped, "--reason", "a typo"),
                ("--redrive-all",)]

    def steps(self, logs):
        return [self.queue_step(logs, *flags) for flags in self.verbs()]

    def recover(self, logs, stdout):
        for flags in self.verbs():
            # Where the fault kept the dead letter from being discarded, it was put back.
            self.queue(logs, *flags, expect=(0, 2) if "--discard" in flags else (0,))
        super().recover(logs, stdout)

    def check(self, logs, stdout):
        folder = Folder(logs)
        letters = sorted(offset for offset, _, _ in folder.journals[DEAD].records())
        back = [offset for _, offset in folder.check_queue()]
        closed = [record["detail"]["deadLetter"] for _, _, record in folder.journals["audit"].records()
                  if record["action"] == "discard"]
        if sorted(back + closed) != letters:
            folder.wrong(f"put back are {back}, discarded {closed}, of {letters}")
        if folder.resent != self.had:
            folder.wrong(f"sent again is {folder.resent} of {self.had}")
        return folder.violations + super().check(logs, stdout)


class QueueVerbsRotating(QueueVerbs):
    """The same, where queue and audit rotate."""

    name = "queue-verbs-rotating"
    rotate = ("--rotate-bytes", "2000")


class QueueResync(QueueFresh):
    """An operator sets the queue's position: the one state file that is no cache."""

    name = "queue-resync"

    def prepare(self, logs):
        self.emit(logs, self.new(3))
        self.queue(logs, "--resync", "start")
        self.emit(logs, self.new(2))

    def steps(self, logs):
        return [self.queue_step(logs, "--resync", "start")]


class Receive(Scenario):
    """The receiver under requests: new ones, a duplicate, a conflict."""

    name = "receive"
    exit_says_all = False

    def prepare(self, logs):
        with open(os.path.join(logs, "secret"), "w", encoding="ascii") as file:
            file.write(SECRET)
        new = self.new(4)
        self.requests = [*new[:3], new[0], dict(new[1], claim="Something else."), new[3]]
        self.serve(logs, self.new(2))

    def steps(self, logs):
        return [self.tools.argv("milestone-receive", logs, "--listen", "127.0.0.1:0", *self.rotate, "--secret-file",
                                os.path.join(logs, "secret"), "--allow-readable-secret")]

    def companion(self, acks):
        return Client(acks, self.requests)

    def serve(self, logs, events):
        """An ordinary run: the answers to these events."""
        said = logs + ".said"
        with open(said, "wb") as out, open(os.devnull, "wb") as none:
            server = subprocess.Popen(self.steps(logs)[0], stdin=subprocess.DEVNULL, stdout=out, stderr=none)
        try:
            address, until = None, time.monotonic() + TIMEOUT_S
            while not address:
                if server.poll() is not None or time.monotonic() > until:
                    raise Wrong(f"milestone-receive does not start: {server.poll()}")
                time.sleep(0.002)
                address = address_in(said)
            answers = []
            for sent in events:
                status, body = post(address, sent)
                if status != 200:
                    raise Wrong(f"{sent['milestoneId']} is answered {status} {body}")
                answers.append(json.loads(body))
            server.send_signal(signal.SIGTERM)
            if server.wait(TIMEOUT_S) != 0:
                raise Wrong(f"milestone-receive exits with {server.returncode}")
            return answers
        except (OSError, subprocess.TimeoutExpired) as cause:
            raise Wrong(f"milestone-receive does not answer: {cause}") from None
        finally:
            server.kill()
            server.wait()

    @staticmethod
    def receipts(stdout):
        answers = [json.loads(line) for line in stdout.split(b"\n")[:-1] if b'"receipt"' in line]
        return {f"milestone:{it['milestoneId']}": (it["receipt"]["seq"], it["receipt"]["head"]) for it in answers}

    def recover(self, logs, stdout):
        receipts = self.receipts(stdout)
        for answer in self.serve(logs, [*self.later, *self.offered.values()]):
            key = f"milestone:{answer['milestoneId']}"
            receipt = (answer["receipt"]["seq"], answer["receipt"]["head"])
            if receipts.get(key, receipt) != receipt or key in receipts and answer["status"] != "duplicate":
                raise Wrong(f"{key} was answered {receipts[key]}, and again: {answer}")

    def check(self, logs, stdout):
        folder = Folder(logs).check_all()
        offered = {f"milestone:{identity}": sent for identity, sent in self.offered.items()}
        folder.check_feed(offered, self.receipts(stdout))
        if len(folder.journals["receive/feed"].lines) != len(offered):
            folder.wrong(f"feed: {len(folder.journals['receive/feed'].lines)} records of {len(offered)} events")
        return folder.violations


class ReceiveRotating(Receive):
    """The same, where the feed and the audit rotate."""

    name = "receive-rotating"
    rotate = ("--rotate-bytes", "1500")


class Deliver(QueueFresh):
    """Deliveries to an endpoint that takes all but one event, with more coming in between."""

    name = "deliver"
    exit_says_all = False
    # Whether a record may be settled more than once.
    again = False

    def prepare(self, logs):
        with open(os.path.join(logs, "secret"), "w", encoding="ascii") as file:
            file.write(SECRET)
        first = self.new(4)
        self.emit(logs, first)
        self.queue(logs)
        self.emit(logs, self.new(2))
        self.refused = {f"milestone:{first[1]['milestoneId']}"}

    def companion(self, acks):
        self.endpoint = Endpoint(acks, {}, self.refused)
        return self.endpoint

    def deliver_step(self, logs, *flags):
        return self.tools.argv("milestone-deliver", logs, "--url", f"http://{self.endpoint.address}", *self.rotate,
                               "--secret-file", os.path.join(logs, "secret"), "--allow-readable-secret",
                               "--backoff-base", "10ms", *flags)

    def steps(self, logs):
        return [self.deliver_step(logs), self.queue_step(logs), self.deliver_step(logs)]

    def recover(self, logs, stdout):
        # The other machine has what it had; nothing of the fault reached it.
        lines = [json.loads(line) for line in stdout.split(b"\n")[:-1] if b'"receipt"' in line]
        known = {f"milestone:{it['milestoneId']}": it["receipt"]["head"] for it in lines}
        super().recover(logs, b"")
        self.endpoint = Endpoint(logs + ".more", known, self.refused)
        try:
            argv = self.deliver_step(logs, "--drain", "--drain-timeout", "10s")
            self.tools.run("milestone-deliver", logs, *argv[3:])
        finally:
            self.endpoint.stop()
        if self.endpoint.wrong:
            raise Wrong(self.endpoint.wrong[0])

    def check(self, logs, stdout):
        folder = Folder(logs)
        folder.check_deliveries(self.endpoint.received, self.refused, self.again)
        return folder.violations + super().check(logs, b"")


class DeliverRotating(Deliver):
    """The same, where queue, dead letters and audit rotate."""

    name = "deliver-rotating"
    rotate = ("--rotate-bytes", "1500")


class DeliverVerbs(Deliver):
    """The operator holds an endpoint, asks it to try again, and lets it go on, with deliveries in between."""

    name = "deliver-verbs"

    def steps(self, logs):
        verb = [("--hold", "the app is being deployed"), None, ("--retry-now",), None, ("--release",), None]
        return [self.deliver_step(logs) if flags is None else self.verb_step(logs, *flags) for flags in verb]

    def verb_step(self, logs, *flags):
        return self.tools.argv("milestone-deliver", logs, *self.rotate, *flags)

    def recover(self, logs, stdout):
        sent_while_held = sorted(key for key, step in self.endpoint.steps.items() if 0 < step < 6)
        # What this very run said; after a power cut nobody can ask.
        if sent_while_held and os.path.exists(self.endpoint.acks):
            with open(self.endpoint.acks, "rb") as said:
                if b'"command":"hold' in said.read():
                    raise Wrong(f"{sent_while_held} were sent although the endpoint was held")
        # Whatever the fault left of the commands: one that is given now counts.
        self.tools.run("milestone-deliver", logs, *self.verb_step(logs, "--hold", "once more")[3:])
        self.endpoint = Endpoint(logs + ".held", {}, self.refused)
        try:
            self.tools.run("milestone-deliver", logs, *self.deliver_step(logs)[3:])
        finally:
            self.endpoint.stop()
        if self.endpoint.steps:
            raise Wrong(f"{sorted(self.endpoint.steps)} were sent although the endpoint was held once more")
        self.tools.run("milestone-deliver", logs, *self.verb_step(logs, "--release")[3:])
        super().recover(logs, stdout)


class DeliverVerbsRotating(DeliverVerbs):
    """The same, where the commands rotate too."""

    name = "deliver-verbs-rotating"
    rotate = ("--rotate-bytes", "300")


class DeliverResync(Deliver):
    """The operator has everything sent again; the endpoint knows it."""

    name = "deliver-resync"
    again = True

    def prepare(self, logs):
        super().prepare(logs)
        self.refused = set()

    def steps(self, logs):
        return [self.deliver_step(logs), self.tools.argv("milestone-deliver", logs, *self.rotate, "--resync", "start"),
                self.deliver_step(logs)]


class TaskEmit(Scenario):
    """Tasks: new ones, one that is known, a refused line, one that is done now, into a folder in use."""

    name = "task-emit"

    def prepare(self, logs):
        self.stands = {}
        old = [self.task(it) for it in range(4)]
        self.emit_tasks(logs, old)
        new = [self.task(it) for it in range(4, 7)]
        done = self.task(2, status="done")
        self.save(logs, "input", [old[1], new[0], done, new[1], '{"task_id":"half"', new[2], new[0]])

    def make(self, logs):
        self.prepare(logs)
        self.later = self.task(99)

    def task(self, number, status="open"):
        """A task as it is to stand in the end; every third is due later than any scan here."""
        due = "2026-03-01T08:00:00.000Z" if number % 3 else "2026-06-01T08:00:00.000Z"
        task = {"task_id": f"t{number}", "scope": f"chat:{number % 2}", "title": f"Task {number}: \u00e9 \"\\ do.",
                "due_at": due, "status": status, "updated_at": "2026-02-01T00:00:00.000Z"}
        self.stands[(task["scope"], task["task_id"])] = task
        return task

    def emit_tasks(self, logs, tasks):
        lines = "".join(json.dumps(it) + "\n" for it in tasks).encode()
        return self.tools.run("task-emit", logs, *self.rotate, "-", stdin=lines)

    def steps(self, logs):
        return [self.tools.argv("task-emit", logs, *self.rotate, os.path.join(logs, "input"))]

    def recover(self, logs, stdout):
        acked = {}
        for line in stdout.split(b"\n")[:-1]:
            result = json.loads(line)
            if result.get("status") in ("appended", "duplicate"):
                acked[(result["scope"], result["taskId"])] = result["offset"]
        for result in self.emit_tasks(logs, list(self.stands.values())):
            name = (result["scope"], result["taskId"])
            if name in acked and (result["status"], result["offset"]) != ("duplicate", acked[name]):
                raise Wrong(f"{name} was acknowledged at {acked[name]}, and again: {result}")

    def check(self, logs, stdout):
        folder = Folder(logs).check_all()
        self.check_tasks(folder)
        return folder.violations

    def check_tasks(self, folder):
        """The last line of each task says how it stands, and no line is there twice."""
        last, seen = {}, set()
        for offset, _, record in folder.journals["tasks"].records():
            if canonical(record) in seen:
                folder.wrong(f"tasks: the line at {offset} is there already")
            seen.add(canonical(record))
            last[(record["scope"], record["task_id"])] = record
        if last != self.stands:
            folder.wrong(f"tasks stand as {last}")


class TaskEmitRotating(TaskEmit):
    """The same, where tasks and audit rotate."""

    name = "task-emit-rotating"
    rotate = ("--rotate-bytes", "700")


class ReminderScan(TaskEmit):
    """Scans in two windows."""

    name = "reminder-scan"
    tasks = 7
    windows = ("2026-03-01T09:05:00Z", "2026-03-01T10:05:00Z")

    def prepare(self, logs):
        self.stands = {}
        self.emit_tasks(logs, [self.task(it) for it in range(self.tasks)])
        self.emit_tasks(logs, [self.task(1, status="done")])

    def scan(self, now):
        return (*self.rotate, "--now", now)

    def steps(self, logs):
        return [self.tools.argv("reminder-scan", logs, *self.scan(it)) for it in self.windows]

    def due(self):
        return [it for it in self.stands.values() if it["status"] == "open" and it["due_at"] < self.windows[0]]

    def recover(self, logs, stdout):
        # Where all was done nothing is written, and nothing settled but what is read.
        self.emit_tasks(logs, [self.later])
        # A bucket that was told of as done is done; the clock goes back for the first one.
        done = {json.loads(line)["timeBucket"] for line in stdout.split(b"\n")[:-1]}
        for now in self.windows:
            result = self.tools.run("reminder-scan", logs, *self.scan(now))[0]
            if result["timeBucket"] in done and result["reminded"] != 0:
                raise Wrong(f"{result['timeBucket']} was done, and again: {result}")
            if result["reminded"] + result["alreadyReminded"] != len(self.due()):
                raise Wrong(f"{len(self.due())} tasks are due: {result}")

    def check(self, logs, stdout):
        folder = Folder(logs).check_all()
        self.check_tasks(folder)
        keys = [record["idempotency_key"] for _, _, record in folder.journals["reminders"].records()]
        wanted = [f"rem:{it['scope']}:{it['task_id']}:{now[:13]}:00Z" for it in self.due() for now in self.windows]
        if sorted(keys) != sorted(wanted):
            folder.wrong(f"reminders are {sorted(keys)}, should be {sorted(wanted)}")
        return folder.violations


class ReminderScanRotating(ReminderScan):
    """The same, where reminders and audit rotate."""

    name = "reminder-scan-rotating"
    rotate = ("--rotate-bytes", "900")


class ReminderScanTable(ReminderScan):
    """So many tasks that the scan makes the table on disk; few of them are due."""

    name = "reminder-scan-table"
    slow = True
    tasks = 1030

    def prepare(self, logs):
        super().prepare(logs)
        shutil.rmtree(os.path.join(logs, ".index"))

    def task(self, number, status="open"):
        task = super().task(number, status)
        if number >= 7:
            task["due_at"] = "2026-06-01T08:00:00.000Z"
        return task


def plant_dead_letters(logs, count):
    """Dead letters of the first records of the queue, as a deliverer that died before its mark leaves them."""
    with open(os.path.join(logs, f"{QUEUE}.jsonl"), "rb") as queue, \
            open(os.path.join(logs, f"{DEAD}.jsonl"), "wb") as dead:
        offset = 0
        for line in list(queue)[:count]:
            letter = json.loads(line)
            del letter["resume"]
            attempt = {"at": "2026-03-01T09:05:00.000Z", "status": 400, "answer": "rejected"}
            letter.update(endpoint="", reason="rejected", attempts=[attempt], dead_at="2026-03-01T09:05:00.000Z",
                          queue_offset=offset)
            dead.write(json.dumps(letter, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
            offset += len(line)


SCENARIOS = [EmitFresh, EmitMore, EmitMany, EmitRotating, EmitAllOrNothing, EmitAllOrNothingRotating, QueueFresh,
             QueueMore, QueueMany, QueueRotating, QueueTrim, QueueDamaged, QueueRedrive, QueueVerbs,
             QueueVerbsRotating, QueueResync, Receive, ReceiveRotating, Deliver, DeliverRotating, DeliverVerbs,
             DeliverVerbsRotating, DeliverResync, TaskEmit, TaskEmitRotating, ReminderScan, ReminderScanRotating,
             ReminderScanTable]
