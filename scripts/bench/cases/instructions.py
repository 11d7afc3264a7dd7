"""How many instructions the hot paths take: figures that hardly change from run to run."""
import contextlib
import os
import re
import subprocess

from bench import BATCH, EMIT, Trouble, one_event
from cases.reminders import tasks

FEW, MANY = 1_000, 5_000


def _count(*argv):
    """Instructions of one run."""
    done = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *argv],
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    found = re.search(r"Collected : ([0-9]+)", done.stderr)
    if done.returncode or not found:
        raise Trouble(f"valgrind {argv[0]}: {done.stderr.strip()[-400:]}")
    return int(found.group(1))


def _emit(bench, size):
    logs = bench.folder()
    count = _count(bench.tool("milestone-emit"), *EMIT, "--logs", logs, bench.events(size))
    bench.drop(logs)
    return count


def _emit_one(bench):
    with bench.cloned(bench.emitted(FEW)) as logs:
        return _count(bench.tool("milestone-emit"), *(it.replace("{}", "1") for it in one_event(logs, "count")))


def _queue(bench, size):
    with bench.cloned(bench.emitted(size)) as logs:
        return _count(bench.tool("milestone-queue"), "-q", "--logs", logs)


def _deliver(bench, size, batch):
    with bench.cloned(bench.queued(size)) as logs, bench.sink(size, batch) as sink:
        # One connection: how many answers one look finds is chance otherwise.
        return _count(bench.tool("milestone-deliver"), "-q", "--logs", logs, "--url", sink.url,
                      "--concurrency", "1")


def _verify(bench, size):
    return _count(bench.tool("audit-tail"), "-q", "--logs", bench.delivered(size), "--verify")


def _scan(bench, size):
    with bench.cloned(tasks(bench, size)) as logs:
        # Few tasks are not handed to the table at all.
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(logs, ".index/tasks.table1"))
        return _count(bench.tool("reminder-scan"), "-q", "--logs", logs, "--now", "2026-06-01T00:30:00Z")


def paths(bench, report):
    """Instructions (callgrind) of the hot paths, an event, against those that docs/BENCHMARKS.md has."""
    def count(path, instructions):
        report.count(path, instructions, bench.stored_counts.get(path))

    def difference(path, measure):
        count(path, (measure(MANY) - measure(FEW)) / (MANY - FEW))
    count("milestone-emit, a run with one event", _emit_one(bench))
    difference("milestone-emit, from a file", lambda size: _emit(bench, size))
    difference("milestone-queue", lambda size: _queue(bench, size))
    difference("milestone-deliver, one a request", lambda size: _deliver(bench, size, None))
    difference("milestone-deliver, in batches", lambda size: _deliver(bench, size, BATCH))
    difference("audit-tail --verify", lambda size: _verify(bench, size))
    # A thousand of them are overdue in any case.
    difference("reminder-scan, its table made anew, a task", lambda size: _scan(bench, size))


CASES = {"paths": paths}
