"""A plan in words and figures, for the terminal."""

from clip_jax.tpu.plan import Plan
from clip_jax.training.chips import GIB
from clip_jax.training.step import leaves_patches_out


def plan_text(plan: Plan) -> str:
    """What a user wants to know of a plan, the answer first."""
    config, topology = plan.config, plan.topology
    mesh = ", ".join(f"{name}={size}" for name, size in plan.mesh.items())
    lines = [
        f"{config.model.name} at a batch of {config.batch_size:,} on {topology}: {_verdict(plan)}",
        "",
        f"  {'mesh':<26} {mesh}",
        f"  {'compute':<26} {config.model.dtype}, layers {config.model.layers}, remat {config.model.remat}"
        + (f", {config.microbatches} microbatches" if config.microbatches > 1 else ""),
        f"  {'loss':<26} {config.loss.kind}, {config.loss.method}",
        *_patches(plan),
        "",
        "memory of a device, GiB",
        *(f"  {name:<26} {size / GIB:>8.2f}" for name, size in memory_parts(plan).items()),
        f"  {'of':<26} {plan.available / GIB:>8.2f}",
    ]
    if plan.arguments is not None and plan.temporaries is not None:
        arguments, temporaries = plan.arguments / GIB, plan.temporaries / GIB
        lines += [f"  (the compiler's own terms: arguments {arguments:.2f}, temporaries {temporaries:.2f})"]
    if plan.collectives is not None:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(plan.collectives.items())) or "none"
        lines += ["", f"collectives in the program: {counts} (one in a loop over layers counts once)"]
    elif plan.fits:
        lines += ["", "collectives: this compiler's programs cannot be read back; v4 and v5e can"]
    limits, chip = plan.roofline, topology.chip
    lines += [
        "",
        f"an update: {limits.flops / 1e15:.2f} PFLOP; at the very least, by each limit alone (estimated, ms)",
        f"  {f'compute, {chip.flops / 1e12:.0f} TFLOP/s a chip':<42} {1e3 * limits.compute:>8.1f}",
        f"  {f'memory, {chip.memory_bandwidth / 1e9:,.0f} GB/s a chip':<42} {1e3 * limits.memory:>8.1f}",
        f"  {f'links, {chip.link_bandwidth / 1e9:.0f} GB/s a chip':<42} {1e3 * limits.links:>8.1f}",
        f"  so at most {config.batch_size / limits.seconds:,.0f} images/s and {limits.most_mfu:.0%} MFU, "
        f"bound by {limits.limit}",
    ]
    return "\n".join(lines)


def memory_parts(plan: Plan) -> dict[str, float]:
    """Bytes of a device by what they are for; where it fits, they end with the peak."""
    parts = {
        "parameters": float(plan.parameters),
        **({"average of parameters": float(plan.average)} if plan.average else {}),
        "optimizer state": float(plan.optimizer),
        "batch": float(plan.batch),
    }
    if plan.peak is not None:
        return parts | {"gradients and activations": plan.peak - sum(parts.values()), "peak": float(plan.peak)}
    return parts | {"needed": plan.needed or 0.0}


def _patches(plan: Plan) -> list[str]:
    """What the figures of a run that leaves patches out are those of."""
    dropout = plan.config.model.patch_dropout
    if not dropout:
        return []
    tail = not leaves_patches_out(plan.config, plan.config.steps - 1)
    whole = "memory is that of the last updates, which see all" if tail else "no update sees all"
    return [f"  {'patches left out':<26} {dropout:.0%}; {whole}"]


def _verdict(plan: Plan) -> str:
    if plan.peak is not None:
        free = plan.available - plan.peak
        return f"fits, {free / GIB:.2f} GiB of {plan.available / GIB:.2f} GiB left"
    short = (plan.needed or 0.0) - plan.available
    return f"does not fit, {short / GIB:.2f} GiB short of what the compiler looked for"
