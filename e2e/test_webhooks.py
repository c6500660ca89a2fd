"""Webhooks (docs/WEBHOOKS.md) as a receiver in Python sees them: the signature over the very body, the order of what
happens to a message, the same events again after a 500, and nothing lost when the server is stopped or killed."""

import hmac
import http.server
import json
import pathlib
import signal
import tempfile
import threading
import time
import unittest

from world import MailServer, World, free_port, message, wait_until

SECRET = "6b1f0c5a9d3e47728bb0a6c2d4e8f1359c7a2b4d6e8f0a1c3b5d7f9e1a2c4b6d"


def is_genuine(secret, header, body):
    """As docs/WEBHOOKS.md has it."""
    parts = dict(part.split("=", 1) for part in header.split(","))
    stamp = parts["t"]
    if abs(time.time() - int(stamp)) > 300:
        return False
    wanted = hmac.new(secret.encode(), stamp.encode() + b"." + body, "sha256").hexdigest()
    return hmac.compare_digest(wanted, parts["v1"])


class Receiver:
    """Answers what it is told to, 200 otherwise, and keeps the events that it took; what is not signed is refused."""

    def __init__(self, port=0):
        self.answers, self.taken, self.refused, self.forged = [], [], [], 0
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                events = json.loads(body)["events"]
                if not is_genuine(SECRET, self.headers["Posthaste-Signature"], body):
                    receiver.forged += 1
                status = receiver.answers.pop(0) if receiver.answers else 200
                (receiver.taken if status == 200 else receiver.refused).extend(events)
                receiver.last = self.path, self.headers, body
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def of(self, message_id):
        """What happened to a message, in the order in which it was told."""
        return [event for event in self.taken if event.get("message_id") == message_id]


def mail(name, to):
    return f"Message-ID: <{name}@gmail.com>\r\n" + message(name, to=to)


class Webhooks(unittest.TestCase):
    def setUp(self):
        self.world = World()
        self.addCleanup(self.world.close)
        self.gmail, self.example = self.world.gmail, self.world.example
        self.receiver = Receiver()
        self.addCleanup(lambda: self.receiver.close())
        (self.gmail.folder / "hook.secret").write_text(SECRET + "\n")
        with self.gmail.config.open("a") as config:
            config.write(
                f'\n[[webhook]]\nname = "crm"\nurl = "http://127.0.0.1:{self.receiver.port}/events?a=b"\n'
                f'secret_file = "{self.gmail.folder}/hook.secret"\n'
            )
        self.gmail.stop()
        self.gmail.start()

    def submit(self, name, to="bob@example.com"):
        self.gmail.submit(mail(name, to), [to])

    def wait_for(self, name, *kinds):
        def told():
            events = self.receiver.of(f"{name}@gmail.com")
            return events if set(kinds) <= {e["event"] for e in events} else None
        return wait_until(told, f"{kinds} of {name}, have {[e['event'] for e in self.receiver.taken]}")

    def listed(self):
        [row] = json.loads(self.gmail.cli("--json", "webhook", "list").stdout)
        return row

    def test_what_is_told_is_signed_whole_and_in_order(self):
        self.submit("relayed")
        events = self.wait_for("relayed", "relayed")
        self.assertEqual([e["event"] for e in events], ["received", "relayed"])
        first, last = events
        self.assertEqual((first["from"], first["recipients"], first["login"]),
                         ("alice@gmail.com", ["bob@example.com"], "alice@gmail.com"))
        self.assertEqual((last["recipient"], last["reply"]["code"], last["reply"]["status"]),
                         ("bob@example.com", 250, "2.0.0"))
        self.submit("bounced", "nobody@example.com")
        events = self.wait_for("bounced", "bounced")
        self.assertEqual([e["event"] for e in events], ["received", "bounced"])
        self.assertEqual((events[1]["reply"]["code"], events[1]["reply"]["status"]), (550, "5.1.1"))
        self.assertTrue(events[1]["remedy"])
        ids = [e["id"] for e in self.receiver.taken]
        self.assertEqual(len(ids), len(set(ids)))
        path, headers, _ = self.receiver.last
        self.assertEqual((path, headers["Posthaste-Webhook"], headers["Content-Type"]),
                         ("/events?a=b", "crm", "application/json"))
        self.assertEqual(self.receiver.forged, 0)
        self.gmail.cli("webhook", "test", "crm")
        self.assertEqual(self.receiver.taken[-1]["event"], "test")
        self.assertEqual(self.receiver.forged, 0)

    def test_a_changed_body_is_not_genuine(self):
        self.submit("checked")
        self.wait_for("checked", "relayed")
        _, headers, body = self.receiver.last
        signature = headers["Posthaste-Signature"]
        self.assertTrue(is_genuine(SECRET, signature, body))
        self.assertFalse(is_genuine(SECRET, signature, body + b" "))
        self.assertFalse(is_genuine(SECRET + "x", signature, body))
        stamp, tag = signature.split(",")
        older = f"t={int(stamp[2:]) - 1},{tag}"
        self.assertFalse(is_genuine(SECRET, older, body), "the time is signed too")

    def test_after_a_500_the_same_events_come_again_in_their_order(self):
        # Deferred first: nobody listens for strange.example.
        self.receiver.answers = [500, 500]
        self.submit("again")
        wait_until(lambda: self.receiver.refused, "a request")
        wait_until(lambda: self.listed()["standing"]["failures"], "the failure in the list")
        self.submit("behind")
        self.example.wait_for("Subject: behind")
        self.gmail.cli("webhook", "retry", "crm")
        wait_until(lambda: not self.receiver.answers, "the second 500")
        self.gmail.cli("webhook", "retry", "crm")
        self.wait_for("behind", "relayed")
        for name in ("again", "behind"):
            events = [e["event"] for e in self.receiver.of(f"{name}@gmail.com")]
            self.assertEqual(events, ["received", "relayed"])
        first = [e["id"] for e in self.receiver.refused[:1]]
        self.assertEqual([e["id"] for e in self.receiver.taken[:1]], first, "the same id")
        wait_until(lambda: self.listed()["waiting"] == 0, "an empty outbox")
        row = self.listed()
        self.assertEqual((row["told"], row["thrown_away"]), (len(self.receiver.taken), 0))

    def test_nothing_is_lost_when_the_server_restarts_in_between(self):
        port = self.receiver.port
        self.receiver.close()
        names = []
        for how in (signal.SIGTERM, signal.SIGKILL):
            for n in range(5):
                names.append(f"kept-{how.value}-{n}")
                self.submit(names[-1])
            self.example.wait_for(f"Subject: kept-{how.value}", count=5)
            wait_until(lambda: "queue is empty" in self.gmail.cli("queue", "list").stdout, "an empty queue")
            self.gmail.stop(how)
            self.gmail.start()
        self.assertGreaterEqual(self.listed()["waiting"], 20)
        self.receiver = Receiver(port)
        self.gmail.cli("webhook", "retry", "crm")
        for name in names:
            events = self.wait_for(name, "relayed")
            self.assertEqual([e["event"] for e in events], ["received", "relayed"], name)
        self.assertEqual(self.receiver.forged, 0)
        self.assertEqual(self.listed()["thrown_away"], 0)


class Settings(unittest.TestCase):
    def test_a_webhook_without_tls_goes_to_this_machine_only(self):
        with tempfile.TemporaryDirectory(prefix="posthaste-e2e-") as temporary:
            folder = pathlib.Path(temporary)
            server = MailServer(folder, "example.com", "127.0.0.1", free_port("127.0.0.1"), "bob@example.com")
            (folder / "s").write_text(SECRET)
            with server.config.open("a") as config:
                config.write(f'\n[[webhook]]\nname="x"\nurl="http://192.0.2.1/"\nsecret_file="{folder}/s"\n')
            checked = server.cli("check", check=False)
            self.assertEqual(checked.returncode, 3, checked.stderr)
            self.assertIn("https://", checked.stderr)
            self.assertNotIn(SECRET, checked.stderr + checked.stdout)


if __name__ == "__main__":
    unittest.main()
