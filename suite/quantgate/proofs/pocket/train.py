"""Training of one pocket model: the same seed gives the same weights on one machine, interrupted or not."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save

from quantgate.files import write_atomic
from quantgate.proofs.pocket.bpe import save_tokenizer
from quantgate.proofs.pocket.corpus import Tokens
from quantgate.proofs.pocket.plan import Plan, config_of
from quantgate.supply.checkpoints import whole

SAVE_SECONDS = 60.0
REPORTS = 5
"""How many times the held-out loss is taken."""


class Trainer:
    """A model and its optimizer after `step` steps, kept in one file of tensors."""

    def __init__(self, plan: Plan, name: str, tokens: Tokens, file: Path) -> None:
        size = plan.sizes[name]
        self._plan, self._size, self._tokens, self._file = plan, size, tokens, file
        self._bfloat16 = plan.training.bfloat16 if size.bfloat16 is None else size.bfloat16
        torch.manual_seed(plan.seed)
        self.model: Any = transformers.AutoModelForCausalLM.from_config(config_of(plan, size))
        self._names = {id(p): n for n, p in self.model.named_parameters()}
        decayed = [p for n, p in self.model.named_parameters() if p.dim() > 1 and "embed" not in n]
        others = [p for n, p in self.model.named_parameters() if p.dim() == 1 or "embed" in n]
        training = plan.training
        self._optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": training.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=size.rate,
            betas=training.betas,
        )
        self.step = 0
        if file.exists():
            self._restore()

    def advance(self, steps: int, say: Callable[[str], None]) -> None:
        """Train up to step `steps`, saving now and then."""
        saved = begin = time.monotonic()
        first = self.step
        every = max(1, self._plan.steps // REPORTS)
        while self.step < steps:
            loss = self._update()
            if self.step % every == 0 or self.step == self._plan.steps:
                pace = (time.monotonic() - begin) / (self.step - first)
                say(
                    f"step {self.step}/{self._plan.steps}: training loss {loss:.4f}, "
                    f"held-out {self.heldout_loss():.4f} nats/token, {pace:.3f} s a step"
                )
            if time.monotonic() - saved > SAVE_SECONDS or self.step == steps:
                self._save()
                saved = time.monotonic()

    def _update(self) -> float:
        plan, optimizer = self._plan, self._optimizer
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(self.step, self._size.rate)
        batch = torch.from_numpy(self._batch().astype(np.int64))
        with torch.enable_grad():  # a backend that measures in the same process has turned gradients off
            with torch.autocast("cpu", torch.bfloat16, enabled=self._bfloat16):
                loss = self._loss(batch)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), plan.training.clip)
        optimizer.step()
        optimizer.zero_grad()
        self.step += 1
        return float(loss.item())

    def _batch(self) -> NDArray[np.uint16]:
        """Sequences of this step: those of the whole text, in an order that each pass draws anew."""
        context, batch = self._plan.context_of(self._size), self._plan.batch_of(self._size)
        count = len(self._tokens.train) // context
        numbers = np.arange(self.step * batch, (self.step + 1) * batch)
        places = [
            np.random.default_rng([self._plan.seed, int(n // count)]).permutation(count)[n % count]
            for n in numbers
        ]
        return np.stack([self._tokens.train[p * context : (p + 1) * context] for p in places])

    def _loss(self, batch: torch.Tensor) -> torch.Tensor:
        """Mean negative log-likelihood, nats per token, of sequences [batch, context]."""
        logits = self.model(input_ids=batch, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), batch[:, 1:].flatten())

    def heldout_loss(self) -> float:
        """On the held-out text in windows of the plan's context, the same for all sizes, computed in float32."""
        windows = torch.from_numpy(self._tokens.heldout.astype(np.int64)).view(-1, self._plan.context)
        with torch.no_grad():
            losses = [self._loss(part).item() for part in windows.split(self._plan.training.batch)]
        return float(np.mean(losses))

    def export(self, folder: Path) -> None:
        """Write model and tokenizer as transformers reads them, in place of what is there; the weights in bfloat16, to
        which this model's are rounded."""
        shutil.rmtree(folder, ignore_errors=True)
        with whole(folder, folder=True) as work:
            self.model.to(torch.bfloat16).save_pretrained(work)
            save_tokenizer(self._tokens.tokenizer, work, self._plan.context_of(self._size))
        self.model.float()

    def _save(self) -> None:
        tensors = {f"model.{n}": p.detach() for n, p in self.model.named_parameters()}
        for parameter, state in self._optimizer.state.items():
            for key, value in state.items():
                tensors[f"{key}.{self._names[id(parameter)]}"] = value
        write_atomic(self._file, save(tensors, metadata={"step": str(self.step)}))

    def _restore(self) -> None:
        with safe_open(self._file, framework="pt") as file:
            self.step = int(file.metadata()["step"])
            for parameter, name in ((p, self._names[id(p)]) for p in self.model.parameters()):
                parameter.data.copy_(file.get_tensor(f"model.{name}"))
                self._optimizer.state[parameter] = {
                    key: file.get_tensor(f"{key}.{name}") for key in ("step", "exp_avg", "exp_avg_sq")
                }


def parameters_of(model: Any) -> int:
    """Weights of a model, tied ones once."""
    return sum(p.numel() for p in model.parameters())
