"""milestone-queue: many events, and nothing to do."""
import os

from bench import journal_bytes
from measure import in_turn
from report import AT_LEAST, AT_MOST, number

QUEUE = "milestone-delivery-queue"


def bulk(bench, report):
    """Everything of a journal enqueued, at all sizes, against the same bytes copied and synced."""
    def enqueue(size):
        with bench.cloned(bench.emitted(size)) as logs:
            said = bench.spawn(bench.tool("milestone-queue"), "-q", "--logs", logs)
        return said["wall_us"] / size, said["memory_kib"] / 1024

    middle, large = bench.sizes[-2:]
    sides = {f"queue {size}": lambda size=size: enqueue(size) for size in bench.sizes}
    _, written = journal_bytes(bench.queued(large), QUEUE)
    sides["floor"] = lambda: 1e6 / large * bench.seconds(
        bench.floor("copy"), str(4 << 20), bench.path("copy"), *written)
    taken = in_turn(sides, bench.rounds)

    def micros(it):
        return it[0]

    def memory(it):
        return it[1]
    rate, floor = taken.figure(f"queue {large}", lambda it: 1e6 / it[0]), taken.figure("floor", lambda it: 1e6 / it)
    report.row(f"events a second, {large:,} waiting", rate, "/s", (AT_LEAST, 500_000))
    report.row("times the floor: the same bytes copied, synced each 4 MiB",
               taken.ratio(f"queue {large}", "floor", micros, float), "×", None,
               f"{number(rate.median, '/s')} : {number(floor.median, '/s')}")
    report.row(f"memory for {large:,}, times that for {middle:,}",
               taken.ratio(f"queue {large}", f"queue {middle}", memory), "×", bench.at_full_size((AT_MOST, 1.1)),
               number(taken.figure(f"queue {large}", memory).median, "MB"))
    report.row(f"time of an event, {large:,}, times that of {middle:,}",
               taken.ratio(f"queue {large}", f"queue {middle}", micros), "×", (AT_MOST, 1.15))
    report.grow("milestone-queue", "µs", {size: taken.figure(f"queue {size}", micros) for size in bench.sizes})
    os.unlink(bench.path("copy"))


def idle(bench, report):
    """A run that finds nothing to do, at all sizes of journal and queue."""
    folders = {size: bench.clone(bench.queued(size)) for size in bench.sizes}
    taken = in_turn({f"idle {size}": lambda logs=logs: bench.spawn(
        bench.tool("milestone-queue"), "-q", "--logs", logs, runs=100)["median_us"] / 1000
        for size, logs in folders.items()}, bench.rounds)
    large = bench.sizes[-1]
    report.row(f"a run with nothing to do, {large:,} in the queue", taken.figure(f"idle {large}"), "ms", (AT_MOST, 2))
    report.grow("milestone-queue, nothing to do (a run)", "ms",
                {size: taken.figure(f"idle {size}") for size in bench.sizes})
    for logs in folders.values():
        bench.drop(logs)


CASES = {"bulk": bulk, "idle": idle}
