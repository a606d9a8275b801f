import pytest
import torch

from sre.poses import FLIPS, PLACINGS, Pose, present_pose
from sre.protocols import PROTOCOLS, find_protocol, present


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(2, 3, 28, 28)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
@pytest.mark.parametrize("angle", [0.0, 10.0, 90.0, 130.0, 350.0])
def test_plain_turns_are_those_of_the_protocol(pixels, protocol, angle):
    turned = present_pose(pixels, protocol, Pose(angle))
    torch.testing.assert_close(
        turned, present(pixels, protocol, angle_deg=angle), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_poses_that_differ_by_quarter_turns_differ_by_nothing_else(pixels, protocol):
    for condition in FLIPS + PLACINGS:
        for pose in condition.poses:
            turned = present_pose(pixels, protocol, pose.upright)
            turned = turned.rot90(pose.quarter_turns, (-2, -1))
            assert torch.equal(present_pose(pixels, protocol, pose), turned)


def test_mirrors_move_pixels_only(pixels):
    paper = find_protocol("paper")
    upright = present_pose(pixels, paper, Pose())
    assert torch.equal(present_pose(pixels, paper, Pose(mirror="vertical")), upright.flip(-2))
    assert torch.equal(present_pose(pixels, paper, Pose(mirror="horizontal")), upright.flip(-1))


def test_a_shift_goes_to_the_right_of_the_image_and_turns_with_it():
    paper, spot = find_protocol("paper"), torch.full((1, 1, 20, 20), 0.5)
    spot[..., 10, 10] = 1.0
    found = present_pose(spot, paper, Pose(shift=0.1))[0, 0]
    assert found.argmax() == 10 * 20 + 12
    turned = present_pose(spot, paper, Pose(90.0, shift=0.1))[0, 0]
    assert turned.argmax() == 7 * 20 + 10  # up, from row 9 at a quarter turn


def test_a_scale_above_1_magnifies_and_what_comes_in_is_mid_grey():
    disc, ring = find_protocol("disc"), torch.zeros(1, 1, 28, 28)
    ring[..., 10:18, 10:18] = 1.0
    size = {s: (present_pose(ring, disc, Pose(scale=s)) > 0.5).sum().item() for s in (0.8, 1, 1.25)}
    assert size[0.8] < size[1] == 64 < size[1.25]
    assert present_pose(ring, find_protocol("paper"), Pose(scale=0.8))[0, 0, 0, 0] == 0


def test_poses_are_named_and_reduced():
    pose = Pose(290.0, mirror="vertical", scale=0.8, shift=0.1)
    assert pose.upright == Pose(20.0, mirror="vertical", scale=0.8, shift=0.1)
    assert pose.quarter_turns == 3
    assert pose.words == "290, vertical mirror, scale 0.8, shift 0.1"
    assert Pose(30.0).words == "30"
