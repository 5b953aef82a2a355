"""Which pixels of a mask have a colour."""

from __future__ import annotations

from PIL import Image, ImageChops


def places(mask: Image.Image, color: str | tuple[int, ...]) -> Image.Image:
    """White where an RGB mask has the colour, and black elsewhere."""
    red, green, blue = ImageChops.difference(mask, Image.new("RGB", mask.size, color)).split()
    furthest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    return furthest.point(lambda difference: 255 * (difference == 0))
