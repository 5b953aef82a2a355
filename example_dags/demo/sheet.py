"""The picture sheet: the tested images in a grid, each with its verdict and with the defect outlined.

What the model got wrong stands first, and says so. A model that was trained without masks outlines nothing:
then a frame shows the verdict, and the heat map tints where it found an anomaly.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps

from example_dags.demo.masks import places
from example_dags.demo.samples import Sample

COLUMNS, ROWS = 6, 5
THUMBNAIL, CAPTION, GAP, MARGIN, HEADER = 208, 58, 14, 30, 116

PAPER, CARD, EDGE, INK, FAINT = "#F3F4F6", "#FFFFFF", "#D9DCE1", "#1B1F24", "#6A727D"
VERDICTS = {False: "#1A7F37", True: "#C8202F"}
WRONG = "#8A3FFC"
_OPACITY, _HEAT_OPACITY = 0.22, 1.2
_ROOM = THUMBNAIL - 20


@dataclass(frozen=True)
class Judged:
    """An image, what is known about it, and what the model says.

    :param confidence: of the verdict, 0 to 1.
    :param areas: what was found, each class with its share of the image, 0 to 1.
    :param mask: where, as an RGB PNG.
    :param colors: of the classes in the mask.
    :param heatmap: how anomalous each place is, as a grey PNG.
    """

    sample: Sample
    is_anomalous: bool
    confidence: float
    areas: Mapping[str, float] = field(default_factory=dict)
    mask: bytes | None = None
    colors: Mapping[str, str] = field(default_factory=dict)
    heatmap: bytes | None = None

    @property
    def is_right(self) -> bool:
        """Whether the verdict is that of the label."""
        return self.is_anomalous == (self.sample.label == "anomaly")


def draw(title: str, metrics: str, tested: Sequence[Judged], *, is_segmented: bool) -> Image.Image:
    """Draw the sheet, with at most ``COLUMNS`` times ``ROWS`` of the images.

    :param is_segmented: whether the model says where defects are.
    """
    shown = _chosen(tested)
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    width = 2 * MARGIN + COLUMNS * (THUMBNAIL + GAP) - GAP
    height = HEADER + rows * (THUMBNAIL + CAPTION + GAP) - GAP + MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    _draw_header(sheet, title, f"{metrics}    {_counted(tested, shown)}", shown, is_segmented)
    for number, each in enumerate(shown):
        row, column = divmod(number, COLUMNS)
        corner = (MARGIN + column * (THUMBNAIL + GAP), HEADER + row * (THUMBNAIL + CAPTION + GAP))
        sheet.paste(_card(each, is_segmented), corner)
    return sheet


def _chosen(tested: Sequence[Judged]) -> list[Judged]:
    """The wrong ones, and of the others as many of each kind."""
    kinds: dict[tuple[str, ...], list[Judged]] = {}
    for each in tested:
        if each.is_right:
            kinds.setdefault(each.sample.kind, []).append(each)
    room = COLUMNS * ROWS
    chosen = [each for each in tested if not each.is_right][:room]
    while len(chosen) < room and any(kinds.values()):
        chosen += [members.pop(0) for members in kinds.values() if members][: room - len(chosen)]
    return sorted(
        chosen, key=lambda each: (each.is_right, each.sample.label, each.sample.kind, each.sample.name)
    )


def _counted(tested: Sequence[Judged], shown: Sequence[Judged]) -> str:
    right = sum(each.is_right for each in tested)
    counted = f"{right} of {len(tested)} verdicts right"
    return counted if len(shown) == len(tested) else f"{counted}, {len(shown)} images shown"


def _draw_header(
    sheet: Image.Image, title: str, metrics: str, shown: Sequence[Judged], is_segmented: bool
) -> None:
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, 26), title, INK, _font(32), stroke_width=0.6)
    pen.text((MARGIN, 72), metrics, FAINT, _font(19))
    legend = {name: color for each in shown for name, color in each.colors.items()} if is_segmented else {}
    right = sheet.width - MARGIN
    for name, color in sorted(legend.items(), reverse=True):
        right -= round(pen.textlength(name, _font(19)))
        pen.text((right, 72), name, INK, _font(19))
        right -= 28
        pen.ellipse((right, 75, right + 18, 93), fill=color)
        right -= 24


def _card(each: Judged, is_segmented: bool) -> Image.Image:
    card = Image.new("RGB", (THUMBNAIL, THUMBNAIL + CAPTION), CARD)
    card.paste(_thumbnail(each), (0, 0))
    pen = ImageDraw.Draw(card)
    color = VERDICTS[each.is_anomalous]
    if not is_segmented:
        pen.rectangle((0, 0, THUMBNAIL - 1, THUMBNAIL - 1), outline=color, width=6)
    if not each.is_right:
        pen.rectangle((0, 0, THUMBNAIL, 30), fill=WRONG)
        pen.text(
            (10, 5),
            _cut(pen, f"wrong: labelled {each.sample.defect or 'normal'}", 16, _ROOM),
            "#FFFFFF",
            _font(16),
        )
    pen.text(
        (10, THUMBNAIL + 6), "anomaly" if each.is_anomalous else "normal", color, _font(19), stroke_width=0.4
    )
    pen.text((THUMBNAIL - 10, THUMBNAIL + 6), f"{each.confidence:.1%}", INK, _font(19), anchor="ra")
    found = _cut(pen, ", ".join(f"{name} {area:.1%}" for name, area in each.areas.items()), 14, _ROOM)
    pen.text((THUMBNAIL - 10, THUMBNAIL + 33), found, FAINT, _font(14), anchor="ra")
    room = _ROOM - pen.textlength(found, _font(14)) - 10 * bool(found)
    pen.text((10, THUMBNAIL + 33), _cut(pen, PurePath(each.sample.name).stem, 14, room), FAINT, _font(14))
    pen.rectangle((0, 0, card.width - 1, card.height - 1), outline=EDGE)
    return card


def _thumbnail(each: Judged) -> Image.Image:
    original = ImageOps.exif_transpose(Image.open(io.BytesIO(each.sample.image))).convert("RGB")
    picture = ImageOps.contain(original, (THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    if each.mask:
        mask = Image.open(io.BytesIO(each.mask)).convert("RGB")
        for color in each.colors.values():
            picture = _marked(picture, places(mask, color).resize(picture.size), color)
    elif each.heatmap and each.is_anomalous:
        heat = (
            Image.open(io.BytesIO(each.heatmap)).convert("L").resize(picture.size, Image.Resampling.BILINEAR)
        )
        # The lower half is what normal images have too.
        picture.paste(
            VERDICTS[True], mask=heat.point(lambda value: round(max(0, value - 128) * _HEAT_OPACITY))
        )
    framed = Image.new("RGB", (THUMBNAIL, THUMBNAIL), EDGE)
    framed.paste(picture, ((THUMBNAIL - picture.width) // 2, (THUMBNAIL - picture.height) // 2))
    return framed


def _marked(picture: Image.Image, where: Image.Image, color: str) -> Image.Image:
    """A tint inside, and a line around."""
    inside = where.point(lambda value: 255 * (value > 127))
    line = ImageChops.subtract(inside.filter(ImageFilter.MaxFilter(5)), inside)
    picture.paste(color, mask=inside.point(lambda value: round(value * _OPACITY)))
    picture.paste(color, mask=line)
    return picture


def _cut(pen: ImageDraw.ImageDraw, text: str, size: int, room: float) -> str:
    """As much of a text as there is room for."""
    if pen.textlength(text, _font(size)) <= room:
        return text
    while text and pen.textlength(f"{text}...", _font(size)) > room:
        text = text[:-1]
    return f"{text}..."


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
