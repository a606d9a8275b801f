"""What an inspection of a network found, as rows, as a table and in a sentence."""

import math
from dataclasses import dataclass

LEGEND = (
    "Relative L2 errors, the largest of the batch. Quarter turns and mirrors: of whole maps.\n"
    "Other angles: within the disc; floor: of turning the map there and back alone.\n"
    '">" breaks first, "." inherits.'
)


@dataclass(frozen=True, slots=True)
class LayerCheck:
    """One output of a layer, with its errors relative to its norm, each the largest of the batch.

    Infinite where shapes differ or numbers are not finite; NaN where nothing could be compared: an
    output whose axes are neither (B, K) nor those of a map.

    >>> LayerCheck("pool", "MaxPool2d", (1, 8, 7, 7), quarter_turns=0.31, mirrors=0.29).exact_error
    0.31
    """

    name: str  # as in named_modules; "#2" for the second call, "[1]" for the second tensor
    kind: str  # class of the module
    shape: tuple[int, ...]
    quarter_turns: float
    mirrors: float
    angles: tuple[float, ...] = ()  # one an angle of the report
    floors: tuple[float, ...] = ()  # of turning there and back alone; NaN without spatial axes
    reason: str = ""  # where the network breaks first, the guess why

    @property
    def exact_error(self) -> float:
        """The larger of the errors that are zero, but for rounding, if the layer is exact."""
        return max(self.quarter_turns, self.mirrors)


@dataclass(frozen=True, slots=True)
class EquivarianceReport:
    """Every layer of a network in the order of execution, the network itself as the last.

    >>> pool = LayerCheck("pool", "AvgPool2d", (1, 8, 7, 7), quarter_turns=3e-7, mirrors=2e-7)
    >>> report = EquivarianceReport((pool,), (), (1, 3, 14, 14), tolerance=1e-4)
    >>> report.headline
    'Exact: at 14x14 every output turns and mirrors with the input, to 3e-07 (outputs: 1).'
    >>> print(report.table())
      layer type      output turns mirror
      pool  AvgPool2d  8x7x7 3e-07  2e-07
    """

    rows: tuple[LayerCheck, ...]
    angles_deg: tuple[float, ...]
    input_shape: tuple[int, ...]
    tolerance: float

    @property
    def broken(self) -> tuple[LayerCheck, ...]:
        """The layers that are not exact: the first to break, and its heirs."""
        return tuple(row for row in self.rows if row.exact_error > self.tolerance)

    @property
    def first_broken(self) -> LayerCheck | None:
        """The first layer that is not exact under quarter turns and mirrors, if there is one."""
        return next(iter(self.broken), None)

    @property
    def is_exact(self) -> bool:
        """Whether all layers commute with quarter turns and mirrors, to rounding, on this input."""
        return not self.broken

    @property
    def headline(self) -> str:
        """The finding in one sentence."""
        grid = "x".join(map(str, self.input_shape[2:]))
        errors = [row.exact_error for row in self.rows if not math.isnan(row.exact_error)]
        missing = len(self.rows) - len(errors)
        unseen = f", {missing} of other shapes not compared" if missing else ""
        first = self.first_broken
        if first is None:
            return (
                f"Exact: at {grid} every output turns and mirrors with the input, to "
                f"{max(errors, default=0.0):.0e} (outputs: {len(errors)}{unseen})."
            )
        after, heirs = len(self.rows) - self.rows.index(first) - 1, len(self.broken) - 1
        return (
            f"Not exact: at {grid} {first.name} ({first.kind}) is the first to break, with an "
            f"error of {first.exact_error:.2g}: {first.reason} (outputs after it that inherit the "
            f"error: {heirs} of {after}{unseen})."
        )

    def table(self, *, width: int = 80) -> str:
        """Give a line a layer, with ">" at the first that breaks and "." at its heirs.

        Names and types are shortened to fit the width, as far as that goes.
        """
        heads = ["layer", "type", "output", "turns", "mirror"]
        for angle in self.angles_deg:
            heads += [f"{angle:g}°", "floor"]
        marks, cells = [" "], [heads]
        for row in self.rows:
            is_broken, is_first = row in self.broken, row is self.first_broken
            marks.append(">" if is_first else "." if is_broken else " ")
            shape = "x".join(map(str, row.shape[1:])) or "1"
            pairs = [error for pair in zip(row.angles, row.floors, strict=True) for error in pair]
            errors = (row.quarter_turns, row.mirrors, *pairs)
            cells.append([row.name, row.kind, shape, *map(_figure, errors)])
        return _lay_out(marks, cells, width)


def _figure(error: float) -> str:
    """Write an error in five characters."""
    if math.isnan(error):
        return "-"
    if error == 0 or math.isinf(error):
        return f"{error:.0f}"
    if not 1e-3 <= error < 1e3:
        return f"{error:.0e}"
    return f"{error:.3f}"[:5]


def _lay_out(marks: list[str], cells: list[list[str]], width: int) -> str:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    excess = sum(widths) + len(widths) + 1 - width
    for column, least in ((1, 11), (0, 16), (1, 6)):
        cut = max(0, min(excess, widths[column] - least))
        widths[column], excess = widths[column] - cut, excess - cut
    lines = []
    for mark, (name, kind, *figures) in zip(marks, cells, strict=True):
        # The end of a name and the beginning of a type tell the most.
        name = name if len(name) <= widths[0] else "…" + name[1 - widths[0] :]
        kind = kind if len(kind) <= widths[1] else kind[: widths[1] - 1] + "…"
        texts = [figure.rjust(w) for figure, w in zip(figures, widths[2:], strict=True)]
        lines.append(" ".join([mark, name.ljust(widths[0]), kind.ljust(widths[1]), *texts]))
    return "\n".join(lines)
