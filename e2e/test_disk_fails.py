"""The order of writes, syncs and answers on the real program; and disks that fail: a sync that
returns an error, a write that does. strace shows the calls, and makes them fail."""

import pathlib
import signal
import tempfile
import threading
import unittest

import syscalls
from load import Gone
from one import One
from world import wait_until

#: The exit code on which a supervisor starts the server anew.
BROKEN = 4
WHY_NOT = syscalls.why_not()


@unittest.skipIf(WHY_NOT, WHY_NOT)
class FailingDisk(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="posthaste-e2e-")
        self.folder = pathlib.Path(self.temporary.name)
        (self.folder / "server").mkdir()
        self.one = One(self.folder / "server", self.folder / "log")

    def tearDown(self):
        self.one.stop(signal.SIGKILL)
        self.temporary.cleanup()

    def takes(self, count, octets=3_000):
        for _ in range(count):
            reply = self.one.send(octets)[1]
            self.assertTrue(reply.startswith("250"), reply)

    def newest_segment(self):
        return sorted((self.one.store / "log").glob("*.log"))[-1]

    # --- the order ---

    def test_no_250_leaves_before_its_octets_are_synced(self):
        trace = self.folder / "trace"
        with syscalls.traced(self.one.pid(), trace):
            self.takes(20)
            self.takes(2, 1_500_000)
            self.many_sessions(6, 10)
        all_calls = syscalls.calls(trace)
        answers, wrong = syscalls.promises(all_calls)
        self.assertEqual(wrong, [])
        self.assertEqual(answers, 82)
        # The check can fail: without its syncs the same run keeps no promise.
        mute = [c for c in all_calls if c.name not in syscalls.SYNCS]
        self.assertEqual(len(syscalls.promises(mute)[1]), 82)
        files_only = [c for c in all_calls if c.name not in syscalls.SYNCS or "/large/" in c.file]
        self.assertEqual(len(syscalls.promises(files_only)[1]), 82)

    def many_sessions(self, sessions, each):
        """So that groups of several batches are made. Their messages are not in the ledger."""
        failed = []

        def session(name):
            try:
                with self.one.new_session() as smtp:
                    for n in range(each):
                        reply = self.one.send_outside_ledger(smtp, f"{name}-{n}")
                        assert reply.startswith("250"), reply
            except (Gone, AssertionError) as error:
                failed.append(error)
        threads = [threading.Thread(target=session, args=(n,)) for n in range(sessions)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failed, [])

    # --- failures that end the store ---

    def stops_when(self, call, error, path=None):
        """After this failure nothing is acknowledged; the server says why and ends; everything that
        was acknowledged before is there after the next start."""
        one = self.one
        self.takes(10)
        before = len(one.said())
        with syscalls.spoilt(one.pid(), call, error, path):
            for _ in range(3):
                try:
                    reply = one.send_unsure(3_000)
                    self.assertIn(reply[:3], ("451", "421"), reply)
                except Gone:
                    break
            code = one.server.process.process.wait(timeout=60)
        said = one.said()[before:]
        self.assertEqual(code, BROKEN, said)
        self.assertRegex(said, "the store has stopped", said)
        self.assertRegex(said, "start the server anew: .*Input/output error", said)
        self.assertNotIn("panicked", said)
        one.stop()
        one.start()
        self.takes(3)
        self.assertEqual(one.check(), [])

    def test_a_failed_sync_of_the_log_ends_the_server(self):
        self.stops_when("fdatasync", "EIO", self.newest_segment())

    def test_a_failed_sync_of_anything_ends_the_server(self):
        self.stops_when("fdatasync", "EIO")

    def test_a_failed_write_of_the_log_ends_the_server(self):
        self.stops_when("pwrite64", "EIO", self.newest_segment())

    # --- failures that pass ---

    def test_no_room_is_said_and_passes(self):
        one = self.one
        self.takes(10)
        with syscalls.spoilt(one.pid(), "pwrite64", "ENOSPC"):
            for octets in (3_000, 1_500_000, 3_000):
                reply = one.send(octets)[1]
                self.assertTrue(reply.startswith("452 4.3.1"), reply)
            self.assertEqual(one.check(), [])
        self.assertTrue(one.alive())
        wait_until(lambda: one.send(3_000)[1].startswith("250"), "mail to be taken again")
        self.takes(3, 1_500_000)
        self.assertEqual(one.check(), [])
        one.stop(signal.SIGKILL)
        one.start()
        self.assertEqual(one.check(), [])

    def test_an_index_that_can_not_be_written_loses_nothing(self):
        """The log is what is durable: nothing is acknowledged that is not in it. The index catches up
        when it can be written again; until then the server may say no, for now."""
        one = self.one
        self.takes(5)
        for call in ("fdatasync", "pwrite64"):
            before = len(one.said())
            with syscalls.spoilt(one.pid(), call, "EIO", one.store / "index.redb"):
                self.takes(5)
                wait_until(lambda: "the index can't be" in one.said()[before:], "the index to fail")
                for _ in range(5):
                    self.assertIn(one.send(3_000)[1][:3], ("250", "451"))
            self.assertTrue(one.alive())
            wait_until(lambda: one.send(3_000)[1].startswith("250"), "mail to be taken again")
            wait_until(self.serves, "the mailbox to be readable again")
            self.assertEqual(one.check(), [])
        one.stop(signal.SIGKILL)
        one.start()
        self.assertEqual(one.check(), [])

    def serves(self):
        try:
            self.one.imap().close()
            return True
        except Gone:
            return False

    def test_a_large_message_that_can_not_be_synced_is_not_acknowledged(self):
        one = self.one
        self.takes(2, 1_500_000)
        with syscalls.spoilt(one.pid(), "fsync", "EIO", one.store / "large"):
            reply = one.send(1_500_000)[1]
            self.assertTrue(reply.startswith("451"), reply)
            self.takes(2)
        self.takes(2, 1_500_000)
        self.assertEqual(one.check(), [])


if __name__ == "__main__":
    unittest.main()
