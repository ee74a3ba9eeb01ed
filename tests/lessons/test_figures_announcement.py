"""The figures of Part 1's second half: what is drawn is what was given, and titles say it."""

import math

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

import decoding_llama3 as dl
from decoding_llama3.lessons import style
from decoding_llama3.lessons.figures import announcement as figures
from decoding_llama3.lessons.looks import announcement as look
from decoding_llama3.lessons.subject import Subject


@pytest.fixture(autouse=True)
def _close():
    style.use_style()
    yield
    plt.close("all")


@pytest.fixture
def shown(monkeypatch):
    """The titles of what is shown, in place of showing it."""
    kept = []

    def keep(figure, alt):
        assert len(alt.split()) >= 6
        kept.append((figure.get_suptitle().replace("\n", " "), figure))

    monkeypatch.setattr(look, "show_figure", keep)
    return kept


def bars(ax) -> list:
    return [bar for container in ax.containers for bar in container]


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def dots(ax) -> list[list[float]]:
    marked = [line for line in ax.lines if line.get_marker() == "o"]
    return [point for line in marked for point in np.stack(line.get_data()).astype(float).T.tolist()]


def labels(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def test_a_waterfall_starts_where_the_last_step_ended():
    (ax,) = figures.draw_waterfall([("old", 6_000_000_000), ("less", -500_000_000), ("more", 10**9)], "title").axes
    assert np.allclose([bar.get_height() for bar in bars(ax)], [6, -0.5, 1, 6.5])
    assert np.allclose([bar.get_y() for bar in bars(ax)], [0, 6, 5.5, 0])
    assert texts(ax) == ["6.000", "-500 million", "+1,000 million", "6.500"]


def test_gaps_are_dots_around_zero_with_their_names():
    (ax,) = figures.draw_gaps({"tuned": {"A": 40.0, "B": 8.0}, "base": {"C": -0.5, "D": 2.0}}, "title").axes
    assert dots(ax) == [[8, 0], [40, 0], [-0.5, 1], [2, 1]]
    assert {"B +8.0", "A +40.0", "C -0.5, D +2.0"} <= set(texts(ax))
    assert labels(ax.yaxis) == ["tuned", "base"]


def test_optima_are_dots():
    (ax,) = figures.draw_optima({"a law": 27.1, "again": 43.0, "another": 93.0}, "title", one_fit=2).axes
    assert dots(ax) == [[27.1, 0], [43, 1], [93, 2]]
    assert texts(ax) == ["27", "43", "93", "one fit"]
    assert labels(ax.yaxis) == ["a law", "again", "another"]
    bracket = next(line for line in ax.lines if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2)
    assert list(bracket.get_ydata()) == [0, 1]
    assert (ax.get_xscale(), ax.get_xlim()[0]) == ("linear", 0)


def test_a_law_has_its_curve_its_floor_and_its_marks():
    marks = {"here": (2e9, 2.5)}
    (ax,) = figures.draw_law([1e9, 1e10, 1e11], [3.0, 2.0, 1.8], 1.5, marks, "title", fitted=2e10).axes
    assert list(ax.lines[0].get_ydata()) == [3, 2]
    assert list(ax.lines[1].get_ydata()) == [2, 1.8]
    assert ax.lines[1].get_linestyle() == ":"
    assert set(ax.lines[2].get_xdata()) == {2e10}
    assert set(ax.lines[3].get_ydata()) == {1.5}
    assert dots(ax) == [[2e9, 2.5]]
    assert texts(ax) == [" beyond the fitted runs", "with endless text", "here"]


def test_only_the_answer_is_counted():
    (ax,) = figures.draw_counted([" a", "b", "c"], [1.0, 2.0, 3.0], 2, "title").axes
    assert [bar.get_height() for bar in bars(ax)] == [1, 2, 3]
    assert [to_hex(bar.get_facecolor()) == "#000000" for bar in bars(ax)] == [False, False, True]
    assert labels(ax.xaxis) == ["␣a", "b", "c"]
    assert {"read", "counted"} <= set(texts(ax))


def test_margins_show_before_after_and_the_change():
    figure = figures.draw_margins(
        {"preferred": (-7.0, -5.0), "other": (-50.0, -60.0)}, ("before", "after"), "title"
    )
    (ax,) = figure.axes
    assert dots(ax) == [[-7, 0], [-5, 0], [-50, 1], [-60, 1]]
    assert {"+2.0", "-10.0"} <= set(texts(ax))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["before", "after"]


def test_titles_say_what_is_drawn(shown):
    way, gaps = look.steps_to_the_8b(), look.gaps()
    times, (reached, floor) = look.optima(8.03e9), look.law(8.03e9)
    titles = [title for title, _ in shown]
    assert titles[
        0
    ] == f"Shared keys save {-way['shared keys'] / 1e6:,.0f} million, the wider feed-forward adds " + (
        f"{way['wider feed-forward'] / 1e6:,.0f} million"
    )
    low, high = min(gaps["tuned"].values()), max(gaps["tuned"].values())
    assert f"Ahead by {low:.0f} to {high:.0f} points" in titles[1]
    low, *others = times.values()
    assert f"{min(others):.0f} to {max(others):.0f} times past the optimum, or {low:.0f} by" in titles[2]
    assert floor < reached
    best = look.optimal_tokens(8.03e9, look.A, look.B, look.ALPHA, look.BETA)
    gained = look.law_of_loss(8.03e9, best) - reached
    assert f"91 times the text brings {gained:.2f} nats; the last 30-fold" in titles[3]
    assert f"the law's optimum, {best / 1e9:.0f} · 10⁹" in texts(shown[3][1].axes[0])


def test_the_8b_is_measured_as_the_notebook_says(shown):
    n = dl.LlamaConfig.from_preset("llama3-8b").n_params
    assert np.allclose(list(look.optima(n).values()), [27.1, 43.0, 75.0, 91.2, 93.4], atol=0.3)
    way = look.steps_to_the_8b()
    assert (-way["shared keys"], way["wider feed-forward"]) == (805_306_368, 1_308_622_848)
    half = 196 * math.sqrt(2 * 0.786 * 0.214 / 1172)
    assert math.isclose(look.points_by_chance("ARC-C"), half)


def test_the_optimum_has_the_least_loss_of_its_budget():
    n = 8.03e9
    tokens = look.optimal_tokens(n, look.A, look.B, look.ALPHA, look.BETA)
    here = look.law_of_loss(n, tokens)
    for factor in (0.9, 1.1):
        assert look.law_of_loss(factor * n, tokens / factor) > here


def test_cheaper_training_reaches_the_same_loss():
    n = 8.03e9
    size, tokens, cheaper = look.cheaper_training(n)
    assert math.isclose(look.law_of_loss(size, tokens), look.law_of_loss(n, look.READ), rel_tol=1e-4)
    assert math.isclose(cheaper * size * tokens, n * look.READ, rel_tol=1e-9)


def test_answers_are_measured_after_the_question(shown):
    model = dl.load_model("tiny")
    tiny = Subject("tiny", model, dl.load_tokenizer("tiny"))
    with torch.no_grad():
        losses = look.answer_losses(tiny, "Once upon a", " time there")
        unchanged, trained = look.preferences(tiny, "Once upon a", {"preferred": " time", "other": " the"})
        p = model(tiny.ids("Once upon a"))[0, -1].softmax(dim=-1)
    assert len(losses) == 2
    (time,) = tiny.tokenizer.encode(" time")
    assert math.isclose(losses[0], -p[time].log(), rel_tol=1e-3)
    assert math.isclose(unchanged, math.log(2))
    (_, counted), (title, drawn) = shown
    assert len(bars(counted.axes[0])) == 5
    (before, _), (after, _), (other_before, _), (other_after, _) = dots(drawn.axes[0])
    margin = after - before - (other_after - other_before)
    assert math.isclose(trained, math.log1p(math.exp(-0.1 * margin)), rel_tol=1e-6)
    assert f"m = {margin:.1f}, and the loss goes from {unchanged:.3f} to {trained:.3f}" in title
    assert title.startswith(f"Preferred {after - before:+.1f}, other {other_after - other_before:+.1f}")


def test_the_board_gives_the_chance_to_win():
    assert look.chance_to_win(0) == 0.5
    assert math.isclose(look.chance_to_win(30) + look.chance_to_win(-30), 1)
    assert math.isclose(look.chance_to_win(17), 0.524, abs_tol=5e-4)
    assert look.tokens_of_tiny() == 7_260_943
