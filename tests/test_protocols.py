import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from sre.errors import UnknownNameError
from sre.protocols import (
    PROTOCOLS,
    Protocol,
    as_pixels,
    find_protocol,
    prepare,
    present,
    present_orbit,
    soft_disc,
)
from sre.symmetry import disc_mask, rotate

DISC, PAPER = PROTOCOLS["disc"], PROTOCOLS["paper"]
BOTH = pytest.mark.parametrize("protocol", [DISC, PAPER], ids=lambda p: p.name)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_disc_is_the_first_protocol_and_entries_stand_under_their_names():
    assert next(iter(PROTOCOLS)) == "disc"
    for name, protocol in PROTOCOLS.items():
        assert find_protocol(name) is protocol
        assert protocol.name == name
        assert protocol.description.endswith(".")


@pytest.mark.parametrize(
    ("given_name", "message"),
    [
        ("disk", r"^unknown protocol 'disk'; did you mean 'disc'\?$"),
        ("x", r"^unknown protocol 'x'; choose from disc, paper$"),
    ],
)
def test_unknown_protocols_are_named(given_name, message):
    with pytest.raises(UnknownNameError, match=message):
        find_protocol(given_name)


def test_pixels_go_from_0_to_1_with_channels_first():
    colours = np.array([[[[0, 51, 255]]]], np.uint8)
    assert as_pixels(colours).flatten().tolist() == pytest.approx([0, 0.2, 1])
    assert as_pixels(colours).shape == (1, 3, 1, 1)
    assert as_pixels(colours[..., 0]).shape == (1, 1, 1, 1)


def test_preparing_leaves_the_callers_pixels_alone():
    images = noise(2, 28, 28)
    images.flags.writeable = False  # as those of a split are
    pixels = prepare(images, DISC, side_px=28)
    pixels.zero_()
    assert images.any()


def test_disc_keeps_the_side_of_the_training_and_paper_takes_32_px():
    images = noise(2, 28, 28, 3)
    assert prepare(images, DISC, side_px=28).shape == (2, 3, 28, 28)
    assert prepare(images, DISC, side_px=40).shape == (2, 3, 40, 40)
    assert prepare(images, PAPER, side_px=28).shape == (2, 3, 32, 32)


@BOTH
def test_a_plain_grey_stays_that_grey_when_resized(protocol):
    pixels = prepare(np.full((1, 28, 28), 51, np.uint8), protocol, side_px=28)
    torch.testing.assert_close(pixels, torch.full_like(pixels, 0.2))


def test_images_that_are_not_square_are_brought_to_one():
    assert prepare(noise(1, 20, 40), DISC, side_px=28).shape == (1, 1, 28, 28)


@given(
    side=st.integers(10, 70),
    side_px=st.integers(24, 64),
    turns=st.integers(0, 3),
    mirror=st.booleans(),
)
def test_resizing_commutes_with_quarter_turns_and_mirrors(side, side_px, turns, mirror):
    images = noise(1, side, side)
    moved = np.rot90(images[:, :, ::-1] if mirror else images, turns, (1, 2)).copy()
    resized = prepare(images, DISC, side_px=side_px)
    expected = torch.rot90(resized.flip(-1) if mirror else resized, turns, (-2, -1))
    assert (prepare(moved, DISC, side_px=side_px) - expected).abs().max() < 1e-5


@BOTH
def test_the_corners_fill_with_what_the_convolutions_pad_with(protocol):
    white = prepare(np.full((1, 32, 32), 255, np.uint8), protocol, side_px=32)
    x = present(white, protocol, angle_deg=45.0)
    assert x[0, 0, 0, 0] == 0
    assert x[0, 0, 16, 16] == 1


def test_disc_masks_the_corners_also_upright_and_paper_does_not():
    white = prepare(np.full((1, 28, 28), 255, np.uint8), DISC, side_px=28)
    seen = present(white, DISC, angle_deg=0.0)[0, 0]
    assert torch.equal(seen > 0, disc_mask(28, 28))
    assert (seen[~disc_mask(28, 28)] == 0).all()
    assert (present(white, PAPER, angle_deg=0.0) == 1).all()


def test_the_disc_fades_over_its_last_pixel():
    weight = soft_disc(28)
    radius = torch.hypot(*torch.meshgrid(*[torch.arange(28) - 13.5] * 2, indexing="ij"))
    assert (weight[radius <= 13] == 1).all()
    assert (weight[radius >= 14] == 0).all()
    edge = weight[(radius > 13) & (radius < 14)]
    assert ((edge > 0) & (edge < 1)).all()
    assert torch.equal(weight, torch.rot90(weight))


def test_paper_takes_the_nearest_pixel_and_disc_a_mean_of_four():
    pixels = (torch.rand(1, 1, 32, 32) > 0.5).float()
    assert set(present(pixels, PAPER, angle_deg=30.0).unique().tolist()) == {-1, 0, 1}
    assert len(present(pixels, DISC, angle_deg=30.0).unique()) > 50


@BOTH
@given(turns=st.integers(-4, 8), side=st.integers(24, 40), seed=st.integers(0, 9))
def test_quarter_turns_only_move_pixels(protocol, turns, side, seed):
    torch.manual_seed(seed)
    pixels = torch.rand(2, 3, side, side)
    upright = present(pixels, protocol, angle_deg=0.0)
    turned = present(pixels, protocol, angle_deg=90.0 * turns)
    assert torch.equal(turned, torch.rot90(upright, turns, (-2, -1)))


@BOTH
def test_other_angles_do_interpolate(protocol):
    pixels = torch.rand(1, 1, 28, 28)
    upright, turned = (present(pixels, protocol, angle_deg=a) for a in (0.0, 45.0))
    assert (upright.sort().values - turned.sort().values).abs().max() > 0.01


def test_angles_are_counter_clockwise_as_displayed():
    pixels = torch.zeros(1, 1, 28, 28)
    pixels[..., 13:15, 20:24] = 1  # right of the middle
    for protocol in (DISC, PAPER):
        quarter = present(pixels, protocol, angle_deg=90.0)
        assert quarter[0, 0, 4:8, 13:15].min() == 1  # above it
        eighth = present(pixels, protocol, angle_deg=45.0)
        assert eighth[0, 0, :14, 14:].max() > 0  # upper right
        assert eighth[0, 0, 15:, :].max() <= 0


@BOTH
def test_an_orbit_is_each_angle_alone(protocol):
    pixels = torch.rand(1, 3, 28, 28)
    angles = [0.0, 5.0, 90.0, 355.0]
    orbit = present_orbit(pixels, protocol, angles)
    assert_array_equal(
        orbit, torch.cat([present(pixels, protocol, angle_deg=angle) for angle in angles])
    )


def test_a_protocol_is_made_of_its_parts():
    """Present by hand: normalise, turn, mask."""
    odd = Protocol("odd", "Odd", "For this test.", 24, "nearest", True)
    pixels = torch.rand(1, 1, 24, 24)
    turned = rotate((pixels - 0.5) / 0.5, angle_deg=30.0, interpolation="nearest")
    assert torch.equal(present(pixels, odd, angle_deg=30.0), turned * soft_disc(24))
