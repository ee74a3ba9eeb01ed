"""The picture that opens every part: the whole model, drawn from its configuration, with one part lit.

`python -m decoding_llama3.lessons.figures.architecture PATH.png` draws tiny with every part in colour.
"""

import sys
from dataclasses import dataclass

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from decoding_llama3.config import LlamaConfig
from decoding_llama3.lessons import style

PARTS = ("tokenizer", "config", "norm", "rope", "attention", "feed_forward", "transformer")
_NUMBERS = {"tokenizer": 1, "norm": 3, "rope": 4, "attention": 5, "feed_forward": 6, "transformer": 7}
_INK = "#5F5F5F"
_COLOURS = {
    "tokenizer": style.NEUTRAL,
    "norm": style.NORM,
    "rope": style.ROPE,
    "attention": style.QUERY,
    "feed_forward": style.FEED_FORWARD,
    "transformer": style.PREDICTION,
}
_LINE, _BRANCH = 0.9, 2.0  # heights of the residual stream and of what reads from it


@dataclass(frozen=True)
class _Box:
    part: str
    title: str
    shape: str
    x: float
    y: float
    width: float
    height: float = 0.84


def draw(config: LlamaConfig, lit: str | None = None) -> Figure:
    """The model from text to next word; `lit` is one of `PARTS`, or None for all in colour. Raises ValueError."""
    if lit is not None and lit not in PARTS:
        raise ValueError(f"lit is one of {', '.join(PARTS)}, or None, found {lit!r}")
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.9))
    ax.set(xlim=(-0.15, 18.1), ylim=(-0.05, 4.5))
    ax.axis("off")
    _draw_stream(ax, config, lit)
    for box in _boxes(config):
        _draw_box(ax, box, lit)
    return figure


def _boxes(config: LlamaConfig) -> list[_Box]:
    c = config
    return [
        _Box("tokenizer", "tokens", f"{c.vocab_size:,} ids", -0.1, _LINE - 0.42, 2.0),
        _Box("transformer", "embedding", f"{c.vocab_size:,} rows", 2.2, _LINE - 0.42, 2.15),
        _Box("norm", "norm", f"{c.dim:,}", 5.1, _BRANCH, 1.1),
        _Box("attention", "attention", f"{c.n_heads} q, {c.n_kv_heads} kv heads", 6.45, _BRANCH, 2.85),
        _Box("rope", "RoPE", "turns q, k", 5.85, _BRANCH + 1.2, 1.8),
        _Box("attention", "KV cache", f"{c.n_kv_heads} x {c.head_dim}", 7.85, _BRANCH + 1.2, 1.9),
        _Box("norm", "norm", f"{c.dim:,}", 10.25, _BRANCH, 1.1),
        _Box("feed_forward", "feed-forward", f"{c.dim:,} to {c.hidden_dim:,}", 11.55, _BRANCH, 2.6),
        _Box("norm", "norm", f"{c.dim:,}", 15.0, _LINE - 0.42, 1.1),
        _Box("transformer", "output", f"{c.vocab_size:,}", 16.4, _LINE - 0.42, 1.6),
    ]


def _draw_stream(ax: Axes, config: LlamaConfig, lit: str | None) -> None:
    ax.plot((4.35, 15.0), (_LINE, _LINE), color=style.RESIDUAL, linewidth=7, solid_capstyle="butt", zorder=1)
    note = f"residual stream: {config.dim:,} numbers per token"
    ax.text(9.7, _LINE - 0.25, note, color=_INK, ha="center", va="top", fontsize=11)
    ax.text(0.92, _LINE + 0.62, '"Once upon"', ha="center", fontsize=12)
    ax.text(17.2, _LINE + 0.62, '" a"', ha="center", fontsize=12)
    weight = "bold" if lit == "config" else "normal"
    ax.text(-0.1, 4.25, "part 2 sets\nevery number", va="top", color=_INK, fontsize=11, fontweight=weight)
    _arrow(ax, (1.9, _LINE), (2.2, _LINE))
    _arrow(ax, (16.1, _LINE), (16.4, _LINE))
    middle = _BRANCH + 0.42
    for leave, norm, part, end in ((4.8, 5.1, 6.45, 9.3), (9.95, 10.25, 11.55, 14.15)):
        _arrow(ax, (leave, _LINE), (leave, middle), head=False)
        _arrow(ax, (leave, middle), (norm, middle))
        _arrow(ax, (norm + 1.1, middle), (part, middle))
        _arrow(ax, (end, middle), (end + 0.3, middle), head=False)
        _arrow(ax, (end + 0.3, middle), (end + 0.3, _LINE + 0.24))
        circle = {"boxstyle": "circle,pad=0.1", "facecolor": style.RESIDUAL, "edgecolor": "white"}
        ax.text(
            end + 0.3, _LINE, "+", ha="center", va="center", weight="bold", color="white", bbox=circle, zorder=4
        )
    for x in (7.35, 8.75):
        _arrow(ax, (x, _BRANCH + 1.2), (x, _BRANCH + 0.84))
    colour = _colour("transformer", lit)
    look = {
        "boxstyle": "round,pad=0,rounding_size=0.15",
        "fill": False,
        "linestyle": (0, (4, 3)),
        "linewidth": 1.6,
    }
    ax.add_patch(FancyBboxPatch((4.5, 0.1), 10.2, 4.35, edgecolor=colour, **look))
    ax.text(14.5, 4.25, f"{config.n_layers} such blocks", ha="right", va="top", color=colour, fontweight="bold")


def _draw_box(ax: Axes, box: _Box, lit: str | None) -> None:
    colour = _colour(box.part, lit)
    ax.add_patch(
        FancyBboxPatch(
            (box.x, box.y),
            box.width,
            box.height,
            boxstyle="round,pad=0,rounding_size=0.12",
            facecolor=colour,
            edgecolor="none",
            zorder=3,
        )
    )
    x, y = box.x + box.width / 2, box.y + box.height / 2
    ink = "white" if _is_lit(box.part, lit) and box.part != "rope" else "black"
    ax.text(
        x, y + 0.17, box.title, ha="center", va="center", color=ink, fontsize=11.5, fontweight="bold", zorder=5
    )
    ax.text(x, y - 0.19, box.shape, ha="center", va="center", color=ink, fontsize=11, zorder=5)
    above = box.y > _BRANCH
    y, align = (box.y + box.height + 0.03, "bottom") if above else (box.y - 0.05, "top")
    number = 2 if box.title == "embedding" else _NUMBERS[box.part]  # Part 7 lights it, Part 2 teaches it
    ax.text(box.x + 0.03, y, f"part {number}", ha="left", va=align, color=_INK, fontsize=11)


def _is_lit(part: str, lit: str | None) -> bool:
    return lit in (None, "config", part)


def _colour(part: str, lit: str | None) -> tuple[float, float, float]:
    full = to_rgb(_COLOURS[part])
    if _is_lit(part, lit):
        return full
    red, green, blue = (0.12 * channel + 0.88 * 0.93 for channel in full)
    return red, green, blue


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], head: bool = True) -> None:
    look = "-|>" if head else "-"
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle=look,
            mutation_scale=11,
            color=_INK,
            linewidth=1.4,
            shrinkA=0,
            shrinkB=0,
            zorder=2,
        )
    )


if __name__ == "__main__":
    style.use_style()
    draw(LlamaConfig.from_preset("tiny")).savefig(sys.argv[1], dpi=200)
