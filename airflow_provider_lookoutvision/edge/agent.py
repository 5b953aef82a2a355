"""The five calls of the agent, and which status answers what goes wrong.

=================== ======================================================================================
NOT_FOUND           there is no component of that name
FAILED_PRECONDITION the model's state doesn't allow it: only STOPPED and FAILED can be started, only RUNNING
                    can be stopped and detect
INVALID_ARGUMENT    the bitmap, the shared memory or the size of the image is wrong
RESOURCE_EXHAUSTED  too many images wait for the model, too many calls for the agent, or memory is full
INTERNAL            the agent's own fault; its log has more
=================== ======================================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from airflow_provider_lookoutvision.edge import bitmaps
from airflow_provider_lookoutvision.edge import edge_agent_pb2 as messages
from airflow_provider_lookoutvision.edge.bitmaps import UnusableBitmap
from airflow_provider_lookoutvision.edge.components import Component
from airflow_provider_lookoutvision.edge.models import Description, Models, Refusal, Refused
from airflow_provider_lookoutvision.edge.runner import Runner, UnusableImage, Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SERVICE = "AWS.LookoutVision.EdgeAgent"
# An image of 4096 x 4096 pixels has 48 MiB, and something goes round it.
LARGEST_MESSAGE = bitmaps.MAX_SIDE * bitmaps.MAX_SIDE * 3 + (1 << 20)
_MOST_CALLS = 64
_CODES = {
    Refusal.UNKNOWN: grpc.StatusCode.NOT_FOUND,
    Refusal.WRONG_STATE: grpc.StatusCode.FAILED_PRECONDITION,
    Refusal.BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
}

log = logging.getLogger("lookoutvision.edge")

Handler = Callable[[Any], Any]


class EdgeAgent:
    """Answers the calls."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def detect_anomalies(self, request: messages.DetectAnomaliesRequest) -> messages.DetectAnomaliesResponse:
        """Find defects in an image."""
        model = self._models.find(request.model_component, again=False)
        bitmap, handle = request.bitmap, bitmaps.mask_handle(request.anomaly_mask_params)

        def prepare(runner: Runner) -> NDArray[np.uint8]:
            if (content := bitmaps.file_in(bitmap)) is not None:
                prepared = runner.prepare_file(content)
            else:
                with bitmaps.pixels_of(bitmap) as pixels:
                    prepared = runner.prepare(bitmap.width, bitmap.height, pixels)
            if handle is not None and runner.component.classes:
                bitmaps.check_room(handle, *runner.component.image_size)
            return prepared

        verdict, mask = model.detect(prepare)
        return _response(verdict, mask, model.component, handle)

    def start_model(self, request: messages.StartModelRequest) -> messages.StartModelResponse:
        """Begin to load a model."""
        self._models.find(request.model_component).start()
        return messages.StartModelResponse(status=messages.STARTING)

    def stop_model(self, request: messages.StopModelRequest) -> messages.StopModelResponse:
        """Unload a model, and wait for it."""
        self._models.find(request.model_component).stop()
        return messages.StopModelResponse(status=messages.STOPPED)

    def list_models(self, _request: messages.ListModelsRequest) -> messages.ListModelsResponse:
        """All models."""
        described = [model.describe() for model in self._models.all().values()]
        return messages.ListModelsResponse(
            models=[messages.ModelMetadata(**_members(each)) for each in described]
        )

    def describe_model(self, request: messages.DescribeModelRequest) -> messages.DescribeModelResponse:
        """One model."""
        described = self._models.find(request.model_component).describe()
        return messages.DescribeModelResponse(
            model_description=messages.ModelDescription(**_members(described))
        )


def server(agent: EdgeAgent, address: str) -> grpc.Server:
    """A server of the agent, not started yet.

    :raises RuntimeError: when it can't listen there.
    """
    made = grpc.server(
        ThreadPoolExecutor(_MOST_CALLS, thread_name_prefix="call"),
        options=[
            ("grpc.max_receive_message_length", LARGEST_MESSAGE),
            ("grpc.max_send_message_length", LARGEST_MESSAGE),
        ],
        maximum_concurrent_rpcs=_MOST_CALLS,
    )
    calls: dict[str, tuple[Handler, Any, Any]] = {
        "DetectAnomalies": (
            agent.detect_anomalies,
            messages.DetectAnomaliesRequest,
            messages.DetectAnomaliesResponse,
        ),
        "StartModel": (agent.start_model, messages.StartModelRequest, messages.StartModelResponse),
        "StopModel": (agent.stop_model, messages.StopModelRequest, messages.StopModelResponse),
        "ListModels": (agent.list_models, messages.ListModelsRequest, messages.ListModelsResponse),
        "DescribeModel": (
            agent.describe_model,
            messages.DescribeModelRequest,
            messages.DescribeModelResponse,
        ),
    }
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            _answering(name, do), request.FromString, response.SerializeToString
        )
        for name, (do, request, response) in calls.items()
    }
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    made.add_insecure_port(address)
    return made


def _answering(name: str, do: Handler) -> Callable[[Any, grpc.ServicerContext], Any]:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return do(request)
        except Refused as refused:
            code, message = _CODES[refused.kind], str(refused)
        except (UnusableBitmap, UnusableImage) as error:
            code, message = grpc.StatusCode.INVALID_ARGUMENT, str(error)
        except MemoryError:
            code, message = grpc.StatusCode.RESOURCE_EXHAUSTED, "The device's memory is full"
        except Exception as error:
            log.exception("%s failed", name)
            code, message = grpc.StatusCode.INTERNAL, f"The agent failed on this; see its log: {error}"
        _abort(context, code, message)

    return answer


def _abort(context: grpc.ServicerContext, code: grpc.StatusCode, message: str) -> NoReturn:
    context.abort(code, message)
    raise AssertionError("abort returned")


def _members(described: Description) -> dict[str, Any]:
    return {
        "model_component": described.component,
        "lookout_vision_model_arn": described.model_arn,
        "status": described.status,
        "status_message": described.status_message,
    }


def _response(
    verdict: Verdict, mask: bytes | None, component: Component, handle: messages.SharedMemoryHandle | None
) -> messages.DetectAnomaliesResponse:
    response = messages.DetectAnomaliesResponse()
    result = response.detect_anomaly_result
    result.is_anomalous, result.confidence = verdict.is_anomalous, verdict.confidence
    result.anomaly_score, result.anomaly_threshold = verdict.probability, component.threshold
    if mask is None:
        return response
    # Into the response itself: a mask of 4096 x 4096 is not to be copied more than it must.
    bitmap = result.anomaly_mask
    bitmap.width, bitmap.height = component.image_size
    if handle is None:
        bitmap.byte_data = mask
    else:
        bitmaps.write(handle, mask)
        bitmap.shared_memory_handle.CopyFrom(handle)
    for place, (each, area) in enumerate(zip(component.classes, verdict.areas, strict=True)):
        if area > 0 or place == 0:
            found = messages.PixelAnomaly(total_percentage_area=area, hex_color=each.color)
            result.anomalies.append(messages.Anomaly(name=each.name, pixel_anomaly=found))
    return response
