"""HaT-style mixer, heads and dictionary beside a network in the compiled trainer.

Legend: R replicas, S sources, N rows, L labelled, U unlabelled, C classes, F features, W width,
E epochs.
"""

from typing import Any

from torch import Tensor

from graft.core.config import HatConfig, TrainingConfig
from graft.training.compiled.calls import filled, structure

_Hat = structure(
    "_Hat",
    "i replicas sources width features source_features classes labelled rows batch",
    "i batch_labelled epoch",
    "d learning_rate head_rate decay",
    "d insert_quality keep_quality kept sharpness max_injection accuracy",
    "p x y known trains query key tau head bias fused quality notes work",
)


def hat_beside(
    *,
    settings: HatConfig,
    training: TrainingConfig,
    sources_SNF: Tensor,
    y_L: Tensor,
    known_SC: Tensor,
    trains_RL: Tensor,
    mixer: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    fused_UC: Tensor,
    quality_U: Tensor,
    notes_E3: Tensor,
    batch: tuple[int, int],
    epoch: int,
) -> Any:
    """What ``Objective.hat`` takes; the caller holds all tensors until the training is over.

    Changed in place are the mixer (queries (R, F, W), keys (R, S, F, W), temperatures, heads
    (R, S, F, C), biases (R, S, C)), the dictionary (``fused_UC``, ``quality_U``) and ``notes_E3``:
    filled fraction, mean quality and held-out accuracy at the start of each epoch, which is of
    ``epoch`` steps. ``batch``: rows of a step, and how many of them are labelled.
    """
    query_RFW, key_RSFW, tau_R, head_RSFC, bias_RSC = (each.detach() for each in mixer)
    return filled(
        _Hat, replicas=key_RSFW.shape[0], sources=key_RSFW.shape[1], width=key_RSFW.shape[3],
        features=query_RFW.shape[1], source_features=key_RSFW.shape[2],
        classes=fused_UC.shape[1], labelled=len(y_L), rows=sources_SNF.shape[1], batch=batch[0],
        batch_labelled=batch[1], epoch=epoch, learning_rate=training.learning_rate,
        head_rate=training.source_learning_rate, decay=training.weight_decay,
        insert_quality=settings.insert_quality, keep_quality=settings.keep_quality,
        kept=settings.dictionary_momentum, sharpness=1 / settings.knowledge_temperature,
        max_injection=settings.max_injection, accuracy=0.0, x=sources_SNF, y=y_L,
        known=known_SC, trains=trains_RL, query=query_RFW, key=key_RSFW, tau=tau_R,
        head=head_RSFC, bias=bias_RSC, fused=fused_UC, quality=quality_U, notes=notes_E3,
        work=None,
    )  # fmt: skip
