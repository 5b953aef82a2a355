import numpy as np
import pytest
from drawn_images import jpeg, png
from PIL import Image

from airflow_provider_lookoutvision.engine import AnomalyClass, UnusableDataset, UnusableImage, masks

CRACK, DENT = AnomalyClass("crack", "#23A436"), AnomalyClass("dent", "#0000ff")
GREEN = (0x23, 0xA4, 0x36)


def draw_mask(*, alpha: int = 255, ground: tuple[int, ...] = (0, 0, 0, 0)) -> Image.Image:
    image = Image.new("RGBA", (64, 48), ground)
    image.paste((*GREEN, alpha), (10, 5, 20, 15))
    image.paste((0, 0, 255, 255), (30, 20, 50, 40))
    return image


def expected() -> np.ndarray:
    truth = np.zeros((48, 64), np.uint8)
    truth[5:15, 10:20] = 1
    truth[20:40, 30:50] = 2
    return truth


@pytest.mark.parametrize(
    "ground", [(0, 0, 0, 0), (255, 255, 255, 255), (0, 0, 0, 255), (*GREEN, 0), (7, 8, 9, 90)]
)
def test_black_white_and_transparent_are_background(ground: tuple[int, ...]) -> None:
    found = masks.decode(png(draw_mask(ground=ground)), [CRACK, DENT], 64, 48)
    np.testing.assert_array_equal(found, expected())


def test_a_soft_edge_belongs_to_its_class_from_half_opaque_on() -> None:
    assert (masks.decode(png(draw_mask(alpha=128)), [CRACK, DENT], 64, 48) == expected()).all()
    assert not (masks.decode(png(draw_mask(alpha=127)), [CRACK, DENT], 64, 48) == 1).any()


def test_a_palette_with_a_transparent_entry() -> None:
    image = Image.fromarray(expected())
    image.putpalette([*GREEN, *GREEN, 0, 0, 255])
    content = png(image, transparency=0)
    np.testing.assert_array_equal(masks.decode(content, [CRACK, DENT], 64, 48), expected())


def test_a_class_may_claim_white() -> None:
    found = masks.decode(png(Image.new("RGB", (64, 48), "white")), [AnomalyClass("hole", "#FFFFFF")], 64, 48)
    assert (found == 1).all()


def test_an_unknown_colour_is_named() -> None:
    with pytest.raises(UnusableImage, match=r"#0000FF.*no class's colour.*#23A436"):
        masks.decode(png(draw_mask()), [CRACK], 64, 48)


def test_a_mask_taller_than_a_band_is_whole() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, (600, 40), dtype=np.uint8)
    image = Image.fromarray(truth)
    image.putpalette([255, 255, 255, *GREEN, 0, 0, 255])
    np.testing.assert_array_equal(masks.decode(png(image), [CRACK, DENT], 40, 600), truth)


def test_an_unknown_colour_in_the_last_row_is_found() -> None:
    image = Image.new("RGB", (40, 600))
    image.putpixel((39, 599), (1, 2, 3))
    with pytest.raises(UnusableImage, match="#010203"):
        masks.decode(png(image), [CRACK, DENT], 40, 600)


def test_a_small_white_mask_is_stretched() -> None:
    content = png(Image.new("RGB", (16, 16), "white"))
    np.testing.assert_array_equal(masks.decode(content, [CRACK], 64, 48), np.zeros((48, 64)))


def test_a_mask_of_other_proportions_is_refused_unless_it_is_all_background() -> None:
    content = png(Image.new("RGB", (32, 32), GREEN))
    with pytest.raises(UnusableImage, match="32 x 32 pixels, other proportions than its image with 64 x 48"):
        masks.decode(content, [CRACK], 64, 48)
    assert masks.decode(png(draw_mask().resize((21, 16), 0)), [CRACK, DENT], 64, 48).any()  # rounded
    with pytest.raises(
        UnusableImage, match=r"48 x 64 pixels \(upright: its EXIF orientation turns the 64 x 48"
    ):
        masks.decode(png(draw_mask()), [CRACK, DENT], 48, 64, turned=True)


def test_a_declared_background_is_erased() -> None:
    content = png(draw_mask(ground=(7, 8, 9, 255)))
    with pytest.raises(UnusableImage, match="#070809"):
        masks.decode(content, [CRACK, DENT], 64, 48)
    erased = masks.erase(content, ["#070809"])
    np.testing.assert_array_equal(masks.decode(erased, [CRACK, DENT], 64, 48), expected())


def test_a_grey_mask_of_sixteen_bits() -> None:
    truth = np.zeros((48, 64), np.uint16)
    truth[5:15, 10:20] = 0xFFFF
    content = png(Image.fromarray(truth))
    found = masks.decode(content, [AnomalyClass("hole", "#FFFFFF")], 64, 48)
    np.testing.assert_array_equal(found, truth == 0xFFFF)


def test_a_mask_larger_than_its_image_is_refused() -> None:
    with pytest.raises(UnusableImage, match="64 x 48 pixels, more than its image with 32 x 48"):
        masks.decode(png(draw_mask()), [CRACK, DENT], 32, 48)


def test_a_mask_that_is_a_jpeg_is_refused() -> None:
    with pytest.raises(UnusableImage, match="not a PNG"):
        masks.decode(jpeg(Image.new("RGB", (64, 48))), [CRACK], 64, 48)


def test_a_colour_that_is_none_is_refused() -> None:
    with pytest.raises(UnusableDataset, match="'green'"):
        masks.decode(png(draw_mask()), [AnomalyClass("crack", "green")], 64, 48)


def test_coverage_is_the_part_of_each_cell() -> None:
    covered = masks.coverage(expected(), 12, 16)
    assert list(covered) == [0, 1]
    assert covered[0].shape == (12, 16)
    # Columns 10 to 19 of 4-pixel cells: half of cell 2; rows 5 to 14: three quarters of row 1.
    assert (covered[0][2, 2:6] / 255).tolist() == pytest.approx([0.5, 1, 1, 0], abs=0.002)
    assert covered[0][1, 3] / 255 == pytest.approx(0.75, abs=0.002)
    assert covered[1].sum() / 255 * 16 == pytest.approx(20 * 20, abs=1)


def test_classes_that_are_not_in_the_mask_are_left_out() -> None:
    assert masks.coverage(np.full((48, 64), 100, np.uint8), 12, 16).keys() == {99}
    assert masks.coverage(np.zeros((48, 64), np.uint8), 12, 16) == {}
