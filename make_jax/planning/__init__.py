"""The dry run: FLOPs, memory, collectives, hardware tables and the roofline of a training step."""
