"""Data of one's own: a World, which is an object that loads one domain's arrays at a time.

    python examples/own_data.py

Here each domain is a sine of another phase, drawn when it is loaded. Arrays in files are as good:
docs/data.md describes a folder with one .npz a domain, whose path ``graft.simulate`` takes in
place of a World; ``graft data check`` reads it as a run will.
"""

from collections.abc import Sequence

import numpy as np

import graft
from graft.core.tasks import Task
from graft.data import DomainData


class SineWorld:
    """Eight domains; the class of a window is the frequency of its sine."""

    task = Task(
        name="sines", modality="sequence", sample_shape=(2, 64), classes=("slow", "medium", "fast")
    )
    domain_ids: Sequence[str] = [f"site-{number}" for number in range(8)]

    def person(self, domain_id: str) -> str:
        return domain_id  # domains of one person would arrive in the same round

    def load(self, domain_id: str) -> DomainData:
        random = np.random.default_rng(self.domain_ids.index(domain_id))
        y_N = random.permutation(np.repeat(np.arange(3), 40))
        phase = random.uniform(0, np.pi)  # each site mounts its sensor another way
        angle_NT = np.linspace(0, 1, 64) * (4.0 + 6.0 * y_N[:, None]) + phase
        x = np.stack([np.sin(angle_NT), np.cos(angle_NT)], axis=1)
        x += random.normal(0, 0.5, x.shape)
        return DomainData(
            domain_id=domain_id,
            x=x.astype(np.float32),
            y_N=y_N,
            group_N=np.arange(len(y_N)),  # no two windows come from one recording
        )


def main() -> None:
    run = graft.simulate(
        SineWorld(),
        comparisons=["label-only"],
        rounds=1,
        settings={"training.max_steps": 30},
        engine="block",
        workers=0,
    )
    for each in run.summary():
        print(f"{each['method']:12} {each['accuracy_mean']:.1%} of {each['finished']} sites")
    print(f"the sites' folder: {run.folder / 'world'}")


if __name__ == "__main__":
    main()
