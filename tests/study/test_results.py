"""The published results: their provenance, the ledger, the figures and what the README says of them."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from hrebasin.files import project_root
from hrebasin.study import records
from hrebasin.study.benchmarks.plots import lines_table, speed_table
from hrebasin.study.claims.ledger import CLAIMS
from hrebasin.study.figures import registry as figures
from hrebasin.study.publishing import page
from hrebasin.study.publishing.places import benchmarks_file, pages_folder, places
from hrebasin.study.records.origins import SHARD_PARAMETERS
from hrebasin.study.stages import STAGES

ROOT = project_root()
MAIN = places(ROOT)[0]


@pytest.fixture(scope="module")
def results():
    return records.read_results(MAIN.data)


@pytest.fixture(scope="module")
def published_ledger():
    return records.read(MAIN.data / "ledger.nc", stage="ledger")


def test_every_stage_tells_where_it_comes_from(results, published_ledger):
    for stage, dataset in {**results, "ledger": published_ledger}.items():
        assert re.fullmatch("[0-9a-f]{40}(; [0-9a-f]{40})*", dataset.attrs["code_commit"]), stage
        digests = json.loads(dataset.attrs["data_digest"])
        assert set(digests) <= {"train", "test"}
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests.values()), stage
        assert digests.items() <= json.loads(results["train"].attrs["data_digest"]).items(), stage
        assert dataset.attrs["code_changed"] == 0, f"{stage} was made by code that is in no commit"
        assert {"python", "torch", "foolbox"} <= set(json.loads(dataset.attrs["versions"]))
        for name in ("setting", "parameters", "data_source", "device", "created"):
            assert dataset.attrs[name], f"{stage}: {name}"


def test_no_attribute_holds_a_path_of_some_machine(results, published_ledger):
    for dataset in (*results.values(), published_ledger):
        for holder in (dataset, *dataset.variables.values()):
            for value in holder.attrs.values():
                assert not re.search(r"(^|[\s\"'])(/|~|[A-Za-z]:\\)\w", str(value)), value


def test_all_stages_come_from_one_run(results):
    assert len({dataset.attrs["setting"] for dataset in results.values()}) == 1
    # stages may come from different commits: what a notebook's code left as it was is not computed again
    parameters = [json.loads(dataset.attrs["parameters"]) for dataset in results.values()]
    for name in set.intersection(*map(set, parameters)) - set(SHARD_PARAMETERS):
        assert len({json.dumps(values[name]) for values in parameters}) == 1, name
    groups = {stage: set(dataset["group"].values.tolist()) for stage, dataset in results.items()}
    assert all(groups[stage] == groups["train"] for stage in STAGES)
    groups.pop("recipes", None)  # which trains networks of its own
    assert all(found <= groups["train"] for found in groups.values()), "beside the stages, fewer groups may do"


@pytest.fixture(scope="module")
def drawn(results, tmp_path_factory):
    """Folder of a page beside links to what it links to, and the figures drawn there."""
    root = tmp_path_factory.mktemp("drawn")
    (root / "notebooks").symlink_to(ROOT / "notebooks")
    for place in places(ROOT):
        if (pages := pages_folder(ROOT, place.setting)).is_dir():
            shutil.copytree(pages, pages_folder(root, place.setting))
    return root / "figures", figures.draw_all(results, root / "figures")


def test_tables_are_those_of_the_published_data(results):
    for name, table in figures.tabulate_all(results).items():
        assert (ROOT / "figures" / f"{name}.md").read_text() == table.markdown()


def test_the_published_table_is_that_of_the_ledger(published_ledger):
    table = page.ledger_table(published_ledger)
    assert all(f"| **{claim}** |" in table for claim in CLAIMS)
    assert table == (ROOT / "figures" / "ledger.md").read_text()


@pytest.fixture(scope="module")
def benchmarks():
    return records.read(benchmarks_file(ROOT), stage="benchmarks")


def test_published_tables_are_those_of_the_benchmarks(benchmarks):
    for table, name in ((speed_table, "bench1_table.md"), (lines_table, "bench2_table.md")):
        assert table(benchmarks) == (ROOT / "figures" / name).read_text()


def test_benchmarks_were_made_by_committed_code_with_every_row(benchmarks):
    assert benchmarks.attrs["code_changed"] == 0
    assert {"matching", "merge-many", "tree", "fgsm", "deepfool", "lipschitz"} <= set(benchmarks.row.values)
    assert benchmarks.sizes["repeat"] >= 3
    assert (benchmarks.ratio > 1).all()
    assert (benchmarks.ratio_low <= benchmarks.ratio).all()
    assert (benchmarks.ratio <= benchmarks.ratio_high).all()


def test_figures_and_page_are_those_of_the_published_data(results, published_ledger, benchmarks, drawn):
    folder, found = drawn
    for name in found:
        assert (ROOT / "figures" / f"{name}.md").read_text() == (folder / f"{name}.md").read_text()
        kept, again = (
            np.asarray(Image.open(place / f"{name}.png").convert("RGB"), dtype=float)
            for place in (ROOT / "figures", folder)
        )
        assert kept.shape == again.shape, name
        # another processor may round a coordinate to the next pixel
        assert abs(kept - again).mean() < 0.5, name
        assert (ROOT / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    nearby = {"data": f"../data/published/{MAIN.setting}", "notebooks": "../notebooks", "files": "."}
    asked = records.read(MAIN.data / "answers.nc", stage="answers")
    others = [page.redraw_setting(place._replace(figures=folder / place.setting)) for place in places(ROOT)[1:]]
    also = {"asked": asked, "benchmarks": benchmarks, "others": others}
    page.write_page(folder / "index.html", results, published_ledger, found, **nearby, **also)
    kept, again = ((place / "index.html").read_text() for place in (ROOT / "figures", folder))
    # another processor may round a coordinate of a drawing
    kept, again = (re.sub(r'src="data:[^"]*"', "", text) for text in (kept, again))
    assert kept == again, "run: make figures"
