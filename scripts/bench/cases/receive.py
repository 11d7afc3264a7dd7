"""milestone-receive: signed ingests, one by one and in batches."""
import json
import os
import re
import subprocess

from bench import BATCH, Trouble, last_line
from measure import in_turn
from report import AT_LEAST, AT_MOST, number

CONNECTIONS = 32
_runs = 0


def _load(bench, receiver, requests, batch=1):
    """Posts new milestones; how many a second."""
    global _runs
    _runs += 1
    done = subprocess.run(
        [bench.tool("ingest-load"), "--address", receiver.address, "--secret-file", bench.secret_file, "--connections",
         str(CONNECTIONS), "--requests", str(requests), "--batch", str(batch), "--prefix", f"run-{_runs}"],
        capture_output=True, text=True)
    if done.returncode:
        raise Trouble(f"ingest-load: {last_line(done.stderr)}")
    said = json.loads(done.stdout)
    return said["items"] / said["seconds"]


def _fresh(bench, requests, batch=1):
    logs = bench.folder()
    with bench.receiver(logs) as receiver:
        rate = _load(bench, receiver, requests, batch)
    bench.drop(logs)
    return rate


def _records(bench):
    """A line of the feed and its audit record."""
    logs = bench.folder()
    with bench.receiver(logs) as receiver:
        _load(bench, receiver, 100)
    lines = []
    for name in ("receive/feed.jsonl", "audit.jsonl"):
        with open(f"{logs}/{name}") as file:
            lines.append(file.readlines()[-1].rstrip("\n"))
    bench.drop(logs)
    return lines


def _script(bench):
    """A script of wrk that posts a signed ingest, the same again and again."""
    with open(bench.bodies(bench.sizes[0])) as file:
        body = file.readline().rstrip("\n")
    path = bench.path("post.lua")
    headers = {"content-type": "application/json", "x-openclaw-timestamp": "2026-01-01T00:00:00.000Z",
               "x-openclaw-signature": "0" * 64, "webhook-id": "msg_" + "0" * 32, "webhook-timestamp": "1767225600",
               "webhook-signature": "v1," + "0" * 44}
    with open(path, "w") as file:
        file.write(f'wrk.method = "POST"\nwrk.body = [==[{body}]==]\n')
        file.writelines(f'wrk.headers["{name}"] = "{value}"\n' for name, value in headers.items())
    return path


def _wrk(url, script):
    said = subprocess.run(["wrk", "-t1", f"-c{CONNECTIONS}", "-d2s", "-s", script, url + "/internal/milestones/ingest"],
                          capture_output=True, text=True, check=True).stdout
    return float(re.search(r"Requests/sec:\s*([0-9.]+)", said).group(1))


def single(bench, report):
    """Signed ingests at 32 connections, verified and durable, against wrk and a hyper server that answers at once,
    and against the syncs alone, for 32 records at a time."""
    count = min(bench.sizes[-1], 100_000)
    records, script, floor, groups = _records(bench), _script(bench), bench.folder(), 500
    os.mkdir(f"{floor}/.lock")
    with bench.daemon(bench.example("hello"), stdout=subprocess.PIPE) as hello:
        url = hello.stdout.readline().decode().strip()
        taken = in_turn({
            "receive": lambda: _fresh(bench, count),
            "hyper": lambda: _wrk(url, script),
            "floor": lambda: groups * CONNECTIONS / bench.seconds(
                bench.floor("append"), "-n", str(groups), "-k", str(CONNECTIONS), floor, "feed", *records),
        }, bench.rounds)
    ours = taken.figure("receive")
    report.row(f"signed ingests a second, {CONNECTIONS} connections", ours, "/s", (AT_LEAST, 40_000))
    report.row("share of a hyper server that answers at once", taken.ratio("receive", "hyper"), "", None,
               f"{number(ours.median, '/s')} : {number(taken.figure('hyper').median, '/s')}")
    report.row("share of the syncs' floor", taken.ratio("receive", "floor"), "", None,
               f"{number(ours.median, '/s')} : {number(taken.figure('floor').median, '/s')}")
    report.setting("wrk", f"wrk -t1 -c{CONNECTIONS} -d2s, posting a body and headers as long as those of an ingest to "
                   "testing/examples/hello.rs")
    bench.drop(floor)


def batch(bench, report):
    """Events in batches of 128, 32 connections."""
    count = min(bench.sizes[-1], 300_000)
    taken = in_turn({"receive": lambda: _fresh(bench, count, BATCH)}, bench.rounds)
    report.row(f"events a second in batches of {BATCH}", taken.figure("receive"), "/s", (AT_LEAST, 300_000))


def received(bench, size):
    """A receiver's folder with so many milestones."""
    def make():
        logs = bench.folder()
        with bench.receiver(logs) as receiver:
            # What is sent is made in memory before.
            for _ in range(max(1, size // 500_000)):
                _load(bench, receiver, min(size, 500_000), BATCH)
        return logs
    return bench.once(f"{size:,} milestones received", make)


def growth(bench, report):
    """Signed ingests into feeds of all sizes."""
    folders = {size: bench.clone(received(bench, size)) for size in bench.sizes}

    def ingest(logs):
        with bench.receiver(logs) as receiver:
            return 1e6 / _load(bench, receiver, 20_000)
    taken = in_turn({f"{size}": lambda logs=logs: ingest(logs) for size, logs in folders.items()}, bench.rounds)
    middle, large = bench.sizes[-2:]
    report.row(f"time of an ingest, feed of {large:,}, times that of {middle:,}",
               taken.ratio(f"{large}", f"{middle}"), "×", (AT_MOST, 1.15))
    report.grow("milestone-receive, single", "µs", {size: taken.figure(f"{size}") for size in bench.sizes})
    for logs in folders.values():
        bench.drop(logs)


CASES = {"single": single, "batch": batch, "growth": growth}
