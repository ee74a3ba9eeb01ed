"""Part 6 - the figures of the feed-forward network: arrays in, a figure out."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from decoding_llama3.lessons import style
from decoding_llama3.lessons.fonts import drawable, font_families


def draw_gate(values: Float[Tensor, " values"], title: str) -> Figure:
    """Histogram of what the gates read in the trained model, and the curve of SiLU over it."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.0))
    x = torch.linspace(-5, 3, 400)
    twin = ax.twinx()
    twin.hist(values[(values > -5) & (values < 3)], bins=160, color=style.GATE, alpha=0.35)
    twin.set_yticks([])
    twin.spines["right"].set_visible(False)
    ax.plot(x, F.silu(x), color=style.GATE)
    ax.plot(x, F.relu(x), color=style.RESIDUAL, linestyle="--", linewidth=1.5)
    ax.set_zorder(twin.get_zorder() + 1)
    ax.patch.set_visible(False)
    ax.text(2.2, 1.7, "SiLU", color=style.GATE)
    ax.text(1.25, 1.75, "ReLU", color="dimgrey")
    ax.annotate("lowest: −0.278 at −1.278", (-1.278, -0.278), xytext=(-3.6, 0.9), ha="center",
                arrowprops={"arrowstyle": "-", "color": "dimgrey"})  # fmt: skip
    ax.text(-1.9, 1.9, "how often the trained model\nhas this value", ha="center", color="#8F4F74")
    ax.set(xlabel="what w_gate(x) gives", ylabel="what the gate makes of it", title=title)
    return figure


def draw_activations(
    hidden: Float[Tensor, "neurons tokens"], neurons: Sequence[int], tokens: Sequence[str], title: str
) -> Figure:
    """Gated activations of some hidden features, a row per feature, a column per token of the sentence."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 6.2))
    limit = hidden.abs().quantile(0.995).item()
    image = ax.imshow(hidden, cmap=style.DIVERGING, vmin=-limit, vmax=limit, aspect="auto")
    ax.set_xticks(range(len(tokens)), map(drawable, tokens), rotation=40, ha="right")
    ax.set_yticks(range(0, len(neurons), 2), [str(n) for n in neurons[::2]])
    ax.set(xlabel="token", ylabel="number of the hidden feature", title=title)
    figure.colorbar(image, ax=ax, label="silu(gate) · up")
    return figure


def draw_text(values: Float[Tensor, " tokens"], tokens: Sequence[str], title: str, width: int = 88) -> Figure:
    """The tokens as running text, each on the colour of its value: blue below zero, red above."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.0))
    limit = values.abs().max().item()
    colour = colormaps[style.DIVERGING]
    norm = TwoSlopeNorm(0, -limit, limit)
    font = {"family": ["monospace", *font_families()], "ha": "center", "va": "center"}
    line, column = 0, 0
    for value, token in zip(values.tolist(), tokens, strict=True):
        text = drawable(token.replace("\n", "⏎"))
        if column + len(text) > width:
            line, column, text = line + 1, 0, text.removeprefix(" ")
        shade = colour(norm(value))
        ink = "white" if abs(value) > 0.6 * limit else "black"
        ax.add_patch(Rectangle((column, -line - 0.5), len(text), 0.9, color=shade, linewidth=0))
        for i, character in enumerate(text):  # one at a time: every character as wide as the next
            ax.text(column + i + 0.5, -line - 0.05, character, color=ink, **font)
        column += len(text)
    ax.set(xlim=(0, width), ylim=(-line - 0.8, 0.7))
    ax.set_axis_off()
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def draw_deleted(losses: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Rise of the loss when one block's attention or feed-forward is silenced, a pair of bars per block."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.0))
    colours = {"attention": style.QUERY, "feed-forward": style.FEED_FORWARD}
    for shift, (name, values) in zip((-0.2, 0.2), losses.items(), strict=True):
        x = [i + shift for i in range(len(values))]
        ax.bar(x, values, width=0.38, color=colours[name])
        for at, value in zip(x, values, strict=True) if len(values) <= 12 else ():
            ax.text(at, max(value, 0), f"{value:+.2f}", ha="center", va="bottom", fontsize=11, color=colours[name])
    for i, name in enumerate(losses):
        ax.text(
            0.98, 0.9 - 0.09 * i, f"without the {name}", color=colours[name], ha="right", transform=ax.transAxes
        )
    ax.axhline(0, color="lightgrey", linewidth=1)
    shown = style.thinned(max(map(len, losses.values())))
    ax.set_xticks(shown, [f"block {i}" for i in shown])
    ax.set(ylabel="rise of the loss (nats per token)", title=title)
    return figure


def draw_sparse(shares: Sequence[float], losses: Sequence[float], trained: float, title: str) -> Figure:
    """Loss when each token keeps only this share of its hidden features, the strongest ones."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.8))
    ax.plot([100 * share for share in shares], losses, "o-", color=style.FEED_FORWARD)
    ax.axhline(trained, color=style.RESIDUAL, linestyle="--", linewidth=1)
    ax.text(0, trained, "all of them", va="bottom", color="dimgrey")
    ax.set_xlim(0, None)
    ax.set_ylim(trained - 0.12 * (max(losses) - trained), None)
    ax.set(
        xlabel="strongest hidden features that each token keeps (%)", ylabel="loss (nats per token)", title=title
    )
    return figure


def draw_stairs(
    dims: Sequence[int], added: Mapping[str, Sequence[float]], marks: Mapping[str, tuple[int, float]], title: str
) -> Figure:
    """What rounding up adds to the hidden width, in per cent, against dim; `marks` are real models."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.2))
    for (name, values), colour in zip(added.items(), (style.NEUTRAL, style.FEED_FORWARD), strict=True):
        ax.plot(dims, values, color=colour, linewidth=1.2)
        ax.text(dims[-1], 90 if colour == style.NEUTRAL else 80, name, ha="right", color=colour)
    for name, (dim, share) in marks.items():
        ax.plot(dim, share, "o", color="black")
        line = {"arrowstyle": "-", "color": "dimgrey"}
        ax.annotate(f"{name}: {share:+.1f} %", (dim, share), (dim, share + 45), ha="center", arrowprops=line)
    ax.set(xlabel="dim", ylabel="added by rounding up (%)", title=title, ylim=(0, None))
    return figure
