"""Types of arrays that more than one file here speaks of."""

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.integer]
Rows = NDArray[np.int64] | slice  # which rows of a batch
