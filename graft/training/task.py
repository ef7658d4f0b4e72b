"""What a method gets on a device, and what it gives back.

Legend: L labelled, U unlabelled samples, C classes, F features.
"""

from dataclasses import dataclass, field

from torch import Tensor

from graft.core.config import ExpansionConfig
from graft.core.exchange import FusionDiagnostics
from graft.core.records import BoolArray, FloatArray
from graft.core.streams import Rows
from graft.core.tasks import OutputKind, Task
from graft.core.text import short_repr
from graft.models import Network
from graft.training.outputs import known_outputs
from graft.training.private import PrivateTraining


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Source:
    """One source model on the device, in eval mode; ``mask_C`` marks the classes it knows."""

    model_id: str
    domain_id: str
    architecture: str
    network: Network
    mask_C: BoolArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prototypes:
    """One source's class centroids in its own feature space, without the model itself.

    A zero row of ``centroids_CF`` is a class that the source does not know or withholds.
    """

    model_id: str
    domain_id: str
    centroids_CF: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainingTask:
    """Everything that a method may use on one device. The test block is not in it.

    Parameters
    ----------
    domain_task : Task
        Shape of a sample and the classes to tell apart.
    architecture : str
        The architecture of the device's own model.
    x_L : Tensor, Lazy or Streams
        Labelled samples: a tensor (L, ...) of a domain with one stream, in its stream's dtype,
        ``Lazy`` where they are too large to be loaded, ``Streams`` where there are several. All
        have ``len()`` and are indexed by rows; ``graft.core.streams.concat`` joins them.
    y_L : Tensor
        Their classes (L,), int64; labels or amounts (L, C), float32.
    x_U : Tensor, Lazy or Streams
        Unlabelled samples, as ``x_L``.
    sources : tuple of Source
        The source models that the device was sent for the method.
    config : ExpansionConfig
        The run's configuration. ``config.section(name, Settings)`` is a method's own section.
    seed : int
        The same for every method of a domain and round: methods start from equal weights and
        see equal batches.
    hidden_y_U : Tensor
        Labels of U, which a real target domain does not have. Only the all-labels reference
        reads them.
    trainable : tuple of str
        Those architectures of the sources that the device has the memory to train.
    average : Source, optional
        The average model of the initial domains that have this device's architecture, for a
        method with ``needs_average``.
    pooled : Source, optional
        A model of the rows of all initial domains together, for a method with ``is_reference``.
    prototypes : tuple of Prototypes
        Class centroids, for a method whose ``sources_needed`` is "centroids".
    private : PrivateTraining, optional
        Set where the site's policy asks for private training, for a method with
        ``trains_privately``: whatever reads rows must go through ``minimise_privately``.
    compiled : bool
        Whether the compiled trainer may take the place of PyTorch: the same result within float
        tolerance, sooner. A simulator sets it.

    Examples
    --------
    >>> import torch
    >>> from graft.core.config import ExpansionConfig
    >>> from graft.core.tasks import Task
    >>> from graft.methods.baselines import fit_label_only
    >>> task = TrainingTask(
    ...     domain_task=Task(
    ...         name="t", modality="imu", sample_shape=(3, 64), classes=("sit", "walk")
    ...     ),
    ...     architecture="mlp", x_L=torch.randn(8, 3, 64), y_L=torch.arange(8) % 2,
    ...     x_U=torch.randn(16, 3, 64), sources=(), config=ExpansionConfig(), seed=1,
    ...     hidden_y_U=torch.arange(16) % 2,
    ... )
    >>> fit_label_only(task).mask_C
    array([ True,  True])
    """

    domain_task: Task
    architecture: str
    x_L: Rows
    y_L: Tensor
    x_U: Rows
    sources: tuple[Source, ...]
    config: ExpansionConfig
    seed: int
    hidden_y_U: Tensor = field(repr=False)
    trainable: tuple[str, ...] = ()
    average: Source | None = None
    pooled: Source | None = None
    prototypes: tuple[Prototypes, ...] = ()
    private: PrivateTraining | None = None
    compiled: bool = False

    @property
    def label_mask(self) -> BoolArray:
        """The classes, labels or amounts that the domain has labels for, (C,)."""
        return known_outputs(self.y_L, self.domain_task.num_classes, self.output)

    @property
    def output(self) -> OutputKind:
        """The kind of the output that is trained."""
        return self.domain_task.outputs[0].kind


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainedModel:
    """What a method gives back.

    Parameters
    ----------
    architecture : str
        The network's architecture.
    network : Network
        The trained network, in eval mode.
    mask_C : ndarray of bool
        The classes that it knows, (C,).
    used : tuple of Source or Prototypes
        The sources that it learnt from.
    metrics : dict of float
        Numbers for the report beside the test's: held_out_accuracy and knowledge_quality
        (0 to 1), or any others.
    diagnostics : FusionDiagnostics, optional
        How the sources were fused, with a row for each of ``used``.
    """

    architecture: str
    network: Network
    mask_C: BoolArray
    used: tuple[Source | Prototypes, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    diagnostics: FusionDiagnostics | None = None


for _record in (Source, Prototypes, TrainingTask, TrainedModel):
    _record.__repr__ = short_repr  # type: ignore[method-assign]
