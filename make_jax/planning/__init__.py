"""The dry run: what a training step takes on a device, computed without running it.

    dry_run.py          traces the step for a device and a count of them, and compiles it where a compiler is at hand
    report.py           the text that `train.py --dry-run` prints
    shapes.py           shapes of state and batch from the settings alone
    step_costs.py       FLOPs, memory traffic, collectives and live memory of a traced step
    flops.py            FLOPs of a jaxpr; also used for MFU during training
    live_memory.py      an estimate of a jaxpr's peak memory, for devices without a compiler here
    collectives.py      collectives of a jaxpr; hlo_collectives.py: those of a compiled program
    hardware.py         datasheet numbers of chips and networks; add a device here
    roofline.py         bounds on the step time from costs and hardware
    compile.py          ahead-of-time compilation and XLA's memory report

Training is to the right of this package, so its functions are passed in (`shapes.StepFunctions`).
"""
