"""Models that are trained once, and the components that are made of them.

=============== ======== ===================================================================
``cache``       session  the folder of the network
``models``      session  a function: the folder of a model, by its name in ``edge_models``
``archives``    session  a function: the archive of its component
``components``  session  a folder with the component of each, unpacked
=============== ======== ===================================================================
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from edge_models import KINDS, package, train, unpack

Made = Callable[[str], Path]


@pytest.fixture(scope="session")
def _data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def cache(_data_dir: Path) -> Path:
    return _data_dir / "cache"


@pytest.fixture(scope="session")
def models(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("models")

    @functools.cache
    def model(name: str) -> Path:
        train(name, root / name, cache)
        return root / name

    return model


@pytest.fixture(scope="session")
def archives(models: Made, _data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("archives")
    return functools.cache(lambda name: package(models(name), root / name, _data_dir, name))


@pytest.fixture(scope="session")
def components(archives: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("components")
    for name in KINDS:
        unpack(archives(name), root, name)
    return root
