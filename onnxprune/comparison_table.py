"""A comparison of two models for a terminal."""

from __future__ import annotations

from onnxprune.model_comparison import ModelComparison
from onnxprune.tables import columns


def comparison_table(record: ModelComparison) -> str:
    """What the models cost, how far they are apart, and whether bounds are kept."""
    lines = [*_costs(record), "", *_outputs(record)]
    if record.metric is not None:
        lines += ["", str(record.metric)]
    if record.bounds:
        lines += ["", *(f"{'ok' if b.holds else 'BROKEN':<6}  {b}" for b in record.bounds)]
    if record.skipped:
        lines.append(f"note: not compared, since no arrays of numbers: {', '.join(record.skipped)}")
    for output in record.outputs:
        if output.reshaped:
            lines.append(
                f"note: output {output.name} has another shape on {output.reshaped} samples, which "
                "count as all wrong"
            )
    return "\n".join(lines)


def _costs(record: ModelComparison) -> list[str]:
    rows = [["params", "MACs", "file size", "model"]]
    for cost in record.costs:
        macs = "-" if cost.macs is None else f"{cost.macs:,}"
        rows.append([f"{cost.params:,}", macs, f"{cost.bytes / 1e3:,.0f} kB", cost.path])
    first, second = record.costs
    pairs = [(first.params, second.params), (first.macs, second.macs), (first.bytes, second.bytes)]
    kept = [f"{b / a:.1%}" if a and b is not None else "-" for a, b in pairs]
    return columns([*rows, [*kept, "second / first"]], numbers=3)


def _outputs(record: ModelComparison) -> list[str]:
    head = ["relative error", "cosine", "max abs error", "top-1 agreement", "divergence", "samples"]
    rows = [
        [
            f"{output.relative_error:.6f}",
            f"{output.cosine:.6f}",
            f"{output.max_abs_error:.6g}",
            "-" if output.agreement is None else f"{output.agreement:.2%}",
            f"{output.divergence:.6g}",
            f"{output.samples}",
            output.name,
        ]
        for output in record.outputs
    ]
    return columns([[*head, "output"], *rows], numbers=len(head))
