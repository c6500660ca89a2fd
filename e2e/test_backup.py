"""Backup of a running server while mail arrives and goes, restore elsewhere, export: read back with
programs that know nothing of us (imaplib, poplib, mailbox)."""

import json
import mailbox
import pathlib
import poplib
import shutil
import signal
import subprocess
import tempfile
import threading
import unittest

from world import BINARY, PASSWORD, MailServer, free_port, message


def state(server, name="INBOX"):
    """UIDVALIDITY, and by UID: flags, internal date, octets."""
    box = server.imap()
    try:
        box.select(name, readonly=True)
        validity = box.untagged_responses["UIDVALIDITY"][0]
        messages = {}
        if box.untagged_responses["EXISTS"] != [b"0"]:
            _, data = box.uid("FETCH", "1:*", "(UID FLAGS INTERNALDATE BODY.PEEK[])")
            for head, octets in (part for part in data if isinstance(part, tuple)):
                words = head.split(b"UID ", 1)[1]
                uid = int(words.split()[0])
                flags = frozenset(head.split(b"FLAGS (", 1)[1].split(b")")[0].split()) - {b"\\Recent"}
                date = head.split(b'INTERNALDATE "', 1)[1].split(b'"')[0]
                messages[uid] = (flags, date, octets)
        return validity, messages
    finally:
        box.logout()


class Backup(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="posthaste-e2e-")
        self.folder = pathlib.Path(self.temporary.name)
        self.server = MailServer(self.folder, "example.com", "127.0.0.1", free_port("127.0.0.1"), "bob@example.com")

    def tearDown(self):
        if self.server.process:
            self.server.stop()
        self.temporary.cleanup()

    def send(self, subject, body="Hi"):
        self.server.submit(message(subject, sender="bob@example.com", body=body), ["bob@example.com"])

    def fill(self, count=20):
        for n in range(count):
            self.send(f"before {n}", f"line {n}\r\nFrom here on\r\n.dot")
        self.server.wait_for("before", count=count)
        box = self.server.imap()
        box.create("Lists/Rust.dev")
        box.select("INBOX")
        box.store("2,4", "+FLAGS", "(\\Seen \\Flagged)")
        box.store("5", "+FLAGS", "(\\Answered)")
        box.copy("1:3", "Lists/Rust.dev")
        box.store(str(min(7, count)), "+FLAGS", "(\\Deleted)")
        box.expunge()
        box.logout()

    def restore(self, backup):
        """The backup in a new server's data folder, at the same ports."""
        self.server.stop(signal.SIGKILL)
        data = self.folder / "data"
        shutil.rmtree(data)
        self.server.cli("restore", backup)
        self.server.cli("audit", "--deep")  # exit code 0: the restored store balances
        self.server.start()

    def test_a_running_server_comes_back_as_it_was(self):
        self.server.start()
        self.fill()
        before = {name: state(self.server, name) for name in ("INBOX", "Lists/Rust.dev")}
        # Mail arrives and goes while the backups are made.
        stop = threading.Event()
        trouble = []

        def traffic():
            n = 0
            try:
                while not stop.is_set():
                    self.send(f"meanwhile {n}")
                    if n % 3 == 2:
                        box = self.server.imap()
                        box.select("INBOX")
                        _, found = box.search(None, "SUBJECT", "meanwhile")
                        box.store(found[0].split()[0], "+FLAGS", "(\\Deleted)")
                        box.expunge()
                        box.logout()
                    n += 1
            except Exception as error:
                trouble.append(error)

        writer = threading.Thread(target=traffic)
        writer.start()
        backups = self.folder / "backups"
        first = json.loads(self.server.cli("--json", "backup", backups).stdout)
        second = json.loads(self.server.cli("--json", "backup", backups).stdout)
        stop.set()
        writer.join()
        self.assertEqual(trouble, [])
        self.assertEqual((first["damaged"], second["damaged"]), (0, 0))
        self.assertLess(second["blobs_new"], second["blobs"])
        self.assertLess(second["octets_written"], first["octets_written"] + second["blob_octets"])
        after = state(self.server)
        stream = self.folder / "mail.backup"
        with open(stream, "wb") as out:
            subprocess.run([BINARY, "--config", str(self.server.config), "backup", "-"], stdout=out, check=True, timeout=60)
        self.server.cli("backup", self.folder / "file.backup")
        for path in (backups, stream, self.folder / "file.backup"):
            said = self.server.cli("backup", "--verify", path).stdout
            self.assertIn("whole", said)
        self.assertEqual((backups / "rows").stat().st_mode & 0o077, 0)

        self.restore(backups)
        validity, there = state(self.server)
        self.assertEqual(validity, before["INBOX"][0])
        for uid, was in before["INBOX"][1].items():
            self.assertEqual(there[uid], was)
        self.assertEqual(state(self.server, "Lists/Rust.dev"), before["Lists/Rust.dev"])
        with_pop = poplib.POP3_SSL("127.0.0.1", self.server.ports["pop3s"], context=self.server.tls(), timeout=30)
        with_pop.user("bob@example.com")
        with_pop.pass_(PASSWORD)
        self.assertEqual(with_pop.stat()[0], len(there))
        with_pop.quit()
        # No UID that a client saw after the backup is given again.
        self.send("new life")
        self.server.wait_for("new life")
        validity, now = state(self.server)
        new = [uid for uid, (_, _, octets) in now.items() if b"new life" in octets]
        self.assertGreater(min(new), max(after[1]))
        self.assertGreater(min(new), max(there))

        # The stream holds what was there when it was made.
        self.restore(stream)
        self.assertEqual(state(self.server), after)

    def test_a_damaged_backup_is_refused_and_named(self):
        self.server.start()
        self.fill(5)
        stream = self.folder / "mail.backup"
        self.server.cli("backup", stream)
        octets = bytearray(stream.read_bytes())
        at = octets.find(b"before 3")
        octets[at] ^= 1
        stream.write_bytes(octets)
        refused = self.server.cli("backup", "--verify", stream, check=False)
        self.assertEqual(refused.returncode, 1, refused.stdout)
        self.assertIn("DAMAGED", refused.stdout)
        elsewhere = self.folder / "elsewhere"
        refused = self.server.cli("--data", elsewhere, "restore", stream, check=False)
        self.assertEqual(refused.returncode, 4)
        self.assertIn("--skip-damage", refused.stderr)
        self.assertFalse((elsewhere / "store").exists())
        went_on = self.server.cli("--data", elsewhere, "restore", "--skip-damage", stream, check=False)
        self.assertEqual(went_on.returncode, 1, went_on.stderr)
        self.assertIn("missing or damaged", went_on.stdout)
        again = self.server.cli("--data", elsewhere, "restore", stream, check=False)
        self.assertIn("not empty", again.stderr)
        # The export of the store that lacks a message goes on and names it.
        exported = self.server.cli("--data", elsewhere, "export", self.folder / "out", check=False)
        self.assertEqual(exported.returncode, 1, exported.stdout)
        report = (self.folder / "out" / "export-report.txt").read_text()
        self.assertIn("bob@example.com INBOX: UID 4", report)
        self.assertIn("could not be exported", report)

    def test_an_export_is_read_by_others(self):
        self.server.start()
        self.fill()
        validity, inbox = state(self.server)
        self.server.cli("export", self.folder / "maildir")
        self.server.stop()
        self.server.cli("export", "bob@example.com", self.folder / "mbox", "--format", "mbox")
        refused = self.server.cli("export", self.folder / "mbox", check=False)
        self.assertEqual(refused.returncode, 4)

        box = mailbox.Maildir(self.folder / "maildir" / "bob@example.com", create=False)
        self.assertEqual(len(box), len(inbox))
        by_octets = {octets: (flags, date) for flags, date, octets in inbox.values()}
        letters = {b"\\Seen": "S", b"\\Flagged": "F", b"\\Answered": "R"}
        for key in box.keys():
            octets = box.get_bytes(key)
            flags, _ = by_octets[octets]
            self.assertEqual(set(box[key].get_flags()), {letters[f] for f in flags if f in letters})
        self.assertEqual(box.list_folders().count("Lists.Rust%2Edev"), 1)
        self.assertEqual(len(box.get_folder("Lists.Rust%2Edev")), 3)

        box = mailbox.mbox(self.folder / "mbox" / "bob@example.com" / "INBOX.mbox", create=False)
        self.assertEqual(len(box), len(inbox))
        bodies = [m.get_payload() for m in box]
        self.assertTrue(all("\n>From here on\n" in body for body in bodies), bodies[0])
        self.assertEqual(sum("F" in m.get_flags() for m in box), 2)


if __name__ == "__main__":
    unittest.main()
