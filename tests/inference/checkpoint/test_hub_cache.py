"""The cache of the hub: which version a name means, what in it can be loaded, and how to complete it."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from decoding_llama3.inference.checkpoint.hub_cache import cached_model, cached_models, download_again, hub_cache

SETTINGS = ("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def put(cache: Path, name: str, *files: str, commit: str = "c0", main: bool = False) -> Path:
    folder = cache / f"models--{name.replace('/', '--')}"
    for file in files:
        path = folder / "snapshots" / commit / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    if main:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(commit)
    return folder / "snapshots" / commit


@pytest.mark.parametrize("variable", [None, *SETTINGS])
def test_the_cache_is_where_the_library_has_it(variable, monkeypatch, tmp_path):
    import importlib

    for other in SETTINGS:
        monkeypatch.delenv(other, raising=False)
    if variable:
        monkeypatch.setenv(variable, "~/$PLACE/cache")
        monkeypatch.setenv("PLACE", "here")
    try:
        assert str(hub_cache()) == importlib.reload(constants).HF_HUB_CACHE
    finally:
        monkeypatch.undo()
        importlib.reload(constants)


@pytest.mark.parametrize(
    ("files", "place"),
    [
        (["config.json", "model.safetensors"], "."),
        (["config.json"], "."),
        (["params.json", "consolidated.00.pth"], "."),
        (["original/params.json", "original/consolidated.00.pth"], "original"),
        (["original/params.json", "original/consolidated.00.pth", "config.json"], "original"),
        (["original/params.json"], "original"),
        (["config.json", "x.safetensors", "original/params.json", "original/consolidated.00.pth"], "."),
        (["x.gguf"], "x.gguf"),
        (["x.gguf", "config.json"], "x.gguf"),
        (["deep/x.gguf"], "deep/x.gguf"),
        (["x.gguf", "y.gguf"], "."),
        (["tokenizer.json"], None),
        (["pytorch_model.bin"], None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_a_name_means(cache, files, place):
    """Other programs leave there what they need, such as a tokenizer alone."""
    snapshot = put(cache, "some/model", *files)
    assert cached_model("some/model") == (None if place is None else snapshot / place)


def test_a_name_means_the_main_branch_or_the_only_version(cache):
    put(cache, "some/model", "config.json", commit="c1")
    assert cached_model("some/model").name == "c1"
    put(cache, "some/model", "config.json", commit="c2")
    with pytest.raises(ValueError, match=r"several versions of some/model, .* pass one of them, such as .*/c1"):
        cached_model("some/model")
    put(cache, "some/model", "config.json", commit="c3", main=True)
    assert cached_model("some/model").name == "c3"
    put(cache, "some/model", "tokenizer.json", commit="c4", main=True)
    with pytest.raises(ValueError, match="several versions"):
        cached_model("some/model")


@pytest.mark.parametrize("content", [b"../../x", b"", b"\xff", b"gone"])
def test_a_damaged_note_of_the_main_branch_leads_nowhere(cache, content):
    snapshot = put(cache, "some/model", "config.json", main=True)
    (snapshot.parents[1] / "refs" / "main").write_bytes(content)
    assert cached_model("some/model") == snapshot


@pytest.mark.parametrize("name", ["model", "a/b/c", "../x", "a/..", "", "some\\model", "a/b\n", "x/" + "y" * 99])
def test_what_is_no_name_means_nothing(cache, name):
    put(cache, "some/model", "config.json")
    assert cached_model(name) is None


def test_all_models_are_found_with_their_names(cache):
    put(cache, "some/model", "config.json", main=True)
    put(cache, "some--one/a--b", "x.gguf", "y.gguf")
    (cache / "datasets--some--texts" / "snapshots" / "c0").mkdir(parents=True)
    found = [(name, place.name) for name, place in cached_models()]
    assert ("some/model", "c0") in found
    assert [place for _, place in found if place.endswith(".gguf")] == ["x.gguf", "y.gguf"]
    assert len(found) == 3


def test_the_command_that_completes_it(cache, tmp_path):
    snapshot = put(cache, "some/model", "config.json")
    assert download_again(snapshot / "x.safetensors") == "run 'decoding-llama3 download some/model' again"
    assert download_again(snapshot / "original") == "run 'decoding-llama3 download some/model' again"
    file = snapshot / "deep" / "x.gguf"
    assert download_again(file) == "run 'decoding-llama3 download some/model --file deep/x.gguf' again"
    put(cache, "some/model", "config.json", commit="c1", main=True)
    assert download_again(snapshot) == "run 'decoding-llama3 download some/model --revision c0' again"
    for elsewhere in (Path("model.safetensors"), tmp_path / "x", tmp_path.parent, Path("/x/snapshots/c0/y")):
        assert download_again(elsewhere, "all") == "download all again"
