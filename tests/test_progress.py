import pytest

from hrebasin import progress
from hrebasin.progress import track


@pytest.fixture
def lines(monkeypatch, capsys):
    """Reads the progress reports that go to a log, which do not wait."""
    monkeypatch.setenv(progress.VARIABLE, "lines")
    monkeypatch.setattr(progress, "SECONDS", 0)
    return lambda: capsys.readouterr().err


def test_items_pass_through_in_order():
    assert list(track(iter("abc"), label="letters", total=3)) == ["a", "b", "c"]


def test_a_log_holds_whole_lines_that_name_what_runs_and_how_far(lines):
    with track(label="MergeMany", total=4, unit="sweep") as bar:
        for _ in range(4):
            bar.update()
    text = lines()
    assert "\r" not in text
    reports = text.splitlines()
    assert all(report.startswith("MergeMany: ") and report.isascii() for report in reports)
    assert "4/4" in reports[-1]
    assert "sweep" in reports[-1]


def test_a_log_stays_empty_while_nothing_takes_long(lines, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS", 60)
    assert sum(track(range(100), label="quick")) == 4950
    assert lines() == ""


def test_an_error_inside_passes_through(lines):
    with pytest.raises(ZeroDivisionError), track(label="x", total=1) as bar:
        bar.update(1 / 0)
