import pytest
import torch

from hrebasin.images.archives import unpacked
from hrebasin.images.sources import load_images
from image_files import image, rewritten, tar


def images(top=""):
    classes = enumerate(("cat", "dog"))
    return {f"{top}{split}/{c}/{n}.png": image(value=10 * n) for n, c in classes for split in ("train", "test")}


@pytest.mark.parametrize(("ending", "top"), [("tar", ""), ("tar.gz", "set/"), ("tar.bz2", ""), ("tar.xz", "set/")])
def test_an_archive_is_the_folder_in_it_whatever_lies_beside(tmp_path, top, ending):
    path = tmp_path / f"set.{ending}"
    beside = {"._set": b"x", "README.md": b"read", f"{top}train/cat/._0.png": b"x", f"{top}train/._cat": b"x"}
    beside |= {f"{top}train/.cache/1.png": b"x", "notes/a.txt": b"a", f"{top}._train": b"x"}
    path.write_bytes(tar(images(top) | beside, f"w:{ending[4:]}"))
    for split in ("train", "test"):
        loaded = load_images(str(path), split, root=tmp_path / "data")
        assert loaded.classes == ("cat", "dog")
        assert torch.equal(loaded.pixels[:, 0, 0, 0], torch.tensor([0, 10], dtype=torch.uint8))


def test_an_archive_is_unpacked_once_and_anew_when_it_changes_even_if_size_and_time_stay(tmp_path):
    path = tmp_path / "set.tar"
    path.write_bytes(tar(images()))
    first = unpacked(path, tmp_path)
    (first / "mark").touch()
    assert (unpacked(path, tmp_path) / "mark").exists()
    rewritten(path, tar(images() | {"test/dog/1.png": image(value=11)}))
    second = unpacked(path, tmp_path)
    assert second != first
    assert (second / "test" / "dog" / "1.png").read_bytes() == image(value=11)


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    (tmp_path / "set.tar").write_bytes(tar(images()))
    raw = tmp_path / "data" / "raw"
    (raw / "unpacked" / ".hrebasin-9999999-0123abcd" / "train").mkdir(parents=True)
    (raw / "decoded").mkdir()
    (raw / "decoded" / ".hrebasin-9999999-0123abcd.npy").touch()
    load_images(str(tmp_path / "set.tar"), "train", root=tmp_path / "data")
    assert [path.name for path in raw.rglob(".*")] == [".lock"]


@pytest.mark.parametrize("members", [{}, images("a/") | images("b/"), images("a/b/"), {"cat/0.png": image()}])
def test_an_archive_without_splits_is_refused_by_its_name(tmp_path, members):
    (tmp_path / "set.tar").write_bytes(tar(members))
    with pytest.raises(ValueError, match=r"set\.tar holds no train or test folder, at its top or in one"):
        load_images(str(tmp_path / "set.tar"), "train", root=tmp_path / "data")
