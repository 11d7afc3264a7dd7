"""The bench: which cases run, with which programs, and where the report goes. scripts/bench/run starts it."""
import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

import machine
import report
from bench import ROOT, Bench, Trouble, tell
from cases import audit, deliver, emit, instructions, queue, receive, reminders, visible

THEMES = (emit, queue, deliver, receive, visible, audit, reminders, instructions)
CASES = {f"{it.__name__.rpartition('.')[2]}.{name}": case for it in THEMES for name, case in it.CASES.items()}
COMMAND = "scripts/bench/run"


def options():
    """The command line, which scripts/bench/run describes."""
    class Parser(argparse.ArgumentParser):
        def error(self, message):
            print(f"run: {message}; see --help", file=sys.stderr)
            sys.exit(64)
    parser = Parser(add_help=False)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--bins")
    parser.add_argument("--target", required=True)
    parser.add_argument("--scratch")
    parser.add_argument("--output")
    given = parser.parse_args()
    for name in given.cases:
        if not any(it.startswith(name) for it in CASES):
            parser.error(f"no case begins with {name}")
    if given.quick and given.large:
        parser.error("--quick and --large say different things")
    return given


def words(case):
    """What a case says of itself."""
    return " ".join(case.__doc__.split())


def compile_floors(target):
    """The C programs; where they are."""
    source, out = os.path.join(ROOT, "scripts/bench/floors"), os.path.join(target, "bench/floors")
    os.makedirs(out, exist_ok=True)
    for name in sorted(os.listdir(source)):
        program = os.path.join(out, name.removesuffix(".c"))
        subprocess.run(["cc", "-O2", "-static", "-Wall", "-o", program, os.path.join(source, name)], check=True)
    return out


def run(given, chosen, scratch):
    """Runs the chosen cases; the report."""
    bins = os.path.realpath(given.bins or os.path.join(given.target, "release"))
    sizes = (1_000, 10_000, 100_000) if given.quick else (1_000, 100_000, 1_000_000)
    sizes += (10_000_000,) if given.large else ()
    bench = Bench(bins, os.path.join(bins, "examples"), os.path.join(given.target, "bench/debian"), scratch, sizes,
                  compile_floors(given.target))
    output = given.output or os.path.join(ROOT, "docs/BENCHMARKS.md")
    bench.stored_counts = report.stored_counts(output)
    out = report.Report()
    for name, case in chosen.items():
        began = time.monotonic()
        out.begin(name, words(case))
        try:
            case(bench, out)
        except (Trouble, OSError, subprocess.SubprocessError, ValueError, LookupError) as cause:
            if not isinstance(cause, Trouble):
                traceback.print_exc()
            out.fail(name, str(cause) or repr(cause))
        tell(f"{name}: {time.monotonic() - began:.0f} s")
    return out, output


def main():
    given = options()
    chosen = {name: case for name, case in CASES.items()
              if not given.cases or any(name.startswith(it) for it in given.cases)}
    if given.list:
        for name, case in chosen.items():
            print(f"{name:<20} {words(case)}")
        return 0
    for name in list(os.environ):
        if name.startswith(("MILESTONE_", "CLAWDBOT_")) or name in ("NO_COLOR", "JOURNAL_STREAM"):
            del os.environ[name]
    os.umask(0o022)
    # Whoever ends us ends what we started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    parent = given.scratch or os.path.join(given.target, "bench")
    os.makedirs(parent, exist_ok=True)
    scratch = os.path.realpath(tempfile.mkdtemp(prefix="run.", dir=parent))
    try:
        facts = machine.facts(scratch, machine.sync_us(scratch))
        facts["beside"] = machine.versions(os.path.join(given.target, "bench/debian"))
        for name, value in facts.items():
            print(f"{name}: {value}")
        out, output = run(given, chosen, scratch)
    except KeyboardInterrupt:
        print("interrupted")
        return 130
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print("\n" + "\n".join(out.chart()))
    minutes = (time.monotonic() - began) / 60
    if given.output or not (given.quick or given.cases):
        command = COMMAND + (" --large" if given.large else "")
        with open(output, "w", encoding="utf-8") as file:
            file.write(out.markdown(facts, machine.commit(ROOT), minutes, command))
        print(f"written: {output}")
    print(f"{minutes:.1f} minutes")
    return out.summary()


sys.exit(main())
