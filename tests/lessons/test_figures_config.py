"""Part 2's figures: what is drawn is what was given, and each says in words what it shows."""

import csv
import dataclasses
import inspect
import itertools
import random
import weakref

import numpy as np
import pytest
import torch
from conftest import randomize, shrink
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import decoding_llama3 as dl
from decoding_llama3 import config_files, config_schema
from decoding_llama3.inference.data import data_directory
from decoding_llama3.inspect import probe
from decoding_llama3.lessons import style
from decoding_llama3.lessons.figures import config as figures
from decoding_llama3.lessons.figures import config_models, config_scale
from decoding_llama3.lessons.looks import config as look
from decoding_llama3.lessons.looks.config import building, drawing, memory, models, names
from decoding_llama3.lessons.show import held_out_ids
from decoding_llama3.lessons.subject import Subject

FIELDS = ["dim", "n_layers", "n_kv_heads", "hidden_dim", "vocab_size", "tokens", "texts"]
TIMES = (0.25, 0.5, 1, 2, 4)


@pytest.fixture(autouse=True)
def _close():
    style.use_style()
    yield
    plt.close("all")


def strips(ax) -> dict[str, tuple[float, float]]:
    """Length and thickness of what is drawn under a name."""
    return {patch.get_gid(): (patch.get_width(), patch.get_height()) for patch in ax.patches if patch.get_gid()}


def dashed(ax) -> list[tuple[float, float]]:
    return [(p.get_width(), p.get_height()) for p in ax.patches if not p.get_fill()]


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def lines(ax) -> list[list[float]]:
    return [np.asarray(line.get_ydata(), dtype=float).tolist() for line in ax.lines]


def widths(ax) -> list[float]:
    return [bar.get_width() for bars in ax.containers for bar in bars]


def heights(ax) -> list[list[float]]:
    return [[bar.get_height() for bar in bars] for bars in ax.containers]


def title_of(figure) -> str:
    return figure.get_suptitle().replace("\n", " ")


def load(weights=3e9, cache=1e9, card=24e9, cards=1):
    return config_scale.Load(weights, cache, card, cards, "1 text of 10 tokens")


@pytest.mark.parametrize("name", dl.PRESETS)
def test_areas_are_the_parameters(name):
    c = dl.LlamaConfig.from_preset(name)
    tower, block, *_ = config_scale.draw_to_scale(c, "title", load()).axes
    area = sum(length * thick for length, thick in strips(tower).values())
    assert area + (2 * c.n_layers + 1) * c.dim == c.n_params  # the norms are not drawn
    assert {name: length for name, (length, _) in strips(block).items()} == config_scale.strips(c)
    assert {thick for _, thick in strips(block).values()} == {c.dim}
    assert ("output" in strips(tower)) != c.tie_embeddings
    assert (dashed(tower) == [(c.vocab_size, c.dim)]) == c.tie_embeddings


def test_strips_have_the_shapes_of_the_matrices(model):
    lengths, dim = config_scale.strips(model.config), model.config.dim
    for name, weight in model.layers[0].named_parameters():
        if weight.dim() == 2:
            assert sorted(weight.shape) == sorted((lengths[name.split(".")[1]], dim))


def test_the_model_before_is_dashed():
    c = dl.LlamaConfig.from_preset("llama3-8b")
    tower = config_scale.draw_to_scale(c, "title", load(), before=dataclasses.replace(c, n_layers=3)).axes[0]
    assert dashed(tower) == [(128_256, 4096), (53_248, 3 * 4096), (128_256, 4096)]


def test_words_name_the_fields_and_the_card():
    c = dl.LlamaConfig.from_preset("llama3.2-1b")
    tower, _, fields, card = config_scale.draw_to_scale(c, "title", load(100e9, 20e9, 80e9, 2)).axes
    assert {"output: the embedding once more", "16\nblocks", "embedding: 128,256 rows of 2,048"} <= set(
        texts(tower)
    )
    assert {"dim = 2,048", "n_kv_heads x head_dim = 8 x 64 = 512", "hidden_dim = 8,192"} <= set(texts(fields))
    assert widths(card) == [100, 20]
    assert [bar.get_x() for bars in card.containers for bar in bars] == [0, 100]
    assert texts(card) == ["weights in bfloat16: 100.0 GB", "cache of 1 text of 10 tokens: 20.0 GB"]
    assert card.get_xlabel() == "2 graphics cards of 80 GB each"
    assert len(dashed(card)) == 2
    assert len(config_scale.draw_to_scale(c, "title").axes) == 3  # without a load there is no card


def test_what_does_not_fit_a_card_is_red():
    c = shrink("llama3-8b")
    card = config_scale.draw_to_scale(c, "title", load(20e9, 14e9, 24e9, 1)).axes[3]
    (over,) = (patch for patch in card.patches if patch.get_gid() == "too much")
    assert (over.get_x(), over.get_width()) == (24, 10)
    assert to_hex(over.get_edgecolor()) == style.WRONG.lower() == card.xaxis.label.get_color().lower()
    assert card.get_xlabel() == "a graphics card of 24 GB: 10.0 GB too much"
    assert card.get_xlim()[1] > 34
    fits = config_scale.draw_to_scale(c, "title", load(20e9, 4e9, 24e9, 1)).axes[3]
    assert fits.get_xlabel() == "a graphics card of 24 GB"


@pytest.mark.parametrize(
    ("n_bytes", "words"), [(16.06e9, "16.1 GB"), (11.1e6, "11.1 MB"), (2e3, "2.0 kB"), (7, "7.0 bytes")]
)
def test_bytes_in_words(n_bytes, words):
    assert config_scale.in_bytes(n_bytes) == words


@pytest.mark.parametrize(("n_params", "area"), [(5_573_888, 10_000), (8_030_261_248, 10_000_000), (10**9, 10**7)])
def test_the_square_beside_a_tower_is_a_round_number(n_params, area):
    assert config_scale.round_area(n_params) == area


@pytest.mark.parametrize(("count", "words"), [(10_000, "10,000"), (10**7, "10 million"), (10**9, "1 billion")])
def test_round_numbers_in_words(count, words):
    assert config_scale.in_words(count) == words


def test_towers_stand_side_by_side_with_their_words():
    c = shrink("llama3-8b")
    figure = config_scale.draw_towers({"one": (c, "1 million"), "two": (c, "2 million")}, "title")
    assert [ax.get_title() for ax in figure.axes] == ["one\n1 million", "two\n2 million"]
    assert strips(figure.axes[0])["embedding"] == (c.vocab_size, c.dim)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(config_scale.STRIP_COLOURS)


def test_towers_have_one_area():
    models = {name: (dl.LlamaConfig.from_preset(name), "") for name in ("tiny", "llama3-70b")}
    figure = config_scale.draw_towers(models, "title")
    figure.canvas.draw()
    inches = [
        ax.get_window_extent().height / (ax.get_ylim()[1] - ax.get_ylim()[0]) * config.n_params**0.5
        for ax, (config, _) in zip(figure.axes, models.values(), strict=True)
    ]
    assert np.isclose(*inches, rtol=0.01)
    for ax, (config, _) in zip(figure.axes, models.values(), strict=True):
        assert ax.get_xlim()[1] >= config.vocab_size / 2
        assert ax.get_ylim()[1] >= config.dim * (config.n_layers + 2)


def test_only_the_changed_length_is_bold():
    c = dl.LlamaConfig.from_preset("llama3-8b")
    changed = config_scale.draw_to_scale(dataclasses.replace(c, n_kv_heads=32), "title", before=c).axes[2]
    bold = [text.get_text() for text in changed.texts if text.get_fontweight() == "bold"]
    assert bold == ["n_kv_heads x head_dim = 32 x 128 = 4,096"]
    plain = config_scale.draw_to_scale(c, "title").axes[2]
    assert {text.get_fontweight() for text in plain.texts} == {"normal"}


def test_matrices_say_their_sides_and_counts():
    c = dl.LlamaConfig.from_preset("llama3-8b")
    wq, wk = config_scale.draw_block_matrices(c, ("wq", "wk"), "title").axes
    assert (wq.patches[0].get_width(), wk.patches[0].get_width()) == (4096, 1024)
    assert wk.get_title() == "wk\n1,024 x 4,096\n= 4,194,304"
    assert wq.get_xlim() == wk.get_xlim()


def test_a_lookup_shows_the_table_and_the_rows_picked():
    table = torch.tensor([[1.0, -2.0], [3.0, 4.5]])
    figure = figures.draw_toy_lookup(["a", "bird"], table, torch.tensor([1, 0, 1, 1]), "title")
    left, _, right = figure.axes
    assert texts(left) == ["1", "-2", "3", "4.5"]
    assert texts(right) == ["3", "4.5", "1", "-2", "3", "4.5", "3", "4.5"]
    assert [label.get_text() for label in right.get_yticklabels()] == ["bird", "a", "bird", "bird"]
    assert [label.get_text() for label in left.get_yticklabels()] == ["0 a", "1 bird"]
    first, second, *_ = (label.get_color() for label in right.get_yticklabels())
    assert first == left.get_yticklabels()[1].get_color() != second
    assert [text.get_color() for text in right.texts[:4]] == [first, first, second, second]
    assert len(figure.artists) == 4  # a line per token


def test_embedded_rows_outline_the_same_token():
    rows = torch.arange(12.0).view(3, 4)
    ax, _ = figures.draw_embedded_rows(["a", "b", "a"], rows, [0, 2], "title", features=3).axes
    assert ax.images[0].get_array().tolist() == rows[:, :3].tolist()
    assert ax.get_xlabel() == "feature (the first 3 of 4)"
    marked = [to_hex(label.get_color()) == style.MARKED.lower() for label in ax.get_yticklabels()]
    assert marked == [True, False, True]
    assert [patch.get_y() + patch.get_height() / 2 for patch in ax.patches] == [0, 2]


def test_the_width_rule_marks_what_is_rounded():
    (ax,) = figures.draw_width_rule((1, 2), {"line": (3, 5), "steps": (4, 8)}, (2, 5, 8), "title").axes
    assert lines(ax) == [[3, 5], [4, 8], [5, 8]]
    assert texts(ax) == ["5 becomes 8"]


def test_a_ladder_has_a_line_per_token_at_each_stage():
    stage = figures.Rung
    stages = [
        stage("ids", (1,)),
        stage("rows", (6,)),
        stage("wq, wk", (4, 2), inside=True),
        stage("wo", (6,), added=True, inside=True),
        stage("output", (20,)),
    ]
    (ax,) = figures.draw_shapes_by_step({"m": (stages, 7)}, 3, "title").axes
    spans = [
        [(segment[0][0], segment[1][0]) for segment in bundle.get_segments()] for bundle in ax.collections[:6]
    ]
    assert [{round(end - start, 6) for start, end in bundle} for bundle in spans] == [
        {1},
        {6},
        {4},
        {2},
        {6},
        {20},
    ]
    assert all(len(bundle) == 3 for bundle in spans)
    assert spans[3][0][0] > spans[2][0][1]  # side by side
    heights = [{y for segment in bundle.get_segments() for _, y in segment} for bundle in ax.collections[:6]]
    assert heights[2] == heights[3]
    assert set(texts(ax)) == {
        "3 ids", "3 x 6", "3 x 4, 3 x 2", "3 x 20", "+", "one of 7 blocks", "the last token"
    }  # fmt: skip
    plus = [text.get_position()[1] for text in ax.texts if text.get_text() == "+"]
    assert plus == [3.33]
    (stream,) = ax.lines
    assert min(stream.get_ydata()) < 2 < plus[0] < max(stream.get_ydata())
    assert to_hex(ax.collections[0].get_colors()[-1]) == style.MARKED.lower()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["ids", "rows", "wq, wk", "wo", "output"]
    assert ax.get_title("left") == "m, at its own scale"


def test_swept_fields_show_the_rise_over_the_trained_value():
    sweep = {
        "eps": (0.1, {1.0: [5.0, 7.0], 0.1: [3.0, 4.0]}),
        "n_heads": (4, {4: [3.0, 4.0], 2: [3.5, 3.5]}),
    }
    figure = config_models.draw_swept_fields({"tiny": sweep}, "title")
    eps, heads = figure.axes
    mean, first, second, mark, _ = lines(eps)
    assert (mean, first, second, mark) == ([0, 2.5], [0, 2], [0, 3], [0])
    assert lines(heads)[:3] == [[0, 0], [0.5, 0], [-0.5, 0]]
    assert eps.get_ylim() == heads.get_ylim()
    assert heads.get_title("left") == "n_heads, trained: 4"
    assert (texts(eps), texts(heads)) == (["+2.5"], [])


def test_the_orders_of_two_models_have_one_scale():
    panels = {name: (["bytes"], [share], [loss]) for name, share, loss in (("a", 0.5, 1.0), ("b", 0.2, 4.0))}
    first, _, second, _ = config_models.draw_learned_order(panels, "title").axes
    assert first.get_xlim() == second.get_xlim() == (0, 0.6)


def test_the_order_of_learning_has_shares_and_losses():
    panel = ["bytes", "1 to 9"], [0.25, 0.75], [float("nan"), 3.14]
    shares, losses = config_models.draw_learned_order({"tiny": panel}, "title").axes
    assert (widths(shares), widths(losses)) == ([0.25, 0.75], [0, 3.14])
    assert (shares.get_xlabel(), losses.get_xlabel()) == ("share of the text's bytes", "loss (nats per byte)")
    assert texts(shares) == [" 25%", " 75%"]
    assert texts(losses) == [" none in this text", " 3.14"]
    assert to_hex(losses.patches[0].get_facecolor()) == style.MODEL_COLOURS["tiny"].lower()


def test_what_lies_beyond_training_is_shaded():
    inside, beyond = config_models.draw_context_lengths(
        {"long": (100, {0: 3.0, 50: 2.0}), "short": (40, {0: 3.0, 50: 4.0})}, "title"
    ).axes
    assert (lines(inside), lines(beyond)) == ([[3, 2]], [[3, 4]])
    assert (len(inside.patches), len(beyond.patches)) == (0, 1)
    assert (texts(inside), texts(beyond)) == ([], ["beyond 40"])
    assert beyond.get_title("left") == "short, max_seq_len 40"


def test_memory_is_stacked_in_order():
    needs = {"weights": [1, 1], "cache": [2, 4]}
    formats, stack = config_models.draw_memory_need(
        {"float32": 4, "int8": 1}, (10, 20), needs, 1234.5, "title"
    ).axes
    assert widths(formats) == [4, 1]
    assert heights(stack) == [[1, 1], [2, 4]]
    assert [bar.get_y() for bar in stack.containers[1]] == [1, 1]
    assert {"a card of 24 GB", "if ever written down:\nscores, 1,234 GB"} <= set(texts(stack))


def test_equal_work_names_each_shape_and_draws_what_was_read():
    groups = {"depth": {"3 x 8": 1.5, "6 x 4": 1.6}, "size": {"9 x 9": 1.9}}
    read = {"narrow": {2e6: (1.8, "0.5x"), 4e6: (1.5, "1x")}, "broad": {1e6: (2.0, "4x")}}
    dots, by_tokens = config_models.draw_equal_work(groups, 1.7, read, "title").axes
    assert [np.unique(line.get_xdata()).tolist() for line in dots.lines] == [[1.7], [1.5], [1.6], [1.9]]
    assert [label.get_text() for label in dots.get_yticklabels()] == ["3 x 8", "6 x 4", "9 x 9"]
    assert {"depth", "size", "  1.500"} <= set(texts(dots))
    assert lines(by_tokens) == [[1.8, 1.5], [2.0]]
    assert texts(by_tokens) == ["0.5x", "1x", "4x"]
    assert dots.get_xlabel().endswith("(lower is better)")
    assert [line.get_xdata().tolist() for line in by_tokens.lines] == [[2, 4], [1]]
    assert [text.get_text() for text in by_tokens.get_legend().get_texts()] == ["narrow", "broad"]


@pytest.fixture
def shown(monkeypatch):
    """What is shown: each title with its figure, and the rows of each table."""
    kept = []

    def keep(figure, alt):
        assert len(alt.split()) >= 6
        kept.append((title_of(figure), figure))

    for module in (building, drawing, memory, models):
        monkeypatch.setattr(module, "show_figure", keep)
    for module in (building, models, names):
        monkeypatch.setattr(
            module, "show_table", lambda rows, header, caption="": kept.append((caption, list(rows)))
        )
    return kept


@pytest.fixture
def subject():
    config = dataclasses.replace(shrink("llama3-8b"), vocab_size=4096)
    return Subject("random", randomize(dl.Transformer(config)).requires_grad_(False), dl.load_tokenizer("tiny"))


def test_the_drawing_says_its_numbers(shown):
    c = dl.LlamaConfig.from_preset("llama3-8b")
    look.drawn("Llama 3 8B", c)
    ((title, figure),) = shown
    blocks = sum(a * b for name, (a, b) in strips(figure.axes[0]).items() if name.startswith("w"))
    assert title == f"Llama 3 8B: 8,030,261,248 parameters, {blocks / c.n_params:.0%} of them in its 32 blocks"
    assert len(figure.axes) == 3


def test_a_block_has_its_two_norms():
    assert drawing.block_params(dl.LlamaConfig.from_preset("llama3-8b")) == 218_112_000


@pytest.mark.parametrize(("name", "card", "cards"), [("tiny", 24e9, 1), ("llama3-70b", 80e9, 2)])
def test_a_model_lies_on_as_many_cards_as_it_needs(name, card, cards):
    found = drawing.load_of(dl.LlamaConfig.from_preset(name))
    assert (found.card, found.cards) == (card, cards)


def test_a_moved_field_changes_what_it_should():
    c = dl.LlamaConfig.from_preset("llama3-8b")
    fewer = title_of(look.moved(c, "n_layers", 0.5))
    assert fewer == "n_layers 16: 4.54 billion parameters (-3.49), 9.6 GB with the cache"
    assert "n_heads x head_dim = 32 x 64 = 2,048" in texts(look.moved(c, "dim", 0.5).axes[2])
    longer = look.moved(c, "tokens", 16)
    assert title_of(longer) == "tokens 131,072: 8.03 billion parameters (+0.00), 33.2 GB with the cache"
    assert np.isclose(widths(longer.axes[3])[1], c.kv_cache_bytes(131_072) / 1e9)
    assert longer.axes[3].get_xlabel() == "a graphics card of 24 GB: 9.2 GB too much"
    assert np.isclose(widths(look.moved(c, "texts", 4).axes[3])[1], 4 * c.kv_cache_bytes(8192) / 1e9)


DRAWN = random.Random(0).sample(list(itertools.product(FIELDS, TIMES)), 20)
ALONE = [*((field, 1) for field in FIELDS), *(("dim", times) for times in TIMES)]


@pytest.mark.parametrize(("field", "times"), dict.fromkeys([*ALONE, *DRAWN]))
def test_no_word_is_cut_wherever_the_slider_stands(field, times):
    figure = look.moved(dl.LlamaConfig.from_preset("llama3-8b"), field, times)
    figure.canvas.draw()
    frame = figure.bbox
    words = [text for ax in figure.axes for text in (*ax.texts, ax.title, ax._left_title) if text.get_text()]
    for text in [*words, figure._suptitle]:
        box = text.get_window_extent()
        assert frame.x0 - 1 <= box.x0, text
        assert box.x1 <= frame.x1 + 1, text
        assert frame.y0 - 1 <= box.y0, text
        assert box.y1 <= frame.y1 + 1, text


def test_towers_are_sorted_and_weighed(shown, subject):
    presets = {name: dl.LlamaConfig.from_preset(name) for name in ("llama3-70b", "tiny")}
    look.towers(presets, subject)
    look.towers(presets, None)
    (title, figure), (_, without) = shown
    assert [ax.get_title().split("\n")[0] for ax in figure.axes] == ["random", "tiny", "llama3-70b"]
    assert figure.axes[1].get_title() == "tiny\n5.6 million\n19% in tables"
    assert len(without.axes) == 2
    table = 2 * subject.model.config.vocab_size * subject.model.config.dim / subject.model.config.n_params
    assert title == f"Equal areas: tables of tokens hold {table:.0%} of random, 3% of llama3-70b"


def test_rows_of_a_text_are_those_of_the_table(shown, subject):
    look.embedded_rows(subject, "a bird and a king")
    look.embedded_rows(subject, "a bird")
    (title, figure), (alone, _) = shown
    rows = subject.model.tok_embeddings(subject.ids("a bird and a king"))[0]
    assert figure.axes[0].images[0].get_array().tolist() == rows[:, :48].tolist()
    assert title.startswith(f"{len(rows)} ids become {len(rows)} rows of {rows.shape[1]} numbers; ")
    assert alone.endswith("no token stands twice")


def test_a_word_that_stands_twice_is_named(shown, subject):
    text = " king and king"
    look.embedded_rows(subject, text)
    words = subject.words(text)
    (twice,) = {word for word in words if words.count(word) == 2}
    assert f"{twice!r} stands 2 times" in shown[0][0]
    assert len(shown[0][1].axes[0].patches) == 2


def test_a_toy_says_which_word_comes_again(shown):
    look.toy_lookup(["a", "b"], torch.zeros(2, 3), torch.tensor([1, 0, 1]))
    look.toy_lookup(["a", "b"], torch.zeros(2, 3), torch.tensor([1, 0]))
    assert [title for title, _ in shown] == [
        "3 ids pick 3 rows of 3 numbers; 'b' gets the same row each time",
        "2 ids pick 2 rows of 3 numbers",
    ]


def test_matrices_are_counted_in_the_title(shown):
    c = dl.LlamaConfig.from_preset("llama3-8b")
    look.block_matrices(c, "wq", "wk", "wv", "wo")
    look.block_matrices(c, "w_up", "w_down")
    assert shown[0][0] == "wq, wk, wv, wo: 41,943,040 parameters per block; wq is 4 times wk"
    assert shown[1][0] == "w_up, w_down: 117,440,512 parameters per block; all equally large"


def test_the_width_is_the_rules(shown):
    look.width_rule(4096, 1.3, 1024, 256)
    ((title, figure),) = shown
    assert title == "14,198 is rounded up to 14,336, a multiple of 1,024"
    plain, by_1024, by_256, marked = lines(figure.axes[0])
    assert all(y % 1024 == 0 for y in by_1024)
    assert all(0 <= y - x < 256 for x, y in zip(plain, by_256, strict=True))
    assert all(0 <= y - x < 1024 for x, y in zip(plain, by_1024, strict=True))
    assert marked == [14_198, 14_336]


def test_a_ladder_has_the_shapes_that_run(shown, subject):
    c = dl.LlamaConfig.from_preset("llama3-8b")
    look.shapes_by_step("a bird", subject, "8B", c)
    n = subject.ids("a bird").shape[1]
    ((title, figure),) = shown
    assert title.startswith(f"{n} tokens are {n} rows all the way")
    assert f"{n} x 128,256" in texts(figure.axes[1])
    assert f"{n} x 14,336, {n} x 14,336" in texts(figure.axes[1])
    places = [place for group in building.STAGES.values() for place in group]
    inputs = {}
    parts = {
        "attention": subject.model.layers[0].attention.wo,
        "their product": subject.model.layers[0].feed_forward.w_down,
    }
    hooks = [
        part.register_forward_pre_hook(lambda _, given, stage=stage: inputs.update({stage: given[0].shape[-1]}))
        for stage, part in parts.items()
    ]
    with probe.recording(subject.model, places) as record:
        subject.model(subject.ids("a bird"))
    for hook in hooks:
        hook.remove()
    found = [
        ", ".join(f"{n} x {record.outputs[place].shape[-1]:,}" for place in group) or f"{n} x {inputs[stage]:,}"
        for stage, group in building.STAGES.items()
    ]
    assert [text for text in texts(figure.axes[0]) if text.startswith(f"{n} x")] == found
    assert f"one of {c.n_layers} blocks" in texts(figure.axes[1])
    assert texts(figure.axes[0]).count("+") == 2


def test_a_changed_field_is_refused_does_not_load_or_runs(shown, subject):
    outcomes = look.changed_fields(subject, "Once upon a time")
    c = subject.model.config
    ids = subject.ids("Once upon a time")
    before = {name: weight.clone() for name, weight in subject.model.state_dict().items()}
    assert outcomes[f"dim = {2 * c.dim}"].startswith("does not load: tok_embeddings.weight")
    assert outcomes[f"n_kv_heads = {c.n_heads - 1}"].startswith("refused: n_heads")
    with probe.configured(subject.model, rope_theta=c.rope_theta / 100):
        theta = probe.loss_of(subject.model, ids)
    assert outcomes[f"rope_theta = {c.rope_theta / 100}"] == f"loads and runs {theta:.2f}"
    assert all(torch.equal(before[name], weight) for name, weight in subject.model.state_dict().items())
    assert shown[0][1][0][2:] == ["loads and runs", f"{probe.loss_of(subject.model, ids):.2f}"]


def test_the_nearest_rows_are_the_nearest(shown, subject):
    look.nearest_rows("Once upon a time there was a king", subject, None, words=1)
    ((_, rows),) = shown
    ((name, word, near, cosine, chance),) = rows
    table, tokenizer = subject.model.tok_embeddings.weight, subject.tokenizer
    (king,) = tokenizer.encode(" king")
    ordinary = [i for i in range(256, tokenizer.bos_id) if i != king]
    cosines = torch.stack([torch.cosine_similarity(table[i], table[king], dim=0) for i in ordinary])
    assert (name, word) == ("random", "' king'")
    assert near.startswith(repr(tokenizer.decode([ordinary[int(cosines.argmax())]])))
    assert cosine == f"{cosines.max():.2f}"
    low, high = map(float, chance.split(" to "))
    assert 0.5 * cosines.max() < low <= high < min(1, 1.5 * cosines.max())  # here the table is one of chance


def test_a_table_drawn_anew_keeps_the_values_of_each_feature():
    table = torch.tensor([[1.0, 10], [2, 20], [3, 30]]).repeat(50, 1)
    anew = models._drawn_anew(table, torch.Generator().manual_seed(0))
    assert anew[:, 0].unique().tolist() == [1, 2, 3]
    assert anew[:, 1].unique().tolist() == [10, 20, 30]
    assert not torch.equal(10 * anew[:, 0], anew[:, 1])


def test_a_text_without_long_words_is_answered_too(shown, subject):
    look.nearest_rows("国", subject)
    assert shown[0][1]


def test_every_look_copes_with_one_and_with_two_models(shown, subject):
    for subjects in ((subject, None), (subject, dataclasses.replace(subject, name="other"))):
        look.swept_fields(*subjects)
        look.learned_order(*subjects)
        look.context_lengths(*subjects)
    assert [len(figure.axes) for _, figure in shown] == [3, 2, 1, 6, 4, 2]


def test_titles_say_what_is_drawn_of_models(shown, subject):
    rises = look.swept_fields(subject)
    look.learned_order(subject)
    by_context = look.context_lengths(subject)
    (sweep, swept), (order, learned), (context, _) = shown
    theta, heads = swept.axes[0].lines[0], swept.axes[2].lines[0]
    drawn = dict(zip(theta.get_xdata(), theta.get_ydata(), strict=True))
    assert rises["rope_theta"] == pytest.approx(drawn)
    assert f"Ten times theta raises the loss by {drawn[5_000_000]:.2f} (random)" in sweep
    trained = subject.model.config.n_heads
    others = [y for x, y in zip(heads.get_xdata(), heads.get_ydata(), strict=True) if x != trained]
    assert f"another n_heads by {min(others):.1f} (random) or more" in sweep
    assert order == f"The first 250 pieces make {widths(learned.axes[0])[1]:.0%} of a text for random"
    assert np.isclose(sum(widths(learned.axes[0])), 1)
    worth = by_context[0] - min(by_context.values())
    assert f"{worth:.1f} nats per token to random" in context


def test_shares_are_of_bytes_and_losses_per_byte(shown, subject):
    look.learned_order(subject)
    shares, losses = shown[0][1].axes
    tokenizer, ids = subject.tokenizer, models.held_out_ids(subject.model, subject.tokenizer)
    text = models.held_out_text().encode()
    single = sum(len(tokenizer.token_bytes(i)) == 1 for i in tokenizer.encode(text.decode()))
    assert np.isclose(widths(shares)[0], single / len(text))
    found = probe.next_token_losses(subject.model(ids), ids).flatten()
    alone = torch.tensor([len(tokenizer.token_bytes(int(i))) == 1 for i in ids[:, 1:].flatten()])
    assert np.isclose(widths(losses)[0], found[alone].mean().item(), rtol=1e-4)


def test_a_smaller_theta_costs_more_the_longer_the_passages(capsys):
    """Beside the same weights in a model that was built with a tenth of theta."""
    model = dl.load_model("tiny", dtype=torch.float32)
    tokenizer = dl.load_tokenizer("tiny")
    with torch.no_grad():
        rises = look.theta_by_length(Subject("tiny", model, tokenizer))
        other = dl.Transformer(dataclasses.replace(model.config, rope_theta=model.config.rope_theta / 10))
        other.load_state_dict(model.state_dict())
        passages = held_out_ids(model, tokenizer, windows=3, length=192)
        expected = probe.loss_of(other, passages) - probe.loss_of(model, passages)
    assert rises[192] == pytest.approx(expected, abs=1e-5)
    assert list(rises) == [64, 192, 511]
    assert f"on 192 tokens a tenth of theta costs {expected:.2f} nats per token" in capsys.readouterr().out


def test_the_weights_remember_about_what_they_were_trained_with(shown):
    model = dl.load_model("tiny").requires_grad_(False)
    rises = look.swept_fields(Subject("tiny", model, dl.load_tokenizer("tiny")))
    theta, trained = rises["rope_theta"], model.config.rope_theta
    assert max(abs(theta[trained / 2]), abs(theta[2 * trained])) < 0.1 < theta[trained / 10]
    assert min(rise for heads, rise in rises["n_heads"].items() if heads != model.config.n_heads) > 1


def test_a_window_is_the_same_tokens_whatever_stands_before(subject):
    losses = models._loss_after(subject, (0, 4), windows=2, length=8)
    text = subject.tokenizer.encode(models.held_out_text())
    for before, loss in losses.items():
        rows = torch.tensor([[subject.tokenizer.bos_id, *text[at - before : at + 8]] for at in (4, 12)])
        expected = probe.next_token_losses(subject.model(rows), rows)[:, -8:].mean()
        assert np.isclose(loss, expected, atol=1e-5)


class Live(TorchDispatchMode):
    """The most bytes of tensors that were alive at once."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.alive = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage._cdata not in self.alive:
                self.alive.add(storage._cdata)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self.free, storage._cdata, storage.nbytes())
        return result

    def free(self, key, n_bytes):
        self.alive.discard(key)
        self.now -= n_bytes


def test_what_is_on_its_way_is_what_lives_at_once():
    """Measured on tiny, as what grows with the text; the weights, which do not grow, are alive as well."""
    model, most = dl.load_model("tiny").requires_grad_(False), []
    for tokens in (128, 512):
        with Live() as live:
            model.hidden(torch.zeros(1, tokens, dtype=torch.long))
        most.append(live.most)
    counted = memory.widest_bytes(model.config, 384, itemsize=4)
    assert counted == 384 * (2 * 256 + 3 * 768) * 4
    assert 1 <= (most[1] - most[0]) / counted < 1.1


def test_memory_is_that_of_the_configuration(shown):
    c = dl.LlamaConfig.from_preset("llama3.1-8b")
    needs = look.memory_need("Llama 3.1 8B", c, [1024, 131_072])
    ((title, figure),) = shown
    assert title.startswith("Llama 3.1 8B: weights 16.1 GB; at 131,072 tokens the cache is 17.2, and the logits")
    assert title.endswith("would be 67.2")
    assert np.allclose(heights(figure.axes[1]), list(needs.values()))
    assert np.allclose(widths(figure.axes[0]), [32.12, 16.06, 8.0, 4.0], atol=0.1)


def test_equal_work_says_how_far_shapes_lie_apart(shown, capsys):
    apart = look.equal_work()
    ((title, figure),) = shown
    own, *dots = [line.get_xdata()[0] for line in figure.axes[0].lines]
    assert own == dots[0] == 1.6398
    pairs = [dots[:2], dots[2:4], dots[4:6], dots[6:8]]
    assert list(apart.values()) == [max(own, *pair) - min(own, *pair) for pair in pairs]
    best = [label.get_text() for label in figure.axes[0].get_yticklabels()][int(np.argmin(dots))]
    assert title.startswith(f"At equal work '{best}' has learned most; depth against width makes 0.007 bits")
    assert lines(figure.axes[1]) == [[1.7677, 1.6398, 1.4378], [1.6823, 1.5606], [1.8487, 1.7025]]
    assert texts(figure.axes[1]) == ["0.5x", "1x", "4x", "0.5x", "1x", "0.5x", "1x"]
    assert capsys.readouterr().out == (
        "vocabulary 8,192 is ahead of 4,096 by 0.026 bits per byte, and after four times the work by 0.009\n"
    )


def test_tying_saves_a_table():
    parameters = {(run["group"], run["seed"]): int(run["parameters"]) for run in ablation_runs()}
    assert np.isclose(look.tied_saving(), 1 - parameters["tying", "0"] / parameters["llama3", "0"])


def ablation_runs():
    with (data_directory() / "ablations" / "runs.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_field_has_its_names(shown):
    look.names_elsewhere()
    ((_, rows),) = shown
    assert [row[0] for row in rows] == [field.name for field in dataclasses.fields(dl.LlamaConfig)]
    assert ["hidden_dim", "multiple_of, ffn_dim_multiplier", "intermediate_size"] in rows
    assert ["max_seq_len", "-", "max_position_embeddings"] in rows


def test_names_are_those_that_are_read():
    known = "".join(inspect.getsource(module) for module in (config_files, config_schema))
    for metas, theirs in names.ELSEWHERE.values():
        assert f'"{theirs}"' in known
        assert all(f'"{meta}"' in known for meta in metas.split(", ") if meta)


def test_the_class_is_shown_without_its_readers(monkeypatch):
    kept = []
    monkeypatch.setattr(names, "display", lambda shown: kept.append(shown.data))
    look.show_class()
    (text,) = kept
    assert all(f"    {field.name}: " in text for field in dataclasses.fields(dl.LlamaConfig))
    assert "def __post_init__" in text
    assert text.rstrip("`\n").endswith("return vocabulary + self.n_layers * layer + self.dim")
    assert "from_preset" not in text


def test_hugging_face_counts_the_same(capsys):
    pytest.importorskip("transformers")
    text = """{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 100, "rms_norm_eps": 1e-05,
        "max_position_embeddings": 128}"""
    n_params = dl.LlamaConfig.from_huggingface(text).n_params
    look.count_elsewhere(text, n_params)
    assert f"{n_params:,}" in capsys.readouterr().out
    with pytest.raises(AssertionError):
        look.count_elsewhere(text, n_params + 1)
