"""What interruptions, damage, full disks and parallel jobs do to a run, with figures: `make faults`.

The tiny setting is stopped at random moments, spread evenly over a whole run, and repeated with the same command; its
results are damaged; its disk is too small; and it is run with several jobs at once, many times. In the end all results
are compared with those of an undisturbed run, bit for bit.
"""

import argparse
import hashlib
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import injected
import numpy as np
from sandbox import Sandbox, small_disk

from hrebasin.digests import code_digest
from hrebasin.files import project_root, read_text, write_atomically
from hrebasin.study import records
from hrebasin.study.notebook_code import notebook_code
from hrebasin.study.questions.wording import listed
from hrebasin.study.records import checksums as manifest
from hrebasin.study.records.provenance import describe_device
from hrebasin.study.stages import NOTEBOOKS, PAPER

VALUES = ("setting=tiny",)
# What writes files, ends with a run or goes on with one; faults that other such code has met do not count
MODULES = (
    "study.command", "study.records.data_sets", "study.records.networks", "study.running.cluster",
    "study.running.notebook_runner", "study.running.workflow", "training.train",
)  # fmt: skip
# Options of Snakemake's: every job has one thread, so that as many run at once as there are cores; one job at a time
ONE_THREAD = ("--", "--set-threads", *(f"{stage}=1" for stage in NOTEBOOKS))
ONE_BY_ONE = ("--resources", "one=1", "--default-resources", "one=1")
FAULTS = ("Traceback", "Address already in use", "unable to lock file", "Errno")  # in the output of a run
# Results that another stage reads; a truncated one must be named, a deleted one made again
DAMAGED = (
    "weights/unmerged-000.safetensors",
    "weights/merged-001.safetensors",
    "merge/shard-000.nc",
    "attack/shard-001.nc",
    "results/ledger.nc",
)
SIZES = ("1m", "3m", "5m", "8m", "40m")  # of a disk that grows whenever it was full


def moments(generator: np.random.Generator, n: int, duration: float) -> list[float]:
    """One random moment in each of ``n`` equal parts of a run."""
    return ((np.arange(n) + generator.random(n)) / max(n, 1) * duration).tolist()


def interrupted(whole: dict, folder: Path, moment: float, stop: signal.Signals) -> tuple:
    """Interrupt a run and repeat it; how, and what is wrong with it then."""
    while (stopped := Sandbox(folder, *VALUES).interrupt(moment, stop)) is None:  # faster than the undisturbed run
        shutil.rmtree(folder)
        moment *= 0.8
    wrong = [f"processes left: {stopped.processes}"] if stopped.processes else []
    wrong += ["exit code 0 when stopped"] if stopped.code == 0 else []
    wrong += Sandbox(folder, *VALUES).repeat(whole)
    return stopped, wrong + [f"written again: {path.name}" for path in stopped.repeated()]


def damaged(whole: dict, sandbox: Sandbox, name: str, *, delete: bool) -> list[str]:
    """Damage a result of a finished run and repeat it; what is wrong with it then."""
    path, wrong = sandbox.runs / "tiny" / name, []
    if not delete:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        if sandbox.finish() == 0:  # noticed and made again
            return sandbox.repeat(whole)
        if path.name not in (message := read_text(sandbox.log).splitlines()[-1]):
            wrong.append(f"not named: {message}")
    path.unlink(missing_ok=True)
    return wrong + sandbox.repeat(whole)


def on_small_disks(whole: dict, folder: Path) -> list[str] | None:
    """Run on a disk that is enlarged whenever it was full; what is wrong then, None where disks cannot be mounted."""
    wrong = []
    with small_disk(folder / "data" / "runs") as mount:
        if mount is None:
            return None
        sandbox = Sandbox(folder, *VALUES)
        for size in SIZES:
            mount(size)
            if sandbox.finish() == 0:
                break
            log = read_text(sandbox.log)
            wrong += [] if "No space left on device" in log else [f"{size}: {log[-2000:]}"]
            print(f"full disk of {size}: {log.splitlines()[-1]}", flush=True)
        return wrong + sandbox.repeat(whole)


class Report:
    """What came of every fault, kept as it comes, so that a series which was stopped goes on where it was.

    Args:
        path: of the record, a JSON object a line; those of other code (`fault_code`) stay until the same fault was met
            again.
    """

    def __init__(self, path: Path):
        self.path, self.faults = path, []
        self.by = {"code": fault_code(), "commit": records.Clock().commit[:12], "device": describe_device("cpu")}
        if path.exists():
            self.faults = [json.loads(line) for line in read_text(path).splitlines()]
            print(f"{len(self._own())} faults of this code are recorded in {path}", flush=True)

    def _own(self) -> list[dict]:
        return [fault for fault in self.faults if fault["code"] == self.by["code"]]

    def __contains__(self, fault: tuple[str, int]) -> bool:
        return fault in {(known["kind"], known["number"]) for known in self._own()}

    def note(self, kind: str, number: int, what: str, wrong: list[str], **measured: float) -> None:
        """Print what came of the ``number``-th fault of a kind, a row of the table, and keep it.

        ``measured``: of an interruption, files ``finished`` and ``repeated``, and ``seconds`` until all had ended; of a
        call of the system, ``of`` how many of the part it is one, which older records do not tell.
        """
        print(f"{what}: {'; '.join(wrong) or 'identical'}", flush=True)
        fault = {"kind": kind, "number": number, "what": what, "wrong": wrong, **measured, **self.by}
        self.faults = [known for known in self.faults if (known["kind"], known["number"]) != (kind, number)] + [fault]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, "".join(f"{json.dumps(fault)}\n" for fault in self.faults))

    def ok(self) -> bool:
        """Whether nothing was wrong."""
        return not any(fault["wrong"] for fault in self._own())


def table(faults: Sequence[dict]) -> str:
    """How many faults of each kind there were and how many were met without harm, as Markdown."""
    lines = ["| the tiny setting | tried | of points | the same results, nothing left behind |", "|---|---|---|---|"]
    for kind in dict.fromkeys(fault["kind"] for fault in faults):
        some = [fault for fault in faults if fault["kind"] == kind]
        points = sum({fault["number"] // injected.PART: fault["of"] for fault in some if "of" in fault}.values())
        lines.append(f"| {kind} | {len(some)} | {points or '–'} | {sum(not fault['wrong'] for fault in some)} |")
    if stopped := [fault for fault in faults if "seconds" in fault]:
        kept, again = (sum(fault[name] for fault in stopped) for name in ("finished", "repeated"))
        slowest = max(fault["seconds"] for fault in stopped)
        were = f"{again or 'none'} {'were' if again > 1 else 'was'} written again"
        lines += ["", f"Of the {kept} files that were finished when a run was stopped, {were}. "]
        lines[-1] += f"Its last process had ended {slowest:.1f} s after the signal at the latest."
    if tried := sorted({fault["number"] // injected.PART for fault in faults if "of" in fault}):
        parts = f"{len(tried)} of the {len(injected.PARTS)} parts of a run"
        lines += ["", f"Calls were stopped or failed in {parts}: {listed([injected.PARTS[k] for k in tried])}."]
    commits, devices = (", ".join(dict.fromkeys(f[name] for f in faults)) for name in ("commit", "device"))
    lines += ["", f"Code of commit {commits}; {devices}."]
    return "\n".join(lines) + "\n"


def fault_code() -> str:
    """SHA-256 of what decides how a run is stopped and goes on, but for comments and docstrings."""
    root = project_root()
    cells = [notebook_code(root / "notebooks" / f"{name}.ipynb") for name in (*NOTEBOOKS.values(), PAPER)]
    content = [code_digest(cell) for cell in cells] + [code_digest("", modules=MODULES)]
    content += [read_text(root / path) for path in ("Snakefile", "config/tiny.yaml")]
    return hashlib.sha256("\n".join(content).encode()).hexdigest()


def stop(report: Report, whole: dict, folder: Path, how: signal.Signals, at: Sequence[float]) -> None:
    """Interrupt a run at each of some moments."""
    kind = f"stopped at a random moment, {how.name}"
    for number, moment in enumerate(at):
        if (kind, number) in report:
            continue
        stopped, wrong = interrupted(whole, folder / "interrupted", moment, how)
        what = f"{stopped}, {len(stopped.finished)} files finished, last process gone after {stopped.seconds:.1f} s"
        measured = {"finished": len(stopped.finished), "repeated": len(stopped.repeated()), "seconds": stopped.seconds}
        report.note(kind, number, what, wrong, **measured)
        shutil.rmtree(folder / "interrupted")


def run_together(report: Report, folder: Path, n: int, cores: int) -> None:
    """Run again and again with several jobs at once, beside a run with as many threads a job and one job at a time."""
    kind = f"run with up to {cores} jobs at once"
    if not (numbers := [number for number in range(n) if (kind, number) not in report]):
        return
    one_by_one = Sandbox(folder / "one-by-one", *VALUES, *ONE_THREAD, *ONE_BY_ONE, cores=cores)
    if code := one_by_one.finish():
        raise SystemExit(f"jobs one by one ended with exit code {code}:\n{read_text(one_by_one.log)}")
    whole = one_by_one.contents()
    for number in numbers:
        sandbox = Sandbox(folder / "parallel", *VALUES, *ONE_THREAD, cores=cores)
        wrong = sandbox.repeat(whole)
        wrong += [line for line in read_text(sandbox.log).splitlines() if any(fault in line for fault in FAULTS)]
        report.note(kind, number, f"run {number + 1} with {cores} cores", wrong)
        shutil.rmtree(folder / "parallel")


def damage(report: Report, whole: dict, folder: Path, undisturbed: Sandbox) -> None:
    """Damage results, and run on full disks."""
    for how in ("truncated", "deleted"):
        kind = f"a finished result {how}"
        for number, name in enumerate(DAMAGED):
            if (kind, number) not in report:
                wrong = damaged(whole, undisturbed, name, delete=how == "deleted")
                report.note(kind, number, f"{name} {how}", wrong)
    kind = "on a disk that is full, and enlarged each time"
    if (kind, 0) not in report and (wrong := on_small_disks(whole, folder / "small")) is not None:
        report.note(kind, 0, "run on disks that were full", wrong)


def main() -> int:
    """The command line; 0 when nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="interruptions with SIGKILL")
    parser.add_argument("--interrupts", type=int, default=10, help="interruptions with SIGINT")
    parser.add_argument("--parallel", type=int, default=20, help="runs with --cores jobs at once")
    parser.add_argument("--cores", type=int, default=4)
    parser.add_argument("--points", type=int, default=4, help="of a part, for each call of the system but renames")
    parser.add_argument("--record", type=Path, help="file of what came of every fault, by which a series goes on")
    parser.add_argument("--table", type=Path, help="Markdown file for the numbers")
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would runs
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        report = Report(given.record or folder / "record.jsonl")
        if injected.available():
            injected.series(report, folder, *VALUES, "groups=1", most=given.points)
        undisturbed, start = Sandbox(folder / "undisturbed", *VALUES), time.perf_counter()
        if code := undisturbed.finish():
            print(f"the undisturbed run ended with exit code {code}:\n{read_text(undisturbed.log)}")
            return 1
        duration, whole = time.perf_counter() - start, undisturbed.contents()
        print(f"undisturbed: {duration:.0f} s, {len(whole)} data sets, banks and figures", flush=True)
        generator = np.random.default_rng(0)
        for how, n in ((signal.SIGKILL, given.kills), (signal.SIGINT, given.interrupts)):
            stop(report, whole, folder, how, moments(generator, n, duration))
        run_together(report, folder, given.parallel, given.cores)
        damage(report, whole, folder, undisturbed)
    print(table(report.faults))
    if given.table:
        write_atomically(given.table, table(report.faults))
        manifest.enter([given.table, *([given.record] if given.record else [])])
    return int(not report.ok())


if __name__ == "__main__":
    sys.exit(main())
