"""What a rule or a detector says of a bar: one row of `data_quality.anomalies`, but for whose bar it is and when it was recorded.

`score` is one scale for all of them: the share of clean bars that look less suspicious. A fact (a high below the low) is
1; what can be innocent says how rare that is. Severity is a limit on that rate, so that the desk chooses how many
false alarms it will read, not a number without a unit.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from quant_assets.schemas import ANOMALIES

CRITICAL_RATE, WARNING_RATE, INFO_RATE = 1e-4, 1e-3, 1e-2
BELOW_CRITICAL = 1 - 2 * CRITICAL_RATE
"""The highest score of what alone holds no bar back: a volume, or a jump that may be news."""
COLUMNS = [name for name in ANOMALIES.column_names if name not in ("source", "recorded_at")]
NOTHING = pl.DataFrame(schema={name: ANOMALIES.polars_schema[name] for name in COLUMNS})


def findings(
    offenders: pl.DataFrame,
    rule: str,
    detail: pl.Expr,
    *,
    score: pl.Expr | float = 1.0,
    known_at: pl.Expr | str = "known_at",
    suggestion: pl.Expr | None = None,
    detector: pl.Expr | str = "rules",
) -> pl.DataFrame:
    """Offending bars (`symbol`, `session`, `known_at`, and what the expressions need) as findings of one rule.

    `known_at` of the bar names its version; the finding's own is the last instant of all it looked at, given where that is
    later. `suggestion` is JSON (`column`, `value`, `evidence`), null where nothing can be proposed. A score below what
    severity starts with is `info` all the same: what is stored is worth a look. `detector` says what found it and how far ahead it looks.
    """
    return (  # in one piece, as `judge.prepared` says why
        offenders.rechunk()
        .with_columns(
            rule=pl.lit(rule),
            detector=pl.lit(detector) if isinstance(detector, str) else detector,
            bar_known_at=pl.col("known_at"),
            score=pl.lit(score) if isinstance(score, float) else score,
            detail=detail,
            suggestion=pl.lit(None, pl.String) if suggestion is None else suggestion,
            known_at=pl.col(known_at) if isinstance(known_at, str) else known_at,
        )
        .with_columns(severity=severity("score"))
        .select(COLUMNS)
        .cast(dict(NOTHING.schema))  # type: ignore[arg-type]
    )


def severity(score: str | pl.Expr, rates: Sequence[float] = (CRITICAL_RATE, WARNING_RATE)) -> pl.Expr:
    """`critical`, `warning` or `info` by the rate of clean bars that look as suspicious."""
    value = pl.col(score) if isinstance(score, str) else score
    critical, warning = (value >= 1 - rate for rate in rates)
    return pl.when(critical).then(pl.lit("critical")).when(warning).then(pl.lit("warning")).otherwise(pl.lit("info")).alias("severity")


def suggested(column: pl.Expr | str, value: pl.Expr, evidence: pl.Expr) -> pl.Expr:
    """A proposed repair as JSON: the column (a price, or a kind of action), its value, and what speaks for it."""
    name = pl.lit(column) if isinstance(column, str) else column
    return pl.struct(column=name, value=value, evidence=evidence).struct.json_encode()
