import io
import sys
from types import SimpleNamespace

import IPython.display
import pytest

from hrebasin import progress
from hrebasin.progress import track


@pytest.fixture
def lines(monkeypatch, capsys):
    """Reads the progress reports that go to a log, which do not wait."""
    monkeypatch.setenv(progress.VARIABLE, "lines")
    monkeypatch.setattr(progress, "SECONDS", 0)
    monkeypatch.setattr(progress, "SHARE", 0)
    return lambda: capsys.readouterr().err


def in_a_kernel(monkeypatch, *, answers: bool):
    """As in a kernel whose user can answer, or in one that papermill runs; returns what a cell shows."""
    shown = []
    handle = SimpleNamespace(update=lambda data, raw: shown.append(data["text/plain"]))
    monkeypatch.delenv(progress.VARIABLE, raising=False)
    monkeypatch.setattr(progress, "_kernel", lambda: SimpleNamespace(_allow_stdin=answers))
    monkeypatch.setattr(IPython.display, "display", lambda *data, **options: handle)
    return shown


def test_a_log_holds_whole_lines_that_name_what_runs_and_how_far_if_it_takes_long(lines, monkeypatch):
    with track(label="MergeMany", total=4, unit="sweep") as bar:
        for _ in range(4):
            bar.update()
    text = lines()
    assert "\r" not in text
    reports = text.splitlines()
    assert all(report.startswith("MergeMany: ") and report.isascii() for report in reports)
    assert "4/4" in reports[-1]
    assert "sweep" in reports[-1]
    assert len(set(reports)) == len(reports), "the last one is written once"
    monkeypatch.setattr(progress, "SECONDS", 60)
    assert sum(track(range(100), label="quick")) == 4950
    assert lines() == ""


@pytest.mark.parametrize(("seconds", "most"), [(60, 20), (3600, 40), (20_000, 100)])
def test_hours_leave_tens_of_lines_and_never_a_long_silence(monkeypatch, capsys, seconds, most):
    now, silences, last = 1e9, [], 0
    monkeypatch.setattr("tqdm.std.time", lambda: now)
    monkeypatch.setenv(progress.VARIABLE, "lines")
    with track(label="training", total=seconds) as bar:
        for second in range(1, seconds + 1):
            now += 1
            bar.update()
            if capsys.readouterr().err:
                silences.append(second - last)
                last = second
    assert capsys.readouterr().err.startswith("training: 100%")
    assert 5 < len(silences) <= most
    assert max(silences) <= progress.MOST_SECONDS


def test_a_notebook_that_a_person_runs_shows_a_bar_and_keeps_nothing_of_it(monkeypatch, capsys):
    shown = in_a_kernel(monkeypatch, answers=True)
    with track(label="training", total=3) as bar:
        bar.update(3)
        bar.refresh()
    assert shown[0].startswith("training:   0%")
    assert ("3/3" in shown[-2], shown[-1]) == (True, "")
    assert capsys.readouterr() == ("", "")


def test_a_notebook_that_papermill_runs_writes_lines_and_elsewhere_it_is_silent(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS", 0)
    with monkeypatch.context() as patch:
        shown = in_a_kernel(patch, answers=False)
        assert list(track(range(2), label="training")) == [0, 1]
    assert "training: 100%" in capsys.readouterr().err
    assert shown == []
    monkeypatch.delenv(progress.VARIABLE, raising=False)
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    assert list(track(range(3), label="training")) == [0, 1, 2]
    assert stream.getvalue() == ""
