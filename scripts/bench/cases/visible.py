"""From the shell that reports to whoever watches the feed, through all four tools."""
import contextlib
import glob
import os
import socket
import statistics
import time

from bench import Trouble, one_event
from measure import Figure, in_turn
from report import AT_MOST

EVENTS = 200
IDLE_S = 4


class Stream:
    """A reader of the feed's stream."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.socket.sendall(f"GET /api/milestones/stream HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
        self.unread = b""
        self.until(b"retry: ")

    def until(self, text):
        """Reads until this text has come."""
        while text not in self.unread:
            got = self.socket.recv(65536)
            if not got:
                raise Trouble("the stream ended")
            self.unread += got
        self.unread = self.unread.partition(text)[2]


def _spent(processes):
    """Processor time of all threads, in seconds."""
    total = 0
    for process in processes:
        for path in glob.glob(f"/proc/{process.pid}/task/*/schedstat"):
            with contextlib.suppress(OSError), open(path) as file:
                total += int(file.read().split()[0])
    return total / 1e9


def watch(bench, report):
    """From the start of milestone-emit until a reader of the feed's stream has the event, queue and deliverer in
    --watch; and what all of them use when nothing happens."""
    logs, feed = bench.folder(), bench.folder()
    with bench.receiver(feed) as receiver, contextlib.ExitStack() as stack:
        watchers = [stack.enter_context(bench.daemon(*argv)) for argv in (
            (bench.tool("milestone-queue"), "-q", "--logs", logs, "--watch"),
            (bench.tool("milestone-deliver"), "-q", "--logs", logs, "--watch", "--url", f"http://{receiver.address}"))]
        stream = Stream(receiver.address)
        number = 0
        nowhere = os.open(os.devnull, os.O_WRONLY)

        def emit():
            """One event; milliseconds until it is seen."""
            nonlocal number
            number += 1
            argv = [it.replace("{}", str(number)) for it in (bench.tool("milestone-emit"), *one_event(logs, "seen"))]
            start = time.perf_counter()
            pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, nowhere, 1)])
            stream.until(f'"seen.{number}"'.encode())
            took = time.perf_counter() - start
            os.waitpid(pid, 0)
            return took * 1000

        def many():
            took = []
            for _ in range(EVENTS):
                took.append(emit())
                # As events come in truth: one by one. What the last one left to do is done then.
                time.sleep(0.01)
            took.sort()
            return statistics.median(took), took[EVENTS * 99 // 100]
        taken = in_turn({"seen": many}, bench.rounds)
        report.row("from emit to the reader, median", taken.figure("seen", lambda it: it[0]), "ms", (AT_MOST, 5))
        report.row("from emit to the reader, 99 %", taken.figure("seen", lambda it: it[1]), "ms", (AT_MOST, 25))
        everybody, shares = [receiver, *watchers], []
        time.sleep(1)
        for _ in range(3):
            before = _spent(everybody)
            time.sleep(IDLE_S)
            shares.append((_spent(everybody) - before) / IDLE_S * 100)
        report.row("processor time of all three when idle, % of a core", Figure(shares), "%", (AT_MOST, 0.2))
        stream.socket.close()
    bench.drop(logs)
    bench.drop(feed)


CASES = {"watch": watch}
