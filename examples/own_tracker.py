"""A tracker of one's own: the figures of each round, as the run goes.

    python examples/own_tracker.py

"tensorboard=FOLDER", "mlflow=FOLDER" and "wandb=FOLDER" may stand beside it in ``track``.
"""

from collections.abc import Mapping

import graft


class PrintingTracker:
    """Has the three methods of ``graft.core.ports.Tracker``; no base class is needed."""

    def begin(self, run: str, settings: Mapping[str, str]) -> None:
        print(f"run {run}, method {settings['method']}, gamma {settings['split.gamma']}")

    def log(self, figures: Mapping[str, float], round_index: int) -> None:
        accuracy = {name: value for name, value in figures.items() if name.endswith("/accuracy")}
        shown = ", ".join(f"{name} {value:.1%}" for name, value in sorted(accuracy.items()))
        print(f"round {round_index}: {shown}; {figures['run/payload_bytes'] / 1e6:.2f} MB")

    def close(self, *, failed: bool) -> None:
        print("failed" if failed else "finished")


def main() -> None:
    graft.simulate(
        "imu",
        comparisons=["label-only"],
        domains=8,
        rounds=2,
        settings={"world.windows_per_domain": 60, "training.max_steps": 20},
        engine="block",
        workers=0,
        track=[PrintingTracker()],
    )


if __name__ == "__main__":
    main()
