"""Figures with sliders, where ipywidgets is installed. A static figure nearby always says the same."""

import math
from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from decoding_llama3.lessons.show import show_figure


def explore(draw: Callable[..., Figure], alt: str, **choices: Sequence) -> int:
    """Show `draw(name=value, ...)` under a slider for each of `choices`, whose values it steps through.

    Returns how many pictures the sliders lead to.
    """
    try:
        import ipywidgets
    except ImportError:
        print("the sliders need ipywidgets: pip install ipywidgets, and run this cell again")
        return math.prod(map(len, choices.values()))

    def show(**values) -> None:
        show_figure(draw(**values), alt)

    sliders = {
        name: ipywidgets.SelectionSlider(options=list(values), continuous_update=False, description=name)
        for name, values in choices.items()
    }
    ipywidgets.interact(show, **sliders)
    return math.prod(map(len, choices.values()))
