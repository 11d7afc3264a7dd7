"""The cases, a module for each tool. Each has CASES: functions of (bench, report) by their names; the text at the
head of a function says what is measured against what, and is what --list prints."""
