"""From the shell that reports to whoever watches the feed, through all four tools."""
import contextlib
import glob
import os
import socket
import statistics
import time

from bench import Trouble, one_event
from cases.receive import received
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


class Pipeline:
    """All four tools at work on two folders, and a reader of the feed's stream."""

    def __init__(self, bench, logs, feed, name):
        self.bench, self.logs, self.feed, self.name = bench, logs, feed, name
        self.emitted = 0

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        receiver = self.stack.enter_context(self.bench.receiver(self.feed))
        self.processes = [receiver, *(self.stack.enter_context(self.bench.daemon(*argv)) for argv in (
            (self.bench.tool("milestone-queue"), "-q", "--logs", self.logs, "--watch"),
            (self.bench.tool("milestone-deliver"), "-q", "--logs", self.logs, "--watch", "--url",
             f"http://{receiver.address}")))]
        self.stream = Stream(receiver.address)
        self.stack.callback(self.stream.socket.close)
        self.nowhere = os.open(os.devnull, os.O_WRONLY)
        self.stack.callback(os.close, self.nowhere)
        return self

    def __exit__(self, *_):
        self.stack.close()

    def emit(self):
        """One event; milliseconds from the start of milestone-emit until it is seen."""
        self.emitted += 1
        argv = [it.replace("{}", str(self.emitted))
                for it in (self.bench.tool("milestone-emit"), *one_event(self.logs, self.name))]
        start = time.perf_counter()
        pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, self.nowhere, 1)])
        self.stream.until(f'"{self.name}.{self.emitted}"'.encode())
        took = time.perf_counter() - start
        os.waitpid(pid, 0)
        return took * 1000

    def emit_many(self, count):
        """So many events as they come in truth, one by one: what each left to do is done before the next."""
        took = []
        for _ in range(count):
            took.append(self.emit())
            time.sleep(0.01)
        took.sort()
        return statistics.median(took), took[count * 99 // 100]


def watch(bench, report):
    """From the start of milestone-emit until a reader of the feed's stream has the event, queue and deliverer in
    --watch; and what all of them use when nothing happens."""
    logs, feed = bench.folder(), bench.folder()
    with Pipeline(bench, logs, feed, "seen") as pipeline:
        taken = in_turn({"seen": lambda: pipeline.emit_many(EVENTS)}, bench.rounds)
        report.row("from emit to the reader, median", taken.figure("seen", lambda it: it[0]), "ms", (AT_MOST, 5))
        report.row("from emit to the reader, 99 %", taken.figure("seen", lambda it: it[1]), "ms", (AT_MOST, 25))
        shares = []
        time.sleep(1)
        for _ in range(3):
            before = _spent(pipeline.processes)
            time.sleep(IDLE_S)
            shares.append((_spent(pipeline.processes) - before) / IDLE_S * 100)
        report.row("processor time of all three when idle, % of a core", Figure(shares), "%", (AT_MOST, 0.2))
    bench.drop(logs)
    bench.drop(feed)


def growth(bench, report):
    """The same with journals and feeds of all sizes."""
    with contextlib.ExitStack() as stack:
        pipelines = {}
        for size in bench.sizes:
            logs = stack.enter_context(bench.cloned(bench.delivered(size)))
            feed = stack.enter_context(bench.cloned(received(bench, size)))
            pipelines[size] = stack.enter_context(Pipeline(bench, logs, feed, f"at-{size}"))
        taken = in_turn({f"{size}": lambda it=it: it.emit_many(50)[0] for size, it in pipelines.items()}, bench.rounds)
    small, large = bench.sizes[0], bench.sizes[-1]
    report.row(f"from emit to the reader, {large:,} there, times that at {small:,}", taken.ratio(f"{large}", f"{small}"),
               "×", (AT_MOST, 1.15))
    report.grow("from emit to the reader (an event)", "ms", {size: taken.figure(f"{size}") for size in bench.sizes})


CASES = {"watch": watch, "growth": growth}
