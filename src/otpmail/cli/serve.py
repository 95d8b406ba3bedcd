"""`otpmail serve`: runs the service, by one process or by several."""

from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from otpmail.cli.running import load_to_serve, run, run_beside, run_service, warn_of, write_refusal
from otpmail.cli.signals import Signals
from otpmail.errors import SettingsError
from otpmail.supervisor import is_member

if TYPE_CHECKING:
    from otpmail.settings import Settings
    from otpmail.settings.doubts import Doubt
    from otpmail.telemetry.logs import LogHandler


def serve() -> None:
    """Run the service, with settings from the environment, .env or SECRETS_DIR."""
    signals = Signals(hangup_stops=False)
    if is_member():
        run(_serve_as_member(signals))
        return
    settings, doubts = load_to_serve()
    alone = settings.server.processes == 1
    run((run_service if alone else _supervise)(settings, signals, doubts=doubts))


async def _serve_as_member(signals: Signals) -> None:
    """Run the service as one of several processes, which a supervisor has started."""
    from otpmail.supervisor.member import Member

    member = await Member.join()
    await run_service(member.settings, signals, started=lambda *_: member.ready(), member=member)


async def _supervise(settings: "Settings", signals: Signals, *, doubts: "Iterable[Doubt]") -> None:
    """Run the service by several processes until a signal stops it.

    Raises typer.Exit with the exit code of the service, if that is not 0.
    """
    import asyncio

    from otpmail.supervisor.reload import reload_forever
    from otpmail.supervisor.supervisor import Supervisor
    from otpmail.telemetry.logs import set_up

    log = set_up(settings.server.log_format, settings.server.log_level)
    warn_of(doubts)
    stop, reload = asyncio.Event(), asyncio.Event()
    supervisor = Supervisor(settings, log=log.pass_on)

    def give_up() -> None:
        """End all processes at once, and write what they have said."""
        supervisor.give_up()
        log.flush()

    signals.attach(asyncio.get_running_loop(), stop=stop.set, reload=reload.set, give_up=give_up)
    try:
        await run_beside(_exit_code(supervisor.run(stop), log), reload_forever(supervisor, reload))
    finally:
        signals.ignore_hangup()


async def _exit_code(running: Coroutine[Any, Any, int], log: "LogHandler") -> int:
    """Return the exit code of a supervisor, and write why it can't start."""
    try:
        return await running
    except SettingsError as error:
        return write_refusal(log, error)
