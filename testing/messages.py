"""Finds what the tools can say to people in their sources, and looks whether docs/MESSAGES.md tells of it.

usage: messages.py [--list]
Exit 1 names each message that the page lacks, and each that it tells of although nothing says it any more.
`--list` prints all of them. A message is a text of several words that is handed to what makes or says errors,
warnings and notes; values in it are written as "…".
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/MESSAGES.md"
# What makes a message of a text: errors, their cures excepted, and what is said without an error.
SAYS = re.compile(r"""(?x)
    \b(?: Error::(?:new|io) | FieldError::new | refuse | wrong | bad | Err | too_long | fault )\(
  | \.(?: error | warn | note )\(
  | \blet\ (?:what|message|why|shown)\ =
  | =>\ (?:Some|Err)\(
""")
# Parts of messages, and what to do, which stands behind the message.
PARTS = {
    "… …", "cannot parse integer from empty string", "invalid digit found in string",
    "number too large to fit in target type", "and is another line now", "dead letter", "dead letters", "free some space and run it again",
    "give only the secret", "is not …", "let this user read it: chgrp and chmod 640 …",
    "make one with: echo whsec_$(openssl rand -base64 32)", "make one with: openssl rand -hex 32", "milestone was",
    "milestones were", "name a file that holds the secret", "raise the disk quota or free some space",
    "raise the file size limit (ulimit -f)", "remount it writable", "the line …", "the record …",
    "where another event is", "which is meant for another endpoint", "…: …", "…, or create it with milestone-status --init",
}
LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"', re.S)


def messages():
    found = {}
    for file in sorted([*ROOT.glob("lib/src/**/*.rs"), *ROOT.glob("bins/*/src/**/*.rs")]):
        if file.name == "testing.rs":
            continue
        text = file.read_text()
        text = text.split("#[cfg(test)]\nmod tests")[0]
        text = re.sub(r"(?m)^\s*//.*$", "", text)
        for match in SAYS.finditer(text):
            for literal in LITERAL.findall(span(text, match.end(), match.group().endswith("="))):
                said = plain(literal)
                if " " in said and said not in PARTS and not said.startswith(("/", "{")):
                    found.setdefault(said, file.relative_to(ROOT))
    return found


def span(text, at, is_binding):
    """From `at` to the bracket or semicolon that ends what began there, without cures and reasons in attributes."""
    depth, end, in_text = 0, at, False
    while end < len(text):
        char = text[end]
        if in_text:
            if char == "\\":
                end += 1
            elif char == '"':
                in_text = False
        elif char == '"':
            in_text = True
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if depth < 0 and not is_binding:
                break
        elif char == ";" and depth <= 0:
            break
        end += 1
    return re.sub(r"\.(?:cure|expect|join|strip_prefix|starts_with)\((?:[^\"()]|\"(?:[^\"\\]|\\.)*\")*\)", "", text[at:end])


def plain(literal):
    literal = re.sub(r"\\\n\s*", "", literal)
    literal = literal.replace('\\"', '"').replace("\\\\", "\\").replace("{{", "\0").replace("}}", "\1")
    return re.sub(r"\{[^{}]*\}", "…", literal).replace("\0", "{").replace("\1", "}").strip()


def main():
    found = messages()
    if sys.argv[1:] == ["--list"]:
        for said, file in sorted(found.items(), key=lambda it: (str(it[1]), it[0])):
            print(f"{file}\t{said}")
        return 0
    page = PAGE.read_text()
    told = set(re.findall(r"`([^`]+)`", page))
    missing = [f"{file}: {said}" for said, file in sorted(found.items()) if said not in told]
    for line in missing:
        print(f"docs/MESSAGES.md does not tell of: {line}")
    heads = [line.split(" — ")[0] for line in page.split("\n") if line.startswith("- `")]
    rows = {it for head in heads for it in re.findall(r"`([^`]+)`", head) if "…" in it or it.count(" ") > 1}
    gone = sorted(rows - found.keys() - {"openssl rand -hex 32"})
    for said in gone:
        print(f"docs/MESSAGES.md tells of what nothing says: {said}")
    return 1 if missing or gone else 0


if __name__ == "__main__":
    sys.exit(main())
