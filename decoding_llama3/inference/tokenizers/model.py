"""What the tokenizers of all models have in common, beyond that of Llama 3."""

import warnings
from abc import abstractmethod
from collections.abc import Iterable

from decoding_llama3.inference.tokenizers.template import ChatTemplate
from decoding_llama3.tokenizer import Tokenizer, as_id

# A turn or a text ends with one of these, in whichever model has them: files that name only one of two are common.
ENDS = (
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|endoftext|>",
    "</s>",
)


class ModelTokenizer(Tokenizer):
    """A tokenizer that a checkpoint brings along, with the public face of Llama 3's.

    `adds_bos` says whether texts of this model begin with a special token: where they do not, `bos=True` adds
    none. `stop_ids` are the ids that the files name and those of `ENDS`. The `template` writes a chat as one text.
    """

    def __init__(
        self,
        n_vocab: int,
        special_ids: dict[str, int],
        bos_id: int | None,
        eos_id: int | None,
        adds_bos: bool,
        template: ChatTemplate | None = None,
        stop_ids: Iterable[int] = (),
    ) -> None:
        self.n_vocab, self.special_ids, self.template = n_vocab, special_ids, template
        self._names = {token: name for name, token in special_ids.items()}
        self.adds_bos = adds_bos and bos_id is not None
        ends = [special_ids[name] for name in ENDS if name in special_ids]
        self.eos_id = eos_id if eos_id is not None else ends[0] if ends else 0
        self.bos_id = bos_id if bos_id is not None else self.eos_id
        stated = [] if eos_id is None else [eos_id]
        self.stop_ids = tuple(sorted({*stated, *stop_ids, *ends}))

    def add(self, names: Iterable[str]) -> None:
        """Name the rows that an embedding has beyond the tokens; no text is encoded to them."""
        for name in names:
            self.special_ids[name], self._names[self.n_vocab] = self.n_vocab, name
            self.n_vocab += 1

    @abstractmethod
    def encode_ordinary(self, text: str) -> list[int]:
        """Ids of a text in which the names of special tokens stay text."""

    @abstractmethod
    def ordinary_bytes(self, token: int) -> bytes:
        """The bytes of a token that is not special."""

    def encode(self, text: str, bos: bool = False, eos: bool = False) -> list[int]:
        """Token ids of `text`; characters for which the model has no token are lost, which a warning says.

        Raises TypeError where `text` is no string, or `bos` or `eos` not True or False.
        """
        self._check_encode(text, bos, eos)
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if not text.isascii() else text
        if lost := self.characters_without_token(text):
            shown = ", ".join(map(ascii, lost[:5])) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
            warnings.warn(f"the model has no token for {shown}: lost from the text", stacklevel=2)
        return [self.bos_id] * (bos and self.adds_bos) + self.encode_ordinary(text) + [self.eos_id] * eos

    def characters_without_token(self, text: str) -> list[str]:
        """The characters of `text` that `encode` loses, each once."""
        return []

    def token_bytes(self, token: int) -> bytes:
        """The bytes one token stands for; a special token stands for its name."""
        token = as_id(token, self.n_vocab)
        return self._names[token].encode() if token in self._names else self.ordinary_bytes(token)

    def encode_chat(self, messages: Iterable[dict]) -> list[int]:
        """Ids of messages, up to where the next answer starts, as the model's template writes them.

        The name of a special token in the content of a message stays text. Raises ValueError where the model has
        no template, or its template refuses the messages.
        """
        if self.template is None:
            raise ValueError("the model has no chat template: a base model continues texts, use 'generate'")
        return self.template.encode(messages, self)
