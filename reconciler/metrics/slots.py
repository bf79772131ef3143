"""Counts the steps that run, and those that wait until they may."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from reconciler.apply import Slot
from reconciler.metrics.declared import STEPS_RUNNING, STEPS_WAITING
from reconciler.metrics.registry import Metrics
from reconciler.plan import Step


def counted(slot: Slot, metrics: Metrics) -> Slot:
    """The same slot, with its gauges right however a step ends."""

    @asynccontextmanager
    async def entered(step: Step) -> AsyncIterator[None]:
        action = step.action.value
        waiting = True
        metrics.add(STEPS_WAITING, 1)
        try:
            async with slot(step):
                waiting = False
                metrics.add(STEPS_WAITING, -1)
                metrics.add(STEPS_RUNNING, 1, action=action)
                try:
                    yield
                finally:
                    metrics.add(STEPS_RUNNING, -1, action=action)
        finally:
            if waiting:
                metrics.add(STEPS_WAITING, -1)

    return entered
