"""``graft simulate``: a whole run on this machine or on a Ray cluster."""

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Exit, Option

from graft.cli.runs import open_watcher, show_run
from graft.cli.shared import (
    ConfigOption,
    DataOption,
    Format,
    FormatOption,
    SettingOption,
    TrackOption,
    announce,
    console,
    print_facts,
    print_json,
    progress_bars,
    read_settings,
)
from graft.core.config import ExpansionConfig
from graft.core.config_files import configure, read_config
from graft.core.files import AnyPath, open_path
from graft.errors import ConfigError, GraftError

if TYPE_CHECKING:
    from graft_server.observability.progress import RoundProgress
    from graft_server.round_loop import OnProgress
    from graft_simulation.engines import EngineSettings

    from graft.data.domain import World


# Each library chooses code by the processor when it is loaded; these hold it to AVX2.
ENVIRONMENT = {
    "GRAFT_PORTABLE": "1",  # the compiled trainer, for x86-64-v3
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    # MKL takes other paths on AMD than on Intel, whose results only this mode makes the same.
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Haswell",
    # The names of numpy 2.4, then those before; a name that numpy does not know is left out.
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR "
    "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL",
}


def simulate(
    out: Annotated[
        str | None,
        Option(
            help="Run folder. Default: runs/<date and time>. The block engine also takes a URL of "
            "any file system that fsspec knows, e.g. s3://bucket/run."
        ),
    ] = None,
    config_file: ConfigOption = None,
    data: DataOption = None,
    domains: Annotated[
        int | None, Option(help="Number of domains of an embedded world, or the most of a folder.")
    ] = None,
    rounds: Annotated[int | None, Option(help="Number of rounds after round 0.")] = None,
    gamma: Annotated[float | None, Option(help="Labelled fraction of a target domain.")] = None,
    seed: Annotated[int | None, Option(help="Seed of every random stream.")] = None,
    method: Annotated[str | None, Option(help="Method whose models join the catalogue.")] = None,
    setting: SettingOption = None,
    engine: Annotated[
        Literal["flower", "block"],
        Option(
            help="flower: each domain is a node of Flower's simulation and messages travel as in a "
            "deployment. block: many domains per task, models trained side by side, for scale. "
            "A resumed run keeps its engine."
        ),
    ] = "flower",
    workers: Annotated[
        int,
        Option(
            min=0,
            help="Number of worker processes, at most one a processor; does not change the result.",
        ),
    ] = 2,
    ray_address: Annotated[
        str | None, Option(help="Ray cluster to join (block engine), e.g. host:6379.")
    ] = None,
    accelerator: Annotated[
        str, Option(help="Torch device that networks compute on, e.g. cuda.")
    ] = "cpu",
    stacked: Annotated[
        bool, Option(help="Block engine: train models of one architecture side by side.")
    ] = True,
    portable: Annotated[
        bool,
        Option(
            "--portable",
            help="One hash on every x86-64 processor with AVX2, at a cost in time. Give it to "
            "--resume as well.",
        ),
    ] = False,
    track: TrackOption = None,
    resume: Annotated[str | None, Option(help="Folder of an interrupted run to continue.")] = None,
    dry_run: Annotated[
        bool,
        Option(
            "--dry-run",
            help="Show what fits the devices, which domains would fail, and how much time, memory "
            "and disk a run takes; train and write nothing.",
        ),
    ] = False,
    join_timeout_s: Annotated[
        float, Option(help="Flower engine: longest wait for all nodes, in seconds.")
    ] = 120.0,
    stall_timeout_s: Annotated[
        float, Option(help="Flower engine: longest wait without a response, in seconds.")
    ] = 900.0,
    metrics_port: Annotated[
        int, Option(help="Serve Prometheus metrics on this port of 127.0.0.1; 0: none.")
    ] = 0,
    output: FormatOption = Format.TABLE,
) -> None:
    """Train initial domains, then serve target domains round by round.

    Exit code 0 only if every method finished on every domain.
    """
    if portable:
        restart_portably(accelerator, ray_address)
    if resume is None:
        config = configure(
            read_config(config_file) if config_file else ExpansionConfig(),
            read_settings(setting),
            data=data,
            domains=domains,
            rounds=rounds,
            gamma=gamma,
            seed=seed,
            method=method,
        )
    # Flower, Ray and torch take seconds to import; what comes before needs none of them.
    if engine == "block" and workers and ray_address is None:
        from graft_simulation.workers import start_early

        start_early()
    from graft_server.run_folder import RunFolder
    from graft_simulation.engines import Engine, EngineSettings

    from graft.api import complete_run

    engine_settings = EngineSettings(
        engine=Engine(engine),
        accelerator=accelerator,
        stacked=stacked,
        workers=workers,
        ray_address=ray_address,
        join_timeout_s=join_timeout_s,
        stall_timeout_s=stall_timeout_s,
    )
    if dry_run:
        show_forecast(
            config if resume is None else RunFolder(open_path(resume)).read_config(),
            engine_settings,
            output,
        )
        return
    if resume is None:
        folder = RunFolder(open_path(out or f"runs/{datetime.now():%Y%m%d-%H%M%S}"))
    else:
        folder = RunFolder(open_path(resume))
        config = folder.read_config()
        engine_settings = engine_settings.as_recorded(folder.read_engine())

    is_begun = False

    def show_begin(world: "World") -> None:
        nonlocal is_begun
        is_begun = True
        announce(
            f"{world.task.name}: {len(world.domain_ids)} domains, {config.rounds} rounds, "
            f"methods {', '.join(config.methods)}; run folder {folder.path}"
        )

    failure: GraftError | None = None
    with _round_progress(config.rounds) as progress, _served_metrics(folder.path, metrics_port):
        try:
            digest = complete_run(
                folder,
                config,
                engine_settings,
                is_new=resume is None,
                track=track or (),
                on_progress=progress,
                begun=show_begin,
            )
        except GraftError as error:
            if not is_begun:
                raise
            failure = error
        except KeyboardInterrupt:
            if is_begun:
                where = shlex.quote(str(folder.path))
                announce(f"continue with: graft simulate --resume {where}")
            raise
    if folder.is_written:
        show_run(folder.path, output)
    if failure is not None:
        raise failure
    console.print(f"hash {digest}", highlight=False)


def show_forecast(config: ExpansionConfig, engine: "EngineSettings", output: Format) -> None:
    """Print what a run would need; exit code 1 where a domain would fail."""
    import tempfile
    from pathlib import Path

    from graft_server.round_loop import RunSettings
    from graft_server.run_folder import RunFolder
    from graft_simulation.engines import check_engine
    from graft_simulation.environment import usable_workers
    from graft_simulation.forecast import forecast

    from graft.data.worlds import open_world
    from graft.methods import for_output, with_method_sections
    from graft.report.formatting import bytes_text, count_text

    check_engine(engine)
    config = with_method_sections(config)
    unwritten = RunFolder(Path(tempfile.gettempdir()) / "unwritten")
    world = open_world(config.world, config.seed)
    config = for_output(config, world.task)
    facts = forecast(
        RunSettings(config=config, world=world, folder=unwritten), usable_workers(engine.workers)
    )
    if output is Format.JSON:
        print_json(facts)
    else:
        lines = {
            name: f"{count_text(each['domains'], 'domain')}, {bytes_text(each['memory_bytes'])}; "
            f"fits {', '.join(each['architectures']) or 'nothing'}"
            for name, each in facts["device_classes"].items()
        }
        print_facts(
            {
                "domains": facts["domains"],
                **lines,
                "would fail": _by_reason(facts["would_fail"]),
                "trainings": facts["trainings"],
                "time": f"at most about {facts['seconds']:.0f} s on this machine",
                "memory": f"about {bytes_text(facts['memory_bytes'])} of "
                f"{bytes_text(facts['memory_free_bytes'])} that are free",
                "disk": f"about {bytes_text(facts['disk_bytes'])} of models",
            },
            output,
        )
    if facts["would_fail"]:
        raise Exit(1)


def _by_reason(unfit: Mapping[str, str]) -> list[str]:
    """A line a reason, with the domains that have it."""
    domains: dict[str, list[str]] = {}
    for domain_id, reason in unfit.items():
        domains.setdefault(reason, []).append(domain_id)
    return [f"{', '.join(some)}: {reason}" for reason, some in domains.items()]


@contextmanager
def _served_metrics(folder: AnyPath, port: int) -> Iterator[None]:
    if port == 0:
        yield
        return
    from graft_server.observability.metrics import RunMetrics, serve_metrics
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    registry.register(RunMetrics(open_watcher(folder)))
    with serve_metrics("127.0.0.1", port, registry, announce):
        yield


@contextmanager
def _round_progress(rounds: int) -> "Iterator[OnProgress]":
    """A line for the running phase: round, phase, responses, payload bytes so far."""
    from graft.report.formatting import bytes_text, count_text

    title = f"round {{task.fields[round]}}/{rounds} {{task.description:8}}"
    with progress_bars(title, "{task.fields[traffic]}") as bars:
        bar = bars.add_task("start", total=None, round=0, traffic="")
        latest = ""

        def show(now: "RoundProgress") -> None:
            nonlocal latest
            if (name := f"round {now.round_index} {now.phase}") != latest:
                latest = name
                bars.reset(bar)
                if not console.is_terminal:
                    announce(f"{name}: {count_text(now.wanted, 'request')}")
            bars.update(
                bar,
                description=now.phase,
                completed=now.done,
                total=now.wanted,
                round=now.round_index,
                traffic=bytes_text(now.payload_bytes),
            )

        yield show


def restart_portably(accelerator: str, ray_address: str | None) -> None:
    """Replace this process by one that has ``ENVIRONMENT``; return in that one.

    Its workers inherit the environment. Raises ConfigError where sums cannot be held the same:
    on an accelerator, on a cluster's machines, on a processor without AVX2.
    """
    if accelerator != "cpu" or ray_address is not None:
        got = ray_address or accelerator
        raise ConfigError(f"portable: got {got}, wanted the processor of this machine")
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        os.environ.update(ENVIRONMENT)
        os.execv(sys.executable, [sys.executable, "-P", "-m", "graft_origin", *sys.argv[1:]])  # noqa: S606
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    if capability != "AVX2":
        raise ConfigError(f"portable: got a processor with {capability}, wanted x86-64 with AVX2")
