"""Labels and masks: UpdateDatasetEntries, of entries that are still what the page has shown.

A change names the version of the entry that somebody saw. If it is another one by now, and not what the
change would make of it, nothing of the request takes effect, and the answer says what is there now.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.responses import JSONResponse, Response

from airflow_provider_lookoutvision.server.calls.call import Call
from airflow_provider_lookoutvision.server.console.objects import location_of
from airflow_provider_lookoutvision.server.console.visit import Visit
from airflow_provider_lookoutvision.server.datasets import gallery, labels, manifest
from airflow_provider_lookoutvision.server.datasets.gallery import Entry
from airflow_provider_lookoutvision.server.datasets.operations import USABLE, find_dataset, not_usable
from airflow_provider_lookoutvision.server.protocol.errors import ProtocolError, ValidationException
from airflow_provider_lookoutvision.server.storage.buckets import Location

_MOST_CHANGES = 1000
_COLOR = re.compile(r"#[0-9A-Fa-f]{6}")
_PNG = b"\x89PNG\r\n\x1a\n"


class EditConflict(ProtocolError):
    """Somebody else has changed an entry meanwhile; ``entries`` has what is there now."""

    status = 409

    def __init__(self, changed: Mapping[str, Entry | None]) -> None:
        names = ", ".join(reference.rpartition("/")[2] for reference in list(changed)[:3])
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        super().__init__(f"Somebody else has changed {names}{more} meanwhile; nothing of yours was saved")
        self.members = {
            "entries": [  # type: ignore[dict-item]
                {
                    "ref": reference,
                    "label": entry.label if entry else None,
                    "version": entry.version if entry else None,
                    "mask": bool(entry and entry.mask),
                }
                for reference, entry in changed.items()
            ]
        }


def save_labels(visit: Visit) -> Response:
    """Set the labels of some images.

    The body: ``token``; ``at``, when; ``changes``, each with ``ref``, ``version`` and ``label``.
    """
    document = visit.document
    changes = document.get("changes")
    if not isinstance(changes, list) or not 0 < len(changes) <= _MOST_CHANGES:
        raise ValidationException(f"Set the labels of 1 to {_MOST_CHANGES} images at a time")
    wanted: dict[str, str | None] = {}
    seen: dict[str, str | None] = {}
    for change in changes:
        reference, label = str(change.get("ref")), change.get("label")
        if label is not None and label not in labels.LABELS:
            raise ValidationException(f"The label is {label!r}; it must be normal, anomaly or null")
        wanted[reference], seen[reference] = label, change.get("version")
    moment = _moment(document)

    def change_of(entry: Entry) -> str:
        return labels.labelled(entry.line, wanted[entry.source_ref], moment)

    return _save(visit, seen, change_of, str(document.get("token", "")))


def save_mask(visit: Visit) -> Response:
    """Write a painted mask into the image's bucket, and name it in the entry.

    The body is the PNG; without one the mask is taken away. The query: ``ref``, ``version``, ``token``,
    ``at``, and ``class`` and ``color`` of each class.
    """
    query = visit.request.query_params
    reference = query.get("ref", "")
    names, colors = query.getlist("class"), query.getlist("color")
    if not all(_COLOR.fullmatch(color) for color in colors) or len(names) != len(colors):
        raise ValidationException("Each class needs a name and a colour as #23A436")
    painted = dict(zip(names, colors, strict=True))
    moment = _moment(query)
    mask_ref: str | None = None
    content = visit.body
    if content:
        if not content.startswith(_PNG):
            raise ValidationException("The mask is not a PNG")
        if len(painted) != len(names) or len({color.upper() for color in colors}) != len(colors):
            raise ValidationException("Two classes have one name or one colour: change one of them")
        image = location_of(reference)
        place = Location(image.bucket, _mask_key(image.key, content))
        visit.objects.write(place, content)
        mask_ref = str(place)

    def change_of(entry: Entry) -> str:
        return labels.masked(entry.line, mask_ref, painted, moment)

    return _save(visit, {reference: query.get("version")}, change_of, query.get("token", ""))


def _save(visit: Visit, seen: dict[str, str | None], change_of: Any, token: str) -> Response:
    name, kind = visit.path["project"], visit.path["kind"]

    def find(call: Call) -> dict[str, Entry]:
        dataset = find_dataset(call, name, kind)
        if dataset.status not in USABLE:  # maybe it is this page's last change that is under way
            raise not_usable(dataset, name)
        return gallery.find(call, name, kind, seen)

    now = visit.look("ListDatasetEntries", name, find)
    lines: dict[str, str] = {}
    left: dict[str, str | None] = {}
    try:
        for reference, entry in now.items():
            lines[reference] = change_of(entry)
            if lines[reference] != entry.line:
                left[reference] = seen[reference]
    except manifest.InvalidLine as problem:
        raise ValidationException(f"{reference} can't be changed: {problem}") from None
    _refuse({reference: now.get(reference) for reference in seen if reference not in now})
    _refuse({reference: now[reference] for reference in left if now[reference].version != left[reference]})

    def check(call: Call) -> None:
        _refuse(gallery.changed(call, name, kind, left))

    if left:
        visit.call(
            "UpdateDatasetEntries",
            check,
            ProjectName=name,
            DatasetType=kind,
            Changes="\n".join(lines[reference] for reference in left).encode(),
            ClientToken=token or visit.new_token(),
        )
    entries = [
        {
            "ref": reference,
            "label": manifest.read(line.encode()).label,
            "version": labels.version(line),
            "mask": manifest.mask_of(line) is not None,
        }
        for reference, line in lines.items()
    ]
    return JSONResponse({"entries": entries, "saving": bool(left)})


def _refuse(changed: Mapping[str, Entry | None]) -> None:
    if changed:
        raise EditConflict(changed)


def _mask_key(key: str, content: bytes) -> str:
    """A key of its own for each mask: one that is saved at the same time replaces none."""
    folder, slash, name = key.rpartition("/")
    return f"{folder}{slash}masks/{name}.{hashlib.sha256(content).hexdigest()[:12]}.png"


def _moment(given: Mapping[str, Any]) -> str:
    """When the change was made, by the page: a repeated request is the same request."""
    text = str(given.get("at", ""))
    if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z?", text):
        return text
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_DATASET = "/projects/{project}/datasets/{kind}"
PAGES = {
    ("POST", f"{_DATASET}/labels"): save_labels,
    ("POST", f"{_DATASET}/mask"): save_mask,
}
