"""An SMTP and LMTP server by hand, which offers nothing and takes everything: for tests that want one without extensions."""

import socketserver
import threading


class ByHand(socketserver.ThreadingTCPServer):
    """An SMTP server by hand. With `breaks_tls` it offers STARTTLS and closes where TLS would begin."""

    allow_reuse_address, daemon_threads = True, True

    def __init__(self, address, breaks_tls=False):
        super().__init__((address, 0), Session)
        self.port, self.breaks_tls, self.messages = self.server_address[1], breaks_tls, []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self):
        self.shutdown()
        self.server_close()


class Session(socketserver.StreamRequestHandler):
    def say(self, text):
        self.wfile.write(f"{text}\r\n".encode())

    def handle(self):
        self.say("220 by.hand ESMTP")
        while line := self.rfile.readline().decode().strip():
            verb = line.split(":")[0].split()[0].upper()
            if verb in ("EHLO", "LHLO") and self.server.breaks_tls:
                self.say("250-by.hand\r\n250 STARTTLS")
            elif verb == "STARTTLS":
                return self.say("220 go ahead")
            elif verb == "DATA":
                self.say("354 go on")
                text = b"".join(iter(self.rfile.readline, b".\r\n"))
                self.server.messages.append(text)
                self.say("250 2.0.0 taken by hand")
            elif verb == "QUIT":
                return self.say("221 bye")
            else:
                self.say("250 ok")
