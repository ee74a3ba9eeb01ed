"""Download from the hub: what comes and what does not, what a cut leaves behind, and what is said."""

import dataclasses
import errno
import hashlib
import inspect
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from conftest import randomize, shrink
from filelock import FileLock
from hub_server import TOKEN, HubServer, use_hub
from huggingface_hub import constants, file_download
from packaging.version import Version

import decoding_llama3 as dl
from decoding_llama3.inference.checkpoint.export import save_huggingface
from decoding_llama3.inference.checkpoint.find import checkpoint_path
from decoding_llama3.inference.download import download_model
from decoding_llama3.inference.hub import hub_token

sys.path.append(str(Path(__file__).parent / "checkpoint"))
from folders import PARAMS, edit_json, into_shards, load, save_meta
from gguf_files import write_gguf

NAME = "meta/tales-8b"
SHARDS = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
INDEX = "model.safetensors.index.json"
USED = {"config.json", "tokenizer.model", "generation_config.json", INDEX, *SHARDS}
UNUSED = ("README.md", "pytorch_model.bin", "original/params.json", "original/consolidated.00.pth", "x.onnx")
UNUSED += ("consolidated.safetensors", "model.fp16.safetensors", "original/tokenizer.model", ".gitattributes")
TINY = checkpoint_path("tiny") / "tokenizer.model"


@pytest.fixture(scope="module")
def whole() -> dl.Transformer:
    torch.manual_seed(0)
    return randomize(dl.Transformer(dataclasses.replace(shrink("llama3-8b"), vocab_size=4096)))


@pytest.fixture(scope="module")
def files(whole, tmp_path_factory) -> dict[str, bytes | Path]:
    """What the repository holds: a model in three shards, and much that nobody here reads."""
    folder = tmp_path_factory.mktemp("model")
    save_huggingface(whole, folder)
    into_shards(folder, 3)
    shutil.copy(TINY, folder / "tokenizer.model")
    (folder / "generation_config.json").write_text("{}")
    found = {path.name: path for path in folder.iterdir()}
    assert found.keys() == USED
    return found | dict.fromkeys(UNUSED, b"never to be fetched")


@pytest.fixture
def hub(files, tmp_path, monkeypatch):
    """A hub with that model, an empty cache, and nobody logged in."""
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setattr(time, "sleep", lambda _: None)  # of the library, between two attempts
    with HubServer() as hub:
        use_hub(hub.url, tmp_path, monkeypatch)
        hub.add(NAME, files)
        yield hub


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "hub" / "models--meta--tales-8b"


def held(folder: Path) -> dict[str, str]:
    """The files in a folder, by the digests of their contents."""
    paths = [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts]
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def expected(files) -> dict[str, str]:
    return {name: hashlib.sha256(files[name].read_bytes()).hexdigest() for name in USED}


def is_whole(place: Path, files, whole) -> bool:
    return held(place) == expected(files) and is_same(load(place), whole)


def is_same(model: dl.Transformer, other: dl.Transformer) -> bool:
    weights, others = model.state_dict(), other.state_dict()
    return weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)


def quiet(line: str) -> None:
    pass


def refused(words: str, name: str = NAME, **options) -> str:
    """The sentence in which the download ends."""
    with pytest.raises(ValueError, match=words) as caught:
        download_model(name, report=quiet, **options)
    said = str(caught.value)
    assert said.isprintable()
    assert "hf_" not in said
    return said


def test_what_is_used_comes_and_nothing_else(hub, files, whole, cache):
    said = []
    place = download_model(NAME, report=said.append)
    assert is_whole(place, files, whole)
    assert not [path for _, path, _, _ in hub.requests if path.endswith(UNUSED)]
    assert place.parent == cache / "snapshots"
    (line,) = said
    assert line.startswith(f"{NAME}, version {place.name[:7]}: 7 files, ")
    assert line.endswith(" of it to come")


def test_it_is_loaded_by_its_name_and_other_programs_find_it(hub, whole):
    place = download_model(NAME, report=quiet)
    assert is_same(load(NAME), whole)
    assert dl.load_tokenizer(NAME).n_vocab == 4096
    config = huggingface_hub.hf_hub_download(
        NAME, "config.json", local_files_only=True, cache_dir=place.parents[2]
    )
    assert Path(config) == place / "config.json"


def test_what_is_here_is_not_fetched_again(hub):
    place = download_model(NAME, report=quiet)
    before, said = len(hub.requests), []
    assert download_model(NAME, report=said.append) == place
    assert [path for _, path, _, _ in hub.requests[before:]] == [f"/api/models/{NAME}"]
    assert said[-1].endswith("all of it here already")


def test_a_cut_shard_is_lost_the_finished_ones_are_kept_and_nothing_is_half_loaded(
    hub, files, whole, cache, monkeypatch
):
    """The sentence is true: what huggingface_hub keeps of a cut file changed in its version 1.18."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100)  # of 10 MB, which are lost if they are not full
    hub.cut[SHARDS[1]] = 1000
    said = refused("the connection to the hub failed")
    loses = Version(huggingface_hub.__version__) >= Version("1.18")
    of_this = f"what had come of {SHARDS[1]} is lost" if loses else f"0.0 MB of {SHARDS[1]} are kept"
    assert f"; 5 of 7 files are kept, {of_this}, and the same command goes on from there" in said
    assert bool(list((cache / "blobs").glob("*.incomplete"))) != loses
    (snapshot,) = (cache / "snapshots").iterdir()
    assert held(snapshot).keys() == USED - {*SHARDS[1:]}
    for path in (NAME, snapshot):
        with pytest.raises(ValueError, match=rf"lacks {SHARDS[1]}: run 'decoding-llama3 download {NAME}' again"):
            load(path)
    hub.cut.clear()
    before = {shard: hub.sent(shard) for shard in SHARDS}
    assert is_whole(download_model(NAME, report=quiet), files, whole)
    assert [hub.sent(shard) - before[shard] for shard in SHARDS] == [0, 1, 1]


@pytest.mark.skipif(
    "RemoteProtocolError" not in inspect.getsource(file_download.http_get), reason="this version gives up at once"
)
def test_a_connection_that_comes_back_goes_on_in_the_middle(hub, files, whole, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100)
    hub.cut[SHARDS[1]] = 1000
    monkeypatch.setattr(time, "sleep", lambda _: hub.cut.clear())  # what the library does before the next attempt
    assert is_whole(download_model(NAME, report=quiet), files, whole)
    ranges = [headers["Range"] for _, path, _, headers in hub.requests if "Range" in headers]
    assert ranges == ["bytes=1000-"]


def test_a_killed_download_goes_on(hub, files, whole, cache):
    hub.stalled[SHARDS[1]] = 1000
    process = subprocess.Popen([sys.executable, "-m", "decoding_llama3", "download", NAME])
    assert hub.is_stalled.wait(60)
    process.kill()
    process.wait()
    hub.release()
    (left,) = (cache / "blobs").glob("*.incomplete")
    with pytest.raises(ValueError, match=rf"lacks {SHARDS[1]}: run 'decoding-llama3 download {NAME}' again"):
        load(NAME)
    assert is_whole(download_model(NAME, report=quiet), files, whole)
    assert [hub.sent(shard) for shard in SHARDS] == [1, 2, 1]
    assert not left.exists(), "it would lie there for ever"


def test_what_another_process_is_at_work_on_is_left_alone(hub, cache, tmp_path, files):
    blob = hashlib.sha256(files[SHARDS[1]].read_bytes()).hexdigest()
    other = cache / "blobs" / f"{blob}.0123abcd.incomplete"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"half")
    hub.cut[SHARDS[0]] = 10
    lock = tmp_path / "hub" / ".locks" / cache.name / f"{blob}.lock"
    lock.parent.mkdir(parents=True)
    from decoding_llama3.inference.hub import Repository

    with FileLock(lock):
        Repository(NAME)._remove_left_over(SHARDS[1])
        assert other.exists()
    Repository(NAME)._remove_left_over(SHARDS[1])
    assert not other.exists()


def test_ctrl_c_says_what_is_kept(hub, monkeypatch):
    fetch = file_download.http_get

    def interrupted(url, *args, **options):
        if url.endswith(SHARDS[2]):
            raise KeyboardInterrupt
        return fetch(url, *args, **options)

    monkeypatch.setattr(file_download, "http_get", interrupted)
    said = []
    with pytest.raises(KeyboardInterrupt):
        download_model(NAME, report=said.append)
    assert said[-1].startswith(f"stopped: 6 of 7 files are kept, what had come of {SHARDS[2]} is lost")


@pytest.mark.parametrize("damage", ["truncated", "longer", "broken link", "empty"])
def test_a_damaged_file_is_never_loaded_and_is_fetched_again(hub, files, whole, damage):
    place = download_model(NAME, report=quiet)
    blob = (place / SHARDS[1]).resolve()
    content = blob.read_bytes()
    if damage == "broken link":
        blob.unlink()
    else:
        changed = {"truncated": content[:-1], "longer": content + b"x", "empty": b""}
        blob.write_bytes(changed[damage])
    with pytest.raises(ValueError, match=rf"{SHARDS[1]}.* run 'decoding-llama3 download {NAME}' again"):
        load(NAME)
    before = {shard: hub.sent(shard) for shard in SHARDS}
    assert is_whole(download_model(NAME, report=quiet), files, whole)
    assert [hub.sent(shard) - before[shard] for shard in SHARDS] == [0, 1, 0]


def test_a_file_of_the_right_length_and_another_content_is_fetched_again(hub, files, whole):
    """As a computer leaves it that lost its power: else the advice to run the command again would help nobody."""
    place = download_model(NAME, report=quiet)
    (place / SHARDS[2]).resolve().write_bytes(bytes((place / SHARDS[2]).stat().st_size))
    said = []
    with pytest.raises(ValueError, match=rf"{SHARDS[2]} is damaged .* run 'decoding-llama3 download"):
        load(NAME)
    assert is_whole(download_model(NAME, report=said.append), files, whole)
    assert said[-1] == f"{SHARDS[2]} is damaged and is downloaded again"


def test_a_model_that_is_damaged_on_the_hub_is_said_to_be(hub, files):
    hub.add(NAME, files | {SHARDS[2]: bytes(5000)})
    refused(rf"{NAME} is here as the hub has it, but cannot be loaded: .*{SHARDS[2]}")


def test_a_folder_of_ones_own(hub, files, whole, tmp_path, cache):
    to = tmp_path / "mine"
    hub.cut[SHARDS[1]] = 1000
    refused("5 of 7 files are kept", to=to)
    with pytest.raises(ValueError, match=f"lacks {SHARDS[1]}"):
        load(to)
    hub.cut.clear()
    before = hub.sent(SHARDS[0])
    assert download_model(NAME, to=to, report=quiet) == to
    assert is_whole(to, files, whole)
    assert hub.sent(SHARDS[0]) == before
    assert not cache.exists()
    (to / SHARDS[0]).write_bytes(b"short")
    assert is_whole(download_model(NAME, to=to, report=quiet), files, whole)


def test_a_folder_with_other_files_is_not_written_into(hub, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    refused(
        "--to .*mine is not empty, and its files are not from the hub: give a new folder", to=tmp_path / "mine"
    )
    assert held(tmp_path / "mine").keys() == {"config.json"}
    assert hub.requests == []


def test_the_hub_of_these_tests_speaks_to_the_library_itself(hub, files):
    """What the library fetches of its own is what is there: tree, small files, large files by another host."""
    place = Path(huggingface_hub.snapshot_download(NAME))
    assert held(place).keys() == files.keys()
    assert {name: found for name, found in held(place).items() if name in USED} == expected(files)


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub, files, cache):
    old = hub.add(NAME, files | {"generation_config.json": b'{"eos_token_id": 7}'}, branch="v1")
    assert download_model(NAME, revision="v1", report=quiet).name == old
    assert checkpoint_path(NAME).name == old, "it is the only one"
    new = download_model(NAME, report=quiet)
    assert checkpoint_path(NAME) == new
    assert download_model(NAME, revision=old, report=quiet).name == old
    assert checkpoint_path(NAME) == new, "the name goes on to mean the main branch"
    assert hub.sent(SHARDS[0]) == 1, "the same content is kept once"
    (new.parent / old / "config.json").unlink()
    (new.parent / old / SHARDS[0]).unlink()
    download_model(NAME, revision=old, report=quiet)
    (new.parent / old / SHARDS[0]).unlink()
    with pytest.raises(ValueError, match=f"run 'decoding-llama3 download {NAME} --revision {old}' again"):
        load(new.parent / old)


def test_an_update_that_was_cut_leaves_the_old_version_to_load(hub, files):
    old = download_model(NAME, report=quiet)
    config = json.loads(files["config.json"].read_text()) | {"max_position_embeddings": 99}
    changed = files[SHARDS[0]].read_bytes()
    hub.add(NAME, files | {"config.json": json.dumps(config).encode(), SHARDS[0]: changed[:-4] + b"\0\0\0\0"})
    hub.cut[SHARDS[0]] = 1000
    refused("6 of 7 files are kept")
    assert checkpoint_path(NAME) == old
    load(NAME)
    hub.cut.clear()
    download_model(NAME, report=quiet)
    assert load(NAME).config.max_seq_len == 99


@pytest.mark.parametrize(
    ("token", "settings", "words"),
    [
        (
            None,
            {"gated": True},
            rf"{NAME} is gated: accept its licence on {{page}}, then log in with 'hf auth login'",
        ),
        (
            "hf_nobody",
            {"gated": True},
            rf"{NAME} is gated, and this account or token may not read it: .* {{page}}",
        ),
        ("hf_wrong", {}, "the hub refuses the token, which is wrong or has expired: log in"),
        (None, {"private": True}, "the hub shows nobody a model .* check the name on {page}, .* then log in"),
    ],
    ids=["not logged in", "not granted", "wrong token", "private"],
)
def test_a_model_that_may_not_be_read_is_answered_with_the_page_to_visit(
    hub, cache, monkeypatch, token, settings, words
):
    hub.tokens.add("hf_nobody")
    hub.add(NAME, hub.models[NAME].files[hub.models[NAME].commits["main"]], **settings)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    refused("^" + words.format(page=f"https://huggingface.co/{NAME}"))
    assert not list(cache.rglob("*.safetensors"))


@pytest.mark.parametrize("logged_in", [False, True])
def test_a_wrong_name_is_answered_with_where_to_check_it(hub, monkeypatch, logged_in):
    if logged_in:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    refused(r"check the name on https://huggingface\.co/meta/tails-8b", "meta/tails-8b")


@pytest.mark.parametrize(
    "name", ["tales", "meta/tales/8b", "meta/", "", "../x", "meta/a b", "https://huggingface.co/meta/x"]
)
def test_what_is_no_name_is_not_asked_for(hub, name):
    refused("is no name of a model on the Hugging Face Hub: it is OWNER/NAME", name)
    assert hub.requests == []


def test_a_wrong_revision_is_named(hub):
    refused(
        rf"{NAME} has no revision 'v9': its branches and tags are listed on .*/{NAME}/tree/main", revision="v9"
    )


def test_no_network(hub, monkeypatch):
    hub._server.server_close()
    hub._server.shutdown()
    refused(r"the connection to the hub failed \(ConnectError: .*\): check the network")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused("HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set")


@pytest.mark.parametrize(("status", "words"), [(503, "it is busy, or has a fault"), (429, "it asks for a pause")])
def test_a_hub_that_is_busy(hub, status, words):
    hub.status = status
    refused(rf"the hub answers with status {status} \({words}\): try again later")


@pytest.mark.parametrize("status", [503, 404])
def test_a_file_that_the_hub_does_not_give_is_said_with_the_status(hub, status):
    """The library itself says only that there is no such file on this machine."""
    hub.refused[SHARDS[1]] = status
    refused(
        rf"the hub answers with status {status}.*; 5 of 7 files are kept, what had come of {SHARDS[1]} is lost"
    )


def test_too_little_room_is_said_before_the_weights_come(hub, files, monkeypatch):
    free = sum(files[name].stat().st_size for name in USED) - files["config.json"].stat().st_size
    free -= files[INDEX].stat().st_size
    usage = shutil._ntuple_diskusage
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, free - 1))
    refused(rf"{NAME} needs {free / 1e6:.1f} MB more, but the disk of .* has {free / 1e6:.1f} MB free: .*--to")
    assert not any(hub.sent(shard) for shard in SHARDS)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, free))
    download_model(NAME, report=quiet)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 0))
    download_model(NAME, report=quiet)


def test_a_disk_that_is_full_in_the_middle(hub, monkeypatch):
    fetch = file_download.http_get

    def full(url, *args, **options):
        if url.endswith(SHARDS[1]):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return fetch(url, *args, **options)

    monkeypatch.setattr(file_download, "http_get", full)
    refused(r"the disk is full: free some space, .*; 5 of 7 files are kept, what had come of .* is lost")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}, "qwen2|Qwen2ForCausalLM"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"attention_bias": True}, "attention_bias"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_computed_is_refused_by_name_before_its_weights_come(hub, files, tmp_path, change, words):
    shutil.copy(files["config.json"], tmp_path / "config.json")
    edit_json(tmp_path / "config.json", **change)
    hub.add(NAME, files | {"config.json": tmp_path / "config.json"})
    said = refused("cannot be computed here, so its weights were not downloaded")
    assert any(word in said for word in words.split("|"))
    assert {path.rpartition("/")[2] for _, path, _, _ in hub.requests if NAME + "/" in path} == {"config.json"}


@pytest.mark.parametrize("folder", ["original/", ""])
def test_metas_layout_alone(hub, folder, tmp_path):
    params = PARAMS | {"vocab_size": 4096}
    model = randomize(dl.Transformer(dl.LlamaConfig.from_params_json(json.dumps(params))))
    save_meta(model, tmp_path, parts=2, params=params)
    parts = {f"{folder}{path.name}": path for path in tmp_path.glob("*.pth")}
    parts |= {f"{folder}params.json": tmp_path / "params.json", f"{folder}tokenizer.model": TINY}
    hub.add("meta/original", parts | {"README.md": b"# Llama", "lora/consolidated.00.pth": b"of another model"})
    place = download_model("meta/original", report=quiet)
    assert held(place).keys() == {"params.json", "tokenizer.model", "consolidated.00.pth", "consolidated.01.pth"}
    assert is_same(load("meta/original"), model)
    assert dl.load_tokenizer("meta/original").n_vocab == 4096
    assert place == checkpoint_path("meta/original")


def test_weights_in_one_piece_go_before_an_index(hub, whole, tmp_path, files):
    """As transformers has it. Both together could be two models, which `load_model` refuses."""
    save_huggingface(whole, tmp_path / "one")
    hub.add(NAME, files | {"model.safetensors": tmp_path / "one" / "model.safetensors"})
    place = download_model(NAME, report=quiet)
    assert held(place).keys() == USED - {INDEX, *SHARDS} | {"model.safetensors"}
    assert is_same(load(NAME), whole)


@pytest.fixture
def gguf(hub, tmp_path):
    model = randomize(dl.Transformer(shrink("llama3-8b")))
    for kind in ("BF16", "F16"):
        write_gguf(model, tmp_path / f"tales-{kind}.gguf", kind)
    contents = {f"tales-{kind}.gguf": tmp_path / f"tales-{kind}.gguf" for kind in ("BF16", "F16")}
    hub.add("some/tales-GGUF", {**contents, "config.json": b"{}", "deep/x\x1b.gguf": b"GGUF"})
    return "some/tales-GGUF"


def test_a_repository_of_gguf_files_is_listed_and_one_is_named(hub, gguf, tmp_path):
    said = refused("has GGUF files: name one of them with --file; it has ", gguf)
    assert "tales-BF16.gguf (0." in said or "tales-BF16.gguf (1." in said
    assert r"'deep/x\x1b.gguf'" in said
    refused("has no file 'tales-Q9.gguf': it has .*tales-F16.gguf", gguf, file="tales-Q9.gguf")
    refused("--file names one GGUF file of a repository, found 'config.json'", gguf, file="config.json")
    place = download_model(gguf, file="tales-BF16.gguf", report=quiet)
    assert place.read_bytes() == (tmp_path / "tales-BF16.gguf").read_bytes()
    assert load(gguf).config == load(place).config
    blob = place.resolve()
    blob.write_bytes(blob.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"run 'decoding-llama3 download {gguf} --file tales-BF16.gguf' again"):
        load(gguf)
    download_model(gguf, file="tales-BF16.gguf", report=quiet)
    download_model(gguf, file="tales-F16.gguf", report=quiet)
    with pytest.raises(ValueError, match=r"holds GGUF files: pass one of them, such as 'tales-BF16.gguf'"):
        load(gguf)


def test_a_gguf_file_that_was_split_does_not_come(hub, gguf):
    part = "big-00002-of-00003.gguf"
    hub.add("some/whole-and-parts", {"tales-00001-of-00001.gguf": b"GGUF", part: b"GGUF"})
    words = f"was not downloaded, because '{part}' is one of several files of a model"
    refused(f"{words}.* or name a whole one: tales-00001-of-00001.gguf ", "some/whole-and-parts", file=part)
    assert part not in refused("has GGUF files: name one of them", "some/whole-and-parts")
    hub.add("some/parts", {part: b"GGUF"})
    refused(f"has GGUF files in parts alone: '{part}' is one of several", "some/parts")
    assert hub.sent(part) == 0


def test_a_gguf_file_of_another_architecture_does_not_come(hub, gguf):
    hub.models[gguf].gguf = {"architecture": "qwen2", "total": 5}
    refused("its architecture is 'qwen2', expected 'llama'", gguf, file="tales-BF16.gguf")
    assert hub.sent("tales-BF16.gguf") == 0


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (["config.json", "pytorch_model.bin"], r"has its weights as a pickle alone \('pytorch_model\.bin'\)"),
        (["adapter_config.json", "adapter_model.safetensors"], "the adapter of a model alone: merge it"),
        (["README.md"], "holds no weights of a model that is read here"),
        ([], "holds no weights of a model that is read here"),
    ],
    ids=["pickle", "adapter", "no model", "empty"],
)
def test_a_repository_without_weights_that_are_read_here(hub, contents, words):
    hub.add("some/other", dict.fromkeys(contents, b"{}"))
    refused(rf"some/other .*{words}", "some/other")
    assert len([path for _, path, _, _ in hub.requests if "some/other" in path]) == 1


def test_an_index_that_names_what_is_not_there(hub, files):
    hub.add(NAME, {name: content for name, content in files.items() if name != SHARDS[1]})
    refused(rf"the index of {NAME} names '{SHARDS[1]}', which is not on the hub")


def test_an_index_that_leads_out_of_the_folder(hub, files):
    hub.add(
        NAME, files | {INDEX: b'{"weight_map": {"a": "../../../x.safetensors"}}', "../../../x.safetensors": b"x"}
    )
    refused(r"names the shard '\.\./\.\./\.\./x\.safetensors', but a shard lies in its index's folder")


def test_a_file_that_shrank_on_the_way(hub, monkeypatch):
    """The library goes by what the sending host tells; the length that the hub announced may be another."""
    announced = huggingface_hub.HfApi.model_info

    def longer(*args, **options):
        info = announced(*args, **options)
        for file in info.siblings:
            file.size += file.rfilename == SHARDS[0]
        return info

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", longer)
    refused(rf"{SHARDS[0]} has [\d,]+ bytes, but [\d,]+ on the hub")


class Secrets:
    """In place of google.colab.userdata."""

    def __init__(self, secret: str | Exception) -> None:
        self.secret = secret

    def get(self, name: str) -> str:
        assert name == "HF_TOKEN"
        if isinstance(self.secret, Exception):
            raise self.secret
        return self.secret


def on_colab(monkeypatch, secret: str | Exception) -> None:
    import types

    google, colab = types.ModuleType("google"), types.ModuleType("google.colab")
    colab.userdata = Secrets(secret)
    monkeypatch.setitem(sys.modules, "google", google)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setitem(sys.modules, "google.colab.userdata", colab.userdata)


def test_the_token_of_the_environment_goes_before_that_of_the_file_and_that_of_colab(hub, monkeypatch, tmp_path):
    assert hub_token() is None
    on_colab(monkeypatch, "hf_colab")
    assert hub_token() == "hf_colab"
    (tmp_path / "token").write_text("hf_file\n")
    assert hub_token() == "hf_file"
    monkeypatch.setenv("HF_TOKEN", " hf_environment\n")
    assert hub_token() == "hf_environment"


@pytest.mark.parametrize("error", [KeyError("HF_TOKEN"), TimeoutError(), AttributeError("no kernel")], ids=repr)
def test_a_secret_that_is_missing_or_refused_is_no_token(hub, monkeypatch, error):
    on_colab(monkeypatch, error)
    assert hub_token() is None
    download_model(NAME, report=quiet)


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        (
            KeyError("HF_TOKEN"),
            "is gated: accept its licence on .*, then put a token among this notebook's secrets",
        ),
        ("hf_wrong", "has expired: put a token among this notebook's secrets, as HF_TOKEN anew"),
    ],
    ids=["no secret", "wrong secret"],
)
def test_on_colab_the_remedy_is_a_secret(hub, monkeypatch, secret, words):
    """Nothing that is typed into a terminal."""
    hub.models[NAME].gated = True
    on_colab(monkeypatch, secret)
    refused(words)


def test_a_token_with_characters_that_no_token_has_is_not_sent(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "“hf_copied”")
    refused("the token of the Hugging Face Hub has characters that no token has: copy it anew")
    assert hub.requests == []


def test_the_token_opens_a_gated_model_and_is_not_shown_to_the_host_of_the_files(hub, files, whole, monkeypatch):
    hub.models[NAME].gated = True
    on_colab(monkeypatch, TOKEN)
    assert is_whole(download_model(NAME, report=quiet), files, whole)
    tokens = {path.split("/")[1] == "cdn": headers.get("Authorization") for _, path, _, headers in hub.requests}
    assert tokens == {False: f"Bearer {TOKEN}", True: None}
