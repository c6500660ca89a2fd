#!/usr/bin/env python3
"""End-to-end tests with programs that we did not write: smtplib, imaplib, poplib, openssl, mbsync, dkimpy;
Postfix, Exim and OpenSMTPD as senders; msmtp, swaks, s-nail, curl, mutt and gsasl as mail programs.
`python3 e2e/run.py` runs them all against target/release/posthaste (or $POSTHASTE).

Needs: python3 with dkimpy, dnspython and pynacl; swaks, openssl, isync, msmtp, s-nail, curl, mutt, gsasl; what
`python3 e2e/peers.py` unpacks, and root for the senders (a network of their own, with the real ports).
"""

import pathlib
import sys
import unittest

if __name__ == "__main__":
    here = pathlib.Path(__file__).resolve().parent
    sys.path.insert(0, str(here))
    names = sys.argv[1:]
    loader = unittest.defaultTestLoader
    suite = loader.loadTestsFromNames(names) if names else loader.discover(str(here), pattern="test_*.py")
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    ran = result.testsRun - len(result.skipped)
    bad = len(result.failures) + len(result.errors)
    print(f"{ran - bad} passed, {bad} failed, {len(result.skipped)} skipped")
    sys.exit(0 if result.wasSuccessful() and ran else 1)
