import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sre.symmetry import (
    GRID_ACTIONS,
    VOLUME_ACTIONS,
    disc_mask,
    equivariance_error,
    grid_action,
    relative_error,
    rotate,
    rotate_each,
    rotate_orbit,
    rotate_volume,
)
from tests.images import band_limited, inner_disc

angles = st.floats(-720, 720, allow_nan=False)
sides = st.integers(1, 40)


def blob(height: int, width: int, *, right: float, up: float, sigma: float = 3.0) -> Tensor:
    """A Gaussian spot, so many pixels to the right of and above the centre."""
    y = (height - 1) / 2 - torch.arange(height, dtype=torch.float64)
    x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    square = (y[:, None] - up) ** 2 + (x[None, :] - right) ** 2
    return torch.exp(-square / (2 * sigma**2))[None, None]


# Conventions


def test_ninety_degrees_turn_counter_clockwise():
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    turned = rotate(image, angle_deg=90)
    assert turned[0, 0].tolist() == [[2.0, 4.0], [1.0, 3.0]]
    assert torch.equal(turned, torch.rot90(image, 1, (-2, -1)))


def test_forty_five_degrees_turn_right_into_upper_right():
    turned = rotate(blob(41, 41, right=12, up=0), angle_deg=45)[0, 0]
    row, column = divmod(int(turned.argmax()), 41)
    assert (20 - row, column - 20) == (8, 8)  # 12 / sqrt(2) = 8.5


def test_a_grid_action_mirrors_then_turns():
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert grid_action(mirror=True)(image).tolist() == [[2.0, 1.0], [4.0, 3.0]]
    assert grid_action(quarter_turns=1, mirror=True)(image).tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert grid_action(quarter_turns=5) == grid_action(quarter_turns=1)


def test_the_grid_symmetries_are_eight():
    image = torch.arange(9.0).view(3, 3)
    assert len({tuple(action(image).flatten().tolist()) for action in GRID_ACTIONS}) == 8


# Rotation


@given(turns=st.integers(-9, 9), height=sides, width=sides, seed=st.integers(0, 2**16))
def test_quarter_turns_only_move_pixels(turns, height, width, seed):
    torch.manual_seed(seed)
    image = torch.randn(2, 1, height, width)
    turned = rotate(image, angle_deg=90.0 * turns, fill=7.0)
    assert torch.equal(turned, torch.rot90(image, turns, (-2, -1)))


@pytest.mark.parametrize(("height", "width"), [(41, 41), (40, 40), (41, 60), (60, 40)])
@given(angle_deg=angles, radius=st.floats(0, 10), direction_deg=st.floats(0, 360))
def test_a_spot_goes_where_trigonometry_says(height, width, angle_deg, radius, direction_deg):
    def spot(height: int, width: int, deg: float) -> Tensor:
        rad = math.radians(deg)
        return blob(height, width, right=radius * math.cos(rad), up=radius * math.sin(rad))

    turned = rotate(spot(height, width, direction_deg), angle_deg=angle_deg)
    expected = spot(*turned.shape[-2:], direction_deg + angle_deg)
    # Bilinear interpolation flattens a spot of sigma 3 by at most 1 / (4 * 9) = 0.028.
    assert (turned - expected).abs().amax() < 0.03


@given(angle_deg=angles.filter(lambda a: a % 90), height=sides, width=sides)
def test_between_quarter_turns_the_size_stays(angle_deg, height, width):
    assert rotate(torch.zeros(1, 2, height, width), angle_deg=angle_deg).shape[-2:] == (
        height,
        width,
    )


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_what_comes_from_outside_is_the_fill(interpolation):
    image = torch.full((1, 3, 20, 20), 5.0)
    turned = rotate(image, angle_deg=45, interpolation=interpolation, fill=-2.0)
    corners = turned[..., [0, 0, -1, -1], [0, -1, 0, -1]]
    torch.testing.assert_close(corners, torch.full_like(corners, -2.0))
    torch.testing.assert_close(turned[..., 5:15, 5:15], image[..., 5:15, 5:15])


@given(angle_deg=angles)
def test_nearest_invents_no_value(angle_deg):
    image = torch.arange(1.0, 101.0).view(1, 1, 10, 10)
    turned = rotate(image, angle_deg=angle_deg, interpolation="nearest")
    assert set(turned.flatten().tolist()) <= set(range(101))


@pytest.mark.parametrize("angle_deg", [5, 30, 45, 77])
def test_there_and_back_is_the_identity_for_smooth_images_only(angle_deg):
    def there_and_back(image: Tensor) -> float:
        back = rotate(rotate(image, angle_deg=angle_deg), angle_deg=-angle_deg)
        return float(relative_error(back, image, inner_disc(65, margin=2)))

    # Measured over 20 seeds: smooth 0.012 to 0.017, noise 0.61 to 0.65.
    assert there_and_back(band_limited(65)) < 0.025
    assert there_and_back(torch.randn(1, 2, 65, 65, dtype=torch.float64)) > 0.5


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_an_orbit_holds_one_image_an_angle(interpolation):
    image = torch.randn(1, 3, 12, 12)
    degrees = [0.0, 5.0, 90.0, 200.0, 270.0]
    orbit = rotate_orbit(image, degrees, interpolation=interpolation, fill=0.5)
    for turned, angle in zip(orbit, degrees, strict=True):
        alone = rotate(image, angle_deg=angle, interpolation=interpolation, fill=0.5)
        assert torch.equal(turned, alone[0])


def test_an_orbit_needs_a_square_image():
    with pytest.raises(ValueError, match=r"needs a square image, got 4x6; crop it first"):
        rotate_orbit(torch.zeros(1, 1, 4, 6), [0.0])


@given(
    degrees=st.lists(st.sampled_from([0, 5, 90, 123, 180, 265, 270, 355]), min_size=1, max_size=5),
    side=st.integers(2, 20),
)
def test_each_map_is_turned_by_its_own_angle(degrees, side):
    maps = torch.randn(len(degrees), 2, side, side, dtype=torch.float64)
    each = rotate_each(maps, [float(a) for a in degrees])
    for turned, one, angle in zip(each, maps, degrees, strict=True):
        alone = rotate(one[None], angle_deg=angle)[0]
        assert torch.equal(turned, alone) if angle % 90 == 0 else torch.allclose(turned, alone)


# Masks and errors


def test_the_disc_leaves_out_the_corners():
    assert (~disc_mask(4, 4)).nonzero().tolist() == [[0, 0], [0, 3], [3, 0], [3, 3]]
    assert disc_mask(3, 5).int().tolist() == [[0, 1, 1, 1, 0]] * 3


@given(side=st.integers(1, 64))
def test_the_disc_is_symmetric_and_of_the_right_size(side):
    mask = disc_mask(side, side)
    assert all(torch.equal(action(mask), mask) for action in GRID_ACTIONS)
    # Gauss's circle problem: off from the area by less than the circumference.
    assert abs(int(mask.sum()) - math.pi * side**2 / 4) < math.pi * side


@pytest.mark.parametrize("action", GRID_ACTIONS, ids=str)
def test_pointwise_maps_have_no_equivariance_error(action):
    assert equivariance_error(nn.ReLU(), action, torch.randn(1, 2, 7, 9)) == 0


def test_the_equivariance_error_is_a_ratio_of_extremes():
    def weigh_rows(x: Tensor) -> Tensor:
        return x * torch.tensor([[4.0], [1.0]])

    image = torch.ones(1, 1, 2, 2)
    # f(x) has rows 4 and 1; turned by 180 degrees it has 1 and 4: they differ by 3, of 4.
    assert equivariance_error(weigh_rows, grid_action(quarter_turns=2), image) == 0.75


def test_another_shape_is_an_infinite_error():
    def first_row(x: Tensor) -> Tensor:
        return x[..., :1, :]

    image = torch.ones(1, 1, 3, 3)
    assert equivariance_error(first_row, grid_action(quarter_turns=1), image) == math.inf


def test_the_relative_error_looks_inside_the_mask():
    wanted = torch.tensor([[3.0, 4.0], [9.0, 9.0]])[None, None]
    got = torch.tensor([[3.0, 3.0], [0.0, 0.0]])[None, None]
    mask = torch.tensor([[True, True], [False, False]])
    assert relative_error(got, wanted, mask).tolist() == pytest.approx([0.2])  # 1 of 5
    both = relative_error(torch.cat([got, wanted]), wanted, mask)
    assert both.tolist() == pytest.approx([0.2, 0.0])
    against = torch.full_like(wanted, 0.5)
    assert relative_error(got, wanted, mask, against=against).tolist() == pytest.approx([2**0.5])


# Volumes


def test_the_symmetries_of_a_cube_are_forty_eight():
    volume = torch.arange(27.0).view(1, 3, 3, 3)
    seen = {tuple(action(volume).flatten().tolist()) for action in VOLUME_ACTIONS}
    assert len(seen) == 48
    assert sum(action.is_rotation for action in VOLUME_ACTIONS) == 24
    assert torch.equal(VOLUME_ACTIONS[0](volume), volume)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_volumes_turn_about_each_axis(axis):
    volume = torch.randn(2, 3, 4, 5, 6)
    plane = [a for a in (-3, -2, -1) if a != axis - 3]
    for turns in range(4):
        turned = rotate_volume(volume, angle_deg=90 * turns, axis=axis)
        assert torch.equal(turned, torch.rot90(volume, turns, plane))
    cube = torch.randn(1, 1, 5, 5, 5)
    quarter = rotate_volume(cube, angle_deg=90, axis=axis)
    actions = [a for a in VOLUME_ACTIONS if torch.equal(a(cube), quarter)]
    assert [action.is_rotation for action in actions] == [True]


def test_a_volume_turned_there_and_back_is_nearly_the_same():
    axis = torch.linspace(-1, 1, 21)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    spot = torch.exp(-8 * ((z - 0.1) ** 2 + (y + 0.2) ** 2 + (x - 0.2) ** 2))[None, None]
    turned = rotate_volume(rotate_volume(spot, angle_deg=30, axis=1), angle_deg=-30, axis=1)
    assert relative_error(turned, spot, disc_mask(21, 21, 21)) < 0.05
    assert (
        relative_error(rotate_volume(spot, angle_deg=30, axis=1), spot, disc_mask(21, 21, 21)) > 0.1
    )


def test_the_mask_of_a_volume_is_a_ball():
    assert disc_mask(2, 2, 2).all()
    ball = disc_mask(5, 5, 5)
    assert ball[2].tolist() == disc_mask(5, 5).tolist()
    assert int(ball.sum()) == 81  # centres within 2.5 of the centre: all but 44 of 125
