"""Settings, weights, archives and data sets that chance has damaged are read, or refused by name."""

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import synthetic
from hrebasin.files import project_root, read_text
from hrebasin.images.sources import load_images
from hrebasin.study import records
from hrebasin.study.settings import Setting, load_setting
from hrebasin.weight_files import read_weights, write_weights
from image_files import image, tar

TINY = project_root() / "config" / "tiny.yaml"
VALUES = yaml.safe_load(read_text(TINY))
# what a setting, typed by hand or made by a program, may hold in place of a value
STRANGE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.lists(st.floats(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from([0, -1, 1e400, "1e3", [], [[]], 3.0]),
)  # fmt: skip


@settings(max_examples=25)
@given(key=st.sampled_from(sorted(Setting.model_fields)), value=STRANGE)
def test_a_strange_value_of_a_setting_is_taken_or_named(tmp_path_factory, key, value):
    path = tmp_path_factory.getbasetemp() / "mine.yaml"
    path.write_text(yaml.safe_dump(VALUES | {key: value}), encoding="utf-8")
    try:
        taken = getattr(load_setting(path), key)
    except ValueError as error:
        said = str(error)
        assert str(path) in said  # noqa: PT017 - only what is refused is asked for its name
        assert key in said or "together" in said or "images" in said  # noqa: PT017
    else:
        assert taken == value
        assert isinstance(value, bool) == isinstance(VALUES[key], bool)


@given(text=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_text_as_a_setting_is_refused_by_its_file(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "mine.yaml"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=r"mine\.yaml"):
        load_setting(path)


def weights(path):
    write_weights(path, {"fc1.weight": torch.ones(3, 4), "fc1.bias": torch.ones(3)})


def archive(path):
    path.write_bytes(tar({f"train/{name}/0.png": image() for name in ("cat", "dog")}, "w:gz"))


def data_set(path):
    record = synthetic.results(groups=1, leaves=2, stages=["merge"])["merge"]
    record.assign_attrs(format=records.FORMAT).to_netcdf(path, engine="h5netcdf")


READERS = {
    "a.safetensors": (weights, read_weights),
    "a.pt": (weights, read_weights),
    "set.tar.gz": (archive, lambda path: load_images(str(path), "train", root=path.parent)),
    "merge.nc": (data_set, lambda path: records.read(path, stage="merge")),
}


def damaged(whole, stream):
    """Some bytes changed, cut off or doubled."""
    place, length = int(stream.integers(len(whole))), int(stream.integers(1, 9))
    ways = (whole[:place] + stream.bytes(length) + whole[place + length :], whole[:place], whole[:place] + whole)
    return ways[int(stream.integers(3))]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # h5netcdf's of what it could not open
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_named(name, tmp_path):
    write, read = READERS[name]
    path, refused = tmp_path / name, 0
    write(path)
    whole = path.read_bytes()
    for number in range(9):
        path.write_bytes(damaged(whole, np.random.default_rng(number)))
        try:
            read(path)
        except ValueError as error:
            assert path.name.split(".")[0] in str(error)  # noqa: PT017
            refused += 1
    assert refused >= 3
    path.write_bytes(whole)
    read(path)
