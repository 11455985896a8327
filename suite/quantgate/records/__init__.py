"""The records that pass between the rooms. Whatever is written to disk is one of these, validated.

`Job` (parent to measuring process) -> `Measurement` (one cell, on disk) -> `Verdict` (from the judge). A baseline is a
`Measurement` that a person accepted, with the reason (`quantgate.baselines.file`).
"""

from quantgate.records.base import FORMAT, Record, Scalar, Scalars
from quantgate.records.job import Job, Needs, Preparation
from quantgate.records.measurement import Measurement, Spent, added
from quantgate.records.metric import (
    AGREEMENT,
    KERNELS,
    NESTED,
    QUANTIZED_SHARE,
    Declared,
    Disturbance,
    Estimate,
    Kind,
    Link,
    Metric,
    Rounding,
    same_work,
)
from quantgate.records.verdict import Status, Verdict, worst

__all__ = [
    "AGREEMENT",
    "FORMAT",
    "KERNELS",
    "NESTED",
    "QUANTIZED_SHARE",
    "Declared",
    "Disturbance",
    "Estimate",
    "Job",
    "Kind",
    "Link",
    "Measurement",
    "Metric",
    "Needs",
    "Preparation",
    "Record",
    "Rounding",
    "Scalar",
    "Scalars",
    "Spent",
    "Status",
    "Verdict",
    "added",
    "same_work",
    "worst",
]
