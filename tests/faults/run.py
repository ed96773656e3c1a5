"""What interruptions, damage, full disks and parallel jobs do to a run, with figures: `make faults`.

The tiny profile is stopped at random moments, spread evenly over a whole run, and repeated with the same command; its
results are damaged; its disk is too small; and it is run with several jobs at once, many times. In the end all results
are compared with those of an undisturbed run, bit for bit.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sandbox import Sandbox, small_disk

SETTINGS = ("profile=tiny",)
ONE_BY_ONE = ("--", "--resources", "one=1", "--default-resources", "one=1")  # Snakemake's: one job at a time
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


def compare(whole: dict, sandbox: Sandbox) -> list[str]:
    """What is wrong with a finished run."""
    contents = sandbox.contents()
    wrong = [f"differs: {name}" for name in sorted(whole | contents) if whole.get(name) != contents.get(name)]
    wrong += [f"left: {path.relative_to(sandbox.folder)}" for path in sandbox.leftovers()]
    return wrong + [f"process left: {process}" for process in sandbox.processes()]


def interrupted(whole: dict, folder: Path, moment: float, stop: signal.Signals) -> tuple:
    """Interrupt a run and repeat it; how, and what is wrong with it then."""
    while (stopped := Sandbox(folder, *SETTINGS).interrupt(moment, stop)) is None:  # faster than the undisturbed run
        shutil.rmtree(folder)
        moment *= 0.8
    sandbox = Sandbox(folder, *SETTINGS)
    code = sandbox.finish()
    wrong = [f"processes left: {stopped.processes}"] if stopped.processes else []
    wrong += ["exit code 0 when stopped"] if stopped.code == 0 else []
    wrong += [f"exit code {code}: {sandbox.log.read_text()[-2000:]}"] if code else []
    wrong += [f"written again: {path.name}" for path in stopped.repeated()]
    return stopped, wrong + compare(whole, sandbox)


def damaged(whole: dict, sandbox: Sandbox, name: str, *, delete: bool) -> list[str]:
    """Damage a result of a finished run and repeat it; what is wrong with it then."""
    path, wrong = sandbox.runs / "tiny" / name, []
    if not delete:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        if sandbox.finish() == 0:  # noticed and made again
            return compare(whole, sandbox)
        if path.name not in (message := sandbox.log.read_text().splitlines()[-1]):
            wrong.append(f"not named: {message}")
    path.unlink(missing_ok=True)
    code = sandbox.finish()
    return wrong + ([f"exit code {code}"] if code else []) + compare(whole, sandbox)


def on_small_disks(whole: dict, folder: Path) -> list[str] | None:
    """Run on a disk that is enlarged whenever it was full; what is wrong then, None where disks cannot be mounted."""
    wrong = []
    with small_disk(folder / "data" / "runs") as mount:
        if mount is None:
            return None
        for size in SIZES:
            mount(size)
            sandbox = Sandbox(folder, *SETTINGS)
            if sandbox.finish() == 0:
                break
            if "No space left on device" not in sandbox.log.read_text():
                wrong.append(f"{size}: {sandbox.log.read_text()[-2000:]}")
            print(f"full disk of {size}: {sandbox.log.read_text().splitlines()[-1]}", flush=True)
        return wrong + compare(whole, sandbox)


class Report:
    """Prints what came of every fault, and how many were met without harm."""

    def __init__(self):
        self.good: dict[str, list[bool]] = {}

    def note(self, kind: str, what: str, wrong: list[str]) -> None:
        self.good.setdefault(kind, []).append(not wrong)
        print(f"{what}: {'; '.join(wrong) or 'identical'}", flush=True)

    def __str__(self):
        return "\n".join(f"{kind}: {len(results)}, {sum(results)} identical" for kind, results in self.good.items())


def stop(report: Report, whole: dict, folder: Path, tries: list) -> None:
    """Interrupt a run at each of some moments."""
    kept, again, slowest = 0, 0, 0.0
    for moment, number in tries:
        stopped, wrong = interrupted(whole, folder / "interrupted", moment, number)
        kept, again = kept + len(stopped.finished), again + len(stopped.repeated())
        slowest = max(slowest, stopped.seconds)
        what = f"{stopped}, {len(stopped.finished)} files finished, last process gone after {stopped.seconds:.1f} s"
        report.note(f"interruptions with {number.name}", what, wrong)
        shutil.rmtree(folder / "interrupted")
    if tries:
        print(f"of {kept} finished files {again} were written again; processes were gone after {slowest:.1f} s at most")


def run_together(report: Report, folder: Path, numbers: Sequence[int], cores: int) -> None:
    """Run again and again with several jobs at once, beside a run with as many threads a job and one job at a time."""
    if not numbers:
        return
    one_by_one = Sandbox(folder / "one-by-one", *SETTINGS, *ONE_BY_ONE, cores=cores)
    if code := one_by_one.finish():
        raise SystemExit(f"jobs one by one ended with exit code {code}:\n{one_by_one.log.read_text()}")
    whole = one_by_one.contents()
    for number in numbers:
        sandbox = Sandbox(folder / "parallel", *SETTINGS, cores=cores)
        code = sandbox.finish()
        wrong = [f"exit code {code}"] if code else compare(whole, sandbox)
        wrong += [line for line in sandbox.log.read_text().splitlines() if any(fault in line for fault in FAULTS)]
        report.note(f"runs with {cores} cores", f"run {number + 1} with {cores} cores", wrong)
        shutil.rmtree(folder / "parallel")


def damage(report: Report, whole: dict, folder: Path, undisturbed: Sandbox) -> None:
    """Damage results, and run on full disks."""
    for name in DAMAGED:
        for delete in (False, True):
            wrong = damaged(whole, undisturbed, name, delete=delete)
            report.note("damaged results", f"{name} {'deleted' if delete else 'truncated'}", wrong)
    if (wrong := on_small_disks(whole, folder / "small")) is not None:
        report.note("runs on full disks", "run on disks that were full", wrong)


def main() -> int:
    """The command line; 0 when nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="interruptions with SIGKILL")
    parser.add_argument("--interrupts", type=int, default=10, help="interruptions with SIGINT")
    parser.add_argument("--parallel", type=int, default=20, help="runs with --cores jobs at once")
    parser.add_argument("--cores", type=int, default=4)
    parser.add_argument("--no-damage", action="store_true", help="neither damaged results nor full disks")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--portion", default="1/1", help="2/4: only the second of four portions of all")
    given = parser.parse_args()
    number, of = map(int, given.portion.split("/"))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would runs
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder, start, report = Path(name), time.perf_counter(), Report()
        undisturbed = Sandbox(folder / "undisturbed", *SETTINGS)
        if code := undisturbed.finish():
            print(f"the undisturbed run ended with exit code {code}:\n{undisturbed.log.read_text()}")
            return 1
        duration, whole = time.perf_counter() - start, undisturbed.contents()
        print(f"undisturbed: {duration:.0f} s, {len(whole)} data sets, banks and figures", flush=True)
        generator, tries = np.random.default_rng(given.seed), []
        for signum, n in ((signal.SIGKILL, given.kills), (signal.SIGINT, given.interrupts)):
            tries += [(moment, signum) for moment in moments(generator, n, duration)]
        stop(report, whole, folder, tries[number - 1 :: of])
        run_together(report, folder, range(given.parallel)[number - 1 :: of], given.cores)
        if number == of and not given.no_damage:
            damage(report, whole, folder, undisturbed)
    print(report)
    return int(not all(all(results) for results in report.good.values()))


if __name__ == "__main__":
    sys.exit(main())
