"""The sender that one would write in Python: posts each line of a file, signed, on one kept connection.

usage: requests_sender.py URL SECRET FILE COUNT
"""
import hashlib
import hmac
import itertools
import sys
import time

import requests

url, secret, path, count = sys.argv[1:]
session = requests.Session()
with open(path, "rb") as lines:
    for line in itertools.islice(lines, int(count)):
        body = line.rstrip(b"\n")
        answer = session.post(url, data=body, headers={
            "content-type": "application/json",
            "x-openclaw-timestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()),
            "x-openclaw-signature": hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()})
        if not answer.json()["ok"]:
            sys.exit(f"refused: {answer.text}")
