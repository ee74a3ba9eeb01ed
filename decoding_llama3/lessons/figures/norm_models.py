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
    """RMS of each token at each norm, in three stages; a panel for each model."""
    figure, axes = _panels(panels, 4.4)
    labels = ("as it arrives", "divided", "as it is read")
    for ax, (name, (stages, places)) in zip(axes, panels.items(), strict=True):
        x = torch.arange(len(places))
        for values, colour, label in zip(stages, (style.RESIDUAL, "black", style.NORM), labels, strict=True):
            ax.plot(x[:, None].expand_as(values), values, ".", color=colour, alpha=0.25, markersize=4)
            ax.plot(x, values.median(dim=1).values, color=colour, linewidth=2.2, label=label)
        ax.set_yscale("log")
        _name_places(ax, places, name)
    axes[0].set_ylabel("RMS of a token")
    _legend_below(figure, axes[0])
    style.headline(figure, title)
    return figure


def draw_loudest(
    panels: Mapping[str, tuple[int, Sequence[Float[Tensor, " norms"]], list[str]]], title: str
) -> Figure:
    """The share of one feature in the squared length of a token: as it arrives at each norm, and as it is read."""
    figure, axes = _panels(panels, 4.0)
    for ax, (name, (feature, (arrives, read), places)) in zip(axes, panels.items(), strict=True):
        x = torch.arange(len(places))
        ax.bar((x - 0.2).tolist(), arrives.tolist(), 0.4, color=style.RESIDUAL, label="of what arrives")
        ax.bar((x + 0.2).tolist(), read.tolist(), 0.4, color=style.NORM, label="of what is read")
        _name_places(ax, places, f"{name}, feature {feature}")
        ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes[0].set_ylabel("share of squared length")
    _legend_below(figure, axes[0])
    style.headline(figure, title)
    return figure


def draw_mean_direction(
    panels: Mapping[str, tuple[Float[Tensor, " norms"], Float[Tensor, "norms draws"], list[str]]], title: str
) -> Figure:
    """The share of a token along (1, ..., 1) at each norm, and the range of directions drawn by chance."""
    figure, axes = _panels(panels, 3.8)
    for ax, (name, (shares, chance, places)) in zip(axes, panels.items(), strict=True):
        x = torch.arange(len(places))
        low, high = chance.quantile(torch.tensor([0.025, 0.975]), dim=1)
        ax.fill_between(
            x, low, high, color=style.NEUTRAL, alpha=0.35, linewidth=0, label="95 % of random directions"
        )
        ax.plot(x, shares, "o-", color=style.NORM, label="(1, ..., 1), the mean")
        ax.set_ylim(0, None)
        _name_places(ax, places, name)
        ax.yaxis.set_major_formatter(lambda share, _: f"{share:.1%}")
    axes[0].set_ylabel("share of squared length")
    _legend_below(figure, axes[0])
    style.headline(figure, title)
    return figure


def draw_weights(panels: Mapping[str, tuple[Sequence[Float[Tensor, " dim"]], list[str]]], title: str) -> Figure:
    """The learned weights of every norm, a dot for each feature, with their median."""
    figure, axes = _panels(panels, 4.4)
    generator = torch.Generator().manual_seed(0)
    for ax, (name, (weights, places)) in zip(axes, panels.items(), strict=True):
        for i, values in enumerate(weights):
            values = values[:: -(-len(values) // 256)]  # more dots than that only fill the column
            across = i + 0.5 * (torch.rand(len(values), generator=generator) - 0.5)
            ax.plot(across, values, ".", color=style.NORM, alpha=0.35, markersize=3)
            ax.plot([i - 0.32, i + 0.32], [values.median()] * 2, color="black", linewidth=2)
        ax.axhline(1, color=style.RESIDUAL, linewidth=1, linestyle="--")
        _name_places(ax, places, name)
    axes[0].set_ylabel("learned weight of a feature")
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
    shown = style.thinned(len(places), 13)
    ax.set_xticks(shown, [places[i] for i in shown], rotation=90)
    ax.set_title(title, fontsize=12, fontweight="normal")
