"""`safetrain.v1.Models`: adding, listing and removing the models kept under the home."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from safetrain_proto.v1 import models_pb2, models_pb2_grpc
from safetrain_shared.errors import Conflict
from safetrain_shared.jobs import LIVE
from safetraind.controller.controller import Controller
from safetraind.job_view import model_of
from safetraind.models.registry import Model, Models
from safetraind.planner.suggest import Suggestion
from safetraind.preflight.job_preflight import fetch
from safetraind.preflight.suggesting import suggestions
from safetraind.processes.ephemeral import EphemeralWorkers
from safetraind.service.error_mapping import guarded
from safetraind.storage.bounded_read import SLOW_SECONDS, bounded
from safetraind.submission import check_absolute


class ModelsService(models_pb2_grpc.ModelsServicer):
    """Adds, lists and removes models."""

    def __init__(self, models: Models, controller: Controller, workers: EphemeralWorkers) -> None:
        self._models = models
        self._workers = workers
        self._controller = controller

    @guarded
    async def Add(  # noqa: N802
        self, request: models_pb2.AddModelRequest, context: Any
    ) -> AsyncIterator[models_pb2.AddModelEvent]:
        """Stream progress, and last the model."""
        if self._models.is_repository(request.name):
            async for event in self._fetched(request.name):
                yield event
            return
        async with aclosing(self._models.add(request.name)) as steps:
            async for step in steps:
                if isinstance(step, Model):
                    yield models_pb2.AddModelEvent(model=_to_wire(step))
                else:
                    progress = models_pb2.ModelProgress(phase=step.phase, done=step.done)
                    yield models_pb2.AddModelEvent(progress=progress)

    async def _fetched(self, repository: str) -> AsyncIterator[models_pb2.AddModelEvent]:
        """Download a repository of the hub into the hub's own cache."""
        async with aclosing(fetch(repository, self._workers)) as steps:
            async for step in steps:
                if isinstance(step, Path):
                    model = models_pb2.Model(name=repository, path=str(step), installed=True)
                    yield models_pb2.AddModelEvent(model=model)
                elif not isinstance(step, int):
                    progress = models_pb2.ModelProgress(phase=step.phase, done=step.done)
                    yield models_pb2.AddModelEvent(progress=progress)

    @guarded
    async def List(  # noqa: N802
        self, request: models_pb2.ListModelsRequest, context: Any
    ) -> models_pb2.ListModelsResponse:
        """Return the installed models and those that can be added."""
        models = [_to_wire(model) for model in self._models.catalogue()]
        return models_pb2.ListModelsResponse(models=models)

    @guarded
    async def Suggest(  # noqa: N802
        self, request: models_pb2.SuggestModelsRequest, context: Any
    ) -> models_pb2.SuggestModelsResponse:
        """Return the table of models, judged for this machine and the data."""
        if request.train:
            check_absolute(request.train)
        home, budget = self._controller.home, request.memory_budget
        train = request.train
        found = await bounded(train, suggestions, home, train, budget, seconds=SLOW_SECONDS)
        return models_pb2.SuggestModelsResponse(
            models=[_suggested(suggestion) for suggestion in found.models],
            room=found.room,
            samples=found.samples,
            longest=found.longest,
            speed_of=found.speed.name if found.speed else "",
        )

    @guarded
    async def Remove(  # noqa: N802
        self, request: models_pb2.RemoveModelRequest, context: Any
    ) -> models_pb2.RemoveModelResponse:
        """Delete a model from the home. Raises Conflict where a live job needs it."""
        folder = self._models.folder(request.name)
        for job_id, job in sorted(self._controller.scheduler.jobs.items()):
            if job.state in LIVE and Path(model_of(self._controller, job_id)) == folder:
                raise Conflict("model.in_use", name=request.name, id=job_id)
        self._models.remove(request.name)
        return models_pb2.RemoveModelResponse()


def _to_wire(model: Model) -> models_pb2.Model:
    return models_pb2.Model(
        name=model.name,
        path=model.path,
        licence=model.licence,
        origin=model.origin,
        bytes=model.bytes,
        installed=model.installed,
    )


def _suggested(found: Suggestion) -> models_pb2.SuggestedModel:
    model = found.model
    return models_pb2.SuggestedModel(
        name=model.repository,
        size_class=found.size_class,
        licence=model.licence,
        bytes=model.shape.weight_bytes,
        billions=model.billions,
        bits=model.bits,
        languages=model.languages,
        portuguese=model.portuguese,
        source=model.source,
        read=model.read,
        fits=found.fits,
        peak=found.peak,
        expected_seconds=found.seconds,
    )
