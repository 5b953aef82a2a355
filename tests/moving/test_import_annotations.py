"""What the exports of tools for annotation become: COCO and Label Studio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from lookout import Lookout
from source_files import image, labels, masks, pixels, rgb, write

from airflow_provider_lookoutvision.manifests import WHITE


def test_coco_outlines_become_masks(lookout: Lookout, tmp_path: Path) -> None:
    outline = [[10, 10, 30, 10, 30, 30, 10, 30]]
    runs = {"size": [64, 64], "counts": [64 * 40, 64 * 4, 64 * 20]}
    document = {
        "categories": [{"id": 1, "name": "dent"}, {"id": 2, "name": "cut"}, {"id": 3, "name": "good"}],
        "images": [
            {"id": number, "file_name": f"{number}.jpg", "width": 64, "height": 64} for number in range(4)
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": outline, "bbox": [10, 10, 20, 20]},
            {"id": 2, "image_id": 1, "category_id": 2, "segmentation": runs, "bbox": [0, 0, 1, 1]},
            {"id": 3, "image_id": 2, "category_id": 2, "segmentation": [], "bbox": [5, 6, 10, 10]},
            {"id": 4, "image_id": 3, "category_id": 3, "segmentation": outline, "bbox": [0, 0, 1, 1]},
        ],
    }
    files = {f"train/{number}.jpg": image(number) for number in range(4)}
    write(tmp_path, {**files, "train/_annotations.coco.json": json.dumps(document).encode()})
    done = lookout("import", tmp_path, "--project", "p", *lookout.to)
    assert done.status == 0, done.err
    assert "1 annotations of train/_annotations.coco.json have no outline: their boxes" in done.err
    entries = {each["source-ref"][-5]: each for each in lookout.entries("p")}
    assert labels(list(entries.values())) == {
        "0.jpg": "normal", "1.jpg": "anomaly", "2.jpg": "anomaly", "3.jpg": "normal"
    }  # fmt: skip
    colors = masks([entries["1"]])["1.jpg"]
    painted = pixels(lookout, entries["1"])
    assert painted[20, 20].tolist() == rgb(colors["dent"])
    assert painted[50, 41].tolist() == rgb(colors["cut"])  # run lengths go down the columns
    assert painted[50, 20].tolist() == rgb(WHITE)
    assert pixels(lookout, entries["2"])[10, 8].tolist() == rgb(colors["cut"])


def packed(alpha: Any) -> list[int]:
    """Pixels as Label Studio's brush packs them, each row a run or a list of values."""
    values = np.zeros((*alpha.shape, 4), dtype=np.uint8)
    values[alpha] = 255
    bits = f"{values.size:032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    for row in values.reshape(alpha.shape[0], -1):
        if (row == row[0]).all():
            bits += "1" + "11" + f"{len(row) - 1:016b}" + f"{row[0]:08b}"
        else:
            bits += "0" + "10" + f"{len(row) - 1:08b}" + "".join(f"{value:08b}" for value in row)
    bits += "0" * (-len(bits) % 8)
    return list(int(bits, 2).to_bytes(len(bits) // 8))


def test_label_studio_choices_and_brushes(lookout: Lookout, tmp_path: Path) -> None:
    brushed = np.zeros((64, 64), dtype=bool)
    brushed[30, 5:50] = brushed[40] = True
    size = {"original_width": 64, "original_height": 64}
    brush = {"rle": packed(brushed), "brushlabels": ["scratch"]}
    box = {"x": 50, "y": 0, "width": 25, "height": 25, "rotation": 0, "rectanglelabels": ["dent"]}
    results = {
        "a": [{"type": "choices", "value": {"choices": ["Good"]}}],
        "b": [
            {"type": "brushlabels", **size, "value": brush},
            {"type": "rectanglelabels", **size, "value": box},
        ],
        "c": [{"type": "choices", "value": {"choices": ["NG"]}}, {"type": "textarea", "value": {}}],
    }
    tasks: list[dict[str, Any]] = [
        {
            "id": name,
            "data": {"image": f"/data/upload/1/0a1b2c3d-{name}.jpg"},
            "annotations": [
                {"result": [{"type": "choices", "value": {"choices": ["NG"]}}], "was_cancelled": True},
                {"result": result, "updated_at": "2025-01-02"},
                {"result": [], "updated_at": "2025-01-01"},
            ],
        }
        for name, result in results.items()
    ]
    tasks.append({"id": "d", "data": {"image": "/data/local-files/?d=photos/d.jpg"}, "annotations": []})
    files = {f"photos/{name}.jpg": image(1) for name in "abcd"}
    write(tmp_path, {**files, "project-1.json": json.dumps(tasks).encode()})
    done = lookout("import", tmp_path, "--project", "p", *lookout.to)
    assert done.status == 0, done.err
    assert "1 annotations of type textarea are left out" in done.err
    entries = lookout.entries("p")
    assert labels(entries) == {"a.jpg": "normal", "b.jpg": "anomaly", "c.jpg": "anomaly", "d.jpg": None}
    colors = masks(entries)["b.jpg"]
    painted = pixels(lookout, entries[1])
    assert (painted == rgb(colors["scratch"])).all(axis=2).tolist() == brushed.tolist()
    assert painted[8, 40].tolist() == rgb(colors["dent"])
