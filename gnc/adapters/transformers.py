"""Collapse in the log of a Hugging Face Trainer: no features are gathered, each process keeps statistics of its own."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from gnc.adapters.head_meter import COLUMNS, HeadMeter

# Endings of the models whose own loss is that of the next token, unless an encoder reads the labels' context.
CAUSAL = ("ForCausalLM", "LMHeadModel", "DoubleHeadsModel", "ForConditionalGeneration")


class CollapseCallback(TrainerCallback):
    """Measures collapse of the training batches at the end of each epoch and logs it through the trainer.

    The labels are those that the model is called with. A model for causal language modelling predicts the next token,
    so its labels are taken one position later, as its own loss takes them. The features are those that training makes
    on its way, from a network that changes during the epoch."""

    def __init__(
        self, trainer: Any, head: str | None = None, *, columns: Collection[str] | None = COLUMNS,
        shift_labels: bool | None = None, prefix: str = "collapse/", **settings: Any,
    ) -> None:  # fmt: skip
        """A callback for `trainer.add_callback(...)`.

        Args:
            trainer: through which values are logged.
            head: name of the module that gives the logits, or its end; None: the model's output embeddings, else the
                only module with a usual name, such as `classifier` or `score`.
            columns: names of columns or groups; None: all that a meter can tell. Margins of a vocabulary take long.
            shift_labels: whether position t predicts the label of t + 1; None: where the model is a causal one.
            prefix: of the names in the log.
            settings: further ones of `gnc.CollapseMeter`: normalization, temperature, ignore_index, device, dtype."""
        self._trainer, self._head, self._columns, self._settings = trainer, head, columns, settings
        self._shift, self._prefix = shift_labels, prefix
        self._meter: HeadMeter | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        names = {id(module): name for name, module in model.named_modules()}
        head = self._head or names.get(id(output))
        is_causal = type(model).__name__.endswith(CAUSAL) and not getattr(model.config, "is_encoder_decoder", False)
        shift = is_causal if self._shift is None else self._shift
        self._meter = HeadMeter(model, head, self._columns, **self._settings)
        self._handle = model.register_forward_pre_hook(self._called(self._meter, shift), with_kwargs=True)

    @staticmethod
    def _called(meter: HeadMeter, shift: bool) -> Any:
        def hook(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            meter.forget()
            if model.training:
                meter.expect(lambda: _next(_given(kwargs)) if shift else _given(kwargs))

        return hook

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._meter is not None:
            found = self._meter.tell()
            if found and state.is_world_process_zero:
                self._trainer.log({f"{self._prefix}{name}": value for name, value in found.items()})

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._meter is not None:
            self._meter.remove()
            self._handle.remove()


def _given(kwargs: Mapping[str, Any]) -> Tensor:
    if not isinstance(kwargs.get("labels"), Tensor):
        raise TypeError(f"labels must be given to the model, got {sorted(kwargs)}. Label smoothing takes them away.")
    return kwargs["labels"]


def _next(labels: Tensor) -> Tensor:
    """The label of the next position; none for the last."""
    return torch.cat([labels[..., 1:], torch.full_like(labels[..., :1], -100)], dim=-1)
