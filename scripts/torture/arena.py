"""Where trials take place: a scenario's folder as it was before, copied for each trial, and several at once.

The idea: a trial costs two short processes and a copy of ten small files, so tens of thousands of them are a
matter of minutes, if nothing is prepared twice.

Invariants
- Every trial begins with the same bytes, and leaves nothing behind unless it is to be kept.
- Results come back in any order and name their trial; the same seed gives the same trials.
"""
import multiprocessing
import os
import shutil
import tempfile
import time

from scenarios import EXITS, Wrong
from syshook import Tracer


class Arena:
    """A scenario and the folder that it begins with, below the scratch folder `scratch`."""

    def __init__(self, scenario, scratch):
        self.scenario, self.scratch, self.judged = scenario, scratch, 0
        self.template = os.path.realpath(tempfile.mkdtemp(prefix=f"{scenario.name}.", dir=scratch))
        scenario.make(self.template)

    def folder(self, origin=None):
        """A copy of the template, or of `origin`, for one trial."""
        path = os.path.join(os.path.realpath(tempfile.mkdtemp(prefix="trial.", dir=self.scratch)), "logs")
        shutil.copytree(origin or self.template, path)
        return path

    def run(self, logs, hooks, timeout):
        """Runs the scenario's steps under the hooks; what was acknowledged, and the exit status of each."""
        acks, statuses = logs + ".acks", []
        with open(acks, "ab") as out, open(os.devnull, "r+b") as none:
            companion = self.scenario.companion(acks)
            for argv in self.scenario.steps(logs):
                tracer = Tracer(argv, hooks.enter, hooks.leave, stdin=none, stdout=out, stderr=none, timeout=timeout,
                                on_start=companion and companion.start)
                statuses.append(tracer.run())
            if companion:
                companion.stop()
        with open(acks, "rb") as file:
            return file.read(), statuses

    def judge(self, logs, stdout):
        """Recovers and checks; violations in words. Of every fourth folder also what is said before anybody recovers."""
        try:
            self.judged += 1
            first = self.scenario.as_left(logs) if self.judged % 4 == 0 else []
            self.scenario.recover(logs, stdout)
            return first + self.scenario.check(logs, stdout) + self.scenario.second_opinion(logs)
        except Wrong as wrong:
            return [str(wrong)]
        except Exception as cause:  # a file that the judge cannot even read
            return [f"the judge stumbles: {type(cause).__name__}: {cause}"]

    def judge_exit(self, status):
        if status == "hang":
            return ["hangs"]
        return [] if status in EXITS or status == -9 else [f"exits with {status}, which no tool may"]


def drop(logs):
    """Removes a trial's folder."""
    shutil.rmtree(os.path.dirname(logs), ignore_errors=True)


def in_parallel(work, items, jobs, deadline=None, stop_at_violation=False):
    """Does `work(item)` for all items; those that are not begun by the deadline are left out."""
    if not items:
        return
    with multiprocessing.get_context("fork").Pool(jobs, _take, (work, deadline)) as pool:
        for result in pool.imap_unordered(_do, items, chunksize=1 + min(15, len(items) // (jobs * 8))):
            if result is not None:
                yield result
                if stop_at_violation and result["violations"]:
                    return


_work = None


def _take(work, deadline):
    global _work
    _work = (work, deadline)


def _do(item):
    work, deadline = _work
    if deadline is not None and time.monotonic() > deadline:
        return None
    return work(item)
