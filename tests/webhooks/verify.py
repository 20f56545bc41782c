"""Verifies a delivery with the package `standardwebhooks`: verify.py <file with secret, headers and body as JSON>."""

import json
import sys

from standardwebhooks.webhooks import Webhook

with open(sys.argv[1], encoding="utf-8") as file:
    delivery = json.load(file)
print(json.dumps(Webhook(delivery["secret"]).verify(delivery["body"], delivery["headers"])))
