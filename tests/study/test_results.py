"""The published results, drawn again; `test_verify` checks where they come from."""

import re
import shutil

import numpy as np
from PIL import Image

from hrebasin.files import project_root
from hrebasin.study import records
from hrebasin.study.benchmarks.plots import lines_table, speed_table
from hrebasin.study.figures import registry as figures
from hrebasin.study.publishing import page
from hrebasin.study.publishing.places import benchmarks_file, pages_folder

ROOT = project_root()
DRAWN = ("fig1_accuracy", "fig9_controls")  # whose pixels are compared; of the others what they say


def test_no_attribute_holds_a_path_of_some_machine(settings):
    for setting in settings.values():
        for dataset in (*setting.results.values(), setting.ledger):
            for value in (
                value for holder in (dataset, *dataset.variables.values()) for value in holder.attrs.values()
            ):
                assert not re.search(r"(^|[\s\"'])(/|~|[A-Za-z]:\\)\w", str(value)), value


def test_tables_figures_and_page_are_those_of_the_published_data(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(page.notebook_pages, "write", lambda *_: None)  # test_page compares those
    benchmarks = records.read(benchmarks_file(ROOT), stage="benchmarks")
    first, main = next(iter(settings.items()))
    kept = ROOT / "figures"
    tables = {"bench1_table": speed_table(benchmarks), "bench2_table": lines_table(benchmarks)}
    tables |= {name: table.markdown() for name, table in figures.tabulate_all(main.results).items()}
    tables |= {"ledger": page.ledger_table(main.ledger)}
    for name, text in tables.items():
        assert (kept / f"{name}.md").read_text() == text, "run: make figures"
    for name in main.drawn:
        assert (kept / f"{name}.md").read_text() == figures.caption(name, main.results) + "\n"
    folder = tmp_path / "figures"
    figures.draw_all(main.results, folder, DRAWN)
    for name in DRAWN:
        old, new = (np.asarray(Image.open(place / f"{name}.png").convert("RGB"), float) for place in (kept, folder))
        assert old.shape == new.shape, name
        assert abs(old - new).mean() < 0.5, f"{name}: another processor may round a coordinate to the next pixel"
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")  # what the page links to
    for setting in settings:
        if (pages := pages_folder(ROOT, setting)).is_dir():
            shutil.copytree(pages, pages_folder(tmp_path, setting))
    nearby = {"data": f"../data/published/{first}", "notebooks": "../notebooks", "files": "."}
    page.write_page(folder / "index.html", settings, **nearby, benchmarks=benchmarks)
    assert (kept / "index.html").read_text() == (folder / "index.html").read_text(), "run: make figures"


def test_benchmarks_were_made_by_committed_code_with_every_row():
    benchmarks = records.read(benchmarks_file(ROOT), stage="benchmarks")
    assert benchmarks.attrs["code_changed"] == 0
    assert {"matching", "merge-many", "tree", "fgsm", "deepfool", "lipschitz"} <= set(benchmarks.row.values)
    assert benchmarks.sizes["repeat"] >= 3
    assert (benchmarks.ratio > 1).all()
    assert ((benchmarks.ratio_low <= benchmarks.ratio) & (benchmarks.ratio <= benchmarks.ratio_high)).all()
