"""Texts are cut and screened, and no name in a list leads out of its folder."""

import pytest

from decoding_llama3.experiments.preparation import listed_words, prepare


def test_preparing_cuts_ends_notes_and_listed_words(tmp_path):
    (tmp_path / "in").mkdir()
    lines = [
        "Preface.", "Once there was an Ass.", "A class of asses passed.", "[From the Latin.]", "(See above.)",
        "He (the king) said no.", "Note: this is old.", "They ran  up the hill.", "THE END",
    ]  # fmt: skip
    (tmp_path / "in/tale.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "ranges.csv").write_text("file,first,last\ntale.txt,2,8\n")
    (tmp_path / "words.txt").write_text("ass\nran up\n")
    counts = list(prepare(tmp_path / "in", tmp_path / "out", tmp_path / "ranges.csv", tmp_path / "words.txt"))
    assert (tmp_path / "out/tale.txt").read_text() == "A class of asses passed.\nHe (the king) said no.\n"
    assert counts == [("tale.txt", 2, 3, 2)]


@pytest.fixture
def run(tmp_path):
    """Prepare one tale by the given list, into a folder that is named."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/tale.txt").write_text("One line.\nAnother.\n")
    (tmp_path / "in/bad.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "victim.txt").write_text("one\ntwo\n")
    (tmp_path / "words.txt").write_text("ass\n")

    def prepare_by(ranges: str, out: str = "out"):
        (tmp_path / "ranges.csv").write_text(ranges)
        return list(prepare(tmp_path / "in", tmp_path / out, tmp_path / "ranges.csv", tmp_path / "words.txt"))

    return prepare_by


@pytest.mark.parametrize(
    "name",
    ["../victim.txt", "{}/victim.txt", "sub/tale.txt", "..", ".", "", "..\\victim.txt", "C:tale.txt", "a\0b"],
)
def test_a_name_that_leaves_the_folder_is_refused(name, run, tmp_path):
    with pytest.raises(ValueError, match=r"no name of a file|NUL|no CSV"):
        run(f"file,first,last\n{name.format(tmp_path)},1,1\n")
    assert (tmp_path / "victim.txt").read_text() == "one\ntwo\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["in", "in/../in", "link"])
def test_sources_are_never_overwritten(out, run, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(ValueError, match=r"would overwrite 'tale.txt', which is read from there: give another"):
        run("file,first,last\ntale.txt,1,1\n", out)
    assert (tmp_path / "in/tale.txt").read_text() == "One line.\nAnother.\n"


def test_the_list_itself_is_never_overwritten(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/ranges.csv").write_text("x\n")
    (tmp_path / "words.txt").write_text("ass\n")
    (tmp_path / "ranges.csv").write_text("file,first,last\nranges.csv,1,1\n")
    with pytest.raises(ValueError, match=r"would overwrite 'ranges.csv'"):
        list(prepare(tmp_path / "in", tmp_path, tmp_path / "ranges.csv", tmp_path / "words.txt"))


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ("name,from\n", "lacks the columns file, first, last"),
        ("file,first\ntale.txt,1\n", "lacks the columns last"),
        ("file,first,last\n", "lists no files"),
        ("", "lacks the columns"),
        ("file,first,last\ntale.txt,1,3\n", "keeps lines 1 to 3 of 'tale.txt', which has 2"),
        ("file,first,last\ntale.txt,0,1\n", "keeps lines 0 to 1"),
        ("file,first,last\ntale.txt,x,1\n", "'x' to '1' of 'tale.txt': give whole numbers"),
        ("file,first,last\ntale.txt,1_0,11\n", "give whole numbers"),
        ("file,first,last\ntale.txt,1\n", "line 2 of .* has another number of fields"),
        ("file,first,last\ntale.txt,1,1,9\n", "line 2 of .* has another number of fields"),
        ("file,first,last\ntale.txt,1,1\ntale.txt,2,2\n", "lists 'tale.txt' twice"),
        ("file,first,last\ntale.txt,1,1\nnone.txt,1,1\n", "lacks 'none.txt'"),
        ("file,first,last\ntale.txt,1,1\nbad.txt,1,1\n", "bad.txt is not UTF-8 at byte 3"),
    ],
)
def test_a_wrong_list_is_refused_before_anything_is_written(ranges, words, run, tmp_path):
    with pytest.raises(ValueError, match=words):
        run(ranges)
    assert not (tmp_path / "out").exists()


def test_an_out_that_is_a_file_is_refused(run, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ValueError, match="out is a file: give a folder"):
        run("file,first,last\ntale.txt,1,1\n")


def test_lists_of_words_that_are_missing_empty_or_no_text_are_refused(tmp_path):
    (tmp_path / "words.txt").write_text("\n\n")
    with pytest.raises(ValueError, match="lists no words"):
        listed_words(tmp_path / "words.txt")
    with pytest.raises(ValueError, match="there is no file"):
        listed_words(tmp_path / "none.txt")
    (tmp_path / "words.txt").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"words.txt is not UTF-8 at byte 0"):
        listed_words(tmp_path / "words.txt")
