"""What the benchmark prints and writes. Nothing here runs anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.bench.figures import (
    FIGURES,
    ORIGINAL_SHARE,
    ORIGINAL_TOLERANCE,
    TARGETS,
    TCP_FIGURES,
    Figure,
    Round,
    Summary,
    Target,
    original_share,
    ratios,
    summary,
    values_of,
)

SCHEMA = 1
FULL_ROUNDS = 5
NOISY = 0.15  # a half spread above this share of the median is marked
# How ours stands to the others, figure by figure: groups of figures under one heading.
RATIO_GROUPS: Mapping[str, tuple[str, ...]] = {
    "TCP (4 figures)": TCP_FIGURES,
    "both ways": ("both",),
    "UDP 64 B": ("udp64",),
    "ping idle": ("ping_idle",),
    "ping loaded": ("ping_loaded",),
    "loss 0.1 %": ("loss_0.1",),
    "loss 1 %": ("loss_1",),
    "CPU per GB": ("cpu_per_gb",),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender as the report names it."""

    name: str
    title: str
    version: str
    setting: str


@dataclass(slots=True)
class Report:
    """A run: its rounds, who took part, where, and what went wrong by round and contender."""

    entries: Sequence[Entry]
    machine: Mapping[str, Any]
    plan: Mapping[str, Any]
    rounds: list[Round] = field(default_factory=list)
    errors: list[Mapping[str, Mapping[str, str]]] = field(default_factory=list)
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether any step of any contender failed."""
        return any(self.errors)

    def as_json(self) -> dict[str, Any]:
        """One object; what is absent is left out."""
        return {
            "schema": SCHEMA,
            "machine": dict(self.machine),
            "plan": dict(self.plan),
            "contenders": [
                {
                    "name": entry.name,
                    "title": entry.title,
                    "version": entry.version,
                    "setting": entry.setting,
                    "figures": dict(_figures_of(self.rounds, entry.name)),
                }
                for entry in self.entries
            ],
            "ratios": [
                {"against": other, "figure": heading, **_summary_json(found)}
                for heading, other, found in ours_against(self.rounds, [entry.name for entry in self.entries])
            ],
            "targets": [
                {
                    "label": target.label,
                    "must": target.must,
                    "aim": target.aim,
                    "at_most": target.at_most,
                    "verdict": target.verdict(found.median),
                    **_summary_json(found),
                }
                for target, found in reached(self.rounds)
            ],
            "missing": dict(self.missing),
            "errors": [dict(errors) for errors in self.errors],
        }

    def lines(self) -> list[str]:
        """The report for people."""
        names = [entry.name for entry in self.entries]
        lines = [machine_line(self.machine), plan_line(self.plan, len(self.rounds)), ""]
        lines += [f"{entry.name}: {entry.title}, {entry.version}; {entry.setting}" for entry in self.entries]
        lines += ["", "Medians (~ marks a half spread above 15 %):", *figures_table(self.rounds, names)]
        compared = ours_against(self.rounds, names)
        if compared:
            lines += ["", "Ours to the others, same-round ratios, median [lowest to highest]:"]
            lines += ratios_table(compared)
        judged = reached(self.rounds)
        if judged:
            lines += ["", "What it is to reach:", *targets_table(judged)]
        share = original_share(self.rounds)
        if share is not None:
            lines += ["", original_line(share)]
        lines += fault_lines(self)
        return lines


def _figures_of(rounds: Sequence[Round], name: str) -> Iterable[tuple[str, Any]]:
    keys = dict.fromkeys(key for one in rounds for key in one.get(name, {}))
    for key in keys:
        values = values_of(rounds, name, key)
        found = summary(values)
        if found is not None:
            yield key, {**_summary_json(found), "rounds": [round(value, 4) for value in values]}


def _summary_json(found: Summary) -> dict[str, float]:
    return {
        "median": round(found.median, 4),
        "low": round(found.low, 4),
        "high": round(found.high, 4),
        "spread": round(found.spread, 4),
        "n": found.count,
    }


def machine_line(machine: Mapping[str, Any]) -> str:
    """The machine in a line."""
    return (
        f"machine: {machine['cpu']}, {machine['cores']} of {machine['cores_present']} cores, "
        f"Linux {machine['kernel']}, Python {machine['python']}, cryptography {machine['cryptography']}, "
        f"load {machine['load_before']} before, {machine['load_after']} after"
    )


def plan_line(plan: Mapping[str, Any], rounds: int) -> str:
    """How it was measured, in a line."""
    few = "" if rounds >= FULL_ROUNDS else f" (fewer than the {FULL_ROUNDS} that a figure to quote needs)"
    return (
        f"{rounds} round{'s' if rounds != 1 else ''}{few}, contenders interleaved load by load, "
        f"TCP {plan['congestion_control']} {plan['seconds']:g} s each, outer MTU {plan['outer_mtu']}"
    )


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as they need; the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def figures_table(rounds: Sequence[Round], names: Sequence[str]) -> list[str]:
    """A row a contender; columns that nobody has are left out."""
    columns = [figure for figure in FIGURES if any(values_of(rounds, name, figure.key) for name in names)]
    rows = [["", *(figure.heading for figure in columns)], ["", *(figure.unit for figure in columns)]]
    rows += [[name, *(_cell(rounds, name, figure) for figure in columns)] for name in names]
    return table(rows)


def _cell(rounds: Sequence[Round], name: str, figure: Figure) -> str:
    found = summary(values_of(rounds, name, figure.key))
    if found is None:
        return "-"
    return f"{'~' if found.spread > NOISY else ''}{found.median:.{figure.decimals}f}"


def ours_against(rounds: Sequence[Round], names: Sequence[str]) -> list[tuple[str, str, Summary]]:
    """Heading, contender and ratio, for every group of figures and every other contender that have one."""
    found = []
    for heading, keys in RATIO_GROUPS.items():
        for name in names:
            ratio = summary(ratios(rounds, "ours", name, keys)) if name != "ours" else None
            if ratio is not None:
                found.append((heading, name, ratio))
    return found


def ratios_table(compared: Sequence[tuple[str, str, Summary]]) -> list[str]:
    """A row a contender, a column a group of figures."""
    headings = list(dict.fromkeys(heading for heading, _, _ in compared))
    names = list(dict.fromkeys(name for _, name, _ in compared))
    cells = {
        (heading, name): f"{found.median:.2f} [{found.low:.2f} to {found.high:.2f}]"
        for heading, name, found in compared
    }
    rows = [["ours x", *headings]]
    rows += [[name, *(cells.get((heading, name), "-") for heading in headings)] for name in names]
    return table(rows)


def reached(rounds: Sequence[Round]) -> list[tuple[Target, Summary]]:
    """Every target that these rounds measured."""
    found = ((target, summary(target.measure(rounds))) for target in TARGETS)
    return [(target, value) for target, value in found if value is not None]


def targets_table(judged: Sequence[tuple[Target, Summary]]) -> list[str]:
    """A row a target."""
    rows = [["", "median", "lowest", "highest", "must", "aim", ""]]
    for target, found in judged:
        sign = "<=" if target.at_most else ">="
        values = [f"{value:.2f}" for value in (found.median, found.low, found.high)]
        bounds = [f"{sign} {bound:g}" for bound in (target.must, target.aim)]
        rows.append([f"{target.label} ({target.unit})", *values, *bounds, target.verdict(found.median)])
    return table(rows)


def original_line(share: Summary) -> str:
    """Whether the measure itself holds: what the original's way reaches of OpenVPN."""
    low, high = ORIGINAL_SHARE * (1 - ORIGINAL_TOLERANCE), ORIGINAL_SHARE * (1 + ORIGINAL_TOLERANCE)
    holds = "as it should" if low <= share.median <= high else "NOT as it should, so mistrust what is held against it"
    return f"The original's way reaches {share.median:.2f} x OpenVPN ({low:.2f} to {high:.2f} expected): {holds}."


def fault_lines(report: Report) -> list[str]:
    """What was missing, failed, or makes figures worth nothing."""
    lines = [f"missing: {name}: {why}" for name, why in report.missing.items()]
    for number, errors in enumerate(report.errors, 1):
        for name, steps in errors.items():
            lines += [f"round {number}: {name}: {what}: {text.partition(chr(10))[0]}" for what, text in steps.items()]
    for entry in report.entries:
        fragmented = summary(values_of(report.rounds, entry.name, "fragments"))
        if fragmented is not None and fragmented.high > 0:
            lines.append(f"{entry.name}: {fragmented.high:.0f} outer packets were fragmented: its inner MTU is too big")
    return ["", *lines] if lines else []
