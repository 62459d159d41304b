"""Pushes one event with the `redis` package (see requirements.txt).

    python push.py                      acme, invoice.paid, a new id
    python push.py globex order.created order-17 '{"total": 9.90}'

REDIS_URL says where Redis is. Pushing an id again makes no second delivery.
"""

import json
import os
import sys
import uuid

import redis

DEFAULTS = [
    "acme",
    "invoice.paid",
    f"evt_{uuid.uuid4().hex}",
    json.dumps({"invoice": "inv_1", "total": 12.5, "region": "us", "email": "a@example.com"}),
]


def main() -> None:
    given = sys.argv[1:5]
    tenant, event_type, event_id, payload = given + DEFAULTS[len(given) :]
    client = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"))
    entry = client.xadd(
        "wasmhook:events",
        {"tenant": tenant, "type": event_type, "id": event_id, "payload": payload},
    )
    print(f"pushed {event_id} as {entry.decode()}")


if __name__ == "__main__":
    main()
