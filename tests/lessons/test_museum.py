"""Each exhibit's symptom is measured here as the notebook prints it, and the right cause is the one it names."""

import re

import pytest
import torch

import decoding_llama3 as dl
from decoding_llama3.lessons import museum
from decoding_llama3.lessons.exhibits import chat


@pytest.fixture(scope="module")
def tiny():
    return dl.load_model("tiny", dtype=torch.float32), dl.load_tokenizer("tiny")


@pytest.fixture
def shown(monkeypatch):
    found = []
    monkeypatch.setattr(museum, "display", lambda text: found.append(text.data))
    return found


def symptom(name, tiny):
    with torch.no_grad():
        return "\n".join(museum.EXHIBITS[name].symptom(*tiny))


def numbers(text):
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\.?\d*", text)]


@pytest.mark.parametrize("name", museum.EXHIBITS)
def test_a_visit_shows_symptom_causes_and_folds_the_answer(name, tiny, shown, capsys):
    exhibit = museum.EXHIBITS[name]
    wrong = next(letter for letter in "abc" if letter != exhibit.right)
    for diagnosis, words in ((None, "open"), (exhibit.right, "right"), (wrong, "no, look again")):
        museum.visit(name, *tiny, diagnosis)
        out = capsys.readouterr().out
        assert out.splitlines()[-1].endswith(words)
        assert all(f"{letter}) {cause}" in out for letter, cause in zip("abc", exhibit.causes, strict=True))
    assert shown[0].startswith("<details>")
    assert f"**{exhibit.right}.**" in shown[0]
    assert exhibit.fault.__name__ in shown[0]


def test_another_letter_raises(tiny):
    with pytest.raises(ValueError, match="found 'd'"):
        museum.visit("halves", *tiny, "d")


def test_a_visit_leaves_the_model_as_it_was(tiny, shown):
    model, _ = tiny
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    tokens = torch.tensor([[1, 2, 3]])
    logits = model(tokens)
    for name in museum.EXHIBITS:
        museum.visit(name, *tiny)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    torch.testing.assert_close(model(tokens), logits, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["norm_without_weight", "halves", "tiled", "exchanged"])
def test_the_loss_rises_and_nothing_fails(name, tiny):
    before, now = numbers(symptom(name, tiny).splitlines()[0])
    assert now > before + 0.1


def test_symptoms_are_those_of_the_faults(tiny):
    half = [numbers(line)[-1] for line in symptom("norm_in_half", tiny).splitlines()]
    assert half[0] == 1
    assert half[-1] == 0
    right, broken = symptom("norm_over_tokens", tiny).splitlines()
    assert numbers(right)[0] == 1
    assert numbers(broken)[0] == numbers(broken)[1] > 10
    assert symptom("norm_without_weight", tiny).endswith("agree: True")
    assert symptom("halves", tiny).endswith("are right: True; after the others: False")
    drift = [numbers(line)[-1] for line in symptom("scaling_forgotten", tiny).splitlines()[1:]]
    assert drift == sorted(drift)
    assert drift[-1] > 2 * drift[0]
    cosines = [numbers(line)[-1] for line in symptom("rounded_frequencies", tiny).splitlines()[1:]]
    assert cosines[0] == 1
    assert cosines[-1] < 0.9
    *_, right, broken = symptom("saturated", tiny).splitlines()
    assert numbers(broken)[1] > numbers(right)[1] + 10
    assert numbers(symptom("square_mask", tiny).splitlines()[-1]) == [9, 0]
    assert numbers(symptom("standing_still", tiny).splitlines()[-1]) == [5, 1]
    assert numbers(symptom("too_wide", tiny).splitlines()[0])[-1] > 100_000
    first = numbers(symptom("first_loss", tiny))
    assert first[0] > 2 * first[1]
    assert numbers(symptom("exchanged", tiny).splitlines()[1])[0] == 0
    assert "are right: True" in symptom("untied", tiny)
    before, after = numbers(symptom("untied", tiny).splitlines()[0])
    assert after - before == 4096 * 256


def test_a_chat_model_that_misses_the_end_of_its_answer_goes_on(smollm2):
    """With all stop ids the same model ends where the exhibit says that its answer ends."""
    model, tokenizer = dl.load_model(smollm2, dtype=torch.float32), dl.load_tokenizer(smollm2)
    answer, rest = symptom("never_stops", (model, tokenizer)).splitlines()
    prompt = tokenizer.encode_chat([{"role": "user", "content": chat.QUESTION}])
    right = list(dl.generate(model, prompt, chat.LIMIT, stop_ids=tokenizer.stop_ids))
    assert answer == f"{chat.QUESTION} {tokenizer.decode(right)}<|im_end|>"
    assert numbers(rest) == [chat.LIMIT, chat.LIMIT - len(right) - 1]
