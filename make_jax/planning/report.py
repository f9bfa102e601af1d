"""The text that `train.py --dry-run` prints."""

from collections.abc import Iterator

from make_jax.config import Config
from make_jax.model.attention import traceable_attention
from make_jax.planning.collectives import merge_collectives
from make_jax.planning.dry_run import DryRunReport

MIB = 2**20


def format_report(config: Config, report: DryRunReport) -> str:
    """Returns a dry run's report as text: settings, memory, FLOPs, collectives, time bounds."""
    sections = (_settings(config, report), _memory(report), _flops(report), _collectives(report), _time(report))
    return "\n".join(line for section in sections for line in section)


def _settings(config: Config, report: DryRunReport) -> Iterator[str]:
    t, rows = config.train, config.train.batch_size // report.devices
    source = "state and batch exact; the rest estimated from the traced step, not compiled"
    if report.compiled is not None:
        source = f"compiled for {report.compiled.target}, not run"
    micro_batches = f" in micro-batches of {t.micro_batch_size}" if t.micro_batch_size else ""
    yield f"dry run on {report.devices} x {report.device}: {source}"
    yield (
        f"mesh {report.devices // report.fsdp} data x {report.fsdp} fsdp; batch {t.batch_size:,}, "
        f"{rows:,} rows per device{micro_batches}; {config.objectives.implementation} implementation of the loss"
    )
    if (traced := traceable_attention(config.model.attention)) != config.model.attention:
        yield (
            f"attention {config.model.attention!r} cannot be traced on this machine and is counted as {traced!r}: the "
            "same forward FLOPs, an upper bound on activations"
        )
    yield (
        f"largest model of the config: {config.inputs.vocab_size:,} tokens (inputs.vocab_size), "
        f"{config.inputs.max_keywords:,} keywords (inputs.max_keywords); a catalog may give fewer"
    )
    yield f"parameters: {report.parameters:,}"


def _memory(report: DryRunReport) -> Iterator[str]:
    yield "memory per device, MiB"
    for name, size in report.resident.items():
        yield _row(name, size)
    compiled = report.compiled
    if compiled is None:
        yield _row("activations, loss, gradients", report.step.live_bytes, "estimate")
    elif compiled.error:
        yield f"  compiler error: {compiled.error}"
    else:
        yield _row("arguments (state and batch)", compiled.arguments, "compiler")
        yield _row(
            "temporary", compiled.temporary, f"compiler; estimate without it {report.step.live_bytes / MIB:,.1f}"
        )
        yield _row("program", compiled.code, "compiler")
    yield _row("  complete float32 gradients", report.gradient_bytes, "part of the above")
    yield _row("  loss alone", report.loss.live_bytes, "part of the above, estimate")
    if compiled is None or not compiled.error:
        yield _row("total", report.total_bytes, "estimate" if compiled is None else "compiler")
    if report.device_memory is not None:
        yield _row("available", int(report.device_memory))
    yield {True: "fits", False: "does not fit", None: "unknown whether it fits"}[report.fits]


def _row(name: str, size: int, note: str = "") -> str:
    return f"  {name:30} {size / MIB:12,.1f}" + (f"  ({note})" if note else "")


def _flops(report: DryRunReport) -> Iterator[str]:
    step, loss = report.step, report.loss
    by_dtype = ", ".join(f"{dtype} {flops / 1e12:,.4g}" for dtype, flops in sorted(step.flops.items()))
    yield (
        f"TFLOP per step, matrix products: {step.total_flops / 1e12:,.4g} per device ({by_dtype}), "
        f"{step.total_flops * report.devices / 1e12:,.4g} in total; loss {loss.total_flops / step.total_flops:.2%}"
    )


def _collectives(report: DryRunReport) -> Iterator[str]:
    compiled = report.compiled
    if compiled is None or compiled.error:
        source, collectives = "traced", report.step.collectives
    else:
        source, collectives = "compiled", list(compiled.collectives)
    yield f"collectives per step, {source} program"
    yield f"  {'operation':20} {'group':>6} {'operations':>10} {'times':>6} {'MiB per time':>14} {'MiB sent':>10}"
    for each in merge_collectives(collectives):
        yield (
            f"  {each.operation:20} {each.devices:6} {each.count:10} {each.times:6} "
            f"{each.size / MIB:14,.2f} {each.sent / MIB:10,.1f}"
        )
    yield f"  {'total':60} {sum(each.sent for each in collectives) / MIB:10,.1f}"


def _time(report: DryRunReport) -> Iterator[str]:
    bounds = report.time_bounds
    if bounds is None:
        yield f"step time: unknown; no peak rates for {report.device} (make_jax/planning/hardware.py)"
        return
    yield (
        f"step time at datasheet peaks, from the traced program: compute {bounds.compute * 1e3:,.1f} ms, "
        f"memory {bounds.memory * 1e3:,.1f} ms, network {bounds.network * 1e3:,.1f} ms; "
        f"lower bound {bounds.lower * 1e3:,.1f} ms with perfect overlap, {bounds.upper * 1e3:,.1f} ms without overlap"
    )
