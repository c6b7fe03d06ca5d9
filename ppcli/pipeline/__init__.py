"""The pipeline: brings the files of one job to a target. See `run`."""

from ppcli.pipeline.meter import Meter
from ppcli.pipeline.run import Outcome, run

__all__ = ["Meter", "Outcome", "run"]
