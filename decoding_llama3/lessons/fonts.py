"""What figures write for a token, also where no installed font has its characters."""

import re

from matplotlib import font_manager

FALLBACKS = (  # of Linux, macOS and Windows, for the scripts that Matplotlib's own font lacks
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Noto Sans Devanagari",
    "Nirmala UI",
    "Arial Unicode MS",
    "Noto Emoji",
    "Segoe UI Emoji",
)


def font_families() -> list[str]:
    """Matplotlib's own font, then those of `FALLBACKS` that are installed: a family that is not would warn."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in FALLBACKS if name in installed)]


def drawable(text: str) -> str:
    """`text` for a figure: its code point, <U+738B>, for a character that no font has; $ starts no formula."""
    fonts = [font_manager.get_font(font_manager.findfont(family)) for family in font_families()]

    def has(character: str) -> bool:
        return character in " \n" or any(font.get_char_index(ord(character)) for font in fonts)

    shown = "".join(c if has(c) else f"<U+{ord(c):04X}>" for c in text)
    return re.sub(r"(?<!\\)\$", r"\\$", shown)


def readable(token: bytes) -> str:
    """The text of a token's bytes; if they are not whole characters, their values, such as <E7><8E>."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "".join(f"<{byte:02X}>" for byte in token)


def token_label(token: bytes | str) -> str:
    """What a figure writes for a token: drawable, with space and line end made visible."""
    text = token if isinstance(token, str) else readable(token)
    return drawable(text.replace(" ", "␣").replace("\n", "⏎"))
