"""One server with one account, for tests in which the disk is the other party: sends mail to itself,
keeps the ledger, and says what is in the mailbox."""

import json
import pathlib
import random
import subprocess

from ledger import INBOX, KEPT, Ledger, Message, token_of
from load import Gone, Imap, Pop3, Smtp
from world import BINARY, MailServer, free_port

PERSON = "bob@example.com"
SERVE = ("login.without_tls_on_loopback=true",)


class One:
    def __init__(self, folder, log, *orders):
        self.server = MailServer(folder, "example.com", "127.0.0.1", free_port("127.0.0.1"), PERSON)
        self.server.log = log
        self.orders = (*SERVE, *orders)
        self.store = folder / "data" / "store"
        self.ledger, self.rng, self.sent = Ledger(), random.Random(1), 0
        self.smtp = None
        self.start()
        made = self.server.cli("--json", "account", "app-password", PERSON, "--scope", "smtp,imap,pop3").stdout
        self.login = (PERSON, json.loads(made)["password"])
        with self.imap() as imap:
            imap.do(f"CREATE {KEPT}")

    def start(self, *flags):
        self.server.start(*self.orders, flags=flags)

    def stop(self, *how):
        self.hang_up()
        if self.server.process:
            return self.server.stop(*how)

    def hang_up(self):
        if self.smtp:
            self.smtp.close()
            self.smtp = None

    def start_fails(self):
        """A start that is to be refused: its exit code and all it said."""
        orders = [x for order in self.orders for x in ("--set", order)]
        done = subprocess.run(
            [BINARY, "--config", str(self.server.config), *orders, "serve"],
            capture_output=True, text=True, timeout=60,
        )
        return done.returncode, done.stdout + done.stderr

    def pid(self):
        return self.server.process.process.pid

    def alive(self):
        return self.server.process.process.poll() is None

    def said(self):
        return pathlib.Path(self.server.log).read_text()

    # --- mail ---

    def new_session(self):
        return Smtp(self.server.address, self.server.ports["submission"], None, self.login)

    def connect(self):
        if not self.smtp:
            self.smtp = self.new_session()
        return self.smtp

    def send(self, octets, marker=""):
        """Sends one message of about this size. Answers its token and the reply to its end."""
        self.sent += 1
        token = f"m{self.sent}"
        head = (
            f"From: {PERSON}\r\nTo: {PERSON}\r\nSubject: {token} {marker}\r\nX-Token: {token}\r\n"
            f"Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nMessage-ID: <{token}@load.example>\r\n\r\n"
        ).encode()
        line = self.rng.randbytes(38).hex().encode() + b"\r\n"
        message = head + line * max(1, (octets - len(head)) // len(line))
        entry = self.ledger.offer(token, message, [PERSON], [])
        smtp = self.connect()
        try:
            return token, smtp.message(self.ledger, entry, PERSON, [PERSON], message, False)
        except Gone:
            self.hang_up()
            raise

    def send_unsure(self, octets):
        """The same, where even a refusal leaves open whether it will be there after the next start."""
        try:
            token, reply = self.send(octets)
        except Gone:
            token, reply = f"m{self.sent}", None
        message = self.ledger.messages[token]
        if message.state != "kept":
            self.ledger.ends(message)
        if reply is None:
            raise Gone("closed")
        return reply

    def send_outside_ledger(self, smtp, name):
        """Sends a small message by another session; only the reply counts."""
        octets = f"From: {PERSON}\r\nTo: {PERSON}\r\nSubject: {name}\r\n\r\n{name}\r\n".encode()
        return smtp.message(Ledger(), Message(name, octets, [], []), PERSON, [PERSON], octets, False)

    def send_until_refused(self, octets, most=5000):
        """How many were taken, and the reply that ended it."""
        for n in range(most):
            _, reply = self.send(octets)
            if not reply.startswith("250"):
                return n, reply
        raise AssertionError(f"{most} messages of {octets} octets and the disk is not full")

    def imap(self):
        return Imap(self.server.address, self.server.ports["imap"], self.login)

    def pop3(self):
        return Pop3(self.server.address, self.server.ports["pop3"], self.login)

    def check(self, unreadable=()):
        """Holds the mailbox against the ledger, every octet. `unreadable`: tokens whose octets were
        damaged on purpose; they must still be listed. Answers what is wrong."""
        found = {}
        with self.imap() as imap:
            for place in (INBOX, KEPT):
                found[place] = self.look(imap, place, unreadable)
        self.ledger.settle(PERSON, found)
        self.ledger.settle_open()
        return self.ledger.wrong

    def look(self, imap, place, unreadable):
        known = self.ledger.known[PERSON, place]
        _, count = imap.select(place)
        flags = imap.flags() if count else {}
        tokens = {}
        for uid in flags:
            end, lines = imap.ask(f"UID FETCH {uid} (UID BODY.PEEK[])")
            octets = next((literals[0] for _, literals in lines if literals), None)
            if octets is not None:
                tokens[uid] = self.ledger.whole(f"{place} UID {uid}", octets)
                if tokens[uid] in unreadable:
                    self.ledger.bad("damaged but served", tokens[uid])
            elif known.get(uid) in unreadable and end.startswith(b"NO"):
                tokens[uid] = known[uid]
            else:
                self.ledger.bad("unreadable", f"{place} UID {uid} {known.get(uid)}: {end!r}")
        return {uid: (tokens.get(uid), flags[uid]) for uid in flags}

    def learn(self, place=INBOX):
        """uid -> token of what is there now."""
        with self.imap() as imap:
            imap.select(place)
            tokens = imap.tokens(1)
        for uid, token in tokens.items():
            self.ledger.learn(PERSON, place, uid, token)
        return tokens

    def remove_by_imap(self, uids):
        tokens = [self.ledger.known[PERSON, INBOX][uid] for uid in uids]
        with self.imap() as imap:
            imap.select(INBOX)
            for at in range(0, len(uids), 100):
                some = ",".join(map(str, uids[at:at + 100]))
                imap.do(f"UID STORE {some} +FLAGS.SILENT (\\Deleted)")
                imap.do(f"UID EXPUNGE {some}")
        self.removed(tokens)

    def remove_by_pop3(self, count):
        tokens = []
        with self.pop3() as pop3:
            for number in range(1, count + 1):
                tokens.append(token_of(pop3.text(f"TOP {number} 0")))
                pop3.say(f"DELE {number}")
            pop3.say("QUIT")
        self.removed(tokens)

    def removed(self, tokens):
        for token in tokens:
            self.ledger.by_account[PERSON][token].places = {"gone"}
