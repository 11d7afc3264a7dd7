"""milestone-emit: one event a process, many from a file, many shells at once."""
import os

from bench import EMIT, ROOT, journal_bytes, one_event
from measure import in_turn
from report import AT_LEAST, AT_MOST, number

# Fresh ids for every run of a program.
_next_id = 0


def _ids(count):
    global _next_id
    _next_id += count
    return _next_id - count


def _records(bench):
    """The record and the audit record of one event, as emit writes them."""
    logs = bench.emitted(bench.sizes[0])
    lines = []
    for name in ("milestones.jsonl", "audit.jsonl"):
        with open(os.path.join(logs, name)) as file:
            lines.append(file.readlines()[-1].rstrip("\n"))
    return lines


def _micros(said):
    return said["median_us"]


def one(bench, report):
    """One event, whole process, with index, at all sizes of the journal, against a C program that locks, writes the
    same bytes to the same two files, syncs both; against `jq -c . >> f; sync -d f`; against Python with jsonschema."""
    runs, records = 100, _records(bench)
    sides, folders = {}, []
    for size in bench.sizes:
        logs, floor = bench.clone(bench.emitted(size)), bench.clone(bench.emitted(size))
        folders += [logs, floor]
        sides[f"emit {size}"] = lambda logs=logs: _micros(bench.spawn(
            bench.tool("milestone-emit"), *one_event(logs, "one"), runs=runs, first=_ids(runs)))
        sides[f"floor {size}"] = lambda floor=floor: _micros(bench.spawn(
            bench.floor("append"), floor, "milestones", *records, runs=runs))
    event = bench.path("event.json")
    with open(event, "w") as file:
        file.write(records[0])
    target = bench.path("jq.jsonl")
    sides["jq"] = lambda: _micros(bench.spawn("sh", "-c", f"jq -c . {event} >> {target}; sync -d {target}", runs=20))
    python = bench.folder()
    sides["python"] = lambda: _micros(bench.spawn(
        "/usr/bin/python3", os.path.join(ROOT, "scripts/bench/peers/emit.py"), python, event, runs=5))
    sides["empty"] = lambda: _micros(bench.spawn(bench.floor("empty"), runs=runs))
    taken = in_turn(sides, bench.rounds)
    small, large = bench.sizes[0], bench.sizes[-1]
    figures = {name: taken.figure(name, lambda it: it / 1000) for name in sides}

    def of(name, other):
        return f"{number(figures[name].median, 'ms')} : {number(figures[other].median, 'ms')}"
    for size in bench.sizes:
        report.row(f"times the C floor, {size:,} records", taken.ratio(f"emit {size}", f"floor {size}"), "×",
                   (AT_MOST, 1.3), of(f"emit {size}", f"floor {size}"))
    report.row(f"at {large:,} records, times that at {small:,}", taken.ratio(f"emit {large}", f"emit {small}"), "×",
               (AT_MOST, 1.1), of(f"emit {large}", f"emit {small}"))
    report.row("times as fast as jq and sync", taken.ratio("jq", f"emit {large}"), "×", (AT_LEAST, 15),
               of("jq", f"emit {large}"))
    report.row("times as fast as Python with jsonschema", taken.ratio("python", f"emit {large}"), "×", (AT_LEAST, 60),
               of("python", f"emit {large}"))
    report.row("an empty C program, for scale", figures["empty"], "ms")
    report.grow("milestone-emit, one event (a run)", "ms", {size: figures[f"emit {size}"] for size in bench.sizes})
    for folder in folders:
        bench.drop(folder)


def bulk(bench, report):
    """Many events from a file, at all sizes, against writing and syncing the same bytes, and `jq -c .`."""
    sides = {}

    def emit(size):
        logs = bench.folder()
        said = bench.spawn(bench.tool("milestone-emit"), *EMIT, "--logs", logs, bench.events(size))
        bench.drop(logs)
        return said["wall_us"] / size, said["memory_kib"] / 1024

    for size in bench.sizes:
        bench.events(size)
        sides[f"emit {size}"] = lambda size=size: emit(size)
    middle, large = bench.sizes[-2:]
    _, written = journal_bytes(bench.emitted(large), "milestones", "audit")
    sides["floor"] = lambda: 1e6 / large * bench.seconds(
        bench.floor("copy"), str(4 << 20), bench.path("copy"), *written)
    few = min(bench.sizes[1], 100_000)
    events = bench.events(few)
    sides["jq"] = lambda: bench.seconds("jq", "-c", ".", events, output=bench.path("jq-out")) * 1e6 / few
    taken = in_turn(sides, bench.rounds)

    def micros(it):
        return it[0]

    def memory(it):
        return it[1]
    rate = taken.figure(f"emit {large}", lambda it: 1e6 / it[0])
    floor, jq = taken.figure("floor", lambda it: 1e6 / it), taken.figure("jq", lambda it: 1e6 / it)
    report.row(f"events a second, {large:,} from a file", rate, "/s", (AT_LEAST, 300_000))
    report.row("times the floor: the same bytes written, synced each 4 MiB",
               taken.ratio(f"emit {large}", "floor", micros, float), "×", None,
               f"{number(rate.median, '/s')} : {number(floor.median, '/s')}")
    report.row("times as fast as jq -c .", taken.ratio("jq", f"emit {large}", float, micros), "×", None,
               f"{number(rate.median, '/s')} : {number(jq.median, '/s')}")
    report.row(f"memory for {large:,}, times that for {middle:,}",
               taken.ratio(f"emit {large}", f"emit {middle}", memory), "×", bench.at_full_size((AT_MOST, 1.1)),
               number(taken.figure(f"emit {large}", memory).median, "MB"))
    report.row(f"time of an event, {large:,}, times that of {middle:,}",
               taken.ratio(f"emit {large}", f"emit {middle}", micros), "×", (AT_MOST, 1.15))
    report.grow("milestone-emit, from a file", "µs",
                {size: taken.figure(f"emit {size}", micros) for size in bench.sizes})
    os.unlink(bench.path("copy"))


def crowd(bench, report):
    """Eight shells that emit at once, against the C floor with the same locks and syncs, eight at a time."""
    runs, records, size = 800, _records(bench), bench.sizes[1]
    with bench.cloned(bench.emitted(size)) as logs, bench.cloned(bench.emitted(size)) as floor:
        def rate(said):
            return said["runs"] * 1e6 / said["wall_us"]
        taken = in_turn({
            "emit": lambda: rate(bench.spawn(bench.tool("milestone-emit"), *one_event(logs, "crowd"), runs=runs,
                                             at_once=8, first=_ids(runs))),
            "floor": lambda: rate(bench.spawn(bench.floor("append"), floor, "milestones", *records, runs=runs,
                                              at_once=8)),
            "empty": lambda: rate(bench.spawn(bench.floor("empty"), runs=runs, at_once=8)),
        }, bench.rounds)
    emit, least = taken.figure("emit"), taken.figure("floor")
    report.row("8 at once: share of the C floor's rate", taken.ratio("emit", "floor"), "", (AT_LEAST, 0.75),
               f"{number(emit.median, '/s')} : {number(least.median, '/s')}")
    report.row("the floor's share of an empty program's rate", taken.ratio("floor", "empty"), "")


CASES = {"one": one, "bulk": bulk, "crowd": crowd}
