"""A few rounds of kill -9 under load (the long form: `python3 e2e/kill9.py --rounds 200`), and proof
that the account book would notice."""

import pathlib
import tempfile
import unittest

import kill9
from ledger import GONE, INBOX, KEPT, Ledger

TEXT = b"Subject: t\r\nX-Token: t\r\n\r\nbody\r\n"
A, B = "a@alpha.example", "b@alpha.example"


class Kill9(unittest.TestCase):
    def test_what_was_promised_under_load_survives_kill_9(self):
        with tempfile.TemporaryDirectory(prefix="posthaste-e2e-") as folder:
            summary, wrong = kill9.run(pathlib.Path(folder), rounds=5, seed=1)
            self.assertEqual(wrong, [], "\n".join(kill9.words(summary)))
            self.assertGreater(summary["acknowledged"], 20)
            self.assertGreater(summary["counts"]["removed by IMAP"], 0)

    def test_cut_connections_to_the_next_server_lose_nothing(self):
        with tempfile.TemporaryDirectory(prefix="posthaste-e2e-") as folder:
            summary, wrong = kill9.run(pathlib.Path(folder), rounds=4, seed=2, cut=60)
            self.assertEqual(wrong, [], "\n".join(kill9.words(summary)))
            self.assertGreater(sum(summary["cuts"].values()), 0)
            self.assertGreater(summary["counts"]["remote arrived"], 0)


class TheAccountBook(unittest.TestCase):
    """Each way of breaking a promise is noticed."""

    def setUp(self):
        self.ledger = Ledger()
        self.message = self.ledger.offer("t", TEXT, [A, B], ["r@beta.example"])
        self.ledger.ends(self.message)

    def settle(self, a, b=None, open_too=True):
        """a, b: what is found in each INBOX, uid -> flags."""
        for account, there in ((A, a), (B, a if b is None else b)):
            self.ledger.settle(account, {INBOX: {u: ("t", frozenset(f)) for u, f in there.items()}, KEPT: {}})
        if open_too:
            self.ledger.settle_open()
        return [text.split(":")[0] for text in self.ledger.wrong]

    def kept(self):
        self.ledger.answered(self.message, 250, "250 2.0.0 OK")

    def test_what_is_right(self):
        self.kept()
        self.assertEqual(self.settle({1: ()}), [])
        self.assertEqual(self.settle({1: ()}), [])

    def test_open_is_all_or_nothing(self):
        self.assertEqual(self.settle({}), [])
        self.assertEqual(self.message.state, "not taken")

    def test_half_is_noticed(self):
        self.assertEqual(self.settle({1: ()}, {}), ["half visible"])

    def test_lost_is_noticed(self):
        self.kept()
        self.assertEqual(self.settle({1: ()}, {}), ["lost"])

    def test_twice_is_noticed(self):
        self.kept()
        self.assertEqual(self.settle({1: (), 2: ()}, {1: ()}), ["duplicated"])

    def test_refused_but_there_is_noticed(self):
        self.ledger.answered(self.message, 452, "452 4.3.1 full")
        self.assertEqual(self.settle({1: ()}, {}), ["came back"])

    def test_what_was_removed_and_comes_back_is_noticed(self):
        self.kept()
        self.ledger.by_account[A]["t"].places = {GONE}
        self.assertEqual(self.settle({1: ()}, {1: ()}), ["came back"])

    def test_a_lost_flag_and_a_changed_uid_are_noticed(self):
        self.kept()
        self.settle({1: ("\\Seen",)}, {1: ()})
        self.ledger.wrong.clear()
        self.assertEqual(self.settle({1: ()}, {2: ()}), ["flags lost", "uid changed"])

    def test_other_octets_are_noticed(self):
        self.assertEqual(self.ledger.whole("here", b"Received: x\r\n" + TEXT), "t")
        self.assertEqual(self.ledger.wrong, [])
        for octets in (TEXT[:-3], TEXT.replace(b"body", b"bodx"), b"Received: x\r\n\r\n" + TEXT, b"X-Token: u\r\n\r\n"):
            self.ledger.whole("here", octets)
        self.assertEqual(len(self.ledger.wrong), 4)

    def test_lost_on_the_way_is_noticed_and_duplicates_are_counted(self):
        self.kept()
        self.ledger.settle_remote({"r@beta.example": ["t", "t"]})
        self.assertEqual(self.ledger.wrong, [])
        self.assertEqual(self.ledger.counts["remote duplicates (RFC 1047)"], 1)
        self.ledger.settle_remote({"r@beta.example": []})
        self.assertEqual([text.split(":")[0] for text in self.ledger.wrong], ["lost on the way"])


if __name__ == "__main__":
    unittest.main()
