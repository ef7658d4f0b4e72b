"""The device half of a round: profile, probe and train, on the domain's own machine."""

from collections.abc import Sequence
from dataclasses import replace

from graft.core.records import (
    GrowRequest,
    ProbeRequest,
    ProfileRequest,
    Request,
    Response,
    TrainRequest,
    failure_of,
)
from graft.errors import GraftError
from graft.methods import FitMany, find_method
from graft.privacy import profile_domain
from graft.rounds.device import Device
from graft.rounds.growth_training import grow
from graft.rounds.probe import probe
from graft.rounds.training import evaluate_and_register, prepare_training, train
from graft.training import TrainedModel, TrainingTask


def handle_request(request: Request, device: Device) -> Response:
    """Carry out one request on its device: a ``DomainProfile``, ``Selection`` or ``TrainResult``,
    or a ``Failure`` that names the ``GraftError`` which was raised."""
    try:
        if isinstance(request, ProfileRequest):
            rows = device.rows(request)
            x, y_L = device.data.x[rows.train_N], device.data.y_N[rows.labelled_N]
            return profile_domain(request.domain_id, device.task, x, y_L, device.policy)
        if isinstance(request, ProbeRequest):
            return probe(request, device)
        if isinstance(request, GrowRequest):
            return grow(request, device)
        return train(request, device)
    except GraftError as error:
        return failure_of(request, error)


def handle_together(
    requests: Sequence[TrainRequest], devices: Sequence[Device], accelerator: str = "cpu"
) -> list[Response]:
    """``handle_request`` for one or more train requests of a method that has ``fit_many``, for a
    simulator: networks train as stacks on the torch device ``accelerator``, and ``compute_s`` is
    an equal part of the time that all of them took."""
    fit_many = find_method(requests[0].method).fit_many
    assert fit_many is not None
    responses: dict[int, Response] = {}
    tasks: dict[int, TrainingTask] = {}
    for index, (request, device) in enumerate(zip(requests, devices, strict=True)):
        try:
            tasks[index] = replace(prepare_training(request, device), compiled=True)
        except GraftError as error:
            responses[index] = failure_of(request, error)
    clock = devices[0].clock
    start_s = clock()
    models = _fit_each(fit_many, list(tasks.values()), accelerator)
    compute_s = (clock() - start_s) / max(len(tasks), 1)
    for (index, task), model in zip(tasks.items(), models, strict=True):
        request, device = requests[index], devices[index]
        try:
            if isinstance(model, Exception):
                raise model
            responses[index] = evaluate_and_register(request, device, task, model, compute_s)
        except Exception as error:  # a named failure of this device, whatever went wrong
            responses[index] = failure_of(request, error)
    return [responses[index] for index in range(len(requests))]


def _fit_each(
    fit_many: FitMany, tasks: Sequence[TrainingTask], accelerator: str
) -> Sequence[TrainedModel | Exception]:
    """Every task's model, or why it alone has none."""
    try:
        return fit_many(tasks, accelerator)
    except Exception as error:
        if len(tasks) == 1:
            return [error]
        return [_fit_each(fit_many, [task], accelerator)[0] for task in tasks]
