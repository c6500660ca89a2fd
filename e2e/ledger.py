"""What a server has promised, and whether it kept it: the account book of the kill -9 runs.

Clients write into it what they asked for and what they were answered. Between asking and the answer
a thing may have happened or not, and both are right; from the answer on only one is. `settle` holds
what is found in the mailboxes after a restart against that, and says in words what is wrong.
Never: a look at the server, a guess. It knows only what clients were told.
"""

import collections
import hashlib

GONE = "gone"
INBOX, KEPT = "INBOX", "Kept"
PLACES = (INBOX, KEPT)
#: Header field by which a message is known again.
FIELD = b"X-Token"


class Copy:
    """One recipient's copy of a message: where it may be, which flags it may have."""

    def __init__(self):
        self.places = {INBOX, GONE}
        self.flags = {frozenset()}
        self.uid = {}  # by place

    def certain(self, place):
        """Whether it is known to be there, so that a client may go on with it."""
        return self.places == {place} and len(self.flags) == 1 and place in self.uid


class Message:
    """What was sent, and to whom."""

    def __init__(self, token, octets, local, remote):
        self.token, self.local, self.remote = token, tuple(local), tuple(remote)
        self.size, self.digest = len(octets), hashlib.sha256(octets).digest()
        #: "unsent" until its end goes out, then "open" until "kept" (250) or "refused" (4yz, 5yz).
        self.state = "unsent"


class Ledger:
    """All messages and copies. Each message has one sender and each account one reader at a time."""

    def __init__(self):
        self.messages = {}
        self.by_account = collections.defaultdict(dict)  # account -> token -> Copy
        self.known = collections.defaultdict(dict)  # (account, place) -> uid -> token
        self.uid_validity = {}
        self.counts = collections.Counter()
        self.wrong = []

    # --- what clients do ---

    def offer(self, token, octets, local, remote):
        message = Message(token, octets, local, remote)
        self.messages[token] = message
        return message

    def ends(self, message):
        """The end of the message goes out: from now on the server may have taken it."""
        for account in message.local:
            self.by_account[account][message.token] = Copy()
        message.state = "open"

    def answered(self, message, code, text):
        message.state = "kept" if code == 250 else "refused"
        self.counts["acknowledged" if code == 250 else f"refused {text[:60]}"] += 1
        for account in message.local:
            copy = self.by_account[account][message.token]
            copy.places = (copy.places - {GONE}) if code == 250 else {GONE}

    def learn(self, account, place, uid, token):
        """A reader saw it there."""
        copy = self.by_account[account].get(token)
        if copy:
            copy.uid[place] = uid
            self.known[account, place][uid] = token
        return copy

    def account_of(self, account, place, limit, rng):
        """Some tokens that a reader may work on."""
        sure = [t for t, c in list(self.by_account[account].items()) if c.certain(place)]
        return rng.sample(sure, min(limit, len(sure)))

    # --- what is found ---

    def bad(self, kind, text):
        self.counts[kind] += 1
        self.wrong.append(f"{kind}: {text}")

    def whole(self, where, octets):
        """The token of a found message, when it is one that was sent and whole."""
        token = token_of(octets)
        message = self.messages.get(token)
        if not message:
            self.bad("foreign", f"{where}: nobody sent this: {octets[:200]!r}")
            return None
        head = octets[: len(octets) - message.size]
        tail = octets[len(octets) - message.size:]
        if len(octets) < message.size or hashlib.sha256(tail).digest() != message.digest:
            self.bad("not whole", f"{where}: {token} has other octets than were sent")
        elif b"\r\n\r\n" in head or not head.endswith(b"\r\n"):
            self.bad("not whole", f"{where}: {token} has more in front of it than fields")
        return token

    def settle(self, account, found):
        """`found`: for each place, uid -> (token, flags), of everything that is there."""
        at = collections.defaultdict(list)
        for place, there in found.items():
            for uid, (token, flags) in there.items():
                at[token].append((place, uid, flags))
                if token is None:
                    continue  # can't be read, and that was told
                before = self.known[account, place].setdefault(uid, token)
                if before != token:
                    self.bad("uid used twice", f"{account} {place} UID {uid}: {before}, now {token}")
        for token, places in at.items():
            if token is not None and token not in self.by_account[account]:
                why = "its end was never sent" if self.messages[token].state == "unsent" else "not for this account"
                self.bad("half visible", f"{account}: {token} at {places}: {why}")
        for token, copy in self.by_account[account].items():
            self.settle_copy(account, token, copy, at.get(token, []))

    def settle_copy(self, account, token, copy, places):
        name = f"{account}: {token}"
        if len(places) > 1:
            self.bad("duplicated", f"{name} is there {len(places)} times: {places}")
            return
        if not places:
            if GONE not in copy.places:
                self.bad("lost", f"{name} should be in {' or '.join(sorted(copy.places))}")
            copy.places = {GONE}
            return
        place, uid, flags = places[0]
        if place not in copy.places:
            kind = "came back" if copy.places == {GONE} else "in the wrong place"
            self.bad(kind, f"{name} is in {place}, should be {' or '.join(sorted(copy.places))}")
        elif flags not in copy.flags:
            self.bad("flags lost", f"{name} has {set(flags)}, should be {[set(f) for f in copy.flags]}")
        if copy.uid.setdefault(place, uid) != uid:
            self.bad("uid changed", f"{name} in {place} had UID {copy.uid[place]}, has {uid}")
        copy.places, copy.flags, copy.uid = {place}, {flags}, {place: uid}

    def settle_open(self):
        """Messages whose answer never came: taken for every recipient, or for none. To be called
        when all accounts are settled; until then no reader touches such a copy."""
        for message in self.messages.values():
            if message.state != "open":
                continue
            there = [GONE not in self.by_account[a][message.token].places for a in message.local]
            if any(there) and not all(there):
                self.bad("half visible", f"{message.token} is there for some of {message.local} only")
            message.state = "taken" if any(there) else "not taken" if there else "unknown"
            self.counts[f"unanswered, {message.state}"] += 1

    def settle_remote(self, found):
        """`found`: recipient -> list of tokens, at the next server."""
        count = collections.Counter((who, token) for who, tokens in found.items() for token in tokens)
        for message in self.messages.values():
            for who in message.remote:
                n = count.pop((who, message.token), 0)
                if message.state == "kept":
                    self.counts["remote expected"] += 1
                    if n == 0:
                        self.bad("lost on the way", f"{message.token} never came to {who}")
                if message.local and n and message.state in ("refused", "not taken", "unsent"):
                    self.bad("half visible", f"{message.token} came to {who}, but was not taken")
                self.counts["remote arrived"] += n > 0
                self.counts["remote duplicates (RFC 1047)"] += max(0, n - 1)
        for (who, token), _ in count.items():
            self.bad("foreign", f"{token} came to {who}, who was not asked for")


def token_of(octets):
    """The token in a message's or header's octets."""
    for line in octets.split(b"\r\n\r\n", 1)[0].split(b"\r\n"):
        if line.startswith(FIELD + b": "):
            return line[len(FIELD) + 2:].decode()
    return None
