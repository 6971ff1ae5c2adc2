"""Alerts as Prefect events. Inside a flow run Prefect adds the run, its flow, deployment, work pool and tags by itself;
what is added here is the recipe, as the event's subject, and the output folder."""

from __future__ import annotations

import logging

from prefect.events import emit_event
from prefect.exceptions import EventTooLarge

from flows.alerts import Alert

logger = logging.getLogger(__name__)


def emit(alert: Alert) -> None:
    """Send an alert's event. It never fails a run: what cannot be sent is logged."""
    try:
        emit_event(
            event=alert.event,
            resource={
                "prefect.resource.id": f"quarry.recipe.{alert.name}.{alert.recipe}",
                "prefect.resource.name": f"{alert.name} {alert.recipe}",
                "quarry.schema": alert.name,
                "quarry.recipe": alert.recipe,
            },
            related=[
                {
                    "prefect.resource.id": f"quarry.output.{alert.out}",
                    "prefect.resource.role": "output",
                    "prefect.resource.name": alert.out,
                }
            ],
            payload=dict(alert.payload),
        )
    except EventTooLarge as error:
        logger.warning("the event %s was not sent: %s", alert.event, error)
    else:
        logger.warning("%s: %s", alert.event, alert.message)
