"""What the readers of annotation tools share: the images that they name, and the masks of what is marked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from airflow_provider_lookoutvision import manifests
from airflow_provider_lookoutvision.moving.errors import MovingError
from airflow_provider_lookoutvision.moving.painting import Painted, Region, check_size
from airflow_provider_lookoutvision.moving.reading import JOB, MASK, Entry, Options
from airflow_provider_lookoutvision.moving.sources import Source

# The member of a line whose value comes when the mask is painted.
TO_BE_PAINTED = ""


@dataclass(frozen=True)
class Annotated:
    """An image and what is marked in it.

    :param size: width and height in pixels, as far as the tool says.
    """

    reference: str
    label: str | None
    regions: Sequence[Region]
    size: tuple[object, object]
    where: str


def entries(images: Iterable[Annotated], dataset: str, options: Options) -> list[Entry]:
    """The entries of a dataset, each mask in the colours of all classes of these images."""
    every = list(images)
    found = {region.name for image in every for region in image.regions}
    names = {name: options.mask_class or name for name in found}
    colors = options.palette(names.values())
    made = []
    for image in every:
        painting = None
        own: dict[str, str] = {}
        if options.masks and image.regions and image.label == "anomaly":
            width, height = check_size(*image.size, image.where)
            regions = [Region(names[region.name], region.shape) for region in image.regions]
            own = {region.name: colors[region.name] for region in regions}
            painting = Painted(width, height, regions, own, image.where)
        line = manifests.entry(image.reference, image.label, job_name=JOB)
        if painting:
            marked = manifests.entry(image.reference, image.label, mask_ref="-", colors=own, job_name=JOB)
            line = {**marked, MASK: TO_BE_PAINTED}
        made.append(Entry(dataset, line, image.where, painting=painting))
    return made


class ImageFinder:
    """Finds the file that an annotation tool names in its own way."""

    def __init__(self, source: Source, base: str) -> None:
        self._source = source
        self._base = base
        self._by_basename: dict[str, list[str]] | None = None

    def find(self, named: str) -> str:
        """The reference of an image: an S3 URI as it is, or the name of a file of the source.

        A name that isn't found is returned as a name below the base, and is missed later, with all others.

        :raises MovingError: when several files could be meant.
        """
        if named.startswith("s3://"):
            return named
        name = unquote(named.partition("?d=")[2] or named) if "/local-files/" in named else named
        name = name.removeprefix("./").lstrip("/")
        for candidate in (self._base + name, f"{self._base}images/{name}", name):
            if candidate in self._source.sizes:
                return candidate
        base = name.rpartition("/")[2]
        # Label Studio puts eight digits before the name of what is uploaded.
        for wanted in (base, base.partition("-")[2] if "/upload/" in named else ""):
            candidates = self._named(wanted) if wanted else []
            if len(candidates) > 1:
                raise MovingError(
                    f"{self._source.uri}: {named!r} may be {' or '.join(candidates[:3])}; import the folder "
                    "of one of them"
                )
            if candidates:
                return candidates[0]
        return self._base + name

    def _named(self, base: str) -> list[str]:
        if self._by_basename is None:
            self._by_basename = {}
            for name in self._source.sizes:
                self._by_basename.setdefault(name.rpartition("/")[2], []).append(name)
        return self._by_basename.get(base, [])
