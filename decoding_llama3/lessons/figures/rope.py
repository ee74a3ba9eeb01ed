"""Part 4 - the figures of rotary embeddings: arrays in, a figure out."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor

from decoding_llama3.lessons import style


def draw_hands(hands: Float[Tensor, "positions pairs 2"], wavelengths: Sequence[float], title: str) -> Figure:
    """Some pairs of one query at positions 0, 1, ...: a clock per pair, a hand per position, the first black."""
    figure, axes = plt.subplots(1, hands.shape[1], figsize=(style.WIDTH, 3.2))
    for i, ax in enumerate(axes):
        length = hands[:, i].norm(dim=-1).max().item()
        crowded = wavelengths[i] > 60
        ax.add_patch(Circle((0, 0), length, fill=False, color="lightgrey"))
        for position, (x, y) in enumerate(hands[:, i].tolist()):
            fade = 1 - 0.8 * position / len(hands)
            colour = "black" if position == 0 else style.QUERY
            ax.plot([0, x], [0, y], color=colour, alpha=fade, linewidth=2.5)
            if not crowded:
                ax.text(1.18 * x, 1.18 * y, str(position), ha="center", va="center", fontsize=11, alpha=fade)
        if crowded:
            x, y = (1.25 * hands[len(hands) // 2, i]).tolist()
            ax.text(x, y, f"0–{len(hands) - 1}", ha="center", va="center", fontsize=11)
        ax.set(xlim=(-1.35 * length, 1.35 * length), ylim=(-1.35 * length, 1.35 * length), aspect="equal")
        ax.set_title(f"once round in\n{wavelengths[i]:,.1f} tokens", fontsize=12, fontweight="normal")
        ax.set_axis_off()
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def draw_kernels(kernels: Mapping[str, Float[Tensor, " distances"]], title: str) -> Figure:
    """Score of a head's mean query with its mean key against their distance, a line per head."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.2))
    lines = torch.stack(list(kernels.values()))
    gap = 0.07 * (lines.max() - lines.min()).item()
    last, free = lines.shape[1] - 1, -torch.inf
    colours = dict(zip(kernels, (style.QUERY, style.KEY, style.VALUE), strict=True))
    for name, scores in sorted(kernels.items(), key=lambda item: item[1][-1].item()):
        best, free = int(scores.argmax()), max(free + gap, scores[-1].item())
        ax.plot(scores, color=colours[name])
        ax.plot(best, scores[best], "o", color=colours[name])
        ax.text(last + 0.4, free, name, va="center", color=colours[name])
    ax.set_xlim(-0.5, 1.22 * last)
    ax.set(xlabel="how many tokens back the key stands", ylabel="score before the softmax", title=title)
    return figure


def draw_by_distance(
    profiles: Mapping[str, tuple[Float[Tensor, " distances"], Float[Tensor, " distances"]]], title: str
) -> Figure:
    """Mean attention weight against distance, as trained and with all rotations stopped, a panel per head."""
    figure, axes = plt.subplots(1, len(profiles), figsize=(style.WIDTH, 3.8), sharey=True)
    for ax, (name, (trained, stopped)) in zip(axes, profiles.items(), strict=True):
        x = torch.arange(len(trained))
        ax.bar(x, trained, color=style.QUERY, width=0.8)
        ax.step(x, stopped, where="mid", color=style.RESIDUAL)
        ax.set_title(name, fontsize=12, fontweight="normal")
        ax.set_xlabel("tokens back")
    axes[0].set_ylabel("mean attention weight")
    axes[-1].text(0.97, 0.9, "as trained", color=style.QUERY, ha="right", transform=axes[-1].transAxes)
    axes[-1].text(0.97, 0.82, "rotation stopped", color="dimgrey", ha="right", transform=axes[-1].transAxes)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def draw_energy(
    energy: Float[Tensor, "heads pairs"], wavelengths: Sequence[float], heads: int, title: str
) -> Figure:
    """Share of each pair in the lengths of a head's queries and keys; `heads` per block."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 5.6))
    image = ax.imshow(energy, cmap=style.SEQUENTIAL, vmin=0, aspect="auto")
    for layer in range(1, len(energy) // heads):
        ax.axhline(layer * heads - 0.5, color="white", linewidth=1.5)
    blocks = style.thinned(len(energy) // heads)
    ax.set_yticks([(i + 0.5) * heads - 0.5 for i in blocks], [f"block {i}" for i in blocks])
    shown = style.thinned(len(wavelengths), 16)
    ax.set_xticks(shown, [f"{wavelengths[i]:,.0f}" for i in shown], rotation=50, ha="right")
    ax.set(xlabel="the pair turns once in so many tokens", ylabel="the query heads", title=title)
    figure.colorbar(image, ax=ax, label="share of the head's query · key lengths")
    return figure


def draw_stopped(
    slow: Sequence[float], fast: Sequence[float], wavelengths: Sequence[float], trained: float, title: str
) -> Figure:
    """Loss when pairs stand still: in `slow[i]` all but the i fastest, in `fast[i]` the i fastest."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.2))
    x = range(len(slow))
    ax.plot(x, slow, "o-", color=style.QUERY)
    ax.plot(x, fast, "o-", color=style.FEED_FORWARD)
    ax.axhline(trained, color=style.RESIDUAL, linewidth=1, linestyle="--")
    ax.text(0.4, slow[0], "only the faster ones turn", va="center", color=style.QUERY)
    below = fast[-1] - 0.03 * (fast[-1] - trained)
    ax.text(len(fast) - 1, below, "only the slower ones turn", va="top", ha="right", color=style.FEED_FORWARD)
    below = trained - 0.03 * (slow[0] - trained)
    ax.text(len(slow) - 1, below, "all turn", va="top", ha="right", color="dimgrey")
    ax.set_ylim(min(trained, *slow, *fast) - 0.13 * abs(slow[0] - trained), None)
    labels = ["none", *(f"{w:,.0f}" for w in wavelengths)]
    ax.set_xticks(x, labels, rotation=50, ha="right")
    ax.set(
        xlabel="cut after the pair that turns once in so many tokens", ylabel="loss (nats per token)", title=title
    )
    return figure


def draw_stretch(factors: Sequence[float], losses: Sequence[float], stopped: float, title: str) -> Figure:
    """Loss when all positions are multiplied by a factor, with the loss without positions as a line."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.8))
    ax.plot(factors, losses, "o-", color=style.PREDICTION)
    ax.axhline(stopped, color=style.RESIDUAL, linestyle="--")
    ax.text(factors[0], stopped, "without any position", va="bottom", color="dimgrey")
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set(xlabel="every position times", ylabel="loss (nats per token)", title=title)
    return figure


def draw_scaling(
    before: Float[Tensor, " pairs"], after: Float[Tensor, " pairs"], zones: tuple[int, int], title: str
) -> Figure:
    """Wavelengths in tokens before and after Llama 3.1's scaling; `zones`: first blended, first divided pair."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.4))
    ax.axvspan(zones[0] - 0.5, zones[1] - 0.5, color=style.NEUTRAL, alpha=0.2, linewidth=0)
    ax.plot(before, "o", color=style.RESIDUAL, markersize=5)
    ax.plot(after, "o", color=style.QUERY, markersize=5)
    last = len(before) - 1
    for values, colour, name in ((before, "dimgrey", "Llama 3"), (after, style.QUERY, "Llama 3.1")):
        ax.annotate(
            name, (last, values[-1]), xytext=(10, 0), textcoords="offset points", va="center", color=colour
        )
    for length, name in ((8192, "8,192 tokens"), (131_072, "131,072 tokens")):
        ax.axhline(length, color="lightgrey", linewidth=1, zorder=0)
        ax.text(0, length, name, va="bottom", color="dimgrey")
    top = 3 * after.max().item()
    for x, name in ((zones[0] / 2, "kept"), (sum(zones) / 2 - 0.5, "blended"), ((zones[1] + last) / 2, "slowed")):
        ax.text(x, top, name, ha="center", va="bottom")
    ax.set_yscale("log")
    ax.set_xlim(-1, 1.17 * last)
    ax.set_ylim(3, 4 * top)
    ax.set(xlabel="pair", ylabel="tokens per turn", title=title)
    return figure


def draw_gram(gram: Float[Tensor, "positions positions"], title: str) -> Figure:
    """Dot products of the position vectors of the 2017 Transformer."""
    figure, ax = plt.subplots(figsize=(7, 5.4))
    image = ax.imshow(gram, cmap=style.SEQUENTIAL)
    ax.set(xlabel="position", ylabel="position")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=14)
    figure.colorbar(image, ax=ax, label="dot product of two position vectors")
    return figure
