"""transformers: safetensors checkpoints, on the CPU or one CUDA device."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# One tensor at a time, in the same order on every run. The peak of loading varies all the same where
# bitsandbytes quantizes meanwhile, see fixtures/tolerances.toml.
os.environ.setdefault("HF_DEACTIVATE_ASYNC_LOAD", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# By name: transformers imports lazily, and what loading a model imports would be timed as loading.
import numpy as np
import torch
import transformers
import transformers.modeling_utils
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, StaticCache

from suite.backends.base import Weights
from suite.run.environment import instruction_sets
from suite.scoring import TokenTree

COLUMNS = 1024
"""Of the vocabulary, projected at once: their logits stay in the processor's cache while they are written."""

_sdpa = transformers.AttentionInterface()["sdpa"]


def attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, *others: Any, **further: Any
) -> tuple[Any, None]:
    """transformers' attention by scaled_dot_product_attention, but for a mask that comes with the blocks of a tree:
    then block by block, which leaves out what the mask forbids anyway.

    query: [1, heads, nodes, size], key and value: [1, key/value heads, past + nodes, size]; returns
    [1, nodes, heads, size]. Heads that share a key are a batch, so that keys need not be repeated.
    """
    blocks = getattr(attention_mask, "blocks", None)
    if (
        blocks is None
        or others
        or any(further.get(name) is not None for name in ("position_bias", "softcap"))
    ):
        whole: tuple[Any, None] = _sdpa(module, query, key, value, attention_mask, *others, **further)
        return whole
    query = query[0].unflatten(0, (key.shape[1], -1)).transpose(0, 1)
    output = query.new_empty(query.shape[2], key.shape[1], len(query), value.shape[-1])

    def part(tensor: Any, columns: tuple[slice, ...], dim: int) -> Any:
        found = [tensor[(..., c, *[slice(None)] * (-1 - dim))] for c in columns]
        return found[0] if len(found) == 1 else torch.cat(found, dim)

    if not hasattr(attention_mask, "parts"):  # the first layer: what is added to the scores of each block
        seen = (part(attention_mask[:, :, b.rows], b.columns, -1) for b in blocks)
        attention_mask.parts = [query.new_zeros(s.shape).masked_fill_(~s, -torch.inf) for s in seen]
    for block, mask in zip(blocks, attention_mask.parts, strict=True):
        k, v = (part(t, block.columns, -2).expand(len(query), -1, -1, -1) for t in (key, value))
        found = torch.nn.functional.scaled_dot_product_attention(
            query[:, :, block.rows], k, v, attn_mask=mask, scale=further.get("scaling")
        )
        output[block.rows] = found.permute(2, 1, 0, 3)
    return output.flatten(1, 2)[None], None


transformers.AttentionInterface.register("sdpa", attention)


class Transformers:
    """A causal language model of transformers; attention is torch's scaled_dot_product_attention."""

    settings = "static cache, not compiled"

    def __init__(self, checkpoint: Path, options: dict[str, Any], threads: int) -> None:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        transformers.utils.logging.set_verbosity_error()
        self._checkpoint = checkpoint
        self._device = torch.device(options["device"])
        self._model = AutoModelForCausalLM.from_pretrained(
            checkpoint,
            dtype=getattr(torch, options["dtype"]),
            device_map={"": self._device},
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            **self.quantization(options),
        ).eval()
        self._cache: Any = None
        self._room = 0
        self._logits: Any = None
        head = self._model.get_output_embeddings()
        # A quantized one has kernels of its own.
        self._head: Any = head if type(head) is torch.nn.Linear and self._device.type == "cpu" else None
        self._projected = torch.empty(0)

    def quantization(self, options: dict[str, Any]) -> dict[str, Any]:
        """Arguments of from_pretrained that quantize; none here."""
        return {}

    def reserve(self, tokens: int, sequences: int) -> None:
        self._cache = None
        self._room = tokens
        self._projected = torch.empty(0)

    def logits(self, tree: TokenTree) -> NDArray[np.float32]:
        self._keep(tree)
        with self._projecting():
            output = self._model(
                input_ids=torch.tensor([tree.ids], device=self._device),
                position_ids=torch.tensor([tree.positions], device=self._device),
                attention_mask=None if tree.is_chain else self._masks(tree),
                logits_to_keep=torch.tensor(tree.rows, device=self._device),
                past_key_values=self._cache,
                use_cache=self._cache is not None,
            )
        logits: NDArray[np.float32] = output.logits[0].float().cpu().numpy()
        return logits

    @contextmanager
    def _projecting(self) -> Iterator[None]:
        """Have the model's output projection put the logits where those of the batch before were: fresh memory for a
        hundred megabytes, batch after batch, costs a fifth of the projection's time. The sums are the same."""
        if self._head is None:
            yield
            return
        self._head.forward = self._project
        try:
            yield
        finally:
            del self._head.forward

    def _project(self, hidden: Any) -> Any:
        """Logits [1, rows, vocabulary] of states [1, rows, size]."""
        weight, bias = self._head.weight, self._head.bias
        shape = hidden.shape[1], len(weight)
        if self._projected.numel() < math.prod(shape):
            self._projected = weight.new_empty(math.prod(shape))
        logits = self._projected[: math.prod(shape)].view(shape)
        for begin in range(0, len(weight), COLUMNS):
            part = slice(begin, begin + COLUMNS)
            torch.mm(hidden[0], weight[part].t(), out=logits[:, part])
        return (logits if bias is None else logits.add_(bias))[None]

    def _keep(self, tree: TokenTree) -> None:
        """Leave in the cache what the tree continues, and have one where it is continued."""
        if tree.past:
            for layer in self._cache.layers:
                layer.keys, layer.values = (t[..., : tree.past, :] for t in (layer.keys, layer.values))
        else:
            self._cache = DynamicCache() if tree.kept else None

    def _masks(self, tree: TokenTree) -> Any:
        """Attention mask, [1, 1, nodes, past + nodes]; with windowed attention, one for each type of layer."""
        seen = tree.mask()
        config = self._model.config.get_text_config()
        window = getattr(config, "sliding_window", None)
        if not window or tree.length <= window:
            return self._mask(tree, seen)
        positions = np.array([*range(tree.past), *tree.positions])
        near = seen & (positions[tree.past :, None] - positions < window)
        types = getattr(config, "layer_types", None)
        if types is None:
            return self._mask(tree, near)
        kinds = {"full_attention": seen, "sliding_attention": near}
        return {kind: self._mask(tree, kinds[kind]) for kind in set(types)}

    def _mask(self, tree: TokenTree, seen: NDArray[np.bool_]) -> Any:
        mask = torch.from_numpy(seen)[None, None].to(self._device)
        if self._device.type == "cpu":
            mask.blocks = tree.blocks()
        return mask

    def prefill(self, ids: Sequence[int]) -> None:
        if self._cache is None:
            self._cache = StaticCache(config=self._model.config, max_cache_len=self._room)
        self._cache.reset()
        self._step(list(ids))

    def decode(self, ids: Sequence[int]) -> None:
        for token in ids:
            self._step([token])

    def _step(self, ids: list[int]) -> None:
        output = self._model(
            input_ids=torch.tensor([ids], device=self._device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._logits = output.logits[0, -1]
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def next_logits(self) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._logits.float().cpu().numpy()
        return logits

    def generate(self, ids: Sequence[int], count: int) -> None:
        prompt = torch.tensor([list(ids)], device=self._device)
        self._model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
        )

    def inputs(self, ids: Sequence[int], look: Callable[[str, NDArray[np.float32]], None]) -> None:
        def hook(name: str) -> Callable[[Any, tuple[Any, ...]], None]:
            return lambda _, given: look(name, given[0][0].float().cpu().numpy())

        hooks = [m.register_forward_pre_hook(hook(n)) for n, m in linear_layers(self._model).items()]
        try:
            self._model(input_ids=torch.tensor([list(ids)], device=self._device), use_cache=False)
        finally:
            for one in hooks:
                one.remove()

    def weights(self) -> Weights:
        seen: set[int] = set()
        size = 0
        count = 0
        for parameter in self._model.parameters():
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            size += sum(t.nbytes for t in self.stored(parameter))
            count += self.logical_count(parameter)
        files = sum(f.stat().st_size for f in self._checkpoint.glob("*.safetensors"))
        return Weights(size, count, files)

    def stored(self, parameter: torch.Tensor) -> Iterable[torch.Tensor]:
        """All tensors that hold one parameter."""
        return [parameter]

    def logical_count(self, parameter: torch.Tensor) -> int:
        """Number of weights of one parameter before packing."""
        return int(parameter.numel())

    def tokenize(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    @functools.cached_property
    def _tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(self._checkpoint, trust_remote_code=False, local_files_only=True)

    def facts(self) -> dict[str, str | int | float | bool | None]:
        facts: dict[str, str | int | float | bool | None] = {
            "attention": "sdpa",
            "kernels": f"{torch.backends.cpu.get_cpu_capability()} {instruction_sets()}",
            "mkl": torch.backends.mkl.is_available(),
            "mkldnn": torch.backends.mkldnn.is_available(),
        }
        if self._device.type == "cuda":
            facts["kernels"] = f"CUDA {torch.version.cuda}, {torch.cuda.get_device_name(self._device)}"
        return facts

    def device_peak_bytes(self) -> dict[str, int]:
        if self._device.type != "cuda":
            return {}
        return {
            "cuda_allocated": torch.cuda.max_memory_allocated(self._device),
            "cuda_reserved": torch.cuda.max_memory_reserved(self._device),
        }

    def reset_device_peak(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)


def linear_layers(model: Any) -> dict[str, torch.nn.Linear]:
    """The linear layers by name, in order, without the head."""
    head = model.get_output_embeddings()
    return {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not head}


load = Transformers
