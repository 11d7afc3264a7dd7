"""What the figures were taken on."""
import os
import platform
import statistics
import subprocess
import time


def facts(scratch, sync_us):
    """Names and values, for the head of the report."""
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "system": _first("/etc/os-release", "PRETTY_NAME=").strip('"'),
        "compiler": _compiler(),
        "file system": _file_system(scratch),
        "sync of 400 bytes": f"{sync_us:.0f} µs",
    }


def versions(debian):
    """The Debian packages that are measured beside ours, or with: installed ones, and those that were unpacked."""
    names = ("jq", "ripgrep", "wrk", "valgrind", "openssl", "curl", "python3-requests", "python3-jsonschema")
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *names], capture_output=True, text=True)
    archives = os.path.join(debian, "archives")
    unpacked = sorted(os.listdir(archives)) if os.path.isdir(archives) else []
    return ", ".join(done.stdout.splitlines() + [" ".join(it.split("_")[:2]).replace("%3a", ":") for it in unpacked])


def commit(root):
    """What was measured."""
    done = subprocess.run(["git", "-c", "safe.directory=*", "describe", "--always", "--dirty"], cwd=root,
                          capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def sync_us(scratch, times=100):
    """How long it takes to append 400 bytes to a file and to sync them; median."""
    path = os.path.join(scratch, "sync")
    file, took = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), []
    for _ in range(times):
        os.write(file, b"x" * 400)
        start = time.perf_counter()
        os.fdatasync(file)
        took.append((time.perf_counter() - start) * 1e6)
    os.close(file)
    os.unlink(path)
    return statistics.median(took)


def _first(path, start):
    with open(path) as file:
        return next((line[len(start):].strip() for line in file if line.startswith(start)), "unknown")


def _processor():
    return _first("/proc/cpuinfo", "model name").lstrip("\t :") or platform.machine()


def _compiler():
    done = subprocess.run(["rustc", "--version"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def _file_system(path):
    """Kind and options of the mount that `path` is on."""
    best = ("", "unknown")
    with open("/proc/self/mounts") as file:
        for line in file:
            _, mounted, kind, options = line.split()[:4]
            below = os.path.realpath(path) + "/"
            if below.startswith(mounted.rstrip("/") + "/") and len(mounted) >= len(best[0]):
                best = (mounted, f"{kind} ({options})")
    return best[1]
