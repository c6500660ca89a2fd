"""An internet of one's own: a network namespace in which ports 25, 53, 465, 587, 993 are free.

Programs that we did not write look up MX records at port 53 and call port 25; here they may. Nothing
in it reaches the machine's network, and nothing of it is left when the test has ended.
"""

import contextlib
import ctypes
import fcntl
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import tempfile

from world import PASSWORD, MailServer, Process, wait_until  # noqa: F401

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, SIOCSIFADDR, IFF_UP, IFF_RUNNING = 0x8914, 0x8916, 0x1, 0x40
DNS = "127.0.0.53"


def why_not():
    """Why there cannot be such a network here, or nothing."""
    if os.geteuid() != 0:
        return "needs root: a network namespace, mounts and the ports below 1024"
    if subprocess.run(["unshare", "-nmp", "--fork", "true"], capture_output=True).returncode != 0:
        return "needs root that may make namespaces (CAP_SYS_ADMIN): `unshare -nmp --fork true` fails"
    return None


@contextlib.contextmanager
def own_network(*addresses):
    """This thread, and what it starts, in a network with nothing but loopback. All of 127.0.0.0/8 can be
    used; `addresses` are those that a program finds when it lists the interface."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as before:
        if libc.unshare(CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sH", b"lo", IFF_UP | IFF_RUNNING))
                for n, address in enumerate(addresses):
                    alias = struct.pack("16sHH4s8x", f"lo:{n}".encode(), socket.AF_INET, 0, socket.inet_aton(address))
                    fcntl.ioctl(s, SIOCSIFADDR, alias)
            yield
        finally:
            if libc.setns(before.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")


class Authority:
    """The certificate authority of the laboratory, made with openssl."""

    def __init__(self, folder):
        self.folder = folder
        self.certificate = folder / "ca.pem"
        self.openssl("req", "-x509", *self.new_key("ca"), "-subj", "/CN=Lab Authority",
                     "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign",
                     "-out", self.certificate)

    def new_key(self, name):
        return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                "-keyout", self.folder / f"{name}.key")

    def openssl(self, *args):
        subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, timeout=60)

    def issue(self, name, alternatives, usage="serverAuth"):
        """A certificate and its key, both as PEM files."""
        request, made, extra = (self.folder / f"{name}.{x}" for x in ("csr", "pem", "ext"))
        self.openssl("req", *self.new_key(name), "-subj", f"/CN={name}", "-out", request)
        extra.write_text(
            f"subjectAltName={alternatives}\nextendedKeyUsage={usage}\nbasicConstraints=critical,CA:FALSE\n")
        self.openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.folder / "ca.key",
                     "-CAcreateserial", "-days", "30", "-extfile", extra, "-out", made)
        return made, self.folder / f"{name}.key"


PORTS = {"smtp": 25, "submission": 587, "submissions": 465, "imap": 143, "imaps": 993, "pop3": 110, "pop3s": 995}


class CertifiedServer(MailServer):
    """A server with a certificate of the authority, for its name, localhost and its address."""

    def __init__(self, folder, authority, domain, address, dns_port, person, ports=None, orders=()):
        self.authority = authority
        made, key = authority.issue(f"mail.{domain}", f"DNS:mail.{domain},DNS:localhost,IP:{address}")
        super().__init__(folder, domain, address, dns_port, person, ports=ports, orders=(
            f'tls.certificate="{made}"', f'tls.key="{key}"', *orders))

    @property
    def certificate(self):
        return self.authority.certificate


class Internet:
    """A network, its DNS and one Posthaste; strangers bring their zones and addresses."""

    def __init__(self, strangers=(), orders=()):
        self.stack = contextlib.ExitStack()
        try:
            self.build(strangers, orders)
        except BaseException:
            self.close()
            raise

    def build(self, strangers, orders):
        self.stack.enter_context(own_network(*[address for _, address in strangers]))
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="posthaste-peers-"))
        self.folder.chmod(0o755)
        self.stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        for name in ("ca", "example"):
            (self.folder / name).mkdir()
        self.authority = Authority(self.folder / "ca")
        self.server = CertifiedServer(
            self.folder / "example", self.authority, "example.com", "127.0.2.1", 53, "bob@example.com", PORTS,
            (f'dns.servers=["{DNS}:53"]', f'deliver.extra_roots="{self.authority.certificate}"', *orders))
        zones = [self.zone("example.com", self.server.zone)]
        zones += [self.zone(domain, stranger_zone(domain, address)) for domain, address in strangers]
        zones.append(self.zone("example", f"$ORIGIN example.\n{TOP}"))
        dns = Process("lab", "dns", *[x for z in zones for x in ("--zone", z)], "--listen", f"{DNS}:53",
                      log=self.folder / "dns.log")
        self.stack.callback(dns.stop)
        self.server.start()
        self.stack.callback(lambda: self.server.process and self.server.stop())

    def zone(self, domain, text):
        path = self.folder / f"{domain}.zone"
        path.write_text(text)
        return path

    def close(self):
        self.stack.close()


#: What every zone begins with.
TOP = "$TTL 60\n@ IN SOA ns hostmaster 1 3600 600 86400 60\n@ IN NS ns\n"


def stranger_zone(domain, address):
    return (f"$ORIGIN {domain}.\n{TOP}"
            f'ns IN A {DNS}\n@ IN TXT "v=spf1 ip4:{address} -all"\n@ IN MX 10 mail\nmail IN A {address}\n')
