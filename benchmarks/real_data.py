"""Where the real data sets are, for every benchmark that needs them."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def real_data_folder() -> Path:
    """The folder FACTORY_REAL_DATA names; ends the program with a reason when it is unset."""
    folder = os.environ.get("FACTORY_REAL_DATA")
    if not folder:
        sys.exit("skipped: FACTORY_REAL_DATA does not name the folder of real data sets")
    return Path(folder).absolute()
