"""What came out: rows as they are measured, a table in the end, and docs/BENCHMARKS.md.

Invariants
- Each row that has a line says whether it is reached: reached, within the spread of it, or MISSED.
- What could not be measured quietly is marked with `~`; what could not be measured at all is a failed case.
"""
import os
import re

AT_MOST, AT_LEAST = "at most", "at least"
_WORDS = {"reached": "reached", "near": "within the spread", "missed": "MISSED", "": ""}


class Row:
    """One thing that was measured."""

    def __init__(self, case, what, figure, unit, reach, sides):
        self.case, self.what, self.figure, self.unit = case, what, figure, unit
        self.reach, self.sides = reach, sides

    def verdict(self):
        if not self.reach:
            return ""
        kind, line = self.reach
        behind = self.figure.median - line if kind == AT_MOST else line - self.figure.median
        if behind <= 0:
            return "reached"
        return "near" if behind <= self.figure.spread else "missed"

    def cells(self):
        mark = "~" if self.figure.disturbed else ""
        reach = f"{self.reach[0]} {number(self.reach[1], self.unit)}" if self.reach else ""
        return [self.case, self.what, mark + number(self.figure.median, self.unit),
                "± " + number(self.figure.spread, self.unit), reach, _WORDS[self.verdict()], self.sides]


class Report:
    """Everything of one run."""

    HEAD = ["case", "what", "median", "spread", "reach", "", "of"]

    def __init__(self):
        self.rows, self.settings, self.growth, self.counts, self.failed = [], {}, {}, {}, {}
        self.case, self.cases = "", {}

    def begin(self, case, what):
        """From here on everything is of this case."""
        self.case = case
        self.cases[case] = what

    def row(self, what, figure, unit, reach=None, sides=""):
        """Adds a row and prints it. `reach` is (AT_MOST or AT_LEAST, line)."""
        row = Row(self.case, what, figure, unit, reach, sides)
        self.rows.append(row)
        case, what, median, spread, reach, verdict, sides = row.cells()
        print(f"{case:<18} {what:<58} {median:>13} {spread:>12}  {reach:<19} {verdict}"
              + (f"  ({sides})" if sides else ""), flush=True)

    def grow(self, theme, unit, figures):
        """Costs of one event by the number of events, for the chart."""
        self.growth[theme] = (unit, figures)

    def count(self, path, instructions, stored):
        """How many instructions a path takes for an event, and how many it took when they were stored last."""
        self.counts[path] = (instructions, stored)
        change = f"{100 * (instructions / stored - 1):+.1f} % since stored" if stored else "not stored before"
        loud = "  MORE THAN 2 % MORE" if stored and instructions > stored * 1.02 else ""
        print(f"{self.case:<18} {path:<58} {instructions:>13,.0f} instructions  {change}{loud}", flush=True)

    def setting(self, who, words):
        """How somebody was set up."""
        self.settings[who] = words

    def fail(self, case, why):
        self.failed[case] = why
        print(f"{case:<18} FAILED: {why}", flush=True)

    def chart(self):
        """Growth as lines of text."""
        lines = []
        for theme, (unit, figures) in self.growth.items():
            most = max(it.median for it in figures.values())
            for at, (size, figure) in enumerate(figures.items()):
                bar = "█" * max(1, round(40 * figure.median / most))
                lines.append(f"{theme if at == 0 else '':<40} {size:>10,} {bar:<41}{number(figure.median, unit)}")
        return lines

    def summary(self):
        """The last words, and the exit code."""
        judged = [it for it in self.rows if it.reach]
        missed = [it for it in judged if it.verdict() == "missed"]
        for row in missed:
            print(f"MISSED: {row.case}: {row.what}: {number(row.figure.median, row.unit)}, "
                  f"{row.reach[0]} {number(row.reach[1], row.unit)}")
        for case, why in self.failed.items():
            print(f"FAILED: {case}: {why}")
        if any(it.figure.disturbed for it in self.rows):
            print("~: others used the processors meanwhile, so this is no figure to rely on")
        print(f"{len(judged)} lines: {len(judged) - len(missed)} reached or within the spread, {len(missed)} missed; "
              f"{len(self.failed)} cases failed")
        return 70 if self.failed else 1 if missed else 0

    def markdown(self, facts, commit, minutes, command):
        """docs/BENCHMARKS.md."""
        out = [_INTRODUCTION.format(command=command)]
        out += [f"- {name}: {value}" for name, value in facts.items()]
        out += [f"- measured: {commit}, in {minutes:.0f} minutes", "", "## Figures", "", _READING]
        out += ["| " + " | ".join(self.HEAD) + " |", "| --- | --- | ---: | ---: | --- | --- | --- |"]
        out += ["| " + " | ".join(_escape(it) for it in row.cells()) + " |" for row in self.rows]
        out += [f"\nFailed: {case}: {why}" for case, why in self.failed.items()]
        out += ["", "## Cases", ""] + [f"- **{case}**: {what}" for case, what in self.cases.items()]
        if self.growth:
            out += ["", "## Growth", "", "What one event costs (or one run, where it says so) by the number of events "
                    "that are there.", "", "```text", *self.chart(), "```"]
        if self.counts:
            out += ["", "## Instructions", "", _INSTRUCTIONS, "| path | instructions an event |", "| --- | ---: |"]
            out += [f"| {path} | {count:,.0f} |" for path, (count, _) in self.counts.items()]
        if self.settings:
            out += ["", "## Settings"]
            for who, words in self.settings.items():
                out += ["", f"**{who}**", "", "```text", words.strip(), "```"]
        return "\n".join(out) + "\n"


def stored_counts(path):
    """The instruction counts of an earlier report."""
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        _, _, part = file.read().partition("\n## Instructions\n")
    rows = re.findall(r"^\| (.+?) \| ([0-9,]+) \|$", part.partition("\n## ")[0], re.MULTILINE)
    return {name: float(count.replace(",", "")) for name, count in rows}


def number(value, unit):
    """A number as people read it."""
    if unit == "/s":
        digits = max(0, len(f"{value:.0f}") - 3)
        return f"{round(value / 10**digits) * 10**digits:,.0f} /s"
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    return f"{text} {unit}".strip()


def _escape(text):
    return text.replace("|", "\\|")


_INTRODUCTION = """# Benchmarks

Written by `{command}`; not to be edited. Absolute times mean little on another machine, so nearly everything is a
ratio to something that was measured beside it: a *floor*, a C program that does only what cannot be left out
([scripts/bench/floors](../scripts/bench/floors)), or a *peer*, a program that does a like job. Tools and floors run as
copies, as an install leaves them: what a linker has just written starts more slowly.
"""

_READING = """All sides of a case run in turn (A B A B …), five rounds after one that does not count. A ratio is made within
each round. *median* is that of the rounds, *spread* how far the middle half of them lies from it, *of* what the ratio
was made of. A line is MISSED when the median is beyond it by more than the spread. `~`: others used the processors
meanwhile, again and again.
"""

_INSTRUCTIONS = """Counted by valgrind's callgrind, from runs of two lengths, so that start-up is not in it (but for a run
of a single event, which is nearly all start-up). They hardly change from run to run, so a change that costs shows here
before it shows in times; the next run says so from 2 % on. Under valgrind the processor has no SHA instructions, so
whatever is hashed counts many times what it takes in truth. They hang on compiler and libraries, too.
"""
