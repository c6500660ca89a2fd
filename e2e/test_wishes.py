"""What a sender asks of a message, from one server to another: reports, a hold, a binary body."""

import email
import json
import unittest

from world import PASSWORD, World, message, wait_until


class Wishes(unittest.TestCase):
    def setUp(self):
        self.world = World()
        self.gmail, self.example = self.world.gmail, self.world.example
        # Reports go the other way.
        self.example.stop()
        self.example.start(f"deliver.port={self.gmail.ports['smtp']}")

    def tearDown(self):
        self.world.close()

    def submit(self, subject, mail_options=(), rcpt_options=(), to="bob@example.com"):
        with self.gmail.smtp("submissions") as s:
            s.login("alice@gmail.com", PASSWORD)
            s.sendmail("alice@gmail.com", [to], message(subject, to=to), mail_options, rcpt_options)

    def report(self, marker):
        """The report to alice that holds the marker: its status fields and the type of what came back."""
        found = self.gmail.wait_for(marker)
        self.assertEqual(len(found), 1)
        parsed = email.message_from_bytes(found[0])
        self.assertEqual(parsed.get_content_type(), "multipart/report")
        self.assertEqual(parsed["Auto-Submitted"], "auto-replied")
        _, status, returned = parsed.get_payload()
        about_message, about_recipient = status.get_payload()
        return parsed, about_message, about_recipient, returned

    def test_the_last_server_reports_success_to_the_first_sender(self):
        self.submit(
            "to be reported", ["RET=HDRS", "ENVID=e2e+2B1"],
            ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;Old+2Bbob@example.com"],
        )
        parsed, about, recipient, returned = self.report("Original-Envelope-Id: e2e+1")
        self.assertIn("postmaster@example.com", parsed["From"])
        self.assertEqual(about["Reporting-MTA"], f"dns; {self.hostname(self.example)}")
        self.assertEqual(recipient["Original-Recipient"], "rfc822; Old+bob@example.com")
        self.assertEqual(recipient["Final-Recipient"], "rfc822; bob@example.com")
        self.assertEqual(recipient["Action"], "delivered")
        self.assertEqual(returned.get_content_type(), "text/rfc822-headers")
        self.assertIn("d=example.com", parsed["DKIM-Signature"])
        verdict = parsed["Authentication-Results"]
        self.assertIn("dkim=pass", verdict, "a report is signed, and that is seen")
        self.assertIn("dmarc=pass", verdict)

    def hostname(self, server):
        with server.smtp() as s:
            s.ehlo()
            return s.ehlo_resp.split(b"\n")[0].split()[0].decode()

    def test_a_failure_brings_back_what_was_asked_for(self):
        self.submit("whole", ["RET=FULL", "ENVID=whole"], to="nobody@example.com")
        _, _, recipient, returned = self.report("Original-Envelope-Id: whole")
        self.assertEqual((recipient["Action"], recipient["Status"]), ("failed", "5.1.1"))
        self.assertEqual(returned.get_content_type(), "message/rfc822")
        self.assertIn("how are you", returned.get_payload(0).get_payload())
        self.submit("never", ["ENVID=never"], ["NOTIFY=NEVER"], to="nobody@example.com")
        wait_until(lambda: "queue is empty" in self.gmail.cli("queue", "list").stdout, "the end of it")
        self.assertFalse([m for m in self.gmail.messages() if b"Original-Envelope-Id: never" in m])

    def test_a_held_message_is_listed_as_held_and_told(self):
        self.submit("later", ["HOLDFOR=3600", "MT-PRIORITY=3", "BY=600;N"])
        [row] = json.loads(self.gmail.cli("--json", "queue", "list").stdout)
        self.assertEqual([e["state"] for e in row["errands"]], ["held"])
        shown = self.gmail.cli("queue", "show", row["id"]).stdout
        self.assertIn("priority 3", shown)
        self.assertIn("The sender asked: delivery by ", self.gmail.cli("trace", row["id"]).stdout)
        self.gmail.cli("queue", "retry", row["id"])
        self.example.wait_for("Subject: later")

    def test_a_binary_message_arrives_octet_for_octet(self):
        body = b"bare\nlf, bare\rcr\r\n.\r\nMAIL FROM:<evil@example.com>\r\n\0 and no end"
        head = b"From: alice@gmail.com\r\nTo: bob@example.com\r\nSubject: binary\r\n\r\n"
        with self.gmail.smtp("submissions") as s:
            s.login("alice@gmail.com", PASSWORD)
            s.ehlo()
            self.assertTrue(s.has_extn("binarymime") and s.has_extn("chunking"))
            self.assertEqual(s.docmd("MAIL", "FROM:<alice@gmail.com> BODY=BINARYMIME")[0], 250)
            self.assertEqual(s.docmd("RCPT", "TO:<bob@example.com>")[0], 250)
            whole = head + body
            s.send(b"BDAT %d LAST\r\n" % len(whole) + whole)
            self.assertEqual(s.getreply()[0], 250)
        [arrived] = self.example.wait_for("Subject: binary")
        self.assertTrue(arrived.endswith(b"\r\n\r\n" + body), arrived)
        self.assertIn(b"dkim=pass", arrived)


if __name__ == "__main__":
    unittest.main()
