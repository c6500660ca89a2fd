"""Postfix, Exim and OpenSMTPD send to us: MX lookup, port 25, STARTTLS with a verified certificate.

Each test looks at both sides: at what arrived and what our journey says of it, and at the dialogue that
the other program wrote down itself.
"""

import json
import re
import unittest

import network
from peers import KINDS, missing

STRANGERS = {"postfix": "127.0.3.1", "exim": "127.0.4.1", "opensmtpd": "127.0.5.1"}
SIZE_MAX = 12_000_000
MANY = 120
DSN_MAIL = ("RET=HDRS", "ENVID=QQ314+2B159")
DSN_RCPT = ("NOTIFY=SUCCESS,DELAY,FAILURE", "ORCPT=rfc822;Bob+2BBuilder@example.com")


def domain(name):
    return f"{name}.example"


def setUpModule():
    global INTERNET, OFFERED
    if why := network.why_not():
        raise unittest.SkipTest(why)
    INTERNET = network.Internet([(domain(n), a) for n, a in STRANGERS.items()], [f"smtp.size_max_octets={SIZE_MAX}"])
    unittest.addModuleCleanup(INTERNET.close)
    server = INTERNET.server
    server.cli("account", "add", "jörg@example.com", "--password-stdin", stdin="grüne Wiese am Bach\n")
    for n in range(MANY):
        server.cli("account", "add-alias", f"bob{n}@example.com", server.person)
    with server.smtp() as s:
        s.ehlo("asks.example")
        s.starttls(context=server.tls())
        s.ehlo("asks.example")
        OFFERED = s.esmtp_features


def text(name, subject, body, to="bob@example.com", sender=None):
    """A message as octets; the body as it is to arrive."""
    sender = sender or f"alice@{domain(name)}"
    head = (f"From: {sender}\r\nTo: {to}\r\nSubject: {subject}\r\nMessage-ID: <{subject}@{domain(name)}>\r\n"
            "Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nMIME-Version: 1.0\r\n"
            "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n")
    return head.encode() + body


def body_of(message):
    return message.split(b"\r\n\r\n", 1)[1]


class Sends:
    """What every one of the three must be able to do."""

    name = None
    #: What the other program writes into its log, as patterns over the dialogue with us.
    sent = None
    verified = None
    pipelines = True
    declares_8bit = True

    @classmethod
    def setUpClass(cls):
        if why := missing(cls.name):
            raise unittest.SkipTest(why)
        cls.server = INTERNET.server
        cls.peer = KINDS[cls.name](INTERNET.folder, domain(cls.name), STRANGERS[cls.name], INTERNET.authority)
        cls.addClassCleanup(cls.peer.stop)
        cls.peer.start()

    # --- helpers ---

    def deliver(self, subject, body, recipients=("bob@example.com",), **how):
        """Sends; answers the octets in bob's mailbox and what the peer logged since."""
        subject, before = f"{self.name}-{subject}", len(self.peer.said())
        self.peer.hand_over(text(self.name, subject, body), list(recipients), **how)
        got = self.server.wait_for(f"Subject: {subject}\r\n")
        if len(recipients) == 1:
            self.assertEqual(len(got), 1, "arrived once")
        return got[0], self.said_until(before, self.sent.format(r"(DATA|BDAT \d+ LAST)"))

    def said_until(self, before, pattern):
        return network.wait_until(
            lambda: (said := self.peer.said()[before:]) and re.search(pattern, said) and said,
            f"{pattern} in the log of {self.name}: {self.peer.said()[before:]}")

    def command(self, said, verb):
        """A command of the peer, as its own log tells it."""
        found = re.search(self.sent.format(verb + "[^\r\n]*"), said)
        self.assertIsNotNone(found, f"{verb} in {said}")
        return found.group(0)

    def journey(self, subject):
        found = json.loads(self.server.cli("--json", "trace", f"<{self.name}-{subject}@{domain(self.name)}>").stdout)
        self.assertEqual(len(found), 1, found)
        return found[0]["text"]

    # --- tests ---

    def test_starttls_with_a_verified_certificate(self):
        got, said = self.deliver("tls", b"over TLS\r\n")
        self.assertIn(b"with ESMTPS", got)
        self.assertIn(b"using TLSv1.3", got)
        self.assertTrue(got.startswith(f"Return-Path: <alice@{domain(self.name)}>\r\n".encode()), got[:100])
        self.assertIn(b"spf=pass", got)
        self.assertRegex(self.peer.logged(), self.verified)
        told = self.journey("tls")
        self.assertIn("over TLSv1.3", told)
        self.assertIn(f"from {STRANGERS[self.name]}", told)
        self.assertIn("It was delivered to bob@example.com", told)

    def test_the_body_arrives_octet_for_octet(self):
        octets = bytes(x for x in range(1, 256) if x not in (10, 13))
        body = b"".join([
            b".\r\n..\r\n...\r\n.dot\r\n. \r\n\r\n.\r\n", b"From the start of a line\r\n", b" \t \r\n",
            "Grüße, 漢字, 😀\r\n".encode(), octets + b"\r\n", b"." + octets + b"\r\n", b"x" * 998 + b"\r\n",
            b"." * 998 + b"\r\n", b"\r\n\r\n.", b"last line\r\n"])
        got, said = self.deliver("octets", body, mail_options=["BODY=8BITMIME"])
        self.assertEqual(body_of(got), body)
        if self.declares_8bit:
            self.assertIn("BODY=8BITMIME", self.command(said, "MAIL FROM:"))

    def test_long_lines_arrive_whole(self):
        body = b"".join(bytes([65 + n % 26]) * size + b"\r\n" for n, size in enumerate((999, 2_000, 4_095, 8_192, 20_000)))
        got, _ = self.deliver("lines", body)
        self.assertEqual(body_of(got), body)

    def test_a_large_message(self):
        body = b"".join(b"%08d " % n + b"all work and no play makes a dull line " * 2 + b"\r\n" for n in range(115_000))
        self.assertGreater(len(body), 10_000_000)
        got, _ = self.deliver("large", body)
        self.assertEqual(len(body_of(got)), len(body))
        self.assertTrue(body_of(got) == body, "every octet")
        self.server.cli("audit")

    def test_a_message_over_the_size_comes_back(self):
        subject = f"{self.name}-oversize"
        self.peer.hand_over(text(self.name, subject, b"0123456789abcdef" * 60 + b"\r\n"
                                 + (b"y" * 998 + b"\r\n") * 12_200), ["bob@example.com"])
        report = self.peer.wait_for(subject, "bob@example.com", self.says_too_large)
        self.assertIn(b"From: ", report)
        self.assertFalse(any(subject.encode() in m for m in self.server.messages()))

    def test_many_recipients(self):
        recipients = [f"bob{n}@example.com" for n in range(MANY)]
        before = len(self.peer.said())
        self.deliver("many", b"to all\r\n", recipients)
        name = f"<{self.name}-many@{domain(self.name)}>"

        def taken():
            journeys = json.loads(self.server.cli("--json", "trace", "--limit", "100", name).stdout)
            lists = [re.search(r"\n +to (bob.*)", x["text"]).group(1) for x in journeys]
            counts = [int(re.search(r"(?:and (\d+) more)?$", x).group(1) or 0) + x.count("@") for x in lists]
            return sum(counts) == MANY and len(journeys)
        transactions = network.wait_until(taken, f"{MANY} recipients of {name}")
        said = self.peer.said()[before:]
        for recipient in recipients:
            self.assertRegex(said, self.sent.format(re.escape(f"RCPT TO:<{recipient}>")))
        copies = self.server.wait_for(f"Subject: {self.name}-many\r\n", count=transactions)
        self.assertEqual(len(copies), transactions, "one mailbox, one copy a transaction")

    def test_pipelining(self):
        self.assertIn("pipelining", OFFERED)
        _, said = self.deliver("pipelined", b"x\r\n")
        between = re.search(f"{self.sent.format('MAIL FROM:')}.*?{self.sent.format('RCPT TO:')}", said, re.S).group(0)
        self.assertEqual(self.heard not in between, self.pipelines, between)

    def test_an_unknown_recipient_bounces_at_the_sender(self):
        subject = f"{self.name}-unknown"
        self.peer.hand_over(text(self.name, subject, b"to two\r\n"), ["bob@example.com", "nobody@example.com"])
        self.assertEqual(len(self.server.wait_for(f"Subject: {subject}\r\n")), 1, "the good recipient has it")
        report = self.peer.wait_for(subject, "nobody@example.com", "550 5.1.1")
        flat = re.sub(rb"\s+", b" ", report)
        self.assertIn(b"There is no nobody@example.com here; check the address", flat)
        self.assertIn(b"message/delivery-status", report)
        self.assertRegex(report, rb"Status: 5\.[01]\.[01]")

    def test_our_report_of_success_reaches_the_author(self):
        got, said = self.deliver("success", b"tell me\r\n", mail_options=DSN_MAIL, rcpt_options=DSN_RCPT)
        self.assertIn("dsn", OFFERED)
        self.assertIn("RET=HDRS", self.command(said, "MAIL FROM:"))
        self.assertIn("ENVID=QQ314+2B159", self.command(said, "MAIL FROM:"))
        rcpt = self.command(said, "RCPT TO:")
        asked = re.search(r"NOTIFY=(\S+)", rcpt).group(1)
        self.assertEqual(set(asked.split(",")), {"SUCCESS", "DELAY", "FAILURE"})
        self.assertIn("ORCPT=rfc822;Bob+2BBuilder@example.com", rcpt)
        report = self.peer.wait_for("Reporting-MTA: dns; mail.example.com", "Action: delivered", f"{self.name}-success")
        self.assertRegex(self.peer.logged(), "from=<>|<= <>", "the null sender")
        self.assertIn(b"Content-Type: multipart/report", report)
        self.assertRegex(report, rb"(?i)Original-Envelope-Id: ?QQ314\+159\r?\n")
        self.assertRegex(report, rb"(?i)Original-Recipient: ?rfc822; ?Bob\+2?B?Builder@example.com\r?\n")
        self.assertRegex(report, rb"(?i)Final-Recipient: ?rfc822; ?bob@example.com\r?\n")
        self.assertRegex(report, rb"(?i)Status: 2\.")
        self.assertRegex(report, rb"(?i)text/rfc822-headers")
        self.assertNotIn(b"tell me", report, "RET=HDRS: the body stays away")

    def test_no_report_of_success_unless_asked(self):
        self.deliver("unasked", b"quiet\r\n")
        self.deliver("never", b"quiet\r\n", rcpt_options=["NOTIFY=NEVER"])
        self.assertFalse([m for m in self.peer.messages() if b"-unasked" in m or b"-never" in m])
        self.assertNotIn(f"alice@{domain(self.name)}", self.server.cli("queue", "list").stdout)


class Utf8:
    """Addresses and header fields beyond ASCII (RFC 6531, RFC 6532)."""

    def test_smtputf8(self):
        subject = f"{self.name}-grüße"
        sender = f"δοκιμή@{domain(self.name)}"
        before = len(self.peer.said())
        self.peer.hand_over(text(self.name, subject, "Schöne Grüße\r\n".encode(), "jörg@example.com", sender),
                            ["bob@example.com", "jörg@example.com"], sender=sender,
                            mail_options=["SMTPUTF8", "BODY=8BITMIME"])
        got = self.server.wait_for(f"Subject: {subject}\r\n")[0]
        self.assertIn(f"Return-Path: <{sender}>\r\n".encode(), got)
        self.assertIn(b"with UTF8SMTPS", got)
        self.assertIn(f"From: {sender}\r\n".encode(), got)
        self.assertEqual(body_of(got), "Schöne Grüße\r\n".encode())
        self.assertIn("SMTPUTF8", self.command(self.said_until(before, self.sent.format("DATA|BDAT")), "MAIL FROM:"))
        told = self.server.cli("trace", "jörg@example.com").stdout
        self.assertIn("It was delivered to jörg@example.com", told)
        self.assertIn(sender, told)


class PostfixSends(Sends, Utf8, unittest.TestCase):
    name = "postfix"
    sent = r"> mail\.example\.com\[127\.0\.2\.1\]:25: {}"
    heard = ": < mail.example.com"
    verified = r"Verified TLS connection established to mail\.example\.com\[127\.0\.2\.1\]:25: TLSv1\.3"
    says_too_large = "5.3.4"

    def test_what_our_author_asks_reaches_it_and_its_report_comes_back(self):
        """The other direction: bob asks, we pass it on, the other server reports to bob."""
        subject = f"{self.name}-theirs"
        with self.server.smtp("submissions") as s:
            s.login("bob@example.com", network.PASSWORD)
            s.sendmail("bob@example.com", [f"alice@{domain(self.name)}"],
                       f"From: bob@example.com\r\nTo: alice@{domain(self.name)}\r\nSubject: {subject}\r\n\r\nasked\r\n",
                       ["RET=HDRS", f"ENVID=ours+2B{self.name}"], ["NOTIFY=SUCCESS,FAILURE", f"ORCPT=rfc822;al@{domain(self.name)}"])
        self.peer.wait_for(f"Subject: {subject}")
        report = self.server.wait_for(f"Original-Envelope-Id: ours+{self.name}")[-1]
        self.assertIn(f"dns; {self.peer.hostname}".encode(), report)
        self.assertRegex(report, rb"(?i)Action: delivered")
        self.assertRegex(report, f"(?i)Original-Recipient: ?rfc822; ?al@{re.escape(domain(self.name))}".encode())
        self.assertNotIn(b"asked\r\n", report.split(subject.encode())[-1], "RET=HDRS: the body stays away")


class EximSends(Sends, Utf8, unittest.TestCase):
    name = "exim"
    sent = r"SMTP[|>+]> {}"
    heard = "SMTP<<"
    verified = r'H=mail\.example\.com \[127\.0\.2\.1\]:25 .*X=TLS1\.3:\S+ CV=yes DN="CN=mail\.example\.com"'
    says_too_large = "552 5.3.4"
    declares_8bit = False  # it sends 8 bits without saying so

    def test_chunking(self):
        """Exim sends with BDAT where it is offered (RFC 3030), and marks the delivery with K."""
        body = b".\r\n" + b"z" * 70_000 + b"\r\n" + bytes(range(128, 256)) + b"\r\n.\r\n"
        got, said = self.deliver("chunks", body)
        self.assertEqual(body_of(got), body)
        self.assertIn("chunking", OFFERED)
        self.assertRegex(said, r"SMTP[|>+]> BDAT \d+ LAST")
        self.assertNotRegex(said, self.sent.format("DATA"))


class OpenSmtpdSends(Sends, unittest.TestCase):
    name = "opensmtpd"
    sent = r"mta: 0x[0-9a-f]+: >>> {}"
    heard = ": <<< "
    verified = r'mta server-cert-check result="success"'
    says_too_large = "message too large for peer"
    pipelines = False  # its client waits for each reply
    declares_8bit = False  # it sends 8 bits without saying so

    def test_it_knows_no_smtputf8(self):
        """Why the test of SMTPUTF8 is not here: version 6.8 does not take such mail."""
        with self.peer.smtp() as s:
            s.ehlo()
            self.assertFalse(s.has_extn("smtputf8"))


if __name__ == "__main__":
    unittest.main()
