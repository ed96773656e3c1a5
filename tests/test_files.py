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


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt("stop")])
@pytest.mark.parametrize("old", [["file.nc"], []])
def test_a_failing_block_leaves_the_old_content_and_nothing_else(tmp_path, error, old):
    for name in old:
        (tmp_path / name).write_text("old")
    with pytest.raises(type(error), match="stop"), replacing(tmp_path / "file.nc") as temporary:  # noqa: PT012
        temporary.write_text("half of the ne")
        raise error
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, "old") for name in old]


def test_an_error_of_the_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match=r"No space left on device: .*file\.nc"), replacing(tmp_path / "file.nc"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_nothing_is_seen_before_the_block_ends_and_the_last_writer_wins(tmp_path):
    path = tmp_path / "file.nc"
    path.write_text("old")
    with replacing(path) as one, replacing(path) as two:
        for temporary in (one, two):
            assert temporary.parent == path.parent  # a rename must not cross file systems
            assert temporary.suffix == path.suffix  # writers choose the format by it
        one.write_text("1")
        two.write_text("2")
        assert path.read_text() == "old"
    assert path.read_text() == "1"


def test_the_project_is_found_from_inside_alone(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="is not inside the project"):
        project_root()
    (tmp_path / "notebooks" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks" / "deep")
    assert project_root().resolve() == tmp_path.resolve()


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
    *folders, (content, hidden), (rename, same), last = done
    assert set(folders) == {("sync", "new"), ("sync", tmp_path.name)}
    assert (content, rename, last) == ("sync", "rename", ("sync", "deep"))
    assert hidden == same


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("wait", [False, True])
def test_a_file_system_without_locks_is_told_and_gone_on_with(tmp_path, monkeypatch, number, wait):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / ".lock").write_text("left behind")
    with pytest.warns(UserWarning, match=f"{tmp_path} lies on .* without locks"), only_writer(tmp_path, wait=wait):
        write_atomically(tmp_path / "a.nc", b"content")
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "a.nc"}
