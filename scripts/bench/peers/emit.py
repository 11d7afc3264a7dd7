"""The script that one would write instead of milestone-emit: validates an event, appends it, keeps a log of it.

usage: emit.py FOLDER EVENT_FILE
"""
import fcntl
import json
import os
import sys

import jsonschema

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))


def append(folder, name, record):
    with open(os.path.join(folder, name), "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(record, separators=(",", ":")) + "\n")
        file.flush()
        os.fdatasync(file.fileno())


folder, event_file = sys.argv[1:]
with open(os.path.join(ROOT, "schemas/milestone-event.v1.json")) as schema, open(event_file) as event:
    schema, event = json.load(schema), json.load(event)
jsonschema.Draft202012Validator(schema).validate(event)
append(folder, "milestones.jsonl", event)
append(folder, "audit.jsonl", {"action": "emit", "outcome": "appended", "id": event["milestoneId"]})
