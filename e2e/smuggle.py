#!/usr/bin/env python3
"""Smuggling probe: tries to get a second message past the server inside a first one.

    python3 e2e/smuggle.py            # against target/release/posthaste, or $POSTHASTE

Part 1 speaks to a running server as a stranger and as a user, and sends every false end of a message,
every split, every injected command. Part 2 lets the server relay to a naive receiver that takes a line
with a dot for the end of a message however the line ends. Each attempt carries, behind its false end, a
whole second transaction with a sender of its own. What counts is what is there afterwards: in the
mailbox (IMAP), in the queue, in the journeys (`posthaste trace` by the second sender), at the receiver.

Prints a table; exit code 0 when not one second message got through, 1 otherwise.
"""

import base64
import pathlib
import socket
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from world import PASSWORD, World, free_port, plain, run, wait_until  # noqa: E402

CRLF = b"\r\n"
FALSE_ENDS = {
    "LF . LF": b"\n.\n",
    "LF . CRLF": b"\n.\r\n",
    "CRLF . LF": b"\r\n.\n",
    "CR . CR": b"\r.\r",
    "CR . CRLF": b"\r.\r\n",
    "CRLF . CR": b"\r\n.\r",
    "CR . LF": b"\r.\n",
    "LF . CR": b"\n.\r",
    "LF CR . CR LF": b"\n\r.\r\n",
    "CRLF . CR CRLF": b"\r\n.\r\r\n",
    "CR CRLF . CR CRLF": b"\r\r\n.\r\r\n",
    "CRLF NUL . CRLF": b"\r\n\0.\r\n",
    "CRLF . NUL CRLF": b"\r\n.\0\r\n",
    "CR NUL LF . CR NUL LF": b"\r\0\n.\r\0\n",
    "NUL LF . NUL LF": b"\0\n.\0\n",
    "CRLF .. CRLF": b"\r\n..\r\n",
    "CRLF .. LF": b"\r\n..\n",
    "LF .. CRLF": b"\n..\r\n",
    "CRLF . space CRLF": b"\r\n. \r\n",
    "CRLF space . CRLF": b"\r\n .\r\n",
    "CRLF . tab CRLF": b"\r\n.\t\r\n",
    "VT . CRLF": b"\x0b.\r\n",
    "FF . FF": b"\x0c.\x0c",
    "NEL . NEL": b"\xc2\x85.\xc2\x85",
    "LS . LS": b"\xe2\x80\xa8.\xe2\x80\xa8",
    "CRLF fullwidth dot CRLF": b"\r\n\xef\xbc\x8e\r\n",
    "CRLF . EOF mark CRLF": b"\r\n.\x1a\r\n",
}


class Attempt:
    """One try: its name, and what the second message would be known by."""

    count = 0

    def __init__(self, name):
        Attempt.count += 1
        self.name, self.number = name, Attempt.count
        self.outer = f"outer-{self.number:03}"
        self.inner = f"smuggled-{self.number:03}"
        self.said = ""

    def second(self, to, ending=CRLF):
        """The second transaction, as it would be taken for commands."""
        lines = [
            f"MAIL FROM:<{self.inner}@strange.example>", f"RCPT TO:<{to}>", "DATA",
            f"From: {self.inner}@strange.example", f"Subject: {self.inner}", "", "second", ".", "",
        ]
        return ending.join(line.encode() for line in lines)

    def first(self, sender, to):
        return f"From: {sender}\r\nTo: {to}\r\nSubject: {self.outer}\r\n\r\nfirst".encode()


class Line:
    """A connection that reads replies when asked and says anything."""

    def __init__(self, address, port, source=None):
        self.socket = socket.create_connection((address, port), 20, (source, 0) if source else None)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def reply(self):
        lines = []
        while True:
            try:
                line = self.file.readline()
            except OSError:
                line = b""
            lines.append(line)
            if line[3:4] != b"-":
                return b"".join(lines).decode(errors="replace").strip()

    def send(self, octets):
        try:
            self.socket.sendall(octets)
        except OSError:
            pass

    def ask(self, text):
        self.send((text if isinstance(text, bytes) else text.encode()) + CRLF)
        return self.reply()

    def hang_up(self):
        """Ends our side and reads whatever still comes."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
            self.file.read()
        except OSError:
            pass
        self.file.close()
        self.socket.close()


class Probe:
    def __init__(self, world, sink):
        self.world, self.sink = world, sink
        self.server, self.relay = world.example, world.gmail
        self.attempts, self.rows = [], []

    def attempt(self, name):
        attempt = Attempt(name)
        self.attempts.append(attempt)
        return attempt

    def stranger(self):
        line = Line(self.server.address, self.server.ports["smtp"], "127.0.3.1")
        line.reply()
        self.features = line.ask("EHLO strange.example").upper()
        return line

    def to_data(self, sender="x@strange.example", to="bob@example.com"):
        line = self.stranger()
        line.ask(f"MAIL FROM:<{sender}>")
        line.ask(f"RCPT TO:<{to}>")
        assert line.ask("DATA").startswith("354"), "DATA was not taken"
        return line

    def control(self):
        """What does get through must be seen: an honest second transaction, here and at the receiver."""
        attempt = self.attempt("control: an honest second transaction")
        line = self.to_data()
        line.send(attempt.first("x@strange.example", "bob@example.com") + b"\r\n.\r\n")
        attempt.said = line.reply()
        line.ask(f"MAIL FROM:<{attempt.inner}@strange.example>")
        line.ask("RCPT TO:<bob@example.com>")
        line.ask("DATA")
        assert line.ask(f"From: {attempt.inner}@strange.example\r\nSubject: {attempt.inner}\r\n\r\nx\r\n.")[:3] == "250"
        line.hang_up()
        relayed = self.attempt("control: a receiver with a smuggled message")
        relayed.relayed, relayed.said = True, ""
        victim = Line("127.0.5.1", self.sink.port)
        victim.reply()
        victim.ask("EHLO x")
        victim.ask("MAIL FROM:<honest@strange.example>")
        victim.ask("RCPT TO:<victim@naive.example>")
        victim.ask("DATA")
        victim.send(relayed.first("a@b.c", "d@e.f") + b"\n.\r\n" + relayed.second("victim@naive.example"))
        victim.send(b"QUIT\r\n")
        victim.hang_up()
        assert self.sink.transactions == 2, "the naive receiver is not naive"
        self.controls = [attempt, relayed]

    # --- part 1 ---

    def false_ends(self):
        for name, end in FALSE_ENDS.items():
            for how in ("one packet", "an octet a packet", "split in the end", "second with LF"):
                attempt = self.attempt(f"{name}, {how}")
                ending = b"\n" if how == "second with LF" else CRLF
                before = attempt.first("x@strange.example", "bob@example.com")
                after = attempt.second("bob@example.com", ending) + b"\r\n.\r\n"
                line = self.to_data()
                if how == "an octet a packet":
                    line.send(before)
                    for octet in end:
                        line.send(bytes([octet]))
                        time.sleep(0.002)
                    line.send(after)
                elif how == "split in the end":
                    half = len(end) // 2
                    line.send(before + end[:half])
                    time.sleep(0.005)
                    line.send(end[half:] + after)
                else:
                    line.send(before + end + after)
                attempt.said = line.reply()
                line.send(b"QUIT\r\n")
                line.hang_up()

    def bdat(self):
        line = self.stranger()
        offered = "CHUNKING" in self.features
        line.hang_up()
        if not offered:
            print("CHUNKING is not offered: no attempts over BDAT")
            return
        for name, end in {**FALSE_ENDS, "CRLF . CRLF": b"\r\n.\r\n"}.items():
            attempt = self.attempt(f"BDAT: {name}")
            line = self.stranger()
            line.ask("MAIL FROM:<x@strange.example>")
            line.ask("RCPT TO:<bob@example.com>")
            body = attempt.first("x@strange.example", "bob@example.com") + end + attempt.second("bob@example.com")
            line.send(f"BDAT {len(body)} LAST\r\n".encode() + body)
            attempt.said = line.reply()
            line.hang_up()
        for name, size in (("BDAT: size too small", -200), ("BDAT: no size", None), ("BDAT: negative size", "neg"),
                           ("BDAT: size with a sign", "plus"), ("BDAT: size beyond 64 bit", "huge")):
            attempt = self.attempt(name)
            line = self.stranger()
            line.ask("MAIL FROM:<x@strange.example>")
            line.ask("RCPT TO:<nobody@example.com>")
            body = attempt.first("x@strange.example", "bob@example.com") + CRLF + attempt.second("bob@example.com")
            told = {None: "", "neg": " -1", "plus": f" +{len(body)}", "huge": " 18446744073709551617"}.get(
                size, f" {len(body) + size if isinstance(size, int) else 0}")
            line.send(f"BDAT{told} LAST\r\n".encode() + body)
            attempt.said = line.reply()
            line.hang_up()

    def commands(self):
        """Commands behind DATA that is refused, and behind STARTTLS; line ends inside arguments."""
        for how in ("one packet", "two packets"):
            attempt = self.attempt(f"message behind a refused DATA, {how}")
            line = self.stranger()
            line.ask("MAIL FROM:<x@strange.example>")
            line.ask("RCPT TO:<nobody@example.com>")
            message = attempt.first("x@strange.example", "bob@example.com") + CRLF + b"RSET\r\n"
            message += attempt.second("bob@example.com")
            line.send(b"DATA\r\n")
            if how == "two packets":
                attempt.said = line.reply()
            line.send(message)
            attempt.said = line.reply() if how == "one packet" else f"{attempt.said} / {line.reply()}"
            line.hang_up()
        attempt = self.attempt("commands behind STARTTLS in one packet")
        line = self.stranger()
        line.send(b"STARTTLS\r\n" + b"EHLO strange.example\r\n" + attempt.second("bob@example.com"))
        attempt.said = line.reply()
        line.hang_up()
        attempt = self.attempt("commands in clear after 220 to STARTTLS")
        line = self.stranger()
        line.ask("STARTTLS")
        line.send(b"EHLO strange.example\r\n" + attempt.second("bob@example.com"))
        attempt.said = line.reply() or "closed"
        line.hang_up()
        for ending_name, ending in (("LF", b"\n"), ("CR", b"\r"), ("CR CR LF", b"\r\r\n"), ("NUL", b"\0"), ("NEL", b"\xc2\x85")):
            for verb, command in (("EHLO", b"EHLO strange.example"), ("MAIL", b"MAIL FROM:<x@strange.example>"),
                                  ("MAIL address", b"MAIL FROM:<x"), ("RCPT", b"RCPT TO:<bob@example.com>"),
                                  ("NOOP", b"NOOP a"), ("VRFY", b"VRFY a")):
                attempt = self.attempt(f"{ending_name} in {verb}")
                line = self.stranger()
                if verb == "RCPT":
                    line.ask("MAIL FROM:<x@strange.example>")
                # Everything joined by the false line end: to a server that takes it, a whole transaction.
                line.send(command + ending + attempt.second("bob@example.com", ending) + CRLF)
                attempt.said = line.reply()
                line.send(b"QUIT\r\n")
                line.hang_up()

    def auth(self):
        """An AUTH exchange must not leave its answer to be taken for commands, nor the other way round."""
        for name, answer in (
            ("bare LF", plain("bob@example.com", "wrong").encode() + b"\nMAIL FROM:<{}@strange.example>"),
            ("NUL", b"AA\0MAIL FROM:<{}@strange.example>"),
            ("too long", b"A" * 20_000 + b"\r\nMAIL FROM:<{}@strange.example>"),
            ("cancelled", b"*\r\nMAIL FROM:<{}@strange.example>"),
        ):
            attempt = self.attempt(f"AUTH continuation: {name}")
            line = Line(self.server.address, self.server.ports["submission"], "127.0.3.1")
            line.reply()
            line.ask("EHLO strange.example")
            line.ask("STARTTLS")
            line.socket = self.server.tls().wrap_socket(line.socket, server_hostname="localhost")
            line.file = line.socket.makefile("rb")
            line.ask("EHLO strange.example")
            line.ask("AUTH PLAIN")
            line.send(answer.replace(b"{}", attempt.inner.encode()) + CRLF + attempt.second("bob@example.com"))
            attempt.said = line.reply()
            line.hang_up()

    # --- part 2 ---

    def relayed(self):
        """Our own user submits; we relay to a receiver that takes any line with a dot for the end."""
        for name, end in {**FALSE_ENDS, "stuffed dot alone": b"\r\n..\r\n", "stuffed dot at once": b"\r\n..\r\n..\r\n"}.items():
            for way in ("DATA", "BDAT", "BDAT of a binary body"):
                line = Line(self.relay.address, self.relay.ports["submission"])
                line.reply()
                line.ask("EHLO alice.example")
                line.ask("STARTTLS")
                line.socket = self.relay.tls().wrap_socket(line.socket, server_hostname="localhost")
                line.file = line.socket.makefile("rb")
                features = line.ask("EHLO alice.example").upper()
                if way != "DATA" and "BINARYMIME" not in features:
                    line.hang_up()
                    continue
                attempt = self.attempt(f"relayed over {way}: {name}")
                attempt.relayed = True
                assert line.ask("AUTH PLAIN " + plain("alice@gmail.com", PASSWORD)).startswith("235")
                binary = " BODY=BINARYMIME" if "binary" in way else ""
                line.ask(f"MAIL FROM:<alice@gmail.com>{binary}")
                line.ask("RCPT TO:<victim@naive.example>")
                body = attempt.first("alice@gmail.com", "victim@naive.example") + end
                body += attempt.second("victim@naive.example")
                if way == "DATA":
                    # The second transaction's own end would be ours: it is stuffed.
                    body = body.replace(b"\r\nsecond\r\n.\r\n", b"\r\nsecond\r\n..\r\n")
                    line.ask("DATA")
                    line.send(body + b"\r\n.\r\n")
                else:
                    line.send(f"BDAT {len(body)} LAST\r\n".encode() + body)
                attempt.said = line.reply()
                line.hang_up()

    # --- what is there afterwards ---

    def judge(self):
        accepted = [a for a in self.attempts if a.said.startswith("250") and hasattr(a, "relayed")]
        # Each is at the receiver, or was returned because the receiver cannot take it as it is.
        wait_until(lambda: "queue is empty" in self.relay.cli("queue", "list").stdout, "the end of the queue", 90)
        arrived = [a for a in accepted if any(a.outer.encode() in m for m in self.sink.messages)]
        mailbox = self.server.messages() + self.server.messages("Junk")
        queued = [self.server.cli("queue", "list").stdout, self.relay.cli("queue", "list").stdout]
        bad = 0
        for a in self.attempts:
            subject = f"\nSubject: {a.inner}\r".encode()
            through = sum(subject in b"\n" + m.split(b"\r\n\r\n")[0] + CRLF for m in mailbox)
            through += sum(f"smuggled-{a.number:03}@" in text for text in self.sink.senders)
            through += sum(subject in b"\n" + m.split(b"\r\n\r\n")[0] + CRLF for m in self.sink.messages)
            through += sum(a.inner in q for q in queued)
            server = self.relay if hasattr(a, "relayed") else self.server
            # A journey by the second sender would mean that its MAIL was taken for a command.
            through += server.cli("trace", f"{a.inner}@strange.example", check=False).returncode == 0
            first = sum(a.outer.encode() in m for m in (self.sink.messages if hasattr(a, "relayed") else mailbox))
            got = through > 0 or first > 1
            if a in self.controls:
                bad += not got
                verdict = "seen, as it must be" if got else "NOT SEEN: the probe is blind"
            else:
                bad += got
                verdict = "GOT THROUGH" if got else "nothing"
            said = "".join(c if c.isprintable() else " " for c in a.said)[:58] or "closed"
            self.rows.append((a.name, said, first, verdict))
        width = max(len(r[0]) for r in self.rows)
        print(f"{'attempt':{width}}  {'the server said':58}  first  second")
        for name, said, first, verdict in self.rows:
            print(f"{name:{width}}  {said:58}  {first:5}  {verdict}")
        print(f"\n{len(self.rows)} attempts, {bad} second messages got through; "
              f"{len(accepted)} taken for the naive receiver, {len(arrived)} arrived there in {self.sink.transactions - 2} transactions")
        bad += self.sink.transactions - 2 != len(arrived) or not arrived
        return bad


class NaiveReceiver(threading.Thread):
    """An SMTP server that takes any line with one dot for the end of the message, whether the line ends
    in LF, CR LF or CR, and goes on with commands behind it: the victim of every smuggler."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.listener = socket.create_server((address, 0))
        self.port = self.listener.getsockname()[1]
        self.messages, self.senders, self.transactions = [], [], 0

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        buffer, say = b"", lambda text: connection.sendall(text.encode() + CRLF)

        def line():
            nonlocal buffer
            while True:
                ends = [i for i in (buffer.find(b"\n"), buffer.find(b"\r")) if i >= 0]
                # A CR at the very end may have its LF still under way.
                if ends and (buffer[min(ends):min(ends) + 1] == b"\n" or min(ends) + 1 < len(buffer)):
                    end = min(ends)
                    skip = 2 if buffer[end:end + 2] == CRLF else 1
                    text, buffer = buffer[:end], buffer[end + skip:]
                    return text
                more = connection.recv(65536)
                if not more:
                    raise ConnectionError
                buffer += more

        try:
            say("220 naive.example")
            while True:
                command = line()
                verb = command[:4].upper()
                if verb == b"MAIL":
                    self.senders.append(command.decode(errors="replace"))
                    self.transactions += 1
                    say("250 ok")
                elif verb == b"DATA":
                    say("354 go on")
                    lines = []
                    while (text := line()) != b".":
                        lines.append(text[1:] if text.startswith(b".") else text)
                    self.messages.append(CRLF.join(lines))
                    say("250 ok")
                elif verb == b"QUIT":
                    say("221 bye")
                    return
                elif verb in (b"EHLO", b"HELO", b"RCPT", b"RSET", b"NOOP"):
                    say("250 ok")
                else:
                    say("500 what?")
        except OSError:
            pass
        finally:
            connection.close()


def main():
    world = World()
    try:
        sink = NaiveReceiver("127.0.5.1")
        sink.start()
        for server in (world.example, world.gmail):
            server.stop()
        route = f'deliver.route=[{{domain="naive.example",host="127.0.5.1",port={sink.port},tls="off"}}]'
        many = "smtp.connections_per_address_max=1000"
        world.example.start(many)
        world.gmail.start(many, route)
        probe = Probe(world, sink)
        for part in (probe.control, probe.false_ends, probe.bdat, probe.commands, probe.auth, probe.relayed):
            part()
        return 1 if probe.judge() else 0
    finally:
        world.close()


if __name__ == "__main__":
    sys.exit(main())
