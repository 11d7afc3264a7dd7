"""The other end of the wire: a client that posts to the receiver, an endpoint that the deliverer posts to.

The idea: a promise over HTTP is an answer that says `ok`. Client and endpoint write each of them down, byte for
byte, into the same file that holds what a tool printed, so one judge serves all. An endpoint's receipt is the
hash of the body that it took.

Invariants
- Every attempt of a key has the same body; the endpoint says when a deliverer breaks that, or signs wrongly.
- A request that was refused for now is tried once more, then left; a receiver that died is left at once.
"""
import hashlib
import hmac
import http.client
import http.server
import json
import os
import signal
import sys
import threading
import time

from invariants import canonical

SECRET = "the secret of the torture"
_SENT_AT = "2026-03-01T09:06:00.000Z"
_PATIENCE_S = 60


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


class _Server(http.server.ThreadingHTTPServer):
    """Says nothing of a peer that was killed in the middle of a request: that is what is tried."""

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


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


class Endpoint:
    """Takes every event but those in `refused`, whose keys are never taken; `known` has what it took before."""

    def __init__(self, acks, known, refused):
        self.acks, self.received, self.refused, self.wrong = acks, dict(known), refused, []
        # In which step each key came first, from 1; 0 where there are no steps.
        self.step, self.steps = 0, {}
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                status, answer = endpoint.take(self.rfile.read(int(self.headers["content-length"])), self.headers)
                body = json.dumps(answer, separators=(",", ":")).encode()
                # In one piece, so that it is received in one.
                self.wfile.write(b"HTTP/1.1 %d x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                                 % (status, len(body), body))

            def log_message(self, *_):
                pass

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.address = "127.0.0.1:%d" % self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def start(self, _pid):
        """It runs already; another step begins."""
        self.step += 1

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def take(self, body, headers):
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        if headers["x-openclaw-signature"] != signature:
            self.wrong.append("a request is signed wrongly")
            return 401, {"ok": False, "status": "rejected", "reason": "signature"}
        item = json.loads(body)
        key, head = item["idempotencyKey"], hashlib.sha256(body).hexdigest()
        self.steps.setdefault(key, self.step)
        if key in self.refused:
            return 400, {"ok": False, "status": "rejected", "reason": "not here"}
        if self.received.get(key, head) != head:
            self.wrong.append(f"{key} came again with another body")
        status = "duplicate" if key in self.received else "accepted"
        self.received[key] = head
        identity = item["event"]["milestoneId"]
        answer = {"ok": True, "status": status, "milestoneId": identity, "receipt": {"seq": 1, "head": head}}
        with open(self.acks, "ab") as acks:
            acks.write(json.dumps(answer, separators=(",", ":")).encode() + b"\n")
        return 200, answer
