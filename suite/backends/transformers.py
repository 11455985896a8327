"""transformers: safetensors checkpoints, on the CPU or one CUDA device."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
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
from transformers import AutoTokenizer, DynamicCache, StaticCache

from suite.backends._linear import linear_weights
from suite.backends._loading import check_finite, load_model
from suite.backends._tree_kernels import Products, attention
from suite.backends.base import Weights
from suite.checkpoint import check_no_adapter, check_quantization
from suite.prepare.contents import weight_files
from suite.run.environment import instruction_sets
from suite.scoring import TokenTree

transformers.AttentionInterface.register("sdpa", attention)


class Transformers:
    """A causal language model of transformers; attention is torch's scaled_dot_product_attention."""

    settings = "static cache, not compiled"
    reads = ""
    """The format of quantized weights that it loads as they are (`quant_method`)."""

    def __init__(self, checkpoint: Path, options: dict[str, Any], threads: int) -> None:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        transformers.utils.logging.set_verbosity_error()
        self._checkpoint = checkpoint
        self._device = torch.device(options["device"])
        self._precision = getattr(torch, options["dtype"])
        check_no_adapter(checkpoint)
        check_quantization(checkpoint, "this scheme", options, self.reads)
        self._model = load_model(
            checkpoint,
            dtype=getattr(torch, options["dtype"]),
            device_map={"": self._device},
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            **self.quantization(options),
        ).eval()
        check_finite(self._model, checkpoint)
        self._cache: Any = None
        self._room = 0
        self._logits: Any = None
        self._products = self.products()

    def quantization(self, options: dict[str, Any]) -> dict[str, Any]:
        """Arguments of from_pretrained that quantize; none here."""
        return {}

    def products(self) -> Products:
        """The layers whose products may be computed by other kernels than their own."""
        if self._device.type != "cpu":
            return Products([], None)
        return Products(list(linear_layers(self._model).values()), self._model.get_output_embeddings())

    def reserve(self, tokens: int, sequences: int) -> None:
        self._cache = None
        self._room = tokens
        self._products.release()

    def logits(self, tree: TokenTree) -> NDArray[np.float32]:
        self._keep(tree)
        with self._products.of(tree=not tree.is_chain):
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
        files = sum(f.stat().st_size for f in weight_files(self._checkpoint))
        linear = linear_weights(self._model)
        held = [name for name, parameter in linear.items() if self.holds(name, parameter)]
        counts = {name: self.logical_count(parameter) for name, parameter in linear.items()}
        return Weights(
            size, count, files, linear=sum(counts.values()), in_scheme=sum(counts[name] for name in held)
        )

    def holds(self, name: str, parameter: torch.Tensor) -> bool:
        """Whether a weight of a linear layer has the scheme's precision."""
        return bool(parameter.dtype == self._precision)

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
