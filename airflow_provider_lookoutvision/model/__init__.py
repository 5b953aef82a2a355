"""The API model of Amazon Lookout for Vision, once, for every client and for the service.

botocore dropped the service after 1.40.60. The JSON files in this folder describe it in botocore's own data
layout: operations and shapes, paginators, waiters for every asynchronous operation, endpoint rules.
One call of :func:`register_service_model` (:func:`teach` for short) makes a session know them; setting
``AWS_DATA_PATH`` to :data:`MODEL_PATH` does the same for every boto3 program of an environment. Importing
this module imports only Python's standard library.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Final, TypeVar

SERVICE_NAME: Final = "lookoutvision"
API_VERSION: Final = "2020-11-20"
MODEL_PATH: Final = str(Path(__file__).resolve().parent)
"""The absolute path of the folder for ``AWS_DATA_PATH``."""

Session = TypeVar("Session")

_registering = threading.Lock()


def register_service_model(session: Session) -> Session:
    """Make a session know the service, and return the session.

    Only the places change where the session looks for service models: it looks here first, and then where it
    looked before; and ``get_available_regions`` lists the seven regions that the service had. All other
    services, boto3's resources and existing clients stay as they are. A second call for a session changes
    nothing. Threads may call this at the same time.

    For the same API version our model wins over one in the session's own ``AWS_DATA_PATH``, in
    ``~/.aws/models`` or in an old botocore: botocore looks for each file separately, and would otherwise mix
    their operations with our waiters. With ``AWS_DATA_PATH`` alone, the order of its entries decides.

    :param session: a ``boto3.Session``, ``botocore.session.Session``, ``aiobotocore.session.AioSession`` or
        ``aioboto3.Session``.
    """
    from airflow_provider_lookoutvision.model.loader import SharedLoader

    wrapper: Any = session
    core = getattr(wrapper, "_session", wrapper)
    with _registering:
        loader = core.get_component("data_loader")
        if not isinstance(loader, SharedLoader):
            loader = SharedLoader([MODEL_PATH, *loader.search_paths])
            core.register_component("data_loader", loader)
            # Made anew when it is needed, since it keeps the regions of when it was made.
            core._register_endpoint_resolver()
        if hasattr(wrapper, "_loader"):
            wrapper._loader = loader
    return session


teach = register_service_model
"""The short name of :func:`register_service_model`."""
