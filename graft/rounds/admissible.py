"""Whether a response may enter a round: what decodes may still not fit the task or the tables.

Every response is digested by itself, and one that cannot be is the failure of its domain alone.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from graft.core.exchange import Failure, Request, Response, TrainResult, failure_of
from graft.core.ports import Edge
from graft.core.records import DomainProfile
from graft.core.results import required_metrics
from graft.core.tasks import Task
from graft.errors import EdgeError, GraftError
from graft.privacy.profiling import statistic_ranges

# No number of a sample is beyond it, in whatever unit: statistics of samples are bounded by it.
VALUE_LIMIT: Final = 1e9
_LOG = logging.getLogger("graft")


@dataclass(frozen=True, slots=True)
class AdmittingEdge:
    """An ``Edge`` whose responses are digested: what is not admissible is a ``Failure``."""

    edge: Edge
    task: Task

    def ask(self, requests: Sequence[Request]) -> list[Response]:
        """See ``Edge.ask``."""
        responses = self.edge.ask(requests)
        return [_digest(*pair, self.task) for pair in zip(requests, responses, strict=True)]


def digest(request: Request, response: Response, task: Task) -> Response:
    """The response, if every later step can take it; otherwise the request's failure."""
    return _digest(request, response, task)


def _digest(request: Request, response: Response, task: Task) -> Response:
    try:
        if isinstance(response, DomainProfile):
            _check_profile(response, task)
        elif isinstance(response, TrainResult):
            _check_result(response, task)
    except Exception as error:
        return digest_failure(request, error)
    return response


def digest_failure(request: Request | TrainResult, error: Exception) -> Failure:
    """The failure of the domain whose response raised ``error``, of whatever kind it is.

    Raises an OSError again: that is the server's own disk, and no domain's doing.
    """
    if isinstance(error, OSError):
        raise error
    if not isinstance(error, GraftError):
        _LOG.error("answer of %s", request.domain_id, exc_info=error)
        what = f"{type(error).__name__}: {error}"
        error = EdgeError(
            f"answer of {request.domain_id}: got {what:.200}, wanted an admissible one"
        )
    return failure_of(request, error)


def _check_profile(profile: DomainProfile, task: Task) -> None:
    """Raises EdgeError for statistics, counts or a task that no data of the task can have."""
    unknown = [name for name in profile.inputs if name not in task.input_names]
    if unknown:
        raise EdgeError(
            f"profile of {profile.domain_id}: got the stream {unknown[0]!r:.60}, "
            f"wanted some of {list(task.input_names)}"
        )
    low, high = [], []
    sizes = []
    for spec in task.reading(profile.inputs).inputs:
        low_P, high_P = statistic_ranges(spec.shape, VALUE_LIMIT, spec.kind)
        sizes.append(2 * len(low_P))
        low += [low_P, 0 * low_P]
        high += [high_P, high_P - low_P]
    low_D, high_D = np.concatenate(low), np.concatenate(high)
    what, statistics_D = f"profile of {profile.domain_id}", profile.statistics_D
    if profile.task != task.name:
        raise EdgeError(f"{what}: got task {profile.task!r:.60}, wanted {task.name!r}")
    if statistics_D.shape != low_D.shape:
        raise EdgeError(f"{what}: got {statistics_D.size} statistics, wanted {low_D.size}")
    if profile.input_sizes != (tuple(sizes) if profile.inputs else ()):
        raise EdgeError(f"{what}: got sizes {profile.input_sizes!s:.60}, wanted {sizes}")
    slack_D = 1e-5 * (1 + np.abs(high_D))  # float32
    if ((statistics_D < low_D - slack_D) | (statistics_D > high_D + slack_D)).any():
        raise EdgeError(f"{what}: got a statistic that no {task.modality} sample has")
    counts_C = profile.class_counts_C
    if counts_C is not None and counts_C.shape != (task.num_classes,):
        raise EdgeError(f"{what}: got {counts_C.size} class counts, wanted {task.num_classes}")


def _check_result(result: TrainResult, task: Task) -> None:
    """Raises GraftError where the result has no row of the tables.

    A row's numbers are those of the result, whose ranges the wire has checked.
    """
    wanted = required_metrics(task.outputs[0].kind)
    if missing := [name for name in wanted if name not in result.metrics]:
        raise EdgeError(f"report of {result.domain_id}: got no {', '.join(missing)}")
