"""Runs that have finished, made up."""

import numpy as np

from hrebasin.study import records
from hrebasin.study.stages import STAGES

SOME = [*STAGES, "versions", "controls", "recipes"]  # all questions would take long, and show nothing else
ATTRS = {
    "setting": "test",
    "data_source": "synthetic images",
    "versions": '{"python": "3"}',
    "code_commit": "0" * 40,
    "wall_seconds": 1.0,
}


def write_results(results, folder, groups=None):
    """Data sets as a run writes them, of all groups or some."""
    for stage, dataset in results.items():
        if groups is not None:
            dim = next(iter(records.schema(stage).values()))[0]
            dataset = dataset.isel({dim: np.isin(dataset.group, groups)})
        records.write(dataset, folder / "results" / f"{stage}.nc", stage=stage)


def save_nothing(figure, stem, *, source):
    """Empty files of a figure, where nobody looks at them; test_figures writes and compares real ones."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    files = [stem.with_name(f"{stem.name}.{ending}") for ending in ("pdf", "png")]
    for file in files:
        file.touch()
    return files
