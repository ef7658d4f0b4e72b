"""From scored sources to judged scores: a row a target domain and score, tables and the figure."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from graft.report.figures.canvas import MAIN, QUIET, REFERENCE, WIDE, axes_px, draw_svg
from graft.report.summary import mean_interval
from graft.selection.evaluation import top_k_regret, top_k_shortfall, weighted_tau

REGRET_AT = (1, 3, 5)
REFERENCE_KEY = ("joint (A2)", "as-is")
METRICS = ("weighted_tau", *(f"regret_{k}" for k in REGRET_AT), "shortfall_5")
JUDGED_SCHEMA = pa.schema(
    [
        ("set", pa.string()),
        ("seed", pa.int16()),
        ("target", pa.string()),
        ("sources", pa.int16()),
        ("truth", pa.string()),
        ("probe", pa.string()),
        ("score", pa.string()),
        *((metric, pa.float32()) for metric in METRICS),
        ("seconds", pa.float32()),
    ]
)
Row = Mapping[str, object]
Key = tuple[str, str]


def judge_rows(scored: Iterable[Row]) -> list[dict[str, object]]:
    """One row a (set, seed, target domain, truth, probe, score); ``seconds`` are a source's mean.

    "ship-all" keeps every source: it regrets nothing, and its shortfall is that of the mean.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in scored:
        key = (row["set"], row["seed"], row["target"], row["probe"], row["score"])
        groups.setdefault(key, []).append(row)
    judged = []
    for (name, seed, target, probe, score), rows in groups.items():
        for truth in ("as-is", "taught"):
            truth_S = [row[f"truth_{truth.replace('-', '_')}"] for row in rows]
            place = {
                "set": name, "seed": seed, "target": target, "sources": len(rows),
                "truth": truth,
            }  # fmt: skip
            value_S = [row["value"] for row in rows]
            judged.append(
                {
                    **place,
                    "probe": probe,
                    "score": score,
                    "weighted_tau": weighted_tau(value_S, truth_S),
                    **{f"regret_{k}": top_k_regret(value_S, truth_S, k) for k in REGRET_AT},
                    "shortfall_5": top_k_shortfall(value_S, truth_S, 5),
                    "seconds": float(np.mean([row["seconds"] for row in rows])),
                }
            )
            if score == "random":
                best = np.sort(truth_S)[::-1][:5].mean()
                judged.append(
                    {
                        **place,
                        "probe": "none",
                        "score": "ship-all",
                        "weighted_tau": 0.0,
                        **{f"regret_{k}": 0.0 for k in REGRET_AT},
                        "shortfall_5": float(best - np.mean(truth_S)),
                        "seconds": 0.0,
                    }
                )
    return judged


def judged_table(judged: Sequence[Row]) -> pa.Table:
    """The judged rows as an Arrow table; four decimals, which compress."""
    rounded = [
        {name: round(value, 6) if isinstance(value, float) else value for name, value in r.items()}
        for r in judged
    ]
    return pa.Table.from_pylist(rounded, schema=JUDGED_SCHEMA)


def select(judged: Sequence[Row], truth: str, name: str | None) -> dict[Key, list[Row]]:
    """The rows of a truth and a set (None: all sets) by (score, probe), best mean tau first."""
    found: dict[Key, list[Row]] = {}
    for row in judged:
        if row["truth"] == truth and name in (None, row["set"]):
            found.setdefault((str(row["score"]), str(row["probe"])), []).append(row)
    return dict(sorted(found.items(), key=lambda item: -mean_of(item[1], "weighted_tau")))


def mean_of(rows: Sequence[Row], metric: str) -> float:
    return float(np.mean([row[metric] for row in rows]))


def markdown(judged: Sequence[Row], title: str, probing: Mapping[str, float]) -> str:
    """Every table: all sets together for both truths, then each set for the truth "taught"."""
    names = sorted({str(row["set"]) for row in judged})
    forward = ", ".join(f"{name} {1e3 * taken:.0f} ms" for name, taken in probing.items())
    parts = [
        f"# {title}",
        "",
        "Mean over (set, seed, target) and half of its 95 % interval over the means of (set, "
        "seed), as the targets of a seed share their sources. Regrets and the shortfall of the "
        "five chosen are in points of accuracy, lower is better; CPU ms a source, beyond the "
        f"probe's own ({forward}).",
    ]
    parts += ["", f"## Against {REFERENCE_KEY[0]}, truth: taught", "", *_gain_table(judged)]
    parts += ["", "## All sets, truth: taught", "", *_table(select(judged, "taught", None))]
    parts += ["", "## All sets, truth: as-is", "", *_table(select(judged, "as-is", None))]
    for name in names:
        parts += ["", f"## {name}, truth: taught", "", *_table(select(judged, "taught", name))]
    return "\n".join(parts) + "\n"


def _table(found: Mapping[Key, Sequence[Row]]) -> list[str]:
    regrets = " | ".join(f"regret@{k}" for k in REGRET_AT)
    lines = [
        f"| score | probe | weighted tau | {regrets} | shortfall@5 | ms |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (score, probe), rows in found.items():
        cells = [_cell(rows, metric, 1 if metric == "weighted_tau" else 100) for metric in METRICS]
        milliseconds = f"{1e3 * mean_of(rows, 'seconds'):.2f}"
        if score == "ship-all":
            cells[0], milliseconds = "-", "-"
        lines.append(f"| {score} | {probe} | {' | '.join(cells)} | {milliseconds} |")
    return lines


def _gain_table(judged: Sequence[Row]) -> list[str]:
    """Each score less the reference, target domain by target domain."""
    found = select(judged, "taught", None)
    reference = {_target(row): row for row in found.get(REFERENCE_KEY, ())}
    lines = [
        "| score | probe | weighted tau | regret@1 | regret@5 | shortfall@5 |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for (score, probe), rows in found.items():
        if not reference or score == "ship-all" or (score, probe) == REFERENCE_KEY:
            continue
        cells = []
        for metric in ("weighted_tau", "regret_1", "regret_5", "shortfall_5"):
            gains = [{**row, metric: row[metric] - reference[_target(row)][metric]} for row in rows]
            cells.append(_cell(gains, metric, 1 if metric == "weighted_tau" else 100, sign="+"))
        lines.append(f"| {score} | {probe} | {' | '.join(cells)} |")
    return lines


def _target(row: Row) -> tuple[object, ...]:
    return row["set"], row["seed"], row["target"]


def _cell(rows: Sequence[Row], metric: str, scale: float, sign: str = "") -> str:
    mean, low, high = (scale * value for value in seed_interval(rows, metric))
    decimals = 2 if scale == 1 else 1
    return f"{mean:{sign}.{decimals}f} ± {(high - low) / 2:.{decimals}f}"


def seed_interval(rows: Sequence[Row], metric: str) -> tuple[float, float, float]:
    """Mean, and its 95 % interval over the means of (set, seed); NaN for a single one."""
    by_seed: dict[tuple[object, ...], list[float]] = {}
    for row in rows:
        by_seed.setdefault((row["set"], row["seed"]), []).append(float(row[metric]))
    interval = mean_interval([float(np.mean(values)) for values in by_seed.values()])
    return mean_of(rows, metric), *(interval or (np.nan, np.nan))


def figure_svg(judged: Sequence[Row], title: str) -> str:
    """Weighted tau with the truth "taught", every score and probe, with 95 % intervals."""
    found = select(judged, "taught", None)
    found = {key: rows for key, rows in found.items() if key[0] != "ship-all"}
    scores = list(dict.fromkeys(score for score, _ in found))[::-1]
    colours = {"none": QUIET, "as-is": REFERENCE, "renormalised": MAIN}
    shifts = {"none": 0.0, "as-is": -0.16, "renormalised": 0.16}

    def draw(figure: Figure) -> None:
        axes = axes_px(figure, left=170, right=20, top=40, bottom=44)
        axes.grid(axis="x", color="#d4dae1", linewidth=0.8)
        axes.axvline(0, color="#56616e", linewidth=1)
        for (score, probe), rows in found.items():
            mean, low, high = seed_interval(rows, "weighted_tau")
            height = scores.index(score) + shifts[probe]
            axes.plot([low, high], [height, height], color=colours[probe], linewidth=1.6)
            axes.plot([mean], [height], "o", color=colours[probe], markersize=6)
        axes.set_yticks(range(len(scores)), scores)
        axes.set_ylim(-0.6, len(scores) - 0.4)
        axes.set_xlabel("weighted Kendall tau with the accuracy after the head was taught on L")
        labels = {
            "renormalised": "probe renormalised",
            "as-is": "probe as it stands",
            "none": "card alone",
        }
        for probe, label in labels.items():
            axes.plot([], [], "o", color=colours[probe], label=label)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False)

    height_px = 90 + 26 * len(scores)
    return draw_svg(draw, canvas=WIDE, height_px=height_px, title=title)
