"""Where a command writes: checked before the work, written at once or not at all."""

import os
from pathlib import Path

import pytest

from decoding_llama3.cli.files import check_output_file, check_output_folder, write_result

NOT_ROOT = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind the superuser"
)


def test_a_place_that_can_be_written_is_accepted_and_left_as_it_was(tmp_path):
    (tmp_path / "there.json").write_text("old")
    check_output_file("--out", tmp_path / "new.json")
    check_output_file("--out", tmp_path / "there.json")
    check_output_folder("--out", tmp_path / "a" / "b")
    check_output_folder("--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["there.json"]
    assert (tmp_path / "there.json").read_text() == "old"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (".", "--out .* is a folder: give the name of a file"),
        ("none/x.json", "lies in no folder there is: make .*none first"),
        ("file/x.json", "lies in no folder there is"),
        (f"{'x' * 252}", "cannot be written .file name too long.: give another place"),
    ],
)
def test_a_file_that_cannot_be_made_is_refused(tmp_path, path, words):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=words):
        check_output_file("--out", tmp_path / path)


@pytest.mark.parametrize("path", ["file", "file/x", "dangling"])
def test_a_folder_that_cannot_be_made_is_refused(tmp_path, path):
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"--out .* cannot be a folder, because .* is none"):
        check_output_folder("--out", tmp_path / path)


@NOT_ROOT
def test_what_is_write_protected_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "file").chmod(0o444)
    with pytest.raises(ValueError, match="is write-protected"):
        check_output_file("--out", tmp_path / "file")
    tmp_path.chmod(0o555)
    with pytest.raises(ValueError, match=r"cannot be written \(permission denied\)"):
        check_output_file("--out", tmp_path / "other")
    with pytest.raises(ValueError, match=r"cannot be written \(permission denied\)"):
        check_output_folder("--out", tmp_path / "folder")
    tmp_path.chmod(0o755)


def test_text_is_written_as_utf8_with_line_ends_of_unix(tmp_path):
    write_result(tmp_path / "x", "ä\nb\n")
    assert (tmp_path / "x").read_bytes() == "ä\nb\n".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path):
    (tmp_path / "x").write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_result(tmp_path / "x", "new" * 100_000 + "\udcff")
    assert (tmp_path / "x").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_the_file_that_a_link_leads_to_is_written(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "x")
    check_output_file("--out", tmp_path / "link")
    write_result(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "x").read_text() == "new"


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="a device of Unix")
def test_a_device_is_written_into_and_not_replaced():
    check_output_file("--json", Path("/dev/null"))
    write_result(Path("/dev/null"), "text")
    assert not Path("/dev/null").is_file()
