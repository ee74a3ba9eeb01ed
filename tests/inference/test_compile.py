"""The compiled decode step: the tokens of the eager model, whatever was done to the model before or meanwhile."""

import copy
import dataclasses
import gc
import pickle
import weakref

import pytest
import torch
from conftest import randomize, relative_difference, shrink
from torch import nn

import decoding_llama3 as dl
from decoding_llama3.inference import compile, generator
from decoding_llama3.inference.compile import CompiledTransformer, compile_model
from decoding_llama3.inference.generator import Generator
from decoding_llama3.inference.parts import with_parts
from decoding_llama3.inference.quantize import quantize_int8, quantize_rows, row_product
from decoding_llama3.inspect.heads import without_heads
from decoding_llama3.inspect.probe import configured

PROMPT = [5, 77, 130, 9, 64]
compiles = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's compiler, of itself


def logits_of(model: dl.Transformer, change=None) -> torch.Tensor:
    """After each of eight tokens that follow a prompt; `change` is made to the model before the fifth."""
    reader = Generator(model, compile=isinstance(model, CompiledTransformer), length=64)
    reader.read(torch.tensor([PROMPT]))
    rows = []
    for i, token in enumerate((7, 300, 2, 41, 41, 100, 19, 8)):
        if change is not None and i == 4:
            change(model)
        rows.append(reader.read(torch.tensor([[token]])))
    return torch.stack(rows)


def compiled_and_eager(preset: str = "llama3-8b", n_layers: int = 3) -> tuple[dl.Transformer, dl.Transformer]:
    config = dataclasses.replace(shrink(preset), n_layers=n_layers)
    eager = randomize(dl.Transformer(config).requires_grad_(False))
    return compile_model(copy.deepcopy(eager)), eager


@pytest.mark.parametrize("columns", [16, 37, 2048, 4096 + 64, 2 * 2053])
@pytest.mark.parametrize("rows", [1, 3, 8, 61])
def test_a_row_is_what_the_matrix_library_gives(rows, columns):
    """Rows that four does not divide, columns that no piece below the longest divides (2,053 is a prime)."""
    weight, x = torch.randn(rows, columns), torch.randn(1, 1, columns)
    exact = nn.functional.linear(x.double(), weight.double())
    assert relative_difference(row_product(x, weight), exact) < 1e-5
    quantized, scale = quantize_rows(weight)
    exact = nn.functional.linear(x.double(), quantized.double() * scale.double()[:, None])
    found = row_product(x, quantized, scale)
    assert relative_difference(found, exact) < 1e-5
    assert found.shape == (1, 1, rows)


def test_half_precision_is_summed_in_single():
    """Products rounded to bfloat16 are off by 0.06 in all here, and that shows where the sum is near 0."""
    weight, x = torch.randn(1000, 4096).bfloat16(), torch.randn(1, 1, 4096).bfloat16()
    found = row_product(x, weight)
    assert found.dtype == torch.bfloat16
    exact = nn.functional.linear(x.double(), weight.double())
    assert ((found - exact).abs() <= 2**-8 * exact.abs() + 1e-3).all()


@pytest.mark.long
@compiles
@pytest.mark.parametrize("preset", ["llama3-8b", "llama3.2-1b"])
@pytest.mark.parametrize("quantize", [lambda model: model, quantize_int8], ids=["float32", "int8"])
def test_one_graph_serves_every_length_and_every_text(preset, quantize, monkeypatch):
    """And chooses the tokens that the eager model chooses."""
    monkeypatch.setattr(generator, "BUCKET", 16)
    model, eager = map(quantize, compiled_and_eager(preset, n_layers=2))
    texts = [(PROMPT, 80), (PROMPT * 9, 30), (PROMPT[:1], 40)]
    expected = [list(dl.generate(eager, prompt, n)) for prompt, n in texts]
    first = list(dl.generate(model, PROMPT, 2))
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert [list(dl.generate(model, prompt, n)) for prompt, n in texts] == expected
    assert first == expected[0][:2]


class HalvedAttention(dl.Attention):
    def forward(self, *args):
        return 0.5 * super().forward(*args)


class PlusOne(dl.RMSNorm):
    def forward(self, x):
        return super().forward(x) + 1


def zero_feed_forward(model):
    for layer in model.layers:
        layer.feed_forward.w_down.weight.data.zero_()


def replace_weight(model):
    old = model.layers[1].attention.wq.weight
    model.layers[1].attention.wq.weight = nn.Parameter(old.flip(0), requires_grad=False)


def replace_storage(model):
    model.layers[2].attention.wo.weight.data = model.layers[2].attention.wo.weight.data.flip(1).contiguous()


def one_layer(name, change):
    """A change of the second block alone: code that was compiled for the first must not run there."""

    def apply(model):
        change(model.layers[1])

    apply.__name__ = name
    return apply


def swap_layers(model):
    model.layers = nn.ModuleList([model.layers[2], model.layers[0], model.layers[1]])


def repeat_layer(model):
    model.layers = nn.ModuleList([model.layers[0], model.layers[0], model.layers[2]])


def cut(model):
    model.layers = model.layers[:2]


def change_theta(model):
    model.config = dataclasses.replace(model.config, rope_theta=100.0)


def set_eps(layer):
    layer.ffn_norm.eps = 0.5


def halve(layer):
    layer.attention.__class__ = HalvedAttention


def attend_uniformly(layer):
    layer.attention.attend = lambda q, k, v, mask: dl.attend(0 * q, k, v, mask)


def own_forward(layer):
    layer.feed_forward.forward = lambda x: x.tanh()


def bias(layer):
    old = layer.attention.wv
    layer.attention.wv = nn.Linear(old.in_features, old.out_features).requires_grad_(False)
    layer.attention.wv.weight, layer.attention.wv.bias.data = old.weight, torch.ones(old.out_features)


def hook(layer):
    layer.feed_forward.register_forward_hook(lambda module, inputs, output: 0 * output)


def pre_hook(layer):
    layer.ffn_norm.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))


def round_to_bfloat16(model):
    model.bfloat16()


def untie(model):
    model.output.weight = nn.Parameter(model.output.weight.flip(1), requires_grad=False)


AT_ONCE = [  # most are followed without compiling anew
    zero_feed_forward, replace_weight, replace_storage, swap_layers, repeat_layer, untie, quantize_int8,
    *(one_layer(f.__name__, f) for f in (set_eps, hook, pre_hook)),
]  # fmt: skip
COMPILED_ANEW = [
    cut, change_theta, round_to_bfloat16,
    *(one_layer(f.__name__, f) for f in (halve, attend_uniformly, own_forward, bias)),
]  # fmt: skip
CHANGES = [*AT_ONCE, *(pytest.param(change, marks=pytest.mark.long) for change in COMPILED_ANEW)]


@compiles
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_changed_model_decodes_as_the_eager_one_does(change):
    """The model has decoded before, so that there is code that could be stale."""
    model, eager = compiled_and_eager()
    unchanged = logits_of(eager)
    assert relative_difference(logits_of(model), unchanged) < 1e-5
    for m in (model, eager):
        change(m)
    changed = logits_of(eager)
    assert relative_difference(changed, unchanged) > 1e-3
    assert relative_difference(logits_of(model), changed) < (2e-2 if change is round_to_bfloat16 else 1e-5)


@compiles
@pytest.mark.parametrize(
    "copy_of", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("change", [zero_feed_forward, one_layer("hook", hook), cut], ids=lambda f: f.__name__)
def test_a_changed_copy_decodes_as_the_eager_one_does(change, copy_of):
    model, eager = compiled_and_eager()
    before = logits_of(model)
    copies = [copy_of(m) for m in (model, eager)]
    for m in copies:
        change(m)
    assert relative_difference(*map(logits_of, copies)) < 1e-5
    assert relative_difference(logits_of(copies[0]), before) > 1e-3
    assert torch.equal(logits_of(model), before)


@compiles
@pytest.mark.parametrize(
    "change",
    [replace_weight, replace_storage, change_theta, one_layer("hook", hook), one_layer("set_eps", set_eps)],
    ids=lambda change: change.__name__,
)
def test_a_change_in_the_middle_of_a_text_counts_from_the_next_token(change):
    model, eager = compiled_and_eager()
    before, after = logits_of(eager), logits_of(eager, change)
    assert torch.equal(after[:4], before[:4])
    assert relative_difference(after[4:], before[4:]) > 1e-3
    assert relative_difference(logits_of(model, change), after) < 1e-5


@compiles
@pytest.mark.parametrize(
    "opened",
    [lambda m: without_heads(m, [(0, 0), (2, 4)]), lambda m: configured(m, rope_theta=50.0)],
    ids=["heads silenced", "configured"],
)
def test_what_is_done_to_a_model_for_a_while_counts_for_that_while(opened):
    model, eager = compiled_and_eager()
    before = logits_of(model)
    with opened(model), opened(eager):
        inside = logits_of(eager)
        assert relative_difference(logits_of(model), inside) < 1e-5
    assert relative_difference(inside, before) > 1e-3
    assert torch.equal(logits_of(model), before)


@pytest.mark.long
@compiles
@pytest.mark.parametrize(
    "parts",
    [{"attention": HalvedAttention}, {"norm": PlusOne}, {"rotate": lambda x, rotation: x}],
    ids=lambda parts: "".join(parts),
)
def test_a_model_with_parts_exchanged_decodes_as_the_eager_one_does(parts):
    model, eager = compiled_and_eager()
    before, changed = logits_of(model), logits_of(with_parts(eager, **parts))
    assert relative_difference(changed, before) > 1e-3
    assert relative_difference(logits_of(with_parts(model, **parts)), changed) < 1e-5
    assert torch.equal(logits_of(model), before)


@pytest.mark.long
@compiles
def test_a_function_exchanged_for_all_models_is_followed(monkeypatch):
    model, eager = compiled_and_eager()
    before = logits_of(model)
    monkeypatch.setattr(dl.Attention, "rotate", staticmethod(lambda x, rotation: x))
    changed = logits_of(eager)
    assert relative_difference(changed, before) > 1e-3
    assert relative_difference(logits_of(model), changed) < 1e-5


@compiles
def test_nothing_holds_the_weights_of_a_model_that_is_gone_or_quantised():
    """Neither compiled code nor the caches that are kept for the next text."""
    model, _ = compiled_and_eager()
    list(dl.generate(model, PROMPT, 3))
    matrices = [weakref.ref(weight) for weight in model.parameters() if weight.dim() == 2]
    quantize_int8(model)
    gc.collect()
    assert not [matrix for matrix in matrices if matrix() is not None]
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert not generator._idle_caches


@compiles
def test_a_model_is_marked_and_carries_nothing():
    model, eager = compiled_and_eager()
    list(dl.generate(model, PROMPT, 3))
    assert type(model) is CompiledTransformer
    assert vars(model).keys() == vars(eager).keys()
    assert list(model.state_dict()) == list(eager.state_dict())


@compiles
def test_the_caches_of_one_text_serve_the_next(monkeypatch):
    """CUDA graphs are recorded for their addresses. Two texts at once have caches of their own."""
    made = []
    make = dl.Transformer.make_caches
    monkeypatch.setattr(dl.Transformer, "make_caches", lambda self, *size: made.append(size) or make(self, *size))
    model, eager = compiled_and_eager()
    first = list(dl.generate(model, PROMPT, 30))
    assert list(dl.generate(model, PROMPT * 2, 40)) == list(dl.generate(eager, PROMPT * 2, 40))
    assert made == [(1, 256), (1, 256)]  # of the compiled model, and of the eager one
    one, two = dl.generate(model, PROMPT, 30), dl.generate(model, PROMPT * 2, 30)
    pairs = list(zip(one, two, strict=True))
    assert [a for a, _ in pairs] == first
    assert [b for _, b in pairs] == list(dl.generate(eager, PROMPT * 2, 30))


@pytest.mark.long
@compiles
def test_blocks_are_compiled_once_for_all(monkeypatch):
    """Thirty-two unrolled blocks would take minutes."""
    graphs = []
    compile_graph = compile._inductor
    monkeypatch.setattr(
        compile, "_inductor", lambda graph, *rest: graphs.append(graph) or compile_graph(graph, *rest)
    )
    model, eager = compiled_and_eager("llama3.1-8b", n_layers=8)
    assert list(dl.generate(model, PROMPT, 5)) == list(dl.generate(eager, PROMPT, 5))
    (graph,) = graphs
    products = [
        node
        for part in graph.modules()
        if isinstance(part, torch.fx.GraphModule)
        for node in part.graph.nodes
        if node.target is row_product
    ]
    assert len(products) == 7 + 1  # one block, and the output


@compiles
def test_compiling_is_announced_once(capsys):
    config = dataclasses.replace(shrink("llama3-8b"), n_layers=1, hidden_dim=112)  # of no other test
    model = compile_model(randomize(dl.Transformer(config).requires_grad_(False)))
    lines = []
    for _ in range(2):
        list(Generator(model, compile=True, report=lines.append).generate(PROMPT, 3))
    assert lines == ["compiling the decode step: once per shape of model, up to half a minute for 32 blocks"]


@compiles
def test_generate_compiles_when_asked(model):
    expected = list(dl.generate(model, PROMPT, 10))
    assert list(dl.generate(model, PROMPT, 10, compile=True)) == expected
    assert type(model) is dl.Transformer


@compiles
def test_each_model_has_graphs_of_its_own():
    """torch allows so many graphs per function, eight by default: the ninth model of a process must not fail."""
    with torch._dynamo.config.patch(recompile_limit=1):
        for n_layers in (1, 2):
            model, eager = compiled_and_eager(n_layers=n_layers)
            assert list(dl.generate(model, PROMPT, 3)) == list(dl.generate(eager, PROMPT, 3))


@compiles
def test_a_failing_compiler_is_named_in_one_sentence(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("g++ is broken")

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", fail)
    config = dataclasses.replace(shrink("llama3-8b"), n_layers=1, hidden_dim=144)  # of no other test
    model = compile_model(randomize(dl.Transformer(config).requires_grad_(False)))
    with pytest.raises(ValueError, match=r"torch.compile failed here \(.*broken.*\): load the model without"):
        list(dl.generate(model, PROMPT, 3))


def test_without_a_compiler_the_model_stays_eager(model, monkeypatch, capsys):
    monkeypatch.setattr(compile, "find_compiler", lambda: None)
    expected = list(dl.generate(model, PROMPT, 10))
    assert list(dl.generate(model, PROMPT, 10, compile=True)) == expected
    assert type(compile_model(model)) is dl.Transformer
    printed = capsys.readouterr().out.splitlines()
    assert (
        printed
        == ["no C++ compiler found, so the model stays uncompiled: install g++ or clang to use compile=True"] * 2
    )


@pytest.mark.long
@compiles
def test_positions_far_beyond_the_first_cache_compile_too():
    """RoPE with Llama 3.1's frequencies."""
    model, eager = compiled_and_eager("llama3.1-8b", n_layers=1)
    prompt = torch.randint(320, (700,), generator=torch.Generator().manual_seed(0)).tolist()
    assert list(dl.generate(model, prompt, 5)) == list(dl.generate(eager, prompt, 5))
