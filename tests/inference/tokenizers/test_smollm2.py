"""SmolLM2: the ids of the library, the logits and tokens of Hugging Face's model, and what it answers."""

import gguf
import pytest
import tokenizers
import torch
from conftest import relative_difference
from texts import hard_texts
from transformers import LlamaConfig as HuggingFaceConfig
from transformers import LlamaForCausalLM

import decoding_llama3 as dl
from decoding_llama3.inference.checkpoint.export import huggingface_settings, save_huggingface


@pytest.fixture(scope="module")
def fields(smollm2):
    return {name: field.contents() for name, field in gguf.GGUFReader(smollm2).fields.items()}


@pytest.fixture(scope="module")
def library(fields):
    """The library's tokenizer, of the tokens and merges in the file and the pre-tokenizer that it names."""
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) == ("gpt2", "smollm")
    tokens, pre = fields["tokenizer.ggml.tokens"], tokenizers.pre_tokenizers
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    library = tokenizers.Tokenizer(tokenizers.models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    digits, words = pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)
    library.pre_tokenizer = pre.Sequence([digits, words])
    library.decoder = tokenizers.decoders.ByteLevel()
    return library


@pytest.fixture(scope="module")
def ours():
    return dl.load_tokenizer("smollm2")


@pytest.fixture(scope="module")
def model(smollm2):
    return dl.load_model("smollm2", dtype=torch.float32)


@pytest.mark.filterwarnings("ignore:the model has no token for:UserWarning")
def test_ids_are_those_of_the_library(library, ours):
    texts = hard_texts(2000)
    assert [ours.encode(text) for text in texts] == [e.ids for e in library.encode_batch(texts)]
    assert len({tuple(ours.encode(text)) for text in texts}) > 1500


def test_every_token_decodes_as_in_the_library(library, ours, fields):
    n = len(fields["tokenizer.ggml.tokens"])
    assert ours.n_vocab == n == 49_152
    assert [ours.decode([i]) for i in range(n)] == [library.decode([i]) for i in range(n)]


def test_what_has_no_token_is_said(ours):
    with pytest.warns(UserWarning, match=r"no token for '\\x04', '\\U00040000': lost from the text"):
        assert ours.decode(ours.encode("a\x04b\U00040000")).startswith("ab")


def test_a_text_begins_as_the_file_says(ours):
    """It names <|im_start|> as beginning of text, and says that no text begins with it."""
    assert ours.encode("Hello", bos=True) == ours.encode("Hello")
    assert set(ours.stop_ids) == {ours.special_ids["<|im_end|>"], ours.special_ids["<|endoftext|>"]}


@pytest.mark.long
def test_logits_and_tokens_are_those_of_hugging_face(smollm2, model):
    """Their model gets the weights as the library dequantises them, with the rows of q and k in their order."""
    config = model.config
    theirs = LlamaForCausalLM(HuggingFaceConfig(**huggingface_settings(config))).eval()
    lacking = theirs.load_state_dict(theirs_from(smollm2, config), strict=False)
    assert (lacking.missing_keys, lacking.unexpected_keys) == (["lm_head.weight"], [])  # the embedding, tied below
    theirs.tie_weights()
    tokens = torch.tensor([dl.load_tokenizer("smollm2").encode("The capital of France is")])
    with torch.no_grad():
        assert (model(tokens) - theirs(tokens).logits).abs().max() < 1e-4 * theirs(tokens).logits.abs().max()
        assert relative_difference(model(tokens), theirs(tokens).logits) < 1e-5
    options = {"max_new_tokens": 100, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    expected = theirs.generate(tokens, attention_mask=torch.ones_like(tokens), **options)[0, tokens.shape[1] :]
    assert list(dl.generate(model, tokens[0], 100)) == expected.tolist()


def theirs_from(file, config) -> dict[str, torch.Tensor]:
    names = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj"}
    names |= {"attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj"}
    names |= {"ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    whole = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    state = {}
    for tensor in gguf.GGUFReader(file).tensors:
        weight = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
        block, _, what = tensor.name.removeprefix("blk.").partition(".")
        if what.startswith(("attn_q.", "attn_k.")):
            weight = weight.view(-1, config.head_dim // 2, 2, config.dim).transpose(1, 2).reshape(weight.shape)
        what = what.removesuffix(".weight")
        state[whole.get(tensor.name) or f"model.layers.{block}.{names[what]}.weight"] = weight
    return state


def test_it_knows_the_capital_of_france_and_stops(model, ours):
    new = dl.generate(model, ours.encode("The capital of France is"), 4)
    assert ours.decode(new).startswith(" Paris")
    asked = ours.encode_chat([{"role": "user", "content": "What is the capital of France?"}])
    answer = list(dl.generate(model, asked, 60, stop_ids=ours.stop_ids))
    assert "Paris" in ours.decode(answer)
    assert len(answer) < 60


def test_it_is_saved_as_hugging_face_and_comes_back(model, ours, tmp_path):
    save_huggingface(model, tmp_path, torch.float32)
    again = dl.load_model(tmp_path, dtype=torch.float32)
    assert again.config == model.config
    tokens = torch.tensor([ours.encode("Once upon a time")])
    assert torch.equal(again(tokens), model(tokens))
