"""The recipes of docs/barriers.md, run as they stand there: nothing of them is written twice.

A recipe is a page's statements and a database. What a service has to do around them (the table
of states on the page) is `execute` and `compensate` here, over an effect that is a row in the
same database.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pymysql

from tests.servers.mariadb import MariadbServer

PAGE = Path(__file__).parents[2] / "docs" / "barriers.md"

Reply = tuple[int, Any]
Blocks = dict[str, list[str]]


class Busy(Exception):
    """Another call holds the row for too long; the contract's answer is 409."""


def blocks_of(title: str) -> Blocks:
    """The statements below a title of the page, by the names in their first lines."""
    section = PAGE.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    return {name: _statements(text) for name, text in _named(section)}


def forgetting(database: str) -> str:
    """The statement that lets old rows go."""
    (found,) = dict(_named(PAGE.read_text()))[f"forget ({database})"].strip().split(";\n")
    return found.rstrip(";")


def _named(text: str) -> Iterator[tuple[str, str]]:
    yield from re.findall(r"```sql\n-- ([^\n]+)\n(.*?)```", text, re.DOTALL)


def _statements(text: str) -> list[str]:
    return [one.strip() for one in text.split(";\n") if one.strip()]


@dataclass
class Call:
    """One transaction: the row is locked, and `state` says what it was."""

    recipe: Recipe
    cursor: Any
    step: str
    state: str = "new"
    answer: Any = None

    def settle(self, state: str, answer: Any = None) -> None:
        text = None if answer is None else json.dumps(answer)
        self.recipe.run(self.cursor, "settle", step=self.step, state=state, answer=text)

    def act(self, by: int) -> None:
        """Have an effect, or undo one."""
        self.cursor.execute(self.recipe.ACT, (self.step, by))


class Elsewhere:
    """Another system, which knows keys and has no part in a transaction here."""

    def __init__(self) -> None:
        self.charged: dict[str, Any] = {}

    def charge(self, key: str) -> Any:
        return self.charged.setdefault(key, {"charge": f"c-{key}"})

    def refund(self, key: str) -> None:
        self.charged.pop(key, None)


class Recipe(ABC):
    """A recipe on one database. `blocks` may be spoiled by a test that shows what it is for."""

    ACT: str
    STATE: str
    AGE: str
    FORGET: str
    WAITING: str
    EFFECTS = "CREATE TABLE effects (step varchar(255), amount int)"
    COUNT = "SELECT coalesce(sum(amount), 0) FROM effects"

    blocks: Blocks

    def __init__(self) -> None:
        self.meet: Callable[[], None] = lambda: None
        """Called between the lock and the act."""
        self.stock = 1_000_000

    @abstractmethod
    def connect(self) -> Any:
        """A new connection, which commits only what it is told to."""

    @abstractmethod
    def run(self, cursor: Any, block: str, **values: Any) -> None:
        """Run a block of the page."""

    @abstractmethod
    def is_busy(self, error: Exception) -> bool:
        """Whether the page says to answer 409."""

    def make(self) -> None:
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            for statement in (*self.blocks["table"], self.EFFECTS):
                cursor.execute(statement)
            connection.commit()

    @contextmanager
    def call(self, step: str) -> Iterator[Call]:
        """A transaction that has locked the step's row; committed unless something fails."""
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            try:
                self.run(cursor, "begin")
                self.run(cursor, "lock", step=step)
                found = cursor.fetchone()
                call = Call(self, cursor, step)
                if found is not None:  # a spoiled recipe finds nothing
                    call.state, call.answer = found[0], _value(found[1])
                self.meet()
                yield call
                connection.commit()
            except Exception as error:
                with suppress(Exception):
                    connection.rollback()
                if self.is_busy(error):
                    raise Busy from error
                raise

    def execute(self, step: str) -> Reply:
        """Answer an execute, as the page's table says."""
        try:
            with self.call(step) as call:
                if call.state == "compensated":
                    return 410, None
                if call.state == "refused":
                    return 422, call.answer
                if call.state == "done":
                    return 201, call.answer
                if self.stock == 0:
                    call.settle("refused", {"detail": "no stock"})
                    return 422, {"detail": "no stock"}
                call.act(1)
                answer = {"receipt": f"r-{step}"}
                call.settle("done", answer)
                return 201, answer
        except Busy:
            return 409, None

    def compensate(self, step: str) -> Reply:
        """Answer a compensation, as the page's table says."""
        try:
            with self.call(step) as call:
                if call.state == "done":
                    call.act(-1)
                if call.state != "compensated":
                    call.settle("compensated")
                return 200, None
        except Busy:
            return 409, None

    def execute_elsewhere(self, step: str, elsewhere: Elsewhere) -> Reply:
        """Answer an execute whose effect is another system's, as the page's second table says."""
        with self.call(step) as call:
            if call.state == "new":
                call.settle("started")
        with self.call(step) as call:
            if call.state == "compensated":
                return 410, None
            if call.state == "started":
                call.answer = elsewhere.charge(step)
                self.meet()
                call.settle("done", call.answer)
            return 201, call.answer

    def compensate_elsewhere(self, step: str, elsewhere: Elsewhere) -> Reply:
        """Answer its compensation."""
        with self.call(step) as call:
            if call.state in ("started", "done"):
                elsewhere.refund(step)
            if call.state != "compensated":
                call.settle("compensated")
            return 200, None

    def effects(self) -> int:
        """How many effects stand."""
        return int(self.one(self.COUNT))

    def state(self, step: str) -> str | None:
        """What the row says, if there is one."""
        found = self.one(self.STATE, step)
        return None if found is None else str(found)

    def waiting(self) -> int:
        """How many callers wait for a lock."""
        return int(self.one(self.WAITING))

    def one(self, statement: str, *values: Any) -> Any:
        """The first value of the first row."""
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            row = cursor.fetchone() if cursor.description else None
            connection.commit()
            return None if row is None else row[0]


class OnPostgres(Recipe):
    """The recipe for PostgreSQL. Values are named `$1`, as on the page."""

    ACT = "INSERT INTO effects VALUES ($1, $2)"
    STATE = "SELECT state FROM barrier WHERE step = $1"
    FORGET = "PostgreSQL"
    AGE = "UPDATE barrier SET made_at = now() - interval '91 days' WHERE step = $1"
    WAITING = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self.dsn = dsn
        self.blocks = blocks_of("PostgreSQL")

    def connect(self) -> Any:
        # Without autocommit the driver would begin a transaction before the page does.
        connection = psycopg.connect(
            self.dsn, autocommit=True, cursor_factory=psycopg.RawCursor[Any]
        )
        return _Explicit(connection)

    def run(self, cursor: Any, block: str, **values: Any) -> None:
        order = [values[name] for name in ("step", "state", "answer") if name in values]
        for statement in self.blocks[block]:
            cursor.execute(statement, order if "$1" in statement else None)

    def is_busy(self, error: Exception) -> bool:
        return isinstance(error, psycopg.OperationalError) and error.sqlstate in ("55P03", "40001")


class OnMariadb(Recipe):
    """The recipe for MySQL. Values are `?` on the page, and `%s` for this driver."""

    ACT = "INSERT INTO effects VALUES (%s, %s)"
    STATE = "SELECT state FROM barrier WHERE step = %s"
    FORGET = "MySQL and MariaDB"
    AGE = "UPDATE barrier SET made_at = now() - interval 91 day WHERE step = %s"
    WAITING = (  # innodb_trx would be as old as the last look at it, for whoever looks often
        "SELECT variable_value FROM information_schema.global_status"
        " WHERE variable_name = 'innodb_row_lock_current_waits'"
    )

    def __init__(self, server: MariadbServer, database: str) -> None:
        super().__init__()
        self.server, self.database = server, database
        self.blocks = blocks_of("MySQL and MariaDB")

    def connect(self) -> Any:
        return self.server.connect(self.database)

    def run(self, cursor: Any, block: str, **values: Any) -> None:
        names = ("state", "answer", "step")  # the order in which the page's `?` stand
        order = [values[name] for name in names if name in values]
        for statement in self.blocks[block]:
            cursor.execute(statement.replace("?", "%s"), order if "?" in statement else None)

    def is_busy(self, error: Exception) -> bool:
        return isinstance(error, pymysql.OperationalError) and error.args[0] in (1205, 1213)


class _Explicit:
    """A psycopg connection whose transactions begin and end by the statements it is given."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self.cursor = connection.cursor
        self.close = connection.close

    def commit(self) -> None:
        self._connection.execute("COMMIT")

    def rollback(self) -> None:
        self._connection.execute("ROLLBACK")


def _value(answer: Any) -> Any:
    """An answer as it was stored: JSON for one driver, its text for the other."""
    return json.loads(answer) if isinstance(answer, str) else answer
