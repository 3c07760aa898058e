"""Run a health node straight from a checkout: twistd -noy tap/health.tac

Its settings are in health.toml beside this file, or in the file that FILEGRID_CONFIG names.
"""

import sys
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here.parent))

from filegrid.start import application as make_application  # noqa: E402

application = make_application("health", here / "health.toml")
