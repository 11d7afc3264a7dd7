"""Fails or kills the steps of a scenario at every system call in turn, recovers, and checks.

The idea, after SQLite's fault-injection loops: count the calls of an undisturbed run; then run again once for
each call and each kind of fault, so that no place is left out because nobody thought of it.

Calls that count are those that touch the logs folder, and writes to stdout (the acknowledgements).

    kill, kill-after   SIGKILL before the call, or when it has been done
    ENOSPC EIO EINTR   the call fails so, and is not done
    EIO-after          the call is done and reports EIO: write, sync, close, rename, truncate
    EIO-drop           a sync fails and what it covered is lost for ever, while its length stays, as Linux does
    short              a write writes half, and says so
    full               from this call on the disk is full: a write is cut short, then ENOSPC for all that allocates
    dead               from this call on every write, sync, rename and opening to write fails with EIO

Invariants of a trial: after any fault the recovery succeeds and `check` holds; exit 0 means that everything
was done and said; EINTR and short writes change nothing at all; no fault makes a tool panic or hang.
"""
import collections
import errno
import hashlib
import os
import random
import shutil
import time

from arena import Arena, drop, in_parallel
from syshook import OPENS, SYNCS, WRITES

FAULTS = ("kill", "kill-after", "ENOSPC", "EIO", "EINTR", "EIO-after", "EIO-drop", "short", "full", "dead")
DEEP_FAULTS = ("kill", "kill-after", "EIO", "EIO-drop")
_RIDDEN_OUT = ("EINTR", "short")
_ALLOCATES = WRITES | frozenset(
    "fallocate mkdir mkdirat link linkat symlink rename renameat renameat2 copy_file_range".split())
_CHANGES = _ALLOCATES | SYNCS | frozenset("ftruncate truncate unlink unlinkat fchmod fchown".split())
_REPORTS_LATE = WRITES | SYNCS | frozenset("close rename renameat renameat2 ftruncate unlink unlinkat".split())
_INTERRUPTIBLE = WRITES | OPENS | frozenset(
    "read pread64 flock fcntl fsync fdatasync ftruncate fallocate".split())
_TIMEOUT_S = 90


def _kind(call):
    """The call's name; opening and closing a folder to list it are kinds of their own."""
    is_folder = os.path.isdir(call.paths[0] if call.paths else call.file or "")
    return f"{call.name} folder" if is_folder and (call.name in OPENS or call.name == "close") else call.name


def _makes_sense(fault, name):
    """Whether a fault can happen to a call of this kind. No disk interrupts the opening of a folder, and
    closing one has nothing to write that could fail."""
    if name == "close folder":
        return fault in ("kill", "kill-after")
    return name in {
        "ENOSPC": _ALLOCATES | OPENS | SYNCS | {"ftruncate"}, "EINTR": _INTERRUPTIBLE, "EIO-after": _REPORTS_LATE,
        "EIO-drop": {"fsync", "fdatasync"}, "short": WRITES, "full": _ALLOCATES | OPENS, "dead": _CHANGES | OPENS,
    }.get(fault, {name})


def _content(path):
    with open(path, "rb") as file:
        return file.read()


class _Plan:
    """Counts the calls that matter; when call `at` comes, `fault` happens."""

    def __init__(self, logs, fault=None, at=0):
        self.logs, self.fault, self.at = logs, fault, at
        self.calls, self.hit, self.lasting = [], "", False
        # For EIO-drop: what each file holds when all is known to be on disk.
        self.synced = {}
        if fault == "EIO-drop":
            for folder, _, files in os.walk(logs):
                self.synced.update({it: _content(it) for it in (os.path.join(folder, file) for file in files)})

    def enter(self, call):
        inside = call.touches(self.logs)
        if self.lasting and inside:
            lasting = self._lasting(call)
            if lasting:
                return lasting
        if not inside and not (call.name in WRITES and call.fd() == 1):
            return None
        kind = _kind(call)
        self.calls.append(kind)
        if len(self.calls) != self.at:
            return None
        if self.fault and not _makes_sense(self.fault, kind):
            self.at += 1  # two runs are never quite the same: threads, and time
            return None
        self.hit = str(call).replace(self.logs, ".")
        return self._strike(call)

    def _strike(self, call):
        fault = self.fault
        if fault in ("kill", "kill-after"):
            return (fault.replace("-", "_"),)
        if fault == "EIO-drop":
            if call.file and os.path.isfile(call.file):
                self._lose(call.file)
            return "error", errno.EIO
        if fault == "short" or fault == "full" and call.name in WRITES:
            self.lasting = fault == "full"
            length = len(call.payload())
            if length > 1:
                return "short", length // 2
            return ("error", errno.ENOSPC) if fault == "full" else None
        if fault in ("full", "dead"):
            self.lasting = True
            return self._lasting(call)
        number = getattr(errno, fault.removesuffix("-after"))
        # Linux frees the descriptor even when close fails.
        late = fault.endswith("-after") or call.name == "close"
        return "error_after" if late else "error", number

    def _lasting(self, call):
        if self.fault == "full":
            return ("error", errno.ENOSPC) if call.name in _ALLOCATES or call.name in OPENS and call.creates() else None
        return ("error", errno.EIO) if call.name in _CHANGES or call.opens_to_write() else None

    def leave(self, call):
        if self.fault == "EIO-drop" and call.name in ("fsync", "fdatasync") and call.result == 0 \
                and call.file and call.touches(self.logs) and os.path.isfile(call.file):
            self.synced[call.file] = _content(call.file)

    def _lose(self, path):
        """Loses the bytes that were not synced; the file's length stays, as on ext4."""
        before, now = self.synced.get(path, b""), _content(path)
        with open(path, "r+b") as file:
            file.truncate(min(len(before), len(now)))
            file.write(before[:len(now)])
            file.truncate(len(now))


def _fingerprint(logs):
    hashed = hashlib.sha256()
    for folder, folders, files in os.walk(logs):
        folders.sort()
        for file in sorted(files):
            path = os.path.join(folder, file)
            hashed.update(os.path.relpath(path, logs).encode() + b"\0" + _content(path) + b"\0")
        hashed.update("\0".join(folders).encode())
    return hashed.hexdigest()


class Sweep:
    """All faults of one scenario."""

    def __init__(self, scenario, scratch):
        self.arena = Arena(scenario, scratch)
        self.scenario = scenario
        logs = self.arena.folder()
        plan = _Plan(logs)
        self.dry_out, self.dry_statuses = self.arena.run(logs, plan, _TIMEOUT_S)
        self.calls = plan.calls
        violations = [wrong for it in self.dry_statuses for wrong in self.arena.judge_exit(it)]
        violations += self.arena.judge(logs, self.dry_out)
        self.dry = {"trial": "no fault", "violations": violations}
        drop(logs)

    def trials(self, seed):
        """Every (fault, call number), in random order, the kinds of fault in turn: the rare ones find the most."""
        chosen, ranked = random.Random(seed), []
        for fault in FAULTS:
            places = [at for at, name in enumerate(self.calls, 1) if _makes_sense(fault, name)]
            chosen.shuffle(places)
            ranked += [(turn, fault, at) for turn, at in enumerate(places)]
        return [(fault, at) for _, fault, at in sorted(ranked)]

    def trial(self, item):
        """One fault, the recovery, the check."""
        fault, at = item
        logs = self.arena.folder()
        plan = _Plan(logs, fault, at)
        stdout, statuses = self.arena.run(logs, plan, _TIMEOUT_S)
        violations = [wrong for it in statuses for wrong in self.arena.judge_exit(it)]
        if fault in _RIDDEN_OUT and plan.hit and statuses != self.dry_statuses:
            violations.append(f"exits with {statuses}, and should not notice {fault}")
        if self.scenario.exit_says_all and statuses == self.dry_statuses and stdout.count(b"\n") != self.dry_out.count(b"\n"):
            violations.append(f"exits with {statuses} as if nothing were missing, having printed {stdout!r}")
        left, kept = None, None
        if fault.startswith("kill"):
            left = _fingerprint(logs)
            kept = self.arena.folder(logs)
        violations += self.arena.judge(logs, stdout)
        drop(logs)
        return {"trial": f"{fault} at call {at}, {plan.hit}", "fault": fault, "violations": violations, "left": left,
                "kept": kept, "stdout": stdout}

    def deep_trials(self, states, limit, seed):
        """A sample of (folder, its acknowledgements, fault, number) for faults during recovery."""
        chosen, numbers = random.Random(seed), []
        for _ in range(limit if states else 0):
            folder, stdout = chosen.choice(states)
            # Where in the run stands between 0 and 1: how many calls a recovery makes differs with the folder.
            numbers.append((folder, stdout, chosen.choice(DEEP_FAULTS), chosen.random()))
        return numbers

    def deep_trial(self, item):
        """A folder that a kill left, a fault while the same steps run again, then the recovery and the check."""
        folder, stdout, fault, where = item
        logs = self.arena.folder(folder)
        plan = _Plan(logs)
        self.arena.run(logs, plan, _TIMEOUT_S)
        drop(logs)
        places = [at for at, name in enumerate(plan.calls, 1) if _makes_sense(fault, name)]
        at = places[int(where * len(places))] if places else 1
        logs = self.arena.folder(folder)
        plan = _Plan(logs, fault, at)
        more, statuses = self.arena.run(logs, plan, _TIMEOUT_S)
        violations = [wrong for it in statuses for wrong in self.arena.judge_exit(it)]
        # What was cut off by the kill was never a whole line.
        violations += self.arena.judge(logs, stdout[:stdout.rfind(b"\n") + 1] + more)
        drop(logs)
        return {"trial": f"{fault} at call {at}, {plan.hit}, after a kill", "fault": f"{fault} after a kill",
                "violations": violations}


def sweep(scenario, scratch, jobs, report, limit=None, deep=0, seed=1, deadline=None, stop=False):
    """Tries every fault of the scenario, or a sample of `limit`; then `deep` faults in recoveries."""
    began, sweeps = time.monotonic(), Sweep(scenario, scratch)
    counts, states = collections.Counter(), {}
    report.add(scenario.name, sweeps.dry)
    trials = sweeps.trials(seed)
    of = len(trials)
    for result in in_parallel(sweeps.trial, trials[:limit], jobs, deadline, stop):
        counts[result["fault"]] += 1
        report.add(scenario.name, result)
        if result["kept"] and states.setdefault(result["left"], (result["kept"], result["stdout"]))[0] != result["kept"]:
            drop(result["kept"])
    if not (stop and report.violations):
        items = sweeps.deep_trials(list(states.values()), deep, seed)
        for result in in_parallel(sweeps.deep_trial, items, jobs, deadline, stop):
            counts["in recovery"] += 1
            report.add(scenario.name, result)
    for folder, _ in states.values():
        drop(folder)
    shutil.rmtree(sweeps.arena.template, ignore_errors=True)
    words = ", ".join(f"{fault} {counts[fault]}" for fault in [*FAULTS, "in recovery"] if counts[fault])
    total = sum(counts.values())
    report.tally(scenario.name, "fault points", total)
    report.line("sweep", scenario.name, f"{total} faults of {of + deep} ({words}), "
                f"{len(sweeps.calls)} calls, {len(states)} states left by kills", began)
