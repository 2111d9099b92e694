"""The tenants, models and simulated pools of a run, from the client matrix and from `settings.toml`."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLIENTS = HERE.parent / "clients"
sys.path.append(str(CLIENTS))

import server  # noqa: E402


def write_settings(folder: Path) -> Path:
    """Writes the settings to a file and returns it."""
    file = folder / "settings.toml"
    file.write_text(server.settings() + (HERE / "settings.toml").read_text())
    return file
