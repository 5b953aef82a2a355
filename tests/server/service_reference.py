"""What the service should answer, as plain dictionaries: all operations, client tokens, and what jobs do.

Each operation returns an outcome: ``None`` for a success, or the code of an error. What a resource looks like
afterwards can be read of the reference and compared with the service. Nothing passes with time here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

CONFLICT, NOT_FOUND = "ConflictException", "ResourceNotFoundException"
TrainingEnd = Literal["succeeds", "loses it", "fails"]  # the second leaves no network to be hosted
BUSY = ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS")


class Refused(Exception):
    """An error, by its code."""


@dataclass
class Dataset:
    status: str
    entries: dict[str, str | None] = field(default_factory=dict)
    pending: dict[str, str | None] | None = None  # None: what is imported is bad
    token: tuple[str, ...] | None = None


@dataclass
class Model:
    status: str
    awaited: set[str] = field(default_factory=set)
    tags: dict[str, str] = field(default_factory=dict)
    token: tuple[str, ...] | None = None
    has_network: bool = True


@dataclass
class Project:
    datasets: dict[str, Dataset] = field(default_factory=dict)
    models: dict[int, Model] = field(default_factory=dict)
    packagings: dict[str, str] = field(default_factory=dict)
    last_version: int = 0


@dataclass
class Token:
    request: Any
    state: str
    resource: str


class Reference:
    """One account in one region."""

    def __init__(self) -> None:
        self.projects: dict[str, Project] = {}
        self.tokens: dict[tuple[str, ...], Token] = {}
        self.components: dict[tuple[str, str], tuple[str, str]] = {}  # by project and job

    def call(
        self, operation: str, token: str | None, request: dict[str, Any], do: Callable[[str | None], str]
    ) -> str | None:
        """Do an operation with a client token; ``do`` gets the resource that the token failed to make."""
        scope = f"{request['ProjectName']}/{request['ModelVersion']}" if operation in _HOSTING else ""
        key = (operation, token or "", scope)
        known = self.tokens.get(key) if token is not None else None
        if known is not None and known.state != "FAILED":
            same = known.request == request
            return None if same and known.state in {"DONE", "CREATED", "DELETED"} else CONFLICT
        try:
            resource = do(known.resource if known else None)
        except Refused as refusal:
            return str(refusal)
        kind = _KINDS[operation]
        if operation in _HOSTING:
            undone = "StopModel" if operation == "StartModel" else "StartModel"
            for other in [o for o in self.tokens if o[0] == undone]:
                if self.tokens[other].resource == resource or other[1:] == key[1:]:
                    del self.tokens[other]
        for other, record in list(self.tokens.items()):
            if record.resource != resource:
                continue
            if kind == "CREATED" and record.state == "DELETED":
                record.state = "SUPERSEDED"
            elif kind == "DELETED" and record.state in {"CREATED", "DONE"}:
                record.state = "GONE"
            elif kind == "DELETED" and record.state == "FAILED":
                del self.tokens[other]
        self.tokens.pop(key, None)
        if token is not None:
            self.tokens[key] = Token(request, kind, resource)
        return None

    # -- what operations do --------------------------------------------------------------------------------

    def project(self, name: str) -> Project:
        if name not in self.projects:
            raise Refused(NOT_FOUND)
        return self.projects[name]

    def dataset(self, name: str, kind: str) -> Dataset:
        if kind not in self.project(name).datasets:
            raise Refused(NOT_FOUND)
        return self.projects[name].datasets[kind]

    def model(self, name: str, version: str) -> tuple[int, Model]:
        models = self.project(name).models
        number = max(models, default=0) if version == "latest" else int(version)
        if number not in models:
            raise Refused(NOT_FOUND)
        return number, models[number]

    def create_project(self, name: str) -> str:
        if name in self.projects:
            raise Refused(CONFLICT)
        self.projects[name] = Project()
        return name

    def delete_project(self, name: str) -> str:
        project = self.project(name)
        if project.datasets or project.models:
            raise Refused(CONFLICT)
        for job in project.packagings:
            for other, record in list(self.tokens.items()):
                if record.resource == f"job {name}/{job}":
                    if record.state == "FAILED":
                        del self.tokens[other]
                    else:
                        record.state = "GONE"
            del self.components[name, job]
        del self.projects[name]
        return name

    def create_dataset(
        self,
        name: str,
        kind: str,
        content: dict[str, str | None] | None,
        failed: str | None,
        key: tuple[str, ...] | None,
        *,
        imports: bool,
    ) -> str:
        datasets, identity = self.project(name).datasets, f"{name}/{kind}"
        if failed == identity and kind in datasets and datasets[kind].status == "CREATE_FAILED":
            del datasets[kind]
        if kind in datasets:
            raise Refused(CONFLICT)
        datasets[kind] = Dataset(BUSY[0] if imports else "CREATE_COMPLETE", pending=content, token=key)
        return identity

    def delete_dataset(self, name: str, kind: str) -> str:
        if self.dataset(name, kind).status in BUSY:
            raise Refused(CONFLICT)
        del self.projects[name].datasets[kind]
        return f"{name}/{kind}"

    def update_dataset(self, name: str, kind: str, content: dict[str, str | None] | None, key: Any) -> str:
        dataset = self.dataset(name, kind)
        if dataset.status in (*BUSY, "CREATE_FAILED"):
            raise Refused(CONFLICT)
        dataset.status, dataset.pending, dataset.token = BUSY[1], content, key
        return f"{name}/{kind}"

    def create_model(self, name: str, failed: str | None, key: Any) -> str:
        project = self.project(name)
        self.dataset(name, "train")
        if any(dataset.status == "CREATE_FAILED" for dataset in project.datasets.values()):
            raise Refused(CONFLICT)
        if failed is not None and failed.rpartition("/")[0] == name:
            number = int(failed.rpartition("/")[2])
            if number in project.models and project.models[number].status == "TRAINING_FAILED":
                del project.models[number]
        project.last_version += 1
        awaited = {kind for kind, dataset in project.datasets.items() if dataset.status in BUSY}
        project.models[project.last_version] = Model("TRAINING", awaited, token=key)
        return f"{name}/{project.last_version}"

    def delete_model(self, name: str, version: str) -> str:
        number, model = self.model(name, version)
        if model.status == "HOSTED":
            raise Refused(CONFLICT)
        del self.projects[name].models[number]
        return f"{name}/{number}"

    def start_model(self, name: str, version: str) -> str:
        number, model = self.model(name, version)
        if model.status not in {"TRAINED", "HOSTING_FAILED"}:
            raise Refused(CONFLICT)
        model.status = "HOSTED" if model.has_network else "HOSTING_FAILED"  # which it soon is
        return f"{name}/{number}"

    def stop_model(self, name: str, version: str) -> str:
        number, model = self.model(name, version)
        if model.status != "HOSTED":
            raise Refused(CONFLICT)
        model.status = "TRAINED"
        return f"{name}/{number}"

    def start_packaging(self, name: str, version: str, job: str) -> str:
        number, model = self.model(name, version)
        component = (job, f"{number}.0.0")
        packageable = model.status in {"TRAINED", "HOSTED", "HOSTING_FAILED"}
        if not packageable or job in self.projects[name].packagings or component in self.components.values():
            raise Refused(CONFLICT)
        self.projects[name].packagings[job] = model.status
        self.components[name, job] = component
        return f"job {name}/{job}"

    def tag(self, name: str, version: str, key: str, value: str | None) -> str | None:
        project = self.projects.get(name)
        if project is None or int(version) not in project.models:
            return NOT_FOUND
        tags = project.models[int(version)].tags
        tags.pop(key, None)
        if value is not None:
            tags[key] = value
        return None

    def code_of_detection(self, name: str, version: str) -> str | None:
        try:
            _, model = self.model(name, version)
        except Refused as refusal:
            return str(refusal)
        return None if model.status == "HOSTED" else CONFLICT

    # -- what jobs do --------------------------------------------------------------------------------------

    def finish_imports(self) -> None:
        for project in self.projects.values():
            for kind, dataset in project.datasets.items():
                if dataset.status in BUSY:
                    self._finish_import(project, kind, dataset)

    def _finish_import(self, project: Project, kind: str, dataset: Dataset) -> None:
        creating, content = dataset.status == BUSY[0], dataset.pending
        if content is None:
            dataset.status = "CREATE_FAILED" if creating else "UPDATE_FAILED_ROLLBACK_COMPLETE"
            self._fail(dataset.token)
        else:
            dataset.entries |= content
            dataset.status = "CREATE_COMPLETE" if creating else "UPDATE_COMPLETE"
        for model in project.models.values():
            if kind in model.awaited and model.status == "TRAINING":
                model.awaited.discard(kind)
                if content is None:
                    model.status, model.awaited = "TRAINING_FAILED", set()
                    self._fail(model.token)

    def finish_trainings(self, end: TrainingEnd) -> None:
        for project in self.projects.values():
            for model in project.models.values():
                if model.status == "TRAINING" and not model.awaited:
                    model.status = "TRAINING_FAILED" if end == "fails" else "TRAINED"
                    model.has_network = end == "succeeds"
                    if end == "fails":
                        self._fail(model.token)

    def forget_failed_start(self, name: str, version: str) -> None:
        """A start that failed is forgotten, so that the same token can start the model again."""
        number, model = self.model(name, version)
        if model.status != "HOSTING_FAILED":
            return
        for key, record in list(self.tokens.items()):
            if key[0] == "StartModel" and record.resource == f"{name}/{number}":
                del self.tokens[key]

    def _fail(self, key: tuple[str, ...] | None) -> None:
        if key is not None and key in self.tokens:
            self.tokens[key].state = "FAILED"


_HOSTING = frozenset({"StartModel", "StopModel"})
_KINDS = {
    **dict.fromkeys(("CreateProject", "CreateDataset", "CreateModel", "StartModelPackagingJob"), "CREATED"),
    **dict.fromkeys(("DeleteProject", "DeleteDataset", "DeleteModel"), "DELETED"),
    **dict.fromkeys(("UpdateDatasetEntries", "StartModel", "StopModel"), "DONE"),
}
