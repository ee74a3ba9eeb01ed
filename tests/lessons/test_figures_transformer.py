"""Part 7's figures: what is drawn is what was given, and each says in words what it shows."""

import dataclasses
import itertools
import math
import re

import numpy as np
import pytest
import torch
from conftest import randomize, shrink
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

import decoding_llama3 as dl
from decoding_llama3.experiments.ablation.statistics import Difference
from decoding_llama3.inspect import probe
from decoding_llama3.lessons import show, style
from decoding_llama3.lessons.figures import transformer as figures
from decoding_llama3.lessons.figures import transformer_further as further
from decoding_llama3.lessons.figures import transformer_models as of_models
from decoding_llama3.lessons.looks import transformer as look
from decoding_llama3.lessons.looks.transformer import build, models
from decoding_llama3.lessons.looks.transformer import further as further_looks
from decoding_llama3.lessons.subject import Subject


@pytest.fixture(autouse=True)
def _close():
    style.use_style()
    with torch.no_grad():
        yield
    plt.close("all")


def widths(ax) -> list[float]:
    return [bar.get_width() for bars in ax.containers for bar in bars]


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def labels(ax) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def arrows(ax) -> list[tuple]:
    """Start, end and colour of each arrow."""
    found = [text for text in ax.texts if text.arrow_patch is not None and not text.get_text()]
    return [(text.xyann, text.xy, to_hex(text.arrow_patch.get_edgecolor())) for text in found]


def one_line(figure) -> str:
    return figure.get_suptitle().replace("\n", " ")


def test_wirings_are_bars_of_their_losses_the_trained_one_black():
    figure = figures.draw_wirings({"as trained": 3.2, "no sum": 10.5}, 8.3, "title")
    (ax,) = figure.axes
    assert widths(ax) == [3.2, 10.5]
    assert [to_hex(bar.get_facecolor()) for bar in ax.containers[0]] == ["#000000", style.WRONG.lower()]
    assert {"3.2", "10.5", "knowing nothing: 8.3"} <= set(texts(ax))
    assert one_line(figure) == "title"


def test_the_ladder_writes_each_shape_and_wider_tensors_are_wider():
    rungs = [("t", "token", [(5,), (5,)]), ("x", "stream", [(5, 8), (5, 64)]), ("z", "logits", [(5, 99), (5, 9)])]
    small, large = figures.draw_shape_ladder(rungs, ("tiny", "8B"), range(1, 2), "title").axes
    assert texts(small) == ["(5,)", "(5, 8)", "(5, 99)"]
    assert texts(large) == ["(5,)", "(5, 64)", "(5, 9)"]
    assert labels(small) == ["t", "x", "z"]
    assert widths(small) == sorted(widths(small))
    assert np.argmax(widths(large)) == 1
    assert math.isclose(widths(small)[2], 1)  # the widest of all


def test_the_model_made_by_hand_shows_who_wrote_what():
    x = torch.tensor([[1.0, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 2]])
    figure = figures.draw_by_hand({"a": x, "b": x}, ("so", "on"), ("on", "nothing"), "title")
    first, second, said = figure.axes
    written = [patch for patch in first.patches if to_hex(patch.get_facecolor()) != "#f2f2f2"]
    assert [(patch.get_x() + 0.45, patch.get_y() + 0.4) for patch in written] == [(0, 0), (1, 1), (2, 1), (5, 1)]
    colours = [style.RESIDUAL, style.RESIDUAL, style.QUERY, style.FEED_FORWARD]
    assert [to_hex(patch.get_facecolor()) for patch in written] == [colour.lower() for colour in colours]
    assert [text for text in texts(first) if text.isdigit()] == ["1", "1", "1", "2"]
    assert labels(said) == ["says on", "says nothing"]
    assert labels(first) == ["so", "on"]
    assert second.get_title("center") == "b"


def test_looked_up_rows_are_drawn_and_what_is_alike_is_marked():
    x = torch.arange(6.0).view(3, 2)
    ax, _ = figures.draw_looked_up(x, ["a", "b", "a"], [0, 2], "title").axes
    assert ax.images[0].get_array().tolist() == x.tolist()
    assert [to_hex(tick.get_color()) == style.MARKED.lower() for tick in ax.get_yticklabels()] == [
        True,
        False,
        True,
    ]


def test_two_writes_are_arrows_tip_to_tail_with_their_sum():
    (ax,) = figures.draw_two_writes((3.0, 0.0), (1.0, 4.0), "' a'", "title").axes
    drawn = arrows(ax)
    assert [(start, end) for start, end, _ in drawn] == [
        ((0, 0), (4, 4)),
        ((0, 0), (3, 0)),
        ((3, 0), (4, 4)),
    ]
    assert [colour for _, _, colour in drawn] == [
        colour.lower() for colour in (style.RESIDUAL, style.QUERY, style.FEED_FORWARD)
    ]
    assert {"x of ' a'", "h = x + A", "x' = h + F"} <= set(texts(ax))


def test_a_walk_has_an_arrow_for_each_write():
    path = torch.tensor([[0.0, 0], [1, 0], [1, 5], [3, 5]])
    parts = ["attention 0", "feed-forward 0", "attention 1"]
    (ax,) = figures.draw_walk(path, parts, " time", "title").axes
    drawn = arrows(ax)
    assert [list(start) for start, _, _ in drawn] == path[:-1].tolist()
    assert [list(end) for _, end, _ in drawn] == path[1:].tolist()
    assert [colour for _, _, colour in drawn][1] == style.FEED_FORWARD.lower()
    assert ax.get_xlabel() == "towards the word ' time'"


def test_logits_are_counted_and_the_largest_is_named():
    logits = torch.tensor([0.0, 0.0, 0.0, 4.0])
    left, right = figures.draw_logits(logits, ["' a'", "' b'"], [0.9, 0.05], "title").axes
    heights = [patch.get_height() for patch in left.patches if hasattr(patch, "get_height")]
    assert (heights[0], heights[-1], sum(heights)) == (3, 1, 4)
    assert "' a': 4.0" in texts(left)
    assert widths(right) == [0.9, 0.05]
    assert texts(right) == ["90%", "5%"]


def test_sampling_has_a_panel_for_each_setting_with_one_scale():
    one, two = figures.draw_sampling(
        ["' a'", "9 others"], {"plain": [0.7, 0.3], "drawn": [1.0, 0.0]}, "title"
    ).axes
    assert (widths(one), widths(two)) == ([0.7, 0.3], [1.0, 0.0])
    assert labels(one) == ["' a'", "9 others"]
    assert one.get_xlim() == two.get_xlim()


def test_a_lesson_shows_each_loss_and_its_running_mean():
    losses = [4.0] * 20 + [2.0] * 20
    (ax,) = figures.draw_lesson(losses, 4.5, 2.2, "title").axes
    raw, mean = (line.get_ydata() for line in ax.lines[:2])
    assert np.allclose(raw, losses)
    assert np.allclose([mean[0], mean[29], mean[-1]], [4, 3, 2])
    assert {"knowing nothing: 4.50", "text that it never saw: 2.20"} <= set(texts(ax))


JOURNEY = of_models.Journey(
    parts=["embedding", "attention 0", "feed-forward 0"],
    sizes=torch.tensor([1.0, 2.0, 4.0]),
    chances=torch.tensor([0.0, 0.25, 0.9]),
    said=["a", " b", " time"],
    added=torch.tensor([0.5, -1.0, 7.0]),
    lost=torch.tensor([math.nan, 0.8, 0.1]),
    exchanged=torch.tensor([[math.nan, 0.7, 0.2], [math.nan, 0.6, -0.1]]),
    shapes=("ids (4,)", "(4, 8)", "logits (4, 99)"),
    word=" time",
)


def test_a_journey_draws_the_same_rows_four_times():
    figure = of_models.draw_journey(JOURNEY, "title")
    stream, lens, adds, lost = figure.axes
    assert labels(stream) == JOURNEY.parts
    assert np.allclose(widths(lens), JOURNEY.chances)
    assert texts(lens) == ["a", "b", "time"]
    assert np.allclose(widths(adds), JOURNEY.added)
    assert np.allclose(widths(lost), [0, 0.8, 0.1])
    dots = [line.get_xdata().tolist() for line in lost.lines if line.get_marker() == "o"]
    assert np.allclose(dots, [[0.7, 0.6], [0.2, -0.1]])
    assert set(JOURNEY.shapes) <= set(texts(stream))
    assert (JOURNEY.loudest, JOURNEY.missed) == (2, [1, 2])
    assert texts(adds) == ["+7.0"]
    assert texts(lost) == ["0.800", "0.100"]
    assert JOURNEY.against == []
    against = dataclasses.replace(JOURNEY, added=torch.tensor([0.5, -6.0, 7.0]))
    stream, _, adds, lost = of_models.draw_journey(against, "title").axes
    assert (against.against, texts(adds), texts(lost)) == ([1], ["-6.0", "+7.0"], ["0.800", "0.100"])
    band = stream.collections[0].get_paths()[0].vertices
    assert np.ptp(band[band[:, 1] == 0][:, 0]) < np.ptp(band[band[:, 1] == 2][:, 0])  # it widens downwards
    colours = [to_hex(bar.get_facecolor()) for bar in adds.containers[0]]
    assert colours == [c.lower() for c in (style.RESIDUAL, style.QUERY, style.FEED_FORWARD)]


def test_a_lens_writes_the_words_and_shades_the_cells():
    p = torch.tensor([[0.1, 0.9], [0.2, 0.3]])
    (ax,) = of_models.draw_lens([[" a", "\n"], ["daughter", " "]], p, ["x", "y"], ["block 0", "block 1"], "t").axes
    assert texts(ax) == ["a", "␣", "daugh…", "␣"]
    assert np.allclose(ax.images[0].get_array(), p)
    assert labels(ax) == ["block 0", "block 1"]
    assert [text.get_color() for text in ax.texts[:2]] == ["black", "white"]


def test_spared_blocks_have_bars_between_neighbours_below():
    panels = {"tiny": ([0, 3, 6], torch.tensor([5.0, 0.5, 1.0]), torch.tensor([4.0, -0.1]))}
    above, below = of_models.draw_spared(panels, "title").axes
    assert [bar.get_height() for bar in above.patches] == [5, 0.5, 1]
    assert np.allclose([bar.get_height() for bar in below.patches], [4, -0.1])
    assert np.allclose([bar.get_x() + bar.get_width() / 2 for bar in below.patches], [0.5, 3.5])
    assert [label.get_text() for label in below.get_xticklabels()] == ["0", "3", "6"]
    assert texts(above) == ["+5.0", "+0.5", "+1.0"]


def test_choices_are_dots_with_intervals_grey_where_they_hold_zero():
    differences = {
        "norm": {
            "none": Difference(0.5, 0.1, 0.4, 0.6, 5, "higher"),
            "other": Difference(0.0, 0.1, 0, 0, 5, "none"),
        }
    }
    (ax,) = of_models.draw_choices(differences, "title").axes
    assert labels(ax) == ["norm: none", "norm: other"]
    bars = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_ydata()[0] == line.get_ydata()[1]]
    drawn = [line.get_xdata() for line in bars]
    assert np.allclose(drawn, [differences["norm"]["none"].interval, differences["norm"]["other"].interval])
    assert [line.get_color() for line in bars] == [style.WRONG, style.RESIDUAL]
    assert texts(ax) == ["+0.500", "+0.000"]


def test_bits_are_bars_with_their_values():
    (ax,) = further.draw_bits({"gzip": 2.8, "tiny": 1.25}, "title").axes
    assert widths(ax) == [2.8, 1.25]
    assert texts(ax) == ["2.80", "1.25"]


def test_a_speed_ladder_has_measured_dots_and_predicted_bars():
    rungs = [{"name": "slow", "measured_seconds": 0.5, "predicted_seconds": 0.4, "bound_by": "memory"}]
    (ax,) = further.draw_speed_ladder(rungs, "title").axes
    _, predicted, measured = (line.get_xdata() for line in ax.lines)
    assert (predicted[0], measured[0]) == (400, 500)
    assert texts(ax) == ["500 ms; predicted 400, bound by memory"]
    assert ax.get_xlim()[1] > 500


def test_learned_heads_are_two_lines():
    rows = [{"step": 0.0, "previous": 0.1, "induction": 0.0}, {"step": 9.0, "previous": 0.9, "induction": 0.5}]
    (ax,) = further.draw_heads_learned(rows, "title").axes
    assert [list(line.get_ydata()) for line in ax.lines] == [[0.1, 0.9], [0.0, 0.5]]
    assert texts(ax) == ["attends to the token before", "finds what followed the previous occurrence"]


@pytest.fixture
def shown(monkeypatch):
    """The figures that are shown, in place of showing them."""
    kept = []

    def keep(figure, alt):
        assert len(alt.split()) >= 6
        kept.append(figure)

    for module in (build, models, further_looks):
        monkeypatch.setattr(module, "show_figure", keep)
    return kept


@pytest.fixture
def tables(monkeypatch):
    kept = []
    for module in (models, further_looks):
        monkeypatch.setattr(module, "show_table", lambda rows, header, caption="": kept.append((rows, header)))
    return kept


@pytest.fixture
def subject():
    config = dataclasses.replace(shrink("llama3-8b"), vocab_size=4096)
    return Subject("random", randomize(dl.Transformer(config)).requires_grad_(False), dl.load_tokenizer("tiny"))


def test_a_rewired_model_has_the_formula_of_its_wiring(shown, subject):
    ids = subject.ids("Once upon a time")
    losses = look.wirings(subject, "Once upon a time")
    model, positions = subject.model, torch.arange(ids.shape[1])
    rotation, x = model.rotation_at(positions), model.tok_embeddings(ids)
    for layer in model.layers:
        attended = layer.attention(layer.attention_norm(x), positions, rotation)
        x = x + attended + layer.feed_forward(layer.ffn_norm(x))
    parallel = probe.next_token_losses(model.output(model.norm(x)), ids).mean().item()
    assert math.isclose(losses["both read x"], parallel, rel_tol=1e-5)
    assert math.isclose(losses["as trained"], probe.loss_of(model, ids), rel_tol=1e-6)
    assert len(set(losses.values())) == 5
    (figure,) = shown
    assert widths(figure.axes[0]) == list(losses.values())
    changed = list(losses.values())[1:]
    assert f"from {losses['as trained']:.1f} to {min(changed):.1f}" in one_line(figure)
    assert f"up to {max(changed):.1f}" in one_line(figure)


def test_the_ladder_has_the_shapes_of_the_configurations(shown, subject):
    look.shape_ladder(subject, "Once upon a time")
    c, n = subject.model.config, subject.ids("Once upon a time").shape[1]
    small, large = shown[0].axes
    expected = [(n,), (n, c.dim), (n, c.dim), (c.n_heads, n, c.head_dim), *[(c.n_kv_heads, n, c.head_dim)] * 2]
    expected += [
        (c.n_heads, n, n),
        (n, c.dim),
        (n, c.dim),
        (n, c.hidden_dim),
        *[(n, c.dim)] * 3,
        (n, c.vocab_size),
    ]
    read = [tuple(int(d.replace(",", "")) for d in re.split(", |,(?=\\))", t[1:-1]) if d) for t in texts(small)]
    assert read == expected
    assert texts(large)[-5] == f"({n}, 14,336)"
    assert texts(large)[-1] == f"({n}, 128,256)"
    assert f"{n} x {c.dim:,} numbers" in one_line(shown[0])


def test_a_hand_made_model_says_nothing_where_no_word_is_ahead(shown):
    silent = torch.zeros(2, 6)
    speaks = torch.tensor([[0.0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 2, 0]])
    assert look.by_hand(["so", "on"], silent, silent, speaks) == ["nothing", "so"]
    assert one_line(shown[0]) == "A model made by hand: after 'on' it says 'so'"


def test_looked_up_says_how_often_a_token_comes(shown, subject):
    look.looked_up(subject, "a bird and a king and a mill")
    look.looked_up(subject, "Once upon")
    assert re.search(r"' (a|and)' is 2 times the same one", one_line(shown[0]))
    assert "no token comes twice" in one_line(shown[1])


def test_two_writes_keep_their_lengths_and_their_angle(shown, subject):
    look.two_writes(subject, "Once upon a", block=1)
    added = probe.writes(subject.model, subject.ids("Once upon a"))
    a, f = (added[f"1.{part}"][0, -1] for part in ("attention", "feed_forward"))
    (_, total, _), (_, end, _), *_ = arrows(shown[0].axes[0])
    assert math.isclose(np.linalg.norm(end), a.norm(), rel_tol=1e-4)
    assert math.isclose(np.linalg.norm(total), (a + f).norm(), rel_tol=1e-4)
    assert f"a vector {a.norm():.0f} long, then one {f.norm():.0f} long" in one_line(shown[0])


def test_a_walk_ends_where_the_stream_ends(shown, subject):
    look.walk(subject, "Once upon a")
    stream = list(probe.residual_stream(subject.model, subject.ids("Once upon a")).values())
    token = int(subject.model(subject.ids("Once upon a"))[0, -1].argmax())
    u = subject.model.norm.weight * (subject.model.output.weight[token] - subject.model.output.weight.mean(0))
    reached = stream[-1][0, -1] @ u / u.norm()
    assert math.isclose(arrows(shown[0].axes[0])[-1][1][0], reached, rel_tol=1e-3, abs_tol=1e-4)
    cosine = reached / stream[-1][0, -1].norm()
    assert f"at a cosine of {cosine:.2f}" in one_line(shown[0])


def test_what_is_sampled_is_what_the_generator_draws_from(subject):
    figure = look.sampled(subject, "Once upon a", 0.5, 0.3)
    plain, drawn = figure.axes
    assert math.isclose(sum(widths(plain)), 1, rel_tol=1e-5)
    assert math.isclose(sum(widths(drawn)), 1, rel_tol=1e-5)
    logits = subject.model(subject.ids("Once upon a"))[0, -1]
    p = (logits / 0.5).softmax(-1).sort(descending=True).values
    left = int((p.cumsum(0) - p <= 0.3).sum())
    assert f"{left:,} of {len(p):,} words are left" in one_line(figure)
    whole = look.sampled(subject, "Once upon a", 1.0, 1.0)
    assert f"{len(p):,} of {len(p):,} words" in one_line(whole)
    assert np.allclose(*map(widths, whole.axes), atol=1e-6)


def test_logits_and_the_title_are_those_of_the_last_place(shown, subject):
    look.last_logits(subject, "Once upon a")
    logits = subject.model(subject.ids("Once upon a"))[0, -1]
    assert f"the largest, {logits.max():.1f}" in one_line(shown[0])
    assert np.allclose(widths(shown[0].axes[1]), logits.softmax(-1).topk(5).values, atol=1e-6)


def test_a_silenced_part_is_silent_and_another_texts_write_is_put_in_its_place(subject):
    model, ids = subject.model, subject.ids("Once upon a")
    journey = models.make_journey(subject, "Once upon a", draws=2)
    token = int(model(ids)[0, -1].argmax())
    base = model(ids)[0, -1].softmax(-1)[token]
    others = models.other_writes(subject, ids.shape[1], 2)
    for i, name in enumerate(list(others)[1:], start=1):
        puts = [torch.zeros_like(others[name][:1]), others[name][1:2]]
        for put, drawn in zip(puts, (journey.lost[i], journey.exchanged[1, i]), strict=True):
            part = model.get_submodule(f"layers.{name}")
            handle = part.register_forward_hook(lambda module, args, output, put=put: put)
            alone = model(ids)[0, -1].softmax(-1)[token]
            handle.remove()
            assert math.isclose(drawn, base - alone, rel_tol=1e-3, abs_tol=1e-6)
    logits = model(ids)[0, -1]
    assert math.isclose(journey.added.sum(), logits[token] - logits.mean(), rel_tol=1e-3, abs_tol=1e-3)
    assert torch.allclose(journey.chances[-1], base)
    assert math.isnan(journey.lost[0])


def test_the_title_of_a_journey_names_what_is_drawn(shown, subject):
    look.journey("Once upon a", subject, dataclasses.replace(subject, name="other"))
    title, (_, lens, adds, lost) = one_line(shown[0]), shown[0].axes
    names = labels(shown[0].axes[0])
    loudest, missed = int(np.argmax(widths(adds))), int(np.argmax(widths(lost)))
    assert f"{names[loudest]} adds most ({max(widths(adds)):+.1f} of" in title
    assert re.search(rf"; {names[missed]} and \S+ \d+ are missed most", title)
    assert models.chance(torch.tensor(widths(lens)[-1] - max(widths(lost)))) in title
    assert one_line(shown[1]).startswith("other, ")


def test_what_is_told_is_told_again_with_an_attention_silenced(tables, subject):
    found = look.told(subject, "Once upon a", heard=2)
    model, ids = subject.model, subject.ids("Once upon a")
    assert list(found) == ["none", *(f"attention {i}" for i in range(model.config.n_layers))]
    token = int(model(ids)[0, -1].argmax())
    whole = probe.logit_attribution(model, ids, ids.shape[1] - 1, token)
    most = sorted(whole, key=lambda name: -whole[name].item())[:2]
    assert np.allclose(found["none"], [whole[name].item() for name in most])
    handle = model.layers[1].attention.register_forward_hook(lambda module, args, output: torch.zeros_like(output))
    left = probe.logit_attribution(model, ids, ids.shape[1] - 1, token)
    handle.remove()
    assert np.allclose(found["attention 1"], [left[name].item() for name in most], atol=1e-5)
    ((rows, header),) = tables
    assert header[0] == "silenced"
    assert [row[0] for row in rows] == list(found)


def test_a_lens_settles_where_its_title_says(shown, subject):
    look.lens("Once upon a time", subject)
    ids, words = subject.ids("Once upon a time"), subject.words("Once upon a time")
    p = torch.stack([z[0].softmax(-1) for z in probe.logit_lens(subject.model, ids)])
    place = int(p[-1].max(dim=-1).values.argmax())
    best = p[:, place].argmax(dim=-1).tolist()
    settled = len(best) - next((i for i, token in enumerate(best[::-1]) if token != best[-1]), len(best))
    where = f"block {settled - 1}" if settled else "the embedding"
    assert f"surest after {words[place]!r}" in one_line(shown[0])
    assert f"after {where}, at {models.chance(p[settled, place].max())}, and ends" in one_line(shown[0])


def test_losses_by_depth_end_at_the_models_own(subject):
    losses = look.lens_losses(subject, "Once upon a time")
    assert len(losses) == subject.model.config.n_layers
    assert math.isclose(losses[-1], probe.loss_of(subject.model, subject.ids("Once upon a time")), rel_tol=1e-5)


def test_spared_says_the_worst_and_the_median_block(shown, subject):
    look.spared("Once upon a time there was a king", subject, dataclasses.replace(subject, name="other"))
    above = shown[0].axes[0]
    rises = [bar.get_height() for bar in above.patches]
    worst = int(np.argmax(rises))
    assert f"random's loss rises by {max(rises):.1f} without block {worst}" in one_line(shown[0])
    assert len(shown[0].axes) == 4


def test_choices_count_the_intervals_that_leave_zero_out(shown):
    found = look.choices()
    assert len(found) == 16
    higher = sum(d.interval[0] > 0 for d in found.values())
    lower = sum(d.interval[1] < 0 for d in found.values())
    assert f"Of {len(found)} exchanges {higher} end higher" in one_line(shown[0])
    assert f"{lower} lower, {16 - higher - lower} are not told apart" in one_line(shown[0])
    assert len(labels(shown[0].axes[0])) == 16


def test_what_the_files_hold_is_what_the_titles_say(shown, capsys):
    bits = look.compression()
    assert f"{bits['tiny']:.2f} bits per byte" in one_line(shown[0])
    seconds = look.speed_rungs()
    assert f"{1e3 * seconds[1]:.0f} ms per token; compiled and in int8 {1e3 * seconds[-1]:.1f}" in one_line(
        shown[1]
    )
    rows = look.heads_learned()
    jump = max(after["induction"] - before["induction"] for before, after in itertools.pairwise(rows))
    assert np.isclose(np.diff(shown[2].axes[0].lines[1].get_ydata()).max(), jump)
    assert "From step 1,300 to 1,400" in one_line(shown[2])


def test_a_learners_class_is_given_the_weights_of_a_real_model(subject, capsys):
    look.same_weights(dl.Transformer, "Once upon a", None)
    assert capsys.readouterr().out == ""
    look.same_weights(dl.Transformer, "Once upon a", subject)
    assert "below 1e-5: True" in capsys.readouterr().out

    class Wrong(dl.Transformer):
        def forward(self, tokens):
            return super().forward(tokens) + tokens[..., None]

    look.same_weights(Wrong, "Once upon a", subject)
    assert "below 1e-5: False" in capsys.readouterr().out


def test_a_chat_shows_the_format_the_answer_and_both_mistakes(subject, capsys):
    look.chat("Who?", subject, tokens=3)
    out = capsys.readouterr().out
    assert "<|start_header_id|>user<|end_header_id|>" in out
    assert "without stop ids:" in out
    assert "without the format:\nWho?" in out


def test_a_token_more_is_timed_both_ways(monkeypatch, subject):
    kept = []
    monkeypatch.setattr(
        "decoding_llama3.lessons.looks.transformer.running.show_table", lambda rows, *_: kept.extend(rows)
    )
    times = look.cache_timings(subject, contexts=(4, 8), repeats=1)
    assert [row[0] for row in kept] == ["4", "8"]
    assert all(ms > 0 for row in times for ms in row)


def test_shapes_of_one_budget_are_told_by_depth(tables):
    runs = look.shapes_tried()
    ((rows, header),) = tables
    assert header == ["layers", "dim", "parameters", "seed", "bits per byte"]
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert len({row[3] for row in rows if row[0] == 6}) == 2  # two seeds, for chance
    assert [row[4] for row in rows] == [run["bits_per_byte"] for run in runs]


def test_neighbours_change_places_and_a_block_is_left_out(shown, subject):
    look.spared("Once upon a time", subject)
    model, ids = subject.model, subject.ids("Once upon a time")
    below = shown[0].axes[1]
    order = list(range(model.config.n_layers))
    order[0], order[1] = 1, 0
    rise = probe.next_token_losses(probe.run_layers(model, ids, order), ids).mean().item() - probe.loss_of(
        model, ids
    )
    assert math.isclose(below.patches[0].get_height(), rise, rel_tol=1e-3, abs_tol=1e-5)


def overhang(figure) -> float:
    """By how many inches the words and marks of a figure leave it, at the worst side."""
    figure.canvas.draw()
    box, (width, height) = figure.get_tightbbox(figure.canvas.get_renderer()), figure.get_size_inches()
    return max(-box.x0, -box.y0, box.x1 - width, box.y1 - height)


@pytest.fixture(scope="module")
def tiny():
    with torch.no_grad():
        return Subject("tiny", dl.load_model("tiny", dtype=torch.float32), dl.load_tokenizer("tiny"))


@pytest.mark.parametrize("sentence", [show.OPENING, "国王有三个女儿", "A fox 🦊 and a bear 🐻 had tea, $x and $y"])
def test_no_word_leaves_its_picture_whatever_the_sentence(shown, tables, tiny, sentence):
    for draw in (look.shape_ladder, look.looked_up, look.walk, look.last_logits):
        draw(tiny, sentence)
    look.two_writes(tiny, sentence, 3)
    look.journey(sentence, tiny)
    look.lens(sentence, tiny)
    for temperature, top_p in ((0.1, 1.0), (5.0, 1.0), (1.0, 0.1)):
        shown.append(look.sampled(tiny, sentence, temperature, top_p))
    assert [one_line(figure) for figure in shown if overhang(figure) > 0.02] == []


def test_no_word_leaves_the_pictures_of_what_is_kept(shown, tables, tiny, capsys):
    look.wirings(tiny, show.OPENING)
    look.spared(show.OPENING, tiny, dataclasses.replace(tiny, name="other"))
    for draw in (look.choices, look.compression, look.speed_rungs, look.heads_learned):
        draw()
    assert [one_line(figure) for figure in shown if overhang(figure) > 0.02] == []


def test_tiny_says_time_and_the_parts_that_the_prose_names_are_found(shown, tiny):
    """What Part 7 tells of *Once upon a*: should tiny be trained anew, its prose must be."""
    (found,) = look.journey("Once upon a", tiny)
    parts = list(found.parts)
    assert (found.word, parts[found.loudest]) == (" time", "feed-forward 5")
    assert {parts[i] for i in found.missed} == {"feed-forward 0", "attention 3"}
    heard = parts.index("attention 3")
    assert found.added[heard] < 0.1 * found.added.sum()
    assert (found.exchanged[:, [heard, parts.index("feed-forward 0")]] > 0.7).all()
    assert (found.exchanged[:, parts.index("attention 2")] > found.lost[parts.index("attention 2")] - 0.01).all()


def test_every_place_of_the_sliders_has_its_picture(tiny):
    temperatures, shares = [0.1, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 5.0], [0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 1.0]
    chosen = [(temperature, 1.0) for temperature in temperatures] + [(1.0, share) for share in shares]
    for temperature, top_p in chosen:
        figure = look.sampled(tiny, show.OPENING, temperature, top_p)
        assert f"Temperature {temperature:g}, top-p {top_p:g}: " in one_line(figure)
        if temperature >= 1:  # below, most are too improbable for a float32; above, rounding cuts none off
            assert (": 4,096 of 4,096 words are left" in one_line(figure)) == (top_p == 1)
        assert temperature in temperatures[1:-1] or overhang(figure) < 0.02  # the extremes: to draw takes time
        plt.close(figure)
