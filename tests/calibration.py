"""How often the ledger errs, covers and finds, on made-up results with known answers.

python tests/calibration.py 1000 figures/calibration.md   # experiments; 20 minutes on 2 cores
"""

import argparse
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch
import xarray as xr
from scipy import optimize, stats

import synthetic
from hrebasin.files import write_atomically
from hrebasin.study.claims.ledger import CLAIMS, ledger
from hrebasin.study.claims.verdicts import ALPHA
from hrebasin.study.records import checksums as manifest
from hrebasin.study.stages import STAGES

PLANNED = {8: 1, 100: 5}  # groups of the settings `cpu` and `paper` -> by what experiments, costlier there, are divided
# Nothing to find, but for C4: accuracy falls, so that MergeMany of 8 lies half-way to chance and C2 has its null
NULL = dict.fromkeys(CLAIMS, 0.0) | {"C4": 1.0}
FLAT = NULL | {"C4": 0.0}  # the null of C4
PLANTED = dict.fromkeys(CLAIMS, 1.0)
TRUTH = {"C4": 4 * 100 * synthetic.FALL, "C6": 0.5}  # effects under NULL; 0 elsewhere


def experiment(seed: int, *, groups: int, effects: dict, stages: tuple = STAGES) -> xr.Dataset:
    """The ledger of one made-up study: p, verdict, effect and interval by claim.

    Added is ``wrong`` (claim,): whether the claim alone, without Holm's correction, would get a verdict. C9 claims that
    nothing differs, so where nothing does only "contradicted" is wrong.
    """
    torch.set_num_threads(1)
    found = ledger(synthetic.results(groups=groups, seed=seed, stages=stages, **effects))
    equality = found.test_p.values[(found.test_claim.values == "C9") & (found.test_decides.values == 1)].min()
    right = (found.claim == "C9") & (equality <= ALPHA)
    return found[["p", "verdict", "effect", "low", "high"]].assign(wrong=(found.p <= ALPHA) & ~right)


def experiments(seeds: Iterable[int], *, at_once: int | None = None, **settings) -> xr.Dataset:
    """Studies with other draws along ``seed``, ``at_once`` of them side by side; settings as of `experiment`."""
    one = partial(experiment, **settings)
    if at_once == 1:
        found = list(map(one, seeds))
    else:
        with ProcessPoolExecutor(at_once) as pool:
            found = list(pool.map(one, seeds, chunksize=5))
    return xr.concat(found, dim="seed", coords="minimal", compat="override")


def error_rates(null: xr.Dataset) -> xr.DataArray:
    """Share of studies in which a claim, tested alone, would get a wrong verdict, (claim,)."""
    return null.wrong.mean("seed")


def family_error(null: xr.Dataset) -> float:
    """Share of studies with a wrong verdict on any claim, after Holm's correction; C4 holds there."""
    others = null.sel(claim=[claim for claim in CLAIMS if claim not in ("C4", "C9")]).verdict
    wrong = others.isin(["reproduced", "contradicted"]).any("claim") | (null.verdict.sel(claim="C9") == "contradicted")
    return wrong.mean().item()


def coverage(null: xr.Dataset) -> xr.DataArray:
    """Share of studies whose interval of a claim's effect holds the truth, (claim,)."""
    truth = xr.DataArray([TRUTH.get(claim, 0.0) for claim in CLAIMS], dims="claim")
    return ((null.low <= truth + 1e-9) & (truth - 1e-9 <= null.high)).mean("seed")


def power(planted: xr.Dataset) -> xr.DataArray:
    """Share of studies in which a planted claim is reproduced after Holm's correction, (claim,)."""
    return (planted.verdict == "reproduced").mean("seed")


def smallest_difference(groups: int, alpha: float, *, wanted: float = 0.8) -> float:
    """Difference, in standard deviations over groups, that a two-sided t-test finds with probability ``wanted``."""
    limit = stats.t.ppf(1 - alpha / 2, groups - 1)
    return optimize.brentq(lambda d: stats.nct.sf(limit, groups - 1, d * groups**0.5) - wanted, 0.01, 20)


def table(n: int, planned: Mapping[int, int] = PLANNED) -> str:
    """The README's table, from ``n`` experiments without effects and a fifth as many with all of them."""
    columns, family, differences, names = [], [], [], []
    for size, divisor in planned.items():
        made, found = n // divisor, n // divisor // 5
        null = experiments(range(made), groups=size, effects=NULL)
        flat = experiments(range(made), groups=size, effects=FLAT, stages=("merge", "ablations"))
        errors = error_rates(null)
        errors.loc["C4"] = error_rates(flat).sel(claim="C4")
        columns += [errors, coverage(null), power(experiments(range(found), groups=size, effects=PLANTED))]
        family.append(f"{family_error(null):.1%}")
        differences.append([smallest_difference(size, alpha) for alpha in (ALPHA, ALPHA / len(CLAIMS))])
        names += [f"n = {size}, of {made}: errs alone", "interval holds", f"n = {size}, of {found}: planted is found"]
    lines = [f"| claim | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for claim in CLAIMS:
        lines.append(f"| {claim} | " + " | ".join(f"{column.sel(claim=claim).item():.1%}" for column in columns) + " |")
    lines.append("| any, after Holm | " + " | ".join(f"{share} | | " for share in family).rstrip() + "|")
    found = ", ".join(
        f"{best:.2f} to {worst:.2f} standard deviations over groups at n = {size}"
        for size, (best, worst) in zip(planned, differences, strict=True)
    )
    return "\n".join(lines) + f"\n\nSmallest paired difference that is found four times in five: {found}.\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("n", type=int, help="experiments without effects at the smaller number of groups")
    parser.add_argument("path", type=Path, help="Markdown file to write")
    given = parser.parse_args()
    write_atomically(given.path, table(given.n))
    manifest.enter([given.path])
    print(given.path.read_text())
