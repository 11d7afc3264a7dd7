"""reminder-scan: the first look at all tasks, and the later ones."""
import os

from measure import in_turn
from report import AT_MOST

# How many of the tasks are overdue; each is reminded of in each pass, since each is in another window.
OVERDUE = 1000


def tasks(bench, count):
    """A logs folder with so many tasks, each in a scope of a thousand, of which a thousand are overdue."""
    def make():
        path, logs = bench.path(f"tasks-{count}.jsonl"), bench.folder()
        every = max(1, count // OVERDUE)
        with open(path, "w") as file:
            file.writelines(
                f'{{"task_id":"task-{at}","scope":"chat:{at % 1000}","title":"Look at the run of the night",'
                f'"due_at":"{2026 if at % every == 0 else 2040}-01-01T00:00:00Z","status":"open"}}\n'
                for at in range(count))
        bench.spawn(bench.tool("task-emit"), "-q", "--logs", logs, path)
        os.unlink(path)
        return logs
    return bench.once(f"{count:,} tasks", make)


def _scan(bench, logs, hour):
    now = f"2026-06-{1 + hour // 24:02}T{hour % 24:02}:30:00Z"
    return bench.seconds(bench.tool("reminder-scan"), "-q", "--logs", logs, "--now", now) * 1000


def first(bench, report):
    """The first pass over a million tasks, as task-emit has left them, and when the indexes were lost."""
    large = bench.sizes[-1]

    def scan(without_index):
        with bench.cloned(tasks(bench, large)) as logs:
            if without_index:
                bench.drop(os.path.join(logs, ".index"))
            return _scan(bench, logs, 0) / 1000
    taken = in_turn({"as left": lambda: scan(False), "rebuilt": lambda: scan(True)}, bench.rounds)
    report.row(f"first pass, {large:,} tasks, {OVERDUE:,} overdue", taken.figure("as left"), "s", (AT_MOST, 1))
    report.row("the same when the indexes were lost and are rebuilt", taken.figure("rebuilt"), "s")


def later(bench, report):
    """Later passes, each in a window of its own, so that a thousand overdue tasks are reminded of; and one in the same
    window, with nothing to do; at all sizes."""
    folders, hour = {size: bench.clone(tasks(bench, size)) for size in bench.sizes}, 0
    for logs in folders.values():
        _scan(bench, logs, 0)

    def again(logs, step):
        nonlocal hour
        hour += step
        return _scan(bench, logs, hour)
    sides = {}
    for size, logs in folders.items():
        sides[f"next {size}"] = lambda logs=logs: again(logs, 1)
        sides[f"same {size}"] = lambda logs=logs: again(logs, 0)
    taken = in_turn(sides, bench.rounds)
    large = bench.sizes[-1]
    for name, what in ("next", f"{OVERDUE:,} reminders"), ("same", "nothing to do"):
        report.row(f"{name} window, {large:,} tasks, {what}", taken.figure(f"{name} {large}"), "ms", (AT_MOST, 50))
    report.grow("reminder-scan, next window (a run)", "ms",
                {size: taken.figure(f"next {size}") for size in bench.sizes})
    for logs in folders.values():
        bench.drop(logs)


CASES = {"first": first, "later": later}
