"""The example DAGs, which Airflow takes as they are, and the images of the user's own that the demo takes.

What the DAGs do is shown by ``make demo`` and ``make examples``.
"""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path

import airflow
import pytest
from airflow_rest import REST
from PIL import Image

from example_dags.demo import folders, images, sheet
from example_dags.demo.samples import NoImages, Sample
from example_dags.demo.sheet import Judged

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # Airflow 2
    from airflow.models.dagbag import DagBag

EXAMPLES = Path(__file__).parents[2] / "example_dags"


@pytest.fixture(scope="module")
def bag() -> DagBag:
    if airflow.__version__.startswith("2."):  # which looks up what starts a DAG while it parses the file
        from airflow.utils.db import initdb

        initdb()
    return DagBag(EXAMPLES)


def test_each_file_is_a_dag_of_its_name(bag: DagBag) -> None:
    assert not bag.import_errors
    without = set() if REST.has_hitl else {"example_lookoutvision_review"}
    assert set(bag.dags) == {file.stem for file in EXAMPLES.glob("*.py")} - without
    assert all(set(dag.tags) == {"example", "lookoutvision"} for dag in bag.dags.values())


def test_each_says_what_it_does_and_what_it_takes(bag: DagBag) -> None:
    for dag_id, dag in bag.dags.items():
        assert dag.doc_md == ast.get_docstring(
            ast.parse((EXAMPLES / f"{dag_id}.py").read_text()), clean=False
        )
        params = {name: dag.params.get_param(name) for name in dag.params}
        assert "aws_conn_id" in params
        for name, param in params.items():
            assert param.schema["type"] == ("number" if name.startswith(("min_", "max_")) else "string")
            assert param.description, f"{dag_id}: {name}"


def test_each_that_makes_a_project_has_one_of_its_own(bag: DagBag) -> None:
    made = {
        dag_id: dag.params["project_name"]
        for dag_id, dag in bag.dags.items()
        if dag.has_task("create_project")
    }
    assert len(made) == len(set(made.values())) == 6
    others = {
        dag.params["project_name"]
        for dag_id, dag in bag.dags.items()
        if dag_id not in made and "project_name" in dag.params
    }
    assert others == {made["example_lookoutvision_train"]}


@pytest.mark.parametrize("dag_id", ["example_lookoutvision_batch", "example_lookoutvision_inspection"])
def test_a_hosted_model_is_stopped_whatever_becomes_of_the_work(bag: DagBag, dag_id: str) -> None:
    dag = bag.dags[dag_id]
    start, stop = dag.get_task("start_model"), dag.get_task("stop_model")

    assert start.is_setup
    assert stop.is_teardown
    # Another setup before it would have it run when there is no model to stop.
    assert {task.task_id for task in stop.upstream_list if task.is_setup} == {"start_model"}
    assert "stop_model" in dag.get_task("detect_anomalies").downstream_task_ids


def test_what_runs_by_itself_waits_for_its_user(bag: DagBag) -> None:
    scheduled = {
        dag_id for dag_id, dag in bag.dags.items() if type(dag.timetable).__name__ != "NullTimetable"
    }
    assert scheduled >= {f"example_lookoutvision_{name}" for name in ("batch", "arrivals", "retrain")}
    assert all(bag.dags[dag_id].is_paused_upon_creation for dag_id in scheduled)


def picture(color: str, spot: str | None = None) -> bytes:
    """A square of 64 pixels, with a square of 16 in its middle."""
    image = Image.new("RGB", (64, 64), color)
    if spot:
        image.paste(spot, (24, 24, 40, 40))
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def put(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


@pytest.mark.parametrize("background", ["black", "white"])
def test_masks_of_either_background_are_understood(tmp_path: Path, background: str) -> None:
    spot = "white" if background == "black" else "black"
    for number in range(20):
        put(tmp_path / "normal" / f"{number}.png", picture("grey"))
        put(tmp_path / "anomaly" / f"{number}.png", picture("grey", "red"))
        put(tmp_path / "masks" / f"{number}.png", picture(background, spot))

    collection = images.collect(tmp_path)

    assert (len(collection.train), len(collection.test)) == (20, 20)
    painted = [sample for sample in (*collection.train, *collection.test) if sample.colors]
    assert len(painted) == 20
    for sample in painted:
        assert sample.colors == {"defect": folders.COLOR}
        assert sample.mask == picture("white", folders.COLOR)


def test_a_few_masks_are_left_out_and_it_is_said(tmp_path: Path) -> None:
    for number in range(20):
        put(tmp_path / "normal" / f"{number}.png", picture("grey"))
        put(tmp_path / "anomaly" / f"{number}.png", picture("grey", "red"))
    put(tmp_path / "masks" / "3.png", picture("black", "white"))

    collection = images.collect(tmp_path)

    assert "without its 1 masks" in collection.source
    assert all(sample.mask is None for sample in (*collection.train, *collection.test))


@pytest.mark.parametrize("reference", ["pictures/{}.png", "s3://elsewhere/some/pictures/{}.png"])
def test_a_manifest_refers_to_files_beside_it(tmp_path: Path, reference: str) -> None:
    lines = []
    for number in range(40):
        label = "anomaly" if number % 2 else "normal"
        put(tmp_path / "pictures" / f"{number}.png", picture("grey"))
        metadata = {"class-name": label, "type": "groundtruth/image-classification"}
        lines.append(
            {"source-ref": reference.format(number), "label": number % 2, "label-metadata": metadata}
        )
    (tmp_path / "my.manifest").write_text("\n".join(map(json.dumps, lines)))

    collection = images.collect(tmp_path)

    assert sorted(sample.label for sample in collection.test) == ["anomaly"] * 10 + ["normal"] * 10


def test_a_line_of_a_manifest_without_a_label_is_named(tmp_path: Path) -> None:
    put(tmp_path / "a.png", picture("grey"))
    (tmp_path / "my.manifest").write_text('{"source-ref": "a.png"}')

    with pytest.raises(NoImages, match=r"my\.manifest, line 1: a\.png has no label"):
        images.collect(tmp_path)


def test_too_few_images_are_counted(tmp_path: Path) -> None:
    put(tmp_path / "normal" / "a.png", picture("grey"))
    put(tmp_path / "anomaly" / "b.png", picture("grey"))

    with pytest.raises(NoImages, match="there are 1 images labelled normal, and 20 are needed"):
        images.collect(tmp_path)


def test_the_sheet_outlines_the_defect_and_tells_what_is_wrong() -> None:
    blue = "#0000FF"
    found = Judged(
        Sample("b.png", picture("grey", "red"), "dent"),
        is_anomalous=True,
        confidence=0.99,
        mask=picture("white", blue),
        colors={"dent": blue},
    )
    missed = Judged(Sample("a.png", picture("grey"), "dent"), is_anomalous=False, confidence=0.6)

    drawn = sheet.draw("parts", "F1 0.667", [found, missed], is_segmented=True)

    width = sheet.THUMBNAIL + sheet.GAP
    corners = [(sheet.MARGIN + column * width, sheet.HEADER) for column in range(2)]
    first, second = (drawn.crop((x, y, x + sheet.THUMBNAIL, y + sheet.THUMBNAIL)) for x, y in corners)
    colors = [{color for _, color in card.getcolors(1 << 16)} for card in (first, second)]
    wrong, outline = ((0x8A, 0x3F, 0xFC), (0, 0, 0xFF))
    assert [wrong in each for each in colors] == [True, False]
    assert [outline in each for each in colors] == [False, True]
    middle = second.getpixel((sheet.THUMBNAIL // 2, sheet.THUMBNAIL // 2))
    assert middle[0] > middle[2], "the defect itself is still to be seen"


def test_without_masks_the_sheet_tints_where_the_anomaly_is() -> None:
    heat = Image.new("L", (8, 8), 60)
    heat.paste(255, (4, 0, 8, 8))
    content = io.BytesIO()
    heat.save(content, "PNG")
    judged = [
        Judged(Sample("a.png", picture("grey"), "dent"), is_anomalous, 0.9, heatmap=content.getvalue())
        for is_anomalous in (True, False)
    ]

    drawn = sheet.draw("parts", "F1 0.667", judged, is_segmented=False)

    # The wrong verdict, which is normal, stands first.
    for column, is_tinted in enumerate((False, True)):
        left = sheet.MARGIN + column * (sheet.THUMBNAIL + sheet.GAP)
        middle, quarter = sheet.HEADER + sheet.THUMBNAIL // 2, sheet.THUMBNAIL // 4
        cold, hot = (drawn.getpixel((left + at, middle)) for at in (quarter, 3 * quarter))
        assert cold == (128, 128, 128)
        assert (hot[0] > hot[2] + 40) == is_tinted
