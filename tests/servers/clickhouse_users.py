"""Has chDB load the users and profiles that ship with the product.

chDB knows one user, `default`. So files are laid into `users.d` as on a server, where ClickHouse's own rules
merge them, and `default` then gets everything that one of the users has, except for the password.
"""

import copy
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

_SHIPPED = Path(__file__).parents[2] / "deploy/clickhouse"
SHIPPED_USERS = (_SHIPPED / "users.d/langfuse.xml").read_text("utf-8")
SERVER_MODE = {path.stem: path.read_text("utf-8") for path in (_SHIPPED / "server-mode").iterdir()}
_WORKLOADS = re.sub(r"--.*", "", (_SHIPPED / "workloads.sql").read_text("utf-8"))
SHIPPED_WORKLOADS = [statement for statement in _WORKLOADS.split(";") if statement.strip()]
PASSWORDS = {f"CLICKHOUSE_{user}_PASSWORD": "secret" for user in ("INTERACTIVE", "INGESTION", "EXPORT")}

# As in the users.xml of ClickHouse's packages.
_BASE = """<clickhouse>
  <profiles><default/></profiles>
  <users><default>
    <password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
  </default></users>
  <quotas><default/></quotas>
</clickhouse>"""


_ADMINISTRATOR = """<clickhouse>
  <profiles><export><readonly remove="remove"/></export></profiles>
  <users><administrator>
    <password/><profile>{profile}</profile><quota>default</quota><networks><ip>::/0</ip></networks>
    <grants><query>GRANT ALL ON *.*</query></grants>
  </administrator></users>
</clickhouse>"""


def shipped_profile(name: str) -> dict[str, str]:
    """The settings of a profile of the shipped file, without its constraints."""
    profile = ET.fromstring(SHIPPED_USERS).find(f"profiles/{name}")
    assert profile is not None
    return {element.tag: element.text for element in profile if element.text and element.tag != "constraints"}


def administrator(profile: str) -> str:
    """An override with a user `administrator` who may do anything, in a profile of the shipped file."""
    return _ADMINISTRATOR.format(profile=profile)


# The server's own profile stays as it is.
_ANALYST = """<clickhouse>
  <profiles><own>{settings}</own></profiles>
  <users><analyst>
    <password/><profile>own</profile><quota>default</quota><networks><ip>::/0</ip></networks>
    <databases>{filters}</databases>
  </analyst></users>
</clickhouse>"""


def analyst_with(
    directory: Path, profile: Mapping[str, str], row_policy: Mapping[str, str] | None = None
) -> Path:
    """Write a users.xml of somebody who has a profile of their own.

    Args:
        directory: where `users` is made.
        profile: its settings.
        row_policy: by table, the condition of the rows that they see.
    """
    settings = "".join(f"<{name}>{value}</{name}>" for name, value in profile.items())
    policies = (row_policy or {}).items()
    filters = "".join(f"<{table}><filter>{condition}</filter></{table}>" for table, condition in policies)
    filters = filters and f"<default>{filters}</default>"
    return write_users(directory / "users", "analyst", _ANALYST.format(settings=settings, filters=filters))


def write_users(directory: Path, user: str, *overrides: str) -> Path:
    """Write a users.xml whose `default` is another user.

    Args:
        directory: where; made if missing.
        user: a user of the overrides; the last that has an element for it wins, as far as it goes.
        overrides: contents of files in `users.d`, in the order in which ClickHouse merges them.
    """
    (directory / "users.d").mkdir(parents=True, exist_ok=True)
    (directory / "users.xml").write_text(_BASE)
    acting = [
        _acting(override, user, replace=not number)
        for number, override in enumerate(
            override for override in overrides if ET.fromstring(override).find(f"users/{user}") is not None
        )
    ]
    for number, content in enumerate([*overrides, *acting]):
        (directory / "users.d" / f"{number}.xml").write_text(content)
    return directory / "users.xml"


def _acting(override: str, user: str, *, replace: bool) -> str:
    """An override of `default` like that of the user."""
    element = ET.fromstring(override).find(f"users/{user}")
    assert element is not None
    acting = copy.deepcopy(element)
    acting.tag = "default"
    for password in acting.findall("password"):
        acting.remove(password)
    if replace:
        acting.set("replace", "replace")
        acting.append(ET.Element("password"))
    root = ET.Element("clickhouse")
    ET.SubElement(root, "users").append(acting)
    return ET.tostring(root, "unicode")
