"""What a notebook's outputs hold for those who see them and those who do not."""

import base64
import dataclasses
import inspect
import shutil

import pytest
import torch
from conftest import shrink
from hub_server import HubServer, use_hub
from matplotlib import pyplot as plt

import decoding_llama3 as dl
from decoding_llama3.inference import memory
from decoding_llama3.inference.checkpoint.export import save_huggingface
from decoding_llama3.inference.checkpoint.find import checkpoint_path
from decoding_llama3.inference.memory import needed_bytes
from decoding_llama3.lessons import show
from decoding_llama3.lessons.subject import Subject


@pytest.fixture
def displayed(monkeypatch):
    calls = []
    monkeypatch.setattr(show, "display", lambda data, **options: calls.append((data, options)))
    return calls


def test_a_figure_has_alt_text_and_twice_its_resolution(displayed):
    figure = plt.figure(figsize=(3, 2), dpi=100)
    show.show_figure(figure, alt="A small empty picture.")
    (data, options), _ = displayed
    png = base64.b64decode(data["image/png"])
    assert png.startswith(b"\x89PNG")
    assert (int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")) == (600, 400)
    assert data["text/plain"] == options["metadata"]["image/png"]["alt"] == "A small empty picture."
    assert options["metadata"]["image/png"]["width"] == 300
    assert not plt.fignum_exists(figure.number)


@pytest.mark.parametrize("set_title", [plt.Figure.suptitle, lambda figure, title: figure.axes[0].set_title(title)])
def test_alt_text_begins_with_the_title_of_the_figure(displayed, set_title):
    show.use_style()
    figure, _ = plt.subplots()
    set_title(figure, "Half of 8 is 4")
    show.show_figure(figure, alt="A small empty picture.")
    (data, options), (described, _) = displayed
    assert options["metadata"]["image/png"]["alt"] == "Half of 8 is 4. A small empty picture."
    assert data["text/plain"] == "A small empty picture."
    assert described["text/html"].endswith(">Half of 8 is 4. A small empty picture.</p>")
    assert described["text/plain"] == ""


def test_source_is_the_very_lines_of_the_package(displayed):
    show.show_source(dl.RMSNorm, dl.apply_rope)
    texts = [data.data for data, _ in displayed]
    assert inspect.getsource(dl.RMSNorm).rstrip() in texts[0]
    assert "decoding_llama3/norm.py" in texts[0]
    assert "decoding_llama3/rope.py" in texts[1]


def test_a_table_groups_thousands_and_escapes(displayed):
    show.show_table([["<a>", 8030261248], ["b", "1.5 GB"]], ["name", "weights"], caption="Sizes & more")
    ((data, _),) = displayed
    assert data["text/plain"].splitlines() == ["name        weights", "<a>   8,030,261,248", "b            1.5 GB"]
    assert '<td style="text-align: left">&lt;a&gt;</td><td>8,030,261,248</td>' in data["text/html"]
    assert "Sizes &amp; more" in data["text/html"]


@pytest.mark.parametrize(
    ("column", "at_left"),
    [
        ((1, 30), False),
        (("+0.10", "-1.5", "nan"), False),
        (("8.41 GB", "0.5 GiB", "12%", "161 · 10⁹", "2.5 x", ""), False),
        (("1 block", "2 blocks"), True),
        (("2, mean", "1, mean"), True),
        (("7", "none"), True),
    ],
)
def test_words_stand_left_and_numbers_right(displayed, column, at_left):
    show.show_table([["a", cell] for cell in column], ["name", "value"])
    ((data, _),) = displayed
    assert data["text/html"].count("text-align: left") == (1 + at_left) * (1 + len(column))


def test_a_table_may_be_empty(displayed):
    show.show_table([], ["name", "value"])
    ((data, _),) = displayed
    assert data["text/plain"] == "name  value"


def test_set_up_says_what_runs_where(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        model, tokenizer, opening = show.set_up()
        torch.set_grad_enabled(True)
    assert opening == show.OPENING
    assert model.config == dl.LlamaConfig.from_preset("tiny")
    assert tokenizer.n_vocab == model.config.vocab_size
    out = capsys.readouterr().out
    assert out == f"tiny (5,573,888 parameters) on cpu in float32, torch {torch.__version__}\n"


def test_a_readers_own_sentence_travels_in_place_of_ours(tmp_path, capsys):
    path = tmp_path / "opening.txt"
    path.write_text("Es war einmal\n  ein König ", encoding="utf-8")  # 14 tokens of tiny's
    assert show.read_opening(dl.load_tokenizer("tiny"), path) == "Es war einmal ein König"
    assert "Es war einmal ein König" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "a longer one"), (b"a bird " * 20, "a shorter one"), (b"\xff\xfe", "UTF-8")]
)
def test_a_sentence_that_does_not_fit_is_refused(tmp_path, content, words):
    path = tmp_path / "opening.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        show.read_opening(dl.load_tokenizer("tiny"), path)


def test_token_strings_name_each_id(another_checkpoint):
    model, tokenizer = dl.load_model(another_checkpoint), dl.load_tokenizer("tiny")
    ids = show.ids_of("the golden bird", model, tokenizer)
    assert ids.tolist() == [tokenizer.encode("the golden bird", bos=True)]
    assert ids.device == model.norm.weight.device
    assert show.token_strings(ids, tokenizer) == ["BOS", "the", " golden", " bird"]


def test_common_words_are_the_first_tokens_of_a_space_and_letters():
    tokenizer = dl.load_tokenizer("tiny")
    words = [tokenizer.decode([token]) for token in show.common_words(tokenizer, most=200)]
    assert len(words) == 200
    assert words[:3] == [" t", " a", " the"]
    assert all(word.startswith(" ") and word[1:].isascii() and word[1:].isalpha() for word in words)


def test_windows_follow_on_each_other_each_after_a_begin_of_text(another_checkpoint):
    model, tokenizer = dl.load_model(another_checkpoint), dl.load_tokenizer("tiny")
    rows = show.held_out_ids(model, tokenizer, windows=3, length=11)
    assert rows[:, 0].tolist() == [tokenizer.bos_id] * 3
    assert rows[:, 1:].flatten().tolist() == tokenizer.encode(show.held_out_text())[:30]
    with pytest.raises(ValueError, match="1000 windows of 256 need 255,000"):
        show.held_out_ids(model, tokenizer, windows=1000)


def test_the_held_out_text_is_where_the_evaluation_began():
    assert show.held_out_text().startswith("But Lionel had got the gold clasps undone")


def test_a_prediction_is_marked_by_its_factor_either_way():
    assert show.mark(50, 100, "heads") == "100 heads; you predicted 50, 2.0 times off"
    assert show.mark(400, 100, "heads") == "100 heads; you predicted 400, 4.0 times off"
    assert show.mark(None, 8_030_261_248, "parameters").startswith("8,030,261,248 parameters (no prediction")


@pytest.mark.parametrize("prediction", [0, -3, float("nan"), float("inf")])
def test_a_prediction_that_cannot_be_marked_is_refused(prediction):
    with pytest.raises(ValueError, match="a number above 0"):
        show.mark(prediction, 100, "heads")


OTHER = dataclasses.replace(shrink("llama3-8b"), vocab_size=4096)


@pytest.fixture
def another_checkpoint(tmp_path):
    torch.manual_seed(0)
    save_huggingface(dl.Transformer(OTHER), tmp_path)
    shutil.copy(checkpoint_path("tiny") / "tokenizer.model", tmp_path)
    return tmp_path


def test_without_a_real_model_a_sentence_says_what_to_run_or_to_set(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("DECODING_LLAMA3_CHECKPOINT", raising=False)
    monkeypatch.setenv("DECODING_LLAMA3_CACHE", str(tmp_path))
    assert show.real_model() is None
    sentence = capsys.readouterr().out
    assert "'decoding-llama3 download smollm2'" in sentence
    assert "DECODING_LLAMA3_CHECKPOINT" in sentence


def test_the_real_model_is_smollm2_where_nothing_else_is_set(smollm2, monkeypatch, capsys):
    monkeypatch.delenv("DECODING_LLAMA3_CHECKPOINT", raising=False)
    real = show.real_model()
    assert "smollm2 (134,515,008 parameters) on cpu in float32" in capsys.readouterr().out
    assert (real.name, real.model.config.n_layers, real.tokenizer.n_vocab) == ("SmolLM2", 30, 49152)


def test_the_tokenizer_of_a_real_model_is_checked_before_its_weights(another_checkpoint, monkeypatch):
    monkeypatch.setattr(show, "load_model", lambda *_, **__: pytest.fail("the weights were read"))
    (another_checkpoint / "tokenizer.model").unlink()
    with pytest.raises(ValueError, match=r"no tokenizer\.model or tokenizer\.json"):
        show.real_model(str(another_checkpoint))
    with pytest.raises(ValueError, match="belong to different models"):
        show.real_model(str(another_checkpoint), tokenizer="smollm2")


def test_a_tokenizer_that_lies_elsewhere_is_named(another_checkpoint):
    (another_checkpoint / "tokenizer.model").unlink()
    real = show.real_model(str(another_checkpoint), tokenizer="tiny")
    assert real.tokenizer.n_vocab == 4096


def test_looks_that_take_minutes_are_left_out_where_the_model_is_slow(model, monkeypatch, capsys):
    taken = []

    def at_once(*real):
        taken.append("at once")

    def long(*real):
        taken.append("long")

    show.look_at_real_model(None, (at_once,), (long,))
    assert taken == []
    show.look_at_real_model(Subject("random", model, dl.load_tokenizer("tiny")), (at_once,), (long,))
    assert taken == ["at once", "long"]
    monkeypatch.setattr(show, "is_slow", lambda model: True)
    show.look_at_real_model(Subject("random", model, dl.load_tokenizer("tiny")), (at_once,), (long,))
    assert taken == ["at once", "long", "at once"]
    assert capsys.readouterr().out == "left out, because a CPU takes minutes for it: long\n"


def test_a_model_is_slow_on_a_cpu_and_not_elsewhere(model):
    assert not show.is_slow(model)
    with torch.device("meta"):
        elsewhere = dl.Transformer(dl.LlamaConfig.from_preset("llama3-8b"))
    assert not show.is_slow(elsewhere)
    model.config = elsewhere.config
    assert show.is_slow(model)


def test_a_model_on_the_hub_is_downloaded_when_its_name_is_given(another_checkpoint, tmp_path, monkeypatch):
    with HubServer() as hub:
        hub.add_folder("someone/llama", another_checkpoint)
        use_hub(hub.url, tmp_path / "cache", monkeypatch)
        real = show.real_model("someone/llama")
        asked = len(hub.requests)
        assert show.real_model("someone/llama").model.config == real.model.config == OTHER
        assert len(hub.requests) == asked  # once is enough
    assert real.name == "llama"


def test_a_checkpoint_comes_from_the_form_or_the_environment(another_checkpoint, monkeypatch, capsys):
    monkeypatch.setenv("DECODING_LLAMA3_CHECKPOINT", "/nowhere")
    real = show.real_model(str(another_checkpoint))
    model, tokenizer = real.model, real.tokenizer
    assert model.config == OTHER
    assert f"{model.config.n_params:,} parameters) on cpu in float32" in capsys.readouterr().out
    assert tokenizer.n_vocab == 4096
    monkeypatch.setenv("DECODING_LLAMA3_CHECKPOINT", str(another_checkpoint))
    assert show.real_model().model.config == model.config


def test_what_fits_in_no_wider_way_is_read_as_int8(another_checkpoint, monkeypatch, capsys):
    needed = needed_bytes(OTHER, torch.float32)
    monkeypatch.setattr(memory, "free_bytes", lambda device: needed - 1)
    model = show.real_model(str(another_checkpoint)).model
    assert model.output.weight.dtype == torch.int8
    assert "on cpu in int8" in capsys.readouterr().out


def test_ordinary_tokens_are_neither_special_nor_single_bytes(smollm2):
    tiny, real = dl.load_tokenizer("tiny"), dl.load_tokenizer("smollm2")
    assert show.ordinary_ids(tiny) == list(range(256, tiny.bos_id))
    ordinary = show.ordinary_ids(real)
    assert not {real.bos_id, real.eos_id} & set(ordinary)
    assert min(len(real.token_bytes(token)) for token in ordinary) == 2
    assert set(real.encode(" time and again")) < set(ordinary)
