"""Progress: lines in a log at their times, bars on a terminal, and one that speaks where several are inside each other."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time

import pytest

from kaem_ppl.progress import Progress, shows_progress


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("kaem_ppl.progress.FIRST_LINE_SECONDS", 0.05)
    monkeypatch.setattr("kaem_ppl.progress.SECONDS_BETWEEN_LINES", 0.2)


def test_a_log_has_a_line_soon_and_then_every_few_seconds(capfd, quick):
    with Progress("compiling", True) as progress:
        time.sleep(0.15)
        progress.begin("warm-up", total=2_000)
        progress.update(500)
        time.sleep(0.01)
        progress.update(1_000, acceptance=0.8123)
        time.sleep(0.3)
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "kaem-ppl: compiling; 0 s so far"
    # Oracle: 500 steps since the first report, which is when the clock of the speed starts.
    assert lines[1].startswith("kaem-ppl: warm-up, step 1,000 of 2,000, acceptance 0.8123, ")
    assert lines[1].endswith(" s left")
    with Progress("compiling", False) as progress:
        progress.update(3)
        time.sleep(0.1)
    assert capfd.readouterr().err == ""


def test_the_innermost_speaks_under_the_name_of_the_outermost(capfd, quick):
    @shows_progress("inside")
    def work(*, progress_bar=True):
        Progress.innermost().begin("deeper" if progress_bar else "not shown")
        time.sleep(0.15)

    with Progress("outside", True, name="kaem"):
        work()
        time.sleep(0.2)
        assert Progress.innermost().describe().startswith("outside")
    work(progress_bar=False)
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith("kaem: deeper; ")
    assert all(line.startswith("kaem: outside; ") for line in lines[1:])


def test_an_error_ends_it(capfd, quick):
    def fail():
        raise ValueError

    with pytest.raises(ValueError), Progress("compiling", True):
        fail()
    time.sleep(0.3)
    assert capfd.readouterr().err == ""


# The second one is a terminal that does not know its size, as a batch system may give.
@pytest.mark.parametrize("size", [(24, 100), (0, 0)])
def test_a_bar_on_a_terminal_says_what_is_compiled_and_moves(size):
    script = "import time\nfrom kaem_ppl.progress import Progress\nwith Progress('compiling', True) as progress:\n"
    script += "    time.sleep(1.2)\n    progress.begin('drawing', total=10)\n"
    script += "    progress.update(4, acceptance=0.5)\n    time.sleep(0.3)\n    progress.update(9, acceptance=0.75)\n"
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", script], stderr=theirs)
    os.close(theirs)
    output = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break
        if not part:
            break
        output += part
    os.close(ours)
    assert process.wait() == 0
    text = output.decode()
    assert "compiling [00:0" in text
    assert "drawing" in text
    assert "9/10" in text
    assert "acceptance 0.75" in text
