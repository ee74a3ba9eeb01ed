"""The ablation lab - its figure: curves in, a figure out."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from decoding_llama3.experiments.ablation import Curves
from decoding_llama3.lessons import style


def draw_curves(
    curves: Curves, title: str, from_step: int | None = None, labels: Mapping[str, str] | None = None
) -> Figure:
    """Left, held-out loss by step: the mean over the seeds, with a band from the lowest seed to the highest.

    Right, the loss after the last step: a dot per seed, a bar at their mean, on an axis of at least 0.1 nats, so
    that chance does not look large. The left panel starts at `from_step`, by default after a fifth of the run,
    since all begin alike. `labels` gives variants another name.
    """
    labels = {name: name for name in curves} | dict(labels or {})
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.WIDTH, 4.4), width_ratios=(3, 2))
    figure.set_layout_engine("constrained", wspace=0.06)
    ends, steps = {}, np.zeros(1, dtype=int)
    for (name, seeds), colour in zip(curves.items(), style.VARIANTS[: len(curves)], strict=True):
        steps = np.array([point.step for point in next(iter(seeds.values()))])
        losses = np.array([[point.held_out_loss for point in points] for points in seeds.values()])
        shown = steps >= (steps[-1] // 5 if from_step is None else from_step)
        mean = losses.mean(axis=0)
        left.plot(steps[shown], mean[shown], color=colour)
        lowest, highest = losses.min(axis=0), losses.max(axis=0)
        left.fill_between(steps[shown], lowest[shown], highest[shown], color=colour, alpha=0.2, linewidth=0)
        ends[labels[name]] = (mean[-1], colour)
        _draw_finals(right, len(ends) - 1, losses[:, -1], colour)
    left.set_xlim(None, steps[-1])
    _label_ends(left, int(steps[-1]), ends)
    _finish_columns(right, ends)
    left.set(xlabel="training step", ylabel="held-out loss (nats per character)")
    right.set(ylabel=f"held-out loss after {steps[-1]:,} steps")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def _draw_finals(ax: Axes, column: int, losses: np.ndarray, colour: str) -> None:
    across = column + np.linspace(-0.15, 0.15, len(losses))
    ax.plot(across, losses, "o", color=colour, alpha=0.6, markersize=6, markeredgewidth=0)
    ax.plot([column - 0.3, column + 0.3], [losses.mean()] * 2, color=colour)


def _label_ends(ax: Axes, step: int, ends: Mapping[str, tuple[float, str]]) -> None:
    """A name beside the end of each line, moved up or down where two would overlap."""
    low, high = ax.get_ylim()
    ordered = sorted(ends, key=lambda name: ends[name][0])
    for name, y in zip(ordered, spread([ends[name][0] for name in ordered], 0.065 * (high - low)), strict=True):
        value, colour = ends[name]
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
        ax.annotate(
            name, (step, value), (1.05, y), xycoords="data", textcoords=("axes fraction", "data"), color=colour,
            va="center", arrowprops=line, annotation_clip=False,
        )  # fmt: skip
    ax.set_ylim(low, high)


def _finish_columns(ax: Axes, ends: Mapping[str, tuple[float, str]]) -> None:
    turned = 25 if len(ends) <= 4 else 55
    ax.set_xticks(range(len(ends)), list(ends), rotation=turned, ha="right", rotation_mode="anchor")
    for tick, (_, colour) in zip(ax.get_xticklabels(), ends.values(), strict=True):
        tick.set_color(colour)
    ax.set_xlim(-0.5, len(ends) - 0.5)
    low, high = ax.get_ylim()
    short = max(0.0, 0.1 - (high - low)) / 2
    ax.set_ylim(low - short, high + short)


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Rising `values`, moved as little as is needed to stand at least `gap` apart."""
    # Blocks of labels that touch each stand around the mean of their wishes; blocks that meet are merged.
    blocks: list[list[float]] = []
    for value in values:
        blocks.append([value])
        while len(blocks) > 1 and _top(blocks[-2], gap) + gap > _bottom(blocks[-1], gap):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [_bottom(block, gap) + gap * i for block in blocks for i in range(len(block))]


def _bottom(block: Sequence[float], gap: float) -> float:
    return sum(block) / len(block) - gap * (len(block) - 1) / 2


def _top(block: Sequence[float], gap: float) -> float:
    return sum(block) / len(block) + gap * (len(block) - 1) / 2
