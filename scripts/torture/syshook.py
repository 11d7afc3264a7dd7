"""Stops a program at every system call and lets a hook decide what becomes of the call.

The idea: a program meets the disk only through system calls, so whoever stands at each of them can play
every fault that a disk, a kernel or a power switch can produce, on the program as it is shipped.

A `Tracer` runs one command under ptrace(2), with all its threads and children. Before each call of the names
in `WATCHED` it asks `enter(call)`, after it `leave(call)`. `enter` answers None, or one of

    ("kill",)            SIGKILL; the call is not done
    ("kill_after",)      SIGKILL as soon as the call is done
    ("error", errno)     the call is not done and fails
    ("error_after", errno)   the call is done and reports failure
    ("short", n)         a write is shortened to n bytes

Invariants
- A call that the hook does not change is seen by the program exactly as without us; but a program that wants to
  keep its memory to itself, because it holds a secret, may not.
- Whatever happens here, no traced process outlives `run`: PTRACE_O_EXITKILL and a time limit see to it.

Linux on x86-64 only, and where ptrace is allowed (`why_not`); Python's standard library only. Not here: which
calls get which fault (faultsweep), what a power cut keeps of them (powerloss).
"""
import ctypes
import errno
import os
import platform
import signal
import struct

_NUMBERS = dict(
    read=0, write=1, open=2, close=3, stat=4, fstat=5, lstat=6, lseek=8, pread64=17, pwrite64=18, readv=19,
    writev=20, access=21, sendfile=40, connect=42, sendto=44, recvfrom=45, sendmsg=46, recvmsg=47, fcntl=72,
    flock=73, fsync=74, fdatasync=75, truncate=76, ftruncate=77, getdents=78, rename=82, mkdir=83, rmdir=84,
    creat=85, link=86, unlink=87, symlink=88, readlink=89, chmod=90, fchmod=91, chown=92, fchown=93, sync=162,
    getdents64=217, openat=257, mkdirat=258, newfstatat=262, unlinkat=263, renameat=264, linkat=265,
    symlinkat=266, readlinkat=267, fchmodat=268, faccessat=269, sync_file_range=277, utimensat=280, fallocate=285,
    preadv=295, pwritev=296, syncfs=306, renameat2=316, copy_file_range=326, preadv2=327, pwritev2=328, statx=332,
    openat2=437, faccessat2=439)
_NAMES = {number: name for name, number in _NUMBERS.items()}
WATCHED = frozenset(_NUMBERS)

# Which arguments are a path, each with the argument that holds the folder it is relative to.
_PATHS = dict(
    open=[(None, 0)], creat=[(None, 0)], openat=[(0, 1)], openat2=[(0, 1)], rename=[(None, 0), (None, 1)],
    renameat=[(0, 1), (2, 3)], renameat2=[(0, 1), (2, 3)], link=[(None, 0), (None, 1)],
    linkat=[(0, 1), (2, 3)], unlink=[(None, 0)], unlinkat=[(0, 1)], mkdir=[(None, 0)], mkdirat=[(0, 1)],
    rmdir=[(None, 0)], truncate=[(None, 0)], symlink=[(None, 1)], symlinkat=[(1, 2)], stat=[(None, 0)],
    lstat=[(None, 0)], newfstatat=[(0, 1)], statx=[(0, 1)], access=[(None, 0)], faccessat=[(0, 1)],
    faccessat2=[(0, 1)], readlink=[(None, 0)], readlinkat=[(0, 1)], chmod=[(None, 0)], fchmodat=[(0, 1)],
    chown=[(None, 0)], utimensat=[(0, 1)])
# Calls whose first argument is an open file.
_FILES = frozenset(
    "read write pread64 pwrite64 readv preadv writev pwritev pwritev2 preadv2 close fstat lseek flock fsync fdatasync "
    "ftruncate fallocate sync_file_range fchmod fchown getdents getdents64 fcntl copy_file_range syncfs connect "
    "sendto recvfrom sendmsg recvmsg sendfile".split())

WRITES = frozenset("write pwrite64 writev pwritev pwritev2".split())
SYNCS = frozenset("fsync fdatasync syncfs sync_file_range".split())
OPENS = frozenset("open openat openat2 creat".split())

_TRACEME, _GETREGS, _SETREGS, _SYSCALL, _SETOPTIONS = 0, 12, 13, 24, 0x4200
_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x100000  # sysgood, fork, vfork, clone, exec, exitkill
_EVENT_EXEC = 4
_PRCTL, _PR_SET_DUMPABLE = 157, 4
_WALL = 0x40000000
_AT_FDCWD = -100

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def why_not():
    """Why no program can be stopped at its system calls here; None when one can."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return f"not on {platform.system()} with {platform.machine()}"
    pid = os.fork()
    if pid == 0:
        os._exit(1 if _libc.ptrace(_TRACEME, 0, 0, 0) else 0)
    return "ptrace is forbidden" if os.waitpid(pid, 0)[1] else None


class _Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in (
        "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base "
        "gs_base ds es fs gs").split()]


def _ptrace(request, pid, address=0, value=0):
    if _libc.ptrace(request, pid, address, value) == -1 and ctypes.get_errno():
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Call:
    """One system call: `name`, `args`, the `paths` it names, the `file` its descriptor is, and then `result`."""

    def __init__(self, pid, registers):
        self.pid, self.registers, self.result, self.note = pid, registers, None, None
        self.name = _NAMES.get(registers.orig_rax, "")
        self.args = [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9]
        self.paths, self.file = [], None
        self.action, self.restore = None, None

    def fd(self, argument=0):
        return ctypes.c_int(self.args[argument] & 0xffffffff).value

    def read_memory(self, address, length):
        with open(f"/proc/{self.pid}/mem", "rb", 0) as memory:
            memory.seek(address)
            return memory.read(length)

    def write_memory(self, address, data):
        with open(f"/proc/{self.pid}/mem", "r+b", 0) as memory:
            memory.seek(address)
            memory.write(data)

    def _text(self, address):
        text = b""
        while address and len(text) < 4096:
            part = self.read_memory(address, 256 - address % 256)
            end = part.find(b"\0")
            if end >= 0:
                return text + part[:end]
            text += part
            address += len(part)
        return text

    def pieces(self):
        """The (address, length) pairs of a vectored write."""
        raw = self.read_memory(self.args[1], 16 * min(self.args[2], 1024))
        return [struct.unpack_from("QQ", raw, at) for at in range(0, len(raw), 16)]

    def payload(self):
        """The bytes that a write is to write."""
        if self.name in ("write", "pwrite64", "sendto"):
            return self.read_memory(self.args[1], self.args[2]) if self.args[2] else b""
        if self.name in ("writev", "pwritev", "pwritev2"):
            return b"".join(self.read_memory(address, length) for address, length in self.pieces() if length)
        if self.name == "sendmsg":
            iov, count = struct.unpack_from("QQ", self.read_memory(self.args[1], 32), 16)
            raw = self.read_memory(iov, 16 * min(count, 1024))
            pairs = [struct.unpack_from("QQ", raw, at) for at in range(0, len(raw), 16)]
            return b"".join(self.read_memory(address, length) for address, length in pairs if length)
        return b""

    def resolve(self):
        for folder, path in _PATHS.get(self.name, ()):
            name = os.fsdecode(self._text(self.args[path]))
            if not name.startswith("/"):
                fd = self.fd(folder) if folder is not None else _AT_FDCWD
                try:
                    base = os.readlink(f"/proc/{self.pid}/cwd" if fd == _AT_FDCWD else f"/proc/{self.pid}/fd/{fd}")
                except OSError:
                    base = "?"
                name = os.path.join(base, name) if name else base
            self.paths.append(os.path.normpath(name))
        if self.name in _FILES:
            try:
                self.file = os.readlink(f"/proc/{self.pid}/fd/{self.fd()}")
            except OSError:
                pass

    def touches(self, folder):
        return any(it == folder or it.startswith(folder + "/") for it in [*self.paths, self.file or ""])

    def opens_to_write(self):
        if self.name in ("open", "openat"):
            return bool(self.args[1 if self.name == "open" else 2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        return self.name == "creat"

    def creates(self):
        """Whether it is an open that would create its file."""
        return self.opens_to_write() and bool(self.args[2] & os.O_CREAT) and not os.path.exists(self.paths[0])

    def __str__(self):
        places = " -> ".join(self.paths) or self.file or ""
        length = f", {self.args[2]} bytes" if self.name in ("write", "pwrite64") else ""
        return f"{self.name}({places}{length})"


class Tracer:
    """Runs one command under the hooks; see the top of this file."""

    def __init__(self, argv, enter, leave=None, cwd=None, stdin=None, stdout=None, stderr=None, timeout=20.0,
                 on_start=None):
        self.argv, self.enter, self.leave, self.cwd = argv, enter, leave, cwd
        self.stdin, self.stdout, self.stderr, self.timeout = stdin, stdout, stderr, timeout
        # Called with the process's id once there is one, for whoever works beside it.
        self.on_start = on_start
        self.pid, self.live, self.is_running, self.is_hung = None, set(), False, False

    def run(self):
        """Its exit status, -N for signal N, or "hang"."""
        self.pid = self._spawn()
        os.waitpid(self.pid, _WALL)
        _ptrace(_SETOPTIONS, self.pid, 0, _OPTIONS)
        self.live.add(self.pid)
        _ptrace(_SYSCALL, self.pid)
        if self.on_start:
            self.on_start(self.pid)
        before = signal.signal(signal.SIGALRM, self._too_long)
        signal.setitimer(signal.ITIMER_REAL, self.timeout)
        try:
            status = self._loop()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            self._kill_all()
        if self.is_hung:
            return "hang"
        return os.waitstatus_to_exitcode(status) if status is not None else -signal.SIGKILL

    def _spawn(self):
        pid = os.fork()
        if pid:
            return pid
        try:
            os.setpgid(0, 0)
            for fd, file in ((0, self.stdin), (1, self.stdout), (2, self.stderr)):
                if file is not None:
                    os.dup2(file.fileno(), fd)
            if self.cwd:
                os.chdir(self.cwd)
            _libc.ptrace(_TRACEME, 0, 0, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            os.execv(self.argv[0], self.argv)
        except BaseException as cause:
            os.write(2, f"syshook: cannot run {self.argv[0]}: {cause}\n".encode())
        os._exit(127)

    def _too_long(self, *_):
        self.is_hung = True
        self._kill_all()

    def _kill_all(self):
        for pid in list(self.live):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def _loop(self):
        inside, status = {}, None
        while self.live:
            try:
                pid, stop = os.waitpid(-1, _WALL)
            except ChildProcessError:
                break
            if os.WIFEXITED(stop) or os.WIFSIGNALED(stop):
                self.live.discard(pid)
                inside.pop(pid, None)
                if pid == self.pid:
                    status = stop
                continue
            self.live.add(pid)
            number, event = os.WSTOPSIG(stop), stop >> 16
            deliver = 0
            try:
                if number == signal.SIGTRAP | 0x80:
                    self._at_call(pid, inside)
                elif number == signal.SIGTRAP and event:
                    self.is_running |= event == _EVENT_EXEC
                elif number == signal.SIGSTOP and pid not in inside and pid != self.pid:
                    inside[pid] = None  # the first stop of a new thread or child
                else:
                    deliver = number
                _ptrace(_SYSCALL, pid, 0, deliver)
            except OSError as cause:
                if cause.errno != errno.ESRCH:  # killed between two of our steps
                    raise
        return status

    def _at_call(self, pid, inside):
        registers = _Registers()
        _ptrace(_GETREGS, pid, 0, ctypes.addressof(registers))
        call = inside.get(pid)
        if call is None:
            call = inside[pid] = Call(pid, registers)
            if (registers.orig_rax, registers.rdi, registers.rsi) == (_PRCTL, _PR_SET_DUMPABLE, 0):
                # Without root we could not read what it writes any more.
                registers.rsi = 1
                _ptrace(_SETREGS, pid, 0, ctypes.addressof(registers))
            if self.is_running and call.name in WATCHED:
                call.resolve()
                call.action = self.enter(call)
                if call.action:
                    self._begin(call)
            return
        inside[pid] = None
        kind = call.action[0] if call.action else None
        if kind in ("error", "error_after"):
            registers.rax = ctypes.c_ulonglong(-call.action[1]).value
            _ptrace(_SETREGS, pid, 0, ctypes.addressof(registers))
        elif kind == "kill_after":
            os.kill(pid, signal.SIGKILL)
        if call.restore:
            call.write_memory(*call.restore)
        call.result = ctypes.c_longlong(registers.rax).value
        if self.is_running and self.leave and call.name in WATCHED:
            self.leave(call)

    def _begin(self, call):
        kind, registers = call.action[0], call.registers
        if kind == "kill":
            os.kill(call.pid, signal.SIGKILL)
        elif kind == "error":
            registers.orig_rax = ctypes.c_ulonglong(-1).value  # no such call: nothing is done
            _ptrace(_SETREGS, call.pid, 0, ctypes.addressof(registers))
        elif kind == "short" and call.name in ("write", "pwrite64"):
            registers.rdx = call.action[1]
            _ptrace(_SETREGS, call.pid, 0, ctypes.addressof(registers))
        elif kind == "short":
            left, shortened = call.action[1], b""
            pieces = call.pieces()
            call.restore = (call.args[1], call.read_memory(call.args[1], 16 * len(pieces)))
            for address, length in pieces:
                shortened += struct.pack("QQ", address, min(length, left))
                left -= min(length, left)
            call.write_memory(call.args[1], shortened)
