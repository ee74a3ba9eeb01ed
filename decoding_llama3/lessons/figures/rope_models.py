"""Part 4 - the figures of how trained models use the rotation: arrays in, a figure out."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from decoding_llama3.lessons import style
from decoding_llama3.lessons.figures.ablation import spread
from decoding_llama3.lessons.fonts import drawable

Shares = Float[Tensor, "seq seq"]
DASHES = ("-", "--", "-.", ":")


def draw_looks_back(panels: Mapping[str, tuple[Sequence[str], Shares, Shares]], title: str) -> Figure:
    """Who looks at whom, as arcs from each token back: above as trained, below with nothing turned.

    A column for each model: its tokens, and a row of shares for each token, in both cases.
    """
    figure, axes = plt.subplots(2, len(panels), figsize=(style.WIDTH, 5.0), squeeze=False)
    for column, (name, (words, trained, still)) in enumerate(panels.items()):
        for ax, shares, how in zip(axes[:, column], (trained, still), ("turned", "not turned"), strict=True):
            for query in range(1, len(words)):
                for key in range(query):
                    _draw_arc(
                        ax, key, query, shares[query, key].item(), style.MARKED if key == query - 1 else None
                    )
                _draw_loop(ax, query, shares[query, query].item())
            ax.set_title(f"{name}: {how}", fontsize=12, fontweight="normal")
            ax.set(xlim=(-0.7, len(words) - 0.3), ylim=(-0.15, 1.05), yticks=[])
            shown = [drawable(word) for word in words]
            ax.set_xticks(range(len(words)), shown, rotation=60, ha="right", rotation_mode="anchor")
            ax.spines["left"].set_visible(False)
    key = [
        Line2D([], [], color=_mixed(None, share), linewidth=_thickness(share), label=f"share {share:.0%}")
        for share in (0.1, 0.5, 1.0)
    ]
    key.append(Line2D([], [], color=style.MARKED, linewidth=2, label="to the token before"))
    figure.legend(handles=key, loc="outside lower center", ncols=len(key))
    style.headline(figure, title)
    return figure


def _mixed(colour: str | None, share: float) -> str:
    strength = round(4 * (0.25 + 0.75 * share)) / 4  # few colours and none see-through: the picture stays small
    red, green, blue = (1 - strength * (1 - part) for part in to_rgb(colour or style.RESIDUAL))
    return to_hex((red, green, blue))


def _thickness(share: float) -> float:
    return 0.5 + 3 * share


def _draw_arc(ax: Axes, key: int, query: int, share: float, colour: str | None) -> None:
    """An arc as strong as the share of attention that it stands for; none for a share below 10 %."""
    if share < 0.1:
        return
    angle = np.linspace(0, np.pi, 40)
    x = (key + query) / 2 + (query - key) / 2 * np.cos(angle)
    y = min(1.0, 0.25 + 0.08 * (query - key)) * np.sin(angle)
    ax.plot(x, y, color=_mixed(colour, share), linewidth=_thickness(share), zorder=2 + share)


def _draw_loop(ax: Axes, token: int, share: float) -> None:
    """A small circle over a token for the share that it gives itself; none below 10 %."""
    if share >= 0.1:
        angle = np.linspace(0, 2 * np.pi, 40)
        x, y = token + 0.17 * np.sin(angle), 0.07 * (1 - np.cos(angle))
        ax.plot(x, y, color=_mixed(None, share), linewidth=_thickness(share), zorder=2 + share)


def draw_one_back(panels: Mapping[str, tuple[Float[Tensor, "pairs distances"], int]], title: str) -> Figure:
    """What each pair gives to the score of a mean query and a mean key, by distance; below, the sum.

    A column for each model: the pairs' cosines, and how many of them are drawn in strong colour.
    """
    figure, axes = plt.subplots(2, len(panels), figsize=(style.WIDTH, 5.0), squeeze=False, sharex=True)
    for (above, below), (name, (cosines, strong)) in zip(axes.T, panels.items(), strict=True):
        swing = cosines.max(dim=1).values - cosines.min(dim=1).values
        order = swing.argsort(descending=True).tolist()
        shades = plt.get_cmap("viridis")(np.linspace(0, 0.85, strong))
        for rank, pair in enumerate(order):
            shade = shades[rank] if rank < strong else "lightgrey"
            above.plot(cosines[pair], color=shade, linewidth=2 if rank < strong else 1, zorder=-rank)
            if rank < strong:
                above.plot([], [], color=shade, label=f"pair {pair}")
        total = cosines.sum(dim=0)
        best = int(total.argmax())
        below.plot(total, color=style.PREDICTION)
        below.plot(best, total[best], "o", color=style.MARKED, markersize=9)
        below.annotate(
            f"{best} back: the peak", (best, total[best].item()), xytext=(10, 0), textcoords="offset points",
            color=style.MARKED, va="center",
        )  # fmt: skip
        _mark_next_peak(below, total, best)
        low, high = below.get_ylim()
        below.set_ylim(low, high + 0.45 * (high - low))
        above.set_title(name, fontsize=12, fontweight="normal")
        above.legend(loc="upper right", ncols=2, handlelength=1)
        low, high = above.get_ylim()
        above.set_ylim(low, high + 0.35 * (high - low))
        below.set_xlabel("tokens back")
    axes[0, 0].set_ylabel("each pair gives")
    axes[1, 0].set_ylabel("their sum: score /\n√head_dim, mean at 0")
    style.headline(figure, title)
    return figure


def _mark_next_peak(ax: Axes, total: Float[Tensor, " distances"], best: int) -> None:
    """The highest other peak, with what the softmax makes of its distance to the first."""
    peaks = [i for i in range(1, len(total) - 1) if i != best and total[i] >= max(total[i - 1], total[i + 1])]
    if peaks:
        second = max(peaks, key=total.__getitem__)
        gap = (total[best] - total[second]).item()
        ax.plot(second, total[second], "o", color="dimgrey", markersize=6)
        ax.annotate(
            f"{second} back: {gap:.1f} lower, so e^-{gap:.1f} = {np.exp(-gap):.1%}\n"
            f"of the attention that {best} back gets",
            (second, total[second].item()), (0.98, 0.98), textcoords="axes fraction", ha="right", va="top",
            color="dimgrey", fontsize=10, arrowprops={"arrowstyle": "-", "color": "dimgrey", "linewidth": 0.8},
        )  # fmt: skip


def draw_bands(
    bands: Sequence[Sequence[str]], panels: Mapping[str, Mapping[str, Sequence[float]]], title: str
) -> Figure:
    """How much the loss rises when the pairs of a band of wavelengths are changed; a panel for each way or text.

    `bands`: what each panel calls them. Names that are no model's take the colours of variants.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(style.WIDTH, 3.8), sharey=True, squeeze=False)
    for ax, (text, rises), names in zip(axes[0], panels.items(), bands, strict=True):
        width = 0.8 / len(rises)
        for i, (name, values) in enumerate(rises.items()):
            across = [x + (i - (len(rises) - 1) / 2) * width for x in range(len(names))]
            colour = style.MODEL_COLOURS.get(name, style.VARIANTS[3 + i % 4])
            shown = ax.bar(across, values, width, color=colour, label=name)
            ax.bar_label(shown, [f"{value:.2f}" for value in values], padding=2, fontsize=10)
        ax.set_xticks(range(len(names)), names, fontsize=10)
        ax.axhline(0, color="black", linewidth=0.8)
        ax.margins(y=0.45)
        ax.set_title(text, fontsize=12, fontweight="normal")
        ax.set_xlabel("pairs, by tokens per turn")
        ax.legend(fontsize=10, loc="upper right")
    axes[0, 0].set_ylabel("rise of the loss (nats per token)")
    style.headline(figure, title)
    return figure


def draw_theta_sweep(rises: Mapping[str, Mapping[float, float]], title: str) -> Figure:
    """How much the loss rises under another theta, by its multiple of the one trained with; a line per model."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.6))
    for (name, by_factor), dashes in style.with_looks(rises.items(), DASHES):
        colour = style.MODEL_COLOURS.get(name, style.NEUTRAL)
        ax.plot(list(by_factor), list(by_factor.values()), "o", linestyle=dashes, color=colour, label=name)
    ax.axvline(1, color=style.MARKED, linewidth=1)
    ax.annotate(
        "trained with", (1, 1), xycoords=("data", "axes fraction"), xytext=(5, -4), textcoords="offset points",
        color=style.MARKED, va="top",
    )  # fmt: skip
    ax.set_xscale("log")
    factors = list(next(iter(rises.values())))
    ax.set_xticks(factors, [f"{factor:g}" for factor in factors])
    ax.minorticks_off()
    ax.set(
        xlabel="theta, times the one that the model was trained with", ylabel="rise of the loss\n(nats per token)"
    )
    ax.legend()
    style.headline(figure, title)
    return figure


def draw_decay(
    distances: Sequence[int],
    curves: Mapping[str, Float[Tensor, " distances"]],
    shifted: tuple[str, Float[Tensor, " distances"]],
    title: str,
) -> Figure:
    """The score of a query and a key of the same arrows, by distance and theta; and of a key turned beforehand."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.8))
    shades = plt.get_cmap("viridis")(np.linspace(0.05, 0.75, len(curves)))
    for (name, values), shade in zip(curves.items(), shades, strict=True):
        ax.plot(distances, values, color=shade, label=name)
    name, values = shifted
    ax.plot(distances, values, color=style.MARKED, linestyle="--", label=name)
    ax.axhline(0, color="lightgrey", linewidth=1, zorder=0)
    ax.set_xscale("symlog", linthresh=1, linscale=0.3)
    ax.set_xlim(0, max(distances))
    ticks = [0, *(4**i for i in range(8) if 4**i <= max(distances))]
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.minorticks_off()
    ax.set(xlabel="distance (tokens)", ylabel="score, 1 at best\n(mean over near distances)")
    ax.legend(loc="upper right")
    style.headline(figure, title)
    return figure


def draw_long_text(
    places: Sequence[float], differences: Mapping[str, Sequence[float]], trained: int, title: str
) -> Figure:
    """By place in a text that is longer than the model was trained for: its loss above the control's.

    A line for each rotation; the control's is 0 throughout.
    """
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.6))
    ends = {}
    lines = style.with_looks(differences.items(), style.VARIANTS, (*DASHES, *DASHES))
    for (name, values), colour, dashes in lines:
        flat = not any(values)
        ends[name] = values[-1], "dimgrey" if flat else colour
        width, dashes, order = (1, "-", 1) if flat else (2, dashes, 2)
        ax.plot(places, values, dashes, color=ends[name][1], label=name, linewidth=width, zorder=order)
    ax.axvspan(trained, places[-1], color=style.RESIDUAL, alpha=0.12, linewidth=0)
    ax.annotate(
        f"longer than trained, {trained:,}", (trained, 1), xycoords=("data", "axes fraction"), xytext=(6, -4),
        textcoords="offset points", va="top", color="dimgrey",
    )  # fmt: skip
    low, high = ax.get_ylim()
    high += 0.12 * (high - low)
    ax.set(xlim=(0, places[-1]), ylim=(low, high))
    names = sorted(ends, key=lambda name: ends[name][0])
    for name, y in zip(names, spread([ends[name][0] for name in names], 0.14 * (high - low)), strict=True):
        value, colour = ends[name]
        ax.annotate(
            textwrap.fill(name, 24), (places[-1], value), (1.04, y), xycoords="data",
            textcoords=("axes fraction", "data"), color=colour, va="center", fontsize=10.5, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
    ax.set(xlabel="place in the text (tokens)", ylabel="extra loss against seeing\nless far back (nats per token)")
    style.headline(figure, title)
    return figure


def draw_slowed(
    waves: tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]], zones: tuple[int, int], title: str
) -> Figure:
    """Tokens per turn before and after Llama 3.1's rule; `zones`: the first blended and first slowed pair."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.8))
    ax.axvspan(zones[0] - 0.5, zones[1] - 0.5, color=style.NEUTRAL, alpha=0.25, linewidth=0)
    for values, colour, name in style.with_looks(waves, style.VARIANTS, ("Llama 3", "Llama 3.1")):
        ax.plot(values, "o", color=colour, markersize=4, label=name)
    top, last = 4 * waves[1].max().item(), len(waves[0]) - 1
    for x, name in ((zones[0] / 2, "kept"), (sum(zones) / 2 - 0.5, "blended"), ((zones[1] + last) / 2, "slowed")):
        ax.text(x, top, name, ha="center", va="bottom")
    ax.set_yscale("log")
    ax.set(xlabel="pair, i", ylabel="tokens per turn", ylim=(3, 8 * top))
    ax.legend(loc="lower right")
    style.headline(figure, title)
    return figure
