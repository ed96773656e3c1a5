import pytest

import synthetic
from hrebasin.study.claims.ledger import CLAIMS, ledger
from hrebasin.study.publishing import ledger_text as verdicts


@pytest.fixture(scope="module")
def results():
    """Eight trees with C3 left open and C5 reversed."""
    return synthetic.results(groups=8, C3=0, C5=-1)


@pytest.fixture(scope="module")
def claims(results):
    return ledger(results)


def test_the_answer_names_every_claim_once_and_what_was_measured(claims, results):
    text = verdicts.answer(claims, results)
    assert text.startswith(
        "Of the paper's 10 claims: 8 reproduced (C1, C2, C4, C6, C7, C8, C9, C10), 1 contradicted (C5)"
    )
    assert "1 inconclusive (C3)" in text
    assert text.endswith("Measured on 8 trees of 16 networks (images: synthetic images).")


def test_one_tree_answers_nothing():
    results = synthetic.results(groups=1, leaves=4)
    text = verdicts.answer(ledger(results), results)
    assert "reproduced" not in text
    assert "one tree of 4, which gives no interval" in text


def test_the_tally_counts_every_claim(claims):
    found = verdicts.tally(claims)
    assert sorted(name for names in found.values() for name in names) == sorted(CLAIMS)
    assert found["contradicted"] == ["C5"]


def test_rows_are_texts_with_a_sign_for_every_verdict(claims):
    rows = verdicts.rows(claims)
    assert [row["id"] for row in rows] == list(CLAIMS)
    assert {row["verdict"]: row["mark"] for row in rows} == {
        "reproduced": "✓",
        "contradicted": "✗",
        "inconclusive": "~",
    }
    assert all(isinstance(value, str) for row in rows for value in row.values())


def test_the_table_says_what_a_claim_failed_on_where_it_has_several_tests(claims):
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in verdicts.ledger_table(claims).splitlines()[2:]]
    last = {row[0]: row[-1] for row in rows}
    assert last["C3"].startswith("not shown: MergeMany's minus the tree's deviation from the median, 4 models (")
    assert last["C5"].startswith("against it: fgsm, ")
    assert not last["C1"]
    assert all(not last[row[0]] for row in rows if row[3] == "reproduced")
