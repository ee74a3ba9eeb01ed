"""Why a wrong cause cannot be: what the museum says of it is computed here with that very fault."""

import copy
import dataclasses

import pytest
import torch
from torch.nn import functional as F

import decoding_llama3 as dl
from decoding_llama3.inference.own_parts import with_own_parts
from decoding_llama3.inference.parts import with_parts
from decoding_llama3.inspect.probe import loss_of, recording
from decoding_llama3.lessons import museum
from decoding_llama3.lessons.exhibit import as_built, opening, right_after, tale
from decoding_llama3.lessons.exhibits import attention, chat, norm, rope

# These are excluded by a row that the cause does not enter into: nothing has to be computed.
ARGUED = {
    ("7.2", "a"),  # no step of training is taken
    ("7.4", "a"),  # the healthy answer is drawn at the same temperature
    ("7.4", "d"),  # the end of the answer stands long before the limit
}


@pytest.fixture(scope="module")
def tiny():
    return dl.load_model("tiny", dtype=torch.float32), dl.load_tokenizer("tiny")


def rows(name, tiny, function=None, model=None):
    """What the exhibit would show with this function in the place of the broken one, or of this model."""
    exhibit = museum.EXHIBITS[name]
    found = exhibit.symptom(model or tiny[0], tiny[1], function or exhibit.healthy)
    return list(found.rows.values())


def number(text):
    return float(text.replace(",", "").rstrip("%"))


def turned(model, positions):
    """A copy of the model whose positions are counted otherwise."""
    net = with_parts(model)
    net.rotation_at = lambda given: model.rotation_at(positions(given))
    return net


def without_mask(q, k, v, mask):
    return dl.attend(q, k, v, torch.ones(q.shape[2], k.shape[2], dtype=torch.bool))


def without_scale(q, k, v, mask):
    return dl.attend(q * q.shape[-1] ** 0.5, k, v, mask)


def with_rotated_values(q, k, v, mask):
    rotation = dl.rope_rotation(dl.rope_frequencies(v.shape[-1], 10_000.0), torch.arange(v.shape[2]))
    return dl.attend(q, k, dl.apply_rope(v, rotation), mask)


def without_last_norm(model):
    net = with_parts(model)
    net.norm = torch.nn.Identity()
    return net


def eps_too_large(tiny):
    found = rows("3.1", tiny, lambda x, weight, eps: dl.RMSNorm.forward(plain_norm(weight, 1e4), x))
    return number(found[0]) < 0.5 and found[3] == "1.0"


def plain_norm(weight, eps):
    part = dl.RMSNorm(len(weight), eps)
    part.weight.copy_(weight)
    return part.to(weight.dtype)


def without_weight_in_float32(x, weight, eps):
    return norm.norm_without_weight(x.float(), weight, eps).type_as(x)


def divided_by_mean_square(x, weight, eps):
    return (x.float() / x.float().square().mean(-1, keepdim=True) * weight).type_as(x)


def eps_outside(x, weight, eps):
    return x / (x.square().mean(-1, keepdim=True).sqrt() + eps) * weight


def layer_norm(x, weight, eps):
    return F.layer_norm(x, weight.shape, weight, eps=eps)


def first_right(model, other, tokens):
    return right_after(model(tokens), other(tokens))[0]


def cosines(tiny, turn):
    """Of the query of 4.3, `turn(query, frequencies, position)` with the right one."""
    query, freqs = (
        torch.randn(1, 128, generator=torch.Generator().manual_seed(0)),
        dl.rope_frequencies(128, 500_000.0),
    )
    right = lambda at: dl.apply_rope(query, dl.rope_rotation(freqs, torch.tensor([at])))  # noqa: E731
    return [torch.cosine_similarity(turn(query, freqs, at), right(at)).item() for at in (10, 100, 1000, 8000)]


def half_a_head_apart(query, freqs, at):
    cos, sin = dl.rope_rotation(freqs, torch.tensor([at])).unbind(-1)
    one, other = query.chunk(2, dim=-1)
    return torch.cat((one * cos - other * sin, one * sin + other * cos), dim=-1)


def one_too_high(query, freqs, at):
    return dl.apply_rope(query, dl.rope_rotation(freqs, torch.tensor([at + 1])))


def repeated_text_suffers(tiny):
    model, tokenizer = tiny
    alike = tale(tokenizer)[:, 1:2].repeat(1, 8)
    return sum(right_after(with_parts(model, attend=with_rotated_values)(alike), model(alike))) < 8


def a_shift_is_harmless(tiny):
    tokens = tale(tiny[1])
    return all(right_after(turned(tiny[0], lambda at: at + 1)(tokens), tiny[0](tokens)))


def rounded_scaled(config):
    return rope.scaled_frequencies(config) * 0 + museum.EXHIBITS["4.2"].healthy(config).bfloat16().float()


def slowed_throughout(config):
    return rope.scaled_frequencies(config) / 8


def near_tokens_suffer_alike(tiny):
    near, middle, far = map(number, rows("4.2", tiny, slowed_throughout))
    return near > 0.9 * middle and near > 0.9 * far


def cache_lacks_keys(tiny):
    """The second piece goes into a copy of the cache; the cache itself never hears of it."""
    model, tokens = tiny[0], opening(tiny[1])
    caches = model.make_caches(batch=1, length=14)
    model(tokens[:, :9], torch.arange(9), caches)
    model(tokens[:, 9:], torch.arange(9, 14), copy.deepcopy(caches))
    return bool((caches[0].keys[:, :, 9:] == 0).all()) and not bool((caches[0].keys[:, :, :9] == 0).all())


def cache_has_wrong_keys(tiny):
    return rows("5.3", tiny, model=tiny[0])[3] == "yes" and not keys_agree(tiny)


def keys_agree(tiny):
    model, tokens = tiny[0], opening(tiny[1])
    net, found, wanted = turned(model, lambda at: at - at[0]), *(model.make_caches(1, 14) for _ in range(2))
    for start, end in ((0, 9), (9, 14)):
        net(tokens[:, start:end], torch.arange(start, end), found)
    model(tokens, torch.arange(14), wanted)
    return bool((found[0].keys - wanted[0].keys).abs().max() < 1e-3)


def weights_ignore_values(tiny):
    q, k, v = (torch.randn(1, 2, 6, 8) for _ in range(3))
    return torch.equal(dl.attend_explicitly(q, k, v, None)[1], dl.attend_explicitly(q, k, -v, None)[1])


def shapes_differ(tiny):
    part = tiny[0].layers[0].feed_forward
    return part.w_up.weight.shape != part.w_down.weight.shape


def without_silu(x, w_gate, w_up, w_down):
    return w_down(w_gate(x) * w_up(x))


def alone_is_right_without_residual(tiny):
    def block(self, x, positions, rotation, mask, cache):
        h = x + self.attention(self.attention_norm(x), positions, rotation, mask, cache)
        return self.feed_forward(self.ffn_norm(h))

    model, tokens, name = tiny[0], tale(tiny[1]), "layers.0.feed_forward"
    net = with_own_parts(model, {"my_block": block})
    with recording(net, [name]) as found, recording(model, [name]) as wanted:
        net(tokens), model(tokens)
    same = torch.equal(found.outputs[name], wanted.outputs[name])
    return same and loss_of(net, tokens) > loss_of(model, tokens) + 1


def too_short_a_cache_raises(tiny):
    caches = tiny[0].make_caches(batch=1, length=10)
    with pytest.raises(IndexError):
        tiny[0](opening(tiny[1])[:, :1], torch.tensor([10]), caches)
    return True


def unwritten_tokens_are_all_wrong(tiny):
    model, tokens = tiny[0], opening(tiny[1])
    whole, caches = model(tokens), model.make_caches(batch=1, length=14)
    model(tokens[:, :9], torch.arange(9), caches)
    for cache in caches:
        cache.update = lambda positions, keys, values, cache=cache: (cache.keys, cache.values)
    steps = [model(tokens[:, [i]], torch.tensor([i]), caches) for i in range(9, 14)]
    return not any(right_after(torch.cat(steps, dim=1), whole[:, 9:]))


def prompt_suffers_without_last_norm(tiny):
    tokens = opening(tiny[1])[:, :9]
    return not any(right_after(without_last_norm(tiny[0])(tokens), tiny[0](tokens)))


def built(tiny):
    net = as_built(tiny[0].config)
    net.tok_embeddings.weight.normal_(std=0.02, generator=torch.Generator().manual_seed(0))
    return net


def is_blind(loss):
    return abs(loss - torch.tensor(4096.0).log().item()) < 0.5


def shifted_labels_are_blind(tiny):
    tokens = tale(tiny[1])
    return is_blind(F.cross_entropy(built(tiny)(tokens)[0, :-2], tokens[0, 2:]).item())


def a_table_twice_adds_nothing(tiny):
    config = dataclasses.replace(tiny[0].config, tie_embeddings=True)
    state, net = as_built(config).state_dict(), as_built(config)
    before = sum(p.numel() for p in net.parameters())
    net.load_state_dict(state)
    return {"output.weight", "tok_embeddings.weight"} <= state.keys() and before == sum(
        p.numel() for p in net.parameters()
    )


def a_bias_is_small(tiny):
    before, after, _ = map(number, rows("7.3", tiny, museum.EXHIBITS["7.3"].fault))
    return tiny[0].config.vocab_size < 10_000 and after - before > 1_000_000


def a_block_more_is_refused(tiny):
    larger = as_built(dataclasses.replace(tiny[0].config, n_layers=7))
    with pytest.raises(RuntimeError, match="Unexpected key"):
        as_built(tiny[0].config).load_state_dict(larger.state_dict())
    return True


SHOWN = {
    ("3.1", "a"): eps_too_large,
    ("3.1", "c"): lambda tiny: rows("3.1", tiny, without_weight_in_float32) == ["1.0"] * 4,
    ("3.1", "d"): lambda tiny: rows("3.1", tiny, divided_by_mean_square) == ["0.0"] * 4,
    ("3.2", "a"): lambda tiny: rows("3.2", tiny, model=with_parts(tiny[0], attend=without_mask)) == ["14", "1"],
    ("3.2", "b"): lambda tiny: rows("3.2", tiny, model=turned(tiny[0], lambda at: at.flip(0))) == ["1", "1"],
    ("3.2", "d"): lambda tiny: rows("3.2", tiny, norm.norm_without_weight) == ["1", "1"],
    ("3.3", "b"): lambda tiny: number(rows("3.3", tiny, eps_outside)[0]) < 3.3,
    ("3.3", "c"): lambda tiny: (
        not first_right(without_last_norm(as_built(tiny[0].config)), as_built(tiny[0].config), tale(tiny[1]))
    ),
    ("3.3", "d"): lambda tiny: rows("3.3", tiny, layer_norm)[1] == "no",
    ("4.1", "a"): lambda tiny: not first_right(with_parts(tiny[0], attend=without_mask), tiny[0], tale(tiny[1])),
    ("4.1", "c"): repeated_text_suffers,
    ("4.1", "d"): a_shift_is_harmless,
    ("4.2", "a"): a_shift_is_harmless,
    ("4.2", "b"): lambda tiny: max(map(number, rows("4.2", tiny, rounded_scaled))) < 1,
    ("4.2", "c"): near_tokens_suffer_alike,
    ("4.3", "b"): lambda tiny: number(rows("4.3", tiny, lambda dim, _: dl.rope_frequencies(dim, 1e4))[0]) < 0.9,
    ("4.3", "c"): lambda tiny: 0.5 < cosines(tiny, half_a_head_apart)[0] < 0.65,
    ("4.3", "d"): lambda tiny: max(found := cosines(tiny, one_too_high)) - min(found) < 1e-4 and found[0] < 0.99,
    ("5.1", "a"): lambda tiny: rows("5.1", tiny, without_mask)[2] == "0",
    ("5.1", "c"): lambda tiny: rows("5.1", tiny, without_scale)[1] == "yes",
    ("5.1", "d"): lambda tiny: rows("5.1", tiny, with_rotated_values)[1] == "yes",
    ("5.2", "b"): lambda tiny: number(rows("5.2", tiny, without_mask)[2]) > 10,
    ("5.2", "c"): weights_ignore_values,
    ("5.2", "d"): lambda tiny: number(rows("5.2", tiny, without_scale)[1]) < number(rows("5.2", tiny)[1]),
    ("5.3", "a"): cache_lacks_keys,
    ("5.3", "b"): lambda tiny: rows("5.3", tiny, attention.attend_tiled)[:3] == ["0", "0", "0"],
    ("5.3", "c"): cache_has_wrong_keys,
    ("6.1", "a"): shapes_differ,
    ("6.1", "c"): lambda tiny: rows("6.1", tiny, without_silu)[3] == "4.00",
    ("6.1", "d"): alone_is_right_without_residual,
    ("6.2", "a"): lambda tiny: rows("6.2", tiny, lambda h, m: m * (h // m))[:2] == ["13,312", "10,752"],
    ("6.2", "b"): lambda tiny: rows("6.2", tiny, lambda h, m: m * -(-h // m) + m)[0] == "15,360",
    ("6.2", "d"): lambda tiny: rows("6.2", tiny, lambda h, m: -(-h // m))[0] == "14",
    ("7.1", "b"): too_short_a_cache_raises,
    ("7.1", "c"): prompt_suffers_without_last_norm,
    ("7.1", "d"): unwritten_tokens_are_all_wrong,
    ("7.2", "c"): shifted_labels_are_blind,
    ("7.2", "d"): lambda tiny: is_blind(loss_of(with_parts(built(tiny), attend=without_mask), tale(tiny[1]))),
    ("7.3", "a"): a_table_twice_adds_nothing,
    ("7.3", "b"): a_bias_is_small,
    ("7.3", "c"): a_block_more_is_refused,
}


@pytest.mark.parametrize(("name", "letter"), SHOWN)
def test_the_museum_says_truly_why_a_cause_cannot_be(name, letter, tiny):
    assert museum.EXHIBITS[name].right != letter
    with torch.no_grad():
        assert SHOWN[name, letter](tiny)


def test_a_prompt_with_two_begin_of_texts_brings_another_answer(smollm2):
    model, tokenizer = dl.load_model(smollm2, dtype=torch.float32), dl.load_tokenizer(smollm2)
    prompt = tokenizer.encode_chat([{"role": "user", "content": chat.QUESTION}])
    answer, other = (list(dl.generate(model, each, 8)) for each in (prompt, [prompt[0], *prompt]))
    assert prompt[0] == tokenizer.bos_id
    assert answer != other


def test_every_wrong_cause_is_computed_or_argued():
    wrong = {(name, letter) for name, each in museum.EXHIBITS.items() for letter in "abcd" if letter != each.right}
    assert wrong == SHOWN.keys() | ARGUED | {("7.4", "b")}
