"""Numbers of steps, which a config may give as a share of all of them."""

from clip_jax.errors import UserError

Share = int | float
"""A number of steps, or a share of all steps where it is a float of at most 1."""


def in_steps(value: Share, steps: int, where: str = "value", least: int = 0) -> int:
    """`value` in steps: a float of at most 1 is a share of `steps`. Raises UserError where it is out of range."""
    if isinstance(value, float):
        if not 0 <= value <= 1 or (least and not value):
            raise UserError(f"{where} is {value}; as a float it is a share of the steps, up to 1")
        return max(least, round(value * steps))
    if value < least:
        raise UserError(f"{where} is {value}; it must be at least {least}")
    return value
