"""Content filters that we did not write, asked over the milter protocol: rspamd, OpenDKIM, ClamAV.

Each runs with settings of its own in a temporary folder, on loopback, without the network and without
anything of the machine's own installation. One that is not installed is skipped, with the reason.
"""

import base64
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import unittest

import dkim

from world import World, free_port, message, wait_until

EICAR = "X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
ENVIRONMENT = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}


def needs(*programs):
    missing = [p for p in programs if not shutil.which(p, path=ENVIRONMENT["PATH"])]
    return unittest.skipIf(missing, f"not installed: {', '.join(missing)}")


def listens(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


class Filter(unittest.TestCase):
    """A world whose example.com asks the filters that a test starts."""

    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="posthaste-milter-")
        self.folder = pathlib.Path(self.temporary.name)
        # Some of them give up root.
        self.folder.chmod(0o755)
        self.running = []
        self.world = None

    def tearDown(self):
        if self.world:
            self.world.close()
        for process in reversed(self.running):
            process.terminate()
            process.wait(timeout=30)
        self.temporary.cleanup()

    def start(self, *args, until):
        log = open(self.folder / "filters.log", "ab")
        process = subprocess.Popen([*map(str, args)], stdout=log, stderr=log, env=ENVIRONMENT, cwd=self.folder)
        log.close()
        self.running.append(process)

        def ready():
            said = (self.folder / "filters.log").read_text(errors="replace")
            self.assertIsNone(process.poll(), f"{args[0]} ended:\n{said[-3000:]}")
            return until()
        wait_until(ready, f"{args[0]} to listen", 60)

    def ask(self, *filters):
        """Starts the world; example.com asks these: name, port, more settings."""
        self.world = World()
        example = self.world.example
        tables = [f'{{name="{name}", address="inet:127.0.0.1:{port}"{more}}}' for name, port, more in filters]
        example.stop()
        example.start(f"milter=[{','.join(tables)}]")
        return example

    def send(self, example, text, sender="x@strange.example"):
        with example.smtp("smtp", source="127.0.3.1") as s:
            s.ehlo("strange.example")
            return s.sendmail(sender, ["bob@example.com"], text)

    def trace(self, example, about):
        return example.cli("trace", about).stdout


@needs("rspamd")
class Rspamd(Filter):
    def setUp(self):
        super().setUp()
        port, normal = free_port("127.0.0.1"), free_port("127.0.0.1")
        (self.folder / "lua").mkdir()
        (self.folder / "rspamd.conf").write_text(f"""
options {{
  pidfile = "{self.folder}/rspamd.pid";
  filters = "regexp";
  dns {{ nameserver = ["127.0.0.1:9"]; timeout = 0.2s; retransmits = 1; }}
  control_socket = "{self.folder}/rspamd.sock mode=0600";
  allow_raw_input = true;
}}
logging {{ type = "file"; filename = "{self.folder}/rspamd.log"; level = "info"; }}
actions {{ reject = 15; add_header = 6; }}
regexp {{
  "BUY_NOW" {{ re = "Subject=/buy now/i{{header}}"; score = 7.0; description = "Wants to sell"; }}
  "FORBIDDEN" {{ re = "Subject=/forbidden/i{{header}}"; score = 100.0; description = "Not here"; }}
}}
milter_headers {{ use = ["x-spamd-result", "x-spam-status", "x-spamd-bar"]; skip_local = false; }}
lua = "$RULESDIR/rspamd.lua";
modules {{ path = "$PLUGINSDIR"; }}
worker "normal" {{ bind_socket = "127.0.0.1:{normal}"; count = 1; }}
worker "rspamd_proxy" {{
  bind_socket = "127.0.0.1:{port}"; count = 1; milter = yes; timeout = 30s;
  upstream "local" {{ default = yes; hosts = "127.0.0.1:{normal}"; }}
}}
""")
        root = ["-i"] if os.getuid() == 0 else []
        self.start("rspamd", "-f", *root, "-c", self.folder / "rspamd.conf",
                   "--var", f"DBDIR={self.folder}", "--var", f"RUNDIR={self.folder}",
                   until=lambda: listens(port) and listens(normal))
        self.example = self.ask(("rspamd", port, ""))

    def test_headers_are_added_spam_is_marked_and_worse_is_refused(self):
        self.send(self.example, message("a quiet letter", "x@strange.example"))
        quiet = self.example.wait_for("a quiet letter")[0]
        self.assertIn(b"\r\nX-Spamd-Result: ", quiet)
        self.send(self.example, message("Buy now, cheap", "x@strange.example"))
        loud = self.example.wait_for("Buy now, cheap")[0]
        self.assertIn(b"\r\nX-Spam-Status: Yes", loud)
        self.assertIn(b"BUY_NOW", loud)
        with self.example.smtp("smtp", source="127.0.3.1") as s:
            s.ehlo("strange.example")
            s.mail("x@strange.example")
            s.rcpt("bob@example.com")
            code, text = s.data(message("forbidden fruit", "x@strange.example"))
            self.assertEqual((code, text[:5]), (554, b"5.7.1"), text)
        reference = text.decode().split("(reference ")[1].split(")")[0]
        told = self.trace(self.example, reference)
        self.assertIn("The filter rspamd saw it; its verdict: refused.", told)
        # Over a second message of one session, too.
        with self.example.smtp("smtp", source="127.0.3.1") as s:
            s.ehlo("strange.example")
            for n in range(3):
                s.sendmail("x@strange.example", ["bob@example.com"], message(f"one of three {n}", "x@strange.example"))
        for got in self.example.wait_for("one of three", count=3):
            self.assertIn(b"X-Spamd-Result: ", got)


@needs("opendkim", "openssl")
class OpenDkim(Filter):
    def opendkim(self, mode, *more):
        port = free_port("127.0.0.1")
        (self.folder / f"{mode}.conf").write_text("\n".join([
            f"Socket inet:{port}@127.0.0.1", "Syslog no", "Background no", f"Mode {mode}",
            "DNSTimeout 2", *more, ""]))
        self.start("opendkim", "-f", "-x", self.folder / f"{mode}.conf", until=lambda: listens(port))
        return port

    def key(self):
        private = self.folder / "key.pem"
        subprocess.run(["openssl", "genrsa", "-out", private, "2048"], check=True, capture_output=True)
        public = subprocess.run(["openssl", "rsa", "-in", private, "-pubout", "-outform", "DER"],
                                check=True, capture_output=True).stdout
        private.chmod(0o600)
        return private, base64.b64encode(public).decode()

    def test_it_signs_what_is_submitted(self):
        private, public = self.key()
        port = self.opendkim("s", "Domain example.com", "Selector od", f"KeyFile {private}",
                             "InternalHosts 0.0.0.0/0", "Canonicalization relaxed/relaxed",
                             "RequireSafeKeys no")
        example = self.ask(("opendkim", port, ', services=["submission","submissions"]'))
        example.submit(message("signed by another", "bob@example.com", "bob@example.com"), ["bob@example.com"])
        got = example.wait_for("signed by another")[0]
        self.assertIn(b"s=od;", got)
        record = f"v=DKIM1; k=rsa; p={public}".encode()
        signatures = got.count(b"\r\nDKIM-Signature:")
        verdicts = []
        for index in range(signatures):
            def txt(name, timeout=5):
                return record if name.startswith(b"od._domainkey") else None
            verdicts.append(bool(self.verify(got, index, txt)))
        self.assertIn(True, verdicts, "its signature does not verify")

    def verify(self, text, index, txt):
        try:
            return dkim.DKIM(text).verify(idx=index, dnsfunc=txt)
        except dkim.DKIMException:
            return False

    def test_it_verifies_what_comes(self):
        private, public = self.key()
        keys = self.folder / "keys"
        keys.write_text(f"od._domainkey.strange.example v=DKIM1; k=rsa; p={public}\n")
        port = self.opendkim("v", f"TestPublicKeys {keys}", "AlwaysAddARHeader yes", "AuthservID filter.example.com")
        example = self.ask(("opendkim", port, ', services=["smtp"]'))
        text = message("it verifies", "x@strange.example").encode()
        signature = dkim.sign(text, b"od", b"strange.example", private.read_bytes(),
                              include_headers=[b"from", b"to", b"subject"])
        self.send(example, (signature + text).decode())
        got = example.wait_for("it verifies")[0]
        self.assertRegex(got.replace(b"\r\n", b""), rb"Authentication-Results: filter\.example\.com;\s+dkim=pass")


@needs("clamd", "clamav-milter")
class ClamAv(Filter):
    def setUp(self):
        super().setUp()
        database, port, clamd = self.folder / "db", free_port("127.0.0.1"), free_port("127.0.0.1")
        database.mkdir()
        (database / "own.ndb").write_text(f"Own.Eicar.Test:0:*:{EICAR.encode().hex()}\n")
        (self.folder / "clamd.conf").write_text(
            f"DatabaseDirectory {database}\nTCPSocket {clamd}\nTCPAddr 127.0.0.1\nForeground yes\n"
            f"TemporaryDirectory {self.folder}\nPidFile {self.folder}/clamd.pid\n")
        (self.folder / "milter.conf").write_text(
            f"MilterSocket inet:{port}@127.0.0.1\nForeground yes\nClamdSocket tcp:127.0.0.1:{clamd}\n"
            f"OnInfected Reject\nRejectMsg Virus found: %v\nAddHeader Replace\nOnFail Defer\n"
            f"PidFile {self.folder}/milter.pid\n")
        for path in (database, database / "own.ndb"):
            path.chmod(0o755)
        self.start("clamd", "-c", self.folder / "clamd.conf", until=lambda: listens(clamd))
        self.start("clamav-milter", "-c", self.folder / "milter.conf", until=lambda: listens(port))
        self.example = self.ask(("clamav", port, ""))

    def test_a_virus_is_refused_and_a_letter_is_marked_clean(self):
        self.send(self.example, message("clean", "x@strange.example"))
        self.assertIn(b"\r\nX-Virus-Status: Clean\r\n", self.example.wait_for("Subject: clean")[0])
        with self.example.smtp("smtp", source="127.0.3.1") as s:
            s.ehlo("strange.example")
            s.mail("x@strange.example")
            s.rcpt("bob@example.com")
            code, text = s.data(message("a virus", "x@strange.example", body=EICAR))
            self.assertEqual(code, 550, text)
            self.assertIn(b"Virus found: Own.Eicar.Test", text)
        self.assertEqual(self.example.messages("Junk"), [])

    def test_without_its_scanner_mail_waits_and_nothing_is_lost(self):
        self.running[0].terminate()
        self.running[0].wait(timeout=30)
        self.running.pop(0)
        with self.example.smtp("smtp", source="127.0.3.1") as s:
            s.ehlo("strange.example")
            s.mail("x@strange.example")
            code, text = s.rcpt("bob@example.com")
            if code == 250:
                code, text = s.data(message("waits", "x@strange.example"))
            self.assertEqual(code // 100, 4, text)


if __name__ == "__main__":
    unittest.main()
