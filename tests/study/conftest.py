import pytest

from hrebasin.files import project_root
from hrebasin.study import records
from hrebasin.study.figures import registry as figures
from hrebasin.study.publishing.page import Setting
from hrebasin.study.publishing.places import places


@pytest.fixture(scope="session")
def settings():
    """What the page is told of every published setting, the main one first, drawn again."""
    found = []
    for place in places(project_root()):
        results = records.read_results(place.data)
        names = [name for name in figures.drawable(results) if place.names is None or name in place.names]
        drawn = {name: figures.draw(name, results) for name in names}
        claims, asked = records.read(place.data / "ledger.nc", stage="ledger"), None
        if (place.data / "answers.nc").is_file():
            asked = records.read(place.data / "answers.nc", stage="answers")
        found.append(Setting(results, claims, drawn, place.setting, asked))
    return found
