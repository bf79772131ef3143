"""What a task has found and done so far, and the report that says so."""

from dataclasses import dataclass, field

from agent.apply import Application
from agent.failures import shortened
from agent.look import View
from agent.wire.messages import AfterResult, Task, TaskReport
from agent.writer import Writer


@dataclass(slots=True)
class Outcome:
    """`observed` and `owners` are the digests of what was there before; counts are of entries and bytes."""

    observed: bytes = b""
    owners: bytes = b""
    rendered_equal: bool = False
    after_done: bool = False
    local_edits: int = 0
    foreign: int = 0
    received: int = 0
    reused: int = 0
    written: int = 0
    deleted: int = 0
    blocks: tuple[int, int] = (0, 0)
    """Requested and reused."""
    warnings: list[str] = field(default_factory=list)
    after: list[AfterResult] = field(default_factory=list)

    def count(self, application: Application, writer: Writer) -> None:
        """Takes what the changes of a task came to, or have come to when it failed."""
        self.received, self.reused = application.bytes_received, application.bytes_reused
        self.blocks = application.blocks_requested, application.blocks_reused
        self.written, self.deleted = writer.written, writer.deleted
        self.warnings += application.warnings

    def report(
        self,
        task: Task,
        view: View,
        state: str,
        *,
        established: bytes = b"",
        reason: str = "",
        message: str = "",
    ) -> TaskReport:
        """`established` is the digest of the tree that is there now, if the task got so far."""
        return TaskReport(
            task=task.id,
            state="SUCCESS" if state == "SUCCESS" else "FAILED",
            reason=reason,
            message=message[:2000],
            observed=self.observed,
            rendered_equal=self.rendered_equal,
            owners_equal=not view.disowned and task.owners in (b"", self.owners),
            owners_compared=bool(task.owners),
            after_done=self.after_done,
            established=established,
            files_written=self.written,
            files_deleted=self.deleted,
            foreign=self.foreign,
            bytes_received=self.received,
            bytes_reused=self.reused,
            local_edits=self.local_edits,
            warnings=shortened(self.warnings),
            after=tuple(self.after),
            blocks_requested=self.blocks[0],
            blocks_reused=self.blocks[1],
            files_known=view.files_known,
            files_read=view.files_read,
        )
