"""Part 6's figures: what is drawn is what was given, and each says in words what it shows."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import randomize, shrink
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

import decoding_llama3 as dl
from decoding_llama3.experiments import ablation
from decoding_llama3.experiments.ablation import parts
from decoding_llama3.inspect import probe
from decoding_llama3.lessons import show, style
from decoding_llama3.lessons.figures import feed_forward as figures
from decoding_llama3.lessons.figures import feed_forward_models as model_figures
from decoding_llama3.lessons.looks import feed_forward as look
from decoding_llama3.lessons.looks.feed_forward import mechanism, models, pushes, race, sizes, words
from decoding_llama3.lessons.subject import Subject

TEXT = "Once upon a time there was a king"


@pytest.fixture(autouse=True)
def _close():
    style.use_style()
    with torch.no_grad():
        yield
    plt.close("all")


def heights(ax) -> list[float]:
    return [bar.get_height() for bars in ax.containers for bar in bars]


def lines(ax) -> list[list[float]]:
    return [np.asarray(line.get_ydata(), dtype=float).tolist() for line in ax.lines]


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def named(figure, label):
    (ax,) = (ax for ax in figure.axes if ax.get_label() == label)
    return ax


def drawn_as(ax, label) -> list[list[float]]:
    """The lines that the legend calls `label`, each by its values upwards."""
    return [np.asarray(line.get_ydata()).tolist() for line in ax.lines if line.get_label() == label]


# --- arrays in, a figure out


def test_a_passage_draws_each_number_and_marks_the_lit_features():
    g = torch.tensor([1.0, -2.0, 3.0, 0.5, 2.0])
    u = torch.tensor([2.0, 1.0, -1.0, 4.0, 0.1])
    passage = figures.Passage(torch.arange(4.0), g, u, F.silu(g) * u, torch.tensor([5.0, -6.0]))
    figure = figures.draw_passage(passage, [2], ["2: h = -2.9 pushes 'time'"], "a title")
    for label, values in (("x", passage.x), ("gate", F.silu(g)), ("u", u), ("h", passage.h), ("y", passage.y)):
        shown = np.asarray(named(figure, label).images[0].get_array().filled(np.nan)).flatten()
        assert np.allclose(shown[: len(values)], values)
        assert np.isnan(shown[len(values) :]).all()
        assert named(figure, label).get_title().endswith(f": {len(values)}")
        assert named(figure, label).get_xlabel() == f"darkest: {values.abs().max():.1f}"
    (mark,) = named(figure, "h").patches
    assert mark.get_xy() == (1.5, -0.5)  # the third square of the first row
    assert to_hex(mark.get_edgecolor()) == style.MARKED.lower()
    assert not named(figure, "gate").patches
    assert texts(named(figure, "h")) == ["2"]  # the number of the feature beside its mark
    assert "2: h = -2.9 pushes 'time'" in [text.get_text() for text in figure.texts]
    assert figure.get_suptitle() == "a title"


def test_hinges_draw_the_target_and_each_curve():
    x = torch.tensor([-1.0, 0.0, 2.0])
    (ax,) = figures.draw_hinges(x, {"4 ReLUs": x + 1, "2 gated": x * x}, 1.0, "title").axes
    assert lines(ax) == [[1, 0, 4], [0, 1, 3], [1, 0, 4]]
    assert texts(ax) == ["fitted here", "4 ReLUs", "2 gated"]
    assert [to_hex(line.get_color()) for line in ax.lines[1:]] == [style.WRONG.lower(), style.GATE.lower()]


def test_a_row_product_has_a_bar_for_each_product():
    x, row = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([2.0, 2.0, -1.0])
    figure = figures.draw_row_product(x, row, ("x", "row", "products"), "title")
    assert [heights(ax) for ax in figure.axes] == [[1, -2, 3], [2, 2, -1], [2, -4, -3]]
    assert [ax.get_title("left") for ax in figure.axes] == ["x", "row", "products"]


def test_silu_has_a_dot_for_each_gate_within_the_axis():
    (ax,) = figures.draw_silu(torch.tensor([-1.0, 2.0, 9.0]), "title", within=4).axes
    curve, dots = lines(ax)[1:3]
    assert ax.lines[3].get_xdata().tolist() == [-1, 2]  # a tick for each
    assert np.allclose(dots, F.silu(torch.tensor([-1.0, 2.0])))
    assert math.isclose(min(curve), -0.278, abs_tol=1e-3)
    assert "-0.278 at -1.28" in texts(ax)


def test_a_toy_gate_says_every_number():
    figure = figures.draw_toy_gate(torch.tensor([0.0, 2.0]), torch.tensor([5.0, -1.0]), "title")
    reads, gate, value, product = figure.axes
    assert (heights(reads), heights(value)) == ([0, 2], [5, -1])
    assert np.allclose(heights(gate), [0, 1.7616], atol=1e-4)
    assert np.allclose(heights(product), [0, -1.7616], atol=1e-4)
    assert texts(product) == ["0", "-1.76"]
    assert len({ax.get_ylim() for ax in figure.axes}) == 1  # one scale, one line at zero


def test_a_machine_writes_every_number_under_its_letter():
    stages = {"x": [3, 4], "g": [1], "silu(g)": [0.73106], "u": [2], "h": [1.4621], "y": [7]}
    (ax,) = figures.draw_machine(stages, "title").axes
    said = texts(ax)
    assert said[:13] == ["x", "3", "4", "g", "1", "silu(g)", "0.7311", "u", "2", "h", "1.462", "y", "7"]
    assert len(ax.patches) == 7
    at = {text.get_text(): text.get_position() for text in ax.texts}
    assert at["g"][1] == at["silu(g)"][1] > at["x"][1] > at["u"][1]  # two tracks, both from x
    arrows = [(text.arrow_patch, text.xyann, text.xy) for text in ax.texts if getattr(text, "arrow_patch", None)]
    starts = [start for _, start, _ in arrows if abs(start[0] - at["x"][0]) < 0.5]
    assert len(starts) == 2
    assert {"$W_{gate}$", "$W_{up}$", "×", "$W_{down}$"} <= set(said)


def test_paired_draws_a_dot_for_each_feature_and_numbers_the_lit():
    gate, u = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([3.0, -4.0, 9.0])
    (ax,) = figures.draw_paired(gate, u, [1, 0], "title").axes
    dots, lit = ax.lines[:2]
    assert np.allclose(dots.get_xydata(), torch.stack([gate, u], dim=1))
    assert np.allclose(lit.get_xydata(), [[2, -4], [1, 3]])
    assert texts(ax) == ["1: -8.0", "0: 3.0"]


def test_alone_shades_by_the_root_of_what_moved():
    moved = {"attention": torch.tensor([[4.0, 1.0], [0.0, 4.0]]), "feed-forward": torch.eye(2)}
    left, right, bar = figures.draw_alone(moved, ["one", "two"], "title").axes
    assert [label.get_text() for label in bar.get_yticklabels()] == ["not at all", "most"]
    assert (left.get_xlabel(), left.get_ylabel()) == ("this token is changed", "the result of this one moves")
    assert np.asarray(left.images[0].get_array()).tolist() == [[1, 0.5], [0, 1]]
    assert np.asarray(right.images[0].get_array()).tolist() == [[1, 0], [0, 1]]
    assert [label.get_text() for label in left.get_xticklabels()] == ["one", "two"]
    assert right.get_title("left") == "feed-forward"


def test_gate_curves_have_a_panel_each_on_one_scale():
    z = torch.tensor([-1.0, 0.0, 1.0])
    figure = figures.draw_gate_curves(z, {"none": z, "SwiGLU: SiLU": F.silu(z)}, "title")
    none, silu = figure.axes
    assert lines(none)[-1] == [-1, 0, 1]
    assert np.allclose(lines(silu)[-1], F.silu(z))
    assert [ax.get_title("left") for ax in figure.axes] == ["none", "SwiGLU: SiLU"]
    assert to_hex(silu.lines[-1].get_color()) == style.GATE.lower() != to_hex(none.lines[-1].get_color())
    assert none.get_ylim() == silu.get_ylim()


def test_a_table_has_four_bars_for_each_block():
    rises = {
        "silenced": torch.tensor([[4.0], [1.0]]),
        "one": torch.tensor([[3.0], [0.5]]),
        "of others": torch.tensor([[5.0, 7.0], [1.0, 2.0]]),
        "own": torch.tensor([[0.25], [-0.5]]),
    }
    left, right = model_figures.draw_as_table({"tiny": ([0, 3], rises)}, "title").axes
    assert heights(left) == [4, 3, 6, 0.25]
    assert heights(right) == [1, 0.5, 1.5, -0.5]
    assert left.collections[2].get_segments()[0][:, 1].tolist() == [5, 7]
    assert right.collections[2].get_segments()[0][:, 1].tolist() == [1, 2]
    assert texts(left) == ["+4.0", "+3.0", "+6.0", "+0.25"]  # of the first block
    assert [[label.get_text() for label in ax.get_xticklabels()] for ax in (left, right)] == [["0"], ["3"]]
    assert left.get_title("left") == "tiny, block 0"
    assert right.get_title("left") == "tiny, later blocks"
    assert to_hex(left.containers[-1][0].get_facecolor()) == style.FEED_FORWARD.lower()


def test_gates_are_counted_on_both_sides_of_zero():
    values = torch.tensor([-1.0] * 30 + [1.0] * 10)
    (ax,) = model_figures.draw_gate_inputs({"tiny": (values, 0.75, 0.2)}, "title").axes
    areas = [sum(bar.get_height() * bar.get_width() for bar in bars) for bars in ax.containers]
    assert np.allclose(areas, [0.75, 0.25])
    assert to_hex(ax.containers[0][0].get_facecolor()) == style.GATE.lower()
    assert texts(ax) == ["75% of the gates,\n20% of the squares of h"]


def test_few_has_a_line_for_each_draw_of_each_way():
    rises = {"by chance": [[5.0, 3.0], [6.0, 2.0]], "the same": [[2.0, 1.0]], "strongest": [[0.4, 0.1]]}
    (ax,) = model_figures.draw_few({"tiny": ((0.1, 0.5), rises)}, "title").axes
    assert lines(ax)[:4] == [[5, 3], [6, 2], [2, 1], [0.4, 0.1]]
    assert np.asarray(ax.lines[2].get_xdata()).tolist() == [10, 50]
    assert drawn_as(ax, "strongest") == [[0.4, 0.1]]
    assert to_hex(ax.lines[3].get_color()) == style.FEED_FORWARD.lower()


def test_text_stands_on_the_colour_of_its_value():
    values = torch.tensor([2.0, -2.0, 0.0])
    ax, bar = model_figures.draw_text(values, ["ab", " c", "\n"], "title").axes
    assert [label.get_text() for label in bar.get_xticklabels()] == ["-2.0", "+0.0", "+2.0"]
    assert "".join(texts(ax)) == "ab c⏎"
    red, blue, white = (np.array(patch.get_facecolor()[:3]) for patch in ax.patches)
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert white.min() > 0.9


def test_sinking_has_a_dot_for_each_token_and_control():
    said, change = torch.tensor([1.0, 2.0]), torch.tensor([-0.5, -1.0])
    others = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    (ax,) = model_figures.draw_sinking({"tiny": ("7 pushes 'he'", said, change, others)}, "title").axes
    assert np.allclose(lines(ax)[:4], [*others.tolist(), change.tolist()])
    assert all(np.allclose(line.get_xdata(), said) for line in ax.lines[:4])
    assert ax.get_title("left") == "tiny: 7 pushes 'he'"


def test_silenced_pushers_lie_beside_their_controls():
    others = {"drawn by chance": torch.tensor([[0.9, 0.8]]), "that write as much": torch.tensor([[0.9, 0.7]])}
    (ax,) = model_figures.draw_pushers_silenced({"tiny": ((0, 5), [0.9, 0.1], others)}, "' time'", "title").axes
    assert np.allclose(lines(ax)[:3], [[0.9, 0.8], [0.9, 0.7], [0.9, 0.1]])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "5"]
    assert ax.get_ylabel() == "probability of ' time'"
    assert ax.get_yscale() == "logit"  # equal steps are equal steps of the log odds
    assert "0.5" in [label.get_text() for label in ax.get_yticklabels()]


# --- what a notebook shows: titles have the numbers that are drawn, for any model


@pytest.fixture
def shown(monkeypatch):
    """Title, figure and tables of what is shown, in place of showing it."""
    kept = {"figures": [], "tables": []}

    def keep(figure, alt):
        assert len(alt.split()) >= 6
        kept["figures"].append((figure.get_suptitle().replace("\n", " "), figure))

    def keep_table(rows, header, caption=""):
        assert all(len(row) == len(header) for row in rows)
        kept["tables"].append([list(map(str, row)) for row in rows])

    for module in (mechanism, models, pushes, sizes, words, race):
        for name, function in (("show_figure", keep), ("show_table", keep_table)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, function)
    return kept


@pytest.fixture(scope="module")
def subject():
    config = dataclasses.replace(shrink("llama3-8b"), vocab_size=4096)
    return Subject("random", randomize(dl.Transformer(config)).requires_grad_(False), dl.load_tokenizer("tiny"))


def test_half_of_the_squares_is_held_by_the_fewest():
    assert mechanism.half_of(torch.tensor([1.0, -3.0, 2.0])) == [1]
    assert mechanism.half_of(torch.tensor([1.0, 1.0, 1.0, 1.0])) == [0, 1]
    assert mechanism.half_of(torch.tensor([1.5, 3.0, -2.8])) == [1, 2]  # 3 alone has 47 %


def test_pushes_are_read_through_the_weight_of_the_last_norm(subject):
    h = torch.tensor([2.0, -3.0])
    columns = subject.model.layers[0].feed_forward.w_down.weight[:, [5, 9]] * h
    expected = (subject.model.output.weight @ (columns * subject.model.norm.weight[:, None])).T
    torch.testing.assert_close(mechanism.pushes_of(subject, 0, h, [5, 9]), expected)


def test_a_passage_is_the_networks_own(subject):
    passage = mechanism.passage_of(subject, TEXT, 1)
    part = subject.model.layers[1].feed_forward
    torch.testing.assert_close(part(passage.x), passage.y)
    torch.testing.assert_close(passage.gate * passage.u, passage.h)
    assert (len(passage.x), len(passage.h)) == (subject.model.config.dim, subject.model.config.hidden_dim)


def test_the_whole_says_how_many_are_lit_and_what_the_strongest_pushes(shown, subject):
    look.seen_whole(subject, TEXT, 1)
    ((title, figure),) = shown["figures"]
    h = mechanism.passage_of(subject, TEXT, 1).h
    lit, strongest = mechanism.half_of(h), int(h.abs().argmax())
    assert f"in block 1: {len(lit)} of {len(h)} hidden features" in title
    assert len(named(figure, "h").patches) == len(lit)
    says = [text.get_text() for text in figure.texts if "h = " in text.get_text()]
    assert len(says) == min(5, len(lit))
    assert texts(named(figure, "h")) == [line.split(":")[0] for line in says]
    assert says[0].startswith(f"{strongest}: h = {h[strongest]:+.1f} pushes ")
    # the word it names is the one that its column, times h, raises most
    part, output = subject.model.layers[1].feed_forward, subject.model.output.weight * subject.model.norm.weight
    raised = output @ (part.w_down.weight[:, strongest] * h[strongest])
    raised[[i for i in range(4096) if len(subject.tokenizer.token_bytes(i)) < 2]] = -torch.inf
    raised[list(subject.tokenizer.special_ids.values())] = -torch.inf
    assert title.endswith(f"pushes {mechanism.quoted(subject, [int(raised.argmax())])[0]}")


def test_titles_of_the_mechanism_say_what_is_drawn(shown, subject):
    look.hinges(count=8)
    look.row_times_token(subject, TEXT, 0)
    look.silu_curve(subject, TEXT, 0)
    look.toy_gate(torch.tensor([-6.0, 6.0]), torch.tensor([2.0, 3.0]))
    look.paired(subject, TEXT, 0)
    look.alone(subject, TEXT, 1)
    hinges, row, silu, gate, paired, alone = shown["figures"]
    eight, gated = lines(hinges[1].axes[0])[1:]
    x = torch.linspace(-6, 6, 601)
    beyond = np.abs(np.array(eight) - (x * x).numpy())[x.abs().numpy() > 3.001].max()
    assert f"{beyond:.1f} beyond" in hinges[0]
    assert np.allclose(gated, (x * x).numpy(), atol=1e-4)
    assert f"u = {sum(heights(row[1].axes[2])):.2f}" in row[0]
    g = mechanism.passage_of(subject, TEXT, 0).g
    assert silu[0].startswith(f"{(g < 0).float().mean():.0%} of the gates of ' king'")
    products = heights(gate[1].axes[3])
    assert f"with g = -6 a value of 2 leaves as {products[0]:.2f}" in gate[0]
    assert f"with g = 6 a value of 3 leaves as {products[1]:.2f}" in gate[0]
    lit = paired[1].axes[0].lines[1].get_xydata()
    assert paired[0].startswith(f"{len(lit)} of {len(g)} products")
    assert paired[0].endswith(f"a gate of {lit[0, 0]:.1f} times a value of {lit[0, 1]:.1f}")
    attention, feed_forward = (np.asarray(ax.images[0].get_array()) for ax in alone[1].axes[:2])
    assert np.array_equal(feed_forward > 0, np.eye(len(feed_forward), dtype=bool))
    assert np.array_equal(attention > 0, np.tril(np.ones_like(attention)) > 0)
    assert f"up to {len(attention)} results of attention, and 1 of the feed-forward" in alone[0]


def test_the_toy_machine_multiplies(shown):
    signs = torch.tensor([1.0, -1.0])
    w_gate, w_up = torch.stack([signs, 0 * signs], dim=1), torch.stack([0 * signs, signs], dim=1)
    look.toy_machine(torch.tensor([3.0, 5.0]), w_gate, w_up, torch.ones(1, 2))
    ((title, figure),) = shown["figures"]
    assert title == "3 and 5 arrive, 15 is written"
    said = texts(figure.axes[0])
    assert said[said.index("y") + 1] == "15"


def test_gate_curves_are_the_labs_own(shown):
    look.gate_curves()
    ((title, figure),) = shown["figures"]
    z = torch.linspace(-4, 4, 401)
    for ax in figure.axes:
        name = ax.get_title("left").split(":")[0]
        curve = F.silu if name == "SwiGLU" else parts.ACTIVATIONS[name]()
        assert np.allclose(lines(ax)[-1], curve(z), atol=1e-6)
    assert f"differ by {(F.gelu(z) - F.silu(z)).abs().max():.2f} at most" in title


def test_branches_are_what_the_feature_reads(shown, subject):
    h = look.branches(subject, ("Once upon a", TEXT), 1, 7)
    first, second = shown["tables"][0]
    assert first[0] == "Once upon a"
    passage = mechanism.passage_of(subject, TEXT, 1)
    found = passage.g, F.silu(passage.g), passage.u, passage.h
    assert second[1:] == [f"{values[7]:+.2f}" for values in found]
    assert math.isclose(h[1], passage.h[7], rel_tol=1e-5)


def test_what_needs_both_words_is_what_neither_brings_alone(shown, subject):
    (share,) = look.only_with_both(subject, ("Once", "upon"), [("There", "under")], 1, 7)
    both, one, two, neither = (
        mechanism.passage_of(subject, text, 1).h[7].item()
        for text in ("Once upon a", "Once under a", "There upon a", "There under a")
    )
    assert math.isclose(share * both, (both - one) - (two - neither), rel_tol=1e-5)
    (row,) = shown["tables"][0]
    assert row == ["There under", *(f"{h:+.1f}" for h in (neither, one, two, both)), f"{share:.0%}"]


def test_layers_with_a_constant_start_loud(shown):
    found = look.loudness_at_start(ablation.Variant(), ablation.Variant(gate="silu + 1"))
    first, second = shown["tables"][0]
    assert [first[0], second[0]] == ["SwiGLU", "silu + 1"]
    assert second[1:] == [f"{found[1]:.4f}", f"{found[1] / found[0]:.1f}"]
    model = ablation.build_variant(ablation.Variant(gate="silu + 1"), 0, 96)
    tokens = torch.randint(96, (1, 128), generator=torch.Generator().manual_seed(0))
    written = probe.writes(model, tokens)["0.feed_forward"]
    assert math.isclose(found[1], written.square().mean().sqrt(), rel_tol=1e-5)


def test_a_table_of_a_model_that_hears_nobody_costs_nothing(shown, subject):
    """Without attention every feed-forward is a table, so this one must cost nothing; the controls must."""
    names = probe.names_of(subject.model, "attention.wo")
    with probe.intercepted(subject.model, names, torch.zeros_like):
        look.as_table(TEXT, subject, None)
    ((title, figure),) = shown["figures"]
    silenced, one, others, own = np.array([heights(ax) for ax in figure.axes]).T
    assert np.allclose(own, 0, atol=1e-4)
    for control in (silenced, one, others):
        assert np.abs(control).min() > 1e-3
    ending = re.escape(f"(silenced {silenced[0]:+.1f})")
    assert re.search(rf"random [+-]0\.00 {ending}$", title)


def test_rows_of_a_table_are_means_over_other_beginnings(subject):
    ids, names = subject.ids(TEXT), probe.names_of(subject.model, "feed_forward")
    first, rows = models.table_rows(subject, ids, names, beginnings=2, length=3)
    book = subject.tokenizer.encode(show.held_out_text())
    starts = torch.randint(len(book) - 3, (2,), generator=torch.Generator().manual_seed(0)).tolist()
    expected = []
    for start in starts:
        text = torch.tensor([[subject.tokenizer.bos_id, *book[start : start + 3], int(ids[0, 2])]])
        expected.append(probe.writes(subject.model, text)["1.feed_forward"][0, -1])
    torch.testing.assert_close(rows[1][1], torch.stack(expected).mean(dim=0))  # of the second token of the text
    torch.testing.assert_close(first[1][0], probe.writes(subject.model, ids)["1.feed_forward"][0, 0])


def test_as_table_writes_nothing_but_begin_of_text_where_silenced(shown, subject):
    look.as_table(TEXT, subject)
    ((_, figure),) = shown["figures"]
    ids = subject.ids(TEXT)
    with models.rewritten(
        subject.model, ["layers.1.feed_forward"], lambda y: torch.cat([y[:, :1], 0 * y[:, 1:]], dim=1)
    ):
        expected = probe.loss_of(subject.model, ids)
    assert math.isclose(heights(figure.axes[1])[0], expected - probe.loss_of(subject.model, ids), abs_tol=1e-5)


def test_parts_are_silenced_where_it_is_said(shown, subject):
    losses = look.silenced_parts(subject, TEXT)
    (rows,) = shown["tables"]
    assert [row[0] for row in rows] == ["attention", "feed-forward"]
    ids = subject.ids(TEXT)
    for part, matrix in (("attention", "attention.wo"), ("feed-forward", "feed_forward.w_down")):
        weights = [subject.model.get_submodule(name).weight for name in probe.names_of(subject.model, matrix)]
        for column, chosen in enumerate((weights, weights[:1], weights[1:])):
            kept = [weight.clone() for weight in chosen]
            [weight.zero_() for weight in chosen]
            expected = probe.loss_of(subject.model, ids)
            [weight.copy_(before) for weight, before in zip(chosen, kept, strict=True)]
            assert math.isclose(losses[part][column], expected, rel_tol=1e-5)
            assert rows[list(losses).index(part)][column + 1] == f"{expected:.2f}"


def test_gates_that_are_closed_are_those_below_zero(shown, subject):
    look.closed_gates(TEXT, subject, None)
    ((title, figure),) = shown["figures"]
    (text,) = texts(figure.axes[0])
    share, carried = (line.split("%")[0] for line in text.split("\n"))
    assert title == f"Gates that read less than 0: {share}% in random"
    names = [f"layers.{i}.feed_forward.{w}" for i in range(2) for w in ("w_gate", "w_down")]
    with probe.recording(subject.model, names) as record:
        subject.model(subject.ids(TEXT))
    negative = torch.cat([record.outputs[name][:, 1:] for name in names[::2]]) < 0
    size = torch.cat([record.inputs[name][:, 1:] for name in names[1::2]]).square()
    assert share == f"{100 * negative.float().mean():.0f}"
    assert carried == f"{100 * size[negative].sum() / size.sum():.0f}"
    closed = randomize(dl.Transformer(subject.model.config))
    for layer in closed.layers:
        layer.feed_forward.w_gate.register_forward_hook(lambda *there: there[-1].clamp(min=0))
    ids = subject.ids(TEXT)
    rise = probe.loss_of(closed, ids) - probe.loss_of(subject.model, ids)
    assert shown["tables"][0][0][1] == f"{rise:+.2f}"
    g = torch.tensor([-3.0, -0.5, 2.0])
    alike = F.silu(models._all_alike(g)(g))
    torch.testing.assert_close(alike[:2], F.silu(g[:2]).mean().expand(2), rtol=1e-4, atol=0)
    assert alike[2] == F.silu(g[2])


def test_the_strongest_few_are_kept(shown, subject):
    h = torch.tensor([[1.0, -5.0, 2.0, 0.5]])
    assert models._keeping(0.5, torch.abs)(h).tolist() == [[0, -5, 2, 0]]
    assert models._keeping(0.5, models._always(torch.tensor([9.0, 0.0, 1.0, 8.0])))(h).tolist() == [[1, 0, 0, 0.5]]
    assert (models._keeping(0.5, models._drawn(torch.Generator().manual_seed(0)))(h) != 0).sum() == 2
    look.strongest_few(TEXT, subject, None)
    ((title, figure),) = shown["figures"]
    (strongest,), (common,) = (
        drawn_as(figure.axes[0], kind) for kind in ("the strongest of each token", "the same for all tokens")
    )
    said = [f"% of random's {a:+.2f} or {b:+.1f}" for a, b in zip(strongest, common, strict=True)]
    assert any(part in title for part in said)
    ids, broken = subject.ids(TEXT), randomize(dl.Transformer(subject.model.config))
    for layer in broken.layers:
        layer.feed_forward.w_down.register_forward_pre_hook(
            lambda _, args: models._keeping(0.7, torch.abs)(args[0])
        )
    assert math.isclose(
        strongest[-1], probe.loss_of(broken, ids) - probe.loss_of(subject.model, ids), abs_tol=1e-5
    )
    broken = randomize(dl.Transformer(subject.model.config))
    for block, layer in enumerate(broken.layers):
        mean = probe.neuron_activations(subject.model, ids, block)[0, 1:].abs().mean(dim=0)
        layer.feed_forward.w_down.weight[:, mean.argsort()[: len(mean) - round(0.7 * len(mean))]] = 0
    assert math.isclose(common[-1], probe.loss_of(broken, ids) - probe.loss_of(subject.model, ids), abs_tol=1e-5)


def test_the_best_feature_is_the_one_whose_least_word_is_farthest():
    ids = torch.tensor([10, 11, 12, 13])
    block = torch.tensor([[0.0, 5.0, -9.0], [0.0, 5.0, -1.0], [0.0, -5.0, 0.0], [1.0, -5.0, 0.0]])
    ((score, at, feature),) = words.best_features(ids, [torch.zeros(4, 3), block], [[10, 11]])
    assert (at, feature) == (1, 1)
    assert math.isclose(score, 5 / block[:, 1].std(), rel_tol=1e-5)


def test_wakes_says_the_feature_its_values_and_its_control(shown, subject):
    found = look.wakes("two three four", subject, None)
    ((row,),) = shown["tables"]
    block, feature = found["random"]
    assert row[0] == f"random, {block}.{feature}"
    assert found["random"] == look.feature_for(subject, "two three four")
    ids = torch.tensor([[subject.tokenizer.bos_id, subject.tokenizer.encode(" three")[0]]])
    value = probe.neuron_activations(subject.model, ids, block)[0, 1, feature]
    assert f"three {value:+.1f}" in row[1]
    look.kinds(subject)
    assert [line[0] for line in shown["tables"][1]] == [*words.KINDS, "by chance"]
    numbers = shown["tables"][1][0]
    assert numbers[1] == words.KINDS["numbers"]
    block, feature = map(int, numbers[2].split("."))
    rows = show.held_out_ids(subject.model, subject.tokenizer)
    h = probe.neuron_activations(subject.model, rows, block)[:, 1:, feature].flatten()
    ids = torch.tensor([[subject.tokenizer.bos_id, subject.tokenizer.encode(" three")[0]]])
    three = probe.neuron_activations(subject.model, ids, block)[0, 1, feature]
    ends = (int(rows[:, 1:].flatten()[at]) for at in (h.argmax(), h.argmin()))
    assert numbers[5].split(" · ")[0] in words._bare(subject, list(ends))
    assert three != 0


def test_a_feature_in_text_names_its_most_awake_word(subject):
    values = probe.neuron_activations(subject.model, subject.ids(TEXT), 1)[0, 1:]
    ranked = look.most_awake(subject, TEXT, 1)
    assert values[:, ranked[0]].abs().max() == values.abs().max()
    for feature in ranked[:6]:  # some are most awake above zero, some below
        most = int(values[:, feature].abs().argmax())
        title = look.feature_in_text(subject, TEXT, 1, feature).get_suptitle().replace("\n", " ")
        word = subject.words(TEXT)[1:][most]
        assert title.startswith(f"Feature {feature} of block 1: {values[most, feature]:+.1f} on '{word}'")


def test_silencing_the_pusher_is_what_it_would_be_in_the_model(shown, subject):
    look.sinking(TEXT, "he his him", subject, None, draws=3)
    ((title, figure),) = shown["figures"]
    (change,) = drawn_as(figure.axes[0], "the feature silenced")
    name = figure.axes[0].get_title("left").split()[1]
    assert name.startswith("0.")  # the last block but one of two
    feature = int(name.removeprefix("0.").replace(",", ""))
    broken = randomize(dl.Transformer(subject.model.config))
    broken.layers[0].feed_forward.w_down.weight[:, feature] = 0
    ids, listed = subject.ids(TEXT), words.ids_of_words(subject, "he his him")
    log_p = [model(ids)[0, 1:].log_softmax(-1)[:, listed].mean(-1) for model in (subject.model, broken)]
    assert np.allclose(change, log_p[1] - log_p[0], atol=1e-4)
    said = np.abs(figure.axes[0].lines[3].get_xdata())
    loudest = np.argsort(-said)[: math.ceil(len(said) / 5)]
    others = np.array(lines(figure.axes[0])[:3])[:, loudest]
    own = np.abs(np.array(change)[loudest]).mean()
    assert f"{own:.2f} nats in random (others {np.abs(others).mean():.2f})" in title


def test_controls_of_silencing_write_as_much():
    size = torch.arange(40.0).expand(3, 40).clone()
    for chosen in pushes._as_loud(size, 20, draws=5):
        assert chosen.shape == (3,)
        assert (chosen != 20).all()
        assert ((chosen - 20).abs() <= 5).all()  # the ten nearest in size


def test_a_pushed_word_loses_its_pushers_at_the_last_token(shown, subject):
    look.pushed_word("Once upon a", " time", subject, None, counts=(0, 3, 6), draws=2)
    ((title, figure),) = shown["figures"]
    (pushers,) = drawn_as(figure.axes[0], "that push the word most")
    ids, token = subject.ids("Once upon a"), subject.tokenizer.encode(" time")[0]
    assert math.isclose(pushers[0], subject.model(ids)[0, -1].softmax(-1)[token], rel_tol=1e-5)
    assert f"' time' goes in random from {pushers[0]:.3f} to {pushers[1]:.3f} (others: " in title
    names = probe.names_of(subject.model, "feed_forward.w_down")[1:]
    push, size = pushes.pushes_and_size(subject, ids, names, token)
    best = int(push.argmax())
    strongest = push.topk(3).indices

    def without(h):
        left = h.clone()
        left[:, -1, strongest] = 0
        return left

    with probe.intercepted(subject.model, names, without):
        silenced = subject.model(ids)[0, -1].softmax(-1)[token].item()
    assert math.isclose(pushers[1], silenced, rel_tol=1e-4)
    assert not math.isclose(pushers[1], pushers[0], rel_tol=1e-3)
    (row,) = shown["tables"][0]
    assert row[2].startswith(f"1.{best} {push[best]:+.2f} · ")
    assert row[3].split()[0] == f"{math.log(pushers[0] / (1 - pushers[0])):+.1f}"

    def only(h, kept):
        left = torch.zeros_like(h)
        left[:, :-1], left[:, -1, kept] = h[:, :-1], h[:, -1, kept]
        return left

    for kept, said in ((strongest, row[5].split()[0]), (strongest[:0], row[5].split()[1][1:-1])):
        with probe.intercepted(subject.model, names, lambda h, kept=kept: only(h, kept)):
            assert math.isclose(subject.model(ids)[0, -1].softmax(-1)[token], float(said), abs_tol=6e-4)
    first = subject.model(ids)[0, -1].argmax()
    assert row[4].startswith(f"from 0 on {mechanism.quoted(subject, [int(first)])[0]}")
    assert pushes._firsts((0, 1, 5), ("a", "a", "b")) == "from 0 on a, from 5 on b"
    added = probe.logit_attribution(subject.model, ids, ids.shape[1] - 1, token)
    assert math.isclose(push.sum(), added["1.feed_forward"], rel_tol=1e-3, abs_tol=1e-4)
    h, part = probe.neuron_activations(subject.model, ids, 1)[0, -1], subject.model.layers[1].feed_forward
    assert math.isclose(size[7], (h[7] * part.w_down.weight[:, 7]).norm(), rel_tol=1e-4)


def test_the_race_by_step_ends_as_the_lab_says(shown):
    found = look.ahead_by_step("ReLU", steps=(50, 1000))
    assert found[1000] == ablation.verdict("feed_forward")["ReLU"]
    first, last = shown["tables"][0]
    assert first[0] == "50"
    reached = {
        name: [points[0].held_out_loss for points in seeds.values()]
        for name, seeds in ablation.read_curves("feed_forward").items()
    }
    assert math.isclose(found[50].mean, np.mean(reached["ReLU"]) - np.mean(reached["SwiGLU"]), abs_tol=1e-6)
    assert last[1] == f"{found[1000].mean:+.3f}"
    curves = ablation.read_curves("feed_forward")
    ahead = sum(curves["ReLU"][s][0].held_out_loss < curves["SwiGLU"][s][0].held_out_loss for s in range(5))
    assert first[3] == f"{ahead} of 5"


def test_every_look_copes_with_one_and_with_two_models(shown, subject):
    before = {name: weight.clone() for name, weight in subject.model.named_parameters()}
    for subjects in ((subject, None), (subject, dataclasses.replace(subject, name="other"))):
        shown["figures"].clear()
        look.as_table(TEXT, *subjects)
        look.closed_gates(TEXT, *subjects)
        look.strongest_few(TEXT, *subjects)
        look.sinking(TEXT, "he his him", *subjects)
        look.pushed_word("Once upon a", " time", *subjects)
        n = 2 if subjects[1] else 1
        assert [len(figure.axes) for _, figure in shown["figures"]] == [2 * n, n, n, n, n]
    after = dict(subject.model.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not [part for part in subject.model.modules() if part._forward_hooks or part._forward_pre_hooks]


def test_timings_have_a_row_for_each_number_of_tokens(shown):
    milliseconds = look.matrix_timings(dim=32, hidden_dim=64, repeats=1)
    (rows,) = shown["tables"]
    assert [row[0] for row in rows] == ["1", "8", "64", "256"]
    assert [row[1] for row in rows] == [f"{time:.2f} ms" for time in milliseconds.values()]
