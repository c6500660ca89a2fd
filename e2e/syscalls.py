"""What the server really asks of the kernel, seen and spoilt by strace.

`traced` lists the calls of a running process; `promises` holds them against the promise that no
`250` for a message leaves before its octets were synced; `spoilt` makes chosen calls fail.
"""

import contextlib
import os
import pathlib
import re
import subprocess
import sys

WRITES = ("pwrite64", "pwritev", "pwritev2", "write", "writev")
SENDS = ("sendto", "sendmsg", "write", "writev")
SYNCS = ("fdatasync", "fsync")
#: Octets of each buffer that a trace shows: enough for a group of small messages, and for the fields
#: that a large one gets on top.
SHOWN = 65536
CALL = re.compile(r"^(\d+) +([\d.]+) (?:(\w+)\((.*)|<\.\.\. (\w+) resumed>(.*))$")
ANSWER = re.compile(r'"250 2\.0\.0 OK, message queued as (\w+)')


def why_not():
    """Why strace can't be used here; empty when it can."""
    try:
        with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as child:
            done = attach(child.pid, ["-e", "trace=none", "-o", "/dev/null"])
            end(done)
            child.stdin.close()
            child.wait()
    except (OSError, AssertionError) as error:
        return f"needs strace and the right to attach it: {error}"
    return ""


def attach(pid, options):
    """Attaches strace to all threads of a process, and waits until it has."""
    tracer = subprocess.Popen(["strace", "-f", *options, "-p", str(pid)], stderr=subprocess.PIPE, text=True)
    first = tracer.stderr.readline()
    if "attached" not in first:
        tracer.wait()
        tracer.stderr.close()
        raise AssertionError(first.strip() or "strace ended")
    return tracer


def end(tracer):
    tracer.terminate()
    tracer.communicate()


@contextlib.contextmanager
def traced(pid, to):
    """Writes the calls to a file, in the order in which they happened."""
    what = ",".join(dict.fromkeys(WRITES + SENDS + SYNCS))
    tracer = attach(pid, ["-ttt", "-y", "-s", str(SHOWN), "-o", str(to), "-e", f"trace={what}"])
    try:
        yield
    finally:
        end(tracer)


@contextlib.contextmanager
def spoilt(pid, call, error, path=None):
    """From now on this call fails with this error: everywhere, or on one file only. Ends with the
    process, when that ends first."""
    options = ["-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:error={error}"]
    if path:
        options += ["-P", str(path)]
    tracer = attach(pid, options)
    try:
        yield
    finally:
        end(tracer)


class Call:
    """One call: places in the order of events of its begin and end, file, what it said, result."""

    def __init__(self, name, begin, text):
        self.name, self.begin, self.end, self.text = name, begin, begin, text
        at = re.match(r"\d+<([^>]*)>", text)
        self.file = at[1] if at else ""

    @property
    def good(self):
        return re.search(r"\) += (\d+)", self.text[-60:]) is not None


def calls(trace):
    """The calls of a trace, in the order in which they began."""
    found, unfinished = [], {}
    for place, line in enumerate(pathlib.Path(trace).read_text(errors="replace").splitlines()):
        got = CALL.match(line)
        if not got:
            continue
        thread, _, name, text, resumed, rest = got.groups()
        if name:
            call = Call(name, place, text)
            found.append(call)
            if text.endswith("<unfinished ...>"):
                call.text = text[: -len("<unfinished ...>")]
                unfinished[thread, name] = call
        elif call := unfinished.pop((thread, resumed), None):
            call.end, call.text = place, call.text + rest
    return found


def synced(all_calls, file, since, before):
    """The first whole, good sync of a file between two places in the order of events."""
    return next((c for c in all_calls if c.name in SYNCS and c.file == file and c.good
                 and c.begin > since and c.end < before), None)


def promises(all_calls):
    """How many `250`s were sent, and what is wrong with them, in words."""
    answers, wrong = 0, []
    for answer in all_calls:
        queue_id = ANSWER.search(answer.text) if answer.name in SENDS and "socket:" in answer.file else None
        if not queue_id:
            continue
        answers += 1
        why = kept(all_calls, queue_id[1], answer)
        if why:
            wrong.append(f"{queue_id[1]}: {why}")
    return answers, wrong


def kept(all_calls, queue_id, answer):
    """Empty, or why this `250` was sent too early."""
    # The queue id stands in the Received field on top of the message.
    writes = [c for c in all_calls if c.name in WRITES and queue_id in c.text and "/store/" in c.file]
    if not writes:
        return "its octets were written nowhere"
    octets = writes[0]
    group = octets
    if "/large/" in octets.file:
        file = synced(all_calls, octets.file, octets.end, answer.begin)
        if not file:
            return f"{octets.file} was not synced before"
        if not synced(all_calls, os.path.dirname(octets.file), octets.end, answer.begin):
            return f"the folder of {octets.file} was not synced before"
        # The group with its rows comes behind the sync of the file that they refer to.
        groups = (c for c in all_calls if c.name in WRITES and "/log/" in c.file and c.begin > file.end)
        group = next(groups, octets)
        if group is octets:
            return "its rows were not written after its octets were synced"
    if group.end >= answer.begin or not group.good:
        return "its group was not written before"
    if not synced(all_calls, group.file, group.end, answer.begin):
        return f"{group.file} was not synced between the write of its group and the answer"
    return ""
