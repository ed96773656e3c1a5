from functools import partial

import pytest
from finished_runs import save_nothing

from hrebasin.files import project_root
from hrebasin.study.figures import registry as figures
from hrebasin.study.publishing.places import places, read_published
from lazily import Lazily


def drawn_again(place):
    """What the page is told of a published setting, its figures drawn again when they are looked at."""
    read = read_published(place.data)
    names = [name for name in figures.drawable(read.results) if place.names is None or name in place.names]
    return read._replace(drawn=Lazily({name: partial(figures.draw, name, read.results) for name in names}))


@pytest.fixture(scope="session")
def main_setting():
    """What the page is told of the main published setting."""
    return drawn_again(places(project_root())[0])


@pytest.fixture(scope="session")
def settings(main_setting):
    """What the page is told of every published setting by name, the main one first."""
    main, *others = places(project_root())
    return {main.setting: main_setting} | {place.setting: drawn_again(place) for place in others}


@pytest.fixture
def unsaved(monkeypatch):
    """No figure is saved."""
    monkeypatch.setattr(figures, "save", save_nothing)
