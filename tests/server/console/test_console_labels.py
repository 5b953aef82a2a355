"""Labels in the gallery: by keys, many at once, and by two people at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from dataset_projects import DatasetProject
from drawn_parts import drawn
from manifest_lines import line, manifest
from playwright.sync_api import Page, expect
from polling import until
from services import MakeClient, NewKey

from airflow_provider_lookoutvision.testing.service import Key, Service

pytestmark = pytest.mark.one_database

SignIn = Callable[..., Page]
MARKUP = "<img src=x onerror=document.title='broken'>\"'&amp;.jpg"
LONG = "n" * 251 + ".jpg"


class Gallery:
    """A project with images without labels, and a key to it."""

    def __init__(self, service: Service, client: Any, key: Key, *names: str) -> None:
        self.key = key
        self.project = DatasetProject.make(service, client)
        for number, name in enumerate(names):
            (self.project.folder / name).write_bytes(drawn(number)[0])
        self.project.created(
            manifest(*({"source-ref": f"s3://{self.project.bucket}/{name}"} for name in names))
        )

    def labels(self) -> dict[str, str | None]:
        self.project.settled()
        found = [json.loads(entry) for entry in self.project.entries()]
        return {
            each["source-ref"].rpartition("/")[2]: each.get("anomaly-label-metadata", {}).get("class-name")
            for each in found
        }


@pytest.fixture
def new_gallery(service: Service, make_client: MakeClient, new_key: NewKey) -> Callable[..., Gallery]:
    def new_gallery(*names: str) -> Gallery:
        key = new_key()
        return Gallery(service, make_client(key=key), key, *names)

    return new_gallery


def opened(page: Page) -> Page:
    page.goto("/console/projects/p/datasets/train")
    return page


def tile(page: Page, name: str) -> Any:
    return page.get_by_role("option", name=name)


def saved(page: Page) -> None:
    expect(page.locator("#saved")).to_have_text("All is saved")


def test_by_keys(sign_in: SignIn, new_gallery: Callable[..., Gallery]) -> None:
    gallery = new_gallery("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    page = opened(sign_in(gallery.key))
    tile(page, "a.jpg").focus()
    page.keyboard.press("n")  # and on to the next
    page.keyboard.press("a")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("a")
    expect(tile(page, "d.jpg")).to_have_attribute("data-label", "anomaly")
    saved(page)
    assert gallery.labels() == {"a.jpg": "normal", "b.jpg": "anomaly", "c.jpg": None, "d.jpg": "anomaly"}

    page.keyboard.press("Control+z")
    saved(page)
    page.keyboard.press("Control+a")
    page.keyboard.press("u")
    saved(page)
    assert set(gallery.labels().values()) == {None}


def test_many_at_once_and_filtered(sign_in: SignIn, new_gallery: Callable[..., Gallery]) -> None:
    gallery = new_gallery(*(f"{number}.jpg" for number in range(100)))
    page = opened(sign_in(gallery.key))
    tile(page, "10.jpg").click()
    tile(page, "39.jpg").click(modifiers=["Shift"])
    page.get_by_role("button", name="Anomaly").click()
    saved(page)
    assert list(gallery.labels().values()).count("anomaly") == 30

    page.locator("select[name=label]").select_option("none")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("#count")).to_have_text("70 images")
    page.goto("/console/projects/p/datasets/train")
    page.get_by_role("link", name="Next").click()
    expect(page.locator(".tile")).to_have_count(4)


def test_the_next_page_of_a_filter_has_what_is_left(
    sign_in: SignIn, new_gallery: Callable[..., Gallery]
) -> None:
    gallery = new_gallery(*(f"{number}.jpg" for number in range(100)))
    page = sign_in(gallery.key)
    page.goto("/console/projects/p/datasets/train?label=none")
    page.locator(".tile").first.focus()
    page.keyboard.press("Control+a")
    page.keyboard.press("n")
    page.keyboard.press("PageDown")  # what was labelled is on none of its pages any more
    expect(page.locator(".tile")).to_have_count(4)
    expect(tile(page, "99.jpg")).to_be_visible()


def test_a_dataset_is_deleted_after_a_question(sign_in: SignIn, new_gallery: Callable[..., Gallery]) -> None:
    gallery = new_gallery("a.jpg")
    page = opened(sign_in(gallery.key))
    page.get_by_role("button", name="Delete").press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("The labels of 0 images go with it")
    assert not Axe().run(page).response["violations"]
    page.keyboard.press("Enter")  # of the button that is chosen at first: Cancel
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert gallery.labels() == {"a.jpg": None}
    page.get_by_role("button", name="Delete").press("Enter")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/projects/p")
    described = gallery.project.client.describe_project(ProjectName="p")["ProjectDescription"]
    assert not described["Datasets"]


def test_a_label_that_is_refused_is_taken_back(sign_in: SignIn, new_gallery: Callable[..., Gallery]) -> None:
    gallery = new_gallery("a.jpg", "b.jpg")
    page = opened(sign_in(gallery.key))
    tile(page, "b.jpg").dblclick()
    page.locator("#painter[data-ready]").wait_for()
    gallery.project.delete()
    page.keyboard.press("n")
    expect(page.get_by_role("alert")).to_contain_text("The labels weren't saved")
    expect(page.locator("#label_shown")).to_have_text("no label")


def test_two_fingers_zoom_and_paint_nothing(sign_in: SignIn, new_gallery: Callable[..., Gallery]) -> None:
    gallery = new_gallery("a.jpg")
    page = opened(sign_in(gallery.key, has_touch=True))
    tile(page, "a.jpg").press("Enter")
    page.locator("#painter[data-ready]").wait_for()
    page.get_by_label("Class", exact=True).fill("scratch")
    page.get_by_label("Class", exact=True).press("Enter")
    box = page.locator("#stage").bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    browser = page.context.new_cdp_session(page)

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
        browser.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    drawn_before = page.locator("#stage").screenshot()
    touch("touchStart", (x - 20, y))
    touch("touchStart", (x - 20, y), (x + 20, y))
    touch("touchMove", (x - 60, y), (x + 60, y))
    touch("touchEnd")
    expect(page.locator("#undo")).to_be_disabled()
    assert page.locator("#stage").screenshot() != drawn_before, "zoomed"
    touch("touchStart", (x, y))
    touch("touchMove", (x + 20, y))
    touch("touchEnd")
    expect(page.locator("#undo")).to_be_enabled()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").get_by_role("button", name="Leave it").click()
    page.wait_for_url("**/datasets/train")


def test_two_people_lose_nothing(sign_in: SignIn, new_gallery: Callable[..., Gallery]) -> None:
    gallery = new_gallery("a.jpg", "b.jpg", "c.jpg")
    first, second = opened(sign_in(gallery.key)), opened(sign_in(gallery.key))
    first.route("**/state*", lambda route: route.abort())  # it doesn't see what the other one does
    tile(second, "a.jpg").focus()
    second.keyboard.press("n")
    saved(second)
    gallery.project.settled()

    tile(first, "a.jpg").focus()
    first.keyboard.press("a")
    first.keyboard.press("a")
    conflict = first.get_by_role("alert").filter(has_text="Somebody else has changed a.jpg")
    expect(conflict).to_be_visible()
    expect(tile(first, "a.jpg")).to_have_attribute("data-label", "normal")
    saved(first)
    assert gallery.labels() == {"a.jpg": "normal", "b.jpg": "anomaly", "c.jpg": None}

    # Having seen it, one may set it.
    tile(first, "a.jpg").focus()
    first.keyboard.press("a")
    saved(first)
    assert gallery.labels()["a.jpg"] == "anomaly"
    # ... and the other one sees that, without doing anything.
    expect(tile(second, "a.jpg")).to_have_attribute("data-label", "anomaly")


def test_any_name_is_shown_as_it_is(sign_in: SignIn, new_gallery: Callable[..., Gallery]) -> None:
    gallery = new_gallery(MARKUP, LONG)
    page = opened(sign_in(gallery.key))
    expect(page.locator(".tile .name").first).to_have_text(MARKUP)
    page.locator(".tile").first.focus()
    page.keyboard.press("n")
    page.keyboard.press("n")
    saved(page)
    assert gallery.labels() == {MARKUP: "normal", LONG: "normal"}
    assert page.evaluate("document.querySelectorAll('.tile img').length") == 2
    assert "broken" not in page.title()
    until(lambda: page.evaluate("[...document.images].every(image => image.naturalWidth)"), bool)


def test_what_a_key_may_not_see_is_not_there(
    sign_in: SignIn, new_gallery: Callable[..., Gallery], new_key: NewKey, make_client: MakeClient
) -> None:
    gallery = new_gallery("a.jpg")
    gallery.project.client.create_project(ProjectName="line-1")
    page = sign_in(new_key(project=["line-*"], allow=["lookoutvision:List*", "lookoutvision:Describe*"]))
    expect(page.get_by_role("link", name="line-1")).to_be_visible()
    assert page.get_by_role("row").count() == 2, "and no other project"
    assert page.get_by_role("button", name="Create").count() == 0
    page.goto("/console/projects/p/datasets/train")
    expect(page.get_by_role("alert")).to_contain_text(
        "is not authorized to perform: lookoutvision:DescribeDataset"
    )
    bucket = gallery.project.bucket
    answer = page.request.get(f"/console/pictures/original?uri=s3://{bucket}/a.jpg")
    assert answer.status == 403


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_pages_are_accessible(
    sign_in: SignIn, new_gallery: Callable[..., Gallery], color_scheme: str
) -> None:
    gallery = new_gallery("a.jpg", "b.jpg", "c.jpg")
    gallery.project.update(manifest(line("a.jpg", bucket=gallery.project.bucket)))
    page = sign_in(gallery.key, color_scheme=color_scheme)
    for path in ("/", "/projects/p", "/projects/p/delete", "/projects/p/datasets/train"):
        page.goto(f"/console{path}")
        results = Axe().run(page)
        assert not results.response["violations"], f"{path}: {results.generate_report()}"


def test_a_page_of_16000_images_loads_few(
    service: Service, sign_in: SignIn, new_gallery: Callable[..., Gallery]
) -> None:
    gallery = new_gallery(*(f"{number}.jpg" for number in range(4)))
    many = [line(f"{number}.jpg", bucket=gallery.project.bucket) for number in range(16_000)]
    gallery.project.update(manifest(*many))
    page = sign_in(gallery.key)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/console/projects/p/datasets/train?page=80")
    expect(page.locator("#count")).to_have_text(re.compile("16.000 images"))
    page.wait_for_load_state("networkidle")
    assert page.locator(".tile").count() == 96
    assert sum("/thumbnail" in url for url in asked) <= 96
