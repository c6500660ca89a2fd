"""TLS reports (RFC 8460) with Python's email, gzip and json: one that Python made is read, one that we make
is read by Python, and what is counted of conversations is told."""

import email
import email.policy
import gzip
import json
import unittest
from email.message import EmailMessage

from world import ROOT, World, message, wait_until

EXAMPLE = ROOT / "crates" / "tlsrpt" / "tests" / "data" / "rfc8460-appendix-b.json"
GOLDEN = ROOT / "crates" / "tlsrpt" / "tests" / "data" / "report.eml"


class TlsReports(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.world = World()

    @classmethod
    def tearDownClass(cls):
        cls.world.close()

    def test_a_report_made_by_python_is_read_and_told(self):
        report = json.loads(EXAMPLE.read_text())
        report["policies"][0]["policy"]["policy-domain"] = "example.com"
        mail = EmailMessage()
        mail["From"], mail["To"] = "alice@gmail.com", "postmaster@example.com"
        mail["Subject"] = "Report Domain: example.com Submitter: gmail.com Report-ID: <1@gmail.com>"
        mail["TLS-Report-Domain"], mail["TLS-Report-Submitter"] = "example.com", "gmail.com"
        mail.set_content("A report about TLS.\n")
        packed = gzip.compress(json.dumps(report, indent=2).encode())
        mail.add_attachment(packed, "application", "tlsrpt+gzip", filename="gmail.com!example.com!1!2.json.gz")
        mail.replace_header("Content-Type", "multipart/report; report-type=tlsrpt")
        mail.set_boundary("=_report")
        octets = mail.as_bytes(policy=email.policy.SMTP)
        self.world.gmail.submit(octets, ["postmaster@example.com"], sender="alice@gmail.com")
        example = self.world.example

        def rows():
            return json.loads(example.cli("--json", "tlsrpt", "list").stdout)

        only = wait_until(rows, "the report")[0]
        self.assertEqual((only["successful"], only["failed"]), (5326, 303))
        self.assertEqual(only["signed_by"], "gmail.com")
        self.assertEqual(only["reasons"][0], ["starttls-not-supported", 200])
        told = example.cli("tlsrpt", "show", "--domain", "example.com").stdout
        self.assertIn("Company-X", told)
        self.assertIn("what helps: renew the server's certificate", told)
        self.assertIn("Company-X", example.cli("tlsrpt", "list").stdout)

    def test_a_report_of_ours_is_read_by_python(self):
        mail = email.message_from_bytes(GOLDEN.read_bytes(), policy=email.policy.default)
        self.assertEqual(mail.defects, [])
        self.assertEqual(mail.get_content_type(), "multipart/report")
        self.assertEqual(mail.get_param("report-type"), "tlsrpt")
        text, attached = mail.iter_parts()
        self.assertEqual(text.get_content_type(), "text/plain")
        self.assertEqual(attached.get_content_type(), "application/tlsrpt+gzip")
        self.assertEqual(attached.get_filename(), "example.com!example.org!1795392000!1795478399.json.gz")
        report = json.loads(gzip.decompress(attached.get_content()))
        one = report["policies"][0]
        self.assertEqual(one["policy"]["policy-type"], "no-policy-found")
        self.assertEqual(one["summary"]["total-successful-session-count"], 3)
        self.assertEqual(one["failure-details"][0]["result-type"], "starttls-not-supported")

    def test_conversations_are_counted(self):
        self.world.gmail.submit(message("counted"), ["bob@example.com"])
        self.world.example.wait_for("Subject: counted")

        def counted():
            rows = json.loads(self.world.gmail.cli("--json", "tlsrpt", "outgoing", "--today").stdout)["rows"]
            return [row for row in rows if row["domain"] == "example.com" and row["successful"] > 0]

        row = wait_until(counted, "the count of the conversation")[0]
        self.assertEqual(row["failed"], 0)

    def test_the_record_is_printed(self):
        zone = self.world.example.cli("dns", "records", "example.com").stdout
        self.assertIn('_smtp._tls IN TXT "v=TLSRPTv1; rua=mailto:postmaster@example.com"', zone)
