"""Llama 3's tokenizer, with what the files beside it say of chats and of where texts end."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from decoding_llama3.inference.tokenizers.huggingface import chat_template, stop_ids
from decoding_llama3.tokenizer import Tokenizer


class Llama3Tokenizer(Tokenizer):
    """The tokenizer in Meta's `tokenizer.model`; chats follow the template in `directory`, if there is one."""

    def __init__(self, path: Path, added_tokens: Sequence[str] = (), directory: Path | None = None) -> None:
        super().__init__(path, added_tokens)
        self.template = chat_template(directory)
        self.stop_ids = tuple(sorted({*self.stop_ids, *stop_ids(directory)}))

    def encode_chat(self, messages: Iterable[dict]) -> list[int]:
        """Ids of messages, up to where the next answer starts; ValueError where the template refuses them."""
        if self.template is None:
            return super().encode_chat(messages)
        return self.template.encode(messages, self)
