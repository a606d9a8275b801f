"""The page's arithmetic against the library's: both turn the same way."""

import numpy as np
import pytest
import torch

from pages import evaluate, lab, train
from pages.component import ASSETS, STYLES, asset, head, join_scripts
from sre.symmetry import disc_mask, rotate

SCRIPTS = (*lab.SCRIPTS, *train.SCRIPTS, *evaluate.SCRIPTS)
TEMPLATES = ("lab/lab.html", "train/train.html", "evaluate/evaluate.html")
pytestmark = pytest.mark.browser


@pytest.fixture
def tab(browser):
    with browser.new_context() as context:
        yield context.new_page()


@pytest.mark.parametrize("angle", [0, 5, 35, 45, 90, 135, 180, 270, 355])
@pytest.mark.parametrize("side", [4, 7, 28])
def test_turns_like_the_library(tab, side, angle):
    values = np.random.default_rng(side).integers(0, 256, (side, side))
    found = tab.evaluate(
        f"([values, side, angle]) => {{ {asset('lab/turn.js')}"
        " const out = new Float32Array(side * side); turnTile(values, 0, side, angle, out);"
        " return [...out]; }",
        [values.ravel().tolist(), side, angle],
    )
    image = torch.from_numpy(values)[None, None].double()
    expected = rotate(image, angle_deg=angle)[0, 0].numpy()
    inside = disc_mask(side, side).numpy().astype(bool)
    assert np.abs(np.reshape(found, (side, side)) - expected)[inside].max() < 0.01


@pytest.mark.parametrize("side", [4, 7, 14, 28])
def test_masks_like_the_library(tab, side):
    inside = tab.evaluate(
        f"(side) => {{ {asset('lab/turn.js')} return [...turnTable(side, 0).inside]; }}", side
    )
    assert np.array_equal(np.reshape(inside, (side, side)), disc_mask(side, side).numpy())


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("count(252408)", "252 thousand"), ("count(35100000)", "35.1 million"), ("count(12)", "12"),
        ("bytes(559580)", "560 kB"), ("bytes(35446400)", "35 MB"),
        ("figure(0)", "0"), ("figure(0.0123)", "0.012"), ("figure(0.0000003)", "3·10⁻⁷"),
        ("percent(0.985)", "98.5 %"), ("percent(1)", "100 %"),
        ("shortName('immature granulocytes(myelocytes)')", "immature granulocytes"),
    ],
)  # fmt: skip
def test_numbers_in_words(tab, expression, words):
    assert tab.evaluate(f"() => {{ {asset('shared/dom.js')} return {expression}; }}") == words


def test_every_script_is_used_and_every_asset_a_script_or_style():
    files = {path.relative_to(ASSETS).as_posix() for path in ASSETS.rglob("*.*")}
    assert files == {*SCRIPTS, *STYLES, *TEMPLATES}


def test_nothing_on_the_page_points_elsewhere():
    text = join_scripts(SCRIPTS) + head() + join_scripts(TEMPLATES)
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "innerHTML" not in text
