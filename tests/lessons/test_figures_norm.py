"""Part 3's figures: what is drawn is what was given, and each says in words what it shows."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import randomize, shrink
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

import decoding_llama3 as dl
from decoding_llama3.lessons import style
from decoding_llama3.lessons.figures import norm as figures
from decoding_llama3.lessons.figures import norm_models
from decoding_llama3.lessons.looks import norm as look
from decoding_llama3.lessons.looks.norm import mechanism, models
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
    assert title == "RMS 3, 30, 30: divided by it, the same numbers, up to the sign"


def test_slopes_touch_the_loss_with_its_derivative():
    (ax,) = figures.draw_slope([0.0, 3.0], "title").axes
    assert texts(ax) == ["w = 0: gradient -4", "w = 3: gradient +2"]
    tangents = [line for line in ax.lines if len(line.get_xdata()) == 2]
    slopes = [np.diff(line.get_ydata())[0] / np.diff(line.get_xdata())[0] for line in tangents]
    assert np.allclose(slopes, [-4, 2])


def test_growth_ends_where_a_stack_overflows():
    sizes = {"with norms": [[1.0, 2.0, 3.0]], "without": [[1.0, 1e20, math.inf]]}
    (ax,) = figures.draw_overflow(sizes, "title").axes
    calm, wild = lines(ax)[:2]
    assert calm == [1, 2, 3]
    assert wild[:2] == [1, 1e20]
    assert math.isnan(wild[2])
    assert {"with norms", "without"} < set(texts(ax))


def test_bars_have_one_bar_per_feature_and_mark_the_loudest():
    x = torch.tensor([1.0, -7.0, 2.0])
    figure = figures.draw_bars([x, x / 2, x * 3], 1, "title")
    for ax, scale in zip(figure.axes, (1, 0.5, 3), strict=True):
        assert heights(ax) == (scale * x).tolist()
        assert [marked(bar) for bar in ax.containers[0]] == [
            False,
            True,
            False,
        ]
        assert f"RMS {scale * math.sqrt(18):.2f}" in ax.get_title("left")


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
    assert len(figures.draw_circle(points, divided, 2 * divided, "title").axes) == 2


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


def test_gradients_have_a_panel_for_each_matrix():
    sizes = {"w_gate": {"before": [1, 2], "after": [3, 4]}, "wq": {"before": [5, 6], "after": [7, 8]}}
    left, right = figures.draw_gradients((2, 6), sizes, "title").axes
    assert (lines(left), lines(right)) == ([[1, 2], [3, 4]], [[5, 6], [7, 8]])
    assert (left.get_title("left"), right.get_title("left")) == ("w_gate", "wq")


PLACES = ["attention 0", "feed-forward 0", "output"]


def test_depth_draws_each_token_in_three_stages_for_each_model():
    stages = [torch.arange(6.0).view(3, 2) + i for i in (1, 10, 100)]
    figure = norm_models.draw_depth({"tiny": (stages, PLACES), "other": (stages, PLACES)}, "title")
    assert [ax.get_title("left") for ax in figure.axes] == ["tiny", "other"]
    for ax in figure.axes:
        medians = [line for line in lines(ax) if len(line) == 3]
        assert all(stage.median(dim=1).values.tolist() in medians for stage in stages)
        assert [label.get_text() for label in ax.get_xticklabels()] == PLACES


def test_the_loudest_feature_has_a_pair_of_bars_for_each_norm():
    shares = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6])
    (ax,) = norm_models.draw_loudest({"tiny": (7, shares, PLACES)}, "title").axes
    assert np.allclose(heights(ax), torch.cat(shares))
    assert ax.get_title("left") == "tiny, feature 7"


def test_the_mean_lies_over_a_band_of_chance():
    shares, chance = torch.tensor([0.1, 0.2, 0.3]), torch.linspace(0, 1, 101).expand(3, -1)
    (ax,) = norm_models.draw_mean_direction({"tiny": (shares, chance, PLACES)}, "title").axes
    assert np.allclose(lines(ax)[0], shares)
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert np.isclose(band.max(), 0.975)
    assert np.isclose(band[band > 0].min(), 0.025)


def test_weights_are_dots_with_their_median():
    weights = [torch.tensor([1.0, 2.0, 9.0]), torch.tensor([4.0]), torch.tensor([5.0])]
    (ax,) = norm_models.draw_weights({"tiny": (weights, PLACES)}, "title").axes
    drawn = lines(ax)
    assert [1, 2, 9] in drawn
    assert [2, 2] in drawn


@pytest.fixture
def shown(monkeypatch):
    """The titles of what is shown, in place of showing it."""
    titles = []

    def keep(figure, alt):
        assert len(alt.split()) >= 6
        titles.append((figure.get_suptitle(), figure))

    for module in (mechanism, models):
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
    arrives, _, read = map(heights, figure.axes)
    loudest = int(np.abs(arrives).argmax())
    shares = [x[loudest] ** 2 / np.square(x).sum() for x in (arrives, read)]
    words = title.replace("\n", " ")
    assert (
        words == f"' a': feature {loudest} is {shares[0]:.0%} of what arrives and {shares[1]:.0%} of what is read"
    )


def test_growth_is_measured_with_and_without_norms(shown):
    with torch.no_grad():
        look.growth(draws=1)
    ((title, figure),) = shown
    drawn = lines(figure.axes[0])
    assert f"they grow {drawn[0][-1]:.1f} times" in title.replace("\n", " ")  # from 1, by construction
    assert math.isnan(drawn[1][-1])
    assert np.isfinite(drawn[2]).all()


def test_every_look_copes_with_one_and_with_two_models(shown, subject):
    assert present(subject, None) == [subject]
    with torch.no_grad():
        for subjects in ((subject, None), (subject, dataclasses.replace(subject, name="other"))):
            look.depth("Once upon a time", *subjects)
            look.loudest("Once upon a time", *subjects)
            look.weights(*subjects)
    assert [len(figure.axes) for _, figure in shown] == [1, 1, 1, 2, 2, 2]


def test_the_weights_of_a_feature_are_put_back(subject, capsys):
    before = {name: weight.clone() for name, weight in subject.model.named_parameters()}
    with torch.no_grad():
        look.exchanged_weight(subject, "Once upon a time", draws=2)
    after = dict(subject.model.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_nothing_is_left_undrawn_for_want_of_a_look():
    assert list(style.with_looks("ab", (1, 2, 3), (4, 5, 6))) == [("a", 1, 4), ("b", 2, 5)]
    with pytest.raises(ValueError, match="shorter"):
        list(style.with_looks("abc", (1, 2)))
