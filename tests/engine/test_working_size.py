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
    assert working_size.candidate_sides(width, height)[0] <= working_size.default_side(width, height)
