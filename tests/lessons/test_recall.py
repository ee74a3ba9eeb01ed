import itertools

import pytest

from decoding_llama3.lessons import recall


@pytest.fixture
def shown(monkeypatch):
    lines = []
    monkeypatch.setattr(recall, "display", lambda text: lines.extend(text.data.splitlines()))
    return lines


def test_every_part_asks_three_questions_with_three_different_options():
    assert list(recall.QUESTIONS) == [
        "tokenizer",
        "config",
        "norm",
        "rope",
        "attention",
        "feed_forward",
        "transformer",
    ]
    for question in itertools.chain.from_iterable(recall.QUESTIONS.values()):
        assert len(set(question.options)) == 3
        assert question.right in "abc"


def test_the_right_letter_is_not_always_the_same():
    letters = [[question.right for question in asked] for asked in recall.QUESTIONS.values()]
    assert all(len(set(found)) >= 2 for found in letters)


@pytest.mark.parametrize("stem", recall.QUESTIONS)
def test_answers_are_marked_one_by_one(stem, shown):
    questions = recall.QUESTIONS[stem]
    first, second, _ = questions
    wrong = next(letter for letter in "abc" if letter != second.right)
    recall.ask(stem, [first.right, wrong, None])
    assert shown[0].endswith(f"*Right: {first.why}.*")
    assert shown[1].endswith(f"*No: {second.why}.*")
    assert shown[2].endswith("*(open)*")
    assert not any("?:" in line for line in shown)
    assert all(text in line for line, question in zip(shown, questions, strict=True) for text in question.options)


@pytest.mark.parametrize(("answers", "words"), [(["a"], "3 questions, found 1"), (["d", None, None], "found 'd'")])
def test_other_answers_raise(answers, words):
    with pytest.raises(ValueError, match=words):
        recall.ask("norm", answers)
