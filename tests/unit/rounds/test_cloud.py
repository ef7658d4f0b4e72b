"""What a round admits, whom it serves, and what it survives."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import ARRIVING, CONFIG, FOUNDERS, Grown, System

from graft.errors import PayloadChangedError
from graft.ledger import is_upload, total_bytes
from graft.methods import FOUNDER
from graft.rounds import Round, found_system
from graft.values import (
    Answer,
    DomainProfile,
    Failure,
    LearnOrder,
    LearnReport,
    ModelCard,
    Order,
    ProbeOrder,
    ProfileOrder,
    Selection,
    SystemState,
)
