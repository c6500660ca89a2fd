"""The project's SMTP dialogue files against `posthaste serve`: the page's conversation, and all others
that need no special setting. Skipped are files with a limit, a fault or an event that a running server
cannot be told; the machine and the sockets of the crates' own tests run those."""

import fnmatch
import re
import socket
import ssl
import unittest

from world import ROOT, World

DIALOGUES = ROOT / "crates" / "smtp" / "dialogues"
# Files whose course depends on what this server cannot be given.
SKIPPED_FACTS = (
    "given limit", "given no certificate", "given the disk", "given logins in clear", "given role lmtp",
    "given messages need no author", "given XCLIENT", "given mechanisms", "given token", "given client", "meanwhile", "(login",
)
# The address that the SPF records of gmail.com and example.net name.
SOURCE = "127.0.1.1"
ESCAPES = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}


def unescape(text):
    """The octets of a `C!` line."""
    out = bytearray()
    while text:
        if text[0] != "\\":
            out += text[0].encode()
            text = text[1:]
        elif text[1] == "x":
            out.append(int(text[2:4], 16))
            text = text[4:]
        elif text[1] == "{":
            piece, text = text[2:].split("}", 1)
            what, times = piece.rsplit("*", 1)
            out += unescape(what) * int(times)
        else:
            out += ESCAPES[text[1]]
            text = text[2:]
    return bytes(out)


def matches(pattern, text):
    """The files' own rule: `*` is any run, and a reference at the end may go unmentioned."""
    if "(reference " not in pattern:
        text = re.sub(r" \(reference [^ ]*\)$", "", text)
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]").replace("?", "[?]"))


class Speaker:
    """Says a file's lines to a server. Client lines without a server line between them go together."""

    def __init__(self, test, server, service):
        self.test, self.server = test, server
        self.socket = socket.create_connection(
            (server.address, server.ports[service]), timeout=60, source_address=(SOURCE, 0))
        if service == "submissions":
            self.socket = server.tls().wrap_socket(self.socket, server_hostname="localhost")
        self.heard = self.socket.makefile("rb")
        self.unsent, self.pending, self.asked_for_body = b"", None, False

    def line(self):
        if self.pending is not None:
            line, self.pending = self.pending, None
            return line
        try:
            line = self.heard.readline().decode().rstrip("\r\n")
        except (ConnectionError, ssl.SSLError):
            line = ""
        self.asked_for_body = line.startswith("354")
        return line

    def flush(self):
        if self.unsent:
            if self.asked_for_body and not re.search(rb"^from:", self.unsent, re.M | re.I):
                # The files leave out what this server insists on: somebody who wrote the message.
                self.unsent = b"From: a@example.net\r\n" + self.unsent
            try:
                self.socket.sendall(self.unsent)
            except OSError:
                pass  # closed by the server; what it said is still to be read
            self.unsent = b""

    def say(self, raw):
        kind, _, text = raw.partition(":")
        text = text.removeprefix(" ")
        if raw.startswith("C! "):
            self.unsent += unescape(raw[3:])
        elif kind == "C":
            self.unsent += text.encode() + b"\r\n"
        elif kind.startswith("C*"):
            self.unsent += (text.encode() + b"\r\n") * int(kind[2:])
        else:
            self.flush()
            if kind == "S":
                self.test.assertTrue(matches(text, got := self.line()), f"{raw!r} but {got!r}")
            elif kind == "S*":
                while matches(text, got := self.line()):
                    pass
                self.pending = got
            elif raw.startswith("(TLS handshake"):
                self.test.assertIsNone(self.pending)
                self.heard.close()
                self.socket = self.server.tls().wrap_socket(self.socket, server_hostname="localhost")
                self.heard = self.socket.makefile("rb")
            elif raw == "then the connection is closed":
                self.test.assertEqual(self.line(), "")
            else:
                self.test.assertTrue(not raw.strip() or raw.startswith(("#", "given ", "then ")), raw)

    def close(self):
        self.heard.close()
        self.socket.close()


def service_of(text):
    role = re.search(r"^given role (\w+)$", text, re.M)
    return {None: "smtp", "mta": "smtp"}.get(role and role[1], role and role[1])


class Dialogues(unittest.TestCase):
    def setUp(self):
        self.world = World()
        self.addCleanup(self.world.close)
        self.server = self.world.example

    def speak(self, path):
        text = path.read_text()
        speaker = Speaker(self, self.server, service_of(text))
        try:
            for raw in text.splitlines():
                speaker.say(raw)
        finally:
            speaker.close()

    def test_the_page(self):
        self.speak(DIALOGUES / "00-the-page.dialogue")
        got = self.server.wait_for("Hi Bob, how are you?")
        self.assertEqual(len(got), 1)

    def test_the_others(self):
        accounts, files = {self.server.person: None}, []
        for path in sorted(DIALOGUES.glob("*.dialogue")):
            text = path.read_text()
            if any(line.startswith(SKIPPED_FACTS) or " second factor" in line for line in text.splitlines()):
                continue
            people = re.findall(r"^given account (\S+?)(?: with password (\S+))?$", text, re.M)
            known = sum(line.startswith("given account") for line in text.splitlines())
            if len(people) < known or any(not address.endswith("@example.com") for address, _ in people):
                continue
            for address, password in people:
                accounts[address] = password or accounts.get(address)
            files.append(path)
        for address, password in accounts.items():
            if address != self.server.person:
                self.server.cli("account", "add", address, "--password-stdin", stdin=(password or "geheim") + "\n")
        for path in files:
            with self.subTest(path.name):
                self.speak(path)
        print(f"{len(files)} dialogues against a running server", flush=True)
        self.assertGreaterEqual(len(files), 60)


if __name__ == "__main__":
    unittest.main()
