import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from drawn_images import LabelledImages, TrainedModel, draw_plate, jpeg, png
from PIL import Image

from airflow_provider_lookoutvision.engine import UnusableImage, artifact, load
from airflow_provider_lookoutvision.engine.backbone import Backbone
from airflow_provider_lookoutvision.engine.images import decode
from airflow_provider_lookoutvision.engine.mask_painting import class_mask


def test_the_parts_of_a_detection_agree(segmenter: TrainedModel, held_out: LabelledImages) -> None:
    for drawing, label in zip(held_out.drawings, held_out.labels, strict=True):
        detection = segmenter.detector.detect(drawing.image)
        assert detection.is_anomalous == (detection.probability > 0.5)
        assert detection.confidence == max(detection.probability, 1 - detection.probability)
        assert detection.class_mask is not None
        assert detection.areas is not None
        assert detection.class_mask.shape == (96, 128)
        assert detection.class_mask.dtype == np.uint8
        assert list(detection.areas) == ["background", "scratch", "stain"]
        assert sum(detection.areas.values()) == pytest.approx(1)
        assert detection.areas["stain"] == (detection.class_mask == 2).mean()
        assert 0 <= detection.anomaly_map.min() <= detection.anomaly_map.max() <= 1
        if label == "anomaly":
            row, column = np.unravel_index(detection.anomaly_map.argmax(), detection.anomaly_map.shape)
            rows, columns = detection.anomaly_map.shape
            around = drawing.class_mask[
                max(0, 96 * (row - 3) // rows) : 96 * (row + 4) // rows,
                max(0, 128 * (column - 3) // columns) : 128 * (column + 4) // columns,
            ]
            assert around.any()


def test_threads_may_share_a_detector(segmenter: TrainedModel, held_out: LabelledImages) -> None:
    contents = held_out.images * 4
    alone = [segmenter.detector.detect(content) for content in contents[:16]] * 4
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(segmenter.detector.detect, contents))
    for one, other in zip(alone, together, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-6)
        np.testing.assert_array_equal(one.class_mask, other.class_mask)


def test_images_of_another_size_and_orientation_are_accepted(segmenter: TrainedModel) -> None:
    drawing = draw_plate(1001, "scratch", width=256, height=200, line_width=6)
    sideways = Image.open(BytesIO(drawing.image)).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    for content in (drawing.image, png(sideways, exif=exif), jpeg(sideways, exif=exif)):
        detection = segmenter.detector.detect(content)
        assert detection.image_size == (256, 200)
        assert detection.class_mask is not None
        assert detection.class_mask.shape == (200, 256)
        assert detection.is_anomalous


def test_the_graph_computes_what_the_heads_compute(
    segmenter: TrainedModel, held_out: LabelledImages, cache: Path
) -> None:
    model = artifact.load(segmenter.folder)
    backbone = Backbone(cache)
    for image in held_out.images[:4]:
        scores, logits = model.heads.scores(backbone.features(decode(image, *model.working_size).pixels))
        detection = segmenter.detector.detect(image)
        assert logits is not None
        assert detection.probability == pytest.approx(
            float(model.classifier.probability(scores[None])[0]), abs=1e-3
        )
        total = np.exp(logits).sum(axis=2)
        np.testing.assert_allclose(detection.anomaly_map, total / (1 + total), atol=1e-3)


def test_a_large_image_is_compared_with_the_bank_in_bands(
    segmenter: TrainedModel, held_out: LabelledImages, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_lookoutvision.engine.bank_graph._BAND_PATCHES", 100)
    banded, content = load(segmenter.folder, cache=cache), held_out.images[1]
    assert banded.detect(content).probability == pytest.approx(
        segmenter.detector.detect(content).probability, abs=1e-6
    )


def test_a_process_that_detects_imports_no_scikit_learn(
    segmenter: TrainedModel, held_out: LabelledImages, cache: Path, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    image.write_bytes(held_out.images[0])
    code = (
        "import sys; from pathlib import Path; from airflow_provider_lookoutvision.engine import load\n"
        "folder, cache, image = map(Path, sys.argv[1:])\n"
        "load(folder, cache=cache).detect(image.read_bytes())\n"
        "print({'sklearn', 'scipy'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, str(segmenter.folder), str(cache), str(image)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "set()\n"


def test_an_image_that_cannot_be_used_is_refused_at_detection(segmenter: TrainedModel) -> None:
    with pytest.raises(UnusableImage) as caught:
        segmenter.detector.detect(b"no image")
    assert caught.value.index is None


def test_the_class_mask_has_no_seams_and_gives_each_pixel_to_its_highest_class() -> None:
    logits = np.random.default_rng(0).normal(size=(20, 12, 3)).astype(np.float32)
    whole = np.stack(
        [
            np.asarray(Image.fromarray(plane).resize((90, 700), Image.Resampling.BILINEAR))
            for plane in np.ascontiguousarray(logits.transpose(2, 0, 1))
        ]
    )
    found = class_mask(logits, 90, 700)
    wanted = np.where(whole.max(axis=0) > 0, whole.argmax(axis=0) + 1, 0)
    # Where two classes are as good as equal, or one as good as zero, rounding decides.
    top = np.sort(np.concatenate([whole, np.zeros((1, 700, 90))]), axis=0)
    clear = top[-1] - top[-2] > 1e-4
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], wanted[clear])
