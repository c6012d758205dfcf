"""GoConductor: sagas across microservices, kept by one sidecar beside every replica of a service.

The package is laid out as rooms whose imports point one way (see CONTRIBUTING.md); nothing is
re-exported here, so that importing one room never loads another.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
