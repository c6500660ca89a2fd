//! An internet in a box: DNS, a certificate authority, servers and faults, on loopback.
