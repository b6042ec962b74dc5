"""What service and training share: audio bytes in, calibrated probabilities out.

No HTTP, no torch, no database.
"""

import os

# Official builds of ONNX Runtime from 1.29 on send telemetry and leave an identifier in the
# home folder, unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
