"""A walk through SMTP with bare sockets: every command in every state, and each reply held against a
reading of the RFCs of our own (5321, 2034, 2920, 3030, 3207, 3461, 4954, 6531, 8689, 9422).

The tables below are that reading. Nothing here knows the server's code.
"""

import base64
import pathlib
import re
import socket
import tempfile
import unittest

from world import PASSWORD, MailServer, Process, free_port, plain

SENDER, STRANGER = "x@strange.example", "127.0.3.1"
MAIL, RCPT = f"MAIL FROM:<{SENDER}>", "RCPT TO:<bob@example.com>"
OWN_MAIL = "MAIL FROM:<bob@example.com>"
HEAD = f"From: {SENDER}\r\nTo: bob@example.com\r\nSubject: walk\r\n\r\n"
ZONE = ("$ORIGIN strange.example.\n$TTL 60\n@ IN SOA ns hostmaster 1 3600 600 86400 60\n@ IN NS ns\nns IN A 127.0.0.1\n"
        '@ IN TXT "v=spf1 ip4:127.0.3.1 -all"\n@ IN MX 10 mail\nmail IN A 127.0.3.1\n')


def setUpModule():
    global SERVER
    temporary = tempfile.TemporaryDirectory(prefix="posthaste-walk-")
    unittest.addModuleCleanup(temporary.cleanup)
    folder = pathlib.Path(temporary.name)
    (folder / "example").mkdir()
    port = free_port("127.0.0.1")
    SERVER = MailServer(folder / "example", "example.com", "127.0.2.1", port, "bob@example.com",
                        orders=("smtp.size_max_octets=1000000",))
    (folder / "a.zone").write_text(SERVER.zone)
    (folder / "b.zone").write_text(ZONE)
    dns = Process("lab", "dns", "--zone", folder / "a.zone", "--zone", folder / "b.zone",
                  "--listen", f"127.0.0.1:{port}", log=folder / "dns.log")
    unittest.addModuleCleanup(dns.stop)
    SERVER.start()
    unittest.addModuleCleanup(SERVER.stop)


class Broken(AssertionError):
    """A reply that is none."""


class Session:
    """One connection. Each reply is held against the grammar before anything else is asked of it."""

    def __init__(self, service="smtp"):
        self.socket = socket.create_connection((SERVER.address, SERVER.ports[service]), timeout=20,
                                               source_address=(STRANGER, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.said, self.keywords = [], {}
        if service == "submissions":
            self.secure()
        else:
            self.file = self.socket.makefile("rb")
        greeting = self.reply()
        if greeting[0] != 220:
            raise Broken(f"greeting {greeting}")

    def secure(self):
        self.socket = SERVER.tls().wrap_socket(self.socket, server_hostname="localhost")
        self.file = self.socket.makefile("rb")

    def send(self, text):
        self.socket.sendall(text.encode() if isinstance(text, str) else text)

    def reply(self):
        """(code, enhanced code or "", lines)"""
        lines = []
        while True:
            raw = self.file.readline()
            self.said.append(raw)
            # RFC 5321 §4.2 and §4.5.3.1.5: three digits, space or hyphen, at most 512 octets, CRLF.
            if not re.fullmatch(rb"[2-5][0-5][0-9](?:[ -][\t\x20-\x7e]*)?\r\n", raw) or len(raw) > 512:
                raise Broken(f"not a reply line: {raw!r} after {self.said[-5:]}")
            lines.append(raw[:-2].decode())
            if raw[3:4] != b"-":
                break
        codes = {line[:3] for line in lines}
        if len(codes) != 1:
            raise Broken(f"two codes in one reply: {lines}")
        enhanced = {m.group(0) if (m := re.match(r"[245]\.\d{1,3}\.\d{1,3}(?= )", line[4:])) else "" for line in lines}
        if len(enhanced) != 1:
            raise Broken(f"not the same enhanced code on each line (RFC 2034 §4): {lines}")
        enhanced = enhanced.pop()
        if enhanced and enhanced[0] != lines[0][0]:
            raise Broken(f"the classes of code and enhanced code differ (RFC 2034 §4): {lines}")
        return int(lines[0][:3]), enhanced, lines

    def ask(self, command):
        self.send(command if isinstance(command, bytes) else f"{command}\r\n")
        return self.reply()

    def ehlo(self, verb="EHLO"):
        code, enhanced, lines = self.ask(f"{verb} mail.strange.example")
        if code != 250 or enhanced:
            raise Broken(f"{verb}: {lines}")
        self.keywords = {}
        for line in lines[1:]:
            # RFC 5321 §4.1.1.1: ehlo-line.
            if not re.fullmatch(r"250[ -][A-Za-z0-9][A-Za-z0-9-]*(?: [\x21-\x7e]+)*", line):
                raise Broken(f"not an ehlo-line: {line!r}")
            keyword, *values = line[4:].split(" ")
            if keyword.upper() in self.keywords:
                raise Broken(f"{keyword} twice")
            self.keywords[keyword.upper()] = values
        return self

    def starttls(self):
        if self.ask("STARTTLS")[0] != 220:
            raise Broken("STARTTLS")
        self.file.close()
        self.secure()
        return self

    def closed(self):
        return self.file.readline() == b""

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def fresh():
    return Session()


def helo():
    return Session().ehlo("HELO")


def ehlo():
    return Session().ehlo()


def tls_fresh():
    return Session().ehlo().starttls()


def tls():
    return tls_fresh().ehlo()


def with_mail(before):
    def go():
        session = before()
        assert session.ask(MAIL)[0] == 250, session.said
        return session
    return go


def with_rcpt(before):
    def go():
        session = with_mail(before)()
        assert session.ask(RCPT)[0] == 250, session.said
        return session
    return go


def with_chunk(before):
    def go():
        session = with_rcpt(before)()
        assert session.ask(b"BDAT %d\r\n%s" % (len(HEAD), HEAD.encode()))[0] == 250, session.said
        return session
    return go


def login():
    session = Session("submissions").ehlo()
    assert session.ask(f"AUTH PLAIN {plain('bob@example.com', PASSWORD)}")[0] == 235, session.said
    return session.ehlo()


STATES = {
    "fresh": fresh, "helo": helo, "helo mail": with_mail(helo), "helo rcpt": with_rcpt(helo),
    "ehlo": ehlo, "mail": with_mail(ehlo), "rcpt": with_rcpt(ehlo),
    "tls fresh": tls_fresh, "tls ehlo": tls, "tls mail": with_mail(tls), "tls rcpt": with_rcpt(tls),
}
EVERYWHERE = tuple(STATES)
STATES["login"] = login
BEFORE = ("fresh", "tls fresh")
IDLE = ("helo", "ehlo", "tls ehlo")
#: Our own people, logged in: who may ask for more.
OWN = ("login",)
MAILED = ("helo mail", "mail", "tls mail")
READY = ("helo rcpt", "rcpt", "tls rcpt")
EXTENDED_IDLE = ("ehlo", "tls ehlo")
EXTENDED_MAILED = ("mail", "tls mail")

WRONG_ORDER, SYNTAX, PARAMETER, NOT_OFFERED = "503 5.5.1", "501 5.5.4", "501 5.5.4", "555 5.5.4"
#: (command, states, what RFC asks for: codes that a conforming server may give)
COMMANDS = [
    # RFC 5321 §4.1.1.1, §4.1.4: at any time; a name is needed.
    ("HELO mail.strange.example", EVERYWHERE, "250"),
    ("EHLO mail.strange.example", EVERYWHERE, "250"),
    ("EHLO [127.0.3.1]", EVERYWHERE, "250"),
    ("EHLO [IPv6:::1]", EVERYWHERE, "250"),
    ("ehlo MAIL.strange.example ", EVERYWHERE, "250"),
    ("EHLO", EVERYWHERE, SYNTAX),
    ("HELO", EVERYWHERE, SYNTAX),
    # §4.1.1.2, §4.1.4: MAIL begins a transaction, after EHLO and not within another.
    (MAIL, BEFORE + MAILED + READY, WRONG_ORDER),
    (MAIL, IDLE, "250 2.1.0"),
    ("MAIL FROM:<>", IDLE, "250 2.1.0"),
    ("mail from:<x@strange.example>", IDLE, "250 2.1.0"),
    ("MAIL FROM:<@relay.example:x@strange.example>", IDLE, "250 2.1.0"),
    ('MAIL FROM:<"x y"@strange.example>', IDLE, "250 2.1.0"),
    ("MAIL FROM:<x@[127.0.3.1]>", IDLE, "250 2.1.0"),
    ("MAIL", IDLE, SYNTAX),
    ("MAIL FROM:", IDLE, SYNTAX),
    ("MAIL FROM:<x@strange.example", IDLE, SYNTAX),
    ("MAIL TO:<x@strange.example>", IDLE, SYNTAX),
    ("MAIL FROM:<x@@strange.example>", IDLE, "501 5.1.7|553 5.1.7|553 5.1.3|501 5.1.3"),
    ("MAIL FROM:<x y@strange.example>", IDLE, "501 5.1.7|553 5.1.7|553 5.1.3|501 5.1.3"),
    # §4.1.1.11: parameters that were not offered; none is after HELO.
    (f"{MAIL} FROB=1", EXTENDED_IDLE, NOT_OFFERED),
    (f"{MAIL} SIZE=100", ("helo",), NOT_OFFERED),
    (f"{RCPT} FROB=1", EXTENDED_MAILED, NOT_OFFERED),
    (f"{RCPT} FROB=1", ("helo mail",), NOT_OFFERED),
    # RFC 1870, RFC 6152, RFC 6531.
    (f"{MAIL} SIZE=100", EXTENDED_IDLE, "250 2.1.0"),
    (f"{MAIL} size=0", EXTENDED_IDLE, "250 2.1.0"),
    (f"{MAIL} SIZE=1000001", EXTENDED_IDLE, "552 5.3.4"),
    (f"{MAIL} SIZE=99999999999999999999", EXTENDED_IDLE, "552 5.3.4"),
    (f"{MAIL} SIZE=", EXTENDED_IDLE, PARAMETER),
    (f"{MAIL} SIZE", EXTENDED_IDLE, PARAMETER),
    (f"{MAIL} SIZE=1x", EXTENDED_IDLE, PARAMETER),
    (f"{MAIL} SIZE=1 SIZE=2", EXTENDED_IDLE, PARAMETER),
    (f"{MAIL} BODY=7BIT", EXTENDED_IDLE, "250 2.1.0"),
    (f"{MAIL} BODY=8BITMIME", EXTENDED_IDLE, "250 2.1.0"),
    (f"{MAIL} BODY=9BIT", EXTENDED_IDLE, PARAMETER),
    (f"{MAIL} SMTPUTF8", EXTENDED_IDLE, "250 2.1.0"),
    (f"{MAIL} SMTPUTF8=1", EXTENDED_IDLE, PARAMETER),
    ("MAIL FROM:<ж@strange.example> SMTPUTF8", EXTENDED_IDLE, "250 2.1.0"),
    ("MAIL FROM:<ж@strange.example>", EXTENDED_IDLE, "550 5.6.7|553 5.6.7"),
    ("RCPT TO:<ж@example.com>", EXTENDED_MAILED, "550 5.6.7|553 5.6.7"),
    # §4.1.1.3
    (RCPT, BEFORE + IDLE, WRONG_ORDER),
    (RCPT, MAILED + READY, "250 2.1.5"),
    ("rcpt to:<BOB@EXAMPLE.COM>", MAILED + READY, "250 2.1.5"),
    ("RCPT TO:<@relay.example:bob@example.com>", MAILED + READY, "250 2.1.5"),
    ("RCPT TO:<Postmaster>", MAILED + READY, "250 2.1.5"),
    ("RCPT TO:<postmaster@example.com>", MAILED + READY, "250 2.1.5"),
    ("RCPT TO:<nobody@example.com>", MAILED + READY, "550 5.1.1"),
    ("RCPT TO:<someone@elsewhere.example>", MAILED + READY, "550 5.7.1|554 5.7.1"),
    ("RCPT TO:<bob%elsewhere.example@example.com>", MAILED, "550 5.1.1|550 5.7.1"),
    ("RCPT TO:<>", MAILED + READY, "501 5.5.4|501 5.1.3|553 5.1.3"),
    ("RCPT", MAILED + READY, SYNTAX),
    ("RCPT TO:bob@example.com", MAILED + READY, SYNTAX),
    ("RCPT FROM:<bob@example.com>", MAILED + READY, SYNTAX),
    # §4.1.1.4
    ("DATA", BEFORE + IDLE, WRONG_ORDER),
    ("DATA", MAILED, "503 5.5.1|554 5.5.1"),
    ("DATA", READY, "354"),
    ("data", READY, "354"),
    ("DATA now", READY, SYNTAX),
    # §4.1.1.5 to §4.1.1.10, §4.1.4: at any time.
    ("RSET", EVERYWHERE, "250 2.0.0"),
    ("RSET now", EVERYWHERE, SYNTAX),
    ("NOOP", EVERYWHERE, "250 2.0.0"),
    ("NOOP any words", EVERYWHERE, "250 2.0.0"),
    ("VRFY bob", EVERYWHERE, "252 2.5.0|252 2.1.5|252 2.0.0"),
    ("VRFY", EVERYWHERE, SYNTAX),
    ("EXPN list", EVERYWHERE, "502 5.5.1|502 5.7.0|252 2.5.0"),
    ("HELP", EVERYWHERE, "214 2.0.0"),
    ("HELP MAIL", EVERYWHERE, "214 2.0.0"),
    ("QUIT", EVERYWHERE, "221 2.0.0"),
    ("QUIT now", EVERYWHERE, SYNTAX),
    # §4.2.4: what does not exist.
    ("FROB", EVERYWHERE, "500 5.5.1|500 5.5.2"),
    ("", EVERYWHERE, "500 5.5.1|500 5.5.2"),
    ("TURN", EVERYWHERE, "500 5.5.1|502 5.5.1"),
    ("SOML FROM:<a@b.example>", EVERYWHERE, "500 5.5.1|502 5.5.1"),
    ("MAILFROM:<a@b.example>", EVERYWHERE, "500 5.5.1|500 5.5.2"),
    # RFC 3207 §4
    ("STARTTLS now", EVERYWHERE, SYNTAX),
    ("STARTTLS", ("fresh", "helo", "ehlo", "mail", "rcpt"), "220 2.0.0"),
    ("STARTTLS", ("tls fresh", "tls ehlo", "tls mail", "tls rcpt"), "503 5.5.1|502 5.5.1"),
    # RFC 4954 §4: no AUTH where it is not offered.
    ("AUTH PLAIN AGEAYg==", ("ehlo", "tls ehlo"), "502 5.5.1|503 5.5.1|500 5.5.1"),
]
#: Commands of extensions: run where EHLO offers the keyword.
EXTENSIONS = {
    "DSN": [  # RFC 3461 §4 to §5
        (f"{MAIL} RET=FULL", EXTENDED_IDLE, "250 2.1.0"),
        (f"{MAIL} RET=HDRS ENVID=QQ+2B314", EXTENDED_IDLE, "250 2.1.0"),
        (f"{MAIL} ret=hdrs envid=x", EXTENDED_IDLE, "250 2.1.0"),
        (f"{MAIL} ENVID={'e' * 100}", EXTENDED_IDLE, "250 2.1.0"),
        ("MAIL FROM:<> RET=HDRS ENVID=x", EXTENDED_IDLE, "250 2.1.0"),
        (f"{MAIL} RET=BODY", EXTENDED_IDLE, PARAMETER),
        (f"{MAIL} RET", EXTENDED_IDLE, PARAMETER),
        (f"{MAIL} RET=", EXTENDED_IDLE, PARAMETER),
        (f"{MAIL} RET=FULL RET=HDRS", EXTENDED_IDLE, PARAMETER),
        (f"{MAIL} ENVID=", EXTENDED_IDLE, PARAMETER),
        (f"{MAIL} ENVID=a+b", EXTENDED_IDLE, PARAMETER),
        (f"{MAIL} ENVID=a=b", EXTENDED_IDLE, PARAMETER),
        (f"{MAIL} ENVID=a ENVID=b", EXTENDED_IDLE, PARAMETER),
        (f"{MAIL} NOTIFY=NEVER", EXTENDED_IDLE, NOT_OFFERED),
        (f"{RCPT} NOTIFY=NEVER", EXTENDED_MAILED, "250 2.1.5"),
        (f"{RCPT} NOTIFY=SUCCESS", EXTENDED_MAILED, "250 2.1.5"),
        (f"{RCPT} notify=success,delay,failure", EXTENDED_MAILED, "250 2.1.5"),
        (f"{RCPT} ORCPT=rfc822;Bob+2BB@example.com", EXTENDED_MAILED, "250 2.1.5"),
        (f"{RCPT} ORCPT=x400;/c=de/ NOTIFY=DELAY".replace("=de", "+3Dde"), EXTENDED_MAILED, PARAMETER + "|250 2.1.5"),
        (f"{RCPT} NOTIFY=NEVER,SUCCESS", EXTENDED_MAILED, PARAMETER),
        (f"{RCPT} NOTIFY=", EXTENDED_MAILED, PARAMETER),
        (f"{RCPT} NOTIFY", EXTENDED_MAILED, PARAMETER),
        (f"{RCPT} NOTIFY=SUCCESS,", EXTENDED_MAILED, PARAMETER),
        (f"{RCPT} NOTIFY=SOMETIMES", EXTENDED_MAILED, PARAMETER),
        (f"{RCPT} NOTIFY=DELAY NOTIFY=FAILURE", EXTENDED_MAILED, PARAMETER),
        (f"{RCPT} ORCPT=bob@example.com", EXTENDED_MAILED, PARAMETER),
        (f"{RCPT} ORCPT=rfc822;", EXTENDED_MAILED, PARAMETER),
        (f"{RCPT} ORCPT=rfc822;a+zz", EXTENDED_MAILED, PARAMETER),
        (f"{RCPT} RET=FULL", EXTENDED_MAILED, NOT_OFFERED),
    ],
    "CHUNKING": [  # RFC 3030 §2: octets are taken even when the command is out of order.
        (b"BDAT 5\r\nRSET\n", ("ehlo", "mail", "tls ehlo", "tls mail"), WRONG_ORDER),
        (b"BDAT 6 LAST\r\nQUIT\r\n", ("ehlo", "mail", "tls ehlo", "tls mail"), WRONG_ORDER),
        (b"BDAT 0\r\n", ("rcpt", "tls rcpt"), "250 2.0.0|250 2.6.0|250 2.1.0"),
        (f"BDAT {len(HEAD)} LAST\r\n{HEAD}".encode(), ("rcpt", "tls rcpt"), "250 2.0.0"),
        (f"bdat {len(HEAD)} last\r\n{HEAD}".encode(), ("rcpt", "tls rcpt"), "250 2.0.0"),
    ],
    "BINARYMIME": [(f"{MAIL} BODY=BINARYMIME", EXTENDED_IDLE, "250 2.1.0")],
    "DELIVERBY": [  # RFC 2852 §4
        (f"{OWN_MAIL} BY=86400;R", OWN, "250 2.1.0"),
        (f"{OWN_MAIL} BY=86400;NT", OWN, "250 2.1.0"),
        (f"{OWN_MAIL} BY=-60;N", OWN, "250 2.1.0"),
        (f"{OWN_MAIL} BY=0;R", OWN, PARAMETER),
        (f"{OWN_MAIL} BY=-1;R", OWN, PARAMETER),
        (f"{OWN_MAIL} BY=1", OWN, PARAMETER),
        (f"{OWN_MAIL} BY=x;R", OWN, PARAMETER),
        (f"{OWN_MAIL} BY=1234567890;R", OWN, PARAMETER),
        (f"{OWN_MAIL} BY=1000;R BY=1000;R", OWN, PARAMETER),
    ],
    "MT-PRIORITY": [  # RFC 6710 §4
        (f"{OWN_MAIL} MT-PRIORITY=3", OWN, "250 2.1.0|250 2.3.6|250 2.3.7"),
        (f"{OWN_MAIL} MT-PRIORITY=-9", OWN, "250 2.1.0|250 2.3.6"),
        (f"{OWN_MAIL} MT-PRIORITY=10", OWN, "501 5.5.4|501 5.5.2"),
        (f"{OWN_MAIL} MT-PRIORITY=", OWN, "501 5.5.4|501 5.5.2"),
        (f"{OWN_MAIL} MT-PRIORITY=high", OWN, "501 5.5.4|501 5.5.2"),
    ],
    "FUTURERELEASE": [  # RFC 4865 §3 to §5
        (f"{OWN_MAIL} HOLDFOR=60", OWN, "250 2.1.0"),
        (f"{OWN_MAIL} HOLDUNTIL=FUTURE", OWN, PARAMETER),
        (f"{OWN_MAIL} HOLDFOR=0", OWN, PARAMETER),
        (f"{OWN_MAIL} HOLDFOR=-1", OWN, PARAMETER),
        (f"{OWN_MAIL} HOLDFOR=", OWN, PARAMETER),
        (f"{OWN_MAIL} HOLDFOR=60 HOLDFOR=61", OWN, PARAMETER),
        (f"{OWN_MAIL} HOLDFOR=999999999", OWN, "501 5.5.4|554 5.5.4|550 5.7.1"),
    ],
    "REQUIRETLS": [  # RFC 8689 §4.2: only inside TLS, and without a value.
        (f"{MAIL} REQUIRETLS", ("tls ehlo",), "250 2.1.0"),
        (f"{MAIL} REQUIRETLS=1", ("tls ehlo",), PARAMETER),
        (f"{MAIL} REQUIRETLS REQUIRETLS", ("tls ehlo",), PARAMETER),
        (f"{MAIL} REQUIRETLS", ("ehlo",), "555 5.5.4|530 5.7.10"),
    ],
}


class Walk(unittest.TestCase):
    """Every command in every state."""

    def check(self, state, command, allowed):
        with STATES[state]() as session:
            code, enhanced, lines = session.ask(command)
            got = f"{code} {enhanced}".strip()
            # RFC 2034 §4: an enhanced code in every 2yz, 4yz and 5yz reply but the greeting and EHLO's.
            self.assertIn(got, allowed.split("|"), f"in state {state!r} to {command!r}: {lines}")
            if code == 221:
                self.assertTrue(session.closed(), "RFC 5321 §4.1.1.10: closed after 221")
            elif code >= 400:
                self.still(session, state)

    def still(self, session, state):
        """A refused command changes nothing: the transaction is where it was."""
        if state in ("fresh", "tls fresh"):
            self.assertEqual(session.ask(MAIL)[0], 503)
        elif state in OWN:
            self.assertEqual([session.ask(RCPT)[0], session.ask(OWN_MAIL)[0]], [503, 250])
        elif state in IDLE:
            self.assertEqual([session.ask(RCPT)[0], session.ask(MAIL)[0]], [503, 250])
        elif state in MAILED:
            self.assertEqual([session.ask(MAIL)[0], session.ask("DATA")[0], session.ask(RCPT)[0]], [503, 503, 250])
        else:
            self.assertEqual([session.ask(MAIL)[0], session.ask("DATA")[0]], [503, 354])

    def test_every_command_in_every_state(self):
        asked = 0
        for command, states, allowed in COMMANDS:
            for state in states:
                with self.subTest(command=command, state=state):
                    self.check(state, command, allowed)
                    asked += 1
        self.assertGreater(asked, 400)

    def test_the_commands_of_the_extensions(self):
        offered = {}
        for state in (*EXTENDED_IDLE, *OWN):
            with STATES[state]() as session:
                offered[state] = session.keywords
        for keyword, commands in EXTENSIONS.items():
            for command, states, allowed in commands:
                for state in states:
                    with self.subTest(extension=keyword, command=command, state=state):
                        if allowed.startswith("250") and state in offered:
                            self.assertIn(keyword, offered[state])
                        self.check(state, command, allowed)

    def test_what_is_not_offered_is_not_taken(self):
        """RFC 5321 §4.1.1.11 and §2.2.2: a parameter counts only where its keyword was in the answer to EHLO."""
        parameters = {"DSN": "RET=FULL", "DELIVERBY": "BY=86400;N", "MT-PRIORITY": "MT-PRIORITY=1",
                      "FUTURERELEASE": "HOLDFOR=10", "REQUIRETLS": "REQUIRETLS", "BINARYMIME": "BODY=BINARYMIME",
                      "SIZE": "SIZE=1", "8BITMIME": "BODY=8BITMIME", "SMTPUTF8": "SMTPUTF8"}
        for state in (*EXTENDED_IDLE, *OWN):
            for keyword, parameter in parameters.items():
                with self.subTest(state=state, parameter=parameter), STATES[state]() as session:
                    code = session.ask(f"{OWN_MAIL if state in OWN else MAIL} {parameter}")[0]
                    wanted = (250,) if keyword in session.keywords else (501, 504, 530, 555)
                    self.assertIn(code, wanted)

    def test_ehlo_offers_what_its_extensions_ask_for(self):
        with ehlo() as session:
            clear = session.keywords
        with tls() as session:
            secret = session.keywords
        for keyword in ("PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"):
            self.assertEqual(clear[keyword], [], keyword)
            self.assertEqual(secret[keyword], [], keyword)
        self.assertEqual(clear["SIZE"], ["1000000"])
        self.assertIn("STARTTLS", clear)
        self.assertNotIn("STARTTLS", secret, "RFC 3207 §4.2")
        self.assertNotIn("REQUIRETLS", clear, "RFC 8689 §2 item 1: only inside TLS")
        if "BINARYMIME" in secret:
            self.assertIn("CHUNKING", secret, "RFC 3030 §3")
        for limit in secret.get("LIMITS", []):
            self.assertRegex(limit, r"^(RCPTMAX|MAILMAX|RCPTDOMAINMAX)=[1-9][0-9]{0,5}$", "RFC 9422 §3")
            if limit.startswith("RCPTMAX"):
                self.assertGreaterEqual(int(limit.split("=")[1]), 100, "RFC 5321 §4.5.3.1.8")


class Interleaved(unittest.TestCase):
    """What may come at any time, in every state, and what it does to the transaction."""

    def test_what_changes_nothing(self):
        for state in EVERYWHERE:
            for command in ("NOOP", "HELP", "VRFY bob", "EXPN list", "FROB", "VRFY"):
                with self.subTest(state=state, command=command), STATES[state]() as session:
                    session.ask(command)
                    Walk.still(self, session, state)

    def test_what_ends_the_transaction(self):
        """RFC 5321 §4.1.1.5 and §4.1.4: RSET, EHLO and HELO clear all buffers."""
        for state in IDLE + MAILED + READY:
            for command in ("RSET", "EHLO again.example", "HELO again.example"):
                with self.subTest(state=state, command=command), STATES[state]() as session:
                    self.assertEqual(session.ask(command)[0], 250)
                    self.assertEqual([session.ask(x)[0] for x in ("DATA", RCPT, MAIL, "DATA", RCPT, "DATA")],
                                     [503, 503, 250, 503, 250, 354])

    def test_rset_is_no_greeting(self):
        for state in BEFORE:
            with self.subTest(state=state), STATES[state]() as session:
                self.assertEqual([session.ask(x)[0] for x in ("RSET", MAIL)], [250, 503])

    def test_starttls_forgets_what_was_said_in_clear(self):
        """RFC 3207 §4.2."""
        for state in ("ehlo", "mail", "rcpt"):
            with self.subTest(state=state), STATES[state]() as session:
                session.starttls()
                self.assertEqual([session.ask(x)[0] for x in (MAIL, RCPT, "DATA")], [503, 503, 503])
                session.ehlo()
                self.assertEqual([session.ask(x)[0] for x in ("DATA", MAIL, RCPT, "DATA")], [503, 250, 250, 354])

    def test_the_first_sender_stays(self):
        with with_mail(ehlo)() as session:
            self.assertEqual(session.ask("MAIL FROM:<second@strange.example>")[0], 503)
            self.assertEqual([session.ask(RCPT)[0], session.ask("RCPT TO:<nobody@example.com>")[0]], [250, 550])
            self.assertEqual(session.ask("DATA")[0], 354)
            self.assertEqual(session.ask(HEAD + "first-sender-stays\r\n.")[:2], (250, "2.0.0"))
        got = SERVER.wait_for("first-sender-stays")[0]
        self.assertTrue(got.startswith(f"Return-Path: <{SENDER}>\r\n".encode()), got[:100])

    def test_after_a_message_the_session_goes_on(self):
        with ehlo() as session:
            for _ in range(3):
                self.assertEqual([session.ask(x)[0] for x in ("DATA", RCPT, MAIL, RCPT, "DATA")],
                                 [503, 503, 250, 250, 354])
                self.assertEqual(session.ask(HEAD + "goes on\r\n.")[:2], (250, "2.0.0"))

    def test_limits_that_must_be_met(self):
        """RFC 5321 §4.5.3.1: 64 octets, 255 octets, lines of 512 and 1,000, 100 recipients."""
        with ehlo() as session:
            self.assertEqual(session.ask(f"MAIL FROM:<{'x' * 64}@strange.example>")[0], 250)
            self.assertEqual(session.ask(f"RCPT TO:<{'x' * 64}@example.com>")[:2], (550, "5.1.1"))
            for _ in range(100):
                self.assertEqual(session.ask(RCPT)[:2], (250, "2.1.5"))
            self.assertEqual(session.ask("NOOP " + "x" * 505)[0], 250)
            self.assertEqual(session.ask("DATA")[0], 354)
            self.assertEqual(session.ask(HEAD + "y" * 998 + "\r\n.")[:2], (250, "2.0.0"))
            code, enhanced, _ = session.ask("NOOP " + "x" * 100_000)
            self.assertEqual((code, enhanced), (500, "5.5.2"), "too long: refused, and the session goes on")
            self.assertEqual(session.ask("NOOP")[0], 250)


class Pipelined(unittest.TestCase):
    """RFC 2920: groups in one packet, split at every octet, answered one by one in order."""

    GROUP = f"{MAIL}\r\nRCPT TO:<nobody@example.com>\r\n{RCPT}\r\nRSET\r\n{MAIL} SIZE=99\r\n{RCPT}\r\nNOOP\r\nDATA\r\n"
    GROUP_CODES = [250, 550, 250, 250, 250, 250, 250, 354]
    REST = f"{HEAD}..one dot\r\n.\r\n{MAIL}\r\nFROB\r\n{RCPT}\r\nVRFY bob\r\nQUIT\r\n"
    REST_CODES = [250, 250, 500, 250, 252, 221]

    def talk(self, session, pieces_of):
        for text, wanted in ((self.GROUP, self.GROUP_CODES), (self.REST, self.REST_CODES)):
            for piece in pieces_of(text.encode()):
                session.send(piece)
            self.assertEqual([session.reply()[0] for _ in wanted], wanted)
        self.assertTrue(session.closed())

    def test_in_one_packet(self):
        for begin in (ehlo, tls):
            with begin() as session:
                self.talk(session, lambda text: [text])

    def test_octet_by_octet(self):
        for begin in (ehlo, tls):
            with begin() as session:
                self.talk(session, lambda text: [text[n:n + 1] for n in range(len(text))])

    def test_split_at_every_octet(self):
        for at in range(1, max(len(self.GROUP), len(self.REST))):
            with self.subTest(at=at), ehlo() as session:
                self.talk(session, lambda text: [x for x in (text[:at], text[at:]) if x])

    def test_data_behind_refused_recipients(self):
        """RFC 2920 §3.1: the client learns from the reply to DATA that no message is wanted."""
        with ehlo() as session:
            session.send(f"{MAIL}\r\nRCPT TO:<nobody@example.com>\r\nDATA\r\n")
            self.assertEqual([session.reply()[0] for _ in range(3)], [250, 550, 503])
            self.assertEqual([session.ask(x)[0] for x in (RCPT, "DATA")], [250, 354])

    def test_replies_come_for_what_is_whole(self):
        """No reply waits for the rest of a group."""
        with ehlo() as session:
            session.send(f"{MAIL}\r\n{RCPT}\r\nDA")
            self.assertEqual([session.reply()[0], session.reply()[0]], [250, 250])
            session.send("TA\r\n")
            self.assertEqual(session.reply()[0], 354)


class Chunked(unittest.TestCase):
    """RFC 3030: BDAT."""

    def test_chunks_make_one_message(self):
        body = b".\r\n..\r\n\r\n.\r\nQUIT\r\nchunks-make-one\r\n"
        whole = HEAD.encode() + body
        for size in (1, 7, len(whole)):
            with self.subTest(size=size), with_rcpt(ehlo)() as session:
                for at in range(0, len(whole), size):
                    piece = whole[at:at + size]
                    self.assertEqual(session.ask(b"BDAT %d\r\n%s" % (len(piece), piece))[0], 250)
                self.assertEqual(session.ask("BDAT 0 LAST")[:2], (250, "2.0.0"))
        for got in SERVER.wait_for("chunks-make-one", count=3):
            self.assertTrue(got.endswith(whole), got)

    def test_within_chunks_nothing_else_begins(self):
        """RFC 3030 §2: MAIL, RCPT and DATA are out of order after the first BDAT; RSET ends it."""
        with with_chunk(ehlo)() as session:
            for command in (MAIL, RCPT, "DATA"):
                self.assertEqual(session.ask(command)[:2], (503, "5.5.1"), command)
        with with_chunk(ehlo)() as session:
            self.assertEqual([session.ask(x)[0] for x in ("NOOP", "RSET", "BDAT 0 LAST", MAIL, RCPT, "DATA")],
                             [250, 250, 503, 250, 250, 354])

    def test_pipelined_with_all_else(self):
        text = (f"{MAIL}\r\n{RCPT}\r\nBDAT {len(HEAD)}\r\n{HEAD}BDAT 17 LAST\r\nchunks in a row\r\n"
                f"{MAIL}\r\nRCPT TO:<nobody@example.com>\r\nBDAT 6 LAST\r\nRSET\r\nQUIT\r\n").encode()
        codes = [250, 250, 250, 250, 250, 550, 503, 221]
        for pieces in ([text], [text[n:n + 1] for n in range(len(text))]):
            with ehlo() as session:
                for piece in pieces:
                    session.send(piece)
                self.assertEqual([session.reply()[0] for _ in codes], codes, session.said)

    def test_without_a_length_nothing_behind_it_is_read(self):
        """What follows a BDAT that cannot be measured is message or command, nobody knows: it must not be
        taken for commands, so the connection ends (RFC 5321 §3.8 knows no better case for it)."""
        for command in ("BDAT", "BDAT -1", "BDAT x LAST", "BDAT 5 NOW", "BDAT 99999999999999999999999"):
            with self.subTest(command=command), with_rcpt(ehlo)() as session:
                session.send(f"{command}\r\nRSET\r\nNOOP\r\n")
                code, _, _ = session.reply()
                self.assertIn(code, (501, 552, 421))
                self.assertTrue(session.closed())

    def test_too_large(self):
        with with_rcpt(ehlo)() as session:
            code, enhanced, _ = session.ask(b"BDAT 1000001 LAST\r\n" + b"z" * 1_000_001)
            self.assertEqual((code, enhanced), (552, "5.3.4"))
            self.assertEqual([session.ask(x)[0] for x in ("NOOP", MAIL)], [250, 250])

    def test_binary(self):
        """RFC 3030 §3: any octets, by BDAT only."""
        with ehlo() as session:
            self.assertEqual(session.ask(f"{MAIL} BODY=BINARYMIME")[0], 250)
            self.assertEqual(session.ask(RCPT)[0], 250)
            self.assertEqual(session.ask("DATA")[:2], (503, "5.5.1"))
            body = HEAD.encode() + b"binary-by-chunks " + bytes(range(256)) + b"\n\r\n.\r\n\r"
            self.assertEqual(session.ask(b"BDAT %d LAST\r\n%s" % (len(body), body))[:2], (250, "2.0.0"))
        self.assertTrue(SERVER.wait_for("binary-by-chunks")[0].endswith(body))


class Submission(unittest.TestCase):
    """RFC 4954 and RFC 6409 on ports 587 and 465."""

    def test_nothing_without_tls_and_login(self):
        with Session("submission").ehlo() as session:
            self.assertNotIn("AUTH", session.keywords)
            self.assertEqual(session.ask("MAIL FROM:<bob@example.com>")[:2], (530, "5.7.0"))
            self.assertIn(session.ask(f"AUTH PLAIN {plain('bob@example.com', PASSWORD)}")[:2],
                          [(538, "5.7.11"), (530, "5.7.0")])
            session.starttls()
            self.assertEqual(session.ask("AUTH PLAIN AGEAYg==")[:2], (503, "5.5.1"))
            session.ehlo()
            self.assertEqual(session.ask("MAIL FROM:<bob@example.com>")[:2], (530, "5.7.0"))

    def test_auth(self):
        good = plain("bob@example.com", PASSWORD)
        with Session("submissions").ehlo() as session:
            self.assertIn("PLAIN", session.keywords["AUTH"])
            for command, wanted in (
                ("AUTH", (501, "5.5.4")), ("AUTH FROB", (504, "5.5.4")), ("AUTH CRAM-MD5", (504, "5.5.4")),
                ("AUTH PLAIN *", (501, None)), ("AUTH PLAIN ===", (501, "5.5.2")), ("AUTH PLAIN =", (501, None)),
            ):
                code, enhanced, lines = session.ask(command)
                self.assertEqual(code, wanted[0], lines)
                self.assertIn(enhanced, [wanted[1]] if wanted[1] else ["5.5.2", "5.7.0", "5.5.4"], lines)
        with Session("submissions").ehlo() as session:
            self.assertEqual(session.ask("AUTH PLAIN")[2], ["334 "], "RFC 4954 §4: a space, though it is empty")
            self.assertEqual(session.ask("*")[0], 501)
            self.assertEqual(session.ask("auth plain " + plain("bob@example.com", "wrong"))[:2], (535, "5.7.8"))
            self.assertEqual(session.ask("auth plain " + good)[:2], (235, "2.7.0"))
            self.assertEqual(session.ask("AUTH PLAIN " + good)[:2], (503, "5.5.1"))
            self.assertEqual(session.ask("MAIL FROM:<bob@example.com> AUTH=bob+40example.com")[0], 250)
            self.assertEqual(session.ask("AUTH PLAIN " + good)[:2], (503, "5.5.1"))
        with Session("submissions").ehlo() as session:
            self.assertEqual(session.ask("AUTH LOGIN")[0], 334)
            self.assertEqual(session.ask(base64.b64encode(b"bob@example.com").decode())[0], 334)
            self.assertEqual(session.ask(base64.b64encode(PASSWORD.encode()).decode())[:2], (235, "2.7.0"))

    def test_no_auth_within_a_transaction(self):
        """RFC 4954 §4."""
        with Session("submissions").ehlo() as session:
            self.assertEqual(session.ask("AUTH PLAIN " + plain("bob@example.com", PASSWORD))[0], 235)
            self.assertEqual(session.ask("MAIL FROM:<bob@example.com>")[0], 250)
            self.assertEqual(session.ask("RSET")[0], 250)
            self.assertEqual(session.ask("MAIL FROM:<bob@example.com> AUTH=<>")[0], 250)
            self.assertEqual(session.ask("RCPT TO:<someone@strange.example>")[:2], (250, "2.1.5"))

    def test_a_line_of_auth_has_room_and_an_end(self):
        """RFC 4954 §4: at least 12,288 octets with CRLF; more is 500 5.5.6."""
        with Session("submissions").ehlo() as session:
            self.assertEqual(session.ask("AUTH PLAIN")[0], 334)
            self.assertIn(session.ask("A" * 12_284)[0], (501, 535))
            self.assertEqual(session.ask("AUTH PLAIN")[0], 334)
            self.assertEqual(session.ask("A" * 12_400)[:2], (500, "5.5.6"))


if __name__ == "__main__":
    unittest.main()
