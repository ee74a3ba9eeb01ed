"""A reader's copy of the notebooks: refreshed while untouched, never overwritten once changed."""

from decoding_llama3.lessons.working_copy import update_working_copy


def test_copies_refresh_until_they_are_changed(tmp_path):
    source, target = tmp_path / "notebooks", tmp_path / "lab"
    source.mkdir()
    for name in ("a", "b"):
        (source / f"{name}.ipynb").write_text("first")
    assert len(list(update_working_copy(source, target))) == 2
    assert list(update_working_copy(source, target)) == []

    (target / "b.ipynb").write_text("my own work")
    for name in ("a", "b"):
        (source / f"{name}.ipynb").write_text("second")
    messages = list(update_working_copy(source, target))
    assert (target / "a.ipynb").read_text() == "second"
    assert (target / "b.ipynb").read_text() == "my own work"
    assert (target / "b.new.ipynb").read_text() == "second"
    assert any("it stays" in line for line in messages)
    assert list(update_working_copy(source, target)) == []


def test_a_notebook_that_was_there_before_is_never_overwritten(tmp_path):
    source, target = tmp_path / "notebooks", tmp_path / "lab"
    source.mkdir(), target.mkdir()
    (source / "a.ipynb").write_text("ours")
    (target / "a.ipynb").write_text("the reader's")
    list(update_working_copy(source, target))
    assert (target / "a.ipynb").read_text() == "the reader's"
