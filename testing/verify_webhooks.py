"""Reads requests as JSON lines {"secret", "headers", "body": base64} and says of each whether its signature is good.

By `standardwebhooks`, the reference library: an opinion on our signatures that shares nothing with our code.
Run by a test; scripts/test puts the library where the test finds it.
"""
import base64
import json
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

for line in sys.stdin:
    sample = json.loads(line)
    secret = sample["secret"]
    # Text without the prefix is the key itself, not base64 of it.
    webhook = Webhook(secret if secret.startswith("whsec_") else secret.encode())
    try:
        webhook.verify(base64.b64decode(sample["body"]), sample["headers"])
        print("good")
    except WebhookVerificationError:
        print("bad")
