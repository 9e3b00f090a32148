"""What a Google Cloud VM is told of itself."""

import os
from http.client import HTTPException
from urllib.request import Request, urlopen

ADDRESS = "169.254.169.254"  # of every metadata server; by name, machines elsewhere would wait for their resolver
PATIENCE = 3  # seconds


def metadata(path: str) -> str:
    """What the metadata server says, as of instance/zone; nothing where there is no server, or it does not know."""
    url = f"http://{os.environ.get('GCE_METADATA_IP', ADDRESS)}/computeMetadata/v1/{path}"
    try:
        with urlopen(Request(url, headers={"Metadata-Flavor": "Google"}), timeout=PATIENCE) as answer:
            return answer.read().decode()
    except (OSError, HTTPException, UnicodeDecodeError):
        return ""
