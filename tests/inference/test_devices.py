"""Which device, and which dtype on it."""

import pytest
import torch

from decoding_llama3.inference.devices import check_device, choose_dtype, native_dtype


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        ((6, 0), torch.float16),
        ((7, 5), torch.float16),
        ((8, 0), torch.bfloat16),
        ((8, 9), torch.bfloat16),
        ((9, 0), torch.bfloat16),
        ((10, 0), torch.bfloat16),
    ],
)
def test_a_card_computes_in_bfloat16_from_capability_8_on(capability, dtype, monkeypatch):
    """Whatever `is_bf16_supported` says: on a T4 it says yes, and emulates."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr("decoding_llama3.inference.devices.check_device", lambda device: None)
    assert (
        choose_dtype("cuda") == choose_dtype(torch.device("cuda", 1)) == native_dtype("cuda", capability) == dtype
    )


def test_a_cpu_computes_in_float32_and_mps_in_float16():
    assert choose_dtype("cpu") == native_dtype("cpu") == torch.float32
    assert native_dtype("mps") == torch.float16


@pytest.mark.parametrize("device", ["hpu", "meta", "mkldnn", "cuda:77", "cuda:x", "", "gpu", "cpu:0:1"])
def test_a_device_that_runs_no_model_is_told_with_those_that_do(device):
    with pytest.raises(ValueError, match=r"^device '.*' cannot be used here \(.*\): use one of cpu") as caught:
        check_device(device)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="cannot be used here"):
        choose_dtype(device)


@pytest.mark.parametrize("device", [None, 5, 1.0, b"cpu", ["cpu"]])
def test_what_is_no_device_at_all_is_of_the_wrong_type(device):
    with pytest.raises(
        TypeError, match=r"^device is a string such as 'cpu' or 'cuda:0', or a torch\.device, found"
    ):
        check_device(device)


@pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu")])
def test_the_cpu_can_be_used(device):
    check_device(device)


def test_the_devices_told_are_those_of_the_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(ValueError, match=r"\(models run on [^.]*\): use one of cpu, cuda:0, cuda:1, mps$"):
        check_device("meta")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"[^.]\): use one of cpu$"):
        check_device("gpu")


def test_the_reason_why_a_device_cannot_be_used_is_one_sentence(monkeypatch):
    """Of torch's answer the first line, without its full stop."""

    def refuse(*shape, device):
        raise RuntimeError("The driver is too old.\nStack trace:\n  ...")

    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(ValueError, match=r"'cuda' cannot be used here \(The driver is too old\): use one of cpu"):
        check_device("cuda")
