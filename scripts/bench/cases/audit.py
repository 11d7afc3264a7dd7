"""audit-tail: finding records, following, verifying."""
import json
import os
import subprocess
import time

from bench import journal_bytes, one_event
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
    }, bench.rounds)

    def rates(*names):
        return " : ".join(number(taken.figure(it, lambda it: 1000 / it).median, "MB/s") for it in names)
    report.row(f"one scope in {gigabytes:.2f} GB: times as fast as jq", taken.ratio("jq, one scope", "one scope"), "×",
               (AT_LEAST, 20), rates("one scope", "jq, one scope"))
    report.row(f"one trace in {gigabytes:.2f} GB: share of ripgrep's speed",
               taken.ratio("ripgrep, one trace", "one trace"), "", (AT_LEAST, 0.3),
               rates("one trace", "ripgrep, one trace"))
    os.unlink(part)


def _whole_lines(path):
    """Cuts a file behind its last whole line."""
    with open(path, "r+b") as file:
        file.seek(max(0, os.path.getsize(path) - (1 << 20)))
        last = file.read().rpartition(b"\n")[2]
        file.truncate(os.path.getsize(path) - len(last))


def follow(bench, report):
    """-f against tail -f: from the start of milestone-emit until the follower has printed the record."""
    logs = bench.clone(bench.emitted(bench.sizes[0]))
    number_of = 0
    nowhere = os.open(os.devnull, os.O_WRONLY)

    def emit():
        nonlocal number_of
        number_of += 1
        argv = [it.replace("{}", str(number_of)) for it in (bench.tool("milestone-emit"), *one_event(logs, "tail"))]
        return os.posix_spawn(argv[0], argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, nowhere, 1)])

    def follower(*argv):
        with bench.daemon(*argv, stdout=subprocess.PIPE) as process:
            # It follows from the first record on that it prints.
            os.set_blocking(process.stdout.fileno(), False)
            while not process.stdout.read():
                os.waitpid(emit(), 0)
                time.sleep(0.05)
            os.set_blocking(process.stdout.fileno(), True)
            took = []
            for _ in range(FOLLOWED):
                start = time.perf_counter()
                pid = emit()
                process.stdout.readline()
                took.append(time.perf_counter() - start)
                os.waitpid(pid, 0)
                time.sleep(0.005)
            return sorted(took)[FOLLOWED // 2] * 1000
    taken = in_turn({
        "audit-tail": lambda: follower(bench.tool("audit-tail"), "--logs", logs, "-f", "-n", "0"),
        "tail": lambda: follower("tail", "-n", "0", "-f", f"{logs}/audit.jsonl"),
    }, bench.rounds)
    report.row("-f: times the delay of tail -f", taken.ratio("audit-tail", "tail"), "×", (AT_MOST, 1.2),
               " : ".join(number(taken.figure(it).median, "ms") for it in taken.values))
    bench.drop(logs)


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
