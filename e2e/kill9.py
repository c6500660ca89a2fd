#!/usr/bin/env python3
"""Kills a loaded server with SIGKILL, again and again, and accounts for everything it had promised.

    python3 e2e/kill9.py --rounds 200 --seed 1
    python3 e2e/kill9.py --rounds 200 --seed 1 --cut 50

The second form also cuts every other connection to the next server at a random octet.

Each round: senders and readers load the server, it is killed at a moment that the seed chooses,
started again on the same folder (sometimes killed once more while it starts), and every few rounds
all mailboxes are held against the ledger (`ledger.py`): each message that was acknowledged is there,
whole, once per recipient; what was removed stays removed, flags and moves stay as acknowledged; what
was not acknowledged is there for all its recipients or for none. Mail to the next server must arrive
there at least once; copies beyond one are counted (RFC 1047 allows them, and they must be few).

The seed repeats the messages and the moments. The interleaving belongs to the operating system.
A killed process leaves its page cache behind: what a power cut takes is for the simulated disk.
"""

import argparse
import collections
import json
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import world as base
from cutting import CuttingRelay
from ledger import PLACES, Ledger
from load import STRANGER, Gate, Imap, Pop3, Reader, Sender, Texts
from world import BINARY, MailServer, Process, free_port, wait_until

SERVE = ("login.without_tls_on_loopback=true", "log.level=warn")


class LoadedWorld:
    """The server that is killed, the next server, the DNS of both, and the clients."""

    def __init__(self, folder, seed, senders=6, readers=2, people=6, cut=0):
        self.folder, self.seed = folder, seed
        self.rng = random.Random(f"{seed} world")
        self.texts, self.ledger = Texts(self.rng), Ledger()
        self.verified = collections.defaultdict(set)  # (account, place) -> uids whose octets were compared
        dns_port = free_port("127.0.0.1")
        self.people = [f"p{n}@alpha.example" for n in range(people)]
        self.elsewhere = [f"r{n}@beta.example" for n in range(3)]
        for name in ("alpha", "beta"):
            (folder / name).mkdir()
        self.next = MailServer(folder / "beta", "beta.example", "127.0.2.1", dns_port, self.elsewhere[0])
        self.relay = CuttingRelay("127.0.2.1", self.next.ports["smtp"], cut, seed)
        self.server = MailServer(
            folder / "alpha", "alpha.example", "127.0.1.1", dns_port, self.people[0],
            deliver_port=self.relay.port if cut else self.next.ports["smtp"],
        )
        zones = []
        for server in (self.server, self.next):
            zone = folder / f"{server.domain}.zone"
            zone.write_text(server.zone)
            zones += ["--zone", zone]
        stranger = folder / "strange.zone"
        stranger.write_text(
            "$ORIGIN strange.example.\n$TTL 60\n@ IN SOA ns hostmaster 1 3600 600 86400 60\n@ IN NS ns\n"
            f'ns IN A 127.0.0.1\n@ IN TXT "v=spf1 ip4:{STRANGER} -all"\n@ IN MX 10 mail\nmail IN A {STRANGER}\n'
        )
        zones += ["--zone", stranger]
        self.dns = Process("lab", "dns", *zones, "--listen", f"127.0.0.1:{dns_port}", log=folder / "dns.log")
        self.passwords = {}
        for server, accounts in ((self.server, self.people), (self.next, self.elsewhere)):
            server.start(*SERVE)
            for account in accounts:
                self.person(server, account)
        self.gate = Gate(senders + readers)
        self.clients = [Sender(self.gate, f"s{n}", seed, self, submits=n % 2 == 1) for n in range(senders)]
        shares = [self.people[n::readers] for n in range(readers)]
        self.clients += [Reader(self.gate, f"r{n}", seed, self, share) for n, share in enumerate(shares)]
        for client in self.clients:
            client.start()

    def person(self, server, account):
        if account != server.person:
            server.cli("account", "add", account, "--password-stdin", stdin=base.PASSWORD + "\n")
        made = server.cli("--json", "account", "app-password", account, "--scope", "smtp,imap,pop3").stdout
        self.passwords[account] = json.loads(made)["password"]
        if server is self.server:
            with self.imap(account) as imap:
                imap.do("CREATE Kept")

    def imap(self, account, server=None):
        server = server or self.server
        return Imap(server.address, server.ports["imap"], (account, self.passwords[account]))

    # --- what is there ---

    def check(self, everything=False):
        """Holds all mailboxes against the ledger. Clients must have stopped."""
        for account in self.people:
            with self.imap(account) as imap:
                found = {place: self.look(imap, account, place, everything) for place in PLACES}
            self.ledger.settle(account, found)
        self.ledger.settle_open()

    def look(self, imap, account, place, everything):
        ledger, where = self.ledger, (account, place)
        validity, count = imap.select(place)
        if ledger.uid_validity.setdefault(where, validity) != validity:
            ledger.bad("uid validity changed", f"{account} {place}")
        flags = imap.flags() if count else {}
        if len(flags) != count:
            ledger.bad("unreadable", f"{account} {place}: {count} messages, {len(flags)} answers")
        new = sorted(uid for uid in flags if everything or uid not in self.verified[where])
        tokens = {uid: ledger.known[where].get(uid) for uid in flags}
        for at in range(0, len(new), 50):
            some = new[at:at + 50]
            bodies = imap.bodies(some)
            for uid in some:
                if uid not in bodies:
                    ledger.bad("unreadable", f"{account} {place} UID {uid}")
                    continue
                tokens[uid] = ledger.whole(f"{account} {place} UID {uid}", bodies[uid])
                self.verified[where].add(uid)
        return {uid: (tokens[uid], flags[uid]) for uid in flags}

    def check_pop3(self):
        """POP3 shows the INBOX: the same messages, as whole."""
        for account in self.people:
            inbox = {t for t, c in self.ledger.by_account[account].items() if c.places == {PLACES[0]}}
            with Pop3(self.server.address, self.server.ports["pop3"], (account, self.passwords[account])) as pop3:
                where = f"{account} by POP3"
                seen = [self.ledger.whole(where, pop3.text(f"RETR {n + 1}")) for n in range(pop3.count())]
                pop3.say("QUIT")
            if sorted(inbox) != sorted(t for t in seen if t):
                self.ledger.bad("POP3 differs", f"{account}: {len(seen)} by POP3, {len(inbox)} by IMAP")

    def check_next(self):
        """Waits until everything has left for the next server, and compares what came."""
        self.relay.percent = 0
        self.server.cli("queue", "retry", "--all")

        def empty():
            with_ids = json.loads(self.server.cli("--json", "queue", "list").stdout)
            return not with_ids
        wait_until(empty, "the queue to run empty", seconds=300)
        found = {}
        for account in self.elsewhere:
            with self.imap(account, self.next) as imap:
                _, count = imap.select("INBOX")
                uids = sorted(imap.flags()) if count else []
                found[account] = []
                for at in range(0, len(uids), 50):
                    for uid, octets in imap.bodies(uids[at:at + 50]).items():
                        found[account].append(self.ledger.whole(f"{account} UID {uid}", octets))
        self.ledger.settle_remote({who: [t for t in tokens if t] for who, tokens in found.items()})

    def audit(self):
        """`posthaste audit --deep`: the server's own account must balance, too. `None`: it has none."""
        if self.server.cli("audit", "--help", check=False).returncode != 0:
            return None
        done = self.server.cli("audit", "--deep", check=False)
        if done.returncode != 0:
            self.ledger.bad("audit", done.stdout[-2000:] + done.stderr[-2000:])
        return done.stdout

    def close(self):
        self.gate.end()
        for server in (self.server, self.next):
            if server.process:
                server.stop()
        self.relay.close()
        self.dns.stop()


class Run:
    """Rounds of load, kill, start and check."""

    def __init__(self, world, seed, load_secs=(0.1, 0.7)):
        self.world, self.load_secs = world, load_secs
        self.rng = random.Random(f"{seed} kills")
        self.kills = collections.Counter()
        self.ready_secs = []

    def round(self):
        world, rng = self.world, self.rng
        world.gate.set(True)
        time.sleep(rng.uniform(*self.load_secs))  # the moment of the kill: chosen, not waited for
        broken = [client for client in world.clients if client.failed]
        assert not broken, f"{broken[0].name} has failed: {broken[0].failed!r}"
        also_next = rng.random() < 0.2
        world.gate.set(False)
        world.server.stop(signal.SIGKILL)
        self.kills["loaded server"] += 1
        if also_next:
            world.next.stop(signal.SIGKILL)
            self.kills["next server"] += 1
            world.next.start(*SERVE)
        world.gate.wait_until_all_stopped()
        if rng.random() < 0.15:
            self.kill_while_it_starts(rng.uniform(0, 0.04))
        begin = time.monotonic()
        world.server.start(*SERVE)
        self.ready_secs.append(time.monotonic() - begin)

    def kill_while_it_starts(self, after_secs):
        config, extra = self.world.server.config, [x for order in SERVE for x in ("--set", order)]
        starting = subprocess.Popen(
            [BINARY, "--config", str(config), *extra, "serve"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            starting.wait(after_secs)
            raise AssertionError(f"it ended by itself with {starting.returncode} while starting")
        except subprocess.TimeoutExpired:
            starting.kill()
            starting.wait()
        self.kills["starting server"] += 1

    def summary(self, seed, rounds, seconds):
        counts = self.world.ledger.counts
        messages = self.world.ledger.messages.values()
        ready = sorted(self.ready_secs) or [0]
        bad = collections.Counter(text.split(":")[0] for text in self.world.ledger.wrong)
        return {
            "seed": seed,
            "rounds": rounds,
            "seconds": round(seconds, 1),
            "kills": dict(self.kills),
            "cuts": dict(self.world.relay.cuts),
            "offered": len(messages),
            "acknowledged": counts["acknowledged"],
            "acknowledged_octets": sum(m.size for m in messages if m.state == "kept"),
            "lost": bad["lost"] + bad["lost on the way"],
            "duplicated": bad["duplicated"],
            "half_visible": bad["half visible"],
            "wrong": dict(bad),
            "counts": {name: n for name, n in sorted(counts.items()) if name not in bad},
            "ready_ms": {
                "p50": round(1000 * statistics.median(ready)), "max": round(1000 * ready[-1]),
            },
            "data_octets": sum(f.stat().st_size for f in (self.world.server.folder / "data").rglob("*") if f.is_file()),
            "unasked_ends_of_sessions": self.world.gate.reasons,
        }


def run(folder, rounds, seed, check_every=5, tell=lambda text: None, cut=0):
    """The whole run. Answers the summary and what is wrong, in words."""
    begin = time.monotonic()
    world = LoadedWorld(folder, seed, cut=cut)
    try:
        work = Run(world, seed)
        for n in range(1, rounds + 1):
            work.round()
            if n % check_every == 0 or n == rounds:
                world.check()
                ledger = world.ledger
                tell(f"round {n}: {ledger.counts['acknowledged']} acknowledged, {len(ledger.wrong)} wrong")
        world.check_next()
        world.check(everything=True)
        world.check_pop3()
        audit = world.audit()
        summary = work.summary(seed, rounds, time.monotonic() - begin)
        summary["audit"] = audit if audit is None else audit.strip().splitlines()[-1:]
        return summary, world.ledger.wrong
    finally:
        world.close()


def words(summary):
    s, c = summary, summary["counts"]
    yield f"seed {s['seed']}: {s['rounds']} rounds in {s['seconds']} s; killed: " + ", ".join(
        f"{what} {n}" for what, n in s["kills"].items())
    if any(s["cuts"].values()):
        yield "connections to the next server that were cut: " + ", ".join(f"{n} in {whose}" for whose, n in s["cuts"].items())
    yield (f"acknowledged {s['acknowledged']} of {s['offered']} messages, {s['acknowledged_octets']} octets: "
           f"lost {s['lost']}, duplicated {s['duplicated']}, half visible {s['half_visible']}")
    for name, n in c.items():
        if name != "acknowledged":
            yield f"  {name}: {n}"
    yield f"from start to ready: p50 {s['ready_ms']['p50']} ms, max {s['ready_ms']['max']} ms; data folder {s['data_octets']} octets"
    if s["unasked_ends_of_sessions"]:
        yield f"sessions that ended for another reason: {s['unasked_ends_of_sessions']}"
    yield "audit: " + ("this program has none" if s["audit"] is None else " ".join(s["audit"]))


def main():
    parser = argparse.ArgumentParser(description="kill -9 under load, and an account of everything promised")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check-every", type=int, default=5, metavar="ROUNDS")
    parser.add_argument("--cut", type=int, default=0, metavar="PERCENT", help="of the connections to the next server")
    parser.add_argument("--folder", type=pathlib.Path, help="make the servers' folders here and keep them")
    parser.add_argument("--json", action="store_true")
    order = parser.parse_args()
    folder = order.folder or pathlib.Path(tempfile.mkdtemp(prefix="posthaste-kill9-"))
    folder.mkdir(parents=True, exist_ok=True)
    tell = (lambda text: None) if order.json else (lambda text: print(text, flush=True))
    summary, wrong = run(folder, order.rounds, order.seed, order.check_every, tell, order.cut)
    if order.json:
        print(json.dumps(summary | {"wrong_in_words": wrong}, indent=2))
    else:
        print("\n".join([*words(summary), *wrong[:50]]))
        print("FAILED" if wrong else "everything that was acknowledged is there, whole, once")
    if wrong or order.folder:
        print(f"the servers' folders are kept in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
