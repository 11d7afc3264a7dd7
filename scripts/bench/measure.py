"""How things are measured: sides in turn, medians with their spread, and whether anybody disturbed.

The idea: on a machine that one does not have alone an absolute time means little, but two programs that run one after
the other, again and again, meet the same machine. So every figure that is judged is taken once in each round, a
ratio is made within a round, and the median of the rounds counts.

Invariants
- In each round every side runs once, in the same order: A B A B and so on; each begins when the disk has written what
  the one before left.
- A round during which others used the processors is measured again, within bounds; what stays disturbed says so.
- A line is missed only when the median is beyond it by more than the spread.
"""
import os
import statistics
import time

ROUNDS = 5
# How much of one processor others may use during a round. Below it are the ticks by which the kernel counts.
DISTURBANCE = 0.15
# How many seconds of rounds are thrown away and measured again in all: a busy machine does not become quiet.
PATIENCE_S = 90
_TICKS = os.sysconf("SC_CLK_TCK")
_patience = PATIENCE_S


class Figure:
    """What came out of the rounds: median, and how far the middle half of them lies from it."""

    def __init__(self, values, disturbed=False):
        self.values, self.disturbed = sorted(values), disturbed
        self.median = statistics.median(self.values)
        if len(self.values) > 1:
            low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
            self.spread = max(self.median - low, high - self.median)
        else:
            self.spread = 0.0


class Rounds:
    """The values of each side, round by round."""

    def __init__(self, names, disturbed):
        self.values = {name: [] for name in names}
        self.disturbed = disturbed

    def figure(self, side, change=lambda it: it):
        return Figure([change(it) for it in self.values[side]], self.disturbed)

    def ratio(self, side, other, get=lambda it: it, get_other=None):
        """Side divided by other, within each round."""
        get_other = get_other or get
        pairs = zip(self.values[side], self.values[other])
        return Figure([get(a) / get_other(b) for a, b in pairs], self.disturbed)


def in_turn(sides, rounds=ROUNDS):
    """Runs `sides`, callables by their names, in turn; what each returned in the quietest rounds."""
    global _patience
    for measure in sides.values():
        measure()  # pages, caches and the processors' clocks
    tried, quiet = [], 0
    while quiet < rounds:
        watch = Watch()
        values = {}
        for name, measure in sides.items():
            os.sync()
            values[name] = measure()
        foreign = watch.foreign()
        tried.append((foreign, values))
        if foreign <= DISTURBANCE:
            quiet += 1
        else:
            _patience -= watch.elapsed()
        if len(tried) >= rounds and (len(tried) >= 2 * rounds or _patience <= 0):
            break
    tried.sort(key=lambda it: it[0])
    taken = Rounds(sides, tried[min(rounds, len(tried)) - 1][0] > DISTURBANCE)
    for _, values in tried[:rounds]:
        for name, value in values.items():
            taken.values[name].append(value)
    return taken


class Watch:
    """Sees whether others than we and our children use the processors."""

    def __init__(self):
        self.start, self.busy, self.ours = time.monotonic(), _busy(), _ours()

    def elapsed(self):
        return time.monotonic() - self.start

    def foreign(self):
        """Processors that others used since the start: 1.0 is one of them all the time."""
        took = max(self.elapsed(), 1e-3)
        # One tick of each processor is the error of counting.
        others = (_busy() - self.busy) - (_ours() - self.ours) - (os.cpu_count() or 1) / _TICKS
        return max(0.0, others / took)


def _busy():
    """Seconds that the processors worked since the machine started, and those that the host took from it. Without
    interrupts: the network's loop is one, and nobody's."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _wait, _irq, _softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + steal) / _TICKS


def _ours():
    """Seconds of ourselves, of all below us whether they ended or not, and of the kernel's own threads: it writes
    back what we wrote."""
    processes = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            # Parent; its own time; that of its children that ended.
            processes[int(name)] = int(fields[1]), sum(map(int, fields[11:15]))
    return sum(time for pid, (_, time) in processes.items() if _is_ours(pid, processes)) / _TICKS


def _is_ours(pid, processes):
    while pid in processes:
        if pid in (os.getpid(), 2):
            return True
        pid = processes[pid][0]
    return False
