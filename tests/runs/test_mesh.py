import pytest

from make_jax.errors import InputError
from make_jax.runs.mesh import check_matching_groups, make_mesh


def test_groups_that_do_not_divide_a_devices_rows_are_an_error():
    mesh = make_mesh()
    check_matching_groups(512, 64, mesh)
    with pytest.raises(InputError) as caught:
        check_matching_groups(256, 64, mesh)
    assert str(caught.value) == (
        "train.batch_size is 256, 32 rows for each of 8 devices, which objectives.matching_group 64 does not divide; "
        "set the batch size to 512 or the group to 32"
    )
    with pytest.raises(InputError, match=r"set the batch size to 16$"):
        check_matching_groups(8, 2, mesh)
