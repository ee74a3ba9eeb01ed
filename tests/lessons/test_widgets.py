import sys

import pytest
from matplotlib import pyplot as plt

from decoding_llama3.lessons import widgets


@pytest.fixture
def drawn(monkeypatch):
    """The values of each picture that was drawn, and the function that the sliders call."""
    values, alts = [], []
    monkeypatch.setattr(widgets, "show_figure", lambda figure, alt: (alts.append(alt), plt.close(figure)))

    def draw(block, head):
        values.append((block, head))
        return plt.figure()

    return draw, values, alts


def test_sliders_step_through_the_choices_and_redraw(drawn, monkeypatch):
    draw, values, alts = drawn
    made = {}
    monkeypatch.setattr(
        "ipywidgets.interact", lambda show, **sliders: made.update(sliders) or show(block=2, head=5)
    )
    assert widgets.explore(draw, "A map.", block=range(3), head=[1, 5]) == 6
    assert values == [(2, 5)]
    assert alts == ["A map."]
    assert list(made["block"].options) == [0, 1, 2]
    assert list(made["head"].options) == [1, 5]


def test_without_ipywidgets_a_sentence_says_what_to_install(drawn, monkeypatch, capsys):
    draw, values, _ = drawn
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert widgets.explore(draw, "A map.", block=range(3), head=[1, 5]) == 6
    assert "pip install ipywidgets" in capsys.readouterr().out
    assert not values
