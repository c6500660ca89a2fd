"""DANE between two whole servers: a signed DNS, the TLSA record that the receiver prints of itself, and a
sender that validates."""

import unittest

from world import PASSWORD, Process, World, message, wait_until

WRONG = "3 1 1 " + "07" * 32


class Dane(unittest.TestCase):
    def setUp(self):
        self.world = World()
        self.gmail, self.example = self.world.gmail, self.world.example
        self.folder = self.gmail.folder.parent
        zone = self.example.cli("dns", "records", "example.com").stdout
        line = next(line for line in zone.splitlines() if line.startswith("_25._tcp.mail IN TLSA "))
        self.right = line.split(" TLSA ")[1]

    def tearDown(self):
        self.world.close()

    def publish(self, record, sign=True):
        """Starts the DNS and the sender anew: the zones signed, with this record for the receiver's port."""
        self.world.dns.stop()
        if self.gmail.process:
            self.gmail.stop()
        tlsa, anchors = self.folder / "tlsa.zone", self.folder / "anchors"
        port = self.example.ports["smtp"]
        tlsa.write_text(f"_{port}._tcp.mail.example.com. 60 IN TLSA {record}\n" if record else "")
        zones = [x for name in ("gmail.com", "example.com", "tlsa") for x in ("--zone", self.folder / f"{name}.zone")]
        sign = ["--sign", anchors] if sign else []
        self.world.dns = Process(
            "lab", "dns", *zones, *sign, "--listen", f"127.0.0.1:{self.world.dns_port}", log=self.folder / "dns.log"
        )
        self.gmail.start('dns.dnssec="validate"', f'dns.trust_anchors="{anchors}"')

    def submit(self, subject):
        with self.gmail.smtp("submissions") as s:
            s.login("alice@gmail.com", PASSWORD)
            s.sendmail("alice@gmail.com", ["bob@example.com"], message(subject))

    def trace(self, what="bob@example.com"):
        return self.gmail.cli("trace", what).stdout

    def test_what_the_receiver_prints_of_itself_is_what_it_is_verified_by(self):
        self.publish(self.right)
        self.submit("by DANE")
        self.example.wait_for("by DANE")
        self.assertIn("verified by DANE-EE", self.trace())

    def test_mail_waits_while_the_record_is_wrong_and_goes_when_it_is_right(self):
        self.publish(WRONG)
        self.submit("patience")
        words = "matches none of the TLSA records of mail.example.com"
        wait_until(lambda: words in self.trace(), words)
        self.assertEqual(self.example.messages(), [])
        self.publish(self.right)
        self.example.wait_for("patience")
        self.assertIn("verified by DANE-EE", self.trace())

    def test_mail_waits_while_somebody_takes_the_signatures_away(self):
        self.publish(self.right)
        self.publish(self.right, sign=False)
        self.submit("stripped")
        words = "DNSSEC signatures do not verify"
        wait_until(lambda: words in self.trace(), words)
        self.assertEqual(self.example.messages(), [])

    def test_a_signed_domain_without_records_gets_its_mail(self):
        self.publish("")
        self.submit("as ever")
        self.example.wait_for("as ever")
        self.assertNotIn("verified by", self.trace())


if __name__ == "__main__":
    unittest.main()
