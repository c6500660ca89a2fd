"""What an operator does from the command line, with and without a running server."""

import imaplib
import json
import pathlib
import smtplib
import subprocess
import tempfile
import unittest

from world import BINARY, PASSWORD, MailServer, Process, free_port, message, run, wait_until


class Operator(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="posthaste-e2e-")
        self.folder = pathlib.Path(self.temporary.name)
        self.server = MailServer(self.folder, "example.com", "127.0.0.1", free_port("127.0.0.1"), "bob@example.com")

    def tearDown(self):
        if self.server.process:
            self.server.stop()
        self.temporary.cleanup()

    def json(self, *args):
        return json.loads(self.server.cli("--json", *args).stdout)

    def test_the_same_orders_work_with_and_without_a_server(self):
        def orders(name):
            self.server.cli("account", "add", f"{name}@example.com", "--password-stdin", stdin="a password\n")
            self.server.cli("account", "add-alias", f"{name}.alias@example.com", f"{name}@example.com")
            shown = self.json("account", "show", f"{name}@example.com")
            self.assertEqual(shown["aliases"], [f"{name}.alias@example.com"])
            self.assertIn("INBOX", [m["name"] for m in shown["mailboxes"]])
            self.assertIn(f"{name}@example.com", self.server.cli("account", "list").stdout)
        orders("without")
        self.server.start()
        orders("with")
        self.assertEqual(self.server.cli("account", "add", "with@example.com", check=False).returncode, 1)
        self.assertEqual(self.server.cli("account", "show", "nobody@example.com", check=False).returncode, 1)
        domains = self.json("domain", "list")
        self.assertEqual(domains[0]["domain"], "example.com")
        self.assertEqual(len(domains[0]["selectors"]), 2)

    def test_a_revoked_app_password_opens_nothing(self):
        self.server.start()
        made = self.json("account", "app-password", "bob@example.com", "--scope", "imap", "--name", "phone")
        box = self.server.imap(login=False)
        box.login("bob@example.com", made["password"])
        box.logout()
        with self.server.smtp("submissions") as s, self.assertRaises(smtplib.SMTPAuthenticationError):
            s.login("bob@example.com", made["password"])  # not in its scope
        number = self.json("account", "show", "bob@example.com")["app_passwords"][0]["number"]
        self.server.cli("account", "revoke-app-password", "bob@example.com", number)
        with self.assertRaises(imaplib.IMAP4.error):
            self.server.imap(login=False).login("bob@example.com", made["password"])

    def test_suspended_accounts_take_mail_but_no_login(self):
        self.server.start()
        self.server.cli("account", "suspend", "bob@example.com")
        with self.assertRaises(imaplib.IMAP4.error):
            self.server.imap()
        self.server.cli("account", "resume", "bob@example.com")
        self.server.imap().logout()

    def test_login_without_tls_is_off_by_default_and_only_for_loopback(self):
        self.server.start()
        self.assertIn("LOGINDISABLED", imaplib.IMAP4("127.0.0.1", self.server.ports["imap"]).capabilities)
        self.server.stop()
        self.server.start("login.without_tls_on_loopback=true")
        box = imaplib.IMAP4("127.0.0.1", self.server.ports["imap"])
        box.login("bob@example.com", PASSWORD)
        box.logout()
        with smtplib.SMTP("127.0.0.1", self.server.ports["submission"]) as s:
            s.login("bob@example.com", PASSWORD)
        refused = self.server.cli("--set", "login.without_tls_on_loopback=true", "--set",
                                  'listen.imap=["0.0.0.0:0"]', "check", check=False)
        self.assertEqual(refused.returncode, 3)
        self.assertIn("loopback", refused.stderr)

    def test_errors_help(self):
        self.server.start()
        second = self.server.cli("--set", "listen.smtp=[]", "serve", check=False)
        self.assertEqual(second.returncode, 4)
        self.assertIn("another process", second.stderr)
        (self.folder / "bad.toml").write_text('hostnam = "x"\n')
        bad = run("--config", self.folder / "bad.toml", "check", check=False)
        self.assertEqual(bad.returncode, 3)
        self.assertIn("did you mean `hostname`", bad.stderr)
        self.assertIn("line 1", bad.stderr)
        taken = subprocess.run([BINARY, "--config", str(self.server.config), "init", "example.com", "--yes"],
                               capture_output=True, text=True)
        self.assertEqual(taken.returncode, 1)
        self.assertIn("domain add", taken.stderr)

    def test_a_queued_message_can_be_seen_and_dropped(self):
        self.server.start('deliver.route=[{domain="*", host="127.0.0.1", port=1}]', "queue.retry_first_secs=600",
                          "queue.retry_max_secs=600")
        self.server.submit(message("dropped", "bob@example.com", "x@elsewhere.example"), ["x@elsewhere.example"])

        def tried():
            rows = self.json("queue", "list")
            return rows if rows and rows[0]["errands"][0]["attempts"] else None
        row = wait_until(tried, "the first attempt")[0]
        self.assertIn("refused", row["errands"][0]["last_outcome"].lower())
        self.assertIn("x@elsewhere.example", self.server.cli("queue", "show", row["id"]).stdout)
        self.server.cli("queue", "drop", row["id"])
        self.assertEqual(self.json("queue", "list"), [])
        self.assertIn("dropped", self.server.cli("trace", row["id"]).stdout)

    def test_dkim_sign_on_the_command_line(self):
        zone = self.folder / "zone"
        zone.write_text(self.server.zone)
        dns = Process("lab", "dns", "--zone", zone, log=self.folder / "dns.log")
        try:
            where = dns.lines[0].split()[1]
            text = message("signed by hand", "bob@example.com", "x@elsewhere.example")
            signed = self.server.cli("dkim", "sign", "--dns", where, stdin=text)
            self.assertEqual(signed.stdout.count("DKIM-Signature:"), 2)
            self.assertIn("pass", signed.stderr)
            self.assertEqual(run("auth", "dkim", "--dns", where, stdin=signed.stdout).returncode, 0)
            forged = signed.stdout.replace("how are you", "how were you")
            self.assertEqual(run("auth", "dkim", "--dns", where, stdin=forged, check=False).returncode, 1)
        finally:
            dns.stop()

    def test_a_smarthost_gets_a_login_over_verified_tls(self):
        (self.folder / "other").mkdir()
        other = MailServer(self.folder / "other", "other.example", "127.0.0.1", self.server.dns_port, "olga@other.example")
        self.server.cli("domain", "add", "other.example")
        self.server.cli("account", "add-alias", "olga@other.example", "bob@example.com")
        self.server.start()
        (self.folder / "other" / "secret").write_text(PASSWORD + "\n")
        route = (f'domain="*", host="127.0.0.1", port={self.server.ports["submission"]}, tls="required", '
                 f'user="bob@example.com", password_file="{self.folder}/other/secret"')
        other.start(f"deliver.route=[{{{route}}}]", f'deliver.extra_roots="{self.server.certificate}"')
        try:
            other.submit(message("by smarthost", "olga@other.example"), ["bob@example.com"])
            got = self.server.wait_for("Subject: by smarthost")[0]
            self.assertIn(b"with ESMTPSA", got)
        finally:
            other.stop()

    def test_a_route_takes_mail_past_the_mx_lookup(self):
        (self.folder / "other").mkdir()
        other = MailServer(self.folder / "other", "other.example", "127.0.0.1", self.server.dns_port, "olga@other.example")
        zone = self.folder / "zones"
        zone.write_text(self.server.zone + "\n" + other.zone)
        dns = Process("lab", "dns", "--zone", zone, "--listen", f"127.0.0.1:{self.server.dns_port}", log=self.folder / "dns.log")
        try:
            other.start()
            route = f'deliver.route=[{{domain="other.example", host="127.0.0.1", port={other.ports["smtp"]}}}]'
            self.server.start(route)
            self.server.submit(message("routed", "bob@example.com", "olga@other.example"), ["olga@other.example"])
            other.wait_for("Subject: routed")
            other.stop()
        finally:
            dns.stop()


if __name__ == "__main__":
    unittest.main()
