"""A small internet on loopback for the end-to-end tests: one DNS server, two mail servers.

Everything runs through the program's own command line, the way an operator's script would. Nothing
leaves 127.0.0.0/8. The only waiting is for lines that a process prints and for events that a
protocol reports.
"""

import base64
import imaplib
import os
import pathlib
import signal
import smtplib
import socket
import ssl
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = os.environ.get("POSTHASTE", str(ROOT / "target" / "release" / "posthaste"))
SERVICES = ("smtp", "submission", "submissions", "imap", "imaps", "pop3", "pop3s")
PASSWORD = "correct horse battery staple"


def run(*args, stdin=None, check=True):
    """Runs one posthaste command to its end."""
    done = subprocess.run([BINARY, *map(str, args)], input=stdin, capture_output=True, text=True, timeout=120)
    if check and done.returncode != 0:
        raise AssertionError(f"posthaste {args} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done


def free_port(address):
    with socket.socket() as s:
        s.bind((address, 0))
        return s.getsockname()[1]


def wait_until(question, what, seconds=30):
    """Asks again until the answer is true: for things that only a protocol can tell."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = question()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s for {what}")


class Process:
    """A long-running posthaste command that says `ready` when it is."""

    def __init__(self, *args, log):
        self.log = open(log, "ab")
        self.process = subprocess.Popen(
            [BINARY, *map(str, args)], stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line.strip())
            if line.strip() == "ready":
                return
        raise AssertionError(f"posthaste {args} did not start:\n{pathlib.Path(log).read_text()}")

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(timeout=60)
        self.process.stdout.close()
        self.log.close()
        return self.process.returncode


class MailServer:
    """One posthaste with its own folder, made by `init` without questions."""

    def __init__(self, folder, domain, address, dns_port, person, deliver_port=None, ports=None, orders=()):
        self.folder, self.domain, self.address, self.person = folder, domain, address, person
        self.dns_port = dns_port
        self.ports = ports or {name: free_port(address) for name in SERVICES}
        self.config, self.log = folder / "posthaste.toml", folder / "log"
        self.process = None
        orders = [
            *[f'listen.{name}=["{address}:{port}"]' for name, port in self.ports.items()],
            f'dns.servers=["127.0.0.1:{dns_port}"]',
            f'deliver.source_addresses=["{address}"]',
            "queue.retry_first_secs=1",
            "queue.retry_max_secs=2",
            *orders,
        ]
        if deliver_port:
            orders.append(f"deliver.port={deliver_port}")
        self.zone = run(
            "--config", self.config, *[x for o in orders for x in ("--set", o)],
            "init", domain, "--yes", "--account", person, "--password-stdin", "--address", address,
            stdin=PASSWORD + "\n",
        ).stdout

    def cli(self, *args, **kw):
        return run("--config", self.config, *args, **kw)

    def start(self, *orders, flags=()):
        extra = [x for o in orders for x in ("--set", o)]
        self.process = Process("--config", self.config, *extra, "serve", *flags, log=self.log)

    def stop(self, how=signal.SIGTERM):
        code = self.process.stop(how)
        self.process = None
        return code

    @property
    def certificate(self):
        return next((self.folder / "data" / "tls").glob("*cert*.pem"))

    def tls(self):
        return ssl.create_default_context(cafile=str(self.certificate))

    def smtp(self, service="smtp", source=None):
        where = (self.address, self.ports[service])
        source = (source, 0) if source else None
        if service == "submissions":
            return smtplib.SMTP_SSL(*where, context=self.tls(), timeout=30, source_address=source)
        return smtplib.SMTP(*where, timeout=30, source_address=source)

    def submit(self, message, to, sender=None, login=None, password=PASSWORD):
        with self.smtp("submissions") as s:
            s.login(login or self.person, password)
            return s.sendmail(sender or self.person, to, message)

    def imap(self, service="imaps", login=True):
        if service == "imaps":
            box = imaplib.IMAP4_SSL(self.address, self.ports["imaps"], ssl_context=self.tls(), timeout=30)
        else:
            box = imaplib.IMAP4(self.address, self.ports["imap"], timeout=30)
            box.starttls(self.tls())
        if login:
            box.login(self.person, PASSWORD)
        return box

    def messages(self, mailbox="INBOX"):
        """Every message of a mailbox, as bytes, without setting \\Seen."""
        box = self.imap()
        try:
            box.select(mailbox, readonly=True)
            _, data = box.fetch("1:*", "(BODY.PEEK[])") if box.untagged_responses["EXISTS"] != [b"0"] else (0, [])
            return [part[1] for part in data if isinstance(part, tuple)]
        finally:
            box.logout()

    def wait_for(self, marker, mailbox="INBOX", count=1):
        """Waits until `count` messages that hold `marker` are in the mailbox."""
        def found():
            hits = [m for m in self.messages(mailbox) if marker.encode() in m]
            return hits if len(hits) >= count else None
        return wait_until(found, f"{marker!r} in {mailbox} of {self.person}")

    def raw(self, service, tls=False):
        return Raw(self.address, self.ports[service], self.tls() if tls else None)


class Raw:
    """A connection on which one can say anything."""

    def __init__(self, address, port, tls=None):
        self.socket = socket.create_connection((address, port), timeout=30)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.file = self.socket.makefile("rb")

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError:
            pass  # closed by the server: the answer, if any, is still to be read
        return self

    def line(self):
        try:
            return self.file.readline()
        except OSError:
            return b""

    def reply(self):
        """One SMTP reply, all its lines."""
        lines = [self.line()]
        while lines[-1][3:4] == b"-":
            lines.append(self.line())
        return b"".join(lines)

    def rest(self):
        try:
            return self.file.read()
        except OSError:
            return b""

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class World:
    """gmail.com at 127.0.1.1, example.com at 127.0.2.1, and the DNS that knows both, and two domains that
    only send: strange.example from 127.0.3.1, example.net from 127.0.1.1."""

    def __init__(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="posthaste-e2e-")
        folder = pathlib.Path(self.temporary.name)
        for name in ("gmail", "example"):
            (folder / name).mkdir()
        self.dns_port = free_port("127.0.0.1")
        self.example = MailServer(folder / "example", "example.com", "127.0.2.1", self.dns_port, "bob@example.com")
        self.gmail = MailServer(
            folder / "gmail", "gmail.com", "127.0.1.1", self.dns_port, "alice@gmail.com",
            deliver_port=self.example.ports["smtp"],
        )
        zones = []
        for server in (self.gmail, self.example):
            zone = folder / f"{server.domain}.zone"
            zone.write_text(server.zone)
            zones += ["--zone", zone]
        for domain, address in (("strange.example", "127.0.3.1"), ("example.net", "127.0.1.1")):
            stranger = folder / f"{domain}.zone"
            stranger.write_text(
                f"$ORIGIN {domain}.\n$TTL 60\n"
                "@ IN SOA ns hostmaster 1 3600 600 86400 60\n@ IN NS ns\nns IN A 127.0.0.1\n"
                f'@ IN TXT "v=spf1 ip4:{address} -all"\n@ IN MX 10 mail\nmail IN A {address}\n'
                '_dmarc IN TXT "v=DMARC1; p=none"\n'
            )
            zones += ["--zone", stranger]
        self.dns = Process("lab", "dns", *zones, "--listen", f"127.0.0.1:{self.dns_port}", log=folder / "dns.log")
        self.gmail.start()
        self.example.start()

    def close(self):
        for server in (self.gmail, self.example):
            if server.process:
                server.stop()
        self.dns.stop()
        self.temporary.cleanup()


def message(subject, sender="alice@gmail.com", to="bob@example.com", body="Hi Bob, how are you?"):
    return f"From: {sender}\r\nTo: {to}\r\nSubject: {subject}\r\n\r\n{body}\r\n"


def plain(user, password):
    return base64.b64encode(f"\0{user}\0{password}".encode()).decode()
