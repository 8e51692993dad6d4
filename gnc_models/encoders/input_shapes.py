"""What an encoder asks of the shape of its inputs, and how a width is divided. Knows no network."""

SMALLEST_SIDE = 8  # pixels: every convolutional encoder reduces the side by this factor


def image_shape(encoder: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width; ValueError for another shape, or a side that halvings would leave without a pixel."""
    if len(input_shape) != 3:
        rule = f"input_shape must be (channels, height, width) for {encoder}"
        raise ValueError(f"{rule}, got {input_shape!r}. For vectors use encoder 'mlp'.")
    channels, height, width = input_shape
    if min(height, width) < SMALLEST_SIDE:
        rule = f"input_shape must have at least {SMALLEST_SIDE} pixels per side for {encoder}, got {input_shape!r}"
        raise ValueError(f"{rule}. It is halved three times; use a larger resolution or encoder 'mlp'.")
    return channels, height, width


def sequence_length(encoder: str, input_shape: tuple[int, ...]) -> int:
    """The length of inputs that are one row of integers; ValueError for another shape."""
    if len(input_shape) != 1:
        raise ValueError(f"input_shape must be (length,) for {encoder}, got {input_shape!r}. Its inputs are integers.")
    return input_shape[0]


def even_parts(size: int, *, least: int, most: int) -> int:
    """Into how many equal parts `size` falls: as many as divide it, none below `least`, at most `most`; or one."""
    fitting = [parts for parts in range(1, most + 1) if size % parts == 0 and size // parts >= least]
    return max(fitting, default=1)
