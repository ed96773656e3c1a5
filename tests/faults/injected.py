"""Runs that `strace` stops for good at one of their calls to the system, or one of whose calls it lets fail.

The whole tiny setting is taken part by part, each from a copy of what the parts before it have left. Of a part every
call of a kind is a point: the whole run is killed there, the same command is given again, and what it leaves is
compared with what an undisturbed run of the part has left.
"""

import errno
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from sandbox import Sandbox, stopped_at_last

from hrebasin.files import read_text
from hrebasin.study.records import checksums as manifest

# One after the other: the last one also copies results to data/published
PARTS = ("train", "merge", "attack", "measure", "publish")
OTHERS = ("fsync", "unlink", "mkdir")
PART = 1000  # between the numbers of the points of two parts
WRITES = (3, 30, 300, 1000)  # which write of a thread
# What fails, with which error, and which of its calls each thread makes; the first rename of a run is Snakemake's
FAILING = (
    ("rename", "ENOSPC", 2), ("fsync", "EIO", 1), ("fsync", "ENOSPC", 2), ("rename", "EIO", 3), ("fsync", "EIO", 4),
    ("write", "ENOSPC", 30), ("write", "EIO", 300),
)  # fmt: skip
LOOK = 0.01  # seconds between two looks at what strace has written
HELD = 0.15  # seconds that a call lasts longer than it would, so that a kill comes before what follows it


def available() -> bool:
    """Whether strace is here and may trace."""
    with suppress(OSError):
        trial = ["strace", "-qq", "-o", os.devnull, "true"]
        return subprocess.run(trial, capture_output=True, check=False).returncode == 0
    return False


class Traced:
    """A part of a run, from a copy of what was there before it.

    Args:
        folder: where it runs.
        before: a folder with what the parts before have left; none for the first.
        values: of the run.
    """

    def __init__(self, folder: Path, before: Path | None, *values: str, notebooks: Path | None = None):
        self.folder, self.trace = folder, folder.with_suffix(".trace")
        if before:
            shutil.copytree(before, folder, symlinks=True)
        self.sandbox = Sandbox(folder, *values, notebooks=notebooks)

    def _strace(self, call: str, what: str) -> None:
        self.trace.unlink(missing_ok=True)
        given = ["-f", "-qq", "-y", "-o", str(self.trace), "-e", f"trace={call}", "-e", f"inject={call}:{what}"]
        self.sandbox.before = ["strace", *given, "--seccomp-bpf"]  # faster, and loses signals, not errors

    def stop(self, call: str, number: int = 1, *, when: int | None = None) -> str | None:
        """Kill the run right after the ``number``-th call of a kind in any of its processes; which, None if none was.

        Each is held meanwhile; with ``when``, only the ``when``-th of each thread is, and counts.
        """
        self._strace(call, f"delay_exit={HELD:.6f}s" + (f":when={when}" if when else ""))
        with stopped_at_last(self.sandbox.start()) as process:
            while process.poll() is None:
                held = [line for line in self._traced() if "(DELAYED)" in line and self._told(call, line)]
                if len(held) >= number:
                    last = held[number - 1]
                    with suppress(ProcessLookupError):  # which is stopped, or in a session of its own
                        os.kill(int(last.split()[0]), signal.SIGKILL)
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    self.sandbox.before = []
                    self.sandbox.wait_for_end()
                    return f"{call} number {when} of a thread" if when else self._told(call, last)
                time.sleep(LOOK)
        return None

    def fail(self, call: str, when: int, error: str) -> int:
        """Let the ``when``-th call of a kind fail in every thread that makes so many; the run's exit code."""
        self._strace(call, f"error={error}:when={when}")
        code = self.sandbox.finish()
        self.sandbox.before = []
        return code

    def count(self, *calls: str) -> dict[str, int]:
        """Run undisturbed; how many calls of each kind that takes."""
        if code := self.fail(",".join(calls), 65535, "EIO"):  # which never comes
            raise SystemExit(f"{self.sandbox.values} ended with exit code {code}:\n{read_text(self.sandbox.log)}")
        lines = self._traced()
        return {call: sum(bool(self._told(call, line)) for line in lines) for call in calls}

    def _traced(self) -> list[str]:
        return read_text(self.trace).splitlines() if self.trace.exists() else []

    def _told(self, call: str, line: str) -> str:
        """A call in words; "" where it is another one, or meets nothing in the folder."""
        # of what is written, the text is no name, and a pipe is in no folder
        names = re.findall(r"\(\d+<(/[^<>]+)>", line)[:1] if call == "write" else re.findall(r'["<]([^"<>]+)[">]', line)
        where = os.path.relpath(os.path.join(self.folder, names[-1]), self.folder) if names else ""
        return f"{call} {where}" if f" {call}(" in line and where and not where.startswith("..") else ""


def spread(n: int, most: int) -> list[int]:
    """At most ``most`` of the numbers 1 to ``n``, evenly."""
    most = min(n, most)
    return [1 + k * n // most for k in range(most)]


def series(report, folder: Path, *values: str, most: int) -> None:
    """Stop every part after each of its renames, and after some of its other calls, and let some fail.

    Args:
        report: of what comes of every fault, see `run.Report`; those that it knows are left out.
        folder: for the runs; its path must be short.
        values: of the runs.
        most: points of a part, for each call but renames; all of `FAILING` are tried.
    """
    before = None
    for position, name in enumerate(PARTS):
        given = ("--part", name, *values)
        whole = Traced(folder / f"whole-{name}", before, *given)
        counts = whole.count("rename", *OTHERS, "write")
        contents, start = whole.sandbox.contents(), before
        print(f"{name}: {', '.join(f'{n} x {call}' for call, n in counts.items())}", flush=True)
        points = [("killed right after a rename", "stop", "rename", n + 1) for n in range(counts["rename"])]
        points += [
            (f"killed after one of the calls {call}", "stop", call, n)
            for call in OTHERS
            for n in spread(counts[call], most)
        ]
        points += [("killed at one of the writes of a thread", "kill", "write", when) for when in WRITES[:most]]
        points += [(f"a {call} fails with {error}", error, call, when) for call, error, when in FAILING]
        for kind, how, call, which in points:
            if (kind, place := PART * position + which) in report:
                continue
            trial = Traced(folder / "trial", start, *given)
            if done := _act(trial, how, call, which):
                what, wrong = done
                wrong += trial.sandbox.repeat(contents)
                sums = trial.folder.glob("data/**/SHA256SUMS")
                wrong += [text for listed in sums for text in manifest.compare(listed.parent)[1]]
                report.note(kind, place, f"{name}: {what}", wrong, of=counts[call])
            shutil.rmtree(trial.folder)
        before = whole.folder


def _act(trial: Traced, how: str, call: str, which: int) -> tuple[str, list[str]] | None:
    """Do it; what was done, and what is wrong with how the run ended; None where there was no such call."""
    if how in ("stop", "kill"):
        what = trial.stop(call, which) if how == "stop" else trial.stop(call, when=which)
        return what and (what, [f"process left: {process}" for process in trial.sandbox.processes()])
    code, log = trial.fail(call, which, how), read_text(trial.sandbox.log)
    if "(INJECTED)" not in read_text(trial.trace):
        return None
    reason = os.strerror(getattr(errno, how))
    wrong = [] if code == 0 or reason in log else [f"exit code {code} without {reason!r}: {log[-1000:]}"]
    return f"{call} number {which} of every thread gives {how}, exit code {code}", wrong
