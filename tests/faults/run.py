"""What interruptions and parallel jobs do to a run, with figures: `make faults`.

The tiny profile is stopped at random moments, spread evenly over a whole run, and repeated with the same command; and it
is run with several jobs at once, many times. All results are compared with those of an undisturbed run, bit for bit.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sandbox import Interruption, Sandbox

SETTINGS = ("profile=tiny",)
FAULTS = ("Traceback", "Address already in use", "unable to lock file", "Errno")  # in the output of a run


def moments(generator: np.random.Generator, n: int, duration: float) -> list[float]:
    """One random moment in each of ``n`` equal parts of a run."""
    return ((np.arange(n) + generator.random(n)) / max(n, 1) * duration).tolist()


def interrupted(whole: dict, folder: Path, moment: float, stop: signal.Signals) -> tuple[Interruption, list[str]]:
    """Interrupt a run and repeat it; how, and what is wrong with it then."""
    sandbox = Sandbox(folder, *SETTINGS)
    while (stopped := sandbox.interrupt(moment, stop)) is None:  # it was faster than the undisturbed run
        moment *= 0.8
        shutil.rmtree(folder)
        sandbox = Sandbox(folder, *SETTINGS)
    code = sandbox.finish()
    wrong = [f"processes left: {stopped.processes}"] if stopped.processes else []
    wrong += ["exit code 0 when stopped"] if stopped.code == 0 else []
    wrong += [f"exit code {code}, see {sandbox.log}"] if code else []
    wrong += [f"written again: {path.name}" for path in stopped.repeated()]
    return stopped, wrong + compare(whole, sandbox)


def compare(whole: dict, sandbox: Sandbox) -> list[str]:
    """What is wrong with a finished run."""
    contents = sandbox.contents()
    wrong = [f"differs: {name}" for name in sorted(whole | contents) if whole.get(name) != contents.get(name)]
    wrong += [f"left: {path.relative_to(sandbox.folder)}" for path in sandbox.leftovers()]
    return wrong + [f"process left: {process}" for process in sandbox.processes()]


def main() -> int:
    """The command line; 0 when nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="interruptions with SIGKILL")
    parser.add_argument("--interrupts", type=int, default=10, help="interruptions with SIGINT")
    parser.add_argument("--parallel", type=int, default=20, help="runs with --cores jobs at once")
    parser.add_argument("--cores", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--portion", default="1/1", help="2/4: only the second of four portions, for lent machines")
    given = parser.parse_args()
    number, of = map(int, given.portion.split("/"))
    folder = Path(tempfile.mkdtemp(prefix="faults-"))

    start = time.perf_counter()
    undisturbed = Sandbox(folder / "undisturbed", *SETTINGS)
    if code := undisturbed.finish():
        print(f"the undisturbed run ended with exit code {code}, see {undisturbed.log}")
        return 1
    duration, whole = time.perf_counter() - start, undisturbed.contents()
    print(f"undisturbed: {duration:.0f} s, {len(whole)} data sets, banks and figures", flush=True)

    generator, tries = np.random.default_rng(given.seed), []
    for stop, n in ((signal.SIGKILL, given.kills), (signal.SIGINT, given.interrupts)):
        tries += [(moment, stop) for moment in moments(generator, n, duration)]
    kept, again, slowest, good = 0, 0, 0.0, {signal.SIGKILL: [], signal.SIGINT: []}
    for moment, stop in tries[number - 1 :: of]:
        stopped, wrong = interrupted(whole, folder / "interrupted", moment, stop)
        good[stop].append(not wrong)
        kept, again = kept + len(stopped.finished), again + len(stopped.repeated())
        slowest = max(slowest, stopped.seconds)
        print(f"{stopped}: {'; '.join(wrong) or 'identical'}; {len(stopped.finished)} files kept", flush=True)
        shutil.rmtree(folder / "interrupted")

    together = []
    for run in range(given.parallel)[number - 1 :: of]:
        sandbox = Sandbox(folder / "parallel", *SETTINGS, cores=given.cores)
        code = sandbox.finish()
        wrong = [f"exit code {code}"] if code else compare(whole, sandbox)
        wrong += [line for line in sandbox.log.read_text().splitlines() if any(fault in line for fault in FAULTS)]
        together.append(not wrong)
        print(f"run {run + 1} with {given.cores} cores: {'; '.join(wrong) or 'identical'}", flush=True)
        shutil.rmtree(folder / "parallel")

    for stop, results in good.items():
        print(f"{stop.name}: {len(results)} interruptions, {sum(results)} identical")
    print(
        f"files of finished notebooks: {kept}, {again} written again; last process gone after at most {slowest:.1f} s"
    )
    print(f"runs with {given.cores} cores: {len(together)}, {sum(together)} identical")
    shutil.rmtree(folder)
    return int(not all((*good[signal.SIGKILL], *good[signal.SIGINT], *together)))


if __name__ == "__main__":
    sys.exit(main())
