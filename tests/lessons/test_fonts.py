"""Tokens in figures: whatever a tokenizer cuts, nothing is drawn as an empty box and nothing warns."""

import warnings

import pytest
import torch
from matplotlib import font_manager
from matplotlib import pyplot as plt

import decoding_llama3 as dl
from decoding_llama3.lessons import fonts, show, style
from decoding_llama3.lessons.figures import (
    attention,
    config,
    feed_forward,
    feed_forward_models,
    rope_models,
    tokenizer,
    tokenizer_tour,
    transformer,
    transformer_models,
)

TEXTS = {
    "German": "ein König",
    "Chinese": "国王有三个女儿",
    "Hindi": "एक समय",
    "emoji": "A fox 🦊, 👩‍🚀",
    "code": "cost = '$5 $$ \\$' + x\n\treturn",
}
UNASSIGNED = "\U000e0fff"  # no font has it


def tokens_of(text):
    llama3 = dl.load_tokenizer("llama3")
    return [llama3.token_bytes(token) for token in llama3.encode(text)]


def draw_all(labels, title):
    """Each figure that prints tokens."""
    n = len(labels)
    square, line = torch.eye(n), torch.linspace(-1, 1, n)
    pieces = [label.encode() for label in labels]
    yield attention.draw_repeated_word(labels[:2], {"with": [[(label, 0.5) for label in labels]] * 2}, title)
    yield attention.draw_lookup(torch.ones(3), torch.ones(n, 3), torch.ones(n, 3), labels, title)
    yield attention.draw_wiring(square, 1, labels, title)
    yield attention.draw_likeness({"one": square, "other": square}, labels, title)
    yield attention.draw_scores(line, labels, 0, title)
    yield attention.draw_mixture(line, square, labels, title)
    yield attention.draw_cache([torch.ones(n + 1, 8)] * 2, [1, n], labels, "tiny", title)
    yield feed_forward.draw_passage(feed_forward.Passage(line, line, line, line, line), [0], labels, title)
    yield feed_forward.draw_alone({"attention": square, "feed-forward": square}, labels, title)
    yield feed_forward_models.draw_text(line, labels, title)
    yield feed_forward_models.draw_sinking({"tiny": (labels[0], line, line, square)}, title)
    yield feed_forward_models.draw_pushers_silenced(
        {"tiny": ((0, 1), [0.5, 0.4], {kind: torch.rand(2, 2) for kind in "ab"})}, labels[0], title
    )
    yield tokenizer.draw_cuts({1: pieces}, title)
    yield tokenizer.draw_rows({"tokens": pieces}, range(n), title)
    yield tokenizer.draw_conversation([[(label, "typed") for label in labels]], title)
    yield tokenizer_tour.draw_next({"tiny": (torch.full((n,), 0.5 / n), labels)}, title)
    yield tokenizer_tour.draw_surprises({"tiny": (labels, torch.ones(n))}, title)
    yield config.draw_embedded_rows(labels, torch.randn(n, 48), [0], title)
    yield rope_models.draw_looks_back({"tiny": (labels, square, square)}, title)
    yield transformer.draw_logits(torch.randn(50), labels, [0.5 / n] * n, title)
    yield transformer.draw_sampling(labels, {kind: [1 / n] * n for kind in "ab"}, title)
    yield transformer_models.draw_lens([labels], torch.full((1, n), 0.5), labels, ["block 0"], title)


def warnings_about_fonts(figures, folder):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for figure in figures:
            figure.savefig(folder / "figure.png", dpi=20)
            plt.close(figure)
    return [str(found.message) for found in caught if "lyph" in str(found.message) or "font" in str(found.message)]


@pytest.mark.parametrize("name", TEXTS)
def test_every_figure_draws_every_token_without_a_warning(name, tmp_path):
    style.use_style()
    labels = [fonts.drawable(fonts.readable(token)) for token in tokens_of(TEXTS[name] + UNASSIGNED)]
    assert not warnings_about_fonts(draw_all(labels, "".join(labels)), tmp_path)


@pytest.mark.parametrize("name", TEXTS)
def test_figures_make_tokens_drawable_themselves(name, tmp_path):
    """A learner's own words come without `drawable`."""
    style.use_style()
    words = [fonts.readable(token) for token in tokens_of(TEXTS[name] + UNASSIGNED)]
    assert not warnings_about_fonts(draw_all(words, "a title"), tmp_path)


def test_a_character_that_no_font_has_is_shown_by_its_code_point():
    assert fonts.drawable(f"a{UNASSIGNED}é") == "a<U+E0FFF>é"
    assert fonts.drawable(" \n") == " \n"


def test_dollars_in_tokens_start_no_formula():
    shown = fonts.drawable("$x$")
    assert shown == r"\$x\$"
    assert fonts.drawable(shown) == shown


def test_tokens_that_are_no_whole_characters_are_shown_by_their_bytes():
    assert fonts.readable("王".encode()) == "王"
    assert fonts.readable("王".encode()[:2]) == "<E7><8E>"
    assert fonts.token_label(b" a\n") == fonts.token_label(" a\n") == "␣a⏎"


def test_token_strings_tell_different_halves_of_a_character_apart():
    tokenizer = dl.load_tokenizer("tiny")
    ids = torch.tensor([tokenizer.encode("a 王", bos=True)])
    assert show.token_strings(ids, tokenizer) == ["BOS", "a", " ", "<E7>", "<8E>", "<8B>"]


def test_only_installed_families_are_asked_for():
    assert fonts.font_families()[0] == "DejaVu Sans"
    for family in fonts.font_families():
        assert font_manager.findfont(family, fallback_to_default=False)
