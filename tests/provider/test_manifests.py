"""Manifests of folders and tables: what they contain, and how images are split."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_lookoutvision import manifests

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROOT = "s3://images/line-1/"


def names(*patterns: str) -> dict[str, datetime]:
    return dict.fromkeys(patterns, WHEN)


def test_folders_say_the_labels_and_the_masks() -> None:
    found = manifests.from_folders(
        ROOT, names("normal/b.PNG", "normal/sub/a.jpg", "anomaly/c.jpeg", "masks/crack/c.png", "README.txt")
    )
    assert [(image.source_ref, image.label, image.mask_class) for image in found] == [
        (f"{ROOT}normal/b.PNG", "normal", None),
        (f"{ROOT}normal/sub/a.jpg", "normal", None),
        (f"{ROOT}anomaly/c.jpeg", "anomaly", "crack"),
    ]
    assert found[2].mask_ref == f"{ROOT}masks/crack/c.png"


@pytest.mark.parametrize(
    ("objects", "match"),
    [
        (["other/a.png"], "no images in normal/ or anomaly/, only other/a.png"),
        ([], "only nothing"),
        (["anomaly/a.png", "masks/x/b.png"], "masks have no image in anomaly/: masks/x/b.png; the mask of"),
        (
            ["anomaly/a.png", "masks/a.png"],
            "masks/a.png is in no class's folder: .* is masks/<class>/<name>.png",
        ),
        (
            ["anomaly/a.jpg", "anomaly/a.png", "masks/x/a.png"],
            "masks/x/a.png is the mask of anomaly/a.jpg and of anomaly/a.png",
        ),
        (["anomaly/a.png", "masks/x/a.png", "masks/y/a.png"], "masks of 'x' and 'y'"),
        (["normal/a.png", "masks/x/a.png"], "no image in anomaly/: masks/x/a.png"),
        (["anomaly/a.png", "masks/x/a.jpg"], "masks/x/a.jpg is a mask, and no PNG: save it as PNG"),
        (["anomaly/a.png", "masks/x/a.tif"], "masks/x/a.tif is a mask, and no PNG"),
    ],
)
def test_folders_of_which_no_manifest_can_be_made(objects: list[str], match: str) -> None:
    with pytest.raises(manifests.InvalidLayout, match=match):
        manifests.from_folders(ROOT, names(*objects))


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ("picture,label\na,normal", "first line is 'picture,label'; it needs the columns image and label"),
        ("a.png,good\nb.png,normal", "first line is 'a.png,good'; it needs the columns image and label"),
        ("", "needs the columns image and label"),
        ("image,label", "lists no images"),
        ("image,label\na.png,good", "line 2 of the table has the image 'a.png' and the label 'good'"),
        ("image,label\na.png,normal\na.png,anomaly", "line 3 of the table repeats"),
        ("image,label,mask,class\na.png,anomaly,m.png,", "line 2 of the table has a mask without a class"),
        ("image,label\n,normal", "line 2"),
        ("image,label\nhttps://images/a.png,normal", "line 2 .* 'https://images/a.png'; it must be s3://"),
        ("image,label\n/data/a.png,normal", "line 2 of the table has '/data/a.png'; .* upload it there"),
        ("image,label\nC:\\a.png,normal", "line 2 of the table has"),
        ("image,label\nfile:a.png,normal", "line 2 of the table has"),
        ("image,label\ns3://images,normal", "line 2 of the table has 's3://images'; it must be s3://bucket"),
        ("image,label\n../../a.png,normal", "is above the bucket"),
        ("image,label\na.png,normal\ns3://other/b.png,normal", "in the buckets images, other; .* in one"),
        ("image,label,mask,class\na.png,anomaly,m.jpg,dent", "line 2 of the table: m.jpg is .* no PNG"),
    ],
)
def test_tables_of_which_no_manifest_can_be_made(table: str, match: str) -> None:
    with pytest.raises(manifests.InvalidLayout, match=match):
        manifests.from_table(table.splitlines(), ROOT, WHEN)


def test_a_table_may_name_places_and_masks() -> None:
    table = "label,image,class,mask\nNormal,a.png,,\nanomaly,s3://images/x.png,dent,m/x.png\n"
    normal, anomaly = manifests.from_table(table.splitlines(), ROOT, WHEN)
    assert (normal.source_ref, normal.label) == (f"{ROOT}a.png", "normal")
    assert (anomaly.source_ref, anomaly.mask_ref) == ("s3://images/x.png", f"{ROOT}m/x.png")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("header", ["Image,Label ,MASK,class\n", "\ufeffimage,label,mask,class\n", ""])
def test_a_table_is_read_as_people_save_it(header: str, separator: str) -> None:
    lines = f"{header}a.png, Normal,,\n,,,\n\n./b.png,anomaly,../m/b.png,dent\n".replace(",", separator)
    normal, anomaly = manifests.from_table(lines.lstrip("\ufeff").splitlines(keepends=True), ROOT, WHEN)
    assert (normal.source_ref, normal.label) == (f"{ROOT}a.png", "normal")
    assert (anomaly.source_ref, anomaly.label) == (f"{ROOT}b.png", "anomaly")
    assert (anomaly.mask_ref, anomaly.mask_class) == ("s3://images/m/b.png", "dent")


def test_a_table_of_two_columns_needs_no_line_of_names() -> None:
    (image,) = manifests.from_table(["s3://images/x, y.png;anomaly"], ROOT, WHEN)
    assert (image.source_ref, image.label) == ("s3://images/x, y.png", "anomaly")


def test_what_macos_and_other_tools_leave_in_folders() -> None:
    objects = names("normal/a.png", "normal/._a.png", "anomaly/b.png", "anomaly/._b.png", "normal/c.bmp")
    objects |= names("masks/dent/b.png", "masks/dent/._b.png", "masks/dent/.DS_Store", "masks/dent/notes.txt")
    found = manifests.from_folders(ROOT, objects)
    assert [image.source_ref for image in found] == [f"{ROOT}normal/a.png", f"{ROOT}anomaly/b.png"]
    assert manifests.unused(objects) == ["normal/c.bmp"]


def test_the_split_has_its_test_size_of_each_and_keeps_to_its_seed() -> None:
    objects = names(*(f"normal/{n}.png" for n in range(100)), *(f"anomaly/{n}.png" for n in range(40)))
    objects |= names(*(f"masks/crack/{n}.png" for n in range(20)))
    images = manifests.from_folders(ROOT, objects)
    train, test = manifests.split(images, 0.25, seed=1)
    assert Counter((image.label, image.mask_class) for image in test) == {
        ("normal", None): 25,
        ("anomaly", None): 5,
        ("anomaly", "crack"): 5,
    }
    assert sorted([*train, *test], key=images.index) == images
    assert manifests.split(images[::-1], 0.25, seed=1)[1][::-1] == test
    assert manifests.split(images, 0.25, seed=2)[1] != test
    more = manifests.from_folders(ROOT, objects | names("normal/new.png"))
    moved = set(manifests.split(more, 0.25, seed=1)[1]) ^ set(test)
    assert len(moved) <= 2
    assert manifests.split(images, 0, seed=1) == (images, [])


@pytest.mark.parametrize(
    ("test_size", "match"),
    [
        (
            0.1,
            "0.1 of 3 normal and 1 anomaly images, .* leaves none to test with: add images, or set a larger",
        ),
        (0.95, "0.95 of 3 normal and 1 anomaly images, .* leaves none to train with: .* set a smaller"),
    ],
)
def test_a_split_leaves_no_side_empty(test_size: float, match: str) -> None:
    images = manifests.from_folders(
        ROOT, names("normal/a.png", "normal/b.png", "normal/c.png", "anomaly/a.png")
    )
    with pytest.raises(manifests.InvalidLayout, match=match):
        manifests.split(images, test_size, seed=0)


@pytest.mark.parametrize(
    ("classes", "given", "expected"),
    [
        (["a"], {}, {"a": "#FFFFFF"}),
        (["a", "b"], {"a": "#ff0000", "b": "#00ff00"}, {"a": "#FF0000", "b": "#00FF00"}),
        ([], {"a": "#ff0000"}, {}),
        (["a", "b"], {"a": "#FF0000"}, "which colour have b in"),
        (["a", "b"], {"a": "#FF0000", "b": "#ff0000"}, "#FF0000 for several classes"),
    ],
)
def test_each_class_has_its_colour(classes: list[str], given: dict[str, str], expected: Any) -> None:
    images = [manifests.LabelledImage("r", "anomaly", WHEN, "m", name) for name in classes]
    if isinstance(expected, dict):
        assert manifests.mask_colors(images, given) == expected
    else:
        with pytest.raises(manifests.InvalidLayout, match=expected):
            manifests.mask_colors(images, given)
