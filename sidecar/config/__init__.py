"""Every setting of a sidecar: a YAML file, then the environment, then flags.

- `model`: what can be set, with bounds and defaults
- `values`: addresses and references to secrets
- `loading`: putting the three sources together, and saying what is wrong

Nothing is read anywhere else: what a part of the program may depend on is in `SidecarConfig`.
"""

from __future__ import annotations

from sidecar.config.loading import load_config
from sidecar.config.model import (
    BodyLimits,
    ElectionConfig,
    GroupCommit,
    KafkaQueue,
    ListenConfig,
    LogConfig,
    LookInterval,
    PoolSizes,
    PostgresQueue,
    ServiceAuth,
    SidecarConfig,
    StoreConfig,
)
from sidecar.config.values import Address

__all__ = [
    "Address",
    "BodyLimits",
    "ElectionConfig",
    "GroupCommit",
    "KafkaQueue",
    "ListenConfig",
    "LogConfig",
    "LookInterval",
    "PoolSizes",
    "PostgresQueue",
    "ServiceAuth",
    "SidecarConfig",
    "StoreConfig",
    "load_config",
]
