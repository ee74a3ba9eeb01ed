"""Part 6 - what is shown where the feed-forward network is built."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from decoding_llama3.inspect import probe
from decoding_llama3.lessons.figures import feed_forward as figures
from decoding_llama3.lessons.figures.feed_forward import Passage
from decoding_llama3.lessons.show import ordinary_ids, show_figure, show_table
from decoding_llama3.lessons.subject import Subject, token_strings


def passage_of(subject: Subject, text: str, block: int) -> Passage:
    """The last token of `text` on its way through the feed-forward network of a block."""
    gate, up, down = (f"layers.{block}.feed_forward.{w}" for w in ("w_gate", "w_up", "w_down"))
    with probe.recording(subject.model, [gate, up, down]) as record:
        subject.model.hidden(subject.ids(text))
    found = (
        record.inputs[gate],
        record.outputs[gate],
        record.outputs[up],
        record.inputs[down],
        record.outputs[down],
    )
    return Passage(*(values[0, -1].float().cpu() for values in found))


def half_of(h: Float[Tensor, " hidden"]) -> list[int]:
    """The fewest hidden features that hold half of the sum of squares, the strongest first."""
    power, order = h.square().sort(descending=True)
    return order[: 1 + int((power.cumsum(0) < 0.5 * power.sum()).sum())].tolist()


def pushes_of(
    subject: Subject, block: int, h: Float[Tensor, " features"], features: Sequence[int]
) -> Float[Tensor, "features vocab"]:
    """What h times its column in w_down does to each logit, but for the scale of the last norm."""
    column = probe.dequantized_weight(subject.model.get_submodule(f"layers.{block}.feed_forward.w_down"))
    unembed = probe.dequantized_weight(subject.model.output) * subject.model.norm.weight.float().cpu()
    return (unembed @ (column[:, list(features)] * h)).T


def quoted(subject: Subject, ids: Sequence[int]) -> list[str]:
    """Tokens in quotes, as a figure writes them, on one line."""
    return [f"'{word}'".replace("\n", "⏎") for word in token_strings(torch.tensor(list(ids)), subject.tokenizer)]


def seen_whole(subject: Subject, text: str, block: int) -> None:
    """The last token of `text` through a feed-forward network, and what its strongest features write."""
    passage = passage_of(subject, text, block)
    lit = half_of(passage.h)
    named = lit[:5]
    says, ordinary = [], torch.tensor(ordinary_ids(subject.tokenizer))
    pushes = pushes_of(subject, block, passage.h[named], named)[:, ordinary]
    for feature, row in zip(named, pushes, strict=True):
        words = quoted(subject, ordinary[row.topk(3).indices].tolist())
        says.append(f"{feature:,}: h = {passage.h[feature]:+.1f} pushes {' '.join(words)}")
    word, hidden = quoted(subject, subject.ids(text)[0, -1:].tolist())[0], len(passage.h)
    first = quoted(subject, [int(ordinary[pushes[0].argmax()])])[0]
    title = (
        f"{word} in block {block}: {len(lit)} of {hidden:,} hidden features hold half of the squares; "
        f"the strongest pushes {first}"
    )
    alt = "Blocks of coloured squares from left to right: x, gate and value branch, their product, y."
    show_figure(figures.draw_passage(passage, lit, says, title), alt)


def hinges(count: int = 16, within: float = 3.0) -> None:
    """x times x as a sum of ReLUs, and of two gated features; the sums are fitted on the range `within`."""
    x = torch.linspace(-2 * within, 2 * within, 601, dtype=torch.float64)
    inside, target = x.abs() <= within, x * x
    bends = torch.linspace(0, within, count // 2 + 1, dtype=torch.float64)[:-1]  # as many to either side
    ways = {
        f"{count} ReLUs": torch.cat([F.relu(x[:, None] - bends), F.relu(-x[:, None] - bends)], dim=1),
        "2 gated": torch.stack([F.silu(x) * x, F.silu(-x) * -x], dim=1),
    }
    curves = {}
    for name, features in ways.items():
        weights = torch.linalg.lstsq(features[inside], target[inside, None]).solution
        curves[name] = (features @ weights)[:, 0]
    hinged, gated = curves.values()
    near, far = ((hinged - target)[side].abs().max() for side in (inside, ~inside))
    title = (
        f"{count} ReLUs miss x times x by up to {near:.2f} where they were fitted and {far:.1f} beyond; "
        f"two gated features by {(gated - target).abs().max():.2f}"
    )
    alt = "The curve of x times x, straight pieces of ReLUs that leave it, and the gated features on it."
    show_figure(figures.draw_hinges(x, curves, within, title), alt)


def row_times_token(subject: Subject, text: str, block: int) -> None:
    """The dot product behind one number of the value branch: that of the last token's strongest feature."""
    passage = passage_of(subject, text, block)
    feature = int(passage.h.abs().argmax())
    row = probe.dequantized_weight(subject.model.get_submodule(f"layers.{block}.feed_forward.w_up"))[feature]
    word = quoted(subject, subject.ids(text)[0, -1:].tolist())[0]
    names = f"{word} as it arrives, x", f"row {feature:,} of $W_{{up}}$", "their products"
    title = (
        f"{len(row):,} products add up to one number: u = {(passage.x * row).sum():.2f} for feature {feature:,}"
    )
    alt = "Three rows of bars: the token, a row of the matrix, and their products feature by feature."
    show_figure(figures.draw_row_product(passage.x, row, names, title), alt)


def silu_curve(subject: Subject, text: str, block: int) -> None:
    """SiLU, and where the gates of the last token of `text` stand on it."""
    g = passage_of(subject, text, block).g
    word = quoted(subject, subject.ids(text)[0, -1:].tolist())[0]
    share = f"{(g < 0).float().mean():.0%}"
    title = f"{share} of the gates of {word} read less than 0, where SiLU stays between 0 and -0.28"
    alt = "The curve of SiLU with its dip below zero, ReLU beside it, and a dot for each gate of a token."
    show_figure(figures.draw_silu(g, title), alt)


def toy_gate(g: Float[Tensor, " features"], u: Float[Tensor, " features"]) -> None:
    """A few gates times a few numbers of the value branch, with all numbers."""
    h = F.silu(g) * u
    first, last = (f"with g = {g[i]:g} a value of {u[i]:g} leaves as {h[i]:.2f}" for i in (0, -1))
    title = f"The gate decides: {first}, {last}"
    alt = "Four groups of bars with their numbers: what the gate reads, the gate, the value, their product."
    show_figure(figures.draw_toy_gate(g, u, title), alt)


def toy_machine(
    x: Float[Tensor, " dim"],
    w_gate: Float[Tensor, "hidden dim"],
    w_up: Float[Tensor, "hidden dim"],
    w_down: Float[Tensor, "dim hidden"],
) -> None:
    """A feed-forward network of a few numbers, from left to right."""
    g, u = w_gate @ x, w_up @ x
    h = F.silu(g) * u
    stages = {"x": x, "g": g, "silu(g)": F.silu(g), "u": u, "h": h, "y": w_down @ h}
    title = f"{' and '.join(f'{value:g}' for value in x.tolist())} arrive, {stages['y'][0]:.4g} is written"
    alt = "Boxes with numbers from left to right: x, what the gate reads, the gate, the value, the product, y."
    show_figure(figures.draw_machine({name: values.tolist() for name, values in stages.items()}, title), alt)


def paired(subject: Subject, text: str, block: int) -> None:
    """Each hidden feature of the last token by its gate and its value; the strongest products are marked."""
    passage = passage_of(subject, text, block)
    lit = half_of(passage.h)
    gate, u = passage.gate[lit[0]], passage.u[lit[0]]
    title = (
        f"{len(lit)} of {len(passage.h):,} products hold half of the squares; "
        f"the strongest is a gate of {gate:.1f} times a value of {u:.1f}"
    )
    alt = "A dot for each hidden feature, its gate across and its value upwards; the strongest are marked."
    show_figure(figures.draw_paired(passage.gate, passage.u, lit, title), alt)


def gate_curves() -> None:
    """The curves that make a gate of what it reads, in the layers of the race that have one."""
    z = torch.linspace(-4, 4, 401)
    curves = {
        "bilinear: none": z,
        "GLU: sigmoid": torch.sigmoid(z),
        "ReGLU: ReLU": F.relu(z),
        "GEGLU: GELU": F.gelu(z),
        "SwiGLU: SiLU": F.silu(z),
    }
    apart = (curves["GEGLU: GELU"] - curves["SwiGLU: SiLU"]).abs().max()
    title = f"Five gates: at g = 0 the sigmoid alone is not 0 but 0.5; GELU and SiLU differ by {apart:.2f} at most"
    alt = "Five small panels with a curve each: a straight line, an S between 0 and 1, a hinge, two smooth hinges."
    show_figure(figures.draw_gate_curves(z, curves, title), alt)


def branches(subject: Subject, texts: Sequence[str], block: int, feature: int) -> list[float]:
    """What one hidden feature reads, in its gate and in its value branch, at the end of each of some texts.

    Returns its h for each of them.
    """
    rows, h = [], []
    for text in texts:
        passage = passage_of(subject, text, block)
        found = (passage.g, passage.gate, passage.u, passage.h)
        rows.append([text, *(f"{values[feature]:+.2f}" for values in found)])
        h.append(passage.h[feature].item())
    show_table(rows, ["text", "g", "gate, silu(g)", "u", "h"], f"feature {feature:,} of block {block}")
    return h


def only_with_both(
    subject: Subject, words: tuple[str, str], others: Sequence[tuple[str, str]], block: int, feature: int
) -> list[float]:
    """Which share of a feature's h at the end of "one two a" is there only if both words are, a row for each pair.

    That is h with both, less what each word brings when the other is exchanged. Returns the shares.
    """

    def h_of(first: str, second: str) -> float:
        return passage_of(subject, f"{first} {second} a", block).h[feature].item()

    rows, shares, both = [], [], h_of(*words)
    for first, second in others:
        neither, one, two = h_of(first, second), h_of(words[0], second), h_of(first, words[1])
        shares.append((both - one - two + neither) / both)
        rows.append([f"{first} {second}", *(f"{h:+.1f}" for h in (neither, one, two, both)), f"{shares[-1]:.0%}"])
    header = ["in their place", "h with neither", f"{words[0]} alone", f"{words[1]} alone", "both"]
    show_table(rows, [*header, "only with both"])
    return shares


def alone(subject: Subject, text: str, block: int) -> None:
    """Which results of attention and of the feed-forward move when one token that comes to them is changed."""
    model, ids = subject.model, subject.ids(text)
    parts = {part: f"layers.{block}.{part}" for part in ("attention", "feed_forward")}
    with probe.recording(model, parts.values()) as record:
        model.hidden(ids)
    positions = torch.arange(ids.shape[1], device=ids.device)
    further = {"attention": (positions, model.rotation_at(positions)), "feed_forward": ()}
    moved, push = {}, torch.randn(model.config.dim, generator=torch.Generator().manual_seed(0))
    for part, name in parts.items():
        x, module = record.inputs[name], model.get_submodule(name)
        changed = x.repeat(len(positions), 1, 1)
        changed[positions, positions] += push.to(x.device, x.dtype)
        distance = (module(changed, *further[part]) - module(x, *further[part])).float().norm(dim=-1).cpu()
        distance = distance.T  # a row per result, as in a map of attention
        moved[part.replace("_", "-")] = distance.where(distance > 1e-4 * distance.max(), torch.zeros(()))
    most = {name: int((values > 0).sum(dim=0).max()) for name, values in moved.items()}
    title = (
        f"A changed token moves up to {most['attention']} results of attention, and "
        f"{most['feed-forward']} of the feed-forward: its own"
    )
    alt = "Two squares, tokens by tokens: a filled triangle for attention, a diagonal for the feed-forward."
    show_figure(figures.draw_alone(moved, subject.words(text), title), alt)
