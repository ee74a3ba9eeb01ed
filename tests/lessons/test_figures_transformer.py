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
from decoding_llama3.lessons.looks.transformer import build, credit, models
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


def test_a_walk_has_a_line_for_each_write_to_one_scale_and_an_arrow_for_the_longest():
    path = torch.tensor([[0.0, 0], [1, 0], [1, 5], [3, 5]])
    parts = ["attention 0", "feed-forward 0", "attention 1"]
    ax, right = figures.draw_walk(path, torch.tensor([0.5, 1, 2, 4]), parts, " time", "title", "so long").axes
    drawn = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 2.4]
    assert [line.get_xydata().tolist() for line in drawn] == [path[i : i + 2].tolist() for i in range(3)]
    assert [to_hex(line.get_color()) for line in drawn][1] == style.FEED_FORWARD.lower()
    assert [(list(start), list(end)) for start, end, _ in arrows(ax)] == [([1, 0], [1, 5])]
    assert ax.figure.get_supxlabel() == "so long"
    assert ax.get_xlabel() == "in the direction of ' time'"
    assert ax.get_aspect() == 1
    assert "feed-forward 0:\n0 towards, 5 aside" in texts(ax)
    assert widths(right) == [0.5, 1, 2, 4]
    assert labels(right) == ["embedding", *parts]


def test_logits_are_counted_and_the_largest_is_named():
    logits = torch.tensor([0.0, 0.0, 0.0, 4.0])
    left, right = figures.draw_logits(logits, ["' a'", "' b'"], [0.9, 0.05], "title").axes
    heights = [patch.get_height() for patch in left.patches if hasattr(patch, "get_height")]
    assert (heights[0], heights[-1], sum(heights)) == (3, 1, 4)
    assert "' a': 4.0" in texts(left)
    assert widths(right) == [0.9, 0.05]
    assert texts(right) == ["90%", "5%"]


def test_sampling_draws_both_settings_side_by_side_on_one_scale():
    variants = {"plain": [0.7, 0.3], "drawn": [1.0, 0.0]}
    (ax,) = figures.draw_sampling(["' a'", "9 others"], variants, "title").axes
    one, two = ([bar.get_width() for bar in bars] for bars in ax.containers)
    assert (one, two) == ([0.7, 0.3], [1.0, 0.0])
    assert texts(ax) == ["70%", "30%", "100%", "0%"]
    assert labels(ax) == ["' a'", "9 others"]
    assert ax.get_xlim() == (0, 1.08)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["plain", "drawn"]


def test_pairs_of_letters_lose_nothing_where_one_letter_always_follows_another():
    read = torch.tensor([0, 1] * 200)
    on_it, elsewhere = look.pairs_of_letters(read, torch.tensor([[0, 1, 0], [0, 0, 0]]), 2)
    assert on_it < 0.01
    assert elsewhere > 3


def test_a_lesson_shows_each_loss_and_the_mean_of_its_neighbours():
    losses = [4.0] * 20 + [2.0] * 20
    (ax,) = figures.draw_lesson(losses, 4.5, 3.2, 2.2, "title").axes
    raw, mean = (line.get_ydata() for line in ax.lines[:2])
    assert np.allclose(raw, losses)
    assert np.allclose([mean[0], mean[20], mean[-1]], [4, 4 - 2 * 11 / 21, 2])
    named = {"knowing nothing: 4.50", "how often each character comes: 3.20", "text that it never saw: 2.20"}
    assert named <= set(texts(ax))
    assert len(ax.get_legend().get_texts()) == 2


JOURNEY = of_models.Journey(
    parts=["embedding", "attention 0", "feed-forward 0"],
    chances=torch.tensor([0.0, 0.25, 0.9]),
    said=["a", " b", " time"],
    added=torch.tensor([0.5, -1.0, 7.0]),
    lost=torch.tensor([math.nan, 0.8, 0.1]),
    exchanged=torch.tensor([[math.nan, 0.7, 0.2], [math.nan, 0.6, -0.1]]),
    word=" time",
    above=6.5,
    of=3,
)


def test_a_journey_draws_the_same_rows_three_times():
    figure = of_models.draw_journey(JOURNEY, "title")
    lens, adds, lost = figure.axes
    assert labels(lens) == JOURNEY.parts
    assert np.allclose(widths(lens), JOURNEY.chances)
    assert texts(lens) == ["a", "b", "time"]
    assert np.allclose(widths(adds), JOURNEY.added)
    assert np.allclose(widths(lost), [0, 0.8, 0.1])
    dots = [line.get_xdata().tolist() for line in lost.lines if line.get_marker() == "o"]
    assert np.allclose(dots, [[0.7, 0.6], [0.2, -0.1]])
    assert "log odds lost without it, of\n' time'" in lost.get_xlabel()
    assert (JOURNEY.loudest, JOURNEY.missed) == (2, [1, 2])
    assert texts(adds) == ["-1.0", "+7.0"]
    assert texts(lost) == ["+0.8", "+0.1"]
    assert "2 other texts" in figure.get_supxlabel()
    assert "rows" not in figure.get_supxlabel()
    assert JOURNEY.against == []
    against = dataclasses.replace(JOURNEY, added=torch.tensor([0.5, -6.0, 7.0]))
    _, adds, lost = of_models.draw_journey(against, "title").axes
    assert (against.against, texts(adds), texts(lost)) == ([1], ["-6.0", "+7.0"], ["+0.8", "+0.1"])
    colours = [to_hex(bar.get_facecolor()) for bar in adds.containers[0]]
    assert colours == [c.lower() for c in (style.RESIDUAL, style.QUERY, style.FEED_FORWARD)]


def test_of_many_rows_the_journey_has_those_that_add_or_cost_most():
    added, lost = torch.zeros(61), torch.zeros(61)
    added[7], added[9], lost[20], lost[0] = 5, -6, 3, math.nan
    rows = of_models.telling_rows(added, lost)
    assert {0, 7, 9, 20, 60} <= set(rows)
    assert rows == sorted(rows)
    assert of_models.FEW // 2 < len(rows) <= of_models.FEW
    assert of_models.telling_rows(added[:13], lost[:13]) == list(range(13))
    few = of_models.draw_journey(dataclasses.replace(JOURNEY, of=61), "title")
    assert "3 of 61 rows" in few.get_supxlabel()


def test_a_lens_writes_the_words_and_shades_the_cells():
    p = torch.tensor([[0.1, 0.9], [0.2, 0.3]])
    (ax,) = of_models.draw_lens([[" a", "\n"], ["daughter", " "]], p, ["x", "y"], ["block 0", "block 1"], "t").axes
    assert texts(ax) == ["a", "␣", "daugh…", "␣"]
    assert np.allclose(ax.images[0].get_array(), p)
    assert labels(ax) == ["block 0", "block 1"]
    assert [text.get_color() for text in ax.texts[:2]] == ["black", "white"]


def test_spared_blocks_are_bars_with_intervals_and_the_tallest_are_cut():
    rises = torch.tensor([8.0, 0.5, 0.2, 0.4, -0.1, 0.3])
    panels = {"tiny": (rises, torch.full((6,), 0.1)), "other": (rises[1:], torch.full((5,), 0.1))}
    above, below = of_models.draw_spared(panels, "title").axes
    assert np.allclose([bar.get_height() for bar in above.patches], [0.9, 0.5, 0.2, 0.4, -0.1, 0.3])
    assert texts(above) == ["8.0"]
    assert "a cut bar" in above.get_title("left") + above.get_title("center")
    assert np.allclose([bar.get_height() for bar in below.patches], rises[1:])
    assert texts(below) == []
    (lines,) = (each for each in below.collections)
    assert np.allclose(lines.get_segments()[0][:, 1], [0.4, 0.6])
    assert above.get_ylabel() == "rise of the loss\n(nats per token)"


def test_choices_are_filled_where_they_are_shown_hollow_where_not_quite_and_grey_where_they_hold_zero():
    differences = {
        "norm": {
            "none": Difference(0.5, 0.1, 0.4, 0.6, 5, "higher"),
            "close": Difference(0.2, 0.12, 0, 0.4, 5, "none"),
            "other": Difference(0.0, 0.1, 0, 0, 5, "none"),
        }
    }
    (ax,) = of_models.draw_choices(differences, "title").axes
    assert labels(ax) == ["norm: none", "norm: close", "norm: other"]
    bars = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_ydata()[0] == line.get_ydata()[1]]
    assert np.allclose([line.get_xdata() for line in bars], [d.interval for d in differences["norm"].values()])
    assert [line.get_color() for line in bars] == [style.WRONG, style.WRONG, style.RESIDUAL]
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() for line in dots] == [style.WRONG, "white", style.RESIDUAL]
    assert texts(ax) == ["+0.500", "+0.200", "+0.000"]


def test_bits_are_bars_with_their_values():
    (ax,) = further.draw_bits({"gzip": 2.8, "tiny": 1.25}, "title").axes
    assert widths(ax) == [2.8, 1.25]
    assert texts(ax) == ["2.80", "1.25"]


def test_a_speed_ladder_has_measured_dots_and_predicted_bars():
    rungs = [{"name": "slow", "measured_seconds": 0.5, "predicted_seconds": 0.4, "bound_by": "memory"}]
    (ax,) = further.draw_speed_ladder(rungs, "title").axes
    _, predicted, measured = (line.get_xdata() for line in ax.lines)
    assert (predicted[0], measured[0]) == (400, 500)
    assert texts(ax) == ["500 ms; limit 400, by memory"]
    assert ax.get_xlim()[1] > 500


def test_learned_heads_are_two_lines():
    rows = [{"step": 0.0, "previous": 0.1, "induction": 0.0}, {"step": 9.0, "previous": 0.9, "induction": 0.5}]
    (ax,) = further.draw_heads_learned(rows, (2, 5), "half", "title").axes
    (band,) = ax.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == (2, 5)
    assert [list(line.get_ydata()) for line in ax.lines] == [[0.1, 0.9], [0.0, 0.5]]
    assert texts(ax) == ["half", "attends to the token before", "finds what followed the previous occurrence"]


@pytest.fixture
def shown(monkeypatch):
    """The figures that are shown, in place of showing them."""
    kept = []

    def keep(figure, alt):
        assert len(alt.split()) >= 6
        kept.append(figure)

    for module in (build, credit, models, further_looks):
        monkeypatch.setattr(module, "show_figure", keep)
    return kept


@pytest.fixture
def tables(monkeypatch):
    kept = []
    for module in (credit, models, further_looks):
        monkeypatch.setattr(module, "show_table", lambda rows, header, *_, **__: kept.append((rows, header)))
    return kept


@pytest.fixture
def subject():
    config = dataclasses.replace(shrink("llama3-8b"), vocab_size=4096)
    return Subject("random", randomize(dl.Transformer(config)).requires_grad_(False), dl.load_tokenizer("tiny"))


def test_a_rewired_model_has_the_formula_of_its_wiring(shown, subject, capsys):
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
    assert f"from {losses['as trained']:.1f} to between {min(changed):.1f} and {max(changed):.1f}" in one_line(
        figure
    )
    least, second = sorted(changed)[:2]
    names = {loss: name for name, loss in losses.items()}
    assert f"{names[second]} minus {names[least]}: {second - least:.2f} ±" in capsys.readouterr().out


def test_the_ladder_has_the_shapes_of_the_configurations(shown, subject):
    look.shape_ladder(subject, "Once upon a time")
    c, n = subject.model.config, subject.ids("Once upon a time").shape[1]
    small, large = shown[0].axes
    expected = [(n,), (n, c.dim), (n, c.dim), (c.n_heads, n, c.head_dim), *[(c.n_kv_heads, n, c.head_dim)] * 2]
    expected += [
        (c.n_heads, n, n),
        *[(n, c.dim)] * 4,
        *[(n, c.hidden_dim)] * 3,
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


def test_a_walk_ends_where_the_stream_ends(shown, subject):
    look.walk(subject, "Once upon a")
    model, ids = subject.model, subject.ids("Once upon a")
    stream = list(probe.residual_stream(model, ids).values())
    logits = model(ids)[0, -1]
    token = int(logits.argmax())
    u = model.norm.weight * (model.output.weight[token] - model.output.weight.mean(0))
    reached = stream[-1][0, -1] @ u / u.norm()
    walked = [line.get_xydata() for line in shown[0].axes[0].lines if line.get_linewidth() == 2.4]
    end = walked[-1][1]
    assert math.isclose(end[0], reached, rel_tol=1e-3, abs_tol=1e-4)
    title, worth = one_line(shown[0]), widths(shown[0].axes[1])
    assert f"at the end {np.hypot(*end):.0f} of it lie in this plane" in shown[0].get_supxlabel()
    assert f"{stream[-1][0, -1].norm():.0f} long" in shown[0].get_supxlabel()
    towards = sum(step[1, 0] > step[0, 0] for step in walked)
    longest = int(np.argmax([np.hypot(*(step[1] - step[0])) for step in walked]))
    assert f"{towards} of {len(walked)} steps lead towards" in title
    assert f"the longest, {labels(shown[0].axes[1])[longest + 1]}, takes" in title
    assert math.isclose(worth[-1], logits[token] - logits.mean(), rel_tol=1e-3, abs_tol=1e-3)
    assert f"from {worth[longest]:+.1f} to {worth[longest + 1]:+.1f}" in title


def test_what_is_sampled_is_what_the_generator_draws_from(subject):
    figure = look.sampled(subject, "Once upon a", 0.5, 0.3)
    plain, drawn = ([bar.get_width() for bar in bars] for bars in figure.axes[0].containers)
    assert math.isclose(sum(plain), 1, rel_tol=1e-5)
    assert math.isclose(sum(drawn), 1, rel_tol=1e-5)
    logits = subject.model(subject.ids("Once upon a"))[0, -1]
    p = (logits / 0.5).softmax(-1).sort(descending=True).values
    left = int((p.cumsum(0) - p <= 0.3).sum())
    assert f"{left:,} of {len(p):,} words are left" in one_line(figure)
    whole = look.sampled(subject, "Once upon a", 1.0, 1.0)
    assert f"{len(p):,} of {len(p):,} words" in one_line(whole)
    same = [[bar.get_width() for bar in bars] for bars in whole.axes[0].containers]
    assert np.allclose(*same, atol=1e-6)


def test_logits_and_the_title_are_those_of_the_last_place(shown, subject):
    look.last_logits(subject, "Once upon a")
    logits = subject.model(subject.ids("Once upon a"))[0, -1]
    assert f"the largest, {logits.max():.1f}" in one_line(shown[0])
    assert np.allclose(widths(shown[0].axes[1]), logits.softmax(-1).topk(5).values, atol=1e-6)


def test_a_silenced_part_is_silent_and_another_texts_write_is_put_in_its_place(subject):
    model, ids = subject.model, subject.ids("Once upon a")
    journey = credit.make_journey(subject, "Once upon a", draws=2)
    token = int(model(ids)[0, -1].argmax())
    base = model(ids)[0, -1].softmax(-1)[token]
    others = credit.other_writes(subject, ids.shape[1], 2)
    for i, name in enumerate(list(others)[1:], start=1):
        puts = [torch.zeros_like(others[name][:1]), others[name][1:2]]
        for put, drawn in zip(puts, (journey.lost[i], journey.exchanged[1, i]), strict=True):
            part = model.get_submodule(f"layers.{name}")
            handle = part.register_forward_hook(lambda module, args, output, put=put: put)
            alone = model(ids)[0, -1].softmax(-1)[token]
            handle.remove()
            assert math.isclose(drawn, base.logit() - alone.logit(), rel_tol=1e-3, abs_tol=1e-4)
    logits = model(ids)[0, -1]
    assert math.isclose(journey.above, logits[token] - logits.mean(), rel_tol=1e-3, abs_tol=1e-3)
    assert math.isclose(journey.above, journey.added.sum(), rel_tol=1e-4)
    assert torch.allclose(journey.chances[-1], base)
    assert math.isnan(journey.lost[0])


def test_log_odds_show_what_a_probability_close_to_one_hides():
    p = torch.tensor([0.5, 0.995, 0.688, 1.0])
    assert torch.allclose(credit.log_odds(p[:3].log()), p[:3].logit(), atol=1e-4)
    assert credit.log_odds(p.log()).isfinite().all()


def test_the_title_of_a_journey_names_what_is_drawn(shown, subject, capsys):
    look.journey("Once upon a", subject, dataclasses.replace(subject, name="other"))
    title, (lens, adds, lost) = one_line(shown[0]), shown[0].axes
    names = labels(shown[0].axes[0])
    loudest, missed = int(np.argmax(widths(adds))), int(np.argmax(widths(lost)))
    assert f"{names[loudest]} adds most ({max(widths(adds)):+.1f} of" in title
    assert re.search(rf"; {names[missed]} and \S+ \d+ are missed most", title)
    assert credit.chance((torch.tensor(widths(lens)[-1]).logit() - max(widths(lost))).sigmoid()) in title
    assert one_line(shown[1]).startswith("other, ")
    without = torch.tensor(widths(lens)[-1]).logit() - max(widths(lost))
    assert f"{without:+.1f} without {names[missed]}" in capsys.readouterr().out


def test_what_is_told_is_told_again_with_each_part_before_silenced_or_misled(tables, subject):
    found = look.told(subject, "Once upon a", draws=2)
    model, ids = subject.model, subject.ids("Once upon a")
    token, place = int(model(ids)[0, -1].argmax()), ids.shape[1] - 1
    whole = probe.logit_attribution(model, ids, place, token)
    loudest = max(whole, key=lambda name: whole[name].item())
    before = list(whole)[1 : list(whole).index(loudest)]
    assert list(found) == ["none", *(credit._in_words(part) for part in before)]
    assert math.isclose(found["none"][0], whole[loudest], rel_tol=1e-5)
    others = credit.other_writes(subject, ids.shape[1], 2)
    for part in before:
        heard = []
        for put in (torch.zeros_like(others[part][:1]), *others[part].split(1)):
            module = model.get_submodule(f"layers.{part}")
            handle = module.register_forward_hook(lambda module, args, output, put=put: put)
            heard.append(probe.logit_attribution(model, ids, place, token)[loudest].item())
            handle.remove()
        silent, misled = found[credit._in_words(part)]
        assert np.allclose([silent, *misled], [heard[0], *sorted(heard[1:])], rtol=1e-3, atol=1e-4)
    ((rows, header),) = tables
    assert header[:2] == ["without it", "silent"]
    assert [row[0] for row in rows] == [name for name in found if "feed-forward" not in name]


def test_what_is_hidden_is_hidden_from_the_named_readers_alone(tables, tiny):
    found = look.hidden(tiny, "Once upon a", "attention 3")
    model, ids = tiny.model, tiny.ids("Once upon a")
    token, place = int(model(ids)[0, -1].argmax()), ids.shape[1] - 1
    whole = probe.logit_attribution(model, ids, place, token)["5.feed_forward"].item()
    p = model(ids)[0, -1].softmax(-1)[token].item()
    assert np.allclose(found["nobody"], (whole, p), rtol=1e-3)
    written, part = probe.writes(model, ids)["3.attention"], model.layers[5].feed_forward
    stream = list(probe.residual_stream(model, ids).values())
    before, read = stream[-2], stream[-2] - written  # the last part is the only reader that misses it
    final = before + part(model.layers[5].ffn_norm(read))
    expected = model.output(model.norm(final))[0, -1].softmax(-1)[token]
    assert math.isclose(found["feed-forward 5 alone"][1], expected, rel_tol=1e-3)
    ((rows, header),) = tables
    assert [row[0] for row in rows] == list(found)
    assert header[0] == "attention 3 is hidden from"


def test_every_place_says_who_adds_and_who_is_missed(tables, subject):
    found = look.every_place(subject, "Once upon a")
    model, ids = subject.model, subject.ids("Once upon a")
    assert [token for token, *_ in found] == subject.words("Once upon a")
    journey = credit.make_journey(subject, "Once upon a", draws=1)
    _, word, loudest, missed, attention = found[-1]
    assert (word, loudest, missed) == (
        journey.word,
        journey.parts[journey.loudest],
        journey.parts[journey.missed[0]],
    )
    cost = {part: lost for part, lost in zip(journey.parts, journey.lost.tolist(), strict=True) if "att" in part}
    assert attention == max(cost, key=cost.__getitem__)
    ((rows, _),) = tables
    assert len(rows) == ids.shape[1]
    assert model(ids)[0, -1].argmax() == model(ids[:, :3])[0, -1].argmax() or rows[-1] != rows[-2]


def test_what_is_said_again_is_attributed_to_the_parts(capsys, subject):
    means = look.said_again(subject, rows=2, length=5)
    model, tokenizer = subject.model, subject.tokenizer
    words = torch.randint(300, model.config.vocab_size - 300, (2, 5), generator=torch.Generator().manual_seed(0))
    ids = torch.cat([torch.full((2, 1), tokenizer.bos_id), words, words], dim=1)
    places = [(row, i) for row in range(2) for i in range(7, 10)]
    each = [probe.logit_attribution(model, ids[row : row + 1], i, int(ids[row, i + 1])) for row, i in places]
    expected = {part: np.mean([one[part].item() for one in each]) for part in each[0]}
    assert np.allclose(list(means.values()), list(expected.values()), rtol=1e-3, atol=1e-5)
    assert f"{max(means, key=means.get)} ({max(means.values()):+.1f})" in capsys.readouterr().out


def test_a_lens_counts_the_predictions_that_can_be_read_off(shown, subject):
    look.lens("Once upon a time", subject)
    best = torch.stack([z[0].argmax(-1) for z in probe.logit_lens(subject.model, subject.ids("Once upon a time"))])
    same = (best == best[-1]).sum(-1).tolist()
    half, late = len(best) // 2, len(best) - 2
    names = ["embedding", *(f"block {i}" for i in range(len(best) - 1))]
    expected = f"{same[half]} can be read off after {names[half]}, {same[late]} after {names[late]}"
    assert expected in one_line(shown[0])
    assert f"of its {best.shape[1]} predictions" in one_line(shown[0])


def test_losses_by_depth_end_at_the_models_own(subject):
    losses = look.lens_losses(subject, "Once upon a time")
    assert len(losses) == subject.model.config.n_layers
    assert math.isclose(losses[-1], probe.loss_of(subject.model, subject.ids("Once upon a time")), rel_tol=1e-5)


def test_spared_leaves_each_block_out_and_says_the_worst_and_the_median(shown, subject, capsys):
    text = "Once upon a time there was a king"
    rises = look.spared(text, subject, dataclasses.replace(subject, name="other"))
    model, ids = subject.model, subject.ids(text)
    n = model.config.n_layers
    expected = probe.layer_deletion(model, ids)
    assert np.allclose(rises[f"random, {ids.shape[1] - 1} tokens"], expected, rtol=1e-3, atol=1e-5)
    worst = int(expected.argmax())
    title = one_line(shown[0])
    assert f"random loses {expected[worst]:.1f} nats without block {worst}" in title
    assert f"the median one of {n}; other loses" in title
    rises = models.without_each_block(model, ids)
    half = 1.96 * rises.std(dim=1) / rises.shape[1] ** 0.5
    assert f"{int((rises.mean(dim=1).abs() <= half).sum())} intervals hold 0" in capsys.readouterr().out
    assert len(shown[0].axes) == 2


def test_choices_count_by_the_stricter_rule(shown):
    found = look.choices()
    assert len(found) == 16
    higher, lower = (sum(d.verdict == word for d in found.values()) for word in ("higher", "lower"))
    close = sum(d.verdict == "none" and d.interval[0] > 0 for d in found.values())
    assert f"Of {len(found)} exchanges {higher} end higher" in one_line(shown[0])
    assert f"{close} are candidates, {16 - higher - lower - close} are not told apart" in one_line(shown[0])
    assert len(labels(shown[0].axes[0])) == 16


def test_what_the_files_hold_is_what_the_titles_say(shown, capsys):
    bits = look.compression()
    assert f"{bits['tiny']:.2f} bits per byte" in one_line(shown[0])
    seconds = look.speed_rungs()
    plain, cached, compiled, small = (f"{1e3 * each:.3g}" for each in seconds)
    assert f"{plain} ms per token without a cache, {cached} with it; compiled {compiled}" in one_line(shown[1])
    assert f"in int8 {small}" in one_line(shown[1])
    rows = look.heads_learned()
    jump = max(after["induction"] - before["induction"] for before, after in itertools.pairwise(rows))
    assert np.isclose(np.diff(shown[2].axes[0].lines[1].get_ydata()).max(), jump)
    assert "Steps 1,300 to 1,400, with 50% repeated random words:" in one_line(shown[2])
    (band,) = shown[2].axes[0].patches
    assert (band.get_x(), band.get_width()) == (1300, 200)


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
    assert [len(row) for row in times] == [3, 3]


def test_neighbours_change_places(tables, subject):
    found = look.neighbours(subject, "Once upon a time", "Once upon")
    model, ids, short = subject.model, subject.ids("Once upon a time"), subject.ids("Once upon")
    order = list(range(model.config.n_layers))
    order[0], order[1] = 1, 0
    rise = probe.next_token_losses(probe.run_layers(model, ids, order), ids).mean() - probe.loss_of(model, ids)
    token = int(model(short)[0, -1].argmax())
    p = probe.run_layers(model, short, order)[0, -1].softmax(-1)[token]
    assert np.allclose(found[1], (rise, p), rtol=1e-3, atol=1e-5)
    assert math.isclose(found[0][1], model(short)[0, -1].softmax(-1)[token], rel_tol=1e-4)
    assert [row[0] for row in tables[0][0]] == ["none", *(f"{i} and {i + 1}" for i in range(len(order) - 1))]
    assert tables[0][0][1][2].startswith(f"{rise:+.2f} ± ")


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
    for draw in (look.shape_ladder, look.walk, look.last_logits):
        draw(tiny, sentence)
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
    heard, first = parts.index("attention 3"), parts.index("feed-forward 0")
    assert found.added[heard] < 0.1 * found.above
    assert {parts[i] for i in found.added.topk(3).indices} >= {
        "feed-forward 5",
        "feed-forward 4",
        "feed-forward 0",
    }
    assert found.added[[i for i in range(len(parts)) if "attention" in parts[i]]].max() == found.added[heard]
    assert (found.exchanged[:, [heard, first]] > 8).all()
    assert (found.lost[parts.index("feed-forward 5")] > 4, found.lost[heard] > 9) == (True, True)
    assert (found.exchanged[:, parts.index("feed-forward 5")] < found.exchanged[:, heard]).all()
    assert (found.exchanged[:, parts.index("feed-forward 5")] > found.lost[parts.index("feed-forward 5")]).all()
    told = look.told(tiny, "Once upon a")
    others = [part for part in told if part.startswith("attention") and part != "attention 3"]
    assert told["attention 3"][1][-1] < min(told[part][1][0] for part in others)
    blind = look.hidden(tiny, "Once upon a", "attention 3")
    alone = {name: share for name, (share, _) in blind.items() if name.endswith("alone")}
    assert min(alone, key=alone.__getitem__) == "feed-forward 3 alone"
    assert alone["feed-forward 5 alone"] > 0.8 * blind["nobody"][0]
    places = look.every_place(tiny, show.OPENING)
    assert {loudest for *_, loudest, _, _ in places} == {"feed-forward 4", "feed-forward 5"}
    assert {missed for *_, missed, _ in places} == {"feed-forward 0"}
    means = look.said_again(tiny)
    assert max(means, key=means.__getitem__) == "attention 5"
    exchanged = look.neighbours(tiny, show.TALE, "Once upon a")
    assert exchanged[4][0] < 0.2  # blocks 3 and 4: cheap for a tale, and the end of ' time'
    assert exchanged[4][1] < 0.1


def test_after_golden_the_last_feed_forward_takes_a_word_back(tiny):
    ids = tiny.ids("Once upon a time there was a king who had a golden")
    dash = tiny.tokenizer.encode("-")[0]
    stream = list(probe.residual_stream(tiny.model, ids).values())
    before = tiny.model.output(tiny.model.norm(stream[-2][0, -1])).softmax(-1)[dash]
    assert before > 0.5
    assert tiny.model(ids)[0, -1].softmax(-1)[dash] < 0.2


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
