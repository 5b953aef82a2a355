"""What a component finds, beside what the service's detector finds in the same bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from edge_models import KINDS, encoded, held_out
from PIL import Image

from airflow_provider_lookoutvision import engine
from airflow_provider_lookoutvision.edge import components as parts
from airflow_provider_lookoutvision.edge.runner import Runner
from airflow_provider_lookoutvision.engine import artifact, backbone, images, onnx_export
from airflow_provider_lookoutvision.engine.class_presence import ClassPresence
from airflow_provider_lookoutvision.engine.detector import Detector
from airflow_provider_lookoutvision.engine.mask_graph import interpolation_taps


def files(image: Image.Image) -> Iterator[bytes]:
    """The same picture in the kinds of files that there are."""
    yield encoded(image)
    yield encoded(image, "JPEG", quality=90)
    yield encoded(image.convert("L"), "JPEG", quality=80)
    yield encoded(image.convert("L"))
    yield encoded(image.convert("1"))
    yield encoded(image.convert("P"))
    translucent = image.convert("RGBA")
    translucent.putalpha(170)
    yield encoded(translucent)
    lying = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    yield encoded(lying, "JPEG", quality=90, exif=exif)


@pytest.mark.parametrize("name", KINDS)
def test_a_component_finds_what_the_service_finds(
    name: str, models: Callable[[str], Path], components: Path, cache: Path
) -> None:
    detector = engine.load(models(name), cache=cache)
    runner = Runner(parts.find(components)[name])
    verdicts = set()
    for image in held_out(name):
        for content in files(image):
            wanted, found = detector.detect(content), runner.look(runner.prepare_file(content))
            verdicts.add(found.is_anomalous)
            assert abs(found.probability - wanted.probability) < 1e-5
            assert found.is_anomalous == wanted.is_anomalous
            assert found.confidence == pytest.approx(wanted.confidence, abs=1e-5)
            if wanted.class_mask is None or wanted.areas is None:
                assert found.class_mask is None
            else:
                np.testing.assert_array_equal(found.class_mask, wanted.class_mask)
                assert found.areas == pytest.approx(list(wanted.areas.values()))
    if name != "normal":
        assert verdicts == {True, False}


@pytest.mark.parametrize("name", KINDS)
def test_pixels_are_looked_at_as_a_png_of_them(
    name: str, models: Callable[[str], Path], components: Path, cache: Path
) -> None:
    detector = engine.load(models(name), cache=cache)
    runner = Runner(parts.find(components)[name])
    for image in held_out(name):
        wanted = detector.detect(encoded(image))
        found = runner.look(runner.prepare(*image.size, image.tobytes()))
        assert abs(found.probability - wanted.probability) < 1e-5
        if wanted.class_mask is not None:
            np.testing.assert_array_equal(found.class_mask, wanted.class_mask)


@pytest.mark.parametrize("size", [(1030, 777), (300, 4096), (4096, 1500)])
def test_a_large_mask_is_the_same_in_each_pixel(
    size: tuple[int, int], models: Callable[[str], Path], cache: Path
) -> None:
    model = dataclasses.replace(artifact.load(models("classes")), image_size=size)
    graph = onnx_export.build(model, backbone.load_graph(cache))
    session = backbone.create_session(graph)
    [place] = [n for n, output in enumerate(session.get_outputs()) if output.name == "class_mask"]
    large = held_out("classes")[1].resize(size)
    wanted = Detector(model, cache).detect(encoded(large)).class_mask
    pixels = images.decode(encoded(large), *model.working_size).pixels
    np.testing.assert_array_equal(session.run(None, {"image": pixels})[place], wanted)
    assert wanted is not None
    assert wanted.any()


@pytest.mark.parametrize("name", ["classes", "wide"])
def test_the_same_classes_are_left_out(name: str, models: Callable[[str], Path], cache: Path) -> None:
    model = artifact.load(models(name))
    images_of_it = [encoded(image) for image in held_out(name)]
    # By the gap or by the image alone, so that something is left out in some images, and something is not.
    for coefficients, intercept in (([0.01, 0.01, 1, 0], 0.0), ([0.2, -0.1, 0, 1], -1.0)):
        presence = ClassPresence(np.full(4, 0.1), np.full(4, 1.5), np.array(coefficients), intercept)
        changed = dataclasses.replace(model, presence=presence)
        detector = Detector(changed, cache)
        session = backbone.create_session(onnx_export.build(changed, backbone.load_graph(cache)))
        [place] = [n for n, output in enumerate(session.get_outputs()) if output.name == "class_mask"]
        painted = []
        for content in images_of_it:
            wanted = detector.detect(content).class_mask
            pixels = images.decode(content, *model.working_size).pixels
            np.testing.assert_array_equal(session.run(None, {"image": pixels})[place], wanted)
            assert wanted is not None
            painted.append(bool(wanted.any()))
        assert set(painted) == {True, False}


@pytest.mark.parametrize(
    ("size", "enlarged"),
    [(28, 64), (24, 576), (32, 768), (8, 4096), (224, 4096), (37, 1000), (28, 257), (40, 40)],
)
def test_a_mask_is_interpolated_as_pillow_does_it(size: int, enlarged: int) -> None:
    line = np.random.default_rng(size).normal(size=(size, 1)).astype(np.float32)
    band = 256
    taps = interpolation_taps(size, enlarged, band)
    values = line[:, 0].astype(np.float64)
    found = values[taps["first"]] * taps["before"] + values[taps["second"]] * taps["after"]
    for top in range(0, enlarged, band):
        rows = min(band, enlarged - top)
        box = (0, top * size / enlarged, 1, (top + rows) * size / enlarged)
        wanted = Image.fromarray(line).resize((1, rows), Image.Resampling.BILINEAR, box)
        np.testing.assert_array_equal(found[top : top + rows].astype(np.float32), np.asarray(wanted)[:, 0])
