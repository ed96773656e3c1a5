import errno

import pytest

from hrebasin.files import project_root, replacing, write_atomically


@pytest.mark.parametrize("content", [b"\x00\xff\r\n", "Größe\n"])
def test_content_is_written_as_given(tmp_path, content):
    path = tmp_path / "deep" / "folder" / "file.bin"
    write_atomically(path, content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("old", [["file.nc"], []])
def test_a_failing_block_leaves_the_old_content_and_nothing_else(tmp_path, error, old):
    for name in old:
        (tmp_path / name).write_text("old")

    def fail():
        with replacing(tmp_path / "file.nc") as temporary:
            temporary.write_text("half of the ne")
            raise error("stop")

    with pytest.raises(error, match="stop"):
        fail()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, "old") for name in old]


def test_an_error_of_the_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match=r"No space left on device: .*file\.nc"), replacing(tmp_path / "file.nc"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_nothing_is_seen_before_the_block_ends(tmp_path):
    path = tmp_path / "file.nc"
    path.write_text("old")
    with replacing(path) as temporary:
        assert temporary.parent == path.parent  # a rename must not cross file systems
        assert temporary.suffix == path.suffix  # writers choose the format by it
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_two_writers_use_different_temporary_names(tmp_path):
    with replacing(tmp_path / "a.txt") as one, replacing(tmp_path / "a.txt") as two:
        assert one != two
        one.write_text("1")
        two.write_text("2")
    assert (tmp_path / "a.txt").read_text() == "1"  # the block that ends last wins


def test_project_root_is_found_from_inside(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "notebooks" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks" / "deep")
    assert project_root().resolve() == tmp_path.resolve()


def test_project_root_is_missed_from_outside(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").touch()  # no notebooks/ beside it
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="is not inside the project"):
        project_root()
