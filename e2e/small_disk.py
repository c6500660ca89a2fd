"""A real small filesystem: ext4 on a loop file as root, else a tmpfs in a namespace of one's own."""

import contextlib
import os
import pathlib
import subprocess
import sys

#: Set in the copy of a test that runs inside the namespace: the folder to mount in.
INSIDE = "POSTHASTE_E2E_NAMESPACE"


def can(*command):
    try:
        return subprocess.run(command, capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@contextlib.contextmanager
def mounted(folder, mebibytes):
    """An empty filesystem of this size in a new folder; gone afterwards."""
    point, image = folder / "disk", folder / "disk.img"
    point.mkdir()
    if os.environ.get(INSIDE):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "none", point], check=True)
    else:
        with open(image, "wb") as file:
            file.truncate(mebibytes << 20)
        # No room for root alone: the server must not have more than it would have elsewhere.
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, point], check=True)
    try:
        yield point
    finally:
        # Lazily: a process that a failed test left behind must not keep the machine's mounts.
        subprocess.run(["umount", "-l", point], check=True)
        image.unlink(missing_ok=True)


def how():
    """`mount` here, `namespace` with a copy of the test inside one, or why not (with a space in it)."""
    if os.environ.get(INSIDE):
        return "mount"
    wanted = os.environ.get("POSTHASTE_E2E_SMALL_DISK", "")
    if wanted != "tmpfs" and os.geteuid() == 0 and can("mkfs.ext4", "-V") and can("losetup", "-f"):
        return "mount"
    if can("unshare", "-Urm", "true"):
        return "namespace"
    return "needs root with loop devices, or user namespaces (unshare -Urm)"


def rerun_inside(name):
    """Runs one test again, in a namespace in which it may mount."""
    here = pathlib.Path(__file__).resolve().parent
    done = subprocess.run(
        ["unshare", "-Urm", sys.executable, here / "run.py", name],
        env={**os.environ, INSIDE: "1"}, capture_output=True, text=True, timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def free_octets(path):
    at = os.statvfs(path)
    return at.f_bavail * at.f_frsize
