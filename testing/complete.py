"""Presses Tab in a real shell on a terminal of its own, and prints what the screen shows then.

usage: complete.py bash|zsh COMPLETIONS-FOLDER LINE WORD...
Prints what came after LINE and Tab, without escape sequences, once each WORD is there or has not come for long. For
tests/manual.rs; needs the shell.
"""

import os
import pty
import re
import select
import sys
import time

shell, folder, line, *words = sys.argv[1:]
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


def shown():
    return re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|[\r\x07]", b"", screen).decode(errors="replace")


def read_until(wanted):
    """Reads until all that is wanted was seen, for so long as a busy machine may need."""
    global screen
    until = time.monotonic() + 30
    while time.monotonic() < until and not all(it in shown() for it in wanted):
        ready, _, _ = select.select([terminal], [], [], 0.5)
        if ready:
            try:
                screen += os.read(terminal, 65536)
            except OSError:
                return


os.write(terminal, f"stty cols 200; {prepare}; echo rea''dy\n".encode())
read_until(["ready"])
screen = b""
os.write(terminal, line.encode() + b"\t")
read_until(words)
sys.stdout.write(shown())
