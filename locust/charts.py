#!/usr/bin/env python3
"""Draws the charts of a run of scripts/load from its figures.

python locust/charts.py             media/load.json -> media/load-*.png
python locust/charts.py FOLDER      the same in another folder
python locust/charts.py FOLDER load-gateway   load-gateway.json -> load-gateway-*.png
"""

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

MEDIA = Path(__file__).parent.parent / "media"
BAR_MS = 50

INK = "#1f2933"
FAINT = "#7b8794"
GRID = "#e4e7eb"
RED = "#c81e1e"
BLUES = {"p50": "#9ccbe8", "p95": "#3c8dc5", "p99": "#0b4f8a"}
PARTIES = {
    "locust": "#e8a33d",
    "merch-store": "#0b4f8a",
    "postgres": "#3c8dc5",
    "everything else": "#cbd2d9",
}

rcParams.update(
    {
        "figure.figsize": (9, 4.2),
        "figure.dpi": 130,
        "figure.facecolor": "white",
        "font.size": 10.5,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": FAINT,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": GRID,
        "xtick.color": INK,
        "ytick.color": INK,
        "legend.frameon": False,
    }
)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else MEDIA
    run = sys.argv[2] if len(sys.argv) > 2 else "load"
    figures = json.loads((folder / f"{run}.json").read_text())
    pictures = [("throughput", throughput), ("latency", latency), ("routes", routes), ("cpu", cpu)]
    if "beyond" in figures:
        pictures = [("latency", latency), ("limits", limits)]
    for name, draw in pictures:
        figure = draw(figures)
        path = folder / f"{run}-{name}.png"
        figure.savefig(path)
        print(path)


def new(title: str, subtitle: str) -> tuple[Figure, Axes]:
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=13.5, fontweight="bold", pad=30)
    axes.annotate(
        subtitle,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 12),
        textcoords="offset points",
        color=FAINT,
    )
    return figure, axes


def columns(rows: list[list[float]], names: list[str]) -> dict[str, list[float]]:
    return dict(zip(names, zip(*rows, strict=True), strict=True))


def throughput(figures: dict[str, Any]) -> Figure:
    total, settings = figures["total"], figures["settings"]
    series = columns(figures["series"], figures["series_columns"])
    failed = "none failed" if not total["failures"] else f"{total['failures']:,} failed"
    figure, axes = new(
        f"{total['requests']:,} requests, {failed}",
        f"{settings['users']} simulated users among {settings['seeded_users']:,} seeded ones: "
        "a third info, a third buy, a third sendCoin",
    )
    wanted = settings["users"] * settings["user_rate"]
    level(axes, wanted, f"wanted:\n{wanted:,.0f}", FAINT)
    axes.fill_between(
        series["second"],
        series["requests_per_s"],
        color=BLUES["p50"],
        alpha=0.35,
        linewidth=0,
    )
    axes.plot(
        series["second"],
        series["requests_per_s"],
        color=BLUES["p99"],
        label="requests a second",
    )
    axes.plot(series["second"], series["failures"], color=RED, label="failures a second")
    axes.set_ylim(0, max(wanted, *series["requests_per_s"]) * 1.15)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    over_time(axes, series)
    axes.set_ylabel("requests a second")
    axes.legend(loc="lower left", bbox_to_anchor=(0.01, 0.08))
    return figure


def latency(figures: dict[str, Any]) -> Figure:
    total = figures["total"]
    series = columns(figures["series"], figures["series_columns"])
    figure, axes = new(
        f"Half of the answers within {total['p50']:g} ms, 99 of 100 within {total['p99']:g} ms",
        "Response time as Locust measured it, each second's requests by themselves",
    )
    for name, label in (
        ("p99", "p99"),
        ("p95", "p95"),
        ("p50", "p50"),
    ):
        axes.plot(
            series["second"],
            series[name],
            color=BLUES[name],
            label=label,
            linewidth=1.8,
        )
    level(axes, BAR_MS, f"the bar:\n{BAR_MS} ms", RED)
    milliseconds(axes, min(series["p50"]), max(*series["p99"], BAR_MS))
    over_time(axes, series)
    beside(axes)
    return figure


def routes(figures: dict[str, Any]) -> Figure:
    rows = [*figures["routes"], figures["total"]]
    figure, axes = new(
        f"99 of 100 answers of every route within {max(row['p99'] for row in rows):g} ms",
        "Percentiles of the response time over the whole run",
    )
    width = 0.26
    for index, name in enumerate(("p50", "p95", "p99")):
        places = [place + (index - 1) * width for place in range(len(rows))]
        bars = axes.bar(
            places,
            [row[name] for row in rows],
            width * 0.92,
            color=BLUES[name],
            label=name,
        )
        axes.bar_label(
            bars,
            fmt=lambda value: f"{value:.1f}" if value < 100 else f"{value:.0f}",
            padding=2,
            fontsize=9.5,
        )
    level(axes, BAR_MS, f"the bar:\n{BAR_MS} ms", RED)
    axes.set_ylim(0, max(BAR_MS, *(row["p99"] for row in rows)) * 1.12)
    axes.set_ylabel("milliseconds")
    axes.set_xticks(
        range(len(rows)),
        [
            f"{'all routes' if row is figures['total'] else row['route']}\n"
            f"{row['requests']:,} requests"
            for row in rows
        ],
    )
    axes.tick_params(axis="x", length=0)
    beside(axes)
    return figure


def cpu(figures: dict[str, Any]) -> Figure:
    used, cores = figures["cpu_cores"], figures["machine"]["cores"]
    rows = [[0, *figures["cpu_series"][0][1:]], *figures["cpu_series"]]
    series = columns(rows, figures["cpu_series_columns"])
    shop = used["merch-store"] + used["postgres"]
    figure, axes = new(
        f"The shop and its database kept {shop:.2f} of {cores} cores busy, "
        f"Locust {used['locust']:.2f}",
        "Processor time on the one machine that they share",
    )
    parties = [party for party in PARTIES if party in series]
    axes.stackplot(
        series["second"],
        [series[party] for party in parties],
        step="pre",
        labels=[f"{party} ({used[party]:.2f})" for party in parties],
        colors=[PARTIES[party] for party in parties],
        linewidth=0,
    )
    level(axes, cores, f"all {cores} cores", FAINT)
    axes.set_ylim(0, cores * 1.06)
    axes.set_ylabel("cores kept busy")
    over_time(axes, series)
    beside(axes, reverse=True)
    return figure


def limits(figures: dict[str, Any]) -> Figure:
    beyond = figures["beyond"]
    series = columns(beyond["series"], beyond["series_columns"])
    step, rate = beyond["step_seconds"], beyond["rate_per_sec"]
    figure, axes = new(
        f"A bucket of {beyond['capacity']} that gains {rate} a second lets in "
        f"{beyond['answered']:,} of {beyond['requests']:,}",
        f"One user who asks without a pause; from {beyond['least']:,} to {beyond['most']:,} "
        "answers of 200 are what the bucket allows",
    )
    places = [second + step / 2 for second in series["second"]]
    a_second = {name: [count / step for count in series[name]] for name in ("answered", "too_many")}
    axes.bar(places, a_second["answered"], step * 0.9, color=BLUES["p99"], label="200")
    axes.bar(
        places,
        a_second["too_many"],
        step * 0.9,
        bottom=a_second["answered"],
        color=BLUES["p50"],
        label="429",
    )
    level(axes, rate, f"its rate:\n{rate} a second", RED)
    axes.set_ylabel("answers a second")
    axes.set_xlabel("seconds since its first request")
    axes.set_xlim(0, max(places) + step / 2)
    axes.legend(loc="lower left", bbox_to_anchor=(1, 0.5), reverse=True)
    return figure


def over_time(axes: Axes, series: dict[str, list[float]]) -> None:
    axes.set_xlim(0, max(series["second"]))
    axes.set_xlabel("seconds since every user was logged in")


def level(axes: Axes, value: float, text: str, color: str) -> None:
    """A line across, named in the margin where it hides nothing."""
    axes.axhline(value, color=color, linewidth=1.2, linestyle="--", zorder=3)
    axes.annotate(
        text,
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(7, 0),
        textcoords="offset points",
        va="center",
        color=color,
    )


def beside(axes: Axes, *, reverse: bool = False) -> None:
    """The legend in the margin, below whatever line is named there."""
    axes.legend(loc="lower left", bbox_to_anchor=(1, 0), reverse=reverse)


def milliseconds(axes: Axes, low: float, high: float) -> None:
    """A logarithmic axis: an answer twice as slow is the same step everywhere."""
    axes.set_yscale("log")
    steps = [base * 10**power for power in range(-1, 5) for base in (1, 2, 5)]
    axes.set_ylim(max(step for step in steps if step <= low), high * 1.3)
    axes.yaxis.set_major_locator(FixedLocator(steps))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylabel("milliseconds (logarithmic)")


if __name__ == "__main__":
    main()
