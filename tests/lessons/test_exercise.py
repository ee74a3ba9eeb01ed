"""Every check is proven: on its solution, on known mistakes, and on answers written by who saw the task alone."""

import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest
import torch

from decoding_llama3.lessons import checks
from decoding_llama3.lessons.exercise import Exercise
from decoding_llama3.lessons.practice import graded, outcome
from decoding_llama3.lessons.practice.graded import Graded, find_solutions
from decoding_llama3.lessons.practice.research import Research
from decoding_llama3.lessons.practice.same_as import SameAs
from decoding_llama3.lessons.practice.variants import edited

STEMS = ("tokenizer", "config", "norm", "rope", "attention", "feed_forward", "transformer")
NAMED = 0.8  # of the wrong answers, at least, are told what the mistake is


def exercises_of(stem: str) -> dict[str, Exercise | Research]:
    module = importlib.import_module(f"{checks.__name__}.{stem}")
    return {name: value for name, value in vars(module).items() if isinstance(value, (Exercise, Research))}


def check_of(exercise: Exercise) -> SameAs:
    check = exercise.check
    if isinstance(check, Graded):
        check = find_solutions(check.part).CHECKS[check.name]
    return check


ALL = {f"{stem}.{name}": found for stem in STEMS for name, found in exercises_of(stem).items()}
WRITTEN = {name: exercise for name, exercise in ALL.items() if isinstance(exercise, Exercise)}
KNOWN = [(name, sentence) for name, exercise in WRITTEN.items() for sentence in check_of(exercise).known]


def answers(part: int) -> dict[str, object]:
    """Functions by names such as attend_wrong_no_scale and attend_right_loops."""
    path = Path(__file__).parent / "answers" / f"part{part}.py"
    spec = importlib.util.spec_from_file_location(f"answers_to_part_{part}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: value for name, value in vars(module).items() if "_wrong_" in name or "_right_" in name}


ANSWERS = [(part, name, answer) for part in range(1, 8) for name, answer in answers(part).items()]
WRONG = [found for found in ANSWERS if "_wrong_" in found[1]]
RIGHT = [found for found in ANSWERS if "_right_" in found[1]]


def exercise_for(part: int, name: str) -> Exercise:
    return exercises_of(STEMS[part - 1])[re.split("_wrong_|_right_", name)[0]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """An endless answer is interrupted early, and no gradient is recorded, as in the notebooks."""
    monkeypatch.setattr(outcome, "SECONDS", 1.0)
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    yield
    torch.set_grad_enabled(before)


def test_each_part_has_five_exercises_of_which_two_are_graded():
    for stem in STEMS:
        found = exercises_of(stem)
        assert len(found) == 5, stem
        assert sum(isinstance(one, Research) or one.graded for one in found.values()) >= 2, stem
        assert any(isinstance(one, Research) for one in found.values()) == (stem not in ("tokenizer", "config")), (
            stem
        )


@pytest.mark.parametrize("name", WRITTEN)
def test_the_solution_passes_and_the_stub_is_open(name):
    exercise = WRITTEN[name]
    assert exercise.mark(exercise.solution).feedback == "right"
    assert exercise.mark(lambda *arguments: None).state == "open"


@pytest.mark.parametrize(
    "answer", [None, "A", 3, [], torch.zeros(2), int], ids=lambda answer: type(answer).__name__
)
@pytest.mark.parametrize("name", WRITTEN)
def test_whatever_is_handed_in_is_answered(name, answer):
    verdict = WRITTEN[name].mark(answer)
    assert verdict.state == "wrong"
    assert "\n" not in verdict.feedback.split("The smallest")[0].strip()


@pytest.mark.parametrize(("name", "sentence"), KNOWN)
def test_a_known_mistake_is_told_in_its_sentence(name, sentence):
    exercise = WRITTEN[name]
    check = check_of(exercise)
    known = check.known[sentence]
    verdict = exercise.mark(known if callable(known) else check.adapt(edited(check.right, *known)))
    assert (verdict.state, verdict.named) == ("wrong", True)
    assert sentence in verdict.feedback


@pytest.mark.parametrize("name", WRITTEN)
def test_each_exercise_knows_at_least_eight_mistakes(name):
    assert len(check_of(WRITTEN[name]).known) >= 8


@pytest.mark.parametrize(("part", "name", "answer"), RIGHT, ids=[name for _, name, _ in RIGHT])
def test_a_right_answer_in_other_words_is_right(part, name, answer):
    assert exercise_for(part, name).mark(answer).feedback == "right"


@pytest.mark.long
@pytest.mark.parametrize(("part", "name", "answer"), WRONG, ids=[name for _, name, _ in WRONG])
def test_a_wrong_answer_is_not_right(part, name, answer):
    verdict = exercise_for(part, name).mark(answer)
    assert verdict.state in ("wrong", "open")
    TOLD[name] = verdict.named


TOLD: dict[str, bool] = {}


@pytest.mark.long
def test_most_wrong_answers_are_told_their_mistake():
    """After the tests above, in this process."""
    if TOLD:
        assert sum(TOLD.values()) / len(TOLD) >= NAMED, sorted(name for name, named in TOLD.items() if not named)


@pytest.mark.parametrize("name", WRITTEN)
def test_an_error_comes_with_the_line_of_the_answer(name):
    def answer(*arguments):
        return {}["something of mine"]

    verdict = WRITTEN[name].mark(answer)
    line = inspect.getsourcelines(answer)[1] + 1
    assert verdict.state == "wrong"
    assert f"line {line}, `" in verdict.feedback


@pytest.mark.parametrize(
    "name", [name for name, exercise in WRITTEN.items() if isinstance(exercise.check, Graded)]
)
def test_without_the_solutions_a_graded_answer_is_handed_in(name, monkeypatch):
    exercise = WRITTEN[name]
    monkeypatch.setattr(graded, "find_solutions", lambda part: None)
    assert exercise.mark(exercise.solution).state == "handed in"
    assert exercise.mark(lambda *arguments: None).state == "open"
    assert exercise.mark(lambda: 1).state == "wrong"
    assert exercise.mark(3).state == "wrong"


def test_the_smallest_example_shows_both_results():
    def my_attend(q, k, v, mask):
        repeated = [x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v)]
        scores = q @ repeated[0].mT
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril() if mask is None else mask
        return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ repeated[1]

    feedback = ALL["attention.attend"].mark(my_attend).feedback
    assert "the scores are not scaled" in feedback
    shown = dict(re.findall(r"^  (yours|expected) .*\[(.*)\]$", feedback, re.MULTILINE))
    assert shown.keys() == {"yours", "expected"}
    assert shown["yours"] != shown["expected"]


def test_the_answer_to_a_number_is_never_shown():
    exercise = ALL["config.n_params"]
    for answer in (lambda config: 1, lambda config: config.n_params + 1, lambda config: float(config.n_params)):
        feedback = exercise.mark(answer).feedback
        assert "expected " not in feedback.replace("was expected", "")


def test_a_changed_argument_is_refused_where_others_need_it():
    def my_rms_norm(x, weight, eps):
        size = x.float().square().mean(-1, keepdim=True).add(eps).rsqrt()
        x.copy_(x.float() * size)
        return x * weight

    assert "changes its argument x" in ALL["norm.rms_norm"].mark(my_rms_norm).feedback


RESEARCH = {name: exercise for name, exercise in ALL.items() if isinstance(exercise, Research)}


@pytest.mark.parametrize("name", RESEARCH)
def test_research_has_a_right_answer_for_every_task(name):
    research = RESEARCH[name]
    for option in research.options:
        damages = research.damages(option)
        best = max(damages)
        assert best > 0.005
        enough = [c for c, damage in zip(research.candidates, damages, strict=True) if damage >= 0.95 * best]
        assert len(enough) <= 2, option


@pytest.mark.parametrize("name", RESEARCH)
def test_research_is_drawn_by_name_and_judged_by_silencing(name, capsys):
    research = RESEARCH[name]
    drawn = {research.options.index(option_of(research, learner)) for learner in map(str, range(40))}
    assert len(drawn) >= 3
    assert option_of(research, "Ada  Lovelace") == option_of(research, " ada lovelace")
    option = option_of(research, "Ada")
    exercise = research.of("Ada")
    assert capsys.readouterr().out.startswith("Ada's task: ")
    damages = research.damages(option)
    order = sorted(range(len(damages)), key=damages.__getitem__)
    assert exercise.mark(lambda: research.candidates[order[-1]]).state == "right"
    worst = exercise.mark(lambda: research.candidates[order[0]])
    assert worst.state == "wrong"
    assert f"{len(damages) - 1} of the others cost more" in worst.feedback
    assert exercise.mark(lambda: None).state == "open"
    for odd in ("A", -1, (99, 99), [], 3.5, torch.zeros(3)):
        assert "was expected" in exercise.mark(lambda odd=odd: odd).feedback


def option_of(research: Research, learner: str):
    return graded.drawn_by_name(learner, research.options, research.name)


def test_block_and_head_in_the_wrong_order_are_told():
    research = RESEARCH["attention.head"]
    exercise = research.of("Ada", quiet=True)
    damages = research.damages(option_of(research, "Ada"))
    block, head = research.candidates[damages.index(max(damages))]
    if (head, block) in research.candidates and head != block:
        assert "wrong order" in exercise.mark(lambda: (head, block)).feedback


def test_calling_an_exercise_prints_the_verdict(capsys):
    ALL["norm.rms_norm"](lambda x, weight, eps: None)
    assert capsys.readouterr().out == "open: it returns None so far (a forgotten `return` looks the same)\n"


@pytest.mark.parametrize("name", WRITTEN)
def test_help_folds_hints_and_the_running_solution(name, monkeypatch):
    shown = []
    monkeypatch.setattr("decoding_llama3.lessons.exercise.display", lambda text: shown.append(text.data))
    WRITTEN[name].help()
    assert shown[0].count("<details>") == len(WRITTEN[name].hints) + 1
    assert f"def my_{name.split('.')[1]}(" in shown[0]
