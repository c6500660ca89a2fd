"""What must hold when things go wrong: kill -9 after 250, servers that are down, hostile input."""

import signal
import unittest

from world import PASSWORD, World, message


def memory_kib(process):
    with open(f"/proc/{process.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


class Crash(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.world = World()
        cls.gmail, cls.example = cls.world.gmail, cls.world.example

    @classmethod
    def tearDownClass(cls):
        cls.world.close()

    def test_what_was_accepted_survives_kill_9_and_is_there_once(self):
        for n in range(10):
            with self.example.smtp("smtp", source="127.0.3.1") as s:
                s.ehlo("strange.example")
                s.sendmail("x@strange.example", ["bob@example.com"], message(f"killed {n}.", "x@strange.example"))
                self.example.stop(signal.SIGKILL)
                self.example.start()
            for earlier in range(n + 1):
                hits = [m for m in self.example.messages() if f"Subject: killed {earlier}.".encode() in m]
                self.assertEqual(len(hits), 1, f"message {earlier} after kill {n}")

    def test_what_is_queued_survives_kill_9_and_arrives_once(self):
        self.example.stop()
        for n in range(5):
            self.gmail.submit(message(f"queued {n}."), ["bob@example.com"])
        self.gmail.stop(signal.SIGKILL)
        self.gmail.start()
        waiting = self.gmail.cli("queue", "list").stdout
        self.assertEqual(waiting.count("bob@example.com"), 5, waiting)
        self.example.start()
        self.gmail.cli("queue", "retry", "--all")
        for n in range(5):
            self.assertEqual(len(self.example.wait_for(f"Subject: queued {n}.")), 1)
        self.assertNotIn("bob@example.com", self.gmail.cli("queue", "list").stdout)
        story = self.gmail.cli("trace", "bob@example.com").stdout
        self.assertIn("refused", story.lower())

    def test_a_bounce_tells_why(self):
        self.gmail.submit(message("to nobody"), ["nobody@example.com"])
        report = self.gmail.wait_for("Status: 5.1.1")[0]
        self.assertIn(b"multipart/report", report)
        self.assertIn(b"Final-Recipient: rfc822;", report)
        self.assertIn(b"nobody@example.com", report)
        self.assertIn(b"Return-Path: <>", report)

    def test_sigterm_ends_cleanly(self):
        self.assertEqual(self.gmail.stop(), 0)
        self.gmail.start()

    def test_sighup_reads_the_certificate_anew(self):
        before = self.gmail.certificate.read_bytes()
        self.gmail.process.process.send_signal(signal.SIGHUP)
        with self.gmail.smtp("submissions") as s:
            s.login("alice@gmail.com", PASSWORD)
        self.assertEqual(before, self.gmail.certificate.read_bytes())


class HostileInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.world = World()
        cls.server = cls.world.example

    @classmethod
    def tearDownClass(cls):
        cls.world.close()

    def setUp(self):
        self.before = memory_kib(self.server.process)

    def tearDown(self):
        """After each attack the server still serves and has not grown without bound."""
        self.assertIsNone(self.server.process.process.poll(), "the server has died")
        with self.server.smtp() as s:
            self.assertEqual(s.ehlo("x")[0], 250)
        self.server.imap().logout()
        self.assertLess(memory_kib(self.server.process) - self.before, 64 * 1024)

    # --- SMTP ---

    def smtp(self):
        raw = self.server.raw("smtp")
        self.assertTrue(raw.reply().startswith(b"220 "))
        return raw

    def test_smtp_overlong_line(self):
        with self.smtp() as c:
            answer = c.send(b"EHLO " + b"a" * 10_000_000 + b"\r\n").reply()
            self.assertIn(answer[:3], (b"500", b"421"))

    def test_smtp_nul_and_bare_lf(self):
        with self.smtp() as c:
            self.assertEqual(c.send(b"EHLO a\0b\r\n").reply()[:1], b"5")
        with self.smtp() as c:
            self.assertEqual(c.send(b"EHLO x\nMAIL FROM:<>\r\n").reply()[:1], b"5")

    def test_smtp_bare_lf_in_data_smuggles_nothing(self):
        for end in (b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r\n\0.\r\n"):
            with self.smtp() as c:
                c.send(b"EHLO x\r\n").reply()
                c.send(b"MAIL FROM:<>\r\n").reply()
                c.send(b"RCPT TO:<bob@example.com>\r\n").reply()
                self.assertEqual(c.send(b"DATA\r\n").reply()[:3], b"354")
                c.send(b"Subject: outer\r\n\r\nx" + end + b"MAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n"
                       b"Subject: smuggled\r\n\r\nx\r\n.\r\n")
                answer = c.reply()
                self.assertEqual(answer[:1], b"5", (end, answer))
                # In step, or closed: a client that believed its own end of data waits for nothing.
                self.assertIn(c.send(b"NOOP\r\n").reply()[:3], (b"250", b""), end)
        self.assertFalse(any(b"smuggled" in m for m in self.server.messages()))

    def test_smtp_a_hundred_thousand_recipients(self):
        with self.smtp() as c:
            c.send(b"EHLO x\r\n").reply()
            c.send(b"MAIL FROM:<>\r\n").reply()
            codes = set()
            for _ in range(1000):
                c.send(b"RCPT TO:<bob@example.com>\r\n" * 100)
                answers = [c.reply()[:3] for _ in range(100)]
                codes.update(answers)
                if b"" in answers:
                    break
            self.assertTrue(codes <= {b"250", b"452", b"421", b""}, codes)
            self.assertTrue(codes & {b"452", b"421"}, codes)

    def test_smtp_wrong_order(self):
        with self.smtp() as c:
            for line, code in ((b"MAIL FROM:<>", b"503"), (b"RCPT TO:<bob@example.com>", b"503"), (b"DATA", b"503"),
                               (b"EHLO x", b"250"), (b"DATA", b"503"), (b"RCPT TO:<bob@example.com>", b"503"),
                               (b"MAIL FROM:<>", b"250"), (b"MAIL FROM:<>", b"503"), (b"NONSENSE", b"500")):
                self.assertEqual(c.send(line + b"\r\n").reply()[:3], code, line)

    def test_smtp_commands_before_tls_are_not_carried_over(self):
        with self.smtp() as c:
            c.send(b"EHLO x\r\n").reply()
            answer = c.send(b"STARTTLS\r\nMAIL FROM:<injected@strange.example>\r\n").reply()
            rest = c.rest() if answer.startswith(b"220") else b""
            self.assertNotIn(b"250", answer + rest)

    def test_garbage_instead_of_tls(self):
        for service in ("submissions", "imaps", "pop3s"):
            with self.server.raw(service) as c:
                rest = c.send(b"EHLO this is no handshake\r\n" * 10).rest()
                self.assertNotIn(b"250", rest)
        with self.smtp() as c:
            c.send(b"EHLO x\r\n").reply()
            self.assertEqual(c.send(b"STARTTLS\r\n").reply()[:3], b"220")
            self.assertNotIn(b"250", c.send(b"\x16\x03garbage garbage garbage\r\n" * 4).rest())

    def test_message_too_large(self):
        with self.smtp() as c:
            c.send(b"EHLO x\r\n").reply()
            self.assertEqual(c.send(b"MAIL FROM:<> SIZE=99999999999\r\n").reply()[:3], b"552")
            self.assertEqual(c.send(b"MAIL FROM:<> SIZE=99999999999999999999999999\r\n").reply()[:1], b"5")

    # --- IMAP ---

    def imap(self, login=False):
        raw = self.server.raw("imaps", tls=True)
        self.assertTrue(raw.line().startswith(b"* OK"))
        if login:
            raw.send(b"a LOGIN bob@example.com \"" + PASSWORD.encode() + b"\"\r\n")
            self.assertIn(b"a OK", self.until(raw, b"a "))
        return raw

    def until(self, raw, tag):
        text = b""
        while True:
            line = raw.line()
            text += line
            if not line or line.startswith(tag):
                return text

    def test_imap_overlong_line_and_literals(self):
        with self.imap() as c:
            answer = c.send(b"a LOGIN " + b"x" * 10_000_000 + b"\r\n").rest()
            self.assertIn(answer[:5], (b"* BYE", b"a BAD", b"* BAD", b""))
        with self.imap() as c:
            answer = c.send(b"a LOGIN {99999999999999999999}\r\n").line()
            self.assertTrue(answer.startswith((b"a BAD", b"a NO", b"* BYE", b"* BAD")), answer)
        with self.imap(login=True) as c:
            answer = c.send(b"b APPEND INBOX {9999999999}\r\n").line()
            self.assertTrue(answer.startswith((b"b NO", b"b BAD", b"* BYE")), answer)
        with self.imap(login=True) as c:
            c.send(b"b APPEND INBOX {1000}\r\n")
            self.assertTrue(c.line().startswith(b"+"))
            c.send(b"unfinished")  # and gone

    def test_imap_wrong_order_nul_and_depth(self):
        with self.imap() as c:
            for line in (b"a SELECT INBOX", b"a FETCH 1 FLAGS", b"a NONSENSE", b"a", b""):
                answer = c.send(line + b"\r\n").line()
                self.assertTrue(answer.split(b" ")[1:2] in ([b"BAD"], [b"NO"]), (line, answer))
        with self.imap() as c:
            answer = c.send(b"a LOGIN a\0b c\r\n").line()
            self.assertTrue(b"BAD" in answer or b"BYE" in answer, answer)
        with self.imap(login=True) as c:
            c.send(b"b SELECT INBOX\r\n")
            self.until(c, b"b ")
            answer = self.until(c.send(b"c SEARCH " + b"(" * 2000 + b"ALL" + b")" * 2000 + b"\r\n"), b"c ")
            self.assertTrue(b"BAD" in answer or b"NO" in answer, answer)
            answer = self.until(c.send(b"d FETCH " + b"1:*," * 1500 + b"1 FLAGS\r\n"), b"d ")
            self.assertTrue(answer)

    def test_imap_bare_lf_is_answered(self):
        with self.imap() as c:
            answer = c.send(b"a NOOP\nb NOOP\r\n").line()
            self.assertTrue(b"BAD" in answer or b"OK" in answer or b"BYE" in answer, answer)

    # --- POP3 ---

    def pop3(self):
        raw = self.server.raw("pop3s", tls=True)
        self.assertTrue(raw.line().startswith(b"+OK"))
        return raw

    def test_pop3_hostile(self):
        with self.pop3() as c:
            for line in (b"RETR 1", b"LIST", b"PASS x", b"NONSENSE", b"", b"USER", b"USER a\0b", b"DELE 1"):
                self.assertTrue(c.send(line + b"\r\n").line().startswith(b"-ERR"), line)
        with self.pop3() as c:
            self.assertIn(c.send(b"USER " + b"x" * 1_000_000 + b"\r\n").rest()[:4], (b"-ERR", b""))
        with self.pop3() as c:
            c.send(b"USER bob@example.com\r\n").line()
            self.assertTrue(c.send(b"PASS " + PASSWORD.encode() + b"\r\n").line().startswith(b"+OK"))
            for line in (b"RETR 99999999999999999999", b"RETR 0", b"RETR -1", b"TOP 1", b"DELE x", b"LIST 1 2"):
                self.assertTrue(c.send(line + b"\r\n").line().startswith(b"-ERR"), line)
            self.assertTrue(c.send(b"QUIT\r\n").line().startswith(b"+OK"))


if __name__ == "__main__":
    unittest.main()
