"""Part 5's figures: what is drawn is what was given, and each says in words what it shows."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import randomize, shrink
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

import decoding_llama3 as dl
from decoding_llama3.inspect import heads, probe
from decoding_llama3.lessons import style
from decoding_llama3.lessons.figures import attention as figures
from decoding_llama3.lessons.figures import attention_cost, attention_models
from decoding_llama3.lessons.looks import attention as look
from decoding_llama3.lessons.looks.attention import cost, further, mechanism, models, sinks
from decoding_llama3.lessons.subject import Subject

WORDS = ["BOS", "Once", " upon", " a"]


@pytest.fixture(autouse=True)
def _close():
    style.use_style()
    yield
    plt.close("all")


def lengths(ax) -> list[float]:
    return [bar.get_width() for bars in ax.containers for bar in bars]


def heights(ax) -> list[float]:
    return [bar.get_height() for bars in ax.containers for bar in bars]


def lines(ax) -> list[list[float]]:
    return [np.asarray(line.get_ydata(), dtype=float).tolist() for line in ax.lines]


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def names(ticks) -> list[str]:
    return [tick.get_text() for tick in ticks]


def in_one_line(figure) -> str:
    return figure.get_suptitle().replace("\n", " ")


def test_a_repeated_word_has_a_column_for_each_place_and_a_row_for_each_model():
    guesses = {"with": [[(" x", 0.5), (" y", 0.2)], [(" z", 0.9), (" x", 0.1)]]}
    guesses["without"] = [[("w", 0.3), ("v", 0.2)]] * 2
    figure = figures.draw_repeated_word(["upon a", "was a"], guesses, "title")
    first, second, alone, _ = figure.axes
    assert (lengths(first), lengths(second), lengths(alone)) == ([0.5, 0.2], [0.9, 0.1], [0.3, 0.2])
    assert names(first.get_yticklabels()) == ["␣x", "␣y"]
    assert (first.get_title("left"), second.get_title("left")) == ("upon a ...", "was a ...")
    assert (first.get_ylabel(), alone.get_ylabel()) == ("with", "without")
    assert "50%" in texts(first)


def test_a_lookup_has_every_number_on_the_page():
    q, k, v = torch.tensor([0.0, 2]), torch.eye(2), torch.tensor([[3.0, 1], [0, 8]])
    (ax,) = figures.draw_lookup(q, k, v, ["Once", " upon"], "title").axes
    small = 1 / (1 + math.exp(2))
    for number in (f"{small:.2f}", f"{1 - small:.2f}", f"{3 * small:.2g}", f"{8 * (1 - small):.3g}", "8"):
        assert number in texts(ax), number
    found = texts(ax)
    assert found[found.index("their sum, y") + 1 :] == [f"{3 * small:.2g}", f"{small + 8 * (1 - small):.3g}"]
    assert "query of ␣upon" in found
    headings = [text.get_position()[0] for text in ax.texts if text.get_text() in ("its key, k", "its value, v")]
    boxes = [cell.get_x() + cell.get_width() / 2 for cell in ax.patches]
    assert all(min(boxes) < x < max(boxes) for x in headings)
    bar = next(cell for cell in ax.patches if np.isclose(cell.get_width(), 1.1 * (1 - small)))
    number = next(text for text in ax.texts if text.get_text() == f"{1 - small:.2f}")
    assert number.get_position()[0] > bar.get_x() + bar.get_width()


def test_wiring_leads_each_query_to_the_keys_that_serve_it_and_shows_its_weights():
    weights = torch.tensor([[0.7, 0.3], [0.1, 0.9], [1.0, 0.0], [0.5, 0.5]])
    (ax,) = figures.draw_wiring(weights, 2, ["Once", " upon"], "title").axes
    assert lines(ax) == [[0, 0.5], [1, 0.5], [2, 2.5], [3, 2.5]]
    shown = [text for text in texts(ax) if text.replace(".", "").isdigit()]
    assert shown == ["0.70", "0.30", "0.10", "0.90", "1.00", "0.00", "0.50", "0.50"]
    filled = [cell.get_alpha() for cell in ax.patches if cell.get_alpha() is not None]
    assert np.allclose(filled, weights.flatten())
    assert {"$k_{0}$, $v_{0}$", "$k_{1}$, $v_{1}$", "$q_{3}$", "␣upon"} <= set(texts(ax))


def test_likeness_shows_both_maps():
    maps = {"x": torch.eye(4), "q": torch.full((4, 4), 0.25)}
    left, right, _ = figures.draw_likeness(maps, WORDS, "title").axes
    assert np.array_equal(left.images[0].get_array(), maps["x"])
    assert np.array_equal(right.images[0].get_array(), maps["q"])
    assert names(left.get_xticklabels()) == ["BOS", "Once", "␣upon", "␣a"]
    assert (left.get_title("left"), right.get_title("left")) == ("x", "q")
    assert left.get_xlabel().endswith("(dotted: itself)")
    assert left.lines[0].get_xdata().tolist() == left.lines[0].get_ydata().tolist()


def test_scores_mark_the_highest_that_counts_and_leave_later_ones_hollow():
    (ax,) = figures.draw_scores(torch.tensor([1.0, -3, 2, 9]), WORDS, 2, "title").axes
    assert heights(ax) == [1, -3, 2, 9]
    faces = [to_hex(bar.get_facecolor()) for bars in ax.containers for bar in bars]
    assert [face == style.MARKED.lower() for face in faces] == [False, False, True, False]
    assert [face == "#ffffff" for face in faces] == [False, False, False, True]
    assert names(ax.get_xticklabels()) == ["BOS", "Once", "␣upon", "␣a"]


def test_saturation_has_a_line_with_and_without_the_scale():
    (ax,) = figures.draw_saturation([2, 4], {"raw": [9, 3], "scaled": [8, 7]}, 10, "title").axes
    assert lines(ax)[:2] == [[9, 3], [8, 7]]
    assert {"raw", "scaled", "all 10 alike"} <= set(texts(ax))
    assert ax.get_ylabel() == "keys in use, $e^H$"


def test_dice_show_both_losses_and_what_theory_allows():
    (ax,) = figures.draw_dice([1, 2], {"masked": [2, 1.8], "open": [2, 0.2]}, {"fair": 1.79}, "title").axes
    assert lines(ax)[:2] == [[2, 1.8], [2, 0.2]]
    assert set(texts(ax)) == {"masked", "open", "fair 1.79"}


def test_a_mixture_is_the_weighted_values_and_their_sum():
    weights, values = torch.tensor([0.25, 0.75]), torch.tensor([[4.0, 0, 8], [0, 4, 8]])
    left, right, _ = figures.draw_mixture(weights, values, WORDS[:2], "title").axes
    assert lengths(left) == [0.25, 0.75]
    assert right.images[0].get_array().tolist() == [[1, 0, 2], [0, 3, 6], [1, 3, 8]]
    assert names(left.get_yticklabels()) == ["BOS", "Once", "their sum, y"]


def test_two_needs_have_a_row_for_each_number_of_heads():
    outputs = {"one": {"a b": (2, 2), "b a": (2, 2)}, "two": {"a b": (4, 0, 0, 4), "b a": (0, 4, 4, 0)}}
    axes = figures.draw_two_needs(outputs, "title").axes
    assert [heights(ax) for ax in axes] == [[2, 2], [2, 2], [4, 0, 0, 4], [0, 4, 4, 0]]
    assert [ax.get_title("left") for ax in axes] == ["a b", "b a", "", ""]
    assert (axes[0].get_ylabel(), axes[2].get_ylabel()) == ("one", "two")
    heads_of = [[text for text in texts(ax) if text.startswith("head")] for ax in axes]
    assert heads_of == [["head 0"], ["head 0"], ["head 0", "head 1"], ["head 0", "head 1"]]


def test_a_cache_leaves_blank_what_is_not_written_yet():
    keys = torch.arange(12.0).view(4, 3)
    first, last, _ = figures.draw_cache([keys, keys], [1, 3], WORDS, "block 3", "title").axes
    assert first.images[0].get_array().mask.all(axis=1).tolist() == [False, True, True, True]
    assert last.images[0].get_array()[:3].tolist() == keys[:3].tolist()
    assert (first.get_title("left"), last.get_title("left")) == ("after 1 tokens", "after 3 tokens")
    assert (first.get_ylabel(), names(first.get_yticklabels())) == ("block 3", ["BOS", "Once", "␣upon", "␣a"])


def test_head_outputs_have_a_bar_for_each_head_and_one_for_their_sum():
    lengths = torch.tensor([1.0, 0.5])
    (ax,) = attention_models.draw_head_outputs(lengths, 1.25, ["a", "b"], "title").axes
    assert heights(ax) == [1, 0.5, 1.25]
    assert names(ax.get_xticklabels()) == ["head 0\na", "head 1\nb", "their sum"]
    assert texts(ax) == ["1.0", "0.5", "1.2"]


def test_what_is_handed_over_has_bars_for_each_block_and_marks_the_one_that_is_named():
    rows = torch.tensor([[0.8, 0.1, 0.7], [2.0, 0.5, -0.25], [0.0, 0.2, 0.6]])
    parts, units = ("without", "others", "handed"), ("p", "nats", "q")
    figure = attention_models.draw_handed_over(0.9, rows, parts, units, "title")
    told = ["block 1: 0.100"], ["block 1: +0.50"], ["block 2: 0.600"]
    for ax, values, extreme, text in zip(figure.axes, rows, (1, 1, 2), told, strict=True):
        assert np.allclose(heights(ax), values)
        marked = [to_hex(bar.get_facecolor()) == style.MARKED.lower() for bar in ax.containers[0]]
        assert [i for i, found in enumerate(marked) if found] == [extreme]
        assert texts(ax) == text
    titles = ["without (dashed: with all, 0.900)", "others", "handed"]
    assert [ax.get_title("left") for ax in figure.axes] == titles
    assert [ax.get_ylabel() for ax in figure.axes] == list(units)
    assert lines(figure.axes[0]) == [[0.9, 0.9]]


def test_block_heads_stand_between_all_and_none():
    without, alone = torch.tensor([0.5, 0.75]), torch.tensor([0.25, 0.125])
    left, right = attention_models.draw_block_heads(without, alone, 0.9, 0.1, "title").axes
    assert (heights(left), heights(right)) == ([0.5, 0.75], [0.25, 0.125])
    assert lines(left) == [[0.9, 0.9], [0.1, 0.1]]
    assert {"all heads", "none", "0.25", "0.12"} <= set(texts(right))


def test_head_kinds_have_a_row_for_each_model_and_name_the_highest():
    low, high = torch.zeros(2, 3), torch.zeros(2, 3)
    low[0, 1], high[1, 2] = 0.25, 0.75
    figure = attention_models.draw_head_kinds({"tiny": {"before": low, "first": high}}, "title")
    before, first, _ = figure.axes
    assert np.array_equal(before.images[0].get_array(), low)
    assert (texts(before), texts(first)) == (["before"], ["first"])
    assert (before.get_title("left"), first.get_title("left")) == ("most 0.1: 0.25", "most 1.2: 0.75")
    assert [frame.get_xy() for frame in (*before.patches, *first.patches)] == [(0.5, -0.5), (1.5, 0.5)]


def test_forming_has_a_line_for_each_seed():
    accuracy = {"two": torch.tensor([[0.5, 1.0], [0.25, 0.5]])}
    (ax,) = attention_models.draw_forming([1, 10], accuracy, "title").axes
    assert lines(ax) == [[50, 100], [25, 50]]
    assert texts(ax) == ["two"]


def test_silenced_heads_have_dots_with_intervals_and_bars_for_blocks():
    rise, half = torch.tensor([[0.5, 0.25]]), torch.tensor([[0.125, 0.25]])
    left, right = attention_models.draw_silenced_heads(rise, half, torch.tensor([2.0]), "title").axes
    assert [line for line in lines(left) if len(line) == 1] == [[0.5], [0.25]]
    ends = [bars.get_segments()[0][:, 1].tolist() for bars in left.collections]
    assert ends == [[0.375, 0.625], [0.0, 0.5]]
    assert texts(left) == ["head 0.0: 0.500"]
    assert heights(right) == [2]
    assert lines(right) == [[0.75]]


def test_sharing_wires_every_query_to_its_set():
    (ax,) = attention_cost.draw_sharing(4, 2, ["8 bytes"], "title").axes
    wires = [list(line.get_xdata()) for line in ax.lines if len(line.get_xdata()) == 2]
    assert wires == [[0, 0.5], [1, 0.5], [2, 2.5], [3, 2.5]]
    assert {"4 queries", "2 sets of keys and values", "8 bytes"} == set(texts(ax))


def test_a_roofline_bends_where_arithmetic_and_reading_balance():
    (ax,) = attention_cost.draw_roofline(100e12, 10e12, {"one": 1, "many": 80}, "title").axes
    roof = ax.lines[0]
    assert list(roof.get_xdata()) == [0.5, 10, 160]
    assert list(roof.get_ydata()) == [5, 100, 100]  # per cent
    dots = [(*line.get_xdata(), *line.get_ydata()) for line in ax.lines if line.get_marker() == "o"]
    assert dots == [(1, 10), (80, 100)]
    assert {"10 operations\nper byte", "one: 1, so 10.0 %", "many: 80, so 100.0 %"} <= set(texts(ax))


def test_times_are_drawn_in_milliseconds_for_each_model():
    panels = {"tiny": ([1, 2], {"without": [0.5, 0.25], "with": [0.125, 0.125]})}
    (ax,) = attention_cost.draw_step_times(panels, "title").axes
    assert lines(ax) == [[500, 250], [125, 125]]
    assert texts(ax) == ["without", "with"]


@pytest.fixture
def shown(monkeypatch):
    """The figures that are shown, in place of showing them."""
    kept = []

    def keep(figure, alt):
        assert len(alt.split()) >= 6
        kept.append(figure)

    for module in (mechanism, models, cost, further):
        monkeypatch.setattr(module, "show_figure", keep)
    return kept


@pytest.fixture
def tables(monkeypatch):
    kept = []
    for module in (models, further, sinks):
        monkeypatch.setattr(module, "show_table", lambda rows, header, caption="": kept.append(list(rows)))
    return kept


@pytest.fixture
def subject():
    config = dataclasses.replace(shrink("llama3-8b"), vocab_size=4096)
    return Subject("random", randomize(dl.Transformer(config)).requires_grad_(False), dl.load_tokenizer("tiny"))


@pytest.fixture(scope="module")
def tiny():
    return Subject("tiny", dl.load_model("tiny", dtype=torch.float32), dl.load_tokenizer("tiny"))


def test_without_attention_a_word_has_one_continuation(shown, subject):
    look.repeated_word(subject, "a cat, a dog, a bird")
    (figure,) = shown
    with_attention, without = figure.axes[:3], figure.axes[3:]
    assert len({tuple(lengths(ax)) for ax in without}) == 1
    assert len({tuple(lengths(ax)) for ax in with_attention}) > 1
    assert in_one_line(figure).endswith("without attention one word")


def test_a_sentence_without_a_repeated_word_is_replaced_and_it_is_said(shown, subject, capsys):
    look.repeated_word(subject, "Once upon")
    assert "No word stands twice" in capsys.readouterr().out
    assert "' a'" in in_one_line(*shown)


def test_the_wiring_shows_the_models_weights_of_the_last_word(shown, tiny):
    look.wiring(tiny, "Once upon a", block=3)
    (figure,) = shown
    filled = [cell.get_alpha() for cell in figure.axes[0].patches if cell.get_alpha() is not None]
    weights = probe.attention_weights(tiny.model, tiny.ids("Once upon a"))[3][0, :, -1]
    assert np.allclose(filled, weights.detach().flatten())
    title = in_one_line(figure)
    assert f"query 1 attends to ' upon' ({weights[1, 2]:.0%})" in title
    assert f"query 6 attends to 'Once' ({weights[6, 1]:.0%})" in title


def test_titles_of_the_steps_say_the_numbers_that_are_drawn(shown):
    x = torch.eye(4)
    look.likeness(x, torch.roll(x, -1, dims=1), 50 * x, WORDS)
    look.query_scores(torch.tensor([1.0, 7, 2, 9]), WORDS, 2)
    look.mixture(torch.tensor([0.25, 0.75, 0, 0]), torch.ones(4, 2), WORDS, 1)
    look.saturation()
    look.soft_lookup(torch.tensor([0.0, 2, 1]), torch.eye(3), torch.eye(3), WORDS[1:])
    alike, scores, mixed, saturated, looked_up = map(in_one_line, shown)
    assert alike.endswith(
        "4 of 4 tokens attend most to themselves; by query and key 0 do, and 3 attend most to the token before"
    )
    assert scores == "To ' upon' the key of 'Once' scores highest of those so far, 7"
    assert mixed == "'Once' gives 'Once' 75% of its weight, and takes that share of its value"
    raw, scaled = (line[6] for line in lines(shown[3].axes[0])[:2])  # at 128 features
    assert saturated.endswith(f"uses {raw:.1f} of 128 keys; with its scores scaled, {scaled:.0f}")
    assert looked_up == "The query finds 'upon' and takes 67% of its value"


def test_without_a_mask_dice_are_predicted(shown, capsys):
    last = look.dice(steps=60)
    assert last["without it"] < last["with the mask"]
    assert f"{last['without it']:.2f} nats per throw" in in_one_line(*shown)
    assert last["at the last place"] > math.log(6) - 0.1
    assert f"{last['at the last place']:.2f} nats" in capsys.readouterr().out


def test_what_the_heads_write_adds_up_to_what_attention_gives(shown, tiny):
    text = "Once upon a time there was"
    ids, attention = tiny.ids(text), tiny.model.layers[3].attention
    with torch.no_grad(), probe.recording(tiny.model, ["layers.3.attention.wo"]) as record:
        tiny.model(ids)
        mixed = record.inputs["layers.3.attention.wo"][0].unflatten(-1, (8, -1)).transpose(0, 1)
        weights = probe.attention_weights(tiny.model, ids)[3][0]
        look.head_outputs(attention, mixed, weights, tiny.words(text), 3)
    *heads_of, whole = heights(shown[0].axes[0])
    assert whole == pytest.approx(record.outputs["layers.3.attention.wo"][0, 3].norm().item(), rel=1e-4)
    told = f"the 8 heads are {sum(heads_of):.1f} long in all, and {whole:.1f} when added"
    assert told in in_one_line(*shown)
    assert names(shown[0].axes[0].get_xticklabels())[1] == "head 1\n␣upon"


def test_the_cache_that_is_drawn_is_the_models(shown, tiny):
    look.growing_cache(tiny, "Once upon a time there was", 3)
    keys = probe.queries_and_keys(tiny.model, tiny.ids("Once upon a time there was"))[3][1][0, 0]
    drawn = shown[0].axes[2].images[0].get_array()[: len(keys)]
    assert np.allclose(drawn, keys.detach(), atol=1e-4)
    numbers = tiny.model.config.kv_cache_bytes(1) // 2
    assert f"never changes: 32 numbers here, {numbers:,} with the values" in in_one_line(*shown)


def test_exchanged_attention_is_what_silencing_and_patching_one_by_one_give(subject):
    text = "a cat and a dog"
    places = [i for i, word in enumerate(subject.words(text)) if word == "a" or word == " a"][:2]
    whole, (without, others, handed), _ = models.attention_exchanged(subject, text, places)
    ids, model = subject.ids(text), subject.model
    kept = [i for i in range(ids.shape[1] - 1) if i != places[0]]
    untouched = probe.next_token_losses(model(ids), ids)[0, kept].mean()
    first = model(ids)[0, places[0]].softmax(-1)
    token = int(first.argmax())
    assert whole == pytest.approx(first[token].item(), rel=1e-4)
    for block in range(model.config.n_layers):
        with heads.without_heads(model, [(block, head) for head in range(model.config.n_heads)]):
            silenced = model(ids)[0, places[0]].softmax(-1)[token]
            rise = probe.next_token_losses(model(ids), ids)[0, kept].mean() - untouched
        assert without[block].item() == pytest.approx(silenced.item(), rel=1e-4)
        assert others[block].item() == pytest.approx(rise.item(), abs=1e-4)

        def patch(mixed):
            mixed = mixed.clone()
            mixed[:, places[1]] = mixed[:, places[0]]
            return mixed

        with probe.intercepted(model, [f"layers.{block}.attention.wo"], patch):
            patched = model(ids)[0, places[1]].softmax(-1)[token]
        assert handed[block].item() == pytest.approx(patched.item(), rel=1e-4)


def test_block_3_of_tiny_says_time_and_head_1_alone_nearly_suffices(shown, tiny):
    with torch.no_grad():
        look.handed_over("Once upon a time there was a king who had a golden bird", tiny)
        look.block_heads(tiny, "Once upon a", 3)
    handed, single = shown
    assert in_one_line(handed) == (
        "Without the attention of tiny's block 3, 0.01 of ' time' is left; block 3's, handed over, gives it 0.95"
    )
    assert handed.axes[0].get_title("left") == (
        "1. ' time' after the first ' a', the attention of this block silenced (dashed: with all, 0.995)"
    )
    assert texts(handed.axes[0]) == ["block 3: 0.009"]
    left, right = single.axes
    assert f"keeps at least {min(heights(left)):.2f}" in in_one_line(single)
    assert f"head 1 alone is worth {max(heights(right)):.2f}" in in_one_line(single)


def test_words_are_hidden_in_all_blocks(tables, tiny):
    with torch.no_grad():
        ways = look.two_ways(tiny, "Once upon a", {"one": [(3, 1)], "both": [(3, 1), (2, 1)]})
        ids = tiny.ids("Once upon a")
        seen = torch.tril(torch.ones(4, 4, dtype=torch.bool))
        seen[3, 1] = seen[2, 1] = False
        blind = dl.inference.parts.with_parts(tiny.model, attend=lambda q, k, v, mask: dl.attend(q, k, v, seen))
        token = int(tiny.model(ids)[0, -1].argmax())
        assert ways["both"] == pytest.approx(blind(ids)[0, -1].softmax(-1)[token].item(), abs=1e-4)
    assert ways["both"] < 0.5 < ways["one"] < ways["nothing hidden"]
    assert tables == [[[name, f"{share:.3f}"] for name, share in ways.items()]]


@pytest.mark.parametrize("start", [0, 1])
def test_a_token_is_hidden_or_muted_from_a_block_on(subject, start):
    ids = subject.ids("Once upon a time there was a king who had a golden bird and a silver tree in a garden")
    out_of_sight = torch.tril(torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool))
    out_of_sight[3:, 2] = False

    def hide(q, k, v, mask):
        return dl.attend(q, k, v, out_of_sight)

    def mute(q, k, v, mask):
        own, silent = dl.attend(q, k, v, None), v.clone()
        silent[:, :, 2] = 0
        return torch.cat([own[:, :, :3], dl.attend(q, k, silent, None)[:, :, 3:]], dim=2)

    def from_block(change, first):
        changed, blocks = dl.inference.parts.with_parts(subject.model, attend=change), subject.model.layers
        for block in range(first):
            changed.layers[block] = blocks[block]
        return changed

    def losses(model):
        return probe.next_token_losses(model(ids), ids)[0, models.START :].mean().item()

    with torch.no_grad():
        whole = losses(subject.model)
        (_, costs), sizes = sinks.rises_without_tokens(subject.model, ids, (5, 2), start)
        expected = [losses(from_block(*way)) - whole for way in ((hide, 0), (hide, start), (mute, start))]
        assert costs == pytest.approx(expected, abs=1e-4)
        assert torch.allclose(sizes[1], sinks.lengths_by_block(from_block(hide, 0), ids)[0], atol=1e-4)


def test_the_length_of_a_value_is_in_multiples_of_the_median(subject):
    ids = subject.ids("Once upon a time there was a king")
    with torch.no_grad():
        found = sinks.value_lengths(subject.model, ids, 1)
        with probe.recording(subject.model, ["layers.1.attention.wv"]) as record:
            subject.model(ids)
        sizes = record.outputs["layers.1.attention.wv"][0].norm(dim=-1)
    assert torch.allclose(found, sizes / sizes.median())
    assert found.median() == 1


def test_blocks_that_matter_are_those_without_which_the_word_is_least_likely(tables, tiny):
    text = "Once upon a time there was a king who had a golden bird"
    with torch.no_grad():
        look.blocks_that_matter(text, tiny, most=2)
        _, exchanged, _ = models.attention_exchanged(tiny, text, places=[3, 7])
    (rows,) = tables
    order = exchanged[0].argsort()[:2].tolist()
    assert [row[0] for row in rows] == [f"{block}" for block in order]
    assert order[0] == 3
    assert rows[0][1:] == [f"{exchanged[0, 3]:.3f}", f"{exchanged[1, 3]:+.2f}", f"{exchanged[2, 3]:.3f}"]


def test_kinds_of_heads_are_mean_weights():
    maps = torch.zeros(1, 3, 40, 40)
    maps[0, 0] = torch.eye(40)
    maps[0, 1] = torch.diag(torch.ones(39), -1)
    maps[0, 2, :, 0] = 1
    before, first, itself = models.kinds_of_heads(maps).values()
    assert (before[0].tolist(), first[0].tolist(), itself[0].tolist()) == ([0, 1, 0], [0, 0, 1], [1, 0, 0])


def test_every_look_copes_with_one_and_with_two_models(shown, tables, subject):
    other = dataclasses.replace(subject, name="other")
    text = "A miller had three sons and one donkey. When he was old he called them and said, who finds the bird"
    with torch.no_grad():
        for subjects in ((subject, None), (subject, other)):
            look.handed_over(text, subjects[1] or subject)
            look.blocks_that_matter(text, subjects[1] or subject)
            look.head_kinds(text, *subjects)
            look.first_token(text, *subjects)
            look.step_times(*subjects)
            look.copying_heads(*subjects)
    assert len(shown) == 8
    assert [len(rows) for rows in tables] == [2, 3, 1, 2, 3, 3, 2]
    assert {len(row) for rows in (tables[1], tables[4], tables[5]) for row in rows} == {6}
    assert all("other" in in_one_line(figure) for figure in shown[4:])


def test_sharing_says_bytes_and_users(tiny):
    llama = dl.LlamaConfig.from_preset("llama3-8b")
    found = {sets: in_one_line(look.sharing(llama, sets)) for sets in (32, 8, 1)}
    assert found[32] == "MHA, 32 for 32 queries: 524,288 bytes per token, 1 user on a card"
    assert found[8] == "GQA, 8 for 32 queries: 131,072 bytes per token, 7 users on a card"
    assert found[1] == "MQA, 1 for 32 queries: 16,384 bytes per token, 59 users on a card"


def test_the_roofline_says_how_much_of_the_card_is_used(shown):
    look.cache_roofline({"small": 1, "large": 8})
    assert in_one_line(*shown).startswith(f"Waiting for its cache, attention uses {8 * 3.35e12 / 989e12:.1%}")


def test_silenced_copying_heads_are_those_above_the_threshold_or_the_best():
    assert further.heads_above(torch.tensor([[0.4, 0.1], [0.2, 0.9]])) == [(0, 0), (1, 1)]
    assert further.heads_above(torch.tensor([[0.04, 0.1]])) == [(0, 1)]
    pool = [(0, i) for i in range(5)]
    drawn = further.by_chance(pool, 3, 4)
    assert all(len(set(chosen)) == 3 and set(chosen) <= set(pool) for chosen in drawn)
    assert len({tuple(chosen) for chosen in drawn}) > 1


def test_copying_is_silenced_with_controls(tables, subject):
    with torch.no_grad():
        look.copying_silenced(
            subject, "A miller had three sons and one donkey. When he was old he called them", draws=2
        )
        model, (tokens, periods) = subject.model, further.repeats_for(subject)
        with heads.without_heads(model, [(1, head) for head in range(model.config.n_heads)]):
            silenced = heads.repeat_losses(model, tokens, periods)[1]
        rise = silenced - heads.repeat_losses(model, tokens, periods)[1]
    (rows,) = tables
    blocks = model.config.n_layers
    assert [row[0] for row in rows[-blocks:]] == [f"block {block}, all heads" for block in range(blocks)]
    controls = [row[0] for row in rows[:-blocks] if "others" in row[0]]
    assert len(controls) == 4
    assert all("none of block" in name for name in controls[1::2])
    assert not any("none of block" in name for name in controls[::2])
    assert rows[-blocks + 1][1] == f"{rise:+.2f}"


def test_even_weights_are_all_of_what_a_head_may_attend_to():
    even = torch.tril(torch.ones(30, 30)) / torch.arange(1, 31)[:, None]
    assert torch.allclose(further.evenness(torch.stack([even, even])[:, None]), torch.ones(2))
    assert further.evenness(torch.eye(30)[None, None]).item() < 0.06


def test_a_head_is_silenced_from_its_block_on_as_in_the_whole_model(subject):
    ids = subject.ids("Once upon a time there was a king").repeat(2, 1)
    ids[1, 1:] = ids[1, 1:].flip(0)
    with torch.no_grad():
        alone, together = further.rises_without_heads(subject, ids)
        whole = probe.next_token_losses(subject.model(ids), ids).mean(-1)
        with heads.without_heads(subject.model, [(1, 2)]):
            silenced = probe.next_token_losses(subject.model(ids), ids).mean(-1)
    assert torch.allclose(alone[1, 2], silenced - whole, atol=1e-5)
    assert together.shape == (2, 2)


def test_an_interval_is_that_of_paired_differences():
    differences = torch.tensor([1.0, 2, 3, 4, 5])
    assert further.half_interval(differences).item() == pytest.approx(2.776 * 2.5**0.5 / 5**0.5, rel=1e-4)


def test_each_silenced_head_is_compared_with_its_neighbours(shown, subject, capsys):
    with torch.no_grad():
        look.each_head_silenced(subject, windows=3, length=24)
    left, right = shown[0].axes
    dots = [line[0] for line in lines(left) if len(line) == 1]
    assert f"costs more than {max(dots):.3f} nats, a whole block up to {max(heights(right)):.2f}" in in_one_line(
        *shown
    )
    assert "more than the mean of its block's others" in capsys.readouterr().out
    assert len(dots) == subject.model.config.n_layers * subject.model.config.n_heads
    assert len(heights(right)) == subject.model.config.n_layers


def test_the_circuits_curves_are_those_that_were_kept(shown, tables):
    means = look.circuit_forming()
    told = f"copy {means['two blocks']:.0%}, from 30 to 90 % within 60 steps; one block ends at"
    assert told in in_one_line(*shown)
    two = [line for line in lines(shown[0].axes[0]) if line[-1] > 90]
    assert len(two) == 5
    assert [row[0] for row in tables[0]] == ["two blocks", "one block", "one block, always 12"]
