"""audit-tail: finding records, following, verifying."""
import json
import os
import statistics
import subprocess
import time

from bench import EMIT, journal_bytes, one_event
from measure import in_turn
from report import AT_LEAST, AT_MOST, number

FOLLOWED = 50
# What jq gets: it takes half a minute for a gigabyte.
JQ_BYTES = 100_000_000


def _trace(bench, size):
    """The trace of an event in the middle."""
    done = subprocess.run([bench.tool("audit-tail"), "--logs", bench.delivered(size), "--id",
                           f"milestone:bench.{size // 2}", "-n", "1"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["trace_id"]


def filter_(bench, report):
    """A filter over the audit of a million delivered events (about 1 GB), against jq on its first 100 MB and ripgrep
    on all of it: one trace, and one scope of a thousand."""
    large = bench.sizes[-1]
    logs = bench.delivered(large)
    size, files = journal_bytes(logs, "audit")
    trace, gigabytes = _trace(bench, large), size / 1e9
    part = bench.path("audit-part.jsonl")
    with open(part, "wb") as out:
        for file in files:
            with open(file, "rb") as segment:
                out.write(segment.read(max(0, JQ_BYTES - out.tell())))
    _whole_lines(part)
    part_gigabytes = os.path.getsize(part) / 1e9
    tail = (bench.tool("audit-tail"), "--logs", logs)

    # Seconds for a gigabyte.
    taken = in_turn({
        "one trace": lambda: bench.seconds(*tail, "--trace", trace) / gigabytes,
        "ripgrep, one trace": lambda: bench.seconds(
            "rg", "-F", "--no-config", f'"trace_id":"{trace}"', *files) / gigabytes,
        "one scope": lambda: bench.seconds(*tail, "--scope", "scope-7") / gigabytes,
        "jq, one scope": lambda: bench.seconds("jq", "-c", 'select(.scope == "scope-7")', part) / part_gigabytes,
        **{f"{count}": lambda count=count: 1e6 / count * bench.seconds(
            tail[0], "--logs", bench.delivered(count), "--trace", trace) for count in bench.sizes},
    }, bench.rounds)

    def rates(*names):
        return " : ".join(number(taken.figure(it, lambda it: 1000 / it).median, "MB/s") for it in names)
    report.row(f"one scope in {gigabytes:.2f} GB: times as fast as jq", taken.ratio("jq, one scope", "one scope"), "×",
               (AT_LEAST, 20), rates("one scope", "jq, one scope"))
    report.row(f"one trace in {gigabytes:.2f} GB: share of ripgrep's speed",
               taken.ratio("ripgrep, one trace", "one trace"), "", (AT_LEAST, 0.3),
               rates("one trace", "ripgrep, one trace"))
    report.grow("audit-tail --trace", "µs", {count: taken.figure(f"{count}") for count in bench.sizes})
    os.unlink(part)


def _whole_lines(path):
    """Cuts a file behind its last whole line."""
    with open(path, "r+b") as file:
        file.seek(max(0, os.path.getsize(path) - (1 << 20)))
        last = file.read().rpartition(b"\n")[2]
        file.truncate(os.path.getsize(path) - len(last))


# What follows the audit of a folder.
FOLLOWERS = {
    "audit-tail": lambda bench, logs: (bench.tool("audit-tail"), "--logs", logs, "-f", "-n", "0"),
    "tail": lambda _, logs: ("tail", "-n", "0", "-f", f"{logs}/audit.jsonl"),
}


class Followed:
    """A folder of its own, whose audit somebody follows, and whoever emits there."""

    def __init__(self, bench, name):
        self.bench, self.name = bench, name
        self.emitted = 0

    def __enter__(self):
        self.logs, self.nowhere = self.bench.folder(), os.open(os.devnull, os.O_WRONLY)
        self.one()
        self.running = self.bench.daemon(*FOLLOWERS[self.name](self.bench, self.logs), stdout=subprocess.PIPE)
        self.output = self.running.__enter__().stdout
        # It follows from the first record on that it prints.
        os.set_blocking(self.output.fileno(), False)
        while not self.output.read():
            self.one()
            time.sleep(0.05)
        os.set_blocking(self.output.fileno(), True)
        return self

    def __exit__(self, *why):
        self.running.__exit__(*why)
        os.close(self.nowhere)
        self.bench.drop(self.logs)

    def start(self, *how):
        """Starts an emit."""
        argv = (self.bench.tool("milestone-emit"), *how)
        return os.posix_spawn(argv[0], argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, self.nowhere, 1)])

    def one(self, until=lambda: None):
        """Emits one event; seconds until `until` returned."""
        self.emitted += 1
        how = [it.replace("{}", str(self.emitted)) for it in one_event(self.logs, "tail")]
        start = time.perf_counter()
        pid = self.start(*how)
        until()
        took = time.perf_counter() - start
        os.waitpid(pid, 0)
        return took


def follow(bench, report):
    """-f against tail -f, from the start of milestone-emit until the follower has printed the record: one by one, and
    all records of a burst."""
    count = min(bench.sizes[1], 100_000)
    events = bench.events(count)

    def delay(name):
        took = []
        with Followed(bench, name) as followed:
            for _ in range(FOLLOWED):
                took.append(followed.one(followed.output.readline))
                time.sleep(0.005)
        return statistics.median(took) * 1000

    def burst(name):
        with Followed(bench, name) as followed:
            start, lines = time.perf_counter(), 0
            pid = followed.start(*EMIT, "--logs", followed.logs, events)
            while lines < count:
                lines += followed.output.read1(1 << 20).count(b"\n")
            took = time.perf_counter() - start
            os.waitpid(pid, 0)
        return took
    taken = in_turn({f"{what.__name__} {name}": lambda what=what, name=name: what(name)
                     for what in (delay, burst) for name in FOLLOWERS}, bench.rounds)
    for what, words, unit in (("delay", "-f: times the delay of tail -f", "ms"),
                              ("burst", f"-f: times the time of tail -f for a burst of {count:,}", "s")):
        sides = [f"{what} {name}" for name in FOLLOWERS]
        report.row(words, taken.ratio(*sides), "×", (AT_MOST, 1.2),
                   " : ".join(number(taken.figure(it).median, unit) for it in sides))


def verify(bench, report):
    """--verify at all sizes, against SHA-256 of the same bytes by openssl: of the audit alone, and of all journals."""
    sides, bytes_of, tail = {}, {}, (bench.tool("audit-tail"), "-q", "--verify", "--logs")
    for size in bench.sizes:
        logs = bench.delivered(size)
        alone = bench.folder()
        bytes_of[size], files = journal_bytes(logs, "audit")
        for file in files:
            os.link(file, os.path.join(alone, os.path.basename(file)))
        sides[f"alone {size}"] = lambda alone=alone: bench.spawn(*tail, alone)
        sides[f"all {size}"] = lambda logs=logs: bench.spawn(*tail, logs)
    large = bench.sizes[-1]
    everything, _ = journal_bytes(bench.delivered(large), "audit", "milestones", "milestone-delivery-queue")
    sides["openssl"] = lambda: bench.spawn("openssl", "dgst", "-sha256", *files)
    taken = in_turn(sides, bench.rounds)

    def rate(name, size):
        """Megabytes in a second of processor time."""
        return taken.figure(name, lambda it: size / it["cpu_us"])
    sha = rate("openssl", bytes_of[large])
    report.row("the audit alone, a second of processor time", rate(f"alone {large}", bytes_of[large]), "MB/s",
               (AT_LEAST, 500), f"openssl {number(sha.median, 'MB/s')}")
    report.row("audit and journals, a second of processor time", rate(f"all {large}", everything), "MB/s",
               (AT_LEAST, 500), f"{everything / 1e9:.2f} GB in "
               + number(taken.figure(f"all {large}", lambda it: it["wall_us"] / 1e6).median, "s"))
    middle = bench.sizes[-2]
    report.row(f"time of a record, {large:,}, times that of {middle:,}",
               taken.ratio(f"all {large}", f"all {middle}", lambda it: it["wall_us"] / large,
                           lambda it: it["wall_us"] / middle), "×", (AT_MOST, 1.15))
    report.row(f"memory for {large:,}, times that for {middle:,}",
               taken.ratio(f"all {large}", f"all {middle}", lambda it: it["memory_kib"]), "×",
               bench.at_full_size((AT_MOST, 1.1)),
               number(taken.figure(f"all {large}", lambda it: it["memory_kib"] / 1024).median, "MB"))
    report.grow("audit-tail --verify", "µs", {
        size: taken.figure(f"all {size}", lambda it, size=size: it["wall_us"] / size) for size in bench.sizes})


CASES = {"filter": filter_, "follow": follow, "verify": verify}
