"""Many processes at one folder at once, some of them killed; what remains must be exactly what was promised.

The idea: emitters that are killed at random moments, readers, queue runners, redrives and rotation all work
at the same time on one folder, and in the end every id is accounted for.

One round: `PROCESSES` emitters at a time, each with a batch of events of which some are offered by others too,
are fed through a pipe that sometimes stalls; about one in four is killed at a random moment. Beside them a
`milestone-queue --watch` (killed and started again), plain `milestone-queue` runs, `--redrive-all` over planted
dead letters, and readers. Segments are small, so that everything rotates often.

Invariants, beyond those of `invariants`
- What a process said before it was killed holds: that id is there, once, at that offset.
- A reader that reads up to the mark never sees a byte change or go away.
- Nobody fails: with a healthy disk every process that was not killed exits 0.
- In the end a last run emits everything again: what is there is each offered id exactly once, and the queue
  holds the same, in order.
"""
import json
import os
import random
import shutil
import subprocess
import tempfile
import threading
import time

from invariants import Folder, read_mark
from scenarios import QUEUE, Acks, Scenario, Wrong, plant_dead_letters

PROCESSES = 32
_BATCH = 12
_KILLED = 0.25
_SHARED = 0.2
_TIMEOUT_S = 120


class Crowd(Scenario):
    """One round."""

    def __init__(self, tools, seed, rounds):
        self.name = f"writers{seed}"
        super().__init__(tools, seed)
        self.rotate = ("--rotate-bytes", str(self.random.choice((6000, 20000, 100000))))
        self.rounds, self.acked, self.wrong = rounds, {}, []
        self.emitted = self.killed = self.others = self.looks = 0
        self.lock = threading.Lock()
        self.is_over = threading.Event()

    def note(self, what):
        with self.lock:
            self.wrong.append(what)

    def emitter(self, logs, events, seed):
        """One emitting process, fed through a pipe, perhaps killed."""
        chance = random.Random(seed)
        argv = self.tools.argv("milestone-emit", logs, "--verify-evidence", "off", *self.rotate, "-")
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        timer = None
        if chance.random() < _KILLED:
            timer = threading.Timer(chance.expovariate(1 / 0.15), process.kill)
            timer.start()
        lines = [json.dumps(it).encode() + b"\n" for it in events]
        cut = chance.randrange(len(lines))

        def feed():
            try:
                process.stdin.write(b"".join(lines[:cut]))
                process.stdin.flush()
                if chance.random() < 0.5:
                    self.is_over.wait(chance.random() * 0.05)
                process.stdin.write(b"".join(lines[cut:]))
                process.stdin.close()
            except OSError:
                pass  # it was killed

        feeder = threading.Thread(target=feed)
        feeder.start()
        stdout, stderr = process.stdout.read(), process.stderr.read()
        status = process.wait()
        feeder.join()
        if timer:
            timer.cancel()
        process.stdout.close()
        process.stderr.close()
        acks = Acks(stdout[:stdout.rfind(b"\n") + 1])
        with self.lock:
            self.emitted += len(events)
            self.killed += status == -9
            for identity, offset in acks.milestones.items():
                if self.acked.setdefault(identity, offset) != offset:
                    self.wrong.append(f"{identity} was acknowledged at {self.acked[identity]} and at {offset}")
        if status == 0 and len(acks.milestones) != len(events):
            self.note(f"an emitter exits 0 having acknowledged {len(acks.milestones)} of {len(events)}")
        if status not in (0, -9):
            self.note(f"an emitter exits with {status}: {stderr.decode(errors='replace').strip()[-300:]}")

    def beside(self, logs, *flags, kill_after=None):
        """One more process beside the emitters."""
        argv = self.queue_step(logs, *flags)
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        with self.lock:
            self.others += 1
        if kill_after is not None:
            self.is_over.wait(kill_after)
            process.kill()
        stderr = process.communicate(timeout=_TIMEOUT_S)[1]
        if process.returncode not in (0, -9):
            said = stderr.decode(errors="replace").strip()[-300:]
            self.note(f"milestone-queue {' '.join(flags)} exits with {process.returncode}: {said}")

    def keep_doing(self, what):
        def loop():
            try:
                while not self.is_over.is_set():
                    what()
            except Exception as cause:
                self.note(f"{type(cause).__name__}: {cause}")
        thread = threading.Thread(target=loop)
        thread.start()
        return thread

    def reader(self, logs, name):
        """Looks again and again at what is believed; it may grow and never change."""
        seen = {"end": 0, "bytes": b""}

        def look():
            believed = self.believed(logs, name)
            if believed is None:
                return
            with self.lock:
                self.looks += 1
            if not believed.startswith(seen["bytes"]):
                self.note(f"{name}: what a reader had seen below the mark is gone or changed")
            if believed and not believed.endswith(b"\n"):
                self.note(f"{name}: the mark stands within a line")
            if len(believed) > len(seen["bytes"]):
                seen["bytes"] = believed
            self.is_over.wait(0.01)
        return look

    @staticmethod
    def believed(logs, name):
        """All bytes up to the mark; None when a rotation came in between."""
        mark = read_mark(logs, name)
        if mark is None:
            return None
        try:
            sealed = sorted(it for it in os.listdir(logs) if it.startswith(name + ".") and len(it) == len(name) + 27)
            content = b""
            for file in [*sealed, f"{name}.jsonl"]:
                with open(os.path.join(logs, file), "rb") as opened:
                    content += opened.read()
        except FileNotFoundError:
            return None
        # A rotation has renamed before it moves the mark: what was opened may be the next segment already.
        again, sealed = read_mark(logs, name), os.path.join(logs, f"{name}.{mark['base']:020d}.jsonl")
        if again is None or again["base"] != mark["base"] or os.path.exists(sealed):
            return None
        return content[:mark["base"] + mark["length"]]

    def run(self, logs):
        """The round; violations in words."""
        self.emit(logs, self.new(4))
        self.queue(logs)
        plant_dead_letters(logs, 3)
        loops = [
            self.keep_doing(self.reader(logs, "milestones")), self.keep_doing(self.reader(logs, "audit")),
            self.keep_doing(self.reader(logs, QUEUE)),
            self.keep_doing(lambda: self.beside(logs, "--watch", kill_after=self.random.random())),
            self.keep_doing(lambda: (self.beside(logs), self.is_over.wait(0.1))),
            self.keep_doing(lambda: (self.beside(logs, "--redrive-all"), self.is_over.wait(0.2))),
            self.keep_doing(lambda: (self.beside(logs, "--redrive-all"), self.is_over.wait(0.3)))]
        for number in range(self.rounds):
            emitters = []
            for at in range(PROCESSES):
                known = list(self.offered.values())
                events = self.new(_BATCH)
                # Some that others offered, or are offering now.
                events += self.random.sample(known, min(len(known), int(_BATCH * _SHARED)))
                seed = f"{self.name} {number} {at}"
                emitters.append(threading.Thread(target=self.emitter, args=(logs, events, seed)))
            for it in emitters:
                it.start()
            for it in emitters:
                it.join()
        self.is_over.set()
        for it in loops:
            it.join()
        try:
            before = Folder(logs)
            self.queue(logs, "--redrive-all")
            self.emit_again(logs, list(self.offered.values()), self.acked)
            self.queue(logs)
            return self.wrong + self.conserved(logs, before) + self.second_opinion(logs)
        except Wrong as wrong:
            return [*self.wrong, str(wrong)]

    def conserved(self, logs, before):
        folder = Folder(logs).check_all()
        there = folder.check_milestones(self.offered, self.acked)
        if set(there) != set(self.offered):
            folder.wrong(f"lost: {sorted(set(self.offered) - set(there))[:5]}")
        lacking = set(self.acked) - {it["milestoneId"] for _, _, it in before.journals["milestones"].records()}
        if lacking:
            folder.wrong(f"acknowledged, and only there after being emitted again: {sorted(lacking)[:5]}")
        redriven = folder.check_queue()
        if len(redriven) != 3:
            folder.wrong(f"3 dead letters were put back as {sorted(redriven)}")
        return folder.violations


def crowd(tools, scratch, report, rounds, seed=1):
    """One crowd of `rounds` times `PROCESSES` emitters."""
    began = time.monotonic()
    logs = os.path.realpath(tempfile.mkdtemp(prefix="crowd.", dir=scratch))
    work = Crowd(tools, seed, rounds)
    for wrong in work.run(logs) or [None]:
        report.add(work.name, {"trial": f"seed {seed}", "violations": [wrong] if wrong else []})
    shutil.rmtree(logs, ignore_errors=True)
    report.tally("crowd", "emits beside others", work.emitted)
    report.tally("crowd", "processes", rounds * PROCESSES + work.others)
    report.line("crowd", work.name, f"{rounds * PROCESSES} emitters, {PROCESSES} at a time, {work.killed} killed; "
                f"{work.emitted} emits, {len(work.offered)} ids, {work.others} queue runs beside, "
                f"{work.looks} looks by readers", began)
