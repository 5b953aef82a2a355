import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from drawn_images import draw_plate, jpeg, png
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
        (png(Image.new("I;16", (64, 64), 200)), grey(200)),
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
        "8-bit values in 16-bit grey",
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
    decoded = images.decode(content)
    assert decoded.pixels.shape == (64, 64, 3)
    np.testing.assert_allclose(decoded.pixels.reshape(-1, 3).mean(axis=0), colour, atol=2)


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
        decoded = images.decode(content)
        assert (decoded.width, decoded.height) == images.image_size(content) == (100, 80)
        np.testing.assert_allclose(decoded.pixels, np.asarray(upright), atol=4)
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


def test_a_png_with_a_changed_pixel_is_refused() -> None:
    content = bytearray(png(gradient(), compress_level=0))
    content[len(content) // 2] ^= 1
    with pytest.raises(UnusableImage, match="checksum"):
        images.decode(bytes(content))


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


def test_a_large_exif_block_costs_no_memory() -> None:
    exif = b"II*\0\x08\0\0\0" + b"\xff" * 30_000_000
    plain = png(gradient())
    stuffed = plain[:33] + chunk(b"eXIf", exif) + plain[33:]
    assert peak(lambda: images.decode(stuffed)) < 1_000_000


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


@pytest.mark.parametrize("marker", [0xE1, 0xE2, 0xED, 0xFE])
def test_a_jpeg_with_megabytes_beside_its_pixels_costs_no_memory(marker: int) -> None:
    plain = jpeg(gradient())
    stuffed = plain[:2] + segment(marker, b"Exif\0\0" + bytes(65_000)) * 300 + plain[2:]
    assert peak(lambda: images.decode(stuffed)) < 1_000_000
    np.testing.assert_array_equal(images.decode(stuffed).pixels, images.decode(plain).pixels)


def test_a_jpeg_of_many_scans_is_refused() -> None:
    plain = jpeg(gradient(), progressive=True)
    last = plain[plain.rindex(b"\xff\xda") : -2]
    with pytest.raises(UnusableImage, match="too many scans"):
        images.decode(plain[:-2] + last * 100 + plain[-2:])


def test_what_follows_the_end_of_a_jpeg_is_dropped() -> None:
    plain = jpeg(gradient())
    twice = plain + jpeg(Image.new("RGB", (100, 80)))
    np.testing.assert_array_equal(images.decode(twice).pixels, images.decode(plain).pixels)


def test_a_progressive_cmyk_jpeg_of_adobe_is_read() -> None:
    image = gradient().convert("CMYK")
    for options in ({}, {"progressive": True}, {"icc_profile": bytes(100_000)}):
        pixels = images.decode(jpeg(image, quality=100, subsampling=0, **options)).pixels
        np.testing.assert_allclose(pixels, np.asarray(gradient()), atol=6)


@pytest.mark.parametrize("colour", [0, 4, 2, 6], ids=["grey", "grey+alpha", "rgb", "rgba"])
def test_an_interlaced_png_of_sixteen_bits_is_read(colour: int) -> None:
    width, height = 100, 80
    content = interlaced(0x3000, colour, width, height)
    decoded = images.decode(content, 64, 64)
    assert (decoded.width, decoded.height) == (width, height)
    np.testing.assert_allclose(decoded.pixels, 0x30, atol=1)


@pytest.mark.parametrize("colour", [4, 2, 6], ids=["grey+alpha", "rgb", "rgba"])
def test_eight_bits_in_a_png_of_sixteen_are_refused_where_they_would_be_black(colour: int) -> None:
    with pytest.raises(UnusableImage, match="16 bits a channel, and no colour is over 255"):
        images.decode(interlaced(200, colour, 100, 80))


def interlaced(value: int, colour: int, width: int, height: int) -> bytes:
    """An interlaced PNG of 16 bits a channel, all of one value, opaque."""
    samples = {0: 1, 4: 2, 2: 3, 6: 4}[colour]
    pixel = value.to_bytes(2, "big") * (samples - (colour in (4, 6))) + b"\xff\xff" * (colour in (4, 6))
    raw = b""
    for left, top, across, down in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        raw += (b"\0" + pixel * -(-(width - left) // across)) * -(-(height - top) // down)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 1)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(raw)),
            chunk(b"IEND", b""),
        ]
    )


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (80, 80), colour) for colour in ("red", "green", "blue")]
    animated = png(frames[0], save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(images.decode(animated).pixels, np.asarray(frames[0]))


def test_transparency_shrinks_as_it_looks() -> None:
    # Black where it cannot be seen: it must not darken what is beside it.
    layer = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
    layer.paste((200, 40, 40, 255), (0, 0, 128, 256))
    pixels = images.decode(png(layer), 64, 64).pixels
    assert pixels[:, :31].reshape(-1, 3).max(axis=0).tolist() == [200, 40, 40]
    assert (pixels[:, 33:] == 255).all()
    assert (pixels[..., 0] >= 199).all()


def test_a_png_of_nothing_but_chunks_is_refused() -> None:
    plain = png(gradient())
    with pytest.raises(UnusableImage, match="damaged"):
        images.decode(plain[:33] + chunk(b"tEXt", b"") * 200_000 + plain[33:])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_is_refused_or_survived_but_never_anything_else(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from([png(gradient()), draw_plate(3).image])))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = images.decode(bytes(content))
    except UnusableImage:
        return
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.shape == (decoded.height, decoded.width, 3)


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
