import pytest
from finished_runs import ATTRS, SOME, write_results

import synthetic
from hrebasin.study import resampling
from hrebasin.study.publishing.publish import publish


@pytest.fixture(scope="session")
def halves(tmp_path_factory):
    """Four groups in one run's folder, and two in each of two others, measured by different commits."""
    root = tmp_path_factory.mktemp("halves")
    found = synthetic.results(groups=4, leaves=4, stages=SOME)
    for name, groups, commit in (("whole", range(4), "0; 1"), ("first", (0, 1), "0"), ("second", (2, 3), "1")):
        attrs = ATTRS | {"code_commit": commit, "created": f"202{commit[-1]}"}
        write_results({stage: data.assign_attrs(attrs) for stage, data in found.items()}, root / name, list(groups))
    return root


@pytest.fixture(scope="session")
def published(halves, tmp_path_factory):
    """The first two groups, published."""
    folder = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "RESAMPLES", 999)  # which decide nothing here
        publish(halves / "first", folder)
    return folder
