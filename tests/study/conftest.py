import pytest
from finished_runs import save_nothing

from hrebasin.files import project_root
from hrebasin.study import records
from hrebasin.study.figures import registry as figures
from hrebasin.study.publishing.page import Setting
from hrebasin.study.publishing.places import places


def drawn_again(place):
    """What the page is told of a published setting, its figures drawn again."""
    results = records.read_results(place.data)
    names = [name for name in figures.drawable(results) if place.names is None or name in place.names]
    drawn = {name: figures.draw(name, results) for name in names}
    claims, asked = records.read(place.data / "ledger.nc", stage="ledger"), None
    if (place.data / "answers.nc").is_file():
        asked = records.read(place.data / "answers.nc", stage="answers")
    return Setting(results, claims, drawn, place.setting, asked)


@pytest.fixture(scope="session")
def main_setting():
    """What the page is told of the main published setting."""
    return drawn_again(places(project_root())[0])


@pytest.fixture(scope="session")
def settings(main_setting):
    """What the page is told of every published setting, the main one first."""
    return [main_setting, *map(drawn_again, places(project_root())[1:])]


@pytest.fixture
def unsaved(monkeypatch):
    """No figure is saved."""
    monkeypatch.setattr(figures, "save", save_nothing)
