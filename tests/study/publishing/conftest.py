import pytest
from finished_runs import ATTRS, SOME, write_results

import synthetic
from hrebasin.study import records, resampling
from hrebasin.study.claims.ledger import ledger
from hrebasin.study.publishing.publish import publish


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A finished run's folder with synthetic results of two groups."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "RESAMPLES", 999)  # which decide nothing here
        claims = ledger(results := synthetic.results(groups=2, stages=SOME))
    results = {stage: data.assign_attrs(ATTRS) for stage, data in results.items()}
    write_results(results, folder)
    records.write(claims, folder / "results" / "ledger.nc", stage="ledger", attrs=ATTRS)
    return folder


@pytest.fixture(scope="session")
def published(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    publish(run, folder)
    return folder
