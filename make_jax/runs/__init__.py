"""A run on devices and on disk.

    mesh.py               device mesh, batch sharding, checks that devices divide the batch
    sharding.py           which parameters are sharded over `fsdp`; all-gather and reduce-scatter
    state.py              TrainState: parameters, optimizer state, averaged parameters, step
    processes.py          start-up of several processes, and what they must agree on
    failure_detection.py  exit code 75 and one line when another process is lost
    checkpoints.py        asynchronous, verified checkpoints
    orbax_arrays.py       a checkpoint's arrays on disk; the only module that calls Orbax
    manifest.py           digests of a checkpoint's files
    named_leaves.py       trees of arrays as dicts from name to leaf
    run_folder.py         file names of a run, and TrainedModel loaded from it
    training_data.py      hashes of the products and queries that a model was trained on
    convert.py            a run as an export, and a PyTorch folder as a run
    provenance.py         metadata of result files

The user guides are docs/checkpoints.md and docs/scaling.md.
"""
