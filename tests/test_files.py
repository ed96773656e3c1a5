import errno
import fcntl
import os

import pytest

from hrebasin.files import only_writer, project_root, read_text, replacing, write_atomically


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


def test_text_is_utf8_or_its_file_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes("Größe".encode())
    assert read_text(tmp_path / "a.txt") == "Größe"
    (tmp_path / "a.txt").write_bytes("Größe".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.txt is not text in UTF-8"):
        read_text(tmp_path / "a.txt")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="only there can be seen which file is synced")
def test_content_is_on_the_disk_before_its_name_and_the_name_at_last(tmp_path, monkeypatch):
    done, folder = [], tmp_path / "new" / "deep"

    def told(name, act):
        def call(target, *rest):
            place = f"/proc/self/fd/{target}" if isinstance(target, int) else str(target)
            done.append((name, os.path.basename(os.path.realpath(place))))
            return act(target, *rest)

        return call

    monkeypatch.setattr(os, "fsync", told("sync", os.fsync))
    monkeypatch.setattr(os, "replace", told("rename", os.replace))
    write_atomically(folder / "a.nc", b"content")
    (content, hidden), (rename, same), last = done[2:]
    assert {what for what, _ in done[:2]} == {"sync"}
    assert {name for _, name in done[:2]} == {"new", tmp_path.name}
    assert (content, rename, last) == ("sync", "rename", ("sync", "deep"))
    assert hidden == same


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("wait", [False, True])
def test_a_file_system_without_locks_is_told_and_gone_on_with(tmp_path, monkeypatch, number, wait):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    (tmp_path / ".lock").write_text("left behind")
    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.warns(UserWarning, match=f"{tmp_path} lies on a file system without locks"),
        only_writer(tmp_path, wait=wait),
    ):
        write_atomically(tmp_path / "a.nc", b"content")
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "a.nc"}
