"""The other end of the wire: a client that signs and posts milestones as any emitter would.

The idea: a receiver's promise is its answer. The client writes down each answer that says `ok`, byte for byte,
into the same file that holds what a tool printed, so one judge serves both.

Invariants
- Every attempt of a key has the same body.
- A request that was refused for now is tried once more, then left; a receiver that died is left at once.
"""
import hashlib
import hmac
import http.client
import json
import os
import signal
import threading
import time

from invariants import canonical

SECRET = "the secret of the torture"
_SENT_AT = "2026-03-01T09:06:00.000Z"
_PATIENCE_S = 10


def address_in(file):
    """The address that a receiver said it listens at, once it has."""
    with open(file, "rb") as opened:
        for line in opened.read().split(b"\n")[:-1]:
            if b'"listening"' in line:
                return json.loads(line)["address"].removeprefix("http://")
    return None


def post(address, event):
    """Signs and posts a milestone; status and body of the answer."""
    body = canonical({"idempotencyKey": f"milestone:{event['milestoneId']}", "sentAtUtc": _SENT_AT, "event": event}).encode()
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    headers = {
        "content-type": "application/json", "x-openclaw-timestamp": now, "connection": "close",
        "x-openclaw-signature": hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}
    connection = http.client.HTTPConnection(address, timeout=_PATIENCE_S)
    try:
        connection.request("POST", "/internal/milestones/ingest", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as cause:
        raise OSError(f"broken answer: {cause!r}") from None
    finally:
        connection.close()


class Client:
    """Posts `events` to the receiver whose output goes to the file `acks`, notes the answers there, and asks it to end."""

    def __init__(self, acks, events):
        self.acks, self.events = acks, events
        self.is_over, self.thread = threading.Event(), None

    def start(self, pid):
        self.thread = threading.Thread(target=self._work, args=(pid,))
        self.thread.start()

    def stop(self):
        """The receiver has ended."""
        self.is_over.set()
        self.thread.join()

    def _work(self, pid):
        # A receiver that could not say where it listens is asked to end.
        address, until = None, time.monotonic() + _PATIENCE_S / 2
        while not address and time.monotonic() < until:
            if self.is_over.wait(0.002):
                return
            address = address_in(self.acks)
        try:
            with open(self.acks, "ab", buffering=0) as acks:
                for event in self.events if address else ():
                    for _ in range(2):
                        status, body = post(address, event)
                        if status == 200:
                            acks.write(body + b"\n")
                        if status != 503:
                            break
        except OSError:
            pass
        if not self.is_over.is_set():
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
