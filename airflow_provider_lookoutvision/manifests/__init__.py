"""Ground Truth manifests from folders named after the labels, or from a table.

A manifest has a line for each image. The same images, labels and seed give the same bytes, so a retry of a
task writes the same manifest again.
"""

from airflow_provider_lookoutvision.manifests.folders import from_folders, unused
from airflow_provider_lookoutvision.manifests.images import (
    IMAGE_NAMES,
    LABELS,
    InvalidLayout,
    LabelledImage,
    is_image,
)
from airflow_provider_lookoutvision.manifests.lines import (
    WHITE,
    entry,
    labelled,
    manifest,
    mask_colors,
    split_lines,
)
from airflow_provider_lookoutvision.manifests.splitting import split
from airflow_provider_lookoutvision.manifests.table import from_table

__all__ = [
    "IMAGE_NAMES",
    "LABELS",
    "WHITE",
    "InvalidLayout",
    "LabelledImage",
    "entry",
    "from_folders",
    "from_table",
    "is_image",
    "labelled",
    "manifest",
    "mask_colors",
    "split",
    "split_lines",
    "unused",
]
