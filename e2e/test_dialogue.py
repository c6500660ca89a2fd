"""The page's conversation, read from the project's first dialogue file, against `posthaste serve`."""

import fnmatch
import socket
import unittest

from world import ROOT, World


class Page(unittest.TestCase):
    def test_the_page(self):
        world = World()
        try:
            self.speak(world.example, ROOT / "crates" / "smtp" / "dialogues" / "00-the-page.dialogue")
            got = world.example.wait_for("Hi Bob, how are you?")
            self.assertEqual(len(got), 1)
        finally:
            world.close()

    def speak(self, server, path):
        # From the address that gmail.com's SPF record names.
        connection = socket.create_connection(
            (server.address, server.ports["smtp"]), timeout=30, source_address=("127.0.1.1", 0))
        heard = connection.makefile("rb")
        pending = None  # a line that `S*:` has read and that did not fit it

        def line():
            nonlocal pending
            text, pending = (pending, None) if pending is not None else (heard.readline().decode().rstrip("\r\n"), None)
            return text

        said = 0
        for raw in path.read_text().splitlines():
            kind, _, text = raw.partition(":")
            text = text.removeprefix(" ")
            if kind == "S":
                self.assertTrue(fnmatch.fnmatchcase(got := line(), text.replace("[", "[[]")), f"{raw!r} but {got!r}")
                said += 1
            elif kind == "S*":
                while fnmatch.fnmatchcase(got := line(), text):
                    pass
                pending = got
            elif kind == "C":
                connection.sendall(text.encode() + b"\r\n")
                said += 1
            elif raw.startswith("(TLS handshake"):
                self.assertIsNone(pending)
                connection = server.tls().wrap_socket(connection, server_hostname="localhost")
                heard = connection.makefile("rb")
            elif raw == "then the connection is closed":
                self.assertEqual(heard.read(), b"")
            else:
                self.assertTrue(not raw or raw.startswith(("#", "given ", "then ")), raw)
        self.assertGreater(said, 20, "the file is shorter than the page")
        heard.close()
        connection.close()


if __name__ == "__main__":
    unittest.main()
