"""Mail programs that we did not write log in on 587 and 465 with each mechanism that they know, and
submit: msmtp, swaks, s-nail, curl, mutt, Python's smtplib; gsasl logs in with what only it knows.
"""

import base64
import json
import os
import pathlib
import shutil
import smtplib
import subprocess
import tempfile
import time
import unittest
import urllib.parse

from network import Authority, CertifiedServer
from world import PASSWORD, free_port

import nacl.signing

BOB, CAROL = "bob@example.com", "carol@example.com"
CAROLS = "carols long password"
HOST = "localhost"
ISSUER, AUDIENCE = "https://id.example.com", "posthaste"
BY_PASSWORD = ("PLAIN", "LOGIN", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS")
BY_TOKEN = ("OAUTHBEARER", "XOAUTH2")


def base64url(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


class Tokens:
    """An issuer of bearer tokens with one Ed25519 key (RFC 7519, RFC 8037)."""

    def __init__(self, folder):
        self.key = nacl.signing.SigningKey.generate()
        self.keys = folder / "keys.json"
        self.keys.write_text(json.dumps({"keys": [{
            "kty": "OKP", "crv": "Ed25519", "kid": "one", "alg": "EdDSA", "use": "sig",
            "x": base64url(bytes(self.key.verify_key))}]}))

    def issue(self, address, key=None, **claims):
        now = int(time.time())
        head = {"alg": "EdDSA", "typ": "JWT", "kid": "one"}
        body = {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 600, "email": address,
                "email_verified": True, **claims}
        signed = f"{base64url(json.dumps(head).encode())}.{base64url(json.dumps(body).encode())}"
        return f"{signed}.{base64url((key or self.key).sign(signed.encode()).signature)}"


def setUpModule():
    global FOLDER, SERVER, TOKENS, CA, APP, CAROLS_APP, OFFERED
    temporary = tempfile.TemporaryDirectory(prefix="posthaste-submit-")
    unittest.addModuleCleanup(temporary.cleanup)
    FOLDER = pathlib.Path(temporary.name)
    (FOLDER / "ca").mkdir()
    CA = Authority(FOLDER / "ca")
    TOKENS = Tokens(FOLDER)
    CA.issue("bob", f"email:{BOB}", "clientAuth")
    CA.issue("nobody", "email:nobody@example.com", "clientAuth")
    SERVER = CertifiedServer(FOLDER, CA, "example.com", "127.0.0.1", free_port("127.0.0.1"), BOB, orders=(
        f'tls.client_roots="{CA.certificate}"',
        f'login.issuer=[{{issuer="{ISSUER}", audience="{AUDIENCE}", claim="email", keys_file="{TOKENS.keys}"}}]'))
    SERVER.cli("account", "add", CAROL, "--password-stdin", stdin=CAROLS + "\n")
    SERVER.cli("account", "second-factor", CAROL, "on")
    SERVER.start()
    unittest.addModuleCleanup(SERVER.stop)
    APP, CAROLS_APP = app_password(BOB), app_password(CAROL)
    with smtplib.SMTP_SSL(HOST, SERVER.ports["submissions"], timeout=30, context=SERVER.tls()) as s:
        s.ehlo()
        OFFERED = set(s.esmtp_features["auth"].split())
    assert OFFERED == {*BY_PASSWORD, *BY_TOKEN}, OFFERED
    # EXTERNAL is for those that showed a certificate.
    context = SERVER.tls()
    context.load_cert_chain(*certificate_of("bob"))
    with smtplib.SMTP_SSL(HOST, SERVER.ports["submissions"], timeout=30, context=context) as s:
        s.ehlo()
        assert set(s.esmtp_features["auth"].split()) == {*OFFERED, "EXTERNAL"}
    OFFERED.add("EXTERNAL")


def app_password(address):
    return json.loads(SERVER.cli("--json", "account", "app-password", address).stdout)["password"]


class Submits:
    """What every client must be able to do. A client says its command line, and the test the rest."""

    program = package = None
    mechanisms = ()
    services = ("submission", "submissions")
    #: Whether it submits a message; gsasl only logs in.
    sends = True

    @classmethod
    def setUpClass(cls):
        if cls.program and not shutil.which(cls.program):
            raise unittest.SkipTest(f"{cls.program} is absent (Debian's {cls.package})")

    def setUp(self):
        # A new start forgets failed logins; else each five from an address make the next answer come later.
        SERVER.stop()
        SERVER.start()

    def command(self, service, mechanism, user, secret, subject):
        """(arguments, standard input)"""
        raise NotImplementedError

    def run_it(self, service, mechanism, user, secret, subject):
        """(whether it says that it worked, what it said)"""
        args, stdin = self.command(service, mechanism, user, secret, subject)
        done = subprocess.run([str(x) for x in args], input=stdin, capture_output=True, text=True, timeout=60,
                              cwd=FOLDER, env={**os.environ, "HOME": str(FOLDER), "LC_ALL": "C.UTF-8"})
        return done.returncode == 0, done.stdout + done.stderr

    def secrets(self, mechanism, user=BOB):
        if mechanism in BY_TOKEN:
            return {"token": TOKENS.issue(user)}
        if mechanism == "EXTERNAL":
            return {"certificate": "bob"}
        return {"main": PASSWORD, "app": APP}

    def known(self, among=None):
        """The mechanisms that both sides know."""
        return [m for m in self.mechanisms if m in OFFERED and (among is None or m in among)]

    # --- tests ---

    def test_each_mechanism_on_each_port(self):
        subjects = []
        for service in self.services:
            for mechanism in self.known():
                for what, secret in self.secrets(mechanism).items():
                    with self.subTest(service=service, mechanism=mechanism, secret=what):
                        subject = f"{self.program} {service} {mechanism} {what}"
                        worked, said = self.run_it(service, mechanism, BOB, secret, subject)
                        self.assertTrue(worked, said)
                        subjects.append(subject)
        if not self.sends:
            return
        SERVER.wait_for(f"Subject: {subjects[-1]}")
        inbox = SERVER.messages()
        for subject in subjects:
            got = [m for m in inbox if f"Subject: {subject}\r\n".encode() in m]
            self.assertEqual(len(got), 1, subject)
            self.assertIn(b"with ESMTPSA", got[0])
            self.assertIn(b"hello from a mail program", got[0])

    def test_a_wrong_password_is_refused(self):
        for mechanism in self.known(BY_PASSWORD):
            with self.subTest(mechanism=mechanism):
                subject = f"{self.program} wrong {mechanism}"
                worked, said = self.run_it(self.services[0], mechanism, BOB, "wrong", subject)
                self.assertFalse(worked, said)
                self.refusal_is_told(said, "535", "5.7.8")
        self.assertFalse(any(f"Subject: {self.program} wrong".encode() in m for m in SERVER.messages()))

    def refusal_is_told(self, said, code, enhanced):
        self.assertIn(code, said)
        self.assertIn(enhanced, said)

    def test_a_second_factor_asks_for_an_app_password(self):
        for mechanism in self.known(BY_PASSWORD):
            with self.subTest(mechanism=mechanism):
                worked, said = self.run_it(self.services[-1], mechanism, CAROL, CAROLS, "x")
                self.assertFalse(worked, said)
                self.refusal_is_told(said, "534", "5.7.9")
                worked, said = self.run_it(self.services[-1], mechanism, CAROL, CAROLS_APP,
                                           f"{self.program} second factor {mechanism}")
                self.assertTrue(worked, said)

    def test_a_bad_token_is_refused(self):
        expired = TOKENS.issue(BOB, exp=int(time.time()) - 3600)
        forged = TOKENS.issue(BOB, key=nacl.signing.SigningKey.generate())
        others = TOKENS.issue(CAROL)
        for mechanism in self.known(BY_TOKEN):
            for name, token in (("expired", expired), ("forged", forged), ("another's", others)):
                with self.subTest(mechanism=mechanism, token=name):
                    worked, said = self.run_it(self.services[0], mechanism, BOB, token, "x")
                    self.assertFalse(worked, said)

    def test_a_certificate_of_another_is_refused(self):
        for mechanism in self.known(("EXTERNAL",)):
            worked, said = self.run_it(self.services[0], mechanism, BOB, "nobody", "x")
            self.assertFalse(worked, said)

    def test_what_is_not_offered_is_not_used(self):
        self.assertNotIn("CRAM-MD5", OFFERED)
        if "CRAM-MD5" in self.mechanisms:
            worked, said = self.run_it(self.services[0], "CRAM-MD5", BOB, PASSWORD, "x")
            self.assertFalse(worked, said)


def letter(subject):
    return (f"From: {BOB}\r\nTo: {BOB}\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n\r\n"
            "hello from a mail program\r\n.\r\nand a dot\r\n")


def certificate_of(name):
    return FOLDER / "ca" / f"{name}.pem", FOLDER / "ca" / f"{name}.key"


class Msmtp(Submits, unittest.TestCase):
    program = package = "msmtp"
    mechanisms = ("PLAIN", "LOGIN", "SCRAM-SHA-1", "SCRAM-SHA-256", "EXTERNAL", "CRAM-MD5", *BY_TOKEN)

    def command(self, service, mechanism, user, secret, subject):
        lines = [
            "account default", f"host {HOST}", f"port {SERVER.ports[service]}", "domain laptop.example", "tls on",
            f"tls_starttls {'on' if service == 'submission' else 'off'}", f"tls_trust_file {CA.certificate}",
            f"auth {mechanism.lower()}", f"user {user}", f"from {user}",
        ]
        if mechanism == "EXTERNAL":
            certificate, key = certificate_of(secret)
            lines += [f"tls_cert_file {certificate}", f"tls_key_file {key}"]
        else:
            lines.append(f"password {secret}")
        config = FOLDER / "msmtprc"
        config.write_text("\n".join(lines) + "\n")
        config.chmod(0o600)
        return ["msmtp", "-C", config, "--debug", BOB], letter(subject).replace(f"From: {BOB}", f"From: {user}")


class Swaks(Submits, unittest.TestCase):
    program = package = "swaks"
    mechanisms = ("PLAIN", "LOGIN", "CRAM-MD5")

    def command(self, service, mechanism, user, secret, subject):
        return ["swaks", "--server", HOST, "--port", SERVER.ports[service],
                "-tls" if service == "submission" else "-tlsc", "--tls-verify", "--tls-ca-path", CA.certificate,
                "--auth", mechanism, "--auth-user", user, "--auth-password", secret, "--from", user, "--to", BOB,
                "--header", f"Subject: {subject}", "--body", "hello from a mail program"], ""


class SNail(Submits, unittest.TestCase):
    program = package = "s-nail"
    mechanisms = ("PLAIN", "LOGIN", "OAUTHBEARER", "EXTERNAL", "CRAM-MD5")

    def command(self, service, mechanism, user, secret, subject):
        login = f"{urllib.parse.quote(user, safe='')}:{urllib.parse.quote(secret, safe='')}"
        args = ["s-nail", "-:/", "-vv", "-Sv15-compat=yes", "-Ssendwait", "-Sttycharset=utf-8",
                f"-Sfrom={user}", f"-Stls-ca-file={CA.certificate}", "-Stls-ca-no-defaults", "-Stls-verify=strict"]
        if mechanism == "EXTERNAL":
            certificate, key = certificate_of(secret)
            args += ["-Ssmtp-auth=externanon", f"-Stls-config-pairs=Certificate={certificate},PrivateKey={key}"]
            login = urllib.parse.quote(user, safe="")
        else:
            args.append(f"-Ssmtp-auth={mechanism.lower()}")
        if service == "submission":
            args += ["-Ssmtp-use-starttls", f"-Smta=smtp://{login}@{HOST}:{SERVER.ports[service]}"]
        else:
            args.append(f"-Smta=smtps://{login}@{HOST}:{SERVER.ports[service]}")
        return [*args, "-s", subject, BOB], "hello from a mail program\n.\nand a dot\n"


class Curl(Submits, unittest.TestCase):
    program = package = "curl"
    mechanisms = ("PLAIN", "LOGIN", "EXTERNAL", "CRAM-MD5", *BY_TOKEN)

    def command(self, service, mechanism, user, secret, subject):
        scheme = "smtp" if service == "submission" else "smtps"
        args = ["curl", "-sSv", "--ssl-reqd", "--cacert", CA.certificate, "--mail-from", user, "--mail-rcpt", BOB,
                "-T", "-", "--login-options", f"AUTH={mechanism}"]
        if mechanism in BY_TOKEN:
            args += ["--user", f"{user}:", "--oauth2-bearer", secret]
        elif mechanism == "EXTERNAL":
            certificate, key = certificate_of(secret)
            args += ["--user", f"{user}:", "--cert", certificate, "--key", key]
        else:
            args += ["--user", f"{user}:{secret}"]
        url = f"{scheme}://{HOST}:{SERVER.ports[service]}/laptop.example"
        return [*args, url], letter(subject).replace(f"From: {BOB}", f"From: {user}")


class Mutt(Submits, unittest.TestCase):
    program = package = "mutt"
    # It names the mechanisms that end in PLUS to its SASL library without giving it the channel to bind to.
    mechanisms = ("PLAIN", "LOGIN", "SCRAM-SHA-1", "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2", "CRAM-MD5")

    def command(self, service, mechanism, user, secret, subject):
        scheme = "smtp" if service == "submission" else "smtps"
        config = FOLDER / "muttrc"
        config.write_text(f"""
set from = "{user}"
set realname = ""
set use_from = yes
set use_envelope_from = yes
set copy = no
set smtp_url = "{scheme}://{urllib.parse.quote(user, safe='')}@{HOST}:{SERVER.ports[service]}/"
set smtp_pass = "{secret}"
set smtp_authenticators = "{mechanism.lower()}"
set smtp_oauth_refresh_command = "printf %s '{secret}'"
set ssl_starttls = yes
set ssl_force_tls = yes
set ssl_ca_certificates_file = "{CA.certificate}"
set certificate_file = "{CA.certificate}"
""")
        return ["mutt", "-n", "-F", config, "-s", subject, BOB], "hello from a mail program\n.\nand a dot\n"

    def refusal_is_told(self, said, code, enhanced):
        self.assertRegex(said, "(?i)authentication failed|" + code)  # it shows no replies


class Smtplib(Submits, unittest.TestCase):
    mechanisms = ("PLAIN", "LOGIN", "CRAM-MD5")

    def run_it(self, service, mechanism, user, secret, subject):
        where = (HOST, SERVER.ports[service])
        client = (smtplib.SMTP(*where, timeout=30) if service == "submission"
                  else smtplib.SMTP_SSL(*where, timeout=30, context=SERVER.tls()))
        with client as s:
            if service == "submission":
                s.starttls(context=SERVER.tls())
            s.ehlo()
            s.user, s.password = user, secret
            try:
                s.auth(mechanism, getattr(s, f"auth_{mechanism.lower().replace('-', '_')}"))
                s.sendmail(user, [BOB], letter(subject).replace(f"From: {BOB}", f"From: {user}"))
            except smtplib.SMTPResponseException as refusal:
                return False, f"{refusal.smtp_code} {refusal.smtp_error.decode()}"
        return True, ""


class Gsasl(Submits, unittest.TestCase):
    """GNU SASL's own client: the one that binds the login to the TLS channel (RFC 5802 §6, RFC 9266)."""

    program = package = "gsasl"
    mechanisms = (*BY_PASSWORD, "EXTERNAL", "CRAM-MD5")
    services = ("submission",)
    sends = False

    def command(self, service, mechanism, user, secret, subject):
        args = ["gsasl", "--verbose", "--smtp", "--starttls", "--x509-ca-file", CA.certificate, "--mechanism", mechanism,
                "--connect", f"{HOST}:{SERVER.ports[service]}", "--hostname", HOST, "--authentication-id", user]
        if mechanism == "EXTERNAL":
            certificate, key = certificate_of(secret)
            return [*args, "--x509-cert-file", certificate, "--x509-key-file", key, "--authorization-id", user], ""
        if not mechanism.endswith("-PLUS"):
            args.append("--no-cb")  # or it takes no part in a mechanism that is not bound, where one is offered
        return [*args, "--password", secret], ""


if __name__ == "__main__":
    unittest.main()
