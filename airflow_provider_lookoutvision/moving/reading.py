"""What a reader makes of a source: entries of datasets, and what it left out.

An entry is a line of a Ground Truth manifest whose references are still those of the source: ``s3://...``, or
the name of a file there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from airflow_provider_lookoutvision import manifests
from airflow_provider_lookoutvision.moving.errors import MovingError, some

MASK = "anomaly-mask-ref"
JOB = "lookoutvision-import"
FORMATS = ("archive", "console", "manifest", "mvtec", "folders", "coco", "label-studio", "csv")
IMAGE_NAMES = manifests.IMAGE_NAMES
# In lower case. Anything else is the user's to say: a wrong guess would teach the model the opposite.
LABELS = {
    **dict.fromkeys(("normal", "good", "ok"), "normal"),
    **dict.fromkeys(("anomaly", "bad", "defect", "defective", "ng", "nok"), "anomaly"),
}
_PROJECT_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_\-]{0,254}"
_CLASSIFICATION = "groundtruth/image-classification"
_SEGMENTATION = "groundtruth/semantic-segmentation"
# Tableau's colours, which differ for eyes that don't tell red from green, too.
_PALETTE = (
    *("#D62728", "#1F77B4", "#2CA02C", "#FF7F0E", "#9467BD", "#8C564B", "#E377C2", "#7F7F7F"),
    *("#BCBD22", "#17BECF", "#800000", "#000080", "#008080", "#808000", "#FF00FF", "#00FFFF"),
    *("#FFFF00", "#00FF00", "#0000FF", "#FF0000"),
)


class Painting(Protocol):
    """A mask that is no file of the source, but made of what the source says."""

    @property
    def digest(self) -> str:
        """Of what it is made of: two paintings with the same are the same."""

    def png(self) -> bytes:
        """The mask, an RGB PNG with a white background."""


@dataclass(frozen=True)
class Entry:
    """An image for a dataset.

    :param line: its line. The name of a file in it begins at ``base``, a folder of the source.
    :param where: the line or file that has it, for messages.
    :param project: the project that the source has it in, if it says.
    :param painting: the mask to paint, and to put into the line.
    """

    dataset: str
    line: Mapping[str, Any]
    where: str
    base: str = ""
    project: str | None = None
    painting: Painting | None = None

    @property
    def source_ref(self) -> str:
        """The image's reference."""
        return str(self.line["source-ref"])

    @property
    def label(self) -> str | None:
        """``normal``, ``anomaly``, or None without one of the two."""
        return label_of(self.line)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of its mask, without the background."""
        return tuple(name for name in colors_of(self.line) if name.lower() != "background")


@dataclass(frozen=True)
class Reading:
    """Entries, and remarks about what isn't among them."""

    entries: Sequence[Entry]
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class Options:
    """What the user says about a source.

    :param dataset: the dataset of images where the source doesn't say, and ``train`` if this is None.
    :param labels: what the source writes, in lower case, for ``normal`` and ``anomaly``.
    :param colors: of the classes in their masks, ``#RRGGBB``.
    :param mask_class: the one class that all masks are of.
    :param masks: whether to take masks at all.
    :param test_size: the part of the images for the test dataset, 0 to 1, instead of what the source says.
    """

    dataset: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    colors: Mapping[str, str] = field(default_factory=dict)
    mask_class: str | None = None
    masks: bool = True
    test_size: float | None = None
    seed: int = 0

    @property
    def every_label(self) -> dict[str, str]:
        """The usual labels, and the user's."""
        return {**LABELS, **{name.lower(): label for name, label in self.labels.items()}}

    def one_class(self, color: str) -> dict[str, str]:
        """The one class that all masks are of, and its colour; nothing without such a class."""
        return {self.mask_class: self.colors.get(self.mask_class, color).upper()} if self.mask_class else {}

    def palette(self, classes: Iterable[str]) -> dict[str, str]:
        """A colour for each class of masks that are painted here."""
        names = sorted(set(classes))
        given = {name: self.colors[name].upper() for name in names if name in self.colors}
        free = [color for color in _PALETTE if color not in given.values()]
        if len(names) - len(given) > len(free):
            raise MovingError(
                f"The masks have {len(names)} classes, and a project has at most {len(_PALETTE)}: "
                "--mask-class NAME makes one of them"
            )
        return {name: given.get(name) or free.pop(0) for name in names}


def make_options(**given: Any) -> Options:
    """The options, checked.

    :raises MovingError: when one can't be what it is.
    """
    options = Options(**given)
    if wrong := {label for label in options.labels.values() if label not in manifests.LABELS}:
        raise MovingError(f"{some(sorted(wrong))} is no label: a label means normal or anomaly")
    if wrong := {color for color in options.colors.values() if not re.fullmatch("#[0-9A-Fa-f]{6}", color)}:
        raise MovingError(f"{some(sorted(wrong))} is no colour as #FF0000")
    if options.test_size is not None and not 0 < options.test_size < 1:
        raise MovingError(f"The part to test with is {options.test_size}; it is more than 0 and less than 1")
    return options


def check_project_name(name: str | None) -> None:
    """Refuse a name that the API refuses.

    :raises MovingError: with the API's rule.
    """
    if name is not None and not re.fullmatch(_PROJECT_NAME, name):
        raise MovingError(
            f"ProjectName {name!r} breaks the API's rule: 1 to 255 characters that match {_PROJECT_NAME}"
        )


def label_of(line: Mapping[str, Any]) -> str | None:
    """The label of a line: ``normal``, ``anomaly``, or None."""
    for metadata in line.values():
        if isinstance(metadata, Mapping) and metadata.get("type") == _CLASSIFICATION:
            label = str(metadata.get("class-name")).strip().lower()
            if label in manifests.LABELS:
                return label
    return None


def colors_of(line: Mapping[str, Any]) -> dict[str, str | None]:
    """The classes of a line's mask and their colours; None where a line leaves it out."""
    for metadata in line.values():
        if isinstance(metadata, Mapping) and metadata.get("type") == _SEGMENTATION:
            shown = metadata.get("internal-color-map")
            colors = shown.values() if isinstance(shown, Mapping) else ()
            return {
                str(color.get("class-name")): str(color["hex-color"]).upper()
                if "hex-color" in color
                else None
                for color in colors
                if isinstance(color, Mapping)
            }
    return {}


def references_of(line: Mapping[str, Any]) -> dict[str, str]:
    """The members of a line that refer to a file, and what they refer to."""
    return {
        key: value
        for key, value in line.items()
        if isinstance(value, str)
        and (key == "source-ref" or (key.endswith("-ref") and f"{key}-metadata" in line))
    }


def dataset_named(name: str) -> str | None:
    """The dataset that a name speaks of: ``test-2.manifest``, ``valid/_annotations.coco.json``."""
    words = "".join(each if each.isalnum() else " " for each in name.lower()).split()
    for dataset, spoken in (
        ("test", {"test", "testing"}),
        ("train", {"train", "training"}),
        ("test", {"val", "valid", "validation"}),
    ):
        if spoken & set(words):
            return dataset
    return None


def split(entries: Sequence[Entry], options: Options) -> list[Entry]:
    """The entries, divided anew into train and test if the user wants that, each project by itself."""
    if not options.test_size:
        return list(entries)
    never = datetime.fromtimestamp(0, UTC)
    images: dict[str | None, list[manifests.LabelledImage]] = {}
    for each in entries:
        members = images.setdefault(each.project, [])
        kind = ",".join(each.classes) or None
        members.append(
            manifests.LabelledImage(each.base + each.source_ref, str(each.label), never, None, kind)
        )
    try:
        tested = {
            (project, image.source_ref)
            for project, members in images.items()
            for image in manifests.split(members, options.test_size, options.seed)[1]
        }
    except manifests.InvalidLayout as error:
        raise MovingError(str(error)) from error
    return [
        replace(each, dataset="test" if (each.project, each.base + each.source_ref) in tested else "train")
        for each in entries
    ]


def unknown_labels(found: Counter[str], where: str) -> MovingError:
    """The error about labels that mean nothing here."""
    shown = some(f"{name!r} ({count} images)" for name, count in found.most_common())
    name = next(iter(found))
    return MovingError(
        f"{where} has the labels {shown}. Which are normal, and which an anomaly? Say so of each, as "
        f"--label {name!r}=normal or --label {name!r}=anomaly"
    )
