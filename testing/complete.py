"""Presses Tab in a real shell on a terminal of its own, and prints what the screen shows then.

usage: complete.py bash|zsh COMPLETIONS-FOLDER LINE
Prints the bytes that came after LINE and two tabs, without escape sequences. For tests/manual.rs; needs the shell.
"""

import os
import pty
import re
import select
import sys
import time

shell, folder, line = sys.argv[1:]
tool = line.split()[0]
start = {
    "bash": (["bash", "--norc", "--noprofile", "-i"],
             f"source {folder}/bash/{tool}; bind 'set show-all-if-ambiguous on'; bind 'set bell-style none'"),
    "zsh": (["zsh", "-f", "-i"],
            f"fpath=({folder}/zsh $fpath); autoload -Uz compinit; compinit -D -u; unsetopt beep; LISTMAX=0"),
}
arguments, prepare = start[shell]
child, terminal = pty.fork()
if child == 0:
    os.environ.update(TERM="xterm", PS1="> ", PROMPT="> ", LC_ALL="C.UTF-8", COLUMNS="200", INPUTRC="/dev/null")
    os.execvp(arguments[0], arguments)
screen = b""


def read_until(wanted, patience=30.0, quiet=None):
    """Reads until `wanted` was seen or, with `quiet`, until nothing has come for so long."""
    global screen
    until = time.monotonic() + patience
    while time.monotonic() < until and not (wanted and wanted in screen):
        ready, _, _ = select.select([terminal], [], [], quiet or 0.5)
        if ready:
            try:
                screen += os.read(terminal, 65536)
            except OSError:
                return
        elif quiet:
            return


os.write(terminal, f"stty cols 200; {prepare}; echo rea''dy\n".encode())
read_until(b"ready")
screen = b""
os.write(terminal, line.encode() + b"\t")
read_until(None, quiet=2.0)
os.write(terminal, b"\x15exit\n")
shown = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|[\r\x07]", b"", screen)
sys.stdout.write(shown.decode(errors="replace"))
