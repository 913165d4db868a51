"""Numbers and foreign text as readers see them."""

from __future__ import annotations

import math
import unicodedata

MISSING = "\N{EN DASH}"
"""Stands where nothing was measured; a page that uses it says so."""

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_TIMES = "\N{MULTIPLICATION SIGN}"
_KEPT = frozenset("\n\t")
_HIDDEN = frozenset({"Cc", "Cs", "Co", "Cn"})
_BIDI = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


def clean(text: str) -> str:
    """Replace what no reader can see: control characters, lone surrogates, direction overrides.

    Site names, labels and paths come out of files that strangers wrote. An escape sequence must not
    reach the terminal, and a surrogate must not stop the page from being encoded.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        "\ufffd"
        if character not in _KEPT
        and (character in _BIDI or unicodedata.category(character) in _HIDDEN)
        else character
        for character in text
    )


def one_line(text: str) -> str:
    """``text`` cleaned, with every run of white space as one blank."""
    return " ".join(clean(text).split())


def shorten(text: str, width: int) -> str:
    """At most ``width`` characters, the middle left out: both ends of a module path matter."""
    text = one_line(text)
    if len(text) <= width:
        return text
    tail = (width - 1) * 2 // 3
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


def broken(metric_id: str, width: int) -> str:
    """The id in lines of about ``width``, broken at its dots only: a torn word is no id.

    Example:
        >>> print(broken("composite.forward.amax.mean", 18))
        composite.forward
          .amax.mean
    """
    lines = [""]
    for k, part in enumerate(metric_id.split(".")):
        piece = part if k == 0 else f".{part}"
        if lines[-1].strip() and len(lines[-1]) + len(piece) > width:
            lines.append("  ")
        lines[-1] += piece
    return "\n".join(lines)


def superscript(exponent: int) -> str:
    """``3`` -> ``³``."""
    return str(exponent).translate(_SUPERSCRIPT)


def power(exponent: int) -> str:
    """A power of ten as an axis shows it: 0.01, 0.1, 1, 10, 100, then 10³ and 10⁻³ on."""
    if -2 <= exponent <= 2:
        return f"{10.0**exponent:g}"
    return f"10{superscript(exponent)}"


def number(value: float | None, *, plain: bool = False) -> str:
    """Three significant digits, more where they are needed to tell a gain from 1.

    Args:
        value: None is "not measured".
        plain: write 1.23e+05 instead of a power of ten (terminals, Markdown).

    >>> number(36.5123), number(1.00002), number(3012.4), number(1.0)
    ('36.5', '1.000020', '3012', '1.00')
    """
    if value is None:
        return MISSING
    if value == 0 or not math.isfinite(value):
        return f"{value + 0.0:g}"
    size = abs(value)
    if 1e-3 <= size < 1e5:
        return _decimal(value, size)
    mantissa, exponent = f"{value:.2e}".split("e")
    if plain:
        return f"{mantissa}e{int(exponent):+03d}"
    return f"{mantissa}{_TIMES}10{superscript(int(exponent))}"


def _decimal(value: float, size: float) -> str:
    """A plain decimal; within 1 % of 1 the deviation gets its digits, down to 1e-6."""
    deviation = abs(size - 1.0)
    if 5e-7 <= deviation < 0.01:
        return f"{value:.{min(6, 1 - math.floor(math.log10(deviation)))}f}"
    digits = max(0, 2 - math.floor(math.log10(size)))
    return f"{value:.{digits}f}"


def count(amount: int, noun: str) -> str:
    """``1 site``, ``2 sites``."""
    return f"{amount} {noun}" if amount == 1 else f"{amount} {noun}s"


def listed(items: list[str], *, at_most: int = 8) -> str:
    """``a, b and c``; what is left off is counted."""
    if len(items) > at_most:
        return f"{', '.join(items[:at_most])} and {len(items) - at_most} more"
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)
