"""Cells of the calibration tier, by method and by what they were calibrated on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantgate.errors import InputError
from quantgate.proofs.papers.section import Measured
from quantgate.records import Measurement

REAL = ("wikipedia", "stories", "code", "questions", "german")
NONSENSE = "random"
SETS = (*REAL, NONSENSE)


@dataclass(frozen=True)
class Method:
    """schemes: how those of its schemes begin that have a calibration set. plain: the same without
    calibration; reference: in full precision."""

    key: str
    label: str
    schemes: str
    plain: str
    reference: str = "transformers/fp32"


METHODS = (
    Method("gptq", "GPTQ, 4 bits", "llmcompressor/gptq4-g64-", "llmcompressor/rtn4-g64"),
    Method("awq", "AWQ, 4 bits", "llmcompressor/awq4-g64-", "llmcompressor/rtn4-g64"),
    Method("imatrix", "importance matrix, Q4_0", "llamacpp/Q4_0-", "llamacpp/Q4_0", "llamacpp/F16"),
    Method("smoothquant", "SmoothQuant, 8 bits", "llmcompressor/smoothquant8-a8-", "llmcompressor/rtn8-a8"),
)


@dataclass(frozen=True)
class Quality:
    """One cell. losses: mean negative log-likelihood of each block of the text, nats per token. hits: of
    each item of the tasks, 1 or 0."""

    scheme: str
    losses: NDArray[np.float64]
    hits: NDArray[np.float64]
    bits_per_weight: float

    @property
    def loss(self) -> float:
        return float(self.losses.mean())

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss)


class Grid:
    """What was measured, to be asked by method and calibration set."""

    def __init__(self, measured: Measured) -> None:
        self._at = {f"{cell.backend}/{cell.scheme}": _quality(cell.scheme, m) for cell, m in measured}
        self.full = self.at("transformers/fp32")

    def at(self, scheme: str) -> Quality:
        """Raises InputError: was not measured."""
        if scheme not in self._at:
            raise InputError(f"{scheme} was not measured")
        return self._at[scheme]

    def sets(self, method: Method) -> list[str]:
        """What the method was calibrated on."""
        return [s for s in SETS if f"{method.schemes}{s}" in self._at]

    def real(self, method: Method) -> list[Quality]:
        """Calibrated on the real sets."""
        return [self.calibrated(method, s) for s in self.sets(method) if s in REAL]

    def calibrated(self, method: Method, calibration: str) -> Quality:
        return self.at(f"{method.schemes}{calibration}")

    @property
    def rounded(self) -> list[Quality]:
        """Rounded to nearest at 4 bits, in the order of the matrix."""
        return [q for name, q in self._at.items() if name.startswith("llmcompressor/rtn4-")]


def _quality(scheme: str, measured: Measurement) -> Quality:
    metrics = measured.metrics
    return Quality(
        scheme=scheme,
        losses=np.array(metrics["perplexity"].samples),
        hits=np.array(metrics["accuracy/mean/acc"].samples),
        bits_per_weight=metrics["memory/bits_per_weight"].value,
    )
