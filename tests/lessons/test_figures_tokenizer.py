"""Part 1's figures of the tour and of the tokenizer: what is drawn is what was given, and titles say it."""

import dataclasses
import math

import numpy as np
import pytest
import regex
import torch
from conftest import randomize, shrink
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.patches import FancyArrowPatch

import decoding_llama3 as dl
from decoding_llama3.lessons import style
from decoding_llama3.lessons.figures import tokenizer as figures
from decoding_llama3.lessons.figures import tokenizer_models, tokenizer_tour
from decoding_llama3.lessons.looks import tokenizer as look
from decoding_llama3.lessons.looks.tokenizer import building, lists, models, tour
from decoding_llama3.lessons.subject import Subject
from decoding_llama3.tokenizer import SPLIT_PATTERN


@pytest.fixture(autouse=True)
def _close():
    style.use_style()
    yield
    plt.close("all")


def widths(ax) -> list[float]:
    return [bar.get_width() for bars in ax.containers for bar in bars]


def heights(ax) -> list[float]:
    return [bar.get_height() for bars in ax.containers for bar in bars]


def colours(ax) -> list[str]:
    return [to_hex(bar.get_facecolor()) for bars in ax.containers for bar in bars]


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def labels(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def points(ax) -> list[list[float]]:
    """Each line with markers and no way between them, as its x and y."""
    return [
        np.stack(line.get_data()).astype(float).T.tolist() for line in ax.lines if line.get_linestyle() == "None"
    ]


def headline(figure) -> str:
    return figure.get_suptitle().replace("\n", " ")


def test_next_words_are_bars_with_what_is_left_for_the_others():
    panels = {"tiny": (torch.tensor([0.7, 0.2]), [" time", "x"]), "other": (torch.tensor([0.5]), [" a"])}
    figure = tokenizer_tour.draw_next(panels, "title")
    left, right = figure.axes
    assert np.allclose(widths(left), [0.7, 0.2, 0.1])
    assert np.allclose(widths(right), [0.5, 0.5])
    assert labels(left.yaxis) == ["␣time", "x", "all others"]
    assert texts(left) == ["0.700", "0.200", "0.100"]
    assert [ax.get_title("left") for ax in figure.axes] == ["tiny", "other"]
    assert headline(figure) == "title"


def test_a_ride_shows_tokens_ids_numbers_stations_and_each_depth():
    vectors = [torch.tensor([[1.0, -2.0], [4.0, 2.0]]), torch.tensor([[3.0, 3.0], [0.0, 1.0]])]
    guesses = [(" a", 0.0), (" b", 0.25), (" time", 0.75)]
    figure = tokenizer_tour.draw_ride(["BOS", " a"], [40, 1234], vectors, guesses, " time", "title")
    ride, depth = figure.axes
    assert {"BOS", "␣a", "40", "1,234", "␣time", "a block; there are 2"} <= set(texts(ride))
    assert [text for text in texts(ride) if text.isdigit() and int(text) <= 10] == [str(i) for i in range(1, 11)]
    assert {"tokens", "embedding", "norm", "attention", "RoPE", "cache", "feed-forward", "output"} <= set(
        texts(ride)
    )
    assert np.allclose(
        heights(ride), [0.1, -0.2, 0.2, 0.2, 0.2, 0.1, 0.0, 0.2]
    )  # each wagon by its tallest number
    assert heights(depth) == [0.0, 0.25, 0.75]
    assert texts(depth) == ["0.000", "0.250", "0.750"]
    assert labels(depth.xaxis) == ["0\n␣a", "1\n␣b", "2\n␣time"]
    assert depth.get_ylabel() == "p(␣time)"
    pluses = [text.get_position()[1] for text in ride.texts if text.get_text() == "+"]
    assert pluses == [2.05, 1.55] * 2  # each part adds to each line
    dots = [line.get_ydata()[0] for line in ride.lines if line.get_markersize() == 4 and line.get_marker() == "o"]
    assert dots == [2.05, 1.55] * 2  # and reads it
    ends = [patch._posA_posB for patch in ride.patches if isinstance(patch, FancyArrowPatch)]
    first, last = (3.45 + 0.4 * (y - 1.3) for y in (2.05, 1.55))
    assert any(
        np.allclose(end, [(7.8, first), (8.75, last)]) for end in ends
    )  # inside attention something passes from the earlier line to the last
    inside = [line.get_ydata()[0] for line in ride.lines if line.get_marker() == "s"]
    assert np.allclose(inside, [first, last])  # the feed-forward works on each alone


def test_logits_show_rows_products_and_sums():
    figure = tokenizer_tour.draw_six_logits({" a": (1, -2), ",": (0, 3)}, (2, -1), [4, -3], "title")
    left, right = figure.axes
    assert "+1·2 -2·(-1)" in texts(left)
    assert "( 1, -2)" in texts(left)
    assert "( 2, -1)" in texts(left)
    assert widths(right) == [4, -3]
    assert texts(right) == ["+4", "-3"]
    assert labels(right.yaxis) == ["␣a", ","]


def test_a_softmax_is_drawn_in_three_stages():
    figure = tokenizer_tour.draw_softmax(["a", "b"], torch.tensor([0.0, math.log(3)]), "title")
    logits, exponentials, p = map(widths, figure.axes)
    assert np.allclose(logits, [0, math.log(3)])
    assert np.allclose(exponentials, [1, 3])
    assert np.allclose(p, [0.25, 0.75])
    assert "together 4.00" in figure.axes[1].get_title("left")
    assert texts(figure.axes[2]) == ["0.250", "0.750"]


def test_losses_lie_on_the_curve_in_nats_and_bits():
    figure = tokenizer_tour.draw_losses(["a", "b", "c"], torch.tensor([0.5, 0.25, 0.25]), "title")
    (ax,) = figure.axes
    curve, *dots = [np.stack(line.get_data()).astype(float) for line in ax.lines]
    assert np.allclose(curve[1], -np.log(curve[0]))
    assert np.allclose(np.concatenate(dots, axis=1)[1], -np.log([0.5, 0.25, 0.25, 1 / 3]))
    assert "a: 0.69 nats, 1.00 bits" in texts(ax)
    assert "b and c: 1.39 nats, 2.00 bits" in texts(ax)
    assert "knowing nothing, 1/3: 1.10 nats, 1.58 bits" in texts(ax)


def test_surprises_have_a_bar_for_each_token_and_their_mean():
    figure = tokenizer_tour.draw_surprises({"tiny": ([" a", "b"], torch.tensor([1.0, 3.0]))}, "title")
    (ax,) = figure.axes
    assert heights(ax) == [1, 3]
    assert labels(ax.xaxis) == ["␣a", "b"]
    assert " mean 2.00" in texts(ax)
    assert set(ax.lines[0].get_ydata()) == {2.0}


def test_surprises_of_two_models_stand_below_each_other_where_they_share_tokens():
    panels = {"tiny": (["Once", " a", "b"], torch.tensor([5.0, 1.0, 3.0])), "other": ([" a", "b"], torch.ones(2))}
    upper, lower = tokenizer_tour.draw_surprises(panels, "title", shared=2).axes
    assert [bar.get_x() + bar.get_width() / 2 for bars in lower.containers for bar in bars] == [1, 2]
    assert upper.get_xlim() == lower.get_xlim()
    assert upper.get_ylim() == lower.get_ylim()
    assert set(upper.lines[0].get_ydata()) == {2.0}  # the mean of what both predict
    assert tour._common_end([["Once", " a", "b"], [" a", "b"]]) == 2
    assert tour._common_end([["Once", " a", "b"], [" ab"]]) == 0


def test_rows_cut_one_text_in_several_ways_with_ids_below():
    figure = figures.draw_rows({"bytes": [b"a", b"b", b"c"], "tokens": [b"a", b"bc"]}, [97, 3000], "title")
    (ax,) = figure.axes
    assert np.allclose(widths(ax), np.array([1, 1, 1, 1, 2]) - 0.08)
    assert [text for text in texts(ax) if text in ("3", "2")] == ["3", "2"]
    assert texts(ax)[-3:] == ["97", "3,000", "ids"]


def test_counting_marks_the_pair_that_is_joined():
    words = [[b"a", b"b"], [b"b", b"a", b"b"]]
    pairs = [(b"a", b"b", 2), (b"b", b"a", 1)]
    figure = figures.draw_counting([(words, pairs)], "title")
    boxes, counts = figure.axes
    marked = [style.MARKED.lower() == colour for colour in colours(boxes)]
    assert marked == [True, True, False, True, True]
    assert boxes.get_title("left") == "round 1: 5 pieces"
    assert widths(counts) == [2, 1]
    assert labels(counts.yaxis) == ["a + b", "b + a"]


def test_merges_are_a_wall_with_a_fresh_brick_in_each_row():
    steps = [[b"a", b"b", b"c"], [b"a", b"bc"], [b"abc"]]
    (ax,) = figures.draw_merges(steps, {b"bc": 300, b"abc": 1400}, "title").axes
    assert np.allclose(widths(ax), np.array([1, 1, 1, 1, 2, 3]) - 0.08)
    fresh = [colour == figures.LEARNED.lower() for colour in colours(ax)]
    assert fresh == [False, False, False, False, True, True]
    assert [text for text in texts(ax) if text.startswith(("rank", "bytes"))] == [
        "bytes",
        "rank 300",
        "rank 1,400",
    ]


def test_rules_have_a_colour_each_and_their_count():
    rules = [("x", "none"), (r"\p{L}+", "letters"), (r"\p{N}{1,3}", "digits")]
    (ax,) = figures.draw_rules([("a", 1), ("12", 2), ("b", 1)], rules, "title").axes
    drawn = colours(ax)
    assert drawn[0] == drawn[2] == drawn[4]
    assert drawn[1] == drawn[5] != drawn[0]
    assert texts(ax)[-6:] == [
        "1. none: 0 pieces",
        "x",
        "2. letters: 2 pieces",
        r"\p{L}+",
        "3. digits: 1 piece",
        r"\p{N}{1,3}",
    ]


def test_a_conversation_has_a_colour_for_special_tokens_for_text_put_in_and_for_text_typed():
    rows = [[("<|begin_of_text|>", "special"), ("user", "put in"), ("hi", "typed")], [("<|eot_id|>", "special")]]
    figure = figures.draw_conversation(rows, "title")
    (ax,) = figure.axes
    special, put_in, typed, last = colours(ax)
    assert special == last == "#000000"
    assert len({special, put_in, typed}) == 3
    assert texts(ax) == ["begin_of_text", "user", "hi", "eot_id"]
    (legend,) = figure.legends
    named = {text.get_text(): to_hex(patch.get_facecolor()) for text, patch in zip(
        legend.get_texts(), legend.get_patches(), strict=True)}  # fmt: skip
    assert named == {"special token": special, "text, put in by the program": put_in, "text, typed": typed}


def test_cuts_have_a_row_for_each_size_and_count_its_pieces():
    (ax,) = figures.draw_cuts({256: [b"a", b"b"], 3000: [b"ab"]}, "title").axes
    assert np.allclose(widths(ax), [0.92, 0.92, 1.92])
    assert {"256", "3,000", "2", "1"} <= set(texts(ax))
    assert colours(ax)[0] == figures.PLAIN.lower()
    assert colours(ax)[2] == figures.LEARNED.lower()


def test_other_cuts_are_dots_with_their_median():
    (ax,) = figures.draw_other_cuts({"one": [1.0], "three": [2.0, 9.0, 4.0]}, "title").axes
    assert points(ax) == [[[1, 0]], [[2, 1], [9, 1], [4, 1]]]
    assert {"1.0", "4.0"} <= set(texts(ax))
    assert labels(ax.yaxis) == ["one", "three"]


def test_counts_of_pieces_have_a_dot_for_each_tokenizer_and_the_smallest_number():
    counts = {
        "English": {"bytes": 50, "tiny": 13, "Llama 3": 12},
        "Greek": {"bytes": 99, "tiny": 99, "Llama 3": 23},
    }
    figure = tokenizer_models.draw_counts(counts, "title")
    (ax,) = figure.axes
    drawn = [tuple(dot.get_offsets()[0]) for dot in ax.collections]
    assert drawn == [(50, 0), (13, 0), (12, 0), (99, 1), (99, 1), (23, 1)]
    assert texts(ax) == ["12", "23"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["bytes", "tiny", "Llama 3"]


def test_pieces_are_pairs_of_dots():
    held = {"tale": {"old": 4.0, "new": 5.0}, "Greek": {"old": 1.0, "new": 3.0}}
    (ax,) = tokenizer_models.draw_pieces(held, "title").axes
    assert points(ax) == [[[4, 0]], [[5, 0]], [[1, 1]], [[3, 1]]]
    assert labels(ax.yaxis) == ["tale", "Greek"]


def test_what_is_taken_away_has_a_panel_each():
    more = {"size": {"tale": 0.03, "numbers": 0.0}, "digits": {"tale": 0.0, "numbers": 0.78}}
    figure = tokenizer_models.draw_taken_away(more, "title")
    left, right = figure.axes
    assert (widths(left), widths(right)) == ([0.03, 0.0], [0.0, 0.78])
    assert texts(right) == ["+0%", "+78%"]
    assert [ax.get_title("left") for ax in figure.axes] == ["size", "digits"]


def test_rows_never_met_are_drawn_at_first_and_after():
    start, end = torch.tensor([[1.0, 0.0], [2.0, 2.0]]), torch.tensor([[1.0, 1.0], [3.0, -1.0]])
    (ax,) = tokenizer_models.draw_never_met({"one": (start, end)}, torch.tensor([False, True]), "title").axes
    assert points(ax) == [[[1, 1]], [[2, 2]], [[3, -1]]]
    way = next(line for line in ax.lines if len(line.get_xdata()) == 2)
    assert np.stack(way.get_data()).T.tolist() == [[2, 2], [3, -1]]


def test_untrained_rows_are_black_from_the_border_on():
    likeness, lengths = torch.tensor([0.1, 0.7, 0.95]), torch.tensor([1.0, 2.0, 3.0])
    reference = torch.tensor([False, False, True])
    figure = tokenizer_models.draw_untrained({"tiny": (likeness, lengths, 0.5, reference)}, "title")
    (ax,) = figure.axes
    met, never, ringed = points(ax)
    assert np.allclose(met, [[0.1, 1]])
    assert np.allclose(never, [[0.7, 2], [0.95, 3]])
    assert np.allclose(ringed, [[0.95, 3]])
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["other tokens", "look never met", "special, and together"]
    assert ax.get_title("left") == "tiny, 3 tokens"


def test_similarity_shows_each_pair_once():
    cosines = torch.tensor([[1.0, 0.5, -0.2], [0.5, 1.0, 0.1], [-0.2, 0.1, 1.0]])
    figure = tokenizer_models.draw_similarity({"tiny": (cosines, {"rulers": ["a", "b"], "metal": ["c"]})}, "title")
    shown = figure.axes[0].images[0].get_array()
    assert np.isclose(shown[1, 0], 0.5)
    assert np.isclose(shown[2, 1], 0.1)
    assert shown.mask[0].all()
    assert labels(figure.axes[0].yaxis) == labels(figure.axes[0].xaxis) == ["rulers", "metal"]


@pytest.fixture
def shown(monkeypatch):
    """The titles of what is shown, in place of showing it."""
    kept = []

    def keep(figure, alt):
        assert len(alt.split()) >= 6
        kept.append((headline(figure), figure))

    for module in (building, models, tour):
        monkeypatch.setattr(module, "show_figure", keep)
    return kept


@pytest.fixture
def subject():
    config = dataclasses.replace(shrink("llama3-8b"), vocab_size=4096)
    return Subject("random", randomize(dl.Transformer(config)).requires_grad_(False), dl.load_tokenizer("tiny"))


@torch.no_grad()
def test_titles_of_the_tour_say_the_numbers_that_are_drawn(shown, subject, capsys):
    other = dataclasses.replace(subject, name="other")
    look.next_words("Once upon a time there was a king", subject, other)
    look.ride("Once upon a", subject)
    look.surprises("Once upon a", subject, None)
    (title, figure), (ride, rode), (loss, lost) = shown
    first = widths(figure.axes[0])[0]
    assert f"random gives {first:.3f} to" in title
    assert title.startswith("After '...")
    steps = heights(rode.axes[1])
    assert f"From {steps[0]:.3f} to {steps[-1]:.3f}: in 2 blocks 'Once upon a' comes to" in ride
    mean = np.mean(heights(lost.axes[0]))
    assert loss == f"Mean loss: random {mean:.2f} nats"
    assert f"random loses most at {labels(lost.axes[0].xaxis)[np.argmax(heights(lost.axes[0]))]}, " in (
        capsys.readouterr().out
    )
    look.surprises("Once upon a", subject, other)
    assert shown[-1][0].startswith(f"Mean loss: random {mean:.2f} nats, other {mean:.2f}")


def test_titles_of_the_six_words_are_computed(shown):
    look.six_logits()
    look.six_probabilities()
    look.six_losses()
    (logits, drawn), (softmax, _), (loss, _) = shown
    assert widths(drawn.axes[1]) == [3, 2, 1, 0, 0, -1]
    assert "␣time agrees best with x, +3" in logits
    p = torch.tensor([3.0, 2, 1, 0, 0, -1]).softmax(dim=-1)
    assert f"{p[0]:.3f} is 2.72 times {p[1]:.3f}" in softmax
    assert f"{-p[0].log():.2f} nats if ␣time comes, {-p[5].log():.2f} if , does" in loss


@torch.no_grad()
def test_titles_of_the_building_say_what_was_counted(shown, subject):
    tokenizer = subject.tokenizer
    look.three_cuts("The king's bird", tokenizer)
    look.counting("then he met the hen the other day")
    look.bricks(b" mountains", {tokenizer.token_bytes(t): t for t in range(tokenizer.bos_id)})
    look.bricks(b"xq", {bytes([byte]): byte for byte in range(256)})
    look.split_by_rules("It's 1234 (x)\n  y")
    look.conversation(tokenizer.encode_chat([{"role": "user", "content": "hi"}]), tokenizer)
    titles = [title for title, _ in shown]
    n_tokens = len(tokenizer.encode("The king's bird"))
    assert titles[0] == f"The same text: 15 bytes, 3 words, {n_tokens} tokens"
    assert titles[1] == "Joined, one after the other: he, the, ␣the, seen 6, 4, 3 times"
    assert titles[2] == "9 merges, the lowest rank first, make 1 token of ␣mountains"
    assert titles[3] == "0 merges, the lowest rank first, make 2 tokens of xq"
    pieces = regex.findall(SPLIT_PATTERN, "It's 1234 (x)\n  y")
    assert titles[4].startswith(f"6 rules split the text into {len(pieces)} pieces")
    assert texts(shown[4][1].axes[0])[: len(pieces)] == [
        piece.replace(" ", "␣").replace("\n", "⏎") for piece in pieces
    ]
    drawn = colours(shown[5][1].axes[0])
    put_in = [text for text, colour in zip(texts(shown[5][1].axes[0]), drawn, strict=True) if colour == "#d0d0d0"]
    assert "".join(put_in) == "user⏎⏎assistant⏎⏎"
    special = [colour == "#000000" for colour in drawn]
    assert titles[5].startswith(f"Of {len(special)} tokens {sum(special)} are special")


@torch.no_grad()
def test_another_cut_keeps_the_bytes_and_the_title_has_the_medians(shown, subject):
    text = "Once upon a time"
    for seed in range(3):
        ids = building._halved(subject.tokenizer.encode(text), subject.tokenizer, seed)
        assert subject.tokenizer.decode(ids) == text
        assert len(ids) > len(subject.tokenizer.encode(text))
    look.other_cuts(text, subject, draws=3)
    ((title, figure),) = shown
    learned, shuffled, halved, byte_wise = [np.median([x for x, _ in row]) for row in points(figure.axes[0])]
    assert title == (
        f"Bits per character: learned {learned:.1f}, shuffled {shuffled:.1f}, "
        f"cut otherwise {halved:.1f}, bytes {byte_wise:.1f}"
    )
    uncut = subject.tokenizer.encode(" king")
    assert building._halves(subject, [uncut], uncut) == (0, 0)
    pair = building._halved(uncut, subject.tokenizer, 0)
    assert len(pair) == 2
    costs = building._bits_each(subject, pair)
    assert building._halves(subject, [pair], uncut) == (costs[0], costs[1])
    assert math.isclose(building._bits(subject, pair), sum(costs))


def test_a_cut_by_fewer_pieces_is_that_of_the_list_cut_short():
    tokenizer = dl.load_tokenizer("tiny")
    figure = look.cut_by("a golden bird", tokenizer, 256, 500, 3840)
    n = len(tokenizer.encode("a golden bird"))
    assert headline(figure) == f"From 13 to {n} tokens, with 256 to 3,840 pieces"
    assert headline(look.cut_by("a golden bird", tokenizer, 256)) == "256 pieces: 13 tokens"


def test_what_is_taken_away_is_one_thing_at_a_time(shown):
    llama3 = dl.load_tokenizer("llama3")
    ranks = {llama3.token_bytes(token): token for token in range(llama3.bos_id)}
    more = look.taken_away(ranks)
    assert len(lists.pieces_by("1234567", ranks)) == 3
    assert len(lists.pieces_by("1234567", ranks, lists.SINGLE_DIGITS)) == 7
    assert len(lists.pieces_by("    x", ranks, lists.SINGLE_SPACES)) == 4
    assert b"".join(lists.pieces_by("(x.y):\n", ranks)).decode() == "(x.y):\n"
    assert lists.pieces_by("(x.y):\n", ranks, lists.SIGNS_APART) == [b"(", b"x", b".", b"y", b"):", b"\n"]
    assert len(lists.pieces_by("(x.y):\n", ranks)) < 6
    for pattern in (lists.SINGLE_SPACES, lists.SIGNS_APART):
        assert b"".join(lists.pieces_by(lists.CODE, ranks, pattern)).decode() == lists.CODE
    ((title, figure),) = shown
    assert [widths(ax) for ax in figure.axes] == [list(texts.values()) for texts in more.values()]
    smaller, digits, signs, _ = more.values()
    assert smaller["numbers"] == digits["eight other languages"] == 0
    assert signs["Python code"] > 3 * smaller["Python code"]
    assert f"size costs up to {max(more['first 32,000'].values()):+.0%}" in title
    assert f"digits {more['single digits']['numbers']:+.0%}" in title
    assert f"signs {more['signs apart']['Python code']:+.0%}" in title
    assert f"spaces {more['single spaces']['Python code']:+.0%}" in title


def test_languages_and_lists_say_what_is_drawn(shown, subject):
    llama3 = dl.load_tokenizer("llama3")
    look.languages(llama3, subject, None)
    drawn = [tuple(dot.get_offsets()[0].tolist()) for dot in shown[0][1].axes[0].collections]
    russian = list(look.SENTENCES).index("Russian")
    assert (len(subject.tokenizer.encode(look.SENTENCES["Russian"])), russian) in drawn
    english = len(llama3.encode(look.SENTENCES["English"]))
    assert shown[0][0].startswith(f"Llama 3 needs {english} tokens for the English sentence")
    gain = look.two_vocabularies(llama3)
    if gain:
        best = max(gain, key=gain.get)
        assert (
            shown[1][0]
            == f"A Llama 3 token holds {gain['our tale']:.0%} more of our tale, {gain[best]:.0%} more {best}"
        )


def test_tokens_never_met_come_together_in_the_output_table_alone(shown, capsys):
    tied = models._trained_tables(40, 8, 400, one_table=True)
    inputs, outputs = models._trained_tables(40, 8, 400, one_table=False)
    assert len(tied) == 1
    for start, end in (tied[0], outputs):
        assert models._apart(end[-8:]) < 0.1 * models._apart(start[-8:])
        assert models._apart(end[:-8]) > 10 * models._apart(end[-8:])
    assert torch.equal(inputs[0][-8:], inputs[1][-8:])
    look.never_met()
    ((title, figure),) = shown
    began, ended = (models._apart(rows[-8:]) for rows in outputs)
    end_of_title = f"{began:.1f} apart at first, {ended:.1f} at the end; input moved by 0.0"
    assert title == f"Rows never met: output {end_of_title}"
    assert len(figure.axes) == 3
    start, end = models._trained_tables(40, 8, 400, one_table=False, seed=1)[1]
    assert f"starts: {models._apart(start[-8:]):.1f} -> {models._apart(end[-8:]):.2f}, " in capsys.readouterr().out


def pretended(subject, how: str) -> Subject:
    """A model with an output table of its own, in which special tokens and 50 others look never met."""
    config = dataclasses.replace(subject.model.config, tie_embeddings=False)
    model = randomize(dl.Transformer(config)).requires_grad_(False)
    table, rows = model.output.weight, [*range(3000, 3050), *range(subject.tokenizer.bos_id, 4096)]
    generator = torch.Generator().manual_seed(3)
    if how == "zero":
        table[rows] = 0.0
    elif how == "short":
        table[rows] = 1e-3 * torch.randn(len(rows), table.shape[1], generator=generator)
    else:
        table[rows] = table[7] + 0.01 * torch.randn(len(rows), table.shape[1], generator=generator)
        table[7] = -table[7]
    return Subject(how, model, subject.tokenizer)


@pytest.mark.parametrize("how", ["zero", "short", "together"])
def test_untrained_tokens_are_found_in_the_output_table_of_an_untied_model(shown, subject, how, capsys):
    with torch.no_grad():
        model = pretended(subject, how)
        look.untrained(model)
        found = look.untrained_of(model)
    assert found[3000:3050].all()
    assert found[subject.tokenizer.bos_id :].all()
    assert found.sum() == 50 + 4096 - subject.tokenizer.bos_id
    ((title, figure),) = shown
    assert title == f"Tokens that look never met, special ones apart: 50 of {how}"
    n_special = len(subject.tokenizer.special_ids)
    printed = capsys.readouterr().out
    ringed, black = printed.splitlines()
    assert ringed.startswith(f"ringed in {how}: <|begin_of_text|>, <|end_of_text|>, ")
    assert ringed.endswith(f" and {n_special - 3} more")
    assert black.startswith(f"black in {how}: 0 bytes, 50 pieces such as ")
    assert figure.axes[0].get_title("left") == f"{how}, 4,096 tokens"


def test_a_model_that_was_never_trained_shows_no_clump(shown, subject, capsys):
    look.untrained(subject, None)
    assert shown == []
    assert "nothing shows how a row never met looks" in capsys.readouterr().out
    with pytest.raises(ValueError, match="random has no three special tokens"):
        look.untrained_of(subject)


def test_words_of_one_kind_are_compared_within_and_between(shown, subject, capsys):
    with torch.no_grad():
        look.alike(subject, None)
    ((title, figure),) = shown
    drawn = figure.axes[0].images[0].get_array()
    kinds = [
        i for i, words in enumerate(models.RELATED.values()) for _ in models._single(words, subject.tokenizer)
    ]
    assert drawn.shape == (27, 27)
    pairs = [(a, b) for a in range(27) for b in range(a)]
    within, between = (
        np.mean([drawn[pair] for pair in pairs if (kinds[pair[0]] == kinds[pair[1]]) is same])
        for same in (True, False)
    )
    assert title.endswith(f"random {within:.2f}, {between:.2f}")
    words, means = capsys.readouterr().out.splitlines()
    assert words.startswith("rulers: king queen prince princess; metal: gold")
    first = [drawn[pair] for pair in pairs if kinds[pair[0]] == kinds[pair[1]] == 0]
    assert means.startswith(f"random, within / to all others: rulers {np.mean(first):.2f} / ")
