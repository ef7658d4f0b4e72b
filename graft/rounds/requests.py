"""The device half of a round: profile, probe and train, on the domain's own machine."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from graft.core.exchange import (
    GrowRequest,
    ProbeRequest,
    ProfileRequest,
    Request,
    Response,
    TrainRequest,
    failure_of,
)
from graft.core.records import NO_LIMITS
from graft.core.streams import select
from graft.errors import BudgetError, GraftError
from graft.methods import FitMany, find_method
from graft.models.placement import placed
from graft.privacy import profile_domain
from graft.rounds.device import Device
from graft.rounds.exchange_cost import effective_method
from graft.rounds.growth_training import grow
from graft.rounds.probe import probe
from graft.rounds.training import evaluate_and_register, prepare_training, train
from graft.training import TrainedModel, TrainingTask


def handle_request(request: Request, device: Device) -> Response:
    """Carry out one request on its device: a ``DomainProfile``, ``Selection`` or ``TrainResult``,
    or a ``Failure`` that names the ``GraftError`` which was raised."""
    try:
        with placed(device.placement):
            return _within_limits(_answer(request, device), request, device)
    except GraftError as error:
        return failure_of(request, error)


def _answer(request: Request, device: Device) -> Response:
    if isinstance(request, ProfileRequest):
        rows = device.rows(request)
        x, y_L = select(device.data.x, rows.train_N), device.data.y_N[rows.labelled_N]
        inputs = device.data.inputs
        profile = profile_domain(request.domain_id, device.task, x, y_L, device.policy, inputs)
        is_limited = device.limits != NO_LIMITS or request.allowance is not None
        num_labelled = len(rows.labelled_N) if is_limited else None
        return replace(profile, limits=device.own_limits, num_labelled=num_labelled)
    if isinstance(request, ProbeRequest):
        return probe(request, device)
    if isinstance(request, GrowRequest):
        return grow(request, device)
    return train(request, device)


def _within_limits(response: Response, request: Request, device: Device) -> Response:
    """The response; raises BudgetError where it is longer than what may go up."""
    limit = device.limits.up_bytes
    if limit is not None and (num_bytes := device.answer_bytes(response)) > limit:
        raise BudgetError(
            f"answer of {request.domain_id}: got {num_bytes} bytes, wanted at most {limit}"
        )
    return response


def handle_together(requests: Sequence[TrainRequest], devices: Sequence[Device]) -> list[Response]:
    """``handle_request`` for one or more train requests of a method that has ``fit_many``, for a
    simulator: networks train as stacks, and ``compute_s`` is an equal part of the time that all of
    them took."""
    with placed(devices[0].placement):
        return _trained_together(requests, devices)


def _trained_together(
    requests: Sequence[TrainRequest], devices: Sequence[Device]
) -> list[Response]:
    responses: dict[int, Response] = {}
    tasks: dict[str, dict[int, TrainingTask]] = defaultdict(dict)
    for index, (request, device) in enumerate(zip(requests, devices, strict=True)):
        try:
            method = effective_method(
                request.method, request.sources, request.allowance, lacking=device.lacks_streams
            )
            tasks[method.name][index] = replace(prepare_training(request, device), compiled=True)
        except GraftError as error:
            responses[index] = failure_of(request, error)
    clock = devices[0].clock
    for name, same in tasks.items():
        fit_many = find_method(name).fit_many
        assert fit_many is not None
        start_s = clock()
        models = _fit_each(fit_many, list(same.values()), devices[0].accelerator)
        compute_s = (clock() - start_s) / len(same)
        for (index, task), model in zip(same.items(), models, strict=True):
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
