"""What all cases share: the programs, the floors, journals to begin with, and processes that are measured.

Invariants
- Journals that cost time to make are made once and never changed; a case works on a clone.
- A clone shares the sealed segments, which nobody changes, and copies the rest.
- Every process that was started is ended when the bench ends, and the scratch folder goes with it.
"""
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

from measure import ROUNDS

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
SECRET = "only-for-measuring-0123456789"
# How many items a batch has at most: what milestone-receive offers.
BATCH = 128
# What every emit is told: the time of a check of evidence is that of the files that are looked at.
EMIT = ("--verify-evidence", "off", "--quiet")
CLAIM, NEXT = "The nightly batch ran to its end without a single failure.", "Watch the run of tomorrow."
PATH, SUMMARY = "logs/nightly.log", "Exit code 0 after 812 s"


class Trouble(Exception):
    """Something does not work, so there is no figure."""


class Bench:
    """One run."""

    def __init__(self, bins, examples, debian, scratch, sizes, floors):
        self.bins, self.examples, self.debian, self.floors = bins, examples, debian, floors
        self.scratch, self.sizes, self.rounds = scratch, sizes, ROUNDS
        # Buffers are not full before some ten thousand events.
        self.at_full_size = (lambda line: line) if sizes[-1] >= 1_000_000 else (lambda line: None)
        self.made, self.count = {}, 0
        self.daemons = []
        self.secret_file = os.path.join(scratch, "secret")
        with open(self.secret_file, "w") as file:
            file.write(SECRET)
        os.chmod(self.secret_file, 0o600)
        os.environ["CLAWDBOT_MILESTONE_WEBHOOK_SECRET"] = SECRET

    # Programs: each is measured as an install leaves it, as a copy. What a linker has just written lies in the page
    # cache in single pages, and each start of milestone-emit pays 0.14 ms for that.

    def tool(self, name):
        return self._copy(self.bins, name)

    def example(self, name):
        return self._copy(self.examples, name)

    def floor(self, name):
        return self._copy(self.floors, name)

    def _copy(self, folder, name):
        copy = os.path.join(self.scratch, "programs", name)
        if not os.path.exists(copy):
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            shutil.copy(os.path.join(folder, name), copy)
        return copy

    def spawn(self, *argv, runs=1, at_once=1, first=0, output="/dev/null", stdin=None, env=None):
        """Runs a program so many times; what `spawn` says of it."""
        command = [self.floor("spawn"), "-n", str(runs), "-j", str(at_once), "-s", str(first), "-o", output,
                   shutil.which(argv[0]) or argv[0], *argv[1:]]
        done = subprocess.run(command, stdin=stdin or subprocess.DEVNULL, capture_output=True, text=True, env=env)
        if done.returncode:
            raise Trouble(f"{argv[0]}: {last_line(done.stderr)}")
        said = json.loads(done.stdout)
        if said["failed"]:
            raise Trouble(f"{argv[0]}: {said['failed']} of {runs} runs failed: {last_line(done.stderr)}")
        return said

    def seconds(self, *argv, **how):
        """How long one run takes."""
        return self.spawn(*argv, **how)["wall_us"] / 1e6

    @contextlib.contextmanager
    def daemon(self, *argv, stdout=subprocess.DEVNULL, env=None):
        """A process that runs meanwhile."""
        errors = open(os.path.join(self.scratch, f"{os.path.basename(argv[0])}.errors"), "w+b")
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=errors, env=env)
        process.errors = errors
        self.daemons.append(process)
        try:
            yield process
        finally:
            self.end(process)

    def end(self, process):
        """Asks a process to end, and insists."""
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.errors.close()
        if process.stdout:
            process.stdout.close()
        self.daemons.remove(process)

    @contextlib.contextmanager
    def receiver(self, logs, *options):
        """A receiver on a free port; its address."""
        argv = [self.tool("milestone-receive"), "--logs", logs, "--listen", "127.0.0.1:0", "--secret-file",
                self.secret_file, *options]
        with self.daemon(*argv, stdout=subprocess.PIPE) as process:
            line = process.stdout.readline()
            if not line:
                process.errors.seek(0)
                raise Trouble(f"milestone-receive: {last_line(process.errors.read().decode())}")
            process.address = json.loads(line)["address"].removeprefix("http://")
            yield process

    # Folders

    def folder(self, mode=0o2770):
        """A new empty folder."""
        self.count += 1
        path = os.path.join(self.scratch, f"folder-{self.count}")
        os.mkdir(path)
        os.chmod(path, mode)
        return path

    def path(self, name):
        return os.path.join(self.scratch, name)

    def clone(self, folder):
        """The same journals in a folder of their own."""
        target = self.folder()
        for at, _, names in os.walk(folder):
            there = os.path.join(target, os.path.relpath(at, folder))
            if at != folder:
                os.mkdir(there)
                shutil.copystat(at, there)
            for name in names:
                is_sealed = name.endswith(".jsonl") and name.count(".") == 2
                (os.link if is_sealed else shutil.copy2)(os.path.join(at, name), os.path.join(there, name))
        # Else the first sync of whoever works there writes all of this, too.
        os.sync()
        return target

    def drop(self, folder):
        shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def cloned(self, folder):
        """A clone for a while."""
        clone = self.clone(folder)
        try:
            yield clone
        finally:
            self.drop(clone)

    def once(self, name, make):
        """What `make` gives, made when it is first asked for."""
        if name not in self.made:
            began = time.monotonic()
            self.made[name] = make()
            tell(f"made {name} in {time.monotonic() - began:.1f} s")
        return self.made[name]

    # Journals to begin with

    def events(self, count):
        """A file of milestones, one a line, in a thousand scopes."""
        def make():
            path = self.path(f"events-{count}.jsonl")
            with open(path, "w") as file:
                file.writelines(
                    f'{{"milestoneId":"bench.{at}","timestampUtc":"2026-01-01T00:00:00Z","scope":"scope-{at % 1000}",'
                    f'"claim":"{CLAIM}","evidence":[{{"type":"log","path":"{PATH}","summary":"{SUMMARY}"}}],'
                    f'"riskStatus":"on-track","nextAction":"{NEXT}","source":"agent"}}\n' for at in range(count))
            return path
        return self.once(f"{count:,} events", make)

    def bodies(self, count):
        """A file of what an unsigned sender posts for the same milestones."""
        def make():
            path = self.path(f"bodies-{count}.jsonl")
            with open(path, "w") as out, open(self.events(count)) as events:
                for at, line in enumerate(events):
                    out.write(f'{{"event":{line[:-1]},"idempotencyKey":"milestone:bench.{at}",'
                              f'"sentAtUtc":"2026-01-01T00:00:00.000Z"}}\n')
            return path
        return self.once(f"{count:,} bodies", make)

    def emitted(self, count):
        """A logs folder with so many milestones."""
        def make():
            logs = self.folder()
            self.spawn(self.tool("milestone-emit"), *EMIT, "--logs", logs, self.events(count))
            return logs
        return self.once(f"{count:,} milestones", make)

    def queued(self, count):
        """The same, enqueued."""
        def make():
            logs = self.clone(self.emitted(count))
            self.spawn(self.tool("milestone-queue"), "-q", "--logs", logs)
            return logs
        return self.once(f"{count:,} milestones in the queue", make)

    def delivered(self, count):
        """The same, delivered in batches."""
        def make():
            logs = self.clone(self.queued(count))
            with self.sink(count, BATCH) as sink:
                self.spawn(self.tool("milestone-deliver"), "-q", "--logs", logs, "--url", sink.url)
            return logs
        return self.once(f"{count:,} milestones delivered", make)

    @contextlib.contextmanager
    def sink(self, count, batch=None):
        """The receiver that keeps nothing; it ends when it has so many items."""
        argv = [self.example("sink"), str(count)] + ([str(batch)] if batch else [])
        with self.daemon(*argv, stdout=subprocess.PIPE) as process:
            process.url = process.stdout.readline().decode().strip()
            if not process.url:
                raise Trouble("the sink does not start")
            yield process


def sink_seconds(sink):
    """The time from the first request to the last item, when the sink has ended."""
    try:
        words = sink.communicate(timeout=120)[0].decode().split()
    except subprocess.TimeoutExpired:
        raise Trouble("the sender did not send everything within two minutes") from None
    return float(words[-2])


def one_event(logs, prefix):
    """The arguments that emit one event; `{}` is for the number of the run."""
    return ("--logs", logs, *EMIT, "--id", prefix + ".{}", "--scope", "scope-7", "--claim", CLAIM,
            "--evidence", f"type=log,path={PATH},summary={SUMMARY}", "--risk", "on-track", "--next", NEXT)


def journal_bytes(logs, *names):
    """How many bytes journals have, all segments; and the files."""
    files = []
    for name in names:
        folder = os.path.join(logs, os.path.dirname(name))
        base = os.path.basename(name)
        files += [os.path.join(folder, it) for it in sorted(os.listdir(folder))
                  if it.startswith(base + ".") and it.endswith(".jsonl")]
    return sum(os.path.getsize(it) for it in files), files


def memory_mb(process):
    """The most memory that a running process ever held, in MB; 0 when it has ended."""
    with contextlib.suppress(OSError), open(f"/proc/{process.pid}/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def cpu_seconds(process):
    """Processor time of a running process."""
    with open(f"/proc/{process.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def last_line(text):
    """What a program said last."""
    return text.strip().rpartition("\n")[2][:400]


def tell(words):
    """What goes on, for whoever waits."""
    print(f"  … {words}", file=sys.stderr, flush=True)
