"""How often the ledger errs, covers and finds, on made-up results with known answers.

python tests/calibration.py 200 figures/calibration.md   # experiments; half an hour on one core
"""

import argparse
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from scipy import optimize, stats

import synthetic
from hrebasin.files import write_atomically
from hrebasin.study import resampling
from hrebasin.study.claims.ledger import CLAIMS, PARTS
from hrebasin.study.claims.verdicts import ALPHA, assemble
from hrebasin.study.records import checksums as manifest
from hrebasin.study.stages import ATTACKS
from hrebasin.study.statistics import holm

STAGES = ("merge", "attack", "regularity", "ablations")
DECIDED = {part.name: part for part in PARTS if part.name}
# groups of the published `augmented` and `plain`, and of `paper` -> by what experiments, costlier there, are divided
PLANNED = {3: 1, 8: 1, 100: 5}
IMAGES = 1000  # that every made-up tree is attacked on
RESAMPLES = 1999  # a tenth of the ledger's
NULL = dict.fromkeys(CLAIMS, 0.0) | {"C4": 1.0}  # nothing to find but a fall, so that C11 has a loss of 1 point
PLANTED = dict.fromkeys(CLAIMS, 1.0)
# Claims whose parts err the most where something is to be found: what is planted, and what of it is looked at
EDGES = {"C4": (NULL | {"C4": 0.0, "C11": 1.0}, ("merge", "ablations")), "C12": (PLANTED | {"C12": 0.0}, ("attack",))}
EQUAL = ("C5c", "C9")  # where nothing differs, they hold
UNKNOWN = ("C7b",)  # a ratio of steps that are nothing
PARTLY = ("C12",)  # at whose edge most comparisons have an effect
TRUTH = {"C3": 1.0, "C8a": 1.0, "C11": 1.0}  # effects where nothing is to be found; 0 elsewhere


def experiment(seed: int, *, groups: int, effects: dict, stages: tuple = STAGES, claims: tuple = tuple(CLAIMS)):
    """One made-up study: each part's verdict alone and after Holm's correction, and how its intervals fare.

    Returns:
        ``alone`` and ``verdict`` (part,), and ``held`` (part,): the share of its comparisons whose interval holds the
        effect of there being nothing to find.
    """
    torch.set_num_threads(1)
    resampling.RESAMPLES = RESAMPLES
    made = synthetic.results(groups=groups, seed=seed, stages=stages, **effects)
    if "attack" in made:
        alone = made["attack"].isel(model=(made["attack"].method != "merge-many").values, attack=slice(len(ATTACKS)))
        made["attack"] = synthetic.by_image(alone, IMAGES, seed)
    names = [name for name, part in DECIDED.items() if part.claim in claims]
    each = [assemble([DECIDED[name]], CLAIMS, made) for name in names]
    p, alone = (np.array([found[column].values[0] for found in each]) for column in ("p_holm", "verdict"))
    held = [_held(found, TRUTH.get(name.split()[0], 0.0)) for name, found in zip(names, each, strict=True)]
    columns = {"alone": alone, "verdict": np.where(holm(p) <= ALPHA, alone, "not resolved"), "held": np.array(held)}
    return xr.Dataset({name: ("part", values) for name, values in columns.items()}, coords={"part": names})


def _held(found: xr.Dataset, truth: float) -> float:
    return float(((found.low <= truth + 1e-9) & (truth - 1e-9 <= found.high)).mean())


def experiments(seeds: Iterable[int], *, at_once: int | None = None, **settings) -> xr.Dataset:
    """Studies with other draws along ``seed``, ``at_once`` of them side by side; settings as of `experiment`."""
    one = partial(experiment, **settings)
    if at_once == 1:
        found = list(map(one, seeds))
    else:
        with ProcessPoolExecutor(at_once) as pool:
            found = list(pool.map(one, seeds, chunksize=5))
    return xr.concat(found, dim="seed", coords="minimal", compat="override")


def with_edges(null: xr.Dataset, seeds: Iterable[int], **settings) -> xr.Dataset:
    """Studies without effects, with those of `EDGES` in place of its claims."""
    others = [experiments(seeds, effects=e, stages=s, claims=(c,), **settings) for c, (e, s) in EDGES.items()]
    return xr.concat([null.drop_sel(part=[n for o in others for n in o.part.values]), *others], dim="part")


def wrong(null: xr.Dataset, column: str) -> xr.DataArray:
    """Whether a part got a verdict that is wrong where nothing is to be found, (seed, part)."""
    equal = null.part.isin([name for name in DECIDED if name.split()[0] in EQUAL])
    found = null[column]
    return ((found == "contradicted") | ((found == "reproduced") & ~equal)) & ~null.part.isin(UNKNOWN)


def family_error(null: xr.Dataset) -> float:
    """Share of studies with a wrong verdict on any part, after Holm's correction; C4 holds there."""
    others = [name for name in null.part.values if not name.startswith("C4")]
    return wrong(null, "verdict").sel(part=others).any("part").mean().item()


def smallest_difference(groups: int, alpha: float) -> float:
    """Difference, in standard deviations over groups, that a two-sided t-test finds four times in five."""
    limit = stats.t.ppf(1 - alpha / 2, groups - 1)
    return optimize.brentq(lambda d: stats.nct.sf(limit, groups - 1, d * groups**0.5) - 0.8, 0.01, 20)


def table(n: int, planned: Mapping[int, int] = PLANNED, *, at_once: int | None = None) -> str:
    """The README's table, from ``n`` experiments without effects and a fifth as many with all of them."""
    columns, family, differences, names = [], [], [], []
    for size, divisor in planned.items():
        made, found = n // divisor, n // divisor // 5
        null = experiments(range(made), groups=size, effects=NULL, at_once=at_once)
        family.append(f"{family_error(null):.1%}")
        null = with_edges(null, range(made), groups=size, at_once=at_once)
        planted = experiments(range(found), groups=size, effects=PLANTED, at_once=at_once)
        columns += [wrong(null, "alone").mean("seed"), null.held.mean("seed")]
        columns.append((planted.verdict == "reproduced").mean("seed"))
        differences.append([smallest_difference(size, alpha) for alpha in (ALPHA, ALPHA / len(DECIDED))])
        names += [f"n = {size}, {made} studies: type I error", "coverage", f"n = {size}, {found} studies: power"]
    lines = [f"| part | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for part in DECIDED:
        skipped = (0, 1) if part in UNKNOWN else (1,) if part.split()[0] in PARTLY else ()
        told = ["–" if k % 3 in skipped else f"{column.sel(part=part).item():.1%}" for k, column in enumerate(columns)]
        lines.append(f"| {part} | {' | '.join(told)} |")
    lines.append("| family-wise, after Holm | " + " | ".join(f"{share} | | " for share in family).rstrip() + "|")
    found = ", ".join(
        f"{best:.2f} to {worst:.2f} standard deviations over groups at n = {size}"
        for size, (best, worst) in zip(planned, differences, strict=True)
    )
    return "\n".join(lines) + f"\n\nSmallest paired difference detected with 80 % power: {found}.\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("n", type=int, help="experiments without effects at the smaller number of groups")
    parser.add_argument("path", type=Path, help="Markdown file to write")
    parser.add_argument("--at-once", type=int, help="experiments side by side; by default one a core")
    given = parser.parse_args()
    write_atomically(given.path, table(given.n, at_once=given.at_once))
    manifest.enter([given.path])
    print(given.path.read_text())
