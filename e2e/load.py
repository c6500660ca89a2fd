"""Clients that load a server and note what they were promised: senders by SMTP, readers by IMAP and
POP3. They speak on bare sockets, because what counts is exactly what was sent when the end came.

Never: sending a message again. A client that got no answer leaves it open, and the ledger with it.
"""

import base64
import random
import socket
import threading

from ledger import FIELD, GONE, INBOX, KEPT, token_of

#: Where the stranger of the test zones sends from.
STRANGER = "127.0.3.1"
TIMEOUT_SECS = 60


class Gone(Exception):
    """The connection ended, or the server said something that makes it useless."""


class Wire:
    """Lines on a socket."""

    def __init__(self, address, port, source=None):
        try:
            where = (source, 0) if source else None
            self.socket = socket.create_connection((address, port), timeout=TIMEOUT_SECS, source_address=where)
        except OSError as error:
            raise Gone(str(error)) from error
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def send(self, octets):
        try:
            self.socket.sendall(octets)
        except OSError as error:
            raise Gone(str(error)) from error

    def line(self):
        try:
            line = self.file.readline()
        except OSError as error:
            raise Gone(str(error)) from error
        if not line.endswith(b"\r\n"):
            raise Gone("closed")
        return line[:-2]

    def octets(self, count):
        try:
            octets = self.file.read(count)
        except OSError as error:
            raise Gone(str(error)) from error
        if len(octets) != count:
            raise Gone("closed")
        return octets

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Smtp(Wire):
    def __init__(self, address, port, source=None, login=None):
        super().__init__(address, port, source)
        self.expect(220)
        self.chunking = b"CHUNKING" in self.say("EHLO strange.example", 250)
        if login:
            plain = base64.b64encode(f"\0{login[0]}\0{login[1]}".encode()).decode()
            self.say(f"AUTH PLAIN {plain}", 235)

    def reply(self):
        text = line = self.line()
        while line[3:4] == b"-":
            line = self.line()
            text += b"\n" + line
        return int(line[:3]), text

    def expect(self, code):
        got, text = self.reply()
        if got != code:
            raise Gone(text.decode(errors="replace"))
        return text

    def say(self, line, code):
        self.send(line.encode() + b"\r\n")
        return self.expect(code)

    def message(self, ledger, message, sender, recipients, octets, chunked):
        """One transaction. Answers the reply to its end, or the first refusal before."""
        lines = [f"MAIL FROM:<{sender}>", *[f"RCPT TO:<{r}>" for r in recipients]]
        self.send("".join(f"{line}\r\n" for line in lines).encode())
        answers = [self.reply() for _ in lines]
        bad = next((line for code, line in answers if code != 250), None)
        if bad:
            text = bad.decode(errors="replace")
            ledger.counts[f"refused {text[:60]}"] += 1
            self.say("RSET", 250)
            return text
        if chunked and self.chunking:
            ledger.ends(message)
            self.send(f"BDAT {len(octets)} LAST\r\n".encode() + octets)
        else:
            self.say("DATA", 354)
            self.send(octets.replace(b"\r\n.", b"\r\n.."))
            ledger.ends(message)
            self.send(b".\r\n")
        code, text = self.reply()
        text = text.decode(errors="replace")
        ledger.answered(message, code, text)
        if code == 421:
            raise Gone(text)
        return text


class Imap(Wire):
    """Commands, and everything that came before their end: a list of lines with their literals."""

    def __init__(self, address, port, login):
        super().__init__(address, port)
        self.line()
        self.tags = 0
        self.do(f'LOGIN {login[0]} "{login[1]}"')

    def ask(self, command):
        """Ends with (condition, all lines); `NO` is an answer too."""
        self.tags += 1
        tag = f"t{self.tags} ".encode()
        self.send(tag + command.encode() + b"\r\n")
        lines = []
        while True:
            line, literals = self.line(), []
            while line.endswith(b"}"):
                count = int(line[line.rindex(b"{") + 1:-1])
                literals.append(self.octets(count))
                line += b"\r\n" + self.line()
            if line.startswith(tag):
                return line[len(tag):], lines
            if line.startswith(b"* BYE"):
                raise Gone(line.decode(errors="replace"))
            lines.append((line, literals))

    def do(self, command):
        end, lines = self.ask(command)
        if not end.startswith(b"OK"):
            raise Gone(f"{command}: {end.decode(errors='replace')}")
        return lines

    def logout(self):
        self.send(b"bye LOGOUT\r\n")
        while not self.line().startswith(b"bye OK"):
            pass

    def select(self, mailbox):
        """UIDVALIDITY and how many messages there are."""
        validity = count = 0
        for line, _ in self.do(f"SELECT {mailbox}"):
            if b"[UIDVALIDITY " in line:
                validity = int(line.split(b"[UIDVALIDITY ")[1].split(b"]")[0])
            if line.endswith(b" EXISTS"):
                count = int(line.split(b" ")[1])
        return validity, count

    def flags(self):
        """uid -> flags, of all messages of the selected mailbox."""
        found = {}
        for line, _ in self.do("UID FETCH 1:* (UID FLAGS)"):
            if b" FETCH (" in line and b"FLAGS (" in line:
                names = line.split(b"FLAGS (")[1].split(b")")[0].decode().split()
                found[uid_of(line)] = frozenset(n for n in names if n != "\\Recent")
        return found

    def bodies(self, uids):
        """uid -> octets."""
        lines = self.do(f"UID FETCH {number_set(uids)} (UID BODY.PEEK[])")
        return {uid_of(line): literals[0] for line, literals in lines if literals}

    def tokens(self, first):
        """uid -> token, from a UID on."""
        lines = self.do(f"UID FETCH {first}:* (UID BODY.PEEK[HEADER.FIELDS ({FIELD.decode()})])")
        return {uid_of(line): token_of(literals[0]) for line, literals in lines if literals}


class Pop3(Wire):
    def __init__(self, address, port, login):
        super().__init__(address, port)
        self.ok()
        self.say(f"USER {login[0]}")
        self.say(f"PASS {login[1]}")

    def ok(self):
        line = self.line()
        if not line.startswith(b"+OK"):
            raise Gone(line.decode(errors="replace"))
        return line

    def say(self, line):
        self.send(line.encode() + b"\r\n")
        return self.ok()

    def text(self, line):
        """A command with an answer of several lines."""
        self.say(line)
        lines = []
        while (got := self.line()) != b".":
            lines.append(got[1:] if got.startswith(b".") else got)
        return b"".join(part + b"\r\n" for part in lines)

    def count(self):
        return int(self.say("STAT").split(b" ")[1])


def uid_of(line):
    return int(line.split(b"UID ")[1].split(b" ")[0].split(b")")[0])


def number_set(numbers):
    """1,2,3,7 as 1:3,7."""
    runs = []
    for n in sorted(numbers):
        if runs and runs[-1][1] == n - 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ",".join(f"{a}:{b}" if a != b else str(a) for a, b in runs)


class Texts:
    """Bodies of all sizes, cut out of one random text at its lines; some lines begin with a dot."""

    SIZES = ((45, 1_000, 4_000), (37, 4_000, 20_000), (15, 50_000, 200_000), (3, 1_100_000, 1_800_000))

    def __init__(self, rng):
        text = base64.b64encode(rng.randbytes(2_000_000))
        lines = [text[i:i + 76] for i in range(0, len(text), 76)]
        self.lines = [(b"." if n % 17 == 0 else b"") + line for n, line in enumerate(lines)]

    def one(self, rng, token, sender, recipients):
        _, least, most = rng.choices(self.SIZES, [size[0] for size in self.SIZES])[0]
        count = rng.randint(least, most) // 78
        at = rng.randrange(len(self.lines) - count)
        head = (
            f"From: {sender}\r\nTo: {', '.join(recipients)}\r\nSubject: {token}\r\n{FIELD.decode()}: {token}\r\n"
            f"Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nMessage-ID: <{token}@load.example>\r\n\r\n"
        )
        return head.encode() + b"\r\n".join(self.lines[at:at + count]) + b"\r\n"


class Client(threading.Thread):
    """Works in sessions while the gate is open; a session ends when the server does."""

    def __init__(self, gate, name, seed):
        super().__init__(name=name, daemon=True)
        self.gate, self.rng = gate, random.Random(f"{seed} {name}")
        self.failed = None

    def run(self):
        try:
            while self.gate.enter():
                try:
                    self.session()
                except Gone as why:
                    self.gate.broken(self.name, str(why))
        except Exception as error:  # noqa: BLE001: told by the round, not by a lost thread
            self.failed = error
            self.gate.leave()
            raise


class Gate:
    """Lets clients begin sessions, and knows when all of them have stopped."""

    def __init__(self, clients):
        self.changed = threading.Condition()
        self.clients, self.waiting = clients, 0
        self.open = self.ended = False
        self.reasons = {}

    def enter(self):
        with self.changed:
            if not self.open and not self.ended:
                self.waiting += 1
                self.changed.notify_all()
                self.changed.wait_for(lambda: self.open or self.ended)
                self.waiting -= 1
            return not self.ended

    def broken(self, who, why):
        with self.changed:
            if self.open:  # not because we ended the server
                self.reasons[why] = self.reasons.get(why, 0) + 1

    def leave(self):
        with self.changed:
            self.clients -= 1
            self.changed.notify_all()

    def set(self, is_open):
        with self.changed:
            self.open = is_open
            self.changed.notify_all()

    def wait_until_all_stopped(self):
        with self.changed:
            assert self.changed.wait_for(lambda: self.waiting >= self.clients, 2 * TIMEOUT_SECS), "a client hangs"

    def end(self):
        with self.changed:
            self.ended = True
            self.changed.notify_all()


class Sender(Client):
    """By port 25 as a stranger to people here; by submission also to people elsewhere."""

    def __init__(self, gate, name, seed, world, submits):
        super().__init__(gate, name, seed)
        self.world, self.submits = world, submits
        self.sent = 0

    def session(self):
        world, rng = self.world, self.rng
        if self.submits:
            sender = rng.choice(world.people)
            login, service, source = (sender, world.passwords[sender]), "submission", None
        else:
            sender, login, service, source = "x@strange.example", None, "smtp", STRANGER
        server = world.server
        with Smtp(server.address, server.ports[service], source, login) as smtp:
            for _ in range(rng.randint(1, 12)):
                self.one(smtp, sender)
                if not self.gate.open:
                    break
            smtp.say("QUIT", 221)

    def one(self, smtp, sender):
        world, rng = self.world, self.rng
        local = rng.sample(world.people, rng.choice((1, 1, 1, 2, 3)))
        remote = []
        if self.submits:
            remote = rng.sample(world.elsewhere, rng.choice((0, 1, 1, 2)))
            local = local if not remote or rng.random() < 0.5 else []
        self.sent += 1
        token = f"{self.name}-{self.sent}"
        octets = world.texts.one(rng, token, sender, [*local, *remote])
        message = world.ledger.offer(token, octets, local, remote)
        smtp.message(world.ledger, message, sender, [*local, *remote], octets, rng.random() < 0.25)


class Reader(Client):
    """Flags, moves and removes the mail of its accounts, by IMAP and POP3."""

    def __init__(self, gate, name, seed, world, accounts):
        super().__init__(gate, name, seed)
        self.world, self.accounts = world, accounts

    def session(self):
        account = self.rng.choice(self.accounts)
        server, login = self.world.server, (account, self.world.passwords[account])
        if self.rng.random() < 0.3:
            with Pop3(server.address, server.ports["pop3"], login) as pop3:
                self.by_pop3(pop3, account)
        else:
            with Imap(server.address, server.ports["imap"], login) as imap:
                self.by_imap(imap, account)

    def by_imap(self, imap, account):
        place = self.rng.choice((INBOX, INBOX, INBOX, KEPT))
        imap.select(place)
        self.learn(imap, account, place)
        for _ in range(self.rng.randint(1, 4)):
            tokens = self.world.ledger.account_of(account, place, self.rng.randint(1, 8), self.rng)
            if not tokens:
                return
            work = self.rng.choice((self.flag, self.flag, self.remove, self.move))
            work(imap, account, place, tokens)
        if self.rng.random() < 0.5:
            imap.logout()

    def learn(self, imap, account, place):
        """Looks at what is new; it may be there before its sender has read the answer."""
        ledger = self.world.ledger
        first = max(ledger.known[account, place], default=0) + 1
        for uid, token in imap.tokens(first).items():
            if uid >= first:
                ledger.learn(account, place, uid, token)

    def parts(self, account, place, tokens):
        copies = [self.world.ledger.by_account[account][token] for token in tokens]
        return copies, number_set(copy.uid[place] for copy in copies)

    def flag(self, imap, account, place, tokens):
        copies, uids = self.parts(account, place, tokens)
        name, sign = self.rng.choice(("\\Seen", "\\Flagged", "\\Answered", "$Work")), self.rng.choice("++-")
        self.store(imap, copies, uids, name, sign)

    def store(self, imap, copies, uids, name, sign):
        after = []
        for copy in copies:
            (before,) = copy.flags
            after.append(before | {name} if sign == "+" else before - {name})
            copy.flags = {before, after[-1]}
        imap.do(f"UID STORE {uids} {sign}FLAGS.SILENT ({name})")
        for copy, flags in zip(copies, after):
            copy.flags = {flags}
        self.world.ledger.counts["flags acknowledged"] += len(copies)

    def remove(self, imap, account, place, tokens):
        copies, uids = self.parts(account, place, tokens)
        self.store(imap, copies, uids, "\\Deleted", "+")
        self.goes(copies, {place, GONE})
        imap.do(f"UID EXPUNGE {uids}")
        self.went(copies, {GONE}, "removed by IMAP")

    def move(self, imap, account, place, tokens):
        copies, uids = self.parts(account, place, tokens)
        to = KEPT if place == INBOX else INBOX
        self.goes(copies, {place, to})
        for copy in copies:
            copy.uid.pop(to, None)  # it gets a new one
        imap.do(f"UID MOVE {uids} {to}")
        self.went(copies, {to}, "moved")

    def by_pop3(self, pop3, account):
        ledger, copies = self.world.ledger, []
        count = pop3.count()
        for number in self.rng.sample(range(1, count + 1), min(count, self.rng.randint(1, 6))):
            token = token_of(pop3.text(f"TOP {number} 0"))
            copy = ledger.by_account[account].get(token)
            if copy and copy.places == {INBOX}:
                if self.rng.random() < 0.3:
                    ledger.whole(f"{account} by RETR", pop3.text(f"RETR {number}"))
                pop3.say(f"DELE {number}")
                copies.append(copy)
        self.goes(copies, {INBOX, GONE})
        pop3.say("QUIT")
        self.went(copies, {GONE}, "removed by POP3")

    def goes(self, copies, places):
        for copy in copies:
            copy.places = set(places)

    def went(self, copies, places, what):
        for copy in copies:
            copy.places = set(places)
        self.world.ledger.counts[what] += len(copies)
