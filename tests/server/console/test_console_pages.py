"""What pages find, and what their scripts change, on every database."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from dataset_projects import DatasetProject
from drawn_parts import encoded
from manifest_lines import line, manifest, masked
from PIL import Image
from services import MakeClient
from signed_in import Session

from airflow_provider_lookoutvision.testing.service import Key, Service

GALLERY = "/projects/p/datasets/train"
Tiles = dict[str, str]


@pytest.fixture
def project(service: Service, make_client: MakeClient, key: Key) -> DatasetProject:
    project = DatasetProject.make(service, make_client(key=key))
    bucket = project.bucket
    other = {"0": {"class-name": 'a "dent" 100%', "hex-color": "#1F77B4"}}
    lines = [
        *(line(f"normal-{number}.jpg", bucket=bucket) for number in range(3)),
        *(line(f"none_{number}.jpg", None, bucket=bucket) for number in range(2)),
        masked("scratched.jpg", bucket=bucket),
        masked("dented.jpg", bucket=bucket, colors=other),
    ]
    project.created(manifest(*lines))
    return project


@pytest.fixture
def session(service: Service, project: DatasetProject, key: Key) -> Session:
    return Session(service, key)


@pytest.fixture
def tiles(session: Session) -> Callable[[str], Tiles]:
    """A function: the names on a page of the gallery, and the versions of their entries."""

    def tiles(query: str = "") -> Tiles:
        found = re.findall(r'data-ref="([^"]*)" data-version="(\w+)"', session.page(f"{GALLERY}?{query}"))
        return {html.unescape(ref).rpartition("/")[2]: version for ref, version in found}

    return tiles


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("label=normal", {"normal-0.jpg", "normal-1.jpg", "normal-2.jpg"}),
        ("label=none", {"none_0.jpg", "none_1.jpg"}),
        ("label=anomaly", {"scratched.jpg", "dented.jpg"}),
        ("class=scratch", {"scratched.jpg"}),
        ("class=a+%22dent%22+100%25", {"dented.jpg"}),
        ("name=e_", {"none_0.jpg", "none_1.jpg"}),
        ("name=normal-1&label=anomaly", set()),
        ("page=2", set()),
    ],
)
def test_filters(tiles: Callable[[str], Tiles], query: str, names: set[str]) -> None:
    assert set(tiles(query)) == names


def test_one_image_and_its_neighbours(session: Session, project: DatasetProject) -> None:
    reference = f"s3://{project.bucket}/none_0.jpg"
    text = session.page(f"{GALLERY}/image?ref={reference}&label=none")
    (after,) = re.findall(r'data-after="([^"]*)"', text)
    assert "none_1.jpg" in html.unescape(after)
    assert 'data-before=""' in text
    assert "has no image" in html.unescape(session.page(f"{GALLERY}/image?ref=s3://b/k", 404))


def change(project: DatasetProject, name: str, version: str, label: str | None) -> dict[str, Any]:
    return {"ref": f"s3://{project.bucket}/{name}", "version": version, "label": label}


def test_a_label_is_saved_once_however_often_it_is_sent(
    session: Session, project: DatasetProject, tiles: Callable[[str], Tiles]
) -> None:
    at = {"token": "a-token", "at": "2026-11-30T05:00:00.000Z"}
    asked = {**at, "changes": [change(project, "none_0.jpg", tiles("")["none_0.jpg"], "anomaly")]}
    (saved,) = session.ask(f"{GALLERY}/labels", asked)["entries"]
    project.settled()
    assert session.ask(f"{GALLERY}/labels", asked) == {"entries": [saved], "saving": False}
    assert tiles("label=anomaly")["none_0.jpg"] == saved["version"]


def test_what_has_changed_meanwhile_is_not_overwritten(
    session: Session, project: DatasetProject, tiles: Callable[[str], Tiles]
) -> None:
    seen = tiles("")
    project.update(manifest(line("none_0.jpg", "normal", bucket=project.bucket)))
    changes = [change(project, name, seen[name], "anomaly") for name in ("none_0.jpg", "none_1.jpg")]
    refusal = session.ask(f"{GALLERY}/labels", {"changes": changes}, 409)
    assert refusal["code"] == "EditConflict"
    assert [each["label"] for each in refusal["entries"]] == ["normal"]
    assert set(tiles("label=none")) == {"none_1.jpg"}


def test_a_mask_overwrites_nothing(
    session: Session, project: DatasetProject, tiles: Callable[[str], Tiles]
) -> None:
    seen = tiles("")["scratched.jpg"]
    project.update(manifest(line("scratched.jpg", "normal", bucket=project.bucket)))
    query = urlencode(
        {
            "ref": f"s3://{project.bucket}/scratched.jpg",
            "version": seen,
            "class": "scratch",
            "color": "#2CA02C",
        }
    )
    png = encoded(Image.new("RGB", (8, 8), "#2CA02C"), "PNG")
    refusal = session.ask(f"{GALLERY}/mask?{query}", png, 409)
    assert [(each["label"], each["mask"]) for each in refusal["entries"]] == [("normal", False)]
    assert tiles("class=scratch") == {}
    # Having seen what is there, one may set it.
    answer = session.ask(f"{GALLERY}/mask?{query}".replace(seen, refusal["entries"][0]["version"]), png)
    project.settled()
    assert tiles("class=scratch")["scratched.jpg"] == answer["entries"][0]["version"]


def test_a_label_waits_for_an_update_that_is_under_way(
    session: Session, project: DatasetProject, tiles: Callable[[str], Tiles], storage: Any
) -> None:
    from airflow_provider_lookoutvision.server.storage.schema import datasets

    seen = tiles("")
    with storage.database.read() as connection:
        newest = datasets.select().order_by(datasets.c.id.desc()).limit(1)
        mine = connection.execute(newest).one()

    def put(status: str) -> None:
        with storage.database.write() as connection:
            connection.execute(datasets.update().where(datasets.c.id == mine.id).values(status=status))

    put("UPDATE_IN_PROGRESS")
    changes = {"changes": [change(project, "none_0.jpg", "of what is under way", "normal")]}
    assert session.ask(f"{GALLERY}/labels", changes, 409)["code"] == "ConflictException"
    put("CREATE_COMPLETE")
    assert session.ask(f"{GALLERY}/labels", changes, 409)["code"] == "EditConflict"
    assert tiles("") == seen


def test_projects_with_what_is_in_them(session: Session, project: DatasetProject) -> None:
    project.client.create_project(ProjectName="under_score")
    text = session.page("/?name=_")
    assert "under_score" in text
    assert 'projects/p"' not in text
    row = re.search(r'projects/p">p</a></th>\s*<td class="n">(\d+)</td>', session.page("/"))
    assert row
    assert row[1] == "7"


def test_a_project_goes_with_all_that_it_has(session: Session, project: DatasetProject) -> None:
    assert "the labels of 5 of 7 images" in session.page("/projects/p/delete")
    session.send("/projects/p/delete", 400, name="another")
    session.send("/projects/p/delete", name="p")
    session.page("/projects/p", 404)


def test_a_new_image_with_its_label(session: Session, project: DatasetProject) -> None:
    assert (
        "neither a JPEG nor a PNG"
        in session.ask(f"{GALLERY}/file?bucket={project.bucket}&key=x.jpg", b"text", 400, "PUT")["message"]
    )
    content = b"\xff\xd8\xff is enough to be one here"
    session.ask(f"{GALLERY}/file?bucket={project.bucket}&key=a/b.jpg", content, method="PUT")
    assert (project.folder / "a/b.jpg").read_bytes() == content
    added = {"refs": [f"s3://{project.bucket}/a/b.jpg"], "label": "anomaly", "token": "t"}
    assert session.ask(f"{GALLERY}/entries", added) == {"added": 1}
    project.settled()
    assert session.ask(f"{GALLERY}/entries", {**added, "label": "normal", "token": "u"}) == {"added": 0}
    assert session.page(f"{GALLERY}?name=a/b.jpg&label=anomaly").count('class="tile"') == 1
