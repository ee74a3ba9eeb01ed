"""Part 3's figures: what is drawn is what was given, and each says in words what it shows."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from conftest import randomize, shrink
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.text import Annotation

import decoding_llama3 as dl
from decoding_llama3.lessons import style
from decoding_llama3.lessons.figures import norm as figures
from decoding_llama3.lessons.figures import norm_gradients, norm_models
from decoding_llama3.lessons.looks import norm as look
from decoding_llama3.lessons.looks.norm import gradient, mechanism, models
from decoding_llama3.lessons.subject import Subject, present


@pytest.fixture(autouse=True)
def _close():
    style.use_style()
    yield
    plt.close("all")


def heights(ax) -> list[float]:
    return [bar.get_height() for bars in ax.containers for bar in bars]


def lines(ax) -> list[list[float]]:
    return [np.asarray(line.get_ydata(), dtype=float).tolist() for line in ax.lines]


def marked(bar) -> bool:
    return to_hex(bar.get_facecolor()) == style.MARKED.lower()


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_a_sum_shows_what_is_added_and_the_stream_after_it():
    figure = figures.draw_sum({"embedding": (1, 2), "attention 0": (0, -5)}, "two make one")
    (added, attention), (first, then) = np.array(figure.axes).reshape(2, 2)
    assert (heights(added), heights(attention)) == ([1, 2], [0, -5])
    assert (heights(first), heights(then)) == ([1, 2], [1, -3])
    assert texts(then) == ["1", "-3"]
    assert attention.get_title("left") == "attention 0"
    assert figure.get_suptitle() == "two make one"


def test_squares_show_the_numbers_their_squares_and_the_division():
    figure = figures.draw_squares(torch.tensor([3.0, -1.0]), "title")
    numbers, squared, divided = figure.axes
    assert heights(numbers) == [3, -1]
    assert heights(squared) == [9, 1]
    assert np.allclose(heights(divided), [3 / math.sqrt(5), -1 / math.sqrt(5)])
    assert "mean 5" in texts(squared)
    assert texts(divided) == ["1.34", "-0.45"]


def test_multiples_of_a_vector_are_drawn_before_and_after_the_division(shown):
    x = torch.tensor([3.0, -4.0])
    figure = figures.draw_scaled([x, -2 * x], "title")
    (one, two), (divided, turned) = np.array(figure.axes).reshape(2, 2)
    assert (heights(one), heights(two)) == ([3, -4], [-6, 8])
    size = math.sqrt(12.5)
    assert np.allclose(heights(divided), [3 / size, -4 / size])
    assert np.allclose(heights(turned), [-3 / size, 4 / size])
    assert two.get_title("left") == f"RMS {2 * size:g}"
    look.scaled([2, -4, 4, 0])
    ((title, _),) = shown
    assert title == "Times 1, 10, -10: after the division the same numbers, but for the sign"


def test_slopes_touch_the_loss_with_its_derivative_and_the_step_goes_against_it():
    (ax,) = norm_gradients.draw_slope([0.0, 2.0, 3.0], 0.25, "title").axes
    named = [text for text in texts(ax) if text.startswith("w =")]
    assert named == ["w = 0: gradient -4", "w = 2: gradient 0, no step", "w = 3: gradient +2"]
    tangents = [line for line in ax.lines if len(line.get_xdata()) == 2]
    slopes = [np.diff(line.get_ydata())[0] / np.diff(line.get_xdata())[0] for line in tangents]
    assert np.allclose(slopes, [-4, 0, 2])
    steps = [(text.xyann, text.xy) for text in ax.texts if isinstance(text, Annotation)]
    assert steps == [((0, 4), (1, 4)), ((3, 1), (2.5, 1))]


def test_a_norm_stands_in_the_branch_or_on_the_stream():
    figure = norm_gradients.draw_placements(("one", "two"), "title")
    before, after = ([t.get_position()[1] for t in ax.texts if t.get_text() == "norm"] for ax in figure.axes)
    assert all(height > 1 for height in before)
    assert after == [0, 0]
    assert len(before) == 2
    assert [texts(ax).count("one") for ax in figure.axes] == [1, 1]
    slopes = [[text for text in texts(ax) if text.startswith("×")] for ax in figure.axes]
    assert slopes == [["× 1"] * 2, ["× 1", "× w/RMS"] * 2]
    for ax in figure.axes:
        arrows = [(text.xyann, text.xy) for text in ax.texts if isinstance(text, Annotation)]
        assert ((11.9, 0), (0.1, 0)) in arrows  # the way back, on the stream


def test_growth_ends_in_a_cross_where_a_stack_overflows():
    left = {"with": ("black", [[1.0, 2.0, 3.0]]), "without": ("red", [[1.0, 1e20, math.inf], [1.0, 2e20, 3e30]])}
    panels = {"large": left, "small": {"with": ("black", [[1.0, 1.5, 2.0]])}}
    large, small = norm_figures(panels)
    calm, wild = lines(large)[:2]
    assert calm == [1, 2, 3]
    assert wild == [1, 1e20]
    crosses = [line for line in large.lines if line.get_marker() == "x"]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in crosses] == [(2, 1e38)]
    assert [text.get_text() for text in large.get_legend().get_texts()] == ["with", "without"]
    assert lines(small)[0] == [1, 1.5, 2]
    assert (large.get_title("left"), small.get_title("left")) == ("large", "small")
    assert large.get_ylim() == small.get_ylim()
    assert large.get_ylabel() == "size of the stream (RMS)"


def norm_figures(panels):
    return figures.draw_overflow(panels, 1e38, "title").axes


def test_bars_have_one_bar_per_feature_and_mark_the_loudest():
    x, weight = torch.tensor([1.0, -7.0, 2.0]), torch.tensor([0.5, 0.25, 2.0])
    arrives, divided, weights, read = figures.draw_bars([x, x / 2, x * 3], weight, 1, "title").axes
    for ax, scale in ((arrives, 1), (divided, 0.5), (read, 3)):
        assert heights(ax) == (scale * x).tolist()
        assert f"RMS {scale * math.sqrt(18):.2f}" in ax.get_title("left")
    assert heights(weights) == weight.tolist()
    assert weights.get_title("right") == "times 0.25, the median feature times 0.50"
    for ax in (arrives, divided, weights, read):
        assert [marked(bar) for bar in ax.containers[0]] == [False, True, False]
    assert divided.get_ylim() == read.get_ylim()
    assert divided.get_ylim()[0] < -21


def test_a_circle_shows_where_each_point_goes():
    points = torch.tensor([[3.0, 0.0], [0.0, -0.5]])
    divided = torch.tensor([[2**0.5, 0.0], [0.0, -(2**0.5)]])
    (circle,) = figures.draw_circle(points, divided, None, "title").axes
    ring = np.stack(circle.lines[0].get_data())
    assert np.allclose(np.linalg.norm(ring, axis=0), 2**0.5)
    drawn = [[*line.get_xdata(), *line.get_ydata()] for line in circle.lines[1:] if len(line.get_xdata()) == 1]
    assert np.allclose(
        drawn, [p for pair in zip(points, divided, strict=True) for p in torch.stack(pair).tolist()]
    )
    (ellipse,) = figures.draw_circle(points, divided, 2 * divided, "title").axes
    assert np.allclose(np.linalg.norm(np.stack(ellipse.lines[0].get_data()), axis=0), 2 * 2**0.5)


def test_a_plane_keeps_the_colour_of_a_point():
    points = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    colours = torch.tensor([0.1, 0.9])
    figure = figures.draw_plane(points, {"a": points + 1, "b": points + 2}, colours, 2, "title")
    for ax, added in zip(figure.axes, (0, 1, 2), strict=True):
        assert ax.collections[0].get_offsets().tolist() == (points + added).tolist()
        assert np.allclose(ax.collections[0].get_array(), colours)
    assert [ax.get_title("left") for ax in figure.axes] == ["before", "a", "b"]
    assert figure.axes[0].texts[0].xy == (2, 2)


def test_the_title_of_a_plane_says_what_the_norms_leave():
    cloud = torch.randn(160, 2, generator=torch.Generator().manual_seed(0))
    assert (
        look.plane(cloud, 0, 4).get_suptitle()
        == "Moved by 0, stretched 4 times: LayerNorm 2 places, RMSNorm a circle"
    )
    title = look.plane(cloud, 40, 1).get_suptitle().replace("\n", " ")
    found = re.search(r"LayerNorm 2 places, RMSNorm an arc of (\d+)°", title)
    angles = np.degrees(np.arctan2(*(cloud + 40).numpy().T[::-1]))
    assert found is not None
    assert abs(int(found[1]) - np.ptp(angles)) <= 1


def test_a_floor_has_a_curve_for_each_eps():
    sizes = torch.logspace(-3, 0, 20)
    (ax,) = figures.draw_floor(sizes, {0.0: torch.ones(20), 1e-5: sizes, 1e-6: sizes / 2}, "title").axes
    assert np.allclose(lines(ax), torch.stack([torch.ones(20), sizes, sizes / 2]))
    assert texts(ax) == ["eps 0", "eps 1e-05", "eps 1e-06"]


def test_precision_shows_both_lines():
    sizes = torch.tensor([1.0, 10.0])
    after = {"squares in float16": torch.tensor([1.0, 0.0]), "squares in float32": torch.ones(2)}
    (ax,) = figures.draw_precision(sizes, after, "title").axes
    assert lines(ax) == [[1, 0], [1, 1]]
    assert set(texts(ax)) == set(after)


def test_gradients_have_a_panel_for_each_start_and_one_scale():
    panels = {
        "large": {"pre": [[1, 2], [3, 4]], "post": [[5, 6], [70, 80]]},
        "small": {"pre": [[0.02, 0.03]], "post": [[0.04, 0.05]]},
    }
    left, right = norm_gradients.draw_gradients((2, 6), panels, "gradient", "title").axes
    assert lines(left) == [[1, 2], [3, 4], [5, 6], [70, 80]]
    assert lines(right) == [[0.02, 0.03], [0.04, 0.05]]
    assert left.get_ylim() == right.get_ylim() == (0.01, 100)
    assert [label.get_text() for label in left.get_yticklabels()] == ["0.01", "0.1", "1", "10", "100"]
    assert (left.get_title("left"), right.get_title("left")) == ("large", "small")
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["pre", "post"]


PLACES = ["attention 0", "feed-forward 0", "output"]


def test_depth_draws_each_token_in_three_stages_for_each_model():
    stages = [torch.arange(12.0).view(3, 4) + i for i in (1, 10, 100)]
    figure = norm_models.draw_depth({"tiny": (stages, PLACES), "other": (stages, PLACES)}, "title")
    assert [ax.get_title("left") for ax in figure.axes] == ["tiny", "other"]
    for ax in figure.axes:
        medians = [np.asarray(line.get_ydata()).tolist() for line in ax.lines if line.get_linewidth() == 2.2]
        assert all(stage[:, 1:].median(dim=1).values.tolist() in medians for stage in stages)
        first = [np.asarray(line.get_ydata()).tolist() for line in ax.lines if line.get_color() == style.MARKED]
        assert first == [stages[0][:, 0].tolist()]
        assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "out"]


def test_the_loudest_feature_has_a_line_for_what_arrives_and_one_for_each_reader():
    shares = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.6, 0.5])
    (ax,) = norm_models.draw_loudest({"tiny": (7, shares, PLACES)}, "title").axes
    arrives, attention, feed_forward, output = lines(ax)
    assert np.allclose(arrives, shares[0])
    assert np.allclose([*attention, *feed_forward, *output], shares[1])
    assert [line.get_xdata().tolist() for line in ax.lines[1:]] == [[0], [1], [2]]
    assert texts(ax) == ["feed-forward 0: 60%"]
    assert ax.get_title("left") == "tiny, feature 7"


def test_the_mean_lies_over_a_band_of_chance():
    shares, chance = torch.tensor([0.1, 0.2, 0.3]), torch.linspace(0, 1, 101).expand(3, -1)
    (ax,) = norm_models.draw_mean_direction({"tiny": (shares, chance, PLACES)}, "title").axes
    assert np.allclose(lines(ax)[0], shares)
    assert np.allclose(lines(ax)[1], chance.median(dim=1).values)
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert np.isclose(band.max(), 0.975)
    assert np.isclose(band[band > 0].min(), 0.025)


def test_weights_are_dots_with_their_median():
    weights = [torch.tensor([1.0, 2.0, 9.0]), torch.tensor([4.0, 3.0, 2.0]), torch.tensor([5.0, 6.0, 7.0])]
    (ax,) = norm_models.draw_weights({"tiny": (1, weights, PLACES)}, "title").axes
    drawn = lines(ax)
    assert [1, 2, 9] in drawn
    assert [2, 2] in drawn
    assert [text.get_text() for text in ax.figure.legends[0].get_texts()] == [
        "a feature",
        "the median feature",
        "the loudest feature",
    ]
    assert [np.asarray(line.get_ydata()).tolist() for line in ax.lines if line.get_color() == style.MARKED] == [
        [2, 3, 6]
    ]


@pytest.fixture
def shown(monkeypatch):
    """The titles of what is shown, in place of showing it."""
    titles = []

    def keep(figure, alt):
        assert len(alt.split()) >= 6
        titles.append((figure.get_suptitle(), figure))

    for module in (gradient, mechanism, models):
        monkeypatch.setattr(module, "show_figure", keep)
    return titles


@pytest.fixture
def subject():
    config = dataclasses.replace(shrink("llama3-8b"), vocab_size=4096)
    return Subject("random", randomize(dl.Transformer(config)).requires_grad_(False), dl.load_tokenizer("tiny"))


def test_titles_say_the_numbers_that_are_drawn(shown, subject):
    with torch.no_grad():
        look.bars(subject, "Once upon a", block=1)
    ((title, figure),) = shown
    arrives, _, _, read = map(heights, figure.axes)
    loudest = int(np.abs(arrives).argmax())
    shares = [x[loudest] ** 2 / np.square(x).sum() for x in (arrives, read)]
    words = title.replace("\n", " ")
    assert words == (
        f"' a': feature {loudest} is {shares[0]:.0%} of the squared length on arrival, "
        f"{shares[1]:.0%} as it is read"
    )


def test_growth_is_measured_with_and_without_norms(shown):
    with torch.no_grad():
        look.growth(draws=1)
    ((title, figure),) = shown
    large, small = figure.axes
    curves = {line.get_label(): np.asarray(line.get_ydata()) for line in large.lines}
    with_norms, without, straight = (
        next(curve for label, curve in curves.items() if label.startswith(kind))
        for kind in ("with norms", "without", "without, no product")
    )
    assert f"with norms: {with_norms[-1]:.1f} times" in curves  # from 1, by construction
    assert title.replace("\n", " ") == (
        f"Without norms 1 of 1 stacks overflow, the last at block {len(without)}; "
        f"with weights half as large 1 of 1 stacks overflow, the last at block {len(small.lines[1].get_ydata())}"
    )
    assert len(straight) == len(with_norms) == 25
    calm = np.asarray(small.lines[0].get_ydata())
    assert len(calm) == 61
    assert [text.get_text() for text in small.get_legend().get_texts()] == [
        f"with norms: {calm[-1]:.1f} times",
        "without",
    ]


def test_gradients_grow_as_the_title_says(shown):
    with torch.no_grad():
        grown = look.gradients(depths=(2, 8), draws=1)
    ((title, figure),) = shown
    pre, post = (line[1] / line[0] for line in lines(figure.axes[0]))
    (small,) = (line[1] / line[0] for line in lines(figure.axes[1])[1:])
    assert title.replace("\n", " ") == (
        f"From 2 to 8 blocks the gradient grows {post:.1f} times with post-norm, {pre:.1f} times with pre-norm; "
        f"with half the weights {small:.1f} times with post-norm"
    )
    assert math.isclose(grown["weights that keep a vector's size", "post-norm", "w_gate"], post, rel_tol=1e-5)
    assert len(grown) == 8


def test_placements_are_shown_with_their_norms(shown):
    look.placements()
    ((title, figure),) = shown
    on_stream = [sum(t.get_text() == "norm" and t.get_position()[1] == 0 for t in ax.texts) for ax in figure.axes]
    assert re.findall(r"\d+ (?:norms )?with \S+-norm", title.replace("\n", " ")) == [
        f"{on_stream[0]} norms with pre-norm",
        f"{on_stream[1]} with post-norm",
    ]


def test_every_look_copes_with_one_and_with_two_models(shown, subject):
    assert present(subject, None) == [subject]
    with torch.no_grad():
        for subjects in ((subject, None), (subject, dataclasses.replace(subject, name="other"))):
            look.depth("Once upon a time", *subjects)
            look.loudest("Once upon a time", *subjects)
            look.weights("Once upon a time", *subjects)
    assert [len(figure.axes) for _, figure in shown] == [1, 1, 1, 2, 2, 2]


def test_the_ways_back_are_measured_one_by_one(capsys):
    grown = look.ways_back(depths=(2, 6), draws=1)
    along, through, without_product = gradient.WAYS
    assert len(grown) == 6
    assert grown["post-norm", along] < grown["pre-norm", along] < 1
    whole = [gradient.first_gradients(n, "post-norm", 0, 1.0, ["feed_forward.w_gate"])[0] for n in (2, 6)]
    assert math.isclose(grown["post-norm", through], whole[1] / whole[0], rel_tol=1e-5)
    assert grown["post-norm", without_product] != grown["post-norm", through]


def test_a_detached_part_adds_and_hands_no_gradient_back():
    x = torch.tensor([2.0], requires_grad=True)
    with torch.enable_grad():
        y = x + gradient.Detached(torch.nn.Tanh())(x)
        y.backward()
    assert torch.allclose(y, x + x.tanh())
    assert x.grad == 1


def test_a_silenced_feature_is_heard_by_the_first_token_and_put_back(subject, capsys):
    ids, before = subject.ids("Once upon a time"), subject.model.tok_embeddings.weight.clone()
    names = [name for name, part in subject.model.named_modules() if isinstance(part, dl.RMSNorm)]
    with torch.no_grad():
        right = subject.model(ids)
        silent = models._loss_without(subject.model, ids, names, range(len(before[0])))
        look.exchanged_weight(subject, "Once upon a time", draws=2)
        assert torch.equal(subject.model(ids), right)
    flat = right.clone()
    flat[:, 1:] = 0  # all other tokens have no logit left
    expected = torch.nn.functional.cross_entropy(flat[0, :-1], ids[0, 1:])
    assert math.isclose(silent, expected.item(), rel_tol=1e-4)


def test_the_table_of_depth_names_the_tokens_that_are_long():
    sizes = torch.tensor([[6.0, 1.0, 1.0, 9.0, 9.0], [2.0, 2.0, 2.0, 2.0, 2.0], [8.0, 8.0, 8.0, 8.0, 9.0]])
    sizes[0, 2:] = torch.tensor([1.0, 9.0, 1.0])
    before = sizes[..., None] * torch.tensor([0.6, -1.0, 0.8]) * (3 / 2) ** 0.5
    assert list(models.in_numbers(before, ["BOS", "a", "b", "c", "c"]).values()) == [
        "4.0 times",
        "1",
        "6.0",
        "50% (feature 1)",
        "9.0",
        "50% (feature 1)",
        "1, all of them 'c'",
    ]
    assert list(models.in_numbers(torch.ones(3, 2, 4), ["BOS", "a"]).values())[-1] == "none"
    sizes[0] = torch.tensor([1.0, 1.0, 1.0, 9.0, 9.0])
    before = torch.cat([sizes, torch.ones(3, 3)], dim=1)[..., None]
    assert list(models.in_numbers(before, [*"abcdefgh"]).values())[-1] == "2: 1 × 'd', 1 × 'e'"


def test_features_by_chance_are_as_loud_as_the_one():
    read = torch.tensor([0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2])
    for seed in range(5):
        group = models.as_loud(read, 0, torch.Generator().manual_seed(seed))
        assert 0 not in group
        assert read[group].sum() >= 0.3 - 1e-6
        assert read[group[:-1]].sum() < 0.3


def test_nothing_is_left_undrawn_for_want_of_a_look():
    assert list(style.with_looks("ab", (1, 2, 3), (4, 5, 6))) == [("a", 1, 4), ("b", 2, 5)]
    with pytest.raises(ValueError, match="shorter"):
        list(style.with_looks("abc", (1, 2)))
