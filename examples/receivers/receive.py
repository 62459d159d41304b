"""Receives deliveries and verifies each with the `standardwebhooks` package (see requirements.txt).

    python receive.py                                       port 9000, the secret of acme
    python receive.py --port 9001 --secret ../secrets/globex/main

--secret takes a file or the secret itself; so does WEBHOOK_SECRET. PORT works like --port.
"""

import argparse
import os
import pathlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

SAMPLE = pathlib.Path(__file__).parent.parent / "secrets" / "acme" / "main"


def receiver(webhook: Webhook) -> type[BaseHTTPRequestHandler]:
    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            # The signature is over these very bytes: verify first, parse afterwards.
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            try:
                payload = webhook.verify(body, {k.lower(): v for k, v in self.headers.items()})
            except (WebhookVerificationError, ValueError) as error:
                print(f"refused: {error}", flush=True)
                self.answer(400)
                return
            # The same delivery may arrive twice; its id is the same then.
            print(f"verified {self.headers['webhook-id']} on {self.path}: {payload}", flush=True)
            self.answer(204)

        def answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Receiver


def main() -> None:
    arguments = argparse.ArgumentParser(description="Receives and verifies webhooks.")
    arguments.add_argument("--port", type=int, default=int(os.environ.get("PORT", "9000")))
    arguments.add_argument("--secret", default=os.environ.get("WEBHOOK_SECRET", str(SAMPLE)))
    given = arguments.parse_args()
    is_secret = given.secret.startswith("whsec_")
    secret = given.secret if is_secret else pathlib.Path(given.secret).read_text().strip()
    server = ThreadingHTTPServer(("127.0.0.1", given.port), receiver(Webhook(secret)))
    print(f"receiving on http://127.0.0.1:{given.port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
