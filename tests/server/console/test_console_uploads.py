"""Images from a computer into a dataset: files and folders that are dropped, and what interrupts them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dataset_projects import DatasetProject
from drawn_parts import drawn
from playwright.sync_api import CDPSession, Page, expect
from services import MakeClient

from airflow_provider_lookoutvision.testing.service import Key, Service

pytestmark = pytest.mark.one_database

SignIn = Callable[..., Page]
ADD = "/projects/p/datasets/train/add"


@pytest.fixture
def project(service: Service, make_client: MakeClient, key: Key) -> DatasetProject:
    project = DatasetProject.make(service, make_client(key=key))
    project.client.create_dataset(ProjectName="p", DatasetType="train")
    project.settled()
    return project


@pytest.fixture
def page(sign_in: SignIn, project: DatasetProject, key: Key) -> Page:
    page = sign_in(key, to=ADD)
    page.get_by_label("Into the bucket").fill(project.bucket)
    return page


@pytest.fixture
def castings(tmp_path: Path) -> Path:
    """A folder with images of both labels, a mask, and a text."""
    folder = tmp_path / "castings"
    for number, name in enumerate(("normal/1.jpg", "normal/2.jpg", "anomaly/3.JPG", "masks/3.jpg", "4.jpeg")):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(drawn(number)[0])
    (folder / "notes.txt").write_text("of Tuesday")
    return folder


def dragged(page: Page, place: tuple[float, float], *paths: Path) -> None:
    """Drag files or folders from the computer over a place of the page, and drop them."""
    browser: CDPSession = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        position = {"x": place[0], "y": place[1]}
        browser.send("Input.dispatchDragEvent", {"type": kind, "data": data, **position})
    browser.detach()


def middle_of(page: Page, selector: str) -> tuple[float, float]:
    box = page.locator(selector).bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def labels(project: DatasetProject) -> dict[str, str | None]:
    project.settled()
    found = [json.loads(entry) for entry in project.entries()]
    prefix = f"s3://{project.bucket}/p/train/"
    return {
        each["source-ref"].removeprefix(prefix): each.get("anomaly-label-metadata", {}).get("class-name")
        for each in found
    }


def test_a_folder_is_dropped(page: Page, project: DatasetProject, castings: Path) -> None:
    dragged(page, middle_of(page, "#drop"), castings)
    said = page.locator("#said")
    expect(said).to_contain_text("4 were added to the dataset")
    expect(said).to_contain_text("4 of 4 files")
    expect(said).to_contain_text("1 are no JPEG or PNG")
    expect(said).to_contain_text("1 in folders named masks were left out")
    expect(page.locator("#bar")).to_have_js_property("value", 1)
    assert labels(project) == {
        "castings/normal/1.jpg": "normal",
        "castings/normal/2.jpg": "normal",
        "castings/anomaly/3.JPG": "anomaly",
        "castings/4.jpeg": None,
    }
    sent = castings / "normal" / "2.jpg"
    assert (project.folder / "p/train/castings/normal/2.jpg").read_bytes() == sent.read_bytes()


def test_files_are_dropped_and_what_misses_the_place_opens_nothing(
    page: Page, project: DatasetProject, castings: Path
) -> None:
    files = [castings / "normal" / "1.jpg", castings / "4.jpeg"]
    address = page.url
    dragged(page, middle_of(page, "h1"), *files)
    page.get_by_label("With the label").first.select_option("anomaly")
    dragged(page, middle_of(page, "#drop"), *files)
    expect(page.locator("#said")).to_contain_text("2 were added to the dataset")
    assert page.url == address
    assert labels(project) == {"1.jpg": "anomaly", "4.jpeg": "anomaly"}


def test_an_upload_goes_on_where_the_browser_was_closed(
    sign_in: SignIn, key: Key, page: Page, project: DatasetProject, castings: Path
) -> None:
    sent: list[str] = []

    def hold(route: Any) -> None:
        sent.append(route.request.url)
        if len(sent) == 1:
            route.continue_()

    page.route("**/file?*", hold)
    page.locator("#choose_folder").set_input_files(castings)
    expect(page.locator("#said")).to_contain_text("1 of 4 files")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Go on")).to_be_visible()
    page.context.close()
    assert labels(project) == {}

    second = sign_in(key, to=ADD)
    second.get_by_label("Into the bucket").fill(project.bucket)
    second.locator("#choose_folder").set_input_files(castings)
    expect(second.locator("#said")).to_contain_text("4 were added to the dataset")
    expect(second.locator("#said")).to_contain_text("1 were there already")
    assert len(labels(project)) == 4


def test_a_service_that_is_away_is_waited_for(page: Page, project: DatasetProject, castings: Path) -> None:
    lost: list[str] = []

    def lose(route: Any) -> None:
        if len(lost) < 2:
            lost.append(route.request.url)
            route.abort()
        else:
            route.continue_()

    page.route("**/file?*", lose)
    page.locator("#choose_folder").set_input_files(castings)
    expect(page.locator("#said")).to_contain_text("4 were added to the dataset")
    assert len(lost) == 2


def test_a_file_that_is_gone_stops_no_other(page: Page, project: DatasetProject, castings: Path) -> None:
    # It goes between being dropped and being read.
    page.evaluate("void (window.holding = new Promise((resolve) => (window.release = resolve)))")
    page.evaluate(
        "void (File.prototype.arrayBuffer = (read => async function () { await window.holding;"
        " return read.call(this); })(File.prototype.arrayBuffer))"
    )
    dragged(page, middle_of(page, "#drop"), castings)
    expect(page.locator("#said")).to_contain_text("0 of 4 files")
    (castings / "normal" / "2.jpg").unlink()
    page.evaluate("window.release()")
    expect(page.locator("#faults li")).to_contain_text(
        ["castings/normal/2.jpg: it can't be read: is it still there, and may you read it?"]
    )
    expect(page.locator("#said")).to_contain_text("3 were added to the dataset")
