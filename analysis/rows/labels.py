"""Which settings vary by themselves, and the label of the group of cells that share them. Knows frames."""

from collections.abc import Sequence

import pyarrow as pa

from analysis.rows.frames import SHOWN_SETTINGS, groups, varied_settings


def group_labels(table: pa.Table, names: Sequence[str]) -> list[str]:
    """`temperature = 0.1, normalization = both` of each row: what has a prefactor of its own."""
    columns = [table[name].to_pylist() for name in names]
    rows = zip(*columns, strict=True) if columns else [()] * table.num_rows
    return [", ".join(f"{n} = {v}" for n, v in zip(names, row, strict=True)) for row in rows]


def independent_settings(final: pa.Table) -> list[str]:
    """Settings that vary by themselves: not with the size (samples chosen by feature_dim) or with another of these."""
    varied = [name for name in varied_settings(final) if name not in ("num_classes", "feature_dim", "seed")]
    kept: list[str] = []
    for name in sorted(varied, key=lambda n: n not in SHOWN_SETTINGS):
        rows = groups(final, ["num_classes", "feature_dim", *kept])
        if any(len(members[name].unique()) > 1 for _, members in rows):
            kept.append(name)
    return kept
