"""Texts on which tokenizers differ: numbers, blanks, scripts, half characters, names of special tokens."""

import random

PARTS = [
    *(" ", "  ", "\n", "\n\n", "\t", "\r\n", " \n ", "\u00a0", "\u3000", "\ufeff", "\u200b", "\u202e"),
    *("a", "The", " the", "THE", "don't", "I'll", "'S", "x=1;", "_", "__init__", "#", "//", "...", "—", "“", "”"),
    *("007", "1234567", "3.14159", "٣٤", "½", "²", "Ⅷ", "€", "\\n", "http://a.b/c?d=e"),
    *(
        "ß",
        "é",
        "e\u0301",
        "ﬁ",
        "İ",
        "Zürich",
        "naïve",
        "国王",
        "東京タワー",
        "한국어",
        "हिन्दी",
        "عربي",
        "עברית",
        "ไทย",
    ),
    *("🦊", "👨\u200d👩\u200d👧", "🇩🇪", "😀"),
    *("<|im_end|>", "<|endoftext|>", "<s>", "</s>", "[INST]"),
]


def hard_texts(n: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    texts = list(PARTS)
    while len(texts) < n:
        pieces = draw.choices(PARTS, k=draw.randrange(1, 12))
        if draw.random() < 0.5:
            pieces += [chr(draw.randrange(32, 0x3000)) for _ in range(4)] + [chr(draw.randrange(0x1F300, 0x1FA00))]
        draw.shuffle(pieces)
        texts.append("".join(pieces))
    return texts[:n]
