"""A full disk, on a real small filesystem: new mail hears 452 4.3.1, reading and removing go on,
mail is taken again by itself when there is room, and nothing that was acknowledged is missing."""

import functools
import pathlib
import signal
import tempfile
import unittest

import small_disk
from load import Gone
from one import One
from world import wait_until


def on_a_small_disk(mebibytes):
    """Runs the test with an empty filesystem of that size; in a namespace when it takes one."""
    def around(test):
        @functools.wraps(test)
        def runs(self):
            how = small_disk.how()
            if how == "namespace":
                return small_disk.rerun_inside(self.id())
            if how != "mount":
                self.skipTest(how)
            with tempfile.TemporaryDirectory(prefix="posthaste-e2e-") as temporary:
                folder = pathlib.Path(temporary)
                with small_disk.mounted(folder, mebibytes) as disk:
                    self.one = One(disk, folder / "log")
                    try:
                        test(self, disk)
                    finally:
                        self.one.stop(signal.SIGKILL)
        return runs
    return around


class FullDisk(unittest.TestCase):
    def everything_is_there(self):
        self.assertEqual(self.one.check(), [])
        self.assertTrue(self.one.alive())

    def takes_mail_again(self, octets=20_000):
        """The first reply that is not a refusal. Only `452 4.3.1` may come before it."""
        def answer():
            try:
                _, reply = self.one.send(octets)
            except Gone:
                return None  # a session that is refused too often is ended
            if not reply.startswith("250"):
                self.assertTrue(reply.startswith("452 4.3.1"), reply)
                return None
            return reply
        return wait_until(answer, "mail to be taken again", seconds=60)

    @on_a_small_disk(128)
    def test_a_full_disk_refuses_new_mail_and_serves_what_is_there(self, disk):
        one = self.one
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * (small_disk.free_octets(disk) - (30 << 20)))
        taken, reply = one.send_until_refused(100_000)
        self.assertTrue(reply.startswith("452 4.3.1"), reply)
        self.assertGreater(taken, 50)
        _, reply = one.send(1_500_000)  # these get files of their own
        self.assertTrue(reply.startswith("452 4.3.1"), reply)
        self.everything_is_there()

        uids = sorted(one.learn())
        one.remove_by_imap(uids[:5])
        one.remove_by_pop3(5)
        with one.imap() as imap:
            imap.select("INBOX")
            imap.do(f"UID STORE {uids[-1]} +FLAGS (\\Flagged)")
            imap.do(f"UID MOVE {uids[-2]} Kept")
        last, moved = (one.ledger.by_account["bob@example.com"][one.ledger.known["bob@example.com", "INBOX"][uid]]
                       for uid in (uids[-1], uids[-2]))
        last.flags, moved.places = {frozenset(["\\Flagged"])}, {"Kept"}
        self.everything_is_there()

        one.stop(signal.SIGKILL)  # and started on the full disk
        one.start()
        self.everything_is_there()
        one.stop()
        one.start()
        self.everything_is_there()

        ballast.unlink()
        self.takes_mail_again()
        self.everything_is_there()
        one.stop(signal.SIGKILL)
        one.start()
        self.everything_is_there()
        self.assertTrue(one.send(1_500_000)[1].startswith("250"))

    @on_a_small_disk(288)
    def test_removing_mail_makes_room_by_itself(self, disk):
        one = self.one
        taken, reply = one.send_until_refused(400_000)
        self.assertTrue(reply.startswith("452 4.3.1"), reply)
        uids = sorted(one.learn())
        self.assertEqual(len(uids), taken)
        one.remove_by_imap(uids[: taken * 3 // 4])
        self.takes_mail_again(400_000)
        for _ in range(taken // 4):
            self.assertTrue(one.send(400_000)[1].startswith("250"))
        self.everything_is_there()
        one.stop(signal.SIGKILL)
        one.start()
        self.everything_is_there()


if __name__ == "__main__":
    unittest.main()
