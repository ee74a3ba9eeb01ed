"""The chat formats of folders without a template: which is taken, and that its ids are those of other programs.

Oracles: transformers renders templates written here after the published formats; Meta's own package writes
Llama 3's; SentencePiece encodes Llama 2's turns one by one.
"""

import datetime
import json
import re
import shutil
from importlib import resources
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
import torch
from conftest import randomize
from llama_models.datatypes import RawMessage
from llama_models.llama3.chat_format import ChatFormat
from llama_models.llama3.tokenizer import Tokenizer as MetasTokenizer
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

import decoding_llama3 as dl
from decoding_llama3.cli import app
from decoding_llama3.inference.tokenizers.formats import LLAMA2, LLAMA3, LLAMA31
from decoding_llama3.inference.tokenizers.render import render

META = Path(str(resources.files("llama_models") / "llama3" / "tokenizer.model"))
TINY = Path(str(resources.files("decoding_llama3") / "../data/tiny-llama3/tokenizer.model")).resolve()
PIECES = Path(str(resources.files("mistral_common") / "data" / "tokenizer.model.v1"))  # 32,000, as Llama 2 has
TURNS = (
    "{% for m in turns %}{{ '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>' ~ '\\n\\n' ~ m.content.strip() }}"
    "<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>{{ '\\n\\n' }}"
)
PUBLISHED_LLAMA3 = "<|begin_of_text|>{% set turns = messages %}" + TURNS
PUBLISHED_LLAMA31 = (
    "{% if messages[0].role == 'system' %}{% set said, turns = messages[0].content.strip(), messages[1:] %}"
    "{% else %}{% set said, turns = '', messages %}{% endif %}<|begin_of_text|><|start_header_id|>system"
    "<|end_header_id|>{{ '\\n\\nCutting Knowledge Date: December 2023\\nToday Date: ' ~ date_string ~ '\\n\\n' }}"
    "{{ said }}<|eot_id|>" + TURNS
)
PUBLISHED_LLAMA2 = (
    "{% if messages[0].role == 'system' %}{% set said, turns = messages[0].content, messages[1:] %}"
    "{% else %}{% set said, turns = none, messages %}{% endif %}{% for m in turns %}{% if m.role == 'user' %}"
    "<s>[INST] "
    "{{ ('<<SYS>>\\n' ~ said ~ '\\n<</SYS>>\\n\\n' ~ m.content if loop.first and said is not none else m.content)"
    ".strip() }} [/INST]{% else %} {{ m.content.strip() }} </s>{% endif %}{% endfor %}"
)
TALK = [
    {"role": "system", "content": "Be kind.\n"},
    {"role": "user", "content": "  Who are you?"},
    {"role": "assistant", "content": 'A "king", naïve 🦊. '},
    {"role": "user", "content": "And I? 12345"},
]
TALKS = [TALK, TALK[:2], TALK[1:], TALK[1:2], [TALK[0], TALK[1], TALK[2], TALK[3], TALK[2], TALK[1]]]


def meta_folder(folder: Path, tokenizer: Path, scaled: bool = False) -> Path:
    n = dl.Tokenizer(tokenizer).n_vocab if tokenizer != PIECES else -1
    widths = {"dim": 3072, "n_heads": 24, "n_kv_heads": 8, "multiple_of": 256, "ffn_dim_multiplier": 1.0}
    params = widths | {"vocab_size": n, "n_layers": 2, "norm_eps": 1e-5, "rope_theta": 500_000.0}
    params |= {"use_scaled_rope": True} if scaled else {}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.json").write_text(json.dumps(params))
    shutil.copy(tokenizer, folder / "tokenizer.model")
    return folder


def rendered(template: str, messages: list[dict], **variables) -> str:
    """What transformers makes of a template."""
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "</s>": 1, "x": 2}, unk_token="x"))
    theirs = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>")
    if "INST" not in template:
        theirs = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<|begin_of_text|>")
    return theirs.apply_chat_template(
        messages, chat_template=template, tokenize=False, add_generation_prompt=True, **variables
    )


@pytest.mark.parametrize("messages", TALKS, ids=len)
@pytest.mark.parametrize(
    ("ours", "published"),
    [(LLAMA2, PUBLISHED_LLAMA2), (LLAMA3, PUBLISHED_LLAMA3), (LLAMA31, PUBLISHED_LLAMA31)],
    ids=["2", "3", "3.1"],
)
def test_our_templates_are_the_published_formats(ours, published, messages):
    day = {"date_string": "03 Feb 2025"}
    expected = rendered(published, messages, **day)
    assert rendered(ours, messages, **day) == expected
    names = {"bos_token": "<s>", "eos_token": "</s>"} if ours is LLAMA2 else {"bos_token": "<|begin_of_text|>"}
    assert render(ours, {"messages": messages, "add_generation_prompt": True, **names, **day}) == expected


def meta_ids(messages: list[dict]) -> list[int]:
    raw = [RawMessage(**{**message, "content": message["content"].strip()}) for message in messages]
    return ChatFormat(MetasTokenizer.get_instance()).encode_dialog_prompt(raw).tokens


@pytest.mark.parametrize("messages", TALKS, ids=len)
def test_llama_3_writes_chats_as_metas_package_does(tmp_path, messages):
    ours = dl.load_tokenizer(meta_folder(tmp_path, META))
    assert ours.template.source == "Llama 3's format"
    assert ours.encode_chat(messages) == meta_ids(messages)


@pytest.mark.parametrize("messages", TALKS, ids=len)
def test_llama_31_says_the_date_before_the_system_message(tmp_path, messages):
    """Scaled RoPE tells it from Llama 3. The ids are Meta's of a chat with that system message."""
    ours = dl.load_tokenizer(meta_folder(tmp_path, META, scaled=True))
    assert ours.template.source == "Llama 3.1's format"
    given = messages[0]["content"].strip() if messages[0]["role"] == "system" else ""
    today = datetime.datetime.now().strftime("%d %b %Y")
    dated = f"Cutting Knowledge Date: December 2023\nToday Date: {today}\n\n{given}"
    header, rest = meta_ids(messages[:0]), messages[messages[0]["role"] == "system" :]
    metas = MetasTokenizer.get_instance()
    system = [metas.special_tokens["<|start_header_id|>"], *metas.encode("system", bos=False, eos=False)]
    system += [metas.special_tokens["<|end_header_id|>"], *metas.encode(f"\n\n{dated}", bos=False, eos=False)]
    expected = [header[0], *system, metas.special_tokens["<|eot_id|>"], *meta_ids(rest)[1:]]
    assert ours.encode_chat(messages) == expected


@pytest.mark.parametrize("messages", TALKS, ids=len)
def test_llama_2_encodes_each_pair_of_turns_as_one_text(tmp_path, messages):
    """As Meta's own program did: SentencePiece sees a question with its answer, between <s> and </s>."""
    ours = dl.load_tokenizer(meta_folder(tmp_path, PIECES))
    assert ours.template.source == "Llama 2's format"
    pieces, expected = sentencepiece.SentencePieceProcessor(model_file=str(PIECES)), []
    for pair in rendered(PUBLISHED_LLAMA2, messages).split("<s>")[1:]:
        text, end, _ = pair.partition("</s>")
        expected += [1, *pieces.encode(text), *([2] if end else [])]
    assert ours.encode_chat(messages) == expected


def test_llama_2_refuses_two_questions_in_a_row(tmp_path):
    ours = dl.load_tokenizer(meta_folder(tmp_path, PIECES))
    with pytest.raises(ValueError, match=r"Llama 2's format refuses these messages: .*user and assistant take"):
        ours.encode_chat([TALK[1], TALK[3]])


def test_a_template_in_the_folder_goes_before_any_format(tmp_path):
    for name, file in (("2", PIECES), ("3", TINY), ("3.1", TINY)):
        folder = meta_folder(tmp_path / name, file, scaled=name == "3.1")
        (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
        ours = dl.load_tokenizer(folder)
        assert ours.decode(ours.encode_chat(TALK)).strip() == "Be kind."


def test_a_mistral_without_a_template_is_not_taken_for_a_llama_2(tmp_path):
    folder = meta_folder(tmp_path, PIECES)
    (folder / "params.json").unlink()
    config = {"model_type": "mistral", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 8}
    config |= {"intermediate_size": 96, "vocab_size": 32_000, "max_position_embeddings": 64, "rms_norm_eps": 1e-5}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="the model has no chat template"):
        dl.load_tokenizer(folder).encode_chat(TALK)


def chat(folder: Path) -> str:
    result = CliRunner().invoke(app, ["chat", str(folder), "-n", "1", "--dtype", "float32"], input="Who?\n\n")
    assert result.exit_code == 0, result.output
    return " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("name", "is_base"),
    [
        ("Meta-Llama-3-8B", True),
        ("Meta-Llama-3-8B-Instruct", False),
        ("Meta-Llama-3-8B/original", True),
        ("x", False),
    ],
)
def test_chat_says_which_format_it_takes_and_warns_of_a_base_model(tmp_path, name, is_base):
    meta_folder(tmp_path / name, TINY)
    params = {"dim": 48, "n_heads": 6, "multiple_of": 16, "vocab_size": 4096, "n_layers": 1, "norm_eps": 1e-5}
    (tmp_path / name / "params.json").write_text(json.dumps(params))
    model = randomize(dl.Transformer(dl.LlamaConfig.from_params_json(json.dumps(params))))
    new = {"w_gate": "w1", "w_down": "w2", "w_up": "w3"}
    weights = {re.sub("w_gate|w_down|w_up", lambda m: new[m[0]], k): v for k, v in model.state_dict().items()}
    torch.save(weights, tmp_path / name / "consolidated.00.pth")
    said = chat(tmp_path / name)
    assert "chat format: Llama 3's format" in said
    assert ("is not called a chat or instruct model: a base model" in said) == is_base
    (tmp_path / name / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert "chat_template.jinja" in chat(tmp_path / name).replace(" ", "")
