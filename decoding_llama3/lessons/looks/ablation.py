"""The ablation lab - what is shown of it in Parts 3 to 7."""

from collections.abc import Mapping

from decoding_llama3.experiments import ablation
from decoding_llama3.experiments.ablation.statistics import Difference
from decoding_llama3.lessons.figures import ablation as figures
from decoding_llama3.lessons.show import show_figure, show_table


def race(group: str, title: str, **labels: str) -> Mapping[str, Difference]:
    """The kept trainings of a group: each variant's loss against Llama 3's, with the interval of the difference.

    In `title` the names of variants in braces stand for their mean difference. Returns the differences.
    """
    differences = ablation.verdict(group)
    rows = [
        [name, f"{d.mean:+.3f}", f"{d.interval[0]:+.3f} to {d.interval[1]:+.3f}", f"{d.seeds}", SHOWN[d.verdict]]
        for name, d in differences.items()
    ]
    show_table(rows, ["variant", "loss, difference", "its 95 % interval", "seeds", "what is shown"])
    title = title.format(**{name: f"{d.mean:+.2f}" for name, d in differences.items()})
    alt = "Left, falling lines with bands: the held-out loss by step for each variant. Right, the last losses."
    show_figure(figures.draw_curves(ablation.read_curves(group), title, labels=labels), alt)
    return differences


SHOWN = {"higher": "it ends higher", "lower": "it ends lower", "none": "nothing"}
