"""Milepost from Python: report a milestone, and read a journal from where one stood. Needs Python 3 only.

usage: recipes.py append LOGS < milestone.json    prints what became of it
       recipes.py read LOGS NAME [OFFSET]         prints the records from OFFSET on, then the offset to go on from
"""

import json
import subprocess
import sys
from pathlib import Path

MARK_BYTES = 320


def append(logs, milestone):
    """Reports a milestone; give it an id of its own, and it is safe to do so again.

    Returns the result ("appended" or "duplicate"), or raises: temporary faults as OSError (try again), others as
    ValueError with what is wrong. Never write into the journal yourself: locks, syncing and duplicates are
    milestone-emit's affair.
    """
    line = json.dumps(milestone) + "\n"
    run = subprocess.run(["milestone-emit", "--logs", logs, "-"], input=line, capture_output=True, text=True)
    if run.returncode in (69, 74, 75):
        raise OSError(run.stderr.strip())
    if run.returncode != 0:
        raise ValueError(run.stderr.strip())
    return json.loads(run.stdout)["status"]


def mark_of(logs, name):
    """Where the active file begins and how much of it is surely on disk. What lies beyond may still go away."""
    with open(Path(logs, ".lock", name + ".lock"), "rb") as file:
        mark = json.loads(file.read(MARK_BYTES))
    return mark["base"], mark["base"] + mark["length"]


def read(logs, name, offset=0):
    """The records of a journal from a logical offset on, and the offset after them. No lock is needed.

    Offsets count bytes since the journal began, over all its files, so they stay right when it goes on in a new one.
    """
    while True:
        base, end = mark_of(logs, name)
        closed = {int(it.name[len(name) + 1:-6]): it for it in Path(logs).glob(name + "." + "[0-9]" * 20 + ".jsonl")}
        files = sorted({**closed, base: Path(logs, name + ".jsonl")}.items())
        try:
            lines, at = b"", offset
            for index, (start, path) in enumerate(files):
                stop = files[index + 1][0] if index + 1 < len(files) else end
                if start <= at < stop:
                    with open(path, "rb") as file:
                        file.seek(at - start)
                        piece = file.read(stop - at)
                    lines, at = lines + piece, at + len(piece)
        except FileNotFoundError:
            continue
        # Between the two looks it may have gone on in a new file.
        if mark_of(logs, name)[0] == base:
            return [json.loads(it) for it in lines.splitlines()], at


if __name__ == "__main__":
    if sys.argv[1] == "append":
        print(append(sys.argv[2], json.load(sys.stdin)))
    else:
        records, after = read(sys.argv[2], sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else 0)
        for record in records:
            print(json.dumps(record, separators=(",", ":"), ensure_ascii=False))
        print(after)
