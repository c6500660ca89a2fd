"""A relay for TCP that cuts connections at random octets, in either direction.

It stands between our server and the next one. What it passed before a cut arrives; what comes behind it
does not. Both sides hear of it, by a reset or by an end of the stream.
"""

import random
import socket
import struct
import threading

OURS, THEIRS = "our octets", "the server's replies"


class CuttingRelay:
    """Listens at an address and passes what comes to a port there; cuts so many of a hundred."""

    def __init__(self, address, to_port, percent, seed):
        self.address, self.to_port, self.percent = address, to_port, percent
        self.rng = random.Random(f"{seed} cuts")
        self.cuts = {OURS: 0, THEIRS: 0}
        self.lock = threading.Lock()
        self.listener = socket.create_server((address, 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                ours, _ = self.listener.accept()
            except OSError:
                return
            try:
                theirs = socket.create_connection((self.address, self.to_port), timeout=60)
            except OSError:
                ours.close()
                continue
            theirs.settimeout(None)
            _Connection(self, ours, theirs)

    def plan(self):
        """Whose octets are cut, behind how many of them, and how; `None`: nobody's."""
        with self.lock:
            if self.rng.randrange(100) >= self.percent:
                return None
            # A dialogue with TLS has some 2,000 octets each way, without the message.
            return self.rng.choice((OURS, THEIRS)), self.rng.randrange(3_000), self.rng.random() < 0.5

    def count(self, whose):
        with self.lock:
            self.cuts[whose] += 1

    def close(self):
        self.listener.close()


class _Connection:
    def __init__(self, relay, ours, theirs):
        self.relay, self.sides, self.plan = relay, (ours, theirs), relay.plan()
        self.over = threading.Lock()
        for whose, source, sink in ((OURS, ours, theirs), (THEIRS, theirs, ours)):
            threading.Thread(target=self._pass, args=(whose, source, sink), daemon=True).start()

    def _pass(self, whose, source, sink):
        left = self.plan[1] if self.plan and self.plan[0] == whose else None
        try:
            while True:
                octets = source.recv(65536)
                if not octets:
                    sink.shutdown(socket.SHUT_WR)
                    return
                if left is not None and len(octets) > left:
                    sink.sendall(octets[:left])
                    self._cut(whose)
                    return
                left = left if left is None else left - len(octets)
                sink.sendall(octets)
        except OSError:
            self._end()

    def _cut(self, whose):
        self.relay.count(whose)
        if self.plan[2]:
            for side in self.sides:
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._end()

    def _end(self):
        with self.over:
            for side in self.sides:
                try:
                    side.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it is over already
                side.close()
