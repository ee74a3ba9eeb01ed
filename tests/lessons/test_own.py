"""What a learner wrote is kept, runs in a model, and where it differs, the place and the mistake are told."""

import math

import pytest
import torch
import torch.nn.functional as F

import decoding_llama3 as dl
from decoding_llama3.inference.own_parts import OWN_PARTS, read_own_parts, with_own_parts
from decoding_llama3.lessons import own
from decoding_llama3.lessons.parting import OURS, first_parting
from decoding_llama3.lessons.show import TALE

SCALE = 1.0


def mean_square(x):
    return SCALE * x.float().square().mean(dim=-1, keepdim=True)


def my_rms_norm(x, weight, eps):
    # a comment of mine
    return (x.float() / (mean_square(x) + eps).sqrt()).type_as(x) * weight


def my_apply_rope(x, rotation):
    turned = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    turned = turned * torch.view_as_complex(rotation.contiguous())
    return torch.view_as_real(turned).flatten(-2).type_as(x)


def my_attend(q, k, v, mask=None):
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    return scores.masked_fill(~mask, -math.inf).softmax(dim=-1) @ v


def my_swiglu(x, w_gate, w_up, w_down):
    return w_down(F.silu(w_gate(x)) * w_up(x))


def my_block(block, x, positions, rotation, mask=None, cache=None):
    x = x + block.attention(block.attention_norm(x), positions, rotation, mask, cache)
    return x + block.feed_forward(block.ffn_norm(x))


MINE = {f.__name__: f for f in (my_rms_norm, my_apply_rope, my_attend, my_swiglu, my_block)}


def exchanged(x, w_gate, w_up, w_down):
    return w_down(F.silu(w_up(x)) * w_gate(x))


def wrong_block(block, x, positions, rotation, mask=None, cache=None):
    h = x + block.attention(block.attention_norm(x), positions, rotation, mask, cache)
    return x + block.feed_forward(block.ffn_norm(h))


WRONG = {
    "my_rms_norm": lambda x, weight, eps: x * weight,
    "my_apply_rope": lambda x, rotation: x,
    "my_attend": lambda q, k, v, mask=None: my_attend(q / 2, k, v, mask),
    "my_swiglu": exchanged,
    "my_block": wrong_block,
}


@pytest.fixture(scope="module")
def tiny():
    return dl.load_model("tiny", dtype=torch.float32), dl.load_tokenizer("tiny")


@pytest.fixture
def tale(tiny):
    return torch.tensor([tiny[1].encode(TALE, bos=True)])


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own, "show_table", lambda rows, header: print(*rows, sep="\n"))


def test_five_functions_are_kept_and_write_the_same_tale(tiny, capsys):
    model, tokenizer = tiny
    for function in MINE.values():
        own.keep(function)
    assert capsys.readouterr().out.count(" is kept in my_llama.py, line ") == 5
    mine = own.assemble(model, TALE, tokenizer)
    out = capsys.readouterr().out
    assert out.count("yours, my_llama.py line ") == 5
    assert "5 of 5 parts are yours" in out
    ids = tokenizer.encode("Once upon a", bos=True)
    assert list(dl.generate(mine, ids, 40)) == list(dl.generate(model, ids, 40))


def test_what_is_kept_is_readable_source_with_all_it_needs():
    own.keep(my_rms_norm)
    own.keep(my_attend)
    text = (own.Path("my_llama.py")).read_text(encoding="utf-8")
    for part in (
        "import math\n",
        "import torch\n",
        "SCALE = 1.0\n",
        "def mean_square(x):",
        "    # a comment of mine",
    ):
        assert part in text
    assert read_own_parts("my_llama.py").keys() == {"my_rms_norm", "my_attend"}


def test_keeping_again_replaces_and_leaves_all_else(monkeypatch):
    own.keep(my_swiglu)
    path = own.Path("my_llama.py")
    path.write_text("# my notes\n" + path.read_text(encoding="utf-8") + "\n\nLUCKY = 7\n", encoding="utf-8")
    own.keep(my_swiglu)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# my notes\n")
    assert text.count("def my_swiglu") == 1
    assert "LUCKY = 7" in text


def test_what_fails_its_check_is_not_kept(capsys):
    def my_swiglu(x, w_gate, w_up, w_down):
        return None

    own.keep(my_swiglu)
    own.keep(len)
    own.keep(3)
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "my_swiglu is not kept yet: it must pass its check"
    assert out[1].startswith("len is no part of the model")
    assert out[2].startswith("3 is no part of the model")
    assert not own.Path("my_llama.py").exists()


def test_what_only_runs_here_is_not_kept(capsys):
    layers = {"silu": F.silu}

    def my_swiglu(x, w_gate, w_up, w_down):
        return w_down(layers["silu"](w_gate(x)) * w_up(x))

    own.keep(my_swiglu)
    assert "is not kept" in capsys.readouterr().out
    assert not own.Path("my_llama.py").exists() or "my_swiglu" not in own.Path("my_llama.py").read_text()


@pytest.mark.parametrize("name", OWN_PARTS)
def test_the_first_step_that_differs_is_found(name, tiny, tale):
    model, _ = tiny
    assert first_parting(model, {name: MINE[name]}, tale) is None
    parting = first_parting(model, {**MINE, name: WRONG[name]}, tale)
    assert (parting.name, parting.block, parting.call) == (name, 0, 1)
    assert f"{name} is the first that differs, at its call 1 in block 0: " in parting.sentence


def test_a_difference_further_down_is_found_where_it_is(tiny, tale):
    seen = []

    def my_attend_once_wrong(q, k, v, mask=None):
        seen.append(None)
        return my_attend(q, k, v, mask) + (len(seen) == 4)

    parting = first_parting(tiny[0], {"my_attend": my_attend_once_wrong}, tale)
    assert (parting.block, parting.call) == (3, 1)


def test_an_error_of_your_function_is_told_with_its_line(tiny, tale):
    def my_attend_without_repeat(q, k, v, mask=None):
        return (q @ k.transpose(-2, -1)).softmax(-1) @ v

    sentence = first_parting(tiny[0], {"my_attend": my_attend_without_repeat}, tale).sentence
    assert "it stops in line" in sentence
    assert "`return (q @ k.transpose(-2, -1)).softmax(-1) @ v`" in sentence


def test_a_model_that_parts_is_not_handed_out(tiny, capsys):
    model, tokenizer = tiny
    own.Path("my_llama.py").write_text(
        "import torch.nn.functional as F\n\n\n"
        "def my_swiglu(x, w_gate, w_up, w_down):\n    return w_down(F.silu(w_up(x)) * w_gate(x))\n",
        encoding="utf-8",
    )
    assert own.assemble(model, TALE, tokenizer) is model
    out = capsys.readouterr().out
    assert "my_swiglu is the first that differs" in out
    assert "SiLU is on the values; it belongs on the gate" in out


def test_without_a_file_the_model_is_the_packages(tiny, capsys):
    model, tokenizer = tiny
    assert own.assemble(model, TALE, tokenizer) is model
    assert capsys.readouterr().out.count("the package's") == 5


@pytest.mark.parametrize("settings", [{}, {"quantize": "int8"}, {"dtype": torch.bfloat16}], ids=str)
def test_a_loaded_model_computes_with_the_file(settings, tmp_path):
    for function in MINE.values():
        own.keep(function)
    mine = dl.load_model("tiny", parts="my_llama.py", **settings)
    theirs = dl.load_model("tiny", **settings)
    tokens = torch.tensor([[1, 5, 9, 2]])
    assert (mine(tokens) - theirs(tokens)).norm() < 0.01 * theirs(tokens).norm()
    assert mine.state_dict().keys() == theirs.state_dict().keys()


def test_the_functions_of_the_file_are_what_runs(tiny, tale):
    calls = []

    def counting(x, w_gate, w_up, w_down):
        calls.append(x.shape)
        return my_swiglu(x, w_gate, w_up, w_down)

    with_own_parts(tiny[0], {"my_swiglu": counting})(tale)
    assert len(calls) == tiny[0].config.n_layers


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "is no file"),
        ("def my_swiglu(:", "cannot be run: SyntaxError"),
        ("import nothing_of_this_name", "cannot be run: ModuleNotFoundError"),
        ("x = 1", "has none of the functions"),
        ("my_swiglu = 3", "has none of the functions"),
    ],
)
def test_a_file_that_is_none_is_told(text, words, tmp_path):
    path = tmp_path / "theirs.py"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        dl.load_model("tiny", parts=path)


def test_a_part_of_another_name_is_refused(tiny):
    with pytest.raises(ValueError, match="my_head is no part of the model"):
        with_own_parts(tiny[0], {"my_head": len})


def test_each_part_has_its_check_and_its_counterpart():
    assert own.PARTS.keys() == own.CHECKS.keys() == OURS.keys() == OWN_PARTS.keys()
