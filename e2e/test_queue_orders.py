"""What an operator orders for queued mail while the server runs: list, status, show with its forecast, hold, release,
reroute, bounce, drop, retry, suspend, resume; and orders that meet an attempt under way."""

import json
import socket
import threading
import unittest

from world import World, message, wait_until

#: Nobody listens there: every attempt fails for now, and the next one is far away.
DOWN = ('deliver.route=[{domain="*", host="127.0.0.1", port=1}]', "queue.retry_first_secs=600",
        "queue.retry_max_secs=600", "queue.delay_notice_secs=3600", "queue.expire_secs=86400")


#: Times in JSON are microseconds since 1970.
DAY = 86_400_000_000


class SlowServer:
    """An SMTP server that takes a message and says so only when it is let to."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.holding, self.go, self.taken = threading.Event(), threading.Event(), []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection):
        lines = connection.makefile("rb")
        connection.sendall(b"220 slow.example ESMTP\r\n")
        while line := lines.readline():
            word = line.split()[0].upper() if line.split() else b""
            if word == b"DATA":
                connection.sendall(b"354 go on\r\n")
                body = b""
                while not body.endswith(b"\r\n.\r\n"):
                    body += lines.readline()
                self.holding.set()
                self.go.wait(60)
                self.taken.append(body)
                connection.sendall(b"250 2.0.0 taken\r\n")
            elif word == b"QUIT":
                connection.sendall(b"221 bye\r\n")
                break
            else:
                connection.sendall(b"250 fine\r\n")
        connection.close()

    def close(self):
        self.go.set()
        self.listener.close()


class Orders(unittest.TestCase):
    def setUp(self):
        self.world = World()
        self.addCleanup(self.world.close)
        self.gmail, self.example = self.world.gmail, self.world.example
        self.gmail.stop()
        self.gmail.start(*DOWN)
        self.here = f"{self.example.address}:{self.example.ports['smtp']}"

    def json(self, *args):
        return json.loads(self.gmail.cli("--json", *args).stdout)

    def order(self, *args):
        """The numbers of deliveries, messages and attempts under way."""
        done = self.json("queue", *args)
        return done["errands"], done["messages"], done["attempting"]

    def submit(self, subject, *to, is_tried=True):
        """Submits, waits for the first attempt of every recipient, and answers the id. What goes where nobody
        listened a moment ago is put off without an attempt."""
        seen = {row["id"] for row in self.json("queue", "list")}
        self.gmail.submit(message(subject, to=to[0]), list(to))

        def tried():
            new = [row for row in self.json("queue", "list") if row["id"] not in seen]
            settled = new and all(e["attempts"] or e["state"] == "suspended" for e in new[0]["errands"])
            return new if settled or (new and not is_tried) else None
        return wait_until(tried, f"the first attempt of {subject}")[0]["id"]

    def states(self, id):
        return {e["to"]: e["state"] for e in self.json("queue", "show", id)["errands"]}

    def queue_is_empty(self):
        wait_until(lambda: self.json("queue", "list") == [], "an empty queue")
        self.gmail.cli("audit")

    def reports(self):
        return [m for m in self.gmail.messages() if b"multipart/report" in m]

    def test_what_is_shown(self):
        first = self.submit("first", "bob@example.com", "eve@strange.example")
        self.submit("second", "carol@example.com", is_tried=False)
        for filters, wanted in (
            ((), 2), (("--domain", "strange.example"), 1), (("--to", "carol@example.com"), 1),
            (("--from", "alice@gmail.com"), 2), (("--from", "<>"), 0), (("--from", "@example.com"), 0),
            (("--error", "REFUSED", first), 1), (("--error", "greylisted"), 0),
            (("--class", "no-connection", first), 1), (("--class", "mailbox-full"), 0),
            (("--older", "1h"), 0), (("--newer", "1h"), 2), (("--state", "held"), 0), ((first,), 1),
        ):
            self.assertEqual(len(self.json("queue", "list", *filters)), wanted, filters)
        shown = self.json("queue", "show", first)
        for errand in shown["errands"]:
            forecast = errand["forecast"]
            tries = [t["from"] for t in forecast["tries"]]
            self.assertTrue(tries)
            self.assertEqual(tries, sorted(tries))
            self.assertEqual(forecast["ends"] - shown["received"], DAY)
            self.assertGreater(forecast["delay_notice"]["from"], shown["received"])
            self.assertLess(forecast["delay_notice"]["from"], forecast["ends"])
        words = self.gmail.cli("queue", "show", first).stdout
        for text in ("while it fails, it is tried", "the sender is told of the delay", "given up and back to the sender"):
            self.assertIn(text, words)
        status = self.json("queue", "status")
        self.assertEqual((status["stats"]["messages"], status["stats"]["errands"]), (2, 3))
        self.assertEqual(status["destinations"][0]["domain"], "example.com")
        self.assertEqual([r["name"] for r in status["reasons"]], ["no-connection"])

    def test_hold_release_reroute(self):
        id = self.submit("held", "bob@example.com", "eve@strange.example")
        self.assertEqual(self.order("hold", "--domain", "example.com", "--by", "ann", "--dry-run"), (1, 1, 0))
        self.assertEqual(self.states(id)["bob@example.com"], "waiting")
        self.assertEqual(self.order("hold", "--domain", "example.com", "--by", "ann"), (1, 1, 0))
        self.assertEqual(self.states(id), {"bob@example.com": "held", "eve@strange.example": "waiting"})
        self.assertIn("held by ann", self.gmail.cli("queue", "show", id).stdout)
        # What is held stays so: through a retry, another way, and a restart.
        self.order("retry", "--all")
        self.order("reroute", "--to", "bob@example.com", "--via", self.here)
        self.gmail.stop()
        self.gmail.start(*DOWN)
        self.assertEqual(self.states(id)["bob@example.com"], "held")
        self.assertEqual(self.example.messages(), [])
        self.assertEqual(self.order("release", "--state", "held"), (1, 1, 0))
        self.example.wait_for("Subject: held")
        self.assertEqual(self.order("drop", id), (1, 1, 0))
        self.queue_is_empty()
        self.assertEqual(self.reports(), [])
        told = self.gmail.cli("trace", id).stdout
        for text in ("An order of ann: hold it until it is released", "send it to 127.0.2.1", "ropped"):
            self.assertIn(text, told)

    def test_bounce(self):
        id = self.submit("back", "bob@example.com", "carol@example.com", "eve@strange.example")
        why = "the company is closed"
        self.assertEqual(self.order("bounce", "--domain", "example.com", "--why", why), (2, 1, 0))
        self.assertEqual(self.states(id)["eve@strange.example"], "waiting")
        [report] = self.gmail.wait_for("multipart/report")
        for text in (b"bob@example.com", b"carol@example.com", why.encode(), b"Action: failed", b"Status: 5.4.7"):
            self.assertIn(text, report)
        self.assertNotIn(b"eve@strange.example", report.split(b"message/delivery-status")[1].split(b"rfc822-headers")[0])
        self.order("bounce", id)
        wait_until(lambda: len(self.reports()) == 2, "the second report")
        self.queue_is_empty()
        self.assertNotEqual(self.gmail.cli("queue", "bounce", id, check=False).returncode, 0)
        self.assertEqual(self.gmail.cli("queue", "bounce", check=False).returncode, 2, "which mail?")

    def test_suspend_and_resume(self):
        self.gmail.cli("queue", "suspend", "--domain", "example.com", "--why", "they asked us to stop")
        id = self.submit("suspended", "bob@example.com")
        self.assertEqual(self.states(id), {"bob@example.com": "suspended"})
        self.assertIn("they asked us to stop", self.gmail.cli("queue", "show", id).stdout)
        self.gmail.stop()
        self.gmail.start(*DOWN)
        self.order("reroute", "--all", "--via", self.here)
        self.order("retry", "--all")
        # Sentinel: another destination is tried meanwhile.
        self.submit("sentinel", "eve@strange.example")
        self.assertEqual(self.example.messages(), [])
        [suspension] = self.json("queue", "status")["suspensions"]
        self.assertEqual(suspension["why"], "they asked us to stop")
        self.gmail.cli("queue", "resume", "--domain", "example.com")
        self.example.wait_for("Subject: suspended")
        self.assertEqual(self.json("queue", "status")["suspensions"], [])
        self.assertNotEqual(self.gmail.cli("queue", "resume", "--domain", "example.com", check=False).returncode, 0)

    def slow(self, subject):
        """A message of which the next server holds back its last word."""
        server = SlowServer()
        self.addCleanup(server.close)
        id = self.submit(subject, "bob@example.com")
        self.order("reroute", id, "--via", f"127.0.0.1:{server.port}")
        self.assertTrue(server.holding.wait(30), "the message at the next server")
        self.assertEqual(self.states(id), {"bob@example.com": "attempting"})
        return server, id

    def test_an_attempt_under_way_is_not_sent_back_held_or_sent_twice(self):
        server, id = self.slow("busy")
        for what in (("bounce", id), ("hold", id), ("retry", id), ("reroute", id, "--via", self.here)):
            self.assertEqual(self.order(*what), (0, 0, 1), what)
        self.assertIn("passed over", self.gmail.cli("queue", "hold", id).stdout)
        server.go.set()
        self.queue_is_empty()
        self.assertEqual(len(server.taken), 1)
        self.assertEqual((self.reports(), self.example.messages()), ([], []))

    def test_what_is_dropped_during_its_attempt_does_not_come_again(self):
        server, id = self.slow("dropped")
        self.assertEqual(self.order("drop", id), (1, 1, 0))
        self.queue_is_empty()
        server.go.set()
        wait_until(lambda: server.taken, "the end of the attempt")
        self.gmail.stop()
        self.gmail.start(*DOWN)
        self.queue_is_empty()
        self.assertEqual((len(server.taken), self.reports()), (1, []))


if __name__ == "__main__":
    unittest.main()
