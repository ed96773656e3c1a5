"""What is told of one ledger, and of several settings together, with planted effects."""

import pytest

import synthetic
from hrebasin.study.claims.ledger import CLAIMS, ledger
from hrebasin.study.publishing import ledger_text
from hrebasin.study.publishing.first_screen import FINDINGS, findings
from hrebasin.study.publishing.places import Published
from hrebasin.study.statistics import rounded

STAGES = ("merge", "attack", "regularity", "ablations")


@pytest.fixture(scope="module")
def claims():
    """Of eight trees with C1 reversed, and no merge of MergeMany but those of the first sets."""
    made = synthetic.results(groups=8, C1=-1, stages=STAGES)
    first = (made["merge"].method != "merge-many") | (made["merge"].node == 0)
    return ledger(made | {"merge": made["merge"].isel(model=first.values)})


def test_a_finding_tells_verdict_and_size_under_each_setting(claims):
    other, places = claims.copy(deep=True), {name: place for place, name in enumerate(claims.part.values.tolist())}
    for part, verdict in (("C4a", "not resolved"), ("C10b gaussian", "not resolved"), ("C7a", "contradicted")):
        other.verdict[places[part]] = verdict
    other.p[places["C10b gaussian"]] = 0.06
    other.effect[places["C5c fgsm"]], other.low[places["C5c fgsm"]], other.high[places["C5c fgsm"]] = -3, -5, -1
    made = synthetic.results(groups=8, C1=-1, stages=STAGES)
    heads, rows = findings({"one": Published(claims, None, made), "two": Published(other, None, made)})
    assert heads == [f"`{name}`, n = 8 trees of 16" for name in ("one", "two")]
    found = {row.claim + row.text: row.cells for row in rows[1:]}
    assert len(found) == len(FINDINGS)
    told = {name: found[claims.claim.values[places[name]] + finding.text] for name, finding in FINDINGS.items()}
    for name in ("C1a", "C4a", "C11"):
        effect, low, high = rounded(*(claims.sel(part=name)[end].item() for end in ("effect", "low", "high")))
        assert told[name][0].number == f"{effect} ({low} to {high})"
    assert [cell.word for cell in told["C1a"]] == ["no", "no"]
    assert [cell.word for cell in told["C4a"]] == ["yes", "not resolved after correction"]
    assert told["C10b gaussian"][1].word == "not resolved"
    assert [(cell.word, cell.number) for cell in told["C7a"]] == [("yes", ""), ("no", "")]
    assert told["C5c fgsm"][1].number == "stage 4 leads 2 by 3.0 (1.0 to 5.0)"
    merge = made["merge"]
    ends = merge.method == "unmerged", (merge.method == "tree") & (merge.n_merged == 16)
    means = [100 * merge.test_accuracy.values[end.values].mean() for end in ends]
    assert rows[0].cells[0].number == f"{means[0]:.1f} and {means[1]:.1f}"


def test_verdicts_are_counted_and_one_tree_has_none(claims):
    tally = ledger_text.tally(claims)
    assert sorted(name for names in tally.values() for name in names) == sorted(CLAIMS)
    assert (tally["contradicted"], tally["not measured"]) == (["C1"], ["C3"])
    few = synthetic.results(groups=1, leaves=4, stages=STAGES)
    _, rows = findings({"one": Published(ledger(few), None, few)})
    assert {cell.word for row in rows[1:] for cell in row.cells} <= {"no verdict", "not measured"}
    text = ledger_text.counted(ledger(few), few)
    assert "reproduced" not in text
    assert "one tree of 4, which gives no interval" in text


def test_rows_have_interval_and_p_or_say_why_not(claims):
    lines = ledger_text.ledger_table(claims).splitlines()[2:]
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines}
    assert "tree minus converged MergeMany, 4 models: -2.8" in cells["C1a"][1]
    assert cells["C1a"][-1] == "contradicted"
    missing = "MergeMany merged 8 of the 32 disjoint sets of 4"
    assert cells["C3 4"][1:] == [missing, "–", "–", "–", "not measured"]
    assert all(float(cell[3].split()[0]) <= 1 for name, cell in cells.items() if "*" not in name and cell[3] != "–")
