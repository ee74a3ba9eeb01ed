"""Part 6 - the figures of the feed-forward network: arrays in, a figure out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation
from torch import Tensor

from decoding_llama3.lessons import style
from decoding_llama3.lessons.fonts import drawable

PLAIN = {"fontsize": 12, "fontweight": "normal"}


@dataclass(frozen=True)
class Passage:
    """One token on its way through a feed-forward network, with the letters of the formula."""

    x: Float[Tensor, " dim"]
    g: Float[Tensor, " hidden"]  # what the gate reads
    u: Float[Tensor, " hidden"]  # the value branch
    h: Float[Tensor, " hidden"]  # their product, silu(g) u
    y: Float[Tensor, " dim"]  # what is written

    @property
    def gate(self) -> Float[Tensor, " hidden"]:
        """silu(g)."""
        return F.silu(self.g)


def draw_passage(passage: Passage, lit: Sequence[int], says: Sequence[str], title: str) -> Figure:
    """A token's numbers as squares: x, gate and value branch, their product, and what is written.

    `lit` are the hidden features that are marked, the strongest first; `says` is a line on each of the first.
    """
    figure = plt.figure(figsize=(style.WIDTH, 5.6), layout="none")
    places = {
        "x": (0.01, 0.34, 0.15, 0.24),
        "gate": (0.235, 0.49, 0.26, 0.35),
        "u": (0.235, 0.05, 0.26, 0.35),
        "h": (0.565, 0.49, 0.26, 0.35),
        "y": (0.88, 0.56, 0.11, 0.19),
    }
    names = {
        "x": "x",
        "gate": "gate, silu(g)",
        "u": "value branch, u",
        "h": "product, h",
        "y": "y",
    }
    panels = {name: figure.add_axes(place, label=name) for name, place in places.items()}
    for name, ax in panels.items():
        values = getattr(passage, name)
        _draw_squares(ax, values)
        ax.set_title(f"{names[name]}: {len(values):,}", fontsize=11, fontweight="normal", loc="center")
        ax.set_xlabel(f"darkest: {values.abs().max():.1f}", fontsize=10, color="dimgrey", labelpad=3)
    _mark(panels["h"], lit, len(says), _columns(len(passage.h)))
    _draw_arrows(figure)
    for line, text in enumerate(says):
        figure.text(0.565, 0.40 - 0.068 * line, drawable(text), color=style.MARKED, fontsize=12, va="top")
    note = "Where a square stands has no meaning."
    figure.text(0.565, 0.40 - 0.068 * len(says), note, color="dimgrey", fontsize=11, va="top")
    style.headline(figure, title)
    return figure


def _mark(ax: Axes, lit: Sequence[int], numbered: int, columns: int) -> None:
    """A frame around each lit feature, and beside the first of them its number."""
    for i, feature in enumerate(lit):
        row, column = divmod(feature, columns)
        ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=style.MARKED, linewidth=1.6))
        if i < numbered:
            side = -1 if column > columns / 2 else 1
            at = {"va": "center", "ha": "left" if side > 0 else "right", "fontsize": 10, "color": style.MARKED}
            ax.text(column + 0.8 * side, row, f"{feature:,}", **at)


def _draw_arrows(figure: Figure) -> None:
    """Which block of squares is made of which, and by which matrix."""
    for start, end, label, at in (
        ((0.165, 0.50), (0.23, 0.66), "$W_{gate}$", (0.18, 0.64)),
        ((0.165, 0.42), (0.23, 0.24), "$W_{up}$", (0.18, 0.27)),
        ((0.50, 0.66), (0.56, 0.66), "", (0, 0)),
        ((0.50, 0.26), (0.56, 0.56), "×", (0.535, 0.6)),
        ((0.83, 0.655), (0.875, 0.655), "$W_{down}$", (0.853, 0.70)),
    ):
        arrow = {"arrowstyle": "->", "color": "dimgrey", "linewidth": 1.5}
        figure.add_artist(Annotation("", end, start, xycoords="figure fraction", arrowprops=arrow))
        figure.text(*at, label, ha="center", color="dimgrey", fontsize=18 if label == "×" else 12)


def _columns(count: int) -> int:
    return math.ceil(math.sqrt(count * 4 / 3)) if count > 400 else math.ceil(math.sqrt(count))


def _draw_squares(ax: Axes, values: Float[Tensor, " values"]) -> None:
    """Numbers as a block of squares, row by row: red above zero, blue below, white at zero."""
    columns = _columns(len(values))
    padded = F.pad(values, (0, -len(values) % columns), value=float("nan")).view(-1, columns)
    limit = values.abs().max().item() or 1.0
    ax.imshow(padded.numpy(), cmap=style.DIVERGING, vmin=-limit, vmax=limit, aspect="auto")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color("lightgrey")


def draw_hinges(
    x: Float[Tensor, " points"], curves: Mapping[str, Float[Tensor, " points"]], within: float, title: str
) -> Figure:
    """x times x, and what sums of ReLUs and of gated features make of it; they were fitted where it is shaded."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.8))
    ax.axvspan(-within, within, color="lightgrey", alpha=0.35, linewidth=0)
    ax.text(0, 0.97, "fitted here", color="dimgrey", ha="center", va="top", transform=ax.get_xaxis_transform())
    ax.plot(x, x * x, color="black", linewidth=5, alpha=0.25)
    looks = ((style.WRONG, "-"), (style.GATE, "--"))
    for (name, values), (colour, dash) in style.with_looks(curves.items(), looks):
        ax.plot(x, values, dash, color=colour, linewidth=2)
        ax.annotate(
            name,
            (x[-1], values[-1]),
            xytext=(6, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            annotation_clip=False,
        )
    ax.set(xlabel="x", ylabel="x times x (wide grey line)", xlim=(x[0], x[-1]))
    style.headline(figure, title)
    return figure


def draw_row_product(
    x: Float[Tensor, " dim"], row: Float[Tensor, " dim"], names: tuple[str, str, str], title: str
) -> Figure:
    """A token, one row of a matrix, and their products feature by feature, whose sum is one hidden number."""
    figure, axes = plt.subplots(3, 1, figsize=(style.WIDTH, 4.8), sharex=True)
    for ax, values, colour, name in zip(
        axes, (x, row, x * row), (style.NORM, "black", style.FEED_FORWARD), names, strict=True
    ):
        ax.bar(range(len(values)), values.tolist(), width=1.0, color=colour)
        ax.axhline(0, color="black", linewidth=0.6)
        ax.set_title(name, **PLAIN)
        ax.set_xlim(-1, len(values))
    axes[-1].set_xlabel("feature of the token")
    style.headline(figure, title)
    return figure


def draw_silu(g: Float[Tensor, " hidden"], title: str, within: float = 6.0) -> Figure:
    """The curve of SiLU with ReLU beside it; for each of a token's gates a dot on it, and a tick below."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.8))
    z = torch.linspace(-within, within, 4001)
    ax.plot(z, F.relu(z), "--", color=style.RESIDUAL, linewidth=1.5)
    ax.plot(z, F.silu(z), color=style.GATE, linewidth=1.5)
    shown = g[g.abs() <= within]
    ax.plot(shown, F.silu(shown), "o", color=style.GATE, markersize=5, alpha=0.25, markeredgewidth=0)
    ax.plot(shown, torch.full_like(shown, -0.8), "|", color=style.GATE, markersize=9, alpha=0.4)
    ax.text(within * 0.72, within * 0.58, "SiLU", color=style.GATE)
    ax.text(within * 0.5, within * 0.66, "ReLU", color="dimgrey")
    ax.axhline(0, color="lightgrey", linewidth=1, zorder=0)
    ax.axvline(0, color="lightgrey", linewidth=1, zorder=0)
    low = z[F.silu(z).argmin()]
    said, line = f"{F.silu(low):.3f} at {low:.2f}", {"arrowstyle": "-", "color": "dimgrey"}
    ax.annotate(said, (low, F.silu(low)), xytext=(low - 1.6, 1.4), ha="center", arrowprops=line)
    ax.set(xlabel="what the gate reads, g", ylabel="the gate, silu(g)")
    style.headline(figure, title)
    return figure


def draw_toy_gate(g: Float[Tensor, " features"], u: Float[Tensor, " features"], title: str) -> Figure:
    """A few hidden features: what the gate reads, the gate, the value, the product; each bar says its value."""
    figure, axes = plt.subplots(1, 4, figsize=(style.WIDTH, 3.2), sharey=True)
    gate = F.silu(g)
    parts = {
        "the gate reads, g": (g, style.RESIDUAL),
        "the gate, silu(g)": (gate, style.GATE),
        "the value, u": (u, style.NEUTRAL),
        "the product, h": (gate * u, style.FEED_FORWARD),
    }
    for ax, (name, (values, colour)) in zip(axes, parts.items(), strict=True):
        shown = ax.bar(range(len(values)), values.tolist(), color=colour, width=0.6)
        ax.bar_label(shown, [f"{value:.4g}" for value in values.numpy().round(2).tolist()], padding=2)
        ax.axhline(0, color="black", linewidth=0.8)
        ax.set_xticks(range(len(values)))
        ax.set_yticks([])
        ax.set_title(name, **PLAIN)
        ax.margins(y=0.12)
    figure.supxlabel("hidden feature", fontsize=12)
    style.headline(figure, title)
    return figure


MACHINE = {  # where each stage stands: across, upwards, and its colour
    "x": (0.0, 0.0, style.NORM),
    "g": (1.6, 1.3, style.RESIDUAL),
    "silu(g)": (2.9, 1.3, style.GATE),
    "u": (2.25, -1.3, style.NEUTRAL),
    "h": (4.4, 0.0, style.FEED_FORWARD),
    "y": (6.0, 0.0, "black"),
}


def draw_machine(stages: Mapping[str, Sequence[float]], title: str) -> Figure:
    """A handful of numbers on their way from left to right, on two tracks between x and h as in the formula."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.4))
    for name, values in stages.items():
        across, upwards, colour = MACHINE[name]
        half = len(values) / 2
        ax.text(across, upwards + 0.55 * half + 0.12, name, ha="center", va="bottom", fontsize=12)
        for row, value in enumerate(values):
            y = upwards + 0.55 * (half - 0.5 - row)
            corner = (across - 0.4, y - 0.25)
            ax.add_patch(Rectangle(corner, 0.8, 0.5, facecolor=colour, alpha=0.25, linewidth=0))
            ax.text(across, y, f"{value:.4g}", ha="center", va="center", fontsize=14)
    for start, end, label, at in (
        ((0.45, 0.3), (1.15, 1.2), "$W_{gate}$", (0.6, 1.0)),
        ((0.45, -0.3), (1.8, -1.3), "$W_{up}$", (0.9, -1.15)),
        ((2.05, 1.3), (2.45, 1.3), "", (0, 0)),
        ((3.35, 1.2), (3.95, 0.3), "", (0, 0)),
        ((2.7, -1.3), (3.95, -0.3), "×", (3.5, 0.0)),
        ((4.85, 0.0), (5.55, 0.0), "$W_{down}$", (5.2, 0.3)),
    ):
        ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "dimgrey", "linewidth": 1.5})
        ax.text(*at, label, ha="center", va="center", color="dimgrey", fontsize=20 if label == "×" else 13)
    ax.set(xlim=(-0.5, 6.5), ylim=(-2.0, 2.4))
    ax.set_axis_off()
    style.headline(figure, title)
    return figure


def draw_paired(
    gate: Float[Tensor, " hidden"], u: Float[Tensor, " hidden"], lit: Sequence[int], title: str
) -> Figure:
    """A dot for each hidden feature by its gate and its value; the strongest products are marked and numbered."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.4))
    ax.plot(gate, u, "o", color=style.FEED_FORWARD, alpha=0.45, markersize=5, markeredgewidth=0)
    marked = torch.as_tensor(list(lit))
    ax.plot(gate[marked], u[marked], "o", color=style.MARKED, markersize=8)
    for feature in list(lit)[:6]:
        side = -1 if gate[feature] > 0.75 * gate.max() else 1
        ax.annotate(
            f"{feature:,}: {gate[feature] * u[feature]:.1f}",
            (gate[feature], u[feature]),
            xytext=(8 * side, 0),
            textcoords="offset points",
            va="center",
            ha="left" if side > 0 else "right",
            color=style.MARKED,
        )
    ax.axhline(0, color="lightgrey", linewidth=1, zorder=0)
    ax.axvline(0, color="lightgrey", linewidth=1, zorder=0)
    ax.margins(x=0.08, y=0.1)
    ax.set(xlabel="the gate, silu(g)", ylabel="the value, u")
    style.headline(figure, title)
    return figure


def draw_alone(moved: Mapping[str, Float[Tensor, "results changed"]], words: Sequence[str], title: str) -> Figure:
    """How far each result moves, a row each, when one token is changed, a column each; a panel per part."""
    figure, axes = plt.subplots(1, len(moved), figsize=(style.WIDTH, 5.0), layout="compressed")
    for ax, (name, values) in zip(axes, moved.items(), strict=True):
        root = (values / values.max()).sqrt()  # so that a small movement can be seen
        ax.imshow(root.numpy(), cmap="Greys", vmin=0, vmax=1)
        ax.set_title(name, **PLAIN)
        labels = [drawable(word) for word in words]
        ax.set_xticks(range(len(words)), labels, rotation=90)
        ax.set_yticks(range(len(words)), labels if ax is axes[0] else [""] * len(words))
        ax.set_xlabel("this token is changed")
    axes[0].set_ylabel("the result of this one moves")
    bar = figure.colorbar(axes[0].images[0], ax=axes, shrink=0.6, ticks=[0, 1])
    bar.ax.set_yticklabels(["not at all", "most"])
    style.headline(figure, title)
    return figure


def draw_gate_curves(
    z: Float[Tensor, " points"], curves: Mapping[str, Float[Tensor, " points"]], title: str
) -> Figure:
    """What makes the gate of what it reads, a small panel for each curve; that of Llama in the gate's colour."""
    figure, axes = plt.subplots(1, len(curves), figsize=(style.WIDTH, 2.6), sharey=True)
    for ax, (name, values) in zip(axes, curves.items(), strict=True):
        ax.axhline(0, color="lightgrey", linewidth=1, zorder=0)
        ax.axvline(0, color="lightgrey", linewidth=1, zorder=0)
        ax.plot(z, values, color=style.GATE if name.startswith("SwiGLU") else "dimgrey")
        ax.set_title(name, **PLAIN | {"fontsize": 11})
        ax.set_xlabel("g")
    axes[0].set_ylabel("the gate")
    style.headline(figure, title)
    return figure
