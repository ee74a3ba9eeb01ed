"""Part 4 - the figures of rotations that do not match: arrays in, a figure out."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from decoding_llama3.lessons import style


def draw_layouts(order: Sequence[int], title: str) -> Figure:
    """The features of a small head in both orders: an arc joins each pair, a line leads each feature across."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.3))
    count = len(order)
    colours = plt.get_cmap("viridis")(torch.linspace(0, 0.75, count // 2).numpy())
    rows = (list(range(count)), 3.0, 1), (list(order), 0.0, -1)
    for features, height, side in rows:
        for place, feature in enumerate(features):
            colour = colours[feature // 2]
            ax.add_patch(Rectangle((place - 0.4, height - 0.3), 0.8, 0.6, color=colour, linewidth=0))
            ax.text(place, height, f"$x_{feature}$", color="white", ha="center", va="center", fontsize=14)
            ax.text(place - 0.36, height + 0.26, str(place), color="white", ha="left", va="top", fontsize=8)
        for pair in range(count // 2):
            ends = features.index(2 * pair), features.index(2 * pair + 1)
            arc = torch.linspace(0, math.pi, 40)
            x = sum(ends) / 2 + (ends[1] - ends[0]) / 2 * arc.cos()
            y = height + side * (0.35 + (0.35 + 0.09 * (ends[1] - ends[0])) * arc.sin())
            ax.plot(x, y, color=colours[pair], linewidth=2)
    for place, feature in enumerate(order):
        ax.plot([feature, place], [2.65, 0.35], color=colours[feature // 2], alpha=0.6, linewidth=1.5)
    ax.text(count - 0.3, 3.0, "neighbours: the paper,\nMeta, GGUF, this package", va="center")
    ax.text(count - 0.3, 0.0, "halves:\nHugging Face", va="center")
    ax.text(count - 0.3, 1.5, f"order = {list(order)}", va="center", color="dimgrey", fontsize=11)
    ax.set(xlim=(-0.7, count + 2.6), ylim=(-1.5, 4.3))
    ax.set_axis_off()
    style.headline(figure, title)
    return figure


def draw_fingerprints(
    mistakes: Sequence[str],
    cosines: tuple[Sequence[str], Float[Tensor, "mistakes positions"]],
    errors: tuple[Sequence[str], Float[Tensor, "mistakes places"]],
    title: str,
) -> Figure:
    """A row for each mistake, dark where it shows: left in turned queries, right in the predictions.

    `cosines` and `errors`: the names of the columns, and the values.
    """
    figure, axes = plt.subplots(
        1, 2, figsize=(style.WIDTH, 0.9 + 0.52 * len(mistakes)), width_ratios=(3, 4), sharey=True
    )
    panels = (*cosines, 1 - cosines[1], 1.0), (*errors, errors[1], 1.5)
    names = (
        "Does a turned query point where\nit should? (cosine, 1: yes)",
        "How wrong is the prediction?\n(nats, 0: not at all)",
    )
    for ax, (columns, values, badness, worst), name in zip(axes, panels, names, strict=True):
        shade = (badness / worst).clamp(0, 1)
        ax.imshow(0.8 * shade.numpy(), cmap="Reds", vmin=0, vmax=1, aspect="auto")
        for row in range(len(mistakes)):
            for column in range(len(columns)):
                colour = "white" if shade[row, column] > 0.65 else "black"
                text = f"{values[row, column].item():.2f}"
                ax.text(column, row, text, ha="center", va="center", color=colour)
        ax.set_xticks(range(len(columns)), columns)
        ax.set_title(name, fontsize=11, fontweight="normal")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    axes[0].set_yticks(range(len(mistakes)), mistakes)
    axes[0].set_xlabel("position of the query")
    axes[1].set_xlabel("after which token of the text")
    style.headline(figure, title)
    return figure
