"""Part 4's figures: what is drawn is what was given, and each says in words what it shows."""

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
from decoding_llama3.inspect import probe
from decoding_llama3.lessons import oracles, show, style
from decoding_llama3.lessons.figures import rope as figures
from decoding_llama3.lessons.figures import rope_models
from decoding_llama3.lessons.looks import rope as look
from decoding_llama3.lessons.looks.rope import layouts, lengths, mechanism, models
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
    assert [texts(ax) for ax in figure.axes] == [["2", "-1", "0", "3"], ["1", "5"], ["-3", "15"]]
    assert [label.get_text() for label in figure.axes[2].get_yticklabels()] == ["c?", "d?"]
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
    marks = {"integers": torch.arange(6.0).view(3, 2), "turned": torch.ones(3, 2)}
    changes = {"integers": torch.tensor([0.0, -4.0]), "turned": torch.zeros(2)}
    figure = figures.draw_attempts(marks, changes, "title")
    axes = np.array(figure.axes).reshape(2, 2)
    for column, name in enumerate(marks):
        assert np.array_equal(axes[0, column].images[0].get_array(), marks[name])
        assert lines(axes[1, column]) == [changes[name].tolist()]
        assert axes[0, column].get_title("left") == name
    colours = [to_hex(ax.lines[0].get_color()) for ax in axes[1]]
    assert colours == [style.WRONG.lower(), style.PREDICTION]  # what stays where it was is no fault


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
    ax, bar = figures.draw_phase_map(angles, 1, "title").axes
    assert np.allclose(ax.images[0].get_array(), angles.T % (2 * math.pi))
    assert texts(ax) == ["position 1"]
    assert ax.lines[0].get_xdata() == [1, 1]
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
    assert [line.get_ydata()[1] for line in second.lines] == [0.5, -0.5, 0, 0]


def test_layouts_join_the_same_pairs_in_both_orders():
    order = [0, 2, 1, 3]
    (ax,) = figures.draw_layouts(order, "title").axes
    names = [text for text in texts(ax) if text.startswith("$x_")]
    assert names == [f"$x_{i}$" for i in (0, 1, 2, 3, 0, 2, 1, 3)]
    arcs = [line for line in ax.lines if len(line.get_xdata()) > 2]
    ends = [sorted((round(line.get_xdata()[0].item()), round(line.get_xdata()[-1].item()))) for line in arcs]
    assert ends == [[0, 1], [2, 3], [0, 2], [1, 3]]  # neighbours above, halves below
    across = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 2]
    assert [list(line) for line in across] == [[0, 0], [2, 1], [1, 2], [3, 3]]
    assert f"order = {order}" in texts(ax)


def test_arcs_go_back_to_what_is_looked_at():
    trained, still = torch.eye(3), torch.eye(3)
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


def test_cosines_stand_over_their_sum():
    cosines = torch.tensor([[1.0, 5.0, 0.0], [0.1, 0.2, 0.3]])
    figure = rope_models.draw_one_back({"tiny, block 3, query 1": (cosines, 1)}, "title")
    above, below = figure.axes
    drawn = [line for line in lines(above) if len(line) == 3]
    assert np.allclose(drawn, cosines)
    assert [text.get_text() for text in above.get_legend().get_texts()] == ["pair 0"]
    total, (peak,) = lines(below)[0], lines(below)[1]
    assert np.allclose(total, [1.1, 5.2, 0.3])
    assert (peak, below.lines[1].get_xdata()) == (pytest.approx(5.2), [1])
    assert texts(below) == ["1 back"]


def test_bands_have_a_bar_per_model_and_band():
    panels = {"a tale": {"tiny": [0.5, 0.1], "SmolLM2": [0.7, 0.0]}, "a text": {"tiny": [0.6, 0.2]}}
    figure = rope_models.draw_bands(["fast", "slow"], panels, "title")
    tale, text = figure.axes
    assert (heights(tale), heights(text)) == ([0.5, 0.1, 0.7, 0.0], [0.6, 0.2])
    colours = [to_hex(bars[0].get_facecolor()) for bars in tale.containers]
    assert colours == [style.MODEL_COLOURS[name].lower() for name in ("tiny", "SmolLM2")]
    assert [label.get_text() for label in text.get_xticklabels()] == ["fast", "slow"]
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
    figure = rope_models.draw_long_text([64, 192], {"as trained": [3, 4], "slower": [3, 3]}, 128, "title")
    (ax,) = figure.axes
    assert lines(ax) == [[3, 4], [3, 3]]
    assert texts(ax) == ["longer than trained, 128"]
    assert ax.patches[0].get_x() == 128
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["as trained", "slower"]


def test_slowed_pairs_show_turns_and_angles():
    waves = torch.tensor([6.0, 60.0, 600.0]), torch.tensor([6.0, 90.0, 4800.0])
    reached = {"8 tokens": torch.tensor([9.0, 9.0, 1.0]), "16 tokens": torch.tensor([9.0, 9.0, 2.0])}
    left, right = rope_models.draw_slowed(waves, (1, 2), reached, "title").axes
    assert lines(left) == [wave.tolist() for wave in waves]
    assert texts(left) == ["kept", "blended", "slowed"]
    assert lines(right)[:2] == [[1], [2]]
    assert texts(right) == ["8 tokens", "16 tokens"]


@pytest.fixture
def shown(monkeypatch):
    """The titles of what is shown, and the rows of tables, in place of showing it."""
    found = []

    def keep(figure, alt):
        assert len(alt.split()) >= 6
        found.append((figure.get_suptitle().replace("\n", " "), figure))

    for module in (mechanism, layouts, models, lengths):
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
    (query, figure), (keys, _) = shown
    assert f"({', '.join(texts(figure.axes[2]))})" in query
    scores = mechanism.KEYS @ mechanism.WQ @ mechanism.BIRD
    assert scores[0] == scores[3]
    assert f"'golden' fits best, {scores.max():g}" in keys
    assert f"score {scores[0]:g}" in keys


def test_each_attempt_fails_the_wishes_that_the_text_says(shown):
    look.attempts()
    rows, (title, figure) = shown
    longest, step, change = ([float(cell.replace(",", "")) for cell in row[1:]] for row in rows)
    assert longest == [36, 2.04, 1.91, 1]
    assert step == [1, 2.45, 1, 1]
    assert change == [3882, 6.4, 2.42, 0]
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


def test_arrows_at_positions_of_the_readers_choice():
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
    look.fingerprints(tiny, show.TALE)
    traces = {row[0]: [float(cell) for cell in row[1:]] for row in shown[0]}
    at_0, _, _, first, second, few, late, loss = range(8)
    assert all(trace[first] == 0 for trace in traces.values())
    right = traces.pop("nothing")
    assert right[:7] == [1, 1, 1, 0, 0, 0, 0]
    moved = traces.pop("positions from 1")
    assert moved[at_0] < 1
    assert moved[second:] == right[second:]
    assert traces.pop("frequencies in bfloat16")[late] < 0.01
    at_once = [trace[second] for name, trace in traces.items() if "theta" not in name and "scaling" not in name]
    assert min(at_once) > 0.04
    assert max(at_once) == traces["other order of pairs"][second]
    for name in ("theta 50 times too large", "scaling where none belongs"):
        trace = traces[name]
        assert trace[second] < 0.02 < trace[few] < trace[late]
    assert traces["other order of pairs"][loss] > right[loss] + 1


def test_a_wrong_order_is_heard(shown, tiny):
    look.spoken(tiny, show.OPENING)
    right, wrong, still = shown[0]
    assert right[0] == "pairs in its order"
    assert float(wrong[1]) > float(right[1]) + 1
    assert abs(float(wrong[1]) - float(still[1])) < 0.2
    assert len({row[2] for row in shown[0]}) == 3


def test_the_looks_at_models_cope_with_one_and_with_two(shown):
    subject, other = random_subject(), random_subject("other", rope_theta=10_000.0)
    for subjects in ((subject, None), (subject, other)):
        look.looks_back("Once upon a time there was", *subjects)
        look.one_back(*subjects)
        look.theta_sweep("Once upon a time", *subjects, factors=(0.1, 1, 10))
        look.bands("Once upon a time", *subjects)
        look.one_back_controls(*subjects, draws=2)
    assert [len(found[1].axes) for found in shown if isinstance(found, tuple)] == [2, 2, 1, 2, 4, 4, 1, 2]
    assert [len(found) for found in shown if isinstance(found, list)] == [1, 2]


def test_titles_of_models_say_what_is_drawn(shown, tiny):
    look.looks_back(show.OPENING, tiny)
    look.one_back(tiny)
    look.theta_sweep(show.TALE, tiny)
    look.bands(show.TALE, tiny)
    back, peak, theta, bands = shown
    chosen = looks_one_back(tiny, show.TALE)
    assert (chosen.block, chosen.number) == (3, 1)
    here = look.asking(tiny, show.OPENING, 3, 1)
    shares = here.one_back(), here.one_back(turned=False)
    assert back[0] == "tiny's gives the token before {:.0%} turned, {:.0%} not turned".format(*shares)
    assert texts(peak[1].axes[1]) == ["1 back"]
    assert peak[0].endswith("tiny's 1 back")
    rises = lines(theta[1].axes[0])[0]
    assert theta[0].endswith(f"tiny {rises[0]:.2f} and {rises[-1]:.2f}")
    drawn = heights(bands[1].axes[0])
    assert f"worth {drawn[0]:.2f} (tiny)" in bands[0]
    assert bands[0].endswith(f"the slowest {drawn[-1]:.2f} (tiny)")


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
    assert near.mean() > losses.mean() + 0.1


def test_a_long_text_is_measured_under_six_rotations(shown):
    found = look.long_text(random_subject(), windows=1, bucket=32)
    (title, figure), rows = shown
    assert [row[2] for row in rows] == [f"{means['beyond']:.2f}" for means in found.values()]
    drawn = lines(figure.axes[0])
    assert len(drawn) == len(found) == 6
    assert [len(values) for values in drawn] == [6] * 6  # 192 tokens in buckets of 32
    rule = next(name for name in found if "rule" in name)
    numbers = re.findall(r"-?\d+\.\d+", title)
    assert numbers == [f"{found[name]['difference']:.2f}" for name in ("as trained", rule)]
    of_rule = drawn[list(found).index(rule)]
    assert np.isclose(np.average(of_rule[4:], weights=[32, 31]), found[rule]["difference"], atol=1e-5)
    control = next(name for name in found if "looking back" in name)
    assert (found[control]["difference"], found[control]["half"]) == (0, 0)


def test_decay_and_scaling_are_titled_by_their_curves(shown):
    look.decay()
    look.slowed_pairs()
    (decay, figure), (slowed, slow) = shown
    curves = {line.get_label(): line for line in figure.axes[0].lines if "theta" in line.get_label()}
    at = list(next(iter(curves.values())).get_xdata()).index(1024)
    for name, line in curves.items():
        assert f"{line.get_ydata()[at]:.2f} ({name})" in decay
    moved = figure.axes[0].lines[3]
    assert moved.get_xdata()[int(np.argmax(moved.get_ydata()))] == 64
    assert slowed.startswith("29 pairs are kept, 6 blended, 29 turn 8 times slower; in 131,072 tokens")
    reached = lines(slow.axes[1])[:2]
    assert np.allclose(reached, [[1] * 29, [2] * 29], atol=1e-3)


def test_another_rotation_than_ours_is_seen(monkeypatch, capsys):
    pytest.importorskip("transformers")
    q, k = torch.randn(1, 4, 6, 8), torch.randn(1, 2, 6, 8)
    oracles.compare_rope(q, k, 10_000.0)
    assert "Hugging Face's, in its order, = the package's" in capsys.readouterr().out
    monkeypatch.setattr(oracles, "apply_rope", look.rotate_by_halves)
    with pytest.raises(AssertionError):
        oracles.compare_rope(q, k, 10_000.0)
