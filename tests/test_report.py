import math

import pytest

from sre.report import EquivarianceReport, LayerCheck

NAN, INF = math.nan, math.inf
EXACT = LayerCheck("conv", "SREConv2d", (1, 4, 9, 9), 2e-7, 3e-7, (0.0123, 12.3), (0.02, 0.03))
BROKEN = LayerCheck(
    "pool", "MaxPool2d", (1, 4, 4, 4), 0.0, 0.61, (0.5, INF), (0.1, 0.1), "it is made so"
)
HEIR = LayerCheck("head", "Linear", (1, 10), INF, 0.2, (0.0, 1e-5), (NAN, NAN))
OTHER = LayerCheck("attention", "Attention", (1, 81, 4), NAN, NAN, (NAN, NAN), (NAN, NAN))
GONE = LayerCheck("mean", "Mean", (1,), 5e-5, 0.0, (0.0, 0.0), (NAN, NAN))


def report(*rows: LayerCheck) -> EquivarianceReport:
    return EquivarianceReport(rows, (30.0, 22.5), (1, 3, 9, 9), 1e-4)


def test_the_first_that_breaks():
    assert report(EXACT, OTHER, BROKEN, HEIR).first_broken is BROKEN
    assert report(EXACT, OTHER, BROKEN, HEIR).broken == (BROKEN, HEIR)
    assert not report(EXACT, BROKEN).is_exact
    assert report(EXACT, OTHER, GONE).first_broken is None
    assert report(EXACT, OTHER, GONE).is_exact


@pytest.mark.parametrize(
    ("rows", "headline"),
    [
        (
            [EXACT],
            "Exact: at 9x9 every output turns and mirrors with the input, to 3e-07 (outputs: 1).",
        ),
        (
            [EXACT, OTHER],
            "Exact: at 9x9 every output turns and mirrors with the input, to 3e-07 (outputs: 1, 1 "
            "of other shapes not compared).",
        ),
        (
            [EXACT, BROKEN, HEIR],
            "Not exact: at 9x9 pool (MaxPool2d) is the first to break, with an error of 0.61: it "
            "is made so (outputs after it that inherit the error: 1 of 1).",
        ),
        (
            [EXACT, BROKEN, HEIR, OTHER, GONE],
            "Not exact: at 9x9 pool (MaxPool2d) is the first to break, with an error of 0.61: it "
            "is made so (outputs after it that inherit the error: 1 of 3, 1 of other "
            "shapes not compared).",
        ),
        (
            [BROKEN],
            "Not exact: at 9x9 pool (MaxPool2d) is the first to break, with an error of 0.61: it "
            "is made so (outputs after it that inherit the error: 0 of 0).",
        ),
    ],
    ids=lambda value: str(len(value)),
)
def test_headlines(rows, headline):
    assert report(*rows).headline == headline


def test_the_table():
    assert report(EXACT, OTHER, BROKEN, HEIR, GONE).table().splitlines() == [
        "  layer     type      output turns mirror   30° floor 22.5° floor",
        "  conv      SREConv2d  4x9x9 2e-07  3e-07 0.012 0.020 12.30 0.030",
        "  attention Attention   81x4     -      -     -     -     -     -",
        "> pool      MaxPool2d  4x4x4     0  0.610 0.500 0.100   inf 0.100",
        ". head      Linear        10   inf  0.200     0     - 1e-05     -",
        "  mean      Mean           1 5e-05      0     0     -     0     -",
    ]


@pytest.mark.parametrize("width", [72, 76, 80, 100])
def test_the_table_fits_the_terminal(width):
    long = LayerCheck(
        "features.stage1.block0.convolution1", "AdaptiveAvgPool2d", (2, 128, 14, 14),
        0.5, 0.5, (0.1, 0.1), (0.1, 0.1), "so",
    )  # fmt: skip
    lines = report(long, HEIR).table(width=width).splitlines()
    assert {len(line) for line in lines} == {width}
    assert "onvolution1" in lines[1]
    assert "…" in lines[1]
    assert "Adapti" in lines[1] or "Adapt…" in lines[1]
