"""Part 3 - the figures of what the norms of trained models do: arrays in, a figure out, a panel for each model."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from decoding_llama3.lessons import style


def draw_depth(
    panels: Mapping[str, tuple[Sequence[Float[Tensor, "norms tokens"]], list[str]]], title: str
) -> Figure:
    """RMS of each token at each norm, in three stages; a panel for each model. The first token, which arrives
    unlike the others, is marked; the lines are the medians of the others."""
    figure, axes = _panels(panels, 4.2)
    labels = ("arrives", "divided", "is read")
    for ax, (name, (stages, places)) in zip(axes, panels.items(), strict=True):
        x = torch.arange(len(places))
        for values, colour, label in zip(stages, (style.RESIDUAL, "black", style.NORM), labels, strict=True):
            others = values[:, 1:]
            ax.plot(x[:, None].expand_as(others), others, ".", color=colour, alpha=0.25, markersize=4)
            ax.plot(x, others.median(dim=1).values, color=colour, linewidth=2.2, label=label)
        ax.plot(x, stages[0][:, 0], color=style.MARKED, linewidth=1.4, label="first token arrives")
        ax.plot([], [], ".", color="black", alpha=0.5, label="dots: tokens, lines: medians")
        ax.set_yscale("log")
        _name_places(ax, places, name)
    axes[0].set_ylabel("RMS of a token")
    _legend_below(figure, axes[0])
    style.headline(figure, title)
    return figure


def draw_loudest(
    panels: Mapping[str, tuple[int, Sequence[Float[Tensor, " norms"]], list[str]]], title: str
) -> Figure:
    """The share of one feature in the squared length of the median token: as it arrives at each norm, and as it
    is read by attention, by the feed-forward and by the output."""
    figure, axes = _panels(panels, 4.0)
    looks = {"attention": (style.NORM, "o"), "feed-forward": (style.FEED_FORWARD, "s"), "output": ("black", "D")}
    for ax, (name, (feature, (arrives, read), places)) in zip(axes, panels.items(), strict=True):
        ax.plot(torch.arange(len(places)), arrives, color=style.RESIDUAL, label="arrives")
        for part, (colour, mark) in looks.items():
            at = [i for i, place in enumerate(places) if place.startswith(part)]
            ax.plot(at, read[at], f"{mark}-", color=colour, linewidth=1.2, markersize=4.5, label=f"{part} reads")
        top = int(read.argmax())
        right = top < len(places) / 2
        ax.annotate(
            f"{places[top]}: {read[top]:.0%}",
            (top, read[top]),
            xytext=(6 if right else -6, 4),
            textcoords="offset points",
            ha="left" if right else "right",
        )
        _name_places(ax, places, f"{name}, feature {feature}")
        ax.set_ylim(0, 1.15 * max(arrives.max().item(), read.max().item()))
        ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes[0].set_ylabel("share of squared length\n(median token)")
    _legend_below(figure, axes[0])
    style.headline(figure, title)
    return figure


def draw_mean_direction(
    panels: Mapping[str, tuple[Float[Tensor, " norms"], Float[Tensor, "norms draws"], list[str]]], title: str
) -> Figure:
    """The share of a token along (1, ..., 1) at each norm, and the range and median of directions drawn by
    chance."""
    figure, axes = _panels(panels, 3.8)
    for ax, (name, (shares, chance, places)) in zip(axes, panels.items(), strict=True):
        x = torch.arange(len(places))
        low, high = chance.quantile(torch.tensor([0.025, 0.975]), dim=1)
        ax.fill_between(
            x, low, high, color=style.NEUTRAL, alpha=0.35, linewidth=0, label="95 % of random directions"
        )
        ax.plot(x, shares, "o-", color=style.NORM, label="(1, ..., 1), the mean")
        ax.plot(x, chance.median(dim=1).values, "--", color="black", linewidth=1.2, label="their median")
        ax.set_ylim(0, None)
        _name_places(ax, places, name)
        ax.yaxis.set_major_formatter(lambda share, _: f"{share:.2%}")
    axes[0].set_ylabel("share of squared length")
    _legend_below(figure, axes[0])
    style.headline(figure, title)
    return figure


def draw_weights(
    panels: Mapping[str, tuple[int, Sequence[Float[Tensor, " dim"]], list[str]]], title: str
) -> Figure:
    """The learned weights of every norm, a dot for each feature, with their median; one feature is marked."""
    figure, axes = _panels(panels, 4.2)
    generator = torch.Generator().manual_seed(0)
    for ax, (name, (feature, weights, places)) in zip(axes, panels.items(), strict=True):
        marked = [values[feature].item() for values in weights]
        for i, values in enumerate(weights):
            values = values[:: -(-len(values) // 256)]  # more dots than that only fill the column
            across = i + 0.5 * (torch.rand(len(values), generator=generator) - 0.5)
            dots, bar = ("a feature", "the median feature") if i == 0 else (None, None)
            ax.plot(across, values, ".", color=style.NORM, alpha=0.35, markersize=3, label=dots)
            ax.plot([i - 0.32, i + 0.32], [values.median()] * 2, color="black", linewidth=2, label=bar)
        ax.plot(range(len(marked)), marked, "o", color=style.MARKED, markersize=5, label="the loudest feature")
        ax.axhline(1, color=style.RESIDUAL, linewidth=1, linestyle="--")
        _name_places(ax, places, f"{name}, feature {feature} marked")
    axes[0].set_ylabel("learned weight of a feature")
    _legend_below(figure, axes[0])
    style.headline(figure, title)
    return figure


def _panels(panels: Mapping, height: float) -> tuple[Figure, list[Axes]]:
    """A panel for each model, side by side."""
    figure, axes = plt.subplots(1, len(panels), figsize=(style.WIDTH, height), squeeze=False)
    return figure, list(axes[0])


def _legend_below(figure: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))


def _name_places(ax: Axes, places: Sequence[str], title: str) -> None:
    """Number the blocks, each at its first norm, and name the last norm."""
    starts = [i for i, place in enumerate(places) if place.startswith("attention")]
    shown = style.thinned(len(starts), 7)
    ax.set_xticks([*(starts[i] for i in shown), len(places) - 1], [*map(str, shown), "out"])
    ax.set_xlabel(
        "block (at the number: norm before attention;\nhalf-way to the next: before feed-forward)", fontsize=11
    )
    ax.set_title(title, fontsize=12, fontweight="normal")
