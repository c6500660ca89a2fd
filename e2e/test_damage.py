"""Octets that change on the disk by themselves: found, named, contained. Never served as mail, never
passed over in silence, never the end of everything else."""

import copy
import os
import pathlib
import random
import re
import signal
import tempfile
import unittest

from load import Gone
from one import PERSON, One

MESSAGES = 12
#: How many bits of the index are flipped, each for itself, and which.
FLIPS_IN_INDEX = int(os.environ.get("POSTHASTE_E2E_FLIPS", "12"))
SEED = int(os.environ.get("POSTHASTE_E2E_SEED", "1"))
#: A start that is refused ends with this; the sentence says what is damaged and what to do.
CANNOT_USE_STORE = 4


def segments(one):
    return sorted((one.store / "log").glob("*.log"))


def flip(path, offset, bit=0):
    with open(path, "r+b") as file:
        file.seek(offset)
        (octet,) = file.read(1)
        file.seek(offset)
        file.write(bytes([octet ^ (1 << bit)]))


def find(one, octets):
    """Where these octets lie in the store: file and offset."""
    for path in [*segments(one), *sorted((one.store / "large").iterdir())]:
        at = path.read_bytes().find(octets)
        if at >= 0:
            return path, at
    raise AssertionError(f"{octets!r} is nowhere in the store")


class Damaged(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="posthaste-e2e-")
        folder = pathlib.Path(self.temporary.name)
        (folder / "server").mkdir()
        self.one = One(folder / "server", folder / "log")

    def tearDown(self):
        self.one.stop(signal.SIGKILL)
        self.temporary.cleanup()

    def fill(self, sizes=(3_000,) * MESSAGES):
        for size in sizes:
            self.assertTrue(self.one.send(size)[1].startswith("250"))
        self.one.learn()
        return list(self.one.ledger.messages)

    def damage_body(self, token, deep):
        """Flips one bit of a stored message, `deep` octets behind its token."""
        path, at = find(self.one, f"X-Token: {token}\r\n".encode())
        flip(path, at + deep)
        return path

    def told(self, words):
        """What was logged since the damage was done, with these words in it."""
        said = self.one.said()[self.before:]
        return [line for line in said.splitlines() if re.search(words, line)]

    def no_panic(self):
        """The index's engine panics where damage belies its pages; that is caught, and told. Nothing
        else may."""
        self.assertEqual([line for line in self.told("panicked at") if "/redb-" not in line], [])

    def damaged_message(self, token, path, deep):
        one = self.one
        self.assertEqual(one.check([token]), [])  # NO for this one, all others whole
        uid = next(u for u, t in one.ledger.known[PERSON, "INBOX"].items() if t == token)
        count = len(one.ledger.by_account[PERSON])
        with one.imap() as imap:
            imap.select("INBOX")
            end, lines = imap.ask("UID FETCH 1:* (UID BODY.PEEK[])")
            self.assertTrue(end.startswith(b"NO"), end)
            self.assertEqual(sum(1 for _, literals in lines if literals), count - 1)
            self.assertTrue(imap.ask(f"UID FETCH {uid} (UID FLAGS)")[0].startswith(b"OK"))
        with one.pop3() as pop3:
            for number in range(1, count + 1):
                try:
                    octets = pop3.text(f"RETR {number}")
                    self.assertIsNotNone(one.ledger.whole("POP3", octets))
                    self.assertNotIn(f"X-Token: {token}\r\n".encode(), octets)
                except Gone as why:
                    self.assertIn("-ERR", str(why))
                    self.assertEqual(number, sorted(one.ledger.known[PERSON, "INBOX"]).index(uid) + 1)
        self.assertEqual(one.ledger.wrong, [])
        blob = path.stem if path.parent.name == "large" else "[0-9a-f]{32}"
        self.assertTrue(self.told(f"blob {blob} is damaged"), "the log does not name the blob")
        self.audit_names(self.told(f"blob {blob} is damaged")[-1])
        one.remove_by_imap([uid])  # and it can be got rid of
        self.assertEqual(one.check(), [])
        self.no_panic()

    def audit_names(self, line):
        """`posthaste audit --deep`, where there is one, finds the same blob and says no."""
        if self.one.server.cli("audit", "--help", check=False).returncode != 0:
            return
        blob = re.search("blob ([0-9a-f]{32}) is damaged", line)[1]
        done = self.one.server.cli("audit", "--deep", check=False)
        self.assertNotEqual(done.returncode, 0, done.stdout)
        self.assertIn(blob, done.stdout + done.stderr)

    def test_a_flipped_bit_in_a_message_in_the_log(self):
        tokens = self.fill()
        self.one.stop()
        self.before = len(self.one.said())
        path = self.damage_body(tokens[4], 400)
        self.one.start()
        self.damaged_message(tokens[4], path, 400)

    def test_a_flipped_bit_in_a_large_message(self):
        tokens = self.fill([3_000, 1_500_000, 3_000])
        self.one.stop()
        self.before = len(self.one.said())
        path = self.damage_body(tokens[1], 400)
        self.assertEqual(path.parent.name, "large")
        self.one.start()
        self.damaged_message(tokens[1], path, 400)

    # --- the log ---

    def test_damage_in_the_log_that_the_index_has_not_followed_is_refused_or_told(self):
        """Killed with a tail that the index may lag behind; one bit of each part of it is flipped."""
        tokens = self.fill()
        rng = random.Random(7)
        self.one.stop(signal.SIGKILL)
        newest = segments(self.one)[-1]
        whole = newest.read_bytes()
        end = len(whole.rstrip(b"\0"))
        first = whole.find(f"X-Token: {tokens[0]}\r\n".encode())
        last = whole.rfind(b"PHGROUP", 0, end)
        saved = self.snapshot()
        for offset in [rng.randrange(first, last) for _ in range(12)]:
            self.before = len(self.one.said())
            flip(newest, offset, rng.randrange(8))
            if "--skip-damage" in self.sane(f"{newest.name} at {offset}"):
                self.skips_damage(f"{newest.name} at {offset}")
            self.restore(saved)

    def skips_damage(self, what):
        """The operator has no backup and goes on without what was damaged: it is named, and no more
        than that is missing."""
        self.one.start("--skip-damage")
        wrong = self.one.check()
        self.assertTrue(self.told("ERROR.*the store is damaged: log/[0-9a-f]{16}.log at offset [0-9]+"), what)
        self.assertEqual({text.split(":")[0] for text in wrong} - {"lost", "unreadable"}, set(), f"{what}: {wrong}")
        self.assertLess(len(wrong), MESSAGES, what)

    def test_a_truncated_segment_is_told(self):
        tokens = self.fill()
        self.one.stop()
        newest = segments(self.one)[-1]
        at = newest.read_bytes().find(f"X-Token: {tokens[6]}\r\n".encode())
        self.before = len(self.one.said())
        with open(newest, "r+b") as file:
            file.truncate(at)
        self.sane(f"{newest.name} cut at {at}")

    def test_a_missing_segment_is_told(self):
        self.fill()
        self.one.stop()
        self.before = len(self.one.said())
        segments(self.one)[-1].unlink()
        self.sane("a segment removed")

    # --- the index ---

    def test_flipped_bits_in_the_index(self):
        self.fill()
        self.one.stop()
        saved = self.snapshot()
        index = self.one.store / "index.redb"
        # Pages that are in use: where something stands.
        octets = index.read_bytes()
        used = [at for at in range(0, len(octets), 64) if any(octets[at:at + 64])]
        rng = random.Random(SEED)
        for at in rng.sample(used, min(FLIPS_IN_INDEX, len(used))):
            self.before = len(self.one.said())
            place = at + rng.randrange(64)
            flip(index, place, rng.randrange(8))
            if self.sane(f"index.redb at {place}"):
                self.is_made_again(index, f"index.redb at {place}")
            self.restore(saved)

    def is_made_again(self, index, what):
        """What the refusal advises: without its index the store makes one from the log."""
        index.rename(index.with_name("index.damaged"))
        self.one.start()
        self.assertEqual(self.one.check(), [], what)

    def snapshot(self):
        self.book = copy.deepcopy(self.one.ledger)
        return {path: path.read_bytes() for path in self.one.store.rglob("*") if path.is_file()}

    def restore(self, saved):
        self.one.stop(signal.SIGKILL)
        self.one.ledger = copy.deepcopy(self.book)
        for path in self.one.store.rglob("*"):
            if path.is_file() and path not in saved:
                path.unlink()
        for path, octets in saved.items():
            path.write_bytes(octets)
        self.one.server.process = None

    def sane(self, what):
        """The server says no in a sentence, or it serves all but what it names."""
        one = self.one
        try:
            one.start()
        except AssertionError:
            code, said = one.start_fails()
            self.assertEqual(code, CANNOT_USE_STORE, f"{what}: {said}")
            self.no_panic()
            self.assertRegex(said.splitlines()[-1], "^posthaste: .*(damaged|can't be opened|does not hold)", what)
            self.assertRegex(said.splitlines()[-1], "restore a backup", f"{what}: it does not say what to do: {said}")
            return said
        try:
            wrong = one.check()
        except Gone as why:
            wrong = [str(why)]
        self.assertTrue(one.alive(), what)
        self.no_panic()
        if wrong:
            if not self.told("ERROR.*(damage|corrupt|checksum|not in the store)"):
                # A page of the index that claims fewer rows than it has hides them; the counts tell.
                audit = one.server.cli("audit", check=False)
                self.assertEqual(audit.returncode, 1, f"{what}: {wrong}, and nobody says why:\n"
                                 f"{one.said()[self.before:]}\n{audit.stdout}")
            self.assertFalse(any(text.startswith("not whole") for text in wrong), f"{what}: {wrong}")
        return ""


if __name__ == "__main__":
    unittest.main()
