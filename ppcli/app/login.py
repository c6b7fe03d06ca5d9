"""`login` and `logout`: tokens for a target's origin, kept in the config dir."""

from __future__ import annotations

import os
from collections.abc import Callable

from ppcli.app.workplace import Workplace
from ppcli.credentials import checked
from ppcli.errors import Credentials, Rejected, Temporary, Transient, Usage
from ppcli.events import Result
from ppcli.logins import Logins
from ppcli.origin import Origin, origin_of
from ppcli.requests import LoginRequest, Prompt
from ppcli.retry import Step
from ppcli.target import Accounts, Target, Verifier

Tell = Callable[[str], None]


def login(place: Workplace, request: LoginRequest, prompt: Prompt, tell: Tell) -> Result:
    """Get a token from the target, or take the one that is given, and keep it. Raises `Usage` for a target without
    logins, or where something is missing and nobody can be asked; `Credentials` for a wrong password."""
    url = place.choose(request.to)
    origin = _origin(url)
    place.transports.send_no_tokens()
    target = place.target(url)
    if request.token is None:
        _refuse_plain_http(place, origin, url)
        token = _token_from(place, target, origin, request.email, prompt)
    else:
        given = checked(request.token, "what stdin holds")
        if given is None:
            raise Usage("Stdin holds no token.", hint="Pipe one in: ppcli login --token-stdin < FILE.", reason="token")
        token = given
        _try(place, target, origin, url, token)
    logins = Logins(place.dirs.config)
    logins.save(origin, token)
    if os.environ.get("PPCLI_TOKEN") or os.environ.get("PPCLI_TOKEN_FILE"):
        place.warn("login_unused", "PPCLI_TOKEN or PPCLI_TOKEN_FILE is set and counts before this login.")
    tell(f"Logged in to {origin}; the token is kept in {logins.path}.")
    return place.done(target=url)


def logout(place: Workplace, to: str | None, tell: Tell) -> Result:
    """Forget the token of the target's origin; having none is fine."""
    url = place.choose(to)
    origin = _origin(url)
    logins = Logins(place.dirs.config)
    if logins.forget(origin):
        tell(f"Logged out of {origin}; its token was removed from {logins.path}.")
    else:
        tell(f"There was no login to {origin}.")
    return place.done(target=url)


def _origin(url: str) -> Origin:
    origin = origin_of(url)
    if origin is None:
        raise Usage(f"{url} needs no login.", hint="Name a server: ppcli login https://HOST.", reason="target")
    return origin


def _refuse_plain_http(place: Workplace, origin: Origin, url: str) -> None:
    """Before anything is asked: what is not asked for cannot be overheard."""
    if not place.transports.may_carry_secrets(str(origin), url):
        raise Credentials(
            f"No password is sent to {origin}: http:// is not encrypted.",
            hint="Use https://, or write plain_http_token = true into the target's table of config.toml.",
            reason="plain_http",
        )


def _token_from(place: Workplace, target: Target, origin: Origin, email: str | None, prompt: Prompt) -> str:
    if not isinstance(target, Accounts):
        raise Usage(
            f"{target.url} gives no tokens for a password.",
            hint="Give it the token that you have: ppcli login --token-stdin.",
            reason="unsupported",
        )
    accounts = target
    name = email or _asked(prompt, f"E-mail for {origin}", "--email E on a terminal", hidden=False)
    password = _asked(prompt, f"Password of {name}", "--token-stdin", hidden=True)
    try:
        token = place.call(Step.LOGIN, str(origin), lambda: accounts.login(name, password))
    except Temporary as error:
        cause = error.__cause__.cause if isinstance(error.__cause__, Transient) else error.message.rstrip(".")
        raise Temporary(
            f"Could not log in to {origin}: {cause}.", hint="Try again later.", reason=error.reason
        ) from error
    kept = checked(token, "what the server gave")
    if kept is None:
        raise Credentials(f"{origin} gave no token.", hint="Check that the target is the server you mean.")
    return kept


def _try(place: Workplace, target: Target, origin: Origin, url: str, token: str) -> None:
    """Have a wrong token told now, not in the middle of the night. What cannot be tried is kept all the same."""
    if not isinstance(target, Verifier) or not place.transports.may_carry_secrets(str(origin), url):
        return
    try:
        accepted = target.accepts(token)
    except Transient as failure:  # once is enough: nothing depends on it
        place.warn("login_untried", f"The token could not be tried: {failure.cause}.")
        return
    except Rejected as error:
        place.warn("login_untried", f"The token could not be tried: {error.message}")
        return
    if not accepted:
        raise Credentials(
            f"{origin} does not accept this token; it was not kept.",
            hint="Check that it is this server's, and the whole of it.",
            reason="refused",
        )


def _asked(prompt: Prompt, question: str, flag: str, *, hidden: bool) -> str:
    answer = prompt(question, hidden)
    if answer is None:
        raise Usage(
            f"{question.partition(' ')[0]} is needed, and nobody is there to ask.", hint=f"Use {flag}.", reason="prompt"
        )
    if not answer:
        raise Usage("Nothing was entered.", hint="Run the same command again.", reason="prompt")
    return answer
