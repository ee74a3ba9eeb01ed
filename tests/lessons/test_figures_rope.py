"""Part 4's figures: what is drawn is what was given, and each says in words what it shows."""

import copy
import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from conftest import randomize, shrink
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.patches import Wedge

import decoding_llama3 as dl
from decoding_llama3.inference.parts import with_parts
from decoding_llama3.inspect import probe
from decoding_llama3.lessons import oracles, show, style
from decoding_llama3.lessons.figures import rope as figures
from decoding_llama3.lessons.figures import rope_layouts, rope_models
from decoding_llama3.lessons.looks import rope as look
from decoding_llama3.lessons.looks.rope import counts, layouts, lengths, mechanism, models
from decoding_llama3.lessons.looks.rope.turning import looks_one_back, losses_under
from decoding_llama3.lessons.subject import Subject


@pytest.fixture(autouse=True)
def _close():
    style.use_style()
    with torch.no_grad():
        yield
    plt.close("all")


def lines(ax) -> list[list[float]]:
    return [np.asarray(line.get_ydata(), dtype=float).tolist() for line in ax.lines]


def heights(ax) -> list[float]:
    return [bar.get_height() for bars in ax.containers for bar in bars]


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts if text.get_text()]


def titles(figure) -> list[str]:
    return [ax.get_title("left") or ax.get_title("center") for ax in figure.axes]


def test_a_query_by_hand_shows_every_number_of_the_product():
    matrix, x = torch.tensor([[2.0, -1.0], [0.0, 3.0]]), torch.tensor([1.0, 5.0])
    figure = figures.draw_query_by_hand(matrix, x, (("a", "b"), ("c?", "d?"), "'w'"), "title")
    assert [texts(ax) for ax in figure.axes] == [["2", "-1", "0", "3"], ["1", "5", "×"], ["-3", "15", "="]]
    rows = [[label.get_text() for label in ax.get_yticklabels()] for ax in figure.axes]
    assert rows == [["c?", "d?"], ["a", "b"], ["= 2 · 1 + (−1) · 5", "= 0 · 1 + 3 · 5"]]
    minus, plus = (figure.axes[0].patches[i].get_facecolor() for i in (1, 0))
    assert minus[2] > minus[0]  # blue below 0
    assert plus[0] > plus[2]  # red above
    assert titles(figure) == ["the matrix, wq", "'w', x", "its query, q"]
    assert figure.get_suptitle() == "title"


def test_scores_by_hand_are_written_out_and_drawn():
    query, keys = torch.tensor([3.0, 1.0]), torch.tensor([[0.0, 2.0], [-1.0, -1.0]])
    plane, sums = figures.draw_scores_by_hand(query, keys, ["a", "saw"], "title").axes
    assert [bar.get_width() for bar in sums.containers[0]] == [2, -4]
    assert [text.strip() for text in texts(sums)] == ["3 · 0 + 1 · 2 = 2", "3 · −1 + 1 · −1 = -4"]
    assert texts(plane) == ["a", "saw", "query"]
    ends = [text.xy for text in plane.texts if text.get_text() == ""]
    assert ends == [(0, 2), (-1, -1), (3, 1)]


def test_attempts_show_marks_and_the_change_of_a_score():
    marks = {"integers": torch.arange(6.0).view(3, 2), "sines": -torch.ones(3, 2), "turned": torch.ones(3, 2)}
    changes = {"integers": torch.tensor([0.0, -40.0]), "sines": torch.tensor([0.0, 5.0]), "turned": torch.zeros(2)}
    figure = figures.draw_attempts(marks, changes, "title")
    axes = np.array(figure.axes).reshape(2, 3)
    for column, name in enumerate(marks):
        assert np.array_equal(axes[0, column].images[0].get_array(), marks[name])
        assert lines(axes[1, column]) == [changes[name].tolist()]
        assert axes[0, column].get_title("left") == name
    colours = [to_hex(ax.lines[0].get_color()) for ax in axes[1]]
    wrong = style.WRONG.lower()
    assert colours == [wrong, wrong, style.PREDICTION]  # what stays where it was is no fault
    assert {ax.get_ylim() for ax in axes[1]} == {(-6, 6)}  # one scale, by the second largest
    assert [texts(ax) for ax in axes[1]] == [["goes to 40"], [], []]


@pytest.mark.parametrize(("query", "key", "span"), [((0, 1), (1, 0), (0, 90)), ((1, 0), (0, 2), (0, 90))])
def test_the_wedge_lies_between_the_turned_arrows(query, key, span):
    figure = figures.draw_wedges({"here": ((5.0, 5.0), (6.0, 6.0), query, key)}, "title")
    (ax,) = figure.axes
    (wedge,) = (patch for patch in ax.patches if isinstance(patch, Wedge))
    assert np.allclose((wedge.theta1, wedge.theta2), span)
    assert texts(ax) == ["wedge 90°", "query", "key"]
    ends = [text.xy for text in ax.texts if text.get_text() == ""]
    assert ends == [(5, 5), query, (6, 6), key]
    assert titles(figure) == ["here"]


def test_a_wedge_takes_the_short_way_round():
    west = math.radians(170)
    turned = (math.cos(west), math.sin(west)), (math.cos(-west), math.sin(-west))
    (ax,) = figures.draw_wedges({"here": (*turned, *turned)}, "title").axes
    assert texts(ax)[0] == "wedge 20°"


def test_the_score_is_marked_at_its_distance():
    scores = torch.linspace(0, 24, 241)
    _, ax = figures.draw_wedge_and_score(((1.0, 0.0),) * 4, scores, 7, "title").axes
    curve, dot, _ = ax.lines
    assert np.allclose(curve.get_ydata(), scores)
    assert (*dot.get_xdata(), *np.round(dot.get_ydata(), 3)) == (7, 7)


def test_three_distances_have_a_dial_and_a_dot_each():
    scores = torch.linspace(0, 24, 241)
    arrows = {1: ((1.0, 0.0),) * 4, 7: ((1.0, 0.0), (0.0, 1.0)) * 2}
    figure = figures.draw_three_distances(arrows, scores, "title")
    one, seven, curve = figure.axes
    assert [texts(ax)[0] for ax in (one, seven)] == ["wedge 0°", "wedge 90°"]
    dots = [(line.get_xdata()[0], round(float(line.get_ydata()[0]), 3)) for line in curve.lines[1:]]
    assert dots == [(1, 1), (7, 7)]
    assert texts(curve) == ["1.00", "7.00"]
    assert titles(figure) == ["distance 1", "distance 7", ""]


def test_a_clock_has_a_dial_per_pair_and_a_hand_per_position():
    hands = torch.stack([torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.01]])])
    figure = figures.draw_clock(hands, ["fast", "slow"], "title")
    fast, slow = figure.axes
    assert lines(fast) == [[0, 0], [0, 1]]
    assert np.allclose(lines(slow), [[0, 0], [0, 0.01]])
    assert (texts(fast), texts(slow)) == (["0", "1"], ["0–1"])
    assert titles(figure) == ["fast", "slow"]


def test_a_phase_map_comes_back_after_a_turn():
    angles = torch.tensor([[0.0, 0.0], [7.0, 1.0], [14.0, 2.0]])
    near, ax, bar = figures.draw_phase_map(angles.repeat(5, 1), 1, "title").axes
    assert np.allclose(ax.images[0].get_array(), angles.repeat(5, 1).T % (2 * math.pi))
    assert np.allclose(near.images[0].get_array(), angles.repeat(5, 1)[:11].T % (2 * math.pi))
    assert [near.get_title("left"), ax.get_title("left")] == ["positions 0 to 10", "positions 0 to 14"]
    (frame,) = near.patches
    assert (frame.get_x(), frame.get_width(), frame.get_height()) == (0.5, 1, 2)
    assert [label.get_text() for label in bar.get_yticklabels()] == ["0", "π", "2π"]


def test_dials_draw_both_arrows_before_and_after():
    before = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 4.0], [4.0, 0.0]])
    after = tuple(-x for x in before)
    figure = figures.draw_dials(before, after, ([1.0, 2.0], [-3.0, 40.0]), "title")
    first, second = figure.axes
    ends = [[line.get_xdata()[1], line.get_ydata()[1]] for line in first.lines]
    assert ends == [[1, 0], [-1, 0], [0, 1], [0, -1]]  # to a scale each: both fill their dial
    assert [to_hex(line.get_color()) for line in first.lines] == [
        colour.lower() for colour in (style.QUERY, style.QUERY, style.KEY, style.KEY)
    ]
    assert titles(figure) == ["pair 0\n+1 → -3", "pair 1\n+2 → +40"]
    legend = figure.legends[0]
    key = dict(zip([text.get_text() for text in legend.get_texts()], legend.get_lines(), strict=True))
    assert list(key) == ["query", "key", "query, before the turn", "key, before the turn"]
    assert [to_hex(key[name].get_color()) for name in ("query", "key")] == [style.QUERY.lower(), style.KEY.lower()]
    assert key["key, before the turn"].get_alpha() < 1
    assert [line.get_ydata()[1] for line in second.lines] == [0.5, -0.5, 0, 0]


def test_layouts_join_the_same_pairs_in_both_orders():
    order = [0, 2, 1, 3]
    (ax,) = rope_layouts.draw_layouts(order, "title").axes
    names = [text for text in texts(ax) if text.startswith("$x_")]
    assert names == [f"$x_{i}$" for i in (0, 1, 2, 3, 0, 2, 1, 3)]
    arcs = [line for line in ax.lines if len(line.get_xdata()) > 2]
    ends = [sorted((round(line.get_xdata()[0].item()), round(line.get_xdata()[-1].item()))) for line in arcs]
    assert ends == [[0, 1], [2, 3], [0, 2], [1, 3]]  # neighbours above, halves below
    across = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 2]
    assert [list(line) for line in across] == [[0, 0], [2, 1], [1, 2], [3, 3]]
    assert f"order = {order}" in texts(ax)


def test_arcs_go_back_to_what_is_looked_at():
    trained, still = torch.zeros(3, 3), torch.zeros(3, 3)
    trained[2] = torch.tensor([0.09, 0.91, 0.0])
    still[2] = torch.tensor([0.91, 0.0, 0.09])
    figure = rope_models.draw_looks_back({"tiny": (["BOS", "a", "b"], trained, still)}, "title")
    above, below = figure.axes
    for ax, ends, colour in ((above, (2, 1), style.MARKED), (below, (2, 0), style.RESIDUAL)):
        (arc,) = ax.lines  # a share below 10 % has none
        assert np.allclose((arc.get_xdata()[0], arc.get_xdata()[-1]), ends)
        assert to_hex(arc.get_color()) == colour.lower()
        assert [label.get_text() for label in ax.get_xticklabels()] == ["BOS", "a", "b"]
    assert titles(figure) == ["tiny: turned", "tiny: not turned"]
    looped = rope_models.draw_looks_back({"x": (["BOS", "a", "b"], torch.eye(3), still)}, "title").axes[0]
    loops = [(line.get_xdata()[0], line.get_xdata()[-1]) for line in looped.lines]
    assert np.allclose(loops, [(1, 1), (2, 2)])  # each sees itself alone; the first cannot do otherwise
    key = [text.get_text() for text in figure.legends[0].get_texts()]
    assert key == ["share 10%", "share 50%", "share 100%", "to the token before"]


def test_cosines_stand_over_their_sum():
    cosines = torch.tensor([[1.0, 5.0, 0.0, 2.0, 0.0], [0.1, 0.2, 0.3, 0.2, 0.0]])
    figure = rope_models.draw_one_back({"tiny, block 3, query 1": (cosines, 1)}, "title")
    above, below = figure.axes
    drawn = [line for line in lines(above) if len(line) == 5]
    assert np.allclose(drawn, cosines)
    assert [text.get_text() for text in above.get_legend().get_texts()] == ["pair 0"]
    total, (peak,) = lines(below)[0], lines(below)[1]
    assert np.allclose(total, [1.1, 5.2, 0.3, 2.2, 0.0])
    assert (peak, below.lines[1].get_xdata()) == (pytest.approx(5.2), [1])
    note = "3 back: 3.0 lower, so e^-3.0 = 5.0%\nof the attention that 1 back gets"
    assert texts(below) == ["1 back: the peak", note]
    assert (*below.lines[2].get_xdata(), *below.lines[2].get_ydata()) == (3, pytest.approx(2.2))
    assert below.texts[1].xy == (3, pytest.approx(2.2))


def test_bands_have_a_bar_per_model_and_band():
    panels = {"a tale": {"tiny": [0.5, 0.1], "SmolLM2": [0.7, 0.0]}, "a text": {"short": [0.6, 0.2]}}
    figure = rope_models.draw_bands([["fast\n3 | 4", "slow\n1 | 2"], ["fast", "slow"]], panels, "title")
    tale, text = figure.axes
    assert (heights(tale), heights(text)) == ([0.5, 0.1, 0.7, 0.0], [0.6, 0.2])
    colours = [to_hex(bars[0].get_facecolor()) for bars in tale.containers]
    assert colours == [style.MODEL_COLOURS[name].lower() for name in ("tiny", "SmolLM2")]
    assert to_hex(text.containers[0][0].get_facecolor()) in [colour.lower() for colour in style.VARIANTS]
    assert [label.get_text() for label in text.get_xticklabels()] == ["fast", "slow"]
    assert [label.get_text() for label in tale.get_xticklabels()] == ["fast\n3 | 4", "slow\n1 | 2"]
    assert [label.get_text() for label in tale.get_legend().get_texts()] == ["tiny", "SmolLM2"]
    assert titles(figure) == ["a tale", "a text"]


def test_a_theta_sweep_has_a_line_per_model():
    (ax,) = rope_models.draw_theta_sweep({"tiny": {0.1: 2.0, 1: 0.0}, "x": {0.1: 3.0, 1: 0.0}}, "title").axes
    assert lines(ax)[:2] == [[2, 0], [3, 0]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["tiny", "x"]
    assert texts(ax) == ["trained with"]


def test_decay_draws_each_theta_and_the_turned_key():
    curves = {"theta 100": torch.tensor([1.0, 0.5]), "theta 10,000": torch.tensor([1.0, 0.9])}
    (ax,) = rope_models.draw_decay([0, 4], curves, ("turned", torch.tensor([0.2, 1.0])), "title").axes
    assert np.allclose(lines(ax)[:3], [[1, 0.5], [1, 0.9], [0.2, 1.0]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [*curves, "turned"]


def test_a_long_text_has_a_line_per_rotation_and_shows_the_trained_length():
    differences = {"as trained": [3.0, 4.0], "slower": [3.0, 3.0], "looking back less": [0.0, 0.0]}
    (ax,) = rope_models.draw_long_text([64, 192], differences, 128, "title").axes
    assert lines(ax) == list(differences.values())
    assert texts(ax) == ["longer than trained, 128", "looking back less", "slower", "as trained"]
    assert ax.patches[0].get_x() == 128
    ends = {text.get_text(): text.xy for text in ax.texts[1:]}
    assert ends == {"looking back less": (192, 0), "slower": (192, 3), "as trained": (192, 4)}
    assert [line.get_linewidth() for line in ax.lines] == [2, 2, 1]  # what all are compared with is thin


def test_slowed_pairs_show_turns():
    waves = torch.tensor([6.0, 60.0, 600.0]), torch.tensor([6.0, 90.0, 4800.0])
    (ax,) = rope_models.draw_slowed(waves, (1, 2), "title").axes
    assert lines(ax) == [wave.tolist() for wave in waves]
    assert texts(ax) == ["kept", "blended", "slowed"]
    assert (ax.patches[0].get_x(), ax.patches[0].get_width()) == (0.5, 1)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["Llama 3", "Llama 3.1"]


def test_a_mistake_is_dark_where_it_shows():
    cosines, errors = torch.tensor([[1.0, 0.2], [1.0, 1.0]]), torch.tensor([[0.0, 3.0], [0.0, 0.3]])
    figure = rope_layouts.draw_fingerprints(
        ["order", "theta"], (["0", "1"], cosines), (["1st", "2nd"], errors), "title"
    )
    left, right = figure.axes
    assert np.allclose(left.images[0].get_array(), 0.8 * (1 - cosines))
    assert np.allclose(right.images[0].get_array(), 0.8 * torch.tensor([[0.0, 1.0], [0.0, 0.2]]))
    assert (texts(left), texts(right)) == (["1.00", "0.20", "1.00", "1.00"], ["0.00", "3.00", "0.00", "0.30"])
    assert [label.get_text() for label in left.get_yticklabels()] == ["order", "theta"]
    assert [[label.get_text() for label in ax.get_xticklabels()] for ax in (left, right)] == [
        ["0", "1"],
        ["1st", "2nd"],
    ]


@pytest.fixture
def shown(monkeypatch):
    """The titles of what is shown, and the rows of tables, in place of showing it."""
    found = []

    def keep(figure, alt):
        assert len(alt.split()) >= 6
        found.append((figure.get_suptitle().replace("\n", " "), figure))

    for module in (mechanism, layouts, models, lengths, counts):
        monkeypatch.setattr(module, "show_figure", keep, raising=False)
        monkeypatch.setattr(module, "show_table", lambda rows, *_: found.append(list(rows)), raising=False)
    return found


def random_subject(name: str = "random", **changes) -> Subject:
    config = dataclasses.replace(shrink("llama3-8b"), vocab_size=4096, max_seq_len=64, **changes)
    return Subject(name, randomize(dl.Transformer(config)).requires_grad_(False), dl.load_tokenizer("tiny"))


@pytest.fixture(scope="module")
def tiny():
    return Subject("tiny", dl.load_model("tiny", dtype=torch.float32), dl.load_tokenizer("tiny"))


def test_toys_say_their_own_numbers(shown):
    look.query_by_hand()
    look.keys_by_hand()
    (query, figure), rows, (keys, _) = shown
    assert rows[-1] == ["'golden'", "(0, 2, 0)", "(2, 0)"]
    assert torch.equal(mechanism.VECTORS @ mechanism.WK.T, mechanism.KEYS)
    assert tuple((mechanism.WQ @ mechanism.BIRD).tolist()) == (3, 1)
    assert f"({', '.join(texts(figure.axes[2])[:2])})" in query
    scores = mechanism.KEYS @ mechanism.WQ @ mechanism.BIRD
    assert scores[0] == scores[3]
    assert f"'golden' fits best, {scores.max():g}" in keys
    assert f"score {scores[0]:g}" in keys


def test_each_attempt_fails_the_wishes_that_the_text_says(shown):
    look.attempts()
    rows, (title, figure) = shown
    *wishes, span = ([cell.split(" ") for cell in row[1:]] for row in rows)
    longest, step, change = ([float(number.replace(",", "")) for number, _ in row] for row in wishes)
    assert longest == [36, 2.04, 1.91, 1]
    assert step == [1, 2.45, 1, 1]
    assert change == [3882, 6.4, 2.42, 0]
    assert ["".join(mark for _, mark in row) for row in wishes] == ["✗✗✗✓", "✓✗✓✓", "✗✗✗✓"]
    assert span[-1] == ["-0.56", "to", "-0.56"]
    assert "3,882 (integers), 6.40 (binary), 2.42 (sines), 0.00 (turned)" in title
    drawn = [max(map(abs, lines(ax)[0])) for ax in figure.axes[4:]]
    assert np.allclose(drawn, change, atol=0.6)


def test_the_wedge_stays_and_its_title_says_how_wide_it_is(shown):
    look.wedges()
    ((title, figure),) = shown
    spans = [next(p for p in ax.patches if isinstance(p, Wedge)) for ax in figure.axes]
    widths = [wedge.theta2 - wedge.theta1 for wedge in spans]
    assert np.allclose(widths, widths[0])
    assert f"stays {widths[0]:.0f}°, the score 1.07" in title
    look.wedges([(7, 0), (8, 0)])
    assert "/" in shown[1][0]  # another distance, another wedge: the title does not hide it


def test_arrows_at_positions_of_the_readers_choice(shown):
    look.three_distances(1, 4)
    ((title, figure),) = shown
    dots = [line.get_ydata()[0] for line in figure.axes[2].lines[1:]]
    assert title == f"The score by distance: {dots[0]:.2f} at 1, {dots[1]:.2f} at 4"
    for m, n in ((1, 0), (7, 0), (4007, 4000)):
        figure = look.wedge_at(m, n)
        (_, right) = figure.axes
        dot = right.lines[1].get_ydata()[0]
        assert figure.get_suptitle() == f"Query at {m:,}, key at {n:,}: distance {m - n}, score {dot:.2f}"


def test_clock_and_map_are_titled_by_what_they_draw(shown, tiny):
    look.clock(tiny)
    angles = torch.outer(torch.arange(512.0), probe.pair_frequencies(tiny.model))
    look.phase_map(angles, 3)
    look.dials((torch.ones(4), torch.ones(4)), (torch.ones(4), -torch.ones(4)), "two")
    clock, phases, dials = shown
    assert clock[0] == "Pair 0 turns once in 6 tokens, pair 15 in 35,333"
    assert titles(clock[1])[-1] == "pair 15: a turn in\n35,333 tokens"
    assert phases[1].axes[1].images[0].get_array().shape == (16, 512)  # all that the title counts over
    assert phases[0].endswith(f"pair 15 {angles[-1, -1] / (2 * math.pi):.2f} times")
    assert dials[0] == "two: their score is +4 before the turn and -4 after it"


def test_the_layouts_are_those_of_the_converter(shown):
    look.pair_layouts(8)
    ((title, figure),) = shown
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    assert f"order = {order}" in texts(figure.axes[0])
    assert title.endswith("feature 1 is row 1 here and row 4 there")
    x = torch.randn(1, 2, 5, 8)
    rotation = dl.rope_rotation(dl.rope_frequencies(8, 100.0), torch.arange(5))
    theirs = look.rotate_by_halves(x[..., order], rotation)
    torch.testing.assert_close(theirs, dl.apply_rope(x, rotation)[..., order])


def test_each_mistake_leaves_the_trace_that_the_text_reads(shown, tiny):
    traces = look.fingerprints(tiny, show.TALE)
    ((title, figure),) = shown
    left, right = figure.axes
    assert texts(right)[:4] == ["0.00", *(f"{traces['order of the pairs'][at]:.2f}" for at in list(PLACES)[1:])]
    assert texts(left)[:3] == [f"{traces['order of the pairs'][at]:.2f}" for at in ("0", "1", "100")]
    seconds = len(tiny.ids(show.TALE).unique())
    second = traces["order of the pairs"]["2nd"]
    assert title.endswith(f"'order of the pairs' is off by {second:.2f} nats in the median of {seconds} tokens")
    assert all(x["2nd, low"] <= x["2nd"] <= x["2nd, high"] for x in traces.values())
    assert all(trace["1st"] < 1e-3 for trace in traces.values())
    right = traces.pop("nothing")
    assert all(abs(right[at] - 1) < 1e-5 for at in ("0", "1", "100"))
    assert all(right[place] == 0 for place in PLACES)
    moved = traces.pop("positions counted from 1")
    assert moved["0"] < 0.98
    assert all(moved[place] < 1e-3 for place in PLACES)
    slowly = [traces.pop(name) for name in ("theta 50 times too large", "scaling that does not belong")]
    assert min(trace["2nd"] for trace in traces.values()) > 0.04
    assert max(trace["2nd"] for trace in traces.values()) < traces["order of the pairs"]["2nd"] + 1e-3
    assert all(trace["2nd"] < trace["3rd to 10th"] < trace["101st on"] for trace in slowly)
    assert max(trace["2nd"] for trace in slowly) < min(trace["2nd"] for trace in traces.values()) / 2
    assert traces["order of the pairs"]["loss"] > right["loss"] + 1
    assert traces["the same, counted from 1,000"]["0"] < 0.5  # its first query is turned wrongly, too


PLACES = ("1st", "2nd", "3rd to 10th", "101st on")


def test_a_wrong_order_is_heard(shown, tiny):
    look.spoken(tiny, show.OPENING)
    right, wrong, reverse, still = shown[0]
    assert right[0] == "order fits"
    assert min(float(wrong[1]), float(reverse[1])) > float(right[1]) + 0.8
    assert abs(float(wrong[1]) - float(still[1])) < 0.2
    assert len({row[2] for row in shown[0]}) == 4


def test_the_reverse_mistake_is_that_of_converted_weights(tiny):
    ids, head_dim = tiny.ids("Once upon a time"), tiny.model.config.head_dim
    order = [*range(0, head_dim, 2), *range(1, head_dim, 2)]
    converted = copy.deepcopy(tiny.model)
    for block in converted.layers:
        for part in (block.attention.wq, block.attention.wk):
            part.weight.copy_(part.weight.unflatten(0, (-1, head_dim))[:, order].flatten(0, 1))
    ours = with_parts(tiny.model, rotate=layouts.rotate_reversed)(ids)
    torch.testing.assert_close(ours, converted(ids), rtol=0, atol=1e-3)


def test_the_looks_at_models_cope_with_one_and_with_two(shown):
    subject, other = random_subject(), random_subject("other", rope_theta=10_000.0)
    for subjects in ((subject, None), (subject, other)):
        look.looks_back("Once upon a time there was", *subjects)
        look.one_back(*subjects)
        look.theta_sweep("Once upon a time", *subjects, factors=(0.1, 1, 10))
        look.bands("Once upon a time", *subjects)
        look.one_back_controls(*subjects, draws=2)
    assert [len(found[1].axes) for found in shown if isinstance(found, tuple)] == [2, 2, 1, 2, 4, 4, 1, 2]
    assert [len(found) for found in shown if isinstance(found, list)] == [2, 1, 1, 4, 2, 2]


def test_titles_of_models_say_what_is_drawn(shown, tiny):
    look.looks_back(show.OPENING, tiny)
    look.one_back(tiny)
    look.theta_sweep(show.TALE, tiny)
    look.bands(show.TALE, tiny)
    back, rows, peak, theta, bands, slowest = shown
    chosen = looks_one_back(tiny, show.TALE)
    assert (chosen.block, chosen.number) == (3, 1)
    here = look.asking(tiny, show.OPENING, 3, 1)
    shares = here.one_back(), here.one_back(turned=False)
    title = "Mean attention to the token before: turned {:.0%}, not turned {:.0%} (tiny)"
    assert back[0] == title.format(*shares)
    words, looked_at = tiny.words(show.OPENING), here.shares().argmax(dim=-1).tolist()
    others = [words[m] for m in range(1, len(words)) if looked_at[m] != m - 1]
    assert rows[0][1] == f"{len(words) - 1 - len(others)} of {len(words) - 1} tokens"
    assert re.findall(r"'([^']+)' at", rows[0][2]) == others
    still = here.shares(turned=False).argmax(dim=-1).tolist()
    found = sum(still[m] == m - 1 for m in range(1, len(words)))
    assert rows[1] == ["tiny, block 3, query 1, not turned", f"{found} of {len(words) - 1} tokens", ""]
    assert texts(peak[1].axes[1])[0] == "1 back: the peak"
    assert peak[0].endswith("tiny's 1 back")
    rises = lines(theta[1].axes[0])[0]
    assert f"cost {rises[0]:.2f} and {rises[-1]:.2f} (tiny) nats" in theta[0]
    drawn = heights(bands[1].axes[0])
    assert f"raises the loss of the tale by {drawn[0]:.2f} (tiny)" in bands[0]
    assert bands[0].endswith(f"the slowest by {drawn[-1]:.2f} (tiny)")
    names = [label.get_text() for label in bands[1].axes[0].get_xticklabels()]
    assert [re.findall(r"\((\d+) pairs\)", name) for name in names] == [["3"], ["4"], ["4"], ["5"]]
    one_query = models._cost_of_one_query(tiny, tiny.ids(show.TALE), torch.arange(16) >= 11)
    assert slowest == [["tiny", 5, f"{drawn[-1]:.2f}", f"{one_query:.2f}", "0.00"]]


def test_a_mean_query_changes_what_the_pairs_ask(tiny):
    ids = tiny.ids(show.TALE)
    none, every = torch.zeros(16, dtype=torch.bool), torch.ones(16, dtype=torch.bool)
    assert models._cost_of_one_query(tiny, ids, none) == 0
    assert models._cost_of_one_query(tiny, ids, every) > 0.5
    assert models._cost_of_one_query(tiny, ids, every) != models._cost_without(tiny, ids, every)


def test_pairs_taken_out_leave_the_scores(tiny):
    ids = tiny.ids(show.TALE)
    none, every = torch.zeros(16, dtype=torch.bool), torch.ones(16, dtype=torch.bool)
    assert models._cost_without(tiny, ids, none) == 0
    assert models._cost_without(tiny, ids, every) > 1  # every score 0: all tokens are looked at alike


def test_what_a_query_looks_at_is_what_the_model_computes(tiny):
    text = "Once upon a time there was a king"
    weights = probe.attention_weights(tiny.model, tiny.ids(text))
    for block, number in ((3, 1), (5, 6)):
        shares = look.asking(tiny, text, block, number).shares()
        torch.testing.assert_close(shares, weights[block][0, number], rtol=0, atol=1e-5)


def test_losses_under_its_own_rotation_are_the_models(tiny):
    ids, own = tiny.ids(show.TALE), probe.pair_frequencies(tiny.model)
    losses = losses_under(tiny.model, ids, own)
    assert losses.mean().item() == pytest.approx(probe.loss_of(tiny.model, ids), abs=1e-5)
    torch.testing.assert_close(losses_under(tiny.model, ids, own, reach=999), losses, rtol=0, atol=1e-4)
    near = losses_under(tiny.model, ids, own, reach=4)
    torch.testing.assert_close(near[:, :4], losses[:, :4], rtol=0, atol=1e-4)  # four tokens back is all there is
    assert (near[0, 4] - losses[0, 4]).abs() > 1e-2  # the fifth token no longer sees the first
    assert near.mean() > losses.mean() + 0.1


def test_a_long_text_is_measured_under_six_rotations(shown):
    found = look.long_text(random_subject(), windows=1, bucket=32)
    (title, figure), rows = shown
    assert [row[2] for row in rows] == [f"{means['beyond']:.2f}" for means in found.values()]
    assert [row[3] for row in rows] == [f"{x['between']:+.2f} ± {x['between_half']:.2f}" for x in found.values()]
    drawn = lines(figure.axes[0])
    assert len(drawn) == len(found) == 6
    assert [len(values) for values in drawn] == [6] * 6  # 192 tokens in buckets of 32
    rule = next(name for name in found if "rule" in name)
    numbers = re.findall(r"-?\d+\.\d+", title)
    assert numbers == [f"{found[name]['difference']:.2f}" for name in ("as trained", rule)]
    of_rule = drawn[list(found).index(rule)]
    assert np.isclose(np.average(of_rule[4:], weights=[32, 31]), found[rule]["difference"], atol=1e-5)
    control = next(name for name in found if "seeing the last" in name)
    assert (found[control]["difference"], found[control]["half"]) == (0, 0)


def test_decay_and_scaling_are_titled_by_their_curves(shown):
    look.decay()
    look.slowed_pairs()
    (decay, figure), (slowed, slow) = shown
    curves = {line.get_label(): line for line in figure.axes[0].lines if "theta" in line.get_label()}
    at = list(next(iter(curves.values())).get_xdata()).index(1024)
    *plain, dashed = curves.items()
    for name, line in plain:
        assert f"{line.get_ydata()[at]:.2f} ({name})" in decay
    assert dashed[0] == f"{plain[-1][0]}, key turned by 64"
    moved = figure.axes[0].lines[3]
    assert moved.get_xdata()[int(np.argmax(moved.get_ydata()))] == 64
    assert slowed.startswith("29 pairs are kept, 6 blended, 29 turn 8 times slower; in 131,072 tokens")
    assert slowed.endswith("reach 2.0 times their largest trained angle")
    before, after = lines(slow.axes[0])[:2]
    assert np.isclose(after[-1] / before[-1], 8)


def test_an_interval_takes_stretches_as_one():
    differences = torch.tensor([[0.0, 0.0, 2.0, 2.0, 4.0, 4.0, 6.0, 6.0]])
    mean, half = lengths._mean_and_half(differences, 2)  # means 0, 2, 4, 6: their std is 2.582
    assert mean == 3
    assert half == pytest.approx(1.96 * 2.582 / 2, abs=1e-3)


def test_a_table_of_counts_knows_what_it_is_said_to_know():
    alternating = torch.arange(200) % 2
    assert counts._loss_of_counts(alternating, alternating, 0, 2) == pytest.approx(math.log(2), abs=1e-3)
    assert counts._loss_of_counts(alternating, alternating, 1, 2) < 0.02  # the character before says all
    pairs = torch.tensor([0, 0, 1, 1]).repeat(100)
    assert counts._loss_of_counts(pairs, pairs, 1, 2) == pytest.approx(math.log(2), abs=0.01)
    assert counts._loss_of_counts(pairs, pairs, 2, 2) < 0.03


def test_the_yardstick_has_models_and_counts_in_the_order_of_their_losses(shown):
    losses = look.yardstick()
    (rows,) = shown
    assert [row[0] for row in rows] == sorted(losses, key=losses.get, reverse=True)
    assert {name.split(":")[0] for name in losses} == {"all characters equally probable", "counts", "model"}


def test_another_rotation_than_ours_is_seen(monkeypatch, capsys):
    pytest.importorskip("transformers")
    q, k = torch.randn(1, 4, 6, 8), torch.randn(1, 2, 6, 8)
    oracles.compare_rope(q, k, 10_000.0)
    assert "Hugging Face's, in its order, = the package's" in capsys.readouterr().out
    monkeypatch.setattr(oracles, "apply_rope", look.rotate_by_halves)
    with pytest.raises(AssertionError):
        oracles.compare_rope(q, k, 10_000.0)
