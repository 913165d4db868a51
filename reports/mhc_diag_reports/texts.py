"""Numbers and foreign text as readers see them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable

MISSING = "\N{EN DASH}"
"""Stands where nothing was measured; a page that uses it says so."""

_MOST_DECIMALS = 6
_ONE = 5e-7
"""What is closer to 1 is 1 to six decimals."""
_NEAR = 0.01
"""Closer to 1 than this, the distance from 1 is what a reader looks for."""
_SHARED = 10.0
"""Below, numbers that stand together have the same decimals."""
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


def number(value: float | None, *, plain: bool = False, decimals: int | None = None) -> str:
    """One number that stands alone: three significant digits, more to tell a gain from 1.

    Within 1 % of 1 the distance from 1 gets two digits, down to 1e-6; what is 1 to six decimals
    says so by writing them all. Numbers that stand together are written by :func:`numbers`.

    Args:
        value: None is "not measured".
        plain: write 1.23e+05 instead of a power of ten (terminals, Markdown).
        decimals: those of the numbers beside it, from :func:`decimals_of`.

    >>> number(36.5123), number(1.00002), number(3012.4), number(1.0)
    ('36.5', '1.000020', '3012', '1.000000')
    """
    if value is None:
        return MISSING
    if value == 0 or not math.isfinite(value):
        return f"{value + 0.0:g}"
    size = abs(value)
    if 1e-3 <= size < 1e5:
        if size >= _SHARED:
            return f"{value:.{_three_digits(size)}f}"
        return f"{value:.{decimals_of([value]) if decimals is None else decimals}f}"
    mantissa, exponent = f"{value:.2e}".split("e")
    if plain:
        return f"{mantissa}e{int(exponent):+03d}"
    return f"{mantissa}{_TIMES}10{superscript(int(exponent))}"


def numbers(
    values: Iterable[float | None], *, plain: bool = False, apart: bool = True
) -> list[str]:
    """Numbers of one row, range or column, with the same number of decimals below 10.

    The decimals are enough to tell each from 1, and different ones from each other, but at most
    six. From 10 on a number has three significant digits, and outside 0.001 to 100000 a power of
    ten: decimals there would be noise. So ``1.00`` beside ``1.05`` is 1 to six decimals, and never
    a rounded 1.004.

    Args:
        values: as for :func:`number`.
        plain: the same.
        apart: whether different values must read differently; too much to ask of a long column.

    >>> numbers([0.99952, 1.03]), numbers([36.5, 1.0, 1.000037])
    (['0.99952', '1.03000'], ['36.5', '1.000000', '1.000037'])
    """
    held = list(values)
    decimals = decimals_of(held, apart=apart)
    return [number(value, plain=plain, decimals=decimals) for value in held]


def decimals_of(values: Iterable[float | None], *, apart: bool = True) -> int:
    """How many decimals :func:`numbers` gives to those below 10."""
    shared = [v for v in values if v is not None and 1e-3 <= abs(v) < _SHARED]
    needed = [_needed(abs(v)) for v in shared if abs(abs(v) - 1.0) >= _ONE]
    if not needed:
        return _MOST_DECIMALS if shared else 2
    decimals = max(needed)
    while apart and decimals < _MOST_DECIMALS and _look_alike(shared, decimals):
        decimals += 1
    return decimals


def _needed(size: float) -> int:
    """Decimals of a number that is not 1."""
    deviation = abs(size - 1.0)
    if deviation < _NEAR:
        return min(_MOST_DECIMALS, 1 - math.floor(math.log10(deviation) + 1e-9))
    return min(_MOST_DECIMALS, _three_digits(size))


def _three_digits(size: float) -> int:
    return max(0, 2 - math.floor(math.log10(size)))


def _look_alike(values: Iterable[float], decimals: int) -> bool:
    """Whether numbers that differ within six decimals read the same with fewer."""
    different = {f"{value:.{_MOST_DECIMALS}f}" for value in values}
    return len({f"{float(text):.{decimals}f}" for text in different}) < len(different)


def count(amount: int, noun: str) -> str:
    """``1 site``, ``2 sites``."""
    return f"{amount} {noun}" if amount == 1 else f"{amount} {noun}s"


def listed(items: list[str], *, at_most: int = 8) -> str:
    """``a, b and c``; what is left off is counted."""
    if len(items) > at_most:
        return f"{', '.join(items[:at_most])} and {len(items) - at_most} more"
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)
