"""The ways in that are not plain SMTP over TCP: balancers with PROXY headers, proxies with XCLIENT,
Unix sockets, LMTP, and local programs that call sendmail."""

import os
import pathlib
import pwd
import shutil
import smtplib
import socket
import stat
import struct
import subprocess
import tempfile
import unittest

from world import BINARY, PASSWORD, World, free_port, message

BALANCER = "127.0.7.1"
CLIENT = "198.51.100.23"


def v1(source=CLIENT):
    return f"PROXY TCP4 {source} 192.0.2.1 40000 25\r\n".encode()


def v2(source=CLIENT, command=1, family=0x11, tlvs=b""):
    addresses = socket.inet_aton(source) + socket.inet_aton("192.0.2.1") + struct.pack(">HH", 40000, 25) + tlvs
    return b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x20 | command, family]) + struct.pack(">H", len(addresses)) + addresses


class Doors(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.world = World()
        cls.server = s = cls.world.example
        # A folder that every user of the machine can enter.
        cls.open = tempfile.TemporaryDirectory(prefix="posthaste-doors-")
        os.chmod(cls.open.name, 0o755)
        cls.folder = pathlib.Path(cls.open.name)
        cls.lmtp_port = free_port("127.0.0.1")
        s.stop()
        cls.orders = [
            f'listen.proxy_from=["{BALANCER}/32"]',
            'smtp.xclient_from=["127.0.8.0/24"]',
            f'listen.lmtp=["127.0.0.1:{cls.lmtp_port}"]',
            f'sockets.lmtp=["{cls.folder}/lmtp"]',
            f'sockets.smtp=["{cls.folder}/smtp"]',
            f'sockets.submission=["{cls.folder}/submission"]',
            'sockets.mode="0600"',
            f'sendmail.socket="{cls.folder}/sendmail"',
            'sendmail.domain="example.com"',
            'sendmail.user=[{name="nobody",from=["bob@example.com"]}]',
        ]
        # A socket that a killed server left behind.
        dead = socket.socket(socket.AF_UNIX)
        dead.bind(f"{cls.folder}/lmtp")
        dead.close()
        s.start(*cls.orders)
        # The settings file as a local program finds it.
        cls.settings = cls.folder / "posthaste.toml"
        cls.settings.write_text(
            f'hostname = "mail.example.com"\ndata = "{s.folder}/data"\n'
            f'[sendmail]\nsocket = "{cls.folder}/sendmail"\ndomain = "example.com"\n'
        )
        cls.settings.chmod(0o644)
        cls.link = cls.folder / "sendmail-link" / "sendmail"
        cls.link.parent.mkdir()
        cls.link.symlink_to(BINARY)

    @classmethod
    def tearDownClass(cls):
        cls.world.close()
        assert not (cls.folder / "lmtp").exists(), "sockets are removed at the end"
        cls.open.cleanup()

    def from_balancer(self, service, header):
        port = self.server.ports[service]
        raw = socket.create_connection((self.server.address, port), 20, (BALANCER, 0))
        raw.sendall(header)
        return raw

    # --- PROXY ---

    def test_proxy_headers_tell_the_client_to_smtp(self):
        for header in (v1(), v2(), v2(tlvs=b"\x04\x00\x02ab")):
            raw = self.from_balancer("smtp", header)
            with raw, raw.makefile("rb") as lines:
                self.assertTrue(lines.readline().startswith(b"220 "))
                raw.sendall(b"WHAT\r\n")
                said = lines.readline().decode().strip()
                self.assertTrue(said.startswith("500 5.5.1"), said)
            reference = said.rsplit("(reference ", 1)[1].rstrip(")")
            told = self.server.cli("trace", reference).stdout
            self.assertIn(CLIENT, told)
            self.assertIn("No such command", told)

    def test_implicit_tls_imap_and_pop3_work_behind_a_balancer(self):
        tls = self.server.tls()
        for service, greeting in (("submissions", b"220 "), ("imaps", b"* OK"), ("pop3s", b"+OK")):
            raw = self.from_balancer(service, v2())
            with tls.wrap_socket(raw, server_hostname="localhost") as inside:
                self.assertTrue(inside.recv(100).startswith(greeting), service)
        for service, greeting in (("imap", b"* OK"), ("pop3", b"+OK"), ("submission", b"220 ")):
            with self.from_balancer(service, v1()) as raw:
                self.assertTrue(raw.recv(100).startswith(greeting), service)

    def test_local_and_unknown_are_the_balancer_itself(self):
        for header in (v2(command=0), v2(family=0), b"PROXY UNKNOWN\r\n"):
            with self.from_balancer("smtp", header) as raw:
                self.assertTrue(raw.recv(100).startswith(b"220 "))

    def test_without_a_good_header_a_balancer_is_not_served(self):
        for header in (b"EHLO client.example.net\r\n", b"PROXY TCP4 x y 1 2\r\n", v2(command=3), b"PROXY TCP4 1.2.3.4 " + b"9" * 200):
            with self.from_balancer("smtp", header) as raw:
                try:
                    self.assertEqual(raw.recv(100), b"")
                except ConnectionResetError:
                    pass

    def test_nobody_else_can_tell_another_address(self):
        for header in (v1(), v2()):
            with socket.create_connection((self.server.address, self.server.ports["smtp"]), 20, ("127.0.3.1", 0)) as raw:
                raw.sendall(header)
                said = raw.recv(1000)
                # Spoken before the greeting, or no command; never an address.
                self.assertRegex(said, rb"(?s)^(554 5\.7\.0|220 )")
        self.assertEqual(self.server.cli("trace", "--limit", "50", "x@strange.example", check=False).stdout.count(CLIENT), 0)

    # --- XCLIENT ---

    def test_xclient_is_for_named_proxies_alone(self):
        with smtplib.SMTP(self.server.address, self.server.ports["smtp"], source_address=("127.0.8.1", 0)) as s:
            s.ehlo("proxy.example.net")
            self.assertIn("xclient", s.esmtp_features)
            code, text = s.docmd("XCLIENT", "NAME=mail.strange.example ADDR=127.0.3.1 PORT=4711 PROTO=ESMTP")
            self.assertEqual((code, text[-11:]), (220, b"ESMTP ready"))
            s.ehlo("strange.example")
            s.sendmail("x@strange.example", ["bob@example.com"], message("through xclient", "x@strange.example"))
        got = self.server.wait_for("Subject: through xclient")[0]
        self.assertIn(b"[127.0.3.1]", got)
        self.assertIn(b"spf=pass", got)
        with self.server.smtp("smtp", source="127.0.3.1") as s:
            s.ehlo("strange.example")
            self.assertNotIn("xclient", s.esmtp_features)
            self.assertEqual(s.docmd("XCLIENT", "ADDR=127.0.0.1")[0], 550)

    def test_xclient_login_sends_as_the_account(self):
        with smtplib.SMTP(self.server.address, self.server.ports["smtp"], source_address=("127.0.8.1", 0)) as s:
            s.ehlo("proxy.example.net")
            self.assertEqual(s.docmd("XCLIENT", "LOGIN=nobody@example.com")[0], 550)
            self.assertEqual(s.docmd("XCLIENT", "ADDR=198.51.100.9 LOGIN=bob@example.com")[0], 220)
            s.ehlo("bobs-laptop")
            with self.assertRaises(smtplib.SMTPSenderRefused):
                s.sendmail("other@example.com", ["bob@example.com"], message("no", "other@example.com"))
            s.sendmail("bob@example.com", ["bob@example.com"], message("vouched for", "bob@example.com"))
        self.server.wait_for("Subject: vouched for")

    # --- Unix sockets and LMTP ---

    def test_lmtp_over_tcp_and_a_socket(self):
        for place, port in (("127.0.0.1", self.lmtp_port), (f"{self.folder}/lmtp", 0)):
            with smtplib.LMTP(place, port) as s:
                s.ehlo_or_helo_if_needed()
                subject = f"by lmtp at {port}"
                refused = s.sendmail("x@elsewhere.example", ["bob@example.com", "nobody@example.com"],
                                     message(subject, "x@elsewhere.example"))
                self.assertEqual([(k, v[0]) for k, v in refused.items()], [("nobody@example.com", 550)])
                with self.assertRaises(smtplib.SMTPRecipientsRefused) as caught:
                    s.sendmail("x@elsewhere.example", ["a@gmail.com"], message("no relay"))
                self.assertEqual(caught.exception.recipients["a@gmail.com"][0], 550)
            got = self.server.wait_for(f"Subject: {subject}")[0]
            self.assertIn(b"with LMTP", got)
            self.assertTrue(got.startswith(b"Return-Path: <x@elsewhere.example>"))

    def test_smtp_and_submission_at_sockets(self):
        self.assertEqual(stat.S_IMODE((self.folder / "smtp").stat().st_mode), 0o600)
        with UnixSmtp(f"{self.folder}/smtp") as s:
            self.assertEqual(s.ehlo("here")[0], 250)
            s.mail("x@strange.example")
            self.assertEqual(s.rcpt("someone@gmail.com")[0], 550, "no relay for whoever can connect")
            s.rset()
            told = self.server.cli("trace", "x@strange.example", "--limit", "1").stdout
            self.assertIn(f"local, user {os.geteuid()}", told)
        with UnixSmtp(f"{self.folder}/submission") as s:
            s.ehlo("here")
            self.assertEqual(s.mail("bob@example.com")[0], 530)
            s.rset()
            s.login("bob@example.com", PASSWORD)
            s.sendmail("bob@example.com", ["bob@example.com"], message("at a socket", "bob@example.com"))
        self.server.wait_for("Subject: at a socket")

    # --- sendmail ---

    def sendmail(self, *args, text="", user=None, program=None):
        command = [*(program or [BINARY, "--config", self.settings, "sendmail"]), *args]
        env = {**os.environ, "POSTHASTE_CONFIG": str(self.settings)}
        return subprocess.run(command, input=text.encode(), capture_output=True, timeout=60, env=env,
                              **({"user": user, "group": user, "cwd": "/"} if user else {}))

    def test_sendmail_sends_as_programs_call_it(self):
        letter = "To: bob@example.com\nBcc: bob@example.com\nSubject: {}\n\nHi\n.\nstill here\n"
        for name, args in (("ti", ["-ti", "-f", "bob@example.com"]), ("oi", ["-t", "-oi", "-fbob@example.com"]),
                           ("args", ["-i", "-oem", "-FBob B", "-f", "bob@example.com", "--", "bob"])):
            done = self.sendmail(*args, text=letter.format(f"sendmail {name}"))
            self.assertEqual((done.returncode, done.stderr), (0, b""), name)
            got = self.server.wait_for(f"Subject: sendmail {name}")[0]
            self.assertIn(b"\r\n.\r\nstill here\r\n", got)
            self.assertNotIn(b"Bcc", got)
            for field in (b"\r\nFrom: ", b"\r\nDate: ", b"\r\nMessage-ID: "):
                self.assertIn(field, got)
        self.assertIn(b"From: Bob B <bob@example.com>", got)

    def test_a_link_named_sendmail_and_cron(self):
        text = "From: root (Cron Daemon)\nTo: bob\nSubject: Cron <root@host> run-parts\nAuto-Submitted: auto-generated\n\nout\n"
        done = self.sendmail("-FCronDaemon", "-i", "-B8BITMIME", "-oem", "bob", text=text, program=[self.link])
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        got = self.server.wait_for("Subject: Cron <root@host> run-parts")[0]
        self.assertIn(b"From: Cron Daemon <root@example.com>", got)
        self.assertEqual(self.sendmail(program=[self.link, "-bi"]).returncode, 0)

    def test_s_nail_and_mutt_send_through_it(self):
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        env = {**os.environ, "HOME": str(home), "POSTHASTE_CONFIG": str(self.settings), "LC_ALL": "C.UTF-8"}
        if nail := shutil.which("s-nail"):
            done = subprocess.run([nail, "-:/", "-Sv15-compat", f"-Smta={self.link}", "-r", "bob@example.com", "-s", "by s-nail", "bob@example.com"],
                                  input=b"Hello\n", capture_output=True, env=env, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.server.wait_for("Subject: by s-nail")
        if mutt := shutil.which("mutt"):
            done = subprocess.run([mutt, "-n", "-F", "/dev/null", "-e", f'set sendmail="{self.link} -oem -oi"', "-e", "set copy=no",
                                   "-e", "set from=bob@example.com use_envelope_from=yes", "-s", "by mutt", "bob@example.com"],
                                  input="Grüße\n".encode(), capture_output=True, env=env, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.server.wait_for("Subject: by mutt")
        if not (nail or mutt):
            self.skipTest("neither s-nail nor mutt")

    def test_smtp_on_standard_input_and_the_queue(self):
        text = ("EHLO me\r\nMAIL FROM:<bob@example.com>\r\nRCPT TO:<bob@example.com>\r\n")
        done = self.sendmail("-bs", text=text + "QUIT\r\n")
        self.assertRegex(done.stdout, rb"(?s)^220 .*250 2\.1\.0.*250 2\.1\.5.*221 ")
        done = self.sendmail("-bp")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"queue is empty", done.stdout)

    def test_exit_codes(self):
        good = "From: bob@example.com\nSubject: x\n\nx\n"
        for args, code, words in (
            (["-Z"], 64, b"no option -Z"),
            ([], 64, b"no recipient"),
            (["-bd"], 64, b"posthaste serve"),
            (["nobody-here@example.com"], 67, b"There is no"),
        ):
            done = self.sendmail(*args, text=good)
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertIn(words, done.stderr)
        elsewhere = self.folder / "elsewhere.toml"
        elsewhere.write_text(f'data = "{self.folder}/nothing"\n')
        done = self.sendmail("bob@example.com", text=good, program=[BINARY, "--config", elsewhere, "sendmail"])
        self.assertEqual(done.returncode, 75, done.stderr)
        self.assertIn(b"posthaste serve", done.stderr)

    @unittest.skipUnless(os.geteuid() == 0, "needs root, to be others")
    def test_who_may_send_as_whom(self):
        binary = self.folder / "posthaste"
        shutil.copy(BINARY, binary)
        binary.chmod(0o755)
        program = [binary, "--config", self.settings, "sendmail"]
        nobody, other = pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("daemon").pw_uid
        text = "From: {}\nTo: bob@example.com\nSubject: {}\n\nx\n"
        done = self.sendmail("-t", "-f", "bob@example.com", text=text.format("bob@example.com", "allowed nobody"), user=nobody, program=program)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.server.wait_for("Subject: allowed nobody")
        done = self.sendmail("-t", text="To: bob@example.com\nSubject: as itself\n\nx\n", user=nobody, program=program)
        self.assertEqual(done.returncode, 0, done.stderr)
        got = self.server.wait_for("Subject: as itself")[0]
        self.assertIn(b"nobody@example.com", got)
        for sender, author in (("carol@example.com", "bob@example.com"), ("bob@example.com", "carol@example.com")):
            done = self.sendmail("-t", "-f", sender, text=text.format(author, "x"), user=nobody, program=program)
            self.assertEqual(done.returncode, 77, done.stderr)
        done = self.sendmail("-t", text=text.format("bob@example.com", "x"), user=other, program=program)
        self.assertEqual(done.returncode, 77, done.stderr)
        self.assertIn(b"sendmail.user", done.stderr)
        reference = done.stderr.decode().rsplit("(reference ", 1)[1].split(")")[0]
        self.assertIn(f"user {other}", self.server.cli("trace", reference).stdout)


class UnixSmtp(smtplib.SMTP):
    """smtplib over a Unix socket."""

    def __init__(self, path):
        super().__init__(timeout=30, local_hostname="here")
        self.path = path
        self.connect()

    def connect(self, *_):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self.path)
        self.file = None
        return self.getreply()


if __name__ == "__main__":
    unittest.main()
