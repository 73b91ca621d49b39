"""Everything that draws road users has a colour for each class, and the same one."""

import pytest

from wm_ros import colours
from wm_ros.evaluate.scene_picture import COLOURS
from wm_ros.types import AGENT_CLASSES


@pytest.mark.parametrize('theme', colours.THEMES)
def test_classes_can_be_told_apart(theme):
    found = [colours.rgb(code) for code in colours.CLASSES[theme]]
    assert len(found) == len(AGENT_CLASSES)
    nearest = min(sum(abs(a - b) for a, b in zip(one, other, strict=True))
                  for i, one in enumerate(found) for other in found[:i])
    assert nearest > 60
    assert len(set(colours.GROUND[theme])) == 4


def test_pictures_and_markers_have_the_colours_of_the_page():
    pytest.importorskip('rclpy')
    from wm_ros.ros import markers
    assert colours.bgr('#5ab4ff') == (0xff, 0xb4, 0x5a) == COLOURS[0]
    for code, drawn, marked in zip(colours.CLASSES['dark'], COLOURS, markers.COLOURS, strict=True):
        assert colours.rgb(code) == drawn[::-1]
        assert [round(255 * value) for value in marked] == list(drawn[::-1])
