"""Makes the comparison's fakes importable, as their own tests do."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "compare"))
