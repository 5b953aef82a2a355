"""What a quality engineer does, from images on a disk to a model that learns from its mistakes, in one go."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from drawn_parts import encoded
from model_fixtures import TrainingService
from PIL import Image
from playwright.sync_api import Page, expect
from polling import until

from airflow_provider_lookoutvision.engine import AnomalyClass
from airflow_provider_lookoutvision.engine.masks import decode
from airflow_provider_lookoutvision.server.datasets import manifest
from example_dags.demo import parts

pytest_plugins = ["model_fixtures"]
pytestmark = pytest.mark.one_database

SignIn = Callable[..., Page]
SIZE = 224  # of the images: larger ones take longer to learn from
SHOTS = Path(__file__).parents[3] / "build" / "console"


def smaller(png: bytes) -> bytes:
    return encoded(Image.open(io.BytesIO(png)).resize((SIZE, SIZE)), "PNG")


def shot(page: Page, name: str) -> None:
    """A picture for docs/console.md, into build/console."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    picture = Image.open(io.BytesIO(page.screenshot(animations="disabled")))
    picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(SHOTS / f"{name}.png", optimize=True)


def accessible(page: Page) -> None:
    results = Axe().run(page)
    assert not results.response["violations"], f"{page.url}: {results.generate_report()}"


def settled(page: Page) -> None:
    page.wait_for_load_state("networkidle")
    # Not wait_for_function: it evaluates a string in the page, which the page's policy forbids.
    until(lambda: page.evaluate("[...document.images].every(image => !image.src || image.complete)"), bool)


@pytest.mark.timeout(900)
def test_from_images_to_a_model_and_back(
    sqlite_training_service: TrainingService, account: str, sign_in: SignIn, tmp_path: Path
) -> None:
    key = sqlite_training_service.new_key(account)
    client = sqlite_training_service.client(account)
    service = sqlite_training_service.service
    bucket = f"castings-{account}"
    # With few anomalies to learn from, it learns within seconds.
    folders = [("train", 37), ("test", 10)], [("train", 3), ("test", 10)]
    drawn = iter(parts.draw(normal=47, scratched=7, dented=6))
    for label, places in zip(("normal", "anomaly"), folders, strict=True):
        for kind, count in places:
            folder = tmp_path / kind / "castings" / label
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{label}-{kind}-{number:02}.png").write_bytes(smaller(next(drawn).image))
    (tmp_path / "train" / "castings" / "normal" / "damaged.jpg").write_text("this is no image")

    page = sign_in(key, service)
    page.get_by_label("New project").fill("castings")
    page.get_by_role("button", name="Create").click()
    page.get_by_role("button", name="Create, and add images").first.click()

    # Upload a folder; the labels are those of its folders, but for what is labelled by hand below.
    page.get_by_label("Into the bucket").fill(bucket)
    page.get_by_label("With the label").first.select_option("")
    page.locator("#choose_folder").set_input_files(tmp_path / "train" / "castings")
    expect(page.locator("#said")).to_contain_text("40 were added to the dataset")
    expect(page.locator("#faults li")).to_have_text(re.compile("damaged.jpg: it is neither a JPEG nor a PNG"))
    accessible(page)
    shot(page, "add")
    page.locator("#choose_folder").set_input_files(tmp_path / "train" / "castings")
    expect(page.locator("#said")).to_contain_text("40 were there already")
    expect(page.locator("#said")).to_contain_text("0 were added")
    page.goto("/console/projects/castings")
    page.get_by_role("button", name="Create, and add images").click()
    page.get_by_label("Into the bucket").fill(bucket)
    page.locator("#choose_folder").set_input_files(tmp_path / "test" / "castings")
    expect(page.locator("#said")).to_contain_text("20 were added to the dataset")
    page.get_by_role("link", name="To the pictures").click()
    expect(page.locator("[data-stat=Anomaly]")).to_have_text("10")

    # Label: those of one name, all at once; and the rest.
    for label, name, count in (("anomaly", "Anomaly", 3), ("normal", "Normal", 37)):
        page.goto(f"/console/projects/castings/datasets/train?name={label}-")
        expect(page.locator(".tile")).to_have_count(count)
        page.locator(".tile").first.focus()
        page.keyboard.press("Control+a")
        page.get_by_role("toolbar").get_by_role("button", name=name).click()
        expect(page.locator("#saved")).to_have_text("All is saved")
        expect(page.locator("[data-stat=Total]")).to_have_text("40")
    page.goto("/console/projects/castings/datasets/train")
    settled(page)
    accessible(page)
    shot(page, "gallery")

    mask_is_painted(page, client, service.data_dir / "buckets")

    # Train, and see it through.
    page.goto("/console/projects/castings")
    accessible(page)
    page.get_by_role("button", name="Train").click()
    page.get_by_role("heading", name="Model 1").wait_for()
    expect(page.locator(".heading .state")).to_have_text("Trained", timeout=600_000)
    accessible(page)

    page.get_by_role("link", name="Evaluation").click()
    page.locator("#judge[data-ready]").wait_for()
    wrong_at_first = page.locator("#wrong").inner_text()
    page.get_by_label("An image is anomalous above the score").fill("0.995")
    expect(page.locator("#tp")).not_to_have_text("")
    assert page.locator("#recall").inner_text() != "", wrong_at_first
    page.get_by_label("An image is anomalous above the score").fill("0.3")
    page.get_by_role("button", name="Save this threshold").click()
    expect(page.locator("#in_use")).to_have_text("0.3")
    arn = client.describe_model(ProjectName="castings", ModelVersion="1")["ModelDescription"]["ModelArn"]
    tags = client.list_tags_for_resource(ResourceArn=arn)["Tags"]
    assert {"Key": "lookoutvision:threshold", "Value": "0.3"} in tags
    settled(page)
    accessible(page)
    shot(page, "evaluation")

    # Host it, and try it.
    page.goto("/console/projects/castings/models/1")
    page.get_by_role("button", name="Host", exact=True).click()
    page.get_by_role("link", name="Try it").click(timeout=300_000)
    page.locator("#choose").set_input_files(
        tmp_path / "test" / "castings" / "anomaly" / "anomaly-test-03.png"
    )
    expect(page.locator("#verdict")).to_have_text("Anomaly")
    accessible(page)
    shot(page, "try")
    page.get_by_role("button", name="That is wrong").click()
    expect(page.locator("#said")).to_contain_text("in the training dataset, as normal")
    tried = {name: label for name, label in labels_of(client).items() if "anomaly-test-03" in name}
    assert list(tried.values()) == ["normal"]

    review_puts_images_into_the_dataset(page, client, service.data_dir / "buckets" / bucket)

    page.goto("/console/projects/castings/models/1")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".heading .state")).to_have_text("Trained", timeout=120_000)
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Access key ID").wait_for()


def mask_is_painted(page: Page, client: Any, buckets: Path) -> None:
    """Paint a mask on an anomaly with brush, polygon and eraser; the service reads it as it was painted."""
    page.goto("/console/projects/castings/datasets/train?name=anomaly-")
    page.locator(".tile").first.dblclick()
    page.locator("#painter[data-ready]").wait_for()
    page.get_by_label("Class", exact=True).fill("scratch <5 mm")
    page.get_by_role("button", name="Add", exact=True).click()
    box = page.locator("#stage").bounding_box()
    assert box
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(middle[0] - 100, middle[1])
    page.mouse.down()
    page.mouse.move(middle[0] + 100, middle[1], steps=4)
    page.mouse.up()
    page.keyboard.press("p")
    for x, y in ((-150, 80), (150, 80), (0, 200)):
        page.mouse.click(middle[0] + x, middle[1] + y)
    page.keyboard.press("Enter")
    page.keyboard.press("e")
    page.mouse.click(middle[0], middle[1])
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+Shift+z")
    accessible(page)
    shot(page, "mask")
    page.keyboard.press("Control+s")
    expect(page.locator("#saved")).to_have_text("Saved")

    (masked,) = [entry for entry in entries_of(client) if manifest.mask_of(entry)]
    mask = manifest.mask_of(masked)
    assert mask
    assert mask.colors == {"scratch <5 mm": "#2CA02C"}
    file = buckets / mask.source_ref.removeprefix("s3://")
    classes = [AnomalyClass(name, color) for name, color in mask.colors.items()]
    indices = decode(file.read_bytes(), classes, SIZE, SIZE)
    middle = SIZE // 2
    assert set(indices.flat) == {0, 1}
    assert indices[middle, middle - 20], "by the brush"
    assert not indices[middle, middle], "erased"
    page.reload()
    page.locator("#painter[data-ready]").wait_for()
    # One image with a mask is too few for a model that makes masks.
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="Save the mask").click()
    expect(page.locator("#saved")).to_have_text("Saved")
    assert not [entry for entry in entries_of(client) if manifest.mask_of(entry)]
    assert labels_of(client)["anomaly-train-00.png"] == "anomaly"


def review_puts_images_into_the_dataset(page: Page, client: Any, bucket: Path) -> None:
    lines = []
    (bucket / "batch").mkdir(exist_ok=True)
    drawn = parts.draw(normal=1, scratched=2, dented=0, seed=1)
    for number, (part, confidence) in enumerate(zip(drawn, (0.99, 0.55, 0.61), strict=True)):
        (bucket / "batch" / f"new-{number}.png").write_bytes(smaller(part.image))
        ref = f"s3://{bucket.name}/batch/new-{number}.png"
        lines.append({"source-ref": ref, "IsAnomalous": True, "Confidence": confidence})
    lines.append({"source-ref": f"s3://{bucket.name}/gone.jpg", "error": {"Code": "x", "Message": "y"}})
    (bucket / "results.jsonl").write_text("\n".join(map(json.dumps, lines)))
    page.goto(f"/console/review?results=s3://{bucket.name}/results.jsonl")
    expect(page.locator("#name")).to_have_text("new-1.png")  # the least certain first
    settled(page)
    accessible(page)
    shot(page, "review")
    page.keyboard.press("n")
    expect(page.locator("#name")).to_have_text("new-2.png")
    page.keyboard.press("a")
    expect(page.locator("#said")).to_have_text("All is saved")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("a")  # on second thoughts
    expect(page.locator("#said")).to_have_text("All is saved")
    found = labels_of(client)
    assert (found.get("new-1.png"), found.get("new-2.png")) == ("anomaly", "anomaly")
    assert "new-0.png" not in found


def entries_of(client: Any) -> list[str]:
    of = {"ProjectName": "castings", "DatasetType": "train"}
    until(
        lambda: client.describe_dataset(**of)["DatasetDescription"]["Status"],
        lambda status: "IN_PROGRESS" not in status,
    )
    pages = client.get_paginator("list_dataset_entries").paginate(**of)
    return [entry for page in pages for entry in page["DatasetEntries"]]


def labels_of(client: Any) -> dict[str, str | None]:
    found = [json.loads(entry) for entry in entries_of(client)]
    return {
        each["source-ref"].rpartition("/")[2]: each.get("anomaly-label-metadata", {}).get("class-name")
        for each in found
    }
