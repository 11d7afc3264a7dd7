"""Signs what schemathesis sends, whatever it is: only so do its bodies get past the signature."""

import base64
import hashlib
import hmac
import os
import time

import requests
import schemathesis


class Signed(requests.auth.AuthBase):
    """Standard Webhooks 1.0 over the bytes as they go out."""

    def __call__(self, request):
        body = request.body or b""
        body = body.encode() if isinstance(body, str) else body
        if isinstance(body, bytes):
            name, seconds = "msg_schemathesis", str(int(time.time()))
            signed = b".".join([name.encode(), seconds.encode(), body])
            mac = hmac.new(os.environ["SECRET"].encode(), signed, hashlib.sha256).digest()
            request.headers.pop("x-openclaw-signature", None)
            request.headers.pop("x-openclaw-timestamp", None)
            request.headers.update({
                "webhook-id": name,
                "webhook-timestamp": seconds,
                "webhook-signature": "v1," + base64.b64encode(mac).decode(),
            })
        return request


schemathesis.auth.set_from_requests(Signed())
