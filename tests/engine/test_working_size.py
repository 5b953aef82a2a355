import pytest

from airflow_provider_lookoutvision.engine import working_size


@pytest.mark.parametrize(
    ("width", "height"),
    [(64, 64), (300, 300), (576, 768), (4096, 4096), (64, 4096), (4096, 64), (1920, 1080)],
)
def test_working_sizes_keep_proportions_and_grow_with_the_image(width: int, height: int) -> None:
    for side in working_size.candidate_sides(width, height):
        working_width, working_height = working_size.working_size(width, height, side)
        assert working_width % 32 == working_height % 32 == 0
        assert working_width * working_height < 3 * side * side
        if max(width, height) < 4 * min(width, height):
            assert working_width / working_height == pytest.approx(width / height, rel=0.2)


@pytest.mark.parametrize(
    ("size", "side"),
    [((64, 64), 224), ((300, 300), 320), ((576, 768), 640), ((1000, 1000), 896), ((4096, 4096), 896)],
)
def test_the_native_side_is_the_nearest_up_to_a_limit(size: tuple[int, int], side: int) -> None:
    assert working_size.native_side(*size) == side


def test_large_working_sizes_are_halved_if_they_can_be() -> None:
    assert [working_size.is_halved(size) for size in ((640, 640), (576, 736), (448, 448))] == [
        True,
        False,
        False,
    ]
    assert working_size.working_size(576, 768, 640, multiple=64) == (576, 768)
