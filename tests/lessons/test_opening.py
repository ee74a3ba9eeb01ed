"""A reader's own sentence in place of ours: whatever its language, no cell stops and no figure warns."""

import symtable
from pathlib import Path

import matplotlib
import nbformat
import pytest
import torch
from matplotlib import pyplot as plt

import decoding_llama3 as dl
from decoding_llama3.lessons import show, widgets

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
SENTENCES = {
    "German": "Es war einmal ein König",
    "French": "Il était une fois un roi très triste",
    "Chinese": "国王有三个女儿",
    "emoji": "A fox 🦊 and a bear 🐻 had tea",
    "code": "def f(x): return x + 1 if $x",
    "no token twice": "My old dog ran over seven green hills before night came down",
    "our tale's own words": "A miller had three sons and one donkey. When he was old",
    "the last token is a ring": "The young queen gave her dear little son the golden bird and a ring",
}


def names_in(source: str) -> tuple[set[str], set[str]]:
    """What a cell reads from other cells, in the bodies of its functions too, and what it defines."""
    cell = symtable.symtable(source, "cell", "exec")
    reads, tables = {symbol.get_name() for symbol in cell.get_symbols() if symbol.is_referenced()}, [cell]
    while tables:
        inner = tables.pop().get_children()
        reads |= {symbol.get_name() for table in inner for symbol in table.get_symbols() if symbol.is_global()}
        tables += inner
    defines = {symbol.get_name() for symbol in cell.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    return reads - defines, defines


def cells_that_need(name: str, sources: list[str]) -> list[str]:
    """The cells whose values depend on `name`, and all that these need."""
    sources = [source.replace("%pip", "pass  #").replace("!decoding-llama3", "pass  #") for source in sources]
    depends, chosen = {name}, set()
    for i, source in enumerate(sources):
        reads, defines = names_in(source)
        if reads & depends:
            chosen.add(i)
            depends |= defines
        else:
            depends -= defines - {name}
    needed = set()
    for i, source in reversed(list(enumerate(sources))):
        reads, defines = names_in(source)
        if i in chosen or defines & needed:
            chosen.add(i)
            needed = (needed - defines) | reads
    return [sources[i] for i in sorted(chosen)]


def test_cells_that_need_a_name_are_found():
    assert cells_that_need("a", ["a = 1", "b = a", "b = 2", "print(b)", "d = b"]) == ["a = 1", "b = a"]
    assert cells_that_need("a", ["a = 1", "b = 2", "[b for b in [a]]"]) == ["a = 1", "[b for b in [a]]"]
    cells = ["import os", "a = os.name", "b = 1", "def f():\n    return a + c", "a = 2", "print(f(), a)"]
    assert cells_that_need("c", cells) == [cell for cell in cells if cell != "b = 1"]


@pytest.mark.parametrize("sentence", SENTENCES.values(), ids=SENTENCES)
def test_sentences_have_the_length_that_the_notebooks_ask_for(sentence):
    assert 12 <= len(dl.load_tokenizer("tiny").encode(sentence)) <= 24


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Matplotlib, of tensors
@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ("1_intro", "Chinese"),
        ("5_attention", "no token twice"),
        pytest.param("1_intro", "code", marks=pytest.mark.long),
        pytest.param("1_intro", "no token twice", marks=pytest.mark.long),
        pytest.param("5_attention", "Chinese", marks=pytest.mark.long),
        pytest.param("5_attention", "code", marks=pytest.mark.long),
    ],
)
def test_cells_of_a_part_hold_for_any_sentence(part, kind, monkeypatch, tmp_path):
    sentence = SENTENCES[kind]
    (tmp_path / "opening.txt").write_text(sentence, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(matplotlib, "rcParams", matplotlib.rcParams.copy())
    monkeypatch.setattr(show, "show_figure", lambda figure, alt: plt.close(figure))
    monkeypatch.setattr(widgets, "explore", lambda draw, alt, **choices: 2)
    (path,) = (path for path in NOTEBOOKS if path.stem == part)
    code = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    cells, scope = cells_that_need("opening", code), {}
    assert len(cells) > 15
    with torch.random.fork_rng():
        try:
            for cell in cells:
                exec(compile(cell, part, "exec"), scope)
        finally:
            torch.set_grad_enabled(True)
    assert scope["opening"] == sentence
