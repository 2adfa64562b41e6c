"""Arrays that nobody changes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]


def frozen(array: Any, dtype: Any = np.float64) -> NDArray[Any]:
    """A read-only copy of ``array``, or itself where it is one: tables may be large."""
    owned = isinstance(array, np.ndarray) and array.base is None and array.dtype == dtype
    if owned and not array.flags.writeable:
        return array
    copy = np.array(array, dtype=dtype)
    copy.setflags(write=False)
    return copy
