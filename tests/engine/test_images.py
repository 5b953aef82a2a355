import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from drawing import jpeg, part, png
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from airflow_provider_lookoutvision.engine import UnusableImage, images


def gradient(width: int = 100, height: int = 80) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [rows * 255 / height, columns * 255 / width, np.full_like(rows, 90)]
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8))


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def grey(value: int) -> tuple[int, int, int]:
    return value, value, value


@pytest.mark.parametrize(
    ("content", "colour"),
    [
        (png(Image.new("L", (64, 64), 77)), grey(77)),
        (png(Image.new("1", (64, 64), 1)), grey(255)),
        (png(Image.new("I;16", (64, 64), 0x8080)), grey(0x80)),
        (png(Image.new("RGB", (64, 64), (9, 80, 200))), (9, 80, 200)),
        (png(Image.new("RGB", (64, 64), (51, 102, 204)).convert("P")), (51, 102, 204)),
        (png(Image.new("RGBA", (64, 64), (9, 80, 200, 255))), (9, 80, 200)),
        (png(Image.new("RGBA", (64, 64), (9, 80, 200, 0))), grey(255)),
        (png(Image.new("LA", (64, 64), (50, 255))), grey(50)),
        (jpeg(Image.new("L", (64, 64), 77)), grey(77)),
        (jpeg(Image.new("CMYK", (64, 64), (0, 0, 0, 55))), grey(200)),
    ],
    ids=[
        "grey",
        "1-bit",
        "16-bit",
        "rgb",
        "palette",
        "rgba",
        "transparent",
        "grey+alpha",
        "grey-jpeg",
        "cmyk",
    ],
)
def test_every_mode_becomes_rgb(content: bytes, colour: tuple[int, int, int]) -> None:
    picture = images.decode(content)
    assert picture.pixels.shape == (64, 64, 3)
    np.testing.assert_allclose(picture.pixels.reshape(-1, 3).mean(axis=0), colour, atol=2)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(orientation: int) -> None:
    upright = gradient()
    # The inverse of each transposition that the EXIF orientations stand for.
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    lying = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    for content in (png(lying, exif=exif), jpeg(lying, exif=exif, quality=100, subsampling=0)):
        picture = images.decode(content)
        assert (picture.width, picture.height) == images.size(content) == (100, 80)
        np.testing.assert_allclose(picture.pixels, np.asarray(upright), atol=4)
        small = images.decode(content, 50, 40)
        assert small.pixels.shape == (40, 50, 3)
        np.testing.assert_allclose(small.pixels, np.asarray(upright.resize((50, 40))), atol=8)


@pytest.mark.parametrize(
    ("width", "height"), [(63, 64), (64, 63), (4097, 64), (64, 4097)], ids=["narrow", "low", "wide", "high"]
)
def test_sides_out_of_bounds_are_refused(width: int, height: int) -> None:
    with pytest.raises(UnusableImage, match=rf"{width} x {height} pixels.*64 to 4096"):
        images.decode(png(Image.new("L", (width, height))))


@pytest.mark.parametrize(("width", "height"), [(64, 64), (4096, 64), (64, 4096)])
def test_sides_at_the_bounds_are_taken(width: int, height: int) -> None:
    assert images.decode(png(Image.new("L", (width, height)))).pixels.shape == (height, width, 3)


@pytest.mark.parametrize("content", [b"", b"GIF89a" + bytes(100), b"BM" + bytes(100), b"II*\0" + bytes(100)])
def test_what_is_neither_jpeg_nor_png_is_refused(content: bytes) -> None:
    with pytest.raises(UnusableImage, match="neither a JPEG nor a PNG"):
        images.decode(content)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("encode", [png, jpeg])
def test_a_file_cut_short_is_refused(encode: object, kept: float) -> None:
    content = encode(gradient())  # type: ignore[operator]
    with pytest.raises(UnusableImage, match=r"short|damaged|header"):
        images.decode(content[: int(len(content) * kept)])


def test_a_png_that_claims_a_billion_pixels_costs_no_memory() -> None:
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000_000), 9)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    assert peak(lambda: refused(bomb)) < 5_000_000


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_png_with_a_bomb_beside_its_pixels_costs_no_memory(name: bytes) -> None:
    squeezed = zlib.compress(bytes(50_000_000), 9)
    body = {b"zTXt": b"k\0\0", b"iTXt": b"k\0\1\0\0\0", b"iCCP": b"k\0\0"}[name] + squeezed
    plain = png(gradient())
    bomb = plain[:33] + chunk(name, body) * 20 + plain[33:]
    assert peak(lambda: images.decode(bomb)) < 10_000_000
    np.testing.assert_array_equal(images.decode(bomb).pixels, np.asarray(gradient()))


def test_a_png_of_nothing_but_chunks_is_refused() -> None:
    plain = png(gradient())
    with pytest.raises(UnusableImage, match="damaged"):
        images.decode(plain[:33] + chunk(b"tEXt", b"") * 200_000 + plain[33:])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_is_refused_or_survived_but_never_anything_else(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from([png(gradient()), part(3).image])))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        picture = images.decode(bytes(content))
    except UnusableImage:
        return
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.shape == (picture.height, picture.width, 3)


def refused(content: bytes) -> None:
    with pytest.raises(UnusableImage):
        images.decode(content)


def peak(action: object) -> int:
    tracemalloc.start()
    try:
        action()  # type: ignore[operator]
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_jpeg_is_not_believed_by_its_name() -> None:
    stream = io.BytesIO()
    gradient().save(stream, "BMP")
    with pytest.raises(UnusableImage, match="whatever its name says"):
        images.decode(stream.getvalue())
