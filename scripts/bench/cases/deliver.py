"""milestone-deliver: events posted to a receiver that answers at once, against other senders."""
import os

from bench import BATCH, ROOT, SECRET, memory_mb, sink_seconds
from measure import in_turn
from peers import daemons
from report import AT_LEAST, AT_MOST, number

PEERS = os.path.join(ROOT, "scripts/bench/peers")
# What a sender came to: seconds as the receiver saw them, from the first request to the last item; memory in MB.


def _milepost(bench, count, batch=None):
    with bench.cloned(bench.queued(count)) as logs, bench.sink(count, batch) as sink:
        said = bench.spawn(bench.tool("milestone-deliver"), "-q", "--logs", logs, "--url", sink.url, "--concurrency",
                           str(daemons.WORKERS))
        return sink_seconds(sink) / count * 1e6, said["memory_kib"] / 1024


def _daemon(bench, count, start):
    """A daemon that never ends by itself; `start` gives it for a file and a URL."""
    with bench.sink(count) as sink, start(bench.bodies(count), sink.url) as process:
        seconds = sink_seconds(sink)
        return seconds / count * 1e6, memory_mb(process)


def _micros(it):
    return it[0]


def _memory(it):
    return it[1]


def _rate(it):
    return 1e6 / it[0]


def single(bench, report):
    """One event a request, signed, durable state, 4 connections, against syslog-ng's file() to http() with a reliable
    disk buffer, batch-lines(1), 4 workers, and rsyslog's imfile with one POST an event; both unsigned."""
    count = min(bench.sizes[1], 100_000)
    taken = in_turn({
        "milepost": lambda: _milepost(bench, count),
        "syslog-ng": lambda: _daemon(bench, count, lambda *it: daemons.syslog_ng(bench, *it, lines=1)),
        "rsyslog": lambda: _daemon(bench, count, lambda *it: daemons.rsyslog(bench, *it)),
    }, bench.rounds)
    ours = taken.figure("milepost", _rate)
    report.row(f"events a second, {count:,} one by one", ours, "/s")
    for peer in ("syslog-ng", "rsyslog"):
        figure, memory = taken.figure(peer, _rate), taken.figure(peer, _memory)
        report.row(f"times as fast as {peer}", taken.ratio(peer, "milepost", _micros), "×", (AT_LEAST, 1),
                   f"{number(ours.median, '/s')} : {number(figure.median, '/s')}")
        report.row(f"memory, share of {peer}'s", taken.ratio("milepost", peer, _memory), "",
                   bench.at_full_size((AT_MOST, 0.2)),
                   f"{number(taken.figure('milepost', _memory).median, 'MB')} : {number(memory.median, 'MB')}")
    common = {"workers": daemons.WORKERS, "folder": "FOLDER"}
    report.setting("syslog-ng", daemons.SYSLOG_NG.format(
        file="BODIES", url="SINK" + daemons.INGEST, lines="1, or 100 for batches", **common))
    report.setting("rsyslog", daemons.RSYSLOG.format(file="BODIES", port="SINK", **common))


def batch(bench, report):
    """The same in batches of 128, what milestone-receive offers, against syslog-ng with batch-lines(100)."""
    count = bench.sizes[1] if bench.sizes[1] < 100_000 else 300_000
    taken = in_turn({
        "milepost": lambda: _milepost(bench, count, BATCH),
        "syslog-ng": lambda: _daemon(bench, count, lambda *it: daemons.syslog_ng(bench, *it, lines=100)),
    }, bench.rounds)
    ours, peer = taken.figure("milepost", _rate), taken.figure("syslog-ng", _rate)
    report.row(f"events a second, {count:,} in batches", ours, "/s")
    report.row("times as fast as syslog-ng in batches", taken.ratio("syslog-ng", "milepost", _micros), "×",
               (AT_LEAST, 3), f"{number(ours.median, '/s')} : {number(peer.median, '/s')}")


def growth(bench, report):
    """In batches, at all sizes of the queue: time and memory."""
    taken = in_turn({f"{size}": lambda size=size: _milepost(bench, size, BATCH) for size in bench.sizes}, bench.rounds)
    middle, large = bench.sizes[-2:]
    report.row(f"time of an event, {large:,}, times that of {middle:,}", taken.ratio(f"{large}", f"{middle}", _micros),
               "×", (AT_MOST, 1.15))
    report.row(f"memory for {large:,}, times that for {middle:,}", taken.ratio(f"{large}", f"{middle}", _memory), "×",
               bench.at_full_size((AT_MOST, 1.1)), number(taken.figure(f"{large}", _memory).median, "MB"))
    report.grow("milestone-deliver, in batches", "µs",
                {size: taken.figure(f"{size}", _micros) for size in bench.sizes})


def scale(bench, report):
    """A sender in Python (requests) and one in the shell (curl and openssl), signed, for scale."""
    size = bench.sizes[1]

    def script(count, *program):
        with bench.sink(count) as sink:
            bench.spawn(*program, sink.url + daemons.INGEST, SECRET, bench.bodies(size), str(count))
            return count / sink_seconds(sink)
    taken = in_turn({
        "Python with requests": lambda: script(1000, "/usr/bin/python3", os.path.join(PEERS, "requests_sender.py")),
        "curl and openssl": lambda: script(40, os.path.join(PEERS, "curl_sender")),
    }, bench.rounds)
    for name in taken.values:
        report.row(f"{name}, events a second", taken.figure(name), "/s")


CASES = {"single": single, "batch": batch, "growth": growth, "scale": scale}
