"""Postfix, Exim, OpenSMTPD and aiosmtpd get mail from us: by their MX record, port 25, STARTTLS. Dovecot gets it by
LMTP, as a route says.

Each test asks the receiver: what it stored, what it wrote into its log or its Received field, what it reports.
"""

import email
import email.policy
import json
import re
import unittest

import network
from peers import KINDS, NAMED, missing

STRANGERS = {"postfix": "127.0.3.1", "exim": "127.0.4.1", "opensmtpd": "127.0.5.1", "aiosmtpd": "127.0.6.1",
             "dovecot": "127.0.7.1"}
US = "mail.example.com"
BOB = "bob@example.com"


def domain(name):
    return f"{name}.example"


def setUpModule():
    global INTERNET
    if why := network.why_not():
        raise unittest.SkipTest(why)
    INTERNET = network.Internet([(domain(n), a) for n, a in STRANGERS.items()])
    unittest.addModuleCleanup(INTERNET.close)
    INTERNET.server.cli("account", "add-alias", "δοκιμή@example.com", BOB)


def fields(part):
    """The fields of a delivery status: the message's, then those of each recipient. Read without the library's
    help, which knows the ASCII form alone."""
    if part.get_content_type() == "message/delivery-status":
        return part.get_payload()
    text = part.get_payload(0).as_bytes() if part.is_multipart() else part.get_payload(decode=True)
    groups = text.decode().replace("\r\n", "\n").strip().split("\n\n")
    return [dict(line.split(": ", 1) for line in re.sub(r"\n[ \t]+", " ", g).split("\n")) for g in groups]


class Receives:
    """What every one of them must show."""

    name = None
    #: What the receiver itself says of TLS, in its Received field or log.
    tls = None
    #: How its log shows a command that we gave; none where it keeps no such log.
    heard = None
    #: What it says of an address that it does not know.
    unknown = None
    utf8 = True
    dsn = True
    #: How many answers it gives to a message for twenty, and what names the transaction in them.
    answers, transaction = 1, "it was accepted"

    @classmethod
    def setUpClass(cls):
        if why := missing(cls.name):
            raise unittest.SkipTest(why)
        cls.server = INTERNET.server
        cls.peer = KINDS[cls.name](INTERNET.folder, domain(cls.name), STRANGERS[cls.name], INTERNET.authority)
        cls.addClassCleanup(cls.peer.stop)
        cls.peer.start()

    # --- helpers ---

    def alice(self):
        return f"alice@{domain(self.name)}"

    def submit(self, subject, body=b"Hi\r\n", to=None, sender=BOB, mail_options=(), rcpt_options=(), content=""):
        to = to or [self.alice()]
        head = (f"From: {sender}\r\nTo: {to[0]}\r\nSubject: {self.name}-{subject}\r\nMIME-Version: 1.0\r\n"
                f"Message-ID: <{self.name}-{subject}@example.com>\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n"
                f"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n")
        with self.server.smtp("submissions") as s:
            s.login(BOB, network.PASSWORD)
            s.ehlo()
            refused = s.sendmail(sender, to, head.encode() + body, mail_options, rcpt_options)
            self.assertEqual(refused, {})

    def arrived(self, subject):
        """The message as the receiver stored it, lines ended by CR LF."""
        got = self.peer.wait_for(f"Subject: {self.name}-{subject}")
        return got if self.peer.line_end == b"\r\n" else got.replace(b"\n", b"\r\n")

    def copies(self, subject):
        return [m for m in self.peer.messages() if f"Subject: {self.name}-{subject}".encode() in m]

    def journey(self, subject):
        return self.server.cli("trace", f"<{self.name}-{subject}@example.com>").stdout

    def said_until(self, pattern):
        return network.wait_until(lambda: re.search(pattern, self.peer.said()), f"{pattern} in the log of {self.name}")

    def report(self, *markers, kind="multipart/report"):
        """The report to bob that holds all markers, parsed."""
        def found():
            return next((m for m in self.server.messages() if all(x.encode() in m for x in markers)), None)
        parsed = email.message_from_bytes(network.wait_until(found, f"a report with {markers}"), policy=email.policy.SMTP)
        self.assertEqual(parsed.get_content_type(), kind)
        return parsed

    # --- tests ---

    def test_starttls(self):
        self.submit("tls")
        got = self.arrived("tls")
        self.assertRegex(got.decode() + self.peer.logged(), self.tls)
        told = self.journey("tls")
        self.assertIn("over TLSv1.3", told)
        self.assertIn(f"was handed to mail.{domain(self.name)}", told)

    def test_the_body_arrives_octet_for_octet(self):
        octets = bytes(x for x in range(1, 256) if x not in (10, 13))
        body = b"".join([
            b".\r\n..\r\n...\r\n.dot\r\n. \r\n\r\n.\r\n", b"From the start of a line\r\n", b" \t \r\n",
            "Grüße, 漢字, 😀\r\n".encode(), octets + b"\r\n", b"." + octets + b"\r\n", b"x" * 998 + b"\r\n",
            b"." * 998 + b"\r\n", b"\r\n\r\n.x\r\n", b"last line\r\n"])
        self.submit("octets", body, mail_options=["BODY=8BITMIME"])
        got = self.arrived("octets")
        self.assertEqual(got.split(b"\r\n\r\n", 1)[1].rstrip(b"\r\n"), body.rstrip(b"\r\n"))
        if self.heard:
            self.said_until(self.heard.format(r"MAIL FROM:<bob@example\.com>[^\r\n]* BODY=8BITMIME"))
        self.assertEqual(len(self.copies("octets")), 1)

    def test_a_large_message(self):
        body = b"".join(b"%08d " % n + b"all work and no play makes a dull line " * 2 + b"\r\n" for n in range(60_000))
        self.submit("large", body)
        got = self.arrived("large").split(b"\r\n\r\n", 1)[1]
        self.assertTrue(got.rstrip(b"\r\n") == body.rstrip(b"\r\n"), "every octet")

    def test_several_recipients_share_a_transaction(self):
        to = [f"alice{n}@{domain(self.name)}" for n in range(NAMED)]
        self.submit("several", to=to)
        self.arrived("several")
        told = network.wait_until(
            lambda: (text := self.journey("several")).count("was handed to") == NAMED and text, "all of them")
        self.assertEqual(told.count("was attempted: it was accepted"), self.answers, told)
        self.assertEqual(len(set(re.findall(self.transaction, told))), 1, told)

    def test_an_unknown_recipient_comes_back(self):
        nobody = f"nobody@{domain(self.name)}"
        self.submit("unknown", to=[self.alice(), nobody], mail_options=["ENVID=unknown+2B1"])
        self.assertEqual(len([self.arrived("unknown")]), 1, "the good one has it")
        parsed = self.report(f"{self.name}-unknown", "Action: failed")
        human, status, returned = parsed.get_payload()
        about, recipient = fields(status)
        self.assertEqual(about["Reporting-MTA"], f"dns; {US}")
        self.assertEqual(about["Original-Envelope-Id"], "unknown+1")
        self.assertEqual(recipient["Final-Recipient"], f"rfc822; {nobody}")
        self.assertEqual(recipient["Remote-MTA"], f"dns; mail.{domain(self.name)}")
        self.assertEqual(recipient["X-Failure-Class"], "unknown-user")
        self.assertRegex(recipient["Diagnostic-Code"], self.unknown, "its own words")
        self.assertRegex(recipient["Status"], r"^5\.")
        self.assertIn("The address does not exist there.", human.get_content())
        self.assertIn(f"Subject: {self.name}-unknown", returned.get_content())
        self.assertIn("it means (unknown-user)", self.journey("unknown"))

    def test_smtputf8(self):
        sender, to = "δοκιμή@example.com", f"почта@{domain(self.name)}"
        self.submit("grüße", "Schöne Grüße\r\n".encode(), [to], sender, ["SMTPUTF8", "BODY=8BITMIME"])
        if self.utf8:
            got = self.arrived("grüße")
            self.assertIn(f"From: {sender}\r\n".encode(), got)
            self.assertIn("Schöne Grüße".encode(), got)
            if self.heard:
                self.said_until(self.heard.format(f"MAIL FROM:<{sender}>[^\r\n]* SMTPUTF8"))
            return
        # RFC 6531 §3.2, RFC 6533: it cannot go there, and the report says so in the international form.
        parsed = self.report("X-Failure-Class: international-address", to)
        _, status, returned = parsed.get_payload()
        self.assertEqual(status.get_content_type(), "message/global-delivery-status")
        self.assertEqual(returned.get_content_type(), "message/global-headers")
        _, recipient = fields(status)
        self.assertEqual(recipient["Final-Recipient"], f"utf-8; {to}")
        self.assertEqual(recipient["Status"], "5.6.7")
        self.assertFalse(self.copies("grüße"))

    def test_dsn(self):
        self.ask_for_reports()
        parsed = self.report(f"Subject: {self.name}-dsn", "Action: ")
        self.check_report(parsed)

    def ask_for_reports(self):
        self.submit("dsn", mail_options=["RET=HDRS", f"ENVID=ours+2B{self.name}"],
                    rcpt_options=["NOTIFY=SUCCESS,FAILURE", f"ORCPT=rfc822;al+2Bold@{domain(self.name)}"])
        self.arrived("dsn")
        if self.heard:
            self.said_until(self.heard.format(r"MAIL FROM:<bob@example\.com>[^\r\n]*RET=HDRS"))
            self.said_until(self.heard.format(r"MAIL FROM:<bob@example\.com>[^\r\n]*ENVID=ours\+2B" + self.name))
            self.said_until(self.heard.format(r"RCPT TO:<alice@[^\r\n]*NOTIFY=(SUCCESS,FAILURE|FAILURE,SUCCESS)"))
            self.said_until(self.heard.format(r"RCPT TO:<alice@[^\r\n]*ORCPT=rfc822;al\+2Bold@"))

    def check_report(self, parsed):
        about, recipient = fields(parsed.get_payload()[1])
        # Exim brings it back as the parameter has it, encoded.
        self.assertIn(about["Original-Envelope-Id"], (f"ours+{self.name}", f"ours+2B{self.name}"))
        if self.dsn:
            # It was told what the author asked, and reports itself.
            self.assertIn(f"mail.{domain(self.name)}", about["Reporting-MTA"])
            self.assertEqual(recipient["Action"], "delivered")
        else:
            # RFC 3461 §5.2.2: the last that knows of the wish reports that it went on.
            self.assertEqual(about["Reporting-MTA"], f"dns; {US}")
            self.assertEqual(recipient["Action"], "relayed")
        self.assertRegex(recipient["Original-Recipient"], rf"(?i)rfc822; ?al\+(2B)?old@{re.escape(domain(self.name))}")
        self.assertRegex(recipient["Final-Recipient"], rf"(?i)rfc822; ?{re.escape(self.alice())}")
        self.assertRegex(recipient["Status"], r"^2\.")


class PostfixReceives(Receives, unittest.TestCase):
    name = "postfix"
    tls = r"Received: from mail\.example\.com \(.*\s+\(using TLSv1\.3 with cipher"
    heard = r"< \S+\[127\.0\.2\.1\]: {}"
    unknown = r"smtp; 550 5\.1\.1 <nobody@postfix\.example>: Recipient address rejected: User unknown in virtual mailbox table"


class EximReceives(Receives, unittest.TestCase):
    name = "exim"
    # Exim calls what follows a message with SMTPUTF8 on the same connection utf8esmtps, whatever it is.
    tls = r"Received: from \[127\.0\.2\.1\] .*helo=mail\.example\.com\)\s+by mail\.exim\.example with (utf8)?esmtps\s+\(TLS1\.3\)"
    unknown = r"smtp; 550 .*Unrouteable address"


class OpenSmtpdReceives(Receives, unittest.TestCase):
    name = "opensmtpd"
    heard = r"<<< {}"
    unknown = r"smtp; 524 5\.2\.4 Mailing list expansion problem: <nobody@opensmtpd\.example>"
    utf8 = False  # version 6.8 does not offer it

    def test_starttls(self):
        """Debian's OpenSMTPD 6.8 offers STARTTLS and then cannot use its own key (built with OpenSSL 3: "missing
        private key", for every client). Where TLS is opportunistic the message goes all the same, and the journey
        tells both attempts."""
        self.submit("tls")
        self.assertRegex(self.arrived("tls"), rb"by mail\.opensmtpd\.example \(OpenSMTPD\) with ESMTP id")
        self.said_until("SSL_accept: error:.*missing private key")
        told = self.journey("tls")
        self.assertIn("at TLS handshake: the TLS handshake with mail.opensmtpd.example", told)
        self.assertEqual(told.count("was attempted: it was accepted"), 1, told)

    def test_dsn(self):
        """It hears the wishes; its notice of success calls itself multipart/mixed, and does not name the envelope."""
        self.ask_for_reports()
        parsed = self.report(f"Subject: {self.name}-dsn", "Action: ", kind="multipart/mixed")
        _, recipient = fields(parsed.get_payload()[1])
        self.assertEqual(recipient["Action"], "delivered")
        self.assertRegex(recipient["Status"], r"^2\.")


class AioSmtpdReceives(Receives, unittest.TestCase):
    name = "aiosmtpd"
    tls = r"'tls': \('TLS_[A-Z0-9_]+', 'TLSv1\.3'"
    unknown = r"smtp; 550 5\.1\.1 No such user here"
    dsn = False

    def test_what_it_was_told(self):
        self.submit("told", mail_options=["BODY=8BITMIME"])
        self.arrived("told")
        session = self.peer.sessions[[i for i, m in enumerate(self.peer.taken) if b"aiosmtpd-told" in m][0]]
        self.assertEqual(session["helo"], US)
        self.assertEqual(session["from"], BOB)
        self.assertEqual(session["to"], [self.alice()])


class DovecotReceives(Receives, unittest.TestCase):
    """By LMTP: what it offers is not what the others do, so of their tests it has only those that fit."""

    name = "dovecot"
    unknown = r"smtp; 550 5\.1\.1 <nobody@dovecot\.example> User doesn't exist: nobody"
    answers, transaction = NAMED, r"dovecot\.example> (\S+:T\d+)\S* Saved"
    test_smtputf8 = test_dsn = None

    def setUp(self):
        self.go_by(f"mail.{domain(self.name)}:{self.peer.port}")

    def go_by(self, place):
        self.server.cli("route", "add", domain(self.name), "--lmtp", place)

    def test_starttls(self):
        self.submit("tls")
        self.assertRegex(self.arrived("tls"), rb"by mail\.dovecot\.example with LMTPS")
        self.assertIn("by LMTP", self.journey("tls"))

    def test_its_socket(self):
        self.go_by(str(self.peer.socket))
        self.submit("socket", rcpt_options=["NOTIFY=SUCCESS"])
        self.assertRegex(self.arrived("socket"), rb"by mail\.dovecot\.example with LMTP\r\n")
        self.report("Action: delivered", "alice@dovecot.example")


if __name__ == "__main__":
    unittest.main()
