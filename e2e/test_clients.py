"""Real clients against a running `posthaste serve`."""

import imaplib
import os
import pathlib
import poplib
import smtplib
import subprocess
import tempfile
import time
import unittest

import dkim
import dns.resolver

from world import PASSWORD, World, message, run, wait_until


class Clients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.world = World()
        cls.gmail, cls.example = cls.world.gmail, cls.world.example

    @classmethod
    def tearDownClass(cls):
        cls.world.close()

    # --- SMTP ---

    def test_port_25_takes_mail_from_a_stranger_with_starttls(self):
        with self.example.smtp("smtp", source="127.0.3.1") as s:
            code, text = s.ehlo("strange.example")
            self.assertEqual(code, 250)
            for extension in ("size", "starttls", "pipelining", "8bitmime", "smtputf8", "enhancedstatuscodes"):
                self.assertIn(extension, s.esmtp_features)
            self.assertNotIn("auth", s.esmtp_features, "no AUTH on port 25")
            s.starttls(context=self.example.tls())
            s.ehlo("strange.example")
            self.assertNotIn("starttls", s.esmtp_features)
            s.sendmail("x@strange.example", ["bob@example.com"], message("over 25", "x@strange.example"))
        got = self.example.wait_for("Subject: over 25")[0]
        self.assertTrue(got.startswith(b"Return-Path: <x@strange.example>\r\n"), got[:200])
        self.assertIn(b"spf=pass", got)
        self.assertIn(b"Received: from strange.example", got)
        self.assertIn(b"Received-SPF: pass", got)

    def test_port_25_is_no_open_relay(self):
        with self.example.smtp("smtp", source="127.0.3.1") as s:
            s.ehlo("strange.example")
            s.mail("x@strange.example")
            code, text = s.rcpt("someone@gmail.com")
            self.assertEqual((code, text[:5]), (550, b"5.7.1"))
            code, text = s.rcpt("nobody@example.com")
            self.assertEqual((code, text[:5]), (550, b"5.1.1"))
            self.assertEqual(s.verify("bob")[0], 252)

    def test_forged_sender_is_refused_by_dmarc(self):
        with self.example.smtp("smtp", source="127.0.9.9") as s:
            s.ehlo("forger.example")
            with self.assertRaises(smtplib.SMTPDataError) as refusal:
                s.sendmail("alice@gmail.com", ["bob@example.com"], message("forged"))
        self.assertEqual(refusal.exception.smtp_code, 550)
        text = refusal.exception.smtp_error.decode()
        self.assertIn("5.7.26", text)
        self.assertIn("SPF", text)
        self.assertIn("DKIM", text)
        self.assertFalse(any(b"Subject: forged" in m for m in self.example.messages()))
        story = self.example.cli("trace", "alice@gmail.com").stdout
        self.assertIn("5.7.26", story)

    def test_submission_587_with_starttls_goes_the_whole_way(self):
        with self.gmail.smtp("submission") as s:
            s.ehlo("laptop")
            self.assertNotIn("auth", s.esmtp_features, "AUTH only inside TLS")
            s.starttls(context=self.gmail.tls())
            s.ehlo("laptop")
            self.assertIn("PLAIN", s.esmtp_features["auth"])
            self.assertIn("LOGIN", s.esmtp_features["auth"])
            s.login("alice@gmail.com", PASSWORD)
            s.sendmail("alice@gmail.com", ["bob@example.com"], message("the whole way 587"))
        got = self.example.wait_for("Subject: the whole way 587")[0]
        for proof in (b"spf=pass", b"dkim=pass", b"dmarc=pass"):
            self.assertIn(proof, got)
        self.assertIn(b"\nDate: ", got)
        self.assertIn(b"\nMessage-ID: ", got)
        told = self.gmail.cli("trace", "bob@example.com").stdout
        self.assertIn("mail.example.com", told)

    def test_submission_465_and_auth_login(self):
        with self.gmail.smtp("submissions") as s:
            s.ehlo("laptop")
            s.user, s.password = "alice@gmail.com", PASSWORD
            s.auth("LOGIN", s.auth_login)
            s.sendmail("alice@gmail.com", ["bob@example.com"], message("by 465"))
        self.example.wait_for("Subject: by 465")

    def test_auth_failures_are_told_apart(self):
        with self.gmail.smtp("submission") as s:
            s.ehlo("laptop")
            self.assertEqual(s.docmd("AUTH", "PLAIN AGEAYg==")[0], 538)
            code, text = s.docmd("MAIL", "FROM:<alice@gmail.com>")
            self.assertEqual((code, text[:5]), (530, b"5.7.0"))
            s.starttls(context=self.gmail.tls())
            s.ehlo("laptop")
            self.assertEqual(s.docmd("MAIL", "FROM:<alice@gmail.com>")[0], 530)
            with self.assertRaises(smtplib.SMTPAuthenticationError) as wrong:
                s.login("alice@gmail.com", "wrong")
            self.assertEqual(wrong.exception.smtp_code, 535)
            self.assertIn(b"5.7.8", wrong.exception.smtp_error)

    def test_the_sender_must_be_the_login(self):
        with self.gmail.smtp("submissions") as s:
            s.login("alice@gmail.com", PASSWORD)
            self.assertIn(s.mail("president@gmail.com")[0], (550, 553))
            s.rset()
            with self.assertRaises(smtplib.SMTPDataError):
                s.sendmail("alice@gmail.com", ["bob@example.com"], message("x", sender="president@gmail.com"))

    def test_second_factor_needs_an_app_password(self):
        self.gmail.cli("account", "add", "carol@gmail.com", "--password-stdin", stdin="carols password\n")
        self.gmail.cli("account", "second-factor", "carol@gmail.com", "on")
        import json
        made = json.loads(self.gmail.cli("--json", "account", "app-password", "carol@gmail.com").stdout)
        with self.gmail.smtp("submissions") as s:
            with self.assertRaises(smtplib.SMTPAuthenticationError) as refusal:
                s.login("carol@gmail.com", "carols password")
            self.assertEqual(refusal.exception.smtp_code, 534)
            self.assertIn(b"5.7.9", refusal.exception.smtp_error)
        with self.gmail.smtp("submissions") as s:
            s.login("carol@gmail.com", made["password"])
        box = self.gmail.imap(login=False)
        with self.assertRaises(imaplib.IMAP4.error):
            box.login("carol@gmail.com", "carols password")
        box.login("carol@gmail.com", made["password"])
        box.logout()

    def test_swaks(self):
        with tempfile.TemporaryDirectory() as folder:
            for service, options in (("submission", ["-tls"]), ("submissions", ["-tlsc"])):
                done = subprocess.run(
                    ["swaks", "--server", self.gmail.address, "--port", str(self.gmail.ports[service]), *options,
                     "--auth", "PLAIN", "--auth-user", "alice@gmail.com", "--auth-password", PASSWORD,
                     "--from", "alice@gmail.com", "--to", "bob@example.com",
                     "--header", f"Subject: swaks {service}", "--body", "x"],
                    capture_output=True, text=True, timeout=60, cwd=folder)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                self.example.wait_for(f"Subject: swaks {service}")

    def test_openssl_on_every_tls_port(self):
        ports = [("smtp", "smtp"), ("submission", "smtp"), ("submissions", None), ("imap", "imap"),
                 ("imaps", None), ("pop3", "pop3"), ("pop3s", None)]
        for service, starttls in ports:
            extra = ["-starttls", starttls] if starttls else []
            done = subprocess.run(
                ["openssl", "s_client", "-connect", f"{self.gmail.address}:{self.gmail.ports[service]}", *extra,
                 "-CAfile", str(self.gmail.certificate), "-verify_return_error", "-verify_hostname", "localhost",
                 "-brief"],
                input="QUIT\r\n", capture_output=True, text=True, timeout=60)
            told = done.stdout + done.stderr
            self.assertEqual(done.returncode, 0, f"{service}: {told}")
            self.assertIn("Verification: OK", told, service)

    def test_dkimpy_verifies_our_signature(self):
        self.gmail.submit(message("signed for dkimpy"), ["bob@example.com"])
        got = self.example.wait_for("Subject: signed for dkimpy")[0]
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], self.world.dns_port

        def txt(name, timeout=5):
            name = name.decode() if isinstance(name, bytes) else name
            return b"".join(resolver.resolve(name, "TXT")[0].strings)

        signatures = got.lower().count(b"\ndkim-signature:")
        self.assertEqual(signatures, 2, "one by RSA, one by Ed25519")
        verifier = dkim.DKIM(got)
        for index in range(signatures):
            self.assertTrue(verifier.verify(idx=index, dnsfunc=txt), f"signature {index}")
        with self.assertRaises(dkim.ValidationError):
            dkim.DKIM(got.replace(b"how are you", b"how were you")).verify(dnsfunc=txt)

    def test_our_own_judgement_from_the_command_line(self):
        self.gmail.submit(message("judged by hand"), ["bob@example.com"])
        got = self.example.wait_for("Subject: judged by hand")[0].decode()
        server = f"127.0.0.1:{self.world.dns_port}"
        self.assertIn("pass", run("auth", "dkim", "--dns", server, stdin=got).stdout)
        good = run("auth", "spf", "--ip", "127.0.1.1", "--helo", "x", "--mail-from", "alice@gmail.com", "--dns", server)
        self.assertIn("pass", good.stdout)
        bad = run("auth", "spf", "--ip", "127.0.9.9", "--helo", "x", "--mail-from", "alice@gmail.com", "--dns", server,
                  "--json", check=False)
        self.assertEqual(bad.returncode, 1)
        self.assertIn('"fail"', bad.stdout)
        dmarc = run("auth", "dmarc", "--ip", "127.0.1.1", "--mail-from", "alice@gmail.com", "--dns", server, stdin=got)
        self.assertIn("pass", dmarc.stdout)

    # --- retrieval ---

    def test_imaplib_plain_with_starttls_and_tls(self):
        plain = imaplib.IMAP4(self.example.address, self.example.ports["imap"], timeout=30)
        self.assertIn("LOGINDISABLED", plain.capabilities)
        with self.assertRaises(imaplib.IMAP4.error):
            plain.login("bob@example.com", PASSWORD)
        plain.starttls(self.example.tls())
        plain.login("bob@example.com", PASSWORD)
        plain.logout()
        box = self.example.imap(login=False)
        box.authenticate("PLAIN", lambda _: f"\0bob@example.com\0{PASSWORD}".encode())
        self.assertEqual(box.noop()[0], "OK")
        box.logout()

    def test_imaplib_does_a_days_work(self):
        box = self.example.imap()
        names = b" ".join(box.list()[1]).decode()
        for name in ("INBOX", "Sent", "Drafts", "Junk", "Trash"):
            self.assertIn(name, names)
        self.assertEqual(box.create("Projects")[0], "OK")
        self.assertEqual(box.create("Projects/Posthaste")[0], "OK")
        self.assertEqual(box.rename("Projects", "Work")[0], "OK")
        self.assertIn(b"Work/Posthaste", b" ".join(box.list()[1]))
        self.assertEqual(box.subscribe("Work")[0], "OK")
        self.assertIn(b"Work", b" ".join(box.lsub()[1]))
        for n in range(3):
            raw = f"From: a@b.example\r\nTo: bob@example.com\r\nSubject: day {n}\r\n\r\nbody {n}\r\n".encode()
            typ, data = box.append("Work", "\\Seen" if n == 0 else None, imaplib.Time2Internaldate(time.time()), raw)
            self.assertEqual(typ, "OK", data)
        typ, data = box.select("Work")
        self.assertEqual((typ, data), ("OK", [b"3"]))
        self.assertEqual(box.search(None, "UNSEEN")[1], [b"2 3"])
        self.assertEqual(box.search(None, "SUBJECT", '"day 1"')[1], [b"2"])
        self.assertEqual(box.uid("SEARCH", "BODY", '"body 2"')[1], [b"3"])
        typ, data = box.fetch("2", "(FLAGS UID RFC822.SIZE INTERNALDATE ENVELOPE BODYSTRUCTURE BODY[HEADER.FIELDS (SUBJECT)]<0.9>)")
        text = b" ".join(x if isinstance(x, bytes) else x[0] + x[1] for x in data)
        for part in (b"UID 2", b'"day 1"', b'"TEXT" "PLAIN"' , b"Subject: "):
            self.assertIn(part.lower(), text.lower())
        self.assertEqual(box.store("1:3", "+FLAGS", "(\\Flagged keyword)")[0], "OK")
        self.assertEqual(box.search(None, "FLAGGED", "KEYWORD", "keyword")[1], [b"1 2 3"])
        self.assertEqual(box.copy("1", "Trash")[0], "OK")
        self.assertEqual(box.uid("MOVE", "2", "Trash")[0], "OK")
        self.assertEqual(box.status("Trash", "(MESSAGES)")[1][0].split()[-1], b"2)")
        self.assertEqual(box.store("1", "+FLAGS", "\\Deleted")[0], "OK")
        box.untagged_responses.pop("EXPUNGE", None)  # of the MOVE
        self.assertEqual(box.expunge()[1], [b"1"])
        self.assertEqual(box.search(None, "ALL")[1], [b"1"])
        self.assertEqual(box.close()[0], "OK")
        self.assertEqual(box.delete("Work/Posthaste")[0], "OK")
        box.logout()

    def test_idle_is_woken_by_a_new_message(self):
        box = self.example.imap()
        box.select("INBOX")
        tag = box._new_tag()
        box.send(tag + b" IDLE\r\n")
        self.assertTrue(box.readline().startswith(b"+"))
        with self.example.smtp("smtp", source="127.0.3.1") as s:
            s.ehlo("strange.example")
            s.sendmail("x@strange.example", ["bob@example.com"], message("wakes idle", "x@strange.example"))
        line = box.readline()
        while b"EXISTS" not in line:
            self.assertTrue(line.startswith(b"*"), line)
            line = box.readline()
        box.send(b"DONE\r\n")
        while not line.startswith(tag):
            line = box.readline()
        self.assertIn(b"OK", line)
        box.logout()

    def test_poplib_plain_with_stls_and_tls(self):
        self.example.cli("account", "add", "paul@example.com", "--password-stdin", stdin=PASSWORD + "\n")
        self.gmail.submit(message("for pop", to="paul@example.com"), ["paul@example.com"])
        plain = poplib.POP3(self.example.address, self.example.ports["pop3"], timeout=30)
        self.assertIn("STLS", plain.capa())
        with self.assertRaises(poplib.error_proto):
            plain.user("paul@example.com")
            plain.pass_(PASSWORD)
        plain.stls(self.example.tls())
        plain.user("paul@example.com")
        plain.pass_(PASSWORD)
        plain.quit()

        def arrived():
            pop = poplib.POP3_SSL(self.example.address, self.example.ports["pop3s"], timeout=30,
                                  context=self.example.tls())
            pop.user("paul@example.com")
            pop.pass_(PASSWORD)
            if pop.stat()[0]:
                return pop
            pop.quit()
        pop = wait_until(arrived, "paul's message")
        count, octets = pop.stat()
        listed = pop.list()[1]
        self.assertEqual((count, len(listed)), (1, 1))
        unique = pop.uidl()[1]
        whole = b"\r\n".join(pop.retr(1)[1])
        self.assertIn(b"Subject: for pop", whole)
        self.assertEqual(octets, len(whole) + 2)
        top = pop.top(1, 0)[1]
        self.assertIn(b"Subject: for pop", top)
        pop.dele(1)
        pop.rset()
        self.assertEqual(pop.stat()[0], 1)
        pop.dele(1)
        pop.quit()
        again = poplib.POP3_SSL(self.example.address, self.example.ports["pop3s"], timeout=30, context=self.example.tls())
        again.user("paul@example.com")
        again.pass_(PASSWORD)
        self.assertEqual(again.stat(), (0, 0))
        self.assertTrue(unique)
        again.quit()

    def test_mbsync_copies_the_mailboxes(self):
        self.gmail.submit(message("for mbsync"), ["bob@example.com"])
        self.example.wait_for("Subject: for mbsync")
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "mail").mkdir()
            config = pathlib.Path(folder) / "mbsyncrc"
            config.write_text(f"""
IMAPAccount bob
Host {self.example.address}
Port {self.example.ports['imaps']}
User bob@example.com
PassCmd "echo '{PASSWORD}'"
SSLType IMAPS
CertificateFile {self.example.certificate}

IMAPStore far
Account bob

MaildirStore near
Path {folder}/mail/
Inbox {folder}/mail/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Expunge None
SyncState *
""")
            for _ in range(2):
                done = subprocess.run(["mbsync", "-c", str(config), "all"], capture_output=True, text=True,
                                      timeout=120, env={**os.environ, "HOME": folder})
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            files = [p for p in pathlib.Path(folder, "mail", "INBOX").rglob("*") if p.is_file() and p.parent.name in ("cur", "new")]
            self.assertEqual(len(files), len(self.example.messages()))
            self.assertTrue(any(b"Subject: for mbsync" in p.read_bytes() for p in files))


if __name__ == "__main__":
    unittest.main()
