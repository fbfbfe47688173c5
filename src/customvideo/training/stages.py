"""Which stage of a method a step belongs to. What a stage trains is the method's decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from customvideo.adapters.adapter import Adapter
from customvideo.errors import ConfigError
from customvideo.methods.base import Method, Stage, Staged

__all__ = ["Schedule"]


@dataclass(frozen=True)
class Schedule:
    """A method's stages over the steps of a run; a method without any has a single one."""

    stages: Sequence[Stage]

    @classmethod
    def of(cls, method: Method, adapter: Adapter, steps: int) -> Schedule:
        """The schedule of `method` in a run of `steps`.

        A stage's end does not move with `steps`, so that a run resumed to train longer is the run
        that was longer from the start.

        Raises:
            ConfigError: the stages do not fit the steps.
        """
        if not isinstance(method, Staged):
            return cls((Stage(""),))
        stages = tuple(method.stages(adapter))
        *earlier, last = (stage.steps for stage in stages)
        assert last is None and None not in earlier, "all stages but the last say how long"
        needed = sum(count or 0 for count in earlier) + 1
        if steps < needed:
            raise ConfigError(
                f"The stages of method '{method.name}' need at least {needed} steps, the last one "
                f"'{stages[-1].name}', and steps={steps}; raise steps, or shorten its stages."
            )
        return cls(stages)

    def at(self, step: int) -> tuple[Stage, int]:
        """The stage of `step`, and the step's number within it; both count from 1."""
        for stage in self.stages:
            if stage.steps is None or step <= stage.steps:
                return stage, step
            step -= stage.steps
        raise AssertionError("the last stage has no end")

    def describe(self) -> str:
        """One line a stage, or "" for a single stage without a name."""
        lines, first = [], 1
        for stage in self.stages:
            if stage.steps is None:
                lines.append(f"from step {first}: {stage.name}")
                break
            lines.append(f"steps {first} to {first + stage.steps - 1}: {stage.name}")
            first += stage.steps
        return "\n".join(lines) if self.stages[0].name else ""
