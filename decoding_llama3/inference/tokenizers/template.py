"""The chat template of an instruct model: Jinja, from a file that nobody has checked."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decoding_llama3.inference.tokenizers.formats import FORMATS
from decoding_llama3.inference.tokenizers.needed import needed
from decoding_llama3.inference.tokenizers.render import Refused, render
from decoding_llama3.json_files import shown
from decoding_llama3.tokenizer import Tokenizer, checked_messages

LARGEST_TEMPLATE = 64 * 2**10  # bytes
SECONDS = 2.0
_KNOWN = frozenset(  # SHA-256 of templates that were read by us: they run in this process, at once
    {"872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788"}  # SmolLM2
)
# No characters, and so in no text: one breaks the names of special tokens in a message, one stands around numbers.
_BREAK, _MARK = "\ufdd0", "\ufdd1"
_IDS = re.compile(f"{_MARK}\\d+{_MARK}")


@dataclass(frozen=True)
class ChatTemplate:
    """A template and where it is from, a file or the model that has this format.

    More than 64 KB, or none at all, raises ValueError.
    """

    text: str
    source: str

    def __post_init__(self) -> None:
        if not self.text.strip() or len(self.text.encode()) > LARGEST_TEMPLATE:
            raise ValueError(
                f"the chat template in {self.source} has {len(self.text.encode()):,} bytes, expected 1 to "
                f"{LARGEST_TEMPLATE:,}"
            )

    def encode(self, messages: Iterable[dict[str, Any]], tokenizer: Tokenizer) -> list[int]:
        """The ids of a chat, up to where the next answer starts.

        The name of a special token in the text of a message stays text; a content of ids stays these ids. Raises
        ValueError where the template refuses the messages, is wrong, or takes too long.
        """
        messages = checked_messages(messages)
        names = sorted(filter(None, tokenizer.special_ids), key=len, reverse=True)
        special = re.compile("|".join(map(re.escape, names)) or r"(?!)")
        shown = [{**m, "content": _shown(i, m["content"], special)} for i, m in enumerate(messages)]
        bos, eos = (tokenizer.decode([token]) for token in (tokenizer.bos_id, tokenizer.eos_id))
        text = self._render({"messages": shown, "bos_token": bos, "eos_token": eos})
        ids: list[int] = []
        for part in re.split(f"({special.pattern}|{_IDS.pattern})", text):
            if special.fullmatch(part):
                ids.append(tokenizer.special_ids[part])
            elif found := _IDS.fullmatch(part):
                ids += messages[int(found[0][1:-1])]["content"]
            elif part:
                ids += tokenizer.encode(part.replace(_BREAK, ""))
        return ids

    def _render(self, variables: dict[str, Any]) -> str:
        needed("jinja2", "a chat template")
        variables = {"add_generation_prompt": True, "tools": None, "documents": None} | variables
        if self.text in FORMATS or hashlib.sha256(self.text.encode()).hexdigest() in _KNOWN:
            try:
                return render(self.text, variables)
            except Refused as refusal:
                raise self._refusal(str(refusal)) from None
        result = self._render_apart(variables)
        if "text" not in result:
            raise (
                self._refusal(result["refused"]) if "refused" in result else self._fault(str(result.get("failed")))
            )
        return result["text"]

    def _render_apart(self, variables: dict[str, Any]) -> dict[str, Any]:
        """In a process of its own, which gets the template once it is ready, and then has `SECONDS` for it."""
        root = str(Path(__file__).parents[3])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        given = json.dumps({"template": self.text, "variables": variables})
        with subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.render"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
        ) as process:
            try:
                ready = process.stdout is not None and process.stdout.readline()
                return json.loads(process.communicate(given, timeout=SECONDS)[0]) if ready else {}
            except subprocess.TimeoutExpired:
                raise self._fault(f"it took more than {SECONDS:g} seconds and was stopped") from None
            except (ValueError, OSError):
                raise self._fault("it ended its process, perhaps for want of memory") from None
            finally:
                process.kill()

    def _refusal(self, reason: str) -> ValueError:
        return ValueError(f"the chat template in {self.source} refuses these messages: {shown(reason, 200)}")

    def _fault(self, reason: str) -> ValueError:
        return ValueError(f"the chat template in {self.source} cannot be used: {shown(reason, 200)}")


def _shown(number: int, content: str | list[int], special: re.Pattern) -> str:
    """What the template sees of a content: a text without special tokens, or a mark in place of ids."""
    if not isinstance(content, str):
        return f"{_MARK}{number}{_MARK}"
    clean = content.replace(_BREAK, "\ufffd").replace(_MARK, "\ufffd")
    return special.sub(lambda name: f"{name[0][0]}{_BREAK}{name[0][1:]}", clean)
