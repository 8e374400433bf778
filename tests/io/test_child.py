"""Children that end with their parent."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxtrack.errors import JaxtrackError
from jaxtrack.io import child
from tests.conftest import ROOT

SAY = "import os, sys, time; print(os.getpid(), flush=True); "


def gone(pid, seconds=20):
    """Whether a process ends in time."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        try:
            os.kill(pid, 0)
            with open(f"/proc/{pid}/stat") as file:
                if file.read().split(")")[-1].split()[0] == "Z":
                    return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def test_output_and_status_come_back():
    ended = child.run(
        [sys.executable, "-c", SAY + "print('x', file=sys.stderr); sys.exit(3)"], capture=True
    )
    assert ended.status == 3
    assert ended.output.strip().isdigit()
    assert ended.errors == "x\n"
    assert not ended.late


@pytest.mark.parametrize("words", [[], ["/no/such/program"], ["no-such-program-here", "x"]])
def test_what_cannot_be_started_is_one_line(words):
    with pytest.raises(JaxtrackError, match="no such program"):
        child.run(words)


def test_time_is_up():
    ended = child.run([sys.executable, "-c", SAY + "time.sleep(60)"], seconds=1.0, capture=True)
    assert ended.late
    assert ended.status == -signal.SIGTERM
    assert gone(int(ended.output))


def test_another_thread_can_stop_it():
    stop, began = threading.Event(), time.monotonic()
    threading.Timer(0.2, stop.set).start()
    ended = child.run([sys.executable, "-c", "import time; time.sleep(60)"], stop=stop)
    assert ended.late
    assert ended.status == -signal.SIGTERM
    assert time.monotonic() - began < 30
    ended = child.run([sys.executable, "-c", "raise SystemExit(3)"], stop=threading.Event())
    assert (ended.status, ended.late) == (3, False)


def test_only_the_end_of_much_output_is_kept(monkeypatch):
    monkeypatch.setattr(child, "_TAIL", 1000)
    ended = child.run([sys.executable, "-c", "print('y' * 100_000); print('end')"], capture=True)
    assert ended.output.endswith("end\n")
    assert len(ended.output) == 1000


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_child_ends_with_its_parent(sent):
    inner = [sys.executable, "-c", SAY + "time.sleep(100)"]
    # Whoever started the tests in the background may have had SIGINT ignored; the parent here does not.
    heeds = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code = f"{heeds}from jaxtrack.io import child; child.run({inner!r})"
    parent = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    pid = int(parent.stdout.readline())
    parent.send_signal(sent)
    parent.wait(20)
    parent.stdout.close()
    assert gone(pid)
