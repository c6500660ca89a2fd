#!/usr/bin/env python3
"""Postfix, Exim and OpenSMTPD of Debian, each in a root folder of its own, as senders to us and receivers
from us; Dovecot of Debian as a receiver by LMTP; and aiosmtpd of PyPI as a receiver, in this process.

As packages they exclude each other, so they are unpacked, not installed: `python3 e2e/peers.py` puts
them into target/e2e-peers. Each runs by `chroot` in a mount and process namespace of its own, with its
own /etc and /var: the machine's configuration is never read or written, and when the namespace's first
process ends, all others end and the mounts are gone.
"""

import importlib.util
import os
import pathlib
import shlex
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile

from world import ROOT, wait_until

STORE = pathlib.Path(os.environ.get("POSTHASTE_E2E_PEERS", str(ROOT / "target" / "e2e-peers")))
#: Debian's packages and what they hold that we start.
PACKAGES = {
    "postfix": (("postfix",), "usr/lib/postfix/sbin/master"),
    "exim": (("exim4-daemon-light", "exim4-base"), "usr/sbin/exim4"),
    "opensmtpd": (("opensmtpd",), "usr/sbin/smtpd"),
    "dovecot": (("dovecot-core", "dovecot-lmtpd"), "usr/sbin/dovecot"),
}
#: Shared libraries that those link to.
LIBRARIES = ("libapparmor1", "libdb5.3", "libevent-2.1-7", "libexttextcat-2.0-0", "libgnutls-dane0", "libicu72",
             "libidn12", "liblua5.4-0", "libnsl2", "libpam0g", "libpcre2-8-0", "libsasl2-2", "libsodium23", "libssl3",
             "libstemmer0d", "libtirpc3", "libunwind8", "libwrap0")
#: Those that come with the packages themselves.
OWN = ("libpostfix", "libdovecot")

USERS = ("root:x:0:0::/root:/bin/sh\n"
         "mail:x:8:8::/var/mail:/usr/sbin/nologin\n"
         "nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"
         "postfix:x:901:901::/var/spool/postfix:/usr/sbin/nologin\n"
         "Debian-exim:x:902:902::/var/spool/exim4:/usr/sbin/nologin\n"
         "opensmtpd:x:903:903::/var/lib/opensmtpd/empty:/usr/sbin/nologin\n"
         "opensmtpq:x:904:904::/var/lib/opensmtpd/empty:/usr/sbin/nologin\n"
         "alice:x:905:905::/var/alice:/bin/sh\n")
GROUPS = ("root:x:0:\nmail:x:8:\nnogroup:x:65534:\npostfix:x:901:\npostdrop:x:906:\nDebian-exim:x:902:\n"
          "opensmtpd:x:903:\nopensmtpq:x:904:\nalice:x:905:\n")
ALICE, MAILDIR = 905, "/var/alice/Maildir"
#: alice0, alice1, … are alice too.
NAMED = 20


def missing(name):
    """Why the peer cannot run, or nothing."""
    if name == "aiosmtpd":
        found = importlib.util.find_spec("aiosmtpd")
        return None if found else "aiosmtpd is absent: `pip install aiosmtpd`"
    packages, program = PACKAGES[name]
    path = STORE / name / program
    how = "`python3 e2e/peers.py` fetches it"
    if not path.exists():
        return f"{name} is absent (Debian's {' and '.join(packages)}): {how}"
    linked = subprocess.run(["ldd", path], capture_output=True, text=True).stdout
    if lost := [x for line in linked.splitlines() if "not found" in line and not (x := line.split()[0]).startswith(OWN)]:
        return f"{name} lacks {', '.join(lost)} (Debian's {', '.join(LIBRARIES)}): {how}"
    return None


def fetch():
    """Unpacks them from Debian's archive; installs nothing but shared libraries."""
    lost = [x for x in LIBRARIES if subprocess.run(["dpkg", "-s", x], capture_output=True).returncode != 0]
    if lost:
        subprocess.run(["apt-get", "install", "-y", "-qq", *lost], check=True,
                       env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    for name, (packages, program) in PACKAGES.items():
        if (STORE / name / program).exists():
            continue
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o777)
            download = ["apt-get", "download", "-qq", *packages]
            if subprocess.run(download, cwd=folder).returncode != 0:
                subprocess.run(["apt-get", "update", "-qq"], check=True)
                subprocess.run(download, cwd=folder, check=True)
            (STORE / name).mkdir(parents=True, exist_ok=True)
            for package in pathlib.Path(folder).glob("*.deb"):
                subprocess.run(["dpkg", "-x", package, STORE / name], check=True)
        print(f"{name}: {STORE / name / program}")


class Peer:
    """One mail server that we did not write, for `domain` at `address` and `port`."""

    name = None
    port = 25
    #: The program's arguments; it stays in the foreground.
    command = ()
    #: Where its package keeps shared libraries of its own.
    libraries = None
    #: A folder of its package in /usr/lib that must be there under its name.
    in_lib = None

    def __init__(self, folder, domain, address, authority):
        self.domain, self.address, self.authority = domain, address, authority
        self.hostname = f"mail.{domain}"
        self.root, self.log = folder / self.name, folder / f"{self.name}.log"
        self.root.mkdir()
        self.lay_out()
        self.settings()
        self.process = None

    # --- its root folder ---

    def lay_out(self):
        for path in ("dev", "proc", "peer", "usr/bin", "usr/lib", "usr/lib64", "usr/share", "usr/sbin",
                     "usr/libexec", "root", "run", "var/mail", "var/tmp", "var/log", "var/alice", "etc/tls"):
            (self.root / path).mkdir(parents=True)
        for path in ("tmp", "var/tmp"):
            (self.root / path).mkdir(exist_ok=True)
            (self.root / path).chmod(0o1777)
        for path in ("bin", "lib", "lib64", "sbin"):
            (self.root / path).symlink_to(f"usr/{path}")
        (self.root / "var/run").symlink_to("../run")
        os.chown(self.root / "var/alice", ALICE, ALICE)
        for name in ("services", "protocols", "localtime"):
            if (source := pathlib.Path("/etc") / name).exists():
                shutil.copyfile(source, self.root / "etc" / name)
        self.write("etc/passwd", USERS)
        self.write("etc/group", GROUPS)
        self.write("etc/hosts", f"127.0.0.1 localhost\n{self.address} {self.hostname}\n")
        self.write("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n")
        self.write("etc/resolv.conf", "nameserver 127.0.0.53\noptions timeout:2 attempts:2\n")
        self.write("etc/mailname", f"{self.hostname}\n")
        made, key = self.authority.issue(self.hostname, f"DNS:{self.hostname}")
        for source, name, mode in ((made, "cert.pem", 0o644), (key, "key.pem", 0o640),
                                   (self.authority.certificate, "ca.pem", 0o644)):
            shutil.copyfile(source, self.root / "etc/tls" / name)
            (self.root / "etc/tls" / name).chmod(mode)

    def write(self, path, text, owner=None, mode=0o644):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        if owner is not None:
            os.chown(path, owner, owner)

    def folder(self, path, owner, mode, group=None):
        path = self.root / path
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, owner, owner if group is None else group)
        path.chmod(mode)

    def settings(self):
        raise NotImplementedError

    # --- its life ---

    def start(self):
        root, unpacked = shlex.quote(str(self.root)), shlex.quote(str(STORE / self.name))
        lib = "usr/lib"
        if self.in_lib:
            lib = "machine-lib"
            (self.root / lib).mkdir()
            for name in os.listdir("/usr/lib"):
                (self.root / "usr/lib" / name).symlink_to(f"/{lib}/{name}")
            (self.root / "usr/lib" / self.in_lib).unlink(missing_ok=True)
            (self.root / "usr/lib" / self.in_lib).symlink_to(f"/peer/usr/lib/{self.in_lib}")
        binds = [("/dev", "dev"), ("/usr/bin", "usr/bin"), ("/usr/lib", lib), ("/usr/share", "usr/share"),
                 (unpacked, "peer"), (f"{unpacked}/usr/sbin", "usr/sbin")]
        if pathlib.Path("/usr/lib64").exists():
            binds.append(("/usr/lib64", "usr/lib64"))
        if (STORE / self.name / "usr/libexec").exists():
            binds.append((f"{unpacked}/usr/libexec", "usr/libexec"))
        if self.libraries:
            binds += [(f"{unpacked}/{self.libraries}", self.libraries)] if pathlib.Path("/", self.libraries).exists() else []
            self.write("etc/ld.so.conf", f"/peer/{self.libraries}\n/usr/lib/{os.uname().machine}-linux-gnu\n")
        script = ["set -e"]
        script += [f"mount --rbind {source} {root}/{target}" for source, target in binds]
        script += [f"mount -t proc proc {root}/proc", f"ldconfig -r {root}",
                   # Not `exec`: the shell is the namespace's first process, and the signal that `unshare` has set
                   # for its own end would not survive a program that changes its user.
                   f"chroot {root} {shlex.join(self.command)}", "exit $?"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", "-mp", "--fork", "--kill-child", "sh", "-c",
                 "\n".join(script)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"})
        wait_until(self.answers, f"{self.name} to answer; it says: {self.said()[-2000:]}")

    def answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.returncode}: {self.said()[-3000:]}")
        try:
            with socket.create_connection((self.address, self.port), timeout=10) as s:
                return s.recv(4) == b"220 " or None
        except OSError:
            return None

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait(timeout=30)

    def said(self):
        """What it writes while it works: with each command that it sends and each reply that it gets."""
        return self.log.read_text(errors="replace")

    def logged(self):
        """What it tells an operator."""
        return self.said()

    # --- its mail ---

    def smtp(self):
        return smtplib.SMTP(self.address, 25, local_hostname="author.example", timeout=60)

    def hand_over(self, message, recipients, sender=None, mail_options=(), rcpt_options=()):
        """Gives it a message to send."""
        with self.smtp() as s:
            s.ehlo()
            refused = s.sendmail(sender or f"alice@{self.domain}", recipients, message, mail_options, rcpt_options)
        assert not refused, refused

    def messages(self):
        """What it delivered to alice."""
        return [p.read_bytes() for p in self.root.glob(f"{MAILDIR[1:]}/new/*")]

    #: Lines end as its Maildir has them.
    line_end = b"\n"

    def wait_for(self, *markers):
        """The message for alice that holds all markers."""
        def found():
            return next((m for m in self.messages() if all(x.encode() in m for x in markers)), None)
        try:
            return wait_until(found, f"{markers} at {self.name}", 60)
        except AssertionError as late:
            raise AssertionError(f"{late}; it has {self.messages()}; it says {self.said()[-6000:]}") from None


class Postfix(Peer):
    name = "postfix"
    command = ("/usr/sbin/postfix", "-c", "/etc/postfix", "start-fg")
    libraries = "usr/lib/postfix"

    def settings(self):
        services = (STORE / "postfix/usr/share/postfix/master.cf.dist").read_text()
        lines = []
        for line in services.splitlines():
            fields = line.split()
            if not line.startswith(("#", " ", "\t")) and len(fields) >= 8:
                fields[4] = "n"  # no chroot within the chroot
                line = " ".join(fields)
            lines.append(line)
        lines.append("postlog unix-dgram n - n - 1 postlogd")
        self.write("etc/postfix/master.cf", "\n".join(lines) + "\n")
        self.write("etc/postfix/dynamicmaps.cf", "")
        self.write("etc/postfix/users", f"alice@{self.domain} Maildir/\nпочта@{self.domain} Maildir/\n"
                   + "".join(f"alice{n}@{self.domain} Maildir/\n" for n in range(NAMED)))
        for name in ("postfix-script", "post-install", "postfix-files"):
            shutil.copy(STORE / "postfix/etc/postfix" / name, self.root / "etc/postfix" / name)
        self.folder("var/spool/postfix", 0, 0o755)
        self.folder("var/lib/postfix", 901, 0o755)
        self.write("etc/postfix/main.cf", f"""
compatibility_level = 3.6
daemon_directory = /peer/usr/lib/postfix/sbin
shlib_directory = /peer/usr/lib/postfix
meta_directory = /etc/postfix
sendmail_path = /usr/sbin/sendmail
newaliases_path = /usr/sbin/sendmail
mailq_path = /usr/sbin/sendmail
inet_interfaces = {self.address}
smtp_bind_address = {self.address}
inet_protocols = ipv4
myhostname = {self.hostname}
mydestination =
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
maillog_file = /dev/stdout
smtpd_tls_security_level = may
smtpd_tls_cert_file = /etc/tls/cert.pem
smtpd_tls_key_file = /etc/tls/key.pem
smtpd_tls_received_header = yes
smtpd_tls_loglevel = 1
smtp_tls_security_level = secure
smtp_tls_secure_cert_match = hostname
smtp_tls_CAfile = /etc/tls/ca.pem
smtp_tls_loglevel = 1
smtp_line_length_limit = 0
debug_peer_list = 127.0.2.1
debug_peer_level = 2
message_size_limit = 40000000
virtual_mailbox_domains = {self.domain}
virtual_mailbox_base = /var/alice
virtual_mailbox_maps = texthash:/etc/postfix/users
virtual_uid_maps = static:{ALICE}
virtual_gid_maps = static:{ALICE}
""")


class Exim(Peer):
    name = "exim"
    command = ("/usr/sbin/exim4", "-bd", "-d-all+transport", "-q1m")

    def settings(self):
        for path in ("var/spool/exim4", "var/log/exim4"):
            self.folder(path, 902, 0o750)
        os.chown(self.root / "etc/tls/key.pem", 0, 902)
        self.write("etc/exim4/exim4.conf", f"""
primary_hostname = {self.hostname}
exim_path = /usr/sbin/exim4
spool_directory = /var/spool/exim4
log_file_path = /var/log/exim4/%slog
log_selector = +all
local_interfaces = {self.address}
daemon_smtp_ports = 25
domainlist local_domains = {self.domain}
tls_advertise_hosts = *
tls_certificate = /etc/tls/cert.pem
tls_privatekey = /etc/tls/key.pem
dsn_advertise_hosts = *
chunking_advertise_hosts = *
smtputf8_advertise_hosts = *
accept_8bitmime = true
message_size_limit = 40M
keep_environment =
never_users =
acl_smtp_rcpt = everybody
acl_smtp_data = everything

begin acl
everybody:
  require verify = recipient
  accept
everything:
  accept

begin routers
far:
  driver = dnslookup
  domains = ! +local_domains
  transport = far
  self = send
  ignore_target_hosts =
  no_more
near:
  driver = accept
  local_parts = ! nobody
  transport = near

begin transports
far:
  driver = smtp
  interface = {self.address}
  hosts_require_tls = *
  tls_verify_hosts = *
  tls_verify_certificates = /etc/tls/ca.pem
  tls_verify_cert_hostnames = *
  hosts_try_chunking = *
  dnssec_request_domains =
  message_linelength_limit = 1G
near:
  driver = appendfile
  directory = {MAILDIR}
  maildir_format
  user = alice
  group = alice
  create_directory
  delivery_date_add
  envelope_to_add
  return_path_add

begin retry
* * F,2h,1s
""")

    def logged(self):
        return (self.root / "var/log/exim4/mainlog").read_text(errors="replace")


class OpenSmtpd(Peer):
    name = "opensmtpd"
    command = ("/usr/sbin/smtpd", "-d", "-v", "-T", "smtp", "-T", "mta")

    def settings(self):
        self.folder("var/spool/smtpd", 0, 0o711)
        self.folder("var/lib/opensmtpd/empty", 0, 0o755)
        self.write("etc/tls/key.pem", (self.root / "etc/tls/key.pem").read_text(), mode=0o600)
        self.write("etc/smtpd.conf", f"""
ca "lab" cert "/etc/tls/ca.pem"
pki "{self.hostname}" cert "/etc/tls/cert.pem"
pki "{self.hostname}" key "/etc/tls/key.pem"
table users {{ "alice" = "alice", {", ".join(f'"alice{n}" = "alice"' for n in range(NAMED))} }}
smtp max-message-size "40M"
listen on {self.address} port 25 tls pki "{self.hostname}" hostname "{self.hostname}"
action "near" maildir "{MAILDIR}" virtual <users>
action "far" relay src {self.address} helo "{self.hostname}" tls ca "lab"
match from any for domain "{self.domain}" action "near"
match from any for any action "far"
""")


class Dovecot(Peer):
    """Mailboxes behind LMTP, at a port and at a socket."""

    name = "dovecot"
    port = 24
    # As dovecot starts itself, but for the folder of doveconf.
    command = ("/peer/usr/bin/doveconf", "-f", "service=master", "-c", "/etc/dovecot/dovecot.conf", "-m", "master",
               "-e", "/usr/sbin/dovecot", "-F")
    in_lib = "dovecot"

    @property
    def socket(self):
        return self.root / "run/dovecot/lmtp"

    def settings(self):
        users = ["alice", *(f"alice{n}" for n in range(NAMED))]
        self.write("etc/dovecot/users", "".join(f"{x}:{{PLAIN}}x:{ALICE}:{ALICE}::/var/alice::\n" for x in users))
        self.write("etc/dovecot/dovecot.conf", f"""
protocols = lmtp
base_dir = /run/dovecot
log_path = /dev/stderr
hostname = {self.hostname}
default_login_user = nobody
default_internal_user = nobody
default_internal_group = nogroup
auth_username_format = %Ln
mail_location = maildir:{MAILDIR}
ssl = yes
ssl_cert = </etc/tls/cert.pem
ssl_key = </etc/tls/key.pem
passdb {{
  driver = passwd-file
  args = /etc/dovecot/users
}}
userdb {{
  driver = passwd-file
  args = /etc/dovecot/users
}}
service lmtp {{
  inet_listener lmtp {{
    address = {self.address}
    port = {self.port}
  }}
  unix_listener lmtp {{
    mode = 0666
  }}
}}
""")


class AioSmtpd:
    """aiosmtpd of PyPI, which speaks SMTP and no more: a receiver that offers neither DSN nor CHUNKING."""

    name = "aiosmtpd"
    line_end = b"\r\n"

    def __init__(self, folder, domain, address, authority):
        self.domain, self.address = domain, address
        self.hostname = f"mail.{domain}"
        self.made, self.key = authority.issue(self.hostname, f"DNS:{self.hostname}")
        self.taken, self.sessions, self.controller = [], [], None

    def start(self):
        from aiosmtpd.controller import Controller
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(self.made, self.key)
        self.controller = Controller(
            self, hostname=self.address, port=25, server_hostname=self.hostname, tls_context=tls,
            enable_SMTPUTF8=True, data_size_limit=40_000_000)
        self.controller.start()

    def stop(self):
        if self.controller:
            self.controller.stop()

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody@"):
            return "550 5.1.1 No such user here"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server, session, envelope):
        self.sessions.append({"tls": session.ssl and session.ssl["cipher"], "helo": session.host_name,
                              "from": envelope.mail_from, "to": list(envelope.rcpt_tos),
                              "options": list(envelope.mail_options) + list(envelope.rcpt_options)})
        self.taken.append(envelope.original_content)
        return "250 2.0.0 taken"

    def said(self):
        return "\n".join(map(repr, list(self.sessions)))

    logged = said

    def messages(self):
        return list(self.taken)

    wait_for = Peer.wait_for


KINDS = {kind.name: kind for kind in (Postfix, Exim, OpenSmtpd, Dovecot, AioSmtpd)}

if __name__ == "__main__":
    sys.exit(fetch())
