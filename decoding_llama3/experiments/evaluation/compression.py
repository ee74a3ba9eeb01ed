"""Bits per byte of a text by compressors that have read the same training text."""

import gzip
import lzma

_LEAST_DICTIONARY = 64 * 2**20  # bytes; what xz -9 has
_XZ_PRESET = 9 | lzma.PRESET_EXTREME


def compressed_bits_per_byte(training: bytes, text: bytes) -> dict[str, dict[str, float]]:
    """Bits per byte of `text` by gzip -9 and xz -9e: alone, and what it adds to the size after `training`.

    The dictionary of xz holds both texts and has at least 64 MiB. gzip looks back 32 KiB whatever stands
    before. An empty text raises ValueError.
    """
    if not text:
        raise ValueError("the text to compress is empty: give at least one byte")
    filters = [{"id": lzma.FILTER_LZMA2, "preset": _XZ_PRESET, "dict_size": dictionary_bytes(training, text)}]
    compressors = {
        "gzip": lambda data: len(gzip.compress(data, 9, mtime=0)),
        "xz": lambda data: len(lzma.compress(data, filters=filters)),
    }
    bits = 8 / len(text)
    return {
        name: {"alone": size(text) * bits, "after_training": (size(training + text) - size(training)) * bits}
        for name, size in compressors.items()
    }


def dictionary_bytes(training: bytes, text: bytes) -> int:
    """Of xz: both texts fit in it, and it is never smaller than that of xz -9."""
    return max(_LEAST_DICTIONARY, len(training) + len(text))
