"""Makes the files that follow from the declarations of the services: `make generate`, or `python -m tools.generate`.

The declarations are `chassis.service.services()`. What is generated is committed, and a test compares the two.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from textwrap import indent
from typing import Any

from chassis.conditions import Field
from chassis.conditions.language import CLAUSE_TYPES, CLAUSES_MAX, DEPTH_MAX, And, Not, Or
from chassis.lists.describing import AskedList
from chassis.read.viewing import MEMBERS
from chassis.service import Need, Service, services
from chassis.web import command_of, dependencies
from contracts.topics import PARTITIONS
from fastapi.routing import APIRoute
from pydantic import BaseModel

ROOT = Path(__file__).resolve().parents[1]
BASE = "deploy/k8s/base"
HEAD = "Generated from the declaration of the service (`make generate`). Do not edit."
LAG_EVENTS_PER_POD = 5_000
FIRST_PORT = 8080
"""Compose shows the APIs on this port of the laptop and the next ones."""

NAMES = {
    "api": "Answers HTTP; stateless, so scaled by load.",
    "relay": "Publishes stored events; of two pods one publishes and one stands by, as the lease says.",
    "views": "Projects events; as many pods as serve, never more members of a group than partitions (6).",
    "timers": "Gives commands that are due; of two pods one works and one stands by, as the lease says.",
    "sagas": "Gives the commands of sagas; of two pods one works and one stands by, as the lease says.",
    "notices": "Hands notices over to their providers; of two pods one works and one stands by, as the lease says.",
    "derived": "Derives documents from those of views; as many pods as serve, never more than partitions (6).",
    "policies": "Reacts to events of other contexts, once each; never more pods than partitions (6).",
}
LARGE = {"requests": "{cpu: 500m, memory: 384Mi}", "limits": '{cpu: "2", memory: 768Mi}'}
SMALL = {"requests": "{cpu: 250m, memory: 256Mi}", "limits": '{cpu: "1", memory: 512Mi}'}
NOT_LARGE = frozenset({"api", "relay", "policies", "timers", "sagas", "notices"})
WITH_A_LEASE = frozenset({"relay", "timers", "sagas", "notices"})
"""One pod works and one stands by."""

SECRETS: dict[Need, tuple[str, str]] = {
    "postgres": ("POSTGRES_URL", "crm-{context}-postgres"),
    "keys": ("CRM_KEYS_URL", "crm-keys-postgres"),
    "mongo": ("MONGO_URL", "crm-mongo"),
    "kafka": ("KAFKA_URL", "crm-kafka"),
    "files": ("CRM_FILES_URL", "crm-files"),
}
FILES: dict[Need, tuple[str, str, str]] = {
    "keys": ("kek", "/etc/crm/keys", "crm-key-encryption-key"),
    "tokens": ("tokens", "/etc/crm/tokens", "crm-token-keys"),
    "peers": ("service-token", "/etc/crm/service-token", "crm-{context}-service-token"),
}
FILE_VARIABLES: dict[Need, str] = {
    "keys": "{name: CRM_KEK_FILE, value: /etc/crm/keys/kek}",
    "tokens": "{name: CRM_TOKEN_KEYS_FILE, value: /etc/crm/tokens/keys.json}",
    "peers": "{name: CRM_SERVICE_TOKEN_FILE, value: /etc/crm/service-token/token}",
}
VARIABLES: dict[Need, str] = {
    "providers": "crm-{context}-providers",
    "receipts": "crm-{context}-receipts",
}
"""Secrets whose keys are settings; without one its settings have their defaults."""
REACHED: tuple[tuple[str, frozenset[Need]], ...] = (
    ("postgres", frozenset({"postgres", "keys"})),
    ("mongo", frozenset({"mongo"})),
    ("kafka", frozenset({"kafka"})),
    ("files", frozenset({"files"})),
    ("peers", frozenset({"peers"})),
    ("providers", frozenset({"providers"})),
)
"""The servers that the network lets pods with the label `crm.example/<server>` reach, by need."""


def roles_of(service: Service[Any]) -> list[str]:
    """The names of a service's roles."""
    nowhere: dict[str, Any] = {"postgres_url": "postgresql://nowhere", "environment": "production"}
    return list(service.roles(service.settings(**nowhere)))


# Kubernetes


def deployment(service: Service[Any], role: str) -> str:
    """The manifest of a role."""
    needs = service.needs(role)
    name = f"{service.name}-{role}"
    said = NAMES.get(role)
    if said is None:
        topics = ", ".join(service.readers.get(role, ())) or "nothing"
        said = f"Reads {topics}; never more pods than partitions (6)."
    selected = _selected(service.name, role)
    variables = [
        f"- name: {variable}\n  valueFrom: {{secretKeyRef: {{name: {secret.format(context=service.context.name)}, key: url}}}}"
        for need, (variable, secret) in SECRETS.items()
        if need in needs
    ] + [f"- {text}" for need, text in FILE_VARIABLES.items() if need in needs]
    if "peers" in needs:
        variables.append(f"- {{name: CRM_PEER_URLS, value: '{_peers(service)}'}}")
    settings = "".join(
        f"            - secretRef: {{name: {secret.format(context=service.context.name)}, optional: true}}\n"
        for need, secret in VARIABLES.items()
        if need in needs
    )
    mounted = [FILES[need] for need in FILES if need in needs]
    mounts = [
        *(f"- {{name: {volume}, mountPath: {path}, readOnly: true}}" for volume, path, _ in mounted),
        "- {name: scratch, mountPath: /tmp}",
    ]
    volumes = [
        *(
            f"- name: {volume}\n  secret: {{secretName: {secret.format(context=service.context.name)}, defaultMode: 0440}}"
            for volume, _, secret in mounted
        ),
        "- name: scratch\n  emptyDir: {sizeLimit: 64Mi}",
    ]
    group = "        fsGroup: 10001\n" if mounted else ""
    replicas = "  replicas: 2\n" if role in WITH_A_LEASE else ""
    size = SMALL if role in NOT_LARGE else LARGE
    parts = [
        f"""# {HEAD}
# {said}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
  labels: &labels
{indent(_labels(service.name, role, needs), " " * 4)}
spec:
{replicas}  revisionHistoryLimit: 5
  strategy:
    type: RollingUpdate
    rollingUpdate: {{maxSurge: 1, maxUnavailable: {0 if role == "api" else 1}}}
  selector:
    matchLabels:
{indent(selected, " " * 6)}
  template:
    metadata:
      labels: *labels
      annotations:
        prometheus.io/scrape: "true"
        prometheus.io/port: "8080"
        prometheus.io/path: /metrics
    spec:
      serviceAccountName: crm
      automountServiceAccountToken: false
      # Above the bounded shutdown of a role (15 s), below the patience of an operator.
      terminationGracePeriodSeconds: 45
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        runAsGroup: 10001
{group}        seccompProfile: {{type: RuntimeDefault}}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
{indent(selected, " " * 14)}
      containers:
        - name: {role}
          image: crm
          command: [python, -m, {service.package}, {role}]
          ports:
            - {{name: http, containerPort: 8080}}
          envFrom:
            - configMapRef: {{name: crm}}
{settings}          env:
{_listed(variables, 12)}
          livenessProbe:
            httpGet: {{path: /health/live, port: http}}
            periodSeconds: 10
            timeoutSeconds: 3
            failureThreshold: 3
          readinessProbe:
            httpGet: {{path: /health/ready, port: http}}
            periodSeconds: 5
            timeoutSeconds: 3
            failureThreshold: 2
          startupProbe:
            httpGet: {{path: /health/live, port: http}}
            periodSeconds: 2
            failureThreshold: 30
          resources:
            requests: {size["requests"]}
            limits: {size["limits"]}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
          volumeMounts:
{_listed(mounts, 12)}
      volumes:
{_listed(volumes, 8)}
""",
        f"""apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {name}
spec:
  minAvailable: 1
  selector:
    matchLabels:
{indent(selected, " " * 6)}
""",
    ]
    if role == "api":
        parts += [_http(name, selected), _scaled_by_load(name)]
    elif role not in WITH_A_LEASE:
        parts.append(_scaled_by_lag(name, service.name, role))
    return "---\n".join(parts)


def _peers(service: Service[Any]) -> str:
    """The addresses of the APIs of the other contexts, in the cluster."""
    return json.dumps(
        {each.context.name: f"http://{each.name}-api" for each in services() if each is not service}
    )


def _selected(service: str, role: str) -> str:
    return f"app.kubernetes.io/name: {service}\napp.kubernetes.io/component: {role}"


def _labels(service: str, role: str, needs: frozenset[Need]) -> str:
    reached = [f'crm.example/{server}: "true"' for server, of in REACHED if needs & of]
    return "\n".join([_selected(service, role), "app.kubernetes.io/part-of: crm", *reached])


def _listed(entries: list[str], columns: int) -> str:
    return "\n".join(indent(each, " " * columns) for each in entries)


def _http(name: str, selected: str) -> str:
    return f"""apiVersion: v1
kind: Service
metadata:
  name: {name}
spec:
  selector:
{indent(selected, " " * 4)}
  ports:
    - {{name: http, port: 80, targetPort: http}}
"""


def _scaled_by_load(name: str) -> str:
    return f"""apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {name}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}
  minReplicas: 2
  maxReplicas: 8
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {{type: Utilization, averageUtilization: 70}}
"""


def _scaled_by_lag(name: str, service: str, role: str) -> str:
    return f"""# By lag: one more pod for every {LAG_EVENTS_PER_POD:,} records that wait, never more members of a group than partitions.
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {name}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}
  minReplicas: 2
  maxReplicas: {PARTITIONS // (MEMBERS if role == "views" else 1)}
  metrics:
    - type: External
      external:
        metric:
          name: crm_role_lag_events
          selector:
            matchLabels: {{service: {service}, component: {role}}}
        target: {{type: AverageValue, averageValue: "{LAG_EVENTS_PER_POD}"}}
  behavior:
    # Each change of the number moves partitions, so it comes down slowly.
    scaleDown:
      stabilizationWindowSeconds: 600
      policies:
        - {{type: Pods, value: 1, periodSeconds: 120}}
"""


def migration(service: Service[Any]) -> str:
    """The manifest of the Job that changes the schema."""
    name, context = f"{service.name}-migrate", service.context.name
    return f"""# {HEAD}
# Changes the schema, as its owner, before the roles of a new version start; they wait for it and say so.
# A Job is not changed in place: delete the one of the version before, then apply.
apiVersion: batch/v1
kind: Job
metadata:
  name: {name}
  labels: &labels
{indent(_labels(service.name, "migrate", frozenset({"postgres"})), " " * 4)}
spec:
  backoffLimit: 5
  activeDeadlineSeconds: 1800
  template:
    metadata:
      labels: *labels
    spec:
      restartPolicy: OnFailure
      serviceAccountName: crm
      automountServiceAccountToken: false
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        runAsGroup: 10001
        seccompProfile: {{type: RuntimeDefault}}
      containers:
        - name: migrate
          image: crm
          command: [python, -m, {service.package}, migrate]
          envFrom:
            - configMapRef: {{name: crm}}
          env:
            - name: POSTGRES_URL
              valueFrom: {{secretKeyRef: {{name: crm-{context}-postgres, key: url}}}}
            - name: POSTGRES_OWNER_URL
              valueFrom: {{secretKeyRef: {{name: crm-{context}-postgres-owner, key: url}}}}
            - name: POSTGRES_AUDITOR_URL  # the login that is made; without the secret there is none
              valueFrom: {{secretKeyRef: {{name: crm-{context}-postgres-auditor, key: url, optional: true}}}}
            - name: CRM_KEYS_URL
              valueFrom: {{secretKeyRef: {{name: crm-keys-postgres, key: url}}}}
            - name: CRM_KEYS_OWNER_URL
              valueFrom: {{secretKeyRef: {{name: crm-keys-postgres-owner, key: url}}}}
          resources:
            requests: {{cpu: 50m, memory: 128Mi}}
            limits: {{cpu: 500m, memory: 256Mi}}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
"""


def manifests() -> Iterator[tuple[str, str]]:
    """Path and text of the manifests of all services, and the list of them."""
    names = ["common.yaml", "network.yaml", *(f"{service.name}-migrate.yaml" for service in services())]
    for service in services():
        yield f"{BASE}/{service.name}-migrate.yaml", migration(service)
        for role in roles_of(service):
            names.append(f"{service.name}-{role}.yaml")
            yield f"{BASE}/{names[-1]}", deployment(service, role)
    listed = "".join(f"  - {name}\n" for name in names)
    yield (
        f"{BASE}/kustomization.yaml",
        f"# {HEAD}\napiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n{listed}",
    )


# Compose, alerts and pages: a part of a file between two marks


def containers() -> str:
    """The roles in compose, one container each."""
    found = [
        f"  {service.name}-migrate:\n    <<: *role\n    command: [python, -m, {service.package}, migrate]\n"
        "    environment: {<<: [*everybody, *postgres, *owners]}\n"
        for service in services()
    ]
    for number, service in enumerate(services()):
        for role in roles_of(service):
            needs = service.needs(role)
            told = [
                "everybody",
                *(
                    each
                    for each in ("postgres", "keys", "tokens", "mongo", "kafka", "files", "peers")
                    if each in needs
                ),
            ]
            found.append(
                f"  {service.name}-{role}:\n    <<: *role\n    command: [python, -m, {service.package}, {role}]\n"
                f"    environment: {{<<: [{', '.join(f'*{each}' for each in told)}]}}\n"
                + _volumes(needs)
                + (f'    ports: ["127.0.0.1:{FIRST_PORT + number}:8080"]\n' if role == "api" else "")
            )
    return "".join(found)


def _volumes(needs: frozenset[Need]) -> str:
    volumes = ["keys:/run/crm/keys:ro"] if needs & FILES.keys() else []
    volumes += ["files:/run/crm/files"] if "files" in needs else []
    return f"    volumes: {json.dumps(volumes)}\n" if volumes else ""


def gone() -> str:
    """The expression that sees a role of which no process is scraped."""
    names = [f"{service.name}-{role}" for service in services() for role in roles_of(service)]
    lines = [f'absent(crm_role_ready{{role="{name}"}})' for name in names]
    return "        expr: >-\n" + indent("\nor ".join(lines), " " * 10) + "\n"


def needs_of_roles() -> str:
    """The table of what each role is given."""
    heads = ("postgres", "keys", "mongo", "kafka", "files", "peers", "providers")
    rows = [
        "| role | PostgreSQL | keys | MongoDB | Kafka | storage of files | other APIs | providers | files |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for service in services():
        for role in roles_of(service):
            needs = service.needs(role)
            files = [
                text
                for need, text in {
                    "keys": "key-encryption key",
                    "tokens": "token keys",
                    "peers": "service token",
                    "receipts": "secrets of receipts",
                }.items()
                if need in needs
            ]
            cells = [f"`{service.name} {role}`", *("yes" if each in needs else "" for each in heads)]
            rows.append(
                f"| {' | '.join([*cells, ', '.join(files)])} |".replace("|  |", "| |").replace("|  |", "| |")
            )
    return "\n".join(rows) + "\n"


def between(path: str, mark: str, text: str) -> tuple[str, str]:
    """The file with `text` between the lines that hold `generated: <mark>` and `end: <mark>`."""
    lines = (ROOT / path).read_text().splitlines(keepends=True)
    [begin] = [number for number, line in enumerate(lines) if f"generated: {mark}" in line]
    [end] = [number for number, line in enumerate(lines) if f"end: {mark}" in line]
    return path, "".join([*lines[: begin + 1], text, *lines[end:]])


# Packages


def packages(pattern: str) -> list[str]:
    """The packages below a folder pattern, those of libs in the order of their layers."""
    return sorted(path.parent.name for path in ROOT.glob(f"{pattern}/src/*/__init__.py"))


def boundaries() -> str:
    """The contracts of import-linter, with those that a service adds in its `boundaries.ini`."""
    of_services = packages("services/*")
    everything = ["contracts", "chassis", "devservers", *of_services, "crm_cli"]
    domains = [name for name in of_services if list(ROOT.glob(f"services/*/src/{name}/domain/__init__.py"))]
    own = "".join(f"\n{path.read_text()}" for path in sorted(ROOT.glob("services/*/boundaries.ini")))
    text = (ROOT / "tools" / "importlinter.ini").read_text()
    lists = {
        "EVERYTHING": everything,
        "SERVICES": of_services,
        "IN_PRODUCTION": ["contracts", "chassis", *of_services],
        "OURS": ["contracts", "chassis", *of_services, "crm_cli"],
        "DOMAINS": [f"{name}.domain" for name in domains],
    }
    for mark, names in lists.items():
        text = text.replace(f"    {mark}\n", "".join(f"    {name}\n" for name in names))
    return text.replace("ANY_SERVICE", " | ".join(of_services)) + own


def groups() -> str:
    """The consumer groups of all services, as a module of `contracts`."""
    found = [group for service in services() for group in service.groups]
    rows = "".join(
        f'    "{group.name}": ({", ".join(f"{chr(34)}{topic}{chr(34)}" for topic in group.topics)},),\n'
        for group in found
    )
    return (
        '"""The consumer groups and the topics that they read. Generated from the services (`make generate`). Do not edit."""\n'
        f"\nfrom typing import Final\n\n# fmt: off\nGROUPS: Final[dict[str, tuple[str, ...]]] = {{\n{rows}}}\n"
    )


def routes_page() -> str:
    """The table of all routes: who may call each, and what is recorded of a command."""
    parts = [
        "# Routes\n",
        "Generated from the routes and tables of permissions of the services (`make generate`). Do not edit.\n",
        "A role that is not named may not call the route. `rows`: over those of the whole bank, over the caller's own, over those"
        "\nof its branch by the rule of the service, or over none, and why. `high` marks the events of a command as of high"
        "\nprivilege. The reason is in the body, or in the query where the body is no JSON. `from`: a command takes `effective_at`, or a"
        "\nbusiness date as `effective_on`, or neither, and why. A route of 202 proposes what another person approves.\n",
    ]
    for service in services():
        parts.append(f"## {service.context.name}\n")
        if service.scope:
            parts.append(f"{service.scope}\n")
        parts.append(
            "| route | | name | roles | rows | privilege | reason | from |\n|---|---|---|---|---|---|---|---|"
        )
        rows = [_row(service, route) for route in routes_of(service)]
        parts.append("\n".join(sorted(rows)) + "\n")
    return "\n".join(parts)


def routes_of(service: Service[Any]) -> list[APIRoute]:
    """The routes of a service; nothing is behind them."""
    nothing: Any = None
    router = service.router(nothing, dependencies(_never, service.rights, high=service.high_privilege))
    return [route for route in router.routes if isinstance(route, APIRoute)]


async def _never(context: str, position: int, seconds_max: float) -> bool:
    return False


def _row(service: Service[Any], route: APIRoute) -> str:
    name = route.name
    roles = ", ".join(sorted(service.permissions[name]))
    kind = command_of(route)
    said = ["", "", ""]
    if kind is not None:
        privilege = "high" if name in service.high_privilege else "normal"
        effect = kind.effective or f"none: {service.rights[name].undated}"
        said = [privilege, "required" if kind.reason_required else "optional", effect]
    if route.status_code == 202:
        said[0] += ", proposes"
    [method] = sorted(route.methods or ())
    rows = service.rights[name].scope.text
    return f"| {route.path} | {method} | `{name}` | {roles} | {rows} | {' | '.join(said)} |"


def conditions_page() -> str:
    """What conditions are made of, and the fields of every list with who may ask for them."""
    parts = [
        "# Conditions\n",
        "Generated from the language of conditions and the lists of the services (`make generate`). Do not edit.\n",
        "A condition is asked of a list, in a parameter or field `where`: as JSON, or as a line of text. Its JSON schema is the\n"
        "component `Condition` of `/openapi.json`, and in the answer of `GET /conditions/<context>`, which also lists the fields\n"
        "below. Windows count from the bank's business date, or from `as_of`.\n",
        f"A tree has {DEPTH_MAX} levels at most, and {CLAUSES_MAX} clauses.\n",
        "## Clauses\n",
        "| `op` | of a field of type | what it says | besides `field` |\n|---|---|---|---|",
    ]
    parts.append("\n".join([*map(_clause, CLAUSE_TYPES), *map(_clause, (Not, And, Or))]) + "\n")
    for service in services():
        for one in service.lists:
            listing = one.listing
            parts.append(f"## {service.context.name}: {listing.name}\n")
            said = [f"Asked by {_code(one.routes)}.", f"Sorted by {_code(listing.sorts)}."]
            if listing.searched:
                said.append(f"Searched by the whole value of {_code(listing.searched)}.")
            parts.append("\n".join(said) + "\n")
            parts.append(
                "| field | type | 中文 | English | data class | values | who may ask |\n" + "|---" * 7 + "|"
            )
            rows = [_asked_field(one, field, service.permissions) for field in listing.fields.values()]
            parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _clause(clause: type[BaseModel]) -> str:
    types = ", ".join(CLAUSE_TYPES.get(clause, ()))
    said = " ".join((clause.__doc__ or "").split())
    rest = [name for name in clause.model_fields if name not in {"op", "field"}]
    return f"| `{clause.model_fields['op'].default}` | {types} | {said} | {_code(rest)} |"


def _asked_field(one: AskedList, field: Field, callers: Mapping[str, frozenset[str]]) -> str:
    values = ", ".join(f"`{name}` {label.zh}" for name, label in field.values.items())
    roles = ", ".join(sorted(one.may_ask(field, callers)))
    label = field.label
    return f"| `{field.name}` | {field.type} | {label.zh} | {label.en} | {field.data_class} | {values} | {roles} |"


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def generated() -> dict[str, str]:
    """Every generated text by its path below the root."""
    return dict(
        [
            *manifests(),
            between("deploy/compose.yaml", "roles", containers()),
            between("deploy/monitoring/alerts.yaml", "roles", gone()),
            between("deploy/README.md", "roles", needs_of_roles()),
            (".importlinter", boundaries()),
            ("libs/contracts/src/contracts/groups.py", groups()),
            ("docs/routes.md", routes_page()),
            ("docs/conditions.md", conditions_page()),
        ]
    )


def left() -> list[Path]:
    """Manifests of services and roles that are gone."""
    found = (path for path in (ROOT / BASE).glob("*.yaml") if path.read_text().startswith(f"# {HEAD}"))
    return sorted(path for path in found if f"{BASE}/{path.name}" not in generated())


def main() -> int:
    """Writes what differs, removes what is left of what is gone, and names both."""
    for file in left():
        file.unlink()
        print(file.relative_to(ROOT))
    for path, text in generated().items():
        file = ROOT / path
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
