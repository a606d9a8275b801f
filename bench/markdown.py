"""Tables of Markdown, and figures in words."""

from collections.abc import Mapping, Sequence
from typing import Any


def table(header: str, rows: list[list[str]], *, right: set[int]) -> str:
    """Write a table: header cells with " | " between them, and which columns stand to the right."""
    columns = header.split(" | ")
    rule = ["---:" if number in right else "---" for number in range(len(columns))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (columns, rule, *rows))


def percent(share: float) -> str:
    """Write a share in percent, with one digit after the point."""
    return f"{100 * share:.1f}"


def shares(found: Mapping[str, float]) -> str:
    """Write a share with its interval, in percent."""
    return "{} ({} to {})".format(*(percent(found[name]) for name in ("value", "low", "high")))


def area(found: Mapping[str, float]) -> str:
    """Write an area under the curve with its interval."""
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def points(found: Mapping[str, float]) -> str:
    """Write a difference of shares with its interval, in points."""
    value, low, high = (f"{100 * found[name]:+z.1f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def span(values: Sequence[Any], form: str) -> str:
    """Write from the least to the most of some values, or the one that they all are."""
    low, high = (format(x, form) for x in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
