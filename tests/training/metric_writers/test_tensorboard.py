from pathlib import Path

import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from make_jax.training.metric_writers.tensorboard import TensorBoardWriter


def log(folder: Path, steps: range) -> None:
    writer = TensorBoardWriter(folder, steps.start)
    for step in steps:
        writer.write(step + 1, {"loss": 5.0 - 0.1 * step, "data_fingerprint": "b0e07ac8"})
    writer.close()
    writer.close()  # a second call is safe


def test_tensorboard_reads_the_scalars_and_no_step_twice(tmp_path: Path) -> None:
    log(tmp_path, range(0, 7))
    log(tmp_path, range(4, 10))
    reader = EventAccumulator(str(tmp_path / "tensorboard"))
    reader.Reload()
    assert reader.Tags()["tensors"] == ["loss"]
    events = reader.Tensors("loss")
    assert [event.step for event in events] == list(range(1, 11))
    assert events[9].tensor_proto.float_val[0] == pytest.approx(5.0 - 0.9)
