"""Shapes in signatures, as jaxtyping writes them: read by people, and checked under test where jaxtyping is installed.
The library works without it, beside torch, numpy and scipy alone; then a shape is only its array's type."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or find_spec("jaxtyping"):
    from jaxtyping import Bool, Float, Int
else:

    class Float:
        """Stands for jaxtyping's type of this name."""

        def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
            return item[0]

    Bool = Int = Float

__all__ = ["Bool", "Float", "Int"]
