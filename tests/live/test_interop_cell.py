"""One cell of the interoperability matrix (`make interop` runs all): a real pppd calls our `serve`."""

from __future__ import annotations

import pytest

from tests.interop.cells import Cell
from tests.interop.image import cache_directory, provide
from tests.interop.kinds import Kind
from tests.interop.matrix import CELL_TIMEOUT, as_fields, run_cells
from tests.live.live_support import RunInLab


@pytest.mark.interop
@pytest.mark.alone
@pytest.mark.timeout(2 * CELL_TIMEOUT)
def test_a_foreign_client_uses_ends_and_reopens_an_encrypted_link(run_in_lab: RunInLab) -> None:
    provide()
    cell = Cell("serve", Kind("mschapv2", 128))
    rows = run_in_lab(
        run_cells, cells=[as_fields(cell)], cache=str(cache_directory()), show=False, timeout=1.5 * CELL_TIMEOUT
    )
    assert [(row["result"], row.get("detail", "")) for row in rows] == [("up", "")]
