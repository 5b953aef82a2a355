"""What a dataset's StatusMessage says beside its success: labels that are none, images in both datasets."""

from __future__ import annotations

from dataset_projects import DatasetProject, statistics
from manifest_lines import changed, line, manifest, without

CREATED = "The dataset was created successfully."
UPDATED = "The dataset was updated successfully."
OTHER_CLASS = "a class that is neither normal nor anomaly, and no label for that"


def test_other_classes_are_counted_and_named(project: DatasetProject) -> None:
    images = (
        line("0.png", bucket=project.bucket),
        *(
            changed(line(f"{n}.png", bucket=project.bucket), "anomaly-label-metadata.class-name", name)
            for n, name in enumerate(["good", "bad", "good", "OK", "NG\n", "good"], start=1)
        ),
    )
    described = project.created(manifest(*images, line("7.png", None, bucket=project.bucket)))
    assert (described["Status"], statistics(described)) == ("CREATE_COMPLETE", (8, 1, 1, 0))
    found = described["StatusMessage"]
    assert found.startswith(f"{CREATED} 6 images have {OTHER_CLASS}: 'good' (3), ")
    assert sorted(found.removesuffix(".").split(": ")[1].split(", ")[1:]) == [
        r"'NG\n' (1)",
        "'OK' (1)",
        "'bad' (1)",
    ]
    # It is of the dataset as it is, not of a manifest: what is put right is no longer named.
    right = [line(f"{n}.png", bucket=project.bucket) for n in (2, 3, 4, 5, 6)]
    assert project.update(manifest(*right))["StatusMessage"] == (
        f"{UPDATED} 1 image has {OTHER_CLASS}: 'good' (1)."
    )
    described = project.update(manifest(line("1.png", bucket=project.bucket)))
    assert (described["StatusMessage"], statistics(described)) == (UPDATED, (8, 7, 7, 0))


def test_many_classes_are_named_in_part(project: DatasetProject) -> None:
    images = [
        changed(
            line(f"{n}.png", bucket=project.bucket), "anomaly-label-metadata.class-name", "k" * 200 + str(n)
        )
        for n in range(12)
    ]
    found = project.created(manifest(*images))["StatusMessage"]
    assert found.endswith("' (1) and 2 more.")
    assert len(found) < 2000


def test_folders_among_the_images_are_left_out_and_counted(project: DatasetProject) -> None:
    # The S3 console makes an empty object of each folder, and AWS's scripts list it as an image.
    folders = [line(key, bucket=project.bucket) for key in ("train/normal/", "train/anomaly/")]
    images = [line(f"train/normal/{n}.png", bucket=project.bucket) for n in range(3)]
    described = project.created(manifest(folders[0], *images[:2], folders[1]))
    assert (described["Status"], statistics(described)) == ("CREATE_COMPLETE", (2, 2, 2, 0))
    bucket = f"s3://{project.bucket}"
    assert described["StatusMessage"] == (
        f"{CREATED} 2 lines were left out, for a folder is no image: {bucket}/train/normal/, "
        f"{bucket}/train/anomaly/."
    )
    described = project.update(manifest(folders[0], images[2]))
    assert (described["Status"], statistics(described)) == ("UPDATE_COMPLETE", (3, 3, 3, 0))
    assert described["StatusMessage"] == (
        f"{UPDATED} 1 line was left out, for a folder is no image: {bucket}/train/normal/."
    )
    described = project.update(manifest(*folders))
    assert described["Status"] == "UPDATE_FAILED_ROLLBACK_COMPLETE"
    assert "the update is empty" in described["StatusMessage"]


def test_a_label_without_a_class_costs_its_label_alone(project: DatasetProject) -> None:
    faulty = without(line("1.png", bucket=project.bucket), "anomaly-label-metadata.class-name")
    described = project.created(manifest(faulty, line("2.png", bucket=project.bucket)))
    assert (described["Status"], statistics(described)) == ("CREATE_COMPLETE", (2, 1, 1, 0))
    assert described["StatusMessage"] == (
        f"{CREATED} 1 image has a label without a class-name, which is no label."
    )
    assert len(project.entries(Labeled=False)) == 1


def test_images_in_both_datasets(project: DatasetProject) -> None:
    images = [line(f"{n}.png", bucket=project.bucket) for n in range(6)]
    assert project.created(manifest(*images[:5]))["StatusMessage"] == CREATED
    found = project.created(manifest(*images[1:]), "test")["StatusMessage"]
    named = ", ".join(f"s3://{project.bucket}/{n}.png" for n in (1, 2, 3))
    assert found == (
        f"{CREATED} 4 images are in both the training and the test dataset, so that the metrics are too "
        f"good: {named}, ..."
    )
    project.delete("test")
    assert project.update(manifest(images[0]))["StatusMessage"] == UPDATED
