"""`posthaste route` and `posthaste probe` against servers that are good, dead, or fail at STARTTLS; routes that
change where mail goes while the server runs; and mail by LMTP to another server's listener and socket."""

import json
import unittest

from by_hand import ByHand
from world import World, free_port, message, wait_until


class Routes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.world = World()
        cls.gmail, cls.example = cls.world.gmail, cls.world.example
        cls.lmtp_port = free_port("127.0.2.1")
        cls.socket = cls.example.folder / "lmtp"
        cls.example.stop()
        cls.example.start(f'listen.lmtp=["127.0.2.1:{cls.lmtp_port}"]', f'sockets.lmtp=["{cls.socket}"]')

    @classmethod
    def tearDownClass(cls):
        cls.world.close()

    def ask(self, *args, code=0):
        """A command of gmail.com's server that answers JSON."""
        done = self.gmail.cli("--json", *args, check=False)
        self.assertEqual(done.returncode, code, (args, done.stdout, done.stderr))
        return json.loads(done.stdout)

    def route(self, domain, *how):
        self.gmail.cli("route", "add", domain, *how)
        self.addCleanup(self.gmail.cli, "route", "remove", domain, check=False)

    def journey(self, what):
        return self.gmail.cli("trace", what).stdout

    # --- what is told ---

    def test_the_decision_is_told_with_the_level_of_each_server(self):
        told = self.ask("route", "alice@gmail.com", "bob@example.com")
        server = told["way"]["servers"][0]
        self.assertEqual((server["addresses"][0]["ip"], server["addresses"][0]["port"]),
                         ("127.0.2.1", self.example.ports["smtp"]))
        self.assertEqual(server["level"], "opportunistic")
        self.assertIn("no DANE", server["tls"])
        self.assertEqual((told["here"], told["held_up"]), (None, []))
        words = self.gmail.cli("route", "alice@gmail.com", "bob@example.com").stdout
        self.assertIn("TLS: TLS when offered; no DANE", words)
        self.assertIsNotNone(self.ask("route", "bob@example.com", "alice@gmail.com")["here"])

    def test_what_would_wait_says_so(self):
        for what, name in ((("--domain", "example.com"), "mail to example.com"),
                           (("--from", "@gmail.com"), "mail from @gmail.com")):
            self.gmail.cli("queue", "suspend", *what, "--why", "they move house")
            told = self.ask("route", "alice@gmail.com", "bob@example.com", code=1)["held_up"][0]
            self.assertEqual(told["what"], "wait")
            self.assertTrue(told["why"].startswith(f"{name} is suspended by"), told)
            self.assertIn("they move house", told["why"])
            self.assertEqual(told["remedy"], f"posthaste queue resume {' '.join(what)}")
            self.gmail.cli("queue", "resume", *what)
        self.ask("route", "alice@gmail.com", "bob@example.com")

    # --- where it fails ---

    def test_a_good_recipient_is_taken_and_nothing_is_sent(self):
        before = len(self.example.messages())
        told = self.ask("probe", "bob@example.com", "--from", "alice@gmail.com")
        self.assertTrue(told["taken"].startswith("250 "), told)
        steps = [step["what"] for step in told["walks"][0]["steps"]]
        self.assertEqual(steps, ["connect", "greeting", "EHLO", "STARTTLS", "TLS handshake", "EHLO", "MAIL FROM",
                                 "RCPT TO", "RSET", "QUIT"])
        self.assertTrue(all(step["good"] for step in told["walks"][0]["steps"]), told)
        self.assertIsNotNone(told["walks"][0]["tls"])
        self.assertEqual(len(self.example.messages()), before)

    def test_an_unknown_recipient_fails_at_rcpt(self):
        told = self.ask("probe", "nobody@example.com", "--from", "alice@gmail.com", code=1)
        bad = [step["what"] for step in told["walks"][0]["steps"] if not step["good"]]
        self.assertEqual((bad, told["failure"]["code"]), (["RCPT TO"], 550))
        self.assertTrue(told["failure"]["remedy"])

    def test_a_dead_server_fails_at_connect(self):
        self.route("dead.example", "--host", f"127.0.2.1:{free_port('127.0.2.1')}")
        told = self.ask("probe", "bob@dead.example", code=1)
        self.assertEqual([step["what"] for step in told["walks"][0]["steps"]], ["connect"])
        self.assertIn("connection refused", told["failure"]["said"])
        self.assertEqual(told["failure"]["status"], "4.4.1")

    def test_a_starttls_that_fails(self):
        server = ByHand("127.0.3.1", breaks_tls=True)
        self.addCleanup(server.close)
        self.route("tls.example", "--host", f"127.0.3.1:{server.port}")
        told = self.ask("probe", "bob@tls.example")
        first, second = told["walks"]
        self.assertEqual([s["what"] for s in first["steps"] if not s["good"]], ["TLS handshake"])
        self.assertEqual(second["steps"][0]["what"], "connect again, without TLS")
        self.route("tls.example", "--host", f"127.0.3.1:{server.port}", "--tls", "encrypted")
        told = self.ask("probe", "bob@tls.example", code=1)
        self.assertEqual((len(told["walks"]), told["failure"]["status"]), (1, "4.7.5"))

    # --- routes in a running server ---

    def test_a_route_changes_where_mail_goes_at_once(self):
        server = ByHand("127.0.3.1")
        self.addCleanup(server.close)
        self.route("example.com", "--host", f"127.0.3.1:{server.port}")
        self.gmail.submit(message("the other way"), ["bob@example.com"])
        wait_until(lambda: server.messages, "the message at the route's server")
        self.assertIn(b"Subject: the other way", server.messages[0])
        self.gmail.cli("route", "remove", "example.com")
        self.gmail.submit(message("the old way"), ["bob@example.com"])
        self.example.wait_for("Subject: the old way")
        self.assertEqual(len(server.messages), 1)

    def test_mail_goes_by_lmtp(self):
        for place in (f"127.0.2.1:{self.lmtp_port}", str(self.socket)):
            self.route("example.com", "--lmtp", place)
            told = self.ask("route", "alice@gmail.com", "bob@example.com")
            self.assertTrue(told["way"]["by"].endswith("by LMTP"), told)
            walk = self.ask("probe", "bob@example.com")["walks"][0]
            self.assertIn("LHLO", [step["what"] for step in walk["steps"]])
            subject = f"by lmtp at {place}"
            self.gmail.submit(message(subject), ["bob@example.com", "nobody@example.com"])
            got = self.example.wait_for(f"Subject: {subject}")[0]
            self.assertIn(b"with LMTP" if place.startswith("/") else b"with LMTPS", got)
            self.gmail.wait_for(subject)  # within the report about nobody
            journey = self.journey("bob@example.com")
            self.assertIn("by LMTP", journey)
            server = f"{place} was attempted" if place.startswith("/") else f"port {self.lmtp_port} was attempted"
            self.assertIn(server, journey)
            self.gmail.cli("route", "remove", "example.com")


if __name__ == "__main__":
    unittest.main()
