"""What is told of one ledger, and of several settings together, with planted effects."""

import re

import pytest

import synthetic
from hrebasin.study.claims.ledger import CLAIMS, ledger
from hrebasin.study.publishing import ledger_text
from hrebasin.study.publishing.first_screen import SAYINGS, sentences
from hrebasin.study.statistics import rounded

STAGES = ("merge", "attack", "regularity", "ablations")


@pytest.fixture(scope="module")
def claims():
    """Of eight trees with C1 reversed, and no merge of MergeMany but those of the first sets."""
    made = synthetic.results(groups=8, C1=-1, stages=STAGES)
    first = (made["merge"].method != "merge-many") | (made["merge"].node == 0)
    return ledger(made | {"merge": made["merge"].isel(model=first.values)})


def test_the_answer_names_the_settings_where_they_differ(claims):
    ahead = claims.sel(part="C1a")  # MergeMany is: sizes have no sign, intervals are in order
    many = rounded(*(-ahead[name].item() for name in ("effect", "high", "low")))
    alone = [sentence for sentence, _ in sentences({"one": claims})]
    assert any(re.search(r"tree .* less accurate .*by {} points \({} to {}\)\.".format(*many), text) for text in alone)
    other = claims.copy(deep=True)
    for part, verdict in (("C4a", "not resolved"), ("C7a", "contradicted"), ("C1a", "reproduced")):
        other.verdict[claims.part.values.tolist().index(part)] = verdict
    said = dict(zip(SAYINGS, sentences({"one": claims, "two": other}), strict=True))
    corrected = r"costs .* in `one`\. In `two` the difference, .*, is not significant once corrected for the number"
    assert re.search(corrected, said["C4a"][0]), "the interval does not hold zero"
    other.low[claims.part.values.tolist().index("C4a")] = -1.0
    assert "corrected" not in sentences({"one": claims, "two": other})[0][0]
    assert said["C7a"][0] == "Weight norms fall at every stage in `one`, and do not fall at every stage in `two`."
    assert said["C8a"][0] == "Lipschitz bounds fall at every stage."
    _, low, high = rounded(*(claims.sel(part="C5b fgsm")[name].item() for name in ("effect", "low", "high")))
    assert said["C5b fgsm"][0].count(f"({low} to {high}) in `") == 2


def test_verdicts_are_counted_and_one_tree_has_none(claims):
    tally = ledger_text.tally(claims)
    assert sorted(name for names in tally.values() for name in names) == sorted(CLAIMS)
    assert (tally["contradicted"], tally["not measured"]) == (["C1"], ["C3"])
    few = synthetic.results(groups=1, leaves=4, stages=STAGES)
    assert sentences({"one": ledger(few)}) == []
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
