"""The chat template of an instruct model: Jinja, from a file that nobody has checked."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decoding_llama3.inference.checkpoint.untrusted import quoted
from decoding_llama3.inference.tokenizers.needed import needed
from decoding_llama3.inference.tokenizers.render import Refused, render

LARGEST_TEMPLATE = 64 * 2**10  # bytes
SECONDS = 2.0
_KNOWN = frozenset(  # SHA-256 of templates that were read by us: they run in this process, at once
    {"872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788"}  # SmolLM2
)
_BREAK = "\ufdd0"  # no character: stands in the names of special tokens that a message contains


@dataclass(frozen=True)
class ChatTemplate:
    """A template and where it is from. More than 64 KB, or none at all, raises ValueError."""

    text: str
    source: str

    def __post_init__(self) -> None:
        if not self.text.strip() or len(self.text.encode()) > LARGEST_TEMPLATE:
            raise ValueError(
                f"the chat template in {self.source} has {len(self.text.encode()):,} bytes, expected 1 to "
                f"{LARGEST_TEMPLATE:,}"
            )

    def segments(
        self, messages: list[dict[str, str]], special: Iterable[str], bos: str
    ) -> Iterator[tuple[str, str]]:
        """The chat as (name of a special token, "") and ("", text), up to where the next answer starts.

        ValueError where the template refuses the messages, is wrong, or takes too long.
        """
        names = sorted((name for name in special if name), key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, names)) or r"(?!)")
        safe = [
            {**message, "content": pattern.sub(_broken, message["content"].replace(_BREAK, "\ufffd"))}
            for message in messages
        ]
        text, at = self._render({"messages": safe, "bos_token": bos, "eos_token": ""}), 0
        for match in pattern.finditer(text):
            if match.start() > at:
                yield "", text[at : match.start()].replace(_BREAK, "")
            yield match[0], ""
            at = match.end()
        if at < len(text):
            yield "", text[at:].replace(_BREAK, "")

    def _render(self, variables: dict[str, Any]) -> str:
        needed("jinja2", "a chat template")
        variables = {"add_generation_prompt": True, "tools": None, "documents": None} | variables
        if hashlib.sha256(self.text.encode()).hexdigest() in _KNOWN:
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
        """In a process of its own, which is stopped after `SECONDS`."""
        root = str(Path(__file__).parents[3])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        given = json.dumps({"template": self.text, "variables": variables})
        try:
            run = subprocess.run(
                [sys.executable, "-m", f"{__package__}.render"],
                input=given,
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=SECONDS,
                env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
            )
            return json.loads(run.stdout)
        except subprocess.TimeoutExpired:
            raise self._fault(f"it took more than {SECONDS:g} seconds and was stopped") from None
        except ValueError:
            raise self._fault("it ended its process, perhaps for want of memory") from None

    def _refusal(self, reason: str) -> ValueError:
        return ValueError(f"the chat template in {self.source} refuses these messages: {quoted(reason, 200)}")

    def _fault(self, reason: str) -> ValueError:
        return ValueError(f"the chat template in {self.source} cannot be used: {quoted(reason, 200)}")


def _broken(name: re.Match) -> str:
    return f"{name[0][0]}{_BREAK}{name[0][1:]}"
