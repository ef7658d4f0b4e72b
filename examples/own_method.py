"""A method of one's own, in a script: no package to install, and a section of the configuration.

    python examples/own_method.py

The same method by its reference, from the command (the module has to be on PYTHONPATH):

    PYTHONPATH=examples graft simulate --domains 8 --rounds 1 --method own_method:METHOD
"""

from dataclasses import dataclass

import graft
from graft.methods import Method
from graft.methods.blocks.targets import distil, fresh_target, known_classes, mean_prediction
from graft.training import TrainedModel, TrainingTask


@dataclass(frozen=True)
class SharpSettings:
    """The section ``[sharp_kd]``; a pydantic model may declare bounds as well."""

    temperature: float = 0.5


def fit_sharp_kd(task: TrainingTask) -> TrainedModel:
    """Distil the sources' mean prediction on U, sharpened: p^(1/T), renormalised."""
    settings = task.config.section("sharp_kd", SharpSettings)
    powered_UC = mean_prediction(task.sources, task.x_U) ** (1 / settings.temperature)
    network = fresh_target(task)
    distil(network, powered_UC / powered_UC.sum(1, keepdim=True), task)
    return TrainedModel(
        architecture=task.architecture,
        network=network.eval(),
        mask_C=known_classes(task),
        used=task.sources,
    )


METHOD = Method(
    name="sharp-kd",
    title="Sharpened distillation",
    fit=fit_sharp_kd,
    sources_needed="selected",
    section="sharp_kd",
    settings=SharpSettings,
)


def main() -> None:
    run = graft.simulate(
        "imu",
        method=METHOD,
        comparisons=["label-only", "average-kd-selected"],
        domains=8,
        rounds=1,
        settings={
            "sharp_kd.temperature": 0.4,
            "world.windows_per_domain": 60,
            "training.max_steps": 30,
        },
        engine="block",  # workers in other processes; the default is Flower's simulation
        workers=1,
    )
    for each in run.summary():
        print(f"{each['method']:20} {each['accuracy_mean']:.1%}")


if __name__ == "__main__":
    main()
