"""Each exhibit is measured, diagnosed and mended here as a reader does it in a notebook."""

import dataclasses
import functools
import re

import pytest
import torch

import decoding_llama3 as dl
from decoding_llama3.lessons import museum
from decoding_llama3.lessons.exhibits import chat

SMALL_WORDS = {"the", "and", "are", "not", "too", "its", "was", "were", "here", "where", "what", "well", "over"}


@pytest.fixture(scope="module")
def tiny():
    return dl.load_model("tiny", dtype=torch.float32), dl.load_tokenizer("tiny")


@pytest.fixture(scope="module")
def subjects(tiny, request):
    """The model that an exhibit needs: tiny, or one that chats."""

    @functools.cache
    def chatting():
        file = request.getfixturevalue("smollm2")
        return dl.load_model(file, dtype=torch.float32), dl.load_tokenizer(file)

    return lambda name: chatting() if name == "7.4" else tiny


def remembering(exhibit):
    """The exhibit, with its own two functions measured once: a visit measures both each time."""
    own = exhibit.fault, exhibit.healthy
    once = functools.cache(exhibit.symptom)

    def symptom(model, tokenizer, function):
        return (once if function in own else exhibit.symptom)(model, tokenizer, function)

    return dataclasses.replace(exhibit, symptom=symptom)


ALL = museum.EXHIBITS
REMEMBERING = {name: remembering(exhibit) for name, exhibit in museum.EXHIBITS.items()}


class Visit:
    """What a visit prints, displays and shows as a table."""

    def __init__(self, monkeypatch, capsys, subjects):
        monkeypatch.setattr(museum, "EXHIBITS", REMEMBERING)
        self.capsys, self.subjects = capsys, subjects
        monkeypatch.setattr(museum, "display", lambda text: self.displayed.append(text.data))
        monkeypatch.setattr(museum, "show_table", lambda rows, header: self.tables.append((header, rows)))

    def __call__(self, name, *arguments, **named):
        self.displayed, self.tables = [], []
        museum.visit(name, *self.subjects(name), *arguments, **named)
        self.out = self.capsys.readouterr().out
        return self.out


@pytest.fixture
def visit(monkeypatch, capsys, subjects):
    return Visit(monkeypatch, capsys, subjects)


def broken_rows(name, subjects):
    """What is measured of the broken function, by row."""
    exhibit = REMEMBERING[name]
    with torch.no_grad():
        return exhibit.symptom(*subjects(name), exhibit.fault).rows


def number(text):
    return float(re.sub(r"[,%]", "", text))


def wrong_letters(name):
    return [letter for letter in "abcd" if letter != museum.EXHIBITS[name].right]


def sentence(name, letter):
    return list(museum.EXHIBITS[name].causes.values())["abcd".index(letter)]


def test_exhibits_have_neutral_names_and_four_causes():
    expected = [
        "3.1",
        "3.2",
        "3.3",
        "4.1",
        "4.2",
        "4.3",
        "5.1",
        "5.2",
        "5.3",
        "6.1",
        "6.2",
        "7.1",
        "7.2",
        "7.3",
        "7.4",
    ]
    assert list(museum.EXHIBITS) == expected
    for exhibit in museum.EXHIBITS.values():
        assert len(exhibit.causes) == 4
        assert exhibit.right in "abcd"
    rights = "".join(exhibit.right for exhibit in museum.EXHIBITS.values())
    assert min(map(rights.count, "abcd")) >= 3  # no letter is the better guess


def words(text):
    return set(re.findall(r"[a-z_0-9]{3,}|%|//", text.lower())) - SMALL_WORDS


@pytest.mark.parametrize("name", museum.EXHIBITS)
def test_a_symptom_does_not_name_its_cause(name, subjects):
    exhibit = museum.EXHIBITS[name]
    rows = broken_rows(name, subjects)
    cause = list(exhibit.causes)["abcd".index(exhibit.right)]
    shown = words(" ".join([exhibit.setting, *rows, *rows.values()]))
    assert not words(cause) & shown


@pytest.mark.parametrize("name", museum.EXHIBITS)
def test_an_open_visit_shows_symptom_and_causes_and_no_answer(name, visit):
    exhibit = museum.EXHIBITS[name]
    for diagnosis in (None, "", " "):
        visit(name, diagnosis)
        assert visit.out.startswith(exhibit.setting)
        for letter, cause in zip("abcd", exhibit.causes, strict=True):
            assert f"{letter}) {cause}\n" in visit.out
        assert "Your diagnosis: open" in visit.out
        assert "shows the broken code" in visit.out
        assert not visit.displayed
        assert not any(why in visit.out for why in exhibit.causes.values())
        ((header, rows),) = visit.tables
        assert header == ["", "healthy", "broken"]
        assert any(healthy != broken for _, healthy, broken in rows)


@pytest.mark.parametrize("name", museum.EXHIBITS)
def test_a_wrong_cause_is_told_why_it_cannot_be(name, visit):
    exhibit = museum.EXHIBITS[name]
    for letter in wrong_letters(name):
        visit(name, letter)
        assert visit.out.endswith(f"Your diagnosis: {letter}, but it cannot be that. {sentence(name, letter)}\n")
        assert len(sentence(name, letter).split()) < 30
        assert sentence(name, exhibit.right) not in visit.out
        assert not visit.displayed


@pytest.mark.parametrize("name", museum.EXHIBITS)
def test_the_right_cause_shows_the_broken_function_and_how_to_mend_it(name, visit):
    exhibit = museum.EXHIBITS[name]
    for diagnosis in (exhibit.right, f" {exhibit.right.upper()} ", f"{exhibit.right})"):
        visit(name, diagnosis)
        assert f"Your diagnosis: {exhibit.right}, and that is the cause." in visit.out
        (text,) = visit.displayed
        assert text.startswith(sentence(name, exhibit.right))
        assert "<details>" not in text
        assert f"def {exhibit.fault.__name__}(" in text
        assert f'visit("{name}", ..., "{exhibit.right}", mended=my_function)' in text
        assert exhibit.task in text


@pytest.mark.parametrize("diagnosis", [3, "tiled", "e", "ab", ["a"], 0, float("nan"), torch.tensor(1), len])
def test_a_diagnosis_that_is_none_is_answered(diagnosis, visit):
    visit("5.1", diagnosis)
    assert visit.out.splitlines()[-1].endswith('A diagnosis is "a", "b", "c" or "d".')
    assert not visit.displayed


def test_an_exhibit_that_there_is_not_is_answered(visit):
    assert "choose one of 3.1, 3.2" in visit("tiled")
    assert "Every shape" in visit(5.1)


def test_a_model_without_the_fault_is_told_so(tiny, capsys):
    museum.visit("7.4", *tiny, "c")
    assert capsys.readouterr().out.endswith("nothing is to be seen: visit the exhibit with another one.\n")


def my_norm(x, weight, eps):
    x32 = x.float()
    return ((x32 / (x32.pow(2).mean(-1, keepdim=True) + eps).sqrt()) * weight).to(x.dtype)


def my_rows(weight, head_dim):
    heads = weight.view(-1, head_dim, weight.shape[1])
    return torch.stack(heads.chunk(2, dim=1), dim=2).reshape(weight.shape)


def my_scaled(config):
    return dl.scale_frequencies(dl.rope_frequencies(config.head_dim, config.rope_theta), config.rope_scaling)


def my_frequencies(head_dim, theta):
    return theta ** (-torch.arange(0, head_dim, 2) / head_dim)


def my_attend(q, k, v, mask):
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ v


def my_swiglu(x, w_gate, w_up, w_down):
    gate = w_gate(x)
    return w_down(gate * torch.sigmoid(gate) * w_up(x))


def my_width(hidden, multiple_of):
    while hidden % multiple_of:
        hidden += 1
    return hidden


def my_reader(model, tokens, start, caches):
    steps = range(tokens.shape[1])
    return torch.cat([model(tokens[:, [i]], torch.tensor([start + i]), caches) for i in steps], dim=1)


def my_weights(model):
    torch.nn.init.normal_(model.tok_embeddings.weight, std=0.02)


def my_loader(model, state):
    model.load_state_dict(state, assign=True)
    model.output.weight = model.tok_embeddings.weight


def my_answer(model, tokenizer, prompt):
    for token in dl.generate(model, prompt, 60):
        yield token
        if token in tokenizer.stop_ids:
            return


MENDED = dict.fromkeys(("3.1", "3.2", "3.3"), my_norm) | dict.fromkeys(("5.1", "5.2", "5.3"), my_attend)
MENDED |= {"4.1": my_rows, "4.2": my_scaled, "4.3": my_frequencies, "6.1": my_swiglu, "6.2": my_width}
MENDED |= {"7.1": my_reader, "7.2": my_weights, "7.3": my_loader, "7.4": my_answer}
IN_PLACE = ("7.2", "7.3")


@pytest.mark.parametrize("name", museum.EXHIBITS)
def test_a_mended_function_is_measured_beside_the_broken_one(name, visit):
    exhibit = museum.EXHIBITS[name]
    visit(name, exhibit.right, MENDED[name])
    assert visit.out.splitlines()[-1].startswith(f"The fault is gone: with your function {exhibit.result} agree")
    ((header, rows),) = visit.tables
    assert header == ["", "healthy", "broken", "yours"]
    if name not in ("7.2", "7.4"):  # other weights are drawn; the end of the answer may be written, too
        assert all(yours == healthy for _, healthy, _, yours in rows)
    visit(name, exhibit.right, mended=lambda *arguments: exhibit.fault(*arguments))
    assert visit.out.splitlines()[-1] == "The fault is still there: your function does what the broken one does."
    ((_, rows),) = visit.tables
    assert all(yours == broken for _, _, broken, yours in rows)


@pytest.mark.parametrize("name", museum.EXHIBITS)
def test_a_mended_function_that_raises_or_returns_nothing_is_answered(name, visit):
    exhibit = museum.EXHIBITS[name]

    def raises(*arguments):
        raise ArithmeticError("of mine")

    def prints_and_returns_nothing(*arguments):
        print("of mine")

    visit(name, exhibit.right, raises)
    last = visit.out.splitlines()[-1]
    assert last.startswith("Your function could not be measured: it stops in line")
    assert '`raise ArithmeticError("of mine")`: ArithmeticError: of mine.' in last
    ((header, _),) = visit.tables
    assert header == ["", "healthy", "broken"]
    visit(name, exhibit.right, prints_and_returns_nothing)
    last = visit.out.splitlines()[-1]
    assert last.startswith(
        "Not mended yet" if name in IN_PLACE else "Your function could not be measured: it returns None"
    )
    assert "of mine" not in visit.out


@pytest.mark.parametrize("name", [name for name in museum.EXHIBITS if name not in IN_PLACE])
def test_a_mended_function_that_returns_nonsense_is_answered(name, visit):
    for nonsense in ("seven", 7.5, torch.zeros(3)):
        visit(name, museum.EXHIBITS[name].right, lambda *_, value=nonsense: value)
        assert visit.out.splitlines()[-1].startswith("Your function could not be measured: ")


def test_what_is_passed_as_mended_is_answered(visit, monkeypatch):
    visit("5.1", "b", mended="my_attend")
    assert "could not be measured: it is 'my_attend', where a function was expected" in visit.out
    visit("5.1", "b", mended=lambda q, k: q)
    assert "it takes (q, k), but is called with (q, k, v, mask)" in visit.out
    for diagnosis in (None, "a", "x"):
        visit("5.1", diagnosis, mended=my_attend)
        assert visit.out.endswith("A mended function is tried once the cause is named.\n")
        assert len(visit.tables[0][0]) == 3
    monkeypatch.setattr(museum, "MINUTE", 0.2)

    def endless(hidden, multiple_of):
        while True:
            pass

    assert "it has not returned after 0 s" in visit("6.2", "c", endless)


def test_another_fault_in_the_place_of_the_first_is_seen(visit):
    """Each of these brings what the reader sees first back to nearly what it was."""
    others = {
        "3.1": lambda x, weight, eps: my_norm(x, torch.ones_like(weight), eps),
        "4.1": lambda weight, head_dim: my_rows(weight, head_dim).flip(0),
        "5.3": lambda q, k, v, mask: my_attend(q, k, v, torch.ones_like(mask)),
        "6.2": lambda hidden, multiple_of: multiple_of * (hidden // multiple_of + 1),
        "7.3": lambda model, state: None,
    }
    for name, function in others.items():
        visit(name, museum.EXHIBITS[name].right, function)
        assert visit.out.splitlines()[-1].startswith("Not mended yet: "), name


def test_weights_that_are_all_equal_are_answered(visit):
    visit("7.2", "b", lambda model: model.tok_embeddings.weight.zero_())
    assert "all its embeddings are equal" in visit.out


def test_a_visit_leaves_the_model_as_it_was(tiny, visit, monkeypatch):
    """Also where a mended function writes over the weights that it is given."""
    monkeypatch.setattr(museum, "EXHIBITS", ALL)
    model, _ = tiny
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    tokens = torch.tensor([[1, 2, 3]])
    logits, random_state = model(tokens), torch.get_rng_state()
    for name in museum.EXHIBITS:
        if name != "7.4":
            visit(name, museum.EXHIBITS[name].right, MENDED[name])
    visit("3.3", "a", lambda x, weight, eps: x * weight.zero_())
    visit("6.1", "b", lambda x, w_gate, w_up, w_down: w_down.weight.zero_() and x)
    visit("4.1", "b", lambda weight, head_dim: weight.zero_())
    visit("7.3", "d", lambda model, state: state["tok_embeddings.weight"].zero_())
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    torch.testing.assert_close(model(tokens), logits, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random_state)


def test_symptoms_are_those_of_the_faults(subjects):
    rows = {name: list(broken_rows(name, subjects).values()) for name in museum.EXHIBITS if name != "7.4"}
    for name, healthy in (("3.3", 3.2), ("4.1", 3.2), ("5.1", 3.2), ("5.2", 3.2), ("6.1", 3.2), ("7.2", 8.3)):
        assert number(rows[name][0]) > healthy + 0.5
    assert rows["3.1"] == ["1.0", "0.0", "0.0", "0.0"]
    assert rows["3.2"] == ["14", "14"]
    assert rows["3.3"][1] == "yes"
    assert rows["4.1"][1:] == ["yes", "0", "8"]
    drift = [number(text) for text in rows["4.2"]]
    assert drift == sorted(drift)
    assert drift[-1] > 2 * drift[0]
    cosines = [number(text) for text in rows["4.3"]]
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[-1] < 0.9
    assert rows["5.1"][1:] == ["no", "4"]
    assert number(rows["5.2"][1]) > 60
    assert rows["5.3"] == ["9", "0", "14", "yes"]
    assert rows["6.1"][1:3] == ["0", "no"]
    assert rows["6.2"][0] == "906,240"
    assert rows["7.1"] == ["9", "1"]
    before, after, right = map(number, rows["7.3"])
    assert (after - before, right) == (4096 * 256, 14)


def test_a_chat_model_that_misses_the_end_of_its_answer_goes_on(subjects):
    model, tokenizer = subjects("7.4")
    answer, n, more = broken_rows("7.4", subjects).values()
    prompt = tokenizer.encode_chat([{"role": "user", "content": chat.QUESTION}])
    right = list(dl.generate(model, prompt, chat.LIMIT, stop_ids=tokenizer.stop_ids))
    assert answer == f"{tokenizer.decode(right)}<|im_end|>"
    assert (int(n), int(more)) == (chat.LIMIT, chat.LIMIT - len(right) - 1)
