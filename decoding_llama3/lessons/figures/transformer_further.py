"""Part 7 - the figures of 'Going further': compression, speed, heads: arrays in, a figure out."""

from collections.abc import Mapping, Sequence

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from decoding_llama3.lessons import style


def draw_bits(bits: Mapping[str, float], title: str) -> Figure:
    """Bars: bits per byte of the same unseen book for each way of predicting it; the last is the model."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.5 * len(bits) + 1.2))
    colours = [style.RESIDUAL] * (len(bits) - 1) + [style.MODEL_COLOURS["tiny"]]
    shown = ax.barh(list(bits), list(bits.values()), color=colours)
    ax.bar_label(shown, [f"{value:.2f}" for value in bits.values()], padding=4)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.1 * max(bits.values()))
    ax.set(xlabel="bits per byte of a book that none has seen (8: knowing nothing)")
    style.headline(figure, title)
    return figure


def draw_speed_ladder(rungs: Sequence[Mapping], title: str) -> Figure:
    """Dots: measured milliseconds per token of each way to decode, beside what the limits predict.

    `rungs` have "name", "measured_seconds", "predicted_seconds" and "bound_by".
    """
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.6 * len(rungs) + 1.4))
    for row, rung in enumerate(rungs):
        measured, predicted = 1e3 * rung["measured_seconds"], 1e3 * rung["predicted_seconds"]
        ax.plot([predicted, measured], [row, row], color=style.RESIDUAL, linewidth=2)
        ax.plot(predicted, row, "|", color=style.PREDICTION, markersize=18, markeredgewidth=2.5)
        ax.plot(measured, row, "o", color=style.PREDICTION, markersize=9)
        text = f"{measured:.3g} ms; limit {predicted:.3g}, by {rung['bound_by']}"
        ax.annotate(text, (measured, row), (10, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(rungs)), [rung["name"] for rung in rungs])
    ax.set_ylim(len(rungs) - 0.5, -0.5)
    ax.set_xscale("log")
    slowest = max(1e3 * rung["measured_seconds"] for rung in rungs)
    fastest = min(1e3 * rung["predicted_seconds"] for rung in rungs)
    ax.set_xlim(fastest / 2, 60 * slowest)  # room for the words
    ticks = [10.0**i for i in range(5) if fastest / 2 < 10**i < 3 * slowest]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set(xlabel="milliseconds per token, logarithmic (dot: measured; upright stroke: the limit)")
    style.headline(figure, title)
    return figure


def draw_heads_learned(
    rows: Sequence[Mapping[str, float]], span: tuple[float, float], fed: str, title: str
) -> Figure:
    """How well the best head of two kinds did its work after each step; `rows` as in tiny's learning.csv.

    The steps of `span`, in which the training text was another, are shaded and named by `fed`.
    """
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.4))
    steps = [row["step"] for row in rows]
    ax.axvspan(*span, color="#E6E6E6", linewidth=0)
    ax.text(span[0] - 0.01 * steps[-1], 1.1, fed, color="#5F5F5F", ha="right", va="top", fontsize=11)
    for kind, name, colour, height in (
        ("previous", "attends to the token before", style.VARIANTS[0], 0.93),
        ("induction", "finds what followed the previous occurrence", style.VARIANTS[2], 0.2),
    ):
        ax.plot(steps, [row[kind] for row in rows], color=colour)
        ax.text(0.98, height, name, color=colour, ha="right", transform=ax.transAxes)
    ax.set(ylim=(0, 1.12), xlabel="training step", ylabel="best head\n(attention weight)")
    style.headline(figure, title)
    return figure
