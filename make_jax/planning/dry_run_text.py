"""The report of a dry run in words."""

from collections.abc import Iterator

from make_jax.config import Config
from make_jax.planning.collectives import joined
from make_jax.planning.dry_run import Report

MIB = 2**20


def text_of(config: Config, report: Report) -> str:
    """What `train.py --dry-run` prints."""
    return "\n".join([*_head(config, report), *_memory(report), *_work(report), *_exchanges(report), *_times(report)])


def _head(config: Config, report: Report) -> Iterator[str]:
    t, rows = config.train, config.train.batch_size // report.devices
    source = "state and batch exact, the rest estimated from the traced step, not compiled"
    if report.compiled is not None:
        source = f"compiled for {report.compiled.topology} by libtpu, nothing run"
    yield f"dry run on {report.devices} x {report.name}: {source}"
    yield (
        f"mesh {report.devices // report.fsdp} data x {report.fsdp} fsdp; "
        f"batch {t.batch_size:,}, {rows:,} rows a device"
        + (f" in micro-batches of {t.micro_batch}" if t.micro_batch else " at once")
        + f"; {config.objectives.form} form of the loss"
    )
    yield (
        f"as large as the config allows: {config.inputs.vocabulary:,} word pieces (inputs.vocabulary), "
        f"{config.inputs.keywords:,} keywords (inputs.keywords); a catalog may have fewer"
    )
    yield f"parameters: {report.parameters:,}"


def _memory(report: Report) -> Iterator[str]:
    yield "memory of a device, MiB"
    for what, size in report.held.items():
        yield _row(what, size)
    made = report.compiled
    if made is None:
        yield _row("activations, loss, gradients", report.step.alive, "estimate")
    elif made.refusal:
        yield f"  the compiler says: {made.refusal}"
    else:
        yield _row("state and batch as laid out", made.arguments, "compiler")
        yield _row("temporary", made.temporary, f"compiler; estimated without it {report.step.alive / MIB:,.1f}")
        yield _row("program", made.code, "compiler")
    yield _row("  gradients, whole, float32", report.gradients, "part of the above while they are summed")
    yield _row("  loss alone", report.loss.alive, "part of the above, estimate")
    if made is None or not made.refusal:
        yield _row("total", report.total, "estimate" if made is None else "compiler")
    if report.memory is not None:
        yield _row("there is", int(report.memory))
    yield {True: "it fits", False: "it does not fit", None: "whether it fits is not known"}[report.fits]


def _row(what: str, size: int, note: str = "") -> str:
    return f"  {what:30} {size / MIB:12,.1f}" + (f"  ({note})" if note else "")


def _work(report: Report) -> Iterator[str]:
    step, loss = report.step, report.loss
    kinds = ", ".join(f"{kind} {flops / 1e12:,.4g}" for kind, flops in sorted(step.flops.items()))
    yield (
        f"TFLOP of a step, matrix products: {step.all_flops / 1e12:,.4g} a device ({kinds}), "
        f"{step.all_flops * report.devices / 1e12:,.4g} in all; the loss {loss.all_flops / step.all_flops:.2%} of it"
    )


def _exchanges(report: Report) -> Iterator[str]:
    made = report.compiled
    from_compiler = made is not None and not made.refusal
    found = made.collectives if made is not None and from_compiler else report.step.collectives
    yield f"exchanges of a step, in the {'compiled' if from_compiler else 'traced'} program"
    yield f"  {'operation':20} {'among':>6} {'operations':>10} {'times':>6} {'MiB each time':>14} {'MiB sent':>10}"
    for each in joined(found):
        yield (
            f"  {each.operation:20} {each.devices:6} {each.count:10} {each.times:6} "
            f"{each.size / MIB:14,.2f} {each.sent / MIB:10,.1f}"
        )
    yield f"  {'in all':60} {sum(each.sent for each in found) / MIB:10,.1f}"


def _times(report: Report) -> Iterator[str]:
    b = report.bounds
    if b is None:
        yield f"step time: not known; nobody says what {report.name} can do at most"
        return
    yield (
        f"step time at the makers' peaks, from the traced program: compute {b.compute * 1e3:,.1f} ms, "
        f"memory {b.memory * 1e3:,.1f} ms, network {b.network * 1e3:,.1f} ms; "
        f"so at least {b.least * 1e3:,.1f} ms, and {b.most * 1e3:,.1f} ms if nothing hides behind anything"
    )
