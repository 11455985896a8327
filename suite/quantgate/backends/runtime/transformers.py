"""transformers: safetensors checkpoints, quantized or not, on the CPU or on GPUs."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
from transformers import AutoTokenizer, DynamicCache

from quantgate.backends.base import Rounding, Sizes, Weights, lengths_in
from quantgate.backends.methods import METHODS, Method, libraries_of
from quantgate.backends.runtime.continuing import Continuing
from quantgate.backends.runtime.devices import Devices, placement
from quantgate.backends.runtime.linear import linear_weights, showing_inputs
from quantgate.backends.runtime.loading import OTHER_PARTS, check_finite, load_model
from quantgate.backends.runtime.quantization import check_as_is, check_quantized, configuration
from quantgate.backends.runtime.rotary import reset
from quantgate.backends.runtime.skipped import check_head, check_layers
from quantgate.backends.runtime.tree_mask import masks
from quantgate.backends.runtime.weights import count, in_and_out, quantized_layers
from quantgate.backends.tree import TokenTree
from quantgate.checkpoint.checks import check_no_adapter, check_quantization, positions_of
from quantgate.checkpoint.contents import weight_files
from quantgate.checkpoint.template import Message, render, with_one_bos
from quantgate.errors import InputError, MeasurementError
from quantgate.machine.environment import Facts, cuda_driver, instruction_sets

SHARED = ("position_ids", "attention_mask", "past_key_values")
"""What a model's forward has to take for a tree."""

ROUNDING = {torch.float32: Rounding(1e-4, 1e-3)}
HALF = Rounding(0.05, 0.5)
"""Of floats of 16 bits."""


class Transformers(Continuing):
    """A causal language model of transformers; attention is what the library takes by default: torch's
    scaled_dot_product_attention where the architecture supports it, else the model's eager one."""

    def __init__(self, checkpoint: Path, options: dict[str, Any], threads: int) -> None:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        transformers.utils.logging.set_verbosity_error()
        self._checkpoint = checkpoint
        self._precision = getattr(torch, options["dtype"])
        self._tokenizer_folder = Path(options.get("tokenizer") or checkpoint)
        check_no_adapter(checkpoint)
        self.method, settings = self.quantization(options)
        further = {"quantization_config": configuration(settings)} if settings else {}
        check_head(checkpoint, settings, self.method)
        model = load_model(
            checkpoint,
            method=self.method,
            dtype=self._precision,
            device_map=placement(options),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            **further,
        ).eval()
        super().__init__(model, Devices(model, options), options.get("cache") or {})
        check_layers(model, settings, self.method)
        check_finite(model, checkpoint)
        # Counted now: the first forward pass may repack the weights, or make floats of them.
        self._count = count(self._model)
        head = self._model.get_output_embeddings()
        layers = quantized_layers(self._model)
        quantized = {n: m for n, m in layers.items() if m is not head}
        self._says = "the head is quantized, too" if len(quantized) < len(layers) else ""
        self._quantized = {name: in_and_out(module) for name, module in quantized.items()}
        if options.get("quantization"):
            check_quantized(self._model, checkpoint, self.method, as_is=options.get("as_is", False))
        # An indexer breaks ties between tokens by the length of the row.
        self._by_length = self._rotary or hasattr(self._model.config.get_text_config(), "index_topk")

    def quantization(self, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the method that the weights are quantized by (empty: none), and as a scheme's `quantization` what it
        is told where it quantizes while loading (empty: it does not). Raises InputError where the checkpoint is not
        what the scheme says."""
        stated = options.get("quantization") or {}
        if options.get("as_is"):
            return check_as_is(self._checkpoint, stated), {}
        check_quantization(self._checkpoint, "this scheme", options)
        return stated.get("method", ""), stated

    @property
    def rounding(self) -> Rounding:
        """Quantized weights may come with kernels that change with the number of rows, and with activations of 8 bits,
        where what is next to a step falls on either side."""
        of_floats = ROUNDING.get(self._precision, HALF)
        return replace(of_floats, ceiling=1.0) if self.method else of_floats

    def lengths(self) -> list[int]:
        return lengths_in(self._model.config.get_text_config().to_dict())

    def logits(self, tree: TokenTree) -> NDArray[np.float32]:
        if not tree.past:
            reset(self._rotary)
        if tree.is_chain and not tree.kept:
            # Where the length of a sequence counts, so does its last token, which is not fed.
            ids = [*tree.ids, tree.ids[-1]] if self._by_length else tree.ids
            output = self._forward(ids, use_cache=False, logits_to_keep=self._index(tree.rows))
        else:
            missing = [name for name in SHARED if name not in self._takes]
            if missing:
                raise MeasurementError(f"{type(self._model).__name__} takes no {' and no '.join(missing)}")
            self._keep(tree)
            output = self._forward(
                tree.ids,
                position_ids=self._tensor([tree.positions]),
                attention_mask=masks(tree, self._model, self._attention == "eager"),
                past_key_values=self._cache,
                use_cache=self._cache is not None,
                logits_to_keep=self._index(tree.rows),
            )
        logits = output.logits[0]
        if "logits_to_keep" not in self._takes:
            logits = logits[tree.rows]
        rows: NDArray[np.float32] = logits.float().cpu().numpy()
        return rows

    def _keep(self, tree: TokenTree) -> None:
        """Leave in the cache what the tree continues, and have one where it is continued."""
        if tree.past:
            for layer in self._cache.layers:
                layer.keys, layer.values = (t[..., : tree.past, :] for t in (layer.keys, layer.values))
        else:
            self._cache = DynamicCache() if tree.kept else None

    @property
    def _attention(self) -> str:
        return str(self._model.config.get_text_config()._attn_implementation)

    def inputs(self, ids: Sequence[int], look: Callable[[str, NDArray[np.float32]], None]) -> None:
        with showing_inputs(self._model, look):
            self._forward(ids, use_cache=False)

    def weights(self) -> Weights:
        others = [
            parameter
            for name, parameter in linear_weights(self._model).items()
            if name.removesuffix(".weight") not in self._quantized
        ]
        held = [] if self.method else [p for p in others if p.dtype == self._precision]
        quantized = sum(self._quantized.values())
        return Weights(
            bytes=self._count.bytes,
            parameters=self._count.parameters,
            file_bytes=sum(f.stat().st_size for f in weight_files(self._checkpoint)),
            simulated=METHODS.get(self.method, Method()).decompresses,
            linear=quantized + sum(p.numel() for p in others),
            in_scheme=quantized + sum(p.numel() for p in held),
            says=self._says,
        )

    def sizes(self) -> Sizes:
        tokens = self._model.get_input_embeddings()
        tables = (
            n
            for n, m in self._model.named_modules()
            if isinstance(m, torch.nn.Embedding) and m is not tokens and not OTHER_PARTS.search(n)
        )
        return Sizes(
            vocabulary=int(tokens.weight.shape[0]),
            positions=positions_of(self._model.config.get_text_config().to_dict()),
            learned=any("pos" in name or name.endswith("wpe") for name in tables),
        )

    def tokenize(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def chat(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[int] | None:
        alone = list(self._tokenizer("")["input_ids"])
        bos = self._tokenizer.bos_token_id if alone[:1] == [self._tokenizer.bos_token_id] else None
        try:
            return with_one_bos(self.tokenize(render(self._tokenizer, messages, tools)), bos)
        except InputError:
            return None

    @functools.cached_property
    def _tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(
            self._tokenizer_folder, trust_remote_code=False, local_files_only=True
        )

    def facts(self) -> Facts:
        facts: Facts = {
            "attention": ", ".join(filter(None, [self._attention, self.cache_in_words])),
            "kernels": f"{torch.backends.cpu.get_cpu_capability()} {instruction_sets()}",
            "mkl": torch.backends.mkl.is_available(),
            "mkldnn": torch.backends.mkldnn.is_available(),
        }
        if self._devices.is_cuda:
            facts["kernels"] = self._devices.kernels()
            facts |= {"cudnn": torch.backends.cudnn.version(), "cuda driver": cuda_driver()}
        of_cache = libraries_of(str(self._few_bits.get("backend", "")))
        return facts | self._devices.facts() | of_cache | libraries_of(self.method)

    def device_peak_bytes(self) -> dict[str, int]:
        return self._devices.peak_bytes()

    def reset_device_peak(self) -> None:
        self._devices.reset_peak()


load = Transformers
