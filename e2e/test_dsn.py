"""Delivery status notifications (RFC 3464, RFC 6533), read by Python's email package: failure, delay and expiry,
delivered, relayed, expanded; and who gets none."""

import email
import email.policy
import json
import re
import smtplib
import unittest
from email.utils import parsedate_to_datetime

from by_hand import ByHand
from world import PASSWORD, World, message, wait_until

#: RFC 3464 §2.2 and §2.3: the fields that must be there.
MUST_MESSAGE, MUST_RECIPIENT = {"Reporting-MTA"}, {"Final-Recipient", "Action", "Status"}
DATES = ("Arrival-Date", "Last-Attempt-Date", "Will-Retry-Until")
ALICE, BOB = "alice@gmail.com", "bob@example.com"


class Dsn(unittest.TestCase):
    def setUp(self):
        self.world = World()
        self.gmail, self.example = self.world.gmail, self.world.example
        self.addCleanup(self.world.close)

    def restart(self, server, *orders):
        server.stop()
        server.start(*orders)

    def submit(self, subject, to=(BOB,), sender=ALICE, mail_options=(), rcpt_options=(), text=None):
        with self.gmail.smtp("submissions") as s:
            s.login(ALICE, PASSWORD)
            s.sendmail(sender, list(to), text or message(subject, to=to[0]), mail_options, rcpt_options)

    def report(self, *markers, server=None, seconds=30):
        """The report that holds the markers: parsed, and checked for what holds of every report."""
        server = server or self.gmail

        def found():
            return [m for m in server.messages() if all(x.encode() in m for x in (*markers, "multipart/report"))]
        raw = wait_until(found, f"a report with {markers}", seconds)
        self.assertEqual(len(raw), 1, raw)
        parsed = email.message_from_bytes(raw[0], policy=email.policy.SMTP)
        self.well_formed(parsed, raw[0])
        human, status, returned = parsed.get_payload()
        about, *recipients = self.fields(status)
        self.assertLessEqual(MUST_MESSAGE, about.keys())
        self.assertTrue(recipients)
        for group in (about, *recipients):
            for name in DATES:
                if name in group:
                    self.assertIsNotNone(parsedate_to_datetime(group[name]))
        for recipient in recipients:
            self.assertLessEqual(MUST_RECIPIENT, recipient.keys())
            self.assertRegex(recipient["Status"], r"^[245]\.\d{1,3}\.\d{1,3}$")
            self.assertIn(recipient["Action"], ("failed", "delayed", "delivered", "relayed", "expanded"))
            self.assertRegex(recipient["Final-Recipient"], r"^(rfc822|utf-8); \S+@\S+$")
        return human.get_content(), about, recipients, returned, parsed

    def well_formed(self, parsed, raw):
        """RFC 6522, RFC 5322, RFC 3834: the form, without a defect that the library would find."""
        for part in parsed.walk():
            self.assertEqual(part.defects, [], part.get_content_type())
        for name, value in parsed.items():
            self.assertEqual(getattr(value, "defects", ()), (), name)
        self.assertEqual(parsed.get_content_type(), "multipart/report")
        self.assertEqual(parsed.get_param("report-type"), "delivery-status")
        self.assertEqual(parsed["Auto-Submitted"], "auto-replied")
        self.assertTrue(raw.startswith(b"Return-Path: <>\r\n"), raw[:80])
        self.assertEqual([len(parsed.get_all(x)) for x in ("From", "To", "Date", "Message-ID", "Subject")], [1] * 5)
        self.assertEqual(len(parsed.get_payload()), 3)
        self.assertNotRegex(raw, rb"[^\r]\n|\r[^\n]", "CR LF alone")
        self.assertLessEqual(max(map(len, raw.split(b"\r\n"))), 998)
        self.assertEqual(parsed.get_payload(0).get_content_type(), "text/plain")

    def fields(self, part):
        """The groups of fields; the international form the library does not know, so it is read here."""
        if part.get_content_type() == "message/delivery-status":
            return [dict(group.items()) for group in part.get_payload()]
        self.assertEqual(part.get_content_type(), "message/global-delivery-status")
        payload = part.get_payload(0).as_bytes() if part.is_multipart() else part.get_payload(decode=True)
        groups = payload.decode().replace("\r\n", "\n").strip().split("\n\n")
        return [dict(line.split(": ", 1) for line in re.sub(r"\n[ \t]+", " ", g).split("\n")) for g in groups]

    def queue_is_empty(self, server):
        return wait_until(lambda: "queue is empty" in server.cli("queue", "list").stdout, "an empty queue")

    # --- the five actions ---

    def test_failed(self):
        self.submit("failed", ("nobody@example.com",), mail_options=["ENVID=f+2B1", "RET=HDRS"],
                    rcpt_options=["ORCPT=rfc822;Old+2Bone@example.com"])
        human, about, [r], returned, parsed = self.report("Original-Envelope-Id: f+1")
        self.assertEqual((r["Action"], r["Status"], r["X-Failure-Class"]), ("failed", "5.1.1", "unknown-user"))
        self.assertEqual(r["Original-Recipient"], "rfc822; Old+one@example.com")
        self.assertEqual(r["Final-Recipient"], "rfc822; nobody@example.com")
        self.assertRegex(r["Diagnostic-Code"], r"^smtp; 550 5\.1\.1 There is no nobody@example.com here")
        self.assertIn("Remote-MTA", r)
        self.assertIn("Arrival-Date", about)
        self.assertEqual(returned.get_content_type(), "text/rfc822-headers")
        self.assertIn("Subject: failed", returned.get_content())
        self.assertNotIn("how are you", returned.get_content())
        for words in ("The address does not exist there.", "Whose move:", "What helps:", "There is no nobody"):
            self.assertIn(words, human)
        self.assertEqual(parsed["To"], ALICE)

    def test_several_that_fail_together_stand_in_one_report(self):
        self.submit("together", ("nobody@example.com", "nobody2@example.com"), mail_options=["ENVID=t", "RET=FULL"])
        _, _, recipients, returned, _ = self.report("Original-Envelope-Id: t")
        self.assertEqual({r["Final-Recipient"] for r in recipients},
                         {"rfc822; nobody@example.com", "rfc822; nobody2@example.com"})
        self.assertEqual(returned.get_content_type(), "message/rfc822")
        self.assertIn("how are you", returned.get_payload(0).get_content())

    def test_delayed_then_given_up(self):
        self.restart(self.gmail, "queue.delay_notice_secs=1", "queue.expire_secs=6")
        self.submit("late", ("eve@strange.example",), mail_options=["ENVID=late"])
        human, _, [r], _, _ = self.report("Original-Envelope-Id: late", "Action: delayed")
        self.assertEqual((r["Status"], r["X-Failure-Class"]), ("4.4.1", "no-connection"))
        self.assertIn("Will-Retry-Until", r)
        self.assertIn("still being tried", human)
        # A server that is down is tried again half a minute later; only then is the message looked at.
        _, _, [r], _, _ = self.report("Original-Envelope-Id: late", "Action: failed", seconds=90)
        self.assertEqual((r["Status"], r["X-Failure-Class"]), ("5.4.1", "no-connection"))
        self.assertTrue(r["Diagnostic-Code"].startswith("x-local; connection refused"), r)
        self.queue_is_empty(self.gmail)

    def test_delivered_and_expanded(self):
        self.gmail.cli("account", "add", "carol@gmail.com", "--password-stdin", stdin="green grass by the brook\n")
        self.gmail.cli("group", "add", "all@gmail.com", ALICE, "carol@gmail.com")
        self.submit("here", ("carol@gmail.com",), mail_options=["ENVID=d"], rcpt_options=["NOTIFY=SUCCESS"])
        _, _, [r], _, _ = self.report("Original-Envelope-Id: d\r\n")
        self.assertEqual((r["Action"], r["Status"]), ("delivered", "2.0.0"))
        self.submit("all", ("all@gmail.com",), mail_options=["ENVID=x"], rcpt_options=["NOTIFY=SUCCESS"])
        _, _, [r], _, _ = self.report("Original-Envelope-Id: x\r\n")
        self.assertEqual((r["Action"], r["Final-Recipient"]), ("expanded", "rfc822; all@gmail.com"))

    def test_relayed_to_a_server_that_makes_no_reports(self):
        """RFC 3461 §5.2.2: then the report is ours; "delivered" where the other side is a mailbox (LMTP)."""
        server = ByHand("127.0.3.1")
        self.addCleanup(server.close)
        for how, action in (("--host", "relayed"), ("--lmtp", "delivered")):
            self.gmail.cli("route", "add", "example.com", how, f"127.0.3.1:{server.port}")
            self.submit(action, mail_options=[f"ENVID={action}"], rcpt_options=["NOTIFY=SUCCESS"])
            _, _, [r], _, _ = self.report(f"Original-Envelope-Id: {action}\r\n")
            self.assertEqual((r["Action"], r["Status"]), (action, "2.0.0"))
            self.assertEqual(r["Remote-MTA"], "dns; [127.0.3.1]")
            self.gmail.cli("route", "remove", "example.com")
        self.assertEqual(len(server.messages), 2)

    # --- beyond ASCII ---

    def test_international(self):
        to = "näemand@example.com"
        text = message("grüße", to=to).encode()
        self.submit("", (to,), mail_options=["SMTPUTF8", "BODY=8BITMIME", "ENVID=i", "RET=FULL"],
                    rcpt_options=["ORCPT=utf-8;n\\x{E4}emand@example.com"], text=text)
        human, _, [r], returned, parsed = self.report("Original-Envelope-Id: i\r\n")
        self.assertEqual(r["Final-Recipient"], f"utf-8; {to}")
        self.assertEqual(r["Original-Recipient"], f"utf-8; {to}")
        self.assertEqual(returned.get_content_type(), "message/global")
        self.assertIn(to, human)
        self.assertTrue(str(parsed["Subject"]).isascii())

    # --- who gets none ---

    def test_never(self):
        self.submit("never", ("nobody@example.com",), mail_options=["ENVID=n"], rcpt_options=["NOTIFY=NEVER"])
        self.queue_is_empty(self.gmail)
        self.assertFalse([m for m in self.gmail.messages() if b"multipart/report" in m])

    def test_a_bounce_never_bounces(self):
        """RFC 5321 §6.1: what has no reverse-path is never reported, whatever becomes of it."""
        self.submit("bounce", ("nobody@example.com",), sender="")
        self.queue_is_empty(self.gmail)
        self.assertFalse([m for m in self.gmail.messages() if b"multipart/report" in m])
        self.assertIn("without a report to the sender", self.gmail.cli("trace", "nobody@example.com").stdout)

    def test_no_report_to_a_sender_that_was_forged(self):
        """A stranger names somebody else as the sender, asks for a report, and writes to an alias that leads to an
        address elsewhere which refuses: neither success nor failure is told to who is named."""
        self.example.cli("account", "add-alias", "info@example.com", BOB)
        self.example.cli("alias", "add", "far@example.com", "nobody@gmail.com")
        self.restart(self.example, f"deliver.port={self.gmail.ports['smtp']}")
        for to, options in (("info@example.com", ["NOTIFY=SUCCESS"]), ("far@example.com", ["NOTIFY=SUCCESS,FAILURE"])):
            # 127.0.3.1 is not an address of gmail.com: SPF fails.
            with self.example.smtp(source="127.0.3.1") as s:
                text = message(f"forged for {to}", sender="eve@strange.example", to=to)
                s.sendmail(ALICE, [to], text, ["ENVID=forged"], options)
        self.queue_is_empty(self.example)
        self.queue_is_empty(self.gmail)
        self.assertFalse([m for m in self.gmail.messages() if b"multipart/report" in m])

    # --- and who is not written to again ---

    def test_an_unknown_address_is_suppressed_for_who_wants_it(self):
        self.restart(self.gmail, 'limits.suppress_for=["@gmail.com"]')
        self.assertIn("no address is suppressed", self.gmail.cli("suppression", "list").stdout)
        self.submit("first", ("nobody@example.com",), mail_options=["ENVID=first"])
        self.report("Original-Envelope-Id: first")
        with self.assertRaises(smtplib.SMTPRecipientsRefused) as refused:
            self.submit("second", ("nobody@example.com",))
        code, words = refused.exception.recipients["nobody@example.com"]
        self.assertEqual(code, 550)
        self.assertRegex(words, rb"^5\.1\.1 nobody@example\.com does not exist, \S+ said on .* not tried again for you until")
        listed = self.gmail.cli("suppression", "list").stdout
        self.assertIn("There is no nobody@example.com here", listed)
        self.assertIn("@gmail.com", listed)
        told = self.gmail.cli("--json", "route", ALICE, "nobody@example.com", check=False)
        [held_up] = json.loads(told.stdout)["held_up"]
        self.assertEqual((told.returncode, held_up["what"]), (1, "refuse"))
        self.assertIn("There is no nobody@example.com here", held_up["why"])
        self.assertEqual(held_up["remedy"], "posthaste suppression remove nobody@example.com")
        self.gmail.cli("suppression", "remove", "nobody@example.com")
        self.submit("third", ("nobody@example.com",), mail_options=["ENVID=third"])
        self.report("Original-Envelope-Id: third")
        self.gmail.cli("audit")


if __name__ == "__main__":
    unittest.main()
