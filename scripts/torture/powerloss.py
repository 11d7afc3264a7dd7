"""Rebuilds every disk that a power cut could have left, recovers on it, and checks (after ALICE, OSDI 2014).

The idea: record what a scenario's steps do to the disk: each create, write, truncate, link, rename, unlink,
sync and each acknowledgement. Then, for every point of that log, build the folders that could be on the disk if
the power failed there: all that was synced, plus any legal choice of the rest. No root, no special disk.

What may be kept of what was not synced:
    posix   the weakest: a file's sync keeps its data only, names need a sync of their folder, and the rest is
            kept or lost in any combination
    ext4    changes of folders and truncations are kept in order; a file's sync also keeps the names made
            before it; data that was not synced is any subset
Writes are cut at pages of 4 KiB and once more inside (torn); a file may be longer than its data (zeros).
Then the power is cut a second time, while the same steps run again on a disk that the first cut left.
With `failing_sync=N` the N-th sync fails with EIO: from then on each piece that it covered may be on disk or
not, whatever later syncs say, as on Linux. With `is_killed` the process dies before it can tidy up, and whoever comes next settles.

Invariants: a disk is judged by all that had been acknowledged when the power failed. The same disk reached
at several points is judged once, by the largest promise.

Not modelled: writes through mmap (the tools make none), renamed folders.
"""
import collections
import errno
import hashlib
import itertools
import os
import random
import shutil
import tempfile
import time

from arena import Arena, drop, in_parallel
from syshook import OPENS, WRITES

MODELS = ("posix", "ext4")
_TIMEOUT_S = 90
_PAGE = 4096
# Up to this many open changes every subset is tried; beyond it prefixes, suffixes, single ones and a sample.
_EXHAUSTIVE = 9
_SAMPLE = 36


class _Disk:
    """A folder as inodes and names: `files` by number, `folders` by path."""

    def __init__(self):
        self.files, self.folders = {}, {}

    def copy(self):
        disk = _Disk()
        disk.files = {it: bytearray(content) for it, content in self.files.items()}
        disk.folders = {it: dict(names) for it, names in self.folders.items()}
        return disk

    def apply(self, change):
        """Does one small change; what it rests on may be missing, and then nothing happens."""
        kind, target = change[0], change[1]
        if kind in ("size", "data", "truncate"):
            content = self.files.setdefault(target, bytearray())
            if kind == "truncate":
                del content[change[2]:]
            content.extend(bytes(max(0, change[2] - len(content))))
            if kind == "data":
                content[change[2]:change[2] + len(change[3])] = change[3]
        elif target not in self.folders:
            return
        elif kind == "link":
            self.folders[target][change[2]] = change[3]
            if change[3][0] == "folder":
                self.folders.setdefault(change[3][1], {})
            else:
                self.files.setdefault(change[3][1], bytearray())
        elif kind == "unlink":
            self.folders[target].pop(change[2], None)
        elif kind == "rename":
            moved = self.folders[target].pop(change[2], None)
            if moved is not None and change[3] in self.folders:
                self.folders[change[3]][change[4]] = moved

    def walk(self, root):
        """(relative path, content or None for a folder), in a fixed order."""
        todo = [(root, "")]
        while todo:
            folder, path = todo.pop()
            for name, (kind, target) in sorted(self.folders.get(folder, {}).items()):
                where = os.path.join(path, name)
                if kind == "folder":
                    todo.append((target, where))
                    yield where, None
                else:
                    yield where, bytes(self.files.get(target, b""))

    def digest(self, root):
        hashed = hashlib.sha256()
        for path, content in self.walk(root):
            hashed.update(repr((path, content)).encode())
        return hashed.digest()

    def write_to(self, root, path):
        os.mkdir(path)
        for name, content in self.walk(root):
            if content is None:
                os.mkdir(os.path.join(path, name))
            else:
                with open(os.path.join(path, name), "wb") as file:
                    file.write(content)


class _Recorder:
    """The log of what was done to the folder `root`."""

    def __init__(self, root, failing_sync=None, is_killed=False):
        self.root, self.failing_sync, self.is_killed, self.doomed = root, failing_sync, is_killed, None
        self.log, self.syncs, self.existed = [], 0, {}
        self.numbers, self.files = {}, 0
        self.disk = _Disk()
        for folder, folders, files in os.walk(root):
            names = self.disk.folders[folder] = {it: ("folder", os.path.join(folder, it)) for it in folders}
            for file in files:
                path = os.path.join(folder, file)
                names[file] = ("file", self._number(os.stat(path)))
                with open(path, "rb") as opened:
                    self.disk.files[names[file][1]] = bytearray(opened.read())

    def _number(self, stat, is_new=False):
        inode = (stat.st_dev, stat.st_ino)
        if is_new or inode not in self.numbers:  # inodes are used again
            self.numbers[inode] = self.files
            self.files += 1
        return self.numbers[inode]

    def _is_ours(self, path):
        return bool(path) and (path == self.root or path.startswith(self.root + "/"))

    def _opened(self, call, argument=0):
        return f"/proc/{call.pid}/fd/{call.fd(argument)}"

    def _synced(self, call):
        if os.path.isdir(call.file):
            return "folder", call.file
        return "file", self._number(os.stat(self._opened(call)))

    def enter(self, call):
        if call.pid == self.doomed:
            return ("kill",)
        if call.paths and self._is_ours(call.paths[0]) and (call.name in OPENS or call.name.startswith("mkdir")):
            self.existed[call.pid] = os.path.lexists(call.paths[0])
        if call.name in WRITES or call.name in ("sendto", "sendmsg"):
            call.note = call.payload()
        if call.name in ("fsync", "fdatasync") and self._is_ours(call.file):
            self.syncs += 1
            if self.syncs == self.failing_sync:
                self.log.append(("doubt", self._synced(call), str(call)))
                self.doomed = call.pid if self.is_killed else None
                return "error", errno.EIO
        return None

    def leave(self, call):
        if call.result is None or call.result < 0:
            return
        first = call.paths[0] if call.paths else ""
        split = os.path.split
        words = str(call)
        if call.name in WRITES and call.fd() == 1:
            self.log.append(("ack", call.note[:call.result], words))
        elif (call.file or "").startswith("socket:") and b'"ok":true' in (call.note or b""):
            # An answer over HTTP; its body is the promise.
            self.log.append(("ack", call.note.split(b"\r\n\r\n", 1)[-1] + b"\n", words))
        elif (call.file or "").startswith("socket:") and call.name in ("read", "recvfrom"):
            answer = call.read_memory(call.args[1], call.result)
            if b'"ok":true' in answer:
                self.log.append(("ack", answer.split(b"\r\n\r\n", 1)[-1] + b"\n", words))
        elif call.name in WRITES and self._is_ours(call.file):
            self._write(call, words)
        elif call.name in OPENS and self._is_ours(first):
            if not self.existed.pop(call.pid, True):
                self.log.append(("link", *split(first), ("file", self._number(os.stat(first), True)), words))
            elif call.name == "openat" and call.args[2] & os.O_TRUNC:
                self.log.append(("truncate", self._number(os.stat(first)), 0, words))
        elif call.name in ("mkdir", "mkdirat") and self._is_ours(first):
            self.log.append(("link", *split(first), ("folder", first), words))
        elif call.name == "ftruncate" and self._is_ours(call.file):
            self.log.append(("truncate", self._synced(call)[1], call.args[1], words))
        elif call.name.startswith("rename") and self._is_ours(first):
            self.log.append(("rename", *split(first), *split(call.paths[1]), words))
        elif call.name in ("link", "linkat") and self._is_ours(call.paths[1]):
            number = self._number(os.stat(call.paths[1]))
            self.log.append(("link", *split(call.paths[1]), ("file", number), words))
        elif call.name in ("unlink", "unlinkat", "rmdir") and self._is_ours(first):
            self.log.append(("unlink", *split(first), words))
        elif call.name in ("fsync", "fdatasync") and self._is_ours(call.file):
            self.log.append(("sync", self._synced(call), words))

    def _write(self, call, words):
        if call.name.startswith("pwrite"):
            offset = call.args[3]
        else:
            with open(f"/proc/{call.pid}/fdinfo/{call.fd()}", encoding="ascii") as info:
                offset = int(next(it for it in info if it.startswith("pos:")).split()[1]) - call.result
        number = self._number(os.stat(self._opened(call)))
        self.log.append(("write", number, offset, call.note[:call.result], words))


def _changes(log):
    """The smallest changes that are kept alone: (kind, target, …, index in the log)."""
    changes = []
    for index, entry in enumerate(log):
        if entry[0] == "write":
            _, number, offset, content, _ = entry
            end = offset + len(content)
            changes.append(("size", number, end, index))
            start = offset
            while start < end:
                page_end = min(end, (start // _PAGE + 1) * _PAGE)
                middle = (start + page_end) // 2
                for a, b in ((start, middle), (middle, page_end)):
                    if a < b:
                        changes.append(("data", number, a, content[a - offset:b - offset], index))
                start = page_end
        elif entry[0] in ("truncate", "link", "unlink", "rename"):
            changes.append((*entry[:-1], index))
    return changes


def _kept(changes, log, point, model):
    """Which changes are surely on disk at `point`."""
    kept, doubtful = set(), set()
    for index, entry in enumerate(log[:point]):
        if entry[0] not in ("sync", "doubt"):
            continue
        kind, target = entry[1]
        for number, change in enumerate(changes):
            if change[-1] >= index:
                break
            is_content = change[0] in ("size", "data", "truncate")
            is_covered = change[1] == target if is_content == (kind == "file") else False
            if change[0] == "rename" and kind == "folder":
                is_covered |= change[3] == target
            if model == "ext4" and (not is_content or change[0] == "truncate"):
                is_covered = True  # one journal: a commit carries all earlier changes of names
            if entry[0] == "doubt":
                if kind == "file" and change[0] == "data" and change[1] == target and number not in kept:
                    doubtful.add(number)
            elif is_covered and number not in doubtful:
                kept.add(number)
    return kept


def _choices(free, chosen):
    """Subsets of the open changes: all of them, or a good sample."""
    count = len(free)
    if count <= _EXHAUSTIVE:
        return [list(it) for size in range(count + 1) for it in itertools.combinations(free, size)]
    picks = [[], free] + [free[:at] for at in range(1, count)] + [free[at:] for at in range(1, count)]
    picks += [[it] for it in free] + [[other for other in free if other != it] for it in free]
    picks += [[it for it in free if chosen.random() < share] for share in (0.25, 0.5, 0.75) for _ in range(_SAMPLE // 3)]
    return picks


def _subsets(free, changes, model, chosen):
    if model == "posix":
        return _choices(free, chosen)
    contents = [it for it in free if changes[it][0] in ("data", "size")]
    names = [it for it in free if changes[it][0] not in ("data", "size")]
    return [names[:cut] + pick for cut in range(len(names) + 1) for pick in _choices(contents, chosen)]


class Cut:
    """The power cuts of one scenario."""

    def __init__(self, scenario, scratch):
        self.arena, self.scenario = Arena(scenario, scratch), scenario

    def record(self, failing_sync=None, is_killed=False, origin=None):
        """Runs the steps once, from `origin` on; the recorder with its log, and the exit status of each step."""
        logs = self.arena.folder(origin)
        recorder = _Recorder(logs, failing_sync, is_killed)
        _, statuses = self.arena.run(logs, recorder, _TIMEOUT_S)
        drop(logs)
        return recorder, statuses

    def disks(self, recorder, model, seed, limit):
        """Distinct disks with the acknowledgements that they must answer for, at most about `limit`."""
        changes, chosen, disks = _changes(recorder.log), random.Random(seed), {}
        points = range(len(recorder.log) + 1)
        # Of a sample every point gets its share: most open changes are at a few points, and bugs are not.
        share = 2 + 3 * limit // len(points) if limit else None
        for point in points:
            kept = _kept(changes, recorder.log, point, model)
            free = [it for it, change in enumerate(changes) if change[-1] < point and it not in kept]
            acked = b"".join(it[1] for it in recorder.log[:point] if it[0] == "ack")
            after = recorder.log[point - 1][-1].replace(recorder.root, ".") if point else "the start"
            picks = _subsets(free, changes, model, chosen)
            if share and share < len(picks):
                picks = [[], free, *chosen.sample(picks, share)]
            for pick in picks:
                disk = recorder.disk.copy()
                for number in sorted(kept | set(pick)):
                    disk.apply(changes[number])
                key = disk.digest(recorder.root)
                if key not in disks or len(disks[key][1]) < len(acked):
                    disks[key] = (disk, acked, f"{model}, power cut after operation {point}, {after}")
        found = list(disks.values())
        chosen.shuffle(found)
        return found[:limit]

    def judge(self, root, item):
        disk, acked, words = item
        logs = self._place()
        disk.write_to(root, logs)
        violations = self.arena.judge(logs, acked)
        drop(logs)
        return {"trial": words, "violations": violations, "count": 1}

    def judge_again(self, root, item, model, seed, limit):
        """The second cut: all steps once more on the disk that the first one left, and the power fails there too."""
        disk, acked, words = item
        origin = self._place()
        disk.write_to(root, origin)
        recorder, statuses = self.record(origin=origin)
        drop(origin)
        violations, count = [wrong for it in statuses for wrong in self.arena.judge_exit(it)], 0
        # What was cut off by the first one was never a whole line.
        acked = acked[:acked.rfind(b"\n") + 1]
        for again, more, where in self.disks(recorder, model, seed, limit):
            result = self.judge(recorder.root, (again, acked + more, where))
            violations += [f"{where}: {it}" for it in result["violations"]]
            count += 1
        return {"trial": f"{words}, and once more", "violations": violations, "count": count}

    def _place(self):
        return os.path.join(os.path.realpath(tempfile.mkdtemp(prefix="disk.", dir=self.arena.scratch)), "logs")


def replay(scenario, scratch, jobs, report, model, limit=None, sync_fails=0, again=0, seed=1, deadline=None, stop=False):
    """Cuts the power at every point; then also with each of the syncs failing, or `sync_fails` of them; then a second
    time on `again` of the disks."""
    began, cut = time.monotonic(), Cut(scenario, scratch)
    recorder, statuses = cut.record()
    counts, operations = collections.Counter(), len(recorder.log)
    syncs = list(range(1, recorder.syncs + 1))
    random.Random(seed).shuffle(syncs)
    ways = [(failing, is_killed) for failing in syncs[:sync_fails] for is_killed in (False, True)]

    def judge_all(work, count, kind, fate=""):
        for result in in_parallel(work, range(count), jobs, deadline, stop):
            counts[kind] += result["count"]
            result["trial"] += fate
            report.add(scenario.name, result)
    for failing, is_killed in [(None, False), *ways]:
        if failing is not None:
            recorder, statuses = cut.record(failing, is_killed)
        fate = f", sync {failing} failed" * bool(failing) + " and its process was killed" * is_killed
        for status in statuses:
            report.add(scenario.name, {"trial": f"run{fate}", "violations": cut.arena.judge_exit(status)})
        share = limit if failing is None or limit is None else max(1, limit // (2 * len(ways)))
        disks, root = cut.disks(recorder, model, seed, share), recorder.root
        judge_all(lambda it: cut.judge(root, disks[it]), len(disks), "one sync fails" if failing else "all syncs work", fate)
        if failing is None:
            judge_all(lambda it: cut.judge_again(root, disks[it], model, f"{seed} {it}", again),
                      min(again, len(disks)), "cut twice")
        if stop and report.violations:
            break
    shutil.rmtree(cut.arena.template, ignore_errors=True)
    total = sum(counts.values())
    report.tally(scenario.name, "crash disks", total)
    words = ", ".join(f"{it}: {count}" for it, count in counts.items())
    report.line("power", scenario.name, f"{total} disks ({model}; {words}), {operations} operations, "
                f"{len(syncs)} syncs", began)
