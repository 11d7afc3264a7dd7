"""Breaks the network between a real deliverer and a real receiver, at every byte, and restarts the receiver.

The idea: the two agree on nothing but bytes that one of them may not get. So a proxy stands between them, lets a
number of bytes pass in one direction, and then does one bad thing. Afterwards the wire is whole again, and the
deliverer must bring everything over by itself, each event once.

    close, reset   both sides are closed, orderly or with a reset
    stall          nothing passes any more, until the deliverer gives up waiting
    swallow        one byte of an answer is lost and the rest goes on, as if somebody framed it wrongly
    garble         one bit of an answer is changed
    kill           the receiver is killed; another one takes over the folder

Requests arrive as they were sent, or not at all: of one that a proxy has cut short the contract says that it is
answered 400, before its signature can be judged, and so it becomes a dead letter.

Invariants of a trial
- The feed holds every event once, in its scope's order; nothing became a dead letter; the deliverer settled each
  record once, and its audit holds the receipt that the feed's line is.
- What is wrong with an answer is at most taken for a wrong configuration: then the deliverer waits for the
  operator (exit 75), whose `--release` is all it takes.
"""
import collections
import os
import random
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

from arena import Arena, drop, in_parallel
from invariants import Folder
from peers import SECRET, address_in
from scenarios import QUEUE, Scenario, Wrong

FAULTS = ("close", "reset", "stall", "swallow", "garble", "kill")
_TIMEOUT_S = 120


class Wire(threading.Thread):
    """A proxy in front of `self.receiver`, an address that may change; `fault` happens once, at byte `at` of the
    bytes in `direction` ("there" or "back")."""

    def __init__(self, fault=None, direction="there", at=0):
        super().__init__(daemon=True)
        self.fault, self.direction, self.at = fault, direction, at
        self.receiver, self.passed, self.is_struck = None, {"there": 0, "back": 0}, False
        self.on_kill, self.is_over = None, False
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.server.getsockname()[1]
        self.start()

    def run(self):
        with selectors.DefaultSelector() as ready:
            self.ready = ready
            ready.register(self.server, selectors.EVENT_READ, None)
            while not self.is_over:
                for key, _ in ready.select(0.05):
                    if key.data is None:
                        self._connect()
                    elif key.fileobj.fileno() >= 0:
                        self._pass(key.fileobj, *key.data)

    def stop(self):
        self.is_over = True
        self.join()
        self.server.close()

    def _connect(self):
        client, _ = self.server.accept()
        try:
            host, port = self.receiver.split(":")
            server = socket.create_connection((host, int(port)), timeout=5)
        except OSError:
            client.close()  # nobody is there at the moment
            return
        for one, other, direction in ((client, server, "there"), (server, client, "back")):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.ready.register(one, selectors.EVENT_READ, (other, direction))

    def _pass(self, one, other, direction):
        try:
            piece = one.recv(65536)
        except OSError:
            piece = b""
        if not piece:
            self._end(one, other)
            return
        before = self.passed[direction]
        self.passed[direction] += len(piece)
        rest = None
        if self.fault and not self.is_struck and direction == self.direction and before + len(piece) > self.at:
            self.is_struck = True
            cut = max(0, self.at - before)
            piece, rest = piece[:cut], piece[cut:]
        try:
            other.sendall(piece)
            if rest is not None:
                self._strike(one, other, rest)
        except OSError:
            self._end(one, other)

    def _strike(self, one, other, rest):
        if self.fault == "swallow":
            other.sendall(rest[1:])
        elif self.fault == "garble":
            other.sendall(bytes([rest[0] ^ 1 << self.at % 7]) + rest[1:])
        elif self.fault == "stall":
            self.ready.unregister(one)
            self.ready.unregister(other)
            self.stalled = one, other  # kept open
        else:
            if self.fault == "reset":
                for it in (one, other):
                    it.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if self.fault == "kill":
                self.receiver = None
                self.on_kill()
            self._end(one, other)

    def _end(self, one, other):
        for it in (one, other):
            try:
                self.ready.unregister(it)
            except (KeyError, ValueError):
                pass
            it.close()


class Breaks(Scenario):
    """The whole way: a queue, a deliverer, the wire, a receiver."""

    name = "wire"
    exit_says_all = False

    def prepare(self, logs):
        with open(os.path.join(logs, "secret"), "w", encoding="ascii") as file:
            file.write(SECRET)
        self.emit(logs, self.new(5))
        self.queue(logs)

    def flags(self, logs):
        return [*self.rotate, "--secret-file", os.path.join(logs, "secret"), "--allow-readable-secret"]

    def trial(self, logs, wire):
        """Delivers through the wire; violations in words."""
        self.said, self.running = logs + ".said", []
        try:
            self.begin(logs, wire)
            wire.on_kill = lambda: self.take_over(logs, wire)
            for turn in range(3):
                status, stderr = self.deliver(logs, wire)
                if status == 0:
                    break
                if status != 75 or turn == 2:
                    raise Wrong(f"milestone-deliver exits with {status}: {stderr[-300:]}")
                self.tools.run("milestone-deliver", logs, "--release")
            self.running[-1].send_signal(signal.SIGTERM)
            if self.running[-1].wait(_TIMEOUT_S) != 0:
                raise Wrong(f"milestone-receive exits with {self.running[-1].returncode}")
            # An answer is not signed, so whoever changes one can make the sender believe another receipt; that the
            # check finds it is as it should be.
            tolerated = ("receipt-contradicted",) if wire.fault == "garble" else ()
            return self.check_both(logs, wire) + self.second_opinion(logs, tolerated)
        except Wrong as wrong:
            return [str(wrong)]
        except subprocess.TimeoutExpired as cause:
            return [f"hangs: {cause.cmd[0]}"]
        finally:
            for it in self.running:
                it.kill()
                it.wait()

    def begin(self, logs, wire):
        """Starts a receiver and tells the wire where it is."""
        argv = self.tools.argv("milestone-receive", logs, "--listen", "127.0.0.1:0", *self.flags(logs))
        with open(self.said, "wb") as out, open(os.devnull, "r+b") as none:
            self.running.append(subprocess.Popen(argv, stdin=none, stdout=out, stderr=none))
        address, until = None, time.monotonic() + _TIMEOUT_S
        while not address:
            if self.running[-1].poll() is not None or time.monotonic() > until:
                raise Wrong(f"milestone-receive does not start: {self.running[-1].poll()}")
            time.sleep(0.002)
            address = address_in(self.said)
        wire.receiver = address

    def take_over(self, logs, wire):
        self.running[-1].kill()
        self.running[-1].wait()
        self.begin(logs, wire)

    def deliver(self, logs, wire):
        argv = self.tools.argv("milestone-deliver", logs, "--url", f"http://{wire.address}", "--drain", "--drain-timeout",
                               "90s", "--timeout", "400ms", "--backoff-base", "5ms", *self.flags(logs))
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False)
        return done.returncode, done.stderr.decode(errors="replace").strip()

    def check_both(self, logs, wire):
        folder = Folder(logs).check_all()
        folder.check_milestones(self.offered, {})
        folder.check_queue()
        feed = {record["idempotencyKey"]: record for _, _, record in folder.journals["receive/feed"].records()}
        receipts = {}
        for _, _, record in folder.journals["audit"].records():
            if record["action"] == "deliver" and record["outcome"] == "acknowledged":
                receipt = record["detail"].get("receipt") or {}
                receipts[record["idempotency_key"]] = (receipt.get("seq"), receipt.get("head"))
        offered = {f"milestone:{identity}": sent for identity, sent in self.offered.items() if identity in self.sent}
        folder.check_feed(offered, receipts if wire.fault != "garble" else {})
        folder.check_deliveries(set(feed), set())
        for scope in {it["scope"] for it in offered.values()}:
            wanted = [key for key, it in offered.items() if it["scope"] == scope]
            there = [key for key, it in feed.items() if it["event"]["scope"] == scope]
            if wanted != there:
                folder.wrong(f"feed: {scope} is {there}, and was queued as {wanted}")
        return folder.violations

    def make(self, logs):
        self.prepare(logs)
        self.sent = set(self.offered)


class BreaksRotating(Breaks):
    """The same, with segments so small that feed and audit rotate."""

    name = "wire-rotating"
    rotate = ("--rotate-bytes", "1500")


def _one(scenario, arena, plan):
    logs, wire = arena.folder(), Wire(*plan)
    try:
        violations = scenario.trial(logs, wire)
    finally:
        wire.stop()
        drop(logs)
    fault, direction, at = plan
    return {"trial": f"{fault} at byte {at} {direction}", "fault": fault, "passed": wire.passed,
            "violations": violations, "struck": wire.is_struck}


def breaks(tools, scratch, jobs, report, limit, seed=1, deadline=None, stop=False):
    """`limit` faults, the kinds in turn, at places that the seed chooses."""
    for kind in (Breaks, BreaksRotating):
        began, scenario, chosen = time.monotonic(), kind(tools, seed), random.Random(seed)
        arena, counts = Arena(scenario, scratch), collections.Counter()
        dry = _one(scenario, arena, (None, "there", 0))
        report.add(scenario.name, dry)
        plans = []
        for number in range(limit // 2):
            fault = FAULTS[number % len(FAULTS)]
            direction = "back" if fault in ("garble", "swallow") else chosen.choice(("there", "back"))
            plans.append((fault, direction, chosen.randrange(max(1, dry["passed"][direction]))))
        for result in in_parallel(lambda plan: _one(scenario, arena, plan), plans, jobs, deadline, stop):
            counts[result["fault"]] += result["struck"]
            report.add(scenario.name, result)
        shutil.rmtree(arena.template, ignore_errors=True)
        report.tally(scenario.name, "breaks of the wire", sum(counts.values()))
        words = ", ".join(f"{fault} {counts[fault]}" for fault in FAULTS if counts[fault])
        report.line("wire", scenario.name, f"{sum(counts.values())} breaks ({words}), {dry['passed']['there']} bytes "
                    f"there and {dry['passed']['back']} back", began)
